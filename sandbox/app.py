"""The sandbox provider as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadworthy.sandbox import answers, wire
from roadworthy.sandbox.mutation import Mutation
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn
from roadworthy.sandbox.validation import validate

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

METHODS = {"/models": "GET", "/chat/completions": "POST"}
IMAGE_TOKENS = 85
MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """How the sandbox serves. Delays in seconds; no key means that none is asked for."""

    models: tuple[str, ...] = ("acme/chat-1", "acme/chat-2")
    api_key: str | None = None
    request_id_header: str = "Inference-Id"
    first_token_delay_s: float = 0.0
    token_delay_s: float = 0.0
    context_length: int = 32_768


class Sandbox:
    """A provider that does everything right, except for the mutations it is given."""

    def __init__(self, mutations: Sequence[Mutation] = (), options: Options | None = None) -> None:
        self._mutations = tuple(mutations)
        self._options = options or Options()
        self._started = int(time.time())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        raw = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if len(raw) <= MAX_BODY_BYTES:
                raw += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        turn = Turn(scope["method"], scope["path"], headers, bytes(raw), str(uuid.uuid4()))
        self._answer(turn)
        await self._send(turn, send)

    def _answer(self, turn: Turn) -> None:
        self._mutate(Stage.ARRIVAL, turn)
        try:
            self._route(turn)
        except ApiError as error:
            turn.kind, turn.status, turn.payload = Kind.ERROR, error.status, error.payload()
            turn.headers.update(error.headers)
        if turn.kind is Kind.STREAM:
            self._mutate(Stage.CHUNKS, turn)
            turn.headers["content-type"] = "text/event-stream; charset=utf-8"
            turn.headers["cache-control"] = "no-cache"
            turn.frames = wire.frames(turn.chunks, self._options.token_delay_s)
            turn.frames[0].delay_s = self._options.first_token_delay_s
        else:
            self._mutate(Stage.PAYLOAD, turn)
            turn.headers["content-type"] = "application/json"
            turn.frames = [Frame(wire.encode(turn.payload))]
        self._mutate(Stage.FRAMES, turn)
        turn.headers[self._options.request_id_header] = turn.request_id
        self._mutate(Stage.HEAD, turn)

    def _route(self, turn: Turn) -> None:
        if turn.crash:
            raise ApiError(500, "internal server error", type="server_error")
        path = turn.path.removeprefix("/v1")
        route = "/models" if path.startswith("/models/") else path
        if not turn.path.startswith("/v1/") or route not in METHODS:
            raise ApiError(404, f"there is nothing at {turn.path}", code="not_found")
        self._authenticate(turn)
        allowed = METHODS[route]
        if turn.method != allowed and "method" not in turn.skip:
            raise ApiError(
                405,
                f"{turn.method} is not supported here; use {allowed}",
                code="method_not_allowed",
                headers={"allow": allowed},
            )
        if route == "/chat/completions":
            self._chat(turn)
        elif path == "/models":
            turn.kind = Kind.MODELS
            turn.payload = {"object": "list", "data": [self._model(id) for id in self._options.models]}
        else:
            turn.kind = Kind.MODEL
            self._known(turn, path.removeprefix("/models/"))
            turn.payload = self._model(path.removeprefix("/models/"))

    def _authenticate(self, turn: Turn) -> None:
        key = self._options.api_key
        if key is None or "auth" in turn.skip:
            return
        if turn.request_headers.get("authorization") != f"Bearer {key}":
            raise ApiError(
                401,
                "the API key is missing or wrong",
                type="authentication_error",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def _known(self, turn: Turn, model: Any) -> None:
        if model not in self._options.models and "model" not in turn.skip:
            raise ApiError(404, f"the model {str(model)[:200]!r} does not exist", code="model_not_found", param="model")

    def _chat(self, turn: Turn) -> None:
        turn.body = _parse(turn.raw)
        if not isinstance(turn.body.get("model"), str) and "model" not in turn.skip:
            raise ApiError(400, "`model` must be a string", param="model")
        self._known(turn, turn.body.get("model"))
        validate(turn.body, turn.skip)
        prompt_tokens = _prompt_tokens(turn.body)
        if prompt_tokens > self._options.context_length and "context" not in turn.skip:
            raise ApiError(
                400,
                f"the prompt has {prompt_tokens:,} tokens; the context holds {self._options.context_length:,}",
                code="context_length_exceeded",
                param="messages",
            )
        turn.kind = Kind.STREAM if turn.body.get("stream") else Kind.CHAT
        self._mutate(Stage.REQUEST, turn)
        turn.kind = Kind.STREAM if turn.body.get("stream") else Kind.CHAT
        turn.choices = answers.answer(turn.body, turn.request_id)
        turn.usage = wire.usage(turn, prompt_tokens)
        self._mutate(Stage.ANSWER, turn)
        if turn.kind is Kind.STREAM:
            turn.chunks = wire.chunks(turn)
        else:
            turn.payload = wire.completion(turn)

    def _model(self, id: str) -> dict[str, Any]:
        return {
            "id": id,
            "object": "model",
            "created": self._started,
            "owned_by": id.partition("/")[0],
            "pricing": {"input": 0.2, "output": 0.6},
            "context_length": self._options.context_length,
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "supports_tools": True,
            "supports_structured_output": True,
            "supported_parameters": ["logprobs", "n", "reasoning_effort", "response_format", "seed", "stop", "tools"],
        }

    def _mutate(self, stage: Stage, turn: Turn) -> None:
        for mutation in self._mutations:
            mutation.apply(stage, turn)

    async def _send(self, turn: Turn, send: Send) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in turn.headers.items()]
        if turn.kind is not Kind.STREAM and "transfer-encoding" not in turn.headers:
            size = sum(len(frame.data) for frame in turn.frames)
            headers.append((b"content-length", str(size).encode()))
        try:
            await send({"type": "http.response.start", "status": turn.status, "headers": headers})
            for index, frame in enumerate(turn.frames):
                if index == turn.abort_after_frame:
                    raise ConnectionAbortedError("the sandbox hangs up, as asked")
                # Even without a delay the loop gets its turn, so that a client that left is noticed.
                await asyncio.sleep(frame.delay_s)
                await send({"type": "http.response.body", "body": frame.data, "more_body": True})
            if turn.linger_s:
                await asyncio.sleep(turn.linger_s)
            await send({"type": "http.response.body", "body": b""})
        except OSError as error:
            # The client hung up, which is its right; only our own hanging up must reach the server.
            if isinstance(error, ConnectionAbortedError):
                raise


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, f"the body must be a JSON object, got {type(body).__name__}")
    return body


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


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
