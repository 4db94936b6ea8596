"""No key survives in what is kept: not in headers, bodies, addresses or errors, in whatever spelling."""

from __future__ import annotations

import asyncio
import base64
import html
import io
import json
import logging
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.conformance import recording
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.run import Runner
from roadworthy.conformance.target import Target
from roadworthy.http.asgi_transport import AsgiTransport
from roadworthy.http.message import Failure, FailureKind, Reply, Request
from roadworthy.http.redact import Redactor

KEY = "sk-Ab/9+x\"é&=%y 7'Zz"
DATA = KEY.encode()

SPELLINGS = {
    "plain": KEY,
    "json": json.dumps(KEY),
    "json-unicode": json.dumps(KEY, ensure_ascii=False),
    "json-slash": json.dumps(KEY).replace("/", "\\/"),
    "percent": quote(KEY, safe=""),
    "percent-path": quote(KEY),
    "html": html.escape(KEY),
    "basic": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "basic-no-user": base64.b64encode(f":{KEY}".encode()).decode(),
    "base64": base64.b64encode(DATA).decode(),
    "base64-within": base64.b64encode(f"ab{KEY}cd".encode()).decode(),
    "base64-url": base64.urlsafe_b64encode(f"a{KEY}".encode()).decode(),
}


def letters(text: str) -> set[str]:
    """Every run of eight letters of a text."""
    return {text[start : start + 8] for start in range(len(text) - 7)}


@pytest.mark.parametrize("name", sorted(SPELLINGS))
def test_each_spelling_is_masked_and_keeps_its_length(name):
    spelled = SPELLINGS[name]
    masked = Redactor([KEY]).text(f"before {spelled} after")
    assert len(masked.encode()) == len(f"before {spelled} after".encode())
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    left = letters(masked.removeprefix("before ").removesuffix(" after"))
    assert not left & letters(spelled)


def test_percent_signs_may_be_in_small_letters():
    key = "sk/secret+key=1"
    assert Redactor([key]).text("?key=sk%2fsecret%2bkey%3d1&b=2") == "?key=" + "*" * 21 + "&b=2"


@given(st.text(min_size=6, max_size=30), st.binary(max_size=20), st.binary(max_size=20))
def test_masking_never_changes_a_length_and_never_leaves_the_value(secret, before, after):
    raw = secret.encode()
    body = before + raw + after
    masked = Redactor([secret]).data(body)
    assert len(masked) == len(body)
    assert raw not in masked or set(secret) == {"*"}


def test_a_whole_header_value_hides_its_token_too():
    redactor = Redactor(["Bearer abcdef123456"])
    assert redactor.text("the key abcdef123456 is unknown") == "the key ************ is unknown"
    request = Request("GET", "http://a/", (("Authorization", "Bearer abcdef123456"),))
    assert redactor.request(request).headers == (("Authorization", "*" * 19),)


def test_a_short_value_is_masked_in_request_headers_only():
    redactor = Redactor(["chat"])
    request = Request("POST", "http://a/chat", (("X-Org", "chat"),), b'{"chat": 1}')
    kept = redactor.request(request)
    assert (kept.headers, kept.url, kept.body) == ((("X-Org", "****"),), "http://a/chat", b'{"chat": 1}')
    assert redactor.data(b"chat") == b"chat"


def test_of_two_keys_the_longer_is_masked_whole():
    assert Redactor(["secret-1", "secret-1-and-more"]).text("secret-1-and-more, secret-1") == "*" * 17 + ", " + "*" * 8


def test_no_secret_means_no_change():
    reply = Reply(200, (("a", "b"),), b"body")
    assert Redactor(["", ""]).reply(reply) == reply


def test_a_key_that_is_no_unicode_text_is_masked_too():
    key = b"key-\xff\xfe-1234".decode(errors="surrogateescape")
    assert key not in Redactor([key]).text(f"a {key} b")


def test_every_part_of_a_reply_is_masked():
    reply = Reply(
        401,
        (("WWW-Authenticate", f'Bearer error="{KEY}"'), ("X-Url", "/?k=" + quote(KEY, safe=""))),
        json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode(),
        failure=Failure(FailureKind.BAD_HTTP, f"got {KEY}"),
    )
    kept = repr(Redactor([KEY]).reply(reply))
    assert all(spelled not in kept for spelled in SPELLINGS.values())


async def echo(scope, receive, send):
    """A provider that tells everybody everything it was sent, in every spelling."""
    request = await receive()
    key = "live-key-0123456789abcdef"
    told = {"headers": [[k.decode(), v.decode()] for k, v in scope["headers"]], "body": request["body"].decode()}
    told["spelled"] = [key, quote_plus(key), base64.b64encode(f"user:{key}".encode()).decode(), html.escape(key)]
    body = json.dumps({"error": {"message": json.dumps(told)}}).encode()
    headers = [(b"content-type", b"application/json"), (b"x-echo", b"Bearer " + key.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def test_a_recording_of_a_provider_that_echoes_the_key_does_not_hold_it(caplog):
    key = "live-key-0123456789abcdef"
    caplog.set_level(logging.DEBUG)

    async def go():
        transport = AsgiTransport(echo)
        facts = Facts("http://provider/v1", "m")
        try:
            return await Runner(Target("http://provider/v1", key), transport, plan(facts, select(["target"]))).run()
        finally:
            await transport.aclose()

    run = asyncio.run(go())
    kept = io.StringIO()
    recording.write(kept, [run])
    assert run.exchanges[0].request.headers[-1] == ("Authorization", "Bearer " + "*" * len(key))
    seen = kept.getvalue() + caplog.text + repr(run)
    bodies = b"".join(x.reply.body for x in run.exchanges).decode()
    encoded = base64.b64encode(f"user:{key}".encode()).decode()[8:-4]
    for haystack in (seen, bodies):
        assert "live-key" not in haystack
        assert encoded not in haystack
    assert "x-echo" in seen
