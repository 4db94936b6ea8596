"""Checks of every task's answers: the shape that the hub's clients need, and the published one."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed
from roadworthy.conformance.facts import Applies, Facts
from roadworthy.conformance.probes import task as probes
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import show
from roadworthy.schemas import is_valid, manifest, problem

CLIENTS = "official inference clients, the task's response"
SPEC = "published task specification, output"


def answers_with(response: str) -> Applies:
    """Whether the subject is asked by task routes and answers with JSON, or with a medium."""

    def applies(facts: Facts) -> bool:
        form = manifest.manifest(facts.task)
        return facts.api is Api.SERVERLESS and form is not None and form.response == response

    return applies


def _form(facts: Facts) -> manifest.Manifest:
    form = manifest.manifest(facts.task)
    if form is None:
        raise LookupError(facts.task)
    return form


@check(
    "task.answered",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=CLIENTS,
    remedy="Answer 200 to the task's documented example; the exchange holds what was sent.",
    each=probes.ANSWERS,
    on=Usable.COMPLETE,
)
def answered(exchange: Exchange) -> Iterator[Finding]:
    """The task's examples are answered with 200.

    The hub sends such requests before it lists a model, and again every six hours.
    """
    if exchange.status != 200:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "task.json",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source="JavaScript inference client, request: JSON is read only under application/json",
    remedy="Answer with one JSON value, and the header `Content-Type: application/json`.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
    applies=answers_with("json"),
)
def is_json(exchange: Exchange) -> Iterator[Finding]:
    """An answer is strict JSON and says so in its content type.

    The JavaScript client hands its caller a blob of bytes where the content type is another.
    """
    if exchange.media_type != "application/json":
        yield Finding("application/json", exchange.media_type or "none", at="header Content-Type")
    elif isinstance(exchange.json, Malformed):
        yield Finding("one JSON value", show(exchange.reply.body), at="body")


@check(
    "task.shape",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=CLIENTS,
    remedy="Compare the answer with the task's hub_output.json (or output.json) under schemas/tasks, field by field.",
    each=probes.ANSWERS,
    on=Usable.VALUE,
    applies=answers_with("json"),
)
def shape(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """An answer has the shape that the hub's clients read.

    They check it field by field and throw where one is missing or of another type.
    """
    found = problem(_form(facts).output, exchange.json)
    if found:
        note = _form(facts).conflicts.get(Lens.SPEC, "")
        yield Finding(found.expected, found.got, at=found.pointer or "body", note=note)


@check(
    "task.spec",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=SPEC,
    remedy="Compare the answer with the task's output.json under schemas/tasks, field by field.",
    each=probes.ANSWERS,
    on=Usable.VALUE,
    applies=answers_with("json"),
)
def spec(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """An answer has the shape that the published specification gives.

    Tools that are generated from the specification read it so. Where the hub's own clients need another shape,
    theirs is the one to serve, and this check says so.
    """
    form = _form(facts)
    found = problem(form.spec_output, exchange.json)
    if not found:
        return
    if Lens.SPEC in form.conflicts and is_valid(form.output, exchange.json):
        yield NotApplicable(form.conflicts[Lens.SPEC])
        return
    yield Finding(found.expected, found.got, at=found.pointer or "body")
