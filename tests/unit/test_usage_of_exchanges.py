"""What a recorded request used, as its answer tells it."""

from __future__ import annotations

import json

import pytest

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.subject import Api
from roadworthy.conformance.usage import Use, uses
from roadworthy.http.message import Reply, Request

AT = "2026-06-23T12:00:00.000+00:00"
CHAT = {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}}


def exchange(answer, *, method="POST", status=200, id="r-1", media="application/json", sent=None):
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    headers = [("Content-Type", media)] + ([("inference-id", id)] if id else [])
    asked = json.dumps({"model": "m"} if sent is None else sent).encode()
    request = Request(method, "http://x/v1/chat/completions", (), asked)
    return Exchange("p#1", "p", 1, request, Reply(status, tuple(headers), body), AT)


def used(one, **facts):
    return list(uses([one], Facts("http://x/v1", "fallback", **facts)))


def test_tokens_of_a_chat_whole_and_streamed():
    whole = Use("r-1", AT, "m", "conversational", 200, 7, 5, 3)
    assert used(exchange(CHAT)) == [whole]
    stream = b'data: {"choices": []}\n\ndata: ' + json.dumps(CHAT).encode() + b"\n\ndata: [DONE]\n\n"
    assert used(exchange(stream, media="text/event-stream")) == [whole]


def test_tokens_of_the_responses_api_and_images():
    told = {"usage": {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}}
    (use,) = used(exchange(told), api=Api.RESPONSES)
    assert (use.input_tokens, use.cached_input_tokens, use.output_tokens) == (9, 1, 2)
    (use,) = used(exchange({"data": [{"b64_json": "AA=="}, {"url": "http://x/1"}]}), task="text-to-image")
    assert (use.task, use.units, use.input_tokens) == ("text-to-image", {"images": 2}, None)


@pytest.mark.parametrize("count", [-1, 1.5, True, "7", None, 10**12 + 1, [7]], ids=str)
def test_a_count_that_is_none_is_not_told(count):
    (use,) = used(exchange({"usage": {"prompt_tokens": count, "completion_tokens": 3}}))
    assert (use.input_tokens, use.output_tokens) == (None, 3)


def test_more_cached_than_read_is_not_told():
    details = {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}
    (use,) = used(exchange({"usage": details}))
    assert (use.input_tokens, use.cached_input_tokens) == (1, None)


def test_failed_requests_count_and_those_without_an_id_or_of_no_inference_do_not():
    (use,) = used(exchange(b"<html>", status=500, sent=["no object"]))
    assert (use.status, use.model, use.input_tokens) == (500, "fallback", None)
    assert used(exchange(CHAT, id="")) == []
    assert used(exchange(CHAT, method="GET")) == []
    assert used(exchange(CHAT, status=None)) == []
    assert used(exchange(CHAT), api=Api.ENDPOINTS) == []
