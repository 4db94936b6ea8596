"""What a service does by itself: work by the clock, looks at what is due, and lanes that work it off.

The schedule is held in memory: what is due is written in the database, and a tick only looks. None of it is done
twice at once, and one that fails ends nothing but itself.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]  # it ships no types

from roadworthy.errors import RoadworthyError

STOP_WITHIN_S = 5.0
"""How long what is under way may take to end when the service stops."""

_log = logging.getLogger(__name__)
# It reports each tick that found the last one still at work, and that is what we ask of it.
logging.getLogger("apscheduler").setLevel(logging.ERROR)


class Ticks:
    """The clock of one service. Add work with `every`, before or after `start`."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False

    def every(
        self, name: str, interval_s: float, work: Callable[[], Awaitable[None]], *, first_after_s: float = 0.0
    ) -> None:
        """Do the work each `interval_s`. A failure is logged and ends nothing but that one tick."""

        async def tick() -> None:
            task = asyncio.current_task()
            assert task is not None
            self._running.add(task)
            try:
                await work()
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
            except RoadworthyError as error:
                _log.warning("%s: %s", name, error)
            except Exception:  # noqa: BLE001 - the next tick comes whatever this one met
                _log.exception("%s failed", name)
            finally:
                self._running.discard(task)

        self._scheduler.add_job(
            tick,
            "interval",
            seconds=interval_s,
            id=name,
            name=name,
            next_run_time=datetime.now(UTC) + timedelta(seconds=first_after_s),
        )

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._scheduler.start()

    async def stop(self) -> None:
        """Begin no more ticks, and wait a while for those under way before they are cancelled."""
        if not self._scheduler.running:
            return
        self._scheduler.remove_all_jobs()
        self._stopping = True
        await end(self._running)
        self._scheduler.shutdown(wait=False)


class Ticking(ABC):
    """A service that lives by its ticks: from `start` to `stop`, or as long as the block that it is used in."""

    def __init__(self) -> None:
        self._ticks = Ticks()

    async def start(self) -> None:
        """Begin, on the running event loop."""
        self._ticks.start()

    @abstractmethod
    async def stop(self) -> None:
        """Begin nothing more, give up what is under way, and let go of everything."""

    async def __aenter__(self) -> Self:
        """Start with the block."""
        await self.start()
        return self

    async def __aexit__(self, *_raised: object) -> None:
        """Stop with the block."""
        await self.stop()


class Looking:
    """Looks at what is due, once at a time. Who wakes it while it looks makes it look once more."""

    def __init__(self, name: str, look: Callable[[], Awaitable[None]]) -> None:
        """`look` begins what is due; a failure of it is logged, and the next wake looks again."""
        self._name = name
        self._look = look
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._stopping = False

    @property
    def under_way(self) -> list[asyncio.Task[Any]]:
        """The look that is under way, if there is one."""
        return [] if self._task is None or self._task.done() else [self._task]

    def wake(self) -> None:
        """Look now, without waiting for it. Wakes that come at once share one look; after `stop` none looks."""
        if self._stopping:
            return
        self._again = True
        if not self.under_way:
            self._task = asyncio.create_task(self._look_while_woken())

    async def tick(self) -> None:
        """Look now, and wait until that is done."""
        self.wake()
        for task in self.under_way:
            await asyncio.shield(task)

    def stop(self) -> None:
        """Look no more; a look that is under way goes on to its end."""
        self._stopping = True

    async def _look_while_woken(self) -> None:
        while self._again and not self._stopping:
            self._again = False
            try:
                await self._look()
            except RoadworthyError as error:
                _log.warning("%s: %s", self._name, error)
            except Exception:  # noqa: BLE001 - the next wake looks again whatever this one met
                _log.exception("%s failed", self._name)


class Lanes:
    """At most one task for each receiver at a time, and so many at once; a receiver that is paused gets none."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        """How many tasks go on at once."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._paused: dict[str, float] = {}

    @property
    def under_way(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended."""
        return list(self._tasks.values())

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        return len(self._tasks) >= self.slots

    def open(self, receiver: str) -> bool:
        """Whether something may be begun for the receiver now."""
        return not self.full and receiver not in self._tasks and not self.paused(receiver)

    def begin(self, receiver: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin work for a receiver whose lane is `open`."""
        task = asyncio.create_task(work)
        self._tasks[receiver] = task
        task.add_done_callback(functools.partial(self._leave, receiver))

    def pause(self, receiver: str, seconds: float) -> None:
        """Leave the receiver alone for so long; 0 or less is no pause."""
        if seconds > 0:
            now = asyncio.get_running_loop().time()
            self._paused = {id: until for id, until in self._paused.items() if until > now}
            self._paused[receiver] = now + seconds

    def paused(self, receiver: str) -> bool:
        """Whether the receiver is left alone now."""
        return self._paused.get(receiver, 0.0) > asyncio.get_running_loop().time()

    def _leave(self, receiver: str, _task: asyncio.Task[None]) -> None:
        del self._tasks[receiver]


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Wait a while for the tasks, then cancel those that go on, and wait for that."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=STOP_WITHIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
