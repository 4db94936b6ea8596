"""Masking of secrets by value, before anything is kept.

A mask has the length of what it hides, so offsets into a body, and the arrival
times that refer to them, stay true.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import quote

from roadworthy.http.message import Headers, Reply, Request

MASK = "*"
SHORTEST = 6
"""Values shorter than this are masked in request headers only: elsewhere they may be ordinary words."""
URL_ALPHABET = str.maketrans("+/", "-_")
_ESCAPE = re.compile("%..")


class Redactor:
    """Masks a set of secret values wherever they stand, in the spellings they travel in."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(sorted({part for s in secrets for part in _parts(s)}, key=len, reverse=True))
        spellings = {
            form.encode(errors="surrogatepass") for s in self._secrets if len(s) >= SHORTEST for form in _spellings(s)
        }
        self._forms = sorted(spellings, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms)))

    def data(self, data: bytes) -> bytes:
        """Bytes with every secret masked, of unchanged length."""
        # Most bodies hold none, and looking for plain words is many times faster than matching alternatives.
        if not any(form in data for form in self._forms):
            return data
        return self._pattern.sub(lambda match: MASK.encode() * len(match[0]), data)

    def text(self, text: str) -> str:
        """Text with every secret masked."""
        return self.data(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")

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


def _parts(value: str) -> Iterator[str]:
    """A secret, and the bare token of one that is a whole header value ("Bearer token")."""
    if value:
        yield value
    scheme, _, token = value.partition(" ")
    if token and scheme.isalpha():
        yield token.strip()


def _spellings(secret: str) -> Iterator[str]:
    """A secret as it stands in text, JSON, URLs, HTML, and inside base64."""
    raw = secret.encode(errors="surrogatepass")
    quoted = quote(raw, safe="")
    yield from (secret, html.escape(secret), json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield from (json.dumps(secret)[1:-1].replace("/", "\\/"), quote(raw), quoted, _ESCAPE.sub(_lower, quoted))
    for before in range(3):
        # What stands before and after it in the encoded bytes changes the first and last letters; those between stay.
        data = base64.b64encode(bytes(before) + raw).decode()
        sure = data[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield from (sure, sure.translate(URL_ALPHABET))


def _lower(match: re.Match[str]) -> str:
    return match[0].lower()
