"""A creation that carries an Idempotency-Key is done once, however often it is sent, on both databases."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest
import sqlalchemy as sa
from services import enrol, serving, single

from roadworthy.database import Database
from roadworthy.mapping_api.store.idempotency import KEPT_US
from roadworthy.mapping_api.tables import audit, idempotency, mappings

pytestmark = pytest.mark.anyio

PATH = "/api/partners/together/models"
DAY_US = 24 * 3600 * 1_000_000


async def post(running, member, key, body=None):
    return await running.http.post(PATH, json=body or single(), headers=member.headers | {"Idempotency-Key": key})


async def rows(database, table):
    async with database.reading() as connection:
        return (await connection.execute(sa.select(table))).all()


async def age(running, by_us):
    async with running.service.database.writing() as connection:
        await connection.execute(idempotency.update().values(created_at_us=idempotency.c.created_at_us - by_us))


async def test_the_same_request_is_answered_again_and_not_done_again(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        first = await post(running, ann, "k-1")
        reordered = dict(reversed(single().items()))
        for body in (single(), reordered):
            again = await post(running, ann, "k-1", body)
            assert (again.status_code, again.json()) == (201, first.json())
            assert again.headers["Idempotency-Replayed"] == "true"
            assert again.headers["Location"] == first.headers["Location"]
        assert "Idempotency-Replayed" not in first.headers
        assert len(await rows(running.service.database, mappings)) == 1
        created = [line for line in await rows(running.service.database, audit) if line.action == "mapping.created"]
        assert len(created) == 1
        await running.http.delete(first.headers["Location"], headers=ann.headers)
        assert (await post(running, ann, "k-1")).json() == first.json(), "the first answer, whatever came after"


async def test_a_key_with_another_body_is_refused(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        await post(running, ann, "k-1")
        refused = await post(running, ann, "k-1", single(status="live"))
        assert refused.status_code == 422
        assert "take a new key" in refused.json()["error"]


async def test_of_many_at_once_one_creates(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        answers = await asyncio.gather(*(post(running, ann, "k-1") for _ in range(8)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["_id"] for answer in answers}) == 1
        assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


async def test_failures_are_not_remembered(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        assert (await post(running, ann, "k-1", single("nobody/nothing"))).status_code == 400
        created = await post(running, ann, "k-1")
        assert created.status_code == 201
        assert (await post(running, ann, "k-2")).status_code == 409
        await running.http.delete(created.headers["Location"], headers=ann.headers)
        assert (await post(running, ann, "k-2")).status_code == 201


async def test_each_provider_and_organisation_has_its_own_keys(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        (bob,) = await running.enrol("groq", "write")
        first = await post(running, ann, "k-1")
        headers = bob.headers | {"Idempotency-Key": "k-1"}
        other = await running.http.post("/api/partners/groq/models", json=single(), headers=headers)
        assert other.status_code == 201
        assert other.json() != first.json()
        assert (await post(running, bob, "k-1")).status_code == 403
        async with running.service.database.writing() as connection:
            await connection.execute(idempotency.update().values(organisation_id="0" * 24))
        assert (await post(running, ann, "k-1")).status_code == 409, "another organisation's key is not ours"


async def test_a_key_is_new_again_after_a_day_and_old_ones_go(database_url):
    async with serving(database_url) as running:
        assert KEPT_US == DAY_US
        (ann,) = await running.enrol("together", "write")
        first = await post(running, ann, "k-1")
        await age(running, DAY_US - 60_000_000)
        assert (await post(running, ann, "k-1")).json() == first.json()
        await age(running, 60_000_000)
        assert (await post(running, ann, "k-1")).status_code == 409
        await running.http.delete(first.headers["Location"], headers=ann.headers)
        assert (await post(running, ann, "k-2")).status_code == 201
        assert [row.key for row in await rows(running.service.database, idempotency)] == ["k-2"]


@pytest.mark.parametrize("key", ["", " ", "é", "x" * 256, "tab\there", "\x7f"], ids=ascii)
async def test_a_malformed_key_is_refused(database_url, key):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        headers = [*ann.headers.items(), (b"Idempotency-Key", key.encode("latin-1"))]
        refused = await running.http.post(PATH, json=single(), headers=headers)
        assert refused.status_code == 400
        assert "dempotency-" in refused.json()["error"]


KILLED = """
import asyncio, os, signal, sys
import services
from roadworthy.mapping_api.api import partner
from roadworthy.mapping_api.store import idempotency

def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

url, token, when = sys.argv[1:]
if when == "between":  # the mapping is written, its key is not
    idempotency.remember = die
else:  # both are committed, the answer is not sent
    partner._created = die

async def go():
    async with services.serving(url) as running:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k-1"}
        await running.http.post("/api/partners/together/models", json=services.single(), headers=headers)

asyncio.run(go())
"""


@pytest.mark.parametrize(("when", "done"), [("between", 0), ("after", 1)])
async def test_a_kill_leaves_the_mapping_and_its_key_or_neither(database_url, when, done):
    database = Database(database_url)
    try:
        (ann,) = await enrol(database, "together", "write")
        command = [sys.executable, "-c", textwrap.dedent(KILLED), database_url, ann.token, when]
        path = [entry for entry in sys.path if entry]
        killed = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": ":".join(path)}
        )
        assert killed.returncode == -9, killed.stderr
        assert len(await rows(database, mappings)) == len(await rows(database, idempotency)) == done
    finally:
        await database.close()
    async with serving(database_url) as running:
        again = await post(running, ann, "k-1")
        assert again.status_code == 201
        assert ("Idempotency-Replayed" in again.headers) is bool(done)
        assert len(await rows(running.service.database, mappings)) == 1
