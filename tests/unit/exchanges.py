"""Making exchanges for tests of what looks at them."""

from __future__ import annotations

import json
from typing import Any

from roadworthy.conformance.exchange import Exchange
from roadworthy.http.message import Failure, Read, Reply, Request, Timings


def exchange(
    probe: str,
    body: Any = None,
    *,
    status: int | None = 200,
    trial: int = 1,
    sent: Any = None,
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),),
    failure: Failure | None = None,
) -> Exchange:
    """An exchange whose body is `body` as JSON, or as it is where it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Exchange(
        id=f"{probe}#{trial}",
        probe=probe,
        trial=trial,
        request=Request("POST", "http://127.0.0.1:1/v1/chat/completions", (), json.dumps(sent or {}).encode()),
        reply=Reply(
            status,
            headers,
            data,
            (Read(1_000_000, len(data)),),
            Timings(headers_ns=900_000, first_byte_ns=1_000_000, last_byte_ns=1_000_000),
            failure=failure,
        ),
    )


def completion(content: str = "Hello.") -> dict[str, Any]:
    """A whole chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": "acme/chat-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
