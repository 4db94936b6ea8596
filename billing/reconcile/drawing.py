"""The geometry of the page's drawings, in percent of their width and height; the template turns them into SVG.

Lengths are drawn, not charged: they alone may be fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roadworthy.billing.prices import usd
from roadworthy.billing.reconcile.outcome import Sums
from roadworthy.billing.reconcile.report import Report
from roadworthy.billing.reconcile.text import day_of, shown
from roadworthy.billing.schedule import DAY_US

MOST_DAYS = 124
"""Days that are drawn one by one; longer periods are drawn in equal spans of days."""
LABELS = 6
MODELS = 15
LEAST = 0.6
"""Percent of what is there, but too little to be seen."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of an axis: its place, and its label."""

    at: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Day:
    """A day, or a span of days. Heights are percent; `invoiced` is None where an invoice does not tell."""

    x: float
    width: float
    settled: float
    expected: float
    invoiced: float | None
    differs: bool
    label: str


@dataclass(frozen=True, slots=True)
class Days:
    """Settled against expected, day by day."""

    days: tuple[Day, ...]
    xs: tuple[Tick, ...]
    ys: tuple[Tick, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a table, in percent of the longest one."""

    name: str
    width: float
    second: float
    label: str


def days(report: Report) -> Days | None:
    """The chart of days; None where nothing was served."""
    found = dict(report.days)
    if not found:
        return None
    terms = report.outcome.terms
    first, last = terms.from_us // DAY_US, (terms.to_us - 1) // DAY_US
    # A period may be far longer than what was served in it.
    first, last = max(first, min(found) - 31), min(last, max(found) + 31)
    per = -(-(last - first + 1) // MOST_DAYS)
    spans = [(start, min(start + per - 1, last)) for start in range(first, last + 1, per)]
    sums = [_span(found, *span) for span in spans]
    by_request = report.invoice is not None and report.invoice.by_request
    most = max(
        max(each.settled_nano_usd, each.expected_nano_usd, each.invoiced_nano_usd if by_request else 0) for each in sums
    )
    top = _round_up(most)
    slot = 100 / len(spans)
    drawn = [
        Day(
            x=round(place * slot + slot * 0.14, 3),
            width=round(slot * 0.72, 3),
            settled=_share(each.settled_nano_usd, top),
            expected=_share(each.expected_nano_usd, top),
            invoiced=_share(each.invoiced_nano_usd, top) if by_request else None,
            differs=each.off_nano_usd > 0,
            label=_told(span, each, by_request=by_request),
        )
        for place, (span, each) in enumerate(zip(spans, sums, strict=True))
    ]
    off = sum(1 for each in drawn if each.differs)
    what = "days" if per == 1 else f"spans of {per} days"
    return Days(
        tuple(drawn),
        tuple(_day_ticks(spans, slot)),
        tuple(Tick(round(100 - 25 * step, 1), _short(top * step // 4)) for step in range(5)),
        f"{len(drawn)} {what}; on {off} of them something is settled at another cost than expected.",
    )


def classes(report: Report) -> dict[str, Bar]:
    """A bar for the sum of each kind, by the kind's name."""
    top = max((found.size_nano_usd for kind, found in report.classes if report.outcome.counts(kind)), default=0) or max(
        (found.size_nano_usd for _, found in report.classes), default=0
    )
    return {
        kind.value: Bar(kind.value, _share(min(found.size_nano_usd, top), top), 0, shown(found.size_nano_usd))
        for kind, found in report.classes
    }


def models(report: Report) -> list[tuple[Bar, Sums]]:
    """The dearest models: settled, and expected beneath."""
    rows = report.models[:MODELS]
    top = max((max(sums.settled_nano_usd, sums.expected_nano_usd) for _, sums in rows), default=0)
    return [
        (Bar(model, _share(sums.settled_nano_usd, top), _share(sums.expected_nano_usd, top), ""), sums)
        for model, sums in rows
    ]


def _span(found: dict[int, Sums], first: int, last: int) -> Sums:
    total = Sums()
    for day in range(first, last + 1):
        if day in found:
            total.add(found[day])
    return total


def _told(span: tuple[int, int], sums: Sums, *, by_request: bool) -> str:
    when = f"{day_of(span[0])}" if span[0] == span[1] else f"{day_of(span[0])} to {day_of(span[1])}"
    told = f"{when}: settled {usd(sums.settled_nano_usd)} USD, expected {usd(sums.expected_nano_usd)} USD"
    return f"{told}, invoiced {usd(sums.invoiced_nano_usd)} USD" if by_request else told


def _day_ticks(spans: Sequence[tuple[int, int]], slot: float) -> list[Tick]:
    step = -(-len(spans) // LABELS)
    ticks = []
    for place in range(0, len(spans), step):
        at = day_of(spans[place][0])
        ticks.append(Tick(round((place + 0.5) * slot, 3), f"{at.day} {at:%b}", "middle" if place else "start"))
    return ticks


def _share(amount: int, top: int) -> float:
    if not amount or not top:
        return 0.0
    return round(max(LEAST, 100 * amount / top), 2)


def _round_up(amount: int) -> int:
    """The next of 1, 2, 4, 6, 8 and 10 times a power of ten: a quarter of each is a round figure, too."""
    power = 1
    while power * 10 < amount:
        power *= 10
    return next(power * step for step in (1, 2, 4, 6, 8, 10) if power * step >= amount) if amount else 1


def _short(nano_usd: int) -> str:
    """An axis label: a few figures, in USD or a thousandth or a millionth of one."""
    for size, word in ((10**15, "M"), (10**12, "k"), (10**9, "")):
        if nano_usd >= size:
            return f"{nano_usd / size:.3g}{word}"
    return usd(nano_usd)
