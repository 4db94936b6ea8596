"""What checks say of the time that a whole answer took."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.measure import NS
from roadworthy.conformance.verdict import Finding, NotApplicable, Outcome, Undecided


def whole_in_time(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """Fails for an answer that was whole later than `facts.limits.total_time_s` after its request left."""
    last_ns = exchange.reply.timings.last_byte_ns
    if last_ns is None:
        yield NotApplicable("nothing came")
    else:
        yield from by(last_ns, exchange, facts.limits.total_time_s, "last byte")


def by(at_ns: float, exchange: Exchange, limit_s: float, at: str) -> Iterator[Outcome]:
    """Fails for something that came later than a limit; within our own uncertainty nobody can tell.

    `at_ns` counts nanoseconds from the sending of the request, and `at` names what came.
    """
    if (at_ns - exchange.reply.timings.uncertainty_ns) / NS > limit_s:
        yield Finding(f"at most {limit_s:g} s", f"{at_ns / NS:.3f} s", at=at)
    elif at_ns / NS > limit_s:
        yield Undecided(f"{at_ns / NS:.3f} s is over the limit by less than our own uncertainty")
