"""The health of a mapping, and how a run changes it. Pure: the simulation and the service share it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.schedule import SECOND_US


class State(StrEnum):
    """What the status page, the metrics and the alerts say of a mapping."""

    UNKNOWN = "unknown"
    LIVE = "live"
    DEGRADED = "degraded"
    FAILING = "failing"
    SUSPENDED = "suspended"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a mapping leaves the active list, and when it comes back."""

    failures_to_delist: int = 1
    passes_to_relist: int = 1
    flaps: int = 4
    """So many times off the list within `flap_window_s` hold it off for `flap_hold_s` after its last failure."""
    flap_window_s: int = 24 * 3600
    flap_hold_s: int = 2 * 3600
    delist_on_rate_limit: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a mapping. `delisted_at_us` are the recent times it left the list, oldest first."""

    state: State = State.UNKNOWN
    active: bool = True
    since_us: int = 0
    failures: int = 0
    passes: int = 0
    last_failure_us: int | None = None
    delisted_at_us: tuple[int, ...] = ()
    reason: str = ""


def says_nothing(outcome: Outcome, thresholds: Thresholds, *, braked: bool = False) -> bool:
    """Whether the run leaves everything as it is: it is in doubt, hit a limit, or failed under the brake."""
    if outcome.result is not Result.FAILS:
        return outcome.result is Result.IN_DOUBT
    return braked or (outcome.error_class is ErrorClass.RATE_LIMIT and not thresholds.delist_on_rate_limit)


def after(health: Health, outcome: Outcome, now_us: int, thresholds: Thresholds, *, braked: bool = False) -> Health:
    """The health after a run that ended now. With the brake on, no failure changes anything."""
    if says_nothing(outcome, thresholds, braked=braked):
        return health
    if outcome.result is Result.FAILS:
        return _failed(health, outcome, now_us, thresholds)
    return _passed(health, outcome, now_us, thresholds)


def restored(health: Health, now_us: int) -> Health:
    """The health of a mapping whose leaving the list is taken back: as if its failures had not been."""
    return replace(
        health,
        active=True,
        state=State.UNKNOWN,
        since_us=now_us,
        failures=0,
        delisted_at_us=health.delisted_at_us[:-1],
        reason="held: most providers fail in the same minutes, so the validator doubts itself",
    )


def shown(health: Health, now_us: int, *, paused: bool = False, quiet_until_us: int | None = None) -> State:
    """The state that people see. A pause or a maintenance window covers what is stored, and ends without a trace.

    In a window runs go on, and what fails leaves the list as ever, since users would meet the failure:
    only nobody is alarmed.
    """
    if paused:
        return State.SUSPENDED
    if quiet_until_us is not None and now_us < quiet_until_us:
        return State.MAINTENANCE
    return health.state


def _failed(health: Health, outcome: Outcome, now_us: int, thresholds: Thresholds) -> Health:
    failed = replace(health, failures=health.failures + 1, passes=0, last_failure_us=now_us, reason=outcome.summary)
    if not failed.active or failed.failures < thresholds.failures_to_delist:
        return failed
    recent = tuple(at for at in failed.delisted_at_us if at > now_us - thresholds.flap_window_s * SECOND_US)
    return replace(failed, active=False, state=State.FAILING, since_us=now_us, delisted_at_us=(*recent, now_us))


def _passed(health: Health, outcome: Outcome, now_us: int, thresholds: Thresholds) -> Health:
    passed = replace(health, failures=0, passes=health.passes + 1)
    if not passed.active and (passed.passes < thresholds.passes_to_relist or held(passed, now_us, thresholds)):
        return passed
    state = State.DEGRADED if outcome.result is Result.DEGRADED else State.LIVE
    since_us = health.since_us if state is health.state else now_us
    return replace(passed, active=True, state=state, since_us=since_us, reason=outcome.summary)


def held(health: Health, now_us: int, thresholds: Thresholds) -> bool:
    """Whether a mapping that left the list too often must first hold out for a while."""
    recent = [at for at in health.delisted_at_us if at > now_us - thresholds.flap_window_s * SECOND_US]
    if len(recent) < thresholds.flaps or health.last_failure_us is None:
        return False
    return now_us < health.last_failure_us + thresholds.flap_hold_s * SECOND_US
