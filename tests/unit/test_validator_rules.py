"""The pure rules of the validator: when, how healthy, and when to doubt oneself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadworthy.validator.health import Health, State, Thresholds, after, held, restored, says_nothing, shown
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.schedule import SECOND_US, Periods, Urgency, again_us, next_due_us, next_turn_us, phase_us
from roadworthy.validator.suspicion import Doubts, Minutes, brake, down, fallen

NOW = 1_800_000_000 * SECOND_US
HOUR = 3600 * SECOND_US
PERIOD_S = 6 * 3600
WORKS = Outcome(Result.WORKS)
DEGRADED = Outcome(Result.DEGRADED, ErrorClass.CONTRACT, "slow")
FAILS = Outcome(Result.FAILS, ErrorClass.CONTRACT, "no stream")
LIMITED = Outcome(Result.FAILS, ErrorClass.RATE_LIMIT, "HTTP 429")
DOUBT = Outcome(Result.IN_DOUBT, ErrorClass.OURS, "out of memory")
LIVE = Health(State.LIVE, active=True, since_us=NOW - HOUR)
OFF = Health(State.FAILING, active=False, since_us=NOW - HOUR, failures=1, last_failure_us=NOW - HOUR)

ids = st.text("0123456789abcdef", min_size=24, max_size=24)
moments = st.integers(NOW, NOW + 400 * 24 * HOUR)
outcomes = st.sampled_from([WORKS, DEGRADED, FAILS, LIMITED, DOUBT])


def many_ids(count: int = 50_000) -> list[str]:
    return [f"{number * 2_654_435_761 % 2**96:024x}" for number in range(count)]


def test_a_phase_is_the_same_in_every_process():
    code = "from roadworthy.validator.schedule import phase_us; print(phase_us('6706bc4a1d5c2f0a4e8b9d13', 21600))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{phase_us('6706bc4a1d5c2f0a4e8b9d13', PERIOD_S)}\n"}
    assert phase_us("6706bc4a1d5c2f0a4e8b9d13", PERIOD_S) == 3_030_997_990, "a release may not move every mapping"


def test_fifty_thousand_mappings_make_an_even_load():
    load = Counter(phase_us(each, PERIOD_S) // SECOND_US for each in many_ids())
    per_second = sorted(load[second] for second in range(PERIOD_S))
    assert max(load) < PERIOD_S
    assert sum(per_second) / PERIOD_S == pytest.approx(2.31, abs=0.01)
    assert per_second[int(0.99 * PERIOD_S)] <= 8
    assert per_second[-1] <= 16


@given(ids, moments, st.integers(1, 7 * 24 * 3600))
def test_two_routine_turns_lie_exactly_one_period_apart(mapping_id: str, now_us: int, period_s: int):
    first = next_turn_us(mapping_id, period_s, now_us)
    assert now_us < first <= now_us + period_s * SECOND_US
    assert next_turn_us(mapping_id, period_s, first) == first + period_s * SECOND_US
    assert next_turn_us(mapping_id, period_s, first - 1) == first


@given(ids, moments, st.lists(st.tuples(st.booleans(), st.integers(0, 300 * SECOND_US)), max_size=20))
def test_whatever_came_between_no_two_runs_lie_further_apart_than_the_period(
    mapping_id: str, now_us: int, runs: list[tuple[bool, int]]
):
    for failing, took_us in runs:
        due_us, urgency = next_due_us(mapping_id, failing=failing, periods=Periods(), now_us=now_us)
        assert now_us < due_us <= now_us + PERIOD_S * SECOND_US
        if failing:
            assert (due_us, urgency) == (now_us + HOUR, Urgency.RETEST)
        else:
            assert (due_us % (PERIOD_S * SECOND_US), urgency) == (phase_us(mapping_id, PERIOD_S), Urgency.ROUTINE)
        now_us = due_us + took_us


@given(ids, moments, st.integers(1, 2 * PERIOD_S))
def test_what_must_be_asked_again_soon_is_never_later_than_asked_for_an_hour_or_its_turn(
    mapping_id: str, now_us: int, within_s: int
):
    due_us, urgency = again_us(mapping_id, within_s, periods=Periods(), now_us=now_us)
    assert now_us < due_us <= now_us + min(within_s, 3600) * SECOND_US
    assert due_us <= next_turn_us(mapping_id, PERIOD_S, now_us)
    assert urgency is Urgency.RETEST


def test_one_failure_takes_a_mapping_off_and_one_pass_brings_it_back():
    failed = after(LIVE, FAILS, NOW, Thresholds())
    assert (failed.active, failed.state, failed.since_us, failed.reason) == (False, State.FAILING, NOW, "no stream")
    assert failed.delisted_at_us == (NOW,)
    again = after(failed, FAILS, NOW + HOUR, Thresholds())
    assert (again.active, again.since_us, again.failures, again.delisted_at_us) == (False, NOW, 2, (NOW,))
    passed = after(again, WORKS, NOW + 2 * HOUR, Thresholds())
    assert (passed.active, passed.state, passed.since_us) == (True, State.LIVE, NOW + 2 * HOUR)
    assert (passed.failures, passed.passes, passed.reason) == (0, 1, "")


@given(st.integers(1, 5), st.integers(1, 5))
def test_thresholds_count_what_comes_in_a_row(failures: int, passes: int):
    thresholds = Thresholds(failures_to_delist=failures, passes_to_relist=passes, flaps=100)
    health = LIVE
    for _ in range(failures - 1):
        health = after(health, FAILS, NOW, thresholds)
        assert health.active
    assert after(after(health, WORKS, NOW, thresholds), FAILS, NOW, thresholds).active is (failures > 1)
    health = after(health, FAILS, NOW, thresholds)
    assert not health.active
    for _ in range(passes - 1):
        health = after(health, WORKS, NOW, thresholds)
        assert not health.active
    interrupted = after(after(health, FAILS, NOW, thresholds), WORKS, NOW, thresholds)
    assert interrupted.active is (passes == 1)
    assert after(health, WORKS, NOW, thresholds).active


def test_a_mapping_that_flaps_is_held_off_until_it_has_stood_for_a_while():
    thresholds, health, now_us = Thresholds(flaps=3, flap_hold_s=7200), LIVE, NOW
    for _ in range(3):
        health = after(health, FAILS, now_us, thresholds)
        failed_us = now_us
        assert not health.active
        now_us += HOUR
        before, health = health, after(health, WORKS, now_us, thresholds)
    assert not health.active
    assert held(before, failed_us + 7200 * SECOND_US - 1, thresholds)
    assert not after(health, WORKS, failed_us + 7200 * SECOND_US - 1, thresholds).active
    back = after(health, WORKS, failed_us + 7200 * SECOND_US, thresholds)
    assert back.active
    # What lies further back than the window is forgotten.
    later_us = failed_us + 24 * HOUR + 1
    assert after(back, FAILS, later_us, thresholds).delisted_at_us == (later_us,)


def test_a_degraded_mapping_stays_on_the_list_and_shows_since_when():
    degraded = after(LIVE, DEGRADED, NOW, Thresholds())
    assert (degraded.active, degraded.state, degraded.since_us, degraded.reason) == (True, State.DEGRADED, NOW, "slow")
    assert after(degraded, DEGRADED, NOW + HOUR, Thresholds()).since_us == NOW
    assert after(degraded, WORKS, NOW + HOUR, Thresholds()).state is State.LIVE
    assert after(OFF, DEGRADED, NOW, Thresholds()).state is State.DEGRADED


@pytest.mark.parametrize("health", [LIVE, OFF, Health()])
@pytest.mark.parametrize(("outcome", "braked"), [(DOUBT, False), (LIMITED, False), (DOUBT, True), (FAILS, True)])
def test_doubt_rate_limits_and_failures_under_the_brake_change_nothing(health: Health, outcome: Outcome, braked: bool):
    assert says_nothing(outcome, Thresholds(), braked=braked)
    assert after(health, outcome, NOW, Thresholds(), braked=braked) == health


def test_rate_limits_delist_where_the_operator_wants_it():
    assert not after(LIVE, LIMITED, NOW, Thresholds(delist_on_rate_limit=True)).active


def test_a_pass_counts_under_the_brake_too():
    assert after(OFF, WORKS, NOW, Thresholds(), braked=True).active


@given(st.lists(st.tuples(outcomes, st.booleans(), st.integers(0, 4 * 3600)), max_size=30), st.integers(1, 3))
def test_health_always_makes_sense(steps: list[tuple[Outcome, bool, int]], failures: int):
    thresholds, health, now_us = Thresholds(failures_to_delist=failures), Health(since_us=NOW), NOW
    for outcome, braked, wait_s in steps:
        now_us += wait_s * SECOND_US
        before, health = health, after(health, outcome, now_us, thresholds, braked=braked)
        assert health.active is (health.state is not State.FAILING)
        assert not (health.failures and health.passes)
        assert health.since_us <= now_us
        assert list(health.delisted_at_us) == sorted(health.delisted_at_us)
        if before.active and not health.active:
            assert outcome.result is Result.FAILS
            assert not braked
            assert restored(health, now_us).active
            assert restored(health, now_us).delisted_at_us == health.delisted_at_us[:-1]
        if health.active and not before.active:
            assert outcome.result in {Result.WORKS, Result.DEGRADED}


def test_what_is_taken_back_counts_neither_as_failure_nor_as_flap():
    failed = after(replace(LIVE, delisted_at_us=(NOW - HOUR,)), FAILS, NOW, Thresholds())
    back = restored(failed, NOW + 1)
    assert (back.active, back.failures, back.delisted_at_us) == (True, 0, (NOW - HOUR,))
    assert "doubts itself" in back.reason
    assert after(back, FAILS, NOW + 2, Thresholds(failures_to_delist=2)).active


def test_pauses_and_maintenance_windows_cover_what_is_stored_and_end_without_a_trace():
    assert shown(LIVE, NOW) is State.LIVE
    assert shown(OFF, NOW, paused=True, quiet_until_us=NOW + 1) is State.SUSPENDED
    assert shown(OFF, NOW, quiet_until_us=NOW + 1) is State.MAINTENANCE
    assert shown(OFF, NOW + 1, quiet_until_us=NOW + 1) is State.FAILING


def window(**providers: Minutes) -> dict[str, Minutes]:
    return providers


UP = Minutes(asked=True, last_pass_us=NOW)
FELL = Minutes(asked=True, fallen=1, unreachable=1)
FELL_AFTER_A_PASS = replace(FELL, last_pass_us=NOW - HOUR)


@pytest.mark.parametrize(
    ("minutes", "on"),
    [
        ([], False),
        ([FELL], False),
        ([FELL, FELL], False),  # with two providers nobody can tell
        ([FELL, FELL, FELL], True),
        ([FELL, FELL, UP], True),
        ([FELL, UP, UP], False),
        ([FELL, FELL, UP, UP], False),  # half is not most
        ([FELL, FELL, FELL, UP, UP], True),
        ([FELL_AFTER_A_PASS] * 3, True),  # that they passed some minutes ago does not excuse us
        ([FELL, FELL, Minutes()], False),  # one that says nothing of these minutes does not count
        ([UP] * 60, False),
    ],
)
def test_the_brake_goes_on_when_most_providers_newly_fail(minutes: list[Minutes], on: bool):
    assert brake({f"p{number}": each for number, each in enumerate(minutes)}, Doubts()) is on


def test_the_brakes_bounds_can_be_set():
    two_of_four = window(a=FELL, b=FELL, c=UP, d=UP)
    assert brake(two_of_four, Doubts(brake_share=0.4))
    assert not brake(two_of_four, Doubts(brake_share=0.4, brake_providers=5))
    assert fallen(two_of_four) == {"a", "b"}


def test_a_provider_is_down_when_several_of_its_mappings_newly_fail_in_a_row():
    assert not down(Minutes(asked=True, fallen=2, unreachable=2), Doubts())
    assert down(Minutes(asked=True, fallen=3, unreachable=3), Doubts())
    assert not down(Minutes(asked=True, fallen=9, unreachable=2), Doubts()), "contract failures are each mapping's own"
    assert not down(FELL, Doubts(down_mappings=1)), "one mapping is not a whole provider"


@settings(max_examples=50)
@given(st.lists(st.sampled_from([UP, FELL, FELL_AFTER_A_PASS, Minutes()]), max_size=12))
def test_one_more_passing_provider_never_puts_the_brake_on_and_one_more_failing_never_takes_it_off(
    minutes: list[Minutes],
):
    before = {f"p{number}": each for number, each in enumerate(minutes)}
    on = brake(before, Doubts())
    failing = sum(1 for each in minutes if each.fallen)
    asked = sum(1 for each in minutes if each.asked)
    assert on is (asked >= 3 and 2 * failing > asked)
    if not on and asked >= 3:
        assert not brake({**before, "more": UP}, Doubts())
    if on:
        assert brake({**before, "more": FELL}, Doubts())
