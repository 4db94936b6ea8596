"""Checks of time, with the figures the hub holds providers to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.measure import NS, stream_timing
from roadworthy.conformance.probes.latency import first_token
from roadworthy.conformance.probes.stream import chat_stream, twin
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.http.message import FailureKind

GUIDE = "registration guide, Automatic validation: latency requirements"
LEAST_SAMPLES = 3
TIMEOUTS = (FailureKind.IDLE_TIMEOUT, FailureKind.TOTAL_TIMEOUT)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A reading and its bounds: our own process can only have made it late, never early.

    Of a stream that we gave up before its first token only the lower bound is known.
    """

    exchange_id: str
    least_s: float
    most_s: float

    def __str__(self) -> str:
        return f"{self.most_s:.3f}" if self.most_s < inf else f"none within {self.least_s:.1f}"


@check(
    "latency.time_to_first_token",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Keep the model warm, shorten the queue before it, and flush the first token as soon as it exists.",
    across=[first_token],
    on=Usable.ANYTHING,
)
def time_to_first_token(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """The first token of a streamed answer comes within 5 seconds (the median of several samples).

    The hub measures this every six hours, and takes a mapping that misses it off the active list. A role alone,
    an empty string or a comment is not a token.
    """
    samples = _samples(exchanges)
    limit_s = facts.limits.time_to_first_token_s
    shown = ", ".join(map(str, samples))
    if len(samples) < LEAST_SAMPLES:
        yield Undecided(f"{len(samples)} of {len(exchanges)} streams gave a reading; {LEAST_SAMPLES} are needed")
    elif median(sample.least_s for sample in samples) > limit_s:
        yield Finding(
            f"a median of at most {limit_s:g} s", f"{_median(samples)} (samples in s: {shown})", at="first token"
        )
    elif median(sample.most_s for sample in samples) > limit_s:
        yield Undecided(
            f"the median, {_median(samples)}, is closer to the limit of {limit_s:g} s than our own uncertainty "
            f"(up to {max(sample.most_s - sample.least_s for sample in samples):.3f} s)"
        )


@check(
    "latency.slowest_first_token",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Find what the slow requests met: a cold replica, a full batch, a retry behind your gateway.",
    across=[first_token],
    on=Usable.ANYTHING,
)
def slowest_first_token(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """No sample's first token comes later than 5 seconds.

    The hub asks once, not five times: a provider that is slow now and then is delisted now and then.
    """
    samples = _samples(exchanges)
    limit_s = facts.limits.time_to_first_token_s
    if not samples or median(sample.most_s for sample in samples) > limit_s:
        yield NotApplicable("the median itself is judged by latency.time_to_first_token")
        return
    for sample in samples:
        if sample.least_s > limit_s:
            yield Finding(f"at most {limit_s:g} s", f"{sample} s", at="first token", exchange_id=sample.exchange_id)
        elif sample.most_s > limit_s:
            yield Undecided(f"{sample.exchange_id}: {sample} s is over the limit by less than our own uncertainty")


@check(
    "latency.total_time",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="registration guide, Automatic validation: 30 seconds for whole answers",
    remedy="Raise the tokens per second of this model, or give it less to share its machine with.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def total_time(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A short streamed answer is whole within 30 seconds.

    Gateways and load balancers before the caller close what takes longer, and users leave.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "latency.unstreamed_time",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source="registration guide, Automatic validation: 30 seconds for whole answers",
    remedy="Raise the tokens per second of this model, or give it less to share its machine with.",
    each=[twin],
    on=Usable.SUCCESS,
)
def unstreamed_time(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A short answer that is not streamed is whole within 30 seconds.

    It is what the hub allows a request that does not stream.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "latency.stall",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OpenAI SDK, read timeout",
    remedy="Do not let a running answer wait: bound the batch, or send comments while it does.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def stall(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A stream that has begun does not pause for long between tokens.

    Gateways and clients give up on a silent connection, and users on a frozen answer.
    """
    timing = stream_timing(exchange)
    if timing is None or not timing.gaps_s:
        yield NotApplicable("fewer than two tokens came")
        return
    longest_s, limit_s = max(timing.gaps_s), facts.limits.max_stall_s
    if longest_s - timing.uncertainty_s > limit_s:
        yield Finding(f"gaps of at most {limit_s:g} s", f"a gap of {longest_s:.3f} s", at="between tokens")
    elif longest_s > limit_s:
        yield Undecided(f"a gap of {longest_s:.3f} s is over the limit by less than our own uncertainty")


def _samples(exchanges: Sequence[Exchange]) -> list[_Sample]:
    samples = []
    for exchange in exchanges:
        timing = stream_timing(exchange)
        failure, ended_ns = exchange.reply.failure, exchange.reply.timings.ended_ns
        if timing is not None:
            seconds = timing.time_to_first_token_s
            samples.append(_Sample(exchange.id, max(0.0, seconds - timing.uncertainty_s), seconds))
        elif failure is not None and failure.kind in TIMEOUTS and ended_ns is not None:
            samples.append(_Sample(exchange.id, ended_ns / NS, inf))
    return samples


def _median(samples: Sequence[_Sample]) -> str:
    typical = median(sample.most_s for sample in samples)
    return f"{typical:.3f} s" if typical < inf else f"over {median(sample.least_s for sample in samples):.1f} s"
