"""Published prices, in integers: money never meets a float."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from roadworthy.conformance.exchange import Exchange, as_object, objects

NANO = 1_000_000_000
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """A price in nano-USD per million tokens, for input and for output."""

    input_nano_usd_per_million: int
    output_nano_usd_per_million: int

    @classmethod
    def parse(cls, input_usd_per_million: Any, output_usd_per_million: Any) -> Price | None:
        """From figures in USD per million tokens (numbers or decimal text); None for anything else."""
        figures = [_nano(value) for value in (input_usd_per_million, output_usd_per_million)]
        if figures[0] is None or figures[1] is None:
            return None
        return cls(figures[0], figures[1])

    def cost_nano_usd(self, input_tokens: int, output_tokens: int) -> int:
        """The cost of so many tokens, rounded up to whole nano-USD."""
        exact = input_tokens * self.input_nano_usd_per_million + output_tokens * self.output_nano_usd_per_million
        return -(-exact // MILLION)

    def describe(self) -> str:
        """The price as people read it."""
        shown = [_usd(n) for n in (self.input_nano_usd_per_million, self.output_nano_usd_per_million)]
        return f"{shown[0]} USD in and {shown[1]} USD out per million tokens"


def published_price(exchange: Exchange, model: str) -> Price | None:
    """The price of a model in an answer of `/models` (registration guide, "Exposing pricing")."""
    for entry in objects(exchange.answer.get("data")):
        if entry.get("id") == model:
            pricing = as_object(entry.get("pricing"))
            return Price.parse(pricing.get("input"), pricing.get("output"))
    return None


def _nano(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        exact = Decimal(str(value)) * NANO
    except InvalidOperation:
        return None
    if not exact.is_finite() or exact < 0 or exact > NANO * MILLION:
        return None
    return int(exact.to_integral_value(rounding="ROUND_CEILING"))


def _usd(nano_usd: int) -> str:
    return format((Decimal(nano_usd) / NANO).normalize(), "f")
