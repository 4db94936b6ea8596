"""How true our clocks are: time to first token against a server that knows the truth.

Run: `python bench/ttft.py`. A server in a process of its own streams tokens with known delays. It takes the
kernel's stamp of each request's arrival, and the clock at the hand-over of the first token to its socket, and
writes both into its last event; all processes read the same monotonic clock. Three clients, each in a process
of its own, ask it at 1, 50 and 200 streams at once, in interleaved rounds:

  roadworthy    our transport, and afterwards every check of streams on every answer
  transport     our transport alone
  httpx         a plain httpx loop: the clock stops when the loop sees the first token's line

Error is the client's time to first token minus the server's own, so what is over is the client's delay (and
some microseconds of loopback). CPU is the client process's time for each 1,000 chunks, connections and requests
included.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import resource
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

LEVELS = (1, 50, 200)
ROUNDS = 3
SERIAL = 2
"""Streams one after another in a round at level 1, so that there is more than one reading."""
TOKENS = 64
FIRST_TOKEN_S = 0.15
TOKEN_S = 0.02
CLIENTS = ("roadworthy", "transport", "httpx")
SO_TIMESTAMPNS = 35


# The server that knows the truth


@dataclass
class Connection:
    """One client's connection and the stream it is being sent."""

    socket: socket.socket
    received: bytes = b""
    arrived_ns: int = 0
    first_ns: int = 0
    tokens: int = 0
    sent: int = field(default=0)


class Server:
    """A single thread, one selector and a heap of due times: as exact as Python gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        # Accepted connections inherit both.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform.startswith("linux"):
            self._listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._due: list[tuple[int, int, Connection]] = []
        self._order = 0
        self.port = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Serve for ever."""
        while True:
            now = time.monotonic_ns()
            while self._due and self._due[0][0] <= now:
                due_ns, _, connection = heapq.heappop(self._due)
                self._send(connection, due_ns)
                now = time.monotonic_ns()
            wait_s = max(0.0, (self._due[0][0] - now) / 1e9) if self._due else None
            for key, _ in self._selector.select(wait_s):
                if key.fileobj is self._listener:
                    accepted, _ = self._listener.accept()
                    self._selector.register(accepted, selectors.EVENT_READ, Connection(accepted))
                else:
                    self._read(key.data)

    def _read(self, connection: Connection) -> None:
        data, ancillary, _, _ = connection.socket.recvmsg(65536, socket.CMSG_SPACE(16))
        if not data:
            self._selector.unregister(connection.socket)
            connection.socket.close()
            return
        connection.arrived_ns = stamp_ns(ancillary)
        connection.received += data
        head, end, rest = connection.received.partition(b"\r\n\r\n")
        length = next((int(h[15:]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:")), 0)
        if end and len(rest) >= length:
            connection.received = b""
            connection.tokens = json.loads(rest)["max_tokens"]
            connection.sent = 0
            start = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.socket.send(start + event({"role": "assistant", "content": ""}))
            self._plan(connection, time.monotonic_ns() + int(FIRST_TOKEN_S * 1e9))

    def _plan(self, connection: Connection, due_ns: int) -> None:
        self._order += 1
        heapq.heappush(self._due, (due_ns, self._order, connection))

    def _send(self, connection: Connection, due_ns: int) -> None:
        if connection.sent == connection.tokens:
            truth = {"arrived_ns": connection.arrived_ns, "first_ns": connection.first_ns}
            last = event({}, finish_reason="stop", truth=truth)
            connection.socket.send(last + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            return
        token = event({"content": f" word{connection.sent}"})
        if not connection.sent:
            connection.first_ns = time.monotonic_ns()
        connection.socket.send(token)
        connection.sent += 1
        self._plan(connection, due_ns + int(TOKEN_S * 1e9))


def stamp_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The kernel's stamp of what was just read, on the monotonic clock; the clock of now where there is none."""
    now = time.monotonic_ns()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack_from("@qq", data)
            return int(seconds * 1_000_000_000 + nanoseconds) - (time.time_ns() - now)
    return now


def event(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    """One chunk of a chat stream as an HTTP chunk."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": "m"}
    return chunk(b"data: " + json.dumps({**frame, "choices": [choice], **more}).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """Data in chunked transfer encoding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def serve() -> None:
    """Print the port, and serve until standard input closes."""
    server = Server()
    print(server.port, flush=True)
    threading.Thread(target=server.serve, daemon=True).start()
    sys.stdin.read()


# The clients


def body(tokens: int) -> bytes:
    """The request that every client sends."""
    messages = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": "m", "stream": True, "max_tokens": tokens, "messages": messages}).encode()


def error_s(first_ns: int, truth: dict[str, int]) -> float:
    """A reading minus the truth."""
    return (first_ns - (truth["first_ns"] - truth["arrived_ns"])) / 1e9


async def ours(port: int, streams: int, tokens: int, *, judged: bool) -> list[float]:
    """Errors in seconds, measured by our transport; with `judged`, every check of streams is run as well."""
    from roadworthy.conformance.exchange import Exchange
    from roadworthy.http.aiohttp_transport import AiohttpTransport
    from roadworthy.http.message import Limits, Request

    transport = AiohttpTransport()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = Request("POST", url, (("Content-Type", "application/json"),), body(tokens))
    replies = await asyncio.gather(*(transport.send(request, Limits()) for _ in range(streams)))
    await transport.aclose()
    exchanges = [Exchange(f"chat.stream#{n}", "chat.stream", n, request, reply) for n, reply in enumerate(replies, 1)]
    if judged:
        judge_all(exchanges)
    errors = []
    for exchange in exchanges:
        first = exchange.stream.first_token
        assert first is not None
        errors.append(error_s(first.event.at_ns, exchange.stream.chunks[-1].object["truth"]))
    return errors


def judge_all(exchanges: list[Any]) -> None:
    """Run every check that reads the probe "chat.stream"."""
    from roadworthy.conformance.facts import Facts
    from roadworthy.conformance.judge import judge
    from roadworthy.conformance.plan import select

    checks = [check for check in select() if any(probe.id == "chat.stream" for probe in check.probes)]
    judge(checks, exchanges, Facts("http://127.0.0.1/v1", "m"))


async def plain_httpx(port: int, streams: int, tokens: int) -> list[float]:
    """Errors in seconds, measured by a plain httpx loop."""
    import httpx

    async def one(client: httpx.AsyncClient) -> float:
        url, started, first = f"http://127.0.0.1:{port}/v1/chat/completions", time.monotonic_ns(), 0
        truth: dict[str, int] = {}
        async with client.stream("POST", url, content=body(tokens)) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                value = json.loads(line[6:])
                if not first and value["choices"][0]["delta"].get("content"):
                    first = time.monotonic_ns()
                truth = value.get("truth", truth)
        return error_s(first - started, truth)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        return await asyncio.gather(*(one(client) for _ in range(streams)))


def client(name: str, port: int) -> None:
    """Answer each level on standard input with errors and CPU, as JSON, on standard output."""

    def run(streams: int, tokens: int = TOKENS) -> list[float]:
        if name == "httpx":
            return asyncio.run(plain_httpx(port, streams, tokens))
        return asyncio.run(ours(port, streams, tokens, judged=name == "roadworthy"))

    run(1, tokens=2)  # imports, and whatever else is done once
    print("ready", flush=True)
    for line in sys.stdin:
        streams = int(line)
        before = cpu_s()
        rounds = [run(streams) for _ in range(SERIAL if streams == 1 else 1)]
        chunks = len(rounds) * streams * (TOKENS + 2)
        errors = [error for one in rounds for error in one]
        print(json.dumps({"errors": errors, "cpu_ms": (cpu_s() - before) * 1e6 / chunks}), flush=True)


def cpu_s() -> float:
    """CPU time of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# The table


class Child:
    """This file again, in a process of its own, spoken to by lines."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, line: str) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Its next line. Raises `RuntimeError` where it ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"a process of this bench ended: {self._process.args}")
        return line

    def end(self) -> None:
        """End it, and wait for that."""
        self._process.terminate()
        self._process.wait()


def main() -> None:
    """Run the interleaved rounds and print the table."""
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    children = [server := Child("serve")]
    try:
        port = server.hear()
        clients = {name: Child("client", name, port) for name in CLIENTS}
        children += clients.values()
        for child in clients.values():
            child.hear()
        for _ in range(ROUNDS):
            for streams in LEVELS:
                for name, child in clients.items():
                    child.say(str(streams))
                    results.setdefault((name, streams), []).append(json.loads(child.hear()))
    finally:
        for child in children:
            child.end()
    print(f"{'':21}error of time to first token")
    print(
        f"{'streams':>7}  {'client':<11}{'p50 ms':>8}{'p99 ms':>9}{'of httpx':>10}{'CPU ms/1,000':>14}{'of httpx':>10}"
    )
    for streams in LEVELS:
        base = summary(results["httpx", streams])
        for name in CLIENTS:
            p50, p99, cpu_ms = summary(results[name, streams])
            errors = f"{p50:>8.2f}{p99:>9.2f}{p99 / base[1]:>10.4f}"
            print(f"{streams:>7}  {name:<11}{errors}{cpu_ms:>14.1f}{cpu_ms / base[2]:>10.2f}")
    print("\nGoals: p99 at most 5 ms at 50 streams and 25 ms at 200; CPU at most 50 ms at 200 with every check.")


def summary(rounds: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Median and 99th percentile (nearest rank) of the absolute errors in ms, and the median CPU."""
    errors = sorted(abs(error) * 1e3 for one in rounds for error in one["errors"])
    p99 = errors[max(0, -(-99 * len(errors) // 100) - 1)]
    return statistics.median(errors), p99, statistics.median(one["cpu_ms"] for one in rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve()
    elif sys.argv[1:2] == ["client"]:
        client(sys.argv[2], int(sys.argv[3]))
    else:
        main()
