"""What is done now and then, once for all processes on a database, by the database's clock."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.store.ledger import storable
from roadworthy.billing.tables import chores
from roadworthy.database import insert


async def take(
    connection: AsyncConnection, name: str, now_us: int, every_us: int, *, again_us: int | None = None
) -> bool:
    """Whether it is due, and now the caller's to do; nobody else is told so before `every_us` have passed.

    With `again_us` it is due again so soon, until `note` says when it was done: a caller that dies leaves it undone.
    """
    taken_at_us = now_us if again_us is None else now_us - every_us + again_us
    statement = insert(connection, chores).values(name=name, taken_at_us=taken_at_us, outcome="")
    due = sa.or_(chores.c.taken_at_us <= now_us - every_us, chores.c.taken_at_us > now_us)
    done = await connection.execute(
        statement.on_conflict_do_update(index_elements=["name"], set_={"taken_at_us": taken_at_us}, where=due),
        execution_options={"preserve_rowcount": True},
    )
    return done.rowcount == 1


async def note(connection: AsyncConnection, name: str, outcome: str, *, done_at_us: int | None = None) -> None:
    """What came of it, in at most 200 characters; and, where it was taken with `again_us`, when it was done."""
    done = {} if done_at_us is None else {"taken_at_us": done_at_us}
    await connection.execute(chores.update().where(chores.c.name == name).values(outcome=storable(outcome), **done))


async def outcome(connection: AsyncConnection, name: str) -> str:
    """What came of it the last time; empty where nothing is known."""
    query = sa.select(chores.c.outcome).where(chores.c.name == name)
    return (await connection.execute(query)).scalar_one_or_none() or ""
