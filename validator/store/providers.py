"""Providers as the validator sees them: what their last minutes showed, who is down, and the brake."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.validator.outcome import ErrorClass, Result
from roadworthy.validator.schedule import SECOND_US, Periods, Urgency
from roadworthy.validator.suspicion import Doubts, Minutes
from roadworthy.validator.tables import due, endpoints, runs, validator_state

_OF_A_WHOLE = (ErrorClass.NETWORK, ErrorClass.PROVIDER_5XX, ErrorClass.AUTH)
"""The classes of error that may mean that all of a provider is down."""


async def last_minutes(connection: AsyncConnection, now_us: int, doubts: Doubts) -> dict[str, Minutes]:
    """What each provider's runs in the window showed."""
    passed = runs.c.result.in_([Result.WORKS, Result.DEGRADED])
    failed = sa.and_(runs.c.result == Result.FAILS, runs.c.error_class.in_(_OF_A_WHOLE))
    query = (
        sa.select(
            runs.c.provider,
            _distinct_where(passed),
            _distinct_where(failed),
            _distinct_where(runs.c.news.is_(True)),
        )
        .where(runs.c.ended_at_us > now_us - doubts.window_s * SECOND_US)
        .group_by(runs.c.provider)
    )
    return {row[0]: Minutes(row[1], row[2], row[3]) for row in await connection.execute(query)}


def _distinct_where(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.distinct(sa.case((condition, runs.c.mapping_id))))


async def set_down(connection: AsyncConnection, provider: str, now_us: int, doubts: Doubts) -> None:
    """The provider is down: from now on one canary at a time."""
    await connection.execute(
        endpoints.update()
        .where(endpoints.c.provider == provider)
        .values(
            down_since_us=sa.func.coalesce(endpoints.c.down_since_us, now_us),
            next_canary_us=now_us + doubts.canary_s * SECOND_US,
        )
    )


async def set_up(connection: AsyncConnection, provider: str, now_us: int, periods: Periods) -> None:
    """The provider answers again: whatever waits for a retest may have it now, within the bounds."""
    await connection.execute(
        endpoints.update().where(endpoints.c.provider == provider).values(down_since_us=None, next_canary_us=None)
    )
    await connection.execute(
        due.update()
        .where(
            due.c.provider == provider,
            due.c.urgency == int(Urgency.RETEST),
            due.c.lease_until_us.is_(None),
            due.c.due_at_us <= now_us + periods.retest_s * SECOND_US,
        )
        .values(due_at_us=now_us)
    )


async def which_are_down(connection: AsyncConnection) -> set[str]:
    """The providers that are down."""
    query = sa.select(endpoints.c.provider).where(endpoints.c.down_since_us.is_not(None))
    return set((await connection.execute(query)).scalars())


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
