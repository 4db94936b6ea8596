"""Addresses and keys that operators and partners register: read strictly, told in one spelling."""

from __future__ import annotations

from urllib.parse import urlsplit

from roadworthy.errors import UsageError

MAX_KEY_LENGTH = 4096
_PORTS = {"https": 443, "http": 80}


def origin(base_url: str) -> str:
    """Scheme, host and port of a URL, in one spelling."""
    parts = urlsplit(base_url)
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}:{parts.port or _PORTS.get(parts.scheme.lower())}"


def base_url_of(text: str, what: str = "a base URL", example: str = "https://api.example.com/v1") -> str:
    """The base URL, without a slash at its end. Raises `UsageError`, which calls it `what`."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        raise UsageError(f"expected {what} such as {example}, got {text[:200]!r}")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise UsageError(f"{what} has no query and no fragment, got {text[:200]!r}")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"{what} holds no user name and no password; give the key by itself")
    return text.rstrip("/")


def key_of(text: str) -> str:
    """The key, if a header can carry it. Raises `UsageError`, without telling the key."""
    if not text or len(text) > MAX_KEY_LENGTH or not all("!" <= character <= "~" for character in text):
        raise UsageError(
            f"a key has 1 to {MAX_KEY_LENGTH:,} printable ASCII characters and no space, as a header can carry them"
        )
    return text
