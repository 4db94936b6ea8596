"""Forgetting: runs and hourly sums after some time, and what is kept of mappings that are gone."""

from __future__ import annotations

import sqlalchemy as sa

from roadworthy.database import Database
from roadworthy.mapping_api.tables import mappings
from roadworthy.validator.tables import due, evidence, health, rollups, runs

DAY_US = 24 * 3600 * 1_000_000
PRUNE_EVERY_S = 3600.0
PRUNE_FIRST_AFTER_S = 90.0
BATCH = 2_000
"""Rows removed in one transaction, so that writers wait for milliseconds only."""


async def prune(database: Database, keep_runs_days: int, keep_rollups_days: int) -> None:
    """Remove what is old, and what belongs to no mapping any more. Raises `DatabaseUnavailableError`."""
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
    old_runs = sa.select(runs.c.id).where(runs.c.ended_at_us < now_us - keep_runs_days * DAY_US).limit(BATCH)
    old_hours = (
        sa.select(rollups.c.mapping_id, rollups.c.hour_us)
        .where(rollups.c.hour_us < now_us - keep_rollups_days * DAY_US)
        .limit(BATCH)
    )
    statements = [
        runs.delete().where(runs.c.id.in_(old_runs)),
        rollups.delete().where(sa.tuple_(rollups.c.mapping_id, rollups.c.hour_us).in_(old_hours)),
    ]
    for table in (evidence, health, due):
        known = sa.exists().where(mappings.c.id == table.c.mapping_id)
        orphans = sa.select(table.c.mapping_id).where(~known).limit(BATCH)
        statements.append(table.delete().where(table.c.mapping_id.in_(orphans)))
    for statement in statements:
        count = BATCH
        while count >= BATCH:
            async with database.writing() as connection:
                count = (await connection.execute(statement)).rowcount
