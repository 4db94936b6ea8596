"""What the bench of a backlog and its test share: a provider that is down for three days, and what it left to do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import orjson
import psutil
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.collector import Collector
from roadworthy.billing.records import Served
from roadworthy.billing.schedule import SECOND_US, Policy
from roadworthy.billing.store import endpoints, usage
from roadworthy.database import Database
from roadworthy.http.message import Failure, FailureKind, Limits, Reply, Request
from roadworthy.sealing import Sealer

START_US = 1_800_000_000 * SECOND_US
DAYS = 3
AT_ONCE = 10_000
OTHERS_AT_ONCE = 20
"""So many requests of the other provider are served before each look."""
DOWN, WELL = "down", "well"


class ClockedDatabase(Database):
    """A database with a clock that the bench sets forward."""

    ahead_us = 0
    begun_s = time.monotonic()

    async def now_us(self, connection: AsyncConnection) -> int:
        """Real time passes on it, and what was skipped."""
        del connection
        return START_US + self.ahead_us + int((time.monotonic() - self.begun_s) * SECOND_US)


@dataclass
class Providers:
    """Both cost endpoints; one of them does not answer while it is down."""

    down: bool = True
    refused: int = 0
    last: int = -1
    disordered: int = 0
    asked: int = 0
    settled_well: dict[int, float] = field(default_factory=dict)

    async def send(self, request: Request, limits: Limits) -> Reply:
        """A cost for each id."""
        del limits
        ids = orjson.loads(request.body or b"")["requestIds"]
        if DOWN in request.url:
            if self.down:
                self.refused += 1
                return Reply(None, failure=Failure(FailureKind.REFUSED, "connection refused"))
            for id in ids:
                number = int(id)
                self.disordered += number < self.last
                self.last = max(self.last, number)
            self.asked += len(ids)
        else:
            self.settled_well |= dict.fromkeys(map(int, ids), time.monotonic())
        return Reply(200, (), orjson.dumps({"requests": [{"requestId": id, "costNanoUsd": 100} for id in ids]}))

    async def aclose(self) -> None:
        """Nothing is open."""


async def take_in(database: Database, provider: str, numbers: range) -> None:
    """Requests are served."""
    async with database.writing() as connection:
        now_us = await database.now_us(connection)
        served = [
            Served(provider, f"{number:09}", now_us, f"org:{number % 50}", "owner/chat", "conversational")
            for number in numbers
        ]
        await usage.take_in(connection, served, now_us, "bench")


@dataclass
class Drained:
    """What the bench saw."""

    refused: int
    seconds: float
    asked: int
    disordered: int
    rss_mb: list[float]
    waited_s: list[float]


async def drain(url: str, pending: int, batch_size: int = 10_000) -> Drained:
    """Three days without answers, then all of them."""
    database = ClockedDatabase(url)
    providers = Providers()
    policy = Policy(interval_s=0.2, batch_size=batch_size, recheck_ids_per_hour=0)
    collector = Collector(database, Sealer(None), providers, policy)
    async with database.writing() as connection:
        for name in (DOWN, WELL):
            now_us = await database.now_us(connection)
            await endpoints.register(
                connection, Sealer(None), name, f"http://{name}.test/", now_us, batch_size=policy.batch_size
            )
    hours = DAYS * 24
    for hour in range(hours):
        first, last = pending * hour // hours, pending * (hour + 1) // hours
        for start in range(first, last, AT_ONCE):
            await take_in(database, DOWN, range(start, min(start + AT_ONCE, last)))
        for _ in range(4):
            database.ahead_us += 900 * SECOND_US
            await collector.tick()
            await collector.idle()
    providers.down = False
    database.ahead_us += 3600 * SECOND_US
    process, begun_s, served = psutil.Process(), time.monotonic(), {}
    rss_mb, number = [], 0
    while providers.asked < pending or number > len(providers.settled_well):
        if providers.asked < pending and number == len(providers.settled_well):
            await take_in(database, WELL, range(number, number + OTHERS_AT_ONCE))
            served |= dict.fromkeys(range(number, number + OTHERS_AT_ONCE), time.monotonic())
            number += OTHERS_AT_ONCE
        await collector.tick()
        await asyncio.sleep(0.2)
        rss_mb.append(process.memory_info().rss / 2**20)
    await collector.idle()
    seconds = time.monotonic() - begun_s
    await database.close()
    waited_s = [at_s - served[each] for each, at_s in providers.settled_well.items()]
    return Drained(providers.refused, seconds, providers.asked, providers.disordered, rss_mb, waited_s)
