"""A provider's cost endpoint in a process of its own, whose costs anybody can reckon from the id alone.

Run: `python tests/cost_server.py`; its first line is the URL, and it ends when stdin closes. It leaves some ids out
when it is first asked for them, repeats one, adds one that was not asked for, and answers in an order of its own.
`GET` of the same URL gives its own record: how many ids it was asked for, how often, and what they cost together.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import orjson

LEFT_OUT_AT_FIRST = 40
"""One id in so many is left out of the first answer."""


def cost_of(id: str) -> int:
    """What the request cost, in nano-USD: mostly less than a cent, sometimes nothing, sometimes hundreds of dollars."""
    drawn = int.from_bytes(blake2b(id.encode(), digest_size=8).digest(), "big")
    if drawn % 50 == 0:
        return 0
    return drawn % (10**12 if drawn % 997 == 0 else 10**7)


class Record:
    """What the provider knows of the ids that it was asked for."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}
        self.questions = 0

    def answer(self, ids: list[str]) -> bytes:
        """The costs of these ids, as JSON."""
        self.questions += 1
        items = []
        for id in ids:
            times = self.times[id] = self.times.get(id, 0) + 1
            cost = cost_of(id)
            if times > 1 or cost % LEFT_OUT_AT_FIRST != 1:
                items.append({"requestId": id, "costNanoUsd": cost})
        items.reverse()
        items += items[:1]
        items.append({"requestId": "of-somebody-else", "costNanoUsd": 10**9})
        return orjson.dumps({"requests": items})

    def told(self) -> dict[str, int]:
        """The record itself."""
        return {
            "questions": self.questions,
            "ids": len(self.times),
            "times": sum(self.times.values()),
            "nano_usd": sum(map(cost_of, self.times)),
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.held = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer when the request is whole."""
        self.held += data
        head, mark, body = bytes(self.held).partition(b"\r\n\r\n")
        if not mark:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or b"0"):
            return
        self.held.clear()
        asked = head.startswith(b"POST")
        told = self.record.answer(orjson.loads(body)["requestIds"]) if asked else orjson.dumps(self.record.told())
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told)
        )


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    record = Record()
    server = await loop.create_server(lambda: Connection(record), "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/request-costs\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def cost_server() -> Iterator[str]:
    """The URL of a provider, while its process runs."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.communicate()


def record_of(url: str) -> dict[str, int]:
    """The provider's own record."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


if __name__ == "__main__":
    asyncio.run(_serve())
