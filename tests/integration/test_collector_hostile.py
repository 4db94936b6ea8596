"""Hostile cost endpoints on real sockets: each turn ends in time with its trouble, and nothing is settled."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import time

import pytest
from collecting import assert_sound, collecting, rows, tally
from costs import register, served, take_in
from test_hostile_servers import (
    bomb,
    compressed,
    cut_length,
    drip_body,
    drip_headers,
    elsewhere,
    endless,
    head,
    header_bomb,
    no_answer,
    not_http,
    serving,
    stall_before_head,
    stall_in_body,
)

from roadworthy.billing.collector import Collector
from roadworthy.billing.schedule import Policy
from roadworthy.billing.tables import batches
from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.sealing import Sealer

pytestmark = pytest.mark.anyio
QUICK = Policy(timeout_s=1.0, answer_max_bytes=1_000_000)


def saying(body, *lines, status="200 OK"):
    async def handler(reader, writer):
        while True:
            await head(reader, writer, f"Content-Length: {len(body)}", *lines, status=status)
            writer.write(body)
            await writer.drain()

    return handler


async def a_gigabyte(reader, writer):
    await head(reader, writer, "Content-Type: application/json", f"Content-Length: {10**9}")
    while not writer.transport.is_closing():
        writer.write(b" " * 100_000)
        await writer.drain()


async def closed_early(reader, writer):
    """No length, and the connection is closed in the middle of the list: only the JSON tells."""
    await head(reader, writer, "Content-Type: application/json", "Connection: close")
    writer.write(b'{"requests": [{"requestId": "r0", "costNanoUsd": 5}')
    await writer.drain()


HOSTILE = {
    "silent": (lambda: stall_before_head, "timeout"),
    "silent in the body": (lambda: stall_in_body, "timeout"),
    "drips headers": (lambda: drip_headers, "timeout"),
    "drips the body": (lambda: drip_body, "timeout"),
    "a gigabyte": (lambda: a_gigabyte, "unreadable"),
    "endless": (lambda: endless(b"[" * 50_000), "unreadable"),
    "20 MB of headers": (lambda: header_bomb, "unreadable"),
    "truncated": (lambda: cut_length, "unreadable"),
    "closed early": (lambda: closed_early, "unreadable"),
    "closes": (lambda: no_answer, "unreached"),
    "is a mail server": (lambda: not_http, "unreached"),
    "gzip bomb": (lambda: compressed(bomb(), "gzip"), "unreadable"),
    "double gzip bomb": (lambda: compressed(gzip.compress(bomb()), "gzip, gzip"), "unreadable"),
    "redirects": (lambda: elsewhere, "unreached"),
    "a web page": (lambda: saying(b"<html>fine</html>", "Content-Type: text/html"), "unreadable"),
    "nested deeply": (lambda: saying(b"[" * 200_000), "unreadable"),
    "an error": (lambda: saying(b"{}", status="500 Oh"), "server_error"),
    "too many requests": (lambda: saying(b"{}", "Retry-After: 1e400", status="429 Wait"), "rate_limited"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_each_ends_in_time_and_settles_nothing(migrated_sqlite, tmp_path, name):
    make, trouble = HOSTILE[name]
    path = tmp_path / "billing.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    database = Database(f"sqlite:///{path}")
    transport = AiohttpTransport()
    async with serving(make()) as port:
        await register(database, url=f"http://127.0.0.1:{port}/costs")
        await take_in(database, served("r0"), served("r1"))
        async with asyncio.timeout(20):
            (came,) = await Collector(database, Sealer(None), transport, QUICK).once()
    await transport.aclose()
    assert came.trouble is not None
    assert came.trouble.trouble == trouble, came.trouble.detail
    assert "\n" not in came.trouble.detail
    assert await tally(database) == {"pending": 2}
    assert {row["outcome"] for row in await rows(database, batches)} == {trouble}
    await assert_sound(database)
    await database.close()


async def test_sigterm_and_kill_9_of_a_collecting_process(database_url):
    """A real process on real sockets: told to stop, it gives its turn back; killed, another takes over in time."""
    database = Database(database_url)
    asked = asyncio.Event()
    answers = asyncio.Event()

    async def slow(reader, writer):
        asked.set()
        await asyncio.wait_for(answers.wait(), 30)
        body = b'{"requests": [{"requestId": "r0", "costNanoUsd": 5}]}'
        await head(reader, writer, "Content-Type: application/json", f"Content-Length: {len(body)}")
        writer.write(body)
        await writer.drain()

    async with serving(slow) as port:
        await register(database, url=f"http://127.0.0.1:{port}/costs")
        await take_in(database, served("r0"))
        for number in (signal.SIGTERM, signal.SIGKILL):
            asked.clear()
            with collecting(database_url, timeout_s=1 if number == signal.SIGKILL else 50, lease_s=60) as process:
                await asyncio.wait_for(asked.wait(), 30)
                begun = time.monotonic()
                os.kill(process.pid, number)
                await asyncio.to_thread(process.join, 30)
                assert process.exitcode == (0 if number == signal.SIGTERM else -9)
                assert time.monotonic() - begun < 20
            await assert_sound(database)
            assert await tally(database) == {"pending": 1}
        answers.set()
        async with database.writing() as connection:  # the lease of the one that was killed has ended
            await connection.exec_driver_sql("UPDATE cost_endpoints SET lease_until_us = 1")
        transport = AiohttpTransport()
        await Collector(database, Sealer(None), transport).once()
        await transport.aclose()
    await assert_sound(database)
    assert await tally(database) == {"settled": 1}
    await database.close()
