"""What checks say of the time that a whole answer took."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.measure import NS
from roadworthy.conformance.verdict import Finding, NotApplicable, Outcome, Undecided


def whole_in_time(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """Fails for an answer that was whole later than `facts.limits.total_time_s` after its request left."""
    last_ns, uncertainty_ns = exchange.reply.timings.last_byte_ns, exchange.reply.timings.uncertainty_ns
    limit_s = facts.limits.total_time_s
    if last_ns is None:
        yield NotApplicable("nothing came")
    elif (last_ns - uncertainty_ns) / NS > limit_s:
        yield Finding(f"at most {limit_s:g} s", f"{last_ns / NS:.3f} s", at="last byte")
    elif last_ns / NS > limit_s:
        yield Undecided(f"{last_ns / NS:.3f} s is over the limit by less than our own uncertainty")
