"""What goes out, what comes back, and the clock readings in between.

All readings are integers in nanoseconds on one monotonic clock, counted from
the moment the request's bytes were handed to the socket (`Timings.sent`, the
zero). Set-up before that moment is counted backwards in its own fields, so a
slow name server can never be mistaken for a slow provider.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

Headers = tuple[tuple[str, str], ...]


def header(headers: Headers, name: str) -> str | None:
    """The first value of a header, by case-insensitive name."""
    wanted = name.lower()
    return next((value for key, value in headers if key.lower() == wanted), None)


class FailureKind(StrEnum):
    """Why no complete answer came. The value is stable: recordings hold it."""

    DNS = "dns"
    REFUSED = "refused"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    TOTAL_TIMEOUT = "total_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    DISCONNECTED = "disconnected"
    TRUNCATED = "truncated"
    BODY_TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    BAD_HTTP = "bad_http"
    BAD_ENCODING = "bad_encoding"
    NOT_CLOSED = "not_closed"
    NETWORK = "network"
    FORBIDDEN = "forbidden"

    @property
    def is_network(self) -> bool:
        """Whether the target was never reached, so nothing can be said of it."""
        return self in _UNREACHED


_UNREACHED = {
    FailureKind.DNS,
    FailureKind.REFUSED,
    FailureKind.CONNECT_TIMEOUT,
    FailureKind.TLS,
    FailureKind.NETWORK,
    FailureKind.FORBIDDEN,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A transport failure: its kind and one sentence for people."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `url` is absolute; `body` is sent byte for byte."""

    method: str
    url: str
    headers: Headers = ()
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one exchange. Every one of them ends it with a `Failure`."""

    connect_timeout_s: float = 10.0
    total_timeout_s: float = 60.0
    idle_timeout_s: float = 30.0
    """Longest silence between two reads of the body."""
    max_body_bytes: int = 8 * 1024 * 1024
    """Counted before and after decompression."""
    max_header_bytes: int = 64 * 1024
    done_grace_s: float = 1.0
    """How long a stream may stay open after its `[DONE]` event."""
    close_after_events: int | None = None
    """Hang up on purpose after so many server-sent events (early-close probes)."""


@dataclass(frozen=True, slots=True)
class Read:
    """A piece of the body: bytes up to offset `end` had arrived at `at_ns`."""

    at_ns: int
    end: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Clock readings in nanoseconds; positive ones count from the request's hand-over to the socket.

    `queued_ns`   spent waiting inside our own client before set-up began
    `connect_ns`  name look-up, TCP and TLS; None where a connection was reused
    `headers_ns`  response head complete
    `first_byte_ns`, `last_byte_ns`  of the body
    `ended_ns`    the exchange was over: whole, given up, or cut
    `uncertainty_ns`  how far any reading may be late because our own process was busy
    """

    queued_ns: int = 0
    connect_ns: int | None = None
    headers_ns: int | None = None
    first_byte_ns: int | None = None
    last_byte_ns: int | None = None
    ended_ns: int | None = None
    uncertainty_ns: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """Everything that came back. `status` is None when no response head arrived.

    `body` is decoded (`content-encoding` undone within the caps); a body cut off
    by a failure holds what had arrived. `closed_early` marks our own hanging up.
    """

    status: int | None
    headers: Headers = ()
    body: bytes = b""
    reads: tuple[Read, ...] = ()
    timings: Timings = field(default_factory=Timings)
    failure: Failure | None = None
    wire_bytes: int = 0
    closed_early: bool = False

    def header(self, name: str) -> str | None:
        """The first value of a response header, by case-insensitive name."""
        return header(self.headers, name)


class Transport(Protocol):
    """Sends one request and never raises for what a server does: it reports it."""

    async def send(self, request: Request, limits: Limits) -> Reply:
        """Send `request`, obey `limits`, and return what was seen."""
        ...

    async def aclose(self) -> None:
        """Give back every connection."""
        ...
