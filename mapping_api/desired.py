"""A provider's whole mapping as it is to be: what must be added, changed and removed, and doing so at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Lookup
from dataclasses import dataclass
from typing import Any

from roadworthy.database import Database
from roadworthy.mapping_api import registration
from roadworthy.mapping_api.change import Actor, Change, change
from roadworthy.mapping_api.errors import BadRequest, Refusal
from roadworthy.mapping_api.listing import listing
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.records import Item, Mapping, ModelFacts, Status
from roadworthy.mapping_api.store import mappings, models

MAX_ITEMS = 20_000
MAX_REASONS = 100
"""So many invalid items are told of at once."""
QUESTIONS_AT_ONCE = 16
"""So many questions the catalogue is asked side by side."""
GUARDED_LIVE = 10
"""With so many live mappings or more, removing more than half must be confirmed; removing all, with any."""
_TOLD_IN_WORDS = 3

Name = tuple[str, str]
"""What names an item within its provider: task and source."""
Facts = dict[Name, list[ModelFacts]]


class InvalidItems(BadRequest):
    """Some items cannot be used. Nothing was written."""

    def __init__(self, reasons: Lookup[int, str]) -> None:
        """`reasons` by the items' places, counted from 0."""
        self.items = [{"index": index, "reason": reasons[index]} for index in sorted(reasons)][:MAX_REASONS]
        told = "; ".join(f"models[{each['index']}]: {each['reason']}" for each in self.items[:_TOLD_IN_WORDS])
        more = len(self.items) - _TOLD_IN_WORDS
        super().__init__(told + (f"; and {more} more, see `items`" if more > 0 else ""))

    @property
    def body(self) -> dict[str, Any]:
        """The message, and each item's own reason."""
        return super().body | {"items": self.items}


class Unconfirmed(Refusal):
    """The removals need a confirmation, or are others than those confirmed. Nothing was written."""

    status_code = 409

    def __init__(self, message: str, removals: int) -> None:
        """`removals` is how many mappings would be removed."""
        super().__init__(message)
        self.removals = removals

    @property
    def body(self) -> dict[str, Any]:
        """The message, and how many mappings would be removed."""
        return super().body | {"removals": self.removals}


@dataclass(frozen=True, slots=True)
class Amendment:
    """A mapping that stays, with another status or provider model."""

    mapping: Mapping
    status: Status
    provider_model: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from the present mapping to the desired one."""

    added: tuple[Item, ...]
    amended: tuple[Amendment, ...]
    removed: tuple[Mapping, ...]
    unchanged: int

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.added or self.amended or self.removed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or in a dry run would be: entries in full, and the tag of the list that the caller now sees."""

    added: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    unchanged: int
    etag: str

    def body(self) -> dict[str, Any]:
        """The answer."""
        return {
            "added": self.added,
            "changed": self.changed,
            "removed": self.removed,
            "unchanged": self.unchanged,
        }


def plan(present: Iterable[Mapping], wanted: Iterable[Item]) -> Plan:
    """What leads from the present mapping to the wanted one. An item is the same where task and source are."""
    left = mappings.by_source(present)
    added, amended, unchanged = [], [], 0
    for item in wanted:
        mapping = left.pop((item.task, item.source), None)
        if mapping is None:
            added.append(item)
            continue
        status = item.status or mapping.status
        if (status, item.provider_model) == (mapping.status, mapping.provider_model):
            unchanged += 1
        else:
            amended.append(Amendment(mapping, status, item.provider_model))
    return Plan(tuple(added), tuple(amended), tuple(left.values()), unchanged)


def check_unique(items: Lookup[int, Item], reasons: dict[int, str]) -> None:
    """Put a reason by every item that stands there a second time, naming both places."""
    first: dict[Name, int] = {}
    for index, item in items.items():
        earlier = first.setdefault((item.task, item.source), index)
        if earlier != index:
            reasons[index] = (
                f"the same as models[{earlier}]: both map {item.source!r} for {item.task}; keep one of the two"
            )


@dataclass(frozen=True, slots=True)
class Desired:
    """A whole mapping that a provider asks for.

    `items` by their places in the body; `reasons` says of the others why they cannot be used.
    `precondition` raises where the tag of the present list is not the one the caller knows;
    `confirmed` is the number of removals that he agreed to.
    """

    provider: str
    items: dict[int, Item]
    reasons: dict[int, str]
    precondition: Callable[[str], None]
    confirmed: int | None = None

    async def apply(self, database: Database, catalogue: ModelCatalogue, actor: Actor, *, dry_run: bool) -> Outcome:
        """Do it in one transaction, or only say what would be done.

        Raises `InvalidItems`, `Unconfirmed`, `PreconditionFailed`, and `CatalogueUnavailable`
        where facts about new models cannot be asked for; nothing is written then.
        """
        async with database.reading() as connection:
            present = await mappings.of_provider(connection, self.provider)
        facts: Facts = {}
        while True:
            etag = listing(present).etag
            self.precondition(etag)
            planned = plan(present, self.items.values())
            await self._ask(planned, catalogue, facts)
            if dry_run:
                return _foretold(planned, etag)
            if planned.empty:
                self._guard(planned, present)
                return Outcome([], [], [], planned.unchanged, etag)
            try:
                async with change(database, actor) as opened:
                    present = await mappings.of_provider(opened.connection, self.provider)
                    return await self._carry_out(opened, present, facts)
            except _MovedError:
                # Somebody removed what was there when the facts were asked; ask for those too.
                continue

    async def _ask(self, planned: Plan, catalogue: ModelCatalogue, facts: Facts) -> None:
        """Get the facts about everything new that are not here yet. Raises `InvalidItems`."""
        reasons = dict(self.reasons)
        new = {(item.task, item.source) for item in planned.added} - facts.keys()
        waiting = iter([(index, item) for index, item in self.items.items() if (item.task, item.source) in new])

        async def ask() -> None:
            for index, item in waiting:
                if len(reasons) >= MAX_REASONS:
                    return
                try:
                    facts[item.task, item.source] = await registration.facts_for(item, catalogue)
                except BadRequest as refusal:
                    reasons[index] = str(refusal)

        tasks = [asyncio.ensure_future(ask()) for _ in range(min(QUESTIONS_AT_ONCE, len(new)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if reasons:
            raise InvalidItems(reasons)

    async def _carry_out(self, opened: Change, present: Sequence[Mapping], facts: Facts) -> Outcome:
        self.precondition(listing(present).etag)
        planned = plan(present, self.items.values())
        if any((item.task, item.source) not in facts for item in planned.added):
            raise _MovedError
        self._guard(planned, present)
        added = [mappings.made(opened, self.provider, item) for item in planned.added]
        changed = [
            (
                each.mapping,
                mappings.amended(opened, each.mapping, status=each.status, provider_model=each.provider_model),
            )
            for each in planned.amended
        ]
        await mappings.rewrite(opened, self.provider, added=added, changed=changed, removed=planned.removed)
        await models.keep(opened, (one for mapping in added for one in facts[mapping.task, mapping.source]))
        after = {mapping.id: mapping for mapping in (*present, *added)}
        after |= {new.id: new for _, new in changed}
        for gone in planned.removed:
            del after[gone.id]
        return Outcome(
            [mapping.in_full() for mapping in added],
            [{"before": old.in_full(), "after": new.in_full()} for old, new in changed],
            [mapping.in_full() for mapping in planned.removed],
            planned.unchanged,
            listing(after.values()).etag,
        )

    def _guard(self, planned: Plan, present: Sequence[Mapping]) -> None:
        """Raises `Unconfirmed` where much would go without being confirmed, or other than what was."""
        removals = len(planned.removed)
        if self.confirmed is not None and self.confirmed != removals:
            raise Unconfirmed(
                f"confirmRemovals={self.confirmed} was given, but {removals} mappings would be removed; "
                "look at ?dryRun=true again",
                removals,
            )
        live = sum(mapping.status == "live" for mapping in present)
        going = sum(mapping.status == "live" for mapping in planned.removed)
        emptied = bool(going) and removals == len(present) and not planned.added
        if self.confirmed is None and (emptied or (live >= GUARDED_LIVE and going * 2 > live)):
            raise Unconfirmed(
                f"this would remove {going} of {live} live mappings; if that is meant, look at ?dryRun=true and "
                f"send ?confirmRemovals={removals}",
                removals,
            )


class _MovedError(Exception):
    """The mapping changed meanwhile so that facts are missing."""


def _foretold(planned: Plan, etag: str) -> Outcome:
    return Outcome(
        [item.in_full() for item in planned.added],
        [
            {
                "before": each.mapping.in_full(),
                "after": each.mapping.in_full() | {"providerModel": each.provider_model, "status": each.status},
            }
            for each in planned.amended
        ],
        [mapping.in_full() for mapping in planned.removed],
        planned.unchanged,
        etag,
    )
