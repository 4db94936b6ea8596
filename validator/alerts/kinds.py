"""What alerts are about, and how grave each kind is."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """How grave a matter is. The end of a matter is as grave as its beginning: who heard of one hears of the other."""

    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """The greater, the graver."""
        return list(Severity).index(self)


class Kind(StrEnum):
    """What happened, in the order in which messages tell it."""

    STALE = "validator.stale"
    BRAKE_ON = "validator.brake_on"
    DOWN = "provider.down"
    TAKEN_OFF = "mapping.taken_off"
    DEGRADED = "mapping.degraded"
    FRESH = "validator.fresh"
    BRAKE_OFF = "validator.brake_off"
    UP = "provider.up"
    BROUGHT_BACK = "mapping.brought_back"
    RECOVERED = "mapping.recovered"
    REMINDER = "reminder"
    TEST = "test"

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return _SEVERITIES.get(self, Severity.CRITICAL)

    @property
    def is_good(self) -> bool:
        """Whether it ends something bad."""
        return self in _BEGUN_BY

    @property
    def begun_by(self) -> Kind | None:
        """The kind that this one ends."""
        return _BEGUN_BY.get(self)


_BEGUN_BY = {
    Kind.FRESH: Kind.STALE,
    Kind.BRAKE_OFF: Kind.BRAKE_ON,
    Kind.UP: Kind.DOWN,
    Kind.BROUGHT_BACK: Kind.TAKEN_OFF,
    Kind.RECOVERED: Kind.DEGRADED,
}
_SEVERITIES = {
    Kind.TAKEN_OFF: Severity.ERROR,
    Kind.BROUGHT_BACK: Severity.ERROR,
    Kind.DEGRADED: Severity.WARNING,
    Kind.RECOVERED: Severity.WARNING,
    Kind.REMINDER: Severity.ERROR,
}
LASTING = (Kind.STALE, Kind.BRAKE_ON, Kind.DOWN, Kind.TAKEN_OFF)
"""What people are reminded of while it lasts."""
