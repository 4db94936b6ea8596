"""The one model that every report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roadworthy.conformance.run import Run
from roadworthy.conformance.verdict import EXIT_CODES, CheckResult, ExitCode, Lens, Verdict, overall


@dataclass(frozen=True)
class ModelReport:
    """The results for one model, with the run they were judged from."""

    model: str
    run: Run
    results: tuple[CheckResult, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict over all checks that were asked for."""
        return overall(self.results)

    @property
    def lenses(self) -> Mapping[Lens, Verdict]:
        """The verdict of each lens that any check belongs to."""
        members = {lens: [r for r in self.results if lens in r.lenses] for lens in Lens}
        return {lens: overall(results) for lens, results in members.items() if results}


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
        verdicts = {model.verdict for model in self.models}
        if self.stale_baseline:
            return Verdict.FAIL
        order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARN, Verdict.PASS)
        return next((verdict for verdict in order if verdict in verdicts), Verdict.INCONCLUSIVE)

    @property
    def exit_code(self) -> ExitCode:
        """What the process tells the shell."""
        return EXIT_CODES[self.verdict]
