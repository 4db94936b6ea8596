"""Checking a cost endpoint as a user does: on the command line, in pytest, from a recording."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.plan import select
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find
from roadworthy.sandbox.server import running

KEY = "api-key-0123456789abcdef"
OWN_KEY = "billing-key-0123456789abcdef"
MODEL = "acme/chat-1"
select()
OURS = {id for id in CHECKS if id.startswith("billing.")}


class Witness:
    """A sandbox that keeps what it was shown."""

    def __init__(self, app):
        self.app = app
        self.seen = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.seen.append((scope["path"], dict(scope["headers"]).get(b"authorization", b"").decode()))
        await self.app(scope, receive, send)


def roadworthy(*arguments, cwd=None, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ROADWORTHY_")}
    return subprocess.run(
        [sys.executable, "-m", "roadworthy", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean | {"COLUMNS": "160"} | environment,
        timeout=100,
        check=False,
    )


def check(url, *arguments, **environment):
    given = {"ROADWORTHY_API_KEY": KEY} | environment
    return roadworthy("check", url, "--model", MODEL, "--only", "billing", *arguments, **given)


@pytest.fixture
def provider():
    app = Witness(Sandbox((), Options(api_key=KEY)))
    with running(app) as url:
        yield app, url


def test_a_run_of_these_checks_alone_makes_the_few_requests_that_it_asks_the_cost_of(provider, tmp_path):
    app, url = provider
    record, report = tmp_path / "run.jsonl", tmp_path / "report.json"
    done = check(url, "--billing-url", f"{url}/request-costs", "--record", record, "--json", report)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["id"]: row["verdict"] for row in json.loads(report.read_text())["checks"]}
    assert rows == dict.fromkeys(OURS, "pass")
    paths = [path for path, _ in app.seen]
    assert len(paths) <= 16
    assert len(OURS) >= 2 * paths.count("/v1/request-costs")
    replayed = roadworthy("replay", record)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert KEY not in record.read_text() + report.read_text() + done.stdout + done.stderr


def test_without_a_billing_url_the_checks_are_skipped_with_the_reason(provider, tmp_path):
    app, url = provider
    report = tmp_path / "report.json"
    done = check(url, "--only", "target", "--json", report)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row for row in json.loads(report.read_text())["checks"] if row["id"] in OURS]
    assert {row["verdict"] for row in rows} == {"skipped"}
    assert all("--billing-url" in row["reason"] for row in rows)
    assert "/v1/request-costs" not in [path for path, _ in app.seen]


def test_a_key_for_costs_goes_to_the_cost_endpoint_and_the_apis_key_does_not(tmp_path):
    record = tmp_path / "run.jsonl"
    api = Witness(Sandbox((), Options(api_key=KEY)))
    costs = Witness(Sandbox([find("billing.text_plain")], Options(api_key=OWN_KEY)))
    with running(api) as url, running(costs) as other:
        refused = check(url, "--billing-url", f"{other}/request-costs")
        assert refused.returncode == 2
        assert "another origin" in refused.stderr
        assert api.seen == costs.seen == []
        limits = ("--billing-url", f"{other}/request-costs", "--billing-timeout", "0.2", "--record", record)
        done = check(url, *limits, ROADWORTHY_BILLING_API_KEY=OWN_KEY)
    # The other sandbox never served these requests, so it has no costs for them.
    assert done.returncode == 1, done.stdout + done.stderr
    assert {shown for _, shown in costs.seen} - {""} == {
        f"Bearer {OWN_KEY}",
        "Bearer roadworthy-wrong-key-0000000000000000",
    }
    assert OWN_KEY not in str(api.seen)
    assert not re.search(f"{KEY}|{OWN_KEY}", record.read_text() + done.stdout + done.stderr)
    tries = [line for line in done.stdout.splitlines() if "request-costs" in line and "curl" in line]
    assert tries
    assert all("$ROADWORTHY_BILLING_API_KEY" in line for line in tries)


def test_the_plan_lists_the_questions_and_sends_none(provider):
    app, url = provider
    done = check(url, "--billing-url", f"{url}/request-costs", "--dry-run", "--price", "0.2,0.6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert app.seen == []
    for probe in ("settle", "again", "batch", "repeated", "empty", "malformed", "wrong_key", "no_key", "get"):
        assert f"billing.{probe} " in done.stdout
    assert re.search(r"billing.settle +POST /v1/request-costs +1-8 +0/0", done.stdout)
    without = check(url, "--dry-run", "--price", "0.2,0.6")
    assert "needs --billing-url" in without.stdout


def test_pytest_has_an_item_for_each(provider, tmp_path):
    _, url = provider
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pyargs", "roadworthy.conformance"]
    command += ["--provider-url", url, "--model", MODEL, "--only-check", "billing", "--junit-xml", "junit.xml"]
    command += ["--provider-billing-url", f"{url}/request-costs", "--roadworthy-billing-timeout", "5"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROADWORTHY_")}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"ROADWORTHY_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = list(ET.parse(tmp_path / "junit.xml").getroot().iter("testcase"))
    assert {case.get("name") for case in cases} == OURS
    assert all(len(case.findall("skipped")) == 0 for case in cases)


def test_settings_name_the_endpoint_and_reports_have_a_group_for_it(tmp_path):
    with running(Sandbox([find("billing.micro_usd")], Options(api_key=KEY))) as url:
        (tmp_path / "roadworthy.toml").write_text(
            f'[target]\nurl = "{url}"\nmodels = ["{MODEL}"]\nbilling_url = "{url}/request-costs"\n'
            '[check]\nonly = ["billing"]\n[limits]\nbilling_timeout_s = 5.0\n'
            '[reports]\nhtml = "report.html"\njunit = "junit.xml"\nmarkdown = "summary.md"\n'
        )
        done = roadworthy("check", cwd=tmp_path, ROADWORTHY_API_KEY=KEY)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "as if micro-USD had been charged" in re.sub(r"\s+", " ", done.stdout)
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "summary.md").read_text()
    assert "billing.cost.price" in html
    assert "billing.cost.price" in markdown
    [failed] = [
        case for case in ET.parse(tmp_path / "junit.xml").getroot().iter("testcase") if case.find("failure") is not None
    ]
    assert failed.get("name") == "billing.cost.price"
    assert "billing" in (failed.get("classname") or "")
