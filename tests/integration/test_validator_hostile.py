"""Hostile partners: each ends in time with its class, in bounded memory, and holds up nobody else."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from test_hostile_servers import (
    STREAM,
    bomb,
    chunk,
    compressed,
    cut_chunked,
    cut_length,
    drip_body,
    drip_headers,
    elsewhere,
    head,
    header_bomb,
    longer_than_said,
    no_answer,
    not_http,
    one_long_line,
    peak_kib,
    serving,
    stall_before_head,
    stall_in_body,
    wrong_path,
)
from validating import validate_once

from roadworthy.database import Database, migrate
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.records import Item, Mapping
from roadworthy.mapping_api.store import mappings, organisations
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.server import running
from roadworthy.validator import tables
from roadworthy.validator.endpoint import Endpoint, EndpointOptions
from roadworthy.validator.outcome import Outcome
from roadworthy.validator.prober import Prober, Terms
from roadworthy.validator.publish import Policy
from roadworthy.validator.schedule import Periods
from roadworthy.validator.store.due import Bounds
from roadworthy.validator.suspicion import Doubts

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
KEY = "sk-of-the-partner-0123456789"
TERMS = Terms(confirm=True, run_timeout_s=3.0)
TIMEOUT_S = 1.0
IN_THE_FLEET = Terms(confirm=True, run_timeout_s=12.0)
"""With fifty validations on two cores at once, healthy ones take seconds too."""
BOUND_S = 2 * TERMS.run_timeout_s + 2.0
"""A run, its confirmation, and the judging of both."""
FIRST_TOKEN_S = 0.05


def pouring(piece: bytes, beginning: bytes | None = None) -> Handler:
    """Says the same for ever, until the caller leaves."""

    async def handler(reader, writer):
        if beginning is None:
            await head(reader, writer, *STREAM)
        while not writer.transport.is_closing():
            writer.write(piece)
            await writer.drain()

    return handler


def saying(body: bytes, *lines: str, status: str = "200 OK") -> Handler:
    """Answers every request with this body."""

    async def handler(reader, writer):
        while True:
            length = f"Content-Length: {len(body)}"
            await head(reader, writer, "Content-Type: application/json", length, *lines, status=status)
            writer.write(body)
            await writer.drain()

    return handler


async def a_good_start(reader, writer):
    """Answers the first question well, and hangs on every other."""
    good = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        }
    ).encode()
    received = await reader.readuntil(b"\r\n\r\n")
    length = received.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    body = await reader.readexactly(int(length or b"0"))
    if b'"max_tokens": 16' in body:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(good), good))
        await writer.drain()
        return
    await asyncio.sleep(60)


async def echoes_the_key(reader, writer):
    received = await reader.readuntil(b"\r\n\r\n")
    body = json.dumps({"error": {"message": "bad: " + received.decode()}}).encode()
    writer.write(b"HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


async def broken_letters(reader, writer):
    await head(reader, writer, *STREAM)
    writer.write(chunk('data: {"choices": [{"delta": {"content": "é'.encode()[:-1]))
    await writer.drain()


HOSTILE: dict[str, tuple[Callable[[], Handler], str]] = {
    "silent": (lambda: stall_before_head, "network"),
    "silent in the body": (lambda: stall_in_body, "network"),
    "drips headers": (lambda: drip_headers, "network"),
    "drips the body": (lambda: drip_body, "network"),
    "endless events": (lambda: pouring(chunk(b"data: {}\n\n" * 500)), "contract"),
    "endless comments": (lambda: pouring(chunk(b": ping\n\n" * 500)), "contract"),
    "endless line": (lambda: pouring(chunk(b"x" * 50_000)), "contract"),
    "a line of 100 MB": (lambda: one_long_line, "contract"),
    "tiny chunks": (lambda: pouring(chunk(b"ab") * 20_000), "contract or network"),
    "20 MB of headers": (lambda: header_bomb, "contract"),
    "early hints for ever": (lambda: pouring(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100, b""), "contract"),
    "cut body": (lambda: cut_length, "network"),
    "cut chunk": (lambda: cut_chunked, "network"),
    "closes": (lambda: no_answer, "network"),
    "is a mail server": (lambda: not_http, "contract"),
    "longer than said": (lambda: longer_than_said, "contract"),
    "gzip bomb": (lambda: compressed(bomb(), "gzip"), "contract"),
    "double gzip bomb": (lambda: compressed(gzip.compress(bomb()), "gzip, gzip"), "contract"),
    "many gzip members": (lambda: compressed(gzip.compress(b"") * 300_000, "gzip"), "contract"),
    "redirects": (lambda: elsewhere, "contract"),
    "redirects to metadata": (
        lambda: saying(b"", "Location: http://169.254.169.254/latest/meta-data/", status="307 Go"),
        "contract",
    ),
    "a web page": (lambda: wrong_path, "contract"),
    "nested deeply": (lambda: saying(b"[" * 200_000), "contract"),
    "nested deeply in an object": (lambda: saying(b'{"choices":' * 50_000), "contract"),
    "a number of 5,000 digits": (lambda: saying(b'{"id": "a", "created": %s}' % (b"9" * 5_000)), "contract"),
    "no UTF-8": (lambda: saying(b'{"id": "\xff\xfe"}'), "contract"),
    "cut in a letter": (lambda: broken_letters, "network"),
    "tells our key": (lambda: echoes_the_key, "provider_5xx"),
    "a good start, then silence": (lambda: a_good_start, "network"),
}


def mapping_of(provider: str) -> Mapping:
    return Mapping(
        "0" * 24, provider, "conversational", "model", "acme/m", None, "acme/chat-1", None, "live",
        created_at_us=0, updated_at_us=0, revision=1,
    )  # fmt: skip


def endpoint(provider: str, port: int) -> Endpoint:
    options = EndpointOptions(timeout_s=TIMEOUT_S)
    return Endpoint(provider=provider, base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, options=options)


@pytest.mark.parametrize("name", HOSTILE)
def test_each_fails_in_time_with_its_class(name):
    make, error_class = HOSTILE[name]

    async def go() -> Outcome:
        async with serving(make()) as port:
            transport = AiohttpTransport()

            async def endpoint_of(provider: str) -> Endpoint:
                return endpoint(provider, port)

            try:
                return await Prober(transport, endpoint_of, TERMS)(mapping_of("mallory"))
            finally:
                await transport.aclose()

    started = time.monotonic()
    outcome = asyncio.run(go())
    assert time.monotonic() - started < BOUND_S
    assert outcome.result == "fails"
    assert outcome.error_class in error_class.split(" or "), outcome.summary
    assert "\n" not in outcome.summary
    assert 20 < len(outcome.summary) <= 500
    assert outcome.recording is not None
    shown = json.dumps([outcome.summary, list(outcome.findings)]) + gzip.decompress(outcome.recording).decode()
    assert KEY not in shown


# All of them at once, beside healthy ones

SERVERS = """
import asyncio, json, sys
sys.path[:0] = {path!r}
import test_validator_hostile as t
asyncio.run(t.serve_all())
"""
SANDBOX = """
import sys
sys.path[:0] = {path!r}
import test_validator_hostile as t
t.serve_sandbox()
"""
FLEET = """
import asyncio, json, sys
sys.path[:0] = {path!r}
import test_validator_hostile as t
asyncio.run(t.fleet(json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
"""


async def serve_all() -> None:
    """Serve every hostile one, and tell the ports, until stdin closes."""
    async with AsyncExitStack() as stack:
        ports = {name: await stack.enter_async_context(serving(make())) for name, (make, _) in HOSTILE.items()}
        print(json.dumps(ports), flush=True)  # noqa: T201
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def serve_sandbox() -> None:
    """Serve a healthy provider, and tell its port, until stdin closes."""
    with running(Sandbox((), Options(api_key=KEY, first_token_delay_s=FIRST_TOKEN_S))) as url:
        print(url.split(":")[2].split("/")[0], flush=True)  # noqa: T201
        sys.stdin.read()


async def fleet(ports: dict[str, int], healthy_port: int, url: str) -> None:
    """Validate all hostile ones and as many healthy ones at once; tell how each ended and when."""
    database = Database(url)
    places = {f"hostile-{number}": port for number, port in enumerate(ports.values())}
    names = dict(zip(places, ports, strict=True))
    places |= {f"healthy-{number}": healthy_port for number in range(20)}
    async with change(database, OPERATOR) as opened:
        for provider in places:
            organisation = await organisations.create_organisation(opened, provider)
            await organisations.create_provider(opened, provider, organisation)
            item = Item("conversational", "acme/chat-1", hf_model="deepseek-ai/DeepSeek-R1", status="live")
            await mappings.create(opened, provider, item)
            row = {"base_url": "", "options": {}, "max_running": 4, "updated_at_us": 0}
            await opened.connection.execute(tables.endpoints.insert().values(provider=provider, **row))

    async def endpoint_of(provider: str) -> Endpoint:
        return endpoint(provider, places[provider])

    transport = AiohttpTransport()
    prober = Prober(transport, endpoint_of, IN_THE_FLEET)
    for _ in range(2):
        await prober(mapping_of("healthy-0"))  # whatever is loaded once
    ended: dict[str, tuple[float, Outcome]] = {}
    started, before_kib = time.monotonic(), peak_kib()

    async def watched(mapping: Mapping) -> Outcome:
        outcome = await prober(mapping)
        ended[mapping.provider] = (time.monotonic() - started, outcome)
        return outcome

    policy = Policy(
        periods=Periods(debounce_s=0), bounds=Bounds(running=100), doubts=Doubts(brake_providers=1000, down_mappings=9)
    )
    published = await validate_once(database, watched, policy)
    told = {
        "published": published,
        "took_s": time.monotonic() - started,
        "grown_mib": (peak_kib() - before_kib) / 1024,
        "hostile": {names[p]: (at, o.result, o.error_class, o.summary) for p, (at, o) in ended.items() if p in names},
        "healthy": [
            (at, o.result, o.figures.time_to_first_token_s, o.summary) for p, (at, o) in ended.items() if p not in names
        ],
    }
    print(json.dumps(told))  # noqa: T201
    await transport.aclose()
    await database.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc, on Linux")
def test_twenty_healthy_ones_beside_all_hostile_ones(request, tmp_path, record_property):
    path = [str(request.path.parent), str(request.path.parent.parent)]
    url = f"sqlite:///{tmp_path}/fleet.db"
    migrate(Database(url).url)
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", script.format(path=path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for script in (SERVERS, SANDBOX)
    ]
    try:
        ports, healthy = (server.stdout.readline() for server in servers if server.stdout)
        command = [sys.executable, "-c", FLEET.format(path=path), ports.strip(), healthy.strip(), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    finally:
        for server in servers:
            server.kill()
            server.communicate()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    healthy_s = sorted(row[0] for row in told["healthy"])
    firsts_s = sorted(row[2] for row in told["healthy"])
    print(  # noqa: T201
        f"{len(told['healthy'])} healthy beside {len(told['hostile'])} hostile: "
        f"healthy done after {healthy_s[0]:.2f} to {healthy_s[-1]:.2f} s, "
        f"first tokens {firsts_s[0]:.3f} to {firsts_s[-1]:.3f} s (told {FIRST_TOKEN_S}); "
        f"all after {told['took_s']:.1f} s, memory grew by {told['grown_mib']:.0f} MiB"
    )
    assert told["published"] == len(HOSTILE) + 20
    assert [row[1:] for row in told["healthy"] if row[1] != "works"] == []
    assert healthy_s[-1] < IN_THE_FLEET.run_timeout_s
    assert firsts_s[-1] < FIRST_TOKEN_S + 1.0
    assert {name: row[1] for name, row in told["hostile"].items()} == dict.fromkeys(HOSTILE, "fails")
    assert told["took_s"] < 2 * IN_THE_FLEET.run_timeout_s + 5
    assert told["grown_mib"] < 256
    record_property("grown_mib", told["grown_mib"])
