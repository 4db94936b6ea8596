"""How fast we judge a body by its schema, against `jsonschema` alone, in interleaved rounds of one run.

Run: `python bench/judging.py`. Each body is parsed already on both sides; ours says valid or names the first fault.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from roadworthy import schemas

ROUNDS = 7
FASTEST_S = 0.005
"""A timing repeats a call until it takes so long, so that the clock's own grain does not count."""


def chat() -> Any:
    """A chat completion with ten tool calls."""
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"city":"Oslo"}'}}
    message = {"role": "assistant", "content": "Hello " * 200, "tool_calls": [call] * 10, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209},
    }


def chunk() -> Any:
    """One chunk of a stream."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "Hello"}, "logprobs": None, "finish_reason": None}],
    }


BODIES: tuple[tuple[str, str, Any], ...] = (
    ("chat object", "openai/chat_completion.json", chat()),
    ("chunk", "openai/chat_completion_chunk.json", chunk()),
    (
        "256 x 1024 embeddings",
        "tasks/feature-extraction/output.json",
        [[0.125 * (place % 17) for place in range(1024)] for _ in range(256)],
    ),
    (
        "list of 10,000 entries",
        "tasks/text-ranking/output.json",
        [{"index": place, "score": 1 / (place + 1), "text": "a text"} for place in range(10_000)],
    ),
)


def seconds(call: Callable[[], object]) -> float:
    """Seconds of one call, by repeating it."""
    count = 0
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < FASTEST_S:
        call()
        count += 1
    return passed / count


def plain(name: str) -> Draft202012Validator:
    """What `jsonschema` alone makes of our schema."""
    registry: Any = Registry(  # type: ignore[call-arg]
        retrieve=lambda uri: Resource.from_contents(schemas.load(uri.removeprefix(schemas.BASE)))
    )
    return Draft202012Validator(schemas.load(name), registry=registry)


def main() -> None:
    """Run the rounds and print the table."""
    print(f"{'body':24}  {'ours':>12}  {'jsonschema':>12}  {'ratio':>8}   (median of {ROUNDS} interleaved rounds)")
    for label, name, body in BODIES:
        validator = plain(name)
        if schemas.problem(name, body) is not None or not validator.is_valid(body):
            raise SystemExit(f"{label}: the body does not meet {name}")
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(seconds(lambda name=name, body=body: schemas.problem(name, body)))
            theirs.append(seconds(lambda validator=validator, body=body: validator.is_valid(body)))
        fast, slow = statistics.median(ours), statistics.median(theirs)
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        print(f"{label:24}  {1e6 * fast:9.1f} us  {1e6 * slow:9.1f} us  {ratio:7.0f}x")


if __name__ == "__main__":
    main()
