"""Faults that only unusual requests bring out."""

from __future__ import annotations

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import Frame, Kind, Stage, Turn

CASE = "roadworthy-case"


def _case(turn: Turn) -> str:
    """What is odd about a generated request, which says so itself."""
    return turn.request_headers.get(CASE, "")


@fault("fuzz.nesting_crashes", caught_by={"fuzz.no_5xx"}, at=Stage.ARRIVAL)
def nesting_crashes(turn: Turn) -> None:
    """Deep nesting overflows the parser's stack."""
    turn.crash = b"[" * 500 in turn.raw


@fault("fuzz.surrogate_crashes", caught_by={"fuzz.no_5xx"}, at=Stage.ARRIVAL)
def surrogate_crashes(turn: Turn) -> None:
    """A lone surrogate cannot be encoded again."""
    turn.crash = b"\\ud800" in turn.raw


@fault("fuzz.null_crashes", caught_by={"fuzz.no_5xx"}, at=Stage.ARRIVAL)
def null_crashes(turn: Turn) -> None:
    """Null for an optional field is not expected."""
    turn.crash = b'"seed": null' in turn.raw


@fault("fuzz.hangs_up", caught_by={"fuzz.no_5xx"}, at=Stage.HEAD)
def hangs_up(turn: Turn) -> None:
    """A huge integer kills the worker."""
    if b"9" * 100 in turn.raw:
        turn.frames = [Frame(b"{"), Frame(b"}")]
        turn.abort_after_frame = 1


@fault("fuzz.penalty_changes_shape", caught_by={"fuzz.valid.shape"}, at=Stage.PAYLOAD, on={Kind.CHAT})
def penalty_changes_shape(turn: Turn) -> None:
    """With a penalty the answer lacks its id."""
    if "presence_penalty" in turn.body or "frequency_penalty" in turn.body:
        del turn.payload["id"]


@fault("fuzz.top_p_ignored", caught_by={"fuzz.invalid.refused"}, at=Stage.ARRIVAL)
def top_p_ignored(turn: Turn) -> None:
    """A share of more than one is taken for one."""
    turn.raw = turn.raw.replace(b'"top_p": 17', b'"top_p": 1')


_poisoned: set[str] = set()


@fault("fuzz.poisoned", caught_by={"fuzz.alive"}, at=Stage.ARRIVAL)
def poisoned(turn: Turn) -> None:
    """A NUL character breaks the worker for the next plain question."""
    who = turn.request_headers.get("host", "")
    if "NUL" in _case(turn):
        _poisoned.add(who)
    elif who in _poisoned and not _case(turn) and b"Say hello." in turn.raw and turn.raw.count(b'"') == 16:
        turn.crash = True
