"""Probes of the task routes themselves: the other ways to the same model, and what is said of one that is not there."""

from __future__ import annotations

from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probe import Context, Draft, Expects, probe
from roadworthy.conformance.probes.task import draft
from roadworthy.conformance.reading.task import form, routed

UNKNOWN = "roadworthy/no-such-model"


def _plainly_routed(facts: Facts) -> bool:
    """Whether the task has no route of its own below the model's."""
    return routed(facts) and form(facts).path == "/models/{model}"


@probe("serverless.pipeline", expects=Expects.EITHER, applies=_plainly_routed)
def pipeline(context: Context) -> Draft | None:
    """The plain example, sent to the task's route instead of a model's."""
    return draft(context.facts, "plain", f"/pipeline/{context.facts.task}")


@probe("serverless.task_route", expects=Expects.EITHER, applies=_plainly_routed)
def task_route(context: Context) -> Draft | None:
    """The plain example, sent to the model's route with the task's name."""
    return draft(context.facts, "plain", f"/models/{context.facts.model}/{context.facts.task}")


@probe("serverless.unknown_model", expects=Expects.REFUSAL, applies=_plainly_routed)
def unknown_model(context: Context) -> Draft | None:
    """The plain example, sent to a model that does not exist."""
    return draft(context.facts, "plain", f"/models/{UNKNOWN}")


@probe("serverless.wait", expects=Expects.EITHER, applies=_plainly_routed)
def wait(context: Context) -> Draft | None:
    """An example with `wait_for_model`, which asks to be held rather than told to come back."""
    case = "plain" if form(context.facts).cases["plain"].raw is None else "options"
    return draft(context.facts, case, wait_for_model=True)
