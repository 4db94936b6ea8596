"""`roadworthy billing ingest` and `billing gateway` as an operator uses them, on both databases; killed at any moment.

ROADWORTHY_KILL_ROUNDS=50 makes a longer run of the kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from services import enrol

from roadworthy.billing.tables import usage
from roadworthy.cli import main
from roadworthy.cli.billing_ingest import BATCH_LINES, MAX_LINE_BYTES, DatabaseSink
from roadworthy.database import Database
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.server import running

AT = (datetime.now(UTC) - timedelta(minutes=1)).isoformat(timespec="milliseconds")
LINES = 3 * BATCH_LINES
KILLS = int(os.environ.get("ROADWORTHY_KILL_ROUNDS", "1"))


def item(request_id, **more):
    return {
        "provider": "acme",
        "requestId": request_id,
        "servedAt": AT,
        "payer": "org:paying",
        "model": "owner/chat",
        "task": "conversational",
        "status": 200,
    } | more


def lines(*items):
    return "".join(json.dumps(each) + "\n" for each in items)


def cli(*arguments, stdin=None, **environment):
    """Exit code, stdout and stderr of the command, without the seconds that a process takes to start."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.setattr(sys, "argv", ["roadworthy", *map(str, arguments)])
        if stdin is not None:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    assert "Traceback" not in stderr.getvalue()
    return int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue()


def asked(url, query):
    async def ask():
        database = Database(url)
        try:
            async with database.reading() as connection:
                return (await connection.execute(query)).all()
        finally:
            await database.close()

    return asyncio.run(ask())


def stored(url):
    return {row.request_id: row for row in asked(url, sa.select(usage))}


def count(url):
    return asked(url, sa.select(sa.func.count()).select_from(usage))[0][0]


@pytest.fixture
def url(database_url):
    async def prepare():
        database = Database(database_url)
        await enrol(database, "acme")
        await database.close()

    asyncio.run(prepare())
    return database_url


def test_files_are_taken_in_and_told_again_they_are_known(url, tmp_path):
    plain, packed = tmp_path / "plain.jsonl", tmp_path / "packed"
    plain.write_text(lines(item("a"), item("b", usage={"inputTokens": 5})) + "\n  \n", encoding="utf-8")
    packed.write_bytes(gzip.compress(lines(item("c")).encode()) + gzip.compress(lines(item("d")).encode()))
    code, out, err = cli("billing", "ingest", plain, packed, "-", "--database", url, stdin=lines(item("e")).encode())
    assert (code, out, err) == (0, "5 new, 0 known, 0 conflicts, 0 rejected of 5\n", "")
    assert set(stored(url)) == set("abcde")
    assert (stored(url)["b"].input_tokens, stored(url)["b"].source) == (5, "file")
    code, out, _ = cli("billing", "ingest", plain, packed, "--json", "--database", url)
    assert code == 0
    assert json.loads(out) == {"lines": 4, "new": 0, "known": 4, "conflicts": 0, "rejected": 0}


def test_bad_lines_are_listed_by_number_and_the_others_are_stored(url, tmp_path):
    file, rejects = tmp_path / "usage.jsonl", tmp_path / "rejects.jsonl"
    long = '{"a": "' + "x" * MAX_LINE_BYTES + '"}\n'
    old = item("old", servedAt="2024-01-01T00:00:00Z")
    bad = [item("a", payer="org:other"), item("x", provider="nobody"), old]
    file.write_text(lines(item("a"), *bad) + "{\n" + long + '{"a":1,"a":2}\n' + lines(item("b")), encoding="utf-8")
    code, out, err = cli("billing", "ingest", file, "--database", url, "--rejects", rejects)
    assert (code, out) == (1, "2 new, 0 known, 1 conflicts, 5 rejected of 8\n")
    told = [json.loads(line) for line in rejects.read_text(encoding="utf-8").splitlines()]
    assert [each["line"] for each in told] == [2, 3, 4, 5, 6, 7]
    for each, said in zip(
        told,
        ["differs in payer", "registered here", "last 35 days", "not valid JSON", "longer than", "twice"],
        strict=True,
    ):
        assert said in each["error"]
        assert each["file"] == str(file)
    assert json.loads(told[0]["text"]) == bad[0], "what is mended there can be taken in again"
    assert set(stored(url)) == {"a", "b"}
    code, _, err = cli("billing", "ingest", file, "--database", url, "--late")
    assert code == 1
    assert f"{file}, line 2: a was told before with other contents" in err
    assert "line 4" not in err
    assert "old" in stored(url)


def test_rejects_destroy_nothing_and_appear_whole(url, tmp_path, monkeypatch):
    file, rejects = tmp_path / "usage.jsonl", tmp_path / "rejects.jsonl"
    text = lines(item("a")) + "{\n"
    file.write_text(text, encoding="utf-8")
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "hard.part").hardlink_to(file)
    for same in (file, tmp_path / "sub" / ".." / "usage.jsonl", tmp_path / "link", tmp_path / "hard"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        code, _, err = cli("billing", "ingest", file, "--database", url, "--rejects", same)
        assert (code, file.read_text(encoding="utf-8")) == (2, text)
        assert f"{file} is read from there; name another file" in err
    with file.open("rb") as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
        assert cli("billing", "ingest", "-", "--database", url, "--rejects", file)[0] == 2
    assert file.read_text(encoding="utf-8") == text
    assert count(url) == 0

    seen = []

    async def put(self, items, put=DatabaseSink.put):
        seen.append((rejects.read_text(encoding="utf-8"), (tmp_path / "rejects.jsonl.part").exists()))
        return await put(self, items)

    rejects.write_text("of the last run", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(DatabaseSink, "put", put)
        assert cli("billing", "ingest", file, "--database", url, "--rejects", rejects)[0] == 1
    assert seen == [("of the last run", True)]
    assert [json.loads(line)["line"] for line in rejects.read_text(encoding="utf-8").splitlines()] == [2]
    damaged = tmp_path / "damaged.gz"
    damaged.write_bytes(gzip.compress(("{\n" + lines(*(item(f"r{n}") for n in range(3000)))).encode())[:-30])
    assert cli("billing", "ingest", damaged, "--database", url, "--rejects", rejects)[0] == 2
    assert [json.loads(line)["file"] for line in rejects.read_text(encoding="utf-8").splitlines()] == [str(damaged)]
    assert cli("billing", "ingest", file, "--database", url, "--rejects", "/dev/null")[0] == 1
    assert not list(tmp_path.glob("rejects*.part"))


def test_only_the_first_bad_lines_are_shown(url):
    code, out, err = cli("billing", "ingest", "-", "--database", url, stdin=b"{\n" * 25)
    assert (code, out) == (1, "0 new, 0 known, 0 conflicts, 25 rejected of 25\n")
    assert len(err.splitlines()) == 11
    assert err.splitlines()[-1] == "... and 15 more; --rejects FILE lists them all"


def test_wrong_usage_is_told_in_a_sentence(url, tmp_path):
    damaged = tmp_path / "damaged.gz"
    damaged.write_bytes(gzip.compress(lines(*(item(f"r{n}") for n in range(3000))).encode())[:-30])
    for arguments, said in [
        ((tmp_path / "none",), "cannot be read"),
        ((damaged,), "it is damaged after line"),
        (
            ("-", "--url", "http://127.0.0.1:1"),
            "--url needs a gateway's token in the variable ROADWORTHY_GATEWAY_TOKEN",
        ),
        (("-", "--rejects", tmp_path), "cannot be written"),
    ]:
        database = () if "--url" in arguments else ("--database", url)
        code, out, err = cli("billing", "ingest", *arguments, *database, stdin=b"")
        assert (code, out) == (2, "")
        assert said in err
    assert 0 < count(url) <= 3000, "what came before the damage is stored"
    code, _, err = cli("billing", "ingest", "-", "--url", "http://127.0.0.1:1", "--database", url)
    assert code == 2
    assert "--url and --database exclude each other" in err


def test_gateways_are_made_listed_and_revoked(url):
    code, token, err = cli("billing", "gateway", "create", "router", "--database", url)
    assert code == 0
    assert token.startswith("rwg_")
    assert len(token.strip()) == 47
    assert token.strip() not in err
    code, out, err = cli("billing", "gateway", "create", "router", "--database", url)
    assert (code, out) == (2, "")
    assert "give another name, such as router-2" in err
    assert cli("billing", "gateway", "create", "Router!", "--database", url)[0] == 2
    assert cli("billing", "gateway", "revoke", "router", "--database", url)[0] == 0
    code, _, err = cli("billing", "gateway", "revoke", "router", "--database", url)
    assert code == 2
    assert "there is no gateway 'router' that is not revoked" in err
    code, out, _ = cli("billing", "gateway", "list", "--json", "--database", url)
    (listed,) = json.loads(out)
    assert listed["name"] == "router"
    assert listed["revoked"] >= listed["created"]
    assert token.strip() not in out


def test_a_recording_is_taken_in_as_what_its_requests_used(url, tmp_path):
    recording, packed = tmp_path / "run.jsonl", tmp_path / "run.jsonl.gz"
    with running(Sandbox((), Options())) as base:
        arguments = ("-m", "acme/chat-1", "--only", "chat.stream", "--only", "target")
        code, _, err = cli("check", base, *arguments, "--record", recording)
    assert recording.exists(), (code, err)
    packed.write_bytes(gzip.compress(recording.read_bytes()))
    exchanges = [json.loads(line) for line in recording.read_text(encoding="utf-8").splitlines()[1:]]
    sent = [each for each in exchanges if each["request"]["method"] == "POST"]
    code, _, err = cli("billing", "ingest", packed, "--database", url)
    assert code == 2
    assert "add --provider SLUG" in err
    code, out, _ = cli("billing", "ingest", packed, "--provider", "acme", "--database", url)
    assert (code, out) == (0, f"{len(sent)} new, 0 known, 0 conflicts, 0 rejected of {len(sent)}\n")
    noted = stored(url)
    assert {(row.payer, row.model, row.task) for row in noted.values()} == {
        ("org:roadworthy", "acme/chat-1", "conversational")
    }
    for each in sent:
        row = noted[{name.lower(): value for name, value in each["reply"]["headers"]}["inference-id"]]
        if "text" in (each["reply"]["body"] or {}) and each["reply"]["body"]["text"].startswith("{"):
            told = json.loads(each["reply"]["body"]["text"]).get("usage", {})
            assert (row.input_tokens, row.output_tokens) == (told.get("prompt_tokens"), told.get("completion_tokens"))
    assert any(row.input_tokens for row in noted.values())
    code, out, _ = cli("billing", "ingest", packed, recording, "--provider", "acme", "--database", url)
    assert out.startswith(f"0 new, {2 * len(sent)} known, 0 conflicts")


def environment(url):
    return {**os.environ, "ROADWORTHY_DATABASE_URL": url}


def begin(url, file):
    command = [sys.executable, "-m", "roadworthy", "billing", "ingest", str(file), "--quiet"]
    return subprocess.Popen(command, env=environment(url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.timeout(0 if KILLS > 1 else 120)
def test_killed_at_any_moment_and_run_again_nothing_is_lost_or_doubled(url, tmp_path):
    file = tmp_path / "usage.jsonl"
    file.write_text(lines(*(item(f"r{n}") for n in range(LINES))), encoding="utf-8")
    dice = random.Random(KILLS)
    seen = 0
    for round in range(KILLS):
        with begin(url, file) as process:
            until = dice.randrange(LINES) if KILLS > 1 else (round + 1) * BATCH_LINES
            while process.poll() is None and count(url) < until:
                time.sleep(0.002)
            time.sleep(dice.random() * 0.05)  # another moment of a batch each time
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert count(url) % BATCH_LINES == 0, "a part of a batch"
        assert count(url) >= seen, "something was lost"
        seen = count(url)
    assert seen > 0
    with begin(url, file) as process:
        out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    new, known = (int(part.split()[0].replace(",", "")) for part in out.split(", ")[:2])
    assert known >= seen
    assert new + known == LINES
    assert set(stored(url)) == {f"r{n}" for n in range(LINES)}


class Flaky(BaseHTTPRequestHandler):
    """A service that is away, breaks off, is busy, and then takes what it is sent; `taken` are the bodies."""

    taken: list[list[dict]]
    troubles: list[str]

    def do_POST(self):
        body = json.loads(gzip.decompress(self.rfile.read(int(self.headers["content-length"]))))["requests"]
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble == "break":
            self.connection.close()
            return
        assert self.headers["authorization"] == "Bearer rwg_" + "x" * 43
        assert self.path == "/api/usage?partial=true&late=true"
        answer = {"new": len(body) - 1, "known": 0, "conflicts": [], "rejected": []}
        if trouble == "401":
            self.reply(401, {"error": "Invalid credentials"})
        elif trouble:
            self.reply(int(trouble), {"error": "later"})
        else:
            self.taken.append(body)
            answer["rejected"] = [{"position": 1, "field": "payer", "expected": "a payer", "got": "'\x1b[31m'"}]
            self.reply(200, answer)

    def reply(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing is printed."""


@contextlib.contextmanager
def flaky(*troubles):
    handler = type("Handler", (Flaky,), {"taken": [], "troubles": list(troubles)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join()


def test_by_http_a_batch_is_sent_until_it_is_taken(monkeypatch):
    monkeypatch.setattr("roadworthy.cli.billing_post.FIRST_WAIT_S", 0.001)
    token = {"ROADWORTHY_GATEWAY_TOKEN": "rwg_" + "x" * 43}
    sent = lines(item("a"), item("b"), item("c")).encode()
    with flaky("break", "503", "429") as (address, handler):
        code, out, err = cli("billing", "ingest", "-", "--url", address, "--late", stdin=b"\n{\n" + sent, **token)
    assert (code, out) == (1, "2 new, 0 known, 0 conflicts, 2 rejected of 4\n")
    assert "-, line 2: the line is not valid JSON" in err
    assert "-, line 4: payer: expected a payer; got '\\x1b[31m'" in err
    assert [[each["requestId"] for each in body] for body in handler.taken] == [["a", "b", "c"]]
    with flaky("401") as (address, _):
        code, _, err = cli("billing", "ingest", "-", "--url", address, "--late", stdin=sent, **token)
    assert code == 2
    assert "does not accept the gateway's token in ROADWORTHY_GATEWAY_TOKEN" in err
    assert token["ROADWORTHY_GATEWAY_TOKEN"] not in err
    with flaky(*["503"] * 8) as (address, _):
        code, _, err = cli("billing", "ingest", "-", "--url", address, "--late", stdin=sent, **token)
    assert code == 3
    assert err.startswith("the service answers 503: later; trying again\n")
    assert "the service answers 503: later; 8 times" in err
