"""The in-process transport: the same answers, limits and failures as over a socket."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.run import Runner
from roadworthy.conformance.target import Target
from roadworthy.conformance.verdict import Verdict
from roadworthy.http.asgi_transport import AsgiTransport
from roadworthy.http.message import FailureKind, Limits, Reply, Request
from roadworthy.sandbox.app import Options, Sandbox

QUICK = Limits(total_timeout_s=0.6, idle_timeout_s=0.2, max_body_bytes=10_000, done_grace_s=0.1)
BOMB = gzip.compress(bytes(50_000))
REQUEST = Request("POST", "http://api.example:81/v1/a%20b?c=d", (("X-Key", "k"),), b"{}")


def app(*pieces, headers=(), status=200, pause_s=0.0, then=None):
    async def answer(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(pause_s)
        if then is not None:
            await then(receive, send)
        await send({"type": "http.response.body"})

    return answer


def ask(application, limits=QUICK, request=REQUEST) -> Reply:
    async def go():
        transport = AsgiTransport(application)
        try:
            return await transport.send(request, limits)
        finally:
            await transport.aclose()

    return asyncio.run(go())


async def forever(receive, send):
    await asyncio.sleep(60)


async def flood(receive, send):
    while True:
        await send({"type": "http.response.body", "body": b": ping\n\n" * 10, "more_body": True})


async def fail(receive, send):
    raise RuntimeError("engine gone")


def test_an_answer_arrives_in_its_pieces():
    reply = ask(app(b"data: 1\n\n", b"data: 2\n\n", headers=[(b"x-a", b"b")], pause_s=0.02))
    assert (reply.status, reply.header("X-A"), reply.body, reply.failure) == (200, "b", b"data: 1\n\ndata: 2\n\n", None)
    first, second = reply.reads
    assert (first.end, second.end) == (9, 18)
    assert second.at_ns - first.at_ns > 15_000_000
    assert reply.timings.headers_ns is not None
    assert reply.timings.headers_ns <= first.at_ns == reply.timings.first_byte_ns
    assert second.at_ns == reply.timings.last_byte_ns <= reply.timings.ended_ns


def test_the_application_is_told_the_request():
    seen = {}

    async def look(scope, receive, send):
        seen.update(scope, body=(await receive())["body"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    assert ask(look).status == 204
    assert (seen["method"], seen["path"], seen["raw_path"], seen["query_string"]) == (
        "POST",
        "/v1/a b",
        b"/v1/a%20b",
        b"c=d",
    )
    assert seen["headers"] == [(b"host", b"api.example:81"), (b"x-key", b"k"), (b"content-length", b"2")]
    assert seen["body"] == b"{}"


@pytest.mark.parametrize(
    ("application", "kind", "status", "word"),
    [
        (app(b"data: {}\n\n", then=forever), FailureKind.IDLE_TIMEOUT, 200, "nothing more came for 0.2 s"),
        (app(*[b": ping\n\n"] * 99, pause_s=0.05), FailureKind.TOTAL_TIMEOUT, 200, "not finished within 0.6 s"),
        (lambda scope, receive, send: asyncio.sleep(60), FailureKind.TOTAL_TIMEOUT, None, "no answer within 0.6 s"),
        (app(b"data: [DONE]\n\n", then=forever), FailureKind.NOT_CLOSED, 200, "0.1 s after [DONE]"),
        (app(then=flood), FailureKind.BODY_TOO_LARGE, 200, "the cap of 10,000 bytes"),
        (app(b"x", headers=[(b"x", b"y" * 70_000)]), FailureKind.HEADERS_TOO_LARGE, 200, "the cap of 65,536 bytes"),
        (app(b"part", then=fail), FailureKind.TRUNCATED, 200, "raised RuntimeError: engine gone"),
        (lambda scope, receive, send: fail(receive, send), FailureKind.DISCONNECTED, None, "raised RuntimeError"),
        (lambda scope, receive, send: asyncio.sleep(0), FailureKind.DISCONNECTED, None, "returned before the end"),
        (app(BOMB, headers=[(b"content-encoding", b"gzip")]), FailureKind.BODY_TOO_LARGE, 200, "unpack"),
    ],
)
def test_each_failure_has_its_kind_and_one_sentence(application, kind, status, word):
    reply = ask(application)
    assert reply.failure is not None
    assert (reply.failure.kind, reply.status) == (kind, status)
    assert word in reply.failure.message


def test_what_is_compressed_is_undone():
    reply = ask(app(gzip.compress(b"hello"), headers=[(b"Content-Encoding", b"gzip")]))
    assert (reply.body, reply.failure) == (b"hello", None)


def test_leaving_early_tells_the_application():
    told = []

    async def wait(receive, send):
        told.append((await receive())["type"])

    limits = Limits(close_after_events=2)

    async def go():
        transport = AsgiTransport(app(b"data: 1\n\n", b"data: 2\n\n", then=wait))
        reply = await transport.send(REQUEST, limits)
        await asyncio.sleep(0.01)
        await transport.aclose()
        return reply

    reply = asyncio.run(go())
    assert (reply.closed_early, reply.failure, reply.body) == (True, None, b"data: 1\n\ndata: 2\n\n")
    assert told == ["http.disconnect"]


def test_a_whole_run_in_process_passes():
    """Every check of usage, streams and refusals passes on the healthy sandbox, without any socket."""

    async def go():
        transport = AsgiTransport(Sandbox((), Options(api_key="a-key-of-the-sandbox")))
        facts = Facts("http://sandbox/v1", "acme/chat-1")
        try:
            chosen = plan(facts, select(["chat.usage", "chat.stream", "target", "errors"]))
            return await Runner(Target("http://sandbox/v1", "a-key-of-the-sandbox"), transport, chosen).run()
        finally:
            await transport.aclose()

    run = asyncio.run(go())
    results = judge(run.checks, run.exchanges, run.facts, run.unsent)
    assert len(results) > 40
    others = {result.check_id: result.verdict for result in results if result.verdict is not Verdict.PASS}
    assert others == {"errors.retry_after": Verdict.SKIPPED}
