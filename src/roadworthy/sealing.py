"""Secrets at rest: sealed with a key from the environment, each bound to its place.

AES-256 in GCM mode, a fresh nonce each time. What is sealed for one context (a row and column)
opens in no other, so that a sealed value copied from another's row is of no use. Keys come as a
list: the first seals, all open; so a key is changed by putting the new one in front, sealing
everything again, and dropping the old one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from roadworthy.errors import ConfigError

VARIABLE = "ROADWORTHY_SECRET_KEY"
KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = "v1"
HOW_TO_SET = f"make one with `roadworthy secret-key new` and set it as {VARIABLE}"


class SealingError(ConfigError):
    """A secret cannot be sealed or opened: the key is missing or another, or what was sealed was changed."""


def new_key() -> str:
    """A new key, as the variable takes it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")


class Sealer:
    """Seals and opens with a list of keys."""

    def __init__(self, keys: str | None) -> None:
        """`keys` is the variable's text: keys with commas between. Raises `ConfigError` for a malformed one."""
        parts = [part.strip() for part in (keys or "").split(",") if part.strip()]
        self._ciphers = {_name(key): AESGCM(key) for key in map(_decoded, parts)}

    @property
    def ready(self) -> bool:
        """Whether there is a key to seal with."""
        return bool(self._ciphers)

    def seal(self, secret: str, context: str) -> str:
        """The secret, sealed with the first key for that context. Raises `SealingError` without a key."""
        if not self._ciphers:
            raise SealingError(f"there is no key to encrypt secrets with; {HOW_TO_SET}")
        name, cipher = next(iter(self._ciphers.items()))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = cipher.encrypt(nonce, secret.encode(), _bound(name, context))
        return f"{_VERSION}.{name}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, context: str) -> str:
        """The secret again. Raises `SealingError` where its key is gone, or it was sealed for another context."""
        version, _, rest = sealed.partition(".")
        name, _, text = rest.partition(".")
        if version != _VERSION or not text:
            raise SealingError("this is not a sealed secret of this version of roadworthy")
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise SealingError(
                f"the secret was encrypted with the key {name}, which is not in {VARIABLE}; put that key back at the "
                "end of the list"
            )
        try:
            data = base64.urlsafe_b64decode(text)
            return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound(name, context)).decode()
        except (InvalidTag, ValueError):
            raise SealingError(f"the secret of {context} was changed, or sealed for another place") from None

    def stale(self, sealed: str) -> bool:
        """Whether it was sealed with another key than the first."""
        return sealed.split(".")[1:2] != list(self._ciphers)[:1]


def _decoded(text: str) -> bytes:
    try:
        key = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        # The text itself is a secret, even when it is mistyped.
        raise ConfigError(
            f"{VARIABLE} must hold keys of {KEY_BYTES} bytes as URL-safe base64 (43 characters), with commas between; "
            f"one of {len(text)} characters is none. {HOW_TO_SET[0].upper()}{HOW_TO_SET[1:]}"
        )
    return key


def _name(key: bytes) -> str:
    """By which a sealed text tells its key, without telling anything of it."""
    return hashlib.sha256(b"roadworthy key name" + key).hexdigest()[:8]


def _bound(name: str, context: str) -> bytes:
    return f"{_VERSION}.{name}.{context}".encode()
