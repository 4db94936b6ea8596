"""Reading what a cost endpoint was asked and what it told (registration guide, section 4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from roadworthy.conformance.exchange import Exchange, as_object
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import asks_costs, first_asked
from roadworthy.conformance.words import is_integer, is_number

LARGEST_NANO_USD = 2**63 - 1
"""Nano-USD that a signed integer of 64 bits holds: about nine billion dollars."""
STREAM = "text/event-stream"


def request_id(exchange: Exchange, facts: Facts) -> str:
    """The id that an answer carries in its header; "" for none."""
    return (exchange.reply.header(facts.request_id_header) or "").strip()


def served(exchanges: Sequence[Exchange], facts: Facts) -> dict[str, list[Exchange]]:
    """The whole answers of the model's own route, by their ids: what the hub asks the cost of.

    Other routes (lists of models, counting of tokens) may be free and without record. A stream that we left, or
    that told an error, is not among them: how much of it was worked is the provider's to say.
    """
    first = first_asked(exchanges)
    if first is None:
        return {}
    found: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        id = request_id(exchange, facts)
        if id and not asks_costs(exchange.probe) and _same_route(exchange, first) and _whole(exchange):
            found.setdefault(id, []).append(exchange)
    return found


def _same_route(exchange: Exchange, first: Exchange) -> bool:
    """Whether it asked the route of the first plain request; a text-generation server streams from a twin of it."""
    own, plain = (urlsplit(x.request.url).path for x in (exchange, first))
    return exchange.request.method == first.request.method and own.removesuffix("_stream") == plain


def _whole(exchange: Exchange) -> bool:
    if exchange.status is None or not 200 <= exchange.status < 300:
        return False
    if not exchange.complete or exchange.reply.closed_early:
        return False
    return not streamed(exchange) or not any(chunk.tells_error for chunk in exchange.stream.chunks)


def streamed(exchange: Exchange) -> bool:
    """Whether an answer came as server-sent events."""
    return exchange.media_type == STREAM


def refused(exchanges: Iterable[Exchange], facts: Facts) -> dict[str, Exchange]:
    """The failed inference requests by their ids, where they have one: nothing was worked, and nothing is owed."""
    found: dict[str, Exchange] = {}
    for exchange in exchanges:
        failed = exchange.status is not None and exchange.status >= 400 and exchange.request.method == "POST"
        id = request_id(exchange, facts)
        if failed and id and not asks_costs(exchange.probe):
            found.setdefault(id, exchange)
    return found


# The cost endpoint


def asked(exchange: Exchange) -> list[str]:
    """The ids that a request named, in order."""
    ids = as_object(exchange.sent).get("requestIds")
    return [id for id in ids if isinstance(id, str)] if isinstance(ids, list) else []


def entries(exchange: Exchange) -> list[dict[str, Any]] | None:
    """The entries of an answer of the right shape ("requests": null is none of them); else None."""
    if exchange.status != 200 or not isinstance(exchange.json, dict) or "requests" not in exchange.json:
        return None
    told = exchange.json["requests"]
    if told is None:
        return []
    if not isinstance(told, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("requestId"), str) and "costNanoUsd" in entry for entry in told
    ):
        return None
    return told


def costs(exchange: Exchange) -> dict[str, Any]:
    """What an answer tells of each id, as it stands; of an id told twice, the first."""
    told: dict[str, Any] = {}
    for entry in entries(exchange) or ():
        told.setdefault(entry["requestId"], entry["costNanoUsd"])
    return told


def settled(exchanges: Iterable[Exchange]) -> dict[str, tuple[Any, Exchange, int]]:
    """What several answers together tell of the ids they were asked: the value, the answer and the place in it."""
    found: dict[str, tuple[Any, Exchange, int]] = {}
    for exchange in exchanges:
        wanted = set(asked(exchange))
        for place, entry in enumerate(entries(exchange) or ()):
            if entry["requestId"] in wanted:
                found.setdefault(entry["requestId"], (entry["costNanoUsd"], exchange, place))
    return found


def pending(exchange: Exchange) -> list[str]:
    """The ids that a request named and its answer tells nothing of."""
    told = costs(exchange)
    return [id for id in asked(exchange) if id not in told]


def charged_nano_usd(value: Any) -> int | None:
    """What the hub charges for a cost as it stands: fractions are rounded up; None for what it skips."""
    if not is_number(value) or (not is_integer(value) and not math.isfinite(value)):
        return None
    whole = math.ceil(value)
    return whole if value >= 0 and whole <= LARGEST_NANO_USD else None


# Usage


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that an answer says it took: read, of these from a cache, and written."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


def usage(exchange: Exchange) -> Usage | None:
    """The usage that an answer tells, where it adds up and is of text alone; else None: its price is not known."""
    told = _told(exchange)
    prompt = told.get("prompt_tokens", told.get("input_tokens"))
    written = told.get("completion_tokens", told.get("output_tokens", 0))
    if not is_integer(prompt) or not is_integer(written) or prompt < 0 or written < 0:
        return None
    if told.get("total_tokens", prompt + written) != prompt + written:
        return None
    details = [as_object(value) for key, value in told.items() if key.endswith("_details")]
    if any(is_number(detail.get("audio_tokens")) and detail["audio_tokens"] > 0 for detail in details):
        return None
    cached = [detail["cached_tokens"] for detail in details if is_integer(detail.get("cached_tokens"))]
    return Usage(prompt, min(prompt, max([0, *cached])), written)


def _told(exchange: Exchange) -> Mapping[str, Any]:
    if not streamed(exchange):
        return as_object(exchange.answer.get("usage"))
    found = [use for chunk in exchange.stream.chunks for use in _in_chunk(chunk.object)]
    return found[-1] if found else {}


def _in_chunk(chunk: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The usage in an event of a stream: of its own, or of the response that it tells the end of."""
    for holder in (chunk, as_object(chunk.get("response"))):
        if as_object(holder.get("usage")):
            yield as_object(holder["usage"])
