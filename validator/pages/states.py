"""The states that everybody sees: each has a word and a shape, so that no one needs its colour."""

from __future__ import annotations

from collections.abc import Mapping

from roadworthy.validator.health import State
from roadworthy.validator.store.history import Condition, Standing

SHAPES = {
    State.LIVE: '<circle cx="6" cy="6" r="5"/>',
    State.DEGRADED: '<path d="M6 .8 11.4 11H.6Z"/>',
    State.FAILING: '<path d="M1 3.1 3.1 1 6 3.9 8.9 1 11 3.1 8.1 6 11 8.9 8.9 11 6 8.1 3.1 11 1 8.9 3.9 6Z"/>',
    State.SUSPENDED: '<path d="M1.5 1h3.2v10H1.5ZM7.3 1h3.2v10H7.3Z"/>',
    State.MAINTENANCE: '<path d="M6 0 12 6 6 12 0 6Z"/>',
    State.UNKNOWN: '<circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="2"/>',
}
"""Drawings in a square of 12 by 12; what fills them is up to the page."""
MEANINGS = {
    State.LIVE: "works, and is on the active list",
    State.DEGRADED: "works, but slowly or without an ability it declares",
    State.FAILING: "failed its test and is off the active list",
    State.SUSPENDED: "is not tested for now: its provider or the operator paused it",
    State.MAINTENANCE: "is in a planned maintenance window",
    State.UNKNOWN: "has not been tested yet",
}
WORST_FIRST = (State.FAILING, State.DEGRADED, State.MAINTENANCE, State.SUSPENDED, State.UNKNOWN, State.LIVE)


def of_mapping(standing: Standing | None, condition: Condition | None, *, paused: bool, now_us: int) -> State:
    """The state of a mapping as everybody sees it: what people set goes before what tests found."""
    if condition is not None and in_maintenance(condition, now_us):
        return State.MAINTENANCE
    if paused or (condition is not None and condition.paused):
        return State.SUSPENDED
    if standing is None:
        return State.UNKNOWN
    return State(standing.state) if standing.state in _KNOWN else State.UNKNOWN


def of_provider(counts: Mapping[State, int], condition: Condition | None, now_us: int) -> State:
    """The state of a provider: failing where it is down or most of its mappings are, degraded where any is."""
    if condition is not None and in_maintenance(condition, now_us):
        return State.MAINTENANCE
    if condition is not None and condition.paused:
        return State.SUSPENDED
    tested = sum(counts.get(state, 0) for state in (State.LIVE, State.DEGRADED, State.FAILING))
    failing = counts.get(State.FAILING, 0)
    if (condition is not None and condition.down_since_us is not None) or 2 * failing > tested:
        return State.FAILING
    if failing or counts.get(State.DEGRADED, 0):
        return State.DEGRADED
    if tested:
        return State.LIVE
    return next((state for state in WORST_FIRST if counts.get(state, 0)), State.UNKNOWN)


def in_maintenance(condition: Condition, now_us: int) -> bool:
    """Whether the provider's maintenance window is open."""
    return condition.quiet_until_us is not None and condition.quiet_until_us > now_us


_KNOWN = frozenset(State)
