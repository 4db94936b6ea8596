"""The Wilson interval and what it decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.conformance.statistics import decided, trials, wilson


@pytest.mark.parametrize(
    ("passed", "total", "low", "high"),
    [
        # Newcombe (1998), table of the score interval without continuity correction, and by hand.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (4, 4, 0.5101, 1.0),
    ],
)
def test_the_interval_agrees_with_published_values(passed, total, low, high):
    assert wilson(passed, total) == pytest.approx((low, high), abs=5e-5)


def test_no_trials_prove_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    assert not decided(trials(0, 0, 0.5))


def test_four_alike_trials_are_the_fewest_that_decide_a_bar_of_one_half():
    assert not decided(trials(3, 3, 0.5))
    assert decided(trials(4, 4, 0.5))
    assert decided(trials(0, 4, 0.5))


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_stays_in_range(case):
    passed, total = case
    low, high = wilson(passed, total)
    assert 0.0 <= low <= passed / total <= high <= 1.0
