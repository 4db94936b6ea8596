"""Checks of the routes beside chat: no body makes one raise, and what is legal is never held against a server."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import random
import struct

import pytest
from exchanges import exchange

from roadworthy.conformance.catalogue import load
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan
from roadworthy.conformance.probe import Context
from roadworthy.conformance.probes import transcription
from roadworthy.conformance.subject import Subject
from roadworthy.conformance.verdict import Verdict
from roadworthy.sandbox.families.transcription import fields
from roadworthy.schemas import manifest, problem

load()
TASKS = {
    "completions": "text-generation",
    "embeddings": "feature-extraction",
    "images": "text-to-image",
    "transcription": "automatic-speech-recognition",
    "speech": "text-to-speech",
}
REQUESTS = {
    "completions": "completions/completion_request.json",
    "embeddings": "embeddings/embedding_request.json",
    "images": "images/image_request.json",
}
JSON_TYPE = (("content-type", "application/json"),)
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe\x00",
    b"data: {}\n\ndata: [DONE]\n\n",
    b'data: [1]\n\ndata: {"choices":[null,{"text":5,"index":"x","finish_reason":[]}],"usage":[]}\n\n',
    b'{"choices":[{"text":null,"index":true,"finish_reason":{}}],"usage":{"prompt_tokens":true}}',
    b'{"data":[{"embedding":[1e308,1e308],"index":{}},{"embedding":"AAA=","index":true}],"model":7,"usage":null}',
    b'{"data":[{"embedding":[' + b"9" * 390 + b'],"index":0}],"created":' + b"9" * 390 + b"}",
    b'{"created":true,"data":[{"url":"http://[","b64_json":"!"},{"url":7,"b64_json":"AAAA"},null]}',
    b'{"text":7,"duration":"1e999","language":3,"segments":[{"start":-1,"end":true,"text":[]}]}',
    b'{"text":"","duration":' + b"9" * 390 + b',"segments":{}}',
    b"1\n00:00:09,000 --> 00:00:01,000\n\n2\n",
    b"WEBVTT\n\n-->\n",
    b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff",
)
TYPES = ("application/json", "text/event-stream", "text/plain", "audio/wav", "")


def facts(family):
    about = Subject.of(f"acme/{TASKS[family]}", TASKS[family], "openai")
    return Facts("http://127.0.0.1:1/v1", about.model, about.task, about.api, judged_at=1_750_000_000)


def checks(family):
    return [check for check in CHECKS.values() if check.family == family]


def probes(family):
    return {probe.id: probe for check in checks(family) for probe in check.probes}


@pytest.mark.parametrize("family", sorted(TASKS))
def test_no_body_makes_a_check_raise(family):
    for body, type, status in itertools.product(BODIES, TYPES, (200, 201, 400, 500)):
        headers = (("content-type", type),) if type else ()
        sent = [exchange(id, body, status=status, headers=headers) for id in probes(family)]
        results = judge(checks(family), sent, facts(family))
        assert len(results) == len(checks(family))


@pytest.mark.parametrize("family", sorted(TASKS))
def test_a_route_that_is_not_there_fails_and_does_not_pass(family):
    refused = {"error": {"message": "there is nothing here", "type": "invalid_request_error", "code": None}}
    sent = [exchange(id, refused, status=404) for id in probes(family)]
    verdicts = {result.check_id: result.verdict for result in judge(checks(family), sent, facts(family))}
    assert verdicts[f"{family}.answered"] is Verdict.FAIL


@pytest.mark.parametrize("family", sorted(REQUESTS))
def test_requests_meet_the_published_schema(family):
    about = facts(family)
    for probe in plan(about, checks(family)).probes:
        if probe.expects.value == "success" and probe.id.startswith(family):
            draft = probe.build(Context(about))
            assert problem(REQUESTS[family], draft.json) is None, probe.id


def test_a_form_reads_back_as_it_was_written():
    draft = transcription.as_srt.build(Context(facts("transcription")))
    read = fields(draft.content_type, draft.body())
    assert read["file"] == manifest.media(transcription.SPEECH)
    assert (read["model"], read["response_format"]) == ("acme/automatic-speech-recognition", "srt")
    assert transcription.BOUNDARY.encode() not in read["file"]


def verdict(family, id, *exchanges):
    [result] = judge([CHECKS[id]], exchanges, facts(family))
    return result.verdict


def vectors(*made, **more):
    data = [{"object": "embedding", "index": place, "embedding": list(v)} for place, v in enumerate(made)]
    return {"object": "list", "data": data, "model": "acme/feature-extraction", **more}


def packed(*values):
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def test_base64_is_the_same_vector_only_where_it_is():
    plain = exchange("embeddings.plain", vectors((0.6, 0.8)))
    for told, expected in ((packed(0.6, 0.8), "pass"), (packed(0.8, 0.6), "fail")):
        body = vectors((1,))
        body["data"][0]["embedding"] = told
        assert verdict("embeddings", "embeddings.base64.same", plain, exchange("embeddings.base64", body)) == expected


def test_a_batch_in_half_precision_is_the_same_vector():
    plain = exchange("embeddings.plain", vectors((0.6, 0.8)))
    near = exchange("embeddings.batch", vectors((0.6001, 0.7999), (1, 0), (0, 1)))
    far = exchange("embeddings.batch", vectors((0.5, 0.86), (1, 0), (0, 1)))
    assert verdict("embeddings", "embeddings.batch_equals_single", plain, near) == "pass"
    assert verdict("embeddings", "embeddings.batch_equals_single", plain, far) == "fail"


def streamed(*texts, reason="length", spent=11):
    head = {"id": "c", "object": "text_completion", "created": 1, "model": "acme/text-generation"}
    events = [{**head, "choices": [{"text": t, "index": 0, "finish_reason": None}]} for t in texts]
    events.append({**head, "choices": [{"text": "", "index": 0, "finish_reason": reason}]})
    events.append({**head, "choices": [], "usage": {"completion_tokens": spent}})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return exchange("completions.stream", body.encode(), headers=(("content-type", "text/event-stream"),))


@pytest.mark.parametrize(
    ("texts", "spent", "expected"),
    [
        (("one, two, three, ", "four, five, six"), 11, "pass"),
        (("two, three, ", "four, five, six"), 11, "warn"),
        (("two, three, ", "four, five, six"), 9, "warn"),
        (("one,two,three,", "four,five,six"), 11, "warn"),
        (("one, two, ", "four, five, six"), 11, "warn"),
        (("one, two, ", "four, five, six"), 9, "skipped"),
        (("one, two, three, ", "four, five, six, seven"), 13, "skipped"),
        (("one, two and ", "four, five, six"), 11, "skipped"),
        (("1, 2, 3, 4, 5, 6, 7, 8, ", "9, 10"), 11, "skipped"),
    ],
)
def test_only_what_points_to_the_wire_is_held_against_a_stream(texts, spent, expected):
    choice = {"text": "one, two, three, four, five, six", "index": 0, "finish_reason": "length"}
    whole = exchange("completions.plain", {"choices": [choice], "usage": {"completion_tokens": 11}})
    stream = streamed(*texts, spent=spent)
    assert verdict("completions", "completions.stream.equals_unstreamed", stream, whole) == expected


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ("Hello, world. How are you today?", "pass"),
        ("hello world how are you today", "pass"),
        ("Hello word, how are you today?", "skipped"),
        ("Hello, world. How are", "fail"),
        ("Thanks for watching!", "fail"),
    ],
)
def test_a_word_heard_otherwise_is_the_models_and_words_lost_are_the_servers(heard, expected):
    short = exchange("transcription.json", {"text": "Hello, world. How are you today?"})
    long = exchange("transcription.verbose", {"text": heard})
    assert verdict("transcription", "transcription.verbose.same", short, long) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://cdn.example/1.png?sig=a%20b", "pass"),
        ("http://127.0.0.1:8000/1.png", "pass"),
        ("data:image/webp;base64,AAAA", "pass"),
        ("/1.png", "fail"),
        ("//cdn.example/1.png", "fail"),
        ("https:///1.png", "fail"),
        ("http://[", "fail"),
        ("file:///1.png", "fail"),
        ("data:text/html,x", "fail"),
    ],
)
def test_addresses_are_absolute(url, expected):
    answer = exchange("images.url", {"created": 1_750_000_000, "data": [{"url": url}]})
    assert verdict("images", "images.url.absolute", answer) == expected


def test_damage_anywhere_in_an_answer_makes_no_check_raise():
    chance = random.Random(3)
    strange = (None, True, -1, 1e300, "", "x", [], {}, [[]], {"a": 1})
    whole = {
        "completions": {"id": "c", "choices": [{"text": "t", "index": 0, "finish_reason": "stop"}], "usage": {}},
        "embeddings": vectors((1, 0), (0, 1), (1, 1), usage={"prompt_tokens": 1, "total_tokens": 1}),
        "images": {"created": 1, "data": [{"b64_json": "AAAA"}, {"url": "http://x/"}]},
        "transcription": {"text": "t", "duration": 1, "language": "en", "segments": [{"start": 0, "end": 1}]},
    }
    for family, body in whole.items():
        for _ in range(150):
            damaged = copy.deepcopy(body)
            holder = damaged
            while True:
                key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
                if isinstance(holder[key], dict | list) and holder[key] and chance.random() < 0.7:
                    holder = holder[key]
                    continue
                holder[key] = chance.choice(strange)
                break
            judge(checks(family), [exchange(id, damaged, headers=JSON_TYPE) for id in probes(family)], facts(family))
