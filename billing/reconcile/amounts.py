"""Amounts of money as people and spreadsheets write them, read exactly or not at all."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import Literal

from roadworthy.billing.prices import DECIMALS, EXACT
from roadworthy.errors import UsageError

Mark = Literal[".", ","]
"""What stands before the decimals; the other one may group thousands. Where None is told it is the point, but
`1,234`, which is 1234 to some and 1.234 to others, is refused."""

MAX_NANO_USD = 2**63 - 1
MAX_LENGTH = 64
_NANO = {DECIMALS - length: 10**length for length in range(DECIMALS + 1)}
_GROUPED = {
    ".": re.compile(r"[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+)?"),
    ",": re.compile(r"[1-9][0-9]{0,2}(\.[0-9]{3})+(,[0-9]+)?"),
}
_TWO_WAYS = re.compile(r"[1-9][0-9]{0,2},[0-9]{3}")
_PLAIN = {
    ".": re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"),
    ",": re.compile(r"([0-9]+(,[0-9]*)?|,[0-9]+)([eE][+-]?[0-9]{1,3})?"),
}


def nano_of_usd(text: str, mark: Mark | None = None) -> tuple[int, bool]:
    """An amount in USD as nano-USD, and whether it had to be rounded up to whole ones. Raises `UsageError`.

    `$`, `USD` and `US$` may stand around it, `-` and parentheses make it a credit, and thousands may be grouped.
    """
    whole, point, decimals = text.partition(mark or ".")
    if whole.isdigit() and whole.isascii() and len(decimals) <= DECIMALS and len(whole) <= DECIMALS:
        if not point:
            return int(whole) * 10**DECIMALS, False
        if decimals.isdigit() and decimals.isascii():
            return int(whole) * 10**DECIMALS + int(decimals) * _NANO[len(decimals)], False
    sign, digits = _bare(text, mark)
    exact = Decimal(digits)
    if exact and exact.adjusted() > DECIMALS:
        raise UsageError(f"an amount of {text.strip()[:MAX_LENGTH]} is more than this ledger can hold for one line")
    nano = exact.scaleb(DECIMALS, EXACT)
    rounded = nano.to_integral_value(ROUND_CEILING)
    return sign * int(rounded), rounded != nano


def nano_of_nano(text: str, mark: Mark | None = None) -> tuple[int, bool]:
    """An amount in nano-USD, rounded up to whole ones, and whether it had to be. Raises `UsageError`."""
    if text.isdigit() and text.isascii() and len(text) < 19:
        return int(text), False
    sign, digits = _bare(text, mark)
    exact = Decimal(digits)
    if exact and exact.adjusted() > 18:
        raise UsageError(f"an amount of {text.strip()[:MAX_LENGTH]} is more than this ledger can hold for one line")
    rounded = exact.to_integral_value(ROUND_CEILING)
    if rounded > MAX_NANO_USD:
        raise UsageError(f"an amount of {text.strip()[:MAX_LENGTH]} is more than this ledger can hold for one line")
    return sign * int(rounded), rounded != exact


def _bare(text: str, told: Mark | None) -> tuple[int, str]:
    """The sign, and the digits as `Decimal` reads them."""
    shown = text.strip()[:MAX_LENGTH]
    bare = text.strip().replace("\u00a0", " ").replace("\u2212", "-")
    sign = 1
    if bare.startswith("(") and bare.endswith(")"):
        sign, bare = -1, bare[1:-1].strip()
    if bare[:1] in {"-", "+"}:
        sign, bare = (-sign if bare[0] == "-" else sign), bare[1:].strip()
    for word in ("US$", "USD", "$"):
        bare = bare.removeprefix(word).strip()
        bare = bare.removesuffix(word).strip()
    if bare[:1] == "-" and sign == 1:
        sign, bare = -1, bare[1:]
    mark: Mark = told or "."
    other: Mark = "," if mark == "." else "."
    if told is None and _TWO_WAYS.fullmatch(bare):
        raise UsageError(
            f"the amount {shown!r} is {bare.replace(',', '')} to some and {bare.replace(',', '.')} to others; "
            "say which with --decimal-mark . or --decimal-mark ,"
        )
    if len(bare) <= MAX_LENGTH and _GROUPED[mark].fullmatch(bare):
        return sign, bare.replace(other, "").replace(mark, ".")
    if len(bare) <= MAX_LENGTH and _PLAIN[mark].fullmatch(bare):
        return sign, bare.replace(mark, ".")
    if other in bare and _PLAIN[other].fullmatch(bare):
        raise UsageError(
            f"the amount {shown!r} has its decimals after {other!r}, and {mark!r} is expected; "
            f"say so with --decimal-mark '{other}'"
        )
    if any(not character.isascii() or character.isalpha() for character in bare):
        raise UsageError(f"expected an amount in USD, got {shown!r}; other currencies are not converted")
    raise UsageError(f"expected an amount such as 0.0021 or 1{other}234{mark}50, got {shown!r}")
