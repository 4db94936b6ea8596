"""A transport into an ASGI application of this very process: no socket, no server.

For unit tests, and for partners who test their provider in-process. The limits are those of a real
connection, so far as they make sense without one. Lifespan events are not sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from roadworthy.http.intake import Intake
from roadworthy.http.message import Failure, FailureKind, Limits, Reply, Request, Timings

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
AsgiApp = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI 3 application: `await app(scope, receive, send)`."""


class AsgiTransport:
    """Sends requests to `app`. What the application raises is a failure of the exchange, never of ours."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, request: Request, limits: Limits) -> Reply:
        """See `Transport.send`."""
        call = _Call(request, Intake(limits, time.monotonic_ns()))
        task = asyncio.ensure_future(self._app(call.scope(), call.receive, call.send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(call.ended)
        try:
            return await call.reply()
        finally:
            call.left.set()

    async def aclose(self) -> None:
        """Cancel whatever the application still does for requests that are over, and wait for its end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Call:
    """One request to the application."""

    def __init__(self, request: Request, intake: Intake) -> None:
        self.left = asyncio.Event()
        self._request = request
        self._intake = intake
        self._zero_ns = time.monotonic_ns()
        self._head_ns: int | None = None
        self._begun = asyncio.Event()
        self._body_taken = False

    def scope(self) -> dict[str, Any]:
        """What the application is told of the request."""
        url = urlsplit(self._request.url)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self._request.headers]
        headers.insert(0, (b"host", url.netloc.rpartition("@")[2].encode()))
        if self._request.body is not None:
            headers.append((b"content-length", str(len(self._request.body)).encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": unquote(url.path) or "/",
            "raw_path": url.path.encode() or b"/",
            "query_string": url.query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 0),
            "server": (url.hostname, url.port),
        }

    async def receive(self) -> dict[str, Any]:
        """The application's `receive`: the body at once, then nothing until we leave."""
        if not self._body_taken:
            self._body_taken = True
            return {"type": "http.request", "body": self._request.body or b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """The application's `send`. Raises `ConnectionResetError` once nobody listens any more."""
        intake = self._intake
        if self.left.is_set():
            raise ConnectionResetError("the client has left")
        now = time.monotonic_ns()
        intake.last_read_ns = now
        if message["type"] == "http.response.start":
            self._head_ns = now - self._zero_ns
            headers = tuple(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())
            )
            intake.begin(message["status"], headers)
            self._begun.set()
        elif message["type"] == "http.response.body" and not intake.over and not intake.whole:
            intake.whole = not message.get("more_body", False)
            intake.take(now, message.get("body", b""))
        if intake.over or intake.whole:
            intake.woken.set()
        # An application that never waits for anything must not keep us from noticing the time.
        await asyncio.sleep(0)

    def ended(self, task: asyncio.Task[None]) -> None:
        """The application is done with this request, or raised."""
        error = None if task.cancelled() else task.exception()
        kind = FailureKind.DISCONNECTED if self._intake.status is None else FailureKind.TRUNCATED
        why = f"raised {type(error).__name__}: {error}" if error is not None else "returned"
        self._intake.cut = Failure(kind, f"the application {why} before the end of its answer")
        self._intake.woken.set()
        self._begun.set()

    async def reply(self) -> Reply:
        """Wait for the answer, within the limits."""
        intake = self._intake
        try:
            async with asyncio.timeout(intake.left_s):
                await self._begun.wait()
            failure = await intake.until_end()
        except TimeoutError:
            failure = Failure(FailureKind.TOTAL_TIMEOUT, f"no answer within {intake.limits.total_timeout_s:g} s")
        reads = intake.reads(self._zero_ns)
        timings = Timings(
            headers_ns=self._head_ns,
            first_byte_ns=reads[0].at_ns if reads else None,
            last_byte_ns=reads[-1].at_ns if reads else None,
            ended_ns=time.monotonic_ns() - self._zero_ns,
        )
        return intake.reply(failure, reads, timings)
