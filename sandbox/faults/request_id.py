"""Faults of the request id."""

from __future__ import annotations

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import Kind, Stage, Turn


def _drop(turn: Turn) -> None:
    for name in [name for name, value in turn.headers.items() if value == turn.request_id]:
        del turn.headers[name]


def _set(turn: Turn, value: str) -> None:
    for name in [name for name, held in turn.headers.items() if held == turn.request_id]:
        turn.headers[name] = value


@fault("request_id.missing", caught_by={"request_id.present"}, at=Stage.HEAD, on={Kind.CHAT})
def missing(turn: Turn) -> None:
    """Unstreamed answers have no request id."""
    _drop(turn)


@fault("request_id.missing_on_streams", caught_by={"request_id.on_streams"}, at=Stage.HEAD, on={Kind.STREAM})
def missing_on_streams(turn: Turn) -> None:
    """Streamed answers have no request id."""
    _drop(turn)


@fault("request_id.missing_on_errors", caught_by={"request_id.on_errors"}, at=Stage.HEAD, on={Kind.ERROR})
def missing_on_errors(turn: Turn) -> None:
    """Errors have no request id."""
    _drop(turn)


@fault("request_id.constant", caught_by={"request_id.unique"}, at=Stage.HEAD, on={Kind.CHAT, Kind.STREAM})
def constant(turn: Turn) -> None:
    """Every request has the id of the replica."""
    _set(turn, "6f1c1b1e-8d0a-4a67-9a51-1f6f3f0f9b11")


@fault("request_id.not_uuid", caught_by={"request_id.uuid"}, at=Stage.HEAD)
def not_uuid(turn: Turn) -> None:
    """Ids are counted up in a form of their own."""
    _set(turn, f"req-{turn.request_id[:13]}")
