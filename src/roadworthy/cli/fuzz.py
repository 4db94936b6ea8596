"""`roadworthy fuzz`: the property-based leg alone, with more requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from roadworthy.cli.check import CheckCommand
from roadworthy.conformance import openapi_cases
from roadworthy.conformance.facts import Facts, chat
from roadworthy.conformance.plan import select
from roadworthy.conformance.subject import Api, Subject
from roadworthy.errors import UsageError

FAMILIES = ("fuzz", "openapi")
"""The checks of this leg: `fuzz` for chat over the OpenAI-compatible routes, `openapi` for every other subject."""
BESIDE = 50
"""Requests that a run needs beside the generated ones."""


def run(
    url: str,
    models: Sequence[str],
    *,
    family: str,
    task: str,
    examples: int,
    seed: int,
    target: dict[str, Any],
    check: dict[str, Any],
    reports: dict[str, Path | None],
    quiet: bool,
) -> NoReturn:
    """Send generated requests, report, and leave with the verdict's exit code.

    Raises `UsageError` for a subject that has no such checks, or where what draws the requests is not installed.
    """
    subjects = [_subject(model, family, task) for model in models]
    for subject in subjects:
        _must_be_known(subject)
    budget = check.pop("max_requests") or 2 * examples + BESIDE
    command = CheckCommand(
        config=None,
        flags={
            "target": {"url": url, "models": [subject.label for subject in subjects], **target},
            "check": {
                "only": list(FAMILIES),
                "fuzz_examples": examples,
                "seed": seed,
                "max_requests": budget,
                **check,
            },
            "reports": reports,
        },
        capabilities=[],
        write_baseline=None,
        dry_run=False,
        price=None,
        quiet=quiet,
    )
    command.run()


def _subject(model: str, family: str, task: str) -> Subject:
    """The subject of a model's name, or of a whole notation, where no family or task is given beside it."""
    if not family and not task:
        return Subject.parse(model)
    if "=" in model:
        raise UsageError(f"--model {model}: this names task and family already; leave out --family and --task")
    return Subject.of(model, task, family)


def _must_be_known(subject: Subject) -> None:
    facts = Facts("", subject.model, subject.task, subject.api)
    if not any(check.applies(facts) for check in select(only=FAMILIES)):
        raise UsageError(
            f"{subject.label}: there is no description to draw requests from for the task {subject.task!r} in the "
            f"family {subject.api}. Name another --task, or another --family of: {', '.join(Api)}."
        )
    if not chat(facts) and not openapi_cases.available():
        raise UsageError(
            f"{subject.label}: requests for it are drawn by {openapi_cases.PACKAGE}, which is not installed: "
            f"{openapi_cases.INSTALL}"
        )
