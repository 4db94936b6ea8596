"""What tests of the collector share: a database whose clock can jump, what is in it, collectors to run and to kill."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from costs import CostProvider
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.collector import Collector
from roadworthy.billing.question import Question
from roadworthy.billing.schedule import SECOND_US, Policy
from roadworthy.billing.service import Billing
from roadworthy.billing.settings import BillingSettings
from roadworthy.billing.store import ledger
from roadworthy.billing.tables import entries, usage
from roadworthy.billing.turn import Came
from roadworthy.database import Database
from roadworthy.sealing import Sealer

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["roadworthy.billing.service", "costs"])
KILLED_AT = ("before fetch", "after fetch", "mid-transaction", "after commit")


class Clocked(Database):
    """A database whose clock the test sets forward and back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.shift_us = 0

    def pass_s(self, seconds: float) -> None:
        self.shift_us += int(seconds * SECOND_US)

    async def now_us(self, connection: AsyncConnection) -> int:
        return await super().now_us(connection) + self.shift_us


def collector_on(database: Database, provider: Any, policy: Policy | None = None, **options: Any) -> Collector:
    return Collector(database, options.pop("sealer", Sealer(None)), provider, policy, **options)


async def turn(database: Database, provider: Any, policy: Policy | None = None, **options: Any) -> list[Came]:
    """One turn of each provider that is due."""
    return await collector_on(database, provider, policy, **options).once()


async def rows(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    async with database.reading() as connection:
        found = await connection.execute(sa.select(table).order_by(*table.primary_key))
        return [row._asdict() for row in found]


async def states(database: Database) -> dict[str, str]:
    return {row["request_id"]: row["state"] for row in await rows(database, usage)}


async def tally(database: Database) -> Counter[str]:
    return Counter((await states(database)).values())


async def assert_sound(database: Database) -> None:
    """Invariants 1, 3, 4, 7 and 11, as far as one look at the tables tells."""
    told = await rows(database, usage)
    charges = {row["usage_id"]: row["amount_nano_usd"] for row in await rows(database, entries)}
    assert len(charges) == len(await rows(database, entries)), "invariant 1: a request is charged twice"
    settled = {row["id"]: row["cost_nano_usd"] for row in told if row["state"] == "settled"}
    assert settled.items() <= charges.items(), "invariant 7: settled without its charge"
    posted = {row["id"] for row in told if row["cost_nano_usd"] is not None}
    assert set(charges) == posted, "invariants 7 and 11: a charge without its request's cost"


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _collect_and_die(url: str, costs: dict[str, int], at: str) -> None:
    asyncio.run(_until_killed(url, CostProvider(costs), at))


async def _until_killed(url: str, provider: CostProvider, at: str) -> None:
    database = Database(url)
    collector = collector_on(database, provider)
    if at == "before fetch":
        provider.always = lambda _ids: _kill()
    elif at == "after fetch":
        answered = Question.answered

        async def and_die(self: Question) -> Any:
            await answered(self)
            _kill()

        Question.answered = and_die  # type: ignore[method-assign]
    elif at == "mid-transaction":
        charge = ledger._charge

        async def half(*values: Any) -> None:
            await charge(*values)
            _kill()

        ledger._charge = half
    else:
        collector._told = lambda _told: _kill()
    await collector.once()


def collect_and_die(url: str, costs: dict[str, int], at: str) -> int | None:
    """Collect in a process that kills itself with SIGKILL at this place; its exit code."""
    process = PROCESSES.Process(target=_collect_and_die, args=(url, costs, at))
    process.start()
    try:
        process.join(60)
        return process.exitcode
    finally:
        process.kill()
        process.join()
        process.close()


def _serve(url: str, settings: dict[str, Any], started: Any) -> None:
    asyncio.run(_until_told(url, BillingSettings(**settings), started))


async def _until_told(url: str, settings: BillingSettings, started: Any) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database = Database(url)
    async with Billing(database, Sealer(None), settings, allow_private=True):
        started.set()
        await stop.wait()
    await database.close()


@contextmanager
def collecting(url: str, **settings: Any) -> Iterator[Any]:
    """A process that collects from real endpoints, which has just begun; killed at the end unless it has ended."""
    started = PROCESSES.Event()
    process = PROCESSES.Process(target=_serve, args=(url, settings, started))
    process.start()
    try:
        assert started.wait(60)
        yield process
    finally:
        process.kill()
        process.join()
        process.close()
