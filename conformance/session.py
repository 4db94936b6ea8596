"""A session: everything between settings and a report. The command line, pytest and the validator share it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from roadworthy import __version__
from roadworthy.conformance import cleanup
from roadworthy.conformance.baseline import Baseline
from roadworthy.conformance.check import Check
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan
from roadworthy.conformance.report.model import ModelReport, Report
from roadworthy.conformance.run import Run, Runner, Settings, Watch
from roadworthy.conformance.settings import CheckSettings
from roadworthy.conformance.target import Target
from roadworthy.errors import UsageError
from roadworthy.http.message import Transport

WatchModel = Callable[[str], Watch | None]


async def check(
    target: Target,
    models: Sequence[str],
    settings: CheckSettings,
    checks: Sequence[Check],
    transport: Transport,
    *,
    baseline: Baseline | None = None,
    watch: WatchModel | None = None,
) -> Report:
    """Ask every model in turn and judge what came. `watch` gives the progress callback for a model."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    started = time.monotonic()
    runs = []
    subjects = [settings.subject(model) for model in models]
    for subject in subjects:
        if not plan(settings.facts(target, subject, 0), checks).checks:
            raise UsageError(
                f"{subject.label}: none of the selected checks is about this task and API; loosen --only, --exclude "
                "and --lens, or name the task: --model NAME=TASK@API"
            )
    for subject in subjects:
        frame = replace(settings.facts(target, subject, int(time.time())), run=uuid.uuid4().hex)
        planned = plan(frame, checks)
        async with cleanup.guarded(target, frame, transport) as sender:
            runner = Runner(target, sender, planned, bounds(settings), watch(subject.label) if watch else None)
            runs.append(await runner.run())
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            break
    task = asyncio.current_task()
    leaving = task is not None and task.cancelling()
    if settings.check.clients and not leaving and any(c.family == "clients" for run in runs for c in run.checks):
        from roadworthy.conformance.consult import consult

        runs = await consult(runs)
    return report(runs, started_at, time.monotonic() - started, baseline)


def bounds(settings: CheckSettings) -> Settings:
    """How much may be sent, as the settings have it."""
    return Settings(
        concurrency=settings.check.concurrency,
        max_requests=settings.check.max_requests,
        max_trials=settings.check.trials,
        total_timeout_s=settings.check.timeout_s,
    )


def report(runs: Sequence[Run], started_at: str, duration_s: float, baseline: Baseline | None = None) -> Report:
    """Judge runs, fresh or replayed, and mark what the baseline knows."""
    baseline = baseline or Baseline()
    models = tuple(
        ModelReport(
            run.facts.subject.label,
            run,
            tuple(baseline.mark(run.facts.subject.label, judge(run.checks, run.exchanges, run.facts, run.unsent))),
        )
        for run in runs
    )
    return Report(
        version=__version__,
        base_url=runs[0].facts.base_url if runs else "",
        started_at=started_at,
        duration_s=duration_s,
        models=models,
        stale_baseline=baseline.stale([(model.model, model.results) for model in models]),
    )
