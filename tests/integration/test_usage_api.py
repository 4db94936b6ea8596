"""`POST /api/usage`: each served request is noted once, whoever tells of it and however often; on both databases."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from services import enrol, serving

from roadworthy.billing import api
from roadworthy.billing.store import endpoints, gateways
from roadworthy.billing.tables import gateways as gateway_rows
from roadworthy.billing.tables import usage
from roadworthy.database.failures import DatabaseUnavailableError, OutcomeUnknownError
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.sealing import Sealer

pytestmark = pytest.mark.anyio

PATH = "/api/usage"


def now(**ago):
    return (datetime.now(UTC) - timedelta(**ago)).isoformat(timespec="milliseconds")


AT = now(minutes=1)


def item(request_id, **more):
    return {
        "provider": "acme",
        "requestId": request_id,
        "servedAt": AT,
        "payer": "org:paying",
        "model": "owner/chat",
        "task": "conversational",
        "status": 200,
        "usage": {"inputTokens": 10, "cachedInputTokens": 4, "outputTokens": 20},
    } | more


class Client:
    def __init__(self, running, token):
        self.running, self.token = running, token

    async def post(self, *items, query="", headers=None, **more):
        sent = {"Authorization": f"Bearer {self.token}"} | (headers or {})
        body = more or {"json": {"requests": list(items)}}
        return await self.running.http.post(PATH + query, headers=sent, **body)

    async def stored(self):
        async with self.running.service.database.reading() as connection:
            return {row.request_id: row for row in await connection.execute(sa.select(usage).order_by(usage.c.id))}


async def new_gateway(database, name="router"):
    async with change(database, OPERATOR) as opened:
        return await gateways.create(opened.connection, name, opened.now_us)


@asynccontextmanager
async def client(url, **options):
    async with serving(url, **options) as running:
        await enrol(running.service.database, "acme")
        yield Client(running, await new_gateway(running.service.database))


async def test_requests_are_noted_once_with_all_that_was_told(database_url):
    async with client(database_url) as told:
        image = item("b", task="text-to-image", payer="user:julien", usage={"units": {"images": 2, "steps": 50}})
        failed = item("c", status=503, usage=None)
        answer = await told.post(item("a"), image, failed)
        assert answer.status_code == 200
        assert answer.json() == {"new": 3, "known": 0, "conflicts": [], "rejected": []}
        again = await told.post(failed, item("a"), image, item("d"))
        assert again.json() == {"new": 1, "known": 3, "conflicts": [], "rejected": []}
        stored = await told.stored()
        assert set(stored) == {"a", "b", "c", "d"}
        a, b, c = stored["a"], stored["b"], stored["c"]
        assert (a.provider, a.payer, a.model, a.task, a.status) == (
            "acme",
            "org:paying",
            "owner/chat",
            "conversational",
            200,
        )
        assert (a.input_tokens, a.cached_input_tokens, a.output_tokens, a.other_units) == (10, 4, 20, None)
        assert datetime.fromtimestamp(a.served_at_us / 1e6, UTC).isoformat(timespec="milliseconds") == AT
        assert (b.payer, b.input_tokens, b.other_units) == ("user:julien", None, {"images": 2, "steps": 50})
        assert (a.state, c.state) == ("pending", "unbilled")
        assert {row.source for row in stored.values()} == {"gateway:1"}


async def test_ten_thousand_at_once_are_taken(database_url):
    async with client(database_url) as told:
        items = [item(f"9f8c1c3e-0e4c-4a8f-9d0a-1d0f6f0e{number:04x}") for number in range(10_000)]
        assert len(json.dumps(items)) > told.running.service.settings.max_body_bytes
        assert (await told.post(*items)).json()["new"] == 10_000
        moved = [each | {"payer": "user:julien"} for each in items]
        answer = (await told.post(*moved[:5000], *items[5000:])).json()
        assert (answer["new"], answer["known"], len(answer["conflicts"])) == (0, 5000, 5000)


async def test_what_was_told_first_stands_and_conflicts_name_their_positions_and_fields(database_url):
    async with client(database_url) as told:
        await told.post(item("a"), item("b"))
        dearer = item("b", payer="user:other", usage={"inputTokens": 11, "units": {"images": 1}})
        answer = await told.post(item("new"), item("a"), dearer)
        assert answer.status_code == 200
        fields = ["payer", "usage.inputTokens", "usage.cachedInputTokens", "usage.outputTokens", "usage.units"]
        conflict = {"position": 2, "provider": "acme", "requestId": "b", "fields": fields}
        assert answer.json() == {"new": 1, "known": 1, "conflicts": [conflict], "rejected": []}
        stored = await told.stored()
        assert (stored["b"].payer, stored["b"].input_tokens) == ("org:paying", 10)
        # The same id twice in one body, and once with a bad item before it: positions are those of the body.
        answer = await told.post(item("x", status="200"), item("c"), item("c", status=201), query="?partial=true")
        assert answer.json()["conflicts"] == [
            {"position": 2, "provider": "acme", "requestId": "c", "fields": ["status"]}
        ]
        assert [each["position"] for each in answer.json()["rejected"]] == [0]
        assert (await told.stored())["c"].status == 200


async def test_a_bad_item_stops_all_or_is_left_out_as_the_caller_wishes(database_url):
    async with client(database_url) as told:
        bad = item("b", status=True, usage={"inputTokens": -1, "outputTokens": 1.0})
        items = [item("a"), bad, item("c", provider="nobody"), 7]
        answer = await told.post(*items)
        assert answer.status_code == 422
        body = answer.json()
        assert body["error"].startswith("3 of 4 requests cannot be used, so nothing was stored")
        assert "position 1: status: expected the HTTP status" in body["error"]
        assert [(each["position"], each["field"]) for each in body["rejected"]] == [
            (1, "status"),
            (1, "usage.inputTokens"),
            (1, "usage.outputTokens"),
            (2, "provider"),
            (3, ""),
        ]
        assert body["rejected"][0]["got"] == "true"
        assert await told.stored() == {}
        answer = await told.post(*items, query="?partial=true")
        assert answer.status_code == 200
        assert answer.json()["new"] == 1
        assert answer.json()["rejected"] == body["rejected"]
        assert set(await told.stored()) == {"a"}
        assert (await told.post()).json() == {"new": 0, "known": 0, "conflicts": [], "rejected": []}


async def test_a_provider_with_a_cost_endpoint_is_known_and_any_other_is_not(database_url):
    async with client(database_url) as told:
        elsewhere = item("a", provider="elsewhere")
        assert (await told.post(elsewhere)).json()["rejected"][0]["expected"] == "a provider that is registered here"
        database = told.running.service.database
        async with database.writing() as connection:
            await endpoints.register(connection, Sealer(None), "elsewhere", "https://1.1.1.1/costs", 1, batch_size=1)
        assert (await told.post(elsewhere)).json()["new"] == 1


async def test_old_requests_are_taken_where_late_ones_are_allowed(database_url):
    async with client(database_url) as told:
        old, early = item("old", servedAt=now(days=36)), item("early", servedAt=now(minutes=-6))
        answer = await told.post(old, early)
        assert [each["field"] for each in answer.json()["rejected"]] == ["servedAt", "servedAt"]
        assert (await told.post(old, query="?late=true")).json()["new"] == 1
        assert (await told.post(early, query="?late=true")).status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the body is empty"),
        (b"[]", 400, 'expected {"requests": [...]}'),
        (b'{"requests": {}}', 400, 'expected {"requests": [...]}'),
        (b'{"requests": [], "late": true}', 400, "nothing beside it"),
        (b'{"requests": [{"status": 1, "status": 2}]}', 400, "the body has the key 'status' twice"),
        (b'{"requests": [NaN]}', 400, "the body holds NaN"),
        (b'{"requests": [' + b"1" * 5000 + b"]}", 400, "thousands of digits"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"requests": "\xff"}', 400, "not UTF-8"),
        (b'{"requests": [' + b"1," * 10_000 + b"1]}", 400, "at most 10,000 requests at once, got 10,001"),
    ],
    ids=["empty", "list", "object", "more", "twice", "nan", "giant", "deep", "latin", "many"],
)
async def test_what_is_no_such_body_is_refused_in_the_house_form(database_url, body, status, said):
    async with client(database_url) as told:
        answer = await told.post(content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert said in answer.json()["error"]


async def test_a_parameter_that_is_not_known_is_refused(database_url):
    async with client(database_url) as told:
        answer = await told.post(item("a"), query="?Partial=true")
        assert answer.status_code == 400
        assert "known here: partial, late. Nothing was stored" in answer.json()["error"]
        assert (await told.post(item("a"), query="?partial=perhaps")).status_code == 400
        assert await told.stored() == {}


async def test_gzip_is_understood_and_a_bomb_is_not_unpacked(database_url):
    async with client(database_url) as told:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        packed = gzip.compress(json.dumps({"requests": [item("a")]}).encode())
        assert (await told.post(content=packed, headers=headers)).json()["new"] == 1
        bomb = gzip.compress(b" " * 40_000_000)
        assert (await told.post(content=bomb, headers=headers)).status_code == 413
        assert (await told.post(content=packed[:-20], headers=headers)).status_code == 400
        assert (await told.post(content=b"plain", headers=headers)).status_code == 400
        brotli = headers | {"Content-Encoding": "br"}
        assert (await told.post(content=packed, headers=brotli)).status_code == 415
        form = {"Content-Type": "text/plain"}
        assert (await told.post(content=b"{}", headers=form)).status_code == 415


async def test_a_gateways_token_opens_usage_alone_until_it_is_revoked(database_url, caplog):
    caplog.set_level("DEBUG")
    async with client(database_url) as told:
        database = told.running.service.database
        (admin,) = await enrol(database, "other", "admin")
        assert (await told.post(item("a"))).status_code == 200
        for refused in (f"{told.token}x", told.token[:-1], "rwg_", told.token.upper()):
            answer = await told.post(item("b"), headers={"Authorization": f"Bearer {refused}"})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert (await told.post(item("b"), headers={"Authorization": f"Basic {told.token}"})).status_code == 401
        answer = await told.post(item("b"), headers=admin.headers)
        assert answer.status_code == 403
        assert "a token of other cannot hand in usage" in answer.json()["error"]
        whoami = await told.running.http.get("/api/whoami-v2", headers={"Authorization": f"Bearer {told.token}"})
        assert whoami.status_code == 401, "a gateway's token is nobody's elsewhere"
        async with change(database, OPERATOR) as opened:
            await gateways.revoke(opened.connection, "router", opened.now_us)
        assert (await told.post(item("b"))).status_code == 401
        assert set(await told.stored()) == {"a"}
        async with database.reading() as connection:
            (row,) = (await connection.execute(sa.select(gateway_rows))).all()
        assert told.token not in repr(row)
        assert told.token not in caplog.text


async def test_a_token_revoked_while_its_batch_was_read_stores_nothing(database_url, monkeypatch):
    async with client(database_url) as told:
        database = told.running.service.database
        real = api._read

        def read_and_be_revoked(*given):
            asyncio.run_coroutine_threadsafe(revoke(), loop).result(10)
            return real(*given)

        async def revoke():
            async with change(database, OPERATOR) as opened:
                await gateways.revoke(opened.connection, "router", opened.now_us)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(api, "_read", read_and_be_revoked)
        assert (await told.post(item("a"))).status_code == 401
        assert await told.stored() == {}


async def test_two_gateways_that_tell_of_the_same_requests_at_once_note_them_once(database_url):
    async with client(database_url) as told:
        other = Client(told.running, await new_gateway(told.running.service.database, "second"))
        items = [item(f"r{number}") for number in range(2000)]
        answers = await asyncio.gather(
            *(each.post(*order) for each in (told, other) for order in (items, items[::-1], items[::2]))
        )
        assert {answer.status_code for answer in answers} == {200}
        found = [answer.json() for answer in answers]
        assert sum(each["new"] for each in found) == len(await told.stored()) == 2000
        assert sum(each["known"] for each in found) == 4 * 2000
        assert not any(each["conflicts"] for each in found)


@pytest.mark.parametrize("trouble", [DatabaseUnavailableError, OutcomeUnknownError])
async def test_while_the_database_is_away_the_caller_is_told_to_come_again(database_url, monkeypatch, trouble):
    async with client(database_url) as told:

        async def fails(*_given):
            raise trouble("the server closed the connection")

        monkeypatch.setattr(api.usage, "take_in", fails)
        answer = await told.post(item("a"))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        said = "Send the same again" if trouble is OutcomeUnknownError else "nothing was done"
        assert said in answer.json()["error"]
        monkeypatch.undo()
        assert (await told.post(item("a"))).json()["new"] == 1
