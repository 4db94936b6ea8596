"""The headers that every answer carries, and HEAD wherever there is GET."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_STORE = b"no-store"
REVALIDATE = b"no-cache"
"""Public reads may be kept, but must be asked for again each time: the list is never stale, and its ETag is cheap."""

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_PRIVATE_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


class AnswerHeaders:
    """Adds what a route has not said itself: security headers and how the answer may be kept.

    An answer to a request with a token, or to one that changes something, is kept by nobody.
    """

    def __init__(self, app: ASGIApp) -> None:
        """`app` is what it stands around."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        public = scope["method"] in {"GET", "HEAD"} and scope["path"] not in _PRIVATE_PATHS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = list(message.get("headers", ()))
                named = {name for name, _value in headers}
                headers.extend(_ALWAYS)
                if _POLICY[0] not in named:
                    headers.append(_POLICY)
                if b"cache-control" not in named:
                    authorized = any(name == b"authorization" for name, _value in scope["headers"])
                    headers.append((b"cache-control", REVALIDATE if public and not authorized else NO_STORE))
                if public and not any(n == b"vary" and b"authorization" in v.lower() for n, v in headers):
                    headers.append((b"vary", b"Authorization"))
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Heads:
    """Answers HEAD as GET, without the body. The innermost of the middlewares: the others see the true method."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is what it stands around."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # A copy, since the server goes on reading the method; the route found is for those around us.
        inner = {**scope, "method": "GET"}
        try:
            await self.app(inner, receive, send_head)
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]
