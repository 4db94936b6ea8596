"""The sandbox provider as an ASGI application."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import unquote

from roadworthy.sandbox import routes, wire
from roadworthy.sandbox.families import costs
from roadworthy.sandbox.mutation import Mutation
from roadworthy.sandbox.routes import ErrorForm, Options, Route
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 16 * 1024 * 1024


class Sandbox:
    """A provider that does everything right, except for the mutations it is given."""

    def __init__(self, mutations: Sequence[Mutation] = (), options: Options | None = None) -> None:
        self._mutations = tuple(mutations)
        self.options = options or Options()
        self.started = int(time.time())
        self.memory: dict[str, Any] = {}
        """What families remember between requests, by their name."""

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
        turn = Turn(scope["method"], unquote(scope["path"]), headers, bytes(raw), str(uuid.uuid4()))
        host = headers.get("host", "127.0.0.1")
        turn.memory = self.memory
        turn.base_url = f"{scope.get('scheme', 'http')}://{host}"
        self._answer(turn)
        await self._send(turn, send)

    def _answer(self, turn: Turn) -> None:
        self.mutate(Stage.ARRIVAL, turn)
        form = ErrorForm.OPENAI
        try:
            found = routes.find(turn.path)
            form = found[0][0].errors if found else form
            if turn.crash:
                raise ApiError(500, "internal server error", type="server_error")
            if not found:
                raise ApiError(404, f"there is nothing at {turn.path}", code="not_found")
            self._dispatch(turn, found)
        except ApiError as error:
            turn.kind, turn.status, turn.payload = Kind.ERROR, error.status, _error(error, form)
            turn.headers = dict(error.headers)
        if turn.kind.streams:
            self.mutate(Stage.CHUNKS, turn)
            turn.headers["content-type"] = "text/event-stream; charset=utf-8"
            turn.headers["cache-control"] = "no-cache"
            turn.frames = (turn.framing or wire.frames)(turn.chunks, self.options.token_delay_s)
            turn.frames[0].delay_s = self.options.first_token_delay_s
        else:
            self.mutate(Stage.PAYLOAD, turn)
            turn.headers.setdefault("content-type", "application/json")
            body = turn.payload if isinstance(turn.payload, bytes) else wire.encode(turn.payload)
            turn.frames = [Frame(body)]
        self.mutate(Stage.FRAMES, turn)
        turn.headers[self.options.request_id_header] = turn.request_id
        self.mutate(Stage.HEAD, turn)
        costs.remember(turn, self)

    def _dispatch(self, turn: Turn, found: Sequence[tuple[Route, dict[str, str]]]) -> None:
        if all(route.auth for route, _ in found):
            self._authenticate(turn)
        for route, parts in found:
            if route.method == turn.method:
                turn.parts = parts
                route.handler(turn, self)
                return
        if "method" in turn.skip:
            found[0][0].handler(turn, self)
            return
        allowed = ", ".join(sorted({route.method for route, _ in found}))
        raise ApiError(
            405,
            f"{turn.method} is not supported here; use {allowed}",
            code="method_not_allowed",
            headers={"allow": allowed},
        )

    def _authenticate(self, turn: Turn) -> None:
        key = self.options.api_key
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

    def mutate(self, stage: Stage, turn: Turn) -> None:
        """Let the faults and variations of this stage at the turn."""
        for mutation in self._mutations:
            mutation.apply(stage, turn)

    async def _send(self, turn: Turn, send: Send) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in turn.headers.items()]
        if not turn.kind.streams and "transfer-encoding" not in turn.headers:
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


def _error(error: ApiError, form: ErrorForm) -> dict[str, Any]:
    if form is ErrorForm.TEXT:
        return {"error": str(error), **error.extra}
    if form is ErrorForm.TGI:
        return {"error": str(error), "error_type": error.code or "validation"}
    if form is ErrorForm.STATUS:
        return {"statusCode": error.status, "error": str(error)}
    return error.payload()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


__all__ = ["Options", "Sandbox"]
