"""Judging: from exchanges and facts to one result per check. Pure: replay gives the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from roadworthy.conformance import statistics
from roadworthy.conformance.check import Check, Reading, Usable
from roadworthy.conformance.exchange import Exchange, Malformed
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probe import PROBES
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import (
    CheckResult,
    Finding,
    Lens,
    Level,
    NotApplicable,
    Outcome,
    Undecided,
    Verdict,
)

MAX_FINDINGS = 5
"""Findings kept per check: the first ones explain, the hundredth does not."""


def judge(
    checks: Iterable[Check],
    exchanges: Sequence[Exchange],
    facts: Facts,
    unsent: Mapping[str, str] | None = None,
) -> list[CheckResult]:
    """One result per check, in the order of the checks.

    `unsent` says per probe id why it was not sent.
    """
    by_probe: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        by_probe.setdefault(exchange.probe, []).append(exchange)
    results = [_judge_one(check, by_probe, facts, unsent or {}) for check in checks]
    return [_in_doubt(result) for result in results] if _locked_out(exchanges) else results


def _locked_out(exchanges: Sequence[Exchange]) -> bool:
    """Whether the first plain request was refused for its key: then nothing is known of the provider."""
    first = first_asked(exchanges)
    return first is not None and first.status in (401, 403)


def first_asked(exchanges: Sequence[Exchange]) -> Exchange | None:
    """The first plain request, without an answer to which nothing else is sent; None where it was not sent."""
    return next((x for x in exchanges if (probe := PROBES.get(x.probe)) and probe.gate), None)


def asks_costs(probe_id: str) -> bool:
    """Whether a probe asks the cost endpoint, which is no part of the API."""
    probe = PROBES.get(probe_id)
    return probe is not None and probe.billing


def _in_doubt(result: CheckResult) -> CheckResult:
    """A failure that the refused key explains, as doubt."""
    if result.verdict not in (Verdict.FAIL, Verdict.WARN):
        return result
    return replace(result, verdict=Verdict.INCONCLUSIVE, reason="could not tell: the key was refused", findings=())


def usable(exchange: Exchange, bar: Usable) -> bool:
    """Whether an exchange holds what a check needs in order to look at it."""
    if bar is Usable.ANYTHING:
        return True
    if exchange.status is None or exchange.unreachable:
        return False
    if bar is Usable.RESPONSE:
        return True
    if not exchange.complete:
        return bar is Usable.EVENTS and exchange.status == 200 and bool(exchange.stream.events)
    if bar is Usable.COMPLETE:
        return True
    if bar is Usable.VALUE:
        return 200 <= exchange.status < 300 and not isinstance(exchange.json, Malformed)
    if exchange.status != 200:
        return False
    if bar is Usable.SUCCESS:
        return True
    if bar is Usable.EVENTS:
        return exchange.media_type == "text/event-stream" and bool(exchange.stream.events)
    if not isinstance(exchange.json, dict):
        return False
    return bar is Usable.JSON or bool(exchange.choices)


def lenses_of(check: Check, facts: Facts) -> tuple[Lens, ...]:
    """The views that a check takes part in: of routes that no OpenAI SDK calls, that view has nothing to say."""
    if facts.api in (Api.OPENAI, Api.RESPONSES):
        return check.lenses
    return tuple(lens for lens in check.lenses if lens is not Lens.OPENAI) or (Lens.SPEC,)


def describe(exchange: Exchange) -> str:
    """One phrase on what an exchange held, for "no usable answer" reasons."""
    reply = exchange.reply
    if reply.failure is not None and reply.status is None:
        return reply.failure.message
    if reply.failure is not None:
        return f"HTTP {reply.status}, then {reply.failure.message}"
    return f"HTTP {reply.status} {exchange.media_type or 'without a content type'}"


def _judge_one(
    check: Check, by_probe: Mapping[str, list[Exchange]], facts: Facts, unsent: Mapping[str, str]
) -> CheckResult:
    def result(verdict: Verdict, reason: str = "") -> CheckResult:
        return CheckResult(check.id, check.level, lenses_of(check, facts), verdict, reason)

    lacking = facts.lacks(check.needs)
    if lacking:
        return result(Verdict.SKIPPED, lacking)
    everything = check.reading is Reading.ACROSS and not check.probes
    lacks = {probe.id: facts.lacks(probe.needs) for probe in check.probes}
    if check.probes and (all(lacks.values()) if check.reading is not Reading.JOINT else any(lacks.values())):
        return result(Verdict.SKIPPED, next(reason for reason in lacks.values() if reason))
    of_api = [id for id in by_probe if not asks_costs(id)]
    ids = of_api if everything else [probe.id for probe in check.probes if not lacks[probe.id]]
    sent = [exchange for id in ids for exchange in by_probe.get(id, ())]
    if not sent:
        reason = next((unsent[id] for id in ids if id in unsent), "its request was not sent")
        if reason.startswith("nothing to ask"):
            return result(Verdict.SKIPPED, reason)
        return result(Verdict.INCONCLUSIVE, reason)
    good = [exchange for exchange in sent if usable(exchange, check.usable)]
    if not good:
        return result(Verdict.INCONCLUSIVE, f"no usable answer: {sent[0].id} got {describe(sent[0])}")
    if check.reading is Reading.EACH:
        runs = [(exchange.id, _run(check, [exchange], facts)) for exchange in good]
    elif check.reading is Reading.ACROSS:
        others = [x for id in of_api if id not in ids for x in by_probe[id]]
        runs = [(good[0].id, _run(check, [good], facts, others))]
    else:
        firsts = [next((x for x in good if x.probe == id), None) for id in ids]
        missing = [id for id, first in zip(ids, firsts, strict=True) if first is None]
        if missing:
            known = by_probe.get(missing[0])
            reason = (
                f"no usable answer: {known[0].id} got {describe(known[0])}" if known else unsent.get(missing[0], "")
            )
            return result(Verdict.INCONCLUSIVE, reason or f"{missing[0]} was not sent")
        runs = [(good[0].id, _run(check, firsts, facts))]
    return replace(
        _conclude(check, runs), lenses=lenses_of(check, facts), exchange_ids=tuple(exchange.id for exchange in good)
    )


def _run(check: Check, arguments: Sequence[object], facts: Facts, others: Sequence[Exchange] = ()) -> list[Outcome]:
    extra: dict[str, object] = {"facts": facts} if check.wants_facts else {}
    if check.wants_others:
        extra["others"] = others
    return list(check.judge(*arguments, **extra))


def _conclude(check: Check, runs: Sequence[tuple[str, list[Outcome]]]) -> CheckResult:
    findings = [
        outcome if outcome.exchange_id else replace(outcome, exchange_id=id)
        for id, outcomes in runs
        for outcome in outcomes
        if isinstance(outcome, Finding)
    ]
    doubts = [outcome for _, outcomes in runs for outcome in outcomes if isinstance(outcome, Undecided)]
    passes = [outcomes for _, outcomes in runs if not outcomes]
    failed = Verdict.FAIL if check.level is Level.MUST else Verdict.WARN
    reason = ""
    trials = None
    if check.bar is not None:
        counted = [outcomes for _, outcomes in runs if not outcomes or any(isinstance(o, Finding) for o in outcomes)]
        trials = statistics.trials(len(passes), len(counted), check.bar) if counted else None
    if trials is not None:
        if trials.low >= trials.bar:
            verdict, findings = Verdict.PASS, []
        elif trials.high < trials.bar:
            verdict = failed
            reason = f"{trials.passed} of {trials.total} trials passed"
        else:
            verdict = Verdict.INCONCLUSIVE
            word = "flaky" if trials.passed < trials.total else "too few trials"
            reason = (
                f"{word}: {trials.passed} of {trials.total} trials passed; the 95 % interval "
                f"{trials.low:.2f}-{trials.high:.2f} straddles the bar {trials.bar:.2f}"
            )
    elif findings:
        verdict = failed
    elif doubts:
        verdict, reason = Verdict.INCONCLUSIVE, doubts[0].reason
    elif passes:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.SKIPPED
        reason = next(o.reason for _, outcomes in runs for o in outcomes if isinstance(o, NotApplicable))
    return CheckResult(check.id, check.level, check.lenses, verdict, reason, tuple(findings[:MAX_FINDINGS]), trials)
