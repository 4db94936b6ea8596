"""Every answer carries `X-Request-Id`: the caller's own where it is well formed, else a new one.

One that was made without the database says so in `Warning` (RFC 7234, section 5.5.1).
"""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
STALE = '110 - "Response is Stale"'
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class RequestIds:
    """Puts the id in `scope["state"]["request_id"]` and in the answer's headers."""

    def __init__(self, app: ASGIApp) -> None:
        """`app` is what it stands around."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _WELL_FORMED.fullmatch(given) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                if scope["state"].get("stale"):
                    headers["Warning"] = STALE
            await send(message)

        await self.app(scope, receive, send_with_id)
