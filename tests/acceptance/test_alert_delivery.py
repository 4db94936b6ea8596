"""Alerts of real processes on SQLite: killed between publishing and sending, and between sending and noting it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from roadworthy.cli.alert_commands import app
from roadworthy.errors import RoadworthyError
from roadworthy.sealing import new_key

# Publishes one run that fails, and kills itself the moment it is published.
PUBLISH = """
import asyncio, os, signal, sys
from roadworthy.database import Database
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.records import Item
from roadworthy.mapping_api.store import mappings, organisations
from roadworthy.validator.engine import ACTOR, Engine
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.publish import Finished, Policy, Publication
from roadworthy.validator.schedule import Periods
from roadworthy.validator.tables import endpoints

POLICY = Policy(periods=Periods(debounce_s=0))
BROKEN = Outcome(Result.FAILS, ErrorClass.CONTRACT, "it does not work")

async def main():
    database = Database(sys.argv[1])
    async with change(database, OPERATOR) as opened:
        organisation = await organisations.create_organisation(opened, "together")
        await organisations.create_provider(opened, "together", organisation)
        values = {"provider": "together", "base_url": "http://127.0.0.1:9/v1", "options": {}, "max_running": 4}
        await opened.connection.execute(endpoints.insert().values(**values, updated_at_us=0))
        await mappings.create(opened, "together", Item("conversational", "a/b", hf_model="org/model", status="live"))
    claims = await Engine(database, POLICY).claim()
    async with change(database, ACTOR) as opened:
        assert await Publication(opened, POLICY).publish([Finished(claim, BROKEN) for claim, _ in claims]) == 1
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

# An alerter that ticks until it is ended.
SEND = """
import asyncio, sys
from roadworthy.database import Database
from roadworthy.http.guard import Guard
from roadworthy.sealing import Sealer
from roadworthy.validator.alerts.alerter import Alerter
from roadworthy.validator.alerts.settings import AlertSettings

async def main():
    settings = AlertSettings(digest_s=float(sys.argv[2]), send_timeout_s=2)
    alerter = Alerter(Database(sys.argv[1]), Sealer(None), Guard(allow_private=True), settings, schedule_s=[0.5] * 99)
    while True:
        await alerter.tick()
        print("tick", flush=True)
        await asyncio.sleep(0.1)

asyncio.run(main())
"""


@dataclass
class Receiver:
    port: int = 0
    got: list[str] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self):
        return f"json://127.0.0.1:{self.port}/"

    def ids(self):
        return [each.rpartition("Alert ")[2] for each in self.got]

    def until(self, count, within_s=40.0):
        deadline = time.monotonic() + within_s
        while len(self.got) < count:
            assert time.monotonic() < deadline, f"{len(self.got)} of {count} came"
            time.sleep(0.02)


@pytest.fixture
def receiver():
    noted = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            noted.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["message"])
            noted.may_answer.wait(60)
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    noted.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield noted
    noted.may_answer.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(migrated_sqlite, tmp_path):
    path = tmp_path / "service.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    return f"sqlite:///{path}"


@contextlib.contextmanager
def sending(url, receiver, digest_s=0.0):
    """The alerter's process, after its first tick. It is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SEND, url, str(digest_s)],
        env=os.environ | {"ROADWORTHY_ALERT_URLS": receiver.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout.readline() == "tick\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def publish(url):
    done = subprocess.run([sys.executable, "-c", PUBLISH, url], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr


def delivered(url):
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return connection.execute("SELECT count(*) FROM alert_deliveries WHERE delivered_at_us IS NOT NULL").fetchone()


def until_delivered(url):
    deadline = time.monotonic() + 20
    while delivered(url) != (1,):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killed_between_publishing_and_sending_the_alert_still_goes_out_and_once(url, receiver):
    receiver.may_answer.set()
    with sending(url, receiver, digest_s=3600) as process:  # the channel is known, and the alert is held
        publish(url)
        for _ in range(5):
            process.stdout.readline()
    assert receiver.got == []
    for _ in range(3):  # killed and started again, it is sent once
        with sending(url, receiver) as process:
            receiver.until(1)
            until_delivered(url)
            for _ in range(10):
                process.stdout.readline()
    assert len(receiver.got) == 1
    assert "org/model (conversational, as a/b)" in receiver.got[0]


def test_killed_between_sending_and_noting_it_the_alert_comes_again_with_the_same_id(url, receiver):
    with sending(url, receiver):
        publish(url)
        receiver.until(1)
    receiver.may_answer.set()
    with sending(url, receiver):
        receiver.until(2)
        until_delivered(url)
    first, second = receiver.ids()
    assert first == second
    assert first.startswith("alr_")


def test_two_processes_on_one_database_send_each_alert_once(url, receiver):
    receiver.may_answer.set()
    with sending(url, receiver) as one, sending(url, receiver) as other:
        publish(url)
        receiver.until(1)
        until_delivered(url)
        for process in (one, other):
            for _ in range(10):
                process.stdout.readline()
    assert len(receiver.got) == 1


def run_reseal(url, keys):
    return subprocess.run(
        [sys.executable, "-m", "roadworthy", "secret-key", "reseal", "--database", url],
        env=os.environ | {"ROADWORTHY_SECRET_KEY": keys},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_operator_adds_tries_out_and_removes_channels(url, receiver):
    receiver.may_answer.set()
    publish(url)
    secret = "very-secret-token"
    environment = {
        "ROADWORTHY_DATABASE_URL": url,
        "ROADWORTHY_SECRET_KEY": new_key(),
        "ROADWORTHY_ALLOW_PRIVATE_TARGETS": "true",
        "ROADWORTHY_ALERT_URLS": "",
        "CHANNEL": f"{receiver.url}{secret}",
    }

    def run(*arguments, **more):
        return CliRunner().invoke(app, arguments, env=environment | more)

    added = run("add", "--url-env", "CHANNEL", "--provider", "together", "--kind", "mapping.taken_off")
    assert added.exit_code == 0, added.output
    channel_id = added.stdout.strip()
    (shown,) = json.loads(run("list", "--json").stdout)
    assert (shown["id"], shown["provider"], shown["service"]) == (channel_id, "together", "JSON")
    assert secret not in run("list").output
    tested = run("test", channel_id)
    assert (tested.exit_code, tested.stdout) == (0, f"{channel_id}: taken\n")
    assert "This is a test. Alerts of together reach this channel" in receiver.got[0]
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert secret not in "\n".join(connection.iterdump())
    for arguments, more, reason in (
        (["add", "--url-env", "CHANNEL", "--provider", "nobody"], {}, "there is no provider nobody"),
        (["add", "--url-env", "NOTHING"], {}, "NOTHING is empty"),
        (["add", "--url-env", "CHANNEL", "--kind", "x"], {}, "there is no kind 'x'"),
        (["add", "--url-env", "CHANNEL", "--least-severity", "x"], {}, "warning, error or critical"),
        (["add", "--url-env", "CHANNEL"], {"ROADWORTHY_SECRET_KEY": ""}, "roadworthy secret-key new"),
        (["add", "--url-env", "CHANNEL"], {"CHANNEL": "nonsense"}, "not one"),
        (
            ["add", "--url-env", "CHANNEL", "--provider", "together"],
            {"ROADWORTHY_ALLOW_PRIVATE_TARGETS": "false"},
            "none of these",
        ),
        (["remove", "x"], {}, "there is no channel x"),
        (["test", "x"], {}, "there is no channel x"),
    ):
        refused = run(*arguments, **more)
        assert isinstance(refused.exception, RoadworthyError), arguments
        assert reason in str(refused.exception)
        assert secret not in str(refused.exception)
    fresh = new_key()
    resealed = run_reseal(url, f"{fresh},{environment['ROADWORTHY_SECRET_KEY']}")
    assert resealed.stdout.startswith("1 "), resealed.stderr
    assert run("test", channel_id, ROADWORTHY_SECRET_KEY=fresh).stdout == f"{channel_id}: taken\n"
    assert run("remove", channel_id).exit_code == 0
    assert json.loads(run("list", "--json").stdout) == []
