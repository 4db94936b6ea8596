"""Money as people read it: nano-USD written as decimal USD, to the last digit and without a float."""

from __future__ import annotations

USD_NANO = 10**9


def usd(nano_usd: int) -> str:
    """The amount as a decimal number of USD with nine digits after the point: 12345678901 is `12.345678901`."""
    whole, rest = divmod(abs(nano_usd), USD_NANO)
    return f"{'-' if nano_usd < 0 else ''}{whole}.{rest:09}"


def shown_usd(nano_usd: int) -> str:
    """The amount for people: thousands set apart, and the currency named."""
    whole, rest = divmod(abs(nano_usd), USD_NANO)
    return f"{'-' if nano_usd < 0 else ''}{whole:,}.{rest:09} USD"
