"""The service's parts, wired: what every route reaches through `request.app.state.service`."""

from __future__ import annotations

from dataclasses import dataclass, field

from roadworthy.database import Database
from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable, ModelCatalogue
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.upkeep import Upkeep
from roadworthy.mapping_api.view import View


@dataclass
class Service:
    """One running service."""

    database: Database
    catalogue: ModelCatalogue
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    view: View = field(init=False)
    upkeep: Upkeep = field(init=False)

    def __post_init__(self) -> None:
        """The view and the upkeep are the service's own."""
        self.view = View(self.database)
        self.upkeep = Upkeep(self.database, self.view, self.catalogue, self.settings.catalogue_refresh_s)

    async def start(self) -> None:
        """Take over what a file catalogue says, read everything once, and begin to keep the facts up to date.

        The hub is not asked: the service starts while it is down.
        """
        await self.view.fresh()
        await self.upkeep.take_over()
        await self.view.fresh()
        self.upkeep.start()

    async def stop(self) -> None:
        """Let go of everything."""
        await self.upkeep.stop()
        await self.catalogue.close()
        await self.database.close()

    async def facts(self, view: View, model_id: str) -> ModelFacts | None:
        """The facts of a model, for a reader: as kept, else as the catalogue says; None where there is none.

        Kept facts without a pipeline tag may be those of a model that is gone, so the
        catalogue is asked. Where it cannot be, the last answer serves if it is at most a
        day old. Raises `CatalogueUnavailable` where there is none.
        """
        kept = view.models.get(model_id)
        if kept is not None and kept.pipeline_tag is not None:
            return kept
        try:
            return await self.catalogue.get(model_id)
        except CatalogueUnavailable as error:
            last_known = error.last_known or kept
            if last_known is None:
                raise
            return last_known
