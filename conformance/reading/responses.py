"""How checks read a response of the Responses API, whole or streamed. Nothing here raises for what a server sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from roadworthy.conformance.exchange import DONE, Exchange, as_object, objects
from roadworthy.conformance.verdict import Finding, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, show

CREATED = "response.created"
ADDED, ITEM_DONE = "response.output_item.added", "response.output_item.done"
PART_ADDED, PART_DONE = "response.content_part.added", "response.content_part.done"
TEXT_DELTA, TEXT_DONE = "response.output_text.delta", "response.output_text.done"
ARGUMENTS_DELTA = "response.function_call_arguments.delta"
ARGUMENTS_DONE = "response.function_call_arguments.done"
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
FAILURES = ("error", "response.failed")
TOKENS = (TEXT_DELTA, ARGUMENTS_DELTA, "response.refusal.delta", "response.reasoning_text.delta",
          "response.reasoning_summary_text.delta", "response.reasoning.delta")  # fmt: skip
"""Events whose non-empty delta is a token."""
LEAD = 30
"""Characters shown before the place where two texts part."""
COUNTS = ("input_tokens", "output_tokens", "total_tokens")


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a stream: its number, the name on its `event:` line, its body and its arrival."""

    number: int
    name: str
    value: Any
    at_ns: int

    @property
    def body(self) -> dict[str, Any]:
        """The body where it is an object, else an empty one."""
        return as_object(self.value)

    @property
    def type(self) -> str:
        """The type that the body names, or ""."""
        kind = self.body.get("type")
        return kind if isinstance(kind, str) else ""

    @property
    def delta(self) -> str:
        """The text that is added, or ""."""
        delta = self.body.get("delta")
        return delta if isinstance(delta, str) else ""

    @property
    def at(self) -> str:
        """The place, as findings name it."""
        return f"event {self.number}"

    def index(self, key: str) -> int | None:
        """`output_index` or `content_index`, where it is a count."""
        value = self.body.get(key)
        return value if is_integer(value) and value >= 0 else None


def steps(exchange: Exchange) -> list[Step]:
    """The events of a stream in order, without end markers."""
    return [
        Step(chunk.event.index, chunk.event.event, chunk.value, chunk.event.at_ns)
        for chunk in exchange.stream.chunks
        if chunk.event.data.strip() != DONE
    ]


def readable(told: list[Step]) -> bool:
    """Whether every event is an object that names its type."""
    return bool(told) and all(step.type for step in told)


def failed(told: list[Step]) -> bool:
    """Whether the stream tells that the answer failed."""
    return any(step.type in FAILURES or step.name == "error" or step.body.get("error") for step in told)


def terminal(told: list[Step]) -> Step | None:
    """The event that ends the response, if one came."""
    return next((step for step in told if step.type in TERMINAL), None)


def response(exchange: Exchange) -> dict[str, Any]:
    """The response object of an answer, whole or streamed; empty where there is none."""
    if exchange.media_type != "text/event-stream":
        return exchange.answer
    end = terminal(steps(exchange))
    return as_object(end.body.get("response")) if end else {}


def items(answer: dict[str, Any], kind: str = "") -> list[dict[str, Any]]:
    """The output items of a response, all or those of one type."""
    return [item for item in objects(answer.get("output")) if not kind or item.get("type") == kind]


def texts(item: dict[str, Any]) -> Iterator[str]:
    """The texts of a message."""
    for part in objects(item.get("content")):
        text = part.get("text")
        if part.get("type") == "output_text" and isinstance(text, str):
            yield text


def text(answer: dict[str, Any]) -> str:
    """What the SDK's `output_text` would be."""
    return "".join(part for item in items(answer, "message") for part in texts(item))


def seconds_to_first_token(exchange: Exchange) -> float | None:
    """From the request to the first event that carries a token; None where none came."""
    first = next((step for step in steps(exchange) if step.type in TOKENS and step.delta), None)
    return None if first is None else first.at_ns / 1e9


def counts(exchange: Exchange) -> dict[str, Any]:
    """The usage of an answer where its three counts are counts, else an empty one."""
    usage = as_object(response(exchange).get("usage"))
    return usage if all(is_integer(usage.get(key)) and usage[key] >= 0 for key in COUNTS) else {}


def tells_error(exchange: Exchange) -> bool:
    """Whether an answer tells an error under a status of success."""
    return bool(response(exchange).get("error"))


def whole(exchange: Exchange) -> bool:
    """Whether the answer says that it is whole, so that what the model made of it may be judged."""
    return response(exchange).get("status") == "completed" and not tells_error(exchange)


def no_text(exchange: Exchange) -> Iterator[NotApplicable]:
    """Says why a text cannot be judged, where it cannot."""
    if not whole(exchange):
        yield NotApplicable("the answer is not whole")
    elif not text(response(exchange)).strip():
        yield NotApplicable("there is no text; see responses.text")


def has_word(exchange: Exchange, word: str) -> Iterator[Outcome]:
    """Fails where a whole answer does not hold a word, whatever its case."""
    unfit = next(no_text(exchange), None)
    if unfit is not None:
        yield unfit
    elif word.casefold() not in text(response(exchange)).casefold():
        yield Finding(f"an answer that holds {word}", show(text(response(exchange))), at="/output")


def parting(expected: str, got: Any) -> tuple[str, str]:
    """Two texts as evidence, each from a little before the place where they part."""
    if not isinstance(got, str):
        return show(expected), show(got)
    same = next(
        (n for n, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got))
    )
    start = max(0, same - LEAD)
    dots = "…" if start else ""
    return show(dots + expected[start:]), show(dots + got[start:])
