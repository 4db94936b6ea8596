"""Work by the clock: never twice at once, going on after a failure, ended with the service."""

from __future__ import annotations

import asyncio
import logging

import pytest

from roadworthy import ticks
from roadworthy.errors import RoadworthyError
from roadworthy.ticks import Ticks

pytestmark = pytest.mark.anyio


async def ticking(work, for_s, **how):
    clock = Ticks()
    clock.every("work", 0.02, work, **how)
    clock.start()
    await asyncio.sleep(for_s)
    await clock.stop()


async def test_work_that_takes_long_is_never_done_twice_at_once():
    now = most = count = 0

    async def work():
        nonlocal now, most, count
        now, count = now + 1, count + 1
        most = max(most, now)
        await asyncio.sleep(0.1)
        now -= 1

    await ticking(work, 0.5)
    assert most == 1
    assert 2 <= count <= 6


async def test_a_failure_is_logged_and_the_next_tick_comes(caplog):
    failures = iter([RoadworthyError("the database is away"), ValueError("a fault")])
    done = asyncio.Event()

    async def work():
        failure = next(failures, None)
        if failure is not None:
            raise failure
        done.set()

    with caplog.at_level(logging.WARNING):
        await ticking(work, 0.5)
    assert done.is_set()
    assert "work: the database is away" in caplog.messages
    assert "work failed" in caplog.messages


async def test_the_first_tick_can_wait():
    count = 0

    async def work():
        nonlocal count
        count += 1

    await ticking(work, 0.2, first_after_s=60)
    assert count == 0


async def test_stopping_waits_for_what_is_under_way_and_cancels_what_does_not_end(monkeypatch, caplog):
    ended = []

    async def short():
        await asyncio.sleep(0.1)
        ended.append("short")

    await ticking(short, 0.05)
    assert ended == ["short"]

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    monkeypatch.setattr(ticks, "STOP_WITHIN_S", 0.05)
    with caplog.at_level(logging.WARNING):
        await ticking(endless, 0.05)
    assert caplog.messages == []
    assert ended == ["short", "endless"]


async def test_stopping_what_never_began_does_nothing():
    await Ticks().stop()
