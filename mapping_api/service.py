"""The service's parts, wired: what every route reaches through `request.app.state.service`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.metrics_core import Metric

from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.mapping_api.deliver import Deliverer
from roadworthy.mapping_api.last_uses import LastUses
from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable, ModelCatalogue
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store.pruning import PRUNE_EVERY_S, PRUNE_FIRST_AFTER_S, prune
from roadworthy.mapping_api.upkeep import Upkeep
from roadworthy.mapping_api.view import View
from roadworthy.sealing import Sealer
from roadworthy.ticks import Ticks


class MetricSource(Protocol):
    """Another house's figures for /metrics."""

    async def read(self) -> None:
        """Read what a scrape needs. May raise `DatabaseUnavailableError`."""

    def collect(self) -> Iterable[Metric]:
        """The figures, as Prometheus' client takes them; without a database, those that need none."""


@dataclass
class Service:
    """One running service."""

    database: Database
    catalogue: ModelCatalogue
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    view: View = field(init=False)
    upkeep: Upkeep = field(init=False)
    sealer: Sealer = field(init=False)
    guard: Guard = field(init=False)
    deliverer: Deliverer = field(init=False)
    last_uses: LastUses = field(init=False)
    ticks: Ticks = field(init=False)
    metric_sources: list[MetricSource] = field(default_factory=list)

    def __post_init__(self) -> None:
        """These parts are the service's own. Raises `ConfigError` for a malformed secret key."""
        key = self.settings.secret_key
        self.view = View(self.database)
        self.upkeep = Upkeep(self.database, self.view, self.catalogue, self.settings.catalogue_refresh_s)
        self.sealer = Sealer(key.get_secret_value() if key else None)
        self.guard = Guard(allow_private=self.settings.allow_private_targets)
        self.deliverer = Deliverer(
            self.database,
            self.sealer,
            AiohttpTransport(guard=self.guard),
            timeout_s=self.settings.webhook_timeout_s,
        )
        self.last_uses = LastUses(self.database)
        self.ticks = Ticks()
        self.ticks.every("deliver webhooks", 1.0, self.deliverer.tick)
        self.ticks.every("prune", PRUNE_EVERY_S, lambda: prune(self.database), first_after_s=PRUNE_FIRST_AFTER_S)

    async def start(self) -> None:
        """Take over what a file catalogue says, read everything once, and begin what is done in the background.

        The hub is not asked: the service starts while it is down.
        """
        await self.view.fresh()
        await self.upkeep.take_over()
        await self.view.fresh()
        self.upkeep.start()
        self.ticks.start()

    async def stop(self) -> None:
        """Let go of everything; what is being sent may end first, within limits."""
        await self.ticks.stop()
        await self.deliverer.stop()
        self.guard.close()
        await self.upkeep.stop()
        await self.last_uses.stop()
        await self.catalogue.close()
        await self.view.close()
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
