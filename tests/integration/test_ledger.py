"""The ledger: charges, corrections, disputes, and what the database itself refuses."""

from __future__ import annotations

import asyncio
import random

import pytest
import sqlalchemy as sa
from costs import CostProvider, dispute, register, reply, served, take_in
from sqlalchemy.exc import DBAPIError

from roadworthy.billing import answer
from roadworthy.billing.collector import Collector
from roadworthy.billing.records import Costs
from roadworthy.billing.store import corrections, disputes, recheck
from roadworthy.billing.store.disputes import Choice
from roadworthy.billing.tables import balances, entries, usage
from roadworthy.billing.tables import disputes as dispute_rows
from roadworthy.database import Database
from roadworthy.errors import UsageError
from roadworthy.sealing import Sealer

pytestmark = pytest.mark.anyio

GREATEST = 2**63 - 1


@pytest.fixture
async def database(database_url):
    opened = Database(database_url)
    yield opened
    await opened.close()


async def rows(database, table):
    async with database.reading() as connection:
        return [row._asdict() for row in await connection.execute(sa.select(table).order_by(*table.primary_key))]


async def settle(database, costs, **more):
    """Serve these ids and settle them at these costs; what their usage rows are called, by request id."""
    await register(database)
    await take_in(database, *(served(id, **more) for id in costs))
    collector = Collector(database, Sealer(None), CostProvider(costs))
    await collector.tick()
    await collector.idle()
    return {row["request_id"]: row["id"] for row in await rows(database, usage)}


async def correct(database, usage_id, amount, reason="wrong price", by="ada"):
    async with database.writing() as connection:
        now_us = await database.now_us(connection)
        return await corrections.correct(connection, usage_id, amount, reason, by, now_us=now_us)


async def changed(database, usage_id, claimed):
    async with database.writing() as connection:
        return await dispute(connection, usage_id, claimed, await database.now_us(connection))


async def resolve(database, dispute_id, choice, amount=None):
    async with database.writing() as connection:
        now_us = await database.now_us(connection)
        return await disputes.resolve(
            connection, dispute_id, choice, "asked them", "ada", now_us=now_us, amount_nano_usd=amount
        )


async def the_balance(database):
    """Requests, charged and credited of the only balance there is."""
    (row,) = await rows(database, balances)
    return (
        row["requests"],
        row["charged_usd"] * 10**9 + row["charged_nano"],
        row["credited_usd"] * 10**9 + row["credited_nano"],
    )


async def test_invariant_2_a_correction_is_a_new_row_and_the_old_one_stays(database):
    id = (await settle(database, {"a": 700}))["a"]
    (charge,) = await rows(database, entries)
    assert await correct(database, id, 450) == -250
    assert await correct(database, id, 1000) == 550
    assert await correct(database, id, 0) == -1000
    found = await rows(database, entries)
    assert found[0] == charge
    assert [(row["kind"], row["debit_account"], row["credit_account"], row["amount_nano_usd"]) for row in found] == [
        ("charge", "payer:org:paying", "provider:acme", 700),
        ("correction", "provider:acme", "payer:org:paying", 250),
        ("correction", "payer:org:paying", "provider:acme", 550),
        ("correction", "provider:acme", "payer:org:paying", 1000),
    ]
    assert {(row["reason"], row["author"]) for row in found[1:]} == {("wrong price", "ada")}
    assert await the_balance(database) == (1, 1250, 1250)
    (row,) = await rows(database, usage)
    assert (row["state"], row["cost_nano_usd"], row["settled_at_us"]) == ("settled", 0, charge["posted_at_us"])


async def test_a_correction_that_cannot_be_made_says_why_and_changes_nothing(database):
    ids = await settle(database, {"a": 7})
    await take_in(database, served("waiting"), served("failed", status=500), served("b"))
    found = {row["request_id"]: row["id"] for row in await rows(database, usage)}
    waiting, failed = found["waiting"], found["failed"]
    before = [await rows(database, table) for table in (entries, balances, usage)]
    for usage_id, amount, reason, by, said in (
        (ids["a"], 7, "x", "ada", "costs 7 nano-USD already"),
        (ids["a"], -1, "x", "ada", "whole number of nano-USD from 0 to 9223372036854775807; got -1"),
        (ids["a"], GREATEST + 1, "x", "ada", "got 9223372036854775808"),
        (ids["a"], True, "x", "ada", "got True"),
        (ids["a"], 1, "  ", "ada", "the reason must have 1 to 400 characters; got 0"),
        (ids["a"], 1, "x" * 401, "ada", "got 401"),
        (ids["a"], 1, "two\nlines", "ada", "one line of printable characters"),
        (ids["a"], 1, "x", "", "the author must have 1 to 128"),
        (waiting, 1, "x", "ada", "waiting of acme is pending and was never charged"),
        (failed, 1, "x", "ada", "failed of acme is unbilled and was never charged"),
        (999_999, 1, "x", "ada", "there is no request with the number 999999"),
    ):
        with pytest.raises(UsageError, match=said):
            await correct(database, usage_id, amount, reason, by)
    assert [await rows(database, table) for table in (entries, balances, usage)] == before


async def test_amounts_at_the_edge_of_64_bits_are_corrected_exactly(database):
    id = (await settle(database, {"a": 1}))["a"]
    assert await correct(database, id, GREATEST) == GREATEST - 1
    assert await correct(database, id, 0) == -GREATEST
    assert await correct(database, id, GREATEST) == GREATEST
    assert await the_balance(database) == (1, 2 * GREATEST, GREATEST)


async def test_corrections_of_one_request_at_once_follow_each_other(database):
    id = (await settle(database, {"a": 100}))["a"]
    await asyncio.gather(*(correct(database, id, amount) for amount in range(10)))
    net = sum(
        row["amount_nano_usd"] * (1 if row["debit_account"].startswith("payer:") else -1)
        for row in await rows(database, entries)
    )
    (row,) = await rows(database, usage)
    requests, charged, credited = await the_balance(database)
    assert (requests, charged - credited) == (1, net)
    assert row["cost_nano_usd"] == net
    assert 0 <= net < 10


async def test_corrections_while_collectors_settle_wait_for_nobody_in_a_circle(database):
    ids = await settle(database, {f"old{n}": 50 for n in range(20)})
    costs = {f"new{n}": n for n in range(600)}
    for name in ("acme", "other"):
        await register(database, name, f"http://{name}.test/costs")
        await take_in(database, *(served(id, name, model=f"owner/{int(id[3:]) % 7}") for id in costs))
    collector = Collector(database, Sealer(None), CostProvider(costs))

    async def changes(id):
        await correct(database, id, 30)
        assert await changed(database, id, 31)

    await collector.tick()
    await asyncio.gather(collector.idle(), *(changes(id) for id in ids.values()))
    found = await rows(database, usage)
    assert [row["state"] for row in found].count("settled") == 1200
    assert [row["state"] for row in found].count("disputed") == 20


async def test_invariant_9_a_changed_cost_is_a_dispute_and_what_was_posted_stays(database):
    id = (await settle(database, {"a": 700}))["a"]
    before = await rows(database, entries)
    assert not await changed(database, id, 700)
    assert await changed(database, id, 800)
    assert not await changed(database, id, 800)
    assert not await changed(database, id, 900)
    assert await rows(database, entries) == before
    (row,) = await rows(database, usage)
    assert (row["state"], row["cost_nano_usd"], row["problem"]) == ("disputed", 700, "changed: 800")
    (dispute,) = await rows(database, dispute_rows)
    assert (dispute["reason"], dispute["claimed"], dispute["posted_nano_usd"]) == ("changed", "800", 700)
    number = dispute["id"]
    said = f"judge dispute {number} instead: `roadworthy billing dispute resolve {number} --accept 1"
    with pytest.raises(UsageError, match=said):
        await correct(database, id, 1)


@pytest.mark.parametrize(
    ("choice", "amount", "costs", "entry"),
    [
        (Choice.CLAIMED, None, 800, ("payer:org:paying", 100)),
        (Choice.POSTED, None, 700, None),
        (Choice.AMOUNT, 650, 650, ("provider:acme", 50)),
        (Choice.AMOUNT, 700, 700, None),
        (Choice.NOTHING, None, 0, ("provider:acme", 700)),
    ],
)
async def test_a_changed_cost_is_resolved_by_a_correction_or_by_nothing(database, choice, amount, costs, entry):
    id = (await settle(database, {"a": 700}))["a"]
    await changed(database, id, 800)
    (dispute,) = await rows(database, dispute_rows)
    assert await resolve(database, dispute["id"], choice, amount) == costs
    (row,) = await rows(database, usage)
    assert (row["state"], row["cost_nano_usd"], row["problem"]) == ("settled", costs, None)
    posted = [(row["debit_account"], row["amount_nano_usd"]) for row in (await rows(database, entries))[1:]]
    assert posted == ([entry] if entry else [])
    (dispute,) = await rows(database, dispute_rows)
    assert (dispute["resolution"], dispute["resolved_nano_usd"]) == (choice.value, costs)
    assert (dispute["resolved_by"], dispute["note"]) == ("ada", "asked them")
    assert dispute["resolved_at_us"] >= dispute["opened_at_us"]
    with pytest.raises(UsageError, match="resolved already, by ada: asked them"):
        await resolve(database, dispute["id"], choice, amount)
    # The claim that was judged opens no dispute again; another one does.
    assert not await changed(database, id, 800)
    assert await changed(database, id, 801)


async def test_a_disputed_request_that_was_never_charged_is_charged_when_it_is_resolved(database):
    provider = CostProvider()
    items = [("a", 1), ("a", 2), ("b", 10**25), ("c", 3), ("c", 4), ("d", 10**13)]
    provider.answers.append(reply({"requests": [{"requestId": id, "costNanoUsd": cost} for id, cost in items]}))
    await register(database)
    await take_in(database, *(served(id) for id in "abcd"))
    collector = Collector(database, Sealer(None), provider)
    await collector.tick()
    await collector.idle()
    async with database.reading() as connection:
        found = {one.request_id: one for one in await disputes.listed(connection)}
    assert {id: one.claimed for id, one in found.items()} == {
        "a": "1 and 2",
        "b": "1" + "0" * 25,
        "c": "3 and 4",
        "d": "1" + "0" * 13,
    }
    for id in "ab":
        with pytest.raises(UsageError, match="not one amount that the ledger can hold"):
            await resolve(database, found[id].id, Choice.CLAIMED)
    with pytest.raises(UsageError, match="nothing was posted for dispute"):
        await resolve(database, found["a"].id, Choice.POSTED)
    with pytest.raises(UsageError, match="an amount goes with the choice 'amount'"):
        await resolve(database, found["a"].id, Choice.AMOUNT)
    with pytest.raises(UsageError, match="there is no dispute 12345"):
        await resolve(database, 12345, Choice.POSTED)
    assert await rows(database, entries) == []
    assert await resolve(database, found["a"].id, Choice.AMOUNT, 2) == 2
    assert await resolve(database, found["b"].id, Choice.AMOUNT, GREATEST) == GREATEST
    assert await resolve(database, found["c"].id, Choice.NOTHING) == 0
    assert await resolve(database, found["d"].id, Choice.CLAIMED) == 10**13
    posted = [(row["kind"], row["amount_nano_usd"], row["author"]) for row in await rows(database, entries)]
    assert posted == [("charge", amount, "ada") for amount in (2, GREATEST, 0, 10**13)]
    assert await the_balance(database) == (4, 2 + GREATEST + 10**13, 0)
    async with database.reading() as connection:
        assert await disputes.listed(connection) == []
        assert len(await disputes.listed(connection, resolved=True, provider="acme", payer="org:paying")) == 4
        assert await disputes.listed(connection, resolved=True, provider="other") == []
        (entry,) = await disputes.entries_of(connection, found["b"].usage_id)
    assert (entry.kind, entry.amount_nano_usd) == ("charge", GREATEST)


async def test_a_claim_equal_to_the_charge_that_a_person_corrected_opens_no_dispute(database):
    """Invariant 9: what stands beside the claim was judged by whoever corrected it."""
    ids = await settle(database, {"a": 138_225})
    await correct(database, ids["a"], 0, "refund")
    assert not await changed(database, ids["a"], 138_225)
    assert await rows(database, dispute_rows) == []
    assert (await rows(database, usage))[0]["state"] == "settled"
    await correct(database, ids["a"], 5)
    assert not await changed(database, ids["a"], 138_225)
    assert await changed(database, ids["a"], 138_226)
    (found,) = await rows(database, dispute_rows)
    assert (found["claimed"], found["posted_nano_usd"]) == ("138226", 5)


async def test_a_cost_too_large_to_be_posted_that_a_person_made_the_cost_opens_no_dispute(database):
    """Invariant 9: it is told as a doubtful cost, and is what stands."""
    ids = await settle(database, {"a": 5})
    too_large = 10**12 + 1
    await correct(database, ids["a"], too_large)
    posted = recheck.Posted(ids["a"], "a", too_large)
    for spelt in (b"1000000000001", b"1000000000001.0", b"1000000000000.5", b"1000000000.001e3"):
        body = b'{"requests": [{"requestId": "a", "costNanoUsd": %s}]}' % spelt
        told = answer.read(reply(body), ["a"], 10**12)
        assert told.doubtful["a"].claimed == str(too_large)
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            assert await recheck.compare(connection, "acme", [posted], told, now_us) == recheck.Rechecked(same=1)
    assert await rows(database, dispute_rows) == []


async def test_two_that_find_the_same_costs_changed_do_not_wait_for_each_other(database):
    """Invariant 9, and no deadlock: the collector's sample comes in any order, an operator's by time."""
    ids = await settle(database, {f"r{n:03}": 5 for n in range(400)})
    asked = [recheck.Posted(number, request_id, 5) for request_id, number in ids.items()]
    told = Costs(posted=dict.fromkeys(ids, 6))

    async def compared(order):
        async with database.writing() as connection:
            return await recheck.compare(connection, "acme", order, told, await database.now_us(connection))

    seen = await asyncio.gather(compared(asked), compared(asked[::-1]))
    assert sorted(each.changed for each in seen) == [0, 400]
    assert len(await rows(database, dispute_rows)) == 400


REFUSED = {
    "update an entry": "UPDATE entries SET amount_nano_usd = 1",
    "update no entry": "UPDATE entries SET amount_nano_usd = 1 WHERE id = {id}",
    "delete an entry": "DELETE FROM entries WHERE id = {id}",
    "delete all entries": "DELETE FROM entries",
    "upsert an entry by id": "INSERT INTO entries (id, usage_id, kind, debit_account, credit_account, "
    "amount_nano_usd, posted_at_us) SELECT id, usage_id, kind, debit_account, credit_account, 1, 1 FROM entries "
    "WHERE kind = 'charge' ON CONFLICT (id) DO UPDATE SET amount_nano_usd = excluded.amount_nano_usd",
    "upsert a charge": "INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, "
    "posted_at_us) SELECT usage_id, kind, debit_account, credit_account, 1, 1 FROM entries WHERE kind = 'charge' "
    "ON CONFLICT (usage_id) WHERE kind = 'charge' DO UPDATE SET amount_nano_usd = 1",
    "a second charge (invariant 1)": "INSERT INTO entries (usage_id, kind, debit_account, credit_account, "
    "amount_nano_usd, posted_at_us) SELECT usage_id, kind, debit_account, credit_account, 1, 1 FROM entries "
    "WHERE kind = 'charge'",
    "a charge of nobody": "INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, "
    "posted_at_us) VALUES (999999, 'charge', 'payer:a', 'provider:b', 1, 1)",
    "a negative amount": "INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, "
    "posted_at_us, reason, author) SELECT id, 'correction', 'payer:a', 'provider:b', -1, 1, 'r', 'a' FROM usage "
    "WHERE request_id = 'a'",
    "a correction by nobody": "INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, "
    "posted_at_us, reason) SELECT id, 'correction', 'payer:a', 'provider:b', 1, 1, 'r' FROM usage "
    "WHERE request_id = 'a'",
    "a gift": "INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, posted_at_us, "
    "reason, author) SELECT id, 'correction', 'provider:acme', 'payer:org:paying', 701, 1, 'r', 'a' FROM usage "
    "WHERE request_id = 'a'",
    "a gift to one who paid nothing": "INSERT INTO entries (usage_id, kind, debit_account, credit_account, "
    "amount_nano_usd, posted_at_us, reason, author) SELECT id, 'correction', 'provider:acme', 'payer:org:paying', 1, "
    "1, 'r', 'a' FROM usage WHERE request_id = 'waiting'",
    "noted as settled": "INSERT INTO usage (provider, request_id, served_at_us, received_at_us, payer, model, task, "
    "status, source, state, asks, next_ask_us, alone, cost_nano_usd, settled_at_us) SELECT provider, 'new', 1, 1, "
    "payer, model, task, 200, 'x', 'settled', 0, 0, alone, 5, 1 FROM usage WHERE request_id = 'a'",
    "noted as disputed": "INSERT INTO usage (provider, request_id, served_at_us, received_at_us, payer, model, task, "
    "status, source, state, asks, next_ask_us, alone) SELECT provider, 'new', 1, 1, payer, model, task, 200, 'x', "
    "'disputed', 0, 0, alone FROM usage WHERE request_id = 'a'",
    "a request removed": "DELETE FROM usage WHERE request_id = 'waiting'",
    "settled without a charge": "UPDATE usage SET state = 'settled', cost_nano_usd = 1, settled_at_us = 1 "
    "WHERE request_id = 'waiting'",
    "settled without a cost": "UPDATE usage SET cost_nano_usd = NULL, settled_at_us = NULL WHERE request_id = 'a'",
    "charged and asked again": "UPDATE usage SET state = 'pending', cost_nano_usd = NULL, settled_at_us = NULL "
    "WHERE request_id = 'a'",
    "charged and expired": "UPDATE usage SET state = 'expired' WHERE request_id = 'a'",
    "pending with a cost": "UPDATE usage SET cost_nano_usd = 1, settled_at_us = 1 WHERE request_id = 'waiting'",
    "a charged request removed": "DELETE FROM usage WHERE request_id = 'a'",
    "another payer": "UPDATE usage SET payer = 'org:other' WHERE request_id = 'a'",
    "a dispute removed": "DELETE FROM disputes",
    "a judgement changed": "UPDATE disputes SET note = 'no' WHERE resolved_at_us IS NOT NULL",
    "a judgement by nobody": "UPDATE disputes SET resolved_at_us = 1 WHERE resolved_at_us IS NULL",
    "two open disputes": "INSERT INTO disputes (usage_id, provider, opened_at_us, reason, claimed) "
    "SELECT usage_id, provider, 1, 'changed', '1' FROM disputes WHERE resolved_at_us IS NULL",
    "a rest of more than a dollar": "UPDATE balances SET charged_nano = 1000000000",
}
ONLY = {
    "sqlite": {
        "replace an entry": "INSERT OR REPLACE INTO entries (id, usage_id, kind, debit_account, credit_account, "
        "amount_nano_usd, posted_at_us) SELECT id, usage_id, kind, debit_account, credit_account, 1, 1 FROM entries "
        "WHERE kind = 'charge'",
        "replace a charge": "REPLACE INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, "
        "posted_at_us) SELECT usage_id, kind, debit_account, credit_account, 1, 1 FROM entries WHERE kind = 'charge'",
        "update or replace": "UPDATE OR REPLACE entries SET amount_nano_usd = 1",
        "update or ignore": "UPDATE OR IGNORE entries SET amount_nano_usd = 1 WHERE id = {id}",
        "replace a request": "INSERT OR REPLACE INTO usage SELECT * FROM usage WHERE request_id = 'a'",
        "replace an open dispute": "REPLACE INTO disputes (usage_id, provider, opened_at_us, reason, claimed) "
        "SELECT usage_id, provider, 1, 'changed', '1' FROM disputes WHERE resolved_at_us IS NULL",
    },
    "postgresql": {
        "truncate the ledger": "TRUNCATE entries",
        "truncate all": "TRUNCATE usage CASCADE",
        "truncate disputes": "TRUNCATE disputes",
        "merge": "MERGE INTO entries USING (SELECT 1) AS one ON TRUE WHEN MATCHED THEN DELETE",
    },
}


async def test_invariants_1_and_2_the_database_itself_refuses_what_must_not_happen(database, dialect):
    ids = await settle(database, {"a": 700, "b": 5, "c": 5})
    await take_in(database, served("waiting"))
    await changed(database, ids["b"], 6)
    await changed(database, ids["c"], 6)
    await resolve(database, min(row["id"] for row in await rows(database, dispute_rows)), Choice.CLAIMED)
    entry_id = (await rows(database, entries))[0]["id"]
    tables = (entries, usage, dispute_rows, balances)
    before = [await rows(database, table) for table in tables]
    for what, statement in {**REFUSED, **ONLY[dialect]}.items():
        with pytest.raises(DBAPIError):  # noqa: PT012  the refusal may come at the commit
            async with database.writing() as connection:
                await connection.exec_driver_sql(statement.format(id=entry_id))
                pytest.fail(f"the database let this pass: {what}")
        assert [await rows(database, table) for table in tables] == before, what


async def test_a_charge_that_is_there_already_undoes_its_own_settling_and_no_other(database):
    """A unique violation in the middle of a settling leaves nothing of it; the others are settled without it."""
    await register(database)
    await take_in(database, served("a"), served("b"))
    id = next(row["id"] for row in await rows(database, usage) if row["request_id"] == "b")
    async with database.writing() as connection:
        await connection.execute(
            entries.insert().values(
                usage_id=id,
                kind="charge",
                debit_account="payer:org:paying",
                credit_account="provider:acme",
                amount_nano_usd=1,
                posted_at_us=1,
            )
        )
    collector = Collector(database, Sealer(None), CostProvider({"a": 5, "b": 5}), jitter=random.Random(1))
    await collector.tick()
    await collector.idle()
    states = {row["request_id"]: (row["state"], row["cost_nano_usd"]) for row in await rows(database, usage)}
    assert states == {"a": ("settled", 5), "b": ("pending", None)}
    assert [row["amount_nano_usd"] for row in await rows(database, entries)] == [1, 5]
    assert await the_balance(database) == (1, 5, 0)
