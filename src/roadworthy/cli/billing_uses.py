"""Our own requests as usage items."""

from __future__ import annotations

from typing import Any

from roadworthy.conformance.usage import Use


def item_of(
    use: Use, provider: str, payer: str, *, model: str | None = None, task: str | None = None
) -> dict[str, Any]:
    """The usage item of a request of our own; `model` and `task` are others than those that it was asked with."""
    return {
        "provider": provider,
        "requestId": use.request_id,
        "servedAt": use.served_at,
        "payer": payer,
        "model": model or use.model,
        "task": task or use.task,
        "status": use.status,
        "usage": {
            "inputTokens": use.input_tokens,
            "cachedInputTokens": use.cached_input_tokens,
            "outputTokens": use.output_tokens,
            "units": dict(use.units),
        },
    }
