"""What checks say of a status: of a request that must be accepted, and of one that must be refused."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.verdict import Finding, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import show


def must_accept(exchange: Exchange) -> Iterator[Outcome]:
    """Fails for a refusal; of a crash errors.no_5xx tells, and whether it would be accepted nobody knows."""
    status = exchange.status or 0
    got = f"HTTP {status}: {show(exchange.reply.body)}"
    if status >= 500:
        yield Undecided(f"the server failed, see errors.no_5xx: {got}")
    elif status >= 400:
        yield Finding("HTTP 200", got, at="status", exchange_id=exchange.id)


def must_refuse(exchange: Exchange, what: str) -> Iterator[Outcome]:
    """Fails for an answer; of a crash errors.no_5xx tells. `what` is the message that the caller needs."""
    status = exchange.status or 0
    if status >= 500:
        yield NotApplicable("the server failed instead; see errors.no_5xx")
    elif status < 400:
        yield Finding(f"a 4xx that says: {what}", f"HTTP {status}: {show(exchange.reply.body)}", at="status")
