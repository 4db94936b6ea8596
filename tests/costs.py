"""What tests of billing share: a provider that tells costs, and served requests to ask it about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing import tables
from roadworthy.billing.records import Costs, Served
from roadworthy.billing.store import endpoints, recheck, usage
from roadworthy.billing.store.recheck import Posted
from roadworthy.database import Database
from roadworthy.http.message import Limits, Reply, Request
from roadworthy.sealing import Sealer

URL = "http://provider.test/v1/request-costs"

Answer = Callable[[list[str]], Reply]


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    """An answer; `body` is bytes, or goes as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Reply(status, (("content-type", "application/json"), *pairs), raw)


class CostProvider:
    """A transport with a provider behind it that knows what each id cost.

    `answers` are given first, one for each question, and may be replies or functions of the ids asked for.
    `asked` holds the ids of every question.
    """

    def __init__(self, costs: dict[str, int] | None = None) -> None:
        self.costs = dict(costs or {})
        self.answers: list[Reply | Answer] = []
        self.always: Answer | None = None
        self.asked: list[list[str]] = []
        self.keys: list[str | None] = []
        self.gate: asyncio.Event | None = None
        """While it is there and not set, answers wait."""

    async def send(self, request: Request, limits: Limits) -> Reply:
        del limits
        ids = json.loads(request.body or b"")["requestIds"]
        self.asked.append(ids)
        self.keys.append(next((value for name, value in request.headers if name == "Authorization"), None))
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if self.answers else self.always
        if isinstance(answer, Reply):
            return answer
        return self.told(ids) if answer is None else answer(ids)

    def told(self, ids: Sequence[str]) -> Reply:
        """What an honest provider says of these ids."""
        return reply({"requests": [{"requestId": id, "costNanoUsd": self.costs[id]} for id in ids if id in self.costs]})

    async def aclose(self) -> None:
        """Nothing is open."""


def served(request_id: str, provider: str = "acme", **more: Any) -> Served:
    """A request that a provider served."""
    values: dict[str, Any] = {
        "served_at_us": 1_760_000_000_000_000,
        "payer": "org:paying",
        "model": "owner/chat",
        "task": "conversational",
        "input_tokens": 10,
        "output_tokens": 20,
    }
    return Served(provider, request_id, **(values | more))


async def take_in(database: Database, *requests: Served) -> None:
    """Note served requests, as the intake does."""
    async with database.writing() as connection:
        await usage.take_in(connection, requests, await database.now_us(connection), "test")


async def unguarded(connection: AsyncConnection, table: str) -> None:
    """Let this connection's transaction break what the database's triggers keep."""
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        return
    query = sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :table")
    for name in (await connection.execute(query, {"table": table})).scalars().all():
        await connection.exec_driver_sql(f"DROP TRIGGER {name}")


async def register(database: Database, provider: str = "acme", url: str = URL, key: str | None = None) -> None:
    """A provider with a cost endpoint."""
    async with database.writing() as connection:
        await endpoints.register(
            connection, Sealer(None), provider, url, await database.now_us(connection), key=key, batch_size=10_000
        )


async def dispute(connection: AsyncConnection, usage_id: int, claimed: int, now_us: int) -> bool:
    """The provider tells another cost of a settled request; True where that opened a dispute."""
    row = (await connection.execute(sa.select(tables.usage).where(tables.usage.c.id == usage_id))).one()
    posted = Posted(row.id, row.request_id, row.cost_nano_usd)
    costs = Costs(posted={row.request_id: claimed})
    return (await recheck.compare(connection, row.provider, [posted], costs, now_us)).changed == 1
