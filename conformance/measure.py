"""Measurements, taken from exchanges alone: the same figures for reports, checks and the validator.

All times are seconds; nothing is rounded here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from roadworthy.conformance.exchange import ChatStream, Exchange, as_object
from roadworthy.conformance.words import is_integer

NS = 1e9
STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Samples in short: how many, the least, the median, the 95th percentile (nearest rank), the most."""

    count: int
    least: float
    median: float
    p95: float
    most: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Distribution | None:
        """The distribution of some samples, or None where there are none."""
        ordered = sorted(samples)
        if not ordered:
            return None
        rank = max(0, -(-95 * len(ordered) // 100) - 1)
        return cls(len(ordered), ordered[0], median(ordered), ordered[rank], ordered[-1])


@dataclass(frozen=True, slots=True)
class StreamTiming:
    """The clock readings of one streamed answer, from the request's hand-over to the socket.

    `output_tokens` are those that were streamed; `tokens_counted_by` says whence: "usage" (less the thoughts that were
    kept back), or "chunks" where the stream told no usage. `tokens_per_s` is taken after the first chunk of tokens,
    and None for an answer that is too short to say, or was cut.
    """

    exchange_id: str
    time_to_first_token_s: float
    total_time_s: float
    uncertainty_s: float
    token_times_s: tuple[float, ...]
    output_tokens: int
    tokens_counted_by: str
    tokens_per_s: float | None

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """The times between one token event and the next."""
        times = self.token_times_s
        return tuple(later - earlier for earlier, later in itertools.pairwise(times))


@dataclass(frozen=True, slots=True)
class Measurements:
    """All that one run measured of one model."""

    samples: tuple[StreamTiming, ...]
    """The streams that were sent alone, for latency."""
    streams: tuple[StreamTiming, ...]
    """Every other stream."""
    cold_start_s: float | None
    retries: int

    @property
    def time_to_first_token(self) -> Distribution | None:
        """Over the samples, or over all streams where there were no samples."""
        return Distribution.of(timing.time_to_first_token_s for timing in self.samples or self.streams)

    @property
    def tokens_per_s(self) -> Distribution | None:
        """Output tokens per second over every stream that was long enough."""
        return Distribution.of(t.tokens_per_s for t in (*self.samples, *self.streams) if t.tokens_per_s is not None)

    @property
    def gaps_s(self) -> Distribution | None:
        """Times between one chunk of tokens and the next, over every stream."""
        return Distribution.of(gap for timing in (*self.samples, *self.streams) for gap in timing.gaps_s)

    @property
    def uncertainty_s(self) -> float:
        """The largest uncertainty of any reading."""
        return max((timing.uncertainty_s for timing in (*self.samples, *self.streams)), default=0.0)


def stream_timing(exchange: Exchange) -> StreamTiming | None:
    """The timing of one streamed answer; None where no token ever came."""
    if exchange.status != 200 or exchange.media_type != STREAM:
        return None
    stream = exchange.stream
    times = tuple(chunk.event.at_ns / NS for chunk in stream.chunks if chunk.has_token)
    if not times:
        return None
    told = _streamed_tokens(stream)
    output = told or len(times)
    span_s = times[-1] - times[0]
    # A chunk may hold several tokens: those of the first one came before the clock started.
    later = output * (len(times) - 1) / len(times)
    whole = exchange.complete and not exchange.reply.closed_early
    last_ns = exchange.reply.timings.last_byte_ns
    return StreamTiming(
        exchange_id=exchange.id,
        time_to_first_token_s=times[0],
        total_time_s=last_ns / NS if last_ns is not None else times[-1],
        uncertainty_s=exchange.reply.timings.uncertainty_ns / NS,
        token_times_s=times,
        output_tokens=output,
        tokens_counted_by="usage" if told else "chunks",
        tokens_per_s=later / span_s if whole and span_s > 0 else None,
    )


def _streamed_tokens(stream: ChatStream) -> int:
    """The completion tokens of a stream's usage, without thoughts that were counted but not shown; 0 where not told."""
    usage = as_object(stream.usage)
    said = usage.get("completion_tokens")
    thought = as_object(usage.get("completion_tokens_details")).get("reasoning_tokens")
    if not is_integer(said):
        return 0
    hidden = thought if is_integer(thought) and not stream.reasoning() else 0
    return max(0, said - max(0, hidden))


def measure(exchanges: Sequence[Exchange], latency_probe: str = "latency.first_token") -> Measurements:
    """What the exchanges of one model show; `latency_probe` names the probe whose streams were sent alone."""
    samples: list[StreamTiming] = []
    streams: list[StreamTiming] = []
    for exchange in exchanges:
        timing = stream_timing(exchange)
        if timing is not None:
            (samples if exchange.probe == latency_probe else streams).append(timing)
    warm_up = next((x for x in exchanges if x.probe == "warmup" and x.status == 200), None)
    last_ns = warm_up.reply.timings.last_byte_ns if warm_up else None
    return Measurements(
        samples=tuple(samples),
        streams=tuple(streams),
        cold_start_s=last_ns / NS if last_ns is not None else None,
        retries=sum(len(exchange.retries) for exchange in exchanges),
    )
