"""Balances, statements and the verifying of the books: exact at any size, and equal to the entries at every moment."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import shutil
import sqlite3
from decimal import Decimal

import httpx
import pyarrow.parquet
import pytest
import sqlalchemy as sa
from costs import CostProvider, dispute, register, served, take_in
from fastapi import FastAPI, HTTPException, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from roadworthy.billing import api_ledger, balances, statement_formats, verify
from roadworthy.billing.collector import Collector
from roadworthy.billing.dates import Month
from roadworthy.billing.money import shown_usd, usd
from roadworthy.billing.schedule import DAY_US
from roadworthy.billing.statement import statement
from roadworthy.billing.store import corrections, disputes
from roadworthy.billing.store.disputes import Choice
from roadworthy.billing.tables import balances as balance_rows
from roadworthy.billing.tables import disputes as dispute_rows
from roadworthy.billing.tables import entries
from roadworthy.billing.tables import prices as price_rows
from roadworthy.billing.tables import usage as usage_rows
from roadworthy.cli.billing_commands import app
from roadworthy.database import Database
from roadworthy.errors import UsageError
from roadworthy.sealing import Sealer

GREATEST = 2**63 - 1
OCTOBER, NOVEMBER = Month(2026, 10), Month(2026, 11)
IN_OCTOBER_US = OCTOBER.from_day * DAY_US + 5 * DAY_US
IN_NOVEMBER_US = NOVEMBER.from_day * DAY_US + 5 * DAY_US


@pytest.fixture
async def database(database_url):
    opened = Database(database_url)
    yield opened
    await opened.close()


async def charged(connection, id, amount, *, posted_at_us=1, **more):
    """A served request that is charged, whatever the collector would say of the amount."""
    request = served(f"r{id}", **more)
    values = {name: getattr(request, name) for name in request.__dataclass_fields__}
    made = await connection.execute(
        usage_rows.insert().values(
            received_at_us=request.served_at_us,
            source="test",
            state="pending",
            asks=1,
            next_ask_us=0,
            alone=False,
            **values,
        )
    )
    assert made.inserted_primary_key == (id,)  # counted by the database, from 1
    held = await corrections.hold(connection, id)
    await corrections.post(connection, held, amount, "judged", "test", now_us=posted_at_us)


async def correct(database, usage_id, amount, now_us):
    async with database.writing() as connection:
        await corrections.correct(connection, usage_id, amount, "=wrong price", "ada", now_us=now_us)


async def found_wrong(database):
    books = verify.Books()
    async with database.reading() as connection:
        return [one async for one in verify.problems(connection, books)], books


async def sums_of_entries(connection):
    """Requests, charged and credited by payer, provider, model and day: added up here, row by row."""
    sums: dict[tuple, list[int]] = {}
    query = sa.select(entries, usage_rows).join_from(entries, usage_rows, entries.c.usage_id == usage_rows.c.id)
    for row in await connection.execute(query):
        key = (row.payer, row.provider, row.model, row.served_at_us // DAY_US)
        found = sums.setdefault(key, [0, 0, 0])
        found[0] += row.kind == "charge"
        found[1 if row.debit_account.startswith("payer:") else 2] += row.amount_nano_usd
    return {key: tuple(found) for key, found in sums.items()}


@pytest.mark.anyio
async def test_sums_near_the_end_of_64_bits_are_exact_in_any_combination(database):
    """Thousands of entries near 2^63 - 1, by all sixteen ways to group, and by parts of them."""
    draw = random.Random(7)
    rows = {}
    async with database.writing() as connection:
        for day in range(8):
            for payer in "ab":
                for provider in "xy":
                    for model in ("m/1", "m/2", "m/3"):
                        amounts = [GREATEST - draw.randrange(10**10) for _ in range(40)]
                        given_back = sum(draw.sample(amounts, 7))
                        rows[payer, provider, model, day] = (40, sum(amounts), given_back)
        from roadworthy.billing.store.ledger import Change, add_to_balances

        for key, (requests, total, given_back) in rows.items():
            for part in range(4):  # in four postings, so that carries are met
                await add_to_balances(
                    connection,
                    [
                        Change(
                            *key,
                            requests=requests // 4,
                            charged_nano_usd=total // 4 + (total % 4 if part == 0 else 0),
                            credited_nano_usd=given_back // 4 + (given_back % 4 if part == 0 else 0),
                        )
                    ],
                )
    assert sum(total for _, total, _ in rows.values()) > 3000 * 2**63
    async with database.reading() as connection:
        for chosen in range(16):
            by = [name for at, name in enumerate(balances.BY) if chosen >> at & 1]
            expected: dict[tuple, list[int]] = {}
            for key, amounts in rows.items():
                group = tuple(value for name, value in zip(balances.BY, key, strict=True) if name in by)
                sums = expected.setdefault(group, [0, 0, 0])
                expected[group] = [old + new for old, new in zip(sums, amounts, strict=True)]
            found = {
                tuple(getattr(row, name) for name in by): [row.requests, row.charged_nano_usd, row.credited_nano_usd]
                for row in await balances.balance(connection, by=by)
            }
            assert found == expected
        (part,) = await balances.balance(connection, payer="a", provider="y", model="m/2", from_day=2, to_day=5)
        wanted = [amounts for key, amounts in rows.items() if key[:3] == ("a", "y", "m/2") and 2 <= key[3] < 5]
        assert (part.charged_nano_usd, part.credited_nano_usd) == tuple(
            sum(amounts[at] for amounts in wanted) for at in (1, 2)
        )
        assert part.net_nano_usd == part.charged_nano_usd - part.credited_nano_usd
        (nothing,) = await balances.balance(connection, payer="nobody", from_day=-(10**30), to_day=10**30)
        assert (nothing.requests, nothing.net_nano_usd) == (0, 0)
        with pytest.raises(UsageError, match="balances go by payer, provider, model, day; got 'month'"):
            await balances.balance(connection, by=["month"])


@given(st.lists(st.integers(0, GREATEST), min_size=1, max_size=12), st.lists(st.integers(0, GREATEST), max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_charges_and_corrections_are_summed_exactly(migrated_sqlite, tmp_path_factory, charges, later):
    path = tmp_path_factory.mktemp("sums") / "books.db"
    shutil.copyfile(migrated_sqlite, path)

    async def go():
        database = Database(f"sqlite:///{path}")
        costs = dict(enumerate(charges, 1))
        async with database.writing() as connection:
            for id, amount in costs.items():
                await charged(connection, id, amount)
            for at, amount in enumerate(later):
                id = at % len(costs) + 1
                if costs[id] != amount:
                    await corrections.correct(connection, id, amount, "x", "y", now_us=2)
                    costs[id] = amount
        async with database.reading() as connection:
            (total,) = await balances.balance(connection)
            assert (total.requests, total.net_nano_usd) == (len(costs), sum(costs.values()))
        problems, books = await found_wrong(database)
        assert problems == []
        assert books.payers_nano_usd == books.providers_nano_usd == sum(costs.values())
        await database.close()

    asyncio.run(go())


@pytest.mark.anyio
async def test_invariant_3_balances_equal_the_entries_at_every_moment(database):
    """Two collectors' providers settle and a person corrects, while snapshots are compared."""
    costs = {f"r{n}": (n * 7919) % 10**10 for n in range(400)}
    for name in ("acme", "other"):
        await register(database, name, f"http://{name}.test/costs")
        await take_in(
            database, *(served(id, name, payer=f"org:{int(id[1:]) % 3}", model=f"m/{int(id[1:]) % 2}") for id in costs)
        )
    from roadworthy.billing.schedule import Policy

    one, two = (Collector(database, Sealer(None), CostProvider(costs), Policy(batch_size=25)) for _ in range(2))
    async with database.writing() as connection:
        await connection.exec_driver_sql("UPDATE cost_endpoints SET batch_limit = 25")
    done = asyncio.Event()
    seen = set()

    async def compare():
        while True:
            last = done.is_set()
            async with database.reading() as connection:
                expected = await sums_of_entries(connection)
                found = {
                    (row.payer, row.provider, row.model, row.day): (
                        row.requests,
                        row.charged_nano_usd,
                        row.credited_nano_usd,
                    )
                    async for row in balances.stream(connection, by=balances.BY)
                }
                books = verify.Books()
                assert [one async for one in verify.problems(connection, books)] == []
            assert found == expected
            seen.add(books.entries)
            if last:
                return

    async def work():
        await one.tick()
        await two.tick()
        await asyncio.gather(one.idle(), two.idle())
        for id in range(1, 40):
            await correct(database, id, 11, 5)
        done.set()

    await asyncio.gather(compare(), work())
    assert max(seen) == 839
    assert len(seen) > 1


BROKEN = {
    "balance: a balance that was changed": "UPDATE balances SET charged_nano = charged_nano + 1",
    "balance: a count that was changed": "UPDATE balances SET requests = requests + 1",
    "balance: a balance that is gone": "DELETE FROM balances",
    "balance: a balance of nobody": "INSERT INTO balances SELECT 'org:zzz', provider, model, day, requests, "
    "charged_usd, charged_nano, credited_usd, credited_nano FROM balances LIMIT 1",
    "charge: a charge that is gone": "DELETE FROM entries WHERE usage_id = 2 AND kind = 'charge'",
    "cost: an amount that was changed": "UPDATE entries SET amount_nano_usd = 77 WHERE usage_id = 1",
    "cost: a correction that is gone": "DELETE FROM entries WHERE kind = 'correction'",
    "cost: a cost that was changed": "UPDATE usage SET cost_nano_usd = 78 WHERE id = 1",
    "cost: less than nothing": "UPDATE entries SET amount_nano_usd = 10 WHERE kind = 'correction'",
    "entry: an account that was changed": "UPDATE entries SET debit_account = 'payer:org:else' WHERE usage_id = 1",
    "sides: an account of no kind": "UPDATE entries SET credit_account = 'bank' WHERE usage_id = 1",
    "entry: an account of the other kind": "UPDATE entries SET credit_account = 'payer:x' WHERE usage_id = 1",
    "state: settled and never charged": "UPDATE usage SET state = 'settled', cost_nano_usd = 1, settled_at_us = 1 "
    "WHERE id = 5",
    "state: a failed request that is asked for": "UPDATE usage SET status = 500 WHERE id = 5",
    "dispute: disputed by nobody": "UPDATE usage SET state = 'disputed' WHERE id = 1",
    "dispute: an open dispute of a settled request": "UPDATE usage SET state = 'settled' WHERE id = 3",
    "dispute: with another provider": "UPDATE disputes SET provider = 'other'",
}
ONLY_SQLITE = {
    "orphan: entries without their request": "DELETE FROM usage WHERE id = 1",
    "orphan: a dispute without its request": "DELETE FROM usage WHERE id = 3",
    "entry: an amount that is no integer": "UPDATE entries SET amount_nano_usd = 1.5 WHERE usage_id = 1",
    "charge: charged twice": "DROP INDEX uq_entries_charge; INSERT INTO entries (usage_id, kind, debit_account, "
    "credit_account, amount_nano_usd, posted_at_us) SELECT usage_id, kind, debit_account, credit_account, 1, 1 "
    "FROM entries WHERE usage_id = 1",
    "state: charged and pending": "PRAGMA ignore_check_constraints = ON; UPDATE usage SET state = 'pending' "
    "WHERE id = 1",
    "entry: a correction without its author": "PRAGMA ignore_check_constraints = ON; UPDATE entries SET author = '' "
    "WHERE kind = 'correction'",
}


async def books_of_five(database):
    """1 and 2 settled, 2 corrected; 3 settled and disputed; 4 a failed request; 5 pending."""
    async with database.writing() as connection:
        for id, amount in ((1, 100), (2, 9), (3, 50)):
            await charged(connection, id, amount)
        await corrections.correct(connection, 2, 4, "x", "y", now_us=2)
        await dispute(connection, 3, 60, 3)
    await take_in(database, served("failed", status=500), served("waiting"))


@pytest.mark.anyio
async def test_verifying_finds_each_way_in_which_books_can_be_wrong(database, dialect, tmp_path):
    await books_of_five(database)
    problems, books = await found_wrong(database)
    assert problems == []
    assert books.requests == {"settled": 2, "disputed": 1, "unbilled": 1, "pending": 1}
    assert (books.entries, books.payers_nano_usd) == (4, 154)
    for name, statements in {**BROKEN, **(ONLY_SQLITE if dialect == "sqlite" else {})}.items():
        broken = broken_copy if dialect == "sqlite" else broken_for_now
        kinds = {one.kind.value for one in await broken(database, statements, tmp_path / "copy.db")}
        assert name.partition(":")[0] in kinds, (name, kinds)
        assert "guard" in kinds


async def broken_copy(database, statements, path):
    """What is wrong with a copy of an SQLite database after these statements, without its triggers."""
    with sqlite3.connect(database.url.database) as source, sqlite3.connect(path) as raw:
        source.backup(raw)
        for (trigger,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {trigger}")
        raw.executescript(statements)
    source.close()
    raw.close()
    copy = Database(f"sqlite:///{path}")
    problems, _ = await found_wrong(copy)
    await copy.close()
    return problems


async def broken_for_now(database, statements, _path):
    """What is wrong with a PostgreSQL database after these statements, without its triggers; all of it is undone."""
    async with database.writing() as connection:
        for table in ("entries", "usage", "disputes"):
            await connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await connection.exec_driver_sql(statements)
        problems = [one async for one in verify.problems(connection, verify.Books())]
        await connection.rollback()
    return problems


@pytest.mark.anyio
async def test_verifying_knows_every_trigger_of_billing(database, dialect):
    """One that is not listed could be dropped unseen."""
    query = {
        "sqlite": "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal",
    }[dialect]
    tables = {table.name for table in (entries, usage_rows, dispute_rows, price_rows)}
    async with database.reading() as connection:
        triggers = [tuple(row) for row in await connection.exec_driver_sql(query) if row[1] in tables]
    assert {table for _, table in triggers} == tables
    async with database.writing() as connection:
        for name, table in triggers:
            await connection.exec_driver_sql(f"DROP TRIGGER {name}" + (f" ON {table}" if dialect != "sqlite" else ""))
        problems = [one async for one in verify.problems(connection, verify.Books())]
        await connection.rollback()
    assert {one.where for one in problems if one.kind is verify.Kind.GUARD} == {name for name, _ in triggers}


@pytest.mark.anyio
async def test_verifying_goes_through_many_pages(database, monkeypatch):
    monkeypatch.setattr(verify, "PAGE_ROWS", 2)
    await books_of_five(database)
    problems, books = await found_wrong(database)
    assert problems == []
    assert (sum(books.requests.values()), books.entries, books.disputes, books.balances) == (5, 4, 1, 1)


async def two_months(database, meanwhile=None):
    """org:acme's October, with what November brought: a late charge, corrections, disputes, and a pending request.

    `meanwhile` is done in October: what is posted later is never posted before November.
    """
    acme = {"payer": "org:acme", "served_at_us": IN_OCTOBER_US, "cached_input_tokens": 3}
    async with database.writing() as connection:
        await charged(connection, 1, 12_345_678_901, posted_at_us=IN_OCTOBER_US, **acme)
        await charged(connection, 2, GREATEST, posted_at_us=IN_OCTOBER_US, **{**acme, "model": "=cmd()"})
        await charged(connection, 3, GREATEST, posted_at_us=IN_OCTOBER_US, **{**acme, "model": "=cmd()"})
        await corrections.correct(connection, 1, 12_345_678_900, "x", "ada", now_us=IN_OCTOBER_US + 1)
        await dispute(connection, 3, 5, IN_OCTOBER_US + 2)
        if meanwhile is not None:
            await meanwhile(connection)
        await charged(connection, 4, 40, posted_at_us=IN_NOVEMBER_US, **acme)
        await charged(connection, 5, 7, posted_at_us=IN_NOVEMBER_US, **{**acme, "served_at_us": IN_NOVEMBER_US})
        await charged(connection, 6, 999, posted_at_us=IN_OCTOBER_US, payer="org:else")


def explained(corrections):
    return [
        (one.request_id, one.before_nano_usd, one.after_nano_usd, one.amount_nano_usd, one.reason)
        for one in corrections
    ]


@pytest.mark.anyio
async def test_a_statement_holds_what_was_posted_in_its_month_and_a_closed_month_never_changes(database):
    await two_months(database)
    await take_in(database, served("waiting", payer="org:acme", served_at_us=IN_OCTOBER_US))

    async def made(month):
        async with database.reading() as connection:
            return await statement(connection, "org:acme", month, now_us=IN_NOVEMBER_US + 60 * DAY_US)

    october = await made(OCTOBER)
    assert october.closed
    assert [(line.model, line.requests, line.amount_nano_usd) for line in october.lines] == [
        ("=cmd()", 2, 2 * GREATEST),
        ("owner/chat", 1, 12_345_678_900),
    ]
    (_, line) = october.lines
    assert (line.input_tokens, line.cached_input_tokens, line.output_tokens) == (10, 3, 20)
    assert (line.charged_nano_usd, line.corrected_nano_usd) == (12_345_678_901, -1)
    assert (october.pending, october.uncharged_disputes, len(october.disputes)) == (1, 0, 1)
    assert (october.late, october.corrections) == ((), ())
    assert explained(october.included) == [
        ("r1", None, 12_345_678_901, 12_345_678_901, "judged"),
        ("r2", None, GREATEST, GREATEST, "judged"),
        ("r3", None, GREATEST, GREATEST, "judged"),
        ("r1", 12_345_678_901, 12_345_678_900, -1, "x"),
    ]
    await correct(database, 1, 100, IN_NOVEMBER_US)
    await correct(database, 2, GREATEST - 1, IN_NOVEMBER_US)
    await correct(database, 4, 41, IN_NOVEMBER_US)
    again = await made(OCTOBER)
    assert (again.lines, again.late, again.corrections) == (october.lines, (), ())
    assert again.included == october.included
    november = await made(NOVEMBER)
    assert [(line.requests, line.amount_nano_usd) for line in november.lines] == [(1, 7)]
    assert [(line.requests, line.amount_nano_usd) for line in november.late] == [(1, 41)]
    assert explained(november.corrections) == [
        ("r1", 12_345_678_900, 100, -12_345_678_800, "=wrong price"),
        ("r2", GREATEST, GREATEST - 1, -1, "=wrong price"),
    ]
    assert explained(november.included) == [
        ("r4", None, 40, 40, "judged"),
        ("r5", None, 7, 7, "judged"),
        ("r4", 40, 41, 1, "=wrong price"),
    ]
    async with database.reading() as connection:
        (owed,) = await balances.balance(connection, payer="org:acme")
    assert october.amount_nano_usd + november.amount_nano_usd == owed.net_nano_usd
    with pytest.raises(UsageError, match="the month 2026-11 has not begun"):
        async with database.reading() as connection:
            await statement(connection, "org:acme", NOVEMBER, now_us=IN_OCTOBER_US)


@pytest.mark.anyio
async def test_every_format_of_a_statement_has_the_same_exact_sums(database):
    await two_months(database)
    await correct(database, 1, 100, IN_NOVEMBER_US)
    async with database.reading() as connection:
        for month in (OCTOBER, NOVEMBER):
            made = await statement(connection, "org:acme", month, now_us=IN_NOVEMBER_US)
            total = made.amount_nano_usd
            assert made.closed is (month is OCTOBER)
            told = json.loads(statement_formats.as_json(made))
            assert (told["amountNanoUsd"], told["amountUsd"]) == (total, usd(total))
            parts = told["served"] + told["late"] + told["corrections"]
            assert sum(part["amountNanoUsd"] for part in parts) == total
            read = list(csv.DictReader(io.StringIO(statement_formats.as_csv(made).decode())))
            assert sum(int(row["amount_nano_usd"]) for row in read) == total
            assert sum(Decimal(row["amount_usd"]) for row in read) * 10**9 == total
            assert {row["model"][0] for row in read} <= {"'", "o"}
            table = pyarrow.parquet.read_table(io.BytesIO(statement_formats.as_parquet(made))).to_pylist()
            assert sum(row["amount_nano_usd"] for row in table) == total
            assert [row["model"] for row in table] == [row["model"].lstrip("'") for row in read]
            assert shown_usd(total) in statement_formats.as_table(made).decode()
            page = statement_formats.as_html(made).decode()
            assert shown_usd(total) in page
            assert "<script" not in page


@pytest.mark.anyio
async def test_the_payer_reads_the_reason_of_every_correction_in_every_format(database):
    """Of the same month, of an earlier one, of a dispute; and the sums stay what they are without them."""

    async def judged(connection):
        await corrections.correct(connection, 1, 700, "of the same month", "ada", now_us=IN_OCTOBER_US + 3)
        await disputes.resolve(connection, 1, Choice.CLAIMED, "they erred", "ada", now_us=IN_OCTOBER_US + 4)

    await two_months(database, judged)
    async with database.writing() as connection:
        await corrections.correct(connection, 1, 500, "of an earlier month", "ada", now_us=IN_NOVEMBER_US)
    async with database.reading() as connection:
        october, november = [
            await statement(connection, "org:acme", month, now_us=IN_NOVEMBER_US + 60 * DAY_US)
            for month in (OCTOBER, NOVEMBER)
        ]
    assert october.amount_nano_usd == GREATEST + 700 + 5
    assert november.amount_nano_usd == 40 + 7 - 200
    for made, key, id, before, after, reason in (
        (october, "includedCorrections", "r1", 12_345_678_900, 700, "of the same month"),
        (october, "includedCorrections", "r3", GREATEST, 5, "they erred"),
        (november, "corrections", "r1", 700, 500, "of an earlier month"),
    ):
        day = "2026-10-06" if made is october else "2026-11-06"
        told = json.loads(statement_formats.as_json(made))
        (one,) = (one for one in told[key] if one["reason"] == reason)
        assert (one["requestId"], one["beforeNanoUsd"], one["afterNanoUsd"]) == (id, before, after)
        assert (one["beforeUsd"], one["amountNanoUsd"], one["postedAt"][:10]) == (usd(before), after - before, day)
        read = list(csv.DictReader(io.StringIO(statement_formats.as_csv(made).decode())))
        table = pyarrow.parquet.read_table(io.BytesIO(statement_formats.as_parquet(made))).to_pylist()
        for rows in (read, table):
            (row,) = (row for row in rows if row["reason"] == reason)
            assert (row["request_id"], int(row["before_nano_usd"]), int(row["after_nano_usd"])) == (id, before, after)
            assert row["posted_at"][:10] == day
            assert sum(int(row["amount_nano_usd"]) for row in rows) == made.amount_nano_usd
        text = statement_formats.as_table(made).decode()
        assert f"{day}T00:00:00Z  {id} of acme" in text
        assert f"  {shown_usd(before)} -> {shown_usd(after)} ({shown_usd(after - before)}): {reason}\n" in text
        page = statement_formats.as_html(made).decode()
        (row,) = (
            line for line in page.splitlines() if reason in line and "dispute" not in line and "Z</th>" not in line
        )
        for part in (day, id, usd(before), usd(after), usd(after - before)):
            assert part in row


def test_a_statement_in_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'roadworthy\[parquet\]'"):
        statement_formats.as_parquet(None)


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "0.000000000"),
        (12_345_678_901, "12.345678901"),
        (-1, "-0.000000001"),
        (10**30, "1" + "0" * 21 + ".0" + "0" * 8),
    ],
)
def test_money_is_written_to_the_last_digit(nano_usd, text):
    assert usd(nano_usd) == text


@pytest.mark.anyio
async def test_the_ledger_is_read_over_http_by_those_who_may(database):
    await two_months(database)
    await correct(database, 1, 100, IN_NOVEMBER_US)

    async def gateway(request: Request) -> None:
        if request.headers.get("authorization") != "Bearer good":
            raise HTTPException(401, "no gateway")

    service = FastAPI()
    service.include_router(api_ledger.router(database, gateway))
    transport = httpx.ASGITransport(service)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/api/billing/balances")).status_code == 401
        assert (await client.get("/api/billing/usage/acme/r1")).status_code == 401
        client.headers["Authorization"] = "Bearer good"
        found = (
            await client.get("/api/billing/balances?by=payer,day&payer=org:acme&from=2026-10-06&to=2026-10-06")
        ).json()
        net = 2 * GREATEST + 100 + 40
        (row,) = found["balances"]
        assert (row["payer"], row["day"], row["requests"]) == ("org:acme", "2026-10-06", 4)
        assert (row["costNanoUsd"], row["costUsd"]) == (net, usd(net))
        assert "model" not in row
        for query, said in (
            ("by=month", "balances go by"),
            ("from=yesterday", "a day is written YYYY-MM-DD, in UTC; got 'yesterday'"),
            ("payer=%00", "NUL"),
        ):
            answer = await client.get(f"/api/billing/balances?{query}")
            assert answer.status_code == 400
            assert said in answer.json()["detail"]
        one = (await client.get("/api/billing/usage/acme/r1")).json()
        assert (one["state"], one["costNanoUsd"], one["costUsd"]) == ("settled", 100, "0.000000100")
        assert [entry["amountNanoUsd"] for entry in one["entries"]] == [12_345_678_901, 1, 12_345_678_800]
        assert "author" not in one["entries"][0]
        assert (await client.get("/api/billing/usage/acme/none")).status_code == 404
        assert (await client.get("/api/billing/usage/acme/a%00")).status_code == 404


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def statement_of(at):
    return run("statement", "--payer", "org:acme", "--month", "2026-10", "--format", "json", *at).output


def named_in(*values):
    """Every key of JSON, however deep."""
    for value in values:
        if isinstance(value, dict):
            yield from value
        if isinstance(value, dict | list):
            yield from named_in(*(value.values() if isinstance(value, dict) else value))


async def _with_two_months(url):
    database = Database(url)
    await two_months(database)
    await database.close()


def test_a_payer_or_provider_of_whom_nothing_is_known_is_refused(database_url):
    asyncio.run(_with_two_months(database_url))
    at = ("--database", database_url)
    for command in (("balance",), ("dispute", "list"), ("statement", "--month", "2026-10")):
        for payer, said in (("acme", "user:NAME or org:NAME"), ("org:nosuch", "no request of org:nosuch is known")):
            result = run(*command, "--payer", payer, *at)
            assert isinstance(result.exception, UsageError)
            assert said in str(result.exception)
        if command[0] != "statement":
            result = run(*command, "--provider", "nosuch", *at)
            assert isinstance(result.exception, UsageError)
            assert "no provider 'nosuch' is registered" in str(result.exception)
            assert run(*command, "--provider", "acme", *at).exit_code == 0


def test_the_command_line_reads_the_ledger_and_puts_it_right(database_url, tmp_path):
    asyncio.run(_with_two_months(database_url))
    at = ("--database", database_url)
    said = run("balance", "--payer", "org:else", "--by", "model,day", *at)
    assert (
        said.output.split()
        == (
            "model day requests charged given back cost owner/chat 2025-10-09 1 "
            "0.000000999 USD 0.000000000 USD 0.000000999 USD"
        ).split()
    )
    told = json.loads(run("balance", "--by", "payer", "--json", *at).output)
    assert [row["costNanoUsd"] for row in told] == [2 * GREATEST + 12_345_678_900 + 47, 999]
    read = list(csv.DictReader(io.StringIO(run("balance", "--by", "payer", "--csv", *at).output)))
    assert [int(row["cost_nano_usd"]) for row in read] == [row["costNanoUsd"] for row in told]
    (row,) = json.loads(run("dispute", "list", "--json", *at).output)
    assert (row["requestId"], row["claimed"], row["claimedNanoUsd"], row["claimedUsd"]) == ("r3", "5", 5, usd(5))
    assert (row["costNanoUsd"], row["costUsd"], row["postedNanoUsd"]) == (GREATEST, usd(GREATEST), GREATEST)
    assert run("dispute", "list", *at).output.splitlines() == [
        "id  opened      reason   claimed (USD)  costs now (USD)",
        "1   2026-10-06  changed  0.000000005    9223372036.854775807",
        "  r3 of acme",
        "  org:acme, =cmd()",
    ]
    for wrong, said in (
        ((), "say one of --accept claimed"),
        (("--accept", "5", "--charge-nothing"), "say one of --accept claimed"),
        (("--accept", "5.5"), "a whole number of nano-USD; got '5.5'"),
        (("--accept", "9223372036854775808"), "from 0 to 9223372036854775807"),
    ):
        result = run("dispute", "resolve", row["id"], "--note", "x", *wrong, *at)
        assert isinstance(result.exception, UsageError)
        assert said in str(result.exception)
    done = run("dispute", "resolve", row["id"], "--accept", "claimed", "--note", "they erred", "--by", "ada", *at)
    assert (done.exit_code, done.output) == (0, f"dispute {row['id']} resolved: r3 of acme costs 0.000000005 USD\n")
    shown = run("dispute", "show", row["id"], *at).output
    assert "resolved by: ada" in shown
    assert "they erred" in shown
    assert "claimed: 0.000000005 USD\nposted: 9,223,372,036.854775807 USD\ncosts now: 0.000000005 USD\n" in shown
    assert shown.splitlines()[-2:] == ["  from provider:acme to payer:org:acme", "  by ada: they erred"]
    whole = json.loads(run("dispute", "show", row["id"], "--json", *at).output)
    assert [entry["kind"] for entry in whole["entries"]] == ["charge", "correction"]
    assert whole["entries"][1]["author"] == "ada"
    assert (whole["resolvedNanoUsd"], whole["resolvedUsd"], whole["resolvedBy"]) == (5, usd(5), "ada")
    names = set(named_in(told, whole, json.loads(run("verify", "--json", *at).output), json.loads(statement_of(at))))
    assert not [name for name in names if "_" in name]
    assert {name.removesuffix("NanoUsd") for name in names if name.endswith("NanoUsd")} == {
        name.removesuffix("Usd") for name in names if name.endswith("Usd") and not name.endswith("NanoUsd")
    }
    done = run("correct", "acme", "r6", "--to", 0, "--reason", "goodwill", *at)
    assert done.output == "r6 of acme costs 0.000000000 USD now: 0.000000999 USD given back\n"
    assert isinstance(run("correct", "acme", "r99", "--to", 0, "--reason", "x", *at).exception, UsageError)
    verified = run("verify", *at)
    assert (verified.exit_code, verified.output.splitlines()[-1]) == (0, "everything agrees")
    file = tmp_path / "statement.html"
    assert (
        run(
            "statement", "--payer", "org:acme", "--month", "2026-10", "--format", "html", "--output", file, *at
        ).exit_code
        == 0
    )
    assert "Statement of org:acme for 2026-10" in file.read_text()
    for arguments, said in (
        (("--month", "2026-13"), "a month is written YYYY-MM"),
        (("--month", "2026-10", "--format", "pdf"), "got 'pdf'"),
        (("--month", "2026-10", "--format", "parquet"), "name a file with --output"),
        (("--month", "2026-10", "--output", tmp_path / "no" / "such"), "cannot be written: No such file"),
    ):
        result = run("statement", "--payer", "org:acme", *arguments, *at)
        assert isinstance(result.exception, UsageError)
        assert said in str(result.exception)


def test_disputes_fit_into_80_columns_with_their_ids_whole(database_url):
    long_id = "req-" + "0123456789-" * 6

    async def prepare():
        database = Database(database_url)
        async with database.writing() as connection:
            for id, claimed in enumerate(("x" * 200, "5 and 7", str(GREATEST - 10**9)), 1):
                await charged(connection, id, GREATEST, payer="org:" + "p" * 40)
                await dispute(connection, id, 1, IN_OCTOBER_US)
                await connection.execute(dispute_rows.update().where(dispute_rows.c.id == id).values(claimed=claimed))
            await dispute(connection, 1, 2, IN_OCTOBER_US)
        await database.close()

    asyncio.run(prepare())
    at = ("--database", database_url)
    for number in (1, 2):
        note = "they wrote to us " * 12 + long_id
        assert run("dispute", "resolve", number, "--accept", "7", "--note", note, "--by", "ada", *at).exit_code == 0
    for arguments in (("list", "--all"), ("show", 1), ("show", 2), ("show", 3)):
        output = run("dispute", *arguments, *at).output
        assert [line for line in output.splitlines() if len(line) > 80 and "x" * 200 not in line] == []
        if arguments in (("list", "--all"), ("show", 2)):
            assert "0.000000005 USD and 0.000000007 USD" in output
        assert arguments == ("show", 3) or long_id in output


def test_the_command_line_says_what_is_wrong_with_the_books(database_url):
    async def prepare():
        database = Database(database_url)
        await books_of_five(database)
        async with database.writing() as connection:
            await connection.execute(balance_rows.update().values(requests=balance_rows.c.requests + 1))
        await database.close()

    asyncio.run(prepare())
    result = run("verify", "--database", database_url)
    assert result.exit_code == 1
    assert "balance: org:paying, acme, owner/chat, 2025-10-09: requests" in result.output
    assert result.output.splitlines()[-1] == "1 wrong"
    told = json.loads(run("verify", "--json", "--database", database_url).output)
    assert (told["problems"], told["first"][0]["kind"]) == ({"balance": 1}, "balance")
