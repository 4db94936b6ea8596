"""The transport against hostile servers: each ends within its deadline, in bounded memory, with a clear word."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import loopback
import pytest
from loopback import Handler, chunk, serving

from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.run import Run, Runner, Settings
from roadworthy.conformance.target import Target
from roadworthy.conformance.verdict import Verdict
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.message import FailureKind, Limits, Reply, Request

QUICK = Limits(
    connect_timeout_s=1.0, total_timeout_s=1.0, idle_timeout_s=0.4, done_grace_s=0.3, max_body_bytes=1_000_000
)
MEGABYTE = 1_000_000


def ask(handler: Handler, limits: Limits = QUICK, *, times: int = 1, tls: ssl.SSLContext | None = None) -> list[Reply]:
    """Send a server with this handler `times` requests over one transport, in little time."""
    return loopback.ask(handler, limits, times=times, tls=tls)


async def head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *lines: str, status: str = "200 OK") -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())


STREAM = ("Content-Type: text/event-stream", "Transfer-Encoding: chunked")


async def stall_before_head(reader, writer):
    await asyncio.sleep(30)


async def stall_in_body(reader, writer):
    await head(reader, writer, *STREAM)
    writer.write(chunk(b"data: {}\n\n"))
    await asyncio.sleep(30)


async def drip_headers(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        writer.write(b"X-%d: y\r\n" % number)
        await asyncio.sleep(0.05)


async def drip_body(reader, writer):
    await head(reader, writer, "Content-Length: 100000")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


def endless(piece: bytes) -> Handler:
    async def handler(reader, writer):
        await head(reader, writer, *STREAM)
        while True:
            writer.write(chunk(piece))
            await writer.drain()

    return handler


async def header_bomb(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(20):
        writer.write(b"X-%d: " % number + b"a" * MEGABYTE + b"\r\n")
        await writer.drain()


async def cut_length(reader, writer):
    await head(reader, writer, "Content-Type: application/json", "Content-Length: 5000")
    writer.write(b'{"a": "' + b"x" * 1227)
    await writer.drain()


async def cut_chunked(reader, writer):
    await head(reader, writer, *STREAM)
    writer.write(chunk('data: {"a": "é"}\n\n'.encode()[:14]))
    await writer.drain()


async def no_answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")


async def not_http(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"220 mail.example.com ESMTP\r\n")
    await writer.drain()
    await asyncio.sleep(0.2)


async def early_hints_for_ever(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100)
        await writer.drain()


async def open_after_done(reader, writer):
    await head(reader, writer, *STREAM)
    writer.write(chunk(b"data: {}\n\n") + chunk(b"data: [DO") + chunk(b"NE]\n\n"))
    await writer.drain()
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("handler", "kind", "status", "word", "within_s"),
    [
        (stall_before_head, FailureKind.TOTAL_TIMEOUT, None, "no answer", 2.5),
        (stall_in_body, FailureKind.IDLE_TIMEOUT, 200, "nothing more came", 1.5),
        (drip_headers, FailureKind.TOTAL_TIMEOUT, None, "no answer", 2.5),
        (drip_body, FailureKind.TOTAL_TIMEOUT, 200, "not finished", 2.5),
        (endless(b"data: {}\n\n" * 500), FailureKind.BODY_TOO_LARGE, 200, "1,000,000", 2.5),
        (endless(b": ping\n\n" * 500), FailureKind.BODY_TOO_LARGE, 200, "1,000,000", 2.5),
        (endless(b"x" * 50_000), FailureKind.BODY_TOO_LARGE, 200, "1,000,000", 2.5),
        (header_bomb, FailureKind.HEADERS_TOO_LARGE, None, "65,536", 2.5),
        (cut_length, FailureKind.TRUNCATED, 200, "1,234 of 5,000 bytes", 1.0),
        (cut_chunked, FailureKind.TRUNCATED, 200, "before the end", 1.0),
        (no_answer, FailureKind.DISCONNECTED, None, "without an answer", 1.0),
        (not_http, FailureKind.BAD_HTTP, None, "not HTTP", 1.0),
        (early_hints_for_ever, FailureKind.HEADERS_TOO_LARGE, None, "65,536", 2.5),
        (open_after_done, FailureKind.NOT_CLOSED, 200, "after [DONE]", 2.5),
    ],
)
def test_each_ends_in_time_with_its_kind_and_one_sentence(handler, kind, status, word, within_s):
    started = time.monotonic()
    [reply] = ask(handler)
    assert time.monotonic() - started < within_s
    assert reply.failure is not None
    assert (reply.failure.kind, reply.status) == (kind, status)
    assert word in reply.failure.message
    assert "\n" not in reply.failure.message


def test_what_came_before_a_failure_is_kept_with_its_times():
    [reply] = ask(stall_in_body)
    assert reply.body == b"data: {}\n\n"
    assert reply.reads[-1].end == len(reply.body)
    assert reply.timings.first_byte_ns is not None


def test_a_closed_port_a_name_that_is_none_and_a_plain_port_asked_for_tls():
    async def plain(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def go() -> dict[str, Reply]:
        async with serving(plain) as closed:
            pass
        async with serving(plain) as port:
            transport = AiohttpTransport()
            urls = {
                "refused": f"http://127.0.0.1:{closed}/",
                "dns": "http://no-such-host.invalid/",
                "tls": f"https://127.0.0.1:{port}/",
            }
            try:
                return {name: await transport.send(Request("GET", url), QUICK) for name, url in urls.items()}
            finally:
                await transport.aclose()

    replies = asyncio.run(go())
    kinds = {name: reply.failure.kind for name, reply in replies.items() if reply.failure}
    assert kinds == {"refused": FailureKind.REFUSED, "dns": FailureKind.DNS, "tls": FailureKind.TLS}
    assert all(kind.is_network for kind in kinds.values())
    assert "connection refused by 127.0.0.1" in replies["refused"].failure.message
    assert "no-such-host.invalid cannot be resolved" in replies["dns"].failure.message
    assert "wrong version number (is that a plain HTTP port?)" in replies["tls"].failure.message


def test_a_certificate_that_nobody_vouches_for_is_refused_until_its_issuer_is_named(tmp_path):
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def fine(reader, writer):
        await head(reader, writer, "Content-Type: application/json", "Content-Length: 2")
        writer.write(b"{}")
        await writer.drain()

    [reply] = ask(fine, tls=context)
    assert reply.failure is not None
    assert reply.failure.kind is FailureKind.TLS
    assert "not trusted: unable to get local issuer certificate" in reply.failure.message

    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def trusted() -> Reply:
        async with serving(fine, context) as port:
            transport = AiohttpTransport(ca_file=tmp_path / "ca.pem")
            try:
                return await transport.send(Request("GET", f"https://127.0.0.1:{port}/"), QUICK)
            finally:
                await transport.aclose()

    reply = asyncio.run(trusted())
    assert (reply.failure, reply.status, reply.body) == (None, 200, b"{}")
    assert reply.timings.first_byte_ns is not None


def compressed(body: bytes, encoding: str) -> Handler:
    async def handler(reader, writer):
        await head(
            reader,
            writer,
            "Content-Type: application/json",
            f"Content-Encoding: {encoding}",
            f"Content-Length: {len(body)}",
        )
        writer.write(body)
        await writer.drain()

    return handler


PLAIN = json.dumps({"a": "b" * 1000}).encode()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(PLAIN), "gzip"),
        (gzip.compress(PLAIN[:500]) + gzip.compress(PLAIN[500:]), "gzip"),
        (zlib.compress(PLAIN), "deflate"),
        (zlib.compress(PLAIN, wbits=-15), "deflate"),
        (gzip.compress(gzip.compress(PLAIN)), "gzip, gzip"),
        (PLAIN, "identity"),
    ],
    ids=["gzip", "members", "zlib", "raw-deflate", "twice", "identity"],
)
def test_compression_that_was_not_asked_for_is_undone(body, encoding):
    [reply] = ask(compressed(body, encoding))
    assert (reply.failure, reply.body, reply.wire_bytes) == (None, PLAIN, len(body))
    assert reply.reads[-1].end == len(PLAIN)


@functools.cache
def bomb() -> bytes:
    """200 MB of nothing in about 200 KB."""
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [engine.compress(bytes(MEGABYTE)) for _ in range(200)]
    return b"".join(pieces) + engine.flush()


@pytest.mark.parametrize(
    ("body", "encoding", "kind"),
    [
        (bomb, "gzip", FailureKind.BODY_TOO_LARGE),
        (lambda: gzip.compress(bomb()), "gzip, gzip", FailureKind.BODY_TOO_LARGE),
        (lambda: gzip.compress(PLAIN)[:-20], "gzip", FailureKind.TRUNCATED),
        (lambda: b"this is not gzip", "gzip", FailureKind.BAD_ENCODING),
        (lambda: PLAIN, "br", FailureKind.BAD_ENCODING),
        (lambda: PLAIN, "gzip, gzip, gzip", FailureKind.BAD_ENCODING),
    ],
    ids=["bomb", "double-bomb", "cut", "mislabelled", "unknown", "too-many"],
)
def test_bad_compression_is_named_and_bounded(body, encoding, kind):
    [reply] = ask(compressed(body(), encoding))
    assert reply.failure is not None
    assert (reply.status, reply.failure.kind) == (200, kind)
    assert len(reply.body) <= QUICK.max_body_bytes


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "200 OK"])
def test_an_answer_without_a_body_is_an_answer(status):
    async def nothing(reader, writer):
        length = ["Content-Length: 0"] if status.startswith("200") else []
        await head(reader, writer, *length, status=status)
        await writer.drain()

    replies = ask(nothing, times=2)
    assert [(r.status, r.body, r.reads, r.failure) for r in replies] == [(int(status[:3]), b"", (), None)] * 2


def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else():
    visited = []

    async def redirect(reader, writer):
        visited.append(1)
        await head(reader, writer, "Location: http://127.0.0.1:9/steal", "Content-Length: 0", status="307 Moved")
        await writer.drain()

    [reply] = ask(redirect)
    assert (reply.status, reply.failure, len(visited)) == (307, None, 1)


def test_a_kept_alive_connection_that_the_server_closed_meanwhile_is_no_failure():
    served = []

    async def one_answer_per_connection(reader, writer):
        served.append(1)
        await head(reader, writer, "Content-Type: application/json", "Content-Length: 2")
        writer.write(b"{}")
        await writer.drain()
        # Says nothing of closing, and closes: the client meets a dead connection at its next request.

    replies = ask(one_answer_per_connection, times=4)
    assert [(r.status, r.failure) for r in replies] == [(200, None)] * 4


async def web_page(reader, writer, status="200 OK"):
    page = b"<!doctype html><title>Welcome</title><p>data: [DONE]"
    await head(reader, writer, "Content-Type: text/html", f"Content-Length: {len(page)}", status=status)
    writer.write(page)
    await writer.drain()


async def wrong_path(reader, writer):
    await web_page(reader, writer, "404 Not Found")


async def unavailable(reader, writer):
    while True:
        await head(reader, writer, "Retry-After: 0", "Content-Length: 0", status="503 Service Unavailable")
        await writer.drain()


async def busy(reader, writer):
    await head(reader, writer, "Content-Length: 0", status="429 Too Many Requests")
    await writer.drain()


async def echo_key(reader, writer):
    received = await reader.readuntil(b"\r\n\r\n")
    body = json.dumps({"error": {"message": "no such key: " + received.decode()}}).encode()
    writer.write(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer " + KEY.encode() + b"\r\n")
    writer.write(b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()


async def longer_than_said(reader, writer):
    await head(reader, writer, "Content-Type: application/json", "Content-Length: 2")
    writer.write(b'{"choices": []}')
    await writer.drain()


async def elsewhere(reader, writer):
    await head(reader, writer, "Location: http://127.0.0.1:9/v1", "Content-Length: 0", status="308 Permanent Redirect")
    await writer.drain()


KEY = "hostile-key-0123456789abcdef"


@pytest.mark.parametrize(
    ("handler", "verdict", "words"),
    [
        (web_page, Verdict.FAIL, "HTTP 200 text/html"),
        (wrong_path, Verdict.FAIL, "HTTP 404 text/html"),
        (unavailable, Verdict.INCONCLUSIVE, "HTTP 503"),
        (busy, Verdict.INCONCLUSIVE, "HTTP 429"),
        (echo_key, Verdict.INCONCLUSIVE, "the key was refused"),
        (elsewhere, Verdict.FAIL, "HTTP 308"),
        (stall_before_head, Verdict.FAIL, "no answer from 127.0.0.1"),
        (stall_in_body, Verdict.FAIL, "not finished within 0.5 s"),
        (drip_body, Verdict.FAIL, "not finished within 0.5 s"),
        (endless(b"data: {}\n\n" * 5000), Verdict.FAIL, "the cap of"),
        (header_bomb, Verdict.FAIL, "the response head"),
        (cut_length, Verdict.FAIL, "the connection closed after 1,234 of 5,000 bytes"),
        (longer_than_said, Verdict.FAIL, "after 2 bytes of the body more came"),
        (no_answer, Verdict.FAIL, "closed the connection without an answer"),
        (not_http, Verdict.FAIL, "is not HTTP"),
    ],
)
def test_the_verdict_says_what_the_server_did_and_never_passes(handler, verdict, words):
    async def go() -> Run:
        async with serving(handler) as port:
            transport = AiohttpTransport()
            url = f"http://127.0.0.1:{port}/v1"
            settings = Settings(total_timeout_s=0.5, max_retries=1, retry_budget_s=0.0)
            try:
                chosen = plan(Facts(url, "m"), select(["target.answers"]))
                return await Runner(Target(url, KEY), transport, chosen, settings).run()
            finally:
                await transport.aclose()

    run = asyncio.run(go())
    [result] = judge(run.checks, run.exchanges, run.facts, run.unsent)
    assert result.verdict is verdict
    assert words in result.reason + "".join(finding.got for finding in result.findings)
    assert "hostile-key" not in repr(run) + repr(result)
    assert run.duration_s < 6


def test_nobody_there_is_inconclusive():
    async def nobody(reader, writer):
        writer.close()

    async def go() -> Run:
        async with serving(nobody) as closed:
            pass
        transport = AiohttpTransport()
        url = f"http://127.0.0.1:{closed}/v1"
        try:
            return await Runner(Target(url, KEY), transport, plan(Facts(url, "m"), select(["target.answers"]))).run()
        finally:
            await transport.aclose()

    run = asyncio.run(go())
    [result] = judge(run.checks, run.exchanges, run.facts, run.unsent)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert f"connection refused by {run.facts.base_url.split('/')[2]}" in result.reason


def test_a_redirect_to_another_host_sends_nothing_there():
    asked_elsewhere = []

    async def other(reader, writer):
        asked_elsewhere.append(await reader.read(100))

    async def go() -> Reply:
        async with serving(other) as port:

            async def redirect(reader, writer):
                await head(
                    reader, writer, f"Location: http://localhost:{port}/v1", "Content-Length: 0", status="307 Go"
                )
                await writer.drain()

            async with serving(redirect) as first:
                transport = AiohttpTransport()
                headers = (("Authorization", f"Bearer {KEY}"), ("X-Api-Key", KEY))
                try:
                    return await transport.send(Request("POST", f"http://127.0.0.1:{first}/", headers, b"{}"), QUICK)
                finally:
                    await transport.aclose()

    reply = asyncio.run(go())
    assert (reply.status, reply.failure, asked_elsewhere) == (307, None, [])


def bad_chunk(*, pause_s: float) -> Handler:
    async def handler(reader, writer):
        await head(reader, writer, *STREAM)
        writer.write(chunk(b"data: {}\n\n"))
        await writer.drain()
        await asyncio.sleep(pause_s)
        writer.write(b"zz\r\nhello\r\n")
        await writer.drain()
        await asyncio.sleep(5)

    return handler


@pytest.mark.parametrize(
    ("handler", "body", "words"),
    [
        (longer_than_said, b'{"', "after 2 bytes of the body more came, which is not HTTP"),
        (
            bad_chunk(pause_s=0),
            b"data: {}\n\n",
            "after 10 bytes the body's framing is not HTTP: Invalid character in chunk",
        ),
        (bad_chunk(pause_s=0.05), b"data: {}\n\n", "after 10 bytes the body's framing is not HTTP: Invalid character"),
    ],
    ids=["longer-than-said", "bad-chunk-at-once", "bad-chunk-later"],
)
def test_broken_framing_keeps_the_head_and_what_was_whole(handler, body, words):
    [reply] = ask(handler)
    assert (reply.status, reply.body) == (200, body)
    assert reply.header("content-type") is not None
    assert reply.failure is not None
    assert reply.failure.kind is FailureKind.BAD_HTTP
    assert words in reply.failure.message


async def one_long_line(reader, writer):
    await head(reader, writer, *STREAM)
    writer.write(chunk(b"data: "))
    for _ in range(100):
        writer.write(chunk(b"x" * MEGABYTE))
        await writer.drain()
    writer.write(chunk(b"\n\n") + chunk(b""))


async def tiny_chunks(reader, writer):
    await head(reader, writer, *STREAM)
    while True:
        writer.write(chunk(b"ab") * 20_000)
        await writer.drain()


def peak_kib() -> int:
    """The most memory that this process ever held. (`ru_maxrss` would include the parent's, from before exec.)"""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


PEAK = """
import sys, time
sys.path[:0] = {folders!r}
import test_hostile_servers as hostile
from roadworthy.http.message import Limits
handler = hostile.HUNGRY[{name!r}]()
hostile.ask(hostile.web_page)  # whatever is loaded once
before, started = hostile.peak_kib(), time.monotonic()
reply = hostile.ask(handler, Limits(total_timeout_s=3.0))[0]
print(reply.failure and reply.failure.kind, round(time.monotonic() - started, 2), hostile.peak_kib() - before)
"""
HUNGRY: dict[str, Callable[[], Handler]] = {
    "gzip bomb": lambda: compressed(bomb(), "gzip"),
    "double gzip bomb": lambda: compressed(gzip.compress(bomb()), "gzip, gzip"),
    "many gzip members": lambda: compressed(gzip.compress(b"") * 300_000, "gzip"),
    "20 MB of headers": lambda: header_bomb,
    "endless comments": lambda: endless(b": ping\n\n" * 5_000),
    "one line of 100 MB": lambda: one_long_line,
    "tiny chunks": lambda: tiny_chunks,
}
OTHER_KINDS = {"many gzip members": "None", "20 MB of headers": FailureKind.HEADERS_TOO_LARGE}
BOUND_MIB = 64


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc, on Linux")
@pytest.mark.parametrize("name", HUNGRY)
def test_memory_and_time_stay_bounded(name, request, record_property):
    """Client and hostile server in one process grow by less than 64 MiB, under the default cap of 8 MiB."""
    script = PEAK.format(folders=[str(request.path.parent), str(request.path.parent.parent)], name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    kind, took_s, grown_kib = done.stdout.split()
    print(f"{name}: {kind} after {took_s} s, peak memory grew by {int(grown_kib) / 1024:.1f} MiB")  # noqa: T201 - for -rP
    record_property("peak_growth_mib", round(int(grown_kib) / 1024, 1))
    assert kind == OTHER_KINDS.get(name, FailureKind.BODY_TOO_LARGE)
    assert float(took_s) < 4.0
    assert int(grown_kib) < BOUND_MIB * 1024
