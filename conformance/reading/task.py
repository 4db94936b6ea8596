"""Reading the exchanges of a task: which rules hold, what was sent, and the answer's parts."""

from __future__ import annotations

import base64
import binascii
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from roadworthy.conformance.check import Check, Judge, Usable, check
from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Applies, Facts
from roadworthy.conformance.probe import Probe
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_number
from roadworthy.schemas import is_valid, manifest


def form(facts: Facts) -> manifest.Manifest:
    """The manifest of the subject's task. Raises `LookupError` for a task without one."""
    found = manifest.manifest(facts.task)
    if found is None:
        raise LookupError(f"the task {facts.task!r} has no manifest")
    return found


def routed(facts: Facts) -> bool:
    """Whether the subject is asked by the hub's task routes."""
    return facts.api is Api.SERVERLESS and manifest.manifest(facts.task) is not None


def answers_with(*responses: str) -> Applies:
    """Whether the subject is asked by task routes, and answers with JSON or with such a medium."""
    return lambda facts: routed(facts) and form(facts).response in responses


def ruled(rule: str) -> Applies:
    """Whether the manifest of the subject's task lists this rule."""
    return lambda facts: routed(facts) and rule in form(facts).rules


def sent_inputs(exchange: Exchange) -> Any:
    """The `inputs` of the request, or None for a raw body."""
    return as_object(exchange.sent).get("inputs")


def sent_parameters(exchange: Exchange) -> dict[str, Any]:
    """The `parameters` of the request."""
    return as_object(as_object(exchange.sent).get("parameters"))


def sent_bytes(exchange: Exchange) -> bytes | None:
    """The medium that was sent, raw or as base64, or None where none was."""
    body = as_object(exchange.sent)
    if not body:
        return exchange.request.body
    inputs = body.get("inputs")
    image = as_object(inputs).get("image", inputs)
    return decode(image) if isinstance(image, str) else None


def decode(text: str, *, uri: bool = True) -> bytes | None:
    """The bytes of a base64 text, or None where it is none; white space is skipped.

    `uri` allows a data: URI around it, which some clients do not read.
    """
    if uri and text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def lists(exchange: Exchange) -> list[list[dict[str, Any]]]:
    """The results of each input: a flat answer is one list, a nested one several, an object a list of itself."""
    value = exchange.json
    if isinstance(value, dict):
        return [[value]]
    if isinstance(value, list) and value and all(isinstance(item, list) for item in value):
        return [objects(item) for item in value]
    return [objects(value)]


def results(exchange: Exchange) -> list[dict[str, Any]]:
    """All results of an answer in one list."""
    return [item for items in lists(exchange) for item in items]


def scores(items: list[dict[str, Any]]) -> list[float]:
    """The scores that are numbers."""
    return [item["score"] for item in items if is_number(item.get("score"))]


def rule(
    name: str,
    *,
    source: str,
    remedy: str,
    each: Probe | Sequence[Probe] | None = None,
    joint: Sequence[Probe] | None = None,
    across: Sequence[Probe] | None = None,
    level: Level = Level.MUST,
    on: Usable = Usable.VALUE,
    bar: float | None = None,
) -> Callable[[Judge], Check]:
    """Declare a check of what a task's answer means, for the tasks whose manifests list its name.

    It sees only answers of the right shape.
    """
    declare = check(
        f"task.{name}",
        level=level,
        lenses=[Lens.HUB, Lens.SPEC],
        source=source,
        remedy=remedy,
        each=each,
        joint=joint,
        across=across,
        on=on,
        bar=bar,
        applies=ruled(name),
    )
    return lambda judge: declare(_of_right_shape(judge))


def _of_right_shape(judge: Judge) -> Judge:
    """The same judge for answers of the right shape only: of a wrong one task.shape tells, once."""
    wants_facts = "facts" in inspect.signature(judge).parameters

    def shaped(*given: Any, facts: Facts) -> Iterator[Outcome]:
        exchanges: Sequence[Exchange] = given[0] if isinstance(given[0], list) else given
        wrong = form(facts).response == "json" and not all(is_valid(form(facts).output, x.json) for x in exchanges)
        if wrong:
            yield NotApplicable("the answer has the wrong shape already; see task.shape")
        else:
            yield from judge(*given, **({"facts": facts} if wants_facts else {}))

    shaped.__doc__ = judge.__doc__
    return shaped
