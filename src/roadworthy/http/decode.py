"""Undoing content encodings within a bound: a small body must not become a large one in our memory."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from roadworthy.http.message import Failure, FailureKind, Read

IDENTITY = ("", "identity")
MAX_ENCODINGS = 2


class _BombError(Exception):
    """The decoded size passed the cap."""


class _Inflate:
    """One layer of gzip (members one after another) or deflate (with or without its zlib head)."""

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding != "deflate"
        self._engine = zlib.decompressobj(31 if self._gzip else 15)
        self._fresh = True

    def feed(self, data: bytes, room: int) -> bytes:
        made = bytearray()
        while data:
            if self._engine.eof:
                if not self._gzip:
                    break
                self._engine = zlib.decompressobj(31)
            try:
                piece = self._engine.decompress(data, room - len(made) + 1)
            except zlib.error:
                if self._gzip or not self._fresh:
                    raise
                self._engine = zlib.decompressobj(-15)
                self._fresh = False
                continue
            self._fresh = False
            made += piece
            if len(made) > room:
                raise _BombError
            data = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
        return bytes(made)

    @property
    def whole(self) -> bool:
        return self._engine.eof


def decode(
    body: bytes, reads: Sequence[Read], encoding: str, cap: int
) -> tuple[bytes, tuple[Read, ...], Failure | None]:
    """The body without its content encodings, the reads in its offsets, and what went wrong.

    `encoding` is the Content-Encoding header; `cap` bounds the decoded bytes of every layer. What could be
    decoded before a failure is kept.
    """
    names = [name.strip().lower() for name in encoding.split(",") if name.strip().lower() not in IDENTITY]
    if not names:
        return body, tuple(reads), None
    if len(names) > MAX_ENCODINGS or any(name not in ("gzip", "x-gzip", "deflate") for name in names):
        return (
            body,
            tuple(reads),
            Failure(
                FailureKind.BAD_ENCODING,
                f"the body is encoded as {encoding[:60]!r}, though only identity was asked for "
                "and only gzip or deflate is understood",
            ),
        )
    layers = [_Inflate(name) for name in reversed(names)]
    made = bytearray()
    moved: list[Read] = []
    start = 0
    failure = None
    for read in reads or (Read(0, len(body)),):
        piece = body[start : read.end]
        start = read.end
        try:
            for layer in layers:
                piece = layer.feed(piece, cap - len(made))
        except _BombError:
            failure = Failure(
                FailureKind.BODY_TOO_LARGE, f"{len(body):,} compressed bytes unpack to more than the cap of {cap:,}"
            )
            break
        except zlib.error as error:
            failure = Failure(FailureKind.BAD_ENCODING, f"the body is not {encoding}: {error}")
            break
        if piece:
            made += piece
            moved.append(Read(read.at_ns, len(made)))
    if failure is None and body and not all(layer.whole for layer in layers):
        failure = Failure(FailureKind.TRUNCATED, f"the {encoding} body ends before its end")
    return bytes(made), tuple(moved), failure
