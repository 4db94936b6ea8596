"""Whose turn it is to ask a provider, and for which ids.

A provider's lease is held by one collector at a time; its fence, which grows with every turn, is what the
collector must still hold when it settles. So one that was stopped for an hour settles nothing when it goes on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.tables import PENDING, cost_endpoints, usage


@dataclass(frozen=True, slots=True)
class Turn:
    """A provider to ask, held by `fence` until the lease ends."""

    provider: str
    fence: int
    url: str
    key_sealed: str | None
    failures: int
    batch_limit: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A pending id, with what settling it needs."""

    id: int
    request_id: str
    payer: str
    model: str
    served_at_us: int
    asks: int
    first_missing_us: int | None


def _waiting(provider: Any, now_us: int) -> sa.ColumnElement[bool]:
    return sa.and_(usage.c.provider == provider, PENDING, usage.c.next_ask_us <= now_us)


def _due(now_us: int, only: Collection[str] | None) -> sa.Select[Any]:
    query = sa.select(cost_endpoints).where(
        cost_endpoints.c.paused_at_us.is_(None),
        cost_endpoints.c.next_turn_us <= now_us,
        sa.or_(cost_endpoints.c.lease_until_us.is_(None), cost_endpoints.c.lease_until_us <= now_us),
        sa.exists().where(_waiting(cost_endpoints.c.provider, now_us)),
    )
    if only is not None:
        query = query.where(cost_endpoints.c.provider.in_(only))
    return query.order_by(cost_endpoints.c.next_turn_us)


async def any_due(connection: AsyncConnection, now_us: int, only: Collection[str] | None = None) -> bool:
    """Whether some provider could be asked now; it takes no lock to know."""
    return (await connection.execute(_due(now_us, only).limit(1))).first() is not None


async def take(
    connection: AsyncConnection, now_us: int, lease_us: int, most: int, only: Collection[str] | None = None
) -> list[Turn]:
    """Take up to `most` providers whose turn it is, oldest first; others pass over them until the lease ends."""
    rows = (await connection.execute(_due(now_us, only).limit(most).with_for_update(skip_locked=True))).all()
    turns = []
    for row in rows:
        await connection.execute(
            cost_endpoints.update()
            .where(cost_endpoints.c.provider == row.provider)
            .values(lease_until_us=now_us + lease_us, fence=row.fence + 1)
        )
        turns.append(Turn(row.provider, row.fence + 1, row.url, row.key_sealed, row.failures, row.batch_limit))
    return turns


async def hold(connection: AsyncConnection, turn: Turn, now_us: int, lease_us: int) -> bool:
    """Hold the turn for longer, and lock it until the transaction ends. False where it was lost."""
    done = await connection.execute(_mine(turn).values(lease_until_us=now_us + lease_us))
    return done.rowcount == 1


async def give_back(
    connection: AsyncConnection,
    turn: Turn,
    next_turn_us: int,
    *,
    failures: int,
    batch_limit: int,
    answered_at_us: int | None = None,
) -> bool:
    """End the turn; the next is at that time. False where it was lost, and nothing is changed."""
    values: dict[str, Any] = {
        "lease_until_us": None,
        "next_turn_us": next_turn_us,
        "failures": failures,
        "batch_limit": batch_limit,
    }
    if answered_at_us is not None:
        values["last_answer_us"] = answered_at_us
    return (await connection.execute(_mine(turn).values(**values))).rowcount == 1


def _mine(turn: Turn) -> sa.Update:
    return cost_endpoints.update().where(
        cost_endpoints.c.provider == turn.provider, cost_endpoints.c.fence == turn.fence
    )


async def waiting(
    connection: AsyncConnection, provider: str, now_us: int, most: int, *, alone: bool = False
) -> list[Asked]:
    """The provider's ids to ask for now, in the order in which they fell due; those to ask `alone`, or the others."""
    query = (
        sa.select(
            usage.c.id,
            usage.c.request_id,
            usage.c.payer,
            usage.c.model,
            usage.c.served_at_us,
            usage.c.asks,
            usage.c.first_missing_us,
        )
        .where(_waiting(provider, now_us), usage.c.alone.is_(alone))
        .order_by(usage.c.next_ask_us, usage.c.id)
        .limit(most)
    )
    return [Asked(*row) for row in await connection.execute(query)]


async def set_apart(connection: AsyncConnection, usage_ids: Collection[int]) -> None:
    """Ask for these ids by themselves from now on."""
    await connection.execute(usage.update().where(usage.c.id.in_(list(usage_ids))).values(alone=True))
