"""Jobs: films and pictures that are submitted, asked after, and fetched."""

from __future__ import annotations

from typing import Any

from roadworthy.sandbox import media, tasks
from roadworthy.sandbox.models import task_of
from roadworthy.sandbox.routes import Server, parse, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn
from roadworthy.schemas import manifest

STEPS = ("queued", "in_progress", "in_progress", "completed")
"""A job's status at each poll, one after the other."""


def _jobs(server: Server) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = server.memory.setdefault("jobs", {})
    return found


@route("POST", "/v2/videos")
def submit(turn: Turn, server: Server) -> None:
    """Take a job."""
    turn.body = parse(turn.raw)
    task = task_of(str(turn.body.get("model")))
    form = manifest.manifest(task) if task else None
    if (form is None or form.response not in ("video", "image")) and "model" not in turn.skip:
        raise ApiError(404, f"the model {str(turn.body.get('model'))[:200]!r} makes no media", param="model")
    if not isinstance(turn.body.get("prompt"), str) and "prompt" not in turn.skip:
        raise ApiError(400, "`prompt` must be a text", param="prompt")
    turn.kind = Kind.JOB
    id = f"job-{turn.request_id}"
    server.mutate(Stage.REQUEST, turn)
    _jobs(server)[id] = {"task": task, "prompt": str(turn.body.get("prompt")), "polls": 0}
    turn.payload = {"id": id, "status": STEPS[0]}


@route("GET", "/v2/videos/{id}")
def poll(turn: Turn, server: Server) -> None:
    """Tell how a job is doing."""
    job = _jobs(server).get(turn.parts["id"])
    if job is None:
        if "job" not in turn.skip:
            raise ApiError(404, f"there is no job {turn.parts['id']!r}", code="not_found")
        job = {"task": "text-to-video", "prompt": "", "polls": 0}
    turn.kind = Kind.JOB
    job["polls"] += 1
    status = STEPS[min(job["polls"], len(STEPS) - 1)]
    turn.payload = {"id": turn.parts["id"], "status": status}
    if status == STEPS[-1]:
        turn.payload["outputs"] = {"video_url": f"{turn.base_url}/v2/files/{turn.parts['id']}"}


@route("GET", "/v2/files/{id}", auth=False)
def fetch(turn: Turn, server: Server) -> None:
    """A finished job's result."""
    job = _jobs(server).get(turn.parts["id"])
    if job is None:
        raise ApiError(404, "there is no such file", code="not_found")
    turn.kind = Kind.JOB
    form = manifest.manifest(job["task"])
    number = media.number(job["prompt"])
    film = form is not None and form.response == "video"
    turn.payload = media.mp4(number) if film else media.png(tasks.DEFAULT_SIZE, tasks.DEFAULT_SIZE, number)
    turn.headers["content-type"] = "video/mp4" if film else "image/png"
