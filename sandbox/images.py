"""Seeing, as far as a sandbox needs to: the name of the colour that fills a PNG."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

NAMED = {
    "red": (220, 30, 30),
    "green": (30, 160, 60),
    "blue": (30, 60, 220),
    "yellow": (240, 220, 40),
    "orange": (240, 140, 30),
    "purple": (130, 40, 160),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
    "grey": (128, 128, 128),
}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
MAX_PIXEL_BYTES = 16 * 1024 * 1024


def colour(uri: str) -> str | None:
    """The name nearest to the first pixel of an 8-bit PNG data: URI; None for anything else."""
    try:
        data = base64.b64decode(uri.partition("base64,")[2], validate=True)
        pixel = _first_pixel(data)
    except (ValueError, binascii.Error, struct.error, zlib.error):
        return None
    if pixel is None:
        return None
    return min(NAMED, key=lambda name: sum((a - b) ** 2 for a, b in zip(NAMED[name], pixel, strict=True)))


def _first_pixel(data: bytes) -> tuple[int, int, int] | None:
    """The first pixel is stored whole: no filter of a PNG's first row refers to anything before it."""
    if not data.startswith(_SIGNATURE):
        return None
    at, packed, channels = len(_SIGNATURE), b"", 0
    palette = b""
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            depth, colour_type = chunk[8], chunk[9]
            if depth != 8:
                return None
            channels = 1 if colour_type == 3 else _CHANNELS.get(colour_type, 0)
        elif kind == b"PLTE":
            palette = chunk
        elif kind == b"IDAT":
            packed += chunk
        at += size + 12
    if not channels:
        return None
    row = zlib.decompressobj().decompress(packed, MAX_PIXEL_BYTES)[1 : 1 + channels]
    if palette:
        return palette[row[0] * 3], palette[row[0] * 3 + 1], palette[row[0] * 3 + 2]
    if channels <= 2:
        return row[0], row[0], row[0]
    return row[0], row[1], row[2]
