"""Checks of every task: answered in time, in the shape that the hub's clients need, and in the published one."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import task as probes
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.reading.task import answers_with, form, routed
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import show
from roadworthy.schemas import is_valid, problem

CLIENTS = "official inference clients, the task's response"
SPEC = "published task specification, output"
TASK_API = "task API, request"


@check(
    "task.answered",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=TASK_API,
    remedy="Answer 200 to the task's plain example; what the model needs besides is declared in the settings.",
    each=probes.NEEDED,
    on=Usable.COMPLETE,
)
def answered(exchange: Exchange) -> Iterator[Finding]:
    """The task's examples are answered with 200.

    The hub sends such requests before it lists a model, and again every six hours.
    """
    if exchange.status != 200:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "task.options_answered",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=f"{TASK_API}, parameters",
    remedy="Take the task's documented parameters, and ignore those that mean nothing to the model.",
    each=(probes.options, probes.more, probes.batch),
    on=Usable.COMPLETE,
)
def options_answered(exchange: Exchange) -> Iterator[Finding]:
    """The task's examples with parameters, and those of several inputs, are answered with 200.

    Widgets and clients send them; a model that cannot do one of them refuses it to every user.
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
        yield Finding("one JSON value", exchange.json.reason, at="body")


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
    found = problem(form(facts).output, exchange.json)
    if found:
        note = form(facts).conflicts.get(Lens.SPEC, "")
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
    known = form(facts)
    found = problem(known.spec_output, exchange.json)
    if not found:
        return
    conflict = known.conflicts.get(Lens.SPEC)
    if conflict and is_valid(known.output, exchange.json):
        yield NotApplicable(conflict)
    else:
        yield Finding(found.expected, found.got, at=found.pointer or "body")


@check(
    "task.latency",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source="registration guide, Automatic validation: 30 seconds for whole answers",
    remedy="Keep the model warm, and give it less to share its machine with.",
    each=probes.again,
    on=Usable.SUCCESS,
)
def latency(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A warm model's answer is whole within 30 seconds.

    The hub measures this every six hours, and takes a mapping that misses it off the active list.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "task.refuses.wrong_input",
    level=Level.SHOULD,
    lenses=[Lens.HUB, Lens.SPEC],
    source=TASK_API,
    remedy="Check that the input is of the task's kind and decodes, and answer 400 or 422 where it is not.",
    each=probes.wrong,
    on=Usable.COMPLETE,
)
def wrong_input(exchange: Exchange) -> Iterator[Outcome]:
    """An input of the wrong kind gets a 4xx.

    An answer to a broken file is an invention, and it is charged.
    """
    yield from must_refuse(exchange, "what kind of input is expected")


@check(
    "task.refuses.no_input",
    level=Level.SHOULD,
    lenses=[Lens.HUB, Lens.SPEC],
    source=TASK_API,
    remedy="Answer 400 or 422 to a request without `inputs`, and name the field.",
    each=probes.missing,
    on=Usable.COMPLETE,
)
def no_input(exchange: Exchange) -> Iterator[Outcome]:
    """A request without any input gets a 4xx.

    Its caller has misspelt the field, and must be told so rather than charged.
    """
    yield from must_refuse(exchange, "`inputs` is missing")


@check(
    "task.empty",
    level=Level.SHOULD,
    lenses=[Lens.HUB, Lens.SPEC],
    source=TASK_API,
    remedy="Answer an empty input in the task's usual shape, or refuse it with 400 or 422.",
    each=probes.empty,
    on=Usable.COMPLETE,
)
def empty(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """An empty input gets an answer of the usual shape, or a 4xx.

    Batches of real texts hold empty ones, and must not bring their readers down.
    """
    status = exchange.status or 0
    if status >= 500:
        yield NotApplicable("the server failed instead; see errors.no_5xx")
    elif status >= 400 or form(facts).response != "json":
        return
    elif isinstance(exchange.json, Malformed):
        yield Finding("one JSON value", exchange.json.reason, at="body")
    elif exchange.json not in ([], {}, [[]]) and (found := problem(form(facts).output, exchange.json)):
        yield Finding(found.expected, found.got, at=found.pointer or "body")


@check(
    "task.media_type",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source="JavaScript inference client, request: anything but application/json is read as bytes",
    remedy="Send the bytes of the medium under their own media type, such as image/png.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
    applies=lambda facts: routed(facts) and not answers_with("json")(facts),
)
def media_type(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """A medium is not answered as JSON or text.

    Under application/json the JavaScript client tries to parse it and throws; browsers show text as text.
    """
    kind = exchange.media_type
    if kind == "application/json" or kind.startswith("text/"):
        yield Finding(f"{form(facts).response}/...", kind, at="header Content-Type")
