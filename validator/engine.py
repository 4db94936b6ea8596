"""The engine: notice what changed, mend, and claim what is due.

The clock is the database's, so that the simulation drives this very engine. What was claimed is published by
`Publication` in one transaction, and only while it holds its lease: killed at any instant, a run is either
published whole or runs again when its lease ends.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database
from roadworthy.mapping_api.change import Actor
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.store import mappings as mapping_rows
from roadworthy.mapping_api.tables import mappings
from roadworthy.validator.outcome import Outcome
from roadworthy.validator.publish import Policy
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.store.due import Claim
from roadworthy.validator.store.mending import mend

MEND_EVERY_S = 3600
ACTOR = Actor("validator")

_log = logging.getLogger(__name__)

Prober = Callable[[Mapping], Awaitable[Outcome]]
"""Asks a provider about one mapping; what it raises counts as the validator's own fault."""


class Engine:
    """Claims for one process."""

    def __init__(self, database: Database, policy: Policy) -> None:
        self._database = database
        self._policy = policy
        self._mend_at_us = 0

    async def claim(self, *, only: Collection[str] | None = None) -> list[tuple[Claim, Mapping]]:
        """Notice what changed, then claim what may begin now; of `only` these mappings, if they are given.

        First, and once an hour, due times are mended.
        """
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            await due_rows.notice(connection, now_us, self._policy.periods)
            if now_us >= self._mend_at_us:
                await self._mend(connection, now_us)
            claims = await due_rows.claim(connection, now_us, self._policy.bounds, only=only)
            rows = await connection.execute(
                sa.select(mappings).where(mappings.c.id.in_([each.mapping_id for each in claims]))
            )
            known = {row.id: mapping_rows.from_row(row) for row in rows}
        return [(each, known[each.mapping_id]) for each in claims if each.mapping_id in known]

    async def _mend(self, connection: AsyncConnection, now_us: int) -> None:
        missing, gone = await mend(connection, now_us, self._policy.periods)
        if missing or gone:
            _log.warning(
                "mended due times: %d mappings had none, %d rows were of mappings that are gone", missing, gone
            )
        self._mend_at_us = now_us + MEND_EVERY_S * SECOND_US
