"""What is kept of the past, as pages and programs read it: hours, runs, the last failure, the next turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import batched
from roadworthy.mapping_api.tables import mappings
from roadworthy.validator.outcome import Result
from roadworthy.validator.store.health import HOUR_US
from roadworthy.validator.tables import due, endpoints, evidence, health, rollups, runs, validator_state

_SHORT = (
    *("id", "mapping_id", "ended_at_us", "result", "error_class", "summary", "time_to_first_token_s"),
    *("throughput_tokens_per_s", "total_time_s", "requests", "duration_s"),
)


@dataclass(frozen=True, slots=True)
class Span:
    """What the runs of a span of time showed. The means are of what was measured; None where nothing was."""

    start_us: int
    runs: int
    failures: int
    degraded: int
    time_to_first_token_s: float | None = None
    throughput_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunShort:
    """One run without its findings."""

    id: str
    mapping_id: str
    ended_at_us: int
    result: str
    error_class: str | None
    summary: str
    time_to_first_token_s: float | None
    throughput_tokens_per_s: float | None
    total_time_s: float | None
    requests: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed run with its findings: check, level, expected, got, remedy."""

    run: RunShort
    findings: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a mapping stands."""

    state: str
    active: bool
    since_us: int
    last_run_us: int | None


@dataclass(frozen=True, slots=True)
class Condition:
    """How a provider stands as a whole, as far as anybody set it or the validator found it."""

    paused: bool
    quiet_until_us: int | None
    down_since_us: int | None


async def standings(
    connection: AsyncConnection, *, since_us: int | None = None, provider: str | None = None
) -> dict[str, Standing]:
    """The health of all mappings; of those written since, or of one provider's, where that is asked."""
    query = sa.select(health.c.mapping_id, health.c.state, health.c.active, health.c.since_us, health.c.last_run_us)
    if since_us is not None:
        query = query.where(health.c.last_run_us >= since_us)
    if provider is not None:
        query = query.join(mappings, mappings.c.id == health.c.mapping_id).where(mappings.c.provider == provider)
    return {row[0]: Standing(row[1], row[2], row[3], row[4]) for row in await connection.execute(query)}


async def reasons(connection: AsyncConnection, mapping_ids: Sequence[str]) -> dict[str, str]:
    """Why these mappings stand as they do, as far as it is known."""
    found: dict[str, str] = {}
    for some in batched(mapping_ids):
        query = sa.select(health.c.mapping_id, health.c.reason).where(health.c.mapping_id.in_(some))
        found |= {row.mapping_id: row.reason for row in await connection.execute(query)}
    return found


async def conditions(connection: AsyncConnection) -> dict[str, Condition]:
    """How every provider stands."""
    query = sa.select(
        endpoints.c.provider, endpoints.c.paused_at_us, endpoints.c.quiet_until_us, endpoints.c.down_since_us
    )
    return {row[0]: Condition(row[1] is not None, row[2], row[3]) for row in await connection.execute(query)}


async def paused(connection: AsyncConnection) -> frozenset[str]:
    """The ids of the mappings that are paused one by one."""
    return frozenset((await connection.execute(sa.select(due.c.mapping_id).where(due.c.paused.is_(True)))).scalars())


async def braked_since_us(connection: AsyncConnection) -> int | None:
    """When the brake went on; None while it is off."""
    since_us: int | None = (await connection.execute(sa.select(validator_state.c.braked_since_us))).scalar_one()
    return since_us


async def provider_hours(
    connection: AsyncConnection, since_us: int, provider: str | None = None
) -> dict[str, dict[int, tuple[int, int, int]]]:
    """Of every provider's live mappings, by the hour since then: runs, failures, degraded. Staging ones are not told.

    Goes from mapping to mapping along the rollups' key, so what lies before costs nothing.
    """
    query = (
        sa.select(
            mappings.c.provider,
            rollups.c.hour_us,
            sa.func.sum(rollups.c.runs),
            sa.func.sum(rollups.c.failures),
            sa.func.sum(rollups.c.degraded),
        )
        .select_from(mappings.join(rollups, rollups.c.mapping_id == mappings.c.id))
        .where(mappings.c.status == "live", rollups.c.hour_us >= since_us)
        .group_by(mappings.c.provider, rollups.c.hour_us)
    )
    if provider is not None:
        query = query.where(mappings.c.provider == provider)
    return _by_provider(await connection.execute(query))


async def recent_provider_hours(
    connection: AsyncConnection, since_us: int
) -> dict[str, dict[int, tuple[int, int, int]]]:
    """The same of the last few hours, from the runs themselves, which can be found by time."""
    hour_us = (runs.c.ended_at_us - runs.c.ended_at_us % HOUR_US).label("hour_us")
    query = (
        sa.select(
            mappings.c.provider,
            hour_us,
            sa.func.count(),
            sa.func.count(sa.case((runs.c.result == Result.FAILS, 1))),
            sa.func.count(sa.case((runs.c.result == Result.DEGRADED, 1))),
        )
        .select_from(runs.join(mappings, mappings.c.id == runs.c.mapping_id))
        .where(runs.c.ended_at_us >= since_us, mappings.c.status == "live")
        .group_by(mappings.c.provider, hour_us)
    )
    return _by_provider(await connection.execute(query))


def _by_provider(rows: Iterable[Any]) -> dict[str, dict[int, tuple[int, int, int]]]:
    found: dict[str, dict[int, tuple[int, int, int]]] = {}
    for provider, hour_us, count, failures, degraded in rows:
        found.setdefault(provider, {})[int(hour_us)] = (int(count), int(failures), int(degraded))
    return found


async def spans(
    connection: AsyncConnection, mapping_ids: Sequence[str], since_us: int, span_us: int
) -> dict[str, list[Span]]:
    """What the runs of these mappings showed, span by span, the oldest first. Spans begin at multiples of their length.

    Spans without a run are left out.
    """
    start_us = (rollups.c.hour_us - rollups.c.hour_us % span_us).label("start_us")
    found: dict[str, list[Span]] = {mapping_id: [] for mapping_id in mapping_ids}
    for some in batched(mapping_ids):
        query = (
            sa.select(
                rollups.c.mapping_id,
                start_us,
                sa.func.sum(rollups.c.runs),
                sa.func.sum(rollups.c.failures),
                sa.func.sum(rollups.c.degraded),
                sa.func.sum(rollups.c.time_to_first_token_sum_s),
                sa.func.sum(rollups.c.time_to_first_token_count),
                sa.func.sum(rollups.c.throughput_sum_tokens_per_s),
                sa.func.sum(rollups.c.throughput_count),
            )
            .where(rollups.c.mapping_id.in_(some), rollups.c.hour_us >= since_us)
            .group_by(rollups.c.mapping_id, start_us)
            .order_by(rollups.c.mapping_id, start_us)
        )
        for row in await connection.execute(query):
            first = row[5] / row[6] if row[6] else None
            speed = row[7] / row[8] if row[8] else None
            found[row[0]].append(Span(int(row[1]), int(row[2]), int(row[3]), int(row[4]), first, speed))
    return found


async def next_due(connection: AsyncConnection, mapping_ids: Sequence[str]) -> dict[str, int]:
    """When these mappings are due next, microseconds since 1970."""
    found: dict[str, int] = {}
    for some in batched(mapping_ids):
        query = sa.select(due.c.mapping_id, due.c.due_at_us).where(due.c.mapping_id.in_(some))
        found |= {row.mapping_id: row.due_at_us for row in await connection.execute(query)}
    return found


async def last_runs(connection: AsyncConnection, mapping_id: str, limit: int) -> list[RunShort]:
    """The mapping's last runs, the newest first."""
    query = _short().where(runs.c.mapping_id == mapping_id)
    return await _runs(connection, query, limit)


async def provider_runs(
    connection: AsyncConnection, provider: str, *, before: tuple[int, str] | None, limit: int, result: str | None = None
) -> list[Failure]:
    """The provider's runs with their findings, the newest first; with `before`, those older than that time and id."""
    query = sa.select(*(runs.c[name] for name in _SHORT), runs.c.findings).where(runs.c.provider == provider)
    if before is not None:
        at_us, run_id = before
        query = query.where(
            # The first condition says no more than the second, but an index serves it.
            runs.c.ended_at_us <= at_us,
            sa.or_(runs.c.ended_at_us < at_us, runs.c.id < run_id),
        )
    if result is not None:
        query = query.where(runs.c.result == result)
    rows = await connection.execute(query.order_by(runs.c.ended_at_us.desc(), runs.c.id.desc()).limit(limit))
    return [Failure(_run(row), tuple(row.findings)) for row in rows]


async def last_failure(connection: AsyncConnection, mapping_id: str) -> Failure | None:
    """The mapping's last failed run; None where none is kept."""
    query = (
        sa.select(*(runs.c[name] for name in _SHORT), runs.c.findings)
        .where(runs.c.mapping_id == mapping_id, runs.c.result == Result.FAILS)
        .order_by(runs.c.ended_at_us.desc(), runs.c.id.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Failure(_run(row), tuple(row.findings))


async def failing_recording(connection: AsyncConnection, mapping_id: str, run_id: str) -> bytes | None:
    """The recording of this failed run, compressed; None where another one, or none, is kept."""
    query = sa.select(evidence.c.recording).where(
        evidence.c.mapping_id == mapping_id, evidence.c.kind == "failing", evidence.c.run_id == run_id
    )
    recording: bytes | None = (await connection.execute(query)).scalar_one_or_none()
    return recording


def _short() -> sa.Select[Any]:
    return sa.select(*(runs.c[name] for name in _SHORT))


async def _runs(connection: AsyncConnection, query: sa.Select[Any], limit: int) -> list[RunShort]:
    ordered = query.order_by(runs.c.ended_at_us.desc(), runs.c.id.desc()).limit(limit)
    return [_run(row) for row in await connection.execute(ordered)]


def _run(row: Any) -> RunShort:
    return RunShort(*(getattr(row, name) for name in _SHORT))
