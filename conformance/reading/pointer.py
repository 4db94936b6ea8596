"""Reading a JSON pointer (RFC 6901)."""

from __future__ import annotations

from typing import Any


def look(value: Any, pointer: str) -> Any:
    """What a pointer leads to, or None where it leads nowhere."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value
