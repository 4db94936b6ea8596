"""Asking for settled costs again: one that is another now is disputed, and what was posted stays as it is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import Costs, Reason, State
from roadworthy.billing.store.ledger import storable
from roadworthy.billing.tables import disputes, entries, usage
from roadworthy.database import batched

_PLACES = 10
"""A sample is taken from so many places of the time that it is about."""
_LOOKED_AT = 10
"""Rows looked at for each one wanted, so that places where little is settled cost little."""
_SETTLED = sa.text("state = 'settled'")


@dataclass(frozen=True, slots=True)
class Posted:
    """A settled id and what was posted for it."""

    id: int
    request_id: str
    cost_nano_usd: int


@dataclass(frozen=True, slots=True)
class Rechecked:
    """How many settled ids were told the same cost as before, another one, or none that can be read."""

    same: int = 0
    changed: int = 0
    untold: int = 0

    def __add__(self, other: Rechecked) -> Rechecked:
        """The sum, kind by kind."""
        return Rechecked(self.same + other.same, self.changed + other.changed, self.untold + other.untold)


async def sample(
    connection: AsyncConnection, provider: str, served: tuple[int, int], most: int, jitter: random.Random
) -> list[Posted]:
    """Some of the provider's settled ids, from several places of the time in which they were served: from, until."""
    since_us, until_us = served
    each = -(-most // _PLACES)
    found: dict[int, Posted] = {}
    at = usage.c.served_at_us
    for _ in range(_PLACES):
        place_us = since_us + int(jitter.random() * max(until_us - since_us, 0))
        # What was served from there on, and where that is little, before it: few requests are found, too.
        for around, order in (
            (at.between(place_us, until_us), (at, usage.c.id)),
            (at.between(since_us, place_us), (at.desc(), usage.c.id.desc())),
        ):
            looked_at = (
                sa.select(usage.c.id, usage.c.request_id, usage.c.cost_nano_usd, usage.c.state)
                .where(usage.c.provider == provider, around)
                .order_by(*order)
                .limit(each * _LOOKED_AT)
                .subquery()
            )
            query = (
                sa.select(looked_at.c.id, looked_at.c.request_id, looked_at.c.cost_nano_usd)
                .where(looked_at.c.state == State.SETTLED.value)
                .limit(each)
            )
            here = {row.id: Posted(*row) for row in await connection.execute(query)}
            found |= here
            if len(here) >= each:
                break
    return list(found.values())[:most]


async def page(
    connection: AsyncConnection, provider: str, since_us: int, after: tuple[int, int], most: int
) -> tuple[list[Posted], tuple[int, int]]:
    """The provider's settled ids served since then, in order; and where the next page begins: `after` which row."""
    key = sa.tuple_(usage.c.served_at_us, usage.c.id)
    query = (
        sa.select(usage.c.id, usage.c.request_id, usage.c.cost_nano_usd, usage.c.served_at_us)
        .where(usage.c.provider == provider, usage.c.served_at_us >= max(since_us, after[0]), key > sa.tuple_(*after))
        .where(_SETTLED)
        .order_by(usage.c.served_at_us, usage.c.id)
        .limit(most)
    )
    rows = (await connection.execute(query)).all()
    end = (rows[-1].served_at_us, rows[-1].id) if rows else after
    return [Posted(row.id, row.request_id, row.cost_nano_usd) for row in rows], end


async def compare(
    connection: AsyncConnection, provider: str, asked: Sequence[Posted], costs: Costs, now_us: int
) -> Rechecked:
    """Dispute the costs that are told to be others than those that were posted (invariant 9). Entries stay.

    What a person has judged already is not opened again: the same claim for the same request, and the original charge
    of a request whose cost a person has corrected since.
    """
    told = {one.id: claim for one in asked if (claim := _claim(one, costs)) is not None}
    # By what it says: a cost too large to be posted unasked may be what a person made of it since.
    claims = {
        one.id: told[one.id] for one in asked if told.get(one.id, str(one.cost_nano_usd)) != str(one.cost_nano_usd)
    }
    same = len(told) - len(claims)
    untold = len(asked) - len(told)
    known: set[tuple[int, str]] = set()
    for some in batched(claims):
        query = sa.select(disputes.c.usage_id, disputes.c.claimed).where(disputes.c.usage_id.in_(some))
        known |= {(row.usage_id, row.claimed) for row in await connection.execute(query)}
        charged = sa.select(entries.c.usage_id, entries.c.amount_nano_usd).where(
            entries.c.usage_id.in_(some), sa.text("kind = 'charge'")
        )
        known |= {(row.usage_id, str(row.amount_nano_usd)) for row in await connection.execute(charged)}
    opened: list[dict[str, Any]] = []
    # In one order for all: two that dispute the same requests must not wait for each other.
    for one in sorted(asked, key=lambda one: one.id):
        claim = claims.get(one.id)
        if claim is None or (one.id, claim) in known:
            continue
        # Whoever settled or corrected it meanwhile has told another truth, which is looked at another time.
        changed = await connection.execute(
            usage.update()
            .where(usage.c.id == one.id, _SETTLED, usage.c.cost_nano_usd == one.cost_nano_usd)
            .values(state=State.DISPUTED.value, problem=storable(f"{Reason.CHANGED.value}: {claim}"))
        )
        if changed.rowcount == 1:
            opened.append(
                {
                    "usage_id": one.id,
                    "provider": provider,
                    "opened_at_us": now_us,
                    "reason": Reason.CHANGED.value,
                    "claimed": claim,
                    "posted_nano_usd": one.cost_nano_usd,
                }
            )
    if opened:
        await connection.execute(disputes.insert(), opened)
    return Rechecked(same, len(opened), untold + len(claims) - len(opened))


def _claim(one: Posted, costs: Costs) -> str | None:
    """What the provider says of it now, as text, if anything that can be read."""
    if one.request_id in costs.doubtful:
        return storable(costs.doubtful[one.request_id].claimed)
    cost = costs.posted.get(one.request_id)
    return None if cost is None else str(cost)
