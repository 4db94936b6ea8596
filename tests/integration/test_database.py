"""The two kinds of transaction, on both databases, when things go wrong: cancelled, locked, cut off, crowded."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from roadworthy.database import Database, DatabaseUnavailableError, async_url, shown_url
from roadworthy.database import engine as engines
from roadworthy.database.migrate import opened
from roadworthy.errors import ConfigError
from roadworthy.mapping_api.tables import models, organisations, revisions

pytestmark = pytest.mark.anyio

# Holds the write lock of an SQLite file for some seconds; says when it has it.
HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextlib.asynccontextmanager
async def database_at(url, **settings):
    database = Database(url, **settings)
    try:
        yield database
    finally:
        await database.close()


def named(name):
    return organisations.insert().values(id=name, name=name, preferred_providers=[], created_at_us=0)


async def names(database):
    async with database.reading() as connection:
        return sorted((await connection.execute(sa.select(organisations.c.name))).scalars())


async def bump(database):
    async with database.writing() as connection:
        taken = await connection.execute(
            revisions.update().values(value=revisions.c.value + 1).returning(revisions.c.value)
        )
        return taken.scalar_one()


async def revision(database):
    async with database.reading() as connection:
        return (await connection.execute(sa.select(revisions.c.value))).scalar_one()


async def test_a_reader_sees_one_snapshot(database_url):
    async with database_at(database_url) as database:
        async with database.reading() as connection:
            first = (await connection.execute(sa.select(revisions.c.value))).scalar_one()
            async with database.writing() as other:
                await other.execute(named("new"))
            await bump(database)
            assert (await connection.execute(sa.select(revisions.c.value))).scalar_one() == first
            assert (await connection.execute(sa.select(organisations.c.name))).scalars().all() == []
        assert await names(database) == ["new"]
        assert await revision(database) == first + 1


async def test_a_reader_can_change_nothing_and_a_writer_still_can(database_url):
    async with database_at(database_url, pool_size=1) as database:
        for statement in (named("sly"), organisations.delete(), sa.text("CREATE TABLE sly (id INTEGER)")):
            with pytest.raises((DBAPIError, DatabaseUnavailableError), match=r"(?i)read-?only"):
                async with database.reading() as connection:
                    await connection.execute(statement)
        async with database.writing() as connection:
            await connection.execute(named("honest"))
        assert await names(database) == ["honest"]


async def test_an_exception_undoes_everything(database_url):
    async with database_at(database_url) as database:

        async def half():
            async with database.writing() as connection:
                await connection.execute(named("half"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await half()
        assert await names(database) == []


async def test_a_broken_constraint_is_the_callers_to_judge(database_url):
    async with database_at(database_url) as database:

        async def twice():
            async with database.writing() as connection:
                await connection.execute(named("twice"))
                await connection.execute(named("twice"))

        with pytest.raises(sa.exc.IntegrityError):
            await twice()
        assert await names(database) == []


@pytest.mark.parametrize("where", ["between statements", "in a statement", "while it waits for its turn"])
async def test_a_cancelled_transaction_leaves_nothing_and_the_next_one_is_clean(database_url, dialect, where):
    async with database_at(database_url, pool_size=1) as database:
        slow = {
            "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) "
            "SELECT count(*) FROM n",
            "postgresql": "SELECT pg_sleep(5)",
        }[dialect]
        reached = asyncio.Event()

        async def work():
            async with database.writing() as connection:
                await connection.execute(named("cancelled"))
                reached.set()
                if where == "in a statement":
                    await connection.exec_driver_sql(slow)
                await asyncio.sleep(30)

        async def cancel_soon(task):
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        for _ in range(5):
            reached.clear()
            task = asyncio.ensure_future(work())
            await reached.wait()
            if where == "while it waits for its turn":
                await cancel_soon(asyncio.ensure_future(work()))
            started = time.monotonic()
            await cancel_soon(task)
            assert await names(database) == []
            assert time.monotonic() - started < 3
        async with database.writing() as connection:
            await connection.execute(named("after"))
        assert await names(database) == ["after"]


async def test_cancelled_at_any_moment_every_transaction_is_whole_or_nothing(database_url):
    async with database_at(database_url, pool_size=2) as database:

        async def both(number):
            async with database.writing() as connection:
                await connection.execute(revisions.update().values(value=revisions.c.value + 1))
                await connection.execute(named(f"o{number}"))

        for number in range(60):
            task = asyncio.ensure_future(both(number))
            for _ in range(number % 30):
                await asyncio.sleep(0.0002)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert len(await names(database)) == await revision(database)
        assert await bump(database) > 0


async def test_a_lock_that_another_process_holds_too_long_is_said(database_url, dialect, monkeypatch):
    monkeypatch.setattr(engines, "LOCK_TIMEOUT_S", 1)
    async with database_at(database_url) as database:
        if dialect == "sqlite":
            command = [sys.executable, "-c", HOLDER, database.url.database, "15"]
            holder = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220 - a moment
            assert holder.stdout.readline() == b"held\n"
            release = holder.kill
        else:
            blocking = psycopg.connect(database_url)
            blocking.execute("UPDATE revisions SET value = value")
            release = blocking.close
        try:
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailableError, match=r"did not serve us: .*lock"):
                await bump(database)
            assert 0.9 < time.monotonic() - started < 5
            assert await revision(database) == 0  # readers never wait
        finally:
            release()
            if dialect == "sqlite":
                holder.wait()
                holder.stdout.close()
        assert await bump(database) == 1


async def test_a_writer_cancelled_while_another_process_holds_the_lock_goes_cleanly(database_url, dialect, monkeypatch):
    monkeypatch.setattr(engines, "LOCK_TIMEOUT_S", 2)
    async with database_at(database_url) as database:
        with opened(async_url(database_url)) as blocking:
            if dialect == "sqlite":
                blocking.exec_driver_sql("BEGIN IMMEDIATE")
            blocking.execute(revisions.update().values(value=revisions.c.value))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(bump(database), 0.3)
            blocking.rollback()
        assert await bump(database) == 1


async def test_a_connection_that_the_server_ends_is_replaced(postgres):
    url = postgres.fresh()
    name = url.rpartition("?")[0].rpartition("/")[2]
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    async with database_at(url) as database:

        async def cut_off():
            async with database.writing() as connection:
                await connection.execute(named("lost"))
                postgres.run(end)  # in the middle: what was done is undone
                await connection.execute(named("lost too"))

        for _ in range(3):
            await bump(database)
            await revision(database)
            postgres.run(end)  # idle in the pool: nobody notices
            await bump(database)
            with pytest.raises(DatabaseUnavailableError):
                await cut_off()
        assert await names(database) == []
        assert await revision(database) == 6


async def test_a_deadlock_ends_for_one_and_the_other_goes_on(postgres):
    async with database_at(postgres.fresh()) as database:
        async with database.writing() as connection:
            for name in ("a", "b"):
                await connection.execute(named(name))
        barrier = asyncio.Barrier(2)

        async def rename(first, second):
            async with database.writing() as connection:
                for name in (first, second):
                    column = organisations.c.id == name
                    await connection.execute(organisations.update().where(column).values(name=f"{name}{first}"))
                    if name == first:
                        await barrier.wait()

        ends = await asyncio.gather(rename("a", "b"), rename("b", "a"), return_exceptions=True)
        assert sorted(type(end).__name__ for end in ends) == ["DatabaseUnavailableError", "NoneType"]
        assert await names(database) in (["aa", "ba"], ["ab", "bb"])


async def test_writers_are_served_in_turn_and_all_of_them(database_url):
    async with database_at(database_url) as database:
        order = []

        async def write(number):
            order.append((await bump(database), number))

        await asyncio.gather(*(write(number) for number in range(60)))
        assert sorted(taken for taken, _ in order) == list(range(1, 61))
        # Nobody is overtaken by more than the connections there are.
        assert all(abs(taken - 1 - number) <= 10 for taken, number in order), order


async def test_readers_do_not_starve_behind_writers_nor_writers_behind_readers(database_url, dialect):
    async with database_at(database_url) as database:
        async with database.writing() as connection:
            await connection.execute(revisions.update().values(value=revisions.c.value + 1))
            queue = [asyncio.ensure_future(bump(database)) for _ in range(40)]
            await asyncio.sleep(0.1)
            await asyncio.wait_for(asyncio.gather(*(revision(database) for _ in range(200))), 10)
            assert not any(task.done() for task in queue)
        await asyncio.wait_for(asyncio.gather(*queue), 20)

        stop = asyncio.Event()

        async def read_on():
            while not stop.is_set():
                await revision(database)

        crowd = [asyncio.ensure_future(read_on()) for _ in range(50)]
        try:
            assert await asyncio.wait_for(bump(database), 5) == 42
        finally:
            stop.set()
            await asyncio.gather(*crowd)


async def test_a_process_uses_no_more_connections_than_it_was_given(postgres):
    url = postgres.fresh()
    async with database_at(url, pool_size=3) as database:
        await asyncio.gather(*(revision(database) for _ in range(30)), *(bump(database) for _ in range(30)))
        with psycopg.connect(url) as connection:
            count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            assert connection.execute(count).fetchone()[0] <= 7  # twice three, and this one


async def test_a_wait_for_a_connection_ends(database_url, monkeypatch):
    monkeypatch.setattr(engines, "TURN_TIMEOUT_S", 0.2)
    async with database_at(database_url, pool_size=1) as database:
        async with database.reading():
            with pytest.raises(DatabaseUnavailableError, match=r"every connection to .* is in use"):
                await database.ping()
        await database.ping()


async def test_the_databases_clock_is_microseconds_utc(database_url):
    async with database_at(database_url) as database:
        for kind in (database.reading, database.writing):
            async with kind() as connection:
                before = time.time_ns() // 1000
                first = await database.now_us(connection)
                after = time.time_ns() // 1000
                assert before - 1000 <= first <= after + 1000  # SQLite counts milliseconds
                await asyncio.sleep(0.05)
                assert 0.04e6 < await database.now_us(connection) - first < 5e6


async def test_nothing_is_running_after_close(database_url):
    before = set(threading.enumerate())
    database = Database(database_url)
    await asyncio.gather(*(revision(database) for _ in range(20)), *(bump(database) for _ in range(5)))
    await database.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(2)
    left = set(threading.enumerate()) - before
    assert left == set()
    await database.close()  # twice does no harm


def test_a_loop_that_ends_with_a_statement_under_way_leaves_no_warning(database_url, dialect):
    code = """
import asyncio, sys
from roadworthy.database import Database
async def work(database):
    async with database.writing() as connection:
        await connection.exec_driver_sql(sys.argv[2])
async def main():
    database = Database(sys.argv[1])
    task = asyncio.ensure_future(work(database))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await database.close()
asyncio.run(main())
"""
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000000) SELECT count(*) FROM n"
        if dialect == "sqlite"
        else "SELECT pg_sleep(5)"
    )
    command = [sys.executable, "-W", "error", "-c", code, database_url, slow]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://ann:s3cret@host/x", "names 'mysql'; only sqlite and postgresql"),
        ("nothing", "cannot be read; write sqlite:///"),
        ("ann:s3cret@host", "cannot be read; write sqlite:///"),
        ("postgresql://ann:s3cret@host:port/x", "cannot be read; write sqlite:///"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:////nowhere/at/all.db", "folder of the database /nowhere/at/all.db does not exist"),
        ("", "cannot be read; write sqlite:///"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_without_its_password(url, message):
    with pytest.raises(ConfigError) as raised:
        Database(url)
    assert message in str(raised.value)
    assert "s3cret" not in str(raised.value)


async def test_a_shown_url_has_no_password(postgres):
    for url in ("postgresql://ann:s3cret@host/x", "postgresql://host/x?user=ann&password=s3cret&sslpassword=s3cret"):
        assert "s3cret" not in shown_url(async_url(url))


async def test_settings_in_the_url_are_kept(postgres):
    url = postgres.fresh()
    url += "&options=-c%20work_mem%3D5MB"
    async with database_at(url) as database, database.reading() as connection:
        assert (await connection.exec_driver_sql("SHOW work_mem")).scalar_one() == "5MB"
        assert (await connection.exec_driver_sql("SHOW transaction_isolation")).scalar_one() == "repeatable read"
        assert (await connection.exec_driver_sql("SHOW transaction_read_only")).scalar_one() == "on"


async def test_json_null_and_no_value_differ_where_they_are_written_so(database_url):
    row = {"id": "m", "hub_id": "h", "tags": [None, 2**63, "\u00e9\U0001f600"], "asked_at_us": 0, "revision": 1}
    async with database_at(database_url) as database:
        async with database.writing() as connection:
            await connection.execute(models.insert().values(row))
        async with database.reading() as connection:
            found = (await connection.execute(sa.select(models))).one()
            assert found.tags == row["tags"]
            assert found.pipeline_tag is None
