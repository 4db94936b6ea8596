"""Days and months, all in UTC: billing counts days since 1970."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from roadworthy.billing.schedule import SECOND_US
from roadworthy.errors import UsageError

_EPOCH = date(1970, 1, 1)
_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)


def shown_day(day: int) -> str:
    """The day as ISO 8601. Days beyond the calendar are shown as their number."""
    try:
        return (_EPOCH + timedelta(days=day)).isoformat()
    except OverflowError:
        return f"day {day}"


def shown_time(at_us: int) -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(at_us // SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_of(text: str) -> int:
    """The day written as YYYY-MM-DD. Raises `UsageError`."""
    try:
        if len(text) != 10:
            raise ValueError
        return (date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        raise UsageError(f"a day is written YYYY-MM-DD, in UTC; got {text!r}") from None


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the calendar, in UTC."""

    year: int
    month: int

    @classmethod
    def of(cls, text: str) -> Month:
        """The month written as YYYY-MM. Raises `UsageError`."""
        found = _MONTH.fullmatch(text)
        if found is None or not 1970 <= int(found[1]) <= 9998 or not 1 <= int(found[2]) <= 12:
            raise UsageError(f"a month is written YYYY-MM, in UTC; got {text!r}")
        return cls(int(found[1]), int(found[2]))

    @property
    def from_day(self) -> int:
        """Its first day."""
        return (date(self.year, self.month, 1) - _EPOCH).days

    @property
    def to_day(self) -> int:
        """The day after its last."""
        return (date(self.year + self.month // 12, self.month % 12 + 1, 1) - _EPOCH).days

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.year:04}-{self.month:02}"
