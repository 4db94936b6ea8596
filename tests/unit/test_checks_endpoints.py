"""Checks of endpoint management on answers that no sandbox gives, and what its probes may touch."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from exchanges import exchange

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.dry_run import outline, totals
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.probe import PROBES, Context
from roadworthy.conformance.probes import endpoints as probes
from roadworthy.conformance.run import Settings
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import CheckResult, Verdict
from roadworthy.sandbox.mutation import Mutation
from roadworthy.sandbox.turn import Kind, Stage

SUBJECT = "acme/chat-1=endpoint-management@endpoints"
FACTS = Facts("http://127.0.0.1:1/v1", "acme/chat-1", "endpoint-management", Api.ENDPOINTS, allow_writes=True)
select()
MINE = [check for check in CHECKS.values() if check.family == "endpoints"]
STEPS = [probe for probe in PROBES.values() if probe.id.startswith("endpoints.")]
NAME = "roadworthy-0123456789abcdef"


def made(**changes: Any) -> Exchange:
    return exchange("endpoints.create", changes.pop("body", {}), **{"status": 201, "sent": {"name": NAME}, **changes})


def told(probe: Any, state: str = "running", trial: int = 1, **status: Any) -> Exchange:
    return exchange(probe.id, {"name": NAME, "status": {"state": state, **status}}, trial=trial)


def verdict(id: str, *exchanges: Exchange) -> CheckResult:
    [result] = judge([CHECKS[id]], exchanges, FACTS)
    return result


HOSTILE = [
    None,
    [],
    "x",
    7,
    {},
    {"status": []},
    {"status": {"state": 7, "createdAt": [], "updatedAt": {}, "url": "http://[::"}},
    {
        "status": {
            "state": "running",
            "createdAt": "0001-01-01T00:00:00+14:00",
            "updatedAt": "9999-12-31T23:59:59-14:00",
        }
    },
    {"status": {"state": "paused", "createdAt": "2026-99-99T99:99:99Z", "updatedAt": "0001-01-01T00:00:00Z"}},
    {"items": [1, None, {"name": []}, {"name": {}}]},
    {"items": {"name": "x"}, "name": [], "compute": [], "model": 3, "provider": "aws"},
    {"statusCode": [], "error": {}},
    {"request_duration_ms": {"p50": "1", "p90": True, "p99": None}},
    b"",
    b"\xff\xfe{",
    b'{"status": {"state": NaN}}',
]


@pytest.mark.parametrize(("body", "status"), list(product(HOSTILE, (200, 201, 204, 404, 409, 500))))
def test_no_answer_makes_a_check_raise(body, status):
    odd = (("content-type", "application/json"), ("date", "Mon, 99 Foo 99999 99:99:99 +99999999"))
    exchanges = [exchange(p.id, body, status=status, sent={"name": NAME}, headers=odd) for p in STEPS]
    assert len(judge(MINE, exchanges, FACTS)) == len(MINE)
    for first in (told(probes.create), made()):
        mixed = [first, *(x for x in exchanges if x.probe != "endpoints.create")]
        assert len(judge(MINE, mixed, FACTS)) == len(MINE)


@pytest.mark.parametrize("answer", [made(status=409), made(status=500), made(status=401), made(sent={"name": "other"})])
def test_nothing_is_sent_to_an_endpoint_that_was_not_made(answer):
    for probe in STEPS:
        draft = probe.build(Context(FACTS, earlier={"endpoints.create": answer}))
        if draft is not None and draft.method != "GET":
            assert probe.id in ("endpoints.create", "endpoints.invalid")
            assert draft.method == "POST"
            assert draft.json["name"].startswith(probes.PREFIX)


def test_every_write_is_about_the_endpoint_that_was_made():
    drafts = [probe.build(Context(FACTS, earlier={"endpoints.create": made()})) for probe in STEPS if probe.writes]
    changes = [draft for draft in drafts if draft is not None and draft.method in ("PUT", "DELETE", "POST")]
    assert len(changes) == 11
    for draft in changes:
        if draft.path == "/v2/endpoint/roadworthy":
            assert draft.method == "POST"
            assert draft.json["name"].startswith(probes.PREFIX)
        else:
            assert f"{draft.path}/".startswith(f"/v2/endpoint/roadworthy/{NAME}/")
    for probe in STEPS:
        draft = probe.build(Context(FACTS))
        assert probe.writes or draft is None or draft.method == "GET", probe.id


def test_names_are_valid_and_of_one_run():
    frames = [FACTS, replace(FACTS, run="1"), replace(FACTS, seed=1), replace(FACTS, judged_at=1)]
    found = {probes.fresh_name(facts, kind) for facts in frames for kind in ("", "invalid", "unknown")}
    assert len(found) == 12
    assert all(len(name) <= 32 and name.replace("-", "").isalnum() and name.islower() for name in found)


@pytest.mark.parametrize(
    ("base_url", "path"),
    [("http://h/v1", "/v2/endpoint/a%2Fb"), ("http://h", "/v2/endpoint/a%2Fb"), ("http://h/v2", "/endpoint/a%2Fb")],
)
def test_the_routes_begin_once_with_their_version(base_url, path):
    assert probes.route(replace(FACTS, base_url=base_url, namespace="a/b")) == path


def test_a_machine_is_taken_that_is_on_offer():
    gpu = {"name": "gpu", "instanceType": "nvidia-a10g", "instanceSizes": ["x1"]}
    cpu = {"name": "cpu", "instanceType": "amd", "instanceSizes": ["x2", "x4"]}
    closed = {"vendor": "aws", "region": "r1", "status": "unavailable", "accelerators": [cpu]}
    rows = [closed, {"vendor": "gcp", "region": "r2", "accelerators": [{}, {"instanceSizes": [3]}, gpu, cpu]}]
    context = Context(FACTS, earlier={"endpoints.providers": exchange("endpoints.providers", {"items": rows})})
    assert probes.place(context) == ("gcp", "r2", "cpu", "amd", "x2")
    assert probes.place(Context(FACTS))[0] == "aws"


def test_an_endpoint_that_still_starts_when_time_is_over_is_no_failure(run_sandbox):
    slow = Mutation(
        "slow", "", frozenset(), Stage.REQUEST, frozenset({Kind.ENDPOINT}), lambda t: t.skip.add("endpoints.slow")
    )
    run = run_sandbox(slow, subject=SUBJECT, allow_writes=True, settings=Settings(total_timeout_s=0.3))
    results = {r.check_id: r for r in judge(run.checks, run.exchanges, run.facts, run.unsent)}
    assert results["endpoints.starts"].verdict is Verdict.INCONCLUSIVE
    assert "--timeout gives it more" in results["endpoints.starts"].reason
    assert [r for r in results.values() if r.verdict in (Verdict.FAIL, Verdict.WARN)] == []
    assert results["endpoints.gone"].verdict is Verdict.PASS


def test_without_leave_nothing_is_changed_and_the_report_says_what_is_missing(run_sandbox):
    run = run_sandbox(subject=SUBJECT)
    assert {x.request.method for x in run.exchanges} == {"GET"}
    results = judge(run.checks, run.exchanges, run.facts, run.unsent)
    skipped = [r for r in results if r.verdict is Verdict.SKIPPED and r.check_id.startswith("endpoints.")]
    assert len(skipped) > 20
    assert {r.reason for r in skipped} == {"nothing to ask: it changes the target, which needs --allow-writes"}
    assert {r.verdict for r in results} == {Verdict.PASS, Verdict.SKIPPED}
    assert all(not probe.writes or probe.id in run.unsent for probe in plan(FACTS, MINE).probes)


@pytest.mark.parametrize(
    ("steps", "good"),
    [
        ([(probes.create, "pending"), (probes.started, "running")], True),
        ([(probes.create, "initializing"), (probes.started, "pending"), (probes.started, "running")], True),
        ([(probes.create, "pending"), (probes.started, "failed"), (probes.started, "running")], True),
        ([(probes.create, "pending"), (probes.started, "paused")], False),
        ([(probes.create, "running"), (probes.update, "running"), (probes.updated, "updating")], True),
        ([(probes.create, "running"), (probes.started, "updating")], False),
        ([(probes.create, "running"), (probes.pause, "running"), (probes.paused, "updating")], True),
        ([(probes.create, "running"), (probes.pause, "paused"), (probes.paused, "running")], False),
        ([(probes.create, "running"), (probes.scale, "scaledToZero"), (probes.scaled, "running")], False),
        ([(probes.create, "running"), (probes.started, "somewhere"), (probes.started, "running")], True),
    ],
)
def test_which_changes_of_state_are_legal(steps, good):
    seen = [told(probe, state, trial) for trial, (probe, state) in enumerate(steps, 1)]
    assert (verdict("endpoints.transitions", *seen).verdict is Verdict.PASS) is good


@pytest.mark.parametrize(
    ("old", "new", "date", "good"),
    [
        ("2026-01-15T10:30:00Z", "2026-01-15T10:30:01Z", "", True),
        ("2026-01-15T10:30:00Z", "2026-01-15T10:30:00Z", "Thu, 15 Jan 2026 10:30:01 GMT", True),
        ("2026-01-15T10:30:00Z", "2026-01-15T10:30:00Z", "Thu, 15 Jan 2026 10:30:09 GMT", False),
        ("2026-01-15T10:30:00.5Z", "2026-01-15T10:30:00.5Z", "Thu, 15 Jan 2026 10:30:01 GMT", False),
        ("2026-01-15T12:30:00+02:00", "2026-01-15T10:30:01Z", "", True),
    ],
)
def test_whole_seconds_are_not_taken_for_a_clock_that_stands(old, new, date, good):
    body = json.dumps({"status": {"state": "running", "updatedAt": new}}).encode()
    after = exchange("endpoints.updated", body, headers=(("content-type", "application/json"), ("date", date)))
    seen = (told(probes.started, updatedAt=old), told(probes.update), after)
    assert (verdict("endpoints.updated_at", *seen).verdict is Verdict.PASS) is good


def test_an_account_that_may_not_make_endpoints_proves_nothing_against_the_api():
    assert verdict("endpoints.created", made(status=402)).verdict is Verdict.INCONCLUSIVE
    assert verdict("endpoints.created", made(status=400)).verdict is Verdict.FAIL


def test_a_dry_run_counts_no_tokens_and_no_writes_without_leave():
    reads = outline(plan(replace(FACTS, allow_writes=False), MINE), Settings())
    assert {item.skipped for item in reads if item.probe.writes} == {"needs --allow-writes"}
    assert totals(reads) == (5, 0, 0)
    requests, *tokens = totals(outline(plan(FACTS, MINE), Settings()))
    assert requests == len(STEPS)
    assert tokens == [0, 0]
