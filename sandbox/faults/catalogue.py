"""Faults and legal variations of a router's catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import Kind, Stage, Turn

MODELS = {Kind.MODELS}


def _providers(turn: Turn) -> Iterator[dict[str, Any]]:
    for entry in turn.payload["data"]:
        yield from entry.get("providers", ())


@fault("catalogue.provider_nameless", caught_by={"catalogue.providers"}, at=Stage.PAYLOAD, on=MODELS)
def provider_nameless(turn: Turn) -> None:
    """A provider has no name."""
    for provider in _providers(turn):
        del provider["provider"]


@fault("catalogue.provider_twice", caught_by={"catalogue.providers"}, at=Stage.PAYLOAD, on=MODELS)
def provider_twice(turn: Turn) -> None:
    """A provider is named twice."""
    for entry in turn.payload["data"]:
        entry["providers"] = entry["providers"] * 2


@fault("catalogue.status_ok", caught_by={"catalogue.providers"}, at=Stage.PAYLOAD, on=MODELS)
def status_ok(turn: Turn) -> None:
    """A provider's status is a word of its own."""
    for provider in _providers(turn):
        provider["status"] = "ok"


@fault("catalogue.prices_in_words", caught_by={"catalogue.prices"}, at=Stage.PAYLOAD, on=MODELS)
def prices_in_words(turn: Turn) -> None:
    """Prices in the catalogue are texts."""
    for provider in _providers(turn):
        provider["pricing"] = {"input": "$0.20", "output": "$0.60"}


@fault("catalogue.prices_otherwise", caught_by={"catalogue.prices"}, at=Stage.PAYLOAD, on=MODELS)
def prices_otherwise(turn: Turn) -> None:
    """Prices in the catalogue are named prompt and completion."""
    for provider in _providers(turn):
        provider["pricing"] = {"prompt": 0.2, "completion": 0.6}


@fault("catalogue.latency_zero", caught_by={"catalogue.figures"}, at=Stage.PAYLOAD, on=MODELS)
def latency_zero(turn: Turn) -> None:
    """A latency of nothing is told where none was measured."""
    for provider in _providers(turn):
        provider["first_token_latency_ms"] = 0


@fault("catalogue.tools_in_words", caught_by={"catalogue.figures"}, at=Stage.PAYLOAD, on=MODELS)
def tools_in_words(turn: Turn) -> None:
    """An ability is told by a word."""
    for provider in _providers(turn):
        provider["supports_tools"] = "yes"


@fault("catalogue.modality_text", caught_by={"catalogue.architecture"}, at=Stage.PAYLOAD, on=MODELS)
def modality_text(turn: Turn) -> None:
    """What comes out is told by a word instead of a list."""
    for entry in turn.payload["data"]:
        if "architecture" in entry:
            entry["architecture"]["output_modalities"] = "text"


@variation("catalogue.unmeasured", at=Stage.PAYLOAD, on=MODELS)
def unmeasured(turn: Turn) -> None:
    """A provider that was not measured yet has no figures."""
    for provider in _providers(turn):
        for key in ("first_token_latency_ms", "throughput", "context_length"):
            provider.pop(key, None)


@variation("catalogue.none", at=Stage.PAYLOAD, on=MODELS)
def none(turn: Turn) -> None:
    """A provider's own list names no providers."""
    for entry in turn.payload["data"]:
        entry.pop("providers", None)
