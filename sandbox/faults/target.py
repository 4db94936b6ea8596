"""Faults of the whole target."""

from __future__ import annotations

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn


@fault("target.chat_missing", caught_by={"target.answers"}, at=Stage.REQUEST, on={Kind.CHAT, Kind.STREAM})
def chat_missing(turn: Turn) -> None:
    """There is no chat completions route."""
    raise ApiError(404, f"there is nothing at {turn.path}", code="not_found")
