"""A provider with its own names passes the whole suite through an adapter, and not without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import KEY, MODEL, run_against

from roadworthy.config import read_toml, validate
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import select
from roadworthy.conformance.settings import CheckSettings
from roadworthy.conformance.verdict import Level, Verdict
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find
from roadworthy.sandbox.server import running

ADAPTER = """
[adapter.routes]
"/chat/completions" = "/v2/text/chat"
"GET /models" = "POST /v2/catalogue/search"
"/models/*" = "/v2/catalogue/entries/*"

[adapter.request."/chat/completions".rename]
"/max_tokens" = "/options/limit"
"/temperature" = "/options/heat"
"/messages/*/content" = "/messages/*/text"
[adapter.request."/chat/completions".set]
"/api_version" = 2

[adapter.response."*"]
rename = { "/result" = "" }

[adapter.response."/chat/completions".rename]
"/outputs" = "/choices"
"/outputs/*/message/text" = "/choices/*/message/content"
"/usage/read" = "/usage/prompt_tokens"
[adapter.response."/chat/completions".set]
"/object" = "chat.completion"

[adapter.response."/models"]
rename = { "" = "/data", "/*/name" = "/data/*/id" }
set = { "/object" = "list", "/data/*/object" = "model" }

[adapter.response."/models/*"]
rename = { "/name" = "/id" }
set = { "/object" = "model" }

[adapter.errors."*"]
rename = { "/fault" = "/error", "/fault/text" = "/error/message" }

[adapter.stream."/chat/completions".rename]
"/outputs" = "/choices"
"/outputs/*/piece" = "/choices/*/delta"
"/outputs/*/piece/text" = "/choices/*/delta/content"
"/usage/read" = "/usage/prompt_tokens"
[adapter.stream."/chat/completions".set]
"/object" = "chat.completion.chunk"
"""


def _renamed(table, old, new):
    """A dict with one key renamed; anything else as it is."""
    if isinstance(table, dict) and old in table:
        return {new if key == old else key: value for key, value in table.items()}
    return table


class Foreign:
    """The sandbox behind names of its own: routes, requests, answers, errors and events all differ.

    Written without the adapter's code, so that a mistake there cannot undo itself here.
    """

    def __init__(self, sandbox):
        self.sandbox = sandbox

    async def __call__(self, scope, receive, send):
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        scope, kind = self._route(dict(scope))
        given = [{"type": "http.request", "body": self._request(body) if kind == "chat" else b""}]

        async def receive_inner():
            return given.pop() if given else await receive()

        state = {"status": 0, "stream": False}

        async def send_inner(message):
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
                state["stream"] = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
                kept = [(name, value) for name, value in message["headers"] if name != b"content-length"]
                message = {**message, "headers": kept}
            elif message.get("body"):
                message = {**message, "body": self._answer(message["body"], kind, **state)}
            await send(message)

        await self.sandbox(scope, receive_inner, send_inner)

    @staticmethod
    def _route(scope):
        path = scope["path"]
        if path == "/v1/v2/text/chat":
            return {**scope, "path": "/v1/chat/completions"}, "chat"
        if path == "/v1/v2/catalogue/search" and scope["method"] == "POST":
            return {**scope, "path": "/v1/models", "method": "GET"}, "models"
        if path.startswith("/v1/v2/catalogue/entries/"):
            return {**scope, "path": path.replace("v2/catalogue/entries", "models")}, "model"
        return {**scope, "path": "/nothing"}, "none"

    @staticmethod
    def _request(raw):
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            return raw
        if not isinstance(body, dict):
            return raw
        if body.pop("api_version", None) != 2 or {"max_tokens", "temperature"} & body.keys():
            return b'{"model": "a request of version 2 is wanted"}'
        options = body.pop("options", {})
        if "limit" in options:
            body["max_tokens"] = options["limit"]
        if "heat" in options:
            body["temperature"] = options["heat"]
        if isinstance(body.get("messages"), list):
            body["messages"] = [
                _renamed(_renamed(message, "content", "a foreign name"), "text", "content")
                for message in body["messages"]
            ]
        return json.dumps(body).encode()

    @staticmethod
    def _answer(data, kind, *, status, stream):
        if stream:
            text = data.decode().removeprefix("data: ").removesuffix("\n\n")
            if text == "[DONE]":
                return data
            chunk = json.loads(text)
            del chunk["object"]
            chunk["outputs"] = [
                _renamed({**choice, "delta": _renamed(choice["delta"], "content", "text")}, "delta", "piece")
                for choice in chunk.pop("choices")
            ]
            chunk["usage"] = _renamed(chunk.get("usage"), "prompt_tokens", "read")
            # Two lines of data and Windows line ends: legal, and a trap for whoever looks for "data: {".
            first, second = json.dumps(chunk).split(", ", 1)
            return f": piece\r\ndata: {first},\r\ndata:{second}\r\n\r\n".encode()
        body = json.loads(data)
        if status >= 400:
            return json.dumps({"fault": _renamed(body["error"], "message", "text")}).encode()
        body.pop("object", None)
        if kind == "models":
            body = [_renamed(model, "id", "name") for model in body["data"]]
        elif kind == "model":
            body = _renamed(body, "id", "name")
        else:
            body["outputs"] = [
                {**choice, "message": _renamed(choice["message"], "content", "text")} for choice in body.pop("choices")
            ]
            body["usage"] = _renamed(body["usage"], "prompt_tokens", "read")
        return json.dumps({"result": body}).encode()


def foreign(*mutations):
    return Foreign(Sandbox(mutations, Options(api_key=KEY)))


@pytest.fixture
def adapter(tmp_path):
    path = tmp_path / "roadworthy.toml"
    path.write_text(ADAPTER)
    return validate(CheckSettings, read_toml(path), "roadworthy.toml").adapter


def verdicts(run):
    return {row.check_id: row for row in judge(run.checks, run.exchanges, run.facts, run.unsent)}


def musts(rows, verdict):
    return {
        id: row.findings or row.reason for id, row in rows.items() if row.level is Level.MUST and row.verdict is verdict
    }


def test_through_the_adapter_a_foreign_provider_is_judged_as_the_sandbox_itself_is(adapter):
    with running(Sandbox((), Options(api_key=KEY))) as url:
        plain = verdicts(run_against(url))
    with running(foreign()) as url:
        adapted = verdicts(run_against(url, adapter=adapter))
    assert musts(adapted, Verdict.FAIL) == {}
    assert musts(adapted, Verdict.INCONCLUSIVE) == {}
    assert {id: row.verdict for id, row in adapted.items()} == {id: row.verdict for id, row in plain.items()}
    assert len(musts(adapted, Verdict.PASS)) > 20


def test_without_the_adapter_it_fails():
    with running(foreign()) as url:
        rows = verdicts(run_against(url))
    assert musts(rows, Verdict.FAIL)
    assert not musts(rows, Verdict.PASS).keys() & {"chat.basic.schema", "chat.stream.schema"}


@pytest.mark.parametrize(
    "fault",
    [
        *("chat.id_missing", "chat.finish_reason_null", "chat.stream.no_done", "chat.stream.usage_unasked"),
        *("discovery.pricing_missing", "errors.label_missing", "errors.string", "tools.wrong_city"),
    ],
)
def test_a_fault_is_seen_through_the_adapter_as_without_it(adapter, fault):
    checks = sorted({find(fault).family, *find(fault).caught_by})

    def failed(app, table=None):
        with running(app) as url:
            rows = verdicts(run_against(url, checks=select(checks), adapter=table))
        return {id for id, row in rows.items() if row.verdict in (Verdict.FAIL, Verdict.WARN)}

    plain = failed(Sandbox([find(fault)], Options(api_key=KEY)))
    assert plain >= find(fault).caught_by
    assert failed(foreign(find(fault)), adapter) == plain


@pytest.mark.parametrize(
    "tool",
    [
        pytest.param(("-m", "roadworthy", "check", "--only", "chat", "--only", "discovery"), id="check"),
        pytest.param(("-m", "pytest", "--pyargs", "roadworthy.conformance", "-k", "chat or discovery"), id="pytest"),
    ],
)
def test_the_settings_file_is_obeyed(tool, tmp_path):
    def run(url, text):
        target = f'[target]\nurl = "{url}"\nmodels = ["{MODEL}"]\napi_key_env = "KEY"\n'
        (tmp_path / "roadworthy.toml").write_text(target + text)
        environment = {**os.environ, "KEY": KEY}
        command = [sys.executable, *tool]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    with running(foreign()) as url:
        good = run(url, ADAPTER)
        assert good.returncode == 0, good.stdout + good.stderr
        assert run(url, "").returncode == 1


def test_a_dry_run_finds_the_price_through_the_adapter(tmp_path):
    with running(foreign()) as url:
        target = f'[target]\nurl = "{url}"\nmodels = ["{MODEL}"]\napi_key_env = "KEY"\n'
        (tmp_path / "roadworthy.toml").write_text(target + ADAPTER)
        command = [sys.executable, "-m", "roadworthy", "check", "--dry-run", "--only", "chat.shape"]
        environment = {**os.environ, "KEY": KEY}
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Cost: at most" in ended.stdout
