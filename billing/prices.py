"""Prices: read exactly, found by the time of a request, and multiplied out in integers.

A price is nano-USD per million units. Providers and operators write USD per million units, as decimals; nine
decimals of those are whole nano-USD, and more are refused rather than rounded.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from roadworthy.billing.bounds import deeper_than, holds_more_than
from roadworthy.errors import UsageError

INPUT, CACHED, OUTPUT = "input_tokens", "cached_input_tokens", "output_tokens"
MILLION = 1_000_000
DECIMALS = 9
MAX_NANO_USD_PER_MILLION = 2**63 - 1
LEAST_PLAUSIBLE_NANO_USD = 100_000
"""A published price of a million tokens below 0.0001 USD, but not zero, is a price of one token."""
MAX_NUMBER_LENGTH = 64
EXACT = Context(prec=2 * MAX_NUMBER_LENGTH)
"""Digits enough for any number that is read; the usual 28 would round in silence."""
MAX_PUBLISHED_MODELS = 10_000
MAX_PUBLISHED_VALUES = 200_000
"""Values in an answer of `/v1/models`: thousands of models with dozens each, in less than 100 MB of memory."""
MAX_PUBLISHED_DEPTH = 32
FOREVER_US = 2**63 - 1
MAX_NAME_LENGTH = 256

PUBLISHED_KEYS = {
    INPUT: ("input",),
    OUTPUT: ("output",),
    CACHED: (
        "cached_input", "input_cached", "cached", "cached_input_tokens", "cached_tokens", "cache_read",
        "input_cache_read", "cache_read_input", "cached_prompt", "cachedInput",
    ),
}  # fmt: skip
"""What `pricing` in `/v1/models` calls each unit (registration guide, "Exposing pricing"); cached tokens have
no agreed name, so these are the ones that providers use."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES_END = datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH
_UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Version:
    """A price as it was recorded. `id` is the order of recording; 0 where it is not recorded yet."""

    provider: str
    model: str
    unit: str
    nano_usd_per_million: int
    valid_from_us: int
    recorded_at_us: int
    source: str
    id: int = 0


def nano_usd_per_million(usd: str | int | Decimal) -> int:
    """A price in USD per million units, as whole nano-USD. Raises `UsageError`; a float is refused, too."""
    text = str(usd).strip()
    if isinstance(usd, bool | float) or len(text) > MAX_NUMBER_LENGTH or not _DECIMAL.fullmatch(text):
        raise UsageError(
            "a price is USD per million units, a decimal number such as 0.2 that is not negative; "
            f"got {str(usd)[:MAX_NUMBER_LENGTH]!r}"
        )
    exact = Decimal(text)
    if exact.adjusted() > 10:
        raise UsageError(f"a price of {text} USD per million units is beyond all reason; the most is 9,000,000,000")
    nano = exact.scaleb(DECIMALS, EXACT)
    whole = int(nano)
    if whole != nano:
        raise UsageError(
            f"a price has at most {DECIMALS} decimals of a USD per million units, which are nano-USD; got {text}"
        )
    if whole > MAX_NANO_USD_PER_MILLION:
        raise UsageError(f"a price of {text} USD per million units is beyond all reason; the most is 9,000,000,000")
    return whole


def usd(nano_usd: int) -> str:
    """Nano-USD as USD with all its decimals and no others: 200000000 is "0.2"."""
    sign, amount = ("-", -nano_usd) if nano_usd < 0 else ("", nano_usd)
    whole, rest = divmod(amount, 10**DECIMALS)
    decimals = f"{rest:0{DECIMALS}d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def unit_of(text: str) -> str:
    """The name of a unit that can be counted: letters, digits and underscores. Raises `UsageError`."""
    if not _UNIT.fullmatch(text):
        raise UsageError(
            f"a unit is a name such as {INPUT}, {CACHED}, {OUTPUT} or images, of at most 32 small letters, "
            f"digits and underscores; got {text[:60]!r}"
        )
    return text


def model_of(text: str) -> str:
    """The name of a model. Raises `UsageError`."""
    if not text or len(text) > MAX_NAME_LENGTH or not text.isprintable():
        raise UsageError(f"a model is a name of 1 to {MAX_NAME_LENGTH} printable characters; got {text[:60]!r}")
    return text


def time_us(text: str) -> int:
    """A time written in ISO 8601, UTC where it names no zone, as microseconds since 1970. Raises `UsageError`.

    It lies in the years 1970 to 9998 of UTC: what is stored is never changed, and every time must be shown again.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"a time is written as 2026-10-01 or 2026-10-01T12:00:00Z; got {text[:60]!r}") from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    since = at - _EPOCH
    if not timedelta(0) <= since < _TIMES_END:
        raise UsageError(f"a time is expected in the years 1970 to 9998 of UTC; got {text[:60]!r}")
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@dataclass(frozen=True, slots=True)
class Published:
    """What a provider's `/v1/models` says: nano-USD per million by its own model names and our units."""

    prices: Mapping[str, Mapping[str, int]]
    problems: tuple[str, ...] = ()


def published(body: bytes) -> Published:
    """Read an answer of `/v1/models`. Raises `UsageError` where it is none; one bad price spoils no other.

    Takes up to a second for the most that is accepted: call it in a thread.
    """
    if holds_more_than(body, MAX_PUBLISHED_VALUES):
        raise UsageError(f"the answer of /models holds more than {MAX_PUBLISHED_VALUES:,} values")
    if deeper_than(body, MAX_PUBLISHED_DEPTH):
        raise UsageError(
            f"the JSON of /models is nested deeper than {MAX_PUBLISHED_DEPTH} levels, or its brackets do not match"
        )
    try:
        answer = json.loads(body.decode("utf-8-sig"), parse_float=_decimal, parse_int=_decimal)
    except (ValueError, RecursionError):
        raise UsageError("the answer of /models is not JSON") from None
    entries = answer.get("data") if isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        raise UsageError('the answer of /models has no list of models under "data"')
    prices: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for entry in entries[:MAX_PUBLISHED_MODELS]:
        name = entry.get("id") if isinstance(entry, dict) else None
        pricing = entry.get("pricing") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(pricing, dict):
            continue
        found = _published_of(name, pricing, problems)
        if found:
            prices[name] = found
    return Published(prices, tuple(problems))


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text) if len(text) <= MAX_NUMBER_LENGTH else Decimal("NaN")
    except InvalidOperation:  # an exponent beyond all bounds
        return Decimal("NaN")


def _published_of(model: str, pricing: Mapping[str, Any], problems: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    shown = model[:80] if model.isprintable() else ascii(model[:80])
    for unit, keys in PUBLISHED_KEYS.items():
        key = next((key for key in keys if pricing.get(key) is not None), None)
        if key is None:
            continue
        value = pricing[key]
        try:
            if not isinstance(value, Decimal | str):
                raise UsageError(f"a price is a number; got {str(value)[:60]!r}")
            nano = nano_usd_per_million(value)
        except UsageError as error:
            problems.append(f"{shown}, pricing.{key}: {error}")
            continue
        if 0 < nano < LEAST_PLAUSIBLE_NANO_USD:
            text = str(value).strip()
            problems.append(f"{shown}, pricing.{key}: {text} looks like the price of one token, not of a million")
            continue
        found[unit] = nano
    return found


@dataclass(frozen=True, slots=True)
class Rates:
    """The prices of one model that hold at one time, until `until_us`. `others` are those of other units."""

    input: int | None
    cached: int | None
    output: int | None
    others: Mapping[str, int]
    from_us: int
    until_us: int

    def cost_nano_usd(
        self, input_tokens: int, cached_input_tokens: int, output_tokens: int, other_units: Mapping[str, int] | None
    ) -> int | None:
        """The cost of so many units, rounded up once; None where a unit that occurs has no price.

        `input_tokens` counts the cached ones, too, so they are taken from it: nothing is charged twice.
        """
        total = 0
        plain = input_tokens - cached_input_tokens if cached_input_tokens < input_tokens else 0
        if plain:
            if self.input is None:
                return None
            total = plain * self.input
        if cached_input_tokens:
            rate = self.input if self.cached is None else self.cached
            if rate is None:
                return None
            total += cached_input_tokens * rate
        if output_tokens:
            if self.output is None:
                return None
            total += output_tokens * self.output
        for unit, count in (other_units or {}).items():
            if count:
                price = self.others.get(unit)
                if price is None:
                    return None
                total += count * price
        return -(-total // MILLION)


@dataclass
class Book:
    """One provider's prices, by model and unit, each with its versions from the oldest on."""

    versions: dict[str, dict[str, list[tuple[int, int]]]] = field(default_factory=dict)
    """By model and unit: from when, and how much. Two of one time are one: the later recorded."""

    @classmethod
    def of(cls, versions: Iterable[Version]) -> Book:
        """The book of one provider's versions, in whatever order they come."""
        book = cls()
        for one in sorted(versions, key=lambda version: (version.valid_from_us, version.id)):
            line = book.versions.setdefault(one.model, {}).setdefault(one.unit, [])
            if line and line[-1][0] == one.valid_from_us:
                line.pop()
            line.append((one.valid_from_us, one.nano_usd_per_million))
        return book

    def at(self, model: str, at_us: int) -> Rates | None:
        """The rates of a model at a time; None for a model that has none at any time."""
        units = self.versions.get(model)
        if units is None:
            return None
        now: dict[str, int] = {}
        since, until = 0, FOREVER_US
        for unit, line in units.items():
            for from_us, price in line:
                if from_us > at_us:
                    until = min(until, from_us)
                    break
                now[unit] = price
                since = max(since, from_us)
        others = {unit: price for unit, price in now.items() if unit not in PUBLISHED_KEYS}
        return Rates(now.get(INPUT), now.get(CACHED), now.get(OUTPUT), others, since, until)

    def changes_us(self, model: str) -> list[int]:
        """Every time at which a price of the model began to hold."""
        return sorted({from_us for line in self.versions.get(model, {}).values() for from_us, _ in line})


SEPARATORS = ",;\t"
COLUMNS = ("model", "unit", "usd_per_million")
"""What a file of prices must have; `from` and `provider` may be there, too."""


def read_csv(text: str, provider: str | None, now_us: int) -> list[Version]:
    """The prices of a CSV file, all or none. Raises `UsageError` with the line.

    The first line tells which of `SEPARATORS` stands between cells: spreadsheets write that of their country.
    """
    text = text.removeprefix("\ufeff")
    separator = max(SEPARATORS, key=text.lstrip().partition("\n")[0].count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    versions: list[Version] = []
    header: list[str] | None = None
    try:
        for row in lines:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = _header([cell.strip().lower() for cell in row])
                continue
            if len(row) != len(header):
                raise UsageError(f"expected {len(header)} cells, as in the header; got {len(row)}")
            versions.append(
                _row({name: cell.strip() for name, cell in zip(header, row, strict=True)}, provider, now_us)
            )
    except csv.Error as error:
        raise UsageError(f"line {lines.line_num}: not CSV: {error}") from None
    except UsageError as error:
        raise UsageError(f"line {lines.line_num}: {error}") from None
    if not versions:
        raise UsageError("the file holds no prices; its first line names the columns " + ", ".join(COLUMNS))
    return versions


def _header(names: list[str]) -> list[str]:
    missing = [name for name in COLUMNS if name not in names]
    unknown = [name for name in names if name not in {*COLUMNS, "from", "provider"}]
    if missing or unknown or len(set(names)) != len(names):
        raise UsageError(
            f"expected the columns {', '.join(COLUMNS)}, and perhaps from and provider, each once; "
            f"got {', '.join(names)[:200]}"
        )
    return names


def _row(cells: Mapping[str, str], provider: str | None, now_us: int) -> Version:
    slug = cells.get("provider") or provider
    if not slug:
        raise UsageError("no provider is named; add a column provider, or give --provider")
    if provider is not None and slug != provider:
        raise UsageError(f"the line is of {slug[:64]!r}, and --provider names {provider!r}")
    when = cells.get("from")
    return Version(
        slug,
        model_of(cells["model"]),
        unit_of(cells["unit"]),
        nano_usd_per_million(cells["usd_per_million"]),
        time_us(when) if when else now_us,
        now_us,
        "import",
    )


def decimal_of(text: str) -> Decimal:
    """A plain decimal number that is not negative. Raises `UsageError`."""
    try:
        value = Decimal(text) if _DECIMAL.fullmatch(text) and len(text) <= MAX_NUMBER_LENGTH else None
    except InvalidOperation:
        value = None
    if value is None:
        raise UsageError(f"expected a decimal number that is not negative, such as 0.5; got {text[:60]!r}")
    return value
