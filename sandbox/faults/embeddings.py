"""Faults and variations of embeddings."""

from __future__ import annotations

import base64
import struct
from typing import Any

from roadworthy.sandbox.families.embeddings import packed, vector
from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

SUBJECTS = ("acme/feature-extraction=feature-extraction@openai",)
ANSWERS, ERROR = {Kind.EMBEDDINGS}, {Kind.ERROR}
PATH = "/v1/embeddings"


def _is_batch(turn: Turn) -> bool:
    texts = turn.body["input"]
    return isinstance(texts, list) and len(texts) > 2 and isinstance(turn.payload["data"][0]["embedding"], list)


def _in_base64(turn: Turn) -> bool:
    return turn.body.get("encoding_format") == "base64"


def _first(turn: Turn) -> dict[str, Any]:
    entry: dict[str, Any] = turn.payload["data"][0]
    return entry


def _rescaled(turn: Turn, entry: dict[str, Any], factor: float) -> None:
    values = [factor * value for value in _values(entry)]
    entry["embedding"] = packed(values) if _in_base64(turn) else values


def _values(entry: dict[str, Any]) -> list[float]:
    made = entry["embedding"]
    if isinstance(made, str):
        data = base64.b64decode(made)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    return list(made)


@fault("embeddings.no_batches", caught_by={"embeddings.answered"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def no_batches(turn: Turn) -> None:
    """Arrays of texts are refused."""
    if isinstance(turn.body["input"], list) and len(turn.body["input"]) > 2:
        raise ApiError(400, "`input` must be one text", param="input")


@fault("embeddings.as_text", caught_by={"embeddings.json"}, at=Stage.HEAD, on=ANSWERS, subjects=SUBJECTS)
def as_text(turn: Turn) -> None:
    """Answers are labelled text/plain."""
    turn.headers["content-type"] = "text/plain"


@fault("embeddings.not_a_number", caught_by={"embeddings.json"}, at=Stage.FRAMES, on=ANSWERS, subjects=SUBJECTS)
def not_a_number(turn: Turn) -> None:
    """A batch has NaN among its numbers."""
    if _is_batch(turn):
        turn.frames = [Frame(turn.frames[0].data.replace(b'"embedding":[', b'"embedding":[NaN,', 1))]


@fault("embeddings.bare_list", caught_by={"embeddings.json"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def bare_list(turn: Turn) -> None:
    """A batch is answered by a bare array of vectors, as the hub's task route does."""
    if _is_batch(turn):
        turn.payload = [entry["embedding"] for entry in turn.payload["data"]]


@fault("embeddings.other_object", caught_by={"embeddings.shape"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def other_object(turn: Turn) -> None:
    """Entries call themselves vectors."""
    for entry in turn.payload["data"]:
        entry["object"] = "vector"


@fault("embeddings.no_model", caught_by={"embeddings.shape"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def no_model(turn: Turn) -> None:
    """Answers name no model."""
    del turn.payload["model"]


@fault("embeddings.base64_unasked", caught_by={"embeddings.floats"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def base64_unasked(turn: Turn) -> None:
    """Vectors of a batch are base64 though floats were asked for."""
    if _is_batch(turn):
        for entry in turn.payload["data"]:
            entry["embedding"] = packed(entry["embedding"])


@fault(
    "embeddings.same_number", caught_by={"embeddings.index.numbers"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def same_number(turn: Turn) -> None:
    """Every entry has the number 0."""
    for entry in turn.payload["data"]:
        entry["index"] = 0


@fault("embeddings.out_of_order", caught_by={"embeddings.index.order"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def out_of_order(turn: Turn) -> None:
    """The entries of a batch come in another order."""
    if _is_batch(turn):
        turn.payload["data"].reverse()


@fault("embeddings.one_short", caught_by={"embeddings.count"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def one_short(turn: Turn) -> None:
    """The last text of a batch gets no vector."""
    if _is_batch(turn):
        turn.payload["data"].pop()


@fault("embeddings.other_model", caught_by={"embeddings.model"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def other_model(turn: Turn) -> None:
    """Answers name the engine."""
    turn.payload["model"] = "engine-7"


@fault("embeddings.varying_size", caught_by={"embeddings.dimension"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def varying_size(turn: Turn) -> None:
    """The third vector of a batch is longer."""
    if _is_batch(turn):
        turn.payload["data"][2]["embedding"] = vector(turn.body["input"][2]) + [0.0] * 8


@fault("embeddings.nan_in_base64", caught_by={"embeddings.finite"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def nan_in_base64(turn: Turn) -> None:
    """A vector in base64 holds NaN."""
    if _in_base64(turn):
        _first(turn)["embedding"] = packed([float("nan"), *_values(_first(turn))[1:]])


@fault(
    "embeddings.infinite_in_base64", caught_by={"embeddings.finite"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def infinite_in_base64(turn: Turn) -> None:
    """A vector in base64 holds an infinity."""
    if _in_base64(turn):
        _first(turn)["embedding"] = packed([float("inf"), *_values(_first(turn))[1:]])


@fault("embeddings.zeros", caught_by={"embeddings.not_zero"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def zeros(turn: Turn) -> None:
    """The second vector of a batch is all zeros."""
    if _is_batch(turn):
        turn.payload["data"][1]["embedding"] = [0.0] * len(_values(_first(turn)))


@fault("embeddings.drifting", caught_by={"embeddings.equal_input"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def drifting(turn: Turn) -> None:
    """The same text gets another vector the next time."""
    if turn.body.get("encoding_format") == "float" and not _is_batch(turn):
        _first(turn)["embedding"] = vector(turn.request_id)


@fault(
    "embeddings.padded_batches",
    caught_by={"embeddings.batch_equals_single"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def padded_batches(turn: Turn) -> None:
    """In a batch, padding weighs on the vectors."""
    if _is_batch(turn):
        padding = vector("padding")
        for entry in turn.payload["data"]:
            mixed = [0.75 * value + 0.5 * noise for value, noise in zip(entry["embedding"], padding, strict=True)]
            length = sum(value * value for value in mixed) ** 0.5
            entry["embedding"] = [value / length for value in mixed]


@fault("embeddings.same_for_all", caught_by={"embeddings.nearer"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def same_for_all(turn: Turn) -> None:
    """Every text of a batch gets the vector of the first."""
    if _is_batch(turn):
        for entry in turn.payload["data"]:
            entry["embedding"] = _first(turn)["embedding"]


@fault("embeddings.unscaled_batches", caught_by={"embeddings.norm"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def unscaled_batches(turn: Turn) -> None:
    """Vectors of a batch are not scaled to the length 1, others are."""
    if _is_batch(turn):
        for entry in turn.payload["data"]:
            _rescaled(turn, entry, 7.5)


@fault(
    "embeddings.base64_refused",
    caught_by={"embeddings.base64.accepted"},
    at=Stage.REQUEST,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def base64_refused(turn: Turn) -> None:
    """base64 is refused."""
    if _in_base64(turn):
        raise ApiError(400, "`encoding_format` must be float", param="encoding_format")


@fault(
    "embeddings.base64_ignored",
    caught_by={"embeddings.base64.honoured"},
    at=Stage.REQUEST,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def base64_ignored(turn: Turn) -> None:
    """base64 is ignored."""
    turn.body.pop("encoding_format", None)


@fault(
    "embeddings.base64_urlsafe",
    caught_by={"embeddings.base64.decodes"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def base64_urlsafe(turn: Turn) -> None:
    """base64 has another alphabet."""
    if _in_base64(turn):
        _first(turn)["embedding"] = "__-" + _first(turn)["embedding"][3:]


@fault(
    "embeddings.base64_odd_bytes",
    caught_by={"embeddings.base64.decodes"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def base64_odd_bytes(turn: Turn) -> None:
    """base64 holds no whole number of floats."""
    if _in_base64(turn):
        _first(turn)["embedding"] = base64.b64encode(base64.b64decode(_first(turn)["embedding"]) + b"x").decode()


@fault(
    "embeddings.base64_other_text",
    caught_by={"embeddings.base64.same"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def base64_other_text(turn: Turn) -> None:
    """base64 holds the vector's numbers in reverse."""
    if _in_base64(turn):
        _first(turn)["embedding"] = packed(_values(_first(turn))[::-1])


@fault("embeddings.base64_doubles", caught_by={"embeddings.dimension"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def base64_doubles(turn: Turn) -> None:
    """base64 holds two values in place of one, as float64 would."""
    if _in_base64(turn):
        _first(turn)["embedding"] = packed([half for value in _values(_first(turn)) for half in (value, 0.0)])


@fault(
    "embeddings.dimensions_ignored",
    caught_by={"embeddings.dimensions"},
    at=Stage.REQUEST,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def dimensions_ignored(turn: Turn) -> None:
    """`dimensions` is ignored."""
    turn.body.pop("dimensions", None)


@fault("embeddings.no_usage", caught_by={"embeddings.usage.counts"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def no_usage(turn: Turn) -> None:
    """Answers have no usage."""
    if _in_base64(turn):
        del turn.payload["usage"]


@fault("embeddings.wrong_total", caught_by={"embeddings.usage.total"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def wrong_total(turn: Turn) -> None:
    """The total is one more than the prompt's tokens."""
    turn.payload["usage"] = {**turn.usage, "total_tokens": turn.usage["total_tokens"] + 1}


@fault("embeddings.zero_usage", caught_by={"embeddings.usage.spent"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def zero_usage(turn: Turn) -> None:
    """Single texts count as nothing."""
    if not _is_batch(turn):
        turn.payload["usage"] = {"prompt_tokens": 0, "total_tokens": 0}


@fault(
    "embeddings.batch_counts_one", caught_by={"embeddings.usage.batch"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def batch_counts_one(turn: Turn) -> None:
    """A batch counts as one token."""
    if _is_batch(turn):
        turn.payload["usage"] = {"prompt_tokens": 1, "total_tokens": 1}


@fault("embeddings.slow", caught_by={"embeddings.latency"}, at=Stage.FRAMES, on=ANSWERS, subjects=SUBJECTS)
def slow(turn: Turn) -> None:
    """Batches take their time; the test shrinks the limit."""
    if _is_batch(turn):
        turn.frames[0].delay_s = 0.6


@fault("embeddings.empty_without_vector", caught_by={"embeddings.empty"}, at=Stage.PAYLOAD, on=ERROR, subjects=SUBJECTS)
def empty_without_vector(turn: Turn) -> None:
    """An empty text is answered without a vector."""
    if turn.status == 400 and turn.raw.endswith(b'"input": ""}'):
        turn.status, turn.kind = 200, Kind.EMBEDDINGS
        turn.payload = {"object": "list", "data": [], "model": SUBJECTS[0].partition("=")[0], "usage": None}


@fault("embeddings.empty_crashes", caught_by={"errors.no_5xx"}, at=Stage.HEAD, on=ERROR, subjects=SUBJECTS)
def empty_crashes(turn: Turn) -> None:
    """An empty text makes the server fail."""
    if turn.status == 400 and turn.raw.endswith(b'"input": ""}'):
        turn.status = 500


@fault("embeddings.any_input", caught_by={"embeddings.wrong_input"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_input(turn: Turn) -> None:
    """Inputs of any type are made texts."""
    if turn.path == PATH and b'"input": {' in turn.raw:
        turn.skip.add("input")


@fault("embeddings.any_model", caught_by={"embeddings.unknown_model"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_model(turn: Turn) -> None:
    """Whatever model is asked for, the one at hand answers."""
    if turn.path == PATH:
        turn.skip.add("model")


@fault("embeddings.no_key_needed", caught_by={"embeddings.no_key"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def no_key_needed(turn: Turn) -> None:
    """The route asks for no key."""
    if turn.path == PATH:
        turn.skip.add("auth")


# Legal variations


@variation("embeddings_unscaled", at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def unscaled(turn: Turn) -> None:
    """Vectors are as long as the model makes them: nobody promised the length 1."""
    for entry in turn.payload["data"]:
        _rescaled(turn, entry, 12.5)


@variation("embeddings_half_precision", at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def half_precision(turn: Turn) -> None:
    """Numbers are rounded to half precision where they are written out, and whole ones are integers."""
    if not _in_base64(turn):
        for entry in turn.payload["data"]:
            (*values,) = struct.unpack(
                f"<{len(entry['embedding'])}e", struct.pack(f"<{len(entry['embedding'])}e", *entry["embedding"])
            )
            entry["embedding"] = [int(value) if value == int(value) else value for value in values]


@variation("embeddings_no_dimensions", at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def no_dimensions(turn: Turn) -> None:
    """`dimensions` is refused in words: not every model can be shortened."""
    if turn.body.get("dimensions") is not None:
        raise ApiError(422, "this model has a fixed number of dimensions", param="dimensions")


@variation("embeddings_empty_answered", at=Stage.ARRIVAL, subjects=SUBJECTS)
def empty_answered(turn: Turn) -> None:
    """An empty text gets a vector of its own."""
    if turn.path == PATH and turn.raw.endswith(b'"input": ""}'):
        turn.skip.add("input")
