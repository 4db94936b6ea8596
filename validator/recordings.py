"""Recordings as they are kept: compressed, and of bounded size."""

from __future__ import annotations

import gzip
import json
import zlib

CUT = "left out of the recording, which was too large to keep whole"
_GZIP = 31  # zlib's number for a gzip header and the largest window
_SPARE_BYTES = 64  # what closes a gzip stream, with some to spare


def capped(recording: bytes, max_bytes: int) -> bytes:
    """The recording in at most `max_bytes`: of a larger one the first exchanges.

    The head names under `left_out` how many exchanges there were, and under `unsent` the probes
    that lost theirs, so that a replay skips what it cannot judge, and says why.
    """
    if len(recording) <= max_bytes:
        return recording
    # Only a line feed ends a line here: other characters that Python takes for ends may stand in what a server said.
    head, *exchanges = [line + "\n" for line in gzip.decompress(recording).decode().split("\n") if line]
    kept = len(exchanges)
    while True:
        packed = _packed(_head(head, exchanges, kept), exchanges[:kept], max_bytes)
        if isinstance(packed, bytes):
            return packed
        kept = packed


def _packed(head: str, exchanges: list[str], max_bytes: int) -> bytes | int:
    """The lines compressed, or how many exchanges there is room for."""
    compressor = zlib.compressobj(wbits=_GZIP)
    packed = compressor.compress(head.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
    for number, line in enumerate(exchanges):
        packed += compressor.compress(line.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        if len(packed) > max_bytes - _SPARE_BYTES:
            return number
    return packed + compressor.flush()


def _head(head: str, exchanges: list[str], kept: int) -> str:
    values = json.loads(head)
    probes_kept = {json.loads(line)["probe"] for line in exchanges[:kept]}
    lost = {json.loads(line)["probe"] for line in exchanges[kept:]} - probes_kept
    values["unsent"] |= dict.fromkeys(sorted(lost), CUT)
    values["left_out"] = len(exchanges) - kept
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"


def left_out(text: str) -> int:
    """How many exchanges a recording lost because it was too large."""
    return int(json.loads(text.partition("\n")[0]).get("left_out", 0))
