"""Faults and legal variations of jobs."""

from __future__ import annotations

import base64

from roadworthy.sandbox import media
from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import Kind, Stage, Turn

FILM = ("acme/text-to-video=text-to-video@jobs",)
BOTH = (*FILM, "acme/text-to-image=text-to-image@jobs")
JOB = {Kind.JOB}


def _polled(turn: Turn) -> bool:
    return turn.method == "GET" and turn.path.startswith("/v2/videos/") and isinstance(turn.payload, dict)


def _done(turn: Turn) -> bool:
    return _polled(turn) and turn.payload["status"] == "completed"


@fault("jobs.no_id", caught_by={"jobs.id"}, at=Stage.PAYLOAD, on=JOB, subjects=FILM)
def no_id(turn: Turn) -> None:
    """The id has another name."""
    if turn.method == "POST":
        turn.payload["job"] = turn.payload.pop("id")


@fault("jobs.one_id", caught_by={"jobs.ids_differ"}, at=Stage.PAYLOAD, on=JOB, subjects=BOTH)
def one_id(turn: Turn) -> None:
    """Equal jobs have one id."""
    if turn.method == "POST":
        first = turn.memory.setdefault("first", turn.payload["id"])
        turn.payload["id"] = first


@fault("jobs.strange_status", caught_by={"jobs.statuses"}, at=Stage.PAYLOAD, on=JOB, subjects=FILM)
def strange_status(turn: Turn) -> None:
    """A job is said to be warming up."""
    if _polled(turn) and not _done(turn):
        turn.payload["status"] = "warming_up"


@fault("jobs.backwards", caught_by={"jobs.forward"}, at=Stage.PAYLOAD, on=JOB, subjects=FILM)
def backwards(turn: Turn) -> None:
    """A job that ran is queued again."""
    if _polled(turn) and not _done(turn):
        seen = turn.memory.setdefault("polls", 0)
        turn.memory["polls"] = seen + 1
        turn.payload["status"] = "in_progress" if seen == 0 else "queued"


@fault("jobs.fails", caught_by={"jobs.ends"}, at=Stage.PAYLOAD, on=JOB, subjects=BOTH)
def fails(turn: Turn) -> None:
    """Every job fails."""
    if _done(turn):
        turn.payload = {"id": turn.payload["id"], "status": "failed", "error": {"message": "out of memory"}}


@fault("jobs.result_missing", caught_by={"jobs.result"}, at=Stage.PAYLOAD, on=JOB, subjects=BOTH)
def result_missing(turn: Turn) -> None:
    """A finished job names no result."""
    if _done(turn):
        turn.payload["outputs"] = {}


@fault("jobs.result_relative", caught_by={"jobs.result"}, at=Stage.PAYLOAD, on=JOB, subjects=FILM)
def result_relative(turn: Turn) -> None:
    """A result is named by a path."""
    if _done(turn):
        turn.payload["outputs"]["video_url"] = "./files/result.mp4"


@fault("jobs.result_gone", caught_by={"jobs.medium"}, at=Stage.HEAD, on=JOB, subjects=FILM)
def result_gone(turn: Turn) -> None:
    """A result is gone when it is fetched."""
    if turn.path.startswith("/v2/files/"):
        turn.status = 410


@fault("jobs.result_cut", caught_by={"jobs.medium"}, at=Stage.PAYLOAD, on=JOB, subjects=BOTH)
def result_cut(turn: Turn) -> None:
    """Of a result only the first bytes are there."""
    if isinstance(turn.payload, bytes):
        turn.payload = turn.payload[:100]


@fault("jobs.result_labelled", caught_by={"jobs.medium"}, at=Stage.HEAD, on=JOB, subjects=BOTH)
def result_labelled(turn: Turn) -> None:
    """A result is sent as text."""
    if turn.path.startswith("/v2/files/"):
        turn.headers["content-type"] = "text/plain"


@fault("jobs.slow_polls", caught_by={"jobs.latency"}, at=Stage.FRAMES, on=JOB, subjects=FILM)
def slow_polls(turn: Turn) -> None:
    """Polls are held until there is something to tell."""
    turn.frames[0].delay_s = 0.4


@fault("jobs.unknown_running", caught_by={"jobs.refuses.unknown"}, at=Stage.ARRIVAL, subjects=FILM)
def unknown_running(turn: Turn) -> None:
    """A job that does not exist is said to be under way."""
    if turn.path.endswith("no-such-job"):
        turn.skip.add("job")


@fault("jobs.empty_taken", caught_by={"jobs.refuses.no_body"}, at=Stage.ARRIVAL, subjects=FILM)
def empty_taken(turn: Turn) -> None:
    """A job without any description is queued."""
    turn.skip |= {"prompt", "model"}


@fault("jobs.result_counted", caught_by={"jobs.result_private"}, at=Stage.PAYLOAD, on=JOB, subjects=FILM)
def result_counted(turn: Turn) -> None:
    """Results are numbered."""
    if _done(turn):
        turn.memory["jobs"]["video-000000000017"] = turn.memory["jobs"][turn.payload["id"]]
        turn.payload["outputs"]["video_url"] = f"{turn.base_url}/v2/files/video-000000000017"


@fault("jobs.poll_crashes", caught_by={"errors.no_5xx"}, at=Stage.ARRIVAL, subjects=FILM)
def poll_crashes(turn: Turn) -> None:
    """Asking after a job that does not exist makes the server fail."""
    turn.crash = turn.path.endswith("no-such-job")


@variation("jobs.done_at_once", at=Stage.PAYLOAD, on=JOB, subjects=BOTH)
def done_at_once(turn: Turn) -> None:
    """A job may be done when it is first asked after."""
    if _polled(turn):
        id = turn.payload["id"]
        turn.payload = {
            "id": id,
            "status": "completed",
            "outputs": {"video_url": f"{turn.base_url}/v2/files/{id}"},
        }


@variation("jobs.result_inline", at=Stage.PAYLOAD, on=JOB, subjects=FILM)
def result_inline(turn: Turn) -> None:
    """A result may be sent as a data: URI."""
    if _done(turn):
        film = base64.b64encode(media.mp4(1)).decode()
        turn.payload["outputs"]["video_url"] = f"data:video/mp4;base64,{film}"


@variation("jobs.accepted", at=Stage.HEAD, on=JOB, subjects=FILM)
def accepted(turn: Turn) -> None:
    """A submission may be answered 202."""
    if turn.method == "POST":
        turn.status = 202


@variation("jobs.result_octets", at=Stage.HEAD, on=JOB, subjects=BOTH)
def result_octets(turn: Turn) -> None:
    """Stores of files often send bytes of no kind."""
    if turn.path.startswith("/v2/files/"):
        turn.headers["content-type"] = "binary/octet-stream"
