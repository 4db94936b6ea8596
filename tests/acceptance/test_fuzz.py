"""`roadworthy fuzz` and the same by pytest: subjects, exit codes, messages, files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import uvicorn

from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find
from roadworthy.sandbox.server import listen, running

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from tiny_tgi import Tiny

KEY = "acceptance-key-0123456789"
TASK = "acme/text-classification=text-classification@serverless"


def run(*arguments, module="roadworthy", cwd=None):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ROADWORTHY_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment | {"ROADWORTHY_API_KEY": KEY},
        timeout=100,
        check=False,
    )


def said(done):
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def tiny():
    """Serve a tiny text-generation server with these faults; gives its base URL."""
    servers = []

    def start(*faults):
        bound = listen()
        config = uvicorn.Config(Tiny(*faults), log_level="critical", access_log=False, lifespan="off", loop="asyncio")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        servers.append((server, thread, bound))
        return f"http://127.0.0.1:{bound.getsockname()[1]}/v1"

    yield start
    for server, thread, bound in servers:
        server.should_exit = True
        thread.join(timeout=10)
        bound.close()


def test_a_healthy_server_passes_and_every_report_is_written(tiny, tmp_path):
    files = {kind: tmp_path / f"out.{kind}" for kind in ("html", "junit", "json", "record", "badge", "markdown")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", path)]
    done = run("fuzz", tiny(), "--family", "tgi", "--model", "tiny", "--examples", 20, "--seed", 5, *options)
    assert done.returncode == 0, said(done)
    assert all(path.stat().st_size > 0 for path in files.values())
    report = json.loads(files["json"].read_text())
    assert {row["id"]: row["verdict"] for row in report["checks"]} == dict.fromkeys(
        (
            "openapi.no_5xx",
            "openapi.status_documented",
            "openapi.content_type",
            "openapi.response_shape",
            "openapi.invalid_refused",
        ),
        "pass",
    )
    probes = [json.loads(line).get("probe") for line in files["record"].read_text().rstrip("\n").split("\n")[1:]]
    assert probes.count("openapi.invalid") == 20
    assert {case.get("name") for case in ET.parse(files["junit"]).iter("testcase")} >= {"openapi.no_5xx"}
    again = run("replay", files["record"])
    assert again.returncode == 0, said(again)


def test_a_crash_ends_with_1_the_shortest_request_and_its_repetition(tiny, tmp_path):
    page = tmp_path / "out.html"
    done = run("fuzz", tiny("crash"), "--family", "tgi", "--model", "tiny", "--examples", 40, "--html", page)
    text = said(done)
    assert done.returncode == 1, text
    assert "openapi.no_5xx" in text
    assert "HTTP 500" in text
    assert "temperature" in text
    assert "curl" in page.read_text()


def test_the_same_seed_sends_the_same(tiny, tmp_path):
    sent = []
    for number, seed in enumerate((7, 7, 8)):
        path = tmp_path / f"{number}.jsonl"
        done = run("fuzz", tiny(), "-m", "tiny=text-generation@tgi", "--examples", 12, "--seed", seed, "--record", path)
        assert done.returncode == 0, said(done)
        rows = [json.loads(line) for line in path.read_text().rstrip("\n").split("\n")[1:]]
        sent.append(sorted((row["id"], json.dumps(row["request"]["body"])) for row in rows))
    assert sent[0] == sent[1]
    assert sent[0] != sent[2]


def test_chat_is_asked_by_its_own_leg(tmp_path):
    record = tmp_path / "run.jsonl"
    with running(Sandbox((), Options(api_key=KEY))) as url:
        done = run("fuzz", url, "--model", "acme/chat-1", "--examples", 10, "--record", record)
    assert done.returncode == 0, said(done)
    probes = {json.loads(line).get("probe") for line in record.read_text().rstrip("\n").split("\n")[1:]}
    assert {"fuzz.valid", "fuzz.invalid", "fuzz.after"} <= probes
    assert not any(probe.startswith("openapi.") for probe in probes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "m", "--family", "nonsense"), "there is no API family 'nonsense'; expected one of"),
        (("--model", "m", "--family", "jobs"), "the API jobs does not serve chat-completion"),
        (("--model", "m", "--family", "jobs", "--task", "text-to-video"), "there is no description to draw requests"),
        (("--model", "m=text-generation@tgi", "--family", "tgi"), "leave out --family and --task"),
        (("--model", "m", "--task", "nonsense"), "there is no task 'nonsense'"),
        (("--model", "m", "--examples", "0"), "--examples"),
        ((), "--model"),
    ],
)
def test_wrong_usage_is_explained(arguments, words):
    done = run("fuzz", "http://127.0.0.1:1/v1", *arguments)
    assert done.returncode == 2, said(done)
    assert words in re.sub(r"[│╭╰─╮╯ ]+", " ", said(done))


def test_what_draws_the_requests_may_be_missing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\nreal = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'schemathesis' else real(name, package)\n"
    )
    path = os.pathsep.join((str(tmp_path), *filter(None, sys.path)))
    done = subprocess.run(
        [sys.executable, "-m", "roadworthy", "fuzz", "http://127.0.0.1:1/v1", "--family", "tgi", "--model", "m"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, said(done)
    assert 'pip install "roadworthy[fuzz]"' in said(done)


def by_pytest(url, model, cwd, *options):
    arguments = (
        "--pyargs",
        "roadworthy.conformance",
        "--provider-url",
        url,
        "--model",
        model,
        "-p",
        "no:cacheprovider",
    )
    return run(*arguments, "--only-check", "openapi", *options, module="pytest", cwd=cwd)


def test_pytest_asks_the_same_with_examples_and_seed(tiny, tmp_path):
    record = tmp_path / "run.jsonl"
    more = ("--roadworthy-fuzz-examples", 15, "--roadworthy-seed", 4, "--roadworthy-record", record)
    done = by_pytest(tiny(), "tiny=text-generation@tgi", tmp_path, *more)
    assert done.returncode == 0, said(done)
    assert "5 passed" in said(done)
    head, *rows = [json.loads(line) for line in record.read_text().rstrip("\n").split("\n")]
    assert head["facts"]["seed"] == 4
    assert sum(row["probe"] == "openapi.valid" for row in rows) == 15


def test_pytest_fails_with_the_case_and_its_repetition(tiny, tmp_path):
    done = by_pytest(tiny("garbage"), "tiny=text-generation@tgi", tmp_path)
    assert done.returncode == 1, said(done)
    assert "openapi.no_5xx" in said(done)
    assert "bytes that are not JSON" in said(done)
    assert "repeat:" in said(done)


def test_a_task_of_the_sandbox_by_pytest(tmp_path):
    with running(Sandbox((find("openapi.short_has_no_scores"),), Options(api_key=KEY))) as url:
        done = by_pytest(url, TASK, tmp_path)
    assert done.returncode == 1, said(done)
    assert "4 passed" in said(done)
    assert "1 failed" in said(done)
