"""When an id, and when a provider, is asked again."""

from __future__ import annotations

import random
from dataclasses import dataclass

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """How costs are collected. Times are seconds; `max_cost_nano_usd` is the most that one request may cost unasked.

    The defaults are the hub's own (registration guide, section 4, and its later words): every minute, up to
    10,000 ids at once, given up after about 30 minutes.
    """

    interval_s: float = 60.0
    batch_size: int = 10_000
    batches_per_turn: int = 60
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
    """Ids that made batches fail which are asked for by themselves in one turn."""


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
