"""`pytest --pyargs roadworthy.conformance` in somebody else's repository: the same verdicts as pytest items."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.plan import select
from roadworthy.conformance.verdict import Level
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import load
from roadworthy.sandbox.mutation import FAULTS
from roadworthy.sandbox.server import running

MODEL = "acme/chat-1"
KEY = "sandbox-key-0123456789abcdef"
load()
select()


class Counted:
    """An application that remembers which paths were asked for."""

    def __init__(self, app):
        self.app = app
        self.paths = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.paths.append(scope["path"])
        await self.app(scope, receive, send)


class Repository:
    """A partner's repository: packages named like ours, hooks that know only test functions, strict settings."""

    def __init__(self, folder):
        self.folder = folder
        for package in ("schemas", "billing", "conformance"):
            (folder / package).mkdir()
            (folder / package / "__init__.py").write_text(f"OWNER = 'partner {package}'\n")
        (folder / "test_own.py").write_text(
            "import billing, conformance, schemas\n"
            "def test_own():\n"
            "    owners = [schemas.OWNER, billing.OWNER, conformance.OWNER]\n"
            "    assert owners == ['partner schemas', 'partner billing', 'partner conformance']\n"
        )
        (folder / "conftest.py").write_text(
            "import pytest\n"
            "@pytest.fixture(autouse=True)\n"
            "def database():\n"
            "    raise RuntimeError('no database here')\n"
            "def pytest_collection_modifyitems(items):\n"
            "    for item in items:\n"
            "        if 'db' in item.fixturenames or item.get_closest_marker('slow'):\n"
            "            item.add_marker(pytest.mark.skip)\n"
        )
        (folder / "pytest.ini").write_text(
            "[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n"
            "python_files = check_*.py\npython_functions = check_*\n"
        )

    def pytest(self, *args, url=None, model=MODEL):
        command = [sys.executable, "-m", "pytest", "--pyargs", *args]
        if url is not None:
            command += ["--provider-url", url]
        if model is not None:
            command += ["--model", model]
        command += ["--junitxml", "junit.xml"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment |= {"ROADWORTHY_API_KEY": KEY, "PYTHONWARNINGS": "error::ResourceWarning"}
        (self.folder / "junit.xml").unlink(missing_ok=True)
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    def verdicts(self):
        """What the JUnit file says of each item."""
        words = {}
        for case in ET.parse(self.folder / "junit.xml").getroot().iter("testcase"):
            kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            words[case.get("name")] = kinds[0] if kinds else "passed"
        return words


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def provider(*names, **options):
    app = Counted(Sandbox([FAULTS[name] for name in names], Options(api_key=KEY, **options)))
    return app, running(app)


def failed(verdicts):
    return {name for name, word in verdicts.items() if word == "failure"}


def test_a_healthy_provider_is_green_item_by_item(repository):
    app, server = provider()
    with server as url:
        done = repository.pytest("roadworthy.conformance", url=url)
    assert done.returncode == 0, done.stdout + done.stderr
    # The first is opt-in; the second needs a provider that limits somebody; the third is a contradiction of clients.
    skipped = dict.fromkeys(
        ("discovery.advertised", "errors.retry_after", "clients.javascript.shows_errors"), "skipped"
    )
    about_chat = [check for check in select() if check.applies(Facts(url, "acme/chat-1"))]
    # No billing URL was given.
    skipped |= {check.id: "skipped" for check in about_chat if check.family == "billing"}
    verdicts = repository.verdicts()
    if verdicts["clients.python.reads"] == "skipped":
        skipped |= {check.id: "skipped" for check in about_chat if check.family == "clients"}
    assert verdicts == dict.fromkeys((check.id for check in about_chat), "passed") | skipped
    assert app.paths


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_fault_fails_exactly_its_items(repository, workers):
    _, server = provider("chat.stream.no_done")
    with server as url:
        done = repository.pytest("roadworthy.conformance", *workers, url=url)
    assert done.returncode == 1, done.stdout + done.stderr
    assert failed(repository.verdicts()) == FAULTS["chat.stream.no_done"].caught_by
    assert CHECKS["chat.stream.done"].remedy in done.stdout
    assert "repeat: curl " in done.stdout
    assert "Traceback" not in done.stdout
    assert KEY not in done.stdout


def test_the_partners_own_tests_run_beside_it(repository):
    repository.folder.joinpath("conftest.py").write_text("")
    repository.folder.joinpath("pytest.ini").write_text("[pytest]\n")
    _, server = provider()
    with server as url:
        done = repository.pytest("test_own.py", "roadworthy.conformance", "-k", "test_own or chat.stream.done", url=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert repository.verdicts() == {"test_own": "passed", "chat.stream.done": "passed"}


def test_a_deselected_check_costs_no_request_and_xdist_asks_once(repository):
    counts = {}
    for name, args in {
        "one": ("-k", "chat.shape"),
        "all": (),
        "all by two workers": ("-n", "2"),
        "collected only": ("--collect-only",),
    }.items():
        app, server = provider()
        with server as url:
            done = repository.pytest("roadworthy.conformance", "--only-check", "chat", *args, url=url)
        assert done.returncode == 0, done.stdout + done.stderr
        counts[name] = len(app.paths)
    assert counts["collected only"] == 0
    assert counts["one"] < counts["all"]
    assert counts["all by two workers"] == counts["all"]


def test_a_closed_port_fails_with_the_reason_and_no_traceback(repository):
    with running(Sandbox()) as url:
        pass
    done = repository.pytest("roadworthy.conformance", url=url)
    assert done.returncode == 1
    verdicts = repository.verdicts()
    assert verdicts["chat.stream.done"] == verdicts["target.answers"] == "failure"
    assert "passed" not in verdicts.values()
    assert "inconclusive: " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_broken_should_passes_with_a_warning(repository):
    # A fault of latency shows only under limits shorter than the hub's, one of billing only with a cost endpoint.
    name = next(
        fault.name
        for fault in FAULTS.values()
        if fault.family not in ("latency", "billing")
        and all(CHECKS[id].level is not Level.MUST for id in fault.caught_by)
    )
    few = [word for id in FAULTS[name].caught_by for word in ("--only-check", id)]
    for workers in ((), ("-n", "2")):
        _, server = provider(name)
        with server as url:
            done = repository.pytest("roadworthy.conformance", *few, *workers, url=url)
        assert done.returncode == 0, done.stdout + done.stderr
        _, _, summary = done.stdout.partition("roadworthy warnings")
        for check_id in FAULTS[name].caught_by:
            assert check_id in summary
            assert CHECKS[check_id].remedy in summary


def test_a_known_failure_is_expected_and_a_stale_entry_fails(repository):
    known = repository.folder / "known.toml"
    known.write_text('[[known]]\ncheck = "chat.stream.done"\nmodel = "*"\nreason = "being mended"\n')
    for names, code, baseline in ((["chat.stream.no_done"], 0, "passed"), ([], 1, "failure")):
        _, server = provider(*names)
        with server as url:
            done = repository.pytest(
                "roadworthy.conformance", "--only-check", "chat.stream", "--roadworthy-baseline", str(known), url=url
            )
        assert done.returncode == code, done.stdout + done.stderr
        assert repository.verdicts()["baseline"] == baseline
        assert repository.verdicts()["chat.stream.done"] == ("skipped" if names else "passed")
    assert "being mended" in done.stdout


def test_several_models_each_have_their_items(repository):
    _, server = provider(models=(MODEL, "acme/chat-2"))
    with server as url:
        args = ("--model", "acme/chat-2", "--only-check", "target.answers", "-v")
        done = repository.pytest("roadworthy.conformance", *args, url=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(repository.verdicts()) == {"target.answers[acme/chat-1]", "target.answers[acme/chat-2]"}


def test_the_last_failed_items_can_be_run_alone(repository):
    _, server = provider("chat.stream.no_done")
    with server as url:
        few = ("roadworthy.conformance", "--only-check", "chat.stream")
        repository.pytest(*few, url=url)
        assert len(repository.verdicts()) > len(FAULTS["chat.stream.no_done"].caught_by)
        done = repository.pytest(*few, "--lf", url=url)
    assert done.returncode == 1
    assert set(repository.verdicts()) == FAULTS["chat.stream.no_done"].caught_by


def test_a_timeout_per_test_is_not_spent_by_the_run(repository):
    with repository.folder.joinpath("pytest.ini").open("a") as file:
        file.write("timeout = 1\n")
    _, server = provider(first_token_delay_s=1.5)
    with server as url:
        done = repository.pytest("roadworthy.conformance", "--only-check", "chat.stream.done", url=url)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_interrupt_ends_the_run_at_once(repository):
    app, server = provider(first_token_delay_s=8)
    with server as url:
        command = ["--pyargs", "roadworthy.conformance", "--provider-url", url, "--provider-model", MODEL]
        running_pytest = subprocess.Popen(
            [sys.executable, "-m", "pytest", *command, "--only-check", "chat.stream.done"],
            cwd=repository.folder,
            env=os.environ | {"ROADWORTHY_API_KEY": KEY},
            stdout=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while app.paths.count("/v1/chat/completions") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        interrupted = time.monotonic()
        running_pytest.send_signal(signal.SIGINT)
        said, _ = running_pytest.communicate(timeout=30)
        took_s = time.monotonic() - interrupted
    assert running_pytest.returncode == 2, said
    assert "KeyboardInterrupt" in said
    assert took_s < 5


def test_a_recording_can_be_replayed(repository):
    _, server = provider("chat.stream.no_done")
    with server as url:
        few = ("--only-check", "chat.stream", "--roadworthy-record", "run.jsonl", "-n", "2")
        repository.pytest("roadworthy.conformance", *few, url=url)
    replay = [sys.executable, "-m", "roadworthy", "replay", "run.jsonl"]
    done = subprocess.run(replay, cwd=repository.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "chat.stream.done" in done.stdout


@pytest.mark.parametrize(
    ("args", "model", "url", "said"),
    [
        ((), None, None, "--provider-url"),
        ((), None, "http://127.0.0.1:9/v1", "--provider-model"),
        (("--only-check", "no.such"), MODEL, "http://127.0.0.1:9/v1", "no check is called 'no.such'"),
        (("--roadworthy-config", "missing.toml"), MODEL, None, "missing.toml"),
        (("--provider-api-key-env", "UNSET_VARIABLE"), MODEL, "http://127.0.0.1:9/v1", "UNSET_VARIABLE"),
    ],
)
def test_wrong_usage_is_said_and_never_green(repository, args, model, url, said):
    done = repository.pytest("roadworthy.conformance", *args, url=url, model=model)
    assert done.returncode == 2
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_option_of_the_repository_keeps_its_name(repository):
    repository.folder.joinpath("conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--model', default='theirs')\n"
    )
    _, server = provider()
    with server as url:
        few = ("--only-check", "target.answers", "--provider-model", MODEL)
        done = repository.pytest("roadworthy.conformance", *few, url=url, model="other")
        assert done.returncode == 0, done.stdout + done.stderr
        missing = repository.pytest("roadworthy.conformance", url=url)
    assert missing.returncode == 2
    assert "--model belongs to another plugin here" in missing.stdout


def test_a_plain_run_leaves_other_repositories_alone(repository):
    repository.folder.joinpath("conftest.py").write_text(
        "def pytest_addoption(parser):\n"
        "    parser.addoption('--model', default='theirs')\n"
        "    parser.addoption('--lens', default='theirs')\n"
    )
    repository.folder.joinpath("pytest.ini").write_text("[pytest]\n")
    done = repository.pytest("test_own.py", model="mine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert repository.verdicts() == {"test_own": "passed"}
