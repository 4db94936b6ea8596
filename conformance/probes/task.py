"""Probes of the hub's task routes: the examples of the task's manifest, one probe per kind of example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roadworthy.conformance.facts import Applies, Facts
from roadworthy.conformance.probe import Context, Draft, Expects, Phase, Probe, probe
from roadworthy.conformance.subject import Api
from roadworthy.schemas import manifest


def has(case: str) -> Applies:
    """Whether the subject is asked by task routes and its manifest has an example of this kind."""

    def applies(facts: Facts) -> bool:
        form = manifest.manifest(facts.task)
        return facts.api is Api.SERVERLESS and form is not None and case in form.cases

    return applies


def _fitted(body: Any, facts: Facts) -> Any:
    """The body with what this model needs: its mask, and parameters that the settings declare."""
    if not isinstance(body, dict):
        return body
    if isinstance(body.get("inputs"), str):
        body = {**body, "inputs": body["inputs"].replace("[MASK]", facts.mask)}
    if facts.task_parameters:
        body = {**body, "parameters": {**body.get("parameters", {}), **facts.task_parameters}}
    return body


def _path(facts: Facts) -> str:
    form = manifest.manifest(facts.task)
    return form.path.replace(manifest.MODEL, facts.model) if form else "/"


def draft(facts: Facts, case: str, path: str | None = None, **options: Any) -> Draft | None:
    """The request of one example, to the model's own route or to another path; `options` go beside the inputs."""
    form = manifest.manifest(facts.task)
    found = form.cases.get(case) if form else None
    if form is None or found is None:
        return None
    path = path or _path(facts)
    if found.raw is not None:
        content_type = found.content_type or manifest.media_type(found.raw)
        return Draft(form.method, path, raw=manifest.media(found.raw), at_root=True, content_type=content_type)
    body = _fitted(manifest.expand(found.body, facts.model), facts)
    if options and isinstance(body, dict):
        body = {**body, "options": options}
    return Draft(form.method, path, json=body, at_root=True)


def _example(case: str, purpose: str, expects: Expects = Expects.SUCCESS, phase: Phase = Phase.MAIN) -> Probe:
    def build(context: Context) -> Draft | None:
        return draft(context.facts, case)

    build.__doc__ = purpose
    declare: Callable[..., Probe] = probe(
        f"task.{case}", expects=expects, phase=phase, gate=phase is Phase.FIRST, applies=has(case)
    )
    return declare(build)


plain = _example("plain", "The task's plainest example; the first, so a cold start falls to it.", phase=Phase.FIRST)
options = _example("options", "An example that uses the task's parameters.")
more = _example("more", "A second example with other parameters.")
batch = _example("batch", "Several inputs at once.")
unicode = _example("unicode", "An input with characters beyond ASCII, where positions are easily miscounted.")
empty = _example("empty", "An empty input: an answer or a refusal, but no crash.", Expects.EITHER)
wrong = _example("wrong", "An input of the wrong kind.", Expects.REFUSAL)


@probe("task.again", applies=has("plain"))
def again(context: Context) -> Draft | None:
    """The plain example once more: warm now, and to compare with the first."""
    return draft(context.facts, "plain")


@probe("task.missing", expects=Expects.REFUSAL, applies=has("plain"))
def missing(context: Context) -> Draft:
    """A request without any input."""
    return Draft("POST", _path(context.facts), json={"parameters": {}}, at_root=True)


NEEDED = (plain, again, unicode)
"""The probes that ask for no more than every model of the task can do."""
ANSWERS = (plain, again, options, more, batch, unicode)
"""The probes that a healthy provider answers."""
