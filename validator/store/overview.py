"""What the validator knows, for people: mappings with their health, runs, recordings, what is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import batched
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.records import Validation
from roadworthy.mapping_api.store import validations
from roadworthy.mapping_api.tables import mappings
from roadworthy.validator.health import Health, State
from roadworthy.validator.schedule import Periods, Urgency
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.store import health as health_rows
from roadworthy.validator.tables import due, endpoints, evidence, health, runs, validator_state

SUSPENDED = "mapping.suspended"
RESUMED = "mapping.resumed"


def _known() -> sa.Select[Any]:
    return (
        sa.select(
            mappings.c.id,
            mappings.c.provider,
            mappings.c.task,
            mappings.c.source,
            sa.func.coalesce(health.c.state, State.UNKNOWN).label("state"),
            sa.func.coalesce(health.c.active, sa.true()).label("active"),
            health.c.reason,
            health.c.since_us,
            health.c.last_run_us,
            due.c.due_at_us,
            due.c.urgency,
            due.c.lease_until_us,
            sa.func.coalesce(due.c.paused, sa.false()).label("paused"),
            endpoints.c.provider.is_not(None).label("has_endpoint"),
            endpoints.c.paused_at_us,
            endpoints.c.down_since_us,
            endpoints.c.quiet_until_us,
        )
        .outerjoin(health, health.c.mapping_id == mappings.c.id)
        .outerjoin(due, due.c.mapping_id == mappings.c.id)
        .outerjoin(endpoints, endpoints.c.provider == mappings.c.provider)
    )


async def known(
    connection: AsyncConnection, *, provider: str | None = None, ids: Sequence[str] | None = None
) -> list[Any]:
    """Each mapping with its health, due time and provider's state, by provider, task and source."""
    query = _known().order_by(mappings.c.provider, mappings.c.task, mappings.c.source)
    if provider is not None:
        query = query.where(mappings.c.provider == provider)
    if ids is None:
        return list(await connection.execute(query))
    rows: list[Any] = []
    for some in batched(ids):
        rows += await connection.execute(query.where(mappings.c.id.in_(some)))
    return rows


async def next_due(connection: AsyncConnection, limit: int) -> list[Any]:
    """The mappings that are due next, soonest first; without those that nobody runs."""
    query = _known().where(
        due.c.paused.is_(False), endpoints.c.paused_at_us.is_(None), endpoints.c.provider.is_not(None)
    )
    return list(await connection.execute(query.order_by(due.c.due_at_us, due.c.urgency, mappings.c.id).limit(limit)))


async def braked_since(connection: AsyncConnection) -> int | None:
    """When the brake went on; None while it is off."""
    since_us: int | None = (await connection.execute(sa.select(validator_state.c.braked_since_us))).scalar_one()
    return since_us


async def last_runs(connection: AsyncConnection, mapping_id: str, limit: int) -> list[Any]:
    """The last runs of a mapping, newest first."""
    query = sa.select(runs).where(runs.c.mapping_id == mapping_id)
    return list(await connection.execute(query.order_by(runs.c.ended_at_us.desc(), runs.c.id).limit(limit)))


async def runs_since(connection: AsyncConnection, ids: Sequence[str], since_us: int) -> dict[str, Any]:
    """The latest run of each of these mappings, where one ended since then."""
    found: dict[str, Any] = {}
    for some in batched(ids):
        query = sa.select(runs).where(runs.c.mapping_id.in_(some), runs.c.ended_at_us >= since_us)
        found |= {row.mapping_id: row for row in await connection.execute(query.order_by(runs.c.ended_at_us))}
    return found


async def recording(connection: AsyncConnection, mapping_id: str, *, failing: bool) -> bytes | None:
    """The recording of the mapping's latest failing or passing run, compressed."""
    query = sa.select(evidence.c.recording).where(
        evidence.c.mapping_id == mapping_id, evidence.c.kind == ("failing" if failing else "passing")
    )
    found: bytes | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def suspend(change: Change, rows: Sequence[Any], periods: Periods, reason: str) -> int:
    """Take mappings off the list and run them no more. Returns how many were not suspended before."""
    wanted = {row.id: row for row in rows if row.state != State.SUSPENDED}
    await due_rows.notice(change.connection, change.now_us, periods)
    await due_rows.suspend(change.connection, wanted, paused=True)
    suspended = Health(State.SUSPENDED, active=False, since_us=change.now_us, reason=reason)
    await _put(change, wanted, suspended, SUSPENDED)
    return len(wanted)


async def resume(change: Change, rows: Sequence[Any], periods: Periods) -> int:
    """End the suspension of mappings: each is due at once, and back on the list when it passes."""
    wanted = {row.id: row for row in rows if row.state == State.SUSPENDED}
    await due_rows.notice(change.connection, change.now_us, periods)
    await due_rows.suspend(change.connection, wanted, paused=False)
    await due_rows.bring_forward(change.connection, wanted, change.now_us, Urgency.AT_ONCE)
    waiting = Health(State.FAILING, active=False, since_us=change.now_us, reason="resumed; not yet validated again")
    await _put(change, wanted, waiting, RESUMED)
    return len(wanted)


async def _put(change: Change, wanted: dict[str, Any], becomes: Health, action: str) -> None:
    known_health = await health_rows.find(change.connection, wanted)
    verdicts = []
    for mapping_id, row in wanted.items():
        before = known_health.get(mapping_id, Health())
        now = Health(
            becomes.state,
            active=False,
            since_us=change.now_us,
            last_failure_us=before.last_failure_us,
            delisted_at_us=before.delisted_at_us,
            reason=becomes.reason,
        )
        await health_rows.keep(change.connection, {mapping_id: now}, (), change.now_us)
        last = await validations.find(change.connection, mapping_id)
        verdicts.append(
            Validation(mapping_id, active=False, validated_at_us=change.now_us) if last is None else _off(last)
        )
        told = {"state": now.state, "reason": now.reason}
        await change.record(action, mapping_id, provider=row.provider, before={"state": before.state}, after=told)
    told_of_all = {
        each.mapping_id: {"state": becomes.state, "reason": becomes.reason, "findings": []} for each in verdicts
    }
    published = await validations.publish_all(change, verdicts, told_of_all)
    for mapping_id in published:
        if wanted[mapping_id].active:
            was = known_health.get(mapping_id, Health())
            data = {"was": {"state": was.state, "reason": was.reason}} | told_of_all[mapping_id]
            await change.announce(validations.TAKEN_OFF, wanted[mapping_id].provider, mapping_id, data)


def _off(last: Validation) -> Validation:
    return replace(last, active=False)
