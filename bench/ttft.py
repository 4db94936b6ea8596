"""How true our clocks are: time to first token against a server that knows the truth.

Run: `python bench/ttft.py`. A server in a process of its own streams tokens with known delays and writes
into its last event when it had received the request and when it handed the first token to its socket; both
processes read the same monotonic clock. Three clients, each in a process of its own, ask it at 1, 50 and
200 streams at once, in interleaved rounds:

  roadworthy    our transport, and afterwards every check of streams on every answer
  transport     our transport alone
  httpx         a plain httpx loop: the clock stops when the loop sees the first token's line

Error is the client's time to first token minus the server's own. CPU is the client process's time for each
1,000 chunks.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

LEVELS = (1, 50, 200)
ROUNDS = 3
TOKENS = 40
FIRST_TOKEN_S = 0.15
TOKEN_S = 0.02
CLIENTS = ("roadworthy", "transport", "httpx")


# The server that knows the truth


async def serve() -> None:
    """Stream to everyone who asks, until standard input closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                await reader.readexactly(size)
                received_ns = time.monotonic_ns()
                await stream(writer, received_ns)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def stream(writer: asyncio.StreamWriter, received_ns: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(event({"role": "assistant", "content": ""}))
        await asyncio.sleep(FIRST_TOKEN_S)
        first_ns = time.monotonic_ns()
        writer.write(event({"content": "word"}))
        for number in range(TOKENS - 1):
            await asyncio.sleep(TOKEN_S)
            writer.write(event({"content": f" word{number}"}))
        truth = {"received_ns": received_ns, "first_ns": first_ns}
        writer.write(event({}, finish_reason="stop", truth=truth) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def event(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    """One chunk of a chat stream as an HTTP chunk."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": "m"}
    return chunk(b"data: " + json.dumps({**frame, "choices": [choice], **more}).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """Data in chunked transfer encoding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


# The clients


def body() -> bytes:
    """The request that every client sends."""
    return json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()


async def ours(port: int, streams: int, *, judged: bool) -> list[float]:
    """Errors in seconds, measured by our transport; with `judged`, every check of streams is run as well."""
    from roadworthy.conformance.exchange import Exchange
    from roadworthy.http.aiohttp_transport import AiohttpTransport
    from roadworthy.http.message import Limits, Request

    transport = AiohttpTransport()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = Request("POST", url, (("Content-Type", "application/json"),), body())
    replies = await asyncio.gather(*(transport.send(request, Limits()) for _ in range(streams)))
    await transport.aclose()
    exchanges = [Exchange(f"chat.stream#{n}", "chat.stream", n, request, reply) for n, reply in enumerate(replies, 1)]
    if judged:
        judge_all(exchanges)
    errors = []
    for exchange in exchanges:
        first = exchange.stream.first_token
        truth = exchange.stream.chunks[-1].object["truth"]
        assert first is not None
        errors.append((first.event.at_ns - (truth["first_ns"] - truth["received_ns"])) / 1e9)
    return errors


def judge_all(exchanges: list[Any]) -> None:
    """Run every check that reads the probe "chat.stream"."""
    from roadworthy.conformance.facts import Facts
    from roadworthy.conformance.judge import judge
    from roadworthy.conformance.plan import select

    checks = [check for check in select() if any(probe.id == "chat.stream" for probe in check.probes)]
    judge(checks, exchanges, Facts("http://127.0.0.1/v1", "m"))


async def plain_httpx(port: int, streams: int) -> list[float]:
    """Errors in seconds, measured by a plain httpx loop."""
    import httpx

    async def one(client: httpx.AsyncClient) -> float:
        started = time.monotonic_ns()
        first = 0
        truth: dict[str, int] = {}
        async with client.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", content=body()) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                value = json.loads(line[6:])
                if not first and value["choices"][0]["delta"].get("content"):
                    first = time.monotonic_ns()
                truth = value.get("truth", truth)
        return ((first - started) - (truth["first_ns"] - truth["received_ns"])) / 1e9

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        return await asyncio.gather(*(one(client) for _ in range(streams)))


def client(name: str, port: int, streams: int) -> None:
    """Ask once to import and connect everything, then ask for the record; print errors and CPU as JSON."""

    def run(count: int) -> list[float]:
        if name == "httpx":
            return asyncio.run(plain_httpx(port, count))
        return asyncio.run(ours(port, count, judged=name == "roadworthy"))

    run(1)
    before = resource.getrusage(resource.RUSAGE_SELF)
    errors = run(streams)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"errors": errors, "cpu_ms_per_1000_chunks": cpu_s * 1e6 / (streams * (TOKENS + 2))}))


# The table


def main() -> None:
    """Run the interleaved rounds and print the table."""
    server = subprocess.Popen(
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        for _ in range(ROUNDS):
            for streams in LEVELS:
                for name in CLIENTS:
                    done = subprocess.run(
                        [sys.executable, __file__, "client", name, port, str(streams)],
                        capture_output=True,
                        text=True,
                        check=True,
                    )
                    results.setdefault((name, streams), []).append(json.loads(done.stdout))
    finally:
        server.terminate()
        server.wait()
    print("time to first token: error in ms (p50 / p99); client CPU in ms per 1,000 chunks; ratios to httpx\n")
    print(f"{'streams':>7}  {'client':<11}{'p50':>8}{'p99':>9}{'CPU':>8}{'p99 ratio':>12}{'CPU ratio':>11}")
    for streams in LEVELS:
        base = summary(results["httpx", streams])
        for name in CLIENTS:
            p50, p99, cpu = summary(results[name, streams])
            ratios = f"{p99 / base[1]:>12.3f}{cpu / base[2]:>11.2f}"
            print(f"{streams:>7}  {name:<11}{p50:>8.2f}{p99:>9.2f}{cpu:>8.1f}{ratios}")
    print("\nGoals: p99 at most 5 ms at 50 streams and 25 ms at 200; CPU at most 50 ms with every check.")


def summary(rounds: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Median and 99th percentile of the absolute errors in ms, and the median CPU."""
    errors = sorted(abs(error) * 1e3 for one in rounds for error in one["errors"])
    p99 = errors[max(0, -(-99 * len(errors) // 100) - 1)]
    return statistics.median(errors), p99, statistics.median(one["cpu_ms_per_1000_chunks"] for one in rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve())
    elif sys.argv[1:2] == ["client"]:
        client(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
