"""Alerts from the change that makes them to the channel that takes them, on both databases, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from validating import validate_once

from roadworthy.database import Database
from roadworthy.http.guard import Guard
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.names import new_id
from roadworthy.mapping_api.records import Item
from roadworthy.mapping_api.store import events, mappings, organisations, webhooks
from roadworthy.mapping_api.tables import events as event_rows
from roadworthy.sealing import Sealer, new_key
from roadworthy.validator.alerts.alerter import Alerter
from roadworthy.validator.alerts.kinds import Kind, Severity
from roadworthy.validator.alerts.noting import Noted, note
from roadworthy.validator.alerts.send import ChannelError, Sender
from roadworthy.validator.alerts.settings import VARIABLE, AlertSettings
from roadworthy.validator.alerts.texts import message
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.publish import Policy
from roadworthy.validator.schedule import Periods
from roadworthy.validator.store import alerts as rows
from roadworthy.validator.store.alerts import Channel
from roadworthy.validator.suspicion import Doubts
from roadworthy.validator.tables import alert_conditions, alert_deliveries, alerts, due, endpoints, runs

pytestmark = pytest.mark.anyio
NOW = AlertSettings(digest_s=0, send_timeout_s=5)
FINDING = {
    "check": "chat.stream.done",
    "level": "must",
    "expected": "a last event",
    "got": "the end of the stream",
    "remedy": "Send `data: [DONE]`.",
}
WORKS = Outcome(Result.WORKS)
DEGRADED = Outcome(
    Result.DEGRADED, ErrorClass.CONTRACT, "tools.auto: no call came", (FINDING | {"check": "tools.auto"},)
)
FAILS = Outcome(Result.FAILS, ErrorClass.CONTRACT, "chat.stream.done: expected a last event", (FINDING,))
GONE = Outcome(Result.FAILS, ErrorClass.PROVIDER_5XX, "the API answered HTTP 503")


@dataclass
class Receiver:
    port: int = 0
    got: list[dict] = field(default_factory=list)
    status: int = 200
    hold: threading.Event | None = None
    first: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self):
        return f"json://127.0.0.1:{self.port}/"


@contextlib.contextmanager
def receiving():
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver.hold is not None:
                receiver.hold.wait(30)
            receiver.got.append(json.loads(body))
            receiver.first.set()
            with contextlib.suppress(OSError):
                self.send_response(receiver.status)
                self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    if receiver.hold is not None:
        receiver.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


@pytest.fixture
async def database(database_url):
    opened = Database(database_url)
    yield opened
    await opened.close()


async def settle(alerter):
    await alerter.tick()
    await alerter.idle()


def alerter(database, *urls, settings=NOW, guard=None, **more):
    return Alerter(
        database,
        Sealer(more.pop("key", None)),
        guard or Guard(allow_private=True),
        settings,
        environment={VARIABLE: " ".join(urls)},
        starting_s=0,
        **more,
    )


async def provider(database, slug="together", count=1):
    async with change(database, OPERATOR) as opened:
        organisation = await organisations.create_organisation(opened, slug)
        await organisations.create_provider(opened, slug, organisation)
        await opened.connection.execute(
            endpoints.insert().values(
                provider=slug, base_url="http://127.0.0.1:9/v1", options={}, max_running=1_000, updated_at_us=0
            )
        )
        for number in range(count):
            item = Item("conversational", f"acme/chat-{number}", hf_model=f"org/model-{number:03}", status="live")
            await mappings.create(opened, slug, item)


class Fleet:
    """An engine whose runs end as `says`; each `run` is one run of every mapping."""

    def __init__(self, database, **policy):
        self.says = WORKS
        self._database = database
        periods = Periods(debounce_s=0)
        self._policy = Policy(periods=periods, **policy)

    async def _probe(self, mapping):
        return self.says(mapping) if callable(self.says) else self.says

    async def run(self, says):
        self.says = says
        async with self._database.writing() as connection:
            await connection.execute(due.update().values(due_at_us=1))
            await connection.execute(endpoints.update().values(next_canary_us=None))
        return await validate_once(self._database, self._probe, self._policy)


def alone(database):
    """One provider alone must not pull the brake, nor one mapping its provider down."""
    return Fleet(database, doubts=Doubts(down_mappings=1_000))


async def test_alerts_come_on_change_and_not_on_every_run(database, receiver):
    await provider(database)
    sender, fleet = alerter(database, receiver.url), alone(database)
    await settle(sender)
    titles = []
    for says in (WORKS, WORKS, FAILS, FAILS, FAILS, WORKS, WORKS, DEGRADED, DEGRADED, WORKS):
        assert await fleet.run(says) == 1
        await settle(sender)
        await settle(sender)
        titles.append([each["title"] for each in receiver.got])
        receiver.got.clear()
    told = "[roadworthy] together: org/model-000"
    assert titles == [
        [],
        [],
        [f"{told} taken off the list"],
        [],
        [],
        [f"{told} is back on the list"],
        [],
        [f"{told} degraded"],
        [],
        [f"{told} recovered"],
    ]


async def test_an_alert_says_what_failed_what_to_do_and_how_to_replay_it(database, receiver):
    await provider(database)
    sender, fleet = alerter(database, receiver.url), alone(database)
    await settle(sender)
    await fleet.run(FAILS)
    await settle(sender)
    (got,) = receiver.got
    async with database.reading() as connection:
        (mapping_id,) = (await connection.execute(sa.select(due.c.mapping_id))).scalars()
        (alert_id,) = (await connection.execute(sa.select(alerts.c.id))).scalars()
    for part in (
        "org/model-000 (conversational, as acme/chat-0)",
        "Since: 20",
        "Check: chat.stream.done",
        "Expected: a last event",
        "Got: the end of the stream",
        "Remedy: Send `data: [DONE]`.",
        "roadworthy explain chat.stream.done",
        f"roadworthy validator recording {mapping_id} --failing -o run.jsonl && roadworthy replay run.jsonl",
        "Now: 1 of 1 mappings of together are off the list.",
        alert_id,
    ):
        assert part in got["message"]
    assert got["type"] == "failure"


async def test_many_that_fall_together_are_one_message_and_each_is_an_event(database, receiver):
    await provider(database, count=120)
    sender = alerter(database, receiver.url)
    fleet = Fleet(database, doubts=Doubts(brake_providers=99))
    await settle(sender)
    await fleet.run(GONE)
    while await fleet.run(GONE) > 1:
        pass
    await settle(sender)
    (got,) = receiver.got
    assert got["title"] == "[roadworthy] together: DOWN as a whole, 120 mappings taken off the list"
    assert "and 115 more" in got["message"]
    assert "Now: 120 of 120 mappings of together are off the list." in got["message"]
    async with database.reading() as connection:
        query = sa.select(event_rows.c.type, sa.func.count()).group_by(event_rows.c.type)
        counted = {row[0]: row[1] for row in await connection.execute(query)}
        found = await events.after(connection, types=["provider.down", "mapping.taken_off"], limit=1_000)
    assert (counted["mapping.taken_off"], counted["provider.down"]) == (120, 1)
    down = next(each for each in found if each.type == "provider.down")
    assert (down.mapping_id, down.content()["after"]) == (None, {"reason": "the API answered HTTP 503"})
    taken = next(each for each in found if each.type == "mapping.taken_off").content()
    assert taken["before"]["active"] is True
    assert taken["after"]["active"] is False
    assert taken["after"]["reason"].endswith("the API answered HTTP 503")


async def test_what_happens_within_a_digests_time_is_added_to_one_alert(database, receiver):
    await provider(database)
    await provider(database, "nebius")
    sender = alerter(database, receiver.url, settings=AlertSettings(digest_s=3600))
    fleet = alone(database)
    await settle(sender)
    for says in (FAILS, WORKS, FAILS):
        await fleet.run(says)
        await settle(sender)
    assert receiver.got == []
    async with database.writing() as connection:
        await connection.execute(alerts.update().values(opened_at_us=1))
    await settle(sender)
    assert sorted(each["title"] for each in receiver.got) == [
        f"[roadworthy] {slug}: 2 mappings taken off the list, 1 mapping back on the list"
        for slug in ("nebius", "together")
    ]


async def test_a_quiet_window_holds_a_providers_alerts_and_ends_with_one_summary(database, receiver):
    await provider(database)
    await provider(database, "nebius")
    sender, fleet = alerter(database, receiver.url), alone(database)
    await settle(sender)
    async with database.writing() as connection:
        quiet = endpoints.update().where(endpoints.c.provider == "together")
        await connection.execute(quiet.values(quiet_until_us=await database.now_us(connection) + 3_600_000_000))
    for says in (FAILS, WORKS):
        await fleet.run(says)
        await settle(sender)
    assert [each["title"].split()[1] for each in receiver.got] == ["nebius:", "nebius:"]
    receiver.got.clear()
    async with database.writing() as connection:
        await connection.execute(quiet.values(quiet_until_us=await database.now_us(connection)))
    await settle(sender)
    (summary,) = receiver.got
    assert summary["title"] == "[roadworthy] together: 1 mapping taken off the list, 1 mapping back on the list"
    assert "Now: 0 of 1 mappings of together are off the list." in summary["message"]


async def test_reminders_after_hours_then_daily_and_none_when_it_is_over(database, receiver):
    await provider(database)
    sender, fleet = alerter(database, receiver.url), alone(database)
    await settle(sender)
    await fleet.run(FAILS)
    await settle(sender)
    receiver.got.clear()

    async def later(hours):
        async with database.writing() as connection:
            values = {name: alert_conditions.c[name] - hours * 3_600_000_000 for name in ("since_us", "reminded_at_us")}
            await connection.execute(alert_conditions.update().values(values))
        await settle(sender)
        await settle(sender)
        titles = [each["title"] for each in receiver.got]
        receiver.got.clear()
        return titles

    reminder = ["[roadworthy] together: org/model-000 still off the list"]
    assert [await later(hours) for hours in (5, 1, 6, 17, 1, 24)] == [[], reminder, [], [], reminder, reminder]
    await fleet.run(WORKS)
    await settle(sender)
    receiver.got.clear()
    assert [await later(hours) for hours in (6, 24)] == [[], []]


async def test_flapping_is_named(database, receiver):
    await provider(database)
    sender, fleet = alerter(database, receiver.url), alone(database)
    await settle(sender)
    for says in (FAILS, WORKS, FAILS, WORKS, FAILS):
        await fleet.run(says)
        await settle(sender)
    assert [each["title"].endswith("(flapping)") for each in receiver.got] == [False, False, False, False, True]
    assert "Flapping: 3 times off the list within 24 h" in receiver.got[-1]["message"]


async def test_the_brake_is_told_on_and_off(database, receiver):
    for slug in ("together", "nebius", "novita"):
        await provider(database, slug)
    sender = alerter(database, receiver.url)
    fleet = Fleet(database, doubts=Doubts(down_mappings=99))
    await settle(sender)
    await fleet.run(FAILS)
    await settle(sender)
    (on,) = receiver.got
    assert on["title"] == "[roadworthy] the validator: brake on, most providers fail at once"
    assert "suspects itself" in on["message"]
    receiver.got.clear()
    await fleet.run(WORKS)
    await settle(sender)
    assert [each["title"] for each in receiver.got] == ["[roadworthy] the validator: brake off"]


async def test_when_validation_itself_stops_people_hear_of_it_and_of_its_end(database, receiver):
    await provider(database)
    sender = alerter(database, receiver.url, settings=AlertSettings(digest_s=0, stale_after_s=900))
    fleet = alone(database)
    await settle(sender)
    await fleet.run(WORKS)

    async def ago(due_s, run_s):
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            await connection.execute(due.update().values(due_at_us=now_us - due_s * 1_000_000))
            await connection.execute(runs.update().values(ended_at_us=now_us - run_s * 1_000_000))
        for _ in range(3):
            await settle(sender)
        titles = [each["title"].partition(": ")[2] for each in receiver.got]
        receiver.got.clear()
        return titles

    assert await ago(-60, 10_000) == []  # nothing is due
    assert await ago(10, 10_000) == []  # due for a moment only
    assert await ago(10_000, 10) == []  # much is late, but it goes on
    assert await ago(1_000, 1_000) == ["validation has stopped"]
    assert await ago(2_000, 2_000) == []
    assert await ago(10, 1) == ["validation goes on"]


async def test_two_processes_tell_of_the_same_stop_once(database, receiver):
    await provider(database)
    await alone(database).run(WORKS)
    first, second = alerter(database, receiver.url), alerter(database, receiver.url)
    await asyncio.gather(settle(first), settle(second))
    async with database.writing() as connection:
        await connection.execute(due.update().values(due_at_us=1))
        await connection.execute(runs.update().values(ended_at_us=1))
    for _ in range(3):
        await asyncio.gather(settle(first), settle(second))
    assert [each["title"] for each in receiver.got] == ["[roadworthy] the validator: validation has stopped"]


async def test_a_dead_channel_delays_no_other_and_gets_its_alerts_when_it_is_back(database, receiver):
    await provider(database)
    with receiving() as dead, receiving() as stuck:
        dead.status = 500
        stuck.hold = threading.Event()
        settings = AlertSettings(digest_s=0, send_timeout_s=1)
        sender = alerter(database, dead.url, stuck.url, receiver.url, settings=settings, schedule_s=[0.2] * 50)
        fleet = alone(database)
        await settle(sender)
        await fleet.run(FAILS)
        with anyio.fail_after(10):
            await sender.tick()
            await asyncio.to_thread(receiver.first.wait)
        assert len(receiver.got) == 1
        await sender.idle()
        async with database.reading() as connection:
            query = sa.select(alert_deliveries.c.channel_id, alert_deliveries.c.last_error)
            errors = {row.channel_id: row.last_error for row in await connection.execute(query)}
        assert "500" in errors["env-1"]
        # Who tires first, the channel's client or we, is a matter of milliseconds.
        assert re.search("no answer within 1 s|Connection error", errors["env-2"])
        assert errors["env-3"] is None
        dead.status = 200
        dead.got.clear()
        stuck.hold.set()
        with anyio.fail_after(20):
            while not dead.got or len(stuck.got) < 2:
                await settle(sender)
                await asyncio.sleep(0.1)
        ids = {each["message"].rpartition("Alert ")[2] for each in (*dead.got, *stuck.got, *receiver.got)}
        assert len(ids) == 1, "what is sent again has the same id"
        assert sender.counted["sent"] == 3


async def test_an_error_tells_no_secret(database):
    await provider(database)
    url = "json://someone:hunter2hunter2@127.0.0.1:9/very-secret-path"
    sender, fleet = alerter(database, url), alone(database)
    await settle(sender)
    await fleet.run(FAILS)
    await settle(sender)
    async with database.reading() as connection:
        (error,) = (await connection.execute(sa.select(alert_deliveries.c.last_error))).scalars()
        (service,) = (await connection.execute(sa.text("SELECT service FROM alert_channels"))).scalars()
    assert error
    assert service == "JSON"
    for secret in ("hunter2hunter2", "very-secret-path"):
        assert secret not in error


async def test_mail_comes_with_a_subject_and_html_that_holds_the_finding(database):
    mails = []

    class Keep:
        async def handle_DATA(self, server, session, envelope):  # noqa: N802  aiosmtpd's name
            mails.append(message_from_bytes(envelope.content, policy=policy.default))
            return "250 OK"

    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(Keep(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        await provider(database)
        url = f"mailto://127.0.0.1:{port}?from=roadworthy@example.com&to=oncall@example.com"
        sender, fleet = alerter(database, url), alone(database)
        await settle(sender)
        await fleet.run(FAILS)
        await settle(sender)
    finally:
        controller.stop()
    (mail,) = mails
    assert mail["Subject"] == "[roadworthy] together: org/model-000 taken off the list"
    shown = mail.get_body(("html",)).get_content()
    assert "<code>the end of the stream</code>" in shown
    assert "roadworthy explain chat.stream.done" in shown


async def channel(database, sealer, url, slug, **more):
    channel_id = new_id()
    async with database.writing() as connection:
        await rows.one_at_a_time(connection)
        sealed = sealer.seal(url, rows.url_context(channel_id))
        await rows.add_channel(
            connection,
            Channel(channel_id, slug, sealed, "JSON", more.get("kinds", ()), more.get("least", Severity.WARNING), 0, 0),
        )
    return channel_id


async def test_a_providers_channel_hears_of_that_provider_and_of_what_it_asked_for(database, receiver):
    key = new_key()
    await provider(database)
    await provider(database, "nebius")
    with receiving() as grave:
        await channel(database, Sealer(key), receiver.url, "together")
        await channel(database, Sealer(key), grave.url, "together", least=Severity.CRITICAL)
        sender, fleet = alerter(database, key=key), alone(database)
        await fleet.run(FAILS)
        async with change(database, OPERATOR) as opened:
            await note(opened, [Noted(Kind.BRAKE_ON, reason="test")])
        await settle(sender)
        assert [each["title"] for each in receiver.got] == ["[roadworthy] together: org/model-000 taken off the list"]
        assert grave.got == []


async def test_what_a_provider_registered_reaches_nothing_private(database, receiver):
    told = message("alr_1", "together", {"test": {"count": 1, "items": []}})
    sender = Sender(Guard(), timeout_s=5)
    allowed = Sender(Guard(allow_private=True), timeout_s=5)
    for url, reason in (
        (receiver.url, "none of these"),
        (f"jsons://127.0.0.1:{receiver.port}/", "not allowed"),
        ("jsons://169.254.169.254/latest", "metadata"),
        ("jsons://example.com/?redirect=yes", "no options"),
        ("mailtos://user:pass@example.com", "none of these"),
        ("syslog://", "none of these"),
        ("apprise", "not one"),
        ("slack://", "cannot read"),
    ):
        said = await sender.send("one", url, told, trusted=False)
        assert reason in said, url
        with pytest.raises(ChannelError, match=reason):
            await sender.check(url, trusted=False)
    assert receiver.got == []
    assert await allowed.send("one", receiver.url, told, trusted=False) is None
    assert len(receiver.got) == 1


async def test_a_name_that_leads_elsewhere_between_two_questions_gains_nothing(receiver, monkeypatch):
    """What judged the name says it is public; the thread that sends resolves it anew, to loopback."""
    guard = Guard(lookup=lambda _name: ["93.184.215.14"])
    told = message("alr_1", "together", {"test": {"count": 1, "items": []}})
    real = socket.getaddrinfo

    def rebound(host, port, *rest, **more):
        return real("127.0.0.1" if host == "rebind.example" else host, receiver.port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    said = await Sender(guard, timeout_s=5).send("one", "jsons://rebind.example/", told, trusted=False)
    assert "the address 127.0.0.1 is not allowed" in said
    assert receiver.got == []


async def test_a_webhook_of_the_provider_gets_what_the_validator_found_if_it_wants_its_type(database):
    await provider(database, count=4)
    sealer = Sealer(new_key())
    wanted = ["mapping.taken_off", "mapping.brought_back", "provider.down", "provider.up"]
    async with change(database, OPERATOR) as opened:
        hook, _ = await webhooks.create(opened, "together", "https://example.com/all", wanted, sealer)
        other, _ = await webhooks.create(opened, "together", "https://example.com/few", ["mapping.created"], sealer)
    fleet = Fleet(database, doubts=Doubts(brake_providers=99))
    for says in (GONE, WORKS, WORKS):  # the canary, then the rest
        await fleet.run(says)
    async with database.reading() as connection:
        got = [each.event.type for each in await webhooks.deliveries_of(connection, hook.id)]
        assert await webhooks.deliveries_of(connection, other.id) == []
    assert [got.count(type) for type in wanted] == [4, 4, 1, 1]
