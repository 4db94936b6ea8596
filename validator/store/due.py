"""Due times: who is due, who may run now, and who may publish."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import batched, insert
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.tables import mappings, removals
from roadworthy.validator.schedule import SECOND_US, Periods, Urgency, phase_us
from roadworthy.validator.tables import due, endpoints, validator_state


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that may begin. `fence` is what entitles it to publish; a later claim of the mapping has another."""

    mapping_id: str
    provider: str
    fence: int
    due_at_us: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many runs may be under way, over all processes on this database; and for how long each is trusted."""

    running: int = 32
    lease_s: int = 300


async def notice(connection: AsyncConnection, now_us: int, periods: Periods) -> int:
    """Give every mapping that is new, or changed, its validation at once; forget those that are gone.

    Returns how many were noticed. Several changes of one mapping within the debounce time are one.
    """
    since = (await connection.execute(sa.select(validator_state.c.seen_revision).with_for_update())).scalar_one()
    query = sa.select(mappings.c.id, mappings.c.provider, mappings.c.revision).where(mappings.c.revision > since)
    changed = (await connection.execute(query)).all()
    gone = (
        await connection.execute(
            sa.select(removals.c.mapping_id, removals.c.revision).where(removals.c.revision > since)
        )
    ).all()
    if not changed and not gone:
        return 0
    at_us = now_us + periods.debounce_s * SECOND_US
    rows = [
        {
            "mapping_id": row.id,
            "provider": row.provider,
            "due_at_us": at_us,
            "urgency": int(Urgency.AT_ONCE),
            "fence": 0,
            "paused": False,
        }
        for row in changed
    ]
    statement = insert(connection, due)
    for some in batched(rows):
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["mapping_id"],
                set_={"due_at_us": statement.excluded.due_at_us, "urgency": statement.excluded.urgency},
            ),
            some,
        )
    for row in gone:
        await connection.execute(due.delete().where(due.c.mapping_id == row.mapping_id))
    newest = max(row.revision for row in (*changed, *gone))
    await connection.execute(validator_state.update().values(seen_revision=newest))
    return len(rows)


async def claim(
    connection: AsyncConnection, now_us: int, bounds: Bounds, *, only: Collection[str] | None = None
) -> list[Claim]:
    """The runs that may begin now: due, not running, of providers that are not paused, within all bounds.

    The most urgent go first, then the oldest. Claimers take turns at one row, so the bounds hold over machines.
    `only` are the ids of the mappings that are wanted, at most some hundreds; by default all are.
    """
    await connection.execute(sa.select(validator_state.c.id).with_for_update())
    under_way = sa.select(sa.func.count()).select_from(due).where(due.c.lease_until_us > now_us)
    room = bounds.running - int((await connection.execute(under_way)).scalar_one())
    if room <= 0:
        return []
    wanted = sa.and_(
        due.c.due_at_us <= now_us,
        due.c.paused.is_(False),
        sa.or_(due.c.lease_until_us.is_(None), due.c.lease_until_us <= now_us),
        *([] if only is None else [due.c.mapping_id.in_(only)]),
    )
    # Provider by provider: one question for all would sort everything that waits, each time one run may begin.
    candidates: list[Any] = []
    for provider, its_room in await _rooms(connection, now_us, wanted):
        query = (
            sa.select(due.c.mapping_id, due.c.provider, due.c.fence, due.c.due_at_us, due.c.urgency)
            .where(due.c.provider == provider, wanted)
            .order_by(due.c.urgency, due.c.due_at_us, due.c.mapping_id)
            .limit(min(room, its_room))
        )
        candidates += await connection.execute(query)
    candidates.sort(key=lambda row: (row.urgency, row.due_at_us, row.mapping_id))
    claims = [Claim(row.mapping_id, row.provider, row.fence + 1, row.due_at_us) for row in candidates[:room]]
    if claims:
        await connection.execute(
            due.update()
            .where(due.c.mapping_id == sa.bindparam("of"))
            .values(fence=sa.bindparam("to_fence"), lease_until_us=now_us + bounds.lease_s * SECOND_US),
            [{"of": each.mapping_id, "to_fence": each.fence} for each in claims],
        )
    return claims


async def _rooms(connection: AsyncConnection, now_us: int, wanted: sa.ColumnElement[bool]) -> list[tuple[str, int]]:
    """The providers with something that is wanted, and how many more runs each may have."""
    running = (
        sa.select(due.c.provider, sa.func.count().label("running"))
        .where(due.c.lease_until_us > now_us)
        .group_by(due.c.provider)
        .subquery()
    )
    at_most = sa.case((endpoints.c.down_since_us.is_not(None), 1), else_=endpoints.c.max_running)
    room = at_most - sa.func.coalesce(running.c.running, 0)
    query = (
        sa.select(endpoints.c.provider, room)
        .outerjoin(running, running.c.provider == endpoints.c.provider)
        .where(
            endpoints.c.paused_at_us.is_(None),
            room > 0,
            sa.or_(endpoints.c.next_canary_us.is_(None), endpoints.c.next_canary_us <= now_us),
            endpoints.c.provider.in_(sa.select(due.c.provider).where(wanted)),
        )
    )
    return [(row[0], row[1]) for row in await connection.execute(query)]


@dataclass(frozen=True, slots=True)
class NextTurn:
    """When a mapping whose run ended is due again."""

    claim: Claim
    due_at_us: int
    urgency: Urgency


async def still_held(connection: AsyncConnection, claims: Sequence[Claim]) -> set[str]:
    """The ids of those mappings whose lease is still the claim's own. The others may publish nothing."""
    held = set()
    fences = {each.mapping_id: each.fence for each in claims}
    for some in batched(fences):
        rows = await connection.execute(sa.select(due.c.mapping_id, due.c.fence).where(due.c.mapping_id.in_(some)))
        held |= {row.mapping_id for row in rows if fences[row.mapping_id] == row.fence}
    return held


async def outdated(connection: AsyncConnection, runs: Sequence[tuple[Claim, Mapping]]) -> set[str]:
    """The ids of those mappings that are gone, or name another model of the provider's than when their run began."""
    asked = {claimed.mapping_id: mapping.provider_model for claimed, mapping in runs}
    now: dict[str, str] = {}
    for some in batched(asked):
        query = sa.select(mappings.c.id, mappings.c.provider_model).where(mappings.c.id.in_(some))
        now |= {row.id: row.provider_model for row in await connection.execute(query)}
    return {mapping_id for mapping_id, model in asked.items() if now.get(mapping_id) != model}


async def give_back(connection: AsyncConnection, claims: Sequence[Claim]) -> None:
    """End leases whose runs say nothing: their mappings are due as they were."""
    if claims:
        await connection.execute(
            due.update()
            .where(due.c.mapping_id == sa.bindparam("of"), due.c.fence == sa.bindparam("at_fence"))
            .values(lease_until_us=None),
            [{"of": each.mapping_id, "at_fence": each.fence} for each in claims],
        )


async def bring_forward(connection: AsyncConnection, mapping_ids: Iterable[str], at_us: int, urgency: Urgency) -> None:
    """Make mappings due at that moment, if they are not due earlier. Of those that run now, the next run is meant."""
    for some in batched(mapping_ids):
        await connection.execute(
            due.update()
            .where(
                due.c.mapping_id.in_(some),
                # The due time of a run that is under way is in the past: a later one says that it was changed.
                sa.or_(due.c.due_at_us > at_us, due.c.lease_until_us.is_not(None)),
            )
            .values(due_at_us=at_us, urgency=int(urgency))
        )


async def suspend(connection: AsyncConnection, mapping_ids: Iterable[str], *, paused: bool) -> None:
    """Run mappings no more, or again. What runs now publishes nothing: it was claimed under another fence."""
    for some in batched(mapping_ids):
        await connection.execute(
            due.update().where(due.c.mapping_id.in_(some)).values(paused=paused, fence=due.c.fence + 1)
        )


async def finish(connection: AsyncConnection, turns: Sequence[NextTurn]) -> None:
    """Give leases back and set the next due times.

    A change that was noticed while the run was under way keeps its own, earlier due time.
    """
    if not turns:
        return
    changed_meanwhile = due.c.due_at_us > sa.bindparam("claimed_for")
    await connection.execute(
        due.update()
        .where(due.c.mapping_id == sa.bindparam("of"), due.c.fence == sa.bindparam("at_fence"))
        .values(
            lease_until_us=None,
            due_at_us=sa.case((changed_meanwhile, due.c.due_at_us), else_=sa.bindparam("next_us")),
            urgency=sa.case((changed_meanwhile, due.c.urgency), else_=sa.bindparam("next_urgency")),
        ),
        [
            {
                "of": turn.claim.mapping_id,
                "at_fence": turn.claim.fence,
                "claimed_for": turn.claim.due_at_us,
                "next_us": turn.due_at_us,
                "next_urgency": int(turn.urgency),
            }
            for turn in turns
        ],
    )


async def postpone(
    connection: AsyncConnection, waiting: Sequence[tuple[str, int]], due_at_us: int, urgency: Urgency
) -> None:
    """Set another due time for mappings that are not running; one that began meanwhile keeps its own."""
    if waiting:
        await connection.execute(
            due.update()
            .where(due.c.mapping_id == sa.bindparam("of"), due.c.fence == sa.bindparam("at_fence"))
            .values(due_at_us=due_at_us, urgency=int(urgency)),
            [{"of": mapping_id, "at_fence": fence} for mapping_id, fence in waiting],
        )


def first_due_us(mapping_id: str, periods: Periods, now_us: int) -> int:
    """When a mapping of which nothing is known is due: spread over the period, so that a start is no stampede."""
    return now_us + phase_us(mapping_id, periods.routine_s)
