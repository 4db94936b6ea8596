"""Usage items: what a gateway or a file tells of one served request, read strictly.

An item is a JSON object with the fields of `ITEM_SCHEMA`. Nothing is guessed or converted: a number in quotes, a
fraction and a boolean are no integers, a time without its offset is no time, an unknown field is a mistake.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from roadworthy.billing.records import Served
from roadworthy.billing.schedule import SECOND_US
from roadworthy.billing.tables import MAX_NAME_LENGTH

MAX_AMOUNT = 10**12
"""Of tokens or other units in one request: far above any, and sums of millions of them stay within 64 bits."""
MAX_UNITS = 16
AHEAD_US = 5 * 60 * SECOND_US
"""How far a gateway's clock may be ahead of ours."""
BEHIND_US = 35 * 24 * 3600 * SECOND_US
"""How old a request may be when it is told of: older ones belong to statements that are closed. `late` allows them."""

_SLUG = r"[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){0,62}[a-z0-9]"
PAYER = r"(?:user|org):[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_TASK = r"[a-z0-9]+(?:-[a-z0-9]+){0,9}"
_UNIT = r"[a-z][A-Za-z0-9_]{0,31}"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
_BARE = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_SHOWN = rf"[^\s{_BARE}](?:[^{_BARE}]{{0,{MAX_NAME_LENGTH - 2}}}[^\s{_BARE}])?"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIELDS = ("provider", "requestId", "servedAt", "payer", "model", "task", "status", "usage")
_COUNTS = ("inputTokens", "cachedInputTokens", "outputTokens")
_USAGE = (*_COUNTS, "units")
_USAGE_NAMES = frozenset(_USAGE)
_Counts = tuple[int | None, int | None, int | None]
_NO_COUNTS: _Counts = (None, None, None)
_LINE = f"1 to {MAX_NAME_LENGTH} characters on one line, without a space at either end"
_COUNT = f"a whole number from 0 to {MAX_AMOUNT:,}, written as an integer, or null"

EXPECTED = {
    "provider": "a provider's slug, such as 'fireworks-ai'",
    "requestId": f"the id that the provider gave the request in its response header: {_LINE}",
    "servedAt": "a time by RFC 3339 with its offset from UTC, such as '2026-06-23T12:00:00.5Z'",
    "payer": "who pays: 'user:NAME' or 'org:NAME', with a name on the hub",
    "model": f"the model that was asked: {_LINE}",
    "task": "a task in lower case with hyphens, such as 'conversational', of at most 64 characters",
    "status": "the HTTP status that the provider answered with, an integer from 100 to 599",
    "usage": "an object with inputTokens, cachedInputTokens, outputTokens and units, or null",
    "units": f"an object of at most {MAX_UNITS} units, such as {{'images': 1}}, or null",
}
"""What each field takes, in words."""


def _text(pattern: str, most: int, description: str, example: str) -> dict[str, Any]:
    return {
        "type": "string",
        "pattern": f"^{pattern}$",
        "maxLength": most,
        "description": description,
        "examples": [example],
    }


_AMOUNT = {"type": "integer", "minimum": 0, "maximum": MAX_AMOUNT}
_AMOUNT_OR_NULL = {"anyOf": [_AMOUNT, {"type": "null"}]}
ITEM_SCHEMA: dict[str, Any] = {
    "title": "ServedRequest",
    "type": "object",
    "additionalProperties": False,
    "required": [name for name in _FIELDS if name != "usage"],
    "properties": {
        "provider": _text(_SLUG, 64, "The provider's slug.", "fireworks-ai"),
        "requestId": _text(
            _SHOWN, MAX_NAME_LENGTH, "The id in the provider's response header.", "9f8c1c3e-0e4c-4a8f-9d0a-1d0f6f0e2b11"
        ),
        "servedAt": {
            "type": "string",
            "format": "date-time",
            "pattern": f"^{_TIME}$",
            "description": "When it was answered: RFC 3339 with an offset.",
            "examples": ["2026-06-23T12:00:00.250Z"],
        },
        "payer": _text(PAYER, 101, "Who pays: user:NAME or org:NAME.", "org:acme"),
        "model": _text(_SHOWN, MAX_NAME_LENGTH, "The model that was asked.", "deepseek-ai/DeepSeek-R1"),
        "task": _text(_TASK, 64, "The task.", "conversational"),
        "status": {
            "type": "integer",
            "minimum": 100,
            "maximum": 599,
            "description": "The provider's HTTP status. Only requests of 2xx and 3xx are costed.",
        },
        "usage": {
            "anyOf": [
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        **dict.fromkeys(_COUNTS, _AMOUNT_OR_NULL),
                        "units": {
                            "anyOf": [
                                {
                                    "type": "object",
                                    "maxProperties": MAX_UNITS,
                                    "propertyNames": {"pattern": f"^{_UNIT}$"},
                                    "additionalProperties": _AMOUNT,
                                },
                                {"type": "null"},
                            ],
                            "examples": [{"images": 1}],
                        },
                    },
                },
                {"type": "null"},
            ],
            "description": "What was used. inputTokens counts the cached ones, too.",
        },
    },
}
"""An item as OpenAPI tells it."""

_TEXTS = tuple(
    (name, re.compile(pattern).fullmatch, most)
    for name, pattern, most in (
        ("provider", _SLUG, 64),
        ("requestId", _SHOWN, MAX_NAME_LENGTH),
        ("payer", PAYER, 101),
        ("model", _SHOWN, MAX_NAME_LENGTH),
        ("task", _TASK, 64),
    )
)
_is_unit = re.compile(_UNIT).fullmatch
_is_time = re.compile(_TIME).fullmatch
_has_surrogate = re.compile("[\ud800-\udfff]").search


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of an item; `field` is empty where the item as a whole is."""

    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.field + ': ' if self.field else ''}expected {self.expected}; got {self.got}"


class ItemReader:
    """Reads items told at one moment."""

    def __init__(self, providers: Container[str], now_us: int, *, late: bool = False) -> None:
        """`providers` are the slugs that are known; `late` takes requests of any age."""
        self._providers = providers
        self._latest_us = now_us + AHEAD_US
        self._earliest_us = 0 if late else now_us - BEHIND_US

    def read(self, item: Any) -> Served | list[Problem]:
        """The served request that the item tells of, or all that is wrong with it."""
        if type(item) is not dict:
            return [Problem("", "a JSON object", shown(item))]
        problems: list[Problem] = []
        texts: list[str] = []
        for name, matches, most in _TEXTS:
            value = item.get(name)
            if type(value) is str and len(value) <= most and matches(value) and not _has_surrogate(value):
                texts.append(value)
            else:
                problems.append(_problem(item, name))
        if len(texts) == len(_TEXTS) and texts[0] not in self._providers:
            problems.append(Problem("provider", "a provider that is registered here", shown(texts[0])))
        served_at_us = self._time(item, problems)
        status = item.get("status")
        if type(status) is not int or not 100 <= status <= 599:
            problems.append(_problem(item, "status"))
        if len(item) > len(_FIELDS) - ("usage" not in item) or problems:
            _find_unknown(item, _FIELDS, "", problems)
        (read, cached, written), units = _usage(item.get("usage"), problems)
        if problems:
            return problems
        provider, request_id, payer, model, task = texts
        return Served(
            provider, request_id, served_at_us, payer, model, task, int(item["status"]), read, cached, written, units
        )

    def _time(self, item: dict[str, Any], problems: list[Problem]) -> int:
        value = item.get("servedAt")
        if type(value) is not str or not _is_time(value):
            problems.append(_problem(item, "servedAt"))
            return 0
        try:
            at_us = (datetime.fromisoformat(value.upper()) - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError):
            problems.append(_problem(item, "servedAt"))
            return 0
        if at_us > self._latest_us:
            expected = "a time not more than 5 minutes ahead of the service's clock"
        elif at_us >= self._earliest_us:
            return at_us
        elif self._earliest_us:
            expected = "a time of the last 35 days, unless late requests are allowed"
        else:
            expected = "a time since 1970"
        problems.append(Problem("servedAt", expected, shown(value)))
        return 0


def _usage(value: Any, problems: list[Problem]) -> tuple[_Counts, dict[str, int] | None]:
    if value is None:
        return _NO_COUNTS, None
    if type(value) is not dict:
        problems.append(Problem("usage", EXPECTED["usage"], shown(value)))
        return _NO_COUNTS, None
    if not value.keys() <= _USAGE_NAMES:
        _find_unknown(value, _USAGE, "usage.", problems)
    units = _units(value.get("units"), problems)
    counts = [value.get(name) for name in _COUNTS]
    wrong = [
        Problem(f"usage.{name}", _COUNT, shown(count))
        for name, count in zip(_COUNTS, counts, strict=True)
        if count is not None and not (type(count) is int and 0 <= count <= MAX_AMOUNT)
    ]
    problems += wrong
    read, cached, written = counts
    if not wrong and cached is not None and (read is None or cached > read):
        expected = "at most inputTokens, which counts the cached ones, too"
        said = f"{cached}, with inputTokens {'absent' if read is None else read}"
        problems.append(Problem("usage.cachedInputTokens", expected, said))
    return (read, cached, written), units


def _units(value: Any, problems: list[Problem]) -> dict[str, int] | None:
    if value is None:
        return None
    if type(value) is not dict or len(value) > MAX_UNITS:
        problems.append(Problem("usage.units", EXPECTED["units"], shown(value)))
        return None
    for name, count in value.items():
        if not _is_unit(name):
            expected = "units named by 1 to 32 letters, digits or _, a small letter first, such as 'images'"
            problems.append(Problem("usage.units", expected, shown(name)))
        elif type(count) is not int or not 0 <= count <= MAX_AMOUNT:
            problems.append(Problem(f"usage.units.{name}", _COUNT.removesuffix(", or null"), shown(count)))
    return value or None


def _find_unknown(value: dict[str, Any], known: tuple[str, ...], place: str, problems: list[Problem]) -> None:
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
            hint = f"perhaps {near[0]}" if near else f"known here: {', '.join(known)}"
            # A name that cannot be shown as it is stands among what came, not in the sentence's head.
            field = f"{place}{name}" if _is_unit(name) else place.removesuffix(".")
            problems.append(Problem(field, f"no field of this name ({hint})", shown(name)))


def _problem(item: dict[str, Any], name: str) -> Problem:
    return Problem(name, EXPECTED[name], shown(item[name]) if name in item else "nothing")


def shown(value: Any) -> str:
    """A value that came, for a message: short, plain ASCII, harmless in a terminal."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _REPR.repr(value).encode("ascii", "backslashreplace").decode()


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


_WIRE = {
    "served_at_us": "servedAt",
    "input_tokens": "usage.inputTokens",
    "cached_input_tokens": "usage.cachedInputTokens",
    "output_tokens": "usage.outputTokens",
    "other_units": "usage.units",
}


def wire_name(name: str) -> str:
    """What the field of a `Served` is called in an item."""
    return _WIRE.get(name, name)
