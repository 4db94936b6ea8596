"""Providers as the validator sees them: what their last minutes showed, who is down, and the brake."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.validator.outcome import ErrorClass, Result
from roadworthy.validator.schedule import SECOND_US, Urgency
from roadworthy.validator.suspicion import Doubts, Minutes
from roadworthy.validator.tables import due, endpoints, runs, validator_state

OF_A_WHOLE = (ErrorClass.NETWORK, ErrorClass.PROVIDER_5XX, ErrorClass.AUTH)
"""The classes of error that may mean that all of a provider is down."""


async def last_minutes(connection: AsyncConnection, now_us: int, doubts: Doubts) -> dict[str, Minutes]:
    """What each provider's runs in the window showed."""
    passed = runs.c.result.in_([Result.WORKS, Result.DEGRADED])
    recent = runs.c.ended_at_us > now_us - doubts.reach_s * SECOND_US
    last_pass = (
        sa.select(runs.c.provider, sa.func.max(sa.case((passed, runs.c.ended_at_us))).label("last_pass_us"))
        .where(recent, sa.or_(passed, runs.c.news))
        .group_by(runs.c.provider)
        .subquery()
    )
    # What fell before the last pass was a mapping's own matter.
    fell = sa.and_(runs.c.news, runs.c.ended_at_us > sa.func.coalesce(last_pass.c.last_pass_us, 0))
    query = (
        sa.select(
            last_pass.c.provider,
            last_pass.c.last_pass_us,
            _distinct_where(fell),
            _distinct_where(sa.and_(fell, runs.c.error_class.in_(OF_A_WHOLE))),
        )
        .join(runs, runs.c.provider == last_pass.c.provider)
        .where(recent)
        .group_by(last_pass.c.provider, last_pass.c.last_pass_us)
    )
    return {row[0]: Minutes(True, row[2], row[3], row[1]) for row in await connection.execute(query)}


def _distinct_where(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.distinct(sa.case((condition, runs.c.mapping_id))))


async def set_down(connection: AsyncConnection, provider: str, now_us: int, doubts: Doubts) -> None:
    """The provider is down: from now on one canary at a time, the next after a while, if need be before its turn."""
    next_us = now_us + doubts.canary_s * SECOND_US
    await connection.execute(
        endpoints.update()
        .where(endpoints.c.provider == provider)
        .values(down_since_us=sa.func.coalesce(endpoints.c.down_since_us, now_us), next_canary_us=next_us)
    )
    next_one = (
        sa.select(due.c.mapping_id)
        .where(due.c.provider == provider, due.c.paused.is_(False), due.c.lease_until_us.is_(None))
        .order_by(due.c.due_at_us, due.c.mapping_id)
        .limit(1)
        .scalar_subquery()
    )
    await connection.execute(
        due.update().where(due.c.mapping_id == next_one, due.c.due_at_us > next_us).values(due_at_us=next_us)
    )


async def set_up(connection: AsyncConnection, provider: str, now_us: int, doubts: Doubts) -> None:
    """The provider answers again: whatever waits for a retest has it soon, in the order in which it waits."""
    await connection.execute(
        endpoints.update().where(endpoints.c.provider == provider).values(down_since_us=None, next_canary_us=None)
    )
    latest = sa.select(sa.func.max(due.c.due_at_us)).where(*_retests(provider, now_us))
    latest_us = (await connection.execute(latest)).scalar_one()
    if latest_us is not None and latest_us > now_us + doubts.back_s * SECOND_US:
        # The times keep their order and distances, in proportion. The product stays far below 2 ** 63.
        sooner = now_us + (due.c.due_at_us - now_us) * doubts.back_s // ((latest_us - now_us) // SECOND_US)
        await connection.execute(due.update().where(*_retests(provider, now_us)).values(due_at_us=sooner))


def _retests(provider: str, now_us: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (due.c.provider == provider, due.c.urgency == int(Urgency.RETEST), due.c.due_at_us > now_us)


async def squeeze(connection: AsyncConnection, now_us: int, within_s: int, mapping_ids: Sequence[str]) -> None:
    """Have these mappings asked again within that time, one after another, where they are not due earlier."""
    step_us = within_s * SECOND_US // max(len(mapping_ids), 1)
    if mapping_ids:
        await connection.execute(
            due.update()
            .where(due.c.mapping_id == sa.bindparam("of"), due.c.due_at_us > sa.bindparam("at_us"))
            .values(due_at_us=sa.bindparam("at_us"), urgency=int(Urgency.RETEST)),
            [{"of": each, "at_us": now_us + place * step_us} for place, each in enumerate(mapping_ids, 1)],
        )


async def which_are_down(connection: AsyncConnection) -> dict[str, int]:
    """The providers that are down, and since when."""
    query = sa.select(endpoints.c.provider, endpoints.c.down_since_us).where(endpoints.c.down_since_us.is_not(None))
    return {row.provider: row.down_since_us for row in await connection.execute(query)}


async def waiting(connection: AsyncConnection, provider: str, now_us: int) -> list[tuple[str, int]]:
    """The provider's mappings that are due and not running, with their fences: those a canary stands for."""
    query = sa.select(due.c.mapping_id, due.c.fence).where(
        due.c.provider == provider,
        due.c.due_at_us <= now_us,
        due.c.paused.is_(False),
        sa.or_(due.c.lease_until_us.is_(None), due.c.lease_until_us <= now_us),
    )
    return [(row.mapping_id, row.fence) for row in await connection.execute(query)]


async def braked_since(connection: AsyncConnection) -> int | None:
    """When the brake went on; None while it is off."""
    since_us: int | None = (await connection.execute(sa.select(validator_state.c.braked_since_us))).scalar_one()
    return since_us


async def set_brake(connection: AsyncConnection, since_us: int | None) -> None:
    """Put the brake on, or take it off."""
    await connection.execute(validator_state.update().values(braked_since_us=since_us))
