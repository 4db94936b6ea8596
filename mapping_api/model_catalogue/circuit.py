"""A circuit breaker: when the hub is dead, questions fail at once instead of each waiting for its deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

FAILURES = 3
"""So many failures in a row open the circuit."""
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
LONGEST_ASKED_PAUSE_S = 300.0
"""How long at most the hub's own Retry-After is obeyed."""


class Circuit:
    """Closed: questions pass. Open: they do not. After the pause one question is let through; it decides."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Closed at first."""
        self._clock = clock
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._closed_until = -math.inf
        self._probing_until = -math.inf

    def wait_s(self) -> float:
        """How long until a question may pass; 0 is now."""
        now = self._clock()
        return max(0.0, self._closed_until - now, self._probing_until - now)

    def enter(self, longest_s: float) -> None:
        """A question passes, which takes at most `longest_s`. While failing, others wait for its outcome."""
        if self._failures >= FAILURES:
            self._probing_until = self._clock() + longest_s

    def succeeded(self) -> None:
        """The hub answered."""
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._closed_until = self._probing_until = -math.inf

    def left(self) -> None:
        """The question was given up by who asked it; the next may take its place."""
        self._probing_until = -math.inf

    def failed(self, retry_after_s: float | None = None) -> None:
        """The hub did not answer; `retry_after_s` is how long it asked us to wait."""
        now = self._clock()
        self._probing_until = -math.inf
        if retry_after_s is not None:
            self._closed_until = max(self._closed_until, now + min(retry_after_s, LONGEST_ASKED_PAUSE_S))
        # What fails while the circuit is open was asked before it opened, and counts once.
        if now < self._closed_until:
            return
        self._failures += 1
        if self._failures >= FAILURES:
            self._closed_until = now + self._pause_s
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
