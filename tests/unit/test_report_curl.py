"""The curl lines are run by a real shell, and what arrives is compared byte by byte."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from roadworthy.conformance import recording
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.report.curl import LONGEST_BODY_BYTES, curl
from roadworthy.conformance.run import Run
from roadworthy.http.message import Reply, Request
from roadworthy.http.redact import Redactor
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.server import running

KEY = "sk-$(echo stolen)`id`'\"0123"
JSON = ("Content-Type", "application/json")
OURS = (
    ("Accept", "application/json, text/event-stream"),
    ("Accept-Encoding", "identity"),
    ("User-Agent", "roadworthy"),
)


@dataclass
class Echo:
    """A server that keeps what it was sent."""

    url: str = ""
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def echo() -> Iterator[Echo]:
    kept = Echo()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def __getattr__(self, name: str):
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


def asked(url: str, body: bytes | None, *headers: tuple[str, str], method: str = "POST", key: str = KEY) -> Exchange:
    request = Request(method, url, (*OURS, *headers), body)
    return Exchange(
        "chat.x#1", "chat.x", 1, Redactor([key]).request(request), Reply(200), "2026-11-21T05:00:00.001+00:00"
    )


def sh(command: str, cwd=None, key: str = KEY) -> str:
    for tool in ("curl", *(["jq"] if "; jq " in command else [])):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt-get install {tool}")
    environment = {"PATH": os.environ["PATH"], "ROADWORTHY_API_KEY": key, "X_ORG": "secret-org-1"}
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, env=environment, cwd=cwd, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"content": 'it\'s "quoted" $HOME `id` \\ !! ; & | > <', "n": [1]}).encode(),
        json.dumps({"content": "Grüße 漢字 😀"}, ensure_ascii=False).encode(),
        b"{\n  'two': \"lines\"\n}\n",
        b"@/etc/passwd",
        b"-d --next",
        b"",
        b'{"nul": "\x00"}',
        b"\xff\xfe not text \x80",
    ],
    ids=["quotes", "unicode", "lines", "at-sign", "dashes", "empty", "nul", "binary"],
)
def test_the_body_arrives_byte_for_byte_and_the_key_only_from_the_environment(echo, body):
    command = curl(asked(f"{echo.url}/chat/completions", body, JSON, ("Authorization", f"Bearer {KEY}")))
    assert KEY not in command
    assert '-H "Authorization: Bearer $ROADWORTHY_API_KEY"' in command
    sh(command)
    [(method, path, headers, arrived)] = echo.seen
    assert (method, path, arrived) == ("POST", "/v1/chat/completions", body)
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["content-type"] == "application/json"


def test_a_question_for_costs_is_cut_to_the_id_that_shows_the_finding():
    ids = [f"id-{number}" for number in range(1000)]
    body = {"requests": [{"requestId": "id-7", "costNanoUsd": 1}, {"requestId": "strange", "costNanoUsd": 0}]}
    sent = json.dumps({"requestIds": ids}).encode()
    request = Request("POST", "http://127.0.0.1:1/v1/request-costs", (*OURS, JSON), sent)
    reply = Reply(200, (JSON,), json.dumps(body).encode())
    exchange = Exchange("billing.batch#1", "billing.batch", 1, request, reply, "2026-11-21T05:00:00.001+00:00")
    short = curl(exchange, at="/requests/0/costNanoUsd")
    assert short.endswith("""--data-raw '{"requestIds": ["id-7"]}'""")
    assert "run.jsonl" not in short
    for whole in ("/requests", "/requests/1", "/requests/2/costNanoUsd", "status", ""):
        assert curl(exchange, at=whole).startswith(": after --record run.jsonl; jq -jn "), whole


@pytest.mark.parametrize(
    "body", [b'{"content": "' + "naïve ".encode() * 1000 + b'"}', b"\xff" * 5000], ids=["text", "binary"]
)
def test_a_body_too_long_to_paste_is_read_from_the_recording(echo, body, tmp_path):
    assert len(body) > LONGEST_BODY_BYTES
    exchange = asked(f"{echo.url}/chat/completions", body, JSON)
    other = asked(f"{echo.url}/chat/completions", b'{"an": "other"}', JSON)
    text = io.StringIO()
    recording.write(text, [Run(Facts(echo.url, "m"), (), (other, exchange))])
    other_id = text.getvalue().replace('"id":"chat.x#1"', '"id":"chat.y#1"', 1)
    (tmp_path / "run.jsonl").write_text(other_id)
    command = curl(exchange)
    assert len(command) < 500
    sh(command, cwd=tmp_path)
    assert [arrived for *_, arrived in echo.seen] == [body]


def test_methods_headers_and_odd_urls_survive(echo):
    sh(curl(asked(f"{echo.url}/models", None, method="GET")))
    sh(curl(asked(f"{echo.url}/chat/completions", None, method="DELETE")))
    sh(curl(asked(f"{echo.url}/chat/completions", None)))
    sh(curl(asked(f"{echo.url}/models/a'b%20%7Bc%7D[1-3]{{x,y}}?q=$HOME", None, method="GET")))
    sh(curl(asked(f"{echo.url}/x", b"raw", ("X-Empty", ""), ("X-Quote", "it's $HOME"))))
    assert [(method, path) for method, path, _, _ in echo.seen] == [
        ("GET", "/v1/models"),
        ("DELETE", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models/a'b%20%7Bc%7D[1-3]{x,y}?q=$HOME"),
        ("POST", "/v1/x"),
    ]
    last = echo.seen[-1][2]
    assert (last["x-empty"], last["x-quote"]) == ("", "it's $HOME")
    assert "content-type" not in last


def test_a_wrong_key_is_sent_as_it_was_and_other_secrets_become_variables(echo):
    sh(curl(asked(f"{echo.url}/models", None, ("Authorization", "Bearer wrong-key"), method="GET")))
    exchange = asked(f"{echo.url}/models", None, ("X-Org", "secret-org-1"), method="GET", key="secret-org-1")
    assert "secret-org-1" not in curl(exchange)
    sh(curl(exchange))
    assert echo.seen[0][2]["authorization"] == "Bearer wrong-key"
    assert echo.seen[1][2]["x-org"] == "secret-org-1"


def test_the_line_of_a_real_stream_gets_the_same_answer_from_the_sandbox():
    with running(Sandbox((), Options(api_key="sandbox-key-1"))) as url:
        body = {"model": "acme/chat-1", "messages": [{"role": "user", "content": 'Say "it\'s".'}], "stream": True}
        headers = (JSON, ("Authorization", "Bearer sandbox-key-1"))
        exchange = asked(f"{url}/chat/completions", json.dumps(body).encode(), *headers, key="sandbox-key-1")
        command = curl(exchange)
        assert " -N " in command
        said = sh(command, key="sandbox-key-1")
    assert said.startswith("HTTP/1.1 200")
    assert "data: [DONE]" in said
