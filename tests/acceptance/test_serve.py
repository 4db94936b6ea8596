"""`roadworthy serve` as a process: starting, stopping, and two on one database."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import httpx
import pytest
from services import enrol, single

from roadworthy.database import Database

PATH = "/api/partners/together/models"


class Serving:
    """A running `roadworthy serve`, its URL, and afterwards what it wrote to stderr."""

    def __init__(self, url, *flags, **environment):
        command = [sys.executable, "-m", "roadworthy", "serve", "--port", "0", *flags]
        variables = {"ROADWORTHY_DATABASE_URL": url, **environment}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables}
        )
        self.url = self.process.stdout.readline().strip()
        self.errors = []
        self._reader = threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def wait_until_ready(self):
        for _ in range(200):
            try:
                if httpx.get(self.url + "/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("".join(self.errors))

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        code = self.process.wait(20)
        self._reader.join(5)
        self.process.stdout.close()
        return code

    def entries(self):
        return [json.loads(line) for line in self.errors if line.startswith("{")]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        self.process.stderr.close()


def refused(*flags, code=2, **environment):
    command = [sys.executable, "-m", "roadworthy", "serve", *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_running_request_is_finished_and_readyz_says_503_meanwhile(tmp_path, number):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with Serving(url, ROADWORTHY_SHUTDOWN_DELAY_S="1") as serving:
        serving.wait_until_ready()
        (ann,) = asyncio.run(enrolled(url))
        lock = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        answers = []
        writer = threading.Thread(
            target=lambda: answers.append(
                httpx.post(serving.url + PATH, json=single(), headers=ann.headers, timeout=30).status_code
            )
        )
        writer.start()
        time.sleep(0.3)
        serving.signal(number)
        time.sleep(0.3)
        stopping = httpx.get(serving.url + "/readyz")
        assert stopping.status_code == 503
        assert "stopping" in stopping.json()["error"]
        time.sleep(1)
        with pytest.raises(httpx.TransportError):
            httpx.get(serving.url + "/healthz")
        lock.execute("ROLLBACK")
        lock.close()
        writer.join(20)
        assert answers == [201]
        assert serving.end() == 0
        assert "Traceback" not in "".join(serving.errors)
        assert any(entry["event"] == "stopped" for entry in serving.entries())


def test_a_second_signal_ends_it_at_once(tmp_path):
    with Serving(f"sqlite:///{tmp_path / 'a.db'}", ROADWORTHY_SHUTDOWN_DELAY_S="60") as serving:
        serving.wait_until_ready()
        serving.signal(signal.SIGTERM)
        time.sleep(0.3)
        assert serving.process.poll() is None
        serving.signal(signal.SIGTERM)
        assert serving.end() == 128 + signal.SIGTERM
        assert "Traceback" not in "".join(serving.errors)


async def enrolled(url):
    database = Database(url)
    try:
        return await enrol(database, "together", "write")
    finally:
        await database.close()


def test_two_processes_on_one_database_see_each_others_writes_at_once(database_url):
    (ann,) = asyncio.run(enrolled(database_url))
    with Serving(database_url) as first, Serving(database_url) as second:
        one, two = (httpx.Client(base_url=each.wait_until_ready().url, headers=ann.headers) for each in (first, second))
        with one, two:
            for number in range(10):
                writer, reader = (one, two) if number % 2 else (two, one)
                reader.get(PATH)
                created = writer.post(PATH, json=single())
                assert created.status_code == 201
                id = created.json()["_id"]
                assert id in reader.get(PATH).text
                assert reader.delete(f"{PATH}/{id}").status_code == 204
                assert writer.get(PATH).json() == {}


def test_logs_are_json_with_the_member_and_without_the_token(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with Serving(url) as serving:
        serving.wait_until_ready()
        (ann,) = asyncio.run(enrolled(url))
        headers = {**ann.headers, "X-Request-Id": "mine-1"}
        httpx.post(f"{serving.url}{PATH}?note=%0a{{%22event&x={ann.token}", json=single(), headers=headers)
        httpx.get(f"{serving.url}/a%0aforged%1b[31m/{ann.token}")
        serving.signal(signal.SIGTERM)
        assert serving.end() == 0
        text = "".join(serving.errors)
        assert ann.token not in text
        assert all(line.startswith("{") for line in serving.errors)
        entry = next(entry for entry in serving.entries() if entry.get("request_id") == "mine-1")
        assert entry["member"].startswith("together/")
        assert (entry["method"], entry["status"], entry["route"]) == ("POST", 201, "/api/partners/{provider}/models")
        assert entry["duration_ms"] > 0
        assert entry["bytes"] > 0


def test_a_port_in_use_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        message = refused("--port", port, ROADWORTHY_DATABASE_URL=f"sqlite:///{tmp_path / 'a.db'}")
    assert f"cannot listen on 127.0.0.1:{port}" in message


def test_a_database_of_a_newer_version_is_one_sentence(tmp_path):
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    connection.close()
    assert "a newer one made it" in refused(ROADWORTHY_DATABASE_URL=f"sqlite:///{path}")


def test_a_database_that_does_not_answer_is_one_sentence_without_its_password():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    message = refused(code=3, ROADWORTHY_DATABASE_URL=f"postgresql://ann:hush-hush@127.0.0.1:{port}/x")
    assert "did not serve us" in message
    assert "hush-hush" not in message


def test_an_unreadable_settings_file_is_one_sentence(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[server\n", encoding="utf-8")
    assert "not valid TOML" in refused("--config", str(path))


def test_the_settings_are_shown_without_secrets_and_without_a_database(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "roadworthy", "serve", "--show-settings", "--port", "0"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "ROADWORTHY_DATABASE_URL": "postgresql://ann:hush-hush@db/x"},
    )
    assert "hush-hush" not in done.stdout
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["port"].split() == ["0", "(flag)"]
    assert rows["database_url"].startswith("postgresql://ann:***@db/x")
    assert list(tmp_path.iterdir()) == []
