"""The validator's parts, wired: what `roadworthy serve` embeds and `roadworthy validator run` runs alone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.sealing import Sealer
from roadworthy.ticks import Ticking
from roadworthy.validator.endpoint import Endpoint
from roadworthy.validator.prober import Prober, Terms
from roadworthy.validator.settings import ValidatorSettings
from roadworthy.validator.store import endpoints
from roadworthy.validator.store.endpoints import Registered
from roadworthy.validator.store.retention import PRUNE_EVERY_S, PRUNE_FIRST_AFTER_S, prune
from roadworthy.validator.worker import Noted, Published, Worker

LOOK_S = 0.5
"""How often is looked for what is due."""


class Endpoints:
    """The registered APIs as the prober takes them.

    Each is read anew for each run, so that a change holds at once in every process; only the
    opening of the key is not repeated.
    """

    def __init__(self, database: Database, sealer: Sealer) -> None:
        """`sealer` opens the keys."""
        self._database = database
        self._sealer = sealer
        self._opened: dict[str, tuple[Registered, Endpoint]] = {}

    async def __call__(self, provider: str) -> Endpoint | None:
        """The provider's API, with its key. Raises `SealingError`, `DatabaseUnavailableError`."""
        async with self._database.reading() as connection:
            registered = await endpoints.find(connection, provider)
        if registered is None:
            self._opened.pop(provider, None)
            return None
        known = self._opened.get(provider)
        if known is None or known[0] != registered:
            known = self._opened[provider] = (registered, registered.opened(self._sealer))
        return known[1]


class Validator(Ticking):
    """One process's validator. It shares the database with others."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        settings: ValidatorSettings | None = None,
        *,
        allow_private: bool = False,
        published: Published | None = None,
        noted: Noted | None = None,
    ) -> None:
        """The database stays the caller's. For `published` and `noted` see `Worker`."""
        super().__init__()
        self.settings = settings or ValidatorSettings()
        self.policy = self.settings.policy()
        self._database = database
        self._guard = Guard(allow_private=allow_private)
        self._transport = AiohttpTransport(guard=self._guard)
        # A run that fails is confirmed by a second one, and both must fit.
        terms = Terms(run_timeout_s=min(Terms().run_timeout_s, self.settings.run_timeout_s * 0.45))
        self.worker = Worker(
            database,
            Prober(self._transport, Endpoints(database, sealer), terms),
            self.policy,
            run_timeout_s=self.settings.run_timeout_s,
            recording_max_bytes=self.settings.recording_max_bytes,
            published=published,
            noted=noted,
        )
        self._ticks.every("validate", LOOK_S, self.worker.tick)
        self._ticks.every("prune validations", PRUNE_EVERY_S, self._prune, first_after_s=PRUNE_FIRST_AFTER_S)

    async def stop(self) -> None:
        """Begin nothing more; what runs is given up, and is due again at once."""
        # Together: a tick may be waiting for the very look that the worker ends.
        await asyncio.gather(self._ticks.stop(), self.worker.stop())
        await self._transport.aclose()
        self._guard.close()

    async def run_to_the_end(self, only: Collection[str] | None = None) -> None:
        """Run what is due, of these mappings or all, until nothing of it can begin any more; without ticks."""
        self.worker.only = only
        await self.worker.tick()
        await self.worker.idle()

    async def _prune(self) -> None:
        await prune(self._database, self.settings.keep_runs_days, self.settings.keep_rollups_days)
