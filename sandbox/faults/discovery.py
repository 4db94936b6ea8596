"""Faults of what the provider says of its models."""

from __future__ import annotations

from typing import Any

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn

LIST = {Kind.MODELS}


def _entries(turn: Turn) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = turn.payload["data"] if turn.kind is Kind.MODELS else [turn.payload]
    return entries


@fault("discovery.models_missing", caught_by={"discovery.models.served"}, at=Stage.ARRIVAL)
def models_missing(turn: Turn) -> None:
    """There is no list of models."""
    if turn.path == "/v1/models":
        turn.path = "/v1/nothing"


@fault("discovery.models_html", caught_by={"discovery.models.served"}, at=Stage.FRAMES, on=LIST)
def models_html(turn: Turn) -> None:
    """The list of models is a web page."""
    turn.frames[0].data = b"<!doctype html><title>Models</title>"


@fault("discovery.models_bare_array", caught_by={"discovery.models.shape"}, at=Stage.PAYLOAD, on=LIST)
def models_bare_array(turn: Turn) -> None:
    """The list of models is a bare array."""
    turn.payload = turn.payload["data"]


@fault("discovery.models_named", caught_by={"discovery.models.shape"}, at=Stage.PAYLOAD, on=LIST)
def models_named(turn: Turn) -> None:
    """The entries stand under `models`."""
    turn.payload["models"] = turn.payload.pop("data")


@fault("discovery.model_twice", caught_by={"discovery.models.unique"}, at=Stage.PAYLOAD, on=LIST)
def model_twice(turn: Turn) -> None:
    """A model is listed twice."""
    turn.payload["data"].append(turn.payload["data"][0])


@fault(
    "discovery.model_unlisted",
    caught_by={"discovery.models.listed", "discovery.advertised"},
    at=Stage.PAYLOAD,
    on=LIST,
)
def model_unlisted(turn: Turn) -> None:
    """Models are listed under other names than they answer to."""
    for entry in turn.payload["data"]:
        entry["id"] = entry["id"].rpartition("/")[2] + "-latest"


@fault("discovery.created_ms", caught_by={"discovery.models.created"}, at=Stage.PAYLOAD, on=LIST)
def created_ms(turn: Turn) -> None:
    """`created` is in milliseconds."""
    for entry in _entries(turn):
        entry["created"] *= 1000


@fault("discovery.created_text", caught_by={"discovery.models.created"}, at=Stage.PAYLOAD, on=LIST)
def created_text(turn: Turn) -> None:
    """`created` is a date in words."""
    for entry in _entries(turn):
        entry["created"] = "2025-06-15T12:00:00Z"


def _price(turn: Turn, pricing: Any) -> None:
    for entry in _entries(turn):
        entry["pricing"] = pricing


@fault(
    "discovery.pricing_missing",
    caught_by={"discovery.models.pricing"},
    at=Stage.PAYLOAD,
    on={Kind.MODELS, Kind.MODEL},
)
def pricing_missing(turn: Turn) -> None:
    """There are no prices."""
    _price(turn, None)


@fault(
    "discovery.pricing_prompt_completion",
    caught_by={"discovery.models.pricing"},
    at=Stage.PAYLOAD,
    on={Kind.MODELS, Kind.MODEL},
)
def pricing_prompt_completion(turn: Turn) -> None:
    """Prices stand under `prompt` and `completion`."""
    _price(turn, {"prompt": 0.2, "completion": 0.6})


@fault("discovery.pricing_text", caught_by={"discovery.models.pricing"}, at=Stage.PAYLOAD, on={Kind.MODELS, Kind.MODEL})
def pricing_text(turn: Turn) -> None:
    """Prices are texts."""
    _price(turn, {"input": "0.2", "output": "0.6"})


@fault(
    "discovery.pricing_per_token",
    caught_by={"discovery.models.pricing"},
    at=Stage.PAYLOAD,
    on={Kind.MODELS, Kind.MODEL},
)
def pricing_per_token(turn: Turn) -> None:
    """Prices are for one token."""
    _price(turn, {"input": 2e-7, "output": 6e-7})


@fault(
    "discovery.context_length_text",
    caught_by={"discovery.models.context_length"},
    at=Stage.PAYLOAD,
    on={Kind.MODELS, Kind.MODEL},
)
def context_length_text(turn: Turn) -> None:
    """The context length is a text such as "32k"."""
    for entry in _entries(turn):
        entry["context_length"] = "32k"


@fault("discovery.context_length_missing", caught_by={"discovery.models.context_length"}, at=Stage.PAYLOAD, on=LIST)
def context_length_missing(turn: Turn) -> None:
    """The context length is not told."""
    for entry in _entries(turn):
        del entry["context_length"]


@fault("discovery.retrieve_missing", caught_by={"discovery.model.served"}, at=Stage.ARRIVAL)
def retrieve_missing(turn: Turn) -> None:
    """Ids with a slash cannot be looked up."""
    if turn.path.startswith("/v1/models/"):
        turn.path = "/v1/nothing"


@fault("discovery.prices_differ", caught_by={"discovery.model.same"}, at=Stage.PAYLOAD, on={Kind.MODEL})
def prices_differ(turn: Turn) -> None:
    """The entry by itself has last year's price."""
    _price(turn, {"input": 0.1, "output": 0.3})


@fault("discovery.dead_model", caught_by={"discovery.advertised"}, at=Stage.REQUEST, on={Kind.CHAT, Kind.STREAM})
def dead_model(turn: Turn) -> None:
    """Another model is on the list, and does not answer."""
    if turn.body["model"] == "acme/chat-2":
        raise ApiError(404, "the model is not deployed", code="model_not_found", param="model")
