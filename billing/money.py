"""Money as people read it: nano-USD written as decimal USD, to the last digit and without a float."""

from __future__ import annotations

USD_NANO = 10**9


def usd(nano_usd: int) -> str:
    """The amount as a decimal number of USD with nine digits after the point: 12345678901 is `12.345678901`."""
    whole, rest = divmod(abs(nano_usd), USD_NANO)
    return f"{'-' if nano_usd < 0 else ''}{whole}.{rest:09}"


def shown_claim(claimed: str) -> str:
    """What a provider claims, for people: whole numbers of nano-USD as USD, whatever else it said as it is."""
    parts = claimed.split(" and ")
    if all(part.isascii() and part.isdigit() for part in parts):
        return " and ".join(shown_usd(int(part)) for part in parts)
    return claimed


def shown_usd(nano_usd: int) -> str:
    """The amount for people: thousands set apart, and the currency named."""
    whole, rest = divmod(abs(nano_usd), USD_NANO)
    return f"{'-' if nano_usd < 0 else ''}{whole:,}.{rest:09} USD"
