"""The kill matrix: every fault is caught by exactly its checks, every legal variation by none."""

from __future__ import annotations

import pytest

from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import select
from roadworthy.conformance.verdict import Verdict
from roadworthy.sandbox.catalogue import load
from roadworthy.sandbox.mutation import FAULTS, VARIATIONS

load()
BAD = (Verdict.FAIL, Verdict.WARN)


def failures(run) -> dict[str, str]:
    results = judge(run.checks, run.exchanges, run.facts, run.unsent)
    return {r.check_id: (r.findings[0].got if r.findings else r.reason) for r in results if r.verdict in BAD}


def test_the_healthy_provider_passes_every_check(run_sandbox):
    run = run_sandbox()
    results = judge(run.checks, run.exchanges, run.facts, run.unsent)
    assert {r.check_id: (r.verdict.value, r.reason, r.findings) for r in results if r.verdict is not Verdict.PASS} == {}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_is_caught_by_exactly_its_checks(name, run_sandbox):
    fault = FAULTS[name]
    found = failures(run_sandbox(fault))
    assert set(found) == fault.caught_by, found


@pytest.mark.parametrize("name", sorted(VARIATIONS))
def test_a_legal_variation_turns_nothing_red(name, run_sandbox):
    assert failures(run_sandbox(VARIATIONS[name])) == {}


def test_every_check_is_proven_by_a_fault():
    proven = {check_id for fault in FAULTS.values() for check_id in fault.caught_by}
    declared = {check.id for check in select()}
    assert declared - proven == set(), "checks that no fault proves"
    assert proven - declared == set(), "faults that name a check which does not exist"
