"""The transport over real sockets, by aiohttp.

While a response arrives nothing is parsed and no task is woken: each read is noted
with its arrival and left in aiohttp's buffer, and everything is taken out at the end.
That keeps the loop free, so that hundreds of streams can be timed at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from roadworthy.errors import ConfigError
from roadworthy.http.clock import StampedSocket
from roadworthy.http.decode import decode
from roadworthy.http.message import Failure, FailureKind, Headers, Limits, Read, Reply, Request, Timings
from roadworthy.http.sse import parse

DONE = b"[DONE]"
MAX_REDELIVERIES = 1
"""How often a request is sent again because a kept-alive connection turned out to be closed already."""


@dataclass
class _Watch:
    """What is noted of one request while it is under way. Times in nanoseconds of the monotonic clock."""

    limits: Limits
    asked_ns: int
    connecting_ns: int = 0
    connected_ns: int = 0
    reused: bool = False
    socket: StampedSocket | None = None
    protocol: _Protocol | None = None
    zero_ns: int = 0
    head_ns: int = 0
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    lag_ns: int = 0
    last_read_ns: int = 0
    tail: bytes = b""
    pieces: int = 0
    events: int = 0
    done: bool = False
    closed_early: bool = False
    failure: Failure | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def left_s(self) -> float:
        """Seconds until the total deadline; zero or less when it has passed."""
        return self.limits.total_timeout_s - (time.monotonic_ns() - self.asked_ns) / 1e9

    @property
    def quiet_s(self) -> float:
        """Seconds since anything was read."""
        return (time.monotonic_ns() - (self.last_read_ns or self.connected_ns)) / 1e9

    def release(self) -> None:
        """Stop noting: the connection may serve another request from now on."""
        if self.protocol is not None:
            self.protocol.watch = None


_current: contextvars.ContextVar[_Watch] = contextvars.ContextVar("roadworthy_watch")


class _Protocol(ResponseHandler):
    """aiohttp's own protocol, which also notes when each piece of the body arrived."""

    watch: _Watch | None = None
    used = False

    def data_received(self, data: bytes) -> None:
        watch = self.watch
        stamped = watch.socket if watch else None
        if watch is not None:
            now = time.monotonic_ns()
            arrived = stamped.arrived_ns if stamped else now
            watch.last_read_ns = now
            if not watch.zero_ns:
                watch.zero_ns = stamped.sent_ns if stamped else watch.connected_ns
            watch.lag_ns = max(watch.lag_ns, now - arrived)
        super().data_received(data)
        if watch is not None:
            self._note(watch, arrived)

    def _note(self, watch: _Watch, arrived: int) -> None:
        payload = self._payload
        if payload is None:
            return
        watch.head_ns = watch.head_ns or arrived
        total = payload.total_bytes
        if not watch.arrivals or total != watch.arrivals[-1][1]:
            watch.arrivals.append((arrived, total))
        limits = watch.limits
        if total > limits.max_body_bytes:
            watch.failure = Failure(
                FailureKind.BODY_TOO_LARGE, f"the body passes the cap of {limits.max_body_bytes:,} bytes"
            )
            self._hang_up(watch)
            return
        if limits.close_after_events is not None and not payload.is_eof():
            # Only probes that leave a stream early pay for counting its events as they come.
            seen = sum(1 for _ in parse(b"".join(_held(payload))))
            if seen >= limits.close_after_events:
                watch.closed_early = True
                self._hang_up(watch)
                return
        # The end marker is looked for in the body itself: chunked framing may stand inside it on the wire.
        held = _held(payload)
        joint = watch.tail + b"".join([held[place] for place in range(watch.pieces, len(held))])
        watch.pieces = len(held)
        if not watch.done and DONE in joint:
            watch.done = True
            watch.ended.set()
        watch.tail = joint[-len(DONE) :]

    def _hang_up(self, watch: _Watch) -> None:
        watch.ended.set()
        if self.transport is not None:
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """A connector whose sockets are stamped and whose connections tell which request they serve."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._stamped: weakref.WeakValueDictionary[int, StampedSocket] = weakref.WeakValueDictionary()
        super().__init__(limit=0, ssl=tls or True, socket_factory=self._make_socket, ttl_dns_cache=60)
        # aiohttp offers no public way to choose the protocol; tests pin what we rely on here.
        make: Callable[..., ResponseHandler] = _Protocol
        self._factory = functools.partial(make, loop=self._loop)

    def _make_socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = StampedSocket(family, kind, protocol)
        made.ask_for_stamps()
        self._stamped[made.fileno()] = made
        return made

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's signature
        watch = _current.get()
        watch.connecting_ns = time.monotonic_ns()
        connection = await super().connect(req, traces, timeout)
        watch.connected_ns = time.monotonic_ns()
        protocol = connection.protocol
        if isinstance(protocol, _Protocol):
            watch.reused = protocol.used
            protocol.used = True
            protocol.watch = watch
            watch.protocol = protocol
            raw = connection.transport.get_extra_info("socket") if connection.transport else None
            watch.socket = self._stamped.get(raw.fileno()) if raw is not None else None
        return connection


class AiohttpTransport:
    """Sends requests over HTTP/1.1, TLS verified, without proxies, redirects or cookies.

    `ca_file` adds certificates to those of the system. Raises `ConfigError` when it cannot be read.
    """

    def __init__(self, ca_file: Path | None = None) -> None:
        # Without a file of its own aiohttp makes a context when a connection first needs one.
        self._tls: ssl.SSLContext | None = None
        if ca_file is not None:
            self._tls = ssl.create_default_context()
            try:
                self._tls.load_verify_locations(cafile=str(ca_file))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"{ca_file}: expected certificates in PEM form: {error}") from None
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, limits: Limits) -> Reply:
        """See `Transport.send`."""
        asked_ns = time.monotonic_ns()
        for _ in range(MAX_REDELIVERIES):
            watch = _Watch(limits, asked_ns)
            reply = await self._once(request, watch)
            lost = reply.failure is not None and reply.failure.kind is FailureKind.DISCONNECTED
            if not (lost and watch.reused and not watch.last_read_ns):
                return reply
        return await self._once(request, _Watch(limits, asked_ns))

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        if self._session is not None:
            await self._session.close()
            # A TLS connection says goodbye on the loop's next turns.
            await asyncio.sleep(0)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=_Connector(self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    async def _once(self, request: Request, watch: _Watch) -> Reply:
        limits = watch.limits
        _current.set(watch)
        try:
            async with asyncio.timeout(watch.left_s):
                response = await self._open().request(
                    request.method,
                    request.url,
                    headers=list(request.headers),
                    data=request.body,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout_s),
                    read_bufsize=limits.max_body_bytes,
                    max_line_size=limits.max_header_bytes,
                    max_field_size=limits.max_header_bytes,
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            watch.release()
            return _failed(watch, *_why(error, request, watch))
        try:
            failure = await _until_end(response, watch)
        except (aiohttp.ClientError, OSError) as error:
            failure = Failure(FailureKind.TRUNCATED, _cut(response, error))
        except BaseException:
            watch.release()
            response.close()
            raise
        reply = _reply(response, watch, failure)
        watch.release()
        if reply.failure is not None or reply.closed_early:
            response.close()
        else:
            response.release()
        return reply


async def _until_end(response: aiohttp.ClientResponse, watch: _Watch) -> Failure | None:
    """Wait for the end of the body, or for what ends it before; nothing is read meanwhile."""
    limits = watch.limits
    body = response.content
    end = asyncio.ensure_future(body.wait_eof())
    stop = asyncio.ensure_future(watch.ended.wait())
    try:
        while True:
            waiting = {end} if watch.done else {end, stop}
            wait_s = min(limits.done_grace_s if watch.done else limits.idle_timeout_s - watch.quiet_s, watch.left_s)
            await asyncio.wait(waiting, timeout=max(0.0, wait_s), return_when=asyncio.FIRST_COMPLETED)
            if watch.failure is not None or watch.closed_early:
                return watch.failure
            if end.done():
                end.result()
                return None
            if stop not in waiting:
                grace = f"the stream stayed open for {limits.done_grace_s:g} s after [DONE]"
                return Failure(FailureKind.NOT_CLOSED, grace)
            if watch.left_s <= 0:
                return Failure(FailureKind.TOTAL_TIMEOUT, f"not finished within {limits.total_timeout_s:g} s")
            if watch.quiet_s >= limits.idle_timeout_s and not watch.done:
                return Failure(FailureKind.IDLE_TIMEOUT, f"nothing more came for {limits.idle_timeout_s:g} s")
    finally:
        for task in (end, stop):
            task.cancel()
        await asyncio.gather(end, stop, return_exceptions=True)


def _held(body: aiohttp.StreamReader) -> Sequence[bytes]:
    """The pieces of a body that aiohttp holds. After a failure it hands nothing out, yet they are evidence.

    A response that cannot have a body (204, 304) holds none.
    """
    held: Sequence[bytes] = getattr(body, "_buffer", ())
    return held


def _reply(response: aiohttp.ClientResponse, watch: _Watch, failure: Failure | None) -> Reply:
    wire = b"".join(_held(response.content))
    zero = watch.zero_ns or watch.connected_ns
    reads: list[Read] = []
    for arrived, end in watch.arrivals:
        if reads and end <= reads[-1].end:
            continue
        reads.append(Read(max(0, arrived - zero), min(end, len(wire))))
    if wire and (not reads or reads[-1].end < len(wire)):
        at_ns = reads[-1].at_ns if reads else max(0, watch.last_read_ns - zero)
        reads.append(Read(at_ns, len(wire)))
    reads = [read for index, read in enumerate(reads) if read.end > (reads[index - 1].end if index else 0)]
    encoding = ",".join(response.headers.getall("Content-Encoding", []))
    body, moved, trouble = decode(wire, reads, encoding, watch.limits.max_body_bytes)
    if trouble is not None and trouble.kind is FailureKind.TRUNCATED and (failure or watch.closed_early):
        trouble = None
    headers: Headers = tuple(
        (key.decode("latin-1"), value.decode("utf-8", "replace")) for key, value in response.raw_headers
    )
    return Reply(
        status=response.status,
        headers=headers,
        body=body,
        reads=moved,
        timings=_timings(watch, moved),
        failure=failure or trouble,
        wire_bytes=len(wire),
        closed_early=watch.closed_early,
    )


def _timings(watch: _Watch, reads: tuple[Read, ...] = ()) -> Timings:
    zero = watch.zero_ns or watch.connected_ns
    return Timings(
        queued_ns=max(0, watch.connecting_ns - watch.asked_ns),
        connect_ns=None if watch.reused or not watch.connected_ns else watch.connected_ns - watch.connecting_ns,
        headers_ns=max(0, watch.head_ns - zero) if watch.head_ns else None,
        first_byte_ns=reads[0].at_ns if reads else None,
        last_byte_ns=reads[-1].at_ns if reads else None,
        ended_ns=max(0, time.monotonic_ns() - zero) if zero else None,
        uncertainty_ns=watch.lag_ns,
    )


def _failed(watch: _Watch, kind: FailureKind, message: str) -> Reply:
    return Reply(None, timings=_timings(watch), failure=Failure(kind, message))


def _cut(response: aiohttp.ClientResponse, error: Exception) -> str:
    got = response.content.total_bytes
    promised = response.headers.get("Content-Length")
    if promised and promised.isdigit() and int(promised) > got:
        return f"the connection closed after {got:,} of {int(promised):,} bytes"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"the connection closed after {got:,} bytes, before the end of the body"
    return f"the connection broke after {got:,} bytes: {error}"


def _why(error: Exception, request: Request, watch: _Watch) -> tuple[FailureKind, str]:
    """The kind of a failure before any response head, and one sentence for people."""
    limits = watch.limits
    where = request.url.split("/")[2] if request.url.count("/") >= 2 else request.url
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return FailureKind.CONNECT_TIMEOUT, f"no connection to {where} within {limits.connect_timeout_s:g} s"
    if isinstance(error, TimeoutError):
        if not watch.connected_ns:
            return FailureKind.CONNECT_TIMEOUT, f"no connection to {where} within {limits.total_timeout_s:g} s"
        return FailureKind.TOTAL_TIMEOUT, f"no answer from {where} within {limits.total_timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return FailureKind.TLS, f"the certificate of {where} is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return FailureKind.TLS, f"no TLS connection to {where}: {error}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FailureKind.DNS, f"the name of {where} cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, ConnectionRefusedError):
            return FailureKind.REFUSED, f"connection refused by {where}"
        return FailureKind.NETWORK, f"no connection to {where}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | OSError):
        return FailureKind.DISCONNECTED, f"{where} closed the connection without an answer"
    text = str(getattr(error, "message", "") or error)
    if "more than" in text or "too many" in text.lower() or "too long" in text.lower():
        return FailureKind.HEADERS_TOO_LARGE, f"the response head of {where} passes {limits.max_header_bytes:,} bytes"
    if isinstance(error, aiohttp.InvalidURL):
        return FailureKind.BAD_HTTP, f"{request.url!r} cannot be asked for"
    return FailureKind.BAD_HTTP, f"the answer of {where} is not HTTP: {' '.join(text.split())[:200]}"
