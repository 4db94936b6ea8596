"""Statistics of trials: what a handful of answers proves about a model's choices."""

from __future__ import annotations

from math import sqrt

from roadworthy.conformance.verdict import Trials

Z_95 = 1.959963984540054


def wilson(passed: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share, as (low, high); (0, 1) with no trials.

    E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", JASA 22 (1927): unlike the normal interval it stays honest for
    few trials and for shares near 0 and 1.
    """
    if total == 0:
        return 0.0, 1.0
    share = passed / total
    centre = share + z * z / (2 * total)
    spread = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends the bounds are exact; computed, they would miss by a rounding error.
    low = 0.0 if passed == 0 else (centre - spread) / scale
    high = 1.0 if passed == total else (centre + spread) / scale
    return low, high


def trials(passed: int, total: int, bar: float) -> Trials:
    """The trials with their interval against the bar."""
    low, high = wilson(passed, total)
    return Trials(passed, total, low, high, bar)


def decided(result: Trials) -> bool:
    """Whether the interval lies wholly on one side of the bar, so that more trials would change nothing."""
    return result.low >= result.bar or result.high < result.bar
