"""Answers about single models, kept for a while."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable
from roadworthy.mapping_api.records import ModelFacts

FRESH_S = 600
"""How long an answer stands without asking again."""
FRESH_NONE_S = 60
"""The same for "there is no such model": it may be made any minute."""
SHOWN_S = 86_400
"""How long an answer may be shown to readers where the hub cannot be asked."""
SIZE = 20_000
"""Of how many models an answer is kept; the one not asked for longest goes first."""


@dataclass(frozen=True, slots=True)
class _Answer:
    facts: ModelFacts | None
    at_s: float


class AnswerCache:
    """Asks once for each model at a time, and keeps what it hears."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[ModelFacts | None]],
        *,
        size: int = SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` raises `CatalogueUnavailable` where there is no answer; that is not kept."""
        self._ask = ask
        self._size = size
        self._clock = clock
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._asking: dict[str, asyncio.Task[ModelFacts | None]] = {}

    async def get(self, model_id: str) -> ModelFacts | None:
        """The answer, fresh or asked for now.

        Raises `CatalogueUnavailable`, with what was last known where that is at most a day old.
        """
        held = self._answers.get(model_id)
        if held is not None:
            self._answers.move_to_end(model_id)
            if self._clock() - held.at_s < (FRESH_NONE_S if held.facts is None else FRESH_S):
                return held.facts
        task = self._asking.get(model_id)
        if task is None:
            task = asyncio.create_task(self._asked(model_id))
            self._asking[model_id] = task
            task.add_done_callback(lambda done: self._done(model_id, done))
        try:
            # Who leaves does not take the question away from the others who wait for it.
            return await asyncio.shield(task)
        except CatalogueUnavailable as error:
            shown = held is not None and self._clock() - held.at_s < SHOWN_S
            raise CatalogueUnavailable(
                str(error), error.retry_after_s, held.facts if held is not None and shown else None
            ) from error

    async def close(self) -> None:
        """Stop every question under way."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _asked(self, model_id: str) -> ModelFacts | None:
        facts = await self._ask(model_id)
        self._answers[model_id] = _Answer(facts, self._clock())
        self._answers.move_to_end(model_id)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
        return facts

    def _done(self, model_id: str, task: asyncio.Task[ModelFacts | None]) -> None:
        self._asking.pop(model_id, None)
        if not task.cancelled():
            task.exception()  # everyone who waited may be gone; then nobody else takes it
