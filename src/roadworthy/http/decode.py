"""Undoing content encodings within a bound: a small body must not become a large one in our memory.

Only what every client understands is undone: gzip and deflate. We ask for no encoding at all, so a
provider that answers in a rarer one cuts callers off.
"""

from __future__ import annotations

import zlib

from roadworthy.http.message import Failure, FailureKind

IDENTITY = ("", "identity")
UNDERSTOOD = ("gzip", "x-gzip", "deflate")
MAX_ENCODINGS = 2
SLICE_BYTES = 4096
"""Compressed bytes undone at a time: what follows a gzip member is copied, and many tiny members must not cost much."""

ZLIB_HEAD_BYTES = 2


class Refused(Exception):  # noqa: N818 - a refusal on purpose, not an error of ours
    """The body cannot be undone any further; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Decoder:
    """Undoes the encodings that a Content-Encoding header names, piece by piece.

    `cap` bounds what each layer may unpack to. Raises `Refused` for an encoding that is not understood.
    """

    def __init__(self, encoding: str, cap: int) -> None:
        names = [name.strip().lower() for name in encoding.split(",") if name.strip().lower() not in IDENTITY]
        if len(names) > MAX_ENCODINGS or any(name not in UNDERSTOOD for name in names):
            raise Refused(
                Failure(
                    FailureKind.BAD_ENCODING,
                    f"the body is encoded as {encoding[:60]!r}, though none was asked for; "
                    "only gzip and deflate are understood",
                )
            )
        self._encoding = ", ".join(names)
        self._cap = cap
        self._layers = [_Layer(name, cap) for name in reversed(names)]
        self._taken = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to undo."""
        return not self._layers

    @property
    def whole(self) -> bool:
        """Whether every layer has come to its end, or never began."""
        return all(layer.whole for layer in self._layers)

    @property
    def unended(self) -> Failure:
        """What is wrong with a body that ends before its encoding does."""
        return Failure(FailureKind.TRUNCATED, f"the {self._encoding} body ends before its end")

    def feed(self, data: bytes) -> bytes:
        """What `data` unpacks to. Raises `Refused` for a bomb, or for what is not so encoded."""
        made = bytearray()
        for start in range(0, len(data), SLICE_BYTES):
            piece = data[start : start + SLICE_BYTES]
            self._taken += len(piece)
            try:
                for layer in self._layers:
                    piece = layer.feed(piece)
            except _BombError:
                raise Refused(
                    Failure(
                        FailureKind.BODY_TOO_LARGE,
                        f"{self._taken:,} compressed bytes unpack to more than the cap of {self._cap:,}",
                    )
                ) from None
            except zlib.error as error:
                raise Refused(Failure(FailureKind.BAD_ENCODING, f"the body is not {self._encoding}: {error}")) from None
            made += piece
        return bytes(made)


class _BombError(Exception):
    """What a layer unpacks to passed the cap."""


class _Layer:
    """One encoding: gzip (members one after another) or deflate (with its zlib head, or without as some send it)."""

    def __init__(self, encoding: str, cap: int) -> None:
        self._gzip = encoding != "deflate"
        self._engine = zlib.decompressobj(31 if self._gzip else 15)
        self._begun = False
        self._held = b""
        self._made = 0
        self._cap = cap

    def feed(self, data: bytes) -> bytes:
        if not self._begun and not self._gzip:
            data = self._held + data
            if len(data) < ZLIB_HEAD_BYTES:
                self._held = data
                return b""
        made = bytearray()
        while data:
            if self._engine.eof:
                if not self._gzip:
                    break  # what follows the end is no part of the body
                self._engine = zlib.decompressobj(31)
            try:
                piece = self._engine.decompress(data, self._cap - self._made + 1)
            except zlib.error:
                if self._gzip or self._begun:
                    raise
                self._begun = True
                self._engine = zlib.decompressobj(-15)
                continue
            self._begun = True
            made += piece
            self._made += len(piece)
            if self._made > self._cap:
                raise _BombError
            data = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
        return bytes(made)

    @property
    def whole(self) -> bool:
        return self._engine.eof or not self._begun
