"""kill -9 of a validator, again and again, while providers break and mend: nothing is lost and nothing is half done."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter

import pytest
import sqlalchemy as sa
from validating import Providers, chats, embeddings, provider_with_mappings, validating

from roadworthy.database import Database
from roadworthy.mapping_api.store.validations import BROUGHT_BACK, TAKEN_OFF
from roadworthy.mapping_api.tables import audit, events, mappings, validations
from roadworthy.sandbox.server import running
from roadworthy.validator.tables import due, evidence, health, rollups, runs

NAMES = ("together", "groq", "novita")
BREAKS = {
    "together": ("embeddings.bare_list",),
    "groq": ("embeddings.as_text",),
    "novita": ("chat.stream.no_done",),
}
KILLS = {"sqlite": 50, "postgresql": 10}
SETTINGS = {
    "routine_s": 2,
    "retest_s": 1,
    "debounce_s": 0,
    "running": 12,
    "run_timeout_s": 3,
    "lease_s": 4,
    # What depends on the times of earlier failures is tested by itself: here the last word of a provider decides.
    "flaps": 10_000,
    "brake_providers": 100,
    "down_mappings": 100,
}
SEED = 20261121


def flips(seconds, chance):
    """When which provider breaks or mends. At the end one is broken and the others are well."""
    broken = dict.fromkeys(NAMES, False)
    at_s, schedule = 0.0, []
    while at_s < seconds:
        at_s += chance.uniform(0.5, 2.0)
        name = chance.choice(NAMES)
        broken[name] = not broken[name]
        schedule.append((at_s, name, broken[name]))
    return [*schedule, *((at_s, name, name == "groq") for name in NAMES)]


def flip(app, schedule, stop):
    begun = time.monotonic()
    for at_s, name, breaks in schedule:
        if stop.wait(max(0.0, begun + at_s - time.monotonic())):
            return
        app.give(name, *(BREAKS[name] if breaks else ()))


async def prepare(url, root):
    database = Database(url)
    for name in NAMES:
        items = chats(2) if name == "novita" else embeddings(3)
        await provider_with_mappings(database, name, f"{root}/{name}/v1", items, max_running=3)
    return database


async def read(database, table):
    async with database.reading() as connection:
        return (await connection.execute(sa.select(table))).all()


async def states(database):
    """The state of each mapping, by what names it."""
    query = sa.select(mappings.c.provider, mappings.c.source, health.c.state, health.c.active).outerjoin(
        health, health.c.mapping_id == mappings.c.id
    )
    async with database.reading() as connection:
        return {(row.provider, row.source): (row.state, row.active) for row in await connection.execute(query)}


async def settled(database):
    """The states when every mapping was asked once more, begun after now."""
    before = Counter(row.mapping_id for row in await read(database, runs))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        now = Counter(row.mapping_id for row in await read(database, runs))
        if all(now[row.id] >= before[row.id] + 2 for row in await read(database, mappings)):
            return await states(database)
    raise AssertionError("some mapping did not run any more: its due time was lost")


async def assert_whole(database):
    """Health, verdict, runs, sums, evidence and audit log tell the same story."""
    all_runs = sorted(await read(database, runs), key=lambda row: row.ended_at_us)
    published = {row.mapping_id: row for row in await read(database, validations)}
    kept = {(row.mapping_id, row.kind): row for row in await read(database, evidence)}
    hours = await read(database, rollups)
    lines = sorted(await read(database, audit), key=lambda row: row.revision)
    told = await read(database, events)
    mappings_of = await read(database, health)
    assert (
        {row.mapping_id for row in mappings_of}
        == set(published)
        == {row.mapping_id for row in await read(database, due)}
    )
    for now in mappings_of:
        own = [row for row in all_runs if row.mapping_id == now.mapping_id]
        decided = [row for row in own if row.result != "in_doubt"]
        assert now.last_run_us == own[-1].ended_at_us
        assert published[now.mapping_id].active == now.active == (decided[-1].result != "fails")
        assert published[now.mapping_id].validated_at_us == decided[-1].ended_at_us
        in_a_row = next((n for n, row in enumerate(reversed(decided)) if row.result != "fails"), len(decided))
        assert now.failures == in_a_row
        for kind, results in (("failing", {"fails"}), ("passing", {"works", "degraded"})):
            latest = [row for row in decided if row.result in results][-1:]
            assert [row.id for row in latest] == [kept[now.mapping_id, kind].run_id for _ in latest]
        sums = [row for row in hours if row.mapping_id == now.mapping_id]
        assert sum(row.runs for row in sums) == len(own)
        assert sum(row.failures for row in sums) == sum(row.result == "fails" for row in own)
        actions = [
            row.action for row in lines if row.subject == now.mapping_id and row.action in {TAKEN_OFF, BROUGHT_BACK}
        ]
        turns = [TAKEN_OFF, BROUGHT_BACK] * len(actions)
        assert actions == turns[: len(actions)], "off and back do not alternate"
        assert (len(actions) % 2 == 0) == now.active
        announced = [row.type for row in told if row.mapping_id == now.mapping_id and row.type in turns]
        assert Counter(announced) == Counter(actions)
        changed = [row.result == "fails" for row in decided]
        assert sum(a != b for a, b in zip([False, *changed], changed, strict=False)) == len(actions)


@pytest.mark.timeout(240)
def test_killed_again_and_again_every_mapping_ends_as_without_a_kill(fresh_database, dialect):
    kills = KILLS[dialect]
    chance = random.Random(SEED)
    pauses = [chance.uniform(0.02, 1.0) for _ in range(kills)]
    schedule = flips(sum(pauses), chance)
    app, stop = Providers(*NAMES, delay_s=0.05), threading.Event()
    with running(app) as url:
        root = url.removesuffix("/v1")
        killed_url, quiet_url = fresh_database(), fresh_database()
        killed, quiet = asyncio.run(prepare(killed_url, root)), asyncio.run(prepare(quiet_url, root))
        switch = threading.Thread(target=flip, args=(app, schedule, stop))
        with validating(quiet_url, SETTINGS):
            switch.start()
            try:
                for pause_s in pauses:
                    with validating(killed_url, SETTINGS):
                        time.sleep(pause_s)
                switch.join()
                with validating(killed_url, SETTINGS):
                    expected, found = asyncio.run(settle(quiet, killed))
            finally:
                stop.set()
                switch.join()
    off = {key for key, (state, active) in found.items() if (state, active) == ("failing", False)}
    assert off == {key for key in found if key[0] == "groq"}
    assert found == expected
    asyncio.run(check(killed, interrupted=True))
    asyncio.run(check(quiet, interrupted=False))


async def settle(quiet, killed):
    expected, found = await settled(quiet), await settled(killed)
    return expected, found


async def check(database, *, interrupted):
    await assert_whole(database)
    lost = sum(row.fence for row in await read(database, due)) - len(await read(database, runs))
    if interrupted:
        assert lost >= 5, "the kills hit no run"
    else:
        assert lost <= len(await read(database, mappings)), "runs were lost without a kill"
    taken = [row for row in await read(database, audit) if row.action == TAKEN_OFF]
    assert taken, "nothing happened that a kill could have spoilt"
    await database.close()
