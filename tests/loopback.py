"""Raw servers on loopback, and our transport asking them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.message import Limits, Reply, Request

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve with `handler` on a free loopback port; nothing of it is left afterwards."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            with contextlib.suppress(AttributeError):  # asyncio's own, where a transport has just closed itself
                writer.transport.abort()
        await asyncio.sleep(0.01)


def ask(
    handler: Handler,
    limits: Limits | None = None,
    *,
    times: int = 1,
    method: str = "POST",
    tls: ssl.SSLContext | None = None,
    ca_file: Path | None = None,
) -> list[Reply]:
    """Send a server with this handler requests over one transport, one after another."""

    async def go() -> list[Reply]:
        async with serving(handler, tls) as port:
            transport = AiohttpTransport(ca_file)
            url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1/chat/completions"
            request = Request(method, url, (("X-Key", "sk-1"),), b"{}" if method == "POST" else None)
            try:
                return [await transport.send(request, limits or Limits(total_timeout_s=5)) for _ in range(times)]
            finally:
                await transport.aclose()

    return asyncio.run(go())


async def asked(reader: asyncio.StreamReader) -> bytes:
    """Wait for a whole request; give its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"content-length: " in head.lower():
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
    return head


def chunk(data: bytes) -> bytes:
    """Data in chunked transfer encoding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


END = chunk(b"")
