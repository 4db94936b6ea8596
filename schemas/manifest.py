"""Manifests: how each task is asked, with examples, and which rules hold for its answers beyond their shape.

One folder per task under `schemas/tasks/`; adding a task is adding a folder.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

MEDIA_KEY = "$media"
"""In an example's JSON, an object of this one key stands for a file of `schemas/media/`."""
DATA_KEY = "$data"
"""Likewise, as a data: URI."""
MODEL = "{model}"
MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp4": "video/mp4",
    "txt": "text/plain",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One example request. `body` is JSON in which media stand as base64; `raw` names a file sent as it is."""

    name: str
    body: Any = None
    raw: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """How a task is called.

    `routes` gives for each family of APIs the path below the server's root, `accepts` the media types that the
    task route takes, `response` what comes back: "json", "image", "audio" or "video". `rules` are check ids
    (without "task."). `conflicts` says per lens why no one answer satisfies it and the hub, in words.
    """

    task: str
    title: str
    method: str
    routes: Mapping[str, str]
    accepts: tuple[str, ...]
    response: str
    latency_limit_s: float
    cases: Mapping[str, Case]
    rules: tuple[str, ...] = ()
    conflicts: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The task route below the server's root; a task without one has the model's own."""
        return self.routes.get("serverless", f"/models/{MODEL}")

    @property
    def output(self) -> str:
        """The name of the schema that the hub's clients need of an answer."""
        hub = f"tasks/{self.task}/hub_output.json"
        return hub if _exists(hub) else self.spec_output

    @property
    def spec_output(self) -> str:
        """The name of the schema that the published specification gives of an answer."""
        return f"tasks/{self.task}/output.json"


@cache
def names() -> tuple[str, ...]:
    """Every task, in order of its name."""
    folder = resources.files(__package__).joinpath("tasks")
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.joinpath("manifest.json").is_file()))


@cache
def manifest(task: str) -> Manifest | None:
    """The manifest of a task, or None where there is none of this name."""
    if task not in names():
        return None
    text = resources.files(__package__).joinpath("tasks", task, "manifest.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    cases = {name: Case(name, **case) for name, case in read.pop("cases", {}).items()}
    rules, accepts = (tuple(read.pop(key, ())) for key in ("rules", "accepts"))
    return Manifest(task=task, cases=cases, rules=rules, accepts=accepts, **read)


@cache
def served_by(family: str) -> tuple[str, ...]:
    """The tasks that have a route in this family of APIs."""
    return tuple(task for task in names() if (form := manifest(task)) and family in form.routes)


@cache
def media(name: str) -> bytes:
    """An example file. Raises `FileNotFoundError` where there is none of this name."""
    return resources.files(__package__).joinpath("media", name).read_bytes()


def media_type(name: str) -> str:
    """The media type of an example file, by its name."""
    return MEDIA_TYPES[name.rpartition(".")[2]]


def expand(value: Any, model: str) -> Any:
    """An example's JSON with its media and the model's name in their places."""
    if isinstance(value, dict):
        if set(value) == {MEDIA_KEY}:
            return _base64(value[MEDIA_KEY])
        if set(value) == {DATA_KEY}:
            return f"data:{media_type(value[DATA_KEY])};base64,{_base64(value[DATA_KEY])}"
        return {key: expand(item, model) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, model) for item in value]
    return model if value == MODEL else value


def _base64(name: str) -> str:
    return base64.b64encode(media(name)).decode()


def _exists(name: str) -> bool:
    return resources.files(__package__).joinpath(*name.split("/")).is_file()
