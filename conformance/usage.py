"""What an answered request used, as the provider's own answer tells it: what a bill of it is held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.reading import responses
from roadworthy.conformance.subject import ALIASES, Api
from roadworthy.conformance.words import is_integer

MAX_COUNT = 10**12
"""A count beyond it is a fault of the answer, and counts as not told."""
HUB_TASKS = {task: alias for alias, task in ALIASES.items()}
"""What the hub calls a task that has another name here."""


@dataclass(frozen=True, slots=True)
class Use:
    """One request that a provider answered, and what it used. What the answer does not tell is None.

    `served_at` is ISO 8601 with an offset; `model` is the one that was asked, by the provider's name;
    `input_tokens` counts the cached ones, too.
    """

    request_id: str
    served_at: str
    model: str
    task: str
    status: int
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    units: Mapping[str, int] = field(default_factory=dict)


def uses(exchanges: Iterable[Exchange], facts: Facts) -> Iterator[Use]:
    """What the requests for inference used that were answered with an id, whatever the status."""
    if facts.api is Api.ENDPOINTS:
        return
    for exchange in exchanges:
        request_id = exchange.reply.header(facts.request_id_header)
        if exchange.request.method != "POST" or exchange.status is None or not request_id:
            continue
        asked = as_object(exchange.sent).get("model")
        read, cached, written = _tokens(exchange, facts.api)
        yield Use(
            request_id,
            exchange.started_at,
            asked if isinstance(asked, str) and asked else facts.model,
            HUB_TASKS.get(facts.task, facts.task),
            exchange.status,
            read,
            cached,
            written,
            _units(exchange),
        )


def _tokens(exchange: Exchange, api: Api) -> tuple[int | None, int | None, int | None]:
    """The tokens that were read, of these the cached ones, and those that were written."""
    if api is Api.RESPONSES:
        told = as_object(responses.response(exchange).get("usage"))
        read, written = told.get("input_tokens"), told.get("output_tokens")
        details = told.get("input_tokens_details")
    else:
        streamed = exchange.media_type == "text/event-stream"
        told = as_object(exchange.stream.usage if streamed else exchange.answer.get("usage"))
        read, written = told.get("prompt_tokens"), told.get("completion_tokens")
        details = told.get("prompt_tokens_details")
    count, cached = _count(read), _count(as_object(details).get("cached_tokens"))
    if cached is not None and (count is None or cached > count):
        cached = None
    return count, cached, _count(written)


def _units(exchange: Exchange) -> dict[str, int]:
    images = [each for each in objects(exchange.answer.get("data")) if "b64_json" in each or "url" in each]
    return {"images": len(images)} if images else {}


def _count(value: Any) -> int | None:
    return int(value) if is_integer(value) and 0 <= value <= MAX_COUNT else None
