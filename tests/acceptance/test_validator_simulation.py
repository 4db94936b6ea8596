"""A day of 5,000 mappings in simulated time: outages, flapping, a crash, and what must hold through all of it.

`bench/validator_simulation.py` does the same with 50,000 mappings over two days, and prints the figures.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation import START_US, Plan, Seen, Simulation, Span, returns, share, simulate

from roadworthy.mapping_api.store.validations import TAKEN_OFF
from roadworthy.validator.publish import BRAKE_OFF, BRAKE_ON, PROVIDER_DOWN
from roadworthy.validator.schedule import SECOND_US

pytestmark = pytest.mark.timeout(600)

DAY = Plan(
    mappings=5_000,
    hours=24,
    tick_s=40,
    outages=((0, Span(9, 11)), (2, Span(14, 15))),
    ours=Span(20, 20 + 1 / 6),
    crash=Span(16, 18),
    changes_per_hour=12,
)


@pytest.fixture(scope="module")
def day() -> tuple[Simulation, Seen]:
    return simulate(DAY)


def test_no_mapping_is_missed_and_none_runs_twice_at_once(day):
    _, seen = day
    assert seen.runs > 4 * DAY.mappings * 0.9
    assert seen.too_long == []
    assert seen.doubled == []
    assert seen.most_running <= DAY.running
    assert (seen.overdue_at_end, seen.without_due) == (0, 0)


def test_runs_are_on_time_and_the_load_is_even(day):
    _, seen = day
    assert share(seen.lateness_us, 0.99) <= DAY.tick_s * SECOND_US
    assert max(seen.lateness_us) <= 120 * SECOND_US
    load = seen.load(DAY.tick_s, DAY)
    assert 0.2 < sum(load) / len(load) < 0.4
    assert share(load, 0.95) < 1
    assert max(load) <= DAY.running / DAY.tick_s


def test_after_the_crash_what_is_overdue_runs_within_the_bounds(day):
    _, seen = day
    assert seen.caught_up_us is not None
    assert seen.caught_up_us - DAY.crash.to_us < 1800 * SECOND_US


def test_health_verdicts_view_and_audit_agree_at_the_end(day):
    assert day[1].disagreeing == 0


def test_when_a_provider_is_down_only_its_own_mappings_leave_and_all_come_back(day):
    outages = returns(day[0])[:-1]
    assert [each.name for each in outages] == ["provider-00 down", "provider-02 down"]
    for each in outages:
        assert each.left > 10, each
        assert each.strangers == 0, each
        assert each.still_off == 0, each
        # The canary notices within 5 minutes, retests are spread over 5, and one in doubt is tried again after 15.
        assert each.back_after_s < 30 * 60, each


def test_canaries_save_requests_while_a_provider_is_down(day):
    _, seen = day
    down = [line[2] for line in seen.of(PROVIDER_DOWN)]
    assert {"provider-00", "provider-02"} <= set(down)
    assert seen.stood_for["provider-00"] > 200


def test_when_our_own_network_is_gone_the_brake_delists_nothing(day):
    simulation, seen = day
    (on,), (off,) = seen.of(BRAKE_ON), seen.of(BRAKE_OFF)
    assert DAY.ours.from_us < on[0] < DAY.ours.from_us + 180 * SECOND_US
    assert DAY.ours.to_us <= off[0] < DAY.ours.to_us + 360 * SECOND_US
    assert [line for line in seen.of(TAKEN_OFF) if on[0] <= line[0] < DAY.ours.to_us] == []
    ours = returns(simulation)[-1]
    assert ours.still_off == 0
    # Those that fell before anybody could know came back with the brake, not with the network.
    assert ours.back_after_s == 0


def test_the_same_seed_gives_the_same_day_and_another_seed_another():
    short = replace(DAY, mappings=600, hours=6, crash=Span(2, 3), outages=((0, Span(1, 1.5)),), ours=Span(4, 4.2))
    _, first = simulate(short)
    _, again = simulate(short)
    _, other = simulate(replace(short, seed=2))
    assert first.digest == again.digest
    assert first.digest != other.digest
    assert first.lines[0][0] > START_US
