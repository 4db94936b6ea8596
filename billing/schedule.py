"""When an id, and when a provider, is asked again."""

from __future__ import annotations

import random
from dataclasses import dataclass

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US
LEASE_MOST_S = 3600
"""No setting allows a longer lease."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How costs are collected. Times are seconds; `max_cost_nano_usd` is the most that one request may cost unasked.

    The defaults are the hub's own (registration guide, section 4, and its later words): every minute, up to
    10,000 ids at once, given up after about 30 minutes.
    """

    interval_s: float = 60.0
    batch_size: int = 10_000
    batches_per_turn: int = 60
    turn_s: float = 300.0
    """After this a turn ends with the question that is under way, so that a slow provider keeps nobody waiting."""
    expire_after_s: float = 1800.0
    least_asks: int = 4
    """An id expires only after so many answers without it, however far the clock jumped."""
    ask_again_s: float = 60.0
    ask_again_most_s: float = 900.0
    backoff_s: float = 30.0
    backoff_most_s: float = 600.0
    retry_after_most_s: float = 3600.0
    timeout_s: float = 50.0
    answer_max_bytes: int = 16 * 1024 * 1024
    max_cost_nano_usd: int = 1_000 * 10**9
    lease_s: float = 120.0
    providers_at_once: int = 32
    searches: int = 48
    """Questions in one turn that look for the id that makes batches fail."""
    alone_per_turn: int = 5
    """Ids asked for by themselves that may fail in one turn."""
    recheck_ids_per_hour: int = 100
    """Settled ids of each provider that are asked for again, to see whether their costs changed."""
    recheck_within_s: float = 24 * 3600.0
    """They were served at most so long ago."""

    @property
    def lease_us(self) -> int:
        """How long a turn is held without another word of its collector."""
        return int(self.lease_s * SECOND_US)

    @property
    def silence_us(self) -> int:
        """A provider that did not answer for so long was silent; less may be the distance between two questions."""
        return int((2 * self.ask_again_most_s + self.interval_s) * SECOND_US)

    @property
    def next_ask_most_us(self) -> int:
        """No id waits longer than this by our own doing; one that does was given its time by a clock that was wrong."""
        return int(2 * self.ask_again_most_s * SECOND_US)

    @property
    def next_turn_most_us(self) -> int:
        """The same for providers."""
        return int(2 * max(self.interval_s, self.retry_after_most_s, self.backoff_most_s) * SECOND_US)


def ask_again_us(policy: Policy, asks: int, jitter: random.Random) -> int:
    """How long after its `asks`th answer without it an id is asked for again: growing, and spread by a tenth."""
    wait_s = min(policy.ask_again_s * 2 ** min(asks - 1, 32), policy.ask_again_most_s)
    return int(wait_s * (1 + 0.1 * jitter.random()) * SECOND_US)


def back_off_us(policy: Policy, failures: int, retry_after_s: float, jitter: random.Random) -> int:
    """How long a provider is left alone after so many failures in a row, and at least as long as it asked for.

    What it asks for is honoured up to a bound: an absurd wait would leave payers without their costs.
    """
    wait_s = min(policy.backoff_s * 2 ** min(failures - 1, 32), policy.backoff_most_s)
    wait_s *= 0.5 + jitter.random()  # so that what failed together does not come back together
    return int(max(wait_s, min(retry_after_s, policy.retry_after_most_s)) * SECOND_US)


def answering_since_us(policy: Policy, last_answer_us: int | None, since_us: int | None, now_us: int) -> int:
    """Since when a provider that answers now has answered without a long silence.

    A clock that jumped looks like a silence, forward or backward: what is counted from it begins anew.
    """
    if last_answer_us is None or since_us is None or not 0 <= now_us - last_answer_us <= policy.silence_us:
        return now_us
    return min(since_us, now_us)


def next_turn_us(policy: Policy, begun_us: int, now_us: int) -> int:
    """When the next turn begins: an interval after this one did, however the clock jumped meanwhile."""
    interval_us = int(policy.interval_s * SECOND_US)
    return min(max(begun_us + interval_us, now_us), now_us + interval_us)
