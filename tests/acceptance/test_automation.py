"""The action, the workflow and the Makefile: they say what the command line understands, and do it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find
from roadworthy.sandbox.server import running

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
KEY = "action-key-0123456789"
REPORTS = {"report.html", "junit.xml", "report.json", "badge.svg", "run.jsonl"}


def step(id):
    return next(step for step in ACTION["runs"]["steps"] if step.get("id") == id)


class Job:
    """The action's check step, run by bash as a runner would."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "temp").mkdir()
        (folder / "temp" / "roadworthy").symlink_to(sys.prefix)

    def check(self, **inputs):
        unknown = set(inputs) - {name.replace("-", "_") for name in ACTION["inputs"]}
        assert not unknown, unknown
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ROADWORTHY_")}
        for name, value in step("check")["env"].items():
            input = re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", value).group(1)
            environment[name] = inputs.get(input.replace("-", "_"), ACTION["inputs"][input]["default"])
        environment |= {
            "RUNNER_TEMP": str(self.folder / "temp"),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            "GITHUB_OUTPUT": str(self.folder / "output"),
            "ACME_KEY": KEY,
        }
        (self.folder / "output").write_text("")
        script = self.folder / "temp" / "step.sh"
        script.write_text(step("check")["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        outputs = dict(line.partition("=")[::2] for line in (self.folder / "output").read_text().splitlines())
        return done, outputs


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.mark.parametrize(
    ("faults", "code", "verdict"), [((), 0, "pass"), (("chat.stream.no_done",), 1, "fail")], ids=["healthy", "faulty"]
)
def test_the_action_checks_reports_and_ends_with_the_verdict(job, faults, code, verdict):
    with running(Sandbox([find(name) for name in faults], Options(api_key=KEY))) as url:
        done, outputs = job.check(url=url, model="acme/chat-1\n", api_key=KEY, lens="hub\nopenai", args="--trials\n5\n")
    assert done.returncode == code, done.stdout + done.stderr
    assert outputs == {"verdict": verdict, "exit-code": str(code)}
    assert {path.name for path in (job.folder / "roadworthy-reports").iterdir()} == REPORTS
    assert "chat" in (job.folder / "summary.md").read_text(encoding="utf-8")
    assert KEY not in done.stdout + done.stderr


def test_the_action_takes_a_config_and_the_name_of_a_key(job):
    with running(Sandbox((), Options(api_key=KEY))) as url:
        (job.folder / "settings.toml").write_text(
            f'[target]\nurl = "{url}"\nmodels = ["acme/chat-1"]\n[check]\nonly = ["chat.stream"]\n'
        )
        done, outputs = job.check(config="settings.toml", api_key_env="ACME_KEY")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outputs["verdict"] == "pass"


def test_the_action_says_what_is_wrong_with_its_inputs(job):
    done, outputs = job.check(url="not-a-url", model="m")
    assert done.returncode == 2
    assert outputs == {"verdict": "", "exit-code": "2"}
    assert "not-a-url" in done.stderr


@pytest.mark.parametrize("name", ["url", "model", "billing_url", "lens", "config", "baseline", "args", "reports"])
def test_text_in_an_input_is_never_code(job, name):
    evil = '$(touch pwned)`touch pwned`"; touch pwned; "'
    job.check(**{"url": "http://127.0.0.1:9/v1", "model": "m", name: evil})
    assert not (job.folder / "pwned").exists()


def test_no_script_has_an_expression_inside():
    """An expression is pasted into the script before bash reads it, so text in an input could become code."""
    scripts = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]
    scripts += [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    assert len(scripts) >= 4
    assert [script for script in scripts if "${{" in script] == []


def test_every_input_is_used_and_every_flag_exists():
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for name, input in ACTION["inputs"].items():
        assert f"inputs.{name} " in text, f"the input {name} does nothing"
        assert input["description"]
    used = set(re.findall(r"--[a-z][a-z-]+", step("check")["run"]))
    help = subprocess.run(
        [sys.executable, "-m", "roadworthy", "check", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200"},
    ).stdout
    assert used - set(re.findall(r"--[a-z][a-z-]+", help)) == set()
    assert {"--html", "--junit", "--json", "--markdown", "--badge", "--record", "--lens", "--baseline"} <= used


def test_the_workflow_tries_every_supported_python_by_the_same_script():
    test = WORKFLOW["jobs"]["test"]
    assert test["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert any(step.get("run") == ".ci/run" for step in test["steps"])
    assert WORKFLOW["permissions"] == {"contents": "read"}
    used = [step["with"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if step.get("uses") == "./"]
    assert used
    for inputs in used:
        assert set(inputs) <= set(ACTION["inputs"])


def test_the_ci_script_is_bash_and_calls_what_there_is():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "ROADWORTHY_FORBID_SKIPS=1" in text
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "lint", "bench", "clean"} <= targets
    called = set(re.findall(r"^make ([a-z]+)$", text, re.MULTILINE))
    assert called == {"lint", "test"} <= targets


def test_make_names_what_is_missing_for_an_old_python(tmp_path):
    """With only a Python older than 3.11 to be found, make says so; it does not fail somewhere in the middle."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "sed", "grep", "touch", "make"):
        found = next(
            path for path in (Path(p) / name for p in os.environ["PATH"].split(os.pathsep)) if os.access(path, os.X_OK)
        )
        (tools / name).symlink_to(found)
    old = tools / "python3"
    old.write_text("#!/bin/bash\nexit 1\n")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [tools / "make", "demo"],
        cwd=tmp_path,
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "no Python 3.11 or newer found" in done.stderr
