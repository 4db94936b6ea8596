"""Nothing is left behind: runs that make endpoints are killed, interrupted or cut short, and what they made goes.

The provider and the tool are processes of their own; endpoints of other people stand beside what runs make.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

KEY = "acceptance-key-0123456789"
SUBJECT = "acme/chat-1=endpoint-management@endpoints"
PROVIDER = """
import sys
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.mutation import Mutation
from roadworthy.sandbox.server import listen, serve
from roadworthy.sandbox.turn import Kind, Stage
def change(turn):
    turn.skip.add(sys.argv[2])
bound = listen()
print(f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
slow = Mutation("slow", "", frozenset(), Stage.REQUEST, frozenset({Kind.ENDPOINT}), change)
serve(Sandbox([slow], Options(api_key=sys.argv[1])), bound)
"""


class Provider:
    """A provider in a process of its own, and the endpoints that other people have there."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.others = {("team", "somebody-elses"), ("team", "roadworthy-of-a-colleague"), ("else", "their-own")}
        for namespace, name in sorted(self.others):
            self.make(namespace, name)

    def make(self, namespace: str, name: str) -> None:
        compute = {"accelerator": "cpu", "instanceType": "intel-icl", "instanceSize": "x1"}
        body = {
            "name": name,
            "type": "protected",
            "provider": {"vendor": "aws", "region": "us-east-1"},
            "compute": {**compute, "scaling": {"minReplica": 0, "maxReplica": 1}},
            "model": {"repository": "acme/chat-1", "task": "text-generation"},
        }
        self._ask("POST", f"/v2/endpoint/{namespace}", body)

    def there(self) -> set[tuple[str, str]]:
        return {
            (namespace, item["name"])
            for namespace in ("team", "else")
            for item in self._ask("GET", f"/v2/endpoint/{namespace}")["items"]
        }

    def wait_for_a_new_one(self) -> tuple[str, str]:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            new = self.there() - self.others
            if new:
                return new.pop()
            time.sleep(0.02)
        raise AssertionError("no endpoint was made")

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, list[dict[str, str]]]:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.root + path, data, {"Authorization": f"Bearer {KEY}"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())


@pytest.fixture
def provider(request) -> Iterator[Provider]:
    flag = getattr(request, "param", "endpoints.slow")
    process = subprocess.Popen([sys.executable, "-c", PROVIDER, KEY, flag], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Provider(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ROADWORTHY_")}
    return {**kept, "ROADWORTHY_API_KEY": KEY, "ROADWORTHY_STATE_DIR": str(tmp_path / "state")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "roadworthy", *arguments]


def check(root: str, *more: str) -> list[str]:
    return command("check", f"{root}/v1", "-m", SUBJECT, "--allow-writes", "--namespace", "team", *more)


def finish(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=100, check=False)


def start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def journal(environment: dict[str, str]) -> str:
    return (Path(environment["ROADWORTHY_STATE_DIR"]) / "endpoints.jsonl").read_text(encoding="utf-8")


def names(environment: dict[str, str]) -> set[str]:
    return {json.loads(line)["name"] for line in journal(environment).splitlines()}


def killed(provider: Provider, environment: dict[str, str]) -> tuple[str, str]:
    """What a run leaves that is killed while its endpoint starts."""
    process = start(check(provider.root), environment)
    try:
        made = provider.wait_for_a_new_one()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert provider.there() == provider.others | {made}
    assert made[1] in names(environment)
    assert KEY not in journal(environment)
    return made


@pytest.mark.parametrize("suffix", ["/v1", "/v2", ""])
def test_what_a_killed_run_left_is_removed_by_cleanup_and_nothing_else(provider, environment, suffix):
    namespace, name = killed(provider, environment)
    # The same name elsewhere is somebody else's.
    provider.make("else", name)
    elsewhere = finish(command("cleanup", provider.root + suffix, "--namespace", "else"), environment)
    assert (elsewhere.returncode, elsewhere.stdout.strip()) == (0, "nothing is left to remove")
    done = finish(command("cleanup", provider.root + suffix), environment)
    assert done.returncode == 0, done.stderr
    assert f"removed {namespace}/{name}\n" in done.stdout
    assert provider.there() == provider.others | {("else", name)}
    assert names(environment) == set()
    assert finish(command("cleanup", provider.root), environment).stdout == "nothing is left to remove\n"


def test_what_a_killed_run_left_is_removed_by_the_next_run(provider, environment):
    namespace, name = killed(provider, environment)
    readonly = finish(command("check", provider.root, "-m", SUBJECT, "--namespace", "team"), environment)
    assert "needs --allow-writes" in " ".join(readonly.stdout.split())
    assert (namespace, name) in provider.there(), "a run that may not write removes nothing"
    done = finish(check(provider.root, "--only", "endpoints.listed", "--timeout", "2"), environment)
    assert f"removed the endpoint {namespace}/{name}, left by an earlier run" in done.stderr
    # A plan that ends with the making of the endpoint removes it too.
    assert "made by this run" in done.stderr
    assert provider.there() == provider.others
    assert names(environment) == set()


def test_an_interrupted_run_removes_what_it_made(provider, environment):
    process = start(check(provider.root), environment)
    _, name = provider.wait_for_a_new_one()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert f"removed the endpoint team/{name}, made by this run" in said
    assert "Traceback" not in said
    assert provider.there() == provider.others
    assert names(environment) == set()


def test_what_a_run_at_work_has_made_is_left_to_it(provider, environment):
    process = start(check(provider.root), environment)
    made = provider.wait_for_a_new_one()
    done = finish(command("cleanup", provider.root), environment)
    assert f"kept {'/'.join(made)}: the run that made it is still at work" in done.stdout
    assert provider.there() == provider.others | {made}
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert provider.there() == provider.others


@pytest.mark.parametrize("provider", ["endpoints.delete"], indirect=True)
def test_what_cannot_be_removed_is_told_and_not_forgotten(provider, environment):
    run = finish(check(provider.root, "--only", "endpoints.created"), environment)
    [left] = provider.there() - provider.others
    assert f"warning: the endpoint {'/'.join(left)}, made by this run, may still be there" in run.stderr
    assert names(environment) == {left[1]}
    done = finish(command("cleanup", provider.root), environment)
    assert done.returncode == 1
    assert "it is not seen to be gone" in done.stderr
    assert names(environment) == {left[1]}


def test_nothing_is_made_where_the_journal_cannot_be_written(provider, environment, tmp_path):
    (tmp_path / "file").write_text("")
    done = finish(check(provider.root), {**environment, "ROADWORTHY_STATE_DIR": str(tmp_path / "file")})
    assert done.returncode == 2
    assert "the journal of what is made cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert provider.there() == provider.others
