"""Sockets that know when bytes reached them.

A busy event loop looks at a socket late, and a clock read then blames the provider
for our own delay. Linux stamps each packet as it arrives (SO_TIMESTAMPNS); this
socket asks for that stamp with every read. Elsewhere the time of the read stands in,
and `exact` says so. Where several packets are read at once, the stamp is the last one's.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import Any

SO_TIMESTAMPNS = 35
CLOCK_STEP_NS = 5_000_000
"""Wall and monotonic clock drift apart by microseconds; more between two reads means that the wall clock was set."""
_TIMESPEC = struct.Struct("@qq")
_ROOM = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0


class StampedSocket(socket.socket):
    """A stream socket that notes, in nanoseconds of the monotonic clock, its last send and last arrival.

    `arrived_ns`  when the newest byte of the last read reached this machine
    `read_ns`     when we read it
    `sent_ns`     when we last handed bytes to the socket
    """

    exact = False
    arrived_ns = 0
    read_ns = 0
    sent_ns = 0
    _offset_ns = 0

    def ask_for_stamps(self) -> None:
        """Switch the kernel's stamps on, where there are any."""
        if not sys.platform.startswith("linux"):
            return
        try:
            self.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError:
            return
        self.exact = True

    def send(self, *args: Any) -> int:
        """See `socket.send`."""
        self.sent_ns = time.monotonic_ns()
        return super().send(*args)

    def sendmsg(self, *args: Any) -> int:
        """See `socket.sendmsg`."""
        self.sent_ns = time.monotonic_ns()
        return super().sendmsg(*args)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """See `socket.recv`."""
        if not self.exact:
            data = super().recv(bufsize, flags)
            self.arrived_ns = self.read_ns = time.monotonic_ns()
            return data
        data, ancillary, _, _ = self.recvmsg(bufsize, _ROOM, flags)
        self._note(ancillary)
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """See `socket.recv_into`."""
        if not self.exact:
            size = super().recv_into(buffer, nbytes, flags)
            self.arrived_ns = self.read_ns = time.monotonic_ns()
            return size
        view = memoryview(buffer)[:nbytes] if nbytes else buffer
        size, ancillary, _, _ = self.recvmsg_into([view], _ROOM, flags)
        self._note(ancillary)
        return size

    def _note(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Carry the stamp, which is wall-clock time, over to the monotonic clock by the offset of this instant.

        A stamp made before the wall clock was set says nothing; the time of the read then stands in.
        """
        now = time.monotonic_ns()
        offset = time.time_ns() - now
        arrived = now
        if not self.read_ns or abs(offset - self._offset_ns) < CLOCK_STEP_NS:
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                    stamped = seconds * 1_000_000_000 + nanoseconds - offset
                    arrived = min(now, max(self.arrived_ns, stamped))
        self._offset_ns = offset
        self.arrived_ns = arrived
        self.read_ns = now
