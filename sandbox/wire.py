"""From answers to the OpenAI wire format: bodies, chunks and frames."""

from __future__ import annotations

import json
from typing import Any

from roadworthy.sandbox.answers import tokens
from roadworthy.sandbox.turn import Frame, Turn

CREATED = 1_750_000_000


def completion(turn: Turn) -> dict[str, Any]:
    """The body of an unstreamed chat completion."""
    return {
        "id": f"chatcmpl-{turn.request_id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": turn.body["model"],
        "system_fingerprint": "sandbox-1",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.content},
                "logprobs": None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(turn.choices)
        ],
        "usage": turn.usage,
    }


def chunks(turn: Turn) -> list[dict[str, Any]]:
    """The bodies of a streamed chat completion, in order."""
    include_usage = bool((turn.body.get("stream_options") or {}).get("include_usage"))
    frame = {
        "id": f"chatcmpl-{turn.request_id}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": turn.body["model"],
        "system_fingerprint": "sandbox-1",
    }

    def chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**frame, "choices": [choice], **({"usage": None} if include_usage else {})}

    result = []
    for index, choice in enumerate(turn.choices):
        result.append(chunk(index, {"role": "assistant", "content": ""}))
        result += [chunk(index, {"content": token}) for token in tokens(choice.content or "")]
        result.append(chunk(index, {}, choice.finish_reason))
    if include_usage:
        result.append({**frame, "choices": [], "usage": turn.usage})
    return result


def frames(chunks: list[dict[str, Any]], delay_s: float = 0.0) -> list[Frame]:
    """The events of a stream, one frame each, and the end marker."""
    events = [Frame(b"data: " + encode(chunk) + b"\n\n", delay_s) for chunk in chunks]
    return [*events, Frame(b"data: [DONE]\n\n")]


def encode(value: Any) -> bytes:
    """A value as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
