"""The command line as a user meets it: exit codes, messages, files; in processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find
from roadworthy.sandbox.server import running
from roadworthy.schemas import manifest

KEY = "acceptance-key-0123456789"
MODEL = "acme/chat-1"
FEW = ("--only", "chat.stream.done", "--only", "target.answers")


def roadworthy(*arguments: object, cwd: Path | None = None, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROADWORTHY_")}
    if key:
        environment["ROADWORTHY_API_KEY"] = key
    return subprocess.run(
        [sys.executable, "-m", "roadworthy", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=100,
        check=False,
    )


def assert_taught(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    flat = re.sub(r"\s+", " ", said)
    for word in words:
        assert word in flat, said


@pytest.fixture(scope="module")
def healthy() -> Iterator[str]:
    with running(Sandbox((), Options(api_key=KEY))) as url:
        yield url


@pytest.fixture(scope="module")
def faulty() -> Iterator[str]:
    with running(Sandbox([find("chat.stream.no_done")], Options(api_key=KEY))) as url:
        yield url


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a raw server on loopback; the given function handles each connection."""
    listeners: list[socket.socket] = []

    def start(handle: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            try:
                with connection:
                    connection.recv(65536)
                    handle(connection)
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    for listener in listeners:
        listener.close()


def answer(head: str, body: bytes = b"") -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        connection.sendall(
            f"HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )

    return handle


def test_a_healthy_provider_passes_with_every_report_and_the_key_in_none(healthy, tmp_path):
    names = {"html": "r.html", "junit": "r.xml", "json": "r.json", "markdown": "r.md", "badge": "r.svg"}
    flags = [part for kind, name in names.items() for part in (f"--{kind}", tmp_path / "new" / name)]
    done = roadworthy("check", healthy, "--model", MODEL, *flags, "--record", tmp_path / "run.jsonl")
    assert_taught(done, 0)
    report = json.loads((tmp_path / "new" / "r.json").read_text())
    assert (report["verdict"], report["exit_code"]) == ("pass", 0)
    assert len(report["checks"]) == len(json.loads(roadworthy("checks", "--task", "chat-completion", "--json").stdout))
    assert ET.parse(tmp_path / "new" / "r.xml").getroot().tag in {"testsuites", "testsuite"}
    for path in [*(tmp_path / "new").iterdir(), tmp_path / "run.jsonl"]:
        assert path.stat().st_size > 0
        assert KEY not in path.read_text(), path
    assert KEY not in done.stdout + done.stderr


def test_a_faulty_provider_fails_with_the_finding_its_remedy_and_a_curl_line(faulty):
    done = roadworthy("check", faulty, "--model", MODEL, *FEW)
    assert_taught(done, 1, "chat.stream.done", "[DONE]", "curl ", "$ROADWORTHY_API_KEY")


def test_replay_gives_the_same_verdicts_offline(tmp_path):
    with running(Sandbox([find("chat.stream.no_done")], Options(api_key=KEY))) as url:
        first = roadworthy("check", url, "--model", MODEL, *FEW, "--json", "-", "--record", tmp_path / "run.jsonl")
    again = roadworthy("replay", tmp_path / "run.jsonl", "--json", "-", key=None)
    assert (first.returncode, again.returncode) == (1, 1)
    a, b = json.loads(first.stdout), json.loads(again.stdout)
    assert a["checks"] == b["checks"]
    narrowed = roadworthy("replay", tmp_path / "run.jsonl", "--only", "target", "--json", "-")
    assert narrowed.returncode == 0
    assert [row["id"] for row in json.loads(narrowed.stdout)["checks"]] == ["target.answers"]


def test_json_on_standard_output_is_nothing_but_json(healthy):
    done = roadworthy("check", healthy, "--model", MODEL, *FEW, "--json", "-")
    assert json.loads(done.stdout)["exit_code"] == 0


def test_markdown_is_appended_as_job_summaries_are(healthy, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("from an earlier step\n")
    assert_taught(roadworthy("check", healthy, "--model", MODEL, *FEW, "--markdown", summary), 0)
    assert summary.read_text().startswith("from an earlier step\n")
    assert len(summary.read_text()) > 100


def test_the_baseline_goes_round(faulty, healthy, tmp_path):
    known = tmp_path / "known.toml"
    assert_taught(roadworthy("check", faulty, "--model", MODEL, *FEW, "--write-baseline", known), 1)
    assert "chat.stream.done" in known.read_text()
    assert_taught(roadworthy("check", faulty, "--model", MODEL, *FEW, "--baseline", known), 0, "known")
    assert_taught(roadworthy("check", healthy, "--model", MODEL, *FEW, "--baseline", known), 1, "stale")


def test_settings_come_from_the_file_in_the_folder_where_no_url_is_given(healthy, tmp_path):
    (tmp_path / "roadworthy.toml").write_text(
        f'[target]\nurl = "{healthy}"\nmodels = ["{MODEL}"]\n[check]\nonly = ["target"]\n'
        '[reports]\njson = "out/r.json"\n'
    )
    assert_taught(roadworthy("check", cwd=tmp_path), 0)
    assert [row["id"] for row in json.loads((tmp_path / "out" / "r.json").read_text())["checks"]] == ["target.answers"]


def test_a_dry_run_shows_the_plan_and_its_cost_and_asks_only_for_the_models():
    app = Sandbox((), Options(api_key=KEY))
    seen: list[str] = []

    async def spy(scope, receive, send):
        if scope["type"] == "http":
            seen.append(f"{scope['method']} {scope['path']}")
        await app(scope, receive, send)

    with running(spy) as url:  # type: ignore[arg-type]
        done = roadworthy("check", url, "--model", MODEL, "--dry-run")
    assert_taught(done, 0, "chat.stream", "at most", "USD")
    assert seen == ["GET /v1/models"]
    with running(spy) as url:  # type: ignore[arg-type]
        done = roadworthy("check", url, "--model", MODEL, "--dry-run", "--price", "0.2,0.6")
    assert_taught(done, 0, "USD")
    assert seen == ["GET /v1/models"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check",), ("give its base URL",)),
        (("check", "https://a.example/v1"), ("which model?",)),
        (("check", "nonsense", "-m", "m"), ("expected a base URL",)),
        (("check", "http://a/v1", "-m", "m", "--only", "chat.typo"), ("no check is called 'chat.typo'",)),
        (("check", "http://a/v1", "-m", "m", "--lens", "hubble"), ("'hub'",)),
        (("check", "http://a/v1", "-m", "m", "--trials", "0"), ("greater than or equal to 1",)),
        (("check", "http://a/v1", "-m", "m", "--api-key-env", "NOPE"), ("NOPE", "not set")),
        (("check", "--config", "none.toml"), ("there is no such file",)),
        (("check", "http://a/v1", "-m", "m", "--baseline", "none.toml"), ("there is no such file",)),
        (("check", "http://a/v1", "-m", "m", "--html", "/dev/null/x.html"), ("/dev/null",)),
        (("check", "http://a/v1", "-m", "m", "--html", "/"), ("a folder",)),
        (("check", "http://a/v1", "-m", "m", "--dry-run", "--price", "cheap"), ("USD per million",)),
        (("replay", "none.jsonl"), ("cannot be read",)),
        (("explain", "chat.stream.don"), ("Near:", "chat.stream.done")),
        (("sandbox", "--fault", "chat.stream.no_don"), ("near: chat.stream.no_done",)),
        (("sandbox", "--api-key-env", "NOPE"), ("NOPE", "not set")),
        (("check", "--no-such-flag"), ("No such option",)),
    ],
)
def test_wrong_usage_is_explained_and_exits_2(arguments, words, tmp_path):
    assert_taught(roadworthy(*arguments, cwd=tmp_path), 2, *words)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_a_closed_port_is_inconclusive_never_a_pass():
    assert_taught(roadworthy("check", closed_port(), "-m", "m"), 3, "refused")


def test_a_wrong_key_is_inconclusive_and_says_what_to_set(healthy):
    assert_taught(roadworthy("check", healthy, "-m", MODEL, key="another-key-000"), 3, "401", "key")
    assert_taught(roadworthy("check", healthy, "-m", MODEL, key=None), 3, "401", "ROADWORTHY_API_KEY")


def test_a_wrong_path_fails_and_names_the_likely_base_url(healthy):
    assert_taught(roadworthy("check", healthy.removesuffix("/v1") + "/api", "-m", MODEL), 1, "404", "base URL")


HTML = answer("200 OK\r\nContent-Type: text/html", b"<!doctype html><title>Welcome</title>")
BUSY = answer("503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 0", b'{"error":"loading"}')
BROKEN = answer("500 Internal Server Error\r\nContent-Type: text/plain", b"oops")


def stall(connection: socket.socket) -> None:
    time.sleep(30)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    while True:
        connection.sendall(b"data: {}\n\n" * 1000)


def header_bomb(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(20):
        connection.sendall(b"X-%d: " % number + b"a" * 1_000_000 + b"\r\n")


@pytest.mark.parametrize(
    ("handle", "code", "words"),
    [
        (HTML, 1, ("text/html",)),
        (BUSY, 3, ("503",)),
        (BROKEN, 1, ("500",)),
        (stall, 1, ()),
        (endless, 1, ()),
        (header_bomb, 1, ()),
    ],
    ids=["html", "busy", "broken", "stalled", "endless", "header-bomb"],
)
def test_a_hostile_target_ends_in_time_with_a_clear_word_and_the_right_code(server, handle, code, words):
    started = time.monotonic()
    done = roadworthy("check", server(handle), "-m", "m", "--timeout", "2")
    assert_taught(done, code, "target.answers" if code == 1 else "inconclusive", *words)
    assert time.monotonic() - started < 20


def test_an_interrupted_check_keeps_what_it_saw(tmp_path):
    with running(Sandbox((), Options(api_key=KEY, first_token_delay_s=0.5))) as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "roadworthy", "check", url, "-m", MODEL, "--record", str(tmp_path / "run.jsonl")],
            env={**os.environ, "ROADWORTHY_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(2.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 3, out + err
    assert "interrupted" in out
    assert "Traceback" not in out + err
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) > 1


def test_the_demo_shows_green_then_red_and_leaves_no_process_behind(tmp_path):
    done = roadworthy("demo", "--part", "check", "--out", tmp_path / "out", key=None)
    assert_taught(done, 0, "PASS", "FAIL", "report.html")
    for name in ("healthy", "faulty"):
        assert (tmp_path / "out" / name / "report.html").stat().st_size > 10_000
    report = json.loads((tmp_path / "out" / "faulty" / "report.json").read_text())
    failed = {row["id"] for row in report["checks"] if row["verdict"] in ("fail", "warn")}
    from roadworthy.cli.demo import FAULTS

    # Where the official clients are installed, the SDK stumbles over one of the five too.
    assert failed - {"clients.openai.reads"} == {check for name in FAULTS for check in find(name).caught_by}


def test_all_is_every_task_in_one_table(tmp_path):
    with running(Sandbox((), Options(api_key=KEY, all_tasks=True))) as url:
        few = ("--all", "--no-clients", "--fuzz-examples", "0", "--only", "task", "--only", "embeddings")
        done = roadworthy("check", url, *few, "--json", tmp_path / "all.json")
        both = roadworthy("check", url, "--all", "--model", MODEL)
        none = roadworthy("check", url, "--all", "--only", "endpoints")
    assert_taught(done, 0, "feature-extraction", "serverless", "the hub needs the nested one")
    models = {row["model"] for row in json.loads((tmp_path / "all.json").read_text())["models"]}
    tasks = [task for task in manifest.names() if task != "chat-completion"]
    assert models == {f"acme/{task}={task}@serverless" for task in tasks} | {
        "acme/feature-extraction=feature-extraction@openai"
    }
    for task in tasks:
        assert re.search(rf"^{task} +serverless +✓", done.stdout, re.MULTILINE), task
    assert_taught(both, 2, "--all")
    assert_taught(none, 2, "nothing that the API serves")


def test_a_sandbox_ends_when_its_parent_is_gone():
    code = (
        "import subprocess, sys, os, signal\n"
        "p = subprocess.Popen([sys.executable, '-m', 'roadworthy', 'sandbox', '--port', '0', '--until-stdin-closes'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        "print(p.pid, p.stdout.readline().strip(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    pid = int(done.stdout.split()[0])
    for _ in range(100):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, FileNotFoundError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the sandbox outlived its parent")
