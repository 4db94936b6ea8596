"""One log entry and one count for every request; a fault of ours becomes 500, its traceback goes to the log alone."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadworthy import logs
from roadworthy.mapping_api.api.metrics import Metrics

_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: logged at debug only, unless they fail."""

_log = logs.get("roadworthy.requests")
_target = logging.getLogger("roadworthy.requests")


class Observed:
    """Stands around the routes, inside `RequestIds`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """`metrics` counts what is seen."""
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_ns = time.perf_counter_ns()
        status = sent_bytes = 0
        self._metrics.in_flight += 1

        async def watch(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent_bytes += len(message.get("body", b""))
            await send(message)

        error: BaseException | None = None
        try:
            await self.app(scope, receive, watch)
        except Exception as fault:  # noqa: BLE001 - whatever a route did wrong, the caller gets an answer
            error = fault
            if status == 0:
                await _fault(scope)(scope, receive, watch)
        except asyncio.CancelledError as cut:
            error = cut
            status = status or 499
            raise
        finally:
            self._metrics.in_flight -= 1
            duration_ns = time.perf_counter_ns() - started_ns
            route = getattr(scope.get("route"), "path", "")
            self._metrics.answered(scope["method"], route, status, duration_ns / 1e9)
            _write(scope, route, status, sent_bytes, duration_ns, error)


def _fault(scope: Scope) -> JSONResponse:
    request_id = scope.get("state", {}).get("request_id", "")
    return JSONResponse(
        {"error": f"a fault of the service, not of the request. Report it with the request id {request_id}"}, 500
    )


def _write(
    scope: Scope, route: str, status: int, sent_bytes: int, duration_ns: int, error: BaseException | None
) -> None:
    level = logging.INFO
    if isinstance(error, Exception):
        level = logging.ERROR
    elif status >= 500:
        level = logging.WARNING
    elif scope["path"] in _QUIET_PATHS:
        level = logging.DEBUG
    if not _target.isEnabledFor(level):
        return
    state: dict[str, Any] = scope.get("state", {})
    caller = state.get("caller")
    entry = {
        "method": scope["method"][:32],
        "route": route or None,
        "path": logs.shown_path(scope.get("raw_path", b"").decode("latin-1") or scope["path"]),
        "query": logs.shown_query(scope.get("query_string", b"").decode("latin-1")) or None,
        "status": status,
        "duration_ms": round(duration_ns / 1e6, 3),
        "bytes": sent_bytes,
        "request_id": state.get("request_id"),
        "member": caller.actor().name if caller is not None else None,
        "client": scope["client"][0] if scope.get("client") else None,
    }
    if isinstance(error, Exception):
        _log.error("request failed", **entry, exc_info=error)
    else:
        _log.log(level, "request", **entry)
