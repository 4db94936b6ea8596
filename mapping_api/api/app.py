"""The application: routes, errors and lifespan put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import roadworthy
from roadworthy.mapping_api.api import access, audit, failures, hub, partner
from roadworthy.mapping_api.api.limits import RateLimits
from roadworthy.mapping_api.api.request_ids import RequestIds
from roadworthy.mapping_api.service import Service


def create_app(service: Service) -> FastAPI:
    """The application around one service. Starting it reads the view; stopping it closes the database."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="roadworthy mapping service",
        version=roadworthy.__version__,
        summary="Which inference provider serves which hub model, under what name, and how well.",
        lifespan=lifespan,
        responses=failures.documented(429),
        redoc_url=None,
    )
    app.state.service = service
    failures.install(app)
    app.include_router(partner.router)
    app.include_router(hub.router)
    app.include_router(access.router)
    app.include_router(audit.router)
    app.add_middleware(RateLimits, settings=service.settings)
    app.add_middleware(RequestIds)
    return app
