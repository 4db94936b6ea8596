"""Billing's parts, wired: what `roadworthy serve` embeds and `roadworthy billing collect` runs alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Self

from roadworthy.billing.collector import Collector
from roadworthy.billing.settings import BillingSettings
from roadworthy.billing.store.ledger import Settled
from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.sealing import Sealer
from roadworthy.ticks import Ticks

LOOK_S = 1.0
"""How often is looked for whose turn it is."""


class Billing:
    """One process's collector. It shares the database with others."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        settings: BillingSettings | None = None,
        *,
        allow_private: bool = False,
        settled: Callable[[str, Settled], None] | None = None,
    ) -> None:
        """The database stays the caller's. `settled` is called after each batch with its provider and outcome."""
        self.settings = settings or BillingSettings()
        self._guard = Guard(allow_private=allow_private)
        self._transport = AiohttpTransport(guard=self._guard)
        self.collector = Collector(database, sealer, self._transport, self.settings.policy(), settled=settled)
        self._ticks = Ticks()
        self._ticks.every("collect costs", LOOK_S, self.collector.tick)

    async def start(self) -> None:
        """Begin, on the running event loop."""
        self._ticks.start()

    async def stop(self) -> None:
        """Begin nothing more; turns under way are given up, and others may take them at once."""
        await asyncio.gather(self._ticks.stop(), self.collector.stop())
        await self._transport.aclose()
        self._guard.close()

    async def __aenter__(self) -> Self:
        """Start with the block."""
        await self.start()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        """Stop with the block."""
        await self.stop()

    async def once(self, only: Collection[str] | None = None) -> None:
        """Ask the providers whose turn it is, these or all, once; without ticks."""
        self.collector.only = only
        await self.collector.tick()
        await self.collector.idle()
