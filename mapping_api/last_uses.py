"""When each token was last used: written beside the requests, at most once a minute for each token.

It is no change that anyone is told of, so it takes no revision and leaves nothing in the audit log.
"""

from __future__ import annotations

import asyncio
import logging
import time

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.mapping_api.tables import tokens

EVERY_S = 60
_MOST_NOTED = 10_000

log = logging.getLogger(__name__)


class LastUses:
    """Gathers uses and writes them in the background. A use that cannot be written is let go of."""

    def __init__(self, database: Database) -> None:
        """Nothing is written before the first use."""
        self._database = database
        self._noted_at_s: dict[str, float] = {}
        self._pending: set[str] = set()
        self._writing: asyncio.Task[None] | None = None

    def note(self, token_id: str) -> None:
        """A use of the token, now. Never waits, never fails."""
        now_s = time.monotonic()
        noted_at_s = self._noted_at_s.get(token_id)
        if noted_at_s is not None and now_s - noted_at_s < EVERY_S:
            return
        if len(self._noted_at_s) >= _MOST_NOTED:
            self._noted_at_s = {id: at_s for id, at_s in self._noted_at_s.items() if now_s - at_s < EVERY_S}
        self._noted_at_s[token_id] = now_s
        self._pending.add(token_id)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def stop(self) -> None:
        """Wait until what was noted is written."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._pending:
            # In order, so that two processes that write the same rows cannot block each other.
            batch, self._pending = sorted(self._pending), set()
            try:
                await self._write_batch(batch)
            except (DatabaseUnavailableError, SQLAlchemyError) as error:
                log.warning("the last use of %d tokens was not written: %s", len(batch), error)

    async def _write_batch(self, batch: list[str]) -> None:
        last = tokens.c.last_used_at_us
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            # Another process may have written this minute's use already.
            due = sa.or_(last.is_(None), last <= now_us - EVERY_S * 1_000_000)
            statement = tokens.update().where(tokens.c.id == sa.bindparam("used"), due).values(last_used_at_us=now_us)
            await connection.execute(statement, [{"used": token_id} for token_id in batch])
