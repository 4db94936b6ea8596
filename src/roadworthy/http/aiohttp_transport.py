"""The transport over real sockets, by aiohttp.

While a response arrives nothing is parsed and no task is woken: each read is noted with
its arrival and its bytes are put by. That keeps the loop free, so that hundreds of streams
can be timed at once. aiohttp frames HTTP; decompression, caps, deadlines and clocks are ours.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
import socket
import ssl
import time
import weakref
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD

from roadworthy.errors import ConfigError, ForbiddenTargetError
from roadworthy.http.clock import StampedSocket
from roadworthy.http.intake import MAX_HEADERS, Intake, head_too_large
from roadworthy.http.message import Failure, FailureKind, Headers, Limits, Read, Reply, Request, Timings, header

if TYPE_CHECKING:
    from roadworthy.http.guard import Guard

KEEP_ALIVE_S = 4.0
"""An idle connection is given up after this long: many servers close theirs after 5 s, just as we would ask again."""
MAX_REDELIVERIES = 1
"""How often a request is sent again because a kept-alive connection turned out to be closed already."""
BUFFER_BYTES = 1024 * 1024
"""What aiohttp may hold of a body between two reads of ours."""
HEAD_END = b"\r\n\r\n"
BEAT_S = 0.01
"""How often the loop's lag is measured where the system stamps no arrivals."""


@dataclass
class _Watch(Intake):
    """What is noted of one request while it is under way."""

    connecting_ns: int = 0
    connected_ns: int = 0
    reused: bool = False
    socket: StampedSocket | None = None
    protocol: _Protocol | None = None
    zero_ns: int = 0
    payload: Any = None
    head_bytes: int = 0
    head_ns: int = 0
    lag_ns: int = 0

    def start_clock(self) -> None:
        """Set the zero of all readings: when the request's last bytes were handed to the socket."""
        sent_ns = self.socket.sent_ns if self.socket else 0
        self.zero_ns = max(sent_ns, self.connected_ns)

    def release(self) -> None:
        """Stop noting: the connection may serve another request from now on."""
        if self.protocol is not None and self.protocol.watch is self:
            self.protocol.watch = None


_current: contextvars.ContextVar[_Watch] = contextvars.ContextVar("roadworthy_watch")


class _Protocol(ResponseHandler):
    """aiohttp's own protocol, which also tells when each piece of the body arrived, and stops at our limits."""

    watch: _Watch | None = None
    used = False
    _taking = False

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take a response head, as aiohttp's parser made it, before anybody reads it."""
        head, payload = data
        watch = self.watch
        if watch is not None and watch.payload is None and (head.code >= 200 or head.code == 101):
            watch.payload = payload
            watch.begin(head.code, _decoded(head.raw_headers))
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Take what one read brought."""
        watch = self.watch
        if watch is None or self._taking:
            # aiohttp calls itself again, without data, where it had paused: the loop below takes what that makes.
            super().data_received(data)
            return
        stamped = watch.socket
        now = stamped.read_ns if stamped is not None else time.monotonic_ns()
        arrived = stamped.arrived_ns if stamped is not None else now
        watch.last_read_ns = now
        watch.lag_ns = max(watch.lag_ns, now - arrived)
        if not watch.zero_ns:
            watch.start_clock()
        if watch.payload is None:
            watch.head_bytes += len(data)
            # aiohttp forgets a head that came in one piece with a broken body; so the head goes in by itself.
            place = data.find(HEAD_END) + len(HEAD_END)
            if len(HEAD_END) <= place < len(data):
                super().data_received(data[:place])
                data = data[place:]
        super().data_received(data)
        broken = self.exception()
        if watch.payload is not None:
            watch.head_ns = watch.head_ns or arrived
            if isinstance(broken, HttpProcessingError) and not watch.over:
                self._take(watch, arrived)
                watch.failure = watch.failure or _broken(watch, broken)
            self._take(watch, arrived)
        elif watch.head_bytes > watch.limits.max_header_bytes and broken is None:
            watch.failure = head_too_large(watch.limits)
            self._hang_up(watch)

    def _take(self, watch: _Watch, arrived: int) -> None:
        payload = watch.payload
        watch.whole = payload.is_eof()
        self._taking = True
        try:
            while not watch.over and _holds(payload):
                watch.take(arrived, _drained(payload))
                if self._reading_paused:
                    self.resume_reading()  # which may well fill the buffer again
        finally:
            self._taking = False
        watch.whole = payload.is_eof()
        if watch.over:
            self._hang_up(watch)
        elif watch.whole:
            watch.woken.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wake who waits for the body."""
        watch = self.watch
        super().connection_lost(exc)
        if watch is not None:
            if watch.payload is not None:
                self._take(watch, watch.last_read_ns)
                watch.cut = _cut(watch)
            watch.woken.set()

    def _hang_up(self, watch: _Watch) -> None:
        watch.woken.set()
        if self.transport is not None:
            self.transport.abort()


def _holds(payload: Any) -> bool:
    return payload is not EMPTY_PAYLOAD and bool(payload._buffer)  # noqa: SLF001


def _drained(payload: Any) -> bytes:
    """What aiohttp holds of a body.

    The public way refuses after a broken body, though what had come before is evidence all the same, and
    goes through the parser once more for every read.
    """
    pieces = payload._buffer  # noqa: SLF001
    piece: bytes = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()
    payload._size = 0  # noqa: SLF001
    payload._cursor += len(piece)  # noqa: SLF001
    if payload._http_chunk_splits:  # noqa: SLF001
        payload._http_chunk_splits.clear()  # noqa: SLF001
    return piece


class _Beat:
    """Measures the loop's lag, while there are requests whose arrivals nobody stamps."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Watch] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0

    def add(self, watch: _Watch) -> None:
        """Measure on behalf of this request, too."""
        self._by_id[id(watch)] = watch
        if self._handle is None:
            self._plan()

    def drop(self, watch: _Watch) -> None:
        """This request is over."""
        self._by_id.pop(id(watch), None)

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + BEAT_S
        self._handle = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        late_ns = int((asyncio.get_running_loop().time() - self._due) * 1e9)
        for watch in self._by_id.values():
            watch.lag_ns = max(watch.lag_ns, late_ns)
        self._handle = None
        if self._by_id:
            self._plan()


class _Connector(aiohttp.TCPConnector):
    """A connector whose sockets are stamped and whose connections tell which request they serve."""

    def __init__(self, tls: ssl.SSLContext | bool, beat: _Beat, guard: Guard | None = None) -> None:
        self._stamped: weakref.WeakValueDictionary[int, StampedSocket] = weakref.WeakValueDictionary()
        self._beat = beat
        self._guard = guard
        super().__init__(
            limit=0,
            ssl=tls,
            socket_factory=self._make_socket,
            resolver=guard.resolver if guard else None,
            use_dns_cache=guard is None,
            ttl_dns_cache=60,
            keepalive_timeout=KEEP_ALIVE_S,
        )
        # aiohttp offers no public way to choose the protocol; tests pin what we rely on here.
        make: Callable[..., ResponseHandler] = _Protocol
        self._factory = functools.partial(make, loop=self._loop)

    def _make_socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, place = address
        if self._guard is not None:
            self._guard.permit(place[0])
        if not isinstance(self._loop, BaseSelectorEventLoop):
            # Such a loop (uvloop) takes the descriptor and reads by itself: a socket of ours would never see a byte.
            return socket.socket(family, kind, protocol)
        made = StampedSocket(family, kind, protocol)
        made.ask_for_stamps()
        self._stamped[made.fileno()] = made
        return made

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's signature
        watch = _current.get()
        if watch.connected_ns:
            # aiohttp asks again on its own for some methods; whether to do so is decided in `send`, for all alike.
            raise aiohttp.ServerDisconnectedError
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
        if watch.socket is None or not watch.socket.exact:
            self._beat.add(watch)
        return connection


class AiohttpTransport:
    """Sends requests over HTTP/1.1, TLS verified, without proxies, redirects or cookies.

    `ca_file` adds certificates to those of the system. Raises `ConfigError` when it cannot be read.
    With a `guard` only targets that it lets through are connected to; the guard stays the caller's to close.
    """

    def __init__(self, ca_file: Path | None = None, guard: Guard | None = None) -> None:
        self._guard = guard
        # Without a file of its own it shares the verifying context that aiohttp has made already.
        self._tls: ssl.SSLContext | bool = True
        if ca_file is not None:
            self._tls = ssl.create_default_context()
            try:
                self._tls.load_verify_locations(cafile=str(ca_file))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"{ca_file}: expected certificates in PEM form: {error}") from None
        self._session: aiohttp.ClientSession | None = None
        self._keeper: StampedSocket | None = None
        self._beat = _Beat()

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
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        if self._session is not None:
            await self._session.close()
            # A TLS connection says goodbye on the loop's next turns.
            await asyncio.sleep(0)

    def _open(self) -> aiohttp.ClientSession:
        if self._keeper is None:
            # The kernel begins to stamp a moment after the first socket asks for it, and stops with the last one:
            # an idle one keeps it going between connections.
            self._keeper = StampedSocket()
            self._keeper.ask_for_stamps()
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=_Connector(self._tls, self._beat, self._guard),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    async def _once(self, request: Request, watch: _Watch) -> Reply:
        _current.set(watch)
        response = None
        failure: Failure | None
        try:
            try:
                async with asyncio.timeout(watch.left_s):
                    response = await self._ask(request, watch.limits)
            except ForbiddenTargetError as error:
                failure = Failure(FailureKind.FORBIDDEN, str(error))
            except (aiohttp.ClientError, OSError, ValueError) as error:
                failure = watch.failure or Failure(*_why(error, request, watch))
            else:
                failure = await watch.until_end()
            reads = watch.reads(_zero_ns(watch))
            reply = watch.reply(failure, reads, _timings(watch, reads))
        except BaseException:
            if response is not None:
                response.close()
            raise
        finally:
            watch.release()
            self._beat.drop(watch)
        if response is not None:
            if reply.failure is not None or reply.closed_early:
                response.close()
            else:
                response.release()
        return reply

    async def _ask(self, request: Request, limits: Limits) -> aiohttp.ClientResponse:
        if self._guard is not None:
            self._guard.check(request.url)
        return await self._open().request(
            request.method,
            request.url,
            headers=list(request.headers),
            data=_sendable(request.body),
            allow_redirects=False,
            # A threshold so high that no timeout is rounded up to a whole second.
            timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_timeout_s, ceil_threshold=1e9),
            read_bufsize=BUFFER_BYTES,
            max_line_size=limits.max_header_bytes,
            max_field_size=limits.max_header_bytes,
            max_headers=MAX_HEADERS,
        )


def _sendable(body: bytes | None) -> bytes | io.BytesIO | None:
    """A large body goes out piece by piece: in one write it would hold up the loop."""
    return io.BytesIO(body) if body is not None and len(body) > BUFFER_BYTES else body


def _decoded(raw_headers: Any) -> Headers:
    return tuple((name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in raw_headers)


def _zero_ns(watch: _Watch) -> int:
    if not watch.zero_ns and watch.connected_ns:
        watch.start_clock()
    return watch.zero_ns


def _timings(watch: _Watch, reads: tuple[Read, ...]) -> Timings:
    zero = _zero_ns(watch)
    return Timings(
        queued_ns=max(0, (watch.connecting_ns or time.monotonic_ns()) - watch.asked_ns),
        connect_ns=None if watch.reused or not watch.connected_ns else watch.connected_ns - watch.connecting_ns,
        headers_ns=max(0, watch.head_ns - zero) if watch.head_ns else None,
        first_byte_ns=reads[0].at_ns if reads else None,
        last_byte_ns=reads[-1].at_ns if reads else None,
        ended_ns=max(0, time.monotonic_ns() - zero) if zero else None,
        uncertainty_ns=watch.lag_ns,
    )


def _broken(watch: _Watch, error: HttpProcessingError) -> Failure:
    """Why what came after the head is no HTTP."""
    where = "of the body more came, which" if watch.whole else "the body's framing"
    return Failure(FailureKind.BAD_HTTP, f"after {watch.wire_bytes:,} bytes {where} is not HTTP: {_plain(error)}")


def _plain(error: Exception) -> str:
    """The words of an error of aiohttp on one line, without its drawing of the place."""
    return " ".join(str(getattr(error, "message", "") or error).split()).removesuffix("^").strip()[:200]


def _cut(watch: _Watch) -> Failure:
    """Why a body ended before its end."""
    got = watch.wire_bytes
    promised = header(watch.headers, "content-length") or ""
    if promised.isascii() and promised.isdigit() and int(promised[:18]) > got:
        return Failure(FailureKind.TRUNCATED, f"the connection closed after {got:,} of {int(promised[:18]):,} bytes")
    return Failure(FailureKind.TRUNCATED, f"the connection closed after {got:,} bytes, before the end of the body")


def _why(error: Exception, request: Request, watch: _Watch) -> tuple[FailureKind, str]:
    """The kind of a failure before any response head, and one sentence for people."""
    limits = watch.limits
    where = request.url.split("/")[2].rpartition("@")[2] if request.url.count("/") >= 2 else request.url
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return FailureKind.CONNECT_TIMEOUT, f"no connection to {where} within {limits.connect_timeout_s:g} s"
    if isinstance(error, TimeoutError):
        if not watch.connected_ns:
            return FailureKind.CONNECT_TIMEOUT, f"no connection to {where} within {limits.total_timeout_s:g} s"
        return FailureKind.TOTAL_TIMEOUT, f"no answer from {where} within {limits.total_timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        return FailureKind.TLS, f"the certificate of {where} is not trusted: {reason.rstrip('.')}"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return FailureKind.TLS, f"no TLS connection to {where}: {_tls_reason(error)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FailureKind.DNS, f"the name of {where} cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, ConnectionRefusedError):
            return FailureKind.REFUSED, f"connection refused by {where}"
        return FailureKind.NETWORK, f"no connection to {where}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | OSError):
        return FailureKind.DISCONNECTED, f"{where} closed the connection without an answer"
    if isinstance(error, aiohttp.InvalidURL | aiohttp.InvalidUrlClientError | ValueError):
        return FailureKind.BAD_HTTP, f"{request.url!r} cannot be asked for"
    text = _plain(error)
    if "more than" in text or "too many" in text.lower():
        too_large = head_too_large(limits)
        return too_large.kind, too_large.message
    return FailureKind.BAD_HTTP, f"the answer of {where} is not HTTP: {text}"


def _tls_reason(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    reason = (getattr(cause, "reason", None) or str(cause)).replace("_", " ").lower()
    return f"{reason} (is that a plain HTTP port?)" if "wrong version" in reason or "record layer" in reason else reason
