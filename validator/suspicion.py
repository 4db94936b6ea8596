"""Second thoughts: when a whole provider is down, and when it is rather the validator that is wrong. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Doubts:
    """The bounds of both. Times are seconds."""

    window_s: int = 600
    """How far back runs count as "the same minutes"."""
    brake_providers: int = 3
    """The fewest providers that must have been asked before their failing together says anything."""
    brake_share: float = 0.5
    """The brake goes on when more than this share of the providers fail in the window."""
    down_mappings: int = 3
    """So many different mappings of one provider failing, and none passing, mean that it is down as a whole."""
    canary_s: int = 300
    """How long after a canary's failure the next one is sent."""


@dataclass(frozen=True, slots=True)
class Minutes:
    """What a provider's runs in the window showed. `newly_failing` counts mappings that were active before."""

    passing: int
    failing: int
    newly_failing: int


def brake(window: Mapping[str, Minutes], doubts: Doubts) -> bool:
    """Whether most providers newly fail together: then the validator suspects itself.

    A provider that was failing before says nothing of these minutes and does not count.
    """
    asked = [minutes for minutes in window.values() if minutes.passing or minutes.newly_failing]
    fallen = [minutes for minutes in asked if minutes.newly_failing and not minutes.passing]
    return len(asked) >= doubts.brake_providers and len(fallen) > doubts.brake_share * len(asked)


def down(minutes: Minutes, doubts: Doubts) -> bool:
    """Whether a provider is down as a whole."""
    return minutes.failing >= doubts.down_mappings and not minutes.passing
