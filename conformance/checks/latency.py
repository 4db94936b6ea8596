"""Checks of time, with the figures the hub holds providers to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.measure import StreamTiming, stream_timing
from roadworthy.conformance.probes.latency import first_token
from roadworthy.conformance.probes.stream import chat_stream
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided

GUIDE = "registration guide, Automatic validation: latency requirements"


@check(
    "latency.time_to_first_token",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Keep the model warm, shorten the queue before it, and flush the first token as soon as it exists.",
    across=[first_token],
    on=Usable.EVENTS,
)
def time_to_first_token(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """The first token of a streamed answer comes within 5 seconds (the median of several samples).

    The hub measures this every six hours, and takes a mapping that misses it off the active list. A role alone,
    an empty string or a comment is not a token.
    """
    samples = _samples(exchanges)
    if not samples:
        yield Undecided("no sample carried a token")
        return
    limit_s = facts.limits.time_to_first_token_s
    typical_s = median(sample.time_to_first_token_s for sample in samples)
    uncertainty_s = max(sample.uncertainty_s for sample in samples)
    if abs(typical_s - limit_s) <= uncertainty_s:
        yield Undecided(
            f"the median of {typical_s:.3f} s is closer to the limit of {limit_s:g} s than our own "
            f"uncertainty of {uncertainty_s:.3f} s"
        )
    elif typical_s > limit_s:
        shown = ", ".join(f"{sample.time_to_first_token_s:.3f}" for sample in samples)
        yield Finding(f"a median below {limit_s:g} s", f"{typical_s:.3f} s (samples: {shown})", at="first token")


@check(
    "latency.slowest_first_token",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Find what the slow requests met: a cold replica, a full batch, a retry behind your gateway.",
    across=[first_token],
    on=Usable.EVENTS,
)
def slowest_first_token(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """No sample's first token comes later than 5 seconds.

    The hub asks once, not five times: a provider that is slow now and then is delisted now and then.
    """
    samples = _samples(exchanges)
    limit_s = facts.limits.time_to_first_token_s
    slow = [s for s in samples if s.time_to_first_token_s - s.uncertainty_s > limit_s]
    if not samples or 2 * len(slow) > len(samples):
        yield NotApplicable("the median itself is judged by latency.time_to_first_token")
        return
    for sample in slow:
        yield Finding(
            f"below {limit_s:g} s",
            f"{sample.time_to_first_token_s:.3f} s",
            at="first token",
            exchange_id=sample.exchange_id,
        )


@check(
    "latency.total_time",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Raise the tokens per second of this model, or give it less to share its machine with.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def total_time(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A short streamed answer is whole within 30 seconds.

    The hub allows other tasks 30 seconds in all, and users of a chat expect no less.
    """
    timing = stream_timing(exchange)
    if timing is not None and timing.total_time_s - timing.uncertainty_s > facts.limits.total_time_s:
        yield Finding(f"below {facts.limits.total_time_s:g} s", f"{timing.total_time_s:.3f} s", at="last byte")


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
    longest_s = max(timing.gaps_s, default=0.0) if timing else 0.0
    if timing is not None and longest_s - timing.uncertainty_s > facts.limits.max_stall_s:
        yield Finding(f"gaps below {facts.limits.max_stall_s:g} s", f"a gap of {longest_s:.3f} s", at="between tokens")


def _samples(exchanges: Sequence[Exchange]) -> list[StreamTiming]:
    return [timing for exchange in exchanges if (timing := stream_timing(exchange)) is not None]
