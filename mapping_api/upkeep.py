"""Keeping the facts of models up to date in the background.

Every mapped model and every tag filter is asked for again once in each period (six
hours), at a moment of its own, so that the questions are spread evenly. New adapters
thereby appear under a filter that stands already. A tag filter that is new is listed
whole at the next look, within a minute.

What is gone from the hub, or does another task now, stays registered: the partner's list
is the partner's. But its facts no longer serve the mapping's task, so nobody is sent
there; the audit log says so, and says it again when the model is back. A model counts
as gone when it was missing twice, ten minutes apart, so that a short lapse of the hub
takes nobody off the list.

Each process of several on one database does this by itself; they find the same and write it once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable
from dataclasses import replace

from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.errors import ConfigError
from roadworthy.mapping_api.change import Actor, Change, change
from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable, ModelCatalogue
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.store import models
from roadworthy.mapping_api.view import View

CATALOGUE = Actor("catalogue")
STOPPED_MATCHING = "model.stopped_matching"
MATCHES_AGAIN = "model.matches_again"
LOOK_S = 30.0
"""How often is looked for what is due."""
CONFIRM_GONE_S = 600.0
BATCH = 100
"""So many models are asked for together, and written in one change."""
RECHECKED_MAX = 500
"""Of how many models that left a filter's list the facts are asked for at once."""

_log = logging.getLogger(__name__)
_Subject = str | tuple[str, ...]  # a model's id, or a filter's tags


class Upkeep:
    """The background work of one service. Tests call `look()` themselves."""

    def __init__(self, database: Database, view: View, catalogue: ModelCatalogue, period_s: float) -> None:
        """Nothing is done before `start()` or `look()`."""
        self._database = database
        self._view = view
        self._catalogue = catalogue
        self._period_s = period_s
        self._turn_of: dict[_Subject, int] = {}
        self._missing_since_s: dict[str, float] = {}
        self._woken = asyncio.Event()
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look now and then."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop; what is being written is undone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """Read the catalogue's file again even if it looks unchanged, and look now."""
        self._again = True
        self._woken.set()

    async def take_over(self, gone: Iterable[str] = ()) -> None:
        """Make the database's models agree with a catalogue that can be listed whole; `gone` are no longer in it."""
        asked_at = self._view.revision
        try:
            known = await self._catalogue.everything()
        except CatalogueUnavailable as error:
            _log.warning("the model catalogue cannot be listed now: %s", error)
            return
        have = self._view.models
        facts = [facts for facts in known or () if have.get(facts.id) != facts]
        facts += [_gone(have[id]) for id in gone if id in have]
        await self._write(facts, asked_at)

    async def look(self, now_s: float | None = None) -> None:
        """Ask for everything that is due. Raises `CatalogueUnavailable` where the catalogue answers nothing."""
        now_s = time.time() if now_s is None else now_s
        await self._view.fresh()
        await self._read_file_again()
        due_models, due_filters = await self._due(now_s)
        for start in range(0, len(due_models), BATCH):
            await self._refresh(due_models[start : start + BATCH], now_s)
        for tags in due_filters:
            await self._follow(tags, now_s)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self.look()
            except (CatalogueUnavailable, DatabaseUnavailableError) as error:
                _log.warning("the facts of models could not be brought up to date now: %s", error)
            except Exception:  # noqa: BLE001  logged whole; it must not end the upkeep
                _log.exception("bringing the facts of models up to date failed")

    async def _read_file_again(self) -> None:
        again, self._again = self._again, False
        if not isinstance(self._catalogue, FileCatalogue):
            return
        try:
            gone = await self._catalogue.read_again(always=again)
        except ConfigError as error:
            _log.error("the changed model catalogue is not taken over: %s", error)
            return
        if gone is not None:
            await self.take_over(gone)
            await self._view.fresh()
            _log.info("the model catalogue was read again; %d models are gone from it", len(gone))

    async def _due(self, now_s: float) -> tuple[list[str], list[tuple[str, ...]]]:
        view = self._view
        subjects: list[_Subject] = [*view.of_model, *{mapping.tags or () for mapping in view.filters.values()}]
        for gone in self._turn_of.keys() - set(subjects):
            del self._turn_of[gone]
        due_models = [id for id in self._missing_since_s if id not in view.of_model and self._may_confirm(id, now_s)]
        due_filters = []
        for number, subject in enumerate(subjects):
            if number % 2000 == 1999:
                await asyncio.sleep(0)  # requests come before this
            turn = self._turn(subject, now_s)
            if isinstance(subject, str):
                # Facts that are there were asked for at registration; what was missing is looked at twice.
                seen = self._turn_of.setdefault(subject, turn if subject in view.models else turn - 1)
                if seen != turn or self._may_confirm(subject, now_s):
                    due_models.append(subject)
            elif self._turn_of.get(subject) != turn:
                due_filters.append(subject)
        return due_models, due_filters

    def _turn(self, subject: _Subject, now_s: float) -> int:
        """The number of the subject's present period; each has its own moment within it."""
        digest = hashlib.sha256(repr(subject).encode()).digest()
        return int(now_s / self._period_s + int.from_bytes(digest[:6]) / 2**48)

    def _may_confirm(self, model_id: str, now_s: float) -> bool:
        since_s = self._missing_since_s.get(model_id)
        return since_s is not None and now_s - since_s >= CONFIRM_GONE_S

    async def _refresh(self, ids: list[str], now_s: float) -> None:
        asked_at = (await self._view.fresh()).revision
        answers = await asyncio.gather(*map(self._catalogue.get, ids), return_exceptions=True)
        facts = []
        failures: list[BaseException] = []
        for id, answer in zip(ids, answers, strict=True):
            if isinstance(answer, BaseException):
                failures.append(answer)  # it stays due
                continue
            self._turn_of[id] = self._turn(id, now_s)
            held = self._view.models.get(id)
            if answer is not None:
                self._missing_since_s.pop(id, None)
                # A renamed model is still served under the name it was mapped by.
                facts.append(replace(answer, id=id))
            elif held is not None and self._may_confirm(id, now_s):
                del self._missing_since_s[id]
                facts.append(_gone(held))
            elif held is not None and held != _gone(held):
                self._missing_since_s.setdefault(id, now_s)
        await self._write(facts, asked_at)
        # One model that cannot be asked for holds up no other; a hub that answers nothing ends the look.
        if failures and len(failures) == len(ids) and len(ids) > 1:
            raise failures[0]
        if failures:
            _log.warning("%d models could not be asked for: %s", len(failures), failures[0])

    async def _follow(self, tags: tuple[str, ...], now_s: float) -> None:
        tasks = {mapping.task for mapping in self._view.filters.values() if mapping.tags == tags}
        asked_at = (await self._view.fresh()).revision
        found = await self._catalogue.tagged(tags)
        listed = {facts.id for facts in found}
        for start in range(0, len(found), BATCH * 10):
            part = found[start : start + BATCH * 10]
            await self._write(
                [facts for facts in part if facts.id in self._view.models or any(map(facts.serves, tasks))], asked_at
            )
        left = sorted(self._view.tagged(tags) - listed)[:RECHECKED_MAX]
        for start in range(0, len(left), BATCH):
            await self._refresh(left[start : start + BATCH], now_s)
        self._turn_of[tags] = self._turn(tags, now_s)

    async def _write(self, facts: list[ModelFacts], asked_at: int) -> None:
        # Asked for without the database's lock, so what is not new takes no revision.
        news = [one for one in facts if self._view.models.get(one.id) != one]
        if not news:
            return
        async with change(self._database, CATALOGUE) as opened:
            for before, after in await models.keep(opened, news, asked_at=asked_at):
                await self._record(opened, before, after)
        await self._view.fresh()

    async def _record(self, opened: Change, before: ModelFacts, after: ModelFacts) -> None:
        for mapping in list(self._view.of_model.get(after.id, {}).values()):
            if before.serves(mapping.task) != after.serves(mapping.task):
                await opened.record(
                    MATCHES_AGAIN if after.serves(mapping.task) else STOPPED_MATCHING,
                    mapping.id,
                    provider=mapping.provider,
                    before=_shown(before),
                    after=_shown(after),
                )


def _gone(facts: ModelFacts) -> ModelFacts:
    """What is kept of a model that is gone: its name and id. It does no task and carries no tag."""
    return ModelFacts(facts.id, hub_id=facts.hub_id)


def _shown(facts: ModelFacts) -> dict[str, object]:
    return {"hfModel": facts.id, "pipeline_tag": facts.pipeline_tag, "tags": list(facts.tags)}
