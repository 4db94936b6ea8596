"""Small words that checks share: what a JSON value is, and how it is shown in a finding."""

from __future__ import annotations

import json
from typing import Any, TypeGuard

LONGEST = 240
"""Characters of evidence shown in a finding; the exchange holds the rest."""


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is an integer; a boolean and 5.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a number; a boolean is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def show(value: Any) -> str:
    """A value as evidence: text as it is, anything else as JSON, cut to a readable length."""
    if isinstance(value, bytes):
        value = value[: 4 * LONGEST].decode(errors="replace")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
