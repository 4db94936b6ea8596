"""For those who run the service: is it alive, is it ready, what does it count."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from pydantic import BaseModel

from roadworthy.database import DatabaseUnavailableError, head
from roadworthy.mapping_api.api.context import ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.api.metrics import CONTENT_TYPE, Metrics
from roadworthy.mapping_api.errors import Unavailable
from roadworthy.mapping_api.service import Service

READY_TIMEOUT_S = 1.0
"""How long the database may take to show that it is there."""

router = APIRouter(tags=["operation"])
_version = sa.table("alembic_version", sa.column("version_num"))


class Operation:
    """The state of one application in operation: what it counts, and whether it is stopping."""

    def __init__(self, service: Service) -> None:
        """Ready as soon as the database is."""
        self.metrics = Metrics(service.view)
        self.stopping = False
        self.head = head()


async def _operation(request: Request) -> Operation:
    operation: Operation = request.app.state.operation
    return operation


OperationOf = Annotated[Operation, Depends(_operation)]


class Alive(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The process can serve, with the revision of its database's tables."""

    status: Literal["ok"] = "ok"
    database: str


@router.get("/", include_in_schema=False)
async def root() -> Response:
    """To the documentation."""
    return RedirectResponse("/docs", 307)


@router.get("/healthz", response_model=Alive)
async def alive() -> Alive:
    """Whether the process runs. Asks nothing else: a database that is down is no reason to restart it."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses=documented(503))
async def ready(service: ServiceOf, operation: OperationOf) -> Ready:
    """Whether requests can be served: the database answers within a second and has the tables this version needs."""
    if operation.stopping:
        raise Unavailable("the service is stopping; ask another one")
    try:
        async with asyncio.timeout(READY_TIMEOUT_S), service.database.reading() as connection:
            found = (await connection.execute(sa.select(_version.c.version_num))).scalar_one_or_none()
    except TimeoutError:
        raise Unavailable(f"the database did not answer within {READY_TIMEOUT_S:g} s") from None
    except DatabaseUnavailableError:
        raise Unavailable("the database does not answer, or has no tables") from None
    except sa.exc.ProgrammingError:
        raise Unavailable("the database has no tables; `roadworthy serve` makes them when it starts") from None
    if found != operation.head:
        raise Unavailable(f"the database is at revision {found}; this version needs {operation.head}")
    return Ready(database=found)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: ServiceOf, operation: OperationOf) -> Response:
    """What the service counts, in Prometheus' text form."""
    return Response(await operation.metrics.scrape(service), media_type=CONTENT_TYPE)
