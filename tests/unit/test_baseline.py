"""The baseline: known failures stay quiet, new ones and stale entries do not."""

from __future__ import annotations

import pytest

from roadworthy.conformance import baseline
from roadworthy.conformance.baseline import Baseline, Entry
from roadworthy.conformance.plan import select
from roadworthy.conformance.verdict import CheckResult, Lens, Level, Verdict, overall
from roadworthy.errors import ConfigError


def row(check_id: str, verdict: Verdict, level: Level = Level.MUST) -> CheckResult:
    return CheckResult(check_id, level, (Lens.HUB,), verdict)


KNOWN = Baseline((Entry(check="chat.stream.done", model="m", reason="ticket 7"),))


def test_a_known_failure_does_not_turn_the_run_red_but_a_new_one_does():
    rows = KNOWN.mark("m", [row("chat.stream.done", Verdict.FAIL), row("target.answers", Verdict.PASS)])
    assert [r.known for r in rows] == [True, False]
    assert overall(rows) is Verdict.PASS
    assert overall([*rows, row("chat.shape", Verdict.FAIL)]) is Verdict.FAIL


def test_an_entry_is_for_its_model_only_unless_it_says_any():
    failing = [row("chat.stream.done", Verdict.FAIL)]
    assert not KNOWN.mark("other", failing)[0].known
    assert Baseline((Entry(check="chat.stream.done", reason="r"),)).mark("other", failing)[0].known


@pytest.mark.parametrize(
    ("verdict", "stale"),
    [(Verdict.PASS, True), (Verdict.FAIL, False), (Verdict.SKIPPED, False), (Verdict.INCONCLUSIVE, False)],
)
def test_an_entry_is_stale_only_when_its_check_was_judged_and_passed(verdict, stale):
    assert bool(KNOWN.stale([("m", [row("chat.stream.done", verdict)])])) is stale


def test_an_entry_whose_check_was_not_run_is_not_stale():
    assert KNOWN.stale([("m", [row("target.answers", Verdict.PASS)])]) == []
    assert KNOWN.stale([("other", [row("chat.stream.done", Verdict.PASS)])]) == []


def test_written_and_read_again_it_is_the_same_and_keeps_given_reasons(tmp_path):
    select()
    path = tmp_path / "known.toml"
    rows = [("m", [row("chat.stream.done", Verdict.FAIL), row("target.answers", Verdict.PASS)])]
    odd = Baseline((Entry(check="chat.stream.done", model="m", reason='a "quoted" \\ reason\n'),))
    assert baseline.write(path, rows, odd) == 1
    assert baseline.read(path) == odd


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[known]]\ncheck = "no.such"\nreason = "r"\n', "no check is called 'no.such'"),
        ('[[known]]\ncheck = "chat.stream.done"\n', "reason: this setting is required"),
        ('[[known]]\ncheck = "chat.stream.done"\nreason = "r"\n' * 2, "is listed twice"),
        ('[[knwon]]\ncheck = "x"\n', "did you mean 'known'?"),
    ],
)
def test_a_malformed_baseline_says_what_is_wrong(tmp_path, text, message):
    select()
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        baseline.read(path)
    assert message in str(caught.value)
