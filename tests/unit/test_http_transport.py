"""The transport over sockets: each arrival stays with its bytes, and every reading says what it means."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import logging
import socket
import ssl
import struct
import sys
import time

import pytest
import trustme
from loopback import CHUNKED, END, ask, asked, chunk, serving

from roadworthy.errors import ConfigError
from roadworthy.http import clock
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.clock import StampedSocket
from roadworthy.http.message import FailureKind, Limits, Request
from roadworthy.http.sse import parse

MS = 1_000_000
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel stamps are Linux's")


def script(*steps, close=False):
    """A handler that sends each piece of bytes, and sleeps each number of seconds, on every request."""

    async def handler(reader, writer):
        while True:
            await asked(reader)
            for step in steps:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                else:
                    await asyncio.sleep(step)
            if close:
                return

    return handler


def data(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


C = data("c")
PATTERNS = {
    "a chunk each": [chunk(data("a")), 0.05, chunk(data("b")), 0.05, chunk(data("c"))],
    "several events in one packet": [chunk(data("a")), 0.05, chunk(data("b")) + chunk(data("c")), 0.05],
    "an event over several chunks": [chunk(data("a")), 0.05, chunk(b"dat"), chunk(b"a: b\n"), 0.05, chunk(b"\n" + C)],
    "a chunk over several packets": [chunk(data("a")), 0.05, b"1", b"2\r\ndata: b\n\n", 0.05, b"data: c\n\n\r\n"],
}
APART = {
    "a chunk each": [True, True],
    "several events in one packet": [True, False],
    "an event over several chunks": [True, False],
    "a chunk over several packets": [True, True],
}


@pytest.mark.parametrize("name", PATTERNS)
def test_each_arrival_stays_with_its_bytes_also_on_a_reused_connection(name):
    first, second = ask(script(CHUNKED, *PATTERNS[name], END), times=2)
    assert first.timings.connect_ns is not None
    assert second.timings.connect_ns is None
    for reply in (first, second):
        assert (reply.status, reply.failure) == (200, None)
        events = list(parse(reply.body, reply.reads))
        assert [event.data for event in events] == ["a", "b", "c"]
        gaps = [(b.at_ns - a.at_ns) // MS for a, b in itertools.pairwise(events)]
        assert [gap >= 40 for gap in gaps] == APART[name]
        assert all(gap >= 40 or gap == 0 for gap in gaps)
        assert [read.end for read in reply.reads] == sorted({read.end for read in reply.reads})
        assert reply.reads[-1].end == len(reply.body) == reply.wire_bytes


def test_a_body_without_length_or_chunks_ends_with_its_connection():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    [reply] = ask(script(head, data("a"), 0.05, data("b"), close=True))
    first, second = parse(reply.body, reply.reads)
    assert (reply.failure, first.data, second.data) == (None, "a", "b")
    assert second.at_ns - first.at_ns > 40 * MS


def test_a_compressed_stream_is_timed_in_the_offsets_of_what_it_unpacks_to():
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    members = [chunk(gzip.compress(data(text))) for text in "abc"]
    [reply] = ask(script(head, members[0], 0.05, members[1], 0.05, members[2], END))
    assert reply.body == data("a") + data("b") + data("c")
    assert [read.end for read in reply.reads] == [9, 18, 27]
    assert reply.wire_bytes > len(reply.body)
    assert all(b.at_ns - a.at_ns > 40 * MS for a, b in itertools.pairwise(reply.reads))


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def while_busy(*, handler_s: float = 0.05, busy_from_s: float = 0.02, busy_s: float = 0.2):
    """Our loop is busy when the first event arrives; a thread serves, so that the server is not."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            time.sleep(handler_s)
            connection.sendall(CHUNKED + chunk(data("a")) + END)
            with contextlib.suppress(OSError):
                connection.recv(1)

    transport = AiohttpTransport()
    served = asyncio.get_running_loop().run_in_executor(None, serve)
    asking = asyncio.ensure_future(
        transport.send(Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/"), Limits())
    )
    await asyncio.sleep(busy_from_s)
    busy(busy_s)
    reply = await asking
    await transport.aclose()
    await served
    listener.close()
    return reply


@on_linux
def test_a_busy_loop_does_not_make_the_provider_late():
    reply = asyncio.run(while_busy())
    assert 45 * MS < reply.timings.first_byte_ns < 180 * MS
    assert reply.timings.headers_ns == reply.timings.first_byte_ns
    assert reply.timings.uncertainty_ns > 20 * MS


def test_where_nobody_stamps_arrivals_a_busy_loop_shows_as_uncertainty(monkeypatch):
    monkeypatch.setattr(StampedSocket, "ask_for_stamps", lambda self: None)
    reply = asyncio.run(while_busy())
    assert reply.timings.first_byte_ns > 150 * MS
    assert reply.timings.first_byte_ns - reply.timings.uncertainty_ns < 100 * MS


def test_a_loop_that_reads_without_our_sockets_shows_its_lag_as_uncertainty():
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        reply = runner.run(while_busy())
    assert reply.timings.first_byte_ns > 150 * MS
    assert reply.timings.first_byte_ns - reply.timings.uncertainty_ns < 100 * MS


@on_linux
def test_a_stamp_from_before_the_wall_clock_was_set_is_not_believed(monkeypatch):
    ours, theirs = socket.socketpair()
    stamped = StampedSocket(fileno=ours.detach())
    stamped.exact = True
    fake = clock._TIMESPEC.pack(1_000, 0)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_500_000_000 + (time.monotonic_ns() - start))
    start = time.monotonic_ns()
    stamped._note([(socket.SOL_SOCKET, clock.SO_TIMESTAMPNS, fake)])
    assert stamped.read_ns - stamped.arrived_ns > 400 * MS
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_500_000_000 + (time.monotonic_ns() - start))
    stamped._note([(socket.SOL_SOCKET, clock.SO_TIMESTAMPNS, fake)])
    assert stamped.arrived_ns == stamped.read_ns
    stamped.close()
    theirs.close()


@on_linux
def test_the_kernel_stamps_what_our_sockets_read():
    with socket.create_server(("127.0.0.1", 0)) as listener, StampedSocket() as stamped:
        stamped.ask_for_stamps()
        # Where no other socket asks for stamps, the kernel begins to make them a moment after it is asked.
        time.sleep(0.3)
        stamped.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            for read in (lambda: stamped.recv(10), lambda: stamped.recv_into(bytearray(10))):
                before = time.monotonic_ns()
                server.sendall(b"x")
                after = time.monotonic_ns()
                time.sleep(0.05)
                read()
                assert before - MS < stamped.arrived_ns < after + 30 * MS
                assert stamped.read_ns > stamped.arrived_ns
            stamped.send(b"x")
            assert stamped.sent_ns > stamped.read_ns


def test_a_request_too_large_for_one_write_is_timed_from_its_last_byte():
    """The zero is when the last of the request was handed over, not the first."""

    async def slow_reader(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.4)
        await reader.readexactly(30_000_000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def go():
        async with serving(slow_reader) as port:
            transport = AiohttpTransport()
            reply = await transport.send(Request("POST", f"http://127.0.0.1:{port}/", (), b"x" * 30_000_000), Limits())
            await transport.aclose()
            return reply

    reply = asyncio.run(go())
    assert (reply.status, reply.failure) == (200, None)
    assert reply.timings.headers_ns < 300 * MS


def test_set_up_is_no_part_of_the_readings():
    [reply] = ask(script(0.05, CHUNKED + chunk(data("a")), 0.05, END))
    timings = reply.timings
    assert timings.connect_ns > 0
    assert timings.queued_ns >= 0
    assert 45 * MS < timings.headers_ns <= timings.first_byte_ns == timings.last_byte_ns
    assert timings.ended_ns - timings.last_byte_ns > 45 * MS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_arrivals_are_known_under_tls_too(tmp_path, version):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    steps = [CHUNKED, chunk(data("a")), 0.05, chunk(data("b")), END]
    replies = ask(script(*steps), tls=context, ca_file=tmp_path / "ca.pem", times=2)
    for reply in replies:
        assert reply.failure is None
        first, second = parse(reply.body, reply.reads)
        assert (first.data, second.data) == ("a", "b")
        assert 40 * MS < second.at_ns - first.at_ns < reply.timings.ended_ns


def test_a_ca_file_that_is_none_is_a_mistake_of_configuration(tmp_path):
    (tmp_path / "ca.pem").write_text("hello")
    with pytest.raises(ConfigError, match="expected certificates in PEM form"):
        AiohttpTransport(ca_file=tmp_path / "ca.pem")


def test_hanging_up_counts_events_and_not_the_word_data():
    steps = [
        chunk(data('{"a": "data: x"}\ndata: more')),
        chunk(b": ping\n\n"),
        chunk(data("2")),
        0.05,
        chunk(data("3")),
        5.0,
    ]
    [reply] = ask(script(CHUNKED, *steps), Limits(close_after_events=2))
    assert (reply.closed_early, reply.failure) == (True, None)
    assert [event.data for event in parse(reply.body)] == ['{"a": "data: x"}\nmore', "2"]


def test_hanging_up_on_a_compressed_stream_counts_its_events():
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    [reply] = ask(script(head, *[chunk(gzip.compress(data("x")))] * 2, 5.0), Limits(close_after_events=2))
    assert (reply.closed_early, reply.failure, reply.body) == (True, None, data("x") * 2)


def test_a_stream_that_ends_before_we_could_leave_it_was_not_left():
    [reply] = ask(script(CHUNKED + chunk(data("1") + data("2")) + END), Limits(close_after_events=2))
    assert (reply.closed_early, reply.failure) == (False, None)


@pytest.mark.parametrize(
    "text",
    [
        b'data: {"content": "send data: [DONE] last"}\n\n',
        b"data: [DONE] is the end marker\n\n",
        b": [DONE]\n\n",
        b"data: x[DONE]\n\n",
    ],
)
def test_text_that_speaks_of_the_end_marker_does_not_end_a_stream(text):
    [reply] = ask(script(CHUNKED, chunk(text), 0.15, chunk(data("more")), END), Limits(done_grace_s=0.05))
    assert (reply.failure, reply.body) == (None, text + data("more"))


@pytest.mark.parametrize("marker", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE] \r\r"])
@pytest.mark.parametrize("cut", [3, 8, 11, -1])
def test_the_end_marker_ends_a_stream_that_stays_open_however_it_is_split(marker, cut):
    steps = [chunk(data("a")), chunk(marker[:cut]), 0.02, chunk(marker[cut:]), 5.0]
    [reply] = ask(script(CHUNKED, *steps), Limits(done_grace_s=0.05))
    assert reply.failure is not None
    assert reply.failure.kind is FailureKind.NOT_CLOSED
    assert reply.body == data("a") + marker
    assert reply.timings.ended_ns < 1000 * MS


def test_what_comes_within_the_grace_after_the_end_marker_is_kept():
    steps = [chunk(data("[DONE]")), 0.02, chunk(data("late")), 0.02, END]
    [reply] = ask(script(CHUNKED, *steps), Limits(done_grace_s=0.5))
    assert (reply.failure, reply.body) == (None, data("[DONE]") + data("late"))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_that_hangs_up_on_a_fresh_connection_is_asked_once(method):
    connections = []

    async def rude(reader, writer):
        connections.append(await asked(reader))

    [reply] = ask(rude, method=method)
    assert reply.failure.kind is FailureKind.DISCONNECTED
    assert len(connections) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_met_by_a_dead_connection_is_sent_once_more_and_no_more(method):
    heads = []

    async def one_each(reader, writer):
        heads.append(await asked(reader))
        if len(heads) <= 2:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            await asked(reader)  # then it closes, having read the next request

    first, second = ask(one_each, method=method, times=2)
    assert (first.status, second.status) == (200, 200)
    assert second.timings.connect_ns is not None
    assert len(heads) == 2


def test_nothing_is_added_to_the_headers_that_were_given():
    heads = []

    async def look(reader, writer):
        heads.append((await asked(reader)).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\n\r\n")

    ask(look, times=2)
    names = [[line.partition(":")[0] for line in head.split("\r\n")[1:] if line] for head in heads]
    assert names == [["Host", "X-Key", "Content-Length"]] * 2


def test_proxies_and_netrc_of_the_environment_are_not_asked(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    heads = []

    async def look(reader, writer):
        heads.append(await asked(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    [reply] = ask(look)
    assert reply.status == 200
    assert b"authorization" not in heads[0].lower()


def test_no_log_at_any_level_holds_a_key(caplog):
    caplog.set_level(logging.DEBUG)

    async def go():
        async with serving(script(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")) as port:
            transport = AiohttpTransport()
            headers = (("Authorization", "Bearer secret-key-1"), ("X-Api-Key", "secret-key-1"))
            await transport.send(Request("GET", f"http://127.0.0.1:{port}/?k=secret-key-1", headers), Limits())
            await transport.send(Request("GET", "http://127.0.0.1:1/?k=secret-key-1", headers), Limits())
            await transport.send(Request("GET", "http://127.0.0.1:1/", (("A", "secret-key-1\n"),)), Limits())
            await transport.aclose()

    asyncio.run(go())
    assert caplog.records
    assert "secret-key" not in caplog.text


def test_cancelling_passes_through_and_leaves_nothing_open():
    async def go():
        async with serving(script(CHUNKED, chunk(data("a")), 5.0)) as port:
            transport = AiohttpTransport()
            asking = asyncio.ensure_future(transport.send(Request("GET", f"http://127.0.0.1:{port}/"), Limits()))
            await asyncio.sleep(0.05)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await transport.aclose()
            await asyncio.sleep(0.01)
            return [task for task in asyncio.all_tasks() if "send" in repr(task.get_coro())]

    assert asyncio.run(go()) == []


@pytest.mark.parametrize("url", ["not a url", "ftp://127.0.0.1/", "http://", "http://[::1", "http://127.0.0.1:99999/"])
def test_an_address_that_is_none_is_a_failure_not_an_exception(url):
    async def go():
        transport = AiohttpTransport()
        try:
            return await transport.send(Request("GET", url), Limits())
        finally:
            await transport.aclose()

    reply = asyncio.run(go())
    assert reply.status is None
    assert reply.failure is not None
    assert "\n" not in reply.failure.message


def test_many_reads_of_a_drip_are_bounded(monkeypatch):
    monkeypatch.setattr("roadworthy.http.intake.MAX_READS", 5)
    [reply] = ask(script(CHUNKED, *[step for _ in range(12) for step in (chunk(b"x"), 0.005)], END))
    assert (reply.body, len(reply.reads)) == (b"x" * 12, 5)
    assert reply.reads[-1].end == 12


def test_hundreds_of_thousands_of_tiny_chunks_are_read_whole():
    """More than aiohttp would hold before it paused the connection for a reader."""
    [reply] = ask(script(CHUNKED, chunk(b"ab") * 300_000, END), Limits(total_timeout_s=20))
    assert (reply.failure, len(reply.body)) == (None, 600_000)


def test_a_reset_connection_keeps_what_had_come():
    async def reset(reader, writer):
        await asked(reader)
        writer.write(CHUNKED + chunk(data("a")))
        await writer.drain()
        await asyncio.sleep(0.05)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    [reply] = ask(reset)
    assert (reply.status, reply.body) == (200, data("a"))
    assert reply.failure.kind is FailureKind.TRUNCATED
    assert reply.failure.message == "the connection closed after 9 bytes, before the end of the body"
