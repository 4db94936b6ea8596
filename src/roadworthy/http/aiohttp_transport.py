"""The transport over real sockets, by aiohttp."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from roadworthy.http.message import Failure, FailureKind, Limits, Read, Reply, Request, Timings


class AiohttpTransport:
    """Sends requests over HTTP/1.1 without proxies, redirects or cookies."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, limits: Limits) -> Reply:
        """See `Transport.send`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        sent = time.monotonic_ns()
        try:
            async with asyncio.timeout(limits.total_timeout_s):
                async with self._session.request(
                    request.method, request.url, headers=list(request.headers), data=request.body, allow_redirects=False
                ) as response:
                    headers_ns = time.monotonic_ns() - sent
                    body = bytearray()
                    reads = []
                    async for piece in response.content.iter_any():
                        body += piece
                        reads.append(Read(time.monotonic_ns() - sent, len(body)))
                        if limits.close_after_events and body.count(b"data:") >= limits.close_after_events:
                            response.close()
                            break
                    return Reply(
                        response.status,
                        tuple((k, v) for k, v in response.headers.items()),
                        bytes(body),
                        tuple(reads),
                        Timings(
                            headers_ns=headers_ns,
                            first_byte_ns=reads[0].at_ns if reads else None,
                            last_byte_ns=reads[-1].at_ns if reads else None,
                        ),
                        wire_bytes=len(body),
                    )
        except TimeoutError:
            return Reply(None, failure=Failure(FailureKind.TOTAL_TIMEOUT, "no complete answer in time"))
        except aiohttp.ClientConnectorError as error:
            return Reply(None, failure=Failure(FailureKind.REFUSED, str(error)))
        except aiohttp.ClientError as error:
            return Reply(None, failure=Failure(FailureKind.BAD_HTTP, str(error)))

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        if self._session is not None:
            await self._session.close()
