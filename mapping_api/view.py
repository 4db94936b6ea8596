"""What readers read: everything the service publishes, held in memory and never stale.

Each read first makes sure that the copy is at the database's present revision. On SQLite that
is a look at a counter; on PostgreSQL a question that all reads of the moment share. A change
elsewhere (another process, the validator, the command line) is fetched as the rows that
changed since, so 50,000 mappings cost a read nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.database.watch import PostgresqlWatch, SqliteWatch
from roadworthy.mapping_api.records import Mapping, ModelFacts, Provider, Validation
from roadworthy.mapping_api.store import mappings as mapping_rows
from roadworthy.mapping_api.store import models as model_rows
from roadworthy.mapping_api.store import validations as validation_rows
from roadworthy.mapping_api.tables import mappings, models, organisations, providers, removals, revisions, validations

ANSWERS_BYTES = 64 * 1024 * 1024
"""How much memory ready answers may take."""
_ANSWER_OVERHEAD_BYTES = 512
_BYTES_PER_CHARACTER = 4
"""At most so many bytes does Python need for one; a key is counted as it is written out."""
MANY_MAPPINGS = 10_000
"""From how many mappings read at once Python's collector is told to leave them alone."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Something made of the view at one version of it."""

    version: int
    made: Any
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """What changed after one revision, read in one snapshot."""

    providers: list[Provider]
    models: list[ModelFacts]
    mappings: list[Mapping]
    validations: list[Validation]
    removed: list[str]
    removed_at: dict[str, int]
    """The latest removal of each provider."""

    def any(self) -> bool:
        return bool(self.providers or self.models or self.mappings or self.validations or self.removed_at)


class View:
    """The copy. Its dictionaries may be read freely between two awaits; `fresh()` alone changes them."""

    def __init__(self, database: Database) -> None:
        """Empty until `fresh()` is awaited."""
        self._database = database
        sqlite = database.dialect == "sqlite"
        self._file = SqliteWatch(database.url) if sqlite else None
        self._server = None if sqlite else PostgresqlWatch(database.url, str(sa.select(revisions.c.value)))
        self._mark: tuple[int, int] | None = None
        self.refreshes = 0
        """How often rows that had changed were read."""
        self.asked_at_s = float("-inf")
        """When the database last said that the view is fresh, by `time.monotonic()`."""
        self._behind = False
        self._running: asyncio.Future[None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._clear()

    def _clear(self) -> None:
        self.revision = -1
        self.state = 0
        """Counts the changes of what is held here; unlike the revision, which also counts changes of other things."""
        self.providers: dict[str, Provider] = {}
        self.models: dict[str, ModelFacts] = {}
        self.mappings: dict[str, Mapping] = {}
        self.validations: dict[str, Validation] = {}
        self.of_provider: dict[str, dict[str, Mapping]] = defaultdict(dict)
        self.of_model: dict[str, dict[str, Mapping]] = defaultdict(dict)
        self.filters: dict[str, Mapping] = {}
        self.changed_at: dict[str, int] = {}
        """The revision at which each provider's mapping last changed, removals included."""
        self._tagged: dict[str, set[str]] = defaultdict(set)
        self._filters_of: dict[str, dict[str, Mapping]] = defaultdict(dict)
        self._answers: dict[Hashable, _Answer] = {}
        self._answers_bytes = 0

    async def fresh(self) -> View:
        """This view, at a revision no older than when this was called. Raises `DatabaseUnavailableError`."""
        if self._file is not None and self._mark is not None:
            asked_at_s = time.monotonic()
            if self._file.mark() == self._mark:
                self.asked_at_s = asked_at_s
                return self
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._after(self._running))
            self._waiting.add_done_callback(lambda task: task.cancelled() or task.exception())
        # One who gives up waiting must not take the question from the others.
        await asyncio.shield(self._waiting)
        return self

    async def fresh_or_recent(self, bound_s: float) -> float:
        """Make the view fresh; where the database does not answer, let it do as it was last seen.

        Returns how many seconds ago that was: 0 for a fresh one. Raises `DatabaseUnavailableError`
        where it is longer ago than `bound_s`.
        """
        try:
            await self.fresh()
        except DatabaseUnavailableError as error:
            age_s = time.monotonic() - self.asked_at_s
            if age_s > bound_s:
                raise
            if not self._behind:
                _log.warning("public reads go on from the last copy, for at most %.0f s: %s", bound_s, error)
                self._behind = True
            return age_s
        if self._behind:
            _log.warning("the database answers again; reads are fresh")
            self._behind = False
        return 0.0

    async def close(self) -> None:
        """Let go of the view's own connection, after the question that is under way."""
        for task in (self._running, self._waiting):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        if self._file is not None:
            self._file.close()
        if self._server is not None:
            await self._server.close()

    async def _after(self, running: asyncio.Future[None] | None) -> None:
        # A question that is under way may have been answered before the caller's own write;
        # so newcomers wait for the next one, and share it.
        if running is not None and not running.done():
            await asyncio.wait([running])
        self._running, self._waiting = self._waiting, None
        asked_at_s = time.monotonic()
        mark = None
        if self._file is not None:
            mark = self._file.mark()  # before the snapshot, so that no write falls between the two
        if self._server is None or await self._server.ask() != self.revision:
            await self._refresh()
        self._mark, self.asked_at_s = mark, asked_at_s

    async def _refresh(self) -> None:
        async with self._database.reading() as connection:
            revision = (await connection.execute(sa.select(revisions.c.value))).scalar_one()
            if revision == self.revision:
                return
            # A smaller one is an older state, from a backup: nothing that is held may stay.
            again = revision < self.revision
            rows = await _since(connection, -1 if again else self.revision)
        # From here to the end nothing is awaited: readers see the old state or the new one.
        if again:
            state = self.state
            self._clear()
            self.state = state + 1
        self._take(rows, revision)
        self.refreshes += 1

    def _take(self, rows: _Rows, revision: int) -> None:
        for provider in rows.providers:
            self.providers[provider.slug] = provider
        for facts in rows.models:
            self._put_model(facts)
        for mapping_id in rows.removed:
            self._drop(mapping_id)
        for mapping in rows.mappings:
            self._put(mapping)
            self._changed(mapping.provider, mapping.revision)
        for slug, removed_at in rows.removed_at.items():
            self._changed(slug, removed_at)
        for verdict in rows.validations:
            self.validations[verdict.mapping_id] = verdict
        self.revision = revision
        if rows.any():
            self.state += 1
        if len(rows.mappings) >= MANY_MAPPINGS:
            # What was read stays; were it walked through at each full collection, reads would stall for it.
            gc.collect()
            gc.freeze()

    def _put_model(self, facts: ModelFacts) -> None:
        old = self.models.get(facts.id)
        for tag in old.tags if old else ():
            _discard(self._tagged, tag, facts.id)
        for tag in facts.tags:
            self._tagged[tag].add(facts.id)
        self.models[facts.id] = facts

    def _put(self, mapping: Mapping) -> None:
        self.mappings[mapping.id] = mapping
        self.of_provider[mapping.provider][mapping.id] = mapping
        if mapping.hf_model is not None:
            self.of_model[mapping.hf_model][mapping.id] = mapping
        else:
            self.filters[mapping.id] = mapping
            self._filters_of[_rarest(mapping.tags or ())][mapping.id] = mapping

    def _drop(self, mapping_id: str) -> None:
        mapping = self.mappings.pop(mapping_id, None)
        self.validations.pop(mapping_id, None)
        if mapping is None:
            return  # it came and went between two looks
        _remove(self.of_provider, mapping.provider, mapping_id)
        if mapping.hf_model is not None:
            _remove(self.of_model, mapping.hf_model, mapping_id)
        else:
            del self.filters[mapping_id]
            _remove(self._filters_of, _rarest(mapping.tags or ()), mapping_id)

    def _changed(self, provider: str, revision: int) -> None:
        self.changed_at[provider] = max(self.changed_at.get(provider, 0), revision)

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
        for tag in carried:
            for mapping in self._filters_of.get(tag, {}).values():
                if carried.issuperset(mapping.tags or ()) and facts.serves(mapping.task):
                    yield mapping

    def answer(
        self, key: Hashable, make: Callable[[], T], size_bytes: Callable[[T], int], *, provider: str | None = None
    ) -> T:
        """What `make` makes of this view, kept as long as the view stays as it is.

        With `provider`, as long as that provider's mapping does; then `make` may read nothing
        else. The key must name everything else the answer depends on: callers may send what they
        like, so at `ANSWERS_BYTES` all is forgotten. Use it between two awaits.
        """
        held = self._held(key, provider)
        if held is not None:
            answer: T = held.made
            return answer
        made = make()
        size = size_bytes(made) + _ANSWER_OVERHEAD_BYTES + _BYTES_PER_CHARACTER * len(repr(key))
        old = self._answers.pop(key, None)
        if old is not None:
            self._answers_bytes -= old.size_bytes
        if self._answers_bytes + size > ANSWERS_BYTES:
            self._answers.clear()
            self._answers_bytes = 0
        if size <= ANSWERS_BYTES:
            self._answers[key] = _Answer(self._version(provider), made, size)
            self._answers_bytes += size
        return made

    def answered(self, key: Hashable) -> Any:
        """What is kept under the key and still stands; None where nothing is."""
        held = self._held(key, None)
        return None if held is None else held.made

    def _held(self, key: Hashable, provider: str | None) -> _Answer | None:
        held = self._answers.get(key)
        return held if held is not None and held.version == self._version(provider) else None

    def _version(self, provider: str | None) -> int:
        return self.state if provider is None else self.changed_at.get(provider, 0)


async def _since(connection: AsyncConnection, since: int) -> _Rows:
    owned = sa.select(providers, organisations.c.name.label("organisation")).join(organisations)

    async def rows(table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
        return list((await connection.execute(sa.select(table).where(table.c.revision > since))).all())

    latest = sa.select(removals.c.provider, sa.func.max(removals.c.revision).label("revision"))
    last = (await connection.execute(latest.where(removals.c.revision > since).group_by(removals.c.provider))).all()
    # For a copy that is still empty, what is gone need not be named: at most a look at each provider.
    gone = await rows(removals) if since >= 0 and last else []
    return _Rows(
        providers=[
            Provider(row.slug, row.organisation_id, row.in_clients, row.organisation)
            for row in await connection.execute(owned.where(providers.c.revision > since))
        ],
        models=[model_rows.from_row(row) for row in await rows(models)],
        mappings=[mapping_rows.from_row(row) for row in await rows(mappings)],
        validations=[validation_rows.from_row(row) for row in await rows(validations)],
        removed=[row.mapping_id for row in gone],
        removed_at={row.provider: row.revision for row in last},
    )


def _rarest(tags: Iterable[str]) -> str:
    """The tag a filter is found by. A long tag names one base model; a short one, like "lora", thousands."""
    return max(tags, key=lambda tag: (len(tag), tag))


def _remove(index: dict[str, dict[str, Mapping]], key: str, mapping_id: str) -> None:
    index[key].pop(mapping_id, None)
    if not index[key]:
        del index[key]


def _discard(index: dict[str, set[str]], key: str, value: str) -> None:
    index[key].discard(value)
    if not index[key]:
        del index[key]
