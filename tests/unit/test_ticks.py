"""Work by the clock: never twice at once, going on after a failure, ended with the service."""

from __future__ import annotations

import asyncio
import logging

import pytest

from roadworthy import ticks
from roadworthy.errors import RoadworthyError
from roadworthy.ticks import Lanes, Looking, Ticks, end

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


async def test_wakes_that_come_at_once_share_a_look_and_one_during_a_look_makes_another():
    looks = []
    go_on = asyncio.Event()

    async def look():
        looks.append(len(looks))
        await go_on.wait()

    looking = Looking("looking", look)
    for _ in range(5):
        looking.wake()
    await asyncio.sleep(0)
    assert looks == [0]
    looking.wake()
    looking.wake()
    assert len(looking.under_way) == 1
    go_on.set()
    await asyncio.wait(looking.under_way)
    assert looks == [0, 1]
    assert looking.under_way == []


async def test_a_look_that_fails_is_logged_and_the_next_one_comes(caplog):
    failures = iter([RoadworthyError("the database is away"), ValueError("a fault")])
    done = []

    async def look():
        failure = next(failures, None)
        if failure is not None:
            raise failure
        done.append("done")

    looking = Looking("sending", look)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await looking.tick()
    assert done == ["done"]
    assert caplog.messages == ["sending: the database is away", "sending failed"]


async def test_after_a_stop_nothing_is_looked_for_and_the_last_look_comes_to_its_end():
    looks = []

    async def look():
        looks.append("begun")
        await asyncio.sleep(0)
        looking.wake()
        looks.append("ended")

    looking = Looking("looking", look)
    looking.wake()
    await asyncio.sleep(0)
    looking.stop()
    await asyncio.wait(looking.under_way)
    await looking.tick()
    assert looks == ["begun", "ended"]


async def test_a_receiver_has_one_lane_and_none_while_it_is_paused(monkeypatch):
    go_on = asyncio.Event()
    lanes = Lanes(2)

    async def send():
        await go_on.wait()

    lanes.begin("a", send())
    assert not lanes.open("a")
    assert lanes.open("b")
    lanes.pause("b", 0)
    assert lanes.open("b")
    lanes.pause("b", 60)
    assert not lanes.open("b")
    assert not lanes.full
    lanes.begin("c", send())
    assert lanes.full
    assert not lanes.open("d")
    go_on.set()
    await asyncio.wait(lanes.under_way)
    assert lanes.under_way == []
    assert [lanes.open(each) for each in "abcd"] == [True, False, True, True]
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + 61)
    assert lanes.open("b")


async def test_what_does_not_end_is_cancelled(monkeypatch):
    monkeypatch.setattr(ticks, "STOP_WITHIN_S", 0.05)
    short, endless = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.Event().wait())
    await end([])
    await end([short, endless])
    assert not short.cancelled()
    assert endless.cancelled()
