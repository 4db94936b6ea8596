"""The kill matrix: every fault is caught by exactly its checks, every legal variation by none.

And replay: for every one of these runs, the recording judged again gives the same results.
"""

from __future__ import annotations

import pytest

from roadworthy.conformance import recording
from roadworthy.conformance.facts import VerdictLimits
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import select
from roadworthy.conformance.run import Run
from roadworthy.conformance.verdict import CheckResult, Verdict
from roadworthy.sandbox.catalogue import load
from roadworthy.sandbox.mutation import FAULTS, VARIATIONS

load()
BAD = (Verdict.FAIL, Verdict.WARN)
MODEL = "acme/chat-1"
CLIENTS = ("javascript", "python", "openai", "openai_js")

# Faults of time sleep; with the hub's own limits each would sleep for seconds.
LIMITS: dict[str, VerdictLimits] = {
    "latency.slow_first_token": VerdictLimits(time_to_first_token_s=0.25),
    "latency.slow_first_token_behind_role": VerdictLimits(time_to_first_token_s=0.25),
    "latency.slow_now_and_then": VerdictLimits(time_to_first_token_s=0.25),
    "latency.slow_tokens": VerdictLimits(total_time_s=0.4),
    "latency.slow_answer": VerdictLimits(total_time_s=0.4),
    "jobs.slow_polls": VerdictLimits(total_time_s=0.2),
    "task.slow": VerdictLimits(total_time_s=0.25),
    "latency.stalls": VerdictLimits(max_stall_s=0.2),
    "responses.stream.slow_first_token": VerdictLimits(time_to_first_token_s=0.25),
    "responses.slow_answer": VerdictLimits(total_time_s=0.4),
    "completions.stream_slow_start": VerdictLimits(time_to_first_token_s=0.25),
    "completions.slow": VerdictLimits(total_time_s=0.4),
    "embeddings.slow": VerdictLimits(total_time_s=0.4),
    "images.slow": VerdictLimits(total_time_s=1.5),
    "transcription.slow": VerdictLimits(total_time_s=0.4),
    "speech.slow": VerdictLimits(total_time_s=1.5),
    "tgi.slow_first_token": VerdictLimits(time_to_first_token_s=0.25),
    "tgi.slow_text": VerdictLimits(total_time_s=0.4),
    "billing.slow_batch": VerdictLimits(billing_batch_s=0.8),
}
REPRICED = {"whole_prices"}
"""Variations of what `/models` says: what requests cost stays as it was."""
PATIENCE = VerdictLimits(billing_timeout_s=0.4)
"""Whoever waits for a cost that never comes waits the whole time; the sandbox's costs are there at once."""

# Checks that a healthy provider cannot be asked to show, each with its reason.
RIGHTLY_SKIPPED = {
    "errors.retry_after": "a healthy provider in a quiet test limits nobody",
    "serverless.loading": "nor are its models still loading",
    **dict.fromkeys(
        (f"clients.{client}.{what}" for client in CLIENTS for what in ("reads", "shows_errors")),
        "the real clients are asked in test_client_lenses.py",
    ),
    "billing.settled.streams": "not every family streams; chat does, see the test of its costs",
    **dict.fromkeys(
        ("billing.cost.price", "billing.cost.zero"),
        "not everything is priced by the token; chat is, see the test of its costs",
    ),
    "task.spec": "of some tasks no answer satisfies the specification and the hub's clients",
}


SUBJECTS = sorted({MODEL, *(subject for m in (*FAULTS.values(), *VARIATIONS.values()) for subject in m.subjects)})


def proofs(mutations):
    return [(name, subject) for name in sorted(mutations) for subject in mutations[name].subjects or (MODEL,)]


def examples(name, subject):
    """Chat has faults in 24 ways that only generated requests show; the other families' show at once.

    What requests cost, generated ones do not show.
    """
    if name.startswith("billing."):
        return 0
    return 24 if subject == MODEL or name.startswith("openapi.") else 8


def asks_for_costs(fault):
    """Whether a run with this fault asks for costs too: where it is about them, or about what they are told by."""
    return fault.family in ("billing", "request_id", "discovery")


def results(run: Run) -> list[CheckResult]:
    return judge(run.checks, run.exchanges, run.facts, run.unsent)


def failures(run: Run) -> dict[str, str]:
    return {r.check_id: (r.findings[0].got if r.findings else r.reason) for r in results(run) if r.verdict in BAD}


def assert_replay_agrees(run: Run, folder) -> None:
    path = folder / "run.jsonl"
    with path.open("w", encoding="utf-8", newline="") as file:
        recording.write(file, [run])
    [again] = recording.read(path)
    assert results(again) == results(run)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_healthy_provider_passes_every_check(subject, run_sandbox, tmp_path):
    run = run_sandbox(subject=subject, allow_writes=True, billing=True, limits=PATIENCE)
    not_passed = {
        r.check_id: (r.verdict.value, r.reason, r.findings) for r in results(run) if r.verdict.value != "pass"
    }
    skipped = {id for id, (verdict, _, _) in not_passed.items() if verdict == "skipped"}
    assert {id: row for id, row in not_passed.items() if id not in RIGHTLY_SKIPPED} == {}
    assert skipped <= set(RIGHTLY_SKIPPED)
    assert_replay_agrees(run, tmp_path)


@pytest.mark.parametrize("subject", [MODEL, "acme/chat-1=chat-completion@responses"])
def test_the_costs_of_a_healthy_provider_are_judged_in_full(subject, run_sandbox):
    run = run_sandbox(subject=subject, billing=True, limits=PATIENCE, fuzz_examples=0)
    verdicts = {r.check_id: (r.verdict.value, r.reason) for r in results(run) if r.check_id.startswith("billing.")}
    assert verdicts == {check.id: ("pass", "") for check in select(["billing"])}


@pytest.mark.parametrize(("name", "subject"), proofs(FAULTS))
def test_a_fault_is_caught_by_exactly_its_checks(name, subject, run_sandbox, tmp_path):
    fault = FAULTS[name]
    limits = LIMITS.get(name)
    # Generated requests find nothing that is only slow, and would wait for every one.
    run = run_sandbox(
        fault,
        limits=limits or PATIENCE,
        subject=subject,
        allow_writes=True,
        billing=asks_for_costs(fault),
        fuzz_examples=examples(name, subject) if not limits else 0,
    )
    found = failures(run)
    assert set(found) == fault.caught_by, found
    assert_replay_agrees(run, tmp_path)


@pytest.mark.parametrize(("name", "subject"), proofs(VARIATIONS))
def test_a_legal_variation_turns_nothing_red(name, subject, run_sandbox, tmp_path):
    run = run_sandbox(
        VARIATIONS[name],
        subject=subject,
        allow_writes=True,
        limits=PATIENCE,
        billing=subject == MODEL and name not in REPRICED,
        fuzz_examples=examples(name, subject),
    )
    assert failures(run) == {}
    assert_replay_agrees(run, tmp_path)


def test_every_check_is_proven_by_a_fault():
    proven = {check_id for fault in FAULTS.values() for check_id in fault.caught_by}
    # What the real clients say is proven in test_client_lenses.py.
    declared = {check.id for check in select() if check.family != "clients"}
    assert declared - proven == set(), "checks that no fault proves"
    assert proven - declared == set(), "faults that name a check which does not exist"
