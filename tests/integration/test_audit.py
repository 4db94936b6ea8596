"""The audit log: complete, in order, page by page, without secrets, and closed to strangers."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from services import Member, Running, serving, single
from sqlalchemy.exc import DBAPIError

from roadworthy.mapping_api.access import digest
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.tables import audit

pytestmark = pytest.mark.anyio

MODELS = "/api/partners/together/models"
OF_PROVIDER = "/api/partners/together/audit"
OF_ORGANIZATION = "/api/organizations/together/audit"


async def lines(running: Running, member: Member, path: str = OF_PROVIDER, **params):
    answer = await running.http.get(path, params=params, headers=member.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_line_says_who_when_what_was_and_what_is(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        headers = ann.headers | {"X-Request-Id": "req-1"}
        id = (await running.http.post(MODELS, json=single(), headers=headers)).json()["_id"]
        await running.http.put(f"{MODELS}/{id}/status", json={"status": "live"}, headers=ann.headers)
        await running.http.delete(f"{MODELS}/{id}", headers=ann.headers)
        removed, changed, created, provider = await lines(running, ann)

        item = {
            "_id": id,
            "type": "single-model",
            "task": "conversational",
            "hfModel": "deepseek-ai/DeepSeek-R1",
            "providerModel": "ours/DeepSeek-R1",
            "status": "staging",
        }
        listed = (await running.http.get("/api/whoami-v2", headers=ann.headers)).json()
        assert listed["name"] == "write-0"
        token_id = created.pop("tokenId")
        at = created.pop("at")
        assert created == {
            "id": created["id"],
            "actor": "together/write-0",
            "requestId": "req-1",
            "provider": "together",
            "action": "mapping.created",
            "subject": id,
            "before": None,
            "after": item,
        }
        assert len(token_id) == 24
        assert at.endswith("Z")
        assert abs(datetime.fromisoformat(at) - datetime.now(UTC)) < timedelta(minutes=1)
        live = item | {"status": "live"}
        assert (changed["action"], changed["before"], changed["after"]) == ("mapping.status_changed", item, live)
        assert (removed["action"], removed["before"], removed["after"]) == ("mapping.removed", live, None)
        assert (provider["action"], provider["actor"], provider["tokenId"]) == ("provider.created", "operator", None)


async def test_every_change_leaves_its_line_and_what_changes_nothing_leaves_none(database_url):
    async with serving(database_url) as running:
        (boss,) = await running.enrol("together", "admin")
        http, headers, organization = running.http, boss.headers, "/api/organizations/together"
        database = running.service.database
        for _ in range(2):  # the second time nothing is left to change
            await http.post(f"{organization}/members", json={"name": "ann", "role": "read"}, headers=headers)
            await http.put(f"{organization}/members/ann", json={"role": "write"}, headers=headers)
            async with change(database, OPERATOR) as opened:
                await organisations.prefer(opened, "together", ["together"])
                await organisations.set_in_clients(opened, "together", False)
        wanted = {"member": "ann", "name": "ci", "role": "write"}
        made = (await http.post(f"{organization}/tokens", json=wanted, headers=headers)).json()
        for _ in range(2):
            await http.delete(f"{organization}/tokens/{made['id']}", headers=headers)
            await http.delete(f"{organization}/members/ann", headers=headers)
            await http.post(MODELS, json=single(), headers=headers)
        found = await lines(running, boss, OF_ORGANIZATION)
        assert [line["action"] for line in reversed(found)] == [
            "organisation.created",
            "provider.created",
            "member.added",
            "token.created",
            "member.added",
            "member.role_changed",
            "organisation.preferences_changed",
            "provider.changed",
            "token.created",
            "token.revoked",
            "member.removed",
            "mapping.created",
        ]
        by_action = {line["action"]: line for line in reversed(found)}
        token = {"name": "ci", "member": "ann", "role": "write"}
        assert by_action["token.created"]["after"] == by_action["token.revoked"]["before"] == token
        ann = {"name": "ann", "role": "read"}
        assert by_action["member.role_changed"]["before"] == ann
        assert by_action["member.role_changed"]["after"] == ann | {"role": "write"}
        assert by_action["provider.changed"]["before"]["inClients"] is True
        assert by_action["provider.changed"]["after"]["inClients"] is False
        # The provider's own log has what is about the provider, and nothing of people.
        of_provider = await lines(running, boss)
        assert [line["action"] for line in of_provider] == ["mapping.created", "provider.changed", "provider.created"]
        async with database.reading() as connection:
            log = repr((await connection.execute(sa.select(audit))).all())
        for secret in (made["token"], digest(made["token"]), boss.token, digest(boss.token)):
            assert secret not in log


async def test_a_change_that_fails_leaves_no_line(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "read")
        before = await lines(running, ann)

        async def fails() -> None:
            async with change(running.service.database, OPERATOR) as opened:
                await organisations.set_in_clients(opened, "together", False)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fails()
        assert await lines(running, ann) == before


async def test_the_log_is_read_page_by_page(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "admin")
        (other,) = await running.enrol("groq", "admin")
        for number in range(11):
            for member, org in ((ann, "together"), (other, "groq")):
                body = {"name": f"member-{number}"}
                await running.http.post(f"/api/organizations/{org}/members", json=body, headers=member.headers)
            await running.http.post(MODELS, json=single(task="conversational"), headers=ann.headers)
        for limit in (1, 4, 5, 16):
            whole = await lines(running, ann, OF_ORGANIZATION, limit=1000)
            ids = [line["id"] for line in whole]
            assert ids == sorted(set(ids), reverse=True)
            assert len(ids) >= 11 + 1 + 4
            seen, url = [], f"{OF_ORGANIZATION}?limit={limit}"
            for role in itertools.cycle(("read", "write")):
                answer = await running.http.get(url, headers=ann.headers)
                assert 1 <= len(answer.json()) <= limit
                seen += answer.json()
                # What is written meanwhile is newer than every page to come, so no line moves.
                body = {"role": role}
                await running.http.put("/api/organizations/together/members/member-0", json=body, headers=ann.headers)
                if "next" not in answer.links:
                    break
                url = answer.links["next"]["url"]
            assert seen == whole


async def test_one_action_alone_is_found_and_its_pages_stay_so(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "admin")
        for name in ("a1", "a2", "a3"):
            path = "/api/organizations/together/members"
            await running.http.post(path, json={"name": name}, headers=ann.headers)
            await running.http.delete(f"{path}/{name}", headers=ann.headers)
        first = await running.http.get(
            OF_ORGANIZATION, params={"action": "member.removed", "limit": 2}, headers=ann.headers
        )
        second = await running.http.get(first.links["next"]["url"], headers=ann.headers)
        assert [line["subject"] for line in first.json() + second.json()] == ["a3", "a2", "a1"]
        assert "next" not in second.links
        assert await lines(running, ann, action="never.happened") == []


async def test_what_cannot_be_asked_is_said(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "read")
        for params in (
            {"before": "0"},
            {"before": "x"},
            {"before": str(2**63)},
            {"limit": "0"},
            {"limit": "1001"},
            {"action": "\x00"},
            {"action": "A"},
        ):
            for path in (OF_PROVIDER, OF_ORGANIZATION):
                answer = await running.http.get(path, params=params, headers=ann.headers)
                assert answer.status_code == 400, params
                assert next(iter(params)) in answer.json()["error"]
        assert await lines(running, ann, before=str(2**63 - 1)) != []


async def test_a_strange_host_breaks_no_link(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "read")
        for host in ("[", "a b", "x>; rel=next", "\u00e4", ""):
            headers = [(b"Host", host.encode("latin-1")), (b"Authorization", ann.headers["Authorization"].encode())]
            answer = await running.http.get(f"{OF_ORGANIZATION}?limit=1", headers=headers)
            assert answer.status_code == 200, host
            assert "/api/organizations/together/audit?limit=1&before=" in answer.links["next"]["url"]


async def test_the_database_itself_refuses_to_change_a_line(database_url):
    async with serving(database_url) as running:
        await running.enrol("together", "read")
        for statement in (audit.update().values(actor="nobody"), audit.delete()):
            with pytest.raises(DBAPIError, match="append-only"):
                async with running.service.database.writing() as connection:
                    await connection.execute(statement)


async def test_lines_of_writers_at_once_are_all_there(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "admin")
        path = "/api/organizations/together/members"
        answers = await asyncio.gather(
            *(running.http.post(path, json={"name": f"m-{n}"}, headers=ann.headers) for n in range(20))
        )
        assert {answer.status_code for answer in answers} == {201}
        added = await lines(running, ann, OF_ORGANIZATION, action="member.added", limit=20)
        assert {line["subject"] for line in added} == {f"m-{n}" for n in range(20)}
        assert [line["at"] for line in added] == sorted((line["at"] for line in added), reverse=True)
