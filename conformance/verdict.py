"""The words of a verdict: levels, lenses, findings and results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Level(StrEnum):
    """How much a rule weighs, by consequence (words after RFC 2119).

    MUST: the hub would refuse or delist, a client would break or mislead its
    caller, or somebody would be charged wrongly. SHOULD: a published spec is
    broken but everyone copes. MAY: good manners.
    """

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"


class Lens(StrEnum):
    """Whose view a check takes part in; each lens has a verdict of its own."""

    HUB = "hub"
    SPEC = "spec"
    JAVASCRIPT = "javascript"
    PYTHON = "python"
    OPENAI = "openai"


class Verdict(StrEnum):
    """What can be said of one check, one lens or a whole run."""

    PASS = "pass"  # noqa: S105 - a word of the vocabulary
    FAIL = "fail"
    WARN = "warn"
    SKIPPED = "skipped"
    INCONCLUSIVE = "inconclusive"


class ExitCode(IntEnum):
    """What a run tells the shell."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    INCONCLUSIVE = 3
    TOOL_FAULT = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was wrong: where, what was expected, what came.

    `at` is a JSON pointer into the body ("/choices/0/finish_reason"), or names
    an event ("event 3 /id"), a header ("header Retry-After") or a status.
    `exchange_id` is filled in by the judge where the check leaves it empty.
    """

    expected: str
    got: str
    at: str = ""
    note: str = ""
    exchange_id: str = ""


@dataclass(frozen=True, slots=True)
class Undecided:
    """A check looked and could not tell, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A check found that its rule does not apply here, with the reason."""

    reason: str


Outcome = Finding | Undecided | NotApplicable


@dataclass(frozen=True, slots=True)
class Trials:
    """How often a model chose rightly: `passed` of `total`, with the 95 % Wilson interval against `bar`."""

    passed: int
    total: int
    low: float
    high: float
    bar: float


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The verdict of one check on one model."""

    check_id: str
    level: Level
    lenses: tuple[Lens, ...]
    verdict: Verdict
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    trials: Trials | None = None
    exchange_ids: tuple[str, ...] = ()
    known: bool = False
    """Whether the baseline expects this failure."""

    @property
    def flaky(self) -> bool:
        """Whether the trials straddled the bar."""
        return (
            self.verdict is Verdict.INCONCLUSIVE and self.trials is not None and self.trials.passed < self.trials.total
        )


def overall(results: Iterable[CheckResult]) -> Verdict:
    """One verdict for many results: a MUST decides, a failed SHOULD warns, and doubt is never a pass."""
    results = list(results)
    musts = [result for result in results if result.level is Level.MUST and result.verdict is not Verdict.SKIPPED]
    if any(result.verdict is Verdict.FAIL and not result.known for result in musts):
        return Verdict.FAIL
    judged = [result for result in results if result.verdict in (Verdict.PASS, Verdict.FAIL, Verdict.WARN)]
    if any(result.verdict is Verdict.INCONCLUSIVE for result in musts) or not judged:
        return Verdict.INCONCLUSIVE
    if any(result.verdict is Verdict.WARN and not result.known for result in results):
        return Verdict.WARN
    return Verdict.PASS


EXIT_CODES = {
    Verdict.PASS: ExitCode.PASS,
    Verdict.WARN: ExitCode.PASS,
    Verdict.FAIL: ExitCode.FAIL,
    Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Verdict.SKIPPED: ExitCode.INCONCLUSIVE,
}
