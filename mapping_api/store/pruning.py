"""Forgetting: events and deliveries after 30 days, answers kept for `Idempotency-Key` after one."""

from __future__ import annotations

import sqlalchemy as sa

from roadworthy.database import Database
from roadworthy.mapping_api.store.idempotency import KEPT_US
from roadworthy.mapping_api.tables import deliveries, events, idempotency, webhooks

DAY_US = 24 * 3600 * 1_000_000
KEEP_EVENTS_US = 30 * DAY_US
PRUNE_EVERY_S = 24 * 3600.0
PRUNE_FIRST_AFTER_S = 60.0
"""Not at the very start, when there is other work to do; yet a service that starts anew each day prunes, too."""
BATCH = 2_000
"""Rows removed in one transaction, so that writers wait for milliseconds only."""


async def prune(database: Database) -> None:
    """Remove what is old. What waits to be sent stays, and so does its event. Raises `DatabaseUnavailableError`."""
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
    old = events.c.at_us < now_us - KEEP_EVENTS_US
    ended = (
        sa.select(deliveries.c.event_id, deliveries.c.webhook_id)
        .join(events, events.c.id == deliveries.c.event_id)
        .where(old, deliveries.c.due_at_us.is_(None))
        .limit(BATCH)
    )
    unsent = sa.exists().where(deliveries.c.event_id == events.c.id)
    used = sa.exists().where(deliveries.c.webhook_id == webhooks.c.id)
    removed = webhooks.c.removed_at_us < now_us - KEEP_EVENTS_US
    expired = sa.select(*idempotency.primary_key).where(idempotency.c.created_at_us < now_us - KEPT_US).limit(BATCH)
    for statement in (
        deliveries.delete().where(sa.tuple_(deliveries.c.event_id, deliveries.c.webhook_id).in_(ended)),
        events.delete().where(events.c.id.in_(sa.select(events.c.id).where(old, ~unsent).limit(BATCH))),
        webhooks.delete().where(webhooks.c.id.in_(sa.select(webhooks.c.id).where(removed, ~used).limit(BATCH))),
        idempotency.delete().where(sa.tuple_(*idempotency.primary_key).in_(expired)),
    ):
        count = BATCH
        while count >= BATCH:
            async with database.writing() as connection:
                count = (await connection.execute(statement)).rowcount
