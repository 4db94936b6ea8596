"""Billing's parts, wired: what `roadworthy serve` embeds and `roadworthy billing collect` runs alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from roadworthy.billing.collector import Collector
from roadworthy.billing.settings import BillingSettings
from roadworthy.billing.store.batches import prune
from roadworthy.billing.turn import Came, Told
from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.sealing import Sealer
from roadworthy.ticks import Ticking

LOOK_S = 1.0
"""How often is looked for whose turn it is."""
MEND_S = 60.0
PRUNE_S = 3600.0
PRUNE_FIRST_AFTER_S = 120.0


class Billing(Ticking):
    """One process's collector. It shares the database with others."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        settings: BillingSettings | None = None,
        *,
        allow_private: bool = False,
        told: Callable[[Told], None] | None = None,
    ) -> None:
        """The database stays the caller's. `told` is called after each question with what it came to."""
        super().__init__()
        self.settings = settings or BillingSettings()
        self._guard = Guard(allow_private=allow_private)
        self._transport = AiohttpTransport(guard=self._guard)
        self.collector = Collector(database, sealer, self._transport, self.settings.policy(), told=told)
        self._ticks.every("collect costs", LOOK_S, self.collector.tick)
        self._ticks.every("mend the times of costs to ask for", MEND_S, self.collector.mend)
        keep_days = self.settings.keep_batches_days
        self._ticks.every(
            "prune batches of costs", PRUNE_S, lambda: prune(database, keep_days), first_after_s=PRUNE_FIRST_AFTER_S
        )

    async def stop(self) -> None:
        """Begin nothing more; turns under way are given up, and others may take them at once."""
        await asyncio.gather(self._ticks.stop(), self.collector.stop())
        await self._transport.aclose()
        self._guard.close()

    async def once(self, only: Collection[str] | None = None, *, force: bool = False) -> list[Came]:
        """Give the providers whose turn it is, these or all, one turn each, without ticks; what they came to.

        `force`: whatever is pending is due. Raises `DatabaseUnavailableError`.
        """
        self.collector.only = only
        await self.collector.mend()
        if force:
            await self.collector.force()
        return await self.collector.once()
