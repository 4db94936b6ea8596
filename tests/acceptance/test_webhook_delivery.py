"""Webhooks of a real service: killed between sending and noting it, and two services on one database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import standardwebhooks
from services import enrol

from roadworthy.database import Database
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.sealing import new_key

KEY = new_key()
HOOKS = "/api/partners/together/webhooks"


@dataclass
class Receiver:
    """A receiver in a thread, which answers when it may."""

    port: int = 0
    may_answer: threading.Event = field(default_factory=threading.Event)
    got: list[tuple[float, dict[str, str], bytes]] = field(default_factory=list)
    ended: list[tuple[str, float, float]] = field(default_factory=list)

    def until(self, count, within_s=30.0):
        deadline = time.monotonic() + within_s
        while len(self.got) < count:
            assert time.monotonic() < deadline, f"{len(self.got)} of {count} came"
            time.sleep(0.01)


@pytest.fixture
def receiver():
    noted = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            begun = time.monotonic()
            headers = {name.lower(): value for name, value in self.headers.items()}
            noted.got.append((begun, headers, body))
            noted.may_answer.wait(60)
            with contextlib.suppress(OSError):
                self.send_response(204)
                self.end_headers()
            noted.ended.append((headers["webhook-id"], begun, time.monotonic()))

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


@contextlib.contextmanager
def service(url, **more):
    """`roadworthy serve` on that database; its base URL and process."""
    environment = os.environ | {
        "ROADWORTHY_SECRET_KEY": KEY,
        "ROADWORTHY_ALLOW_PRIVATE_TARGETS": "true",
        "ROADWORTHY_WEBHOOK_TIMEOUT_S": "2",
        **more,
    }
    command = [sys.executable, "-m", "roadworthy", "serve", "--port", "0", "--database", url]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = process.stdout.readline().strip()
        assert line.startswith("http://"), line
        yield line, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()


def members(url):
    async def go():
        database = Database(url)
        try:
            (ann,) = await enrol(database, "together", "admin")
            return ann
        finally:
            await database.close()

    return asyncio.run(go())


def announce(url, count):
    """As another process would: the service hears of it from the database alone."""

    async def go():
        database = Database(url)
        try:
            async with change(database, OPERATOR) as opened:
                for number in range(count):
                    await opened.announce("mapping.created", "together", f"{number:024x}", {})
        finally:
            await database.close()

    asyncio.run(go())


def until_answers(base, path, headers):
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(base + path, headers=headers)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killed_between_sending_and_noting_it_the_service_sends_again_under_the_same_id(database_url, receiver):
    ann = members(database_url)
    with service(database_url) as (base, process):
        until_answers(base, HOOKS, ann.headers)
        body = {"url": f"http://127.0.0.1:{receiver.port}/hook"}
        hook = httpx.post(base + HOOKS, json=body, headers=ann.headers).json()
        tested = httpx.post(f"{base}{HOOKS}/{hook['_id']}/test", headers=ann.headers).json()
        receiver.until(1)
        process.kill()
        process.wait()
    killed = time.monotonic()
    receiver.may_answer.set()
    with service(database_url) as (base, _):
        receiver.until(2)
        found = []
        while not found or found[0]["state"] == "pending":
            path = f"{HOOKS}/{hook['_id']}/deliveries"
            found = until_answers(base, path, ann.headers).json()["deliveries"]
        assert time.monotonic() - killed < 25
    (first_at, first, first_body), (second_at, second, second_body) = receiver.got
    assert first["webhook-id"] == second["webhook-id"] == tested["eventId"]
    assert first_body == second_body
    assert second_at - first_at > 8, "not before the lease of the dead has ended"
    assert json.loads(second_body)["type"] == "webhook.test"
    standardwebhooks.Webhook(hook["secret"]).verify(second_body, second)
    assert [(each["state"], each["attempts"], each["status"]) for each in found] == [("delivered", 1, 204)]


def test_two_services_on_one_database_send_each_event_once(database_url, receiver):
    ann = members(database_url)
    receiver.may_answer.set()
    with service(database_url) as (base, _), service(database_url) as (other, _):
        for each in (base, other):
            until_answers(each, HOOKS, ann.headers)
        body = {"url": f"http://127.0.0.1:{receiver.port}/hook"}
        hook = httpx.post(base + HOOKS, json=body, headers=ann.headers).json()
        announce(database_url, 100)
        receiver.until(100)
        deadline = time.monotonic() + 20
        states = []
        while states.count("delivered") < 50:
            assert time.monotonic() < deadline
            path = f"{HOOKS}/{hook['_id']}/deliveries"
            states = [each["state"] for each in until_answers(other, path, ann.headers).json()["deliveries"]]
        time.sleep(1.5)  # another tick or two of each
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert len(ids) == len(set(ids)) == 100


def test_the_key_is_changed_without_losing_a_secret(migrated_sqlite, tmp_path, receiver):
    path = tmp_path / "service.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    url = f"sqlite:///{path}"
    ann = members(url)
    receiver.may_answer.set()

    def roadworthy(*arguments, key=""):
        return subprocess.run(
            [sys.executable, "-m", "roadworthy", *arguments],
            env=os.environ | {"ROADWORTHY_SECRET_KEY": key},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    fresh = roadworthy("secret-key", "new").stdout.strip()
    assert len(fresh) == 43
    with service(url) as (base, _):
        until_answers(base, HOOKS, ann.headers)
        body = {"url": f"http://127.0.0.1:{receiver.port}/hook"}
        hook = httpx.post(base + HOOKS, json=body, headers=ann.headers).json()
    without = roadworthy("secret-key", "reseal", "--database", url)
    assert without.returncode == 2
    assert "roadworthy secret-key new" in without.stderr
    lost = roadworthy("secret-key", "reseal", "--database", url, key=fresh)
    assert lost.returncode == 2
    assert "put that key back" in lost.stderr
    done = roadworthy("secret-key", "reseal", "--database", url, key=f"{fresh},{KEY}")
    assert (done.returncode, done.stdout[:2]) == (0, "1 "), done.stderr
    with service(url, ROADWORTHY_SECRET_KEY=fresh) as (base, _):
        until_answers(base, HOOKS, ann.headers)
        httpx.post(f"{base}{HOOKS}/{hook['_id']}/test", headers=ann.headers)
        receiver.until(1)
    _, headers, body = receiver.got[0]
    assert standardwebhooks.Webhook(hook["secret"]).verify(body, headers)["type"] == "webhook.test"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert hook["secret"] not in str(list(connection.iterdump()))
