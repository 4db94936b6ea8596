"""No body larger than its limit is read: 413 at once where its length is told, else as soon as it is passed."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BULK = {"PUT": re.compile(r"/api/partners/[^/]+/models/?"), "POST": re.compile(r"/api/usage")}
"""What takes thousands of items at once, by method."""


class BodyLimit:
    """Stands around an application and limits what it may be sent."""

    def __init__(self, app: ASGIApp, limit_bytes: int, bulk_limit_bytes: int) -> None:
        """`bulk_limit_bytes` is for what takes thousands of items: a whole mapping, and usage."""
        self.app = app
        self._limit_bytes = limit_bytes
        self._bulk_limit_bytes = bulk_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self.app(scope, receive, send)
            return
        bulk_path = _BULK.get(scope["method"])
        bulk = bulk_path is not None and bulk_path.fullmatch(scope["path"])
        limit_bytes = self._bulk_limit_bytes if bulk else self._limit_bytes
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if length.isdigit() and int(length[:20]) > limit_bytes:
            refusal = JSONResponse({"error": _message(limit_bytes)}, 413, {"Connection": "close"})
            await refusal(scope, receive, send)
            return
        read_bytes = 0

        async def receive_some() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > limit_bytes:
                raise HTTPException(413, _message(limit_bytes), {"Connection": "close"})
            return message

        await self.app(scope, receive_some, send)


def _message(limit_bytes: int) -> str:
    return f"the body is larger than {limit_bytes} bytes, the limit here; send less at once"
