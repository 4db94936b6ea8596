"""After a request that may have changed something: what follows from it is begun at once, not at the next tick."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class WakeAfterWrites:
    """Calls `wake` after each request that was a write and went well."""

    def __init__(self, app: ASGIApp, wake: Callable[[], None]) -> None:
        """`app` is what it stands around."""
        self.app = app
        self.wake = wake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _READS:
            await self.app(scope, receive, send)
            return
        status = 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self.app(scope, receive, send_noting)
        if status < 400:
            self.wake()
