"""What readers read: everything the service publishes, held in memory and never stale.

Each read first makes sure that the copy is at the database's present revision; reads that
come at once share one such question. A change elsewhere (another process, the validator, the
command line) is fetched as the rows that changed since, so 50,000 mappings cost a read nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database
from roadworthy.mapping_api.records import Mapping, ModelFacts, Provider, Validation
from roadworthy.mapping_api.store import mappings as mapping_rows
from roadworthy.mapping_api.store import models as model_rows
from roadworthy.mapping_api.store import validations as validation_rows
from roadworthy.mapping_api.tables import mappings, models, organisations, providers, removals, revisions, validations


class View:
    """The copy. Its dictionaries may be read freely between two awaits; `fresh()` alone changes them."""

    def __init__(self, database: Database) -> None:
        """Empty until `fresh()` is awaited."""
        self._database = database
        self._running: asyncio.Future[None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.revision = -1
        self.refreshes = 0
        self.refreshed_at_s = float("-inf")
        """When the view was last made sure of, by `time.monotonic()`; both are for the metrics."""
        self.providers: dict[str, Provider] = {}
        self.models: dict[str, ModelFacts] = {}
        self.mappings: dict[str, Mapping] = {}
        self.validations: dict[str, Validation] = {}
        self.of_provider: dict[str, dict[str, Mapping]] = defaultdict(dict)
        self.of_model: dict[str, dict[str, Mapping]] = defaultdict(dict)
        self.filters: dict[str, Mapping] = {}
        self.changed_at: dict[str, int] = {}
        """The revision at which each provider's mapping last changed."""
        self._tagged: dict[str, set[str]] = defaultdict(set)

    async def fresh(self) -> View:
        """This view, at a revision no older than when this was called. Raises `DatabaseUnavailableError`."""
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._after(self._running))
            self._waiting.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._waiting)
        return self

    async def _after(self, running: asyncio.Future[None] | None) -> None:
        # A question that is under way may have been answered before the caller's own write;
        # so newcomers wait for the next one, and share it.
        if running is not None:
            await asyncio.wait([running])
        self._running, self._waiting = self._waiting, None
        async with self._database.reading() as connection:
            revision = (await connection.execute(sa.select(revisions.c.value))).scalar_one()
            if revision != self.revision:
                await self._fetch(connection, revision)
        self.refreshes += 1
        self.refreshed_at_s = time.monotonic()

    async def _fetch(self, connection: AsyncConnection, revision: int) -> None:
        since = self.revision
        gone = (await connection.execute(sa.select(removals.c.mapping_id).where(removals.c.revision > since))).scalars()
        removed = gone.all() if since >= 0 else []
        owned = sa.select(providers, organisations.c.name.label("organisation")).join(organisations)
        new_providers = (await connection.execute(owned.where(providers.c.revision > since))).all()
        new_models = (await connection.execute(sa.select(models).where(models.c.revision > since))).all()
        new_mappings = (await connection.execute(sa.select(mappings).where(mappings.c.revision > since))).all()
        verdicts = (await connection.execute(sa.select(validations).where(validations.c.revision > since))).all()
        # From here to the end nothing is awaited: readers see the old state or the new one.
        for row in new_providers:
            self.providers[row.slug] = Provider(row.slug, row.organisation_id, row.in_clients, row.organisation)
        for row in new_models:
            self._put_model(model_rows.from_row(row))
        for mapping_id in removed:
            self._drop(mapping_id, revision)
        for row in new_mappings:
            self._put(mapping_rows.from_row(row))
        for row in verdicts:
            self.validations[row.mapping_id] = validation_rows.from_row(row)
        self.revision = revision

    def _put_model(self, facts: ModelFacts) -> None:
        old = self.models.get(facts.id)
        for tag in old.tags if old else ():
            self._tagged[tag].discard(facts.id)
        for tag in facts.tags:
            self._tagged[tag].add(facts.id)
        self.models[facts.id] = facts

    def _put(self, mapping: Mapping) -> None:
        self.mappings[mapping.id] = mapping
        self.of_provider[mapping.provider][mapping.id] = mapping
        self.changed_at[mapping.provider] = max(self.changed_at.get(mapping.provider, 0), mapping.revision)
        if mapping.hf_model is not None:
            self.of_model[mapping.hf_model][mapping.id] = mapping
        else:
            self.filters[mapping.id] = mapping

    def _drop(self, mapping_id: str, revision: int) -> None:
        mapping = self.mappings.pop(mapping_id, None)
        self.validations.pop(mapping_id, None)
        if mapping is None:
            return
        self.of_provider[mapping.provider].pop(mapping_id, None)
        self.changed_at[mapping.provider] = revision
        self.filters.pop(mapping_id, None)
        if mapping.hf_model is not None:
            self.of_model[mapping.hf_model].pop(mapping_id, None)
            if not self.of_model[mapping.hf_model]:
                del self.of_model[mapping.hf_model]

    def tagged(self, tags: tuple[str, ...]) -> set[str]:
        """The ids of the known models that carry all of these tags."""
        sets = sorted((self._tagged.get(tag, set()) for tag in tags), key=len)
        return set.intersection(*sets) if sets else set()

    def matching(self, facts: ModelFacts) -> Iterator[Mapping]:
        """Every mapping that covers the model: its own, then tag filters that match its tags.

        Only those for a task that the model does: it may have changed since, or never done a filter's.
        """
        carried = set(facts.tags)
        for mapping in self.of_model.get(facts.id, {}).values():
            if facts.serves(mapping.task):
                yield mapping
        for mapping in self.filters.values():
            if carried.issuperset(mapping.tags or ()) and facts.serves(mapping.task):
                yield mapping
