"""Checks of a router's catalogue: which providers serve a model, at what price, how fast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import discovery as probes
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, is_number, show

SOURCE = "hub API, the router's list of models"
MODALITIES = ("input_modalities", "output_modalities")
STATUSES = ("live", "error", "staging")


def _entry(exchange: Exchange, facts: Facts) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """The model's entry and its providers, or None where this is no router's catalogue."""
    for entry in objects(exchange.answer.get("data")):
        if entry.get("id") == facts.model and isinstance(entry.get("providers"), list):
            return entry, objects(entry["providers"])
    return None


NO_ROUTER = NotApplicable("its entry in /models names no providers: this is a provider's list, not a router's")


@check(
    "catalogue.providers",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.SPEC],
    source=SOURCE,
    remedy="Name at least one provider for each model, each once, with `provider` and `status` (live or error).",
    each=probes.models,
    on=Usable.JSON,
)
def providers(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A router's entry names the providers of the model, each once, with its status.

    Clients choose among them by name, and leave out those in error.
    """
    found = _entry(exchange, facts)
    if found is None:
        yield NO_ROUTER
        return
    names = [item.get("provider") for item in found[1]]
    if not names or not all(isinstance(name, str) and name for name in names):
        yield Finding("providers with their names", show(names), at="/data/*/providers")
    elif len(set(names)) < len(names):
        yield Finding("each provider once", show(names), at="/data/*/providers")
    for item in found[1]:
        if item.get("status") not in STATUSES:
            yield Finding("live or error", show(item.get("status")), at="/data/*/providers/*/status")
            return


@check(
    "catalogue.prices",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.SPEC],
    source=f"{SOURCE}; registration guide, Exposing pricing",
    remedy="Give pricing as numbers, {input, output}, in USD per million tokens.",
    each=probes.models,
    on=Usable.JSON,
)
def prices(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A provider's prices in the catalogue are two numbers that are not negative.

    The `:cheapest` policy sorts by them.
    """
    found = _entry(exchange, facts)
    if found is None:
        yield NO_ROUTER
        return
    for item in found[1]:
        if item.get("pricing") is None:
            continue
        pricing = as_object(item["pricing"])
        for key in ("input", "output"):
            if not is_number(pricing.get(key)) or pricing[key] < 0:
                at = f"/data/*/providers/*/pricing/{key}"
                yield Finding("a number, USD per million tokens", show(pricing.get(key)), at=at)
                return


@check(
    "catalogue.figures",
    level=Level.SHOULD,
    lenses=[Lens.HUB, Lens.SPEC],
    source=SOURCE,
    remedy="Send latency in milliseconds, throughput in tokens a second, context_length in tokens, or leave them out.",
    each=probes.models,
    on=Usable.JSON,
)
def figures(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A provider's figures in the catalogue are positive numbers, and its abilities are booleans.

    The `:fastest` policy sorts by them.
    """
    found = _entry(exchange, facts)
    if found is None:
        yield NO_ROUTER
        return
    for item in found[1]:
        for key in ("first_token_latency_ms", "throughput"):
            value = item.get(key)
            live = item.get("status") == "live"
            if live and value is not None and not (is_number(value) and value > 0):
                yield Finding("a positive number", show(value), at=f"/data/*/providers/*/{key}")
                return
        length = item.get("context_length")
        if length is not None and not (is_integer(length) and length > 0):
            yield Finding("a number of tokens", show(length), at="/data/*/providers/*/context_length")
            return
        for key in ("is_free", "supports_tools", "supports_structured_output", "is_model_author"):
            if not isinstance(item.get(key), bool | None):
                yield Finding("true or false", show(item.get(key)), at=f"/data/*/providers/*/{key}")
                return


@check(
    "catalogue.architecture",
    level=Level.SHOULD,
    lenses=[Lens.HUB, Lens.SPEC],
    source=SOURCE,
    remedy='Send {"input_modalities": ["text"], "output_modalities": ["text"]} as `architecture`.',
    each=probes.models,
    on=Usable.JSON,
)
def architecture(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A router's entry says what goes into the model and what comes out.

    Users filter the catalogue by it.
    """
    found = _entry(exchange, facts)
    if found is None:
        yield NO_ROUTER
        return
    told = as_object(found[0].get("architecture"))
    for key in MODALITIES:
        value = told.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            yield Finding("an array of words, such as text", show(value), at=f"/data/*/architecture/{key}")
            return
