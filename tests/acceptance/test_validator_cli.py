"""`roadworthy validator` as an operator meets it, beside a running service and alone."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from services import enrol, single
from validating import Providers, embeddings, provider_with_mappings

from roadworthy.cli import main
from roadworthy.database import Database, migrate
from roadworthy.database.engine import async_url
from roadworthy.sandbox.server import running
from roadworthy.sealing import Sealer, new_key

KEY = "key-of-a-partner-0123456789"
MODEL = "/api/models/deepseek-ai/DeepSeek-R1?expand[]=inferenceProviderMapping"


def cli(*arguments, **environment):
    """Exit code, stdout and stderr of the command, without the seconds that a process takes to start."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.setattr(sys, "argv", ["roadworthy", *map(str, arguments)])
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    assert "Traceback" not in stderr.getvalue()
    return int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue()


class Place:
    """A database with a provider, its API, and the variables that everything runs with."""

    def __init__(self, folder, app_url):
        self.url = f"sqlite:///{folder / 'a.db'}"
        self.base_url = f"{app_url.removesuffix('/v1')}/together/v1"
        self.environment = {
            "ROADWORTHY_DATABASE_URL": self.url,
            "ROADWORTHY_ALLOW_PRIVATE_TARGETS": "true",
            "ROADWORTHY_SECRET_KEY": new_key(),
            "ROADWORTHY_VALIDATOR_DEBOUNCE_S": "0",
            "ROADWORTHY_VALIDATOR_RETEST_S": "1",
            "PARTNER_KEY": KEY,
        }
        migrate(async_url(self.url))

    def enrol(self):
        async def go():
            database = Database(self.url)
            try:
                return await enrol(database, "together", "admin")
            finally:
                await database.close()

        return asyncio.run(go())[0]

    def __call__(self, *arguments, **environment):
        return cli("validator", *arguments, **(self.environment | environment))

    def json(self, *arguments):
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    @contextlib.contextmanager
    def process(self, *arguments):
        command = [sys.executable, "-m", "roadworthy", *arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.environment},
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def provider():
    app = Providers("together")
    with running(app) as url:
        yield app, url


@pytest.fixture
def place(tmp_path, provider):
    return Place(tmp_path, provider[1])


def until(condition, within_s=30.0):
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def listed_service(place):
    """A running service with a mapping that passed: its process, the mapping's id, and what clients see listed."""
    admin = place.enrol()
    code, _, err = place("endpoint", "set", "together", "--url", place.base_url, "--key-env", "PARTNER_KEY")
    assert code == 0, err
    with place.process("serve", "--port", "0") as service:
        root = service.stdout.readline().strip()
        until(lambda: answers(root))
        body = single() | {"providerModel": "acme/chat-1", "status": "live"}
        id = httpx.post(f"{root}/api/partners/together/models", json=body, headers=admin.headers).json()["_id"]

        def listed():
            return httpx.get(root + MODEL).json()["inferenceProviderMapping"]

        until(lambda: place.json("status")["providers"][0]["states"] == {"live": 1})
        assert "together" in listed()
        yield service, id, listed


def stops_in_order(service):
    service.send_signal(signal.SIGTERM)
    assert service.wait(20) == 0
    errors = service.stderr.read()
    assert "Traceback" not in errors
    assert KEY not in errors


def test_a_mapping_leaves_the_list_and_comes_back_beside_a_running_service(place, provider, tmp_path):
    app, _ = provider
    with listed_service(place) as (service, id, listed):
        app.give("together", "chat.content_type_text")
        code, out, _ = place("once", "--mapping", id)
        assert code == 1
        assert "content_type" in out
        assert listed() == {}
        [latest, *_] = place.json("history", id)
        assert (latest["result"], latest["class"]) == ("fails", "contract")
        assert latest["findings"]

        file = tmp_path / "failing.jsonl"
        assert place("recording", id, "--failing", "-o", file)[0] == 0
        assert KEY not in file.read_text(encoding="utf-8")
        report = tmp_path / "report.json"
        code, _, err = cli("replay", file, "--lens", "hub", "--json", report)
        assert code == 1, err
        failed = {finding["check"] for finding in latest["findings"] if finding["level"] == "MUST"}
        assert failed
        assert all(check in report.read_text(encoding="utf-8") for check in failed)

        app.give("together")
        until(lambda: "together" in listed())  # the retest, a second later
        assert place("recording", id, "--passing", "-o", file)[0] == 0
        assert cli("replay", file, "--lens", "hub", "--quiet")[0] != 1
        stops_in_order(service)


def test_what_is_suspended_is_off_the_list_and_not_asked(place, provider):
    app, _ = provider
    with listed_service(place) as (service, id, listed):
        assert place("pause", id)[0] == 0
        assert listed() == {}
        assert place.json("due") == []
        asked = app.asked["together"]
        code, out, _ = place("once", "--mapping", id)
        assert code == 3
        assert "suspended" in out
        assert app.asked["together"] == asked
        assert place("resume", id)[0] == 0
        until(lambda: "together" in listed())

        assert place("pause", "together")[0] == 0
        assert listed() == {}
        code, _, err = place("resume", id)
        assert (code, "validator resume together" in err) == (2, True)
        assert place("resume", "together")[0] == 0
        until(lambda: "together" in listed())
        stops_in_order(service)


def answers(root):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(root + "/readyz").status_code == 200
    return False


def test_without_the_validator_nothing_is_asked_and_validator_run_does_it_alone(place, provider):
    app, _ = provider
    admin = place.enrol()
    place("endpoint", "set", "together", "--url", place.base_url)
    with place.process("serve", "--port", "0", "--no-validator") as service:
        root = service.stdout.readline().strip()
        until(lambda: answers(root))
        body = single() | {"providerModel": "acme/chat-1", "status": "live"}
        assert httpx.post(f"{root}/api/partners/together/models", json=body, headers=admin.headers).status_code == 201
        time.sleep(1.5)
        assert app.asked["together"] == 0
        with place.process("validator", "run") as alone:
            until(lambda: place.json("status")["providers"][0]["states"] == {"live": 1})
            alone.send_signal(signal.SIGTERM)
            assert alone.wait(20) == 0
            assert "Traceback" not in alone.stderr.read()
    assert app.asked["together"] > 5
    assert place.json("status")["running"] == 0


def test_once_runs_what_is_due_and_force_what_is_not(place, provider):
    app, _ = provider

    async def prepare():
        database = Database(place.url)
        sealer = Sealer(place.environment["ROADWORTHY_SECRET_KEY"])
        made = await provider_with_mappings(database, "together", place.base_url, embeddings(2), key=KEY, sealer=sealer)
        made += await provider_with_mappings(database, "groq", None, embeddings(1))
        await database.close()
        return [each.id for each in made]

    one, two, orphan = asyncio.run(prepare())
    code, out, _ = place("once")
    assert code == 3, "one of them has no API"
    assert [line.split()[0] for line in out.splitlines()] == ["mapping", orphan, one, two]
    assert "validator endpoint set groq" in out
    assert app.keys["together"] == {f"Bearer {KEY}"}
    code, out, err = place("once", "--provider", "together")
    assert (code, out) == (0, "")
    assert "nothing is due" in err
    asked = app.asked["together"]
    app.give("together", "embeddings.as_text")
    code, out, _ = place("once", "--provider", "together", "--force", "--json")
    assert code == 1
    assert {row["mapping"]: row["result"] for row in json.loads(out)} == {one: "fails", two: "fails"}
    assert app.asked["together"] > asked
    assert place.json("status")["providers"][1]["states"] == {"failing": 2}
    text = place("status")[1]
    assert re.search(r"together\s+failing=2", text)
    assert "3 mappings, 0 running" in text
    assert [row["state"] for row in place.json("due", "--limit", "1")] == ["failing"]
    assert len(place.json("history", one)) == 2


def test_an_endpoint_is_set_shown_and_removed_and_its_key_shown_to_nobody(place, tmp_path):
    place.enrol()
    options = tmp_path / "options.toml"
    options.write_text("timeout_s = 5\n[apis]\nconversational = 'tgi'\n", encoding="utf-8")
    set_it = ("endpoint", "set", "together", "--url", place.base_url)
    code, out, err = place(*set_it, "--key-env", "PARTNER_KEY", "--max-running", 7, "--options", options)
    assert code == 0, err
    shown = place("endpoint", "show")[1]
    [entry] = place.json("endpoint", "show", "together")
    assert (entry["key"], entry["max_running"]) == ("yes", 7)
    assert entry["options"] == {"apis": {"conversational": "tgi"}, "timeout_s": 5.0}
    assert KEY not in f"{out}{err}{shown}{entry}"
    assert place(*set_it)[0] == 0
    assert place.json("endpoint", "show")[0] == entry, "what was not named changed"
    code, _, err = place("endpoint", "set", "together", "--url", "http://127.0.0.1:1/v1")
    assert code == 0
    assert "the key was for another origin" in err
    assert place.json("endpoint", "show")[0]["key"] == "no"
    assert place("quiet", "together", "--for", "2h")[0] == 0
    assert place.json("endpoint", "show")[0]["quiet_until"]
    assert place("quiet", "together", "--for", "0")[0] == 0
    assert place.json("endpoint", "show")[0]["quiet_until"] is None
    assert place("endpoint", "remove", "together")[0] == 0
    assert place("endpoint", "show") == (
        0,
        "",
        "no API is registered: roadworthy validator endpoint set PROVIDER --url URL --key-env NAME\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("endpoint", "set", "groq", "--url", "https://x.example/v1"), "there is no provider 'groq'"),
        (("endpoint", "set", "together", "--url", "x"), "expected a base URL"),
        (("endpoint", "set", "together", "--url", "https://x.example/?a=1"), "no query"),
        (("endpoint", "set", "together", "--url", "https://x.example", "--key-env", "NOT_SET"), "NOT_SET is not set"),
        (("endpoint", "set", "together", "--url", "https://x.example", "--options", "none.toml"), "cannot be read"),
        (("endpoint", "show", "together"), "no API is registered for together"),
        (("endpoint", "remove", "together"), "no API is registered for together"),
        (("pause", "together"), "no API is registered for together"),
        (("pause", "0" * 24), "there is no mapping"),
        (("history", "0" * 24), "there is no mapping"),
        (("recording", "0" * 24, "-o", "x"), "there is no recording of a failing run"),
        (("once", "--mapping", "0" * 24), "there is no mapping"),
        (("once", "--provider", "groq"), "there is no provider"),
        (("quiet", "together", "--for", "soon"), "expected a time such as"),
        (("quiet", "together", "--for", "90d"), "at most 31 days"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value[:2]),
)
def test_what_cannot_be_done_is_one_sentence(place, arguments, message):
    place.enrol()
    code, out, err = place(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_private_address_is_refused_unless_the_operator_allows_it(place):
    place.enrol()
    code, _, err = place(
        "endpoint", "set", "together", "--url", place.base_url, ROADWORTHY_ALLOW_PRIVATE_TARGETS="false"
    )
    assert code == 2
    assert "ROADWORTHY_ALLOW_PRIVATE_TARGETS" in err


def test_the_settings_of_the_validator_are_shown_with_their_origin(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roadworthy.toml").write_text("[validator]\nrunning = 7\n", encoding="utf-8")
    code, out, _ = cli("serve", "--show-settings", **place.environment)
    assert code == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert rows["validator"].split() == ["True", "(default)"]
    assert rows["validator.running"].split() == ["7", "(roadworthy.toml)"]
    assert "ROADWORTHY_VALIDATOR_RETEST_S" in rows["validator.retest_s"]
