"""From answers to the OpenAI wire format: bodies, chunks and frames."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from roadworthy.sandbox.answers import tokens
from roadworthy.sandbox.turn import Choice, Frame, Turn

FRAGMENT_LENGTH = 12
FINGERPRINT = "sandbox-1"


def completion(turn: Turn) -> dict[str, Any]:
    """The body of an unstreamed chat completion."""
    return {
        **_frame(turn, "chat.completion"),
        "choices": [_choice(turn, index, choice) for index, choice in enumerate(turn.choices)],
        "usage": turn.usage,
    }


def _choice(turn: Turn, index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.content, "refusal": None}
    if choice.reasoning is not None:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["tool_calls"] = [
            {
                "id": _call_id(turn, index, slot),
                "type": "function",
                "function": {"name": name, "arguments": _dump(made)},
            }
            for slot, (name, made) in enumerate(choice.tool_calls)
        ]
    logprobs = {"content": _logprobs(turn, tokens(choice.content or "")), "refusal": None}
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs if turn.body.get("logprobs") else None,
        "finish_reason": choice.finish_reason,
    }


def chunks(turn: Turn) -> list[dict[str, Any]]:
    """The bodies of a streamed chat completion, in order."""
    include_usage = bool((turn.body.get("stream_options") or {}).get("include_usage"))
    frame = _frame(turn, "chat.completion.chunk")
    usage: dict[str, Any] = {"usage": None} if include_usage else {}
    made = [
        {**frame, "choices": [part], **usage}
        for index, choice in enumerate(turn.choices)
        for part in _parts(turn, index, choice)
    ]
    if include_usage:
        made.append({**frame, "choices": [], "usage": turn.usage})
    return made


def _parts(turn: Turn, index: int, choice: Choice) -> Iterator[dict[str, Any]]:
    """The choices of the chunks that tell one answer."""

    def part(delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    yield part({"role": "assistant", "content": None if choice.tool_calls else ""})
    for token in tokens(choice.reasoning or ""):
        yield part({"reasoning_content": token})
    for token in tokens(choice.content or ""):
        logprobs = {"content": _logprobs(turn, [token]), "refusal": None} if turn.body.get("logprobs") else None
        yield part({"content": token}, logprobs=logprobs)
    for slot, (name, arguments) in enumerate(choice.tool_calls):
        function = {"name": name, "arguments": ""}
        head = {"index": slot, "id": _call_id(turn, index, slot), "type": "function", "function": function}
        yield part({"tool_calls": [head]})
        text = _dump(arguments)
        for start in range(0, len(text), FRAGMENT_LENGTH):
            fragment = {"arguments": text[start : start + FRAGMENT_LENGTH]}
            yield part({"tool_calls": [{"index": slot, "function": fragment}]})
    yield part({}, choice.finish_reason)


def frames(chunks: list[dict[str, Any]], delay_s: float = 0.0) -> list[Frame]:
    """The events of a stream, one frame each, and the end marker."""
    events = [Frame(b"data: " + encode(chunk) + b"\n\n", delay_s) for chunk in chunks]
    return [*events, Frame(b"data: [DONE]\n\n")]


def usage(turn: Turn, prompt_tokens: int) -> dict[str, Any]:
    """The usage of an answer: what was read, what was said, and what was thought."""
    thought = sum(len(tokens(choice.reasoning or "")) for choice in turn.choices)
    said = sum(
        len(tokens(choice.content or "")) + sum(len(tokens(_dump(made))) + 3 for _, made in choice.tool_calls)
        for choice in turn.choices
    )
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": said + thought,
        "total_tokens": prompt_tokens + said + thought,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def encode(value: Any) -> bytes:
    """A value as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _frame(turn: Turn, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{turn.request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": turn.body["model"],
        "system_fingerprint": FINGERPRINT,
    }


def _call_id(turn: Turn, index: int, slot: int) -> str:
    return f"call_{turn.request_id.replace('-', '')[:16]}{index}{slot}"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _logprobs(turn: Turn, said: list[str]) -> list[dict[str, Any]]:
    """A probability for each token; the alternatives are the token itself and made-up neighbours."""
    wanted = turn.body.get("top_logprobs") or 0

    def entry(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    return [
        {**entry(token, -0.05), "top_logprobs": [entry(token + "'" * n, -0.05 - 2.0 * n) for n in range(wanted)]}
        for token in said
    ]
