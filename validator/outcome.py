"""What one validation run says: the verdict of the checks, classed, with the figures the catalogue shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from roadworthy.conformance.usage import Use


class ErrorClass(StrEnum):
    """Whose fault a failure is, as far as the evidence tells."""

    OURS = "ours"
    """The validator's own: out of time, memory, descriptors, or its network."""
    NETWORK = "network"
    AUTH = "auth"
    RATE_LIMIT = "rate_limit"
    PROVIDER_5XX = "provider_5xx"
    CONTRACT = "contract"
    """It answered, in time or not, but not as the rules ask."""


class Result(StrEnum):
    """What a run means for the mapping. Doubt changes nothing."""

    WORKS = "works"
    DEGRADED = "degraded"
    """It works, but slower than it should, or without an ability it declares."""
    FAILS = "fails"
    IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. None is not known. Prices are nano-USD per million tokens."""

    time_to_first_token_s: float | None = None
    throughput_tokens_per_s: float | None = None
    total_time_s: float | None = None
    context_length_tokens: int | None = None
    input_price_nano_usd_per_mtok: int | None = None
    output_price_nano_usd_per_mtok: int | None = None
    supports_tools: bool | None = None
    supports_structured_output: bool | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run's result. `findings` are the failed checks: id, expected, got, remedy, without secrets."""

    result: Result
    error_class: ErrorClass | None = None
    summary: str = ""
    """One sentence for people: why it fails or is degraded."""
    findings: tuple[dict[str, Any], ...] = ()
    figures: Figures = field(default_factory=Figures)
    recording: bytes | None = None
    """The run's exchanges, compressed, so that it can be replayed."""
    uses: tuple[Use, ...] = ()
    """What the run's requests used, for who is to pay for them."""
    requests: int = 0
    duration_s: float = 0.0
