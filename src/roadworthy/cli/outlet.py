"""Standard output whose reader may leave before the end: `roadworthy billing reconcile ... | head -1`."""

from __future__ import annotations

import io
import sys


class _Left(io.FileIO):
    """A pipe that drops what is written after its reader has left, so that a command ends with its own exit code."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """How much was written, or dropped."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def outlive_reader() -> None:
    """Let this process's standard output be such a one. Not one that somebody else has put in its place."""
    old = sys.__stdout__
    if old is None or old is not sys.stdout or old.isatty():
        return
    old.flush()
    raw = _Left(old.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=old.encoding, errors=old.errors, line_buffering=old.line_buffering
    )
