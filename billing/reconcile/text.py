"""Figures as people read them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from roadworthy.billing.prices import DECIMALS, usd

FEW = 6
"""Decimals of USD that a table shows; a millionth is what providers round to."""


def iso(at_us: int) -> str:
    """A time as ISO 8601 in UTC, with microseconds where there are any."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return at.isoformat().replace("+00:00", "Z")


def day_of(day: int) -> date:
    """A day, counted from 1970."""
    return date(1970, 1, 1) + timedelta(days=day)


def exact(nano_usd: int | None) -> str:
    """USD with every decimal, for files and details; nothing where there is no amount."""
    return "" if nano_usd is None else usd(nano_usd)


def shown(nano_usd: int | None, *, sign: bool = False) -> str:
    """USD with grouped thousands and at least two decimals, at most six; all of them where six would show nothing."""
    if nano_usd is None:
        return "not known"
    before = "-" if nano_usd < 0 else "+" if sign and nano_usd > 0 else ""
    size = abs(nano_usd)
    least = 10 ** (DECIMALS - FEW)
    if 0 < size < least:
        return f"{before}{usd(size)}"
    units = (size + least // 2) // least
    whole, rest = divmod(units, 10**FEW)
    decimals = f"{rest:0{FEW}d}".rstrip("0").ljust(2, "0")
    return f"{before}{whole:,}.{decimals}"


def period(from_us: int, to_us: int) -> str:
    """A period of UTC: "October 2026" for a whole month, else its two ends."""
    first, after = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=each) for each in (from_us, to_us))
    months = (after.year - first.year) * 12 + after.month - first.month
    if months == 1 and all(
        each == each.replace(day=1, hour=0, minute=0, second=0, microsecond=0) for each in (first, after)
    ):
        return f"{first:%B %Y}, UTC"
    return f"{iso(from_us)} to {iso(to_us)}"
