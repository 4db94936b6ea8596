"""Mending due times: whatever went wrong before, every mapping has one, and nothing else has."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api.tables import mappings
from roadworthy.validator.schedule import Periods, Urgency
from roadworthy.validator.store.due import first_due_us
from roadworthy.validator.tables import due, health, validator_state


async def mend(connection: AsyncConnection, now_us: int, periods: Periods) -> tuple[int, int]:
    """Give mappings that have no due time one, and forget those that are gone. Returns how many of each.

    Only those that were noticed already: what is new is noticed, and validated at once.
    """
    seen = sa.select(validator_state.c.seen_revision).scalar_subquery()
    query = (
        sa.select(mappings.c.id, mappings.c.provider)
        .outerjoin(due, due.c.mapping_id == mappings.c.id)
        .where(due.c.mapping_id.is_(None), mappings.c.revision <= seen)
    )
    missing = [
        {
            "mapping_id": row.id,
            "provider": row.provider,
            "due_at_us": first_due_us(row.id, periods, now_us),
            "urgency": int(Urgency.ROUTINE),
            "fence": 0,
            "paused": False,
        }
        for row in await connection.execute(query)
    ]
    if missing:
        await connection.execute(due.insert(), missing)
    there = sa.exists().where(mappings.c.id == due.c.mapping_id)
    gone = (await connection.execute(due.delete().where(~there))).rowcount
    # A run that was under way when its mapping was removed may leave its health behind.
    await connection.execute(health.delete().where(~sa.exists().where(mappings.c.id == health.c.mapping_id)))
    return len(missing), gone
