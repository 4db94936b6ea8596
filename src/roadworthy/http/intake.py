"""What comes back of one request, taken piece by piece under its limits: the part that all transports share."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass, field

from roadworthy.http.decode import Decoder, Refused
from roadworthy.http.message import Failure, FailureKind, Headers, Limits, Read, Reply, Timings, header
from roadworthy.http.sse import Parser, StreamTooLargeError

MAX_READS = 100_000
"""Reads of one body that are kept apart; what a longer drip brings shares the last one's place."""
MAX_HEADERS = 1_000
_DONE = b"[DONE]"
_DONE_EVENT = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\] *(?:\r\n|\r|\n)(?:\r\n|\r|\n)")
_DONE_HEAD_BYTES = len(b"\ndata: ")
_DONE_SPAN_BYTES = 32
"""Longer than any spelling of the event: what is still none after so many bytes is none."""


@dataclass
class Intake:
    """What was seen of one answer so far. Times in nanoseconds of the monotonic clock.

    Whoever feeds it calls `begin` with the head, `take` with each piece of the body, sets `whole` at the
    body's end or `cut` when it will never come, and wakes whoever waits in `until_end`.
    """

    limits: Limits
    asked_ns: int
    status: int | None = None
    headers: Headers = ()
    body: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    wire_bytes: int = 0
    last_read_ns: int = 0
    whole: bool = False
    done: bool = False
    closed_early: bool = False
    failure: Failure | None = None
    cut: Failure | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    _decoder: Decoder | None = None
    _counter: Parser | None = None
    _events: int = 0
    _looks_for_done: bool = False
    _searched: int = 0

    @property
    def left_s(self) -> float:
        """Seconds until the total deadline; zero or less when it has passed."""
        return self.limits.total_timeout_s - (time.monotonic_ns() - self.asked_ns) / 1e9

    @property
    def over(self) -> bool:
        """Whether we want no more of it: a limit is passed, or enough events came."""
        return self.failure is not None or self.closed_early

    def begin(self, status: int, headers: Headers) -> None:
        """Take the response head."""
        self.status, self.headers = status, headers
        size = sum(len(name) + len(value) + len(": \r\n") for name, value in headers)
        if size > self.limits.max_header_bytes or len(headers) > MAX_HEADERS:
            self.failure = head_too_large(self.limits)
            return
        encoding = ",".join(value for name, value in headers if name.lower() == "content-encoding")
        try:
            decoder = Decoder(encoding, self.limits.max_body_bytes)
        except Refused as refused:
            self.failure = refused.failure
            return
        self._decoder = None if decoder.idle else decoder
        self._looks_for_done = "html" not in (header(headers, "content-type") or "").lower()
        if self.limits.close_after_events is not None:
            self._counter = Parser()

    def take(self, arrived_ns: int, piece: bytes) -> None:
        """Take a piece of the body, as it came over the wire."""
        cap = self.limits.max_body_bytes
        room = cap - self.wire_bytes
        self.wire_bytes += len(piece)
        if len(piece) > room:
            piece = piece[:room]
            self.failure = Failure(FailureKind.BODY_TOO_LARGE, f"the body passes the cap of {cap:,} bytes")
        if self._decoder is not None:
            try:
                piece = self._decoder.feed(piece)
            except Refused as refused:
                self.failure = refused.failure
                return
        if not piece:
            return
        self.body += piece
        if len(self.arrivals) < MAX_READS:
            self.arrivals.append((arrived_ns, len(self.body)))
        else:
            self.arrivals[-1] = (arrived_ns, len(self.body))
        if self._counter is not None:
            self._count_events(self._counter, piece)
        if self._looks_for_done and not self.done:
            self._look_for_done()

    def _count_events(self, counter: Parser, piece: bytes) -> None:
        """Only requests that leave a stream early pay for parsing it as it comes."""
        try:
            self._events += sum(1 for _ in counter.feed(piece))
        except StreamTooLargeError:
            self._counter = None  # such a stream is no longer counted: the caps end it
            return
        self.closed_early = self._events >= (self.limits.close_after_events or 0) and not self.whole

    def _look_for_done(self) -> None:
        """Whether the end marker came as an event of its own; text that merely speaks of it is none."""
        while (place := self.body.find(_DONE, self._searched)) >= 0:
            if _DONE_EVENT.search(self.body, max(0, place - _DONE_HEAD_BYTES), place + _DONE_SPAN_BYTES):
                self.done = True
                self.woken.set()
                return
            if len(self.body) - place < _DONE_SPAN_BYTES:
                self._searched = place  # its end may be still to come
                return
            self._searched = place + len(_DONE)
        self._searched = max(self._searched, len(self.body) - len(_DONE) + 1)

    async def until_end(self) -> Failure | None:
        """Wait for the end of the body, or for what ends it before; nobody is woken for a read."""
        limits = self.limits
        begun_ns = time.monotonic_ns()
        done_ns = 0
        while True:
            self.woken.clear()
            if self.over:
                return self.failure
            if self.whole:
                return self._unended()
            if self.cut is not None:
                return self.cut
            now = time.monotonic_ns()
            if self.left_s <= 0:
                return Failure(FailureKind.TOTAL_TIMEOUT, f"not finished within {limits.total_timeout_s:g} s")
            if self.done:
                done_ns = done_ns or now
                wait_s = limits.done_grace_s - (now - done_ns) / 1e9
                end = Failure(
                    FailureKind.NOT_CLOSED, f"the stream stayed open for {limits.done_grace_s:g} s after [DONE]"
                )
            else:
                wait_s = limits.idle_timeout_s - (now - (self.last_read_ns or begun_ns)) / 1e9
                end = Failure(FailureKind.IDLE_TIMEOUT, f"nothing more came for {limits.idle_timeout_s:g} s")
            if wait_s <= 0:
                return end
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, self.left_s)):
                    await self.woken.wait()

    def _unended(self) -> Failure | None:
        if self._decoder is None or self._decoder.whole:
            return None
        return self._decoder.unended

    def reads(self, zero_ns: int) -> tuple[Read, ...]:
        """The arrivals, counted from the zero of the readings."""
        return tuple(Read(max(0, arrived - zero_ns), end) for arrived, end in self.arrivals)

    def reply(self, failure: Failure | None, reads: tuple[Read, ...], timings: Timings) -> Reply:
        """What was seen, as it is handed on."""
        return Reply(
            status=self.status,
            headers=self.headers,
            body=bytes(self.body),
            reads=reads,
            timings=timings,
            failure=failure,
            wire_bytes=self.wire_bytes,
            closed_early=self.closed_early,
        )


def head_too_large(limits: Limits) -> Failure:
    """What is said of a head beyond the cap."""
    return Failure(
        FailureKind.HEADERS_TOO_LARGE, f"the response head passes the cap of {limits.max_header_bytes:,} bytes"
    )
