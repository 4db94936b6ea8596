"""Rules that the OpenAI-compatible routes beside chat share: each is the body of a check, declared per family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.conformance.capability import REFUSALS
from roadworthy.conformance.exchange import Exchange, Malformed, as_object
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.verdict import Finding, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, show
from roadworthy.schemas import problem

GUIDE = "registration guide, Automatic validation: 30 seconds for whole answers"
API = "OpenAI API reference, error codes"


def not_answered(exchange: Exchange) -> Iterator[Finding]:
    """Fails for any status but 200."""
    if exchange.status != 200:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


def not_json(exchange: Exchange) -> Iterator[Finding]:
    """Fails for a body that is not one JSON object labelled as JSON."""
    if isinstance(exchange.json, Malformed):
        yield Finding("one JSON object", f"{exchange.json.reason}: {show(exchange.reply.body)}", at="body")
    elif not isinstance(exchange.json, dict):
        yield Finding("one JSON object", show(exchange.json), at="body")
    elif exchange.media_type != "application/json":
        yield Finding("application/json", exchange.media_type or "none", at="header Content-Type")


def misshapen(exchange: Exchange, schema: str) -> Iterator[Finding]:
    """Fails for a JSON body that breaks the schema of this name."""
    found = problem(schema, exchange.json)
    if found is not None:
        yield Finding(found.expected, found.got, at=found.pointer or "body")


def other_model(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """Fails where `model` names another model than was asked for; a dated or shortened name is the same."""
    value = exchange.answer.get("model")
    if not isinstance(value, str):
        return
    short = facts.model.rpartition("/")[2].partition(":")[0].lower()
    if not value or (short not in value.lower() and value.lower() not in facts.model.lower()):
        yield Finding(facts.model, show(value), at="/model")


def keyless(exchange: Exchange) -> Iterator[Finding]:
    """Fails for any answer but 401; of a crash errors.no_5xx tells."""
    if exchange.status is not None and exchange.status < 500 and exchange.status != 401:
        yield Finding("HTTP 401", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


def declined(exchange: Exchange, what: str) -> NotApplicable | None:
    """The outcome for an optional feature that the server refuses in so many words, or fails at; None where served."""
    status = exchange.status or 0
    if status in REFUSALS:
        return NotApplicable(f"{what} is not offered: HTTP {status}")
    if status >= 500:
        return NotApplicable("the server failed instead; see errors.no_5xx")
    return None


def uncounted(usage: Any, keys: Sequence[str]) -> Iterator[Finding]:
    """Fails where one of these counts is absent, no integer, or negative."""
    if not isinstance(usage, dict):
        yield Finding(f"an object with {', '.join(keys)}", show(usage), at="/usage")
        return
    for key in keys:
        value = usage.get(key)
        if not is_integer(value) or value < 0:
            yield Finding("a count", show(value) if key in usage else "absent", at=f"/usage/{key}")


def total(usage: Any) -> Iterator[Outcome]:
    """Fails where the total is not the sum of the parts that are told."""
    counts = as_object(usage)
    parts = [counts[key] for key in ("prompt_tokens", "completion_tokens") if is_integer(counts.get(key))]
    said = counts.get("total_tokens")
    if not parts or not is_integer(said):
        yield NotApplicable("the usage tells no counts")
    elif sum(parts) != said:
        yield Finding(f"{' + '.join(map(str, parts))} = {sum(parts)}", str(said), at="/usage/total_tokens")
