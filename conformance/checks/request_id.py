"""Checks of the request id, by which every request is billed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts, inference
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import show

GUIDE = "registration guide, How to define the request ID"


def _served(exchanges: Sequence[Exchange]) -> list[Exchange]:
    return [x for x in exchanges if x.status == 200 and x.request.method == "POST"]


def _first_missing(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Finding]:
    name = facts.request_id_header
    missing = [x for x in exchanges if not (x.reply.header(name) or "").strip()]
    if missing:
        got = f"none on {len(missing)} of {len(exchanges)} responses"
        yield Finding(f"the header {name}", got, at=f"header {name}", exchange_id=missing[0].id)


@check(
    "request_id.present",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Set the header on every response, from one place that all routes share.",
    across=[],
    on=Usable.RESPONSE,
    applies=inference,
)
def present(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Finding]:
    """Every answer carries the request id in its header.

    The hub asks for the cost of a request by this id; what has none cannot be charged to its user.
    """
    yield from _first_missing([x for x in _served(exchanges) if x.media_type != "text/event-stream"], facts)


@check(
    "request_id.on_streams",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Set the header before the stream begins.",
    across=[],
    on=Usable.RESPONSE,
    applies=inference,
)
def on_streams(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Finding]:
    """Every streamed answer carries the request id in its header too.

    Most chats are streamed: without it most of the bill is lost.
    """
    yield from _first_missing([x for x in _served(exchanges) if x.media_type == "text/event-stream"], facts)


@check(
    "request_id.on_errors",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Set the header in the middleware that wraps error handling as well.",
    across=[],
    on=Usable.RESPONSE,
    applies=inference,
)
def on_errors(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Finding]:
    """Errors carry the request id in their header as well.

    It is what a user sends to support.
    """
    failed = [x for x in exchanges if x.status is not None and x.status >= 400 and x.request.method == "POST"]
    yield from _first_missing(failed, facts)


@check(
    "request_id.unique",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Make a new id for each request.",
    across=[],
    on=Usable.RESPONSE,
    applies=inference,
)
def unique(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Finding]:
    """No two requests have the same id.

    Two requests under one id are charged once, or one of them to the wrong user.
    """
    seen: dict[str, str] = {}
    for exchange in exchanges:
        value = exchange.reply.header(facts.request_id_header)
        if not value:
            continue
        if value in seen:
            got = f"{show(value)}, the id of {seen[value]}"
            yield Finding("a new id", got, at=f"header {facts.request_id_header}", exchange_id=exchange.id)
            return
        seen[value] = exchange.id


@check(
    "request_id.uuid",
    level=Level.MAY,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Use a UUID.",
    across=[],
    on=Usable.RESPONSE,
    applies=inference,
)
def is_uuid(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """The request id is a UUID.

    The guide suggests one; other ids work as long as they never repeat.
    """
    values = [(x.id, v) for x in exchanges if (v := x.reply.header(facts.request_id_header))]
    if not values:
        yield NotApplicable("there is no request id; see request_id.present")
    for id, value in values:
        try:
            uuid.UUID(value)
        except ValueError:
            yield Finding("a UUID", show(value), at=f"header {facts.request_id_header}", exchange_id=id)
            return
