"""The models that the sandbox serves: some for chat, and one for every other task."""

from __future__ import annotations

from typing import Any

from roadworthy.partner.costs import Price
from roadworthy.sandbox.routes import Server
from roadworthy.schemas import manifest

CHAT = "chat-completion"
PRICE = Price(input="0.2", output="0.6")
"""Of every model, in USD per million tokens: what `/models` publishes and what requests cost."""


def task_model(task: str) -> str:
    """The name of the model that serves a task other than chat."""
    return f"acme/{task}"


def task_of(model: str) -> str | None:
    """The task that a model of this name serves, or None for one that serves chat or is not served."""
    owner, _, name = model.partition("/")
    return name if owner == "acme" and name in manifest.names() and name != CHAT else None


def entries(server: Server) -> list[dict[str, Any]]:
    """What `/models` lists."""
    others = [task_model(task) for task in manifest.names() if task != CHAT] if server.options.all_tasks else []
    return [entry(id, server) for id in (*server.options.models, *others)]


def entry(id: str, server: Server) -> dict[str, Any]:
    """One model as `/models` tells it. Prices in USD per million tokens."""
    common = {"id": id, "object": "model", "created": server.started, "owned_by": id.partition("/")[0]}
    task = task_of(id)
    if task is not None and id not in server.options.models:
        return {**common, "pipeline_tag": task, "pricing": PRICE.published()}
    return {
        **common,
        "pipeline_tag": "conversational",
        "pricing": PRICE.published(),
        "context_length": server.options.context_length,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "supports_tools": True,
        "supports_structured_output": True,
        "providers": [
            {
                "provider": "acme",
                "status": "live",
                "context_length": server.options.context_length,
                "pricing": PRICE.published(),
                "is_free": False,
                "supports_tools": True,
                "supports_structured_output": True,
                "first_token_latency_ms": 180.5,
                "throughput": 92.4,
                "is_model_author": True,
            }
        ],
        "supported_parameters": ["logprobs", "n", "reasoning_effort", "response_format", "seed", "stop", "tools"],
    }
