"""The geometry of the page's drawings: where things stand, in percent of the width.

Positions in percent let a drawing fill any width while its words keep their
size; the template turns them into SVG.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

from roadworthy.conformance.exchange import DONE, Chunk, Exchange, as_object
from roadworthy.conformance.measure import NS, STREAM, Distribution, Measurements, stream_timing
from roadworthy.conformance.report.text import clip, duration, one_line, plural
from roadworthy.conformance.verdict import Trials

MOST_ROWS = 40
"""Rows of a stream's table: the first and last events tell the story."""
NOTABLE_GAP_S = 0.05
SHORTEST_GAP_S = 1e-5
"""Shorter gaps count as this long: tokens that came in one read have none."""
BARS_PER_DECADE = 24
LEFT, RIGHT = 1.0, 99.0


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of an axis and its label. `anchor` keeps labels inside the drawing."""

    x: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened: its kind (which gives its shape), place and words."""

    kind: str
    x: float
    label: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of a stream's table."""

    at: str
    what: str
    detail: str


@dataclass(frozen=True)
class Timeline:
    """A stream's events along its own time axis."""

    exchange: Exchange
    summary: str
    ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    tokens: tuple[float, ...]
    waiting: tuple[float, float]
    generating: tuple[float, float] | None
    gap: tuple[float, float, str] | None
    failure: str
    table: tuple[EventRow, ...]
    unshown: int


def timelines(exchanges: Iterable[Exchange]) -> list[Timeline]:
    """A timeline for every exchange that streamed anything."""
    return [timeline(x) for x in exchanges if x.media_type == STREAM and x.stream.events]


def timeline(exchange: Exchange) -> Timeline:
    """Lay out one stream."""
    happened = [*_head(exchange), *_events(exchange), *_tail(exchange)]
    end_s = max((at_s for at_s, _, _ in happened), default=0.0) or 0.001
    x = _linear(0.0, end_s)
    tokens = [at_s for at_s, kind, _ in happened if kind in ("token", "first token")]
    failure = exchange.reply.failure
    return Timeline(
        exchange=exchange,
        summary=_summary(exchange, end_s),
        ticks=_ticks(end_s, x, _time),
        marks=_merged(Mark(kind, x(at_s), f"{kind}: {duration(at_s)}") for at_s, kind, _ in happened if kind in SHAPES),
        tokens=tuple(dict.fromkeys(round(x(at_s), 1) for at_s in tokens)),
        waiting=(x(0), x(tokens[0] if tokens else end_s)),
        generating=(x(tokens[0]), x(tokens[-1])) if tokens else None,
        gap=_gap(tokens, x),
        failure=one_line(failure.message) if failure else "",
        table=_table(happened),
        unshown=max(0, len(happened) - MOST_ROWS),
    )


SHAPES = ("headers", "role", "first token", "finish", "usage", "[DONE]", "error", "not JSON", "cut off", "we hung up")
Happened = tuple[float, str, str]


def _head(exchange: Exchange) -> list[Happened]:
    headers_ns = exchange.reply.timings.headers_ns
    found = [(0.0, "sent", f"{exchange.request.method} {exchange.request.url}")]
    if headers_ns is not None:
        found.append((headers_ns / NS, "headers", f"HTTP {exchange.status}, {exchange.media_type}"))
    return found


def _tail(exchange: Exchange) -> list[Happened]:
    last_ns = exchange.reply.timings.last_byte_ns or max((e.at_ns for e in exchange.stream.events), default=0)
    if exchange.reply.closed_early:
        return [(last_ns / NS, "we hung up", "on purpose, as this probe does")]
    if exchange.reply.failure is not None:
        return [(last_ns / NS, "cut off", exchange.reply.failure.message)]
    return [(last_ns / NS, "end", "last byte")]


def _events(exchange: Exchange) -> list[Happened]:
    chunks = {chunk.event.index: chunk for chunk in exchange.stream.chunks}
    first = exchange.stream.first_token
    return [
        (
            event.at_ns / NS,
            _kind(chunks.get(event.index), event.data, first=first is not None and event == first.event),
            one_line(event.data, 160),
        )
        for event in exchange.stream.events
    ]


def _kind(chunk: Chunk | None, data: str, *, first: bool) -> str:
    if chunk is None:
        return DONE if data.strip() == DONE else "event"
    if not isinstance(chunk.value, dict):
        return "not JSON"
    if chunk.object.get("error"):
        return "error"
    if first:
        return "first token"
    if any(isinstance(choice.get("finish_reason"), str) for choice in chunk.choices):
        return "finish"
    if chunk.has_token:
        return "token"
    if chunk.object.get("usage") is not None:
        return "usage"
    if any("role" in as_object(choice.get("delta")) for choice in chunk.choices):
        return "role"
    return "event"


def _summary(exchange: Exchange, end_s: float) -> str:
    """The stream in one sentence: it is the drawing's text alternative."""
    timing = stream_timing(exchange)
    if timing is None:
        return f"No token came; the stream ended after {duration(end_s)}."
    parts = [
        f"first token after {duration(timing.time_to_first_token_s)}",
        f"{plural(len(timing.token_times_s), 'token event')} until {duration(timing.token_times_s[-1])}",
    ]
    if timing.gaps_s:
        parts.append(f"longest gap {duration(max(timing.gaps_s))}")
    if timing.tokens_per_s:
        parts.append(f"{timing.tokens_per_s:,.0f} tokens/s")
    reads = len(exchange.reply.reads)
    parts.append(f"{plural(len(exchange.stream.events), 'event')} in {plural(reads, 'read')}")
    return ", ".join(parts) + "."


def _gap(tokens: Sequence[float], x: Callable[[float], float]) -> tuple[float, float, str] | None:
    """The longest silence between tokens, where it stands out."""
    gaps = sorted((later - earlier, earlier) for earlier, later in pairwise(tokens))
    if not gaps:
        return None
    longest, start = gaps[-1]
    if longest < NOTABLE_GAP_S or longest < 4 * gaps[(len(gaps) - 1) // 2][0]:
        return None
    return x(start), x(start + longest), f"gap {duration(longest)}"


def _merged(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Marks of one kind at one place are drawn once."""
    return tuple({(mark.kind, round(mark.x, 1)): mark for mark in marks}.values())


def _table(happened: Sequence[Happened]) -> tuple[EventRow, ...]:
    rows = [EventRow(duration(at_s) if at_s else "0", what, clip(detail, 160)) for at_s, what, detail in happened]
    if len(rows) <= MOST_ROWS:
        return tuple(rows)
    tail = 10
    return (*rows[: MOST_ROWS - tail], *rows[-tail:])


def _linear(low: float, high: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: round(LEFT + (RIGHT - LEFT) * (value - low) / span, 2)


def _ticks(end: float, x: Callable[[float], float], label: Callable[[float], str]) -> tuple[Tick, ...]:
    """Four to six round numbers from zero on."""
    step = _round_step(end / 5)
    values = [step * number for number in range(floor(end / step) + 1)]
    return tuple(_tick(x(value), label(value)) for value in values)


def _tick(x: float, label: str) -> Tick:
    return Tick(x, label, "start" if x < 6 else "end" if x > 94 else "middle")


def _round_step(rough: float) -> float:
    power: float = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _time(seconds: float) -> str:
    """A round length of time, as axes are labelled."""
    if seconds == 0:
        return "0"
    unit, factor = ("s", 1.0) if seconds > 0.999 else ("ms", 1e3) if seconds > 0.000999 else ("µs", 1e6)
    return f"{round(seconds * factor, 6):,g} {unit}"


@dataclass(frozen=True, slots=True)
class Dot:
    """A sample: its place, how far our own lateness may have moved it, its stacking row, its words."""

    x: float
    earliest_x: float
    row: int
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram: place, width, height in percent of the tallest, its words."""

    x: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Spread:
    """A distribution drawn along an axis: dots for few samples, bars for many."""

    title: str
    summary: str
    ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...] = ()
    bars: tuple[Bar, ...] = ()
    median_x: float | None = None
    limit: Tick | None = None


def spreads(measured: Measurements, limit_s: float) -> list[Spread]:
    """What was measured, as drawings."""
    timings = (*measured.samples, *measured.streams)
    first = measured.samples or measured.streams
    found = [
        _first_tokens([(t.time_to_first_token_s, t.uncertainty_s, t.exchange_id) for t in first], measured, limit_s),
        _gaps([gap for timing in timings for gap in timing.gaps_s], measured.gaps_s),
        _speeds([(t.tokens_per_s, t.exchange_id) for t in timings if t.tokens_per_s], measured.tokens_per_s),
    ]
    return [spread for spread in found if spread is not None]


def _first_tokens(samples: Sequence[tuple[float, float, str]], measured: Measurements, limit_s: float) -> Spread | None:
    short = measured.time_to_first_token
    if short is None:
        return None
    x, ticks = _log_axis([short.least, short.most, limit_s * 2, limit_s / 100])
    kind = "sample" if measured.samples else "stream"
    dots = _dots((x(s), x(max(s - late, 1e-6)), f"{id}: {duration(s)}") for s, late, id in sorted(samples))
    return Spread(
        "Time to first token",
        f"{_words(short, kind)}. The limit is {limit_s:g} s. "
        f"This machine's own lateness: at most {duration(measured.uncertainty_s)}.",
        ticks,
        dots=dots,
        median_x=x(short.median),
        limit=_tick(x(limit_s), f"limit {limit_s:g} s"),
    )


def _gaps(gaps: Sequence[float], short: Distribution | None) -> Spread | None:
    if short is None or short.most <= 0:
        return None
    x, ticks = _log_axis([max(short.least, SHORTEST_GAP_S), short.most])
    counted = Counter(floor(log10(max(gap, SHORTEST_GAP_S)) * BARS_PER_DECADE) for gap in gaps)
    tallest = max(counted.values())
    bars = []
    for number, count in sorted(counted.items()):
        low, high = (10 ** (edge / BARS_PER_DECADE) for edge in (number, number + 1))
        width = max(0.4, round(x(high) - x(low) - 0.3, 2))
        height = max(5.0, round(100 * count / tallest, 1))
        bars.append(Bar(x(low), width, height, f"{duration(low)} to {duration(high)}: {count}"))
    return Spread("Gaps between tokens", f"{_words(short, 'gap')}.", ticks, bars=tuple(bars), median_x=x(short.median))


def _speeds(speeds: Sequence[tuple[float, str]], short: Distribution | None) -> Spread | None:
    if short is None:
        return None
    end = short.most * 1.1
    x = _linear(0.0, end)
    return Spread(
        "Tokens per second",
        f"{plural(short.count, 'stream')}: median {short.median:,.0f}, from {short.least:,.0f} to {short.most:,.0f}. "
        "Counted after the first token.",
        _ticks(end, x, lambda value: f"{value:,.0f}"),
        dots=_dots((x(speed), x(speed), f"{id}: {speed:,.0f} tokens/s") for speed, id in sorted(speeds)),
        median_x=x(short.median),
    )


def _words(short: Distribution, noun: str) -> str:
    return (
        f"{plural(short.count, noun)}: median {duration(short.median)}, 95th percentile {duration(short.p95)}, "
        f"from {duration(short.least)} to {duration(short.most)}"
    )


def _log_axis(values: Sequence[float]) -> tuple[Callable[[float], float], tuple[Tick, ...]]:
    """A logarithmic axis over whole powers of ten that holds these values."""
    low, high = floor(log10(min(values)) + 1e-9), ceil(log10(max(values)) - 1e-9)
    high = max(high, low + 1)
    linear = _linear(low, high)
    factors = (1, 2, 5) if high - low == 1 else (1, 3) if high - low == 2 else (1,)
    values = [10.0**power * factor for power in range(low, high) for factor in factors] + [10.0**high]
    ticks = tuple(_tick(linear(log10(value)), _time(value)) for value in values)
    return lambda value: linear(min(max(log10(max(value, 1e-9)), low), high)), ticks


def _dots(samples: Iterable[tuple[float, float, str]]) -> tuple[Dot, ...]:
    """Samples side by side; those that would cover each other are stacked, up to six high."""
    dots: list[Dot] = []
    for x, earliest, label in samples:
        near = sum(abs(dot.x - x) < 1.2 for dot in dots[-6:])
        dots.append(Dot(x, earliest, near % 6, label))
    return tuple(dots)


@dataclass(frozen=True, slots=True)
class Interval:
    """Trials as a bar from 0 to 100 %: the share that passed, its interval, and the bar to clear."""

    share: float
    low: float
    high: float
    bar: float
    label: str


def interval(trials: Trials) -> Interval:
    """Lay out trials."""
    return Interval(
        share=round(100 * trials.passed / trials.total, 1),
        low=round(100 * trials.low, 1),
        high=round(100 * trials.high, 1),
        bar=round(100 * trials.bar, 1),
        label=(
            f"{trials.passed} of {trials.total} trials passed; 95 % interval {trials.low:.0%} to {trials.high:.0%}, "
            f"bar {trials.bar:.0%}"
        ),
    )
