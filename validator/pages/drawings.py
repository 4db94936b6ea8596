"""The drawings of the status page as inline SVG: bars of days, and lines over time.

Positions across are percent, so that a drawing fills any width while its words keep their size,
as in the HTML report. All text in them is our own: times and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from math import floor, log10

from markupsafe import Markup

from roadworthy.conformance.report.text import duration, plural
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store.history import Span

HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US
BAR_US = 6 * HOUR_US
BARS = 28
_BAR_HEIGHT = 26
_LEAST_SHARE = 0.2
"""The smallest share of a bar that a failure takes, so that one of a thousand is seen."""
_PLOT_TOP, _PLOT_HEIGHT = 18, 120
_LEFT, _RIGHT = 0.5, 99.5


def moment(at_us: int) -> str:
    """A time as "21 Nov 05:13"."""
    at = datetime.fromtimestamp(at_us / SECOND_US, UTC)
    return f"{at.day} {at:%b %H:%M}"


def _day(at_us: int) -> str:
    at = datetime.fromtimestamp(at_us / SECOND_US, UTC)
    return f"{at.day} {at:%b}"


def first_bar_us(now_us: int) -> int:
    """When the oldest of the bars begins: the newest holds this moment."""
    return now_us - now_us % BAR_US - (BARS - 1) * BAR_US


def said(span: Span, length_us: int) -> str:
    """What a span showed, in words: they go with each bar."""
    end_us = span.start_us + length_us
    until = moment(end_us).rpartition(" ")[2] if length_us < DAY_US else moment(end_us)
    when = f"{moment(span.start_us)} to {until} UTC"
    if not span.runs:
        return f"{when}: no test"
    found = [plural(span.runs, "test")]
    if span.failures:
        found.append(f"{span.failures:,} failed")
    if span.degraded:
        found.append(f"{span.degraded:,} degraded")
    if len(found) == 1:
        found.append("all passed" if span.runs > 1 else "passed")
    return f"{when}: {', '.join(found)}"


def summary(spans: Sequence[Span]) -> str:
    """All bars in one sentence: it is the drawing's text alternative."""
    runs, failures = sum(span.runs for span in spans), sum(span.failures for span in spans)
    if not runs:
        return "No test in the last 7 days."
    bad = sum(span.failures > 0 for span in spans)
    worst = max(spans, key=lambda span: span.failures / (span.runs or 1))
    sentence = f"{share(runs - failures, runs)} of {plural(runs, 'test')} in the last 7 days did not fail"
    if not failures:
        return sentence + "."
    return f"{sentence}; {plural(bad, 'quarter')} of a day with failures, the worst {said(worst, BAR_US)}."


def share(part: int, whole: int) -> str:
    """A share in percent that says 100 only of everything."""
    percent = floor(1000 * part / whole) / 10 if part < whole else 100.0
    return f"{percent:g} %"


@lru_cache(4096)
def bars(spans: tuple[Span, ...]) -> Markup:
    """One bar for each span: what passed stands below, degraded and failed above it, each in a form of its own.

    Where anything failed a cross stands under the bar, where anything was degraded a triangle.
    """
    width = 100 / len(spans)
    drawn = [
        f'<svg class="bars" width="100%" height="{_BAR_HEIGHT + 10}" role="img" aria-label="{summary(spans)}">',
        *(_bar(span, number * width, width) for number, span in enumerate(spans)),
        "</svg>",
    ]
    return Markup("".join(drawn))  # noqa: S704  times and numbers of our own


def _bar(span: Span, x: float, width: float) -> str:
    place = f'x="{x + width * 0.11:.2f}%"'  # how wide and how round it is, the style says
    title = f"<title>{said(span, BAR_US)}</title>"
    if not span.runs:
        return f'<g>{title}<rect class="b-none" {place} y="{_BAR_HEIGHT - 3}" height="3"/></g>'
    failed, degraded = _height(span.failures, span.runs), _height(span.degraded, span.runs)
    if failed + degraded > _BAR_HEIGHT:
        failed, degraded = (_BAR_HEIGHT * part / (failed + degraded) for part in (failed, degraded))
    passed = _BAR_HEIGHT - failed - degraded
    parts, y = [], 0.0
    for kind, height in (("fail", failed), ("warn", degraded), ("pass", passed)):
        if height > 0.2:
            parts.append(f'<rect class="b-{kind}" {place} y="{y:.3g}" height="{height:.3g}"/>')
        y += height
    mark = ""
    if span.failures:
        mark = '<path class="m-fail" d="M-2.6 -2.6 2.6 2.6M-2.6 2.6 2.6 -2.6"/>'
    elif span.degraded:
        mark = '<path class="m-warn" d="M0 -2.8 3 2.4H-3Z"/>'
    if mark:
        mark = f'<svg x="{x + width / 2:.2f}%" y="{_BAR_HEIGHT + 6}" overflow="visible">{mark}</svg>'
    return f"<g>{title}{''.join(parts)}{mark}</g>"


def _height(count: int, runs: int) -> float:
    return _BAR_HEIGHT * max(count / runs, _LEAST_SHARE) if count else 0.0


@dataclass(frozen=True, slots=True)
class Unit:
    """What a chart shows, and how values and the axis are written."""

    axis: str
    seconds: bool

    def value(self, value: float) -> str:
        """A value with its unit."""
        return duration(value) if self.seconds else f"{value:,.0f} tokens/s" if value >= 10 else f"{value:.1f} tokens/s"

    def tick(self, value: float) -> str:
        """A round value, as the axis is labelled."""
        if not self.seconds:
            return f"{value:,g}"
        return "0 s" if value == 0 else f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"


FIRST_TOKEN = Unit("Time to first token", seconds=True)
THROUGHPUT = Unit("Throughput in tokens/s", seconds=False)


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart with its words."""

    title: str
    summary: str
    svg: Markup


def chart(
    unit: Unit, spans: Sequence[Span], *, since_us: int, now_us: int, limit: float | None = None, id: str
) -> Chart | None:
    """The means over time as a line, with the spans in which a test failed marked; None where nothing was measured."""
    days = round((now_us - since_us) / DAY_US)
    values = [(span.start_us, value) for span in spans if (value := _of(unit, span)) is not None]
    if not values:
        return None
    most = max(value for _, value in values)
    shown_limit = limit if limit is not None and most >= limit / 2 else None
    top, step = _scale(max(most, shown_limit or 0.0))
    text = _words(unit, [value for _, value in values], days, limit)
    length_us = now_us - since_us

    def x(at_us: int) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * min(max((at_us - since_us) / length_us, 0), 1), 2)

    def y(value: float) -> float:
        return round(_PLOT_TOP + _PLOT_HEIGHT * (1 - value / top), 1)

    base = _PLOT_TOP + _PLOT_HEIGHT
    drawn = [
        f'<svg class="wide chart" width="100%" height="{base + 32}" role="img" aria-labelledby="{id}-t {id}-d">',
        f'<title id="{id}-t">{unit.axis}, last {days} days</title><desc id="{id}-d">{text}</desc>',
    ]
    if shown_limit is not None:
        drawn.append(f'<rect class="over" x="0" width="100%" y="{y(top)}" height="{y(shown_limit) - y(top):.1f}"/>')
    for number in range(round(top / step) + 1):
        value = step * number
        drawn.append(f'<line class="axis" x1="0" x2="100%" y1="{y(value)}" y2="{y(value)}"/>')
        drawn.append(f'<text x="-8" y="{y(value) + 4}" text-anchor="end">{unit.tick(round(value, 9))}</text>')
    drawn += _day_ticks(since_us, now_us, days, x, base)
    drawn.append(_line(values, since_us, now_us, top))
    if len(values) <= 60:
        drawn += [
            f'<circle class="dot" cx="{x(at_us)}%" cy="{y(value)}" r="2.4"><title>{moment(at_us)} UTC: '
            f"{unit.value(value)}</title></circle>"
            for at_us, value in values
        ]
    drawn += [
        f'<svg x="{x(span.start_us)}%" y="{base}" overflow="visible"><title>{moment(span.start_us)} UTC: '
        f'{span.failures} failed</title><path class="bad" d="M-3.5 -3.5 3.5 3.5M-3.5 3.5 3.5 -3.5"/></svg>'
        for span in spans
        if span.failures
    ]
    if shown_limit is not None:
        drawn.append(f'<line class="limit" x1="0" x2="100%" y1="{y(shown_limit)}" y2="{y(shown_limit)}"/>')
        label = f'y="{y(shown_limit) - 4}" text-anchor="end">limit {shown_limit:g} s'
        drawn.append(f'<text class="limittext" x="100%" {label}</text>')
    drawn.append("</svg>")
    return Chart(f"{unit.axis}, last {days} days", text, Markup("".join(drawn)))  # noqa: S704  numbers of our own


def _of(unit: Unit, span: Span) -> float | None:
    return span.time_to_first_token_s if unit.seconds else span.throughput_tokens_per_s


def _words(unit: Unit, values: Sequence[float], days: int, limit: float | None) -> str:
    ordered = sorted(values)
    middle = ordered[(len(ordered) - 1) // 2]
    text = (
        f"Median {unit.value(middle)}, from {unit.value(ordered[0])} to {unit.value(ordered[-1])}, "
        f"{plural(len(ordered), 'point')} in {days} days."
    )
    return text if limit is None else f"{text} The limit is {limit:g} s."


def _line(values: Sequence[tuple[int, float]], since_us: int, now_us: int, top: float) -> str:
    """The line, broken where nothing was measured for longer than is usual."""
    scale = 1000 / (now_us - since_us)
    usual_us = sorted(later[0] - earlier[0] for earlier, later in pairwise(values)) or [0]
    longest_us = max(3 * usual_us[len(usual_us) // 2], 13 * HOUR_US)
    path, before = [], None
    for at_us, value in values:
        pen = "L" if before is not None and at_us - before <= longest_us else "M"
        path.append(f"{pen}{10 * _LEFT + (at_us - since_us) * scale * 0.99:.1f} {100 * (1 - value / top):.1f}")
        before = at_us
    return (
        f'<svg x="0" y="{_PLOT_TOP}" width="100%" height="{_PLOT_HEIGHT}" viewBox="0 0 1000 100" '
        f'preserveAspectRatio="none" overflow="visible"><path class="trend" d="{"".join(path)}"/></svg>'
    )


def _day_ticks(since_us: int, now_us: int, days: int, x: Callable[[int], float], base: int) -> list[str]:
    """Midnights: each of a week, each fifth of a month."""
    step = timedelta(days=1 if days <= 10 else 5)
    at = datetime.fromtimestamp(since_us / SECOND_US, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    drawn: list[str] = []
    at += timedelta(days=1)
    while (at_us := int(at.timestamp()) * SECOND_US) <= now_us:
        place = x(at_us)
        anchor = "start" if place < 6 else "end" if place > 94 else "middle"
        drawn.append(f'<line class="axis" x1="{place}%" x2="{place}%" y1="{_PLOT_TOP}" y2="{base + 5}"/>')
        every_other = ' class="alt"' if len(drawn) % 4 else ""  # left out where it is narrow
        drawn.append(f'<text{every_other} x="{place}%" y="{base + 19}" text-anchor="{anchor}">{_day(at_us)}</text>')
        at += step
    return drawn


def _scale(most: float) -> tuple[float, float]:
    """The top of an axis from zero that holds `most`, and the step between three to five round marks."""
    rough = max(most, 1e-6) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    count = -int(-(most * 1.05) // step) or 1
    return step * count, step
