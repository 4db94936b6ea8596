"""Webhooks: registered, signed, sent at least once, retried, given up, pruned; on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import sqlalchemy as sa
import standardwebhooks
from services import serving, single

from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard
from roadworthy.http.retry_after import retry_after_s
from roadworthy.mapping_api import deliver
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.deliver import Deliverer, signature
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import events, webhooks
from roadworthy.mapping_api.store.pruning import DAY_US, prune
from roadworthy.mapping_api.tables import audit, deliveries, idempotency
from roadworthy.mapping_api.tables import events as events_table
from roadworthy.mapping_api.tables import webhooks as webhooks_table
from roadworthy.sealing import Sealer, new_key

pytestmark = pytest.mark.anyio

BASE = "/api/partners/together"
HOOKS = f"{BASE}/webhooks"
KEY = new_key()


def settings(**more):
    return ServiceSettings(**{"allow_private_targets": True, "secret_key": KEY} | more)


@dataclass
class Receiver:
    """A server that notes what comes and answers as it is told."""

    port: int = 0
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    drips: bool = False
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self):
        return [headers["webhook-id"] for headers, _ in self.got]

    async def until(self, count, within_s=10.0):
        async with asyncio.timeout(within_s):
            while len(self.got) < count:
                self.came.clear()
                await self.came.wait()

    async def handle(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.split("\r\n")[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                begun = time.monotonic()
                self.got.append((headers, body))
                self.came.set()
                await asyncio.sleep(self.delay_s)
                lines = [f"HTTP/1.1 {self.status} X", *[f"{k}: {v}" for k, v in self.headers.items()]]
                if self.status != 204 and not self.drips:
                    lines.append(f"Content-Length: {len(self.body)}")
                writer.write("\r\n".join([*lines, "", ""]).encode() + (self.body if self.status != 204 else b""))
                await writer.drain()
                while self.drips:
                    writer.write(b"1\r\nx\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.05)
                self.spans.append((headers["webhook-id"], begun, time.monotonic()))
        writer.close()


@contextlib.asynccontextmanager
async def receiving(**how):
    receiver = Receiver(**how)
    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def handle(reader, writer):
        tasks[asyncio.current_task()] = writer
        with contextlib.suppress(asyncio.CancelledError):
            await receiver.handle(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task, writer in tasks.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.01)


async def register(running, ann, url, **more):
    answer = await running.http.post(HOOKS, json={"url": url, **more}, headers=ann.headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def shown(running, ann, hook):
    answer = await running.http.get(f"{HOOKS}/{hook['_id']}/deliveries", headers=ann.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["deliveries"]


def tried(delivery):
    return delivery["attempts"] or delivery["error"]


async def settled(running, ann, hook, wanted, when=tried):
    """The deliveries, once so many of them are as wanted."""
    async with asyncio.timeout(15):
        found = []
        while sum(1 for each in found if when(each)) < wanted:
            await asyncio.sleep(0.02)
            found = await shown(running, ann, hook)
    return found


async def test_a_change_is_sent_signed_so_that_the_public_library_accepts_it(database_url):
    async with serving(database_url, settings=settings()) as running, receiving() as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", hook["secret"])
        assert hook["status"] == "active"
        begun = time.monotonic()
        created = (await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)).json()
        await receiver.until(1)
        assert time.monotonic() - begun < 0.9, "a local change is sent at once, not at the next tick"
        path = f"{BASE}/models/{created['_id']}"
        await running.http.put(f"{path}/status", json={"status": "live"}, headers=ann.headers)
        await running.http.delete(path, headers=ann.headers)
        await receiver.until(3)
        verifier = standardwebhooks.Webhook(hook["secret"])
        payloads = [verifier.verify(body, headers) for headers, body in receiver.got]
        assert [each["type"] for each in payloads] == ["mapping.created", "mapping.status_changed", "mapping.removed"]
        first = payloads[0]
        assert first["data"]["mappingId"] == created["_id"]
        assert first["data"]["provider"] == "together"
        assert (first["data"]["before"], first["data"]["after"]["status"]) == (None, "staging")
        assert payloads[2]["data"]["after"] is None
        revisions = [each["data"]["revision"] for each in payloads]
        assert revisions == sorted(set(revisions))
        found = await settled(running, ann, hook, 3)
        assert [(each["state"], each["status"], each["attempts"]) for each in found] == [("delivered", 204, 1)] * 3
        assert {each["eventId"] for each in found} == set(receiver.ids)
        headers, body = receiver.got[0]
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verifier.verify(body.replace(b"staging", b"Staging"), headers)


async def test_only_the_wanted_types_are_sent_and_a_test_event_to_its_webhook_alone(database_url):
    async with serving(database_url, settings=settings()) as running, receiving() as one, receiving() as other:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, one.url, eventTypes=["mapping.removed"])
        assert hook["eventTypes"] == ["mapping.removed"]
        await register(running, ann, other.url)
        tested = await running.http.post(f"{HOOKS}/{hook['_id']}/test", headers=ann.headers)
        assert tested.status_code == 202
        await one.until(1)
        payload = standardwebhooks.Webhook(hook["secret"]).verify(one.got[0][1], one.got[0][0])
        assert payload["type"] == "webhook.test"
        assert one.ids == [tested.json()["eventId"]]
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        await other.until(1)
        assert len(one.got) == 1
        assert json.loads(other.got[0][1])["type"] == "mapping.created"


async def test_the_secret_is_shown_once_and_stored_sealed_for_its_own_row(database_url):
    async with serving(database_url, settings=settings()) as running, receiving() as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url + "/path-with-token")
        listed = await running.http.get(HOOKS, headers=ann.headers)
        assert [each["_id"] for each in listed.json()["webhooks"]] == [hook["_id"]]
        assert "secret" not in listed.text.replace("secretly", "")
        async with running.service.database.reading() as connection:
            row = (await connection.execute(sa.select(webhooks_table))).one()
            lines = (
                await connection.execute(sa.select(audit.c.after).where(audit.c.action == "webhook.created"))
            ).all()
        assert hook["secret"] not in row.secret_sealed
        assert Sealer(KEY).open(row.secret_sealed, f"webhooks/{row.id}/secret") == hook["secret"]
        assert lines[0].after == {"origin": f"http://127.0.0.1:{receiver.port}", "eventTypes": hook["eventTypes"]}


async def test_without_a_key_registering_answers_503_with_what_to_do(database_url):
    async with serving(database_url, settings=settings(secret_key=None)) as running:
        (ann,) = await running.enrol("together", "admin")
        refused = await running.http.post(HOOKS, json={"url": "http://127.0.0.1:1/"}, headers=ann.headers)
        assert refused.status_code == 503
        assert "roadworthy secret-key new" in refused.json()["error"]
        assert refused.headers["Retry-After"] == "3600"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": 7},
        {"url": "https://example.com/", "eventTypes": []},
        {"url": "https://example.com/", "eventTypes": ["mapping.eaten"]},
        {"url": "https://example.com/", "more": 1},
        {"url": "http://example.com/"},
        {"url": "https://127.0.0.1/"},
        {"url": "https://localhost/"},
        {"url": "https://169.254.169.254/latest"},
        {"url": "https://[::ffff:10.0.0.1]/"},
        {"url": "https://user:word@example.com/"},
        {"url": "https://no-such-name.invalid/"},
        {"url": "https://example.com:22/"},
        {"url": "https://\ud800.example/"},
        {"url": "https://1.1.1.1/\ud800"},
        {"url": "https://1.1.1.1/\u0000"},
    ],
)
async def test_a_webhook_that_breaks_a_rule_is_refused(migrated_sqlite, tmp_path, body):
    path = tmp_path / "service.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    async with serving(f"sqlite:///{path}", settings=settings(allow_private_targets=False)) as running:
        (ann,) = await running.enrol("together", "admin")
        refused = await running.http.post(
            HOOKS, content=json.dumps(body), headers=ann.headers | {"Content-Type": "application/json"}
        )
        assert refused.status_code == 400, refused.text
        assert set(refused.json()) == {"error"}


async def test_only_admins_of_the_provider_may_see_or_change_webhooks(database_url):
    async with serving(database_url, settings=settings()) as running, receiving() as receiver:
        ann, wil, rea = await running.enrol("together", "admin", "write", "read")
        (eve,) = await running.enrol("fireworks-ai", "admin")
        hook = await register(running, ann, receiver.url)
        path = f"{HOOKS}/{hook['_id']}"
        calls = [
            ("POST", HOOKS, {"url": receiver.url}),
            ("GET", HOOKS, None),
            ("POST", f"{path}/test", None),
            ("GET", f"{path}/deliveries", None),
            ("DELETE", path, None),
        ]
        for method, url, body in calls:
            for who, wanted in ((wil, 403), (rea, 403), (eve, 403), (None, 401)):
                headers = who.headers if who else {}
                answer = await running.http.request(method, url, json=body, headers=headers)
                assert answer.status_code == wanted, (method, url, answer.text)
        theirs = await running.http.get(
            f"/api/partners/fireworks-ai/webhooks/{hook['_id']}/deliveries", headers=eve.headers
        )
        assert theirs.status_code == 404
        assert (await running.http.get(f"{BASE}/events", headers=rea.headers)).status_code == 200
        assert (await running.http.get(f"{BASE}/events", headers=eve.headers)).status_code == 403
        assert (await running.http.get(f"{BASE}/events")).status_code == 401
        assert receiver.got == []


async def test_events_are_read_page_by_page_and_can_be_gone_on_from_after_they_were_pruned(database_url):
    async with serving(database_url, settings=settings()) as running:
        ann, rea = await running.enrol("together", "write", "read")
        (eve,) = await running.enrol("fireworks-ai", "write")
        models = ["deepseek-ai/DeepSeek-R1", "black-forest-labs/FLUX.1-dev"]
        bodies = [single(models[0]), single(models[1], "text-to-image")]
        made = [await running.http.post(f"{BASE}/models", json=body, headers=ann.headers) for body in bodies]
        ids = [answer.json()["_id"] for answer in made]
        await running.http.post("/api/partners/fireworks-ai/models", json=bodies[0], headers=eve.headers)
        await running.http.put(f"{BASE}/models/{ids[0]}/status", json={"status": "live"}, headers=ann.headers)
        seen, after = [], None
        while True:
            query = {"limit": 1} | ({"after": after} if after else {})
            page = (await running.http.get(f"{BASE}/events", params=query, headers=rea.headers)).json()
            if not page["events"]:
                assert page["next"] == after
                break
            seen += page["events"]
            after = page["next"]
        assert [(each["type"], each["mappingId"]) for each in seen] == [
            ("mapping.created", ids[0]),
            ("mapping.created", ids[1]),
            ("mapping.status_changed", ids[0]),
        ]
        assert (seen[2]["before"]["status"], seen[2]["after"]["status"]) == ("staging", "live")
        async with running.service.database.writing() as connection:
            await connection.execute(events_table.delete())
        await running.http.delete(f"{BASE}/models/{ids[1]}", headers=ann.headers)
        page = (await running.http.get(f"{BASE}/events", params={"after": after}, headers=rea.headers)).json()
        assert [each["type"] for each in page["events"]] == ["mapping.removed"]
        async with running.service.database.reading() as connection:
            every = await events.after(connection, types=["mapping.removed", "mapping.created"])
        assert [each.type for each in every] == ["mapping.removed"]
        for bad in ("evt_1", "x", "evt_" + "g" * 28):
            refused = await running.http.get(f"{BASE}/events", params={"after": bad}, headers=rea.headers)
            assert refused.status_code == 400


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(deliver, "JITTER", 0.0)

    def make(running, schedule_s=(0.05, 0.1)):
        """Let the service retry within a blink."""
        running.service.deliverer._schedule_s = schedule_s

    return make


async def test_a_failure_is_retried_under_the_same_id_and_given_up_in_the_end(database_url, quick):
    async with (
        serving(database_url, settings=settings()) as running,
        receiving(status=500, body=b"no\x00 \x1b[31mluck " + b"x" * 70_000) as receiver,
    ):
        quick(running)
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        (found,) = await settled(running, ann, hook, 1, lambda each: each["state"] != "pending")
        assert (found["state"], found["status"], found["attempts"]) == ("failed", 500, 3)
        assert found["error"].startswith("given up after 3 attempts: it answered 500: no [31mluck xxx")
        assert len(found["error"]) < 260
        assert len(receiver.got) == 3
        assert len(set(receiver.ids)) == 1
        assert len({body for _, body in receiver.got}) == 1, "each attempt sends the same bytes"


async def test_a_receiver_that_recovers_gets_what_waited(database_url, quick):
    async with serving(database_url, settings=settings()) as running, receiving(status=302) as receiver:
        quick(running)
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        (found,) = await settled(running, ann, hook, 1)
        assert "redirects are not followed" in found["error"]
        receiver.status = 200
        (found,) = await settled(running, ann, hook, 1, lambda each: each["state"] == "delivered")
        assert found["error"] is None


async def test_an_echoed_secret_is_not_kept(database_url, quick):
    async with serving(database_url, settings=settings()) as running, receiving(status=400) as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        receiver.body = f"bad: {hook['secret']} and {hook['secret'].removeprefix('whsec_')}".encode()
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        (found,) = await settled(running, ann, hook, 1)
        assert hook["secret"][6:] not in found["error"]
        assert "it answered 400: bad: ****" in found["error"]


async def test_gone_disables_the_webhook(database_url):
    async with serving(database_url, settings=settings()) as running, receiving(status=410) as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        async with change(running.service.database, OPERATOR) as opened:
            for number in range(3):
                await opened.announce("mapping.created", "together", f"{number:024x}", {})
        running.service.deliverer.wake()
        await settled(running, ann, hook, 3)
        await running.service.deliverer.idle()
        (listed,) = (await running.http.get(HOOKS, headers=ann.headers)).json()["webhooks"]
        assert (listed["status"], listed["disabledReason"]) == ("disabled", "the receiver answered 410 Gone")
        assert [each["state"] for each in await shown(running, ann, hook)] == ["failed"] * 3
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        refused = await running.http.post(f"{HOOKS}/{hook['_id']}/test", headers=ann.headers)
        assert refused.status_code == 400
        assert len(receiver.got) == 1
        assert len(await shown(running, ann, hook)) == 3, "a disabled webhook gathers no deliveries"


async def test_retry_after_is_heeded_for_all_that_waits(database_url):
    how = {"status": 429, "headers": {"Retry-After": "7200"}}
    async with serving(database_url, settings=settings()) as running, receiving(**how) as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        async with change(running.service.database, OPERATOR) as opened:
            for number in range(3):
                await opened.announce("mapping.created", "together", f"{number:024x}", {})
        running.service.deliverer.wake()
        found = await settled(running, ann, hook, 1)
        await running.service.deliverer.idle()
        await running.service.deliverer.tick()
        await running.service.deliverer.idle()
        assert len(receiver.got) == 1
        one = next(each for each in found if each["attempts"])
        wait = datetime.fromisoformat(one["nextAttemptAt"]) - datetime.fromisoformat(one["lastAttemptAt"])
        assert timedelta(seconds=7199) < wait < timedelta(seconds=7201)


async def test_a_deleted_webhook_gets_nothing_more_and_its_secret_is_forgotten(database_url):
    async with serving(database_url, settings=settings()) as running, receiving(status=500) as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        await settled(running, ann, hook, 1)
        assert (await running.http.delete(f"{HOOKS}/{hook['_id']}", headers=ann.headers)).status_code == 204
        assert (await running.http.delete(f"{HOOKS}/{hook['_id']}", headers=ann.headers)).status_code == 404
        assert (await running.http.get(HOOKS, headers=ann.headers)).json() == {"webhooks": []}
        async with running.service.database.reading() as connection:
            assert (await connection.execute(sa.select(webhooks_table.c.secret_sealed))).scalar_one() == ""
            assert (await connection.execute(sa.select(deliveries.c.due_at_us))).scalar_one() is None


async def test_slow_and_dead_receivers_delay_nobody_else(database_url):
    async with (
        serving(database_url, settings=settings(webhook_timeout_s=3)) as running,
        receiving(delay_s=30) as slow,
        receiving() as well,
    ):
        (ann,) = await running.enrol("together", "admin")
        for _ in range(5):
            await register(running, ann, slow.url)
        await register(running, ann, "http://127.0.0.1:1/closed")
        await register(running, ann, well.url)
        begun = time.monotonic()
        async with change(running.service.database, OPERATOR) as opened:
            for number in range(20):
                await opened.announce("mapping.created", "together", f"{number:024x}", {})
        running.service.deliverer.wake()
        await well.until(20)
        assert time.monotonic() - begun < 2.5
        assert well.ids == sorted(well.ids), "one at a time, in the order of the changes"
        assert len(slow.got) == 5, "one at a time to each"


async def test_the_slots_bound_what_is_sent_at_once_and_go_round(database_url):
    async with serving(database_url, settings=settings()) as running, receiving(delay_s=0.02) as receiver:
        running.service.deliverer._lanes.slots = 2
        (ann,) = await running.enrol("together", "admin")
        for _ in range(5):
            await register(running, ann, receiver.url)
        async with change(running.service.database, OPERATOR) as opened:
            for number in range(4):
                await opened.announce("mapping.created", "together", f"{number:024x}", {})
        running.service.deliverer.wake()
        await receiver.until(20)
        await running.service.deliverer.idle()
        moments = [at for _, begun, ended in receiver.spans for at in ((begun, 1), (ended, -1))]
        now = most = 0
        for _, step in sorted(moments):
            now += step
            most = max(most, now)
        assert most == 2


async def test_two_processes_send_each_delivery_once(database_url):
    """Two deliverers with connections of their own, woken together again and again."""
    first, second = Database(database_url), Database(database_url)
    async with serving(database_url, settings=settings()) as running, receiving(delay_s=0.002) as receiver:
        await running.service.ticks.stop()
        (ann,) = await running.enrol("together", "admin")
        for _ in range(3):
            await register(running, ann, receiver.url)
        async with change(first, OPERATOR) as opened:
            for number in range(40):
                await opened.announce("mapping.created", "together", f"{number:024x}", {})
        guard = Guard(allow_private=True)
        both = [Deliverer(each, Sealer(KEY), AiohttpTransport(guard=guard)) for each in (first, second)]
        async with asyncio.timeout(60):
            while len(receiver.got) < 120:
                await asyncio.gather(*(each.tick() for each in both))
                await asyncio.sleep(0.01)
        await asyncio.gather(*(each.idle() for each in both))
        await asyncio.gather(*(each.tick() for each in both))
        await asyncio.gather(*(each.idle() for each in both))
        await asyncio.gather(*(each.stop() for each in both))
        guard.close()
        assert len(receiver.got) == 120
        assert sorted(receiver.ids) == sorted(3 * list(set(receiver.ids)))
        async with first.reading() as connection:
            rows = (await connection.execute(sa.select(deliveries))).all()
        assert {(row.attempts, row.fence, row.last_status, row.lease_until_us) for row in rows} == {(1, 1, 204, None)}
    await first.close()
    await second.close()


async def test_a_lease_keeps_others_away_until_it_ends_and_an_old_fence_settles_nothing(database_url):
    async with serving(database_url, settings=settings()) as running:
        await running.service.ticks.stop()
        database = running.service.database
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, "http://127.0.0.1:1/")
        async with change(database, OPERATOR) as opened:
            await opened.announce("mapping.created", "together", f"{1:024x}", {})
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            old = await webhooks.claim(connection, hook["_id"], now_us, 1_000_000)
        async with database.writing() as connection:
            assert await webhooks.claim(connection, hook["_id"], now_us + 999_999, 1_000_000) is None
            assert await webhooks.with_something_due(connection, now_us + 999_999) == []
            assert await webhooks.with_something_due(connection, now_us + 1_000_000) == [hook["_id"]]
            new = await webhooks.claim(connection, hook["_id"], now_us + 1_000_000, 1_000_000)
        assert (old.event.id, old.fence, new.event.id, new.fence) == (new.event.id, 1, old.event.id, 2)
        async with database.writing() as connection:
            assert not await webhooks.settle(connection, old, now_us, due_at_us=None, delivered_at_us=now_us)
            assert await webhooks.settle(connection, new, now_us, due_at_us=now_us, attempts=1, last_error="x")
        (found,) = await shown(running, ann, hook)
        assert (found["state"], found["attempts"]) == ("pending", 1)


async def test_a_missing_key_costs_the_receiver_no_attempt(database_url):
    async with serving(database_url, settings=settings()) as running, receiving() as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        running.service.deliverer._sealer = Sealer(new_key())
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        (found,) = await settled(running, ann, hook, 1)
        assert (found["state"], found["attempts"]) == ("pending", 0)
        assert "cannot open the webhook's secret" in found["error"]
        assert receiver.got == []


async def test_a_target_that_became_forbidden_is_not_connected_to(database_url):
    """Registered while the operator allowed private targets; the guard judges again at each sending."""
    async with serving(database_url, settings=settings()) as running, receiving() as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
    async with serving(database_url, settings=settings(allow_private_targets=False)) as running:
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        (found,) = await settled(running, ann, hook, 1)
        assert found["status"] is None
        assert "only https URLs are allowed" in found["error"]
        assert receiver.got == []


async def test_an_answer_that_drips_is_ended_by_the_time_limit_and_its_status_counts(database_url):
    how = {"status": 200, "headers": {"Transfer-Encoding": "chunked"}, "drips": True}
    limit = settings(webhook_timeout_s=0.5)
    async with serving(database_url, settings=limit) as running, receiving(**how) as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        begun = time.monotonic()
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        (found,) = await settled(running, ann, hook, 1)
        assert time.monotonic() - begun < 3
        assert (found["state"], found["status"]) == ("delivered", 200)


async def test_a_receiver_that_never_answers_is_tried_again(database_url):
    limit = settings(webhook_timeout_s=0.5)
    async with serving(database_url, settings=limit) as running, receiving(delay_s=60) as receiver:
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, receiver.url)
        await running.http.post(f"{BASE}/models", json=single(), headers=ann.headers)
        (found,) = await settled(running, ann, hook, 1)
        assert (found["state"], found["status"], found["attempts"]) == ("pending", None, 1)
        assert "no answer from 127.0.0.1" in found["error"]
        wait = datetime.fromisoformat(found["nextAttemptAt"]) - datetime.fromisoformat(found["lastAttemptAt"])
        assert timedelta(seconds=4.9) < wait < timedelta(seconds=6.1)


async def test_there_is_a_limit_of_webhooks(database_url, monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_PER_PROVIDER", 2)
    async with serving(database_url, settings=settings()) as running:
        (ann,) = await running.enrol("together", "admin")
        for _ in range(2):
            await register(running, ann, "http://127.0.0.1:1/")
        refused = await running.http.post(HOOKS, json={"url": "http://127.0.0.1:1/"}, headers=ann.headers)
        assert refused.status_code == 400
        assert "delete one first" in refused.json()["error"]


async def test_what_is_old_and_done_is_pruned_and_what_waits_stays(database_url, monkeypatch):
    monkeypatch.setattr("roadworthy.mapping_api.store.pruning.BATCH", 2)
    async with serving(database_url, settings=settings()) as running:
        await running.service.ticks.stop()
        database = running.service.database
        (ann,) = await running.enrol("together", "admin")
        hook = await register(running, ann, "http://127.0.0.1:1/")
        async with change(database, OPERATOR) as opened:
            for number in range(7):
                await opened.announce("mapping.created", "together", f"{number:024x}", {})
            now_us = opened.now_us
            for key, age_us in (("old", DAY_US + 1), ("new", DAY_US - 60_000_000)):
                await opened.connection.execute(
                    idempotency.insert().values(
                        provider="together",
                        organisation_id="0" * 24,
                        key=key,
                        request_digest="0" * 64,
                        status_code=201,
                        body={},
                        created_at_us=now_us - age_us,
                    )
                )
            everything = (await opened.connection.execute(sa.select(events_table.c.id).order_by("id"))).scalars().all()
            waiting, recent, *old = everything
            done = deliveries.update().where(deliveries.c.event_id != waiting)
            await opened.connection.execute(done.values(due_at_us=None, delivered_at_us=now_us))
            aged = events_table.update().where(events_table.c.id != recent).values(at_us=now_us - 31 * DAY_US)
            await opened.connection.execute(aged)
        await prune(database)
        async with database.reading() as connection:
            kept = (await connection.execute(sa.select(events_table.c.id))).scalars().all()
            rows = (await connection.execute(sa.select(deliveries.c.event_id))).scalars().all()
            keys = (await connection.execute(sa.select(idempotency.c.key))).scalars().all()
            hooks = (await connection.execute(sa.select(webhooks_table.c.id))).scalars().all()
        assert len(old) == 5
        assert set(kept) == set(rows) == {waiting, recent}
        assert keys == ["new"]
        assert hooks == [hook["_id"]]


def test_the_signature_is_the_one_of_the_specification():
    """The example that Standard Webhooks publishes."""
    secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    at = 1674087231
    body = (
        b'{"type":"contact.created","timestamp":"2022-11-03T20:26:10.344522Z","data":{"id":"1f81eb52-5198-4599-803e"}}'
    )
    id = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"
    theirs = standardwebhooks.Webhook(secret).sign(id, datetime.fromtimestamp(at, UTC), body.decode())
    assert signature(secret, id, at, body) == theirs


def test_retry_after_is_read_in_both_forms_and_bounded():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    day = 24 * 3600
    for value, wanted in [
        (None, 0),
        ("", 0),
        ("30", 30),
        (" 30 ", 30),
        ("0", 0),
        ("-5", 0),
        ("1e9", 0),
        ("9" * 400, day),
        ("soon", 0),
        ("٣", 0),
        (format_datetime(now + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(now - timedelta(seconds=90), usegmt=True), 0),
        (format_datetime(now + timedelta(days=900), usegmt=True), day),
        ("Fri, 99 Foo 2026 00:00:00 GMT", 0),
    ]:
        assert retry_after_s(value, now) == wanted, value


def test_the_schedule_lasts_more_than_a_day_and_no_wait_exceeds_one():
    assert deliver.SCHEDULE_S[:3] == (5, 300, 1800)
    assert 24 * 3600 < sum(deliver.SCHEDULE_S) * (1 + deliver.JITTER) < 48 * 3600
    assert max(deliver.SCHEDULE_S) < 24 * 3600
