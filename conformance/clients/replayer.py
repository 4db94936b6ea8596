"""A server on loopback that answers with recorded exchanges, and calls no one."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from types import TracebackType
from typing import IO, Any, Self

from roadworthy.conformance.exchange import Exchange
from roadworthy.http.message import Read

HOST = "127.0.0.1"
SAFE_HEADERS = ("content-type", "x-request-id", "inference-id", "x-error-code", "x-error-message")
"""Headers that are replayed. None that tells where to go next, how to decode, or how long to wait."""
MAX_REQUEST_BYTES = 64 * 1024 * 1024
_SILENCE_S = 10.0
_WITHOUT_BODY = (204, 304)
_PIECES = 10_000
"""Pieces a body is sent in, at most; a recording may hold more reads than that."""


class Replayer:
    """Answers any method under `/x/<n>/` with recorded exchange `n`, and anything else with 404.

    Listens on a free port of 127.0.0.1 while used as a context manager. A body is sent in the pieces it was
    read in; an answer that broke off breaks off again.
    """

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self.exchanges = tuple(exchanges)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._server = _Server((HOST, 0), _Handler)
        self._server.replayer = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="replayer", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("the replayer listens only inside its `with` block")
        return int(self._server.server_address[1])

    def url(self, number: int) -> str:
        """The base URL under which exchange `number` answers."""
        return f"http://{HOST}:{self.port}/x/{number}"

    def find(self, path: str) -> Exchange | None:
        """The exchange that a request path names."""
        parts = path.partition("?")[0].split("/")
        if len(parts) < 3 or parts[:2] != ["", "x"] or not (parts[2].isascii() and parts[2].isdigit()):
            return None
        if len(parts[2]) > 9 or int(parts[2]) >= len(self.exchanges):
            return None
        return self.exchanges[int(parts[2])]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    replayer: Replayer

    def server_bind(self) -> None:
        """Bind without looking up our own name, which HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is none of our errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_S
    server: _Server

    def answer(self) -> None:
        """Read the request to its end, so that closing the connection resets nothing, and answer."""
        self.close_connection = True
        _skip_body(self.rfile, self.headers.get("content-length"), self.headers.get("transfer-encoding"))
        exchange = self.server.replayer.find(self.path)
        if exchange is None or exchange.status is None:
            self.send_response_only(404)
            self.send_header("content-length", "0")
            self.send_header("connection", "close")
            self.end_headers()
            return
        self.send_response_only(exchange.status)
        for name in SAFE_HEADERS:
            value = exchange.reply.header(name)
            if value is not None and value.isprintable():
                self.send_header(name, value.encode("latin-1", "replace").decode("latin-1"))
        self.send_header("connection", "close")
        bodiless = self.command == "HEAD" or exchange.status in _WITHOUT_BODY
        # A byte is promised that never comes where the recorded answer broke off. (Chunks without an end would not
        # do: Node.js takes them for a whole body where the connection closes.)
        promised = len(exchange.reply.body) + (not exchange.complete)
        self.send_header("content-length", str(promised))
        self.end_headers()
        if not bodiless:
            for piece in pieces(exchange.reply.body, exchange.reply.reads):
                self.wfile.write(piece)
                self.wfile.flush()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815 - stdlib's names

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: what was asked is in `asked`."""


def pieces(body: bytes, reads: Sequence[Read]) -> list[bytes]:
    """The body cut where the recorded reads ended; whole where there are none, or too many."""
    ends = sorted({read.end for read in reads if 0 < read.end < len(body)})
    if len(ends) >= _PIECES:
        ends = []
    cut = [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]
    return [piece for piece in cut if piece]


def _skip_body(file: IO[bytes] | BufferedIOBase, length: str | None, encoding: str | None) -> None:
    """Read what the client sends to its end. Raises ConnectionError for a body beyond the bound or malformed."""
    left = MAX_REQUEST_BYTES
    if encoding is not None and encoding.strip().lower() == "chunked":
        while True:
            head = file.readline(1024).partition(b";")[0].strip()
            try:
                size = int(head, 16)
            except ValueError:
                raise ConnectionError("a chunk of the request has no length") from None
            left -= size
            if left < 0:
                raise ConnectionError("the request is beyond the bound")
            if size == 0:
                while file.readline(1024).strip():
                    pass
                return
            file.read(size + 2)
    elif length is not None and length.isdigit():
        if int(length) > left:
            raise ConnectionError("the request is beyond the bound")
        file.read(int(length))
