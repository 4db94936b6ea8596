"""Chat completions and the list of models, over the OpenAI-compatible routes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from roadworthy.sandbox import answers, wire
from roadworthy.sandbox.models import entries, entry, task_model
from roadworthy.sandbox.routes import Server, known, parse, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn
from roadworthy.sandbox.validation import validate

IMAGE_TOKENS = 85


@route("GET", "/v1/models")
def models(turn: Turn, server: Server) -> None:
    """The list of models."""
    turn.kind = Kind.MODELS
    turn.payload = {"object": "list", "data": entries(server)}


@route("GET", "/v1/models/{model:path}")
def model(turn: Turn, server: Server) -> None:
    """One model's entry."""
    turn.kind = Kind.MODEL
    known(turn, turn.parts["model"], [listed["id"] for listed in entries(server)])
    turn.payload = entry(turn.parts["model"], server)


@route("POST", "/v1/chat/completions")
def chat(turn: Turn, server: Server) -> None:
    """A chat completion, streamed or not."""
    # A text-generation server chats with the model that it has.
    converse(turn, server, (*server.options.models, task_model("text-generation")))


def converse(turn: Turn, server: Server, models: Sequence[str]) -> None:
    """Answer a chat request to one of these models."""
    turn.body = parse(turn.raw)
    if not isinstance(turn.body.get("model"), str) and "model" not in turn.skip:
        raise ApiError(400, "`model` must be a string", param="model")
    known(turn, turn.body.get("model"), models)
    validate(turn.body, turn.skip)
    prompt_tokens = _prompt_tokens(turn.body)
    if prompt_tokens > server.options.context_length and "context" not in turn.skip:
        raise ApiError(
            400,
            f"the prompt has {prompt_tokens:,} tokens; the context holds {server.options.context_length:,}",
            code="context_length_exceeded",
            param="messages",
        )
    turn.kind = Kind.STREAM if turn.body.get("stream") else Kind.CHAT
    server.mutate(Stage.REQUEST, turn)
    turn.kind = Kind.STREAM if turn.body.get("stream") else Kind.CHAT
    turn.choices = answers.answer(turn.body, turn.request_id)
    turn.usage = wire.usage(turn, prompt_tokens)
    server.mutate(Stage.ANSWER, turn)
    if turn.kind is Kind.STREAM:
        turn.chunks = wire.chunks(turn)
    else:
        turn.payload = wire.completion(turn)


def _prompt_tokens(body: dict[str, Any]) -> int:
    """What a request costs to read: its texts, its images, its tools, and a little for each message."""
    total = 3
    for message in body.get("messages") or ():
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        total += 4
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else None
            total += len(answers.tokens(text)) if isinstance(text, str) else IMAGE_TOKENS
    return total + (len(answers.tokens(json.dumps(body["tools"]))) if body.get("tools") else 0)
