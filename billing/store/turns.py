"""Whose turn it is to ask a provider, and for which ids.

A provider's lease is held by one collector at a time; its fence, which changes with every turn and whenever the
endpoint is changed or suspended, is what the collector must still hold when it settles. So one that was stopped
for an hour settles nothing when it goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.schedule import LEASE_MOST_S, SECOND_US
from roadworthy.billing.tables import PENDING, cost_endpoints, usage
from roadworthy.database import batched

MEND_AT_ONCE = 10_000
"""Rows given a new time in one transaction, so that writers wait for a fraction of a second only."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A provider to ask, held by `fence` until the lease ends. Times are microseconds by the database's clock."""

    provider: str
    fence: int
    url: str
    key_sealed: str | None
    failures: int
    batch_limit: int
    begun_us: int
    last_answer_us: int | None
    answering_since_us: int | None
    next_recheck_us: int | None


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which providers may be taken now. `next_turn_most_us`: a turn further away was set by a clock that was wrong."""

    next_turn_most_us: int
    only: Collection[str] | None = None
    but_not: Collection[str] = ()


def _waiting(provider: Any, now_us: int) -> sa.ColumnElement[bool]:
    return sa.and_(usage.c.provider == provider, PENDING, usage.c.next_ask_us <= now_us)


def _due(now_us: int, wanted: Wanted) -> sa.Select[Any]:
    at, lease = cost_endpoints.c.next_turn_us, cost_endpoints.c.lease_until_us
    query = sa.select(cost_endpoints).where(
        cost_endpoints.c.paused_at_us.is_(None),
        sa.or_(at <= now_us, at > now_us + wanted.next_turn_most_us),
        sa.or_(lease.is_(None), lease <= now_us, lease > now_us + LEASE_MOST_S * SECOND_US),
        sa.exists().where(_waiting(cost_endpoints.c.provider, now_us)),
    )
    if wanted.only is not None:
        query = query.where(cost_endpoints.c.provider.in_(list(wanted.only)))
    if wanted.but_not:
        query = query.where(cost_endpoints.c.provider.not_in(list(wanted.but_not)))
    return query.order_by(at, cost_endpoints.c.provider)


async def any_due(connection: AsyncConnection, now_us: int, wanted: Wanted) -> bool:
    """Whether some provider could be asked now; it takes no lock to know."""
    return (await connection.execute(_due(now_us, wanted).limit(1))).first() is not None


async def take(connection: AsyncConnection, now_us: int, lease_us: int, most: int, wanted: Wanted) -> list[Turn]:
    """Take up to `most` providers whose turn it is, oldest first; others pass over them until the lease ends."""
    rows = (await connection.execute(_due(now_us, wanted).limit(most).with_for_update(skip_locked=True))).all()
    turns = []
    for row in rows:
        await connection.execute(
            cost_endpoints.update()
            .where(cost_endpoints.c.provider == row.provider)
            .values(lease_until_us=now_us + lease_us, fence=row.fence + 1)
        )
        turns.append(
            Turn(
                row.provider,
                row.fence + 1,
                row.url,
                row.key_sealed,
                row.failures,
                row.batch_limit,
                now_us,
                row.last_answer_us,
                row.answering_since_us,
                row.next_recheck_us,
            )
        )
    return turns


async def hold(
    connection: AsyncConnection,
    turn: Turn,
    now_us: int,
    lease_us: int,
    *,
    answering_since_us: int | None = None,
    next_recheck_us: int | None = None,
) -> bool:
    """Hold the turn for longer, and lock it until the transaction ends. False where it was lost.

    `answering_since_us` notes an answer that has just come; `next_recheck_us`, when settled ids are asked for again.
    """
    values: dict[str, Any] = {"lease_until_us": now_us + lease_us}
    if answering_since_us is not None:
        values |= {"last_answer_us": now_us, "answering_since_us": answering_since_us}
    if next_recheck_us is not None:
        values["next_recheck_us"] = next_recheck_us
    return (await connection.execute(_mine(turn).values(**values))).rowcount == 1


async def give_back(
    connection: AsyncConnection, turn: Turn, next_turn_us: int, *, failures: int, batch_limit: int
) -> bool:
    """End the turn; the next is at that time. False where it was lost, and nothing is changed."""
    values: dict[str, Any] = {
        "lease_until_us": None,
        "next_turn_us": next_turn_us,
        "failures": failures,
        "batch_limit": batch_limit,
    }
    return (await connection.execute(_mine(turn).values(**values))).rowcount == 1


def _mine(turn: Turn) -> sa.Update:
    return cost_endpoints.update().where(
        cost_endpoints.c.provider == turn.provider, cost_endpoints.c.fence == turn.fence
    )


async def waiting(
    connection: AsyncConnection, provider: str, now_us: int, most: int, *, alone: bool = False, newest: bool = False
) -> list[Asked]:
    """The provider's ids to ask for now, in the order in which they fell due; those to ask `alone`, or the others.

    `newest` begins with those that fell due last.
    """
    order = [usage.c.next_ask_us, usage.c.id]
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
        .order_by(*(column.desc() for column in order) if newest else order)
        .limit(most)
    )
    return [Asked(*row) for row in await connection.execute(query)]


async def set_alone(connection: AsyncConnection, usage_ids: Sequence[int], *, alone: bool) -> None:
    """Ask for these ids by themselves from now on, or together with others again."""
    for some in batched(usage_ids):
        await connection.execute(usage.update().where(usage.c.id.in_(some)).values(alone=alone))


async def postpone(connection: AsyncConnection, usage_id: int, next_ask_us: int, problem: str) -> None:
    """Ask for an id later, for a reason of our own: it counts as no answer without it."""
    await connection.execute(
        usage.update().where(usage.c.id == usage_id, PENDING).values(next_ask_us=next_ask_us, problem=problem)
    )


async def asked_providers(connection: AsyncConnection, only: Collection[str] | None) -> list[str]:
    """The providers that are asked for costs, of those wanted: all but the suspended ones."""
    query = sa.select(cost_endpoints.c.provider).where(cost_endpoints.c.paused_at_us.is_(None))
    if only is not None:
        query = query.where(cost_endpoints.c.provider.in_(list(only)))
    return list((await connection.execute(query.order_by(cost_endpoints.c.provider))).scalars())


async def bring_forward(connection: AsyncConnection, provider: str, now_us: int) -> int:
    """The provider is due now, and so are some of its pending ids; how many, at most `MEND_AT_ONCE`.

    One that was suspended meanwhile is left as it is. Nobody settles for the provider until the transaction ends.
    """
    due = (
        cost_endpoints.update()
        .where(cost_endpoints.c.provider == provider, cost_endpoints.c.paused_at_us.is_(None))
        .values(next_turn_us=now_us)
    )
    if (await connection.execute(due)).rowcount == 0:
        return 0
    return await _make_due(connection, provider, now_us, now_us)


async def postponed_by_a_wrong_clock(connection: AsyncConnection, now_us: int, most_us: int) -> list[str]:
    """The providers with ids that would be asked for later than any that was given its time by the clock of today."""
    query = sa.select(cost_endpoints.c.provider).where(
        sa.exists().where(
            usage.c.provider == cost_endpoints.c.provider, PENDING, usage.c.next_ask_us > now_us + most_us
        )
    )
    return list((await connection.execute(query)).scalars())


async def mend(connection: AsyncConnection, provider: str, now_us: int, most_us: int) -> int:
    """Make some of those ids due now; how many, at most `MEND_AT_ONCE`."""
    return await _make_due(connection, provider, now_us, now_us + most_us)


async def _make_due(connection: AsyncConnection, provider: str, now_us: int, later_than_us: int) -> int:
    later = (
        sa.select(usage.c.id)
        .where(usage.c.provider == provider, PENDING, usage.c.next_ask_us > later_than_us)
        .limit(MEND_AT_ONCE)
    )
    done = await connection.execute(usage.update().where(usage.c.id.in_(later)).values(next_ask_us=now_us))
    return done.rowcount
