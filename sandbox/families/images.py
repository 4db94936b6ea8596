"""Generated images, over the OpenAI-compatible route, and the address where each can be fetched."""

from __future__ import annotations

import base64
import re
import time
from typing import Any

from roadworthy.sandbox import media
from roadworthy.sandbox.models import task_model
from roadworthy.sandbox.routes import Server, known, parse, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn
from roadworthy.sandbox.validation import is_int

TASK = "text-to-image"
DEFAULT_SIZE = "256x256"
SMALLEST, LARGEST = 64, 1024
MOST = 4
KEPT = 32
"""Images that can still be fetched; the oldest go first."""
FORMATS = ("url", "b64_json")


@route("POST", "/v1/images/generations")
def images(turn: Turn, server: Server) -> None:
    """As many images of the prompt as were asked for."""
    turn.body = parse(turn.raw)
    known(turn, turn.body.get("model"), [task_model(TASK)])
    for name, guard in GUARDS.items():
        if name not in turn.skip:
            guard(turn.body.get(name))
    turn.kind = Kind.IMAGES
    server.mutate(Stage.REQUEST, turn)
    width, height = map(int, (turn.body.get("size") or DEFAULT_SIZE).split("x"))
    prompt, seed = str(turn.body.get("prompt")), turn.body.get("seed")
    start = f"{prompt} {turn.request_id if seed is None else seed}"
    server.mutate(Stage.ANSWER, turn)
    made = [media.png(width, height, media.number(f"{start} {place}")) for place in range(turn.body.get("n") or 1)]
    as_bytes = turn.body.get("response_format") == "b64_json"
    turn.payload = {
        "created": int(time.time()),
        "data": [
            {"b64_json": base64.b64encode(data).decode()} if as_bytes else {"url": _stored(turn, server, place, data)}
            for place, data in enumerate(made)
        ],
    }


@route("GET", "/generated/{name}", auth=False)
def generated(turn: Turn, server: Server) -> None:
    """One image, for whoever has its address."""
    data = _memory(server).get(turn.parts["name"])
    if data is None:
        raise ApiError(404, f"there is no image {turn.parts['name']!r}", code="not_found")
    turn.kind, turn.payload = Kind.TASK, data
    turn.headers["content-type"] = "image/png"


def _stored(turn: Turn, server: Server, place: int, data: bytes) -> str:
    memory = _memory(server)
    while len(memory) >= KEPT:
        del memory[next(iter(memory))]
    name = f"{turn.request_id}-{place}.png"
    memory[name] = data
    return f"{turn.base_url}/generated/{name}"


def _memory(server: Server) -> dict[str, bytes]:
    memory: dict[str, bytes] = server.memory.setdefault("images", {})
    return memory


def _refuse(param: str, expected: str) -> ApiError:
    return ApiError(400, f"`{param}` must be {expected}", param=param, code="invalid_value")


def _prompt(prompt: Any) -> None:
    if not isinstance(prompt, str) or not prompt.strip():
        raise _refuse("prompt", "a text that is not empty")


def _size(size: Any) -> None:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size) if isinstance(size, str) else None
    if size is not None and not (found and all(SMALLEST <= int(part) <= LARGEST for part in found.groups())):
        raise _refuse("size", f"WIDTHxHEIGHT, each from {SMALLEST} to {LARGEST}")


def _count(n: Any) -> None:
    if n is not None and not (is_int(n) and 1 <= n <= MOST):
        raise _refuse("n", f"an integer from 1 to {MOST}")


def _format(format: Any) -> None:
    if format is not None and format not in FORMATS:
        raise _refuse("response_format", f"one of {', '.join(FORMATS)}")


def _seed(seed: Any) -> None:
    if seed is not None and not is_int(seed):
        raise _refuse("seed", "an integer")


GUARDS = {"prompt": _prompt, "size": _size, "n": _count, "response_format": _format, "seed": _seed}
"""The guards by the names of their fields, which `Turn.skip` may hold."""
