"""The one model that every report is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from roadworthy.conformance.judge import first_asked
from roadworthy.conformance.run import Run
from roadworthy.conformance.verdict import EXIT_CODES, CheckResult, ExitCode, Lens, Verdict, overall

BAD = (Verdict.FAIL, Verdict.WARN)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many checks came to which verdict. A failure or warning that the baseline knows counts as `known` only."""

    passed: int = 0
    failed: int = 0
    warned: int = 0
    inconclusive: int = 0
    skipped: int = 0
    known: int = 0

    @classmethod
    def of(cls, results: Iterable[CheckResult]) -> Counts:
        """Count some results."""
        results = list(results)
        verdicts = [result.verdict for result in results if not result.known]
        return cls(
            passed=verdicts.count(Verdict.PASS),
            failed=verdicts.count(Verdict.FAIL),
            warned=verdicts.count(Verdict.WARN),
            inconclusive=verdicts.count(Verdict.INCONCLUSIVE),
            skipped=verdicts.count(Verdict.SKIPPED),
            known=len(results) - len(verdicts),
        )

    @property
    def total(self) -> int:
        """All checks that were asked for."""
        return self.passed + self.failed + self.warned + self.inconclusive + self.skipped + self.known

    def phrase(self) -> str:
        """In words, what counts most first: "2 failed, 118 passed"."""
        words = (
            (self.failed, "failed"),
            (self.warned, "warned"),
            (self.inconclusive, "inconclusive"),
            (self.known, "known"),
            (self.passed, "passed"),
            (self.skipped, "skipped"),
        )
        return ", ".join(f"{count:,} {word}" for count, word in words if count) or "no checks"


@dataclass(frozen=True, slots=True)
class LensReport:
    """What one view comes to."""

    lens: Lens
    verdict: Verdict
    counts: Counts


@dataclass(frozen=True)
class ModelReport:
    """The results for one model, with the run they were judged from."""

    model: str
    run: Run
    results: tuple[CheckResult, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict over all checks that were asked for; a run that was interrupted is never a pass."""
        return self._capped(overall(self.results))

    def _capped(self, verdict: Verdict) -> Verdict:
        empty = self.run.interrupted or self._unanswered
        return Verdict.INCONCLUSIVE if empty and verdict in (Verdict.PASS, Verdict.WARN) else verdict

    @property
    def _unanswered(self) -> bool:
        """Whether the first plain request got no answer, so that what passed was next to nothing."""
        first = first_asked(self.run.exchanges)
        return first is not None and not first.answered

    @property
    def counts(self) -> Counts:
        """How many checks came to which verdict."""
        return Counts.of(self.results)

    @property
    def lenses(self) -> Mapping[Lens, LensReport]:
        """Each lens that any check belongs to, with its own verdict."""
        members = {lens: [r for r in self.results if lens in r.lenses] for lens in Lens}
        return {
            lens: LensReport(lens, self._capped(_of_lens(results)), Counts.of(results))
            for lens, results in members.items()
            if results
        }


@dataclass(frozen=True)
class Report:
    """A whole run: one target, one or more models. Times: UTC ISO 8601, and monotonic seconds."""

    version: str
    base_url: str
    started_at: str
    duration_s: float
    models: tuple[ModelReport, ...]
    stale_baseline: Sequence[str] = ()
    """Baseline entries whose failure did not come: they must be removed, so they turn the run red."""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of any model; a stale baseline entry is a failure."""
        return Verdict.FAIL if self.stale_baseline else worst(model.verdict for model in self.models)

    @property
    def counts(self) -> Counts:
        """How many checks came to which verdict, over all models."""
        return Counts.of(result for model in self.models for result in model.results)

    @property
    def lenses(self) -> Mapping[Lens, LensReport]:
        """Each lens over all models: the worst verdict, all checks counted."""
        found = {lens: [m.lenses[lens] for m in self.models if lens in m.lenses] for lens in Lens}
        return {
            lens: LensReport(
                lens,
                worst(part.verdict for part in parts),
                Counts.of(r for m in self.models for r in m.results if lens in r.lenses),
            )
            for lens, parts in found.items()
            if parts
        }

    @property
    def exit_code(self) -> ExitCode:
        """What the process tells the shell."""
        return EXIT_CODES[self.verdict]


def _of_lens(results: Sequence[CheckResult]) -> Verdict:
    """The verdict of one view; a view that has nothing to say of this task is skipped, not in doubt."""
    silent = all(result.verdict is Verdict.SKIPPED for result in results)
    return Verdict.SKIPPED if silent else overall(results)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that decides over several; inconclusive where there are none."""
    found = set(verdicts)
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARN, Verdict.PASS, Verdict.SKIPPED)
    return next((verdict for verdict in order if verdict in found), Verdict.INCONCLUSIVE)
