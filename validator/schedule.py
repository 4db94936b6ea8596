"""When a mapping is due (register-as-a-provider, Automatic validation). Times are microseconds since 1970 UTC.

A mapping's phase is a stable hash of its id, so that 50,000 mappings make an even load, every day
the same, whenever they were registered and however often the process starts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum

SECOND_US = 1_000_000


class Urgency(IntEnum):
    """What goes first when there is more to do than may run at once."""

    AT_ONCE = 0
    RETEST = 1
    ROUTINE = 2


@dataclass(frozen=True, slots=True)
class Periods:
    """How often, in seconds. The defaults are the registration guide's."""

    routine_s: int = 6 * 3600
    retest_s: int = 3600
    debounce_s: int = 2
    """How long after a change the immediate validation waits for further changes."""
    doubt_s: int = 900
    """How soon a run that said nothing is tried again."""


def phase_us(mapping_id: str, period_s: int) -> int:
    """Where in its period the mapping's turn lies: 0 to the period's length, in microseconds."""
    digest = hashlib.blake2b(mapping_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % (period_s * SECOND_US)


def next_turn_us(mapping_id: str, period_s: int, after_us: int) -> int:
    """The mapping's first turn after that moment.

    So no two tests lie further apart than the period, whatever came between them; a test at
    once may be followed by a routine one soon, which costs a few requests and breaks no promise.
    """
    period_us = period_s * SECOND_US
    return after_us + period_us - (after_us - phase_us(mapping_id, period_s)) % period_us


def next_due_us(mapping_id: str, *, failing: bool, periods: Periods, now_us: int) -> tuple[int, Urgency]:
    """When the mapping is due after a run that ended now, and how urgently."""
    if failing:
        # An hour from now, whatever the phase: the guide says hourly, and an owner who mended it waits.
        return now_us + periods.retest_s * SECOND_US, Urgency.RETEST
    return next_turn_us(mapping_id, periods.routine_s, now_us), Urgency.ROUTINE


def again_us(mapping_id: str, within_s: int, *, periods: Periods, now_us: int) -> tuple[int, Urgency]:
    """When a mapping is due that must be asked again before long: then, or at its turn if that comes first."""
    soon_us = now_us + min(within_s, periods.retest_s) * SECOND_US
    return min(soon_us, next_turn_us(mapping_id, periods.routine_s, now_us)), Urgency.RETEST
