"""Published prices, in integers: money never meets a float."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from roadworthy.conformance.exchange import Exchange, as_object, objects

NANO = 1_000_000_000
MILLION = 1_000_000
LEAST = 100_000
"""Nano-USD per million tokens below which a price is one per token, or a gift."""


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


@dataclass(frozen=True, slots=True)
class Tariff:
    """A model's published price with what it says of cached input, both in nano-USD per million tokens.

    Where a provider publishes no price of cached input, it may cost anything between nothing and the price of input.
    """

    price: Price
    cached_low: int
    cached_high: int

    @classmethod
    def read(cls, pricing: Any) -> Tariff | None:
        """From `pricing` of an entry of `/models`.

        None where it has parts that tokens of text do not tell, or figures that look like prices per token.
        """
        told = as_object(pricing)
        price = Price.parse(told.get("input"), told.get("output"))
        if price is None or any(
            0 < nano < LEAST for nano in (price.input_nano_usd_per_million, price.output_nano_usd_per_million)
        ):
            return None
        cached = []
        for key, value in told.items():
            nano = _nano(value)
            if isinstance(value, dict | list) and value:
                return None
            if key in ("input", "output") or not nano:
                continue
            if "cache" not in key.lower():
                return None
            cached.append(nano)
        plain = price.input_nano_usd_per_million
        return cls(price, min([*cached, plain]) if cached else 0, max([*cached, plain]))

    def bounds_nano_usd(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> tuple[int, int]:
        """The least and the most that so many tokens may cost, in whole nano-USD.

        Each of up to three parts (fresh input, cached input, output) may be rounded by itself, up or down.
        """
        written = output_tokens * self.price.output_nano_usd_per_million
        fresh = (input_tokens - cached_tokens) * self.price.input_nano_usd_per_million
        low = fresh + cached_tokens * self.cached_low
        # What is written into a cache may cost more than plain input, and usage need not tell how much that was.
        high = input_tokens * self.cached_high
        return max(0, (low + written) // MILLION - 2), -(-(high + written) // MILLION) + 2


def published_tariff(exchange: Exchange, model: str) -> Tariff | None:
    """The tariff of a model in an answer of `/models`."""
    for entry in objects(exchange.answer.get("data")):
        if entry.get("id") == model:
            return Tariff.read(entry.get("pricing"))
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
