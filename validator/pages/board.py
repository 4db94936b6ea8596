"""What all pages share, kept in memory: states, counts and quarter days of every provider.

The database is asked at most once a second, and then for what changed: health rows written
since, and the runs of the last two hours. So that nothing can stay wrong for long, each look
also reads one provider anew, the one that was read longest ago.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.view import View
from roadworthy.validator.health import State
from roadworthy.validator.pages import states
from roadworthy.validator.pages.drawings import BAR_US, BARS, HOUR_US, first_bar_us
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store import history
from roadworthy.validator.store.history import Condition, Span, Standing

FRESH_S = 1.0
"""For how long what was read counts as present."""
PATIENCE_S = 0.03
"""How long a reader waits for a look that is under way, where there was one before."""
OLDEST_S = 60.0
"""How old the last look may be to serve in place of one that takes longer."""
WHOLE_S = 60.0
"""How long after a provider was read whole it is read whole again."""
_OVERLAP_US = 60 * SECOND_US
"""A transaction that began before the last look may have ended after it; none takes longer."""
_PAGES = 512

Hours = dict[int, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Row:
    """A live mapping and the state it is shown in."""

    mapping: Mapping
    state: State
    since_us: int | None


@dataclass(frozen=True)
class Card:
    """A provider with the sums over its live mappings."""

    provider: str
    state: State
    counts: dict[State, int]
    down_since_us: int | None
    bars: tuple[Span, ...]
    median_time_to_first_token_s: float | None
    median_throughput_tokens_per_s: float | None
    last_validated_us: int | None
    rows: tuple[Row, ...]
    """Its live mappings, those with trouble first, then by model."""

    @property
    def total(self) -> int:
        """How many live mappings there are."""
        return len(self.rows)


@dataclass
class Board:
    """The shared copy. Await `look()`, then read."""

    database: Database
    now_us: int = 0
    braked_since_us: int | None = None
    behind: bool = False
    """The database does not answer, so this is how things were."""
    version: int = 0
    """Counts the looks: what is drawn of one of them holds until the next."""
    _cards: dict[str, Card] = field(default_factory=dict)
    _made_of: dict[str, Hashable] = field(default_factory=dict)
    _standings: dict[str, Standing] = field(default_factory=dict)
    _hours: dict[str, Hours] = field(default_factory=dict)
    _conditions: dict[str, Condition] = field(default_factory=dict)
    _paused: frozenset[str] = frozenset()
    _whole_at_s: dict[str, float] = field(default_factory=dict)
    _touched: Counter[str] = field(default_factory=Counter)
    _looked_at_s: float = float("-inf")
    _looking: asyncio.Future[None] | None = None
    _kept: OrderedDict[Hashable, tuple[int, Any]] = field(default_factory=OrderedDict)

    async def look(self, view: View) -> Board:
        """Read what changed, if the last look is a second old. Raises `DatabaseUnavailableError` at the first look."""
        if self._is_fresh(view):
            return self
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look(view))
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        recent = time.monotonic() - self._looked_at_s < OLDEST_S and view.providers.keys() <= self._cards.keys()
        if self.version and recent:
            # What a moment brings is waited for; with many mappings, or a busy database, the last look serves.
            await asyncio.wait([self._looking], timeout=PATIENCE_S)
        else:
            # One who gives up waiting must not take the look from the others.
            await asyncio.shield(self._looking)
        return self

    async def _look(self, view: View) -> None:
        try:
            await self._read(view)
            self.behind = False
        except DatabaseUnavailableError:
            if not self.version:
                raise
            self.behind = True
        self._looked_at_s = time.monotonic()

    def _is_fresh(self, view: View) -> bool:
        return time.monotonic() - self._looked_at_s < FRESH_S and view.providers.keys() <= self._cards.keys()

    async def _read(self, view: View) -> None:
        first = not self.version
        whole: str | None = None
        async with self.database.reading() as connection:
            now_us = await self.database.now_us(connection)
            # A clock that was set back, or a backup that was put back: begin again.
            first = first or now_us < self.now_us - _OVERLAP_US
            since_us = first_bar_us(now_us)
            conditions = await history.conditions(connection)
            paused = await history.paused(connection)
            braked_since_us = await history.braked_since_us(connection)
            if first:
                hours = await history.provider_hours(connection, since_us)
                standings = await history.standings(connection)
            else:
                whole = self._longest_ago(view)
                hours = await history.recent_provider_hours(connection, now_us - now_us % HOUR_US - HOUR_US)
                standings = await history.standings(connection, since_us=self.now_us - _OVERLAP_US)
                if whole is not None:
                    standings |= await history.standings(connection, provider=whole)
                    hours |= await history.provider_hours(connection, since_us, whole)
        # From here to the end nothing is awaited: readers see the old copy or the new one.
        if first:
            self._standings, self._hours = {}, {}
            self._whole_at_s = dict.fromkeys(view.providers, time.monotonic())
        elif whole is not None:
            self._hours.pop(whole, None)
            self._whole_at_s[whole] = time.monotonic()
            self._forget(view)
        for provider, found in hours.items():
            known = self._hours.setdefault(provider, {})
            if any(known.get(hour_us) != sums for hour_us, sums in found.items()):
                known.update(found)
                self._touched[provider] += 1
        for mapping_id, standing in standings.items():
            if self._standings.get(mapping_id) != standing:
                self._standings[mapping_id] = standing
                mapping = view.mappings.get(mapping_id)
                if mapping is not None:
                    self._touched[mapping.provider] += 1
        for mapping_id in paused ^ self._paused:
            mapping = view.mappings.get(mapping_id)
            if mapping is not None:
                self._touched[mapping.provider] += 1
        self._conditions, self._paused = conditions, paused
        self.braked_since_us, self.now_us = braked_since_us, now_us
        self.version += 1
        self._refresh_cards(view)

    def _longest_ago(self, view: View) -> str | None:
        oldest = min(view.providers, key=lambda slug: self._whole_at_s.get(slug, float("-inf")), default=None)
        if oldest is None or time.monotonic() - self._whole_at_s.get(oldest, float("-inf")) < WHOLE_S:
            return None
        return oldest

    def _forget(self, view: View) -> None:
        """Drop what is past, and the mappings that are gone."""
        since_us = first_bar_us(self.now_us)
        for hours in self._hours.values():
            for hour_us in [hour_us for hour_us in hours if hour_us < since_us]:
                del hours[hour_us]
        if len(self._standings) > len(view.mappings) + 1000:
            self._standings = {key: value for key, value in self._standings.items() if key in view.mappings}

    def _refresh_cards(self, view: View) -> None:
        for provider in [slug for slug in self._cards if slug not in view.providers]:
            del self._cards[provider]
        for provider in view.providers:
            condition = self._conditions.get(provider)
            made_of = (
                view.changed_at.get(provider, 0),
                self._touched[provider],
                condition,
                condition is not None and states.in_maintenance(condition, self.now_us),
                first_bar_us(self.now_us),
            )
            if self._made_of.get(provider) != made_of or provider not in self._cards:
                self._cards[provider] = self._card(view, provider, condition)
                self._made_of[provider] = made_of

    def _card(self, view: View, provider: str, condition: Condition | None) -> Card:
        rows, counts, firsts, speeds = [], Counter[State](), [], []
        last_validated_us = 0
        for mapping in view.of_provider.get(provider, {}).values():
            if mapping.status != "live":
                continue
            standing = self._standings.get(mapping.id)
            state = states.of_mapping(standing, condition, paused=mapping.id in self._paused, now_us=self.now_us)
            rows.append(Row(mapping, state, standing.since_us if standing is not None else None))
            counts[state] += 1
            verdict = view.validations.get(mapping.id)
            if verdict is None:
                continue
            last_validated_us = max(last_validated_us, verdict.validated_at_us)
            if verdict.active and verdict.time_to_first_token_s is not None:
                firsts.append(verdict.time_to_first_token_s)
            if verdict.active and verdict.throughput_tokens_per_s is not None:
                speeds.append(verdict.throughput_tokens_per_s)
        rows.sort(key=lambda row: (_TROUBLE[row.state], row.mapping.source, row.mapping.task))
        return Card(
            provider=provider,
            state=states.of_provider(counts, condition, self.now_us),
            counts={state: counts[state] for state in State if counts[state]},
            down_since_us=condition.down_since_us if condition is not None else None,
            bars=quarter_days(self._hours.get(provider, {}), self.now_us),
            median_time_to_first_token_s=median(firsts) if firsts else None,
            median_throughput_tokens_per_s=median(speeds) if speeds else None,
            last_validated_us=last_validated_us or None,
            rows=tuple(rows),
        )

    def cards(self, view: View) -> list[Card]:
        """Every provider: those with trouble first, then by name. Those that came since the look are left out."""
        shown = [card for card in self._cards.values() if card.provider in view.providers]
        return sorted(shown, key=lambda card: (_TROUBLE[card.state], card.provider))

    def card(self, provider: str) -> Card | None:
        """One provider."""
        return self._cards.get(provider)

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` makes, kept until the next look: a page that many ask for is drawn once a second."""
        held = self._kept.get(key)
        if held is not None and held[0] == self.version:
            return held[1]
        made = make()
        self.keep(key, made)
        return made

    def keep(self, key: Hashable, made: Any) -> None:
        """Keep something until the next look."""
        self._kept[key] = (self.version, made)
        self._kept.move_to_end(key)
        while len(self._kept) > _PAGES:
            self._kept.popitem(last=False)

    def still(self, key: Hashable) -> Any:
        """What is kept under the key since this look; None where nothing is."""
        held = self._kept.get(key)
        return held[1] if held is not None and held[0] == self.version else None


_TROUBLE = {state: place for place, state in enumerate(states.WORST_FIRST)}


def quarter_days(hours: Hours, now_us: int) -> tuple[Span, ...]:
    """The bars of the last 7 days, made of hours."""
    since_us = first_bar_us(now_us)
    sums = [[0, 0, 0] for _ in range(BARS)]
    for hour_us, found in hours.items():
        number = (hour_us - since_us) // BAR_US
        if 0 <= number < BARS:
            for place, count in enumerate(found):
                sums[number][place] += count
    return tuple(Span(since_us + number * BAR_US, *found) for number, found in enumerate(sums))


def filled(spans: list[Span], now_us: int) -> tuple[Span, ...]:
    """The bars of the last 7 days, with an empty one wherever there was no test."""
    since_us = first_bar_us(now_us)
    known = {span.start_us: span for span in spans}
    starts = [since_us + number * BAR_US for number in range(BARS)]
    return tuple(known.get(start_us) or Span(start_us, 0, 0, 0) for start_us in starts)
