"""The collector among faults: providers that fail in every way, two collectors, wrong clocks, databases that refuse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3

import pytest
import sqlalchemy as sa
from collecting import KILLED_AT, Clocked, assert_sound, collect_and_die, collector_on, rows, states, tally, turn
from costs import URL, CostProvider, register, reply, served, take_in

from roadworthy.billing.dates import Month
from roadworthy.billing.recheck import recheck
from roadworthy.billing.schedule import DAY_US, SECOND_US, Policy
from roadworthy.billing.statement import statement
from roadworthy.billing.store import batches as batch_store
from roadworthy.billing.store import endpoints, turns
from roadworthy.billing.store.corrections import correct
from roadworthy.billing.store.disputes import Choice, resolve
from roadworthy.billing.tables import balances, batches, cost_endpoints, disputes, entries, usage
from roadworthy.billing.turn import TurnUnderWay
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.sealing import Sealer, new_key

pytestmark = pytest.mark.anyio
NO_RECHECK = Policy(recheck_ids_per_hour=0)


@pytest.fixture
async def database(database_url):
    opened = Clocked(database_url)
    yield opened
    await opened.close()


async def endpoint(database, provider="acme"):
    return next(row for row in await rows(database, cost_endpoints) if row["provider"] == provider)


async def ids(database, count, provider="acme", prefix="r"):
    await take_in(database, *(served(f"{prefix}{n:05}", provider) for n in range(count)))
    return {f"{prefix}{n:05}": n for n in range(count)}


async def until(look, holds):
    async with asyncio.timeout(20):
        while not holds(await look()):  # noqa: ASYNC110  it looks from outside
            await asyncio.sleep(0.01)


async def until_asked(provider):
    async def asked():
        return provider.asked

    await until(asked, bool)


# Deaths


@pytest.mark.parametrize("at", KILLED_AT)
async def test_kill_9_loses_nothing_and_charges_nothing_twice(database, database_url, at):
    """Invariants 1, 4, 7 and 11, with a real process killed at each place."""
    await register(database)
    costs = await ids(database, 50)
    assert await asyncio.to_thread(collect_and_die, database_url, costs, at) == -9
    await assert_sound(database)
    assert await tally(database) == {"settled" if at == "after commit" else "pending": 50}
    # Its lease holds for a while, and then others take over.
    assert await turn(database, CostProvider(costs)) == []
    database.pass_s(121)
    await turn(database, CostProvider(costs))
    await assert_sound(database)
    assert await tally(database) == {"settled": 50}
    assert [row["amount_nano_usd"] for row in await rows(database, entries)] == list(range(50))


async def test_a_cancelled_question_is_given_up_and_the_turn_given_back_at_once(database):
    await register(database)
    provider = CostProvider(await ids(database, 3))
    provider.gate = asyncio.Event()
    collector = collector_on(database, provider)
    await collector.tick()
    await until_asked(provider)
    await collector.stop()
    await collector.tick()
    assert (await endpoint(database))["lease_until_us"] is None
    assert await tally(database) == {"pending": 3}
    provider.gate = None
    await turn(database, provider)
    assert await tally(database) == {"settled": 3}


async def test_a_cancellation_in_mid_flush_waits_for_the_transaction(database, monkeypatch):
    await register(database)
    provider = CostProvider(await ids(database, 3))
    collector = collector_on(database, provider)
    begun, goes_on = asyncio.Event(), asyncio.Event()
    settle = TurnUnderWay._settle

    async def slow(*values):
        settled = await settle(*values)
        begun.set()
        await goes_on.wait()
        return settled

    monkeypatch.setattr(TurnUnderWay, "_settle", slow)
    await collector.tick()
    await begun.wait()
    stopping = asyncio.create_task(collector.stop())
    await asyncio.sleep(0)
    goes_on.set()
    await stopping
    await assert_sound(database)
    assert await tally(database) == {"settled": 3}
    assert (await endpoint(database))["lease_until_us"] is None


async def test_a_stop_while_turns_are_taken_leaves_none_behind(database, monkeypatch):
    await register(database)
    await ids(database, 1)
    collector = collector_on(database, CostProvider())
    take = collector._take

    async def and_stop(*values):
        taken = await take(*values)
        await collector.stop()
        return taken

    monkeypatch.setattr(collector, "_take", and_stop)
    await collector.tick()
    assert not collector._lanes
    assert (await endpoint(database))["lease_until_us"] is None


# Answers


@pytest.mark.parametrize(
    ("cost", "state"),
    [
        ("-1", "pending"),
        ("1.0", "settled"),
        ("1e3", "settled"),
        ("0", "settled"),
        ('"5"', "pending"),
        ("true", "pending"),
        ("null", "pending"),
        ("NaN", "pending"),
        ("1e400", "disputed"),
        (str(2**63), "disputed"),
        ("9" * 5000, "disputed"),
        ('5, "costNanoUsd": 6', "pending"),
    ],
    ids="negative point_zero exponent zero text true null nan 1e400 2^63 digits twice".split(),
)
async def test_each_cost_leads_to_exactly_one_state(database, cost, state):
    """Invariants 4, 5, 6 and 10: the same id of another provider is another request."""
    await register(database)
    await take_in(database, served("a"), served("a", "other"))
    body = '{"requests": [{"requestId": "a", "costNanoUsd": ' + cost + "}]}"
    provider = CostProvider()
    provider.answers.append(reply(body.encode()))
    await turn(database, provider)
    assert [(row["provider"], row["state"]) for row in await rows(database, usage)] == [
        ("acme", state),
        ("other", "pending"),
    ]
    assert len(await rows(database, disputes)) == (state == "disputed")
    await assert_sound(database)


async def test_ids_of_another_provider_or_of_another_batch_are_not_settled(database):
    """Invariant 8."""
    await register(database)
    await take_in(database, served("a"), served("b", "other"), served("later"))
    async with database.writing() as connection:
        await connection.execute(usage.update().where(usage.c.request_id == "later").values(next_ask_us=2**60))
    items = [{"requestId": id, "costNanoUsd": 1} for id in ("later", "b", "a", "zzz")]
    provider = CostProvider()
    provider.answers.append(reply({"requests": items}))
    await turn(database, provider)
    assert await states(database) == {"a": "settled", "b": "pending", "later": "pending"}
    (batch,) = await rows(database, batches)
    assert batch["anomalies"] == {"unasked": {"count": 3, "examples": ["later", "b", "zzz"]}}


async def test_empty_null_partial_and_reordered_answers(database):
    await register(database)
    await ids(database, 4)
    provider = CostProvider()
    item = {f"r{n:05}": {"requestId": f"r{n:05}", "costNanoUsd": n} for n in range(4)}
    for answer in ([], None, [item["r00002"]], [item["r00003"], item["r00001"], item["r00000"]]):
        provider.answers.append(reply({"requests": answer}))
        await turn(database, provider)
        database.pass_s(1000)
    assert {row["request_id"]: row["cost_nano_usd"] for row in await rows(database, usage)} == {
        f"r{n:05}": n for n in range(4)
    }


# Refusals


@pytest.mark.parametrize(
    ("answer", "outcome", "at_least_s", "at_most_s"),
    [
        (reply({}, 429), "rate_limited", 15, 45),
        (reply({}, 429, retry_after="120"), "rate_limited", 120, 120),
        (reply({}, 429, retry_after="99999999999999"), "rate_limited", 3600, 3600),
        (reply({}, 429, retry_after="-7"), "rate_limited", 15, 45),
        (reply({}, 429, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"), "rate_limited", 15, 45),
        (reply({}, 429, retry_after="Fri, 31 Dec 9999 23:59:59 GMT"), "rate_limited", 3600, 3600),
        (reply({}, 500), "server_error", 15, 45),
        (reply({}, 401), "refused_key", 15, 45),
        (reply(b"<html>", 200), "unreadable", 15, 45),
    ],
    ids=["429", "wait", "absurd", "negative", "past", "future", "500", "401", "html"],
)
async def test_after_a_refusal_the_provider_rests_for_a_bounded_time(database, answer, outcome, at_least_s, at_most_s):
    await register(database)
    await ids(database, 2)
    provider = CostProvider()
    provider.answers.append(answer)
    (came,) = await turn(database, provider, jitter=random.Random(7))
    assert came.trouble.trouble == outcome
    (batch,) = await rows(database, batches)
    row = await endpoint(database)
    assert (batch["outcome"], row["failures"]) == (outcome, 1)
    assert at_least_s - 1 <= (row["next_turn_us"] - batch["at_us"]) / SECOND_US <= at_most_s + 1
    assert await turn(database, provider) == []
    assert await tally(database) == {"pending": 2}


async def test_each_failure_doubles_the_rest_up_to_a_bound(database):
    await register(database)
    await ids(database, 2)
    provider = CostProvider()
    provider.always = lambda _: reply({}, 503)
    waits = []
    for _ in range(8):
        await turn(database, provider, jitter=random.Random(0))
        (before,) = (await rows(database, batches))[-1:]
        waits.append((await endpoint(database))["next_turn_us"] - before["at_us"])
        database.pass_s(1000)
    factor = 0.5 + random.Random(0).random()
    assert [round(wait / SECOND_US / factor) for wait in waits] == [30, 60, 120, 240, 480, 600, 600, 600]
    provider.always = None
    await turn(database, provider)
    assert (await endpoint(database))["failures"] == 0


async def test_three_days_of_silence_expire_nothing_and_then_all_is_settled(database):
    await register(database)
    costs = await ids(database, 300)
    provider = CostProvider()
    policy = Policy(batch_size=100, interval_s=60)
    await turn(database, provider, policy)  # it has none of them yet
    provider.always = lambda _: reply({}, 503)
    for _ in range(36):
        database.pass_s(2 * 3600)
        await turn(database, provider, policy)
    assert await tally(database) == {"pending": 300}
    provider.always = None
    await turn(database, provider, policy)
    assert await tally(database) == {"pending": 300}, "the silence counted as answers without them"
    database.pass_s(1000)
    provider.costs = costs
    await turn(database, provider, policy)
    assert await tally(database) == {"settled": 300}
    await assert_sound(database)


async def test_what_is_left_out_for_half_an_hour_expires_and_nobody_is_charged(database):
    await register(database)
    await ids(database, 2)
    provider = CostProvider({"r00000": 5})
    asked_at = []
    for minute in range(60):
        asked = len(provider.asked)
        await turn(database, provider)
        if len(provider.asked) > asked:
            asked_at.append(minute)
        database.pass_s(60)
    assert await states(database) == {"r00000": "settled", "r00001": "expired"}
    assert asked_at[:3] == [0, 2, 5]
    assert 30 <= asked_at[-1] <= 46
    assert len(asked_at) >= 5
    assert [row["charged_nano"] for row in await rows(database, balances)] == [5]


# Poison ids


@pytest.mark.parametrize("status", [400, 500, 200], ids=["400", "500", "unreadable"])
@pytest.mark.parametrize("bad", [{"r00000"}, {"r00063", "r00064"}, {"r00000", "r00050", "r00099"}], ids=len)
async def test_ids_that_make_batches_fail_are_found_and_block_nobody(database, bad, status):
    await register(database)
    provider = CostProvider(await ids(database, 100))
    provider.always = lambda asked: reply(b"{", status) if bad & set(asked) else provider.told(asked)
    for _ in range(4):
        await turn(database, provider, NO_RECHECK)
        database.pass_s(120)
    found = await states(database)
    assert {id for id, state in found.items() if state != "settled"} == bad
    later = await ids(database, 20, prefix="later")
    provider.costs |= later
    before = len(provider.asked)
    await turn(database, provider, NO_RECHECK)
    assert set(provider.asked[before]) == set(later), "a batch was asked for together with a poison id"
    for _ in range(20):
        database.pass_s(600)
        provider.costs |= await ids(database, 1, prefix=f"x{_}")
        await turn(database, provider, NO_RECHECK)
    found = await states(database)
    assert {id for id, state in found.items() if state == "expired"} == bad
    assert {state for id, state in found.items() if id not in bad} == {"settled"}
    await assert_sound(database)


async def test_a_single_bad_id_with_nothing_to_compare_it_with_does_not_stand_in_the_way(database):
    await register(database)
    provider = CostProvider({"good": 3})
    provider.always = lambda asked: reply({}, 400) if "bad" in asked else provider.told(asked)
    await take_in(database, served("bad"))
    await turn(database, provider)
    for _ in range(5):
        database.pass_s(3600)
        await turn(database, provider)
    assert await states(database) == {"bad": "pending"}, "it expired, though nothing was ever answered"
    database.pass_s(61)
    await take_in(database, served("good"))
    await turn(database, provider)
    assert await states(database) == {"bad": "pending", "good": "settled"}


async def test_an_id_that_failed_by_itself_and_is_answered_for_joins_the_others_again(database):
    await register(database)
    provider = CostProvider(await ids(database, 10))
    provider.always = lambda asked: reply({}, 400) if "r00004" in asked else provider.told(asked)
    await turn(database, provider)
    assert [row["request_id"] for row in await rows(database, usage) if row["alone"]] == ["r00004"]
    database.pass_s(1000)
    provider.always = lambda _: reply({"requests": []})
    await turn(database, provider)
    (row,) = [row for row in await rows(database, usage) if row["state"] == "pending"]
    assert (row["request_id"], row["alone"], row["asks"]) == ("r00004", False, 2)


async def test_a_provider_that_refuses_everything_is_not_asked_for_each_id(database):
    await register(database)
    await ids(database, 1000)
    provider = CostProvider()
    provider.always = lambda _: reply({}, 400)
    await turn(database, provider)
    assert len(provider.asked) < 20
    assert [row for row in await rows(database, usage) if row["alone"] or row["asks"]] == []


# Sizes


async def test_batches_shrink_where_they_are_too_large_and_grow_back(database):
    await register(database)
    provider = CostProvider(await ids(database, 100))
    provider.always = lambda asked: reply({}, 413) if len(asked) > 30 else provider.told(asked)
    await turn(database, provider, Policy(batch_size=100, recheck_ids_per_hour=0))
    assert [len(asked) for asked in provider.asked] == [100, 50, 25, 25, 25, 25]
    assert await tally(database) == {"settled": 100}
    assert (await endpoint(database))["batch_limit"] == 25
    provider.costs |= await ids(database, 100, prefix="more")
    provider.always = None
    database.pass_s(61)
    before = len(provider.asked)
    await turn(database, provider, Policy(batch_size=100, recheck_ids_per_hour=0))
    assert [len(asked) for asked in provider.asked[before:]] == [25, 50, 25]


async def test_a_busy_provider_is_asked_once_a_minute_not_for_each_request(database):
    await register(database)
    provider = CostProvider()

    async def served_meanwhile(told):
        await ids(database, 1, prefix=f"meanwhile{len(provider.asked)}-")
        return told

    await ids(database, 5)
    send = provider.send

    async def sending(request, limits):
        return await served_meanwhile(await send(request, limits))

    provider.send = sending
    assert len(await turn(database, provider)) == 1
    assert len(provider.asked) == 1
    assert await turn(database, provider) == []
    database.pass_s(61)
    assert len(await turn(database, provider)) == 1


async def test_a_backlog_is_worked_off_in_turns_with_others_between(database):
    """A restart with a large backlog: the next turn is at once, behind those who wait."""
    await register(database, "big")
    await register(database, "small")
    provider = CostProvider(await ids(database, 500, "big", "big") | await ids(database, 1, "small", "small"))
    policy = Policy(batch_size=100, batches_per_turn=2, providers_at_once=1, recheck_ids_per_hour=0)
    collector = collector_on(database, provider, policy)
    async with database.writing() as connection:
        await connection.execute(cost_endpoints.update().where(cost_endpoints.c.provider == "big").values(
            next_turn_us=1, batch_limit=100))  # fmt: skip
    for _ in range(6):
        await collector.tick()
        await collector.idle()
    assert [asked[0][:3] for asked in provider.asked] == ["big", "big", "sma", "big", "big", "big"]
    assert await tally(database) == {"settled": 501}


async def test_one_slow_provider_starves_nobody(database):
    for name in ("slow", "quick"):
        await register(database, name)
    provider = CostProvider(await ids(database, 3, "slow", "slow") | await ids(database, 3, "quick", "quick"))
    gate = asyncio.Event()
    send = provider.send

    async def sending(request, limits):
        if b"slow" in request.body:
            await gate.wait()
        return await send(request, limits)

    provider.send = sending
    collector = collector_on(database, provider)
    await collector.tick()
    await until(lambda: tally(database), lambda found: found["settled"] == 3)
    assert {id for id, state in (await states(database)).items() if state == "settled"} == {
        "quick00000", "quick00001", "quick00002"}  # fmt: skip
    database.pass_s(61)
    provider.costs |= await ids(database, 1, "quick", "again")

    async def ticked():
        await collector.tick()  # as the clock does: the quick one's last turn may be about to end
        return await states(database)

    await until(ticked, lambda found: found["again00000"] == "settled")
    gate.set()
    await collector.idle()
    assert await tally(database) == {"settled": 7}


async def test_a_turn_ends_in_time_for_others(database):
    await register(database)
    provider = CostProvider(await ids(database, 50))
    async with database.writing() as connection:
        await connection.execute(cost_endpoints.update().values(batch_limit=1))
    await turn(database, provider, Policy(batch_size=1, turn_s=0.0))
    assert provider.asked == []
    row = await endpoint(database)
    assert row["lease_until_us"] is None


# Several collectors, and changes meanwhile


async def test_two_collectors_ask_for_each_id_once(database, database_url):
    """Two embedded ones, each with connections of its own."""
    other = Database(database_url)
    await register(database)
    provider = CostProvider(await ids(database, 200))
    both = [collector_on(each, provider, NO_RECHECK) for each in (database, other)]
    await asyncio.gather(*(collector.tick() for collector in both))
    await asyncio.gather(*(collector.idle() for collector in both))
    assert sorted(id for asked in provider.asked for id in asked) == sorted(provider.costs)
    assert await tally(database) == {"settled": 200}
    await other.close()


async def test_an_answer_after_the_lease_was_taken_over_is_not_settled(database):
    """The lease is lost in the middle of the call: the other collector's answer counts."""
    await register(database)
    await ids(database, 2)
    slow, quick = CostProvider({"r00000": 1, "r00001": 1}), CostProvider({"r00000": 2, "r00001": 2})
    slow.gate = asyncio.Event()
    late = collector_on(database, slow)
    await late.tick()
    await until_asked(slow)
    database.pass_s(121)
    await turn(database, quick)
    slow.gate.set()
    await late.idle()
    assert [row["amount_nano_usd"] for row in await rows(database, entries)] == [2, 2]
    await assert_sound(database)


async def test_an_answer_after_the_lease_ended_that_nobody_took_over_counts(database):
    await register(database)
    provider = CostProvider(await ids(database, 2))
    provider.gate = asyncio.Event()
    late = collector_on(database, provider)
    await late.tick()
    await until_asked(provider)
    database.pass_s(500)
    provider.gate.set()
    await late.idle()
    assert await tally(database) == {"settled": 2}


@pytest.mark.parametrize("change", ["paused", "moved", "removed", "removed and registered again"])
async def test_what_was_asked_before_the_endpoint_changed_is_not_settled_after(database, change):
    await register(database)
    provider = CostProvider(await ids(database, 2))
    provider.gate = asyncio.Event()
    collector = collector_on(database, provider)
    await collector.tick()
    await until_asked(provider)
    async with database.writing() as connection:
        if change == "paused":
            await endpoints.set_paused(connection, "acme", 1)
        if change.startswith("removed"):
            await endpoints.remove(connection, "acme")
    if change in {"moved", "removed and registered again"}:
        await register(database, url="http://other.test/costs")
    other = collector_on(database, CostProvider())
    if change == "removed and registered again":
        assert len(await other._begin(None, ())) == 1
    provider.gate.set()
    await collector.idle()
    await other.idle()
    assert (await tally(database))["settled"] == 0
    assert not await rows(database, entries)


async def test_a_paused_provider_is_not_asked_until_it_is_resumed(database):
    await register(database)
    provider = CostProvider(await ids(database, 2))
    for paused, asked in ((1, 0), (None, 1)):
        async with database.writing() as connection:
            await endpoints.set_paused(connection, "acme", paused)
        await turn(database, provider)
        assert len(provider.asked) == asked


async def test_only_the_wanted_providers_are_asked_and_force_makes_them_due(database):
    for name in ("acme", "other"):
        await register(database, name)
    provider = CostProvider(await ids(database, 2, "acme", "acme") | await ids(database, 2, "other", "other"))
    collector = collector_on(database, provider)
    collector.only = ["acme"]
    assert [came.provider for came in await collector.once()] == ["acme"]
    provider.costs.clear()
    collector.only = None
    assert [came.provider for came in await collector.once()] == ["other"]
    assert await collector.once() == []
    await take_in(database, served("new"))
    collector.only = ["acme"]
    assert await collector.once() == []
    await collector.force()
    assert [came.provider for came in await collector.once()] == ["acme"]


async def test_force_makes_a_backlog_due_some_at_a_time(database, monkeypatch):
    """Writers get their turn between: each transaction changes `MEND_AT_ONCE` rows at most."""
    await register(database)
    await ids(database, 10)
    provider = CostProvider()
    await turn(database, provider, NO_RECHECK)
    monkeypatch.setattr(turns, "MEND_AT_ONCE", 4)
    due = []
    writing = database.writing

    @contextlib.asynccontextmanager
    async def counted():
        async with writing() as connection:
            yield connection
            now_us = await database.now_us(connection)
            query = sa.select(sa.func.count()).select_from(usage).where(usage.c.next_ask_us <= now_us)
            due.append((await connection.execute(query)).scalar_one())

    monkeypatch.setattr(database, "writing", counted)
    await collector_on(database, provider).force()
    assert due == [4, 8, 10]


# Keys and addresses


async def test_a_key_that_cannot_be_opened_is_told_and_nothing_is_asked(database):
    async with database.writing() as connection:
        await endpoints.register(connection, Sealer(new_key()), "acme", URL, 0, key="sk-1234567", batch_size=100)
    await ids(database, 1)
    provider = CostProvider()
    (came,) = await turn(database, provider, sealer=Sealer(new_key()))
    assert "put that key back" in came.trouble.detail
    assert provider.asked == []
    (batch,) = await rows(database, batches)
    assert (batch["outcome"], batch["asked"]) == ("ours", 0)
    assert (await endpoint(database))["failures"] == 1


async def test_a_key_of_digits_changes_no_cost_and_is_in_nothing_that_is_kept(database):
    sealer = Sealer(new_key())
    async with database.writing() as connection:
        await endpoints.register(connection, sealer, "acme", URL, 0, key="1234567", batch_size=100)
    await ids(database, 2)
    provider = CostProvider()
    items = [{"requestId": "r00000", "costNanoUsd": 12345678}, {"requestId": "r00001", "costNanoUsd": "1234567"}]
    provider.answers.append(reply({"requests": [*items, {"requestId": "Bearer 1234567", "costNanoUsd": 1}]}))
    await turn(database, provider, sealer=sealer)
    assert provider.keys == ["Bearer 1234567"]
    assert [row["cost_nano_usd"] for row in await rows(database, usage)] == [12345678, None]
    kept = str(
        [row["anomalies"] for row in await rows(database, batches)]
        + [row["problem"] for row in await rows(database, usage)]
    )
    assert "1234567" not in kept
    assert "*******" in kept


# Clocks


@pytest.mark.parametrize("day", [1, -1])
async def test_a_clock_that_jumps_a_day_expires_nothing_and_stops_nothing(database, day):
    """Invariant 12."""
    await register(database)
    await ids(database, 3)
    provider = CostProvider()
    await turn(database, provider)
    database.shift_us += day * DAY_US
    await take_in(database, served("new"))
    collector = collector_on(database, provider)
    await collector.mend()
    await collector.once()
    assert await tally(database) == {"pending": 4}
    provider.costs = {"r00000": 1, "r00001": 1, "r00002": 1, "new": 1}
    database.pass_s(1000)
    await collector.once()
    assert await tally(database) == {"settled": 4}


async def test_a_lease_and_a_turn_far_in_the_future_are_no_longer_believed(database):
    await register(database)
    await ids(database, 1)
    async with database.writing() as connection:
        future_us = await database.now_us(connection) + DAY_US
        await connection.execute(
            cost_endpoints.update().values(lease_until_us=future_us, next_turn_us=future_us, next_recheck_us=future_us)
        )
    assert len(await turn(database, CostProvider({"r00000": 1}))) == 1
    assert await tally(database) == {"settled": 1}


# Our own database


async def test_a_row_of_ours_that_cannot_be_settled_blocks_nobody(database, caplog):
    await register(database)
    provider = CostProvider(await ids(database, 40))
    async with database.writing() as connection:
        bad = (await connection.execute(sa.select(usage.c.id).where(usage.c.request_id == "r00017"))).scalar_one()
        charge = {"kind": "charge", "debit_account": "payer:x", "credit_account": "provider:acme"}
        await connection.execute(entries.insert().values(usage_id=bad, amount_nano_usd=1, posted_at_us=1, **charge))
    with caplog.at_level(logging.WARNING):
        (came,) = await turn(database, provider)
    assert came.settled.settled == 39
    assert [id for id, state in (await states(database)).items() if state != "settled"] == ["r00017"]
    assert "'r00017' of acme: roadworthy cannot settle it" in caplog.text
    (row,) = [row for row in await rows(database, usage) if row["state"] == "pending"]
    assert row["problem"].startswith("roadworthy cannot settle it")
    (batch, *_) = await rows(database, batches)
    assert (batch["asked"], batch["settled"]) == (40, 39)
    assert sum(row["requests"] for row in await rows(database, balances)) == 39


async def test_where_nothing_can_be_settled_the_batch_is_given_up(database, monkeypatch):
    await register(database)
    provider = CostProvider(await ids(database, 100))

    async def broken(*_values, **_more):
        raise ValueError("a fault of ours")

    monkeypatch.setattr("roadworthy.billing.store.ledger.settle", broken)
    (came,) = await turn(database, provider)
    assert "a fault of roadworthy itself" in came.trouble.detail
    assert await tally(database) == {"pending": 100}
    monkeypatch.undo()
    database.pass_s(1000)
    await turn(database, provider)
    assert await tally(database) == {"settled": 100}


async def test_a_database_that_is_full_or_locked_loses_nothing(migrated_sqlite, tmp_path, monkeypatch):
    path = tmp_path / "full.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    database = Clocked(f"sqlite:///{path}")
    await register(database)
    provider = CostProvider(await ids(database, 2000))
    async with database.writing() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
        await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
    (came,) = await turn(database, provider)
    assert "full" in came.trouble.detail
    assert await tally(database) == {"pending": 2000}
    assert not await rows(database, entries)
    async with database.writing() as connection:
        await connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    database.pass_s(121)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("roadworthy.database.engine.LOCK_TIMEOUT_S", 0.05)
    impatient = Clocked(f"sqlite:///{path}")
    impatient.shift_us = database.shift_us
    with pytest.raises(DatabaseUnavailableError, match="locked"):
        await turn(impatient, provider)
    collector = collector_on(impatient, provider)
    await collector.tick()
    await collector.tick()
    holder.execute("ROLLBACK")
    holder.close()
    await turn(impatient, provider, NO_RECHECK)
    await assert_sound(database)
    assert await tally(database) == {"settled": 2000}
    await impatient.close()
    await database.close()


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_connections_that_break_off_lose_nothing(database, postgres):
    """What a failover looks like from here: every connection is cut in the middle of a question."""
    await register(database)
    provider = CostProvider(await ids(database, 30))
    name = database.url.database

    def cut_off(asked):
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
        return provider.told(asked)

    provider.always = cut_off
    for _ in range(3):
        await turn(database, provider)
        database.pass_s(121)
    await assert_sound(database)
    assert await tally(database) == {"settled": 30}


async def test_old_batches_are_pruned_and_where_there_are_none_nothing_is_written(database):
    await register(database)
    await ids(database, 1)
    await turn(database, CostProvider())
    await batch_store.prune(database, 30)
    assert len(await rows(database, batches)) == 1
    database.pass_s(31 * 24 * 3600)
    await turn(database, CostProvider())
    await batch_store.prune(database, 30)
    assert len(await rows(database, batches)) == 1
    writing, database.writing = database.writing, None
    await batch_store.prune(database, 30)
    await collector_on(database, CostProvider()).tick()
    await collector_on(database, CostProvider()).mend()
    database.writing = writing


# Asking for settled costs again


async def test_a_changed_cost_is_a_dispute_and_the_entry_stays(database):
    """Invariants 2 and 9."""
    await register(database)
    now_us = 0
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
    await take_in(database, *(served(f"r{n}", served_at_us=now_us - n * SECOND_US) for n in range(10)))
    provider = CostProvider({f"r{n}": n for n in range(10)})
    policy = Policy(recheck_within_s=100)
    (came,) = await turn(database, provider, policy)
    assert came.rechecked.changed == 0
    assert came.rechecked.same > 0
    before = await rows(database, entries)
    provider.costs = {f"r{n}": n + 1 for n in range(10)}
    database.pass_s(600)
    await take_in(database, served("new"))
    provider.costs["new"] = 7
    await turn(database, provider, Policy(recheck_within_s=10**6))
    assert set((await states(database)).values()) == {"settled"}, "asked again within the hour"
    database.pass_s(3600)
    await take_in(database, served("newer"))
    provider.costs["newer"] = 7
    (came,) = await turn(database, provider, Policy(recheck_within_s=5000))
    found = await rows(database, disputes)
    assert came.rechecked.changed == len(found) > 0
    assert {row["reason"] for row in found} == {"changed"}
    assert all(int(row["claimed"]) == row["posted_nano_usd"] + 1 for row in found)
    assert (await tally(database))["disputed"] == len(found)
    assert (await rows(database, entries))[: len(before)] == before
    assert (await rows(database, batches))[-1]["outcome"] == "rechecked"
    await assert_sound(database)


async def test_nothing_is_posted_into_a_month_that_is_over_when_the_clock_jumps_back(database):
    """A day back and forth over a month's end, a charge and a correction each time."""
    await register(database)
    november, december = Month(2026, 11), Month(2026, 12)
    async with database.reading() as connection:
        real_us = await database.now_us(connection)
    right_us = december.from_day * DAY_US + DAY_US // 2 - real_us
    provider = CostProvider(dict.fromkeys("abc", 100))

    async def charge_and_correct(id):
        await take_in(database, served(id, served_at_us=november.from_day * DAY_US))
        await collector_on(database, provider).force()
        await turn(database, provider, NO_RECHECK)
        request = next(row for row in await rows(database, usage) if row["request_id"] == id)
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            await correct(connection, request["id"], 40, "x", "y", now_us=now_us)

    async def amounts():
        async with database.reading() as connection:
            now_us = await database.now_us(connection)
            made = [await statement(connection, "org:paying", each, now_us=now_us) for each in (november, december)]
        return [(each.closed, each.amount_nano_usd) for each in made]

    database.shift_us = right_us
    await charge_and_correct("a")
    assert await amounts() == [(True, 0), (False, 40)]
    database.shift_us = right_us - DAY_US
    await charge_and_correct("b")
    database.shift_us = right_us
    assert await amounts() == [(True, 0), (False, 80)]
    await charge_and_correct("c")
    assert await amounts() == [(True, 0), (False, 120)]
    times = [row["posted_at_us"] for row in await rows(database, entries)]
    assert times == sorted(times)
    assert len(times) == 6


# An operator's recheck


async def rechecking(database, provider, since_us=0):
    """What came of rechecking all since then, the pauses taken, and the sizes of the questions."""
    async with database.reading() as connection:
        at = await endpoints.find(connection, "acme")
    provider.asked.clear()
    paused = []

    async def wait(seconds):
        paused.append(seconds)

    policy = Policy(backoff_s=30)
    outcome = await recheck(
        database, Sealer(None), provider, policy, at, since_us=since_us, wait=wait, jitter=random.Random(1)
    )
    return outcome, paused, [len(asked) for asked in provider.asked]


@pytest.fixture
async def settled_ten(database):
    """Ten settled requests, served a second apart from 1000 s on, of a provider that tells other costs now."""
    await register(database)
    await take_in(database, *(served(f"r{n}", served_at_us=(1000 + n) * SECOND_US) for n in range(10)))
    provider = CostProvider(dict.fromkeys((f"r{n}" for n in range(10)), 5))
    await turn(database, provider, NO_RECHECK)
    async with database.writing() as connection:
        await connection.execute(cost_endpoints.update().values(batch_limit=4))
    provider.costs = dict.fromkeys(provider.costs, 6)
    return provider


async def test_a_recheck_asks_for_fewer_where_a_question_is_too_large_or_takes_too_long(database, settled_ten):
    provider = settled_ten
    provider.always = lambda asked: provider.told(asked) if len(asked) <= 1 else reply({}, 413)
    outcome, paused, sizes = await rechecking(database, provider)
    assert (outcome.seen.changed, outcome.trouble, outcome.go_on_us, paused) == (10, None, None, [])
    assert sizes == [4, 2] + [1] * 10


async def test_a_recheck_bears_some_refusals_with_growing_pauses(database, settled_ten):
    provider = settled_ten
    busy = reply({}, 503)
    provider.answers = [provider.told, busy, reply({}, 429, Retry_After="300"), busy, provider.told, busy]
    outcome, paused, sizes = await rechecking(database, provider)
    assert (outcome.seen.changed, outcome.trouble, sizes) == (10, None, [4, 4, 4, 4, 4, 2, 2])
    assert 15 <= paused[0] <= 45
    assert paused[1] == 300
    assert 60 <= paused[2] <= 180
    assert 15 <= paused[3] <= 45, "an answer makes them short again"


@pytest.mark.parametrize(
    ("refusal", "questions"),
    [
        (reply({}, 503), 5),
        (reply({}, 401), 1),
        (reply({}, 400), 1),
        (reply({}, 429, Retry_After="99999"), 1),
        (reply(b"not json"), 5),
    ],
    ids=["503", "401", "400", "429 for a day", "unreadable"],
)
async def test_a_recheck_that_gives_up_says_where_to_go_on(database, settled_ten, refusal, questions):
    provider = settled_ten
    provider.answers = [provider.told, *[refusal] * questions]
    outcome, paused, sizes = await rechecking(database, provider)
    assert (outcome.seen.changed, len(sizes), len(paused)) == (4, 1 + questions, questions - 1)
    assert outcome.trouble is not None
    assert outcome.go_on_us == 1003 * SECOND_US
    outcome, _, _ = await rechecking(database, provider, outcome.go_on_us)
    assert (outcome.seen.changed, outcome.trouble) == (6, None)


async def test_a_claim_that_was_judged_is_not_disputed_again(database):
    await register(database)
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
    await take_in(database, served("a", served_at_us=now_us))
    provider = CostProvider({"a": 1})
    await turn(database, provider, NO_RECHECK)
    provider.costs["a"] = 2
    for number in range(3):
        await take_in(database, served(f"other{number}"))
        provider.costs[f"other{number}"] = 1
        database.pass_s(3700)
        await turn(database, provider, Policy(recheck_within_s=10**6))
        open_ones = [row["id"] for row in await rows(database, disputes) if row["resolved_at_us"] is None]
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            for dispute_id in open_ones:
                await resolve(connection, dispute_id, Choice.POSTED, "agreed", "ann", now_us=now_us)
    assert [(row["claimed"], row["posted_nano_usd"]) for row in await rows(database, disputes)] == [("2", 1)]


async def test_a_batch_size_that_is_lowered_holds_at_once(database):
    await register(database)  # which may be asked for 10,000 at once
    await take_in(database, *(served(f"r{number}") for number in range(12)))
    provider = CostProvider({f"r{number}": 1 for number in range(12)})
    await turn(database, provider, Policy(batch_size=5, recheck_ids_per_hour=0))
    assert [len(ids) for ids in provider.asked] == [5, 5, 2]
