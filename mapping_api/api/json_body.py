"""Reading a request's body as JSON, strictly: whatever comes, the answer is a sentence and never a fault.

FastAPI's own reading takes duplicate keys, NaN and lone surrogates, and reads a body of any
size before it asks who sent it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import Request

from roadworthy import strict_json
from roadworthy.http.decode import Decoder, Refused
from roadworthy.http.message import FailureKind
from roadworthy.mapping_api.errors import BadRequest, TooLarge, UnsupportedMedia

MAX_DEPTH = 8
"""No body has a use for more objects and lists within each other."""
SMALL_BODY_BYTES = 64 * 1024
"""Larger ones are parsed in a thread, so that others need not wait."""

_JSON = re.compile(r"application/(?:json|[a-z0-9.-]+\+json)", re.IGNORECASE)


async def read_json(request: Request, max_bytes: int = SMALL_BODY_BYTES) -> Any:
    """The body's value. Raises `BadRequest`, `TooLarge` or `UnsupportedMedia`."""
    raw = await read_body(request, max_bytes)
    if len(raw) <= SMALL_BODY_BYTES:
        return parse(raw)
    return await asyncio.to_thread(parse, raw)


async def read_body(request: Request, max_bytes: int = SMALL_BODY_BYTES, *, gzip: bool = False) -> bytes:
    """The text of a body that says it is JSON. Raises `BadRequest`, `TooLarge` or `UnsupportedMedia`.

    `gzip` takes a compressed one, too; `max_bytes` bounds it before and after.
    """
    raw = await _read(request, max_bytes)
    packed = gzip and _encoding(request) == "gzip"
    if packed:
        raw = await asyncio.to_thread(_unpacked, raw, max_bytes)
    if not raw.strip():
        raise BadRequest("the body is empty; expected a JSON object")
    _check_media_type(request, packed=packed, gzip=gzip)
    return raw


def _unpacked(raw: bytes, max_bytes: int) -> bytes:
    decoder = Decoder("gzip", max_bytes)
    try:
        plain = decoder.feed(raw)
    except Refused as refused:
        kind = TooLarge if refused.failure.kind is FailureKind.BODY_TOO_LARGE else BadRequest
        raise kind(f"the body: {refused.failure.message}; send less at once, or the body as it is") from None
    if not decoder.whole:
        raise BadRequest("the gzip body ends before its end; send it whole")
    return plain


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "identity").strip().lower()


def parse(raw: bytes) -> Any:
    """The value of JSON text in UTF-8. Raises `BadRequest`."""
    try:
        value = strict_json.parse(raw)
    except strict_json.JsonTextError as error:
        raise BadRequest(f"the body {error}") from None
    _check(value)
    return value


_TOO_DEEP = f"the body is nested more than {MAX_DEPTH} levels deep; expected a plain object"


async def _read(request: Request, max_bytes: int) -> bytes:
    too_large = TooLarge(f"the body is larger than {max_bytes:,} bytes; send less, or in several requests")
    promised = request.headers.get("content-length", "")
    if promised.isascii() and promised.isdigit() and int(promised[:18]) > max_bytes:
        raise too_large
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)


def _check_media_type(request: Request, *, packed: bool = False, gzip: bool = False) -> None:
    encoding = _encoding(request)
    if not packed and encoding != "identity":
        expected = "gzip or none" if gzip else "none"
        raise UnsupportedMedia(f"Content-Encoding: expected {expected}, got {encoding[:80]!r}; send the body as it is")
    given = request.headers.get("content-type", "")
    media_type, _, parameters = given.partition(";")
    if not _JSON.fullmatch(media_type.strip()):
        came = repr(given[:80]) if given else "none"
        raise UnsupportedMedia(f"Content-Type: expected 'application/json', got {came}; send the body as JSON")
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in {"utf-8", "utf8", "us-ascii"}:
            raise UnsupportedMedia(f"Content-Type: expected the charset utf-8, got {value[:80]!r}")


def _check(value: Any) -> None:
    """What can neither be stored nor answered: text that is not Unicode, or NUL, which PostgreSQL cannot keep."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise BadRequest(_TOO_DEEP)
        below: list[Any] = []
        for part in level:
            if isinstance(part, str):
                _check_text(part)
            elif isinstance(part, dict):
                below += part.keys()
                below += part.values()
            elif isinstance(part, list):
                below += part
        level = below


def _check_text(text: str) -> None:
    if "\0" in text:
        raise BadRequest(f"the text {text[:80]!a} holds the character NUL (\\u0000); leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"the text {text[:80]!a} holds half a surrogate pair; send whole characters") from None
