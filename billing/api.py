"""Taking in usage over HTTP: `POST /api/usage`, for the hub's gateways.

What the service around these routes has of its own (who may come in, how bodies are read, what a refusal looks
like, which providers there are) is handed in as a `Host`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from roadworthy import strict_json
from roadworthy.billing.items import ITEM_SCHEMA, ItemReader, Problem, shown, wire_name
from roadworthy.billing.records import Served
from roadworthy.billing.store import endpoints, gateways, usage
from roadworthy.billing.store.gateways import Gateway
from roadworthy.billing.store.usage import TakenIn
from roadworthy.database import Database
from roadworthy.database.failures import OutcomeUnknownError

MAX_ITEMS = 10_000
PROBLEMS_SHOWN = 5
"""Of one item; there may be thousands of items."""

Refused = Callable[[int, str], Exception]


@dataclass(frozen=True, slots=True)
class Host:
    """What the service around the routes does for them."""

    database: Database
    gateway: Callable[[Request], Awaitable[Gateway]]
    """Who asks; raises the service's own refusals for who may not hand in usage."""
    body: Callable[[Request], Awaitable[bytes]]
    """The body as JSON text, bounded; raises the service's own refusals."""
    providers: Callable[[], Awaitable[Collection[str]]]
    """The slugs that are registered."""
    refused: Refused
    """The service's refusal of that status, with a sentence: 400, 401 and 503."""
    documented: Callable[..., dict[int | str, dict[str, Any]]]
    """The OpenAPI entries of refusals by their statuses."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ConflictingItem(_Answer):
    """A request that was told before with other contents, which stand. `position` counts from 0."""

    position: Annotated[int, Field(ge=0)]
    provider: str
    request_id: str = Field(alias="requestId")
    fields: list[str] = Field(description="In which fields it differs from what was told first.")


class RejectedField(_Answer):
    """One field of one item that cannot be used. `field` is empty where the item as a whole cannot."""

    position: Annotated[int, Field(ge=0)]
    field: str
    expected: str
    got: str


class UsageAnswer(_Answer):
    """What became of the requests: `new` are stored now, `known` were stored before with the same contents."""

    new: Annotated[int, Field(ge=0)]
    known: Annotated[int, Field(ge=0)]
    conflicts: list[ConflictingItem]
    rejected: list[RejectedField]


class RejectedUsage(_Answer):
    """Nothing was stored. `rejected` names every item that cannot be used, with up to 5 fields of each."""

    error: str
    rejected: list[RejectedField]


_BODY = {
    "title": "Usage",
    "type": "object",
    "additionalProperties": False,
    "required": ["requests"],
    "properties": {"requests": {"type": "array", "maxItems": MAX_ITEMS, "items": ITEM_SCHEMA}},
}
_PARAMETERS = ("partial", "late")


@dataclass(frozen=True, slots=True)
class Read:
    """A body as it was read: the items that can be used, with their positions, and what is wrong with the others."""

    served: list[Served]
    positions: list[int]
    problems: dict[int, list[Problem]]

    def rejected(self) -> list[dict[str, Any]]:
        """The problems as answers tell them."""
        return [
            {"position": position, "field": each.field, "expected": each.expected, "got": each.got}
            for position, problems in self.problems.items()
            for each in problems[:PROBLEMS_SHOWN]
        ]


def router(host: Host) -> APIRouter:
    """The routes, for the service that `host` stands for."""
    routes = APIRouter(prefix="/api/usage", tags=["billing"])

    async def admitted(request: Request) -> None:
        request.state.gateway = await host.gateway(request)

    @routes.post(
        "",
        response_model=UsageAnswer,
        dependencies=[Depends(admitted)],  # before the body, so that a stranger's is not read
        responses=host.documented(400, 401, 403, 413, 415, 503)
        | {422: {"model": RejectedUsage, "description": "Some items cannot be used. Nothing was stored."}},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}}},
    )
    async def hand_in(
        request: Request,
        partial: Annotated[
            bool, Query(description="Store the items that can be used, and list the others, in place of nothing.")
        ] = False,
        late: Annotated[bool, Query(description="Take requests that were served more than 35 days ago, too.")] = False,
    ) -> Response:
        """Hand in requests that providers served, up to 10,000 at once; each counts once, however often it is told.

        For gateways, with a token made by `roadworthy billing gateway create`. A request is known by its provider
        and its id. Told again with the same contents it is `known`; with others it is listed under `conflicts`,
        and what was told first stands. When the answer is 200, what it counts is stored for good, so a client that
        got no answer just sends the same again. The body may be compressed with gzip.
        """
        _check_parameters(request, host.refused)
        gateway: Gateway = request.state.gateway
        raw = await host.body(request)
        known = {*await host.providers()}
        async with host.database.reading() as connection:
            known |= {each.provider for each in await endpoints.list_all(connection)}
            reader = ItemReader(known, await host.database.now_us(connection), late=late)
        # Thousands of items take a moment; others are served meanwhile.
        read = await asyncio.to_thread(_read, raw, reader, host.refused)
        if read.problems and not partial:
            return _json(422, {"error": _sentence(read), "rejected": read.rejected()})
        taken = await _store(host, gateway, read.served)
        return _json(200, _told(read, taken))

    return routes


def _check_parameters(request: Request, refused: Refused) -> None:
    unknown = [name for name in request.query_params if name not in _PARAMETERS]
    if unknown:
        raise refused(
            400,
            f"{shown(unknown[0])}: there is no such parameter; known here: {', '.join(_PARAMETERS)}. "
            "Nothing was stored",
        )


def _read(raw: bytes, reader: ItemReader, refused: Refused) -> Read:
    try:
        value = strict_json.parse(raw)
    except strict_json.JsonTextError as error:
        raise refused(400, f"the body {error}") from None
    if type(value) is not dict or type(value.get("requests")) is not list or len(value) > 1:
        raise refused(400, f'expected {{"requests": [...]}} and nothing beside it; got {shown(value)}')
    items: Sequence[Any] = value["requests"]
    if len(items) > MAX_ITEMS:
        raise refused(400, f"expected at most {MAX_ITEMS:,} requests at once, got {len(items):,}; send several bodies")
    read = Read([], [], {})
    for position, item in enumerate(items):
        made = reader.read(item)
        if isinstance(made, Served):
            read.served.append(made)
            read.positions.append(position)
        else:
            read.problems[position] = made
    return read


def _sentence(read: Read) -> str:
    position, problems = next(iter(read.problems.items()))
    count = len(read.served) + len(read.problems)
    return (
        f"{len(read.problems)} of {count} requests cannot be used, so nothing was stored; `rejected` lists them all, "
        f"and ?partial=true stores the others. The first is at position {position}: {problems[0]}"
    )


async def _store(host: Host, gateway: Gateway, served: Sequence[Served]) -> TakenIn:
    if not served:
        return TakenIn(0, 0)
    try:
        async with host.database.writing() as connection:
            if not await gateways.works(connection, gateway.id):
                raise host.refused(401, "the gateway's token was revoked meanwhile; nothing was stored")
            now_us = await host.database.now_us(connection)
            return await usage.take_in(connection, served, now_us, f"gateway:{gateway.id}")
    except OutcomeUnknownError:
        raise host.refused(
            503,
            "the database broke off while the requests were stored, so they may be there or not. Send the same "
            "again: what is there is known then",
        ) from None


def _told(read: Read, taken: TakenIn) -> dict[str, Any]:
    return {
        "new": taken.new,
        "known": taken.known,
        "conflicts": [
            {
                "position": read.positions[place],
                "provider": read.served[place].provider,
                "requestId": read.served[place].request_id,
                "fields": [wire_name(name) for name in taken.differing[place]],
            }
            for place in taken.conflicts
        ],
        "rejected": read.rejected(),
    }


def _json(status: int, value: Any) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
