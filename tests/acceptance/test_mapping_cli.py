"""`roadworthy mapping`, against the real service over a socket, and against servers that are none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import ssl
import subprocess
import sys
import threading
import time

import pytest
import trustme
import uvicorn
import yaml
from services import FLUX_LORA, enrol

from roadworthy.cli import main, mapping_file
from roadworthy.database import Database
from roadworthy.errors import ConfigError
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.service import Service
from roadworthy.sandbox.server import listen, running

TOKEN = "hf_rw-secret-0123456789abcdef"


@contextlib.contextmanager
def serving(app, **options):
    """An application with its lifespan, in a thread."""
    bound = listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, loop="asyncio", **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()


@pytest.fixture
def service(migrated_sqlite, tmp_path, monkeypatch):
    """A service in whose provider `together` the token of the environment may write."""
    path = tmp_path / "service.db"
    shutil.copyfile(migrated_sqlite, path)

    async def prepare():
        database = Database(f"sqlite:///{path}")
        try:
            return await enrol(database, "together", "write", "read")
        finally:
            await database.close()

    writer, reader = asyncio.run(prepare())
    models = tmp_path / "models.jsonl"
    lines = [{"id": f"acme/{n}", "pipeline_tag": "text-to-image"} for n in range(60)]
    models.write_text("\n".join(map(json.dumps, lines)))
    with serving(create_app(Service(Database(f"sqlite:///{path}"), FileCatalogue(models)))) as address:
        monkeypatch.setenv("ROADWORTHY_URL", f"http://{address}")
        monkeypatch.setenv("ROADWORTHY_TOKEN", writer.token)
        monkeypatch.setenv("READER", reader.token)
        yield f"http://{address}"


@pytest.fixture
def mapping(monkeypatch, capsys):
    """Runs `roadworthy mapping ...`; gives exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["roadworthy", "mapping", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return end.value.code or 0, out, err

    return run


@pytest.fixture
def file(tmp_path):
    def write(text, name="mapping.yaml"):
        path = tmp_path / name
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text), encoding="utf-8")
        return path

    return write


def content(*numbers, **more):
    items = [{"task": "text-to-image", "hfModel": f"acme/{n}", "providerModel": f"ours/{n}"} | more for n in numbers]
    return {"provider": "together", "models": items}


def test_a_file_is_compared_applied_and_compared_again(service, mapping, file):
    path = file(content(0, 1, status="live"))
    assert mapping("diff", path)[0] == 1
    code, out, _ = mapping("apply", path, "--dry-run")
    assert (code, "2 to add, 0 to change, 0 to remove" in out) == (0, True)
    assert mapping("diff", path)[0] == 1, "a dry run does nothing"
    code, out, _ = mapping("apply", path)
    assert code == 0
    assert "+ text-to-image  acme/0  -> ours/0 (live)" in out
    assert "done: 2 added, 0 changed, 0 removed" in out
    code, out, _ = mapping("diff", path)
    assert (code, out) == (0, "0 to add, 0 to change, 0 to remove, 2 unchanged\n")
    code, out, _ = mapping("apply", file(content(0, 1, status="staging")))
    assert "~ text-to-image  acme/1  status: live -> staging" in out
    assert code == 0


def test_removals_need_a_yes_where_nobody_can_be_asked(service, mapping, file):
    mapping("apply", file(content(0, 1)))
    path = file(content(0))
    code, out, err = mapping("apply", path)
    assert code == 2
    assert "- text-to-image  acme/1  -> ours/1 (staging)" in out
    assert "would remove 1 mapping," in err
    assert mapping("diff", path)[0] == 1
    assert mapping("apply", path, "--yes")[0] == 0
    assert mapping("diff", path)[0] == 0


def test_a_yes_confirms_the_removals_that_were_shown(service, mapping, file):
    mapping("apply", file(content(*range(30), status="live")))
    code, out, err = mapping("apply", file(content(0)), "--yes")
    assert (code, "29 removed" in out) == (0, True), err


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\x04", 1)])
def test_at_a_terminal_it_asks_in_colour(service, mapping, file, answer, code):
    mapping("apply", file(content(0, 1)))
    path = file(content(0))
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "roadworthy", "mapping", "apply", str(path)]
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    with subprocess.Popen(command, stdin=secondary, stdout=secondary, stderr=secondary, env=env) as process:
        os.close(secondary)
        shown, answered = b"", False
        while True:
            try:
                piece = os.read(primary, 4096)
            except OSError:
                break
            shown += piece
            if not answered and b"[y/N]" in shown:
                os.write(primary, answer.encode())
                answered = True
            if not piece:
                break
        assert process.wait(timeout=30) == code, shown
    os.close(primary)
    assert b"\x1b[31m- text-to-image" in shown
    assert mapping("diff", path)[0] == code


def test_what_is_exported_applies_to_no_change(service, mapping, file, tmp_path):
    names = [
        "on",
        "1e3",
        "null",
        "~",
        "é🚀",
        "a: b",
        "- x",
        "#no",
        "2001-01-01",
        "=",
        "'\"",
        "x" * 300,
        "x\u2028y",
        "0x1f",
    ]
    items = [
        {"task": "text-to-image", "hfModel": f"acme/{n}", "providerModel": name, "status": ("live", "staging")[n % 2]}
        for n, name in enumerate(names)
    ]
    items.append(
        {
            "type": "tag-filter",
            "task": "text-to-image",
            "tags": [*FLUX_LORA, "yes"],
            "adapterType": "lora",
            "providerModel": "flux-lora",
        }
    )
    applied = mapping("apply", file(json.dumps({"provider": "together", "models": items}), "mapping.json"))
    assert applied[0] == 0, applied
    for name in ("out.yaml", "out.json"):
        out = tmp_path / name
        assert mapping("export", "together", "-o", out)[0] == 0
        assert mapping("diff", out) == (0, f"0 to add, 0 to change, 0 to remove, {len(items)} unchanged\n", "")
    code, text, _ = mapping("export", "together")
    assert (code, text) == (0, (tmp_path / "out.yaml").read_text(encoding="utf-8"))
    assert {each["providerModel"] for each in yaml.safe_load(text)["models"]} == {*names, "flux-lora"}
    assert mapping("export", "together", "-o", tmp_path / "no" / "out.yaml")[0] == 2
    assert sorted(tmp_path.glob(".*part")) == []


def test_lists(service, mapping, file):
    mapping("apply", file(content(0, status="live")))
    mapping("apply", file(content(0, 1)))
    code, out, _ = mapping("list", "together")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 3)
    assert lines[0].split("  ")[0] == "TASK"
    assert lines[1].split()[:4] == ["text-to-image", "acme/0", "ours/0", "live"]
    code, out, _ = mapping("list", "together", "--status", "staging", "--json")
    assert list(json.loads(out)["text-to-image"]) == ["acme/1"]
    assert mapping("list", "together", "--status", "dead")[0] == 2
    code, _, err = mapping("list", "nobody")
    assert (code, "there is no provider 'nobody'" in err) == (2, True)
    assert mapping("list", "../x")[0] == 2


def test_items_the_service_refuses_are_named_by_line(service, mapping, file):
    wanted = content(0, 77)
    wanted["models"][0]["providerModel"] = " x"
    path = file(wanted)
    code, _, err = mapping("apply", path)
    assert code == 2
    assert f"{path}, line 2: providerModel: expected" in err
    assert f"{path}, line 5: hfModel: the hub has no public model 'acme/77'" in err


def test_refusals_are_one_sentence_without_the_token(service, mapping, file, monkeypatch):
    path = file(content(0))
    code, _, err = mapping("apply", path, "--token-env", "READER")
    assert (code, "403" in err, "role 'read'" in err) == (2, True, True)
    code, _, err = mapping("apply", path, "--token-env", "NOT_SET")
    assert (code, "put one into the variable NOT_SET" in err) == (2, True)
    monkeypatch.setenv("BAD", TOKEN)
    code, _, err = mapping("apply", path, "--token-env", "BAD")
    assert (code, "does not accept the token in BAD" in err, TOKEN in err) == (2, True, False)


@pytest.fixture
def known_token(monkeypatch):
    monkeypatch.setenv("ROADWORTHY_TOKEN", TOKEN)


class Stub:
    """A server that gives one answer to everything, and keeps what it was asked."""

    def __init__(self, status, body, *headers):
        self.status, self.body, self.headers, self.asked = status, body, headers, []

    async def __call__(self, scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        self.asked.append((scope["path"], dict(scope["headers"])))
        headers = [(name.encode(), value.encode()) for name, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        body = self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()
        await send({"type": "http.response.body", "body": body})


HTML = ("content-type", "text/html; charset=utf-8")


@pytest.mark.parametrize(
    ("stub", "code", "words"),
    [
        (Stub(200, "<html>hello</html>", HTML), 2, "got text/html; check --url"),
        (Stub(200, []), 2, "does not answer as the mapping service does"),
        (Stub(200, {"added": [1], "changed": [], "removed": [], "unchanged": 0}), 2, "not a plan"),
        (Stub(200, {"added": [], "changed": [{}], "removed": [], "unchanged": 0}), 2, "not a plan"),
        (Stub(200, {"added": []}), 2, "not a plan"),
        (Stub(404, "<html>", HTML), 2, "answers 404 with text/html"),
        (Stub(404, {"error": "no such provider"}), 2, "(404): no such provider"),
        (Stub(302, "", ("location", "http://127.0.0.1:1/elsewhere")), 2, "redirects to http://127.0.0.1:1/elsewhere"),
        (Stub(401, {"error": f"bad {TOKEN}"}), 2, "does not accept the token in ROADWORTHY_TOKEN"),
        (Stub(403, {"error": f"no \x1b[31m {TOKEN}"}), 2, r"(403): no \x1b[31m"),
        (Stub(409, {"error": "confirm it", "removals": 3}), 2, "(409): confirm it"),
        (Stub(400, {"error": "bad", "items": [{"index": 9, "reason": "odd"}, {"index": "x"}, 1]}), 2, ": odd"),
        (Stub(412, {"error": "moved"}), 3, "changed by somebody else"),
        (Stub(429, {"error": "slow down"}, ("retry-after", "7")), 3, "429: slow down; try again in 7 s"),
        (Stub(503, {"error": "no hub"}, ("retry-after", "soon")), 3, "503: no hub; try again later"),
        (Stub(502, "<html>", HTML), 3, "answers 502"),
        (Stub(500, "[" * 100_000), 3, "answers 500"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Stub) else "",
)
@pytest.mark.usefixtures("known_token")
def test_whatever_a_server_answers_is_one_sentence_and_an_exit_code(mapping, file, stub, code, words):
    with running(stub) as url:
        ended, out, err = mapping("apply", file(content(0)), "--url", url)
    assert (ended, words in err) == (code, True), err
    assert TOKEN not in out + err
    assert "\x1b" not in err
    path, headers = stub.asked[0]
    assert path == "/v1/api/partners/together/models"
    assert headers[b"authorization"] == f"Bearer {TOKEN}".encode()
    assert len(stub.asked) == 1


def test_a_service_out_of_reach_is_exit_code_3(mapping, file, tmp_path):
    path = file(content(0))
    with contextlib.closing(listen()) as bound:
        port = bound.getsockname()[1]
        code, _, err = mapping("diff", path, "--url", f"http://127.0.0.1:{port}", "--timeout", "0.3")
        assert (code, "no answer from" in err) == (3, True), err
    code, _, err = mapping("diff", path, "--url", f"http://127.0.0.1:{port}")
    assert (code, "connection refused" in err, "--url" in err) == (3, True, True)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(key)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(bundle, append=True)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    stub = Stub(200, {"added": [], "changed": [], "removed": [], "unchanged": 1})
    with serving(stub, lifespan="off", ssl_keyfile=str(key), ssl_certfile=str(bundle)) as address:
        code, _, err = mapping("diff", path, "--url", f"https://{address}")
        assert (code, "is not trusted" in err) == (3, True), err
        assert mapping("diff", path, "--url", f"https://{address}", "--ca-file", ca_file)[0] == 0
        code, _, err = mapping("diff", path, "--url", f"http://{address}")
        assert code == 3, err


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://host", "http://", "http://a:b@host", "http://h/?x", "http://h:99999", "http://h h"],
)
def test_a_url_that_cannot_be_used_is_exit_code_2(mapping, file, url):
    code, _, err = mapping("diff", file(content(0)), "--url", url)
    assert (code, "--url: expected" in err) == (2, True), err
    assert "a:b" not in err


def test_a_token_that_is_none_is_not_shown(mapping, file, monkeypatch):
    monkeypatch.setenv("ROADWORTHY_TOKEN", "two words é")
    code, _, err = mapping("diff", file(content(0)))
    assert (code, "ROADWORTHY_TOKEN: expected" in err, "words" in err) == (2, True, False)


HEAD = "provider: together\nmodels:\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: expected `provider:` and `models:`, got an empty file"),
        ("- a", "line 1: expected `provider:` and `models:`, got a list"),
        ("provider: together", "models: expected a list of items"),
        ("provider: 7\nmodels: []", "line 1: provider: expected the provider's slug"),
        ("provider: x\nmodel: []", "line 2: 'model': there is no such field; did you mean 'models'?"),
        (HEAD + "- task: a\n  task: b", "line 4: the key 'task' stands here again, after line 3"),
        (HEAD + "- task: a\n  hf_model: b", "line 4: 'hf_model': there is no such field; did you mean 'hfModel'?"),
        (
            HEAD + "- task: a\n  providerModel: 1.5",
            "line 4: providerModel: expected text, got 1.5, which YAML reads as a",
        ),
        (HEAD + "- task: on", "line 3: task: expected text, got on, which YAML reads as a boolean; put it in quotes"),
        (HEAD + "- task: 2001-01-01", "reads as a date"),
        (HEAD + "- task:", "line 3: task: expected text, got nothing"),
        (HEAD + "- task: [a]", "line 3: task: expected text, got a list"),
        (HEAD + "- tags: lora", "line 3: tags: expected a list of tags, got 'lora'"),
        (HEAD + "- tags: [1]", "line 3: tags: expected text, got 1"),
        (HEAD + "- text", "line 3: models[0]: expected an item"),
        (HEAD + "- task: a\n\tb: c", "line 4: not valid YAML"),
        (HEAD + "\t- task: a", "never with tabs"),
        (HEAD + "- &a {task: b}\n- *a", "line 3: anchors and aliases"),
        ("a: &a [x]\nb: &b [*a, *a]", "line 1: anchors and aliases"),
        (HEAD + "- !!python/object:os.system {}", "line 3: tags such as"),
        (HEAD + "- !!int '3'", "line 3: tags such as"),
        (HEAD + "- {task: 'a}", "not valid YAML"),
        (HEAD + "---\n- b", "line 3: a second document"),
        (HEAD + "- task: a\x00b", "line 3: holds the character U+0000"),
        (HEAD + "- task: " + "[" * 100_000, "line 3: nested more than"),
        (HEAD + "- ? [a]\n  : b", "line 3: expected a key in text"),
    ],
    ids=lambda value: repr(value)[-30:],
)
def test_a_yaml_file_that_cannot_be_used_is_explained_by_line(mapping, file, text, words):
    code, _, err = mapping("diff", file(text))
    assert (code, words in err) == (2, True), err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: not valid JSON"),
        ('{"provider": "x",\n"models": [}', "line 2: not valid JSON"),
        ('{"provider": "x",\n "provider": "y"}', "line 2: the key 'provider' stands here again, after line 1"),
        ('{"provider": "x", "models": [\n{"task": 1}]}', "line 2: task: expected text, got 1, which is no text"),
        ('{"provider": "x", "models": [\n{"task": null}]}', "line 2: task: expected text, got null"),
        ('{"provider": "x", "models": [\n{"task": NaN}]}', "got NaN"),
        ('{"provider": "x", "models": [\n{"task": "\\ud800"}]}', "line 2: holds half a surrogate pair"),
        ("[" * 100_000, "nested too deep"),
        ("[" * 20 + "]" * 20, "nested more than"),
        ('{"provider": "x", "models": [\n{"a]\\"b": 1}]}', "line 2: 'a]\"b': there is no such field"),
    ],
    ids=lambda value: repr(value)[-30:],
)
def test_a_json_file_that_cannot_be_used_is_explained_by_line(mapping, file, text, words):
    code, _, err = mapping("diff", file(text, "mapping.json"))
    assert (code, words in err) == (2, True), err


def test_a_file_that_cannot_be_read_is_exit_code_2(mapping, tmp_path):
    assert "there is no such file" in mapping("diff", tmp_path / "none.yaml")[2]
    assert mapping("diff", tmp_path)[0] == 2
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"provider: \xff")
    code, _, err = mapping("diff", bad)
    assert (code, "not UTF-8, at byte 10" in err) == (2, True)


def test_twenty_thousand_items_are_read_in_seconds_and_each_has_its_line(file):
    path = file("provider: x\nmodels:\n" + "".join(f"- task: a\n  hfModel: b/{n}\n" for n in range(20_000)))
    begun = time.monotonic()
    read = mapping_file.read(path)
    assert time.monotonic() - begun < 10
    assert (len(read.items), read.lines[:2], read.lines[-1]) == (20_000, [3, 5], 40_001)
    text = mapping_file.write("x", read.items, as_json=True)
    again = mapping_file.read(file(text, "again.json"))
    assert (again.items, again.provider) == (read.items, "x")
    with pytest.raises(ConfigError, match="larger than"):
        mapping_file.read(file(" " * (mapping_file.MAX_FILE_BYTES + 1), "huge.yaml"))


def test_the_commands_load_no_database_and_no_web_framework():
    code = (
        "import sys, roadworthy.cli.mapping\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'sqlalchemy', 'fastapi', 'starlette', 'alembic', "
        "'uvicorn'}, 'roadworthy.mapping_api' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]
