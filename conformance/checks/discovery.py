"""Checks of what a provider says of its models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import discovery as probes
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, is_number, show
from roadworthy.schemas import problem

API = "OpenAI API reference, models"
GUIDE = "registration guide, Exposing pricing through OpenAI /models routes"
BOTH = (Lens.HUB, Lens.OPENAI)
PER_TOKEN = 1e-4
"""Below this a price per million tokens is a price per token, or a gift."""


def _entry(exchange: Exchange, facts: Facts) -> dict[str, Any] | None:
    entries = objects(exchange.answer.get("data"))
    return next((entry for entry in entries if entry.get("id") == facts.model), None)


@check(
    "discovery.models.served",
    level=Level.MUST,
    lenses=(Lens.HUB, Lens.OPENAI, Lens.SPEC),
    source=f"{API}; {GUIDE}",
    remedy="Serve GET {base URL}/models as JSON.",
    each=probes.models,
    on=Usable.RESPONSE,
)
def models(exchange: Exchange) -> Iterator[Outcome]:
    """GET /models is answered with 200 and JSON.

    The hub reads prices and context lengths there, and SDKs list models with it.
    """
    if exchange.status in (401, 403):
        yield Undecided(f"could not tell: HTTP {exchange.status}, the key was refused: {show(exchange.reply.body)}")
    elif exchange.status != 200:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")
    elif not isinstance(exchange.json, dict | list):
        yield Finding("JSON", f"{exchange.media_type}: {show(exchange.reply.body)}", at="body")


@check(
    "discovery.models.shape",
    level=Level.MUST,
    lenses=(Lens.HUB, Lens.OPENAI, Lens.SPEC),
    source=f"{API}; {GUIDE}",
    remedy='Return {"object": "list", "data": [...]}, each entry with a string id.',
    each=probes.models,
    on=Usable.SUCCESS,
)
def models_shape(exchange: Exchange) -> Iterator[Finding]:
    """The list of models is an object whose `data` is an array of entries with ids.

    SDKs read `data`; a bare array raises.
    """
    if not isinstance(exchange.json, dict | list):
        return
    found = problem("openai/model_list.json", exchange.json)
    if found is not None:
        yield Finding(found.expected, found.got, at=found.pointer)


@check(
    "discovery.models.unique",
    level=Level.SHOULD,
    lenses=BOTH,
    source=API,
    remedy="List each model once; list variants under names of their own.",
    each=probes.models,
    on=Usable.JSON,
)
def models_unique(exchange: Exchange) -> Iterator[Finding]:
    """No model is listed twice.

    Of two entries with two prices, the reader takes either.
    """
    names = Counter(entry["id"] for entry in objects(exchange.answer.get("data")) if isinstance(entry.get("id"), str))
    for name, count in names.items():
        if count > 1:
            yield Finding("one entry", f"{count} entries for {show(name)}", at="/data")
            return


@check(
    "discovery.models.listed",
    level=Level.MUST,
    lenses=BOTH,
    source=GUIDE,
    remedy="List the model under the very name that requests use.",
    each=probes.models,
    on=Usable.JSON,
)
def models_listed(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """The model under test is listed by the name it is asked for.

    The hub finds its price by this name.
    """
    names = [entry.get("id") for entry in objects(exchange.answer.get("data"))]
    if isinstance(exchange.answer.get("data"), list) and facts.model not in names:
        yield Finding(facts.model, show(names[:10]), at="/data")


@check(
    "discovery.models.created",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}; {GUIDE}",
    remedy="Set `created` to whole unix seconds.",
    each=probes.models,
    on=Usable.JSON,
)
def models_created(exchange: Exchange) -> Iterator[Finding]:
    """`created`, where it is given, is an integer of unix seconds.

    Typed clients raise on anything else; milliseconds land in the year 57000.
    """
    for place, entry in enumerate(objects(exchange.answer.get("data"))):
        value = entry.get("created")
        if value is not None and not (is_integer(value) and 0 <= value < 1 << 33):
            yield Finding("an integer of seconds", show(value), at=f"/data/{place}/created")
            return


@check(
    "discovery.models.pricing",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy='Add "pricing": {"input": 0.2, "output": 2} to the entry: numbers, in US dollars per million tokens.',
    each=probes.models,
    on=Usable.JSON,
)
def models_pricing(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """The model's entry tells `pricing.input` and `pricing.output`, numbers in USD per million tokens.

    The hub compares and routes by them, and refuses providers whose prices it cannot read.
    """
    entry = _entry(exchange, facts)
    if entry is None:
        yield NotApplicable("the model is not listed; see discovery.models.listed")
        return
    pricing = entry.get("pricing")
    if not isinstance(pricing, dict):
        yield Finding("an object with input and output", show(entry.get("pricing", "absent")), at="/pricing")
        return
    for key, other in (("input", "prompt"), ("output", "completion")):
        value = pricing.get(key)
        if value is None and other in pricing:
            yield Finding(f"the key {key!r}", f"the key {other!r}, a common mistake", at=f"/pricing/{key}")
        elif not is_number(value) or value < 0:
            yield Finding("a number, not negative", show(pricing.get(key, "absent")), at=f"/pricing/{key}")
        elif 0 < value < PER_TOKEN:
            got = f"{show(value)}, which looks like a price per token"
            yield Finding("USD per million tokens", got, at=f"/pricing/{key}")


@check(
    "discovery.models.context_length",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy='Add "context_length" to the entry: an integer of tokens.',
    each=probes.models,
    on=Usable.JSON,
)
def models_context_length(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """The model's entry tells its `context_length`, a positive integer of tokens.

    The hub's comparison table shows it, and callers cut their prompts by it.
    """
    entry = _entry(exchange, facts)
    if entry is None:
        yield NotApplicable("the model is not listed; see discovery.models.listed")
    elif not is_integer(entry.get("context_length")) or entry["context_length"] < 1:
        got = show(entry.get("context_length", "absent"))
        yield Finding("a positive integer", got, at="/context_length")


@check(
    "discovery.model.served",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, retrieve",
    remedy="Serve GET {base URL}/models/{id}, also for ids with a slash.",
    each=probes.model,
    on=Usable.RESPONSE,
)
def model(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """GET /models/{id} answers with the model's entry, also where the id has a slash.

    SDKs look a model up before they use it.
    """
    if exchange.status != 200:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")
    elif exchange.answer.get("id") != facts.model:
        yield Finding(facts.model, show(exchange.answer.get("id", exchange.reply.body)), at="/id")


@check(
    "discovery.model.same",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=GUIDE,
    remedy="Build both answers from the same entry.",
    joint=[probes.models, probes.model],
    on=Usable.JSON,
)
def model_same(listed: Exchange, single: Exchange, facts: Facts) -> Iterator[Outcome]:
    """Price and context length are the same in the list and in the model's own entry.

    Otherwise two readers charge two prices.
    """
    entry = _entry(listed, facts)
    if entry is None or single.answer.get("id") != facts.model:
        yield NotApplicable("there are no two entries to compare")
        return
    for key in ("pricing", "context_length"):
        if key in entry and key in single.answer and entry[key] != single.answer[key]:
            got = show(single.answer[key])
            yield Finding(f"{show(entry[key])}, as in the list", got, at=f"/{key}", exchange_id=single.id)


@check(
    "discovery.advertised",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source="registration guide, Automatic validation",
    remedy="Take models off the list that do not answer.",
    each=probes.advertised,
    on=Usable.RESPONSE,
)
def advertised(exchange: Exchange) -> Iterator[Finding]:
    """Every advertised model answers.

    A name on the list is a promise; callers find out one by one.
    """
    if exchange.status != 200:
        name = as_object(exchange.sent).get("model")
        yield Finding("HTTP 200", f"{show(name)}: HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")
