"""Tokens, members and organisations, over HTTP and in the store; and who the official client says one is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from services import UNLIMITED, Running, serving, single

from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.mapping_api import access, last_uses
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.tables import audit, revisions, tokens
from roadworthy.sandbox.server import listen

pytestmark = pytest.mark.anyio

WORDS = "Invalid credentials in Authorization header"
ORGANIZATION = "/api/organizations/together"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def role_of(running: Running, token: str) -> str | int:
    """What the token may do, or the status that refuses it."""
    answer = await running.http.get("/api/whoami-v2", headers=bearer(token))
    return answer.json()["auth"]["accessToken"]["role"] if answer.is_success else answer.status_code


@given(st.integers(0, 53), st.characters(codec="utf-8"))
def test_a_token_with_one_character_changed_is_no_token(place, character):
    token = access.mint()
    changed = token[:place] + character + token[place + 1 :]
    assert access.well_formed(token)
    assert access.well_formed(changed) == (changed == token)


def test_tokens_are_long_and_never_the_same():
    minted = {access.mint() for _ in range(1000)}
    assert len(minted) == 1000
    assert {len(token) for token in minted} == {54}
    assert all(token.isalnum() for token in (token.removeprefix("hf_") for token in minted))


@pytest.mark.parametrize(("of_token", "of_member"), [*itertools.product(access.RANK, repeat=2)])
async def test_a_token_may_do_the_lower_of_its_own_role_and_its_members(fresh_database, of_token, of_member):
    async with serving(fresh_database()) as running:
        (boss,) = await running.enrol("together", "admin")
        add = {"name": "ann", "role": "admin"}
        assert (await running.http.post(f"{ORGANIZATION}/members", json=add, headers=boss.headers)).status_code == 201
        wanted = {"member": "ann", "name": "ci", "role": of_token}
        made = await running.http.post(f"{ORGANIZATION}/tokens", json=wanted, headers=boss.headers)
        demote = {"role": of_member}
        demoted = await running.http.put(f"{ORGANIZATION}/members/ann", json=demote, headers=boss.headers)
        assert demoted.json() == {"name": "ann", "role": of_member}
        lower = min(of_token, of_member, key=access.RANK.__getitem__)
        assert await role_of(running, made.json()["token"]) == lower


async def test_a_token_is_shown_once_and_only_its_digest_is_kept(database_url):
    async with serving(database_url) as running:
        (boss,) = await running.enrol("together", "admin")
        wanted = {"member": "admin-0", "name": "ci", "role": "write", "expiresInDays": 30}
        made = await running.http.post(f"{ORGANIZATION}/tokens", json=wanted, headers=boss.headers)
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        token = made.json()["token"]
        assert made.json()["createdAt"] < made.json()["expiresAt"]
        listed = await running.http.get(f"{ORGANIZATION}/tokens", headers=boss.headers)
        logged = await running.http.get(f"{ORGANIZATION}/audit", headers=boss.headers)
        for answer in (listed, logged):
            assert made.json()["id"] in answer.text
            for secret in (token, access.digest(token), token[9:]):
                assert secret not in answer.text
        async with running.service.database.reading() as connection:
            stored = [tuple(row) for row in await connection.execute(sa.select(tokens))]
        assert token[9:] not in repr(stored)
        assert access.digest(token) in repr(stored)


async def test_a_revoked_an_expired_and_a_removed_members_token_are_refused_at_once(database_url):
    async with serving(database_url) as running:
        boss, ann, bob, eve = await running.enrol("together", "admin", "write", "write", "write")
        headers = boss.headers
        listed = (await running.http.get(f"{ORGANIZATION}/tokens", headers=headers)).json()
        ids = {token["member"]: token["id"] for token in listed}
        assert [await role_of(running, each.token) for each in (ann, bob, eve)] == ["write"] * 3

        gone = await running.http.delete(f"{ORGANIZATION}/tokens/{ids['write-1']}", headers=headers)
        assert gone.status_code == 204
        again = await running.http.delete(f"{ORGANIZATION}/tokens/{ids['write-1']}", headers=headers)
        assert again.status_code == 404
        removed = await running.http.delete(f"{ORGANIZATION}/members/write-2", headers=headers)
        assert removed.status_code == 204
        async with change(running.service.database, OPERATOR) as opened:
            past = tokens.update().where(tokens.c.id == ids["write-3"]).values(expires_at_us=opened.now_us)
            await opened.connection.execute(past)
        assert [await role_of(running, each.token) for each in (ann, bob, eve)] == [401] * 3

        back = await running.http.post(f"{ORGANIZATION}/members", json={"name": "write-2"}, headers=headers)
        assert back.status_code == 201
        assert await role_of(running, bob.token) == 401, "a member who comes back brings no old token"


async def test_a_revoked_organisation_has_no_tokens_left(database_url):
    async with serving(database_url) as running:
        boss, ann = await running.enrol("together", "admin", "read")
        (other,) = await running.enrol("groq", "read")
        async with change(running.service.database, OPERATOR) as opened:
            await organisations.revoke_organisation(opened, "together")
        assert [await role_of(running, each.token) for each in (boss, ann, other)] == [401, 401, "read"]
        refused = await running.http.post("/api/partners/together/models", json=single(), headers=boss.headers)
        assert refused.status_code == 401
        assert refused.json() == {"error": WORDS}


async def test_nobody_is_given_more_than_there_is_to_give(database_url):
    async with serving(database_url) as running:
        boss, _ = await running.enrol("together", "admin", "read")
        wanted = {"member": "read-1", "name": "ci", "role": "write"}
        answer = await running.http.post(f"{ORGANIZATION}/tokens", json=wanted, headers=boss.headers)
        assert answer.status_code == 400
        assert "read-1 has the role 'read'" in answer.json()["error"]
        # An administrator with a token of less has only that to give, and may not even ask.
        wanted = {"member": "admin-0", "name": "ci", "role": "write"}
        less = (await running.http.post(f"{ORGANIZATION}/tokens", json=wanted, headers=boss.headers)).json()["token"]
        raised = await running.http.put(f"{ORGANIZATION}/members/read-1", json={"role": "admin"}, headers=bearer(less))
        assert raised.status_code == 403


def test_a_caller_grants_no_role_above_his_own():
    for has, wants in itertools.product(access.RANK, repeat=2):
        caller = access.Caller("o", "together", "ann", has, "t")
        if access.RANK[wants] <= access.RANK[has]:
            caller.may_grant(wants)
        else:
            with pytest.raises(access.Forbidden):
                caller.may_grant(wants)


async def test_the_last_administrator_stays_one(database_url):
    async with serving(database_url) as running:
        ann, bob = await running.enrol("together", "admin", "admin")
        http, members = running.http, f"{ORGANIZATION}/members"
        # Each takes the other's role away at the same time: one comes first, and the other is the last one then.
        answers = await asyncio.gather(
            http.put(f"{members}/admin-1", json={"role": "read"}, headers=ann.headers),
            http.put(f"{members}/admin-0", json={"role": "read"}, headers=bob.headers),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 403]
        last, name = (ann, "admin-0") if answers[0].status_code == 200 else (bob, "admin-1")
        assert await role_of(running, last.token) == "admin"
        for answer in (
            await http.put(f"{members}/{name}", json={"role": "write"}, headers=last.headers),
            await http.delete(f"{members}/{name}", headers=last.headers),
        ):
            assert answer.status_code == 403
            assert "make another member admin first" in answer.json()["error"]
        same = await http.put(f"{members}/{name}", json={"role": "admin"}, headers=last.headers)
        assert same.status_code == 200


async def test_members_are_added_listed_and_changed(database_url):
    async with serving(database_url) as running:
        (boss,) = await running.enrol("together", "admin")
        http, members, headers = running.http, f"{ORGANIZATION}/members", boss.headers
        await http.post(members, json={"name": "ann@example.org", "role": "write"}, headers=headers)
        twice = await http.post(members, json={"name": "ann@example.org"}, headers=headers)
        assert twice.status_code == 409
        assert twice.json()["_id"]
        listed = await http.get(members, headers=headers)
        assert listed.json() == [{"name": "admin-0", "role": "admin"}, {"name": "ann@example.org", "role": "write"}]
        nobody = await http.put(f"{members}/nobody", json={"role": "read"}, headers=headers)
        assert nobody.status_code == 404
        for body in ({"name": ""}, {"name": "a b"}, {"name": "\x00"}, {"name": "ä"}, {"name": "a", "role": "owner"}):
            answer = await http.post(members, json=body, headers=headers)
            assert answer.status_code == 400, body
            assert any(word in answer.json()["error"] for word in ("name", "role", "NUL"))
        for path in (f"{members}/%00", f"{members}/a%0ab", f"{ORGANIZATION}/tokens/%00"):
            assert (await http.delete(path, headers=headers)).status_code == 400


MALFORMED = {
    "nothing": b"",
    "the scheme alone": b"Bearer",
    "no token": b"Bearer ",
    "another scheme": b"Basic YTpi",
    "the token alone": b"%s",
    "huge": b"Bearer " + b"a" * 60_000,
    "the token and more": b"Bearer %s more",
    "not ASCII": b"Bearer hf_rw\xff\xfe\x80" + b"a" * 46,
    "UTF-8": "Bearer hf_rwé€𝄞".encode(),
    "digits of another script": b"Bearer hf_rw" + b"\xd9\xa1" * 49,
    "a zero byte": b"Bearer \x00%s",
    "tabs": b"Bearer\t%s",
    "two in one": b"Bearer %s, Bearer %s",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_authorization_gets_401_with_the_hubs_words(fresh_database, name):
    async with serving(fresh_database()) as running:
        (ann,) = await running.enrol("together", "admin")
        value = MALFORMED[name].replace(b"%s", ann.token.encode())
        await refused(running, [(b"Authorization", value)])


async def refused(running: Running, headers: list[tuple[bytes, bytes]]) -> None:
    for method, path, body in (
        ("GET", "/api/whoami-v2", None),
        ("GET", "/api/models/deepseek-ai/DeepSeek-R1", None),
        ("POST", "/api/partners/together/models", single()),
        ("GET", f"{ORGANIZATION}/members", None),
    ):
        answer = await running.http.request(method, path, json=body, headers=headers)
        assert answer.status_code == 401, path
        assert answer.json() == {"error": WORDS}
        assert answer.headers["x-error-message"] == WORDS
        assert answer.headers["www-authenticate"] == 'Bearer realm="roadworthy"'


async def test_two_authorization_headers_are_refused_though_one_is_right(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "admin")
        good = (b"Authorization", f"Bearer {ann.token}".encode())
        await refused(running, [good, (b"Authorization", b"Bearer x")])
        await refused(running, [good, good])


async def test_the_scheme_is_read_in_any_case_and_space_around_a_token_is_no_part_of_it(database_url):
    """RFC 9110 sections 11.1 and 5.5."""
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "admin")
        for value in (f"bearer {ann.token}", f"BEARER {ann.token}", f"Bearer  {ann.token} "):
            answer = await running.http.get("/api/whoami-v2", headers={"Authorization": value})
            assert answer.status_code == 200, value
        await refused(running, [(b"Authorization", b"bearer x ")])


async def test_the_last_use_is_written_once_a_minute_and_is_no_change(database_url, monkeypatch):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "read")
        database = running.service.database

        async def state() -> tuple[int | None, int, int]:
            await running.service.last_uses.stop()
            async with database.reading() as connection:
                used = (await connection.execute(sa.select(tokens.c.last_used_at_us))).scalar_one()
                revision = (await connection.execute(sa.select(revisions.c.value))).scalar_one()
                lines = (await connection.execute(sa.select(sa.func.count()).select_from(audit))).scalar_one()
                return used, revision, lines

        unused, revision, lines = await state()
        assert unused is None
        await role_of(running, ann.token)
        first, *same = await state()
        assert first is not None
        assert same == [revision, lines]
        await role_of(running, ann.token)
        assert (await state())[0] == first
        # Another process knows nothing of the note; the database itself says that the minute is not over.
        running.service.last_uses = last_uses.LastUses(database)
        await role_of(running, ann.token)
        assert (await state())[0] == first
        monkeypatch.setattr(last_uses, "EVERY_S", 0)
        await role_of(running, ann.token)
        assert (await state())[0] > first


async def test_a_request_neither_fails_nor_waits_when_its_last_use_cannot_be_written(database_url, monkeypatch):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "read")
        held, tried = asyncio.Event(), []

        async def write(_self: object, batch: list[str]) -> None:
            tried.append(batch)
            await held.wait()
            raise DatabaseUnavailableError("the database is locked")

        monkeypatch.setattr(last_uses.LastUses, "_write_batch", write)
        assert await role_of(running, ann.token) == "read"
        await asyncio.sleep(0)
        assert len(tried) == 1
        held.set()
        await running.service.last_uses.stop()
        assert await role_of(running, ann.token) == "read"


async def test_last_uses_forgets_tokens_that_are_not_used(database_url, monkeypatch):
    database = Database(database_url)
    uses = last_uses.LastUses(database)
    monkeypatch.setattr(last_uses, "_MOST_NOTED", 10)
    monkeypatch.setattr(last_uses, "EVERY_S", 0)
    for number in range(100):
        uses.note(f"{number:024x}")
    assert len(uses._noted_at_s) <= 11
    await uses.stop()
    await database.close()


@contextlib.asynccontextmanager
async def on_a_socket(url: str) -> AsyncIterator[tuple[str, Service]]:
    service = Service(Database(url), FileCatalogue(), UNLIMITED)
    bound = listen()
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="critical", access_log=False))
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}", service
    finally:
        server.should_exit = True
        await task
        bound.close()


async def test_the_official_client_says_who_one_is(database_url, monkeypatch, tmp_path):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    async with on_a_socket(database_url) as (url, service):
        async with change(service.database, OPERATOR) as opened:
            organisation_id = await organisations.create_organisation(opened, "together")
            await organisations.create_provider(opened, "together", organisation_id)
            ann = await organisations.add_member(opened, organisation_id, "ann", "admin")
            made = await organisations.issue_token(opened, ann, "laptop", "write")
        client = HfApi(endpoint=url)
        said = await asyncio.to_thread(client.whoami, token=made.text)
        assert (said["type"], said["name"]) == ("user", "ann")
        assert [(org["name"], org["roleInOrg"]) for org in said["orgs"]] == [("together", "admin")]
        assert said["orgs"][0]["providers"] == ["together"]
        assert said["auth"]["accessToken"]["role"] == "write"
        assert said["auth"]["accessToken"]["displayName"] == "laptop"

        with pytest.raises(HfHubHTTPError, match="Invalid user token") as raised:
            await asyncio.to_thread(client.whoami, token=access.mint())
        assert raised.value.response.status_code == 401
        # A header that no client library sends, over a real socket.
        async with httpx.AsyncClient(base_url=url) as http:
            answer = await http.get("/api/whoami-v2", headers=[(b"Authorization", b"Bearer \xff\xfe")])
            assert answer.status_code == 401
