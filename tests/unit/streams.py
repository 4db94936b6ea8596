"""Making streamed exchanges for tests of what looks at them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from roadworthy.conformance.exchange import Exchange, Retry
from roadworthy.http.message import Failure, Headers, Read, Reply, Request, Timings

EVENT_STREAM: Headers = (("content-type", "text/event-stream; charset=utf-8"),)


def chunk(delta: Any = None, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A whole chunk with one choice."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_750_000_000,
        "model": "acme/chat-1",
        "choices": [choice],
        **more,
    }


def answer(pieces: Sequence[str], finish_reason: str = "stop", usage: Any = None) -> list[dict[str, Any]]:
    """The chunks of a whole answer: a role, the pieces, the finish reason, the usage where it is told."""
    told = [{**chunk(), "choices": [], "usage": usage}] if usage is not None else []
    said = [chunk({"content": piece}) for piece in pieces]
    return [chunk({"role": "assistant", "content": ""}), *said, chunk({}, finish_reason), *told]


def wire(chunks: Sequence[Any], *, done: bool = True) -> list[bytes]:
    """The events of a stream, as bytes."""
    events = [b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n" for value in chunks]
    return [*events, b"data: [DONE]\n\n"] if done else events


def stream(
    chunks: Sequence[Any] = (),
    *,
    raw: bytes | None = None,
    reads: Sequence[Read] | None = None,
    times_ns: Sequence[int] | None = None,
    done: bool = True,
    probe: str = "chat.stream",
    trial: int = 1,
    status: int | None = 200,
    sent: Any = None,
    headers: Headers = EVENT_STREAM,
    failure: Failure | None = None,
    uncertainty_ns: int = 0,
    ended_ns: int | None = None,
    closed_early: bool = False,
    retries: tuple[Retry, ...] = (),
) -> Exchange:
    """A streamed exchange: of chunks, one read each, at `times_ns`; or of raw bytes, in one read or in `reads`."""
    parts = [raw] if raw is not None else wire(chunks, done=done)
    if reads is None:
        times = list(times_ns or ())
        times += [times[-1] if times else 1_000_000] * (len(parts) - len(times))
        ends = [sum(map(len, parts[: number + 1])) for number in range(len(parts))]
        reads = [Read(at_ns, end) for at_ns, end in zip(times, ends, strict=False)]
    last_ns = reads[-1].at_ns if reads else None
    asked = {"model": "acme/chat-1", "messages": [], "stream": True, "max_tokens": 256, **(sent or {})}
    return Exchange(
        id=f"{probe}#{trial}",
        probe=probe,
        trial=trial,
        request=Request("POST", "http://127.0.0.1:1/v1/chat/completions", (), json.dumps(asked).encode()),
        reply=Reply(
            status,
            headers,
            b"".join(parts),
            tuple(reads),
            Timings(
                headers_ns=1,
                first_byte_ns=reads[0].at_ns if reads else None,
                last_byte_ns=last_ns,
                ended_ns=ended_ns if ended_ns is not None else last_ns,
                uncertainty_ns=uncertainty_ns,
            ),
            failure=failure,
            closed_early=closed_early,
        ),
        retries=retries,
    )
