"""What the service does by the clock: each piece of work at its own interval, never twice at once.

The schedule is held in memory: what is due is written in the database, and a tick only looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]  # it ships no types

from roadworthy.errors import RoadworthyError

STOP_WITHIN_S = 5.0
"""How long a tick that is under way may take to end when the service stops."""

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
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=STOP_WITHIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._scheduler.shutdown(wait=False)
