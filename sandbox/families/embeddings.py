"""Embeddings, over the OpenAI-compatible route: texts that share words and letters get vectors that are near."""

from __future__ import annotations

import base64
import math
import re
import struct
from typing import Any

from roadworthy.sandbox import answers, media
from roadworthy.sandbox.models import task_model
from roadworthy.sandbox.routes import Server, known, parse, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn
from roadworthy.sandbox.validation import is_int

TASK = "feature-extraction"
DIMENSIONS = 64
MAX_INPUTS = 64
FORMATS = ("float", "base64")


@route("POST", "/v1/embeddings")
def embeddings(turn: Turn, server: Server) -> None:
    """One vector for each input."""
    turn.body = parse(turn.raw)
    known(turn, turn.body.get("model"), [task_model(TASK)])
    if "input" not in turn.skip:
        _check_input(turn.body.get("input"))
    format = turn.body.get("encoding_format")
    if format is not None and format not in FORMATS:
        raise ApiError(400, f"`encoding_format` must be one of {', '.join(FORMATS)}", param="encoding_format")
    dimensions = turn.body.get("dimensions")
    if dimensions is not None and not (is_int(dimensions) and 1 <= dimensions <= DIMENSIONS):
        raise ApiError(400, f"`dimensions` must be an integer from 1 to {DIMENSIONS}", param="dimensions")
    turn.kind = Kind.EMBEDDINGS
    server.mutate(Stage.REQUEST, turn)
    texts = _texts(turn.body.get("input"))
    read = sum(len(answers.tokens(text)) for text in texts)
    turn.usage = {"prompt_tokens": read, "total_tokens": read}
    server.mutate(Stage.ANSWER, turn)
    vectors = [vector(text, turn.body.get("dimensions") or DIMENSIONS) for text in texts]
    as_text = turn.body.get("encoding_format") == "base64"
    turn.payload = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": packed(made) if as_text else made}
            for place, made in enumerate(vectors)
        ],
        "model": turn.body["model"],
        "usage": turn.usage,
    }


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The unit vector of a text, of float32 values: a sum over its words and their beginnings."""
    total = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.casefold()) or [text]:
        for part, weight in ((word, 1.0), (word[:3], 0.7)):
            seed = media.number(part)
            for _ in range(4):
                seed, place = divmod(seed, DIMENSIONS)
                total[place] += weight if seed % 2 else -weight
    kept = total[:dimensions]
    norm = math.sqrt(sum(value * value for value in kept))
    if not norm:
        kept, norm = [1.0] * dimensions, math.sqrt(dimensions)
    return list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(value / norm for value in kept))))


def packed(values: list[float]) -> str:
    """A vector as base64 of its float32 values, little-endian."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _check_input(given: Any) -> None:
    if isinstance(given, str) and given:
        return
    many = isinstance(given, list) and 0 < len(given) <= MAX_INPUTS
    if not many or not all(isinstance(text, str) and text for text in given):
        raise ApiError(400, f"`input` must be a text that is not empty, or up to {MAX_INPUTS} of them", param="input")


def _texts(given: Any) -> list[str]:
    return [str(text) for text in given] if isinstance(given, list) else [str(given)]
