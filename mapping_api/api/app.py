"""The application: routes, errors and lifespan put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

import roadworthy
from roadworthy.mapping_api.api import (
    access,
    audit,
    bulk,
    catalogue_v1,
    docs,
    failures,
    hub,
    operation,
    partner,
    tasks,
    webhooks,
)
from roadworthy.mapping_api.api.body_limit import BodyLimit
from roadworthy.mapping_api.api.headers import AnswerHeaders, Heads
from roadworthy.mapping_api.api.limits import RateLimits
from roadworthy.mapping_api.api.logs import Observed
from roadworthy.mapping_api.api.request_ids import RequestIds
from roadworthy.mapping_api.api.waking import WakeAfterWrites
from roadworthy.mapping_api.service import Service


def create_app(
    service: Service,
    *,
    routers: Sequence[APIRouter] = (),
    beside: Sequence[AbstractAsyncContextManager[Any]] = (),
) -> FastAPI:
    """The application around one service. Starting it reads the view; stopping it closes the database.

    `routers` are other houses' routes. `beside` are their parts that run while the service does.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            async with AsyncExitStack() as parts:
                for part in beside:
                    await parts.enter_async_context(part)
                yield
        finally:
            await service.stop()

    app = FastAPI(
        title="roadworthy mapping service",
        version=roadworthy.__version__,
        summary="Which inference provider serves which hub model, under what name, and how well.",
        lifespan=lifespan,
        docs_url=None,
        responses=failures.documented(429),
        redoc_url=None,
        redirect_slashes=False,  # to an address made of the caller's Host header
    )
    app.state.service = service
    app.state.operation = operation.Operation(service)
    failures.install(app)
    app.include_router(partner.router)
    app.include_router(bulk.router)
    app.include_router(hub.router)
    app.include_router(tasks.router)
    app.include_router(catalogue_v1.router)
    app.include_router(webhooks.router)
    app.include_router(access.router)
    app.include_router(audit.router)
    app.include_router(operation.router)
    for router in routers:
        app.include_router(router)
    docs.install(app)
    # The last one added is the outermost.
    app.add_middleware(WakeAfterWrites, wake=service.deliverer.wake)
    app.add_middleware(Heads)
    app.add_middleware(
        BodyLimit,
        limit_bytes=service.settings.max_body_bytes,
        bulk_limit_bytes=service.settings.max_bulk_body_bytes,
    )
    app.add_middleware(RateLimits, settings=service.settings)
    app.add_middleware(Observed, metrics=app.state.operation.metrics)
    app.add_middleware(AnswerHeaders)
    app.add_middleware(RequestIds)
    return app
