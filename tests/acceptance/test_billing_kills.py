"""kill -9 of a collector, again and again: its ledger is the provider's own record to the nano-dollar.

ROADWORTHY_BILLING_KILLS=1000000:100 makes a longer run of it: so many ids, and so many kills.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from cost_server import cost_of, cost_server, record_of
from costs import register, served, take_in
from validating import PROCESSES

from roadworthy.billing.collector import Collector
from roadworthy.billing.schedule import Policy
from roadworthy.billing.tables import balances, batches, cost_endpoints, disputes, entries, usage
from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.sealing import Sealer

IDS, KILLS = map(int, os.environ.get("ROADWORTHY_BILLING_KILLS", "30000:20").split(":"))
LONG = IDS > 100_000
BATCH = 10_000 if LONG else 250
LIVES_S = (0.0, 1.5 if LONG else 0.2)
LEASE_S = 1.0 if LONG else 0.25
TAKEN_IN_AT_ONCE = 10_000
SEED = 20261121
PAYERS = 7


def policy():
    """As the real one, but in haste: a killed collector's lease is over soon, and ids are asked for again at once."""
    return Policy(
        interval_s=0.1,
        batch_size=BATCH,
        ask_again_s=0.2,
        ask_again_most_s=0.5,
        timeout_s=30,
        lease_s=LEASE_S,
        backoff_s=0.05,
        backoff_most_s=0.2,
    )


def collect(url):
    asyncio.run(_collect(url))


async def _collect(url):
    collector = Collector(Database(url), Sealer(None), AiohttpTransport(guard=Guard(allow_private=True)), policy())
    while True:
        await collector.tick()
        await asyncio.sleep(0.02)


def at_work(cost_url, asked):
    """Wait until a collector asks, however slow the machine is to start it; or until there seems nothing to ask for."""
    deadline = time.monotonic() + 10
    while record_of(cost_url)["questions"] == asked and time.monotonic() < deadline:
        time.sleep(0.005)


@contextmanager
def collecting(url):
    """A process with a collector, killed at the end."""
    process = PROCESSES.Process(target=collect, args=(url,))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
        assert process.exitcode == -9, "the collector ended by itself"
        process.close()


def request(number):
    return served(
        f"request-{number}",
        payer=f"org:{number % PAYERS}",
        model=f"acme/model-{number % 3}",
        served_at_us=1_760_000_000_000_000 + number * 1_000_000,
    )


async def prepare(url, cost_url):
    database = Database(url)
    await register(database, url=cost_url)
    for start in range(0, IDS, TAKEN_IN_AT_ONCE):
        await take_in(database, *map(request, range(start, min(start + TAKEN_IN_AT_ONCE, IDS))))
    async with database.writing() as connection:
        await connection.execute(cost_endpoints.update().values(batch_limit=BATCH))
    await database.close()


async def pending(database):
    query = sa.select(sa.func.count()).select_from(usage).where(usage.c.state == "pending")
    async with database.reading() as connection:
        return (await connection.execute(query)).scalar_one()


async def drained(url):
    database = Database(url)
    deadline = time.monotonic() + 30 + IDS / 1000
    while await pending(database):
        assert time.monotonic() < deadline, f"{await pending(database)} ids are in limbo"
        await asyncio.sleep(0.2)
    await database.close()


async def assert_equal_to_the_record(url, record):
    database = Database(url)
    charged, by_payer = Counter(), Counter()
    async with database.reading() as connection:
        query = sa.select(usage.c.request_id, usage.c.payer, usage.c.state, usage.c.cost_nano_usd, entries).outerjoin(
            entries, entries.c.usage_id == usage.c.id
        )
        async for row in await connection.stream(query):
            charged[row.request_id] += row.kind == "charge"
            by_payer[row.payer] += row.amount_nano_usd
            right = ("settled", cost_of(row.request_id), cost_of(row.request_id), f"payer:{row.payer}", "provider:acme")
            found = (row.state, row.cost_nano_usd, row.amount_nano_usd, row.debit_account, row.credit_account)
            assert found == right, row.request_id
        sums = (await connection.execute(sa.select(balances))).all()
        noted = (await connection.execute(sa.select(batches))).all()
        assert (await connection.execute(sa.select(sa.func.count()).select_from(disputes))).scalar_one() == 0
    await database.close()
    assert len(charged) == IDS, "invariant 11: some id was lost"
    assert set(charged.values()) == {1}, "invariant 1: some id was charged twice, or not at all"
    assert record["ids"] == IDS
    assert sum(by_payer.values()) == record["nano_usd"], "the ledger is not the provider's own record"
    assert sum(row.requests for row in sums) == IDS
    balanced = Counter()
    for row in sums:
        balanced[row.payer] += row.charged_usd * 10**9 + row.charged_nano
        assert (row.credited_usd, row.credited_nano) == (0, 0)
    assert balanced == by_payer, "invariant 7: the balances are not the sums of the ledger"
    assert sum(row.settled for row in noted) == IDS, "invariant 7: what was noted is not what was settled"
    return record["questions"] - len(noted)


@pytest.mark.timeout(0 if LONG else 240)
def test_killed_at_random_moments_the_ledger_is_the_providers_record(fresh_database):
    url = fresh_database()
    chance = random.Random(SEED)
    with cost_server() as cost_url:
        asyncio.run(prepare(url, cost_url))
        begun = time.monotonic()
        for _ in range(KILLS):
            asked = record_of(cost_url)["questions"]
            with collecting(url):
                at_work(cost_url, asked)
                time.sleep(chance.uniform(*LIVES_S))
        killed_s, left = time.monotonic() - begun, asyncio.run(_pending_at(url))
        with collecting(url):
            asyncio.run(drained(url))
        record = record_of(cost_url)
        lost = asyncio.run(assert_equal_to_the_record(url, record))
    if LONG:
        told = f"{IDS} ids, {KILLS} kills in {killed_s:.0f} s, {left} left then, all settled after "
        sys.stdout.write(f"\n{told}{time.monotonic() - begun:.0f} s; {lost} answers lost; {record}\n")
    assert lost > 0, "no kill hit a question"


async def _pending_at(url):
    database = Database(url)
    try:
        return await pending(database)
    finally:
        await database.close()
