"""Judging: what counts as usable, how trials, doubts and levels become a verdict."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from exchanges import completion, exchange

from roadworthy.conformance.check import CHECKS, Check, Usable, check
from roadworthy.conformance.facts import Ability, Capability, Facts
from roadworthy.conformance.judge import judge, usable
from roadworthy.conformance.probe import PROBES, Context, Draft, Probe, probe
from roadworthy.conformance.verdict import (
    EXIT_CODES,
    ExitCode,
    Finding,
    Lens,
    Level,
    NotApplicable,
    Undecided,
    Verdict,
    overall,
)
from roadworthy.http.message import Failure, FailureKind

FACTS = Facts("http://127.0.0.1:1/v1", "acme/chat-1")


@pytest.fixture(autouse=True)
def _own_registry():
    checks, probes = dict(CHECKS), dict(PROBES)
    yield
    for registry, kept in ((CHECKS, checks), (PROBES, probes)):
        registry.clear()
        registry.update(kept)


def a_probe(id: str = "t.one", **kwargs) -> Probe:
    def build(context: Context) -> Draft:
        """Purpose."""
        return context.chat("hi")

    return probe(id, **kwargs)(build)


def a_check(outcomes, *, level: Level = Level.MUST, **kwargs) -> Check:
    def rule(*exchanges) -> Iterator[object]:
        """The rule.

        Why.
        """
        yield from outcomes(*exchanges)

    kwargs.setdefault("on", Usable.CHAT)
    return check(f"t.c{len(CHECKS)}", level=level, lenses=[Lens.HUB], source="s", remedy="r", **kwargs)(rule)


def verdict_of(rule: Check, *exchanges, facts: Facts = FACTS, unsent=None):
    return judge([rule], exchanges, facts, unsent)[0]


def content_is_hello(x):
    if x.message.get("content") != "Hello.":
        yield Finding("Hello.", str(x.message.get("content")), at="/choices/0/message/content")


def test_nothing_yielded_is_a_pass_and_the_exchange_is_named():
    result = verdict_of(a_check(content_is_hello, each=a_probe()), exchange("t.one", completion()))
    assert (result.verdict, result.exchange_ids) == (Verdict.PASS, ("t.one#1",))


@pytest.mark.parametrize(("level", "verdict"), [(Level.MUST, Verdict.FAIL), (Level.SHOULD, Verdict.WARN)])
def test_one_sighting_fails_a_server_rule(level, verdict):
    rule = a_check(content_is_hello, each=a_probe(), level=level)
    good, bad = exchange("t.one", completion()), exchange("t.one", completion("Bye."), trial=2)
    result = verdict_of(rule, good, bad)
    assert result.verdict is verdict
    assert [(f.got, f.exchange_id) for f in result.findings] == [("Bye.", "t.one#2")]


@pytest.mark.parametrize(
    ("good", "bad", "verdict"),
    [
        (4, 0, Verdict.PASS),
        (0, 4, Verdict.FAIL),
        (3, 2, Verdict.INCONCLUSIVE),
        (1, 0, Verdict.INCONCLUSIVE),
        (9, 1, Verdict.PASS),
    ],
)
def test_a_models_choice_is_judged_by_its_interval(good, bad, verdict):
    rule = a_check(content_is_hello, each=a_probe(), bar=0.5)
    exchanges = [
        exchange("t.one", completion("Hello." if i < good else "Bye."), trial=i + 1) for i in range(good + bad)
    ]
    result = verdict_of(rule, *exchanges)
    assert result.verdict is verdict
    assert result.flaky == (verdict is Verdict.INCONCLUSIVE and bad > 0)
    assert result.trials is not None
    assert (result.trials.passed, result.trials.total) == (good, good + bad)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (exchange("t.one", {"error": {"message": "boom"}}, status=500), "HTTP 500"),
        (exchange("t.one", b"<html>"), "HTTP 200 application/json"),
        (exchange("t.one", {"choices": []}), "HTTP 200"),
        (
            exchange("t.one", b"", status=None, failure=Failure(FailureKind.REFUSED, "connection refused")),
            "connection refused",
        ),
    ],
)
def test_without_a_usable_answer_there_is_no_verdict_and_never_a_pass(made, reason):
    result = verdict_of(a_check(content_is_hello, each=a_probe()), made)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert reason in result.reason
    assert "t.one#1" in result.reason


def test_a_truncated_answer_is_not_complete_but_its_head_is_a_response():
    cut = exchange("t.one", b"{", failure=Failure(FailureKind.TRUNCATED, "cut"))
    assert not usable(cut, Usable.COMPLETE)
    assert usable(cut, Usable.RESPONSE)
    assert usable(cut, Usable.ANYTHING)


@pytest.mark.parametrize("status", [429, 503])
def test_a_provider_that_asks_us_to_wait_is_not_judged(status):
    assert not usable(exchange("t.one", {}, status=status), Usable.RESPONSE)


def test_doubt_is_inconclusive_but_a_finding_outweighs_it():
    one = a_probe()
    doubt = a_check(lambda _x: [Undecided("too close")], each=one)
    assert verdict_of(doubt, exchange("t.one", completion())).reason == "too close"
    both = a_check(lambda _x: [Undecided("too close"), Finding("a", "b")], each=one)
    assert verdict_of(both, exchange("t.one", completion())).verdict is Verdict.FAIL


def test_not_applicable_everywhere_is_skipped_with_the_reason():
    rule = a_check(lambda _x: [NotApplicable("no key")], each=a_probe())
    result = verdict_of(rule, exchange("t.one", completion()))
    assert (result.verdict, result.reason) == (Verdict.SKIPPED, "no key")


def test_a_lacking_capability_skips_with_how_we_know():
    facts = Facts("u", "m", abilities={Capability.TOOLS: Ability(False, "declared as not offered")})
    rule = a_check(content_is_hello, each=a_probe(needs=[Capability.TOOLS]))
    result = verdict_of(rule, facts=facts)
    assert (result.verdict, result.reason) == (Verdict.SKIPPED, "tools: declared as not offered")


def test_what_was_not_sent_is_inconclusive_with_why():
    rule = a_check(content_is_hello, each=a_probe())
    result = verdict_of(rule, unsent={"t.one": "not sent: the budget of 3 requests is spent"})
    assert (result.verdict, result.reason) == (Verdict.INCONCLUSIVE, "not sent: the budget of 3 requests is spent")


def test_joint_reading_gets_one_exchange_of_each_probe():
    one, two = a_probe("t.one"), a_probe("t.two")
    seen = []
    rule = a_check(lambda a, b: seen.append((a.id, b.id)) or [], joint=[one, two])
    assert verdict_of(rule, exchange("t.one", completion()), exchange("t.two", completion())).verdict is Verdict.PASS
    assert seen == [("t.one#1", "t.two#1")]
    assert verdict_of(rule, exchange("t.one", completion())).verdict is Verdict.INCONCLUSIVE


def test_reading_across_nothing_named_gets_every_exchange():
    seen = []
    rule = a_check(lambda xs: seen.extend(x.id for x in xs) or [], across=[], on=Usable.ANYTHING)
    verdict_of(rule, exchange("t.a", completion()), exchange("t.b", {}, status=500))
    assert seen == ["t.a#1", "t.b#1"]


def result(verdict: Verdict, level: Level = Level.MUST, *, known: bool = False):
    from roadworthy.conformance.verdict import CheckResult

    return CheckResult("t.x", level, (Lens.HUB,), verdict, known=known)


@pytest.mark.parametrize(
    ("results", "verdict", "code"),
    [
        ([result(Verdict.PASS)], Verdict.PASS, ExitCode.PASS),
        ([result(Verdict.PASS), result(Verdict.SKIPPED)], Verdict.PASS, ExitCode.PASS),
        ([result(Verdict.PASS), result(Verdict.WARN, Level.SHOULD)], Verdict.WARN, ExitCode.PASS),
        ([result(Verdict.PASS), result(Verdict.FAIL)], Verdict.FAIL, ExitCode.FAIL),
        ([result(Verdict.PASS), result(Verdict.FAIL, known=True)], Verdict.PASS, ExitCode.PASS),
        ([result(Verdict.PASS), result(Verdict.INCONCLUSIVE)], Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
        ([result(Verdict.PASS), result(Verdict.INCONCLUSIVE, Level.SHOULD)], Verdict.PASS, ExitCode.PASS),
        ([result(Verdict.FAIL), result(Verdict.INCONCLUSIVE)], Verdict.FAIL, ExitCode.FAIL),
        ([result(Verdict.SKIPPED)], Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
        ([result(Verdict.INCONCLUSIVE, Level.SHOULD)], Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
        ([], Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE),
    ],
)
def test_many_results_become_one_verdict_and_an_exit_code(results, verdict, code):
    assert overall(results) is verdict
    assert EXIT_CODES[verdict] is code
