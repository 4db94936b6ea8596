"""Faults of time. Each sleeps for a moment only: tests shrink the limits instead."""

from __future__ import annotations

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import Kind, Stage, Turn


def _asks_to_count(turn: Turn) -> bool:
    return "thirty" in str(turn.body["messages"])


@fault("latency.slow_first_token", caught_by={"latency.time_to_first_token"}, at=Stage.FRAMES, on={Kind.STREAM})
def slow_first_token(turn: Turn) -> None:
    """Every stream waits before its first event."""
    turn.frames[0].delay_s = 0.5


@fault(
    "latency.slow_first_token_behind_role", caught_by={"latency.time_to_first_token"}, at=Stage.FRAMES, on={Kind.STREAM}
)
def slow_first_token_behind_role(turn: Turn) -> None:
    """The role comes at once, and the first token late: a quick first byte hides a slow model."""
    turn.frames[1].delay_s = 0.5


@fault("latency.slow_now_and_then", caught_by={"latency.slowest_first_token"}, at=Stage.FRAMES, on={Kind.STREAM})
def slow_now_and_then(turn: Turn) -> None:
    """One request in five waits before its first event."""
    if "visitor number 3" in str(turn.body["messages"]):
        turn.frames[0].delay_s = 0.5


@fault("latency.slow_tokens", caught_by={"latency.total_time"}, at=Stage.FRAMES, on={Kind.STREAM})
def slow_tokens(turn: Turn) -> None:
    """Long answers crawl."""
    if _asks_to_count(turn):
        for frame in turn.frames[1:]:
            frame.delay_s = 0.015


@fault("latency.stalls", caught_by={"latency.stall"}, at=Stage.FRAMES, on={Kind.STREAM})
def stalls(turn: Turn) -> None:
    """Long answers stop in the middle for a while."""
    if _asks_to_count(turn):
        turn.frames[10].delay_s = 0.4


@fault("latency.slow_answer", caught_by={"latency.unstreamed_time"}, at=Stage.FRAMES, on={Kind.CHAT})
def slow_answer(turn: Turn) -> None:
    """Long answers that are not streamed take their time."""
    if _asks_to_count(turn):
        turn.frames[0].delay_s = 0.6
