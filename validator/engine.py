"""The engine: claim what is due, run it, publish what came.

The prober is a function from mapping to outcome, and the clock is the database's, so that the
simulation drives this very engine. A run publishes in one transaction, and only while it holds its
lease: killed at any instant, a run is either published whole or runs again when its lease ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database
from roadworthy.mapping_api.change import Actor, change
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.store import mappings as mapping_rows
from roadworthy.mapping_api.tables import mappings
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.publish import Finished, Policy, Publication
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.store.due import Claim
from roadworthy.validator.store.mending import mend

MEND_EVERY_S = 3600
ACTOR = Actor("validator")

_log = logging.getLogger(__name__)

Prober = Callable[[Mapping], Awaitable[Outcome]]


class Engine:
    """Claims, runs and publishes for one process."""

    def __init__(self, database: Database, prober: Prober, policy: Policy | None = None) -> None:
        """`prober` asks a provider about one mapping; what it raises counts as the validator's own fault."""
        self._database = database
        self._prober = prober
        self._policy = policy or Policy()
        self._mend_at_us = 0

    async def once(self) -> int:
        """Run everything that is due now, within the bounds, to its end. Returns how many runs were published."""
        claims = await self.claim()
        if not claims:
            return 0
        return await self.publish(await asyncio.gather(*(self._run(each, mapping) for each, mapping in claims)))

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

    async def _run(self, claim: Claim, mapping: Mapping) -> Finished:
        try:
            async with asyncio.timeout(self._policy.bounds.lease_s * 0.8):
                return Finished(claim, await self._prober(mapping))
        except Exception as error:  # noqa: BLE001  whatever goes wrong here must not stop the other runs
            said = f"the validator itself failed: {type(error).__name__}: {error}"
            return Finished(claim, Outcome(Result.IN_DOUBT, ErrorClass.OURS, said))

    async def publish(self, finished: Sequence[Finished]) -> int:
        """Publish runs in one transaction; those whose lease was lost are dropped. Returns how many counted."""
        async with change(self._database, ACTOR) as opened:
            return await Publication(opened, self._policy).publish(finished)
