"""Faults found in review, each shown once: what is kept, what ends while it is under way, what is told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
import sqlalchemy as sa
from services import serving, single
from sqlalchemy.engine import make_url
from views import opened_view

from roadworthy.database import Database
from roadworthy.mapping_api import view as view_module
from roadworthy.mapping_api.api import catalogue_v1
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import events, models, webhooks
from roadworthy.mapping_api.store.pruning import DAY_US, prune
from roadworthy.mapping_api.tables import deliveries, idempotency
from roadworthy.mapping_api.tables import webhooks as webhooks_table
from roadworthy.sealing import Sealer, new_key

pytestmark = pytest.mark.anyio


async def test_what_callers_write_into_keys_of_answers_counts_as_memory(database_url, monkeypatch):
    """A search for 60 kB of text that finds nothing is an answer of two bytes, with a key of 60 kB."""
    monkeypatch.setattr(view_module, "ANSWERS_BYTES", 1_000_000)
    async with opened_view(database_url) as (_, view):
        keys = [f"{number}{'x' * 60_000}" for number in range(100)]
        for key in keys:
            view.answer(("search", frozenset([key])), lambda: b"[]", len)
        kept = [key for key in keys if view.answered(("search", frozenset([key]))) is not None]
        assert kept, "an answer that fits is kept"
        assert sum(map(len, kept)) <= 1_000_000


@asynccontextmanager
async def claimed_delivery(url):
    database = Database(url)
    try:
        async with serving(url) as running:
            await running.enrol("together", "admin")
        async with change(database, OPERATOR) as opened:
            hook, _ = await webhooks.create(
                opened, "together", "https://example.com/", ["mapping.created"], Sealer(new_key())
            )
            await events.announce_test(opened, "together", hook.id)
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            claimed = await webhooks.claim(connection, hook.id, now_us, 60_000_000)
        assert claimed is not None
        yield database, hook, claimed
    finally:
        await database.close()


async def test_a_delivery_under_way_while_its_webhook_is_deleted_does_not_wait_for_ever(database_url):
    """It came back as pending: nobody sends it, no pruning ends it, and the metric of lateness grows for ever."""
    async with claimed_delivery(database_url) as (database, hook, claimed):
        async with change(database, OPERATOR) as opened:
            await webhooks.remove(opened, hook)
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            due = {"due_at_us": now_us + 5_000_000, "delivered_at_us": None, "attempts": 1, "last_error": "it failed"}
            assert await webhooks.settle(connection, claimed, now_us, **due)
        async with database.reading() as connection:
            row = (await connection.execute(sa.select(deliveries))).one()
        assert (row.due_at_us, row.lease_until_us, row.attempts) == (None, None, 1)


async def test_a_delivery_under_way_while_its_webhook_is_deleted_is_told_as_delivered_where_it_was(database_url):
    async with claimed_delivery(database_url) as (database, hook, claimed):
        async with change(database, OPERATOR) as opened:
            await webhooks.remove(opened, hook)
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            done = {"due_at_us": None, "delivered_at_us": now_us, "attempts": 1, "last_error": None}
            assert await webhooks.settle(connection, claimed, now_us, **done)
        async with database.reading() as connection:
            row = (await connection.execute(sa.select(deliveries))).one()
            assert (await connection.execute(sa.select(webhooks_table.c.removed_at_us))).scalar_one() is not None
        assert (row.due_at_us, row.delivered_at_us, row.last_error) == (None, now_us, None)


async def test_an_old_answer_takes_no_other_organisations_fresh_one_with_it(database_url):
    """Keys of one provider may be the same in two organisations: the second part of the primary key."""
    database = Database(database_url)
    try:
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            for organisation_id, at_us in (("a" * 24, now_us - 2 * DAY_US), ("b" * 24, now_us)):
                await connection.execute(
                    idempotency.insert().values(
                        provider="together",
                        organisation_id=organisation_id,
                        key="k",
                        request_digest="d",
                        status_code=201,
                        body={},
                        created_at_us=at_us,
                    )
                )
        await prune(database)
        async with database.reading() as connection:
            assert list((await connection.execute(sa.select(idempotency.c.organisation_id))).scalars()) == ["b" * 24]
    finally:
        await database.close()


async def test_a_task_that_nobody_serves_is_not_looked_for_in_every_model(database_url, monkeypatch):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        body = single(status="live")
        assert (
            await running.http.post("/api/partners/together/models", json=body, headers=ann.headers)
        ).status_code == 201
        looked = []
        true_offers = catalogue_v1.offers
        monkeypatch.setattr(catalogue_v1, "offers", lambda *args: looked.append(args) or true_offers(*args))
        answer = await running.http.get("/v1/models?task=no-such-task")
        assert (answer.status_code, answer.json()) == (200, {"object": "list", "data": []})
        assert looked == []
        assert len((await running.http.get("/v1/models")).json()["data"]) == 1
        assert looked


async def test_reading_a_provider_without_mappings_changes_nothing_in_the_view(database_url):
    async with serving(database_url) as running:
        await running.enrol("together", "read")
        answer = await running.http.get(f"/api/partners/together/models/{'0' * 24}")
        assert answer.status_code == 404
        assert "together" not in running.service.view.of_provider


WRITES = [
    ("POST", "/api/partners/together/models"),
    ("PUT", "/api/partners/together/models"),
    ("DELETE", f"/api/partners/together/models/{'0' * 24}"),
    ("PUT", f"/api/partners/together/models/{'0' * 24}/status"),
    ("PUT", "/api/partners/together/endpoint"),
    ("DELETE", "/api/partners/together/endpoint"),
    ("PUT", "/api/partners/together/cost-endpoint"),
    ("DELETE", "/api/partners/together/cost-endpoint"),
    ("POST", "/api/usage"),
    ("POST", "/api/partners/together/webhooks"),
    ("DELETE", f"/api/partners/together/webhooks/{'0' * 24}"),
    ("POST", f"/api/partners/together/webhooks/{'0' * 24}/test"),
    ("POST", "/api/organizations/together/tokens"),
    ("DELETE", f"/api/organizations/together/tokens/{'0' * 24}"),
    ("POST", "/api/organizations/together/members"),
    ("PUT", "/api/organizations/together/members/ann"),
    ("DELETE", "/api/organizations/together/members/ann"),
]


async def test_413_is_documented_wherever_it_is_answered(migrated_sqlite, tmp_path):
    small = ServiceSettings(max_body_bytes=1024, max_bulk_body_bytes=1024)
    database = tmp_path / "d.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    async with serving(f"sqlite:///{database}", settings=small) as running:
        paths = (await running.http.get("/openapi.json")).json()["paths"]
        declared = {(method.upper(), path) for path, operations in paths.items() for method in operations}
        writing = {(method, path) for method, path in declared if method != "GET"}
        assert len(writing) == len(WRITES), "each write of the service stands in WRITES"
        for method, path in WRITES:
            answer = await running.http.request(method, path, content=b"x" * 2000)
            assert answer.status_code == 413, (method, path)
            template = next(
                operation
                for place, operations in paths.items()
                if httpx.URL(place).path.count("/") == path.count("/") and _fits(place, path)
                for name, operation in operations.items()
                if name.upper() == method
            )
            assert "413" in template["responses"], (method, path)


def _fits(template: str, path: str) -> bool:
    return all(
        one.startswith("{") or one == other for one, other in zip(template.split("/"), path.split("/"), strict=True)
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [each for each in WRITES if each[0] != "DELETE" and not each[1].endswith("/test")],
)
async def test_a_strangers_body_is_not_read_into_the_answer(database_url, method, path):
    """Who may not write learns that, whatever he sent: 401, not what is wrong with his body."""
    async with serving(database_url) as running:
        await running.enrol("together", "admin")
        answer = await running.http.request(
            method, path, content=b"{nonsense", headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 401, answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("webhooks", b'{"url": "https://a.example/", "url": "https://b.example/"}'),
        ("tokens", b'{"member": "admin-0", "name": "ci", "role": "read", "role": "admin"}'),
        ("members", b'{"name": "bob", "role": "read", "role": "admin"}'),
    ],
)
async def test_a_key_that_stands_twice_is_refused_everywhere(database_url, path, body):
    async with serving(database_url, settings=ServiceSettings(secret_key=new_key())) as running:
        (ann,) = await running.enrol("together", "admin")
        base = "/api/partners/together" if path == "webhooks" else "/api/organizations/together"
        headers = {"Content-Type": "application/json", **ann.headers}
        answer = await running.http.post(f"{base}/{path}", content=body, headers=headers)
        assert answer.status_code == 400
        assert "twice in one object" in answer.json()["error"]


async def test_the_next_page_of_the_audit_log_is_where_the_public_reaches_the_service(database_url):
    public = ServiceSettings(public_url="https://map.example/prefix")
    async with serving(database_url, settings=public) as running:
        (ann,) = await running.enrol("together", "admin")
        for model in ("deepseek-ai/DeepSeek-R1", "meta-llama/Llama-3.1-8B-Instruct"):
            await running.http.post("/api/partners/together/models", json=single(model), headers=ann.headers)
        answer = await running.http.get("/api/partners/together/audit?limit=1", headers=ann.headers)
        assert answer.status_code == 200
        assert answer.headers["link"].startswith("<https://map.example/prefix/api/partners/together/audit?")
        strange = {"Host": "a.example", **ann.headers}
        answer = await running.http.get("/api/organizations/together/audit?limit=1", headers=strange)
        assert answer.headers["link"].startswith("<https://map.example/prefix/api/organizations/together/audit?")


@pytest.mark.parametrize("at_commit", [True, False], ids=["at the commit", "before it"])
async def test_a_database_that_breaks_off_at_the_commit_leaves_it_open_and_the_answer_says_so(postgres, at_commit):
    url = postgres.fresh()
    async with serving(url) as running:
        (ann,) = await running.enrol("together", "write")

        def break_off(connection, *_):
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")

        def break_off_at_insert(connection, _cursor, statement, *_):
            if statement.startswith("INSERT INTO mappings"):
                break_off(connection)

        engine = running.service.database._writer.sync_engine
        name, hook = ("commit", break_off) if at_commit else ("before_cursor_execute", break_off_at_insert)
        sa.event.listen(engine, name, hook)
        path = "/api/partners/together/models"
        answer = await running.http.post(path, json=single(), headers=ann.headers)
        sa.event.remove(engine, name, hook)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert ("may have been done" in answer.json()["error"]) == at_commit
        assert ("nothing was done" in answer.json()["error"]) != at_commit
        assert (await running.http.post(path, json=single(), headers=ann.headers)).status_code == 201


class Held(FileCatalogue):
    """Gives an answer that was right when it was asked, later."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def get(self, model_id):
        facts = await super().get(model_id)
        self.asked.set()
        await self.go_on.wait()
        return facts


async def test_what_upkeep_heard_before_does_not_replace_what_a_registration_heard_after(database_url):
    catalogue = Held()
    async with serving(database_url, catalogue) as running:
        upkeep, view = running.service.upkeep, running.service.view
        await upkeep.stop()
        model_id = "deepseek-ai/DeepSeek-R1"
        old = view.models[model_id]
        catalogue.go_on.clear()
        catalogue.asked.clear()
        asking = asyncio.create_task(upkeep._refresh([model_id], 0.0))
        await catalogue.asked.wait()
        new = replace(old, tags=(*old.tags, "retagged"))
        async with change(running.service.database, OPERATOR) as opened:
            await models.keep(opened, [new])
        await view.fresh()
        catalogue.go_on.set()
        await asking
        assert (await view.fresh()).models[model_id] == new
        await upkeep._refresh([model_id], 0.0)
        assert (await view.fresh()).models[model_id] == old, "what is asked for now counts"


async def test_a_password_with_a_space_serves_reads_too(postgres):
    """The connection that watches for changes read the URL in a way of its own, and told the password in its error."""
    url = make_url(postgres.fresh()).set(password="two words+%/@")
    async with serving(url.render_as_string(hide_password=False).replace("two words", "two%20words")) as running:
        assert running.service.database.url.password == "two words+%/@"
        assert (await running.http.get("/api/models")).status_code == 200


async def test_many_kept_answers_do_not_stop_reads(database_url):
    async with serving(database_url) as running:
        answers = await asyncio.gather(*(running.http.get(f"/api/models?search={n}") for n in range(50)))
        assert {answer.status_code for answer in answers} == {200}
