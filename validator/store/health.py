"""Health rows and what goes with them: runs, evidence, rollups."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import batched, insert_of
from roadworthy.mapping_api.names import new_id
from roadworthy.validator.health import Health, State
from roadworthy.validator.outcome import Outcome, Result
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store.due import Claim
from roadworthy.validator.tables import due, evidence, health, rollups, runs

HOUR_US = 3600 * SECOND_US
_FIELDS = ("state", "active", "since_us", "failures", "passes", "last_failure_us", "delisted_at_us", "reason")


async def find(connection: AsyncConnection, mapping_ids: Iterable[str]) -> dict[str, Health]:
    """The health of these mappings, as far as any is known."""
    found: dict[str, Health] = {}
    for some in batched(mapping_ids):
        rows = await connection.execute(sa.select(health).where(health.c.mapping_id.in_(some)))
        found |= {row.mapping_id: from_row(row) for row in rows}
    return found


def from_row(row: Any) -> Health:
    """A row of the table as a record."""
    values = {name: getattr(row, name) for name in _FIELDS}
    return Health(**values | {"state": State(row.state), "delisted_at_us": tuple(row.delisted_at_us)})


async def left_since(connection: AsyncConnection, since_us: Mapping[str, int]) -> dict[str, tuple[str, Health]]:
    """The mappings of these providers that left the list after each one's time: provider and health."""
    if not since_us:
        return {}
    query = (
        sa.select(health, due.c.provider)
        .join(due, due.c.mapping_id == health.c.mapping_id)
        .where(
            health.c.active.is_(False),
            health.c.since_us > min(since_us.values()),
            due.c.provider.in_(since_us),
        )
        .order_by(health.c.since_us, health.c.mapping_id)
    )
    rows = await connection.execute(query)
    return {row.mapping_id: (row.provider, from_row(row)) for row in rows if row.since_us > since_us[row.provider]}


async def keep(connection: AsyncConnection, changed: Mapping[str, Health], ran: Collection[str], now_us: int) -> None:
    """Write the health of mappings. Those that `ran` did so until now; of the others the last run stands."""
    rows = [
        {
            "mapping_id": mapping_id,
            **asdict(now),
            "delisted_at_us": list(now.delisted_at_us),
            "last_run_us": now_us if mapping_id in ran else None,
        }
        for mapping_id, now in changed.items()
    ]
    await _upsert(connection, health, rows, keep=("last_run_us",))


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that ended. `news`: it failed, and the mapping was active before."""

    claim: Claim
    outcome: Outcome
    news: bool


async def record(connection: AsyncConnection, ended: Sequence[Ended], now_us: int) -> None:
    """Write runs, their evidence and their share of the hour."""
    rows = [_run_row(each, now_us) for each in ended]
    if not rows:
        return
    await connection.execute(runs.insert(), rows)
    kept = [
        {
            "mapping_id": row["mapping_id"],
            "kind": "failing" if each.outcome.result is Result.FAILS else "passing",
            "run_id": row["id"],
            "recording": each.outcome.recording,
        }
        for row, each in zip(rows, ended, strict=True)
        if each.outcome.recording is not None and each.outcome.result is not Result.IN_DOUBT
    ]
    await _upsert(connection, evidence, kept)
    hours = [
        {"mapping_id": each.claim.mapping_id, "hour_us": now_us - now_us % HOUR_US} | _sums(each) for each in ended
    ]
    await _upsert(connection, rollups, hours, add=True)


def _run_row(ended: Ended, now_us: int) -> dict[str, Any]:
    outcome, figures = ended.outcome, ended.outcome.figures
    return {
        "id": new_id(),
        "mapping_id": ended.claim.mapping_id,
        "provider": ended.claim.provider,
        "ended_at_us": now_us,
        "result": outcome.result,
        "news": ended.news,
        "error_class": outcome.error_class,
        "summary": outcome.summary,
        "findings": list(outcome.findings),
        "time_to_first_token_s": figures.time_to_first_token_s,
        "throughput_tokens_per_s": figures.throughput_tokens_per_s,
        "total_time_s": figures.total_time_s,
        "requests": outcome.requests,
        "duration_s": outcome.duration_s,
    }


def _sums(ended: Ended) -> dict[str, float]:
    first = ended.outcome.figures.time_to_first_token_s
    throughput = ended.outcome.figures.throughput_tokens_per_s
    return {
        "runs": 1,
        "failures": int(ended.outcome.result is Result.FAILS),
        "degraded": int(ended.outcome.result is Result.DEGRADED),
        "time_to_first_token_sum_s": first or 0.0,
        "time_to_first_token_count": int(first is not None),
        "throughput_sum_tokens_per_s": throughput or 0.0,
        "throughput_count": int(throughput is not None),
    }


async def _upsert(
    connection: AsyncConnection,
    table: sa.Table,
    rows: Sequence[dict[str, Any]],
    *,
    add: bool = False,
    keep: tuple[str, ...] = (),
) -> None:
    """`add` to what is there, or replace it; columns to `keep` are replaced by values alone."""
    if rows:
        await connection.execute(
            _upsert_into(connection.dialect.name, table, frozenset(rows[0]), add, keep), list(rows)
        )


@functools.cache
def _upsert_into(
    dialect: str, table: sa.Table, names: frozenset[str], add: bool, keep: tuple[str, ...]
) -> postgresql.Insert | sqlite.Insert:
    """The statement; it is needed every second, and making it takes longer than running it."""
    statement = insert_of(dialect, table)
    keys = [column.name for column in table.primary_key]
    others = sorted(names.difference(keys))
    new = {name: (table.c[name] + statement.excluded[name] if add else statement.excluded[name]) for name in others}
    new |= {name: sa.func.coalesce(statement.excluded[name], table.c[name]) for name in keep}
    return statement.on_conflict_do_update(index_elements=keys, set_=new)
