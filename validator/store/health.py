"""Health rows and what goes with them: runs, evidence, rollups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api.names import new_id
from roadworthy.validator.health import Health, State
from roadworthy.validator.outcome import Outcome, Result
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store.due import Claim
from roadworthy.validator.tables import evidence, health, rollups, runs

HOUR_US = 3600 * SECOND_US
_FIELDS = ("state", "active", "since_us", "failures", "passes", "last_failure_us", "delisted_at_us", "reason")


async def find(connection: AsyncConnection, mapping_ids: Iterable[str]) -> dict[str, Health]:
    """The health of these mappings, as far as any is known."""
    rows = await connection.execute(sa.select(health).where(health.c.mapping_id.in_(list(mapping_ids))))
    return {row.mapping_id: from_row(row) for row in rows}


def from_row(row: Any) -> Health:
    """A row of the table as a record."""
    values = {name: getattr(row, name) for name in _FIELDS}
    return Health(**values | {"state": State(row.state), "delisted_at_us": tuple(row.delisted_at_us)})


async def keep(connection: AsyncConnection, mapping_id: str, now: Health, last_run_us: int) -> None:
    """Write a mapping's health."""
    row = asdict(now) | {"delisted_at_us": list(now.delisted_at_us), "last_run_us": last_run_us}
    statement = _insert(connection, health).values(mapping_id=mapping_id, **row)
    await connection.execute(statement.on_conflict_do_update(index_elements=["mapping_id"], set_=row))


async def record(connection: AsyncConnection, claim: Claim, outcome: Outcome, now_us: int, *, news: bool) -> str:
    """Write one run, its evidence and its share of the hour. Returns the run's id."""
    run_id = new_id()
    figures = outcome.figures
    await connection.execute(
        runs.insert().values(
            id=run_id,
            mapping_id=claim.mapping_id,
            provider=claim.provider,
            ended_at_us=now_us,
            result=outcome.result,
            news=news,
            error_class=outcome.error_class,
            summary=outcome.summary,
            findings=list(outcome.findings),
            time_to_first_token_s=figures.time_to_first_token_s,
            throughput_tokens_per_s=figures.throughput_tokens_per_s,
            total_time_s=figures.total_time_s,
            requests=outcome.requests,
            duration_s=outcome.duration_s,
        )
    )
    if outcome.recording is not None and outcome.result is not Result.IN_DOUBT:
        kind = "failing" if outcome.result is Result.FAILS else "passing"
        row = {"run_id": run_id, "recording": outcome.recording}
        statement = _insert(connection, evidence).values(mapping_id=claim.mapping_id, kind=kind, **row)
        await connection.execute(statement.on_conflict_do_update(index_elements=["mapping_id", "kind"], set_=row))
    await _roll_up(connection, claim.mapping_id, outcome, now_us)
    return run_id


async def _roll_up(connection: AsyncConnection, mapping_id: str, outcome: Outcome, now_us: int) -> None:
    first, throughput = outcome.figures.time_to_first_token_s, outcome.figures.throughput_tokens_per_s
    row = {
        "runs": 1,
        "failures": int(outcome.result is Result.FAILS),
        "degraded": int(outcome.result is Result.DEGRADED),
        "time_to_first_token_sum_s": first or 0.0,
        "time_to_first_token_count": int(first is not None),
        "throughput_sum_tokens_per_s": throughput or 0.0,
        "throughput_count": int(throughput is not None),
    }
    statement = _insert(connection, rollups).values(mapping_id=mapping_id, hour_us=now_us - now_us % HOUR_US, **row)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["mapping_id", "hour_us"],
            set_={name: rollups.c[name] + statement.excluded[name] for name in row},
        )
    )


def _insert(connection: AsyncConnection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
