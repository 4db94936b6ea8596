"""The view is never stale, and what it fetched piece by piece is what a new one reads at once."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import shutil
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from services import serving, single
from sqlalchemy.engine import make_url
from views import fresh_copy, held, opened_view

from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.mapping_api import view as view_module
from roadworthy.mapping_api.change import OPERATOR, Change, change
from roadworthy.mapping_api.records import Item, ModelFacts, Validation
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import mappings, models, organisations, validations
from roadworthy.mapping_api.tables import revisions
from roadworthy.mapping_api.view import View

pytestmark = pytest.mark.anyio

PROVIDERS = ("together", "novita")
MODELS = tuple(f"acme/m{number}" for number in range(4))
TAGS = ("lora", "base:a", "base:bb", "x")


async def add_providers(database: Database) -> None:
    async with change(database, OPERATOR) as opened:
        organisation_id = await organisations.create_organisation(opened, "acme")
        for slug in PROVIDERS:
            await organisations.create_provider(opened, slug, organisation_id)


# What can be done within one change: a kind, and numbers that choose among what is there.
DEEDS = st.tuples(
    st.sampled_from(["single", "filter", "status", "rename", "remove", "verdict", "facts", "token"]),
    st.integers(0, 7),
    st.integers(0, 7),
)


async def do(opened: Change, deed: tuple[str, int, int]) -> None:
    kind, first, second = deed
    provider = PROVIDERS[first % 2]
    there = await mappings.of_provider(opened.connection, provider)
    if kind == "single":
        item = Item("text-generation", f"ours/{second}", hf_model=MODELS[second % 4])
        if all(one.source != item.source for one in there):
            await mappings.create(opened, provider, item)
    elif kind == "filter":
        tags = tuple(sorted({TAGS[first % 4], TAGS[second % 4]}))
        item = Item("text-to-image", "ours/lora", tags=tags, adapter_type="lora")
        if all(one.source != item.source for one in there):
            await mappings.create(opened, provider, item)
    elif kind == "facts":
        tags = tuple(TAGS[index] for index in range(4) if second & (1 << index))
        await models.keep(opened, [ModelFacts(MODELS[first % 4], "text-generation", tags)])
    elif kind == "token":
        await opened.record("token.created", "nothing that readers read")
    elif there:
        one = there[second % len(there)]
        if kind == "status":
            await mappings.set_status(opened, one, "live" if one.status == "staging" else "staging")
        elif kind == "rename":
            await mappings.amend(opened, one, status=one.status, provider_model=f"theirs/{second}")
        elif kind == "verdict":
            await validations.publish(opened, Validation(one.id, second % 2 == 0, opened.now_us, second / 8))
        else:
            await mappings.remove(opened, one)


@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # each example takes a tenth of a second: looking for a shorter one would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=st.lists(st.tuples(st.lists(DEEDS, min_size=1, max_size=5), st.booleans()), min_size=4, max_size=25))
def test_what_was_fetched_piece_by_piece_is_what_is_read_at_once(fresh_database, changes):
    async def go() -> None:
        url = fresh_database()
        async with opened_view(url) as (database, view), opened_view(url) as (elsewhere, _):
            await add_providers(database)
            await view.fresh()
            for deeds, look in changes:
                async with change(elsewhere, OPERATOR) as opened:
                    for deed in deeds:
                        await do(opened, deed)
                if look:  # else several changes are fetched as one
                    assert held(await view.fresh()) == await fresh_copy(url)
            assert held(await view.fresh()) == await fresh_copy(url)
            await empty_and_compare(database, view)

    asyncio.run(go())


async def empty_and_compare(database: Database, view: View) -> None:
    """Once all mappings are gone, no index may still hold an id."""
    async with change(database, OPERATOR) as opened:
        for provider in PROVIDERS:
            for one in await mappings.of_provider(opened.connection, provider):
                await mappings.remove(opened, one)
    await view.fresh()
    for index in (view.mappings, view.validations, view.of_provider, view.of_model, view.filters, view._filters_of):
        assert not index


async def test_a_read_sees_every_write_that_ended_before_it_began(database_url):
    """Two writers on databases of their own, twelve readers on two views: none may ever see less than was written."""
    async with (
        opened_view(database_url) as (one, first),
        opened_view(database_url) as (two, second),
        opened_view(database_url) as (three, third),
    ):
        await add_providers(one)
        written = 0
        reads = 0
        writing = 2

        async def write(database: Database, provider: str) -> None:
            nonlocal written, writing
            for number in range(25):
                async with change(database, OPERATOR) as opened:
                    item = Item("text-generation", "ours", hf_model=f"acme/{provider}-{number}")
                    await mappings.create(opened, provider, item)
                written += 1
            writing -= 1

        async def read(view: View, turn: random.Random) -> None:
            nonlocal reads
            while writing:
                ended = written
                await view.fresh()
                assert len(view.mappings) >= ended
                reads += 1
                await asyncio.sleep(turn.random() / 500)

        readers = [read(view, random.Random(number)) for number, view in enumerate([first, second, third] * 4)]
        async with asyncio.TaskGroup() as group:  # the first failure ends all
            for work in (write(two, "together"), write(three, "novita"), *readers):
                group.create_task(work)
        assert reads > 100
        assert len((await first.fresh()).mappings) == len((await second.fresh()).mappings) == 50


class Slow(Database):
    """A database whose snapshots can be held up, or refused."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False
        self.read = 0

    @asynccontextmanager
    async def reading(self):
        self.read += 1
        await self.gate.wait()
        if self.down:
            raise DatabaseUnavailableError("it is down")
        async with super().reading() as connection:
            yield connection


@asynccontextmanager
async def slow_view(url: str):
    database = Slow(url)
    view = View(database)
    try:
        yield database, view
    finally:
        await view.close()
        await database.close()


async def test_those_who_ask_at_once_share_a_question_and_one_who_gives_up_takes_it_from_nobody(database_url):
    async with slow_view(database_url) as (database, view):
        database.gate.clear()
        asking = [asyncio.create_task(view.fresh()) for _ in range(20)]
        await asyncio.sleep(0.05)
        asking[0].cancel()
        database.gate.set()
        seen = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(seen[0], asyncio.CancelledError)
        assert seen[1:] == [view] * 19
        assert database.read == 1


async def test_one_who_asks_while_a_question_is_under_way_is_not_given_its_answer(database_url):
    async with slow_view(database_url) as (_database, view), opened_view(database_url) as (elsewhere, _):
        await add_providers(elsewhere)
        await view.fresh()
        async with change(elsewhere, OPERATOR) as opened:
            await mappings.create(opened, "together", Item("text-generation", "ours", hf_model="acme/a"))
        taken = asyncio.Event()
        go_on = asyncio.Event()
        since_as_it_is = view_module._since

        async def hold(connection: Any, since: int) -> Any:
            rows = await since_as_it_is(connection, since)
            taken.set()
            await go_on.wait()
            return rows

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(view_module, "_since", hold)
            early = asyncio.create_task(view.fresh())
            await taken.wait()  # its snapshot is made
            async with change(elsewhere, OPERATOR) as opened:
                await mappings.create(opened, "together", Item("text-generation", "ours", hf_model="acme/b"))
            late = asyncio.create_task(view.fresh())
            await asyncio.sleep(0.05)
            assert not late.done()
            go_on.set()
            await early
            assert set(view.of_model) <= {"acme/a", "acme/b"}
            await late
        assert set(view.of_model) == {"acme/a", "acme/b"}


async def test_a_failure_reaches_all_who_share_the_question_and_the_next_one_asks_again(database_url):
    async with slow_view(database_url) as (database, view):
        database.down = True
        seen = await asyncio.gather(*(view.fresh() for _ in range(5)), return_exceptions=True)
        assert [type(one) for one in seen] == [DatabaseUnavailableError] * 5
        database.down = False
        assert (await view.fresh()).revision == 0
        del seen
        gc.collect()  # a failure nobody fetched would be reported now


async def test_a_row_that_cannot_be_read_leaves_the_old_state_whole(database_url):
    async with opened_view(database_url) as (database, view):
        await add_providers(database)
        before = held(await view.fresh())
        async with change(database, OPERATOR) as opened:
            await models.keep(opened, [ModelFacts("acme/a", "text-generation", ("x",))])
            await mappings.create(opened, "together", Item("text-generation", "ours", hf_model="acme/a"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(view_module.mapping_rows, "from_row", lambda row: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await view.fresh()
            assert held(view) == before
        assert held(await view.fresh()) == await fresh_copy(database_url)


async def test_an_older_state_from_a_backup_is_read_anew(database_url):
    async with opened_view(database_url) as (database, view):
        await add_providers(database)
        async with change(database, OPERATOR) as opened:
            await mappings.create(opened, "together", Item("text-generation", "ours", hf_model="acme/a"))
        assert len((await view.fresh()).mappings) == 1
        state = view.state
        async with database.writing() as connection:
            await connection.execute(sa.delete(mappings.mappings))
            await connection.execute(revisions.update().values(value=1))
        assert not (await view.fresh()).mappings
        assert view.revision == 1
        assert view.state > state
        assert held(view) == await fresh_copy(database_url)


async def test_an_answer_is_kept_until_what_it_tells_changes(database_url):
    async with opened_view(database_url) as (database, view):
        await add_providers(database)
        made: list[str] = []

        async def ask(provider: str | None) -> bytes:
            await view.fresh()

            def make() -> bytes:
                made.append(str(provider))
                return b"%d" % len(made)

            return view.answer(("list", provider), make, len, provider=provider)

        assert [await ask("together"), await ask("together"), await ask(None), await ask(None)] == [
            b"1", b"1", b"2", b"2"
        ]  # fmt: skip
        async with change(database, OPERATOR) as opened:
            await mappings.create(opened, "novita", Item("text-generation", "ours", hf_model="acme/a"))
        assert [await ask("together"), await ask(None), await ask("novita")] == [b"1", b"3", b"4"]
        async with change(database, OPERATOR) as opened:
            await opened.record("token.created", "nothing that readers read")
        assert [await ask("together"), await ask(None), await ask("novita")] == [b"1", b"3", b"4"]
        async with change(database, OPERATOR) as opened:
            [one] = await mappings.of_provider(opened.connection, "novita")
            await mappings.remove(opened, one)
        assert [await ask("together"), await ask("novita")] == [b"1", b"5"]


async def test_answers_are_bounded(database_url, monkeypatch):
    monkeypatch.setattr(view_module, "ANSWERS_BYTES", 10_000)
    async with opened_view(database_url) as (_, view):
        for number in range(100):
            assert view.answer(number, lambda: b"x" * 500, len) == b"x" * 500
            assert sum(held.size_bytes for held in view._answers.values()) == view._answers_bytes <= 10_000


async def test_public_reads_go_on_for_a_time_and_say_so_and_the_list_does_not(database_url, caplog):
    caplog.set_level(logging.WARNING)
    path = "/api/models/deepseek-ai/DeepSeek-R1?expand[]=inferenceProviderMapping"
    async with serving(database_url, settings=ServiceSettings(stale_reads_s=60)) as running:
        (ann,) = await running.enrol("together", "write")
        url = "/api/partners/together/models"
        assert (await running.http.post(url, json=single(status="live"), headers=ann.headers)).status_code == 201
        fresh = await running.http.get(path)
        assert "Warning" not in fresh.headers
        view = running.service.view

        async def refuse() -> View:
            raise DatabaseUnavailableError("it is down")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(view, "fresh", refuse)
            for _ in range(2):
                stale = await running.http.get(path)
                assert (stale.status_code, stale.content) == (200, fresh.content)
                assert stale.headers["Warning"] == '110 - "Response is Stale"'
            assert (await running.http.get(url)).status_code == 503
            view.asked_at_s -= 61
            refused = await running.http.get(path)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"]
        assert "Warning" not in (await running.http.get(path)).headers
        assert [record.message.partition(":")[0] for record in caplog.records if "view" in record.name] == [
            "public reads go on from the last copy, for at most 60 s",
            "the database answers again; reads are fresh",
        ]


async def test_a_postgresql_that_breaks_off_is_asked_again(postgres):
    """Its connections are ended, then it refuses new ones, then it serves again."""
    url = postgres.fresh()
    name = make_url(url).database
    async with opened_view(url) as (database, view), opened_view(url) as (elsewhere, _):
        await add_providers(database)
        await view.fresh()

        def end_connections() -> None:
            postgres.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

        end_connections()
        await view.fresh()  # by a new connection
        postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        end_connections()
        with pytest.raises(DatabaseUnavailableError, match="did not serve us"):
            await view.fresh()
        assert await view.fresh_or_recent(60) > 0
        with pytest.raises(DatabaseUnavailableError):
            await view.fresh_or_recent(0)
        postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        async with change(elsewhere, OPERATOR) as opened:
            await mappings.create(opened, "together", Item("text-generation", "ours", hf_model="acme/a"))
        assert await view.fresh_or_recent(60) == 0
        assert list(view.of_model) == ["acme/a"]


async def test_an_sqlite_file_that_is_gone_is_not_answered_for(migrated_sqlite, tmp_path):
    path = tmp_path / "one.db"
    shutil.copyfile(migrated_sqlite, path)
    async with opened_view(f"sqlite:///{path}") as (database, view):
        await add_providers(database)
        await view.fresh()
        assert view._file is not None
        mark = view._file.mark()
        assert mark == view._file.mark()
        async with database.writing() as connection:
            await connection.execute(sa.text("UPDATE revisions SET value = value + 1"))
        assert view._file.mark() != mark
        view._file.close()
        assert view._file.mark() not in {None, mark}  # another connection's marks are its own
        view._file.close()
        path.unlink()
        assert view._file.mark() is None
