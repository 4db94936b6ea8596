"""The sandbox provider as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadworthy.sandbox import answers, wire
from roadworthy.sandbox.mutation import Mutation
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Options:
    """How the sandbox serves. Delays in seconds; no key means that none is asked for."""

    models: tuple[str, ...] = ("acme/chat-1",)
    api_key: str | None = None
    request_id_header: str = "Inference-Id"
    first_token_delay_s: float = 0.0
    token_delay_s: float = 0.0


class Sandbox:
    """A provider that does everything right, except for the mutations it is given."""

    def __init__(self, mutations: Sequence[Mutation] = (), options: Options | None = None) -> None:
        self._mutations = tuple(mutations)
        self._options = options or Options()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one ASGI event stream."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        raw = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        turn = Turn(scope["method"], scope["path"], headers, raw, str(uuid.uuid4()))
        self._answer(turn)
        await self._send(turn, send)

    def _answer(self, turn: Turn) -> None:
        self._mutate(Stage.ARRIVAL, turn)
        try:
            self._route(turn)
        except ApiError as error:
            turn.kind, turn.status, turn.payload = Kind.ERROR, error.status, error.payload()
        if turn.kind is Kind.STREAM:
            self._mutate(Stage.CHUNKS, turn)
            turn.headers["content-type"] = "text/event-stream"
            turn.headers["cache-control"] = "no-cache"
            turn.frames = wire.frames(turn.chunks, self._options.token_delay_s)
            if turn.frames:
                turn.frames[0].delay_s = self._options.first_token_delay_s
        else:
            self._mutate(Stage.PAYLOAD, turn)
            turn.headers["content-type"] = "application/json"
            turn.frames = [Frame(wire.encode(turn.payload))]
        self._mutate(Stage.FRAMES, turn)
        turn.headers[self._options.request_id_header] = turn.request_id
        self._mutate(Stage.HEAD, turn)

    def _route(self, turn: Turn) -> None:
        self._authenticate(turn)
        path = turn.path.removeprefix("/v1")
        if path == "/models" and turn.method == "GET":
            turn.kind = Kind.MODELS
            turn.payload = {"object": "list", "data": [self._model(id) for id in self._options.models]}
        elif path.startswith("/models/") and turn.method == "GET":
            turn.kind = Kind.MODEL
            self._known(path.removeprefix("/models/"))
            turn.payload = self._model(path.removeprefix("/models/"))
        elif path == "/chat/completions":
            if turn.method != "POST":
                raise ApiError(405, f"{turn.method} is not supported here; use POST", code="method_not_allowed")
            self._chat(turn)
        else:
            raise ApiError(404, f"there is nothing at {turn.path}", code="not_found")

    def _authenticate(self, turn: Turn) -> None:
        key = self._options.api_key
        if key is None or "auth" in turn.skip:
            return
        if turn.request_headers.get("authorization") != f"Bearer {key}":
            raise ApiError(401, "the API key is missing or wrong", type="authentication_error", code="invalid_api_key")

    def _known(self, model: Any) -> None:
        if model not in self._options.models:
            raise ApiError(404, f"the model {model!r} does not exist", code="model_not_found", param="model")

    def _chat(self, turn: Turn) -> None:
        try:
            body = json.loads(turn.raw)
        except ValueError:
            raise ApiError(400, "the body is not JSON") from None
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
            raise ApiError(400, "`messages` must be a non-empty array", param="messages")
        self._known(body.get("model"))
        turn.body = body
        turn.kind = Kind.STREAM if body.get("stream") else Kind.CHAT
        self._mutate(Stage.REQUEST, turn)
        turn.choices = answers.answer(turn.body)
        sent = sum(len(answers.tokens(str(m.get("content")))) for m in turn.body["messages"])
        said = sum(len(answers.tokens(choice.content or "")) for choice in turn.choices)
        turn.usage = {"prompt_tokens": sent, "completion_tokens": said, "total_tokens": sent + said}
        self._mutate(Stage.ANSWER, turn)
        if turn.kind is Kind.STREAM:
            turn.chunks = wire.chunks(turn)
        else:
            turn.payload = wire.completion(turn)

    def _model(self, id: str) -> dict[str, Any]:
        return {
            "id": id,
            "object": "model",
            "created": wire.CREATED,
            "owned_by": id.partition("/")[0],
            "pricing": {"input": 0.2, "output": 0.6},
            "context_length": 32768,
        }

    def _mutate(self, stage: Stage, turn: Turn) -> None:
        for mutation in self._mutations:
            mutation.apply(stage, turn)

    async def _send(self, turn: Turn, send: Send) -> None:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in turn.headers.items()]
        if turn.kind is not Kind.STREAM:
            size = sum(len(frame.data) for frame in turn.frames)
            headers.append((b"content-length", str(size).encode()))
        await send({"type": "http.response.start", "status": turn.status, "headers": headers})
        for index, frame in enumerate(turn.frames):
            if turn.abort_after_frame is not None and index >= turn.abort_after_frame:
                raise ConnectionAbortedError("the sandbox hangs up, as asked")
            if frame.delay_s:
                await asyncio.sleep(frame.delay_s)
            await send({"type": "http.response.body", "body": frame.data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
