"""Checks of the property-based leg: what must hold for any request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, as_object
from roadworthy.conformance.probes import fuzz as probes
from roadworthy.conformance.probes.discovery import warmup
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import show
from roadworthy.http.message import FailureKind, header
from roadworthy.schemas import problem

API = "OpenAI API reference, chat completions; our own request schema"
CRASHES = (FailureKind.DISCONNECTED, FailureKind.TRUNCATED, FailureKind.TOTAL_TIMEOUT, FailureKind.IDLE_TIMEOUT)
STREAM = "text/event-stream"


def _case(exchange: Exchange) -> str:
    return header(exchange.request.headers, probes.CASE) or "generated body"


def _smallest(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """The shortest bodies first: they explain most."""
    return sorted(exchanges, key=lambda exchange: len(exchange.request.body or b""))


@check(
    "fuzz.no_5xx",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source=API,
    remedy="Validate requests before they reach the engine; the body in the exchange reproduces the failure.",
    across=[probes.valid, probes.invalid],
    on=Usable.ANYTHING,
)
def no_5xx(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """No generated request, valid or not, makes the server fail or hang up.

    What one strange request does to one worker, a hundred do to the service.
    """
    for exchange in _smallest(exchanges):
        failure = exchange.reply.failure
        if exchange.status is not None and exchange.status >= 500 and exchange.status != 503:
            got = f"HTTP {exchange.status}: {show(exchange.reply.body)}"
            yield Finding("an answer, or a 4xx", got, at="status", note=_case(exchange), exchange_id=exchange.id)
        elif failure is not None and failure.kind in CRASHES and exchange.media_type != STREAM:
            yield Finding(
                "an answer, or a 4xx", failure.message, at="connection", note=_case(exchange), exchange_id=exchange.id
            )


@check(
    "fuzz.valid.shape",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source=API,
    remedy="Compare the body with schemas/openai/chat_completion.json, field by field.",
    across=[warmup, probes.valid],
    on=Usable.SUCCESS,
)
def valid_shape(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """Every unstreamed answer to a generated valid request is a chat completion.

    Parameters may change the answer, never its form. What is wrong with every answer is told by chat.shape.
    """
    if any(_misshapen(exchange) for exchange in exchanges if exchange.probe == warmup.id):
        yield NotApplicable("the plain answer has the wrong shape already; see chat.shape and chat.json")
        return
    for exchange in _smallest(exchanges):
        wrong = _misshapen(exchange)
        if wrong is not None:
            yield replace(wrong, note=_case(exchange), exchange_id=exchange.id)
            return


def _misshapen(exchange: Exchange) -> Finding | None:
    """What is wrong with the form of an unstreamed answer."""
    if as_object(exchange.sent).get("stream") is True:
        return None
    if not isinstance(exchange.json, dict):
        return Finding("a JSON object", show(exchange.reply.body), at="body")
    if "error" in exchange.json:
        return Finding("an answer under 200", show(exchange.json), at="/error")
    found = problem("openai/chat_completion.json", exchange.json)
    return Finding(found.expected, found.got, at=found.pointer) if found else None


@check(
    "fuzz.invalid.refused",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Validate requests by a schema, and answer 400 with the field that is wrong.",
    across=[probes.invalid],
    on=Usable.COMPLETE,
)
def invalid_refused(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """Generated requests that are plainly wrong are refused.

    An answer of some kind hides the caller's mistake, and is charged.
    """
    for exchange in _smallest(exchanges):
        if _case(exchange).startswith(probes.REFUSE) and exchange.status is not None and exchange.status < 400:
            case = _case(exchange).removeprefix(probes.REFUSE)
            got = f"HTTP {exchange.status}: {show(exchange.reply.body)}"
            yield Finding(f"a 4xx for {case}", got, at="status", exchange_id=exchange.id)


@check(
    "fuzz.alive",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source=API,
    remedy="Find which generated request broke the worker: look for the last one before the failures.",
    each=probes.after,
    on=Usable.ANYTHING,
)
def alive(exchange: Exchange) -> Iterator[Finding]:
    """After all the generated requests a plain question is answered.

    A request that poisons its worker takes its neighbours down.
    """
    if exchange.status != 200 or not exchange.complete:
        got = exchange.reply.failure.message if exchange.reply.failure else f"HTTP {exchange.status}"
        yield Finding("HTTP 200", got, at="status")
