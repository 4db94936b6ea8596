"""Checks of the property-based leg by our OpenAPI descriptions: what must hold for any request of a family.

They tell only of what generated requests bring out. What a request written by hand shows as well is judged by
a check of its own; then these say that they cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import describe
from roadworthy.conformance.probe import PROBES, Expects
from roadworthy.conformance.probes import openapi as probes
from roadworthy.conformance.probes.fuzz import CASE, REFUSE
from roadworthy.conformance.verdict import Finding, Lens, Level, Outcome, Undecided
from roadworthy.conformance.words import show
from roadworthy.http.message import FailureKind, header
from roadworthy.schemas import openapi, problem
from roadworthy.schemas.openapi import Operation

DESCRIPTION = "our own description, schemas/openapi, of the family's published routes"
CRASHES = (FailureKind.DISCONNECTED, FailureKind.TRUNCATED, FailureKind.TOTAL_TIMEOUT, FailureKind.IDLE_TIMEOUT)
NOT_OFFERED = (404, 405, 501)
STREAM = "text/event-stream"
GENERATED = (probes.valid, probes.invalid)

Look = Callable[[Operation, Exchange], "Finding | None"]


@dataclass(frozen=True, slots=True)
class _Case:
    """A generated exchange and the operation that it asked."""

    operation: Operation
    exchange: Exchange


def _cases(exchanges: Sequence[Exchange], facts: Facts) -> list[_Case]:
    """The generated exchanges, the shortest requests first: they explain most."""
    found = []
    for exchange in sorted(exchanges, key=_size):
        id = header(exchange.request.headers, probes.OPERATION) or ""
        operation = openapi.operation(facts.api, facts.task, id)
        if operation is not None:
            found.append(_Case(operation, exchange))
    return found


def _size(exchange: Exchange) -> int:
    return len(exchange.request.url) + len(exchange.request.body or b"")


def _same(operation: Operation, exchanges: Iterable[Exchange]) -> list[Exchange]:
    """The exchanges, written by hand, that asked an operation."""
    # A model's name may have slashes in it; other names have none.
    path = re.sub(r"\\\{(\w+)\\\}", lambda match: ".+" if match[1] == "model" else "[^/]+", re.escape(operation.path))
    return [
        exchange
        for exchange in exchanges
        if exchange.request.method == operation.method
        and re.search(path + "$", urlsplit(exchange.request.url).path)
        and header(exchange.request.headers, probes.OPERATION) is None
    ]


def _told(cases: Sequence[_Case], others: Sequence[Exchange], look: Look, where: str) -> Iterator[Outcome]:
    """The first finding of each operation, unless requests written by hand show the same.

    `look` judges any exchange with an operation; two show the same where place and expectation are.
    """
    told: set[str] = set()
    for case in cases:
        operation = case.operation
        finding = look(operation, case.exchange) if operation.id not in told else None
        if finding is None:
            continue
        # Of all operations, since a family's routes are mostly doors to one program with one reader of requests.
        shown = {_essence(look(one, other)) for one in _operations(cases) for other in _same(one, others)}
        if _essence(finding) in shown:
            yield Undecided(f"{operation.id}: requests written by hand show the same; see {where}")
            continue
        told.add(operation.id)
        yield replace(finding, note=_note(case), exchange_id=case.exchange.id)


def _operations(cases: Sequence[_Case]) -> list[Operation]:
    return list({case.operation.id: case.operation for case in cases}.values())


def _essence(finding: Finding | None) -> tuple[str, str] | None:
    return (re.sub(r"\d+", "0", finding.at), finding.expected) if finding else None


def _note(case: _Case) -> str:
    label = (header(case.exchange.request.headers, CASE) or "").removeprefix(REFUSE)
    body = case.exchange.request.body
    sent = f"; sent: {show(body)}" if body is not None else ""
    return f"{case.operation.id}, {label}{sent}"


@check(
    "openapi.no_5xx",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.SPEC],
    source=DESCRIPTION,
    remedy="Validate requests before they reach the engine; the request in the exchange reproduces the failure.",
    across=GENERATED,
    on=Usable.ANYTHING,
)
def no_5xx(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """No request drawn from the description, valid or broken, makes the server fail or hang up.

    What one strange request does to one worker, a hundred do to the service.
    """
    yield from _told(_cases(exchanges, facts), others, _crash, "errors.no_5xx")


def _crash(_: Operation, exchange: Exchange) -> Finding | None:
    failure = exchange.reply.failure
    if exchange.status is not None and exchange.status >= 500 and exchange.status not in (501, 503):
        return Finding("an answer, or a 4xx", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")
    if failure is not None and failure.kind in CRASHES and exchange.media_type != STREAM:
        return Finding("an answer, or a 4xx", failure.message, at="connection")
    return None


@check(
    "openapi.status_documented",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=DESCRIPTION,
    remedy="Answer 200, or refuse with one of the statuses that the description names: 400 or 422 for a wrong request.",
    across=GENERATED,
    on=Usable.COMPLETE,
)
def status_documented(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """Every answer has a status that the description of its operation names.

    Clients act by the status: what they do not expect of a route they report as a fault of the provider.
    """
    cases = _cases(exchanges, facts)
    offered = {case.operation.id for case in cases if case.exchange.status not in NOT_OFFERED}
    cases = [case for case in cases if case.operation.id in offered]
    yield from _told(cases, others, _undocumented, "the checks of this route")


def _undocumented(operation: Operation, exchange: Exchange) -> Finding | None:
    status = exchange.status
    if status is None or status >= 500 or operation.documents(status):
        return None
    known = ", ".join(code for code in operation.answers if code < "500")
    return Finding(f"one of {known}", f"HTTP {status}", at="status")


@check(
    "openapi.content_type",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.SPEC],
    source=f"{DESCRIPTION}; JavaScript inference client: JSON is read only under application/json",
    remedy="Send the content type of the body: `application/json` for JSON, `text/event-stream` for events.",
    across=[probes.valid],
    on=Usable.COMPLETE,
)
def content_type(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """Every answer to a valid request says in its content type what the description of its operation names.

    Clients choose by it how to read the body: JSON under another name reaches the caller as a blob of bytes.
    """
    yield from _told(_cases(exchanges, facts), others, _mistyped, "the checks of this route")


def _mistyped(operation: Operation, exchange: Exchange) -> Finding | None:
    status = exchange.status or 0
    content = operation.answers.get(str(status))
    if not 200 <= status < 300 or not content or operation.schema(status, exchange.media_type) is not None:
        return None
    return Finding(" or ".join(content), exchange.media_type or "none", at="header Content-Type")


@check(
    "openapi.response_shape",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.SPEC],
    source=DESCRIPTION,
    remedy="Compare the answer with the schema that schemas/openapi names for this operation, field by field.",
    across=[probes.valid],
    on=Usable.COMPLETE,
)
def response_shape(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """Every answer to a valid request has the shape that the description gives, whatever its parameters.

    Parameters may change the answer, never its form: clients read it field by field and throw where one is missing.
    """
    cases = _cases(exchanges, facts)
    asked = [case.exchange for case in cases if case.operation.request is not None]
    if asked and not any(200 <= (exchange.status or 0) < 300 for exchange in asked):
        yield Undecided(f"no generated request was answered: {asked[0].id} got {describe(asked[0])}")
    yield from _told(cases, others, _misshapen, "the checks of this route")


def _misshapen(operation: Operation, exchange: Exchange) -> Finding | None:
    """What is wrong with the form of an answer; of its content type another check tells."""
    if exchange.status != 200 or not exchange.complete:
        return None
    name = operation.schema(200, exchange.media_type)
    if not name:
        return None
    if exchange.media_type != STREAM:
        return _problem(name, exchange.json, exchange.reply.body)
    for chunk in exchange.stream.chunks:
        found = None if chunk.tells_error else _problem(name, chunk.value, chunk.event.data)
        if found is not None:
            return replace(found, at=f"event {chunk.event.index} {found.at}")
    return None


def _problem(name: str, value: object, raw: bytes | str) -> Finding | None:
    if isinstance(value, Malformed):
        return Finding("one JSON value", show(raw), at="body")
    found = problem(name, value)
    return Finding(found.expected, found.got, at=found.pointer or "body") if found else None


@check(
    "openapi.invalid_refused",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=DESCRIPTION,
    remedy="Validate requests by a schema, and answer 400 or 422 with the field that is wrong.",
    across=[probes.invalid],
    on=Usable.COMPLETE,
)
def invalid_refused(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """Requests that no reader could take for valid are refused: bytes that are no JSON, a field missing or senseless.

    An answer of some kind hides the caller's mistake, and is charged.
    """
    yield from _told(_cases(exchanges, facts), others, _accepted, "the checks of this route's refusals")


def _accepted(_: Operation, exchange: Exchange) -> Finding | None:
    case = header(exchange.request.headers, CASE)
    probe = PROBES.get(exchange.probe)
    wrong = case.startswith(REFUSE) if case is not None else probe is not None and probe.expects is Expects.REFUSAL
    if not wrong or exchange.status is None or exchange.status >= 400:
        return None
    if exchange.media_type == STREAM and any(chunk.tells_error for chunk in exchange.stream.chunks):
        return None
    return Finding("a 4xx", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")
