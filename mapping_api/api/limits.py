"""How many requests a minute: by token, by address for those without one, and for tokens that fail.

A token counts for itself once it was found valid; before that, and without one, its address
pays. So inventing tokens gains nothing, and too many that fail close the address to tokens
that are not known to be valid. Counts are kept in memory, by each process for itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadworthy.mapping_api.settings import ServiceSettings

EXEMPT = frozenset({"/healthz", "/readyz", "/metrics"})
WINDOW_S = 60
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_MOST_TOKENS = 10_000
_LONGEST_HEADER_BYTES = 256


class Windows:
    """Counts by key in windows of one length. A key's window begins with its first request in it."""

    def __init__(self, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is counted yet."""
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[str, list[float]] = {}  # [count, end]
        self._sweep_at_s = clock() + window_s

    def add(self, key: str) -> tuple[int, float]:
        """Count one more; how many that makes, and how many seconds the window has left."""
        now_s = self._clock()
        if now_s >= self._sweep_at_s:
            self._sweep(now_s)
        window = self._windows.get(key)
        if window is None or now_s >= window[1]:
            window = self._windows[key] = [0, now_s + self._window_s]
        window[0] += 1
        return int(window[0]), window[1] - now_s

    def count(self, key: str) -> tuple[int, float]:
        """The same without counting one more."""
        now_s = self._clock()
        window = self._windows.get(key)
        if window is None or now_s >= window[1]:
            return 0, self._window_s
        return int(window[0]), window[1] - now_s

    def _sweep(self, now_s: float) -> None:
        # Once in a window, so that a request pays for the windows that ended at most once each.
        self._windows = {key: window for key, window in self._windows.items() if window[1] > now_s}
        self._sweep_at_s = now_s + self._window_s


class RateLimits:
    """Stands around the application; answers 429 itself, and tells every other answer what is left."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, windows: Windows | None = None) -> None:
        """A limit of 0 in the settings is none."""
        self.app = app
        self._limits = {
            ("address", "reads"): settings.anonymous_reads_per_minute,
            ("address", "writes"): settings.anonymous_writes_per_minute,
            ("token", "reads"): settings.token_reads_per_minute,
            ("token", "writes"): settings.token_writes_per_minute,
        }
        self._failures = settings.failed_authentications_per_minute
        self._off = not self._failures and not any(self._limits.values())
        self._windows = windows or Windows()
        self._valid: OrderedDict[bytes, str] = OrderedDict()
        """The ids of tokens that were found valid, by the digest of the header they came in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._off or scope["type"] != "http" or scope["path"] in EXEMPT:
            await self.app(scope, receive, send)
            return
        address = network_of(scope)
        header = _authorization(scope)
        token_id = None if header is None else self._valid.get(header)
        if header is not None and token_id is None and self._failures:
            failed, left_s = self._windows.count(f"failures {address}")
            if failed >= self._failures:
                await _refuse(send, "failures", self._failures, left_s)
                return
        kind = "reads" if scope["method"] in _READS else "writes"
        limit = self._limits["address" if token_id is None else "token", kind]
        headers: list[tuple[bytes, bytes]] = []
        if limit:
            number, left_s = self._windows.add(f"{kind} {address if token_id is None else token_id}")
            if number > limit:
                await _refuse(send, kind, limit, left_s)
                return
            headers = _headers(kind, limit, limit - number, left_s)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                if header is not None:
                    self._learn(scope, header, message["status"], address)
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        await self.app(scope, receive, send_with_limits)

    def _learn(self, scope: Scope, header: bytes, status: int, address: str) -> None:
        found = scope.get("state", {}).get("token_id")
        if found is not None:
            self._valid[header] = found
            self._valid.move_to_end(header)
            if len(self._valid) > _MOST_TOKENS:
                self._valid.popitem(last=False)
        elif status == 401:
            self._valid.pop(header, None)
            if self._failures:
                self._windows.add(f"failures {address}")


def network_of(scope: Scope) -> str:
    """The address that pays for a request: the peer's; of IPv6 the /64, since a household has all of one.

    A proxy's word for it is taken only where uvicorn was told to trust that proxy; then it is the peer here.
    """
    client = scope.get("client")
    address = str(client[0]) if client else "local"
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def _authorization(scope: Scope) -> bytes | None:
    """The digest of the Authorization headers; None where there is none. The token itself is not kept."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if not values:
        return None
    if len(values) > 1 or len(values[0]) > _LONGEST_HEADER_BYTES:
        return b""  # no such header was ever valid
    return hashlib.sha256(values[0]).digest()


def _headers(name: str, limit: int, left: int, left_s: float) -> list[tuple[bytes, bytes]]:
    """What the IETF draft "RateLimit header fields for HTTP" (09) asks, in the form that the hub's client parses."""
    return [
        (b"ratelimit", b'"%b";r=%d;t=%d' % (name.encode(), left, _whole(left_s))),
        (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (name.encode(), limit, WINDOW_S)),
    ]


def _whole(left_s: float) -> int:
    return max(1, int(left_s) + (left_s > int(left_s)))


async def _refuse(send: Send, name: str, limit: int, left_s: float) -> None:
    what = "failed authentications" if name == "failures" else name
    body = orjson.dumps(
        {"error": f"more than {limit} {what} a minute; go on in {_whole(left_s)} seconds, as Retry-After says"}
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(_whole(left_s)).encode()),
        *_headers(name, limit, 0, left_s),
    ]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": body})
