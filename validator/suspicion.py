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
    """So many different mappings of one provider newly failing, and none passing since, mean that it is down."""
    canary_s: int = 300
    """How long after a canary's failure the next one is sent."""
    back_s: int = 300
    """When a provider answers again, within this time all that waits for a retest has its turn, as bounds allow."""

    @property
    def reach_s(self) -> int:
        """How far back one must look: while all fail, each provider is asked once in `canary_s`."""
        return max(self.window_s, 2 * self.canary_s)


@dataclass(frozen=True, slots=True)
class Minutes:
    """What a provider's runs in the window showed. A mapping newly fails if it was active before."""

    asked: bool = False
    """Whether any run passed, or newly failed."""
    fallen: int = 0
    """How many mappings newly failed since the last one that passed."""
    unreachable: int = 0
    """How many of these failed in a way that may concern all of the provider's mappings."""
    last_pass_us: int | None = None


def fallen(window: Mapping[str, Minutes]) -> set[str]:
    """The providers whose latest runs newly fail. One that was failing before says nothing of these minutes."""
    return {provider for provider, minutes in window.items() if minutes.fallen}


def brake(window: Mapping[str, Minutes], doubts: Doubts) -> bool:
    """Whether most providers newly fail together: then the validator suspects itself."""
    asked = sum(minutes.asked for minutes in window.values())
    return asked >= doubts.brake_providers and len(fallen(window)) > doubts.brake_share * asked


def down(minutes: Minutes, doubts: Doubts) -> bool:
    """Whether a provider is down as a whole. One with a single mapping never is: its failing is its mapping's."""
    return minutes.unreachable >= max(doubts.down_mappings, 2)
