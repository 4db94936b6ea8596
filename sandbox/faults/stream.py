"""Faults of streams."""

from __future__ import annotations

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import Kind, Stage, Turn


@fault("chat.stream.no_done", caught_by={"chat.stream.done"}, at=Stage.FRAMES, on={Kind.STREAM})
def no_done(turn: Turn) -> None:
    """The stream ends without `data: [DONE]`."""
    turn.frames = [frame for frame in turn.frames if b"[DONE]" not in frame.data]
