"""JSON as a careful peer reads it: nothing silently accepted, nothing thrown.

`json` accepts NaN and keeps the last of two equal keys, and it raises three
different errors for hostile input; a verdict needs each of these named.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 200
MAX_INTEGER_DIGITS = 400


@dataclass(frozen=True, slots=True)
class Malformed:
    """Why a text is not acceptable JSON, in one sentence."""

    reason: str


class _RefusedError(ValueError):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {twice!r} appears twice in one object")
    return result


def _constant(name: str) -> Any:
    raise _RefusedError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise _RefusedError(f"an integer of {len(digits):,} digits")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _RefusedError(f"the number {text[:40]} is beyond any double")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_integer, parse_float=_float)


def loads(data: bytes | str) -> Any:
    """The parsed value, or `Malformed`. Never raises for any input."""
    try:
        text = data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError as error:
        return Malformed(f"not UTF-8: {error.reason} at byte {error.start}")
    if _depth_exceeds(text, MAX_DEPTH):
        return Malformed(f"nested more than {MAX_DEPTH} levels deep")
    try:
        return _DECODER.decode(text)
    except _RefusedError as error:
        return Malformed(str(error))
    except json.JSONDecodeError as error:
        if not text.strip():
            return Malformed("an empty body")
        return Malformed(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}")


def _depth_exceeds(text: str, limit: int) -> bool:
    """Whether brackets outside strings nest deeper than `limit` (cheap refusal before parsing)."""
    if text.count("[") + text.count("{") <= limit:
        return False
    depth = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > limit:
                return True
        elif char in "]}":
            depth -= 1
    return False
