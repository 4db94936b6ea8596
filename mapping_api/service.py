"""The service's parts, wired: what every route reaches through `request.app.state.service`."""

from __future__ import annotations

from dataclasses import dataclass, field

from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.deliver import Deliverer
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import models
from roadworthy.mapping_api.store.pruning import PRUNE_EVERY_S, PRUNE_FIRST_AFTER_S, prune
from roadworthy.mapping_api.ticks import Ticks
from roadworthy.mapping_api.view import View
from roadworthy.sealing import Sealer


@dataclass
class Service:
    """One running service."""

    database: Database
    catalogue: ModelCatalogue
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    view: View = field(init=False)
    sealer: Sealer = field(init=False)
    guard: Guard = field(init=False)
    deliverer: Deliverer = field(init=False)
    ticks: Ticks = field(init=False)

    def __post_init__(self) -> None:
        """These parts are the service's own. Raises `ConfigError` for a malformed secret key."""
        key = self.settings.secret_key
        self.view = View(self.database)
        self.sealer = Sealer(key.get_secret_value() if key else None)
        self.guard = Guard(allow_private=self.settings.allow_private_targets)
        self.deliverer = Deliverer(
            self.database,
            self.sealer,
            AiohttpTransport(guard=self.guard),
            timeout_s=self.settings.webhook_timeout_s,
        )
        self.ticks = Ticks()
        self.ticks.every("deliver webhooks", 1.0, self.deliverer.tick)
        self.ticks.every("prune", PRUNE_EVERY_S, lambda: prune(self.database), first_after_s=PRUNE_FIRST_AFTER_S)

    async def start(self) -> None:
        """Make the database's models agree with a catalogue that can be listed whole, then read everything once."""
        known = await self.catalogue.everything()
        if known:
            await self.view.fresh()
            if any(self.view.models.get(facts.id) != facts for facts in known):
                async with change(self.database, OPERATOR) as opened:
                    await models.keep(opened, known)
        await self.view.fresh()
        self.ticks.start()

    async def stop(self) -> None:
        """Let go of everything; what is being sent may end first, within limits."""
        await self.ticks.stop()
        await self.deliverer.stop()
        self.guard.close()
        await self.catalogue.close()
        await self.database.close()
