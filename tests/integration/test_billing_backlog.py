"""A provider that was down for three days and is back: its requests are drained in order, and nobody else waits."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
from backlog import DAYS, DOWN, WELL, drain

from roadworthy.billing.tables import usage
from roadworthy.database import Database

PENDING = 12_000
QUARTERS = DAYS * 24 * 4


async def states(url):
    """How many requests of each provider stand where."""
    database = Database(url)
    query = sa.select(usage.c.provider, usage.c.state, sa.func.count()).group_by(usage.c.provider, usage.c.state)
    async with database.reading() as connection:
        found = {(row[0], row[1]): row[2] for row in await connection.execute(query)}
    await database.close()
    return found


def test_three_days_of_requests_are_drained_in_order_and_none_expires(database_url):
    seen = asyncio.run(drain(database_url, PENDING, batch_size=1000))
    assert QUARTERS / 2 <= seen.refused <= 2 * QUARTERS, "it is asked again and again, and not too often"
    assert seen.disordered == 0
    assert seen.asked == PENDING, "an id was asked for twice"
    found = asyncio.run(states(database_url))
    assert found.pop((DOWN, "settled")) == PENDING
    assert found.pop((WELL, "settled")) == len(seen.waited_s) > 0
    assert not found, "time in which a provider does not answer expires nothing"
