"""Reading JSON text strictly: UTF-8, no key twice in one object, no NaN; what is wrong with it in one sentence."""

from __future__ import annotations

import json
from typing import Any


class JsonTextError(ValueError):
    """The text is not JSON as it should be; the message says why, and fits after "the body" or "the line"."""


def parse(raw: bytes) -> Any:
    """The value of JSON text. Raises `JsonTextError`."""
    try:
        return json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise JsonTextError(f"is not UTF-8, at byte {error.start}; JSON is always sent as UTF-8") from None
    except json.JSONDecodeError as error:
        said = f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise JsonTextError(f"is not valid JSON: {said} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise JsonTextError("is nested too deeply; expected plain objects") from None
    except JsonTextError:
        raise
    except ValueError:  # Python bounds the digits of an integer
        raise JsonTextError("holds a number of thousands of digits; expected no such number") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise JsonTextError(f"has the key {twice[:80]!a} twice in one object; keep one")
    return value


def _no_constant(name: str) -> Any:
    raise JsonTextError(f"holds {name}, which is not JSON; leave it out")
