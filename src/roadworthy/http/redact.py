"""Masking of secrets by value, before anything is kept.

A mask has the length of what it hides, so offsets into a body, and the arrival
times that refer to them, stay true.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote

from roadworthy.http.message import Headers, Reply, Request

MASK = "*"
SHORTEST = 6
"""Values shorter than this are masked in request headers only: elsewhere they may be ordinary words."""


class Redactor:
    """Masks a set of secret values wherever they stand, in the spellings they travel in."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secret for secret in secrets if secret)
        spellings = {form for s in self._secrets if len(s) >= SHORTEST for form in _spellings(s)}
        ordered = sorted(spellings, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(re.escape(form.encode()) for form in ordered)) if ordered else None

    def data(self, data: bytes) -> bytes:
        """Bytes with every secret masked, of unchanged length."""
        if self._pattern is None:
            return data
        return self._pattern.sub(lambda match: MASK.encode() * len(match[0]), data)

    def text(self, text: str) -> str:
        """Text with every secret masked."""
        return self.data(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def headers(self, headers: Headers) -> Headers:
        """Headers with every secret masked."""
        return tuple((name, self.text(value)) for name, value in headers)

    def request(self, request: Request) -> Request:
        """A request as it may be kept."""
        return replace(
            request,
            url=self.text(request.url),
            headers=tuple((name, self._header_value(value)) for name, value in request.headers),
            body=None if request.body is None else self.data(request.body),
        )

    def _header_value(self, value: str) -> str:
        for secret in self._secrets:
            value = value.replace(secret, MASK * len(secret))
        return value

    def reply(self, reply: Reply) -> Reply:
        """A reply as it may be kept."""
        failure = reply.failure and replace(reply.failure, message=self.text(reply.failure.message))
        return replace(reply, headers=self.headers(reply.headers), body=self.data(reply.body), failure=failure)


def _spellings(secret: str) -> set[str]:
    return {
        secret,
        json.dumps(secret)[1:-1],
        quote(secret, safe=""),
        base64.b64encode(secret.encode()).decode(),
        base64.b64encode(f":{secret}".encode()).decode(),
    }
