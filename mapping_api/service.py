"""The service's parts, wired: what every route reaches through `request.app.state.service`."""

from __future__ import annotations

from dataclasses import dataclass, field

from roadworthy.database import Database
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import models
from roadworthy.mapping_api.view import View


@dataclass
class Service:
    """One running service."""

    database: Database
    catalogue: ModelCatalogue
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    view: View = field(init=False)

    def __post_init__(self) -> None:
        """The view is the service's own."""
        self.view = View(self.database)

    async def start(self) -> None:
        """Make the database's models agree with a catalogue that can be listed whole, then read everything once."""
        known = await self.catalogue.everything()
        if known:
            await self.view.fresh()
            if any(self.view.models.get(facts.id) != facts for facts in known):
                async with change(self.database, OPERATOR) as opened:
                    await models.keep(opened, known)
        await self.view.fresh()

    async def stop(self) -> None:
        """Let go of everything."""
        await self.catalogue.close()
        await self.view.close()
        await self.database.close()
