"""The client libraries as judges: what each accepts and refuses, and that none leaves loopback or outlives us.

The tests of opinions need the packages themselves: `pip install 'roadworthy[clients]'` for Python, and for
JavaScript Node.js 18 or newer and once `python -m roadworthy.conformance.clients.install`.
The tests of how runners are kept in bounds put small libraries of their own in the packages' place.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from exchanges import completion, exchange

from roadworthy.conformance.clients import ask as asking
from roadworthy.conformance.clients import install as installing
from roadworthy.conformance.clients.ask import CLIENTS, Question, Unavailable, ask
from roadworthy.conformance.clients.install import JAVASCRIPT, NotInstallableError, installed, node
from roadworthy.conformance.clients.opinion import Opinion
from roadworthy.conformance.clients.replayer import Replayer, pieces
from roadworthy.http.message import Failure, FailureKind, Read

MODEL = "acme/chat-1"
JS_ADVICE = "install Node.js 18 or newer, then once: python -m roadworthy.conformance.clients.install"
NODE = node()[0]
needs_node = pytest.mark.skipif(not NODE, reason="install Node.js 18 or newer")
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in Linux's /proc")
MISSING = {
    "javascript": not NODE or installed() is None,
    "openai-js": not NODE or installed() is None,
    "python": find_spec("huggingface_hub") is None,
    "openai": find_spec("openai") is None,
}
SSE = (("content-type", "text/event-stream"),)
STREAMED = {"stream": True}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
LABEL = {"label": "a", "score": 0.5}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
STRUCTURED = {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": MODEL,
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": '{"city": "Oslo", "people": 7}', "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def without(answer: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != key}


def sse(*events: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % (e if isinstance(e, bytes) else json.dumps(e).encode()) for e in events)


def chunk(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        **more,
    }


def question(body: Any, task: str = "chat-completion", api: str = "openai", **more: Any) -> Question:
    return Question(exchange("probe", body, **more), task, api, MODEL)


def opinions(client: str, *questions: Question) -> list[Opinion]:
    """The opinions, in the order of the questions; skips where the client is not installed."""
    if MISSING[client]:
        pytest.skip(f"{client}: " + (JS_ADVICE if "j" in client else "pip install 'roadworthy[clients]'"))
    heard = ask(client, questions)
    assert isinstance(heard, list), heard
    return heard


def verdict(client: str, body: Any, task: str = "chat-completion", api: str = "openai", **more: Any) -> Opinion:
    """The first opinion on one answer."""
    return opinions(client, question(body, task, api, **more))[0]


GOOD_STREAM = sse(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({}, "stop"), b"[DONE]")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_whole_completion_and_a_whole_stream_are_accepted(client: str):
    heard = opinions(client, question(completion()), question(GOOD_STREAM, headers=SSE, sent=STREAMED))

    assert all(opinion.accepted and not opinion.error for opinion in heard), heard
    assert "Hello." in heard[0].said
    assert "Hi" in heard[1].said
    assert heard[0].exchange_id == "probe#1"
    assert heard[0].client == client
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", heard[0].version)


METHODS = {
    "javascript": ["chatCompletion", "chatCompletionStream"],
    "python": ["chat_completion", "chat_completion(stream=True)"],
    "openai": ["chat.completions.create", "chat.completions.create(stream=True)", "chat.completions.stream"],
    "openai-js": ["chat.completions.create", "chat.completions.create({stream: true})", "chat.completions.stream"],
}


@pytest.mark.parametrize("client", CLIENTS)
def test_each_opinion_names_the_call_that_a_user_writes(client: str):
    heard = opinions(client, question(completion()), question(GOOD_STREAM, headers=SSE, sent=STREAMED))

    assert [opinion.method for opinion in heard] == METHODS[client]


@pytest.mark.parametrize(
    ("client", "accepted"), [("javascript", False), ("python", True), ("openai", True), ("openai-js", True)]
)
def test_a_completion_without_id_is_refused_by_the_javascript_client_alone(client: str, accepted: bool):
    heard = verdict(client, without(completion(), "id"))

    assert heard.accepted is accepted
    assert ("ProviderOutputError: Expected ChatCompletionOutput" in heard.error) is not accepted


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_no_completion_is_refused_by_every_client(client: str):
    bodies: list[Any] = [b"hello", {"choices": []}, {"choices": "none"}, [], 7]

    heard = opinions(client, *map(question, bodies))

    assert len(heard) == len(bodies)
    assert all(opinion.error and not opinion.accepted for opinion in heard), heard


@pytest.mark.parametrize(
    ("client", "accepted"), [("javascript", False), ("python", True), ("openai", True), ("openai-js", True)]
)
def test_a_chunk_with_a_null_error_ends_the_stream_of_the_javascript_client_alone(client: str, accepted: bool):
    body = sse(chunk({"role": "assistant", "content": "Hi"}, error=None), chunk({}, "stop"), b"[DONE]")

    heard = opinions(client, question(body, headers=SSE, sent=STREAMED))

    assert {opinion.accepted for opinion in heard} == {accepted}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_is_read_to_its_end(client: str):
    body = sse(*[chunk({"content": "x"})] * 50, b"{", b"[DONE]")

    heard = opinions(client, question(body, headers=SSE, sent=STREAMED))

    assert not any(opinion.accepted for opinion in heard), heard


@pytest.mark.parametrize("client", CLIENTS)
def test_an_answer_that_broke_off_breaks_off_for_the_client(client: str):
    cut = Failure(FailureKind.TRUNCATED, "the body ends before its length")

    heard = opinions(client, question(GOOD_STREAM[:-60], headers=SSE, sent=STREAMED, failure=cut))

    assert not any(opinion.accepted for opinion in heard), heard


def test_the_javascript_openai_client_misses_a_finish_reason_that_the_plain_stream_does_not():
    body = sse(chunk({"role": "assistant", "content": "Hi"}), b"[DONE]")

    plain, joined = opinions("openai-js", question(body, headers=SSE, sent=STREAMED))

    assert plain.accepted
    assert joined.error == "OpenAIError: missing finish_reason for choice 0"


@pytest.mark.parametrize("client", CLIENTS)
def test_tool_calls_come_through(client: str):
    answer = completion()
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    answer["choices"][0] |= {
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]

    heard = verdict(client, answer, sent={"tools": tools, "messages": [{"role": "user", "content": "?"}]})

    assert heard.accepted
    assert "weather" in heard.said


def test_parse_of_the_openai_sdk_holds_the_text_to_the_types_of_the_schema():
    heard = opinions(
        "openai",
        question(completion('{"city": "Oslo", "people": 7}'), sent=STRUCTURED),
        question(completion('{"city": "Oslo", "people": "many"}'), sent=STRUCTURED),
        question(completion("Oslo!"), sent=STRUCTURED),
    )

    parsed = [opinion for opinion in heard if opinion.method == "chat.completions.parse"]
    assert [opinion.accepted for opinion in parsed] == [True, False, False]
    assert parsed[1].error.startswith("ValidationError")
    assert all(opinion.accepted for opinion in heard if opinion.method == "chat.completions.create")


def test_parse_takes_every_schema_that_can_be_asked_for():
    odd = {
        "type": "object",
        "properties": {
            "model_config": {"type": ["string", "null"]},
            "": {"enum": [1, "a", None]},
            "list": {"type": "array", "items": {"type": "object", "properties": {"é": {"type": "boolean"}}}},
            "any": {"anyOf": [{"type": "number"}, {"type": "string"}]},
            "loose": {"type": "array"},
            "wrong": {"type": {"no": "type"}},
            "true": True,
        },
        "required": ["", "list", 7],
    }
    value = {"": "a", "list": [{"é": True}], "any": 1.5}
    schemas: list[Any] = [odd, {"type": "array"}, {"type": "object", "properties": []}, {"type": "object"}, {}, True]

    heard = opinions(
        "openai",
        *[
            question(
                completion(json.dumps(value)),
                sent={"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
            )
            for schema in schemas
        ],
    )

    assert all(opinion.accepted for opinion in heard), heard
    assert [opinion.method for opinion in heard].count("chat.completions.parse") == 1


def test_parse_that_stops_at_the_asked_length_is_the_clients_ordinary_word():
    answer = completion('{"city": "Os')
    answer["choices"][0]["finish_reason"] = "length"

    parsed = opinions("openai", question(answer, sent=STRUCTURED))[1]

    assert parsed.accepted
    assert parsed.said.startswith("LengthFinishReasonError")


@pytest.mark.parametrize("client", ["openai", "openai-js"])
def test_responses_are_read_by_the_openai_clients(client: str):
    sent = {"text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}}}
    heard = opinions(
        client,
        question(RESPONSE, api="responses", sent=sent),
        question(without(RESPONSE, "output"), api="responses"),
    )

    assert [(opinion.method, opinion.accepted) for opinion in heard] == [
        ("responses.create", True),
        *([("responses.parse", True)] if client == "openai" else []),
        ("responses.create", False),
    ]


@pytest.mark.parametrize("client", ["openai", "openai-js"])
def test_streamed_responses_are_read_to_their_end(client: str):
    events = [
        {"type": "response.created", "sequence_number": 0, "response": RESPONSE | {"status": "in_progress"}},
        {
            "type": "response.output_text.delta",
            "sequence_number": 1,
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": "Oslo",
            "logprobs": [],
        },
        {"type": "response.completed", "sequence_number": 2, "response": RESPONSE},
    ]
    heard = opinions(
        client,
        question(sse(*events), api="responses", headers=SSE, sent=STREAMED),
        question(sse(*events, b"{"), api="responses", headers=SSE, sent=STREAMED),
    )

    assert [opinion.accepted for opinion in heard] == [True, False]
    assert "Oslo" in heard[0].said


ERROR_OBJECT = {"error": {"message": "no such model: it's gone", "type": "not_found"}}


@pytest.mark.parametrize(
    ("client", "accepted"), [("javascript", False), ("python", True), ("openai", True), ("openai-js", True)]
)
def test_the_javascript_client_loses_the_message_of_an_openai_error_unless_it_streams(client: str, accepted: bool):
    plain, *streamed = opinions(
        client, question(ERROR_OBJECT, status=404), question(ERROR_OBJECT, status=404, sent=STREAMED)
    )

    assert plain.accepted is accepted
    assert "no such model" in plain.said if accepted else "an HTTP error occurred" in plain.error
    assert all(opinion.accepted for opinion in streamed), streamed


def test_an_error_object_beside_a_message_is_shown_as_object_object_by_the_javascript_client():
    heard = verdict("javascript", ERROR_OBJECT | {"message": "no such model"}, status=404)

    assert not heard.accepted
    assert heard.error == "ProviderApiError: Failed to perform inference: [object Object]"


@pytest.mark.parametrize("client", CLIENTS)
def test_an_error_message_of_several_lines_with_quotes_is_recognized(client: str):
    message = 'line one\n"line" two\tit\'s \\ é'

    heard = opinions(client, question({"error": {"message": message}}, status=400, sent=STREAMED))

    assert all(opinion.accepted for opinion in heard), heard


@pytest.mark.parametrize("client", ["javascript", "python", "openai-js"])
def test_an_error_that_is_a_text_is_shown_and_503_is_not_asked_for_ever(client: str):
    heard = verdict(client, {"error": "the model is loading"}, status=503)

    assert heard.accepted
    assert "the model is loading" in heard.said


@pytest.mark.parametrize("client", CLIENTS)
def test_an_error_without_words_is_an_ordinary_error(client: str):
    heard = verdict(client, b"<html>", status=502, headers=(("content-type", "text/html"),))

    assert heard.accepted
    assert "127.0.0.1" not in heard.said


OPENAI_TASKS: list[tuple[str, Any, Any]] = [
    ("text-generation", {"id": "1", "model": MODEL, "choices": [{"index": 0, "text": "hi"}]}, {"choices": [{}]}),
    ("feature-extraction", {"data": [{"index": 0, "embedding": [0.5, 0.25]}]}, {"data": [{"index": 0}]}),
    ("text-to-image", {"created": 1, "data": [{"b64_json": PNG}]}, {"created": 1, "data": []}),
    ("automatic-speech-recognition", {"text": "hi"}, {"words": "hi"}),
]


@pytest.mark.parametrize("client", CLIENTS)
def test_openai_like_answers_of_other_tasks(client: str):
    sent = {"input": "hello", "encoding_format": "float"}

    heard = opinions(client, *[question(body, task, sent=sent) for task, *both in OPENAI_TASKS for body in both])

    assert [opinion.accepted for opinion in heard] == [True, False] * len(OPENAI_TASKS), heard


@pytest.mark.parametrize(
    ("client", "accepts_json"), [("javascript", False), ("python", True), ("openai", True), ("openai-js", True)]
)
def test_json_in_the_place_of_speech_is_noticed_by_the_javascript_client_alone(client: str, accepts_json: bool):
    heard = opinions(
        client,
        question(b"RIFF....", "text-to-speech", headers=(("content-type", "audio/wav"),)),
        question({"error": "none"}, "text-to-speech"),
    )

    assert [opinion.accepted for opinion in heard] == [True, accepts_json]


SERVERLESS: list[tuple[str, Any, bool, bool]] = [
    # the task, an answer, whether JavaScript accepts it, whether Python does
    ("text-classification", [[LABEL]], True, True),
    ("text-classification", [LABEL], False, False),
    ("zero-shot-classification", [LABEL], True, True),
    ("zero-shot-classification", {"labels": ["a"], "scores": [0.5]}, True, False),
    ("token-classification", [{"start": 0, "end": 1, "score": 0.5, "word": "a"}], False, True),
    ("translation", [{"translation_text": "a"}], True, True),
    ("translation", {"translation_text": "a"}, False, False),
    ("summarization", {"summary_text": "a"}, False, False),
    ("feature-extraction", [[0.5, 0.25]], True, True),
    ("feature-extraction", {"embedding": [0.5]}, False, False),
    ("sentence-similarity", [0.5], True, True),
    ("fill-mask", [{"score": 0.5, "token": 1, "token_str": "a", "sequence": "a b"}], True, True),
    ("question-answering", {"answer": "a", "score": 0.5, "start": 0, "end": 1}, True, True),
    (
        "table-question-answering",
        [{"answer": "a", "aggregator": "NONE", "cells": ["a"], "coordinates": [[0, 0]]}],
        True,
        False,
    ),
    ("image-to-text", {"generated_text": "a"}, True, False),
    ("image-to-text", [{"generated_text": "a"}], False, True),
    ("image-classification", [LABEL], True, True),
    ("object-detection", [LABEL], False, True),
    ("image-segmentation", [LABEL | {"mask": PNG}], True, True),
    ("image-segmentation", [LABEL | {"mask": "bm90IGFuIGltYWdl"}], True, False),
    ("document-question-answering", [{"answer": "a", "score": 0.5, "start": 0, "end": 1}], True, True),
    ("visual-question-answering", [{"answer": "a", "score": 0.5}], True, True),
    ("audio-to-audio", [{"label": "a", "content-type": "audio/wav", "blob": "UklGRg=="}], True, True),
    ("tabular-classification", [1, 0], True, True),
]


@pytest.mark.parametrize(("client", "column"), [("javascript", 2), ("python", 3)])
def test_serverless_answers_as_each_hugging_face_client_reads_them(client: str, column: int):
    asked = [question(case[1], case[0], "serverless", sent={"inputs": "hello"}) for case in SERVERLESS]

    heard = opinions(client, *asked)

    assert len(heard) == len(SERVERLESS)
    for opinion, case in zip(heard, SERVERLESS, strict=True):
        assert opinion.accepted is case[column], (case, opinion)


@pytest.mark.parametrize("client", ["javascript", "python"])
def test_an_image_must_be_one(client: str):
    image = (("content-type", "image/png"),)
    good = question(base64.b64decode(PNG), "text-to-image", "serverless", headers=image)
    bad = question({"image": "none"}, "text-to-image", "serverless")

    assert [opinion.accepted for opinion in opinions(client, good, bad)] == [True, False]


@pytest.mark.parametrize(
    ("client", "task", "api"),
    [
        ("javascript", "depth-estimation", "serverless"),
        ("javascript", "chat-completion", "responses"),
        ("python", "text-to-audio", "serverless"),
        ("python", "tabular-regression", "serverless"),
        ("openai", "text-classification", "serverless"),
        ("openai", "image-to-text", "openai"),
        ("openai-js", "depth-estimation", "openai"),
    ],
)
def test_what_a_client_has_no_method_for_gets_no_opinion(client: str, task: str, api: str):
    heard = opinions(client, question(completion(), task, api), question(RESPONSE, "chat-completion", "openai"))

    assert {opinion.method for opinion in heard} <= set(METHODS[client])


@pytest.mark.parametrize("client", CLIENTS)
def test_questions_that_were_malformed_on_purpose_can_be_asked(client: str):
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    broken: list[Any] = [
        "text",
        [1],
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user", "content": deep}]},
        {"messages": 7, "tools": [{}], "response_format": []},
        {"messages": [{"role": 1}]},
    ]

    heard = opinions(client, *[question(completion(), sent=sent) for sent in broken])

    assert [opinion.accepted for opinion in heard] == [True] * len(broken), heard


@pytest.mark.parametrize("client", CLIENTS)
def test_hostile_answers_raise_nothing_and_hide_no_other_answer(client: str):
    hostile = [
        b"[" * 100_000,
        b'{"choices": [{"message": {"content": "\\ud800\x1b[31m"}}]}',
        b"\xff\xfe\x00",
        b"",
        json.dumps({"error": {"message": {"deep": "\u2028"}}}).encode(),
    ]
    asked = [question(body, status=status) for body in hostile for status in (200, 204, 302, 404, 599)]
    asked += [question(completion(), headers=(("content-type", "application/json\r\nx: y"),)), question(completion())]

    heard = opinions(client, *asked)

    assert heard[-1].accepted
    assert len(heard) == len(asked)
    for opinion in heard:
        assert (opinion.said + opinion.error).isprintable()
        (opinion.said + opinion.error).encode()


def test_no_answer_is_no_question():
    refused = exchange("probe", b"", status=None, failure=Failure(FailureKind.REFUSED, "refused"))

    for client in CLIENTS:
        assert ask(client, [Question(refused, "chat-completion", "openai", MODEL)]) == []


def test_a_client_that_is_not_known_is_named():
    with pytest.raises(ValueError, match="expected one of the clients javascript, python, openai, openai-js, got 'go'"):
        ask("go", [])
    with pytest.raises(ValueError, match="expected one of the APIs openai, responses, serverless, got 'grpc'"):
        ask("openai", [question(completion(), api="grpc")])


# What follows uses small libraries in the place of the real ones.

FAKE_PYTHON = """
import os, signal, socket, subprocess, sys, time, urllib.request

class APIStatusError(Exception):
    pass

class OpenAI:
    def __init__(self, **options):
        self.chat = self.completions = self

    def with_options(self, base_url):
        self.base_url = base_url
        return self

    def create(self, model, **given):
        return getattr(self, "do_" + model)()

    def do_environment(self):
        raise ValueError(" ".join(sorted(os.environ)) + " HOME=" + os.environ["HOME"])

    def do_connect(self):
        socket.socket().connect(("192.0.2.1", 443))

    def do_port(self):
        socket.create_connection(("127.0.0.1", 9), timeout=1)

    def do_lookup(self):
        try:
            socket.getaddrinfo("leak.example", 443)
        except Exception:
            pass  # a library that swallows the refusal is reported all the same

    def do_datagram(self):
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))

    def do_unsent(self):
        raise TypeError("this client does not like the question")

    def do_missing(self):
        raise ImportError("this method needs numpy")

    def reach(self):
        try:
            urllib.request.urlopen(self.base_url.removesuffix("/v1")).close()
        except urllib.error.HTTPError as error:
            error.close()

    def do_quiet(self):
        self.reach()
        message = type("Message", (), {"content": ""})
        return type("Completion", (), {"choices": [type("Choice", (), {"message": message})]})

    def do_confused(self):
        self.reach()
        raise KeyError("no such model")

    def do_vague(self):
        self.reach()
        raise APIStatusError("something went wrong")

    def do_clear(self):
        self.reach()
        raise APIStatusError("404: no  such\\nmodel")

    def do_sleep(self):
        self.reach()
        time.sleep(60)

    def do_stuck(self):
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        with open(os.environ["PYTHONPATH"] + "/pids", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(60)

    def do_crash(self):
        sys.stderr.write("the library lost its mind\\n")
        sys.stderr.flush()
        os._exit(3)

    def do_flood(self):
        os.set_blocking(1, True)
        while True:
            for fd in range(3, 20):
                try:
                    os.write(fd, b"x" * 65536)
                except OSError:
                    pass
"""

FAKE_JAVASCRIPT = """
import dns from "node:dns";
import http from "node:http";
import net from "node:net";
import tls from "node:tls";
import { createSocket } from "node:dgram";

export class APIError extends Error {
	status = 404;
}

const settled = (emitter) => new Promise((resolve, reject) => emitter.on("error", reject).on("connect", resolve));

const does = {
	environment: () => { throw new Error(Object.keys(process.env).sort().join(" ")); },
	connect: () => settled(net.connect(443, "192.0.2.1")),
	port: () => settled(net.connect({ host: "127.0.0.1", port: 9 })),
	secure: () => settled(tls.connect({ host: "192.0.2.1", port: 443 })),
	http: () => settled(http.get("http://192.0.2.1/")),
	socket: () => settled(net.connect("/tmp/socket")),
	fetch: () => fetch("https://leak.example/").catch(() => "swallowed"),
	request: () => fetch(new Request("https://leak.example/")),
	lookup: () => dns.promises.lookup("leak.example"),
	datagram: () => createSocket("udp4").send("x", 53, "192.0.2.1"),
	data: async () => { throw new Error(await (await fetch("data:text/plain,harmless")).text()); },
	unsent: () => { throw new TypeError("this client does not like the question"); },
	quiet: (url) => fetch(url).then(() => ({ choices: [{ message: { content: "" } }] })),
	confused: (url) => fetch(url).then(() => { throw new RangeError("no such model"); }),
	vague: (url) => fetch(url).then(() => { throw new APIError("something went wrong"); }),
	clear: (url) => fetch(url).then(() => { throw new APIError("404: no  such\\nmodel"); }),
	sleep: (url) => fetch(url).then(() => new Promise((resolve) => setTimeout(resolve, 60000))),
	stuck: () => { for (;;); },
	crash: () => { process.stderr.write("the library lost its mind\\n"); process.abort(); },
	stray: () => { Promise.reject(new Error("unawaited")); setImmediate(() => { throw new Error("later"); });
		return new Promise((_, reject) => setTimeout(() => reject(new TypeError("and on it goes")), 50)); },
};

export class OpenAI {
	constructor({ baseURL }) {
		this.chat = { completions: { create: async ({ model }) => does[model](baseURL) } };
	}
}
"""


@pytest.fixture(params=["openai", "openai-js"])
def fake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The client whose library was replaced."""
    if request.param == "openai":
        put_python(tmp_path, monkeypatch)
    else:
        put_javascript(tmp_path, monkeypatch)
    return str(request.param)


def put_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "openai").mkdir()
    (folder / "openai" / "__init__.py").write_text(FAKE_PYTHON)
    (folder / "openai-9.9.9.dist-info").mkdir()
    (folder / "openai-9.9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: openai\nVersion: 9.9.9\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))


def put_javascript(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not NODE:
        pytest.skip("install Node.js 18 or newer")
    package = folder / "node_modules" / "openai"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "openai", "version": "9.9.9", "type": "module", "main": "i.js"}')
    (package / "i.js").write_text(FAKE_JAVASCRIPT)
    monkeypatch.setattr(asking, "installed", lambda: folder)


def told(client: str, *deeds: str, timeout_s: float = 60.0) -> list[Opinion] | Unavailable:
    return ask(
        client,
        [Question(exchange(deed, completion()), "chat-completion", "openai", deed) for deed in deeds],
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize(
    ("client", "deed", "what"),
    [
        ("openai", "connect", "a connection to ('192.0.2.1', 443)"),
        ("openai", "port", "a connection to ('127.0.0.1', 9)"),
        ("openai", "lookup", "a look-up of 'leak.example'"),
        ("openai", "datagram", "a connection to ('192.0.2.1', 53)"),
        ("openai-js", "connect", "a connection to 192.0.2.1:443"),
        ("openai-js", "port", "a connection to 127.0.0.1:9"),
        ("openai-js", "secure", "a connection to 192.0.2.1:443"),
        ("openai-js", "http", "a connection to 192.0.2.1:80"),
        ("openai-js", "socket", "a connection to /tmp/socket"),
        ("openai-js", "fetch", "a connection to https://leak.example"),
        ("openai-js", "request", "a connection to https://leak.example"),
        ("openai-js", "lookup", "a look-up of leak.example"),
        ("openai-js", "datagram", "a datagram"),
    ],
)
def test_an_attempt_to_leave_loopback_is_blocked_and_reported(
    client: str, deed: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (put_python if client == "openai" else put_javascript)(tmp_path, monkeypatch)

    heard = told(client, deed)

    assert heard == [
        Opinion(client, "9.9.9", f"{deed}#1", "chat.completions.create", False, heard[0].said, heard[0].error)
    ]
    assert heard[0].error == f"BlockedError: blocked {what}"


def test_a_real_client_that_follows_an_answer_elsewhere_is_blocked_and_reported():
    heard = verdict("javascript", {"output": ["https://leak.example/x.png"]}, "text-to-image", "serverless")

    assert not heard.accepted
    assert heard.error == "BlockedError: blocked a connection to https://leak.example"


def test_the_environment_holds_no_key_and_no_proxy(fake: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "HTTPS_PROXY", "https_proxy", "HF_ENDPOINT", "NODE_OPTIONS"):
        monkeypatch.setenv(name, "leaked")

    heard = told(fake, "environment")

    assert isinstance(heard, Unavailable)  # it never sent the question
    assert "HOME" in heard.reason
    assert not re.search("HF_TOKEN|OPENAI|PROXY|proxy|HF_ENDPOINT|NODE_OPTIONS|leaked", heard.reason)
    assert f"HOME={os.environ['HOME']}" not in heard.reason


def test_a_client_that_will_not_ask_says_nothing_of_the_answer(fake: str):
    heard = told(fake, "unsent")

    assert isinstance(heard, Unavailable)
    assert heard.opinions == ()
    assert heard.unanswered == ("unsent#1",)
    assert heard.reason.endswith("an answer was not judged: TypeError: this client does not like the question")


def test_a_package_that_a_method_misses_says_nothing_of_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_python(tmp_path, monkeypatch)

    heard = told("openai", "missing")

    assert isinstance(heard, Unavailable)
    assert "this method needs numpy" in heard.reason


def test_an_error_status_must_raise_an_api_error_that_holds_the_servers_words(fake: str):
    deeds = ("quiet", "confused", "vague", "clear")
    answer = {"error": {"message": "no such model"}}

    heard = ask(fake, [Question(exchange(d, answer, status=404), "chat-completion", "openai", d) for d in deeds])

    assert isinstance(heard, list), heard
    assert [opinion.accepted for opinion in heard] == [False, False, False, True]
    assert heard[0].error == "no error was raised for HTTP 404"
    assert "no such model" in heard[1].error
    assert heard[3].error == ""
    assert heard[3].said.endswith("404: no such model")


def test_a_call_that_comes_to_no_end_is_given_up_and_the_next_is_asked(fake: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asking, "QUESTION_TIMEOUT_S", 0.5)

    began = time.monotonic()
    heard = told(fake, "sleep", "connect")

    assert time.monotonic() - began < 20
    assert isinstance(heard, Unavailable)
    assert heard.reason == f"{fake}: an answer was not judged: Timeout: the client came to no end within 0.5 s"
    assert heard.unanswered == ("sleep#1",)
    assert [opinion.exchange_id for opinion in heard.opinions] == ["connect#1"]


@needs_proc
def test_a_runner_that_hangs_is_ended_in_time_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_python(tmp_path, monkeypatch)

    began = time.monotonic()
    heard = told("openai", "connect", "stuck", "lookup", timeout_s=3.0)

    assert 2.5 < time.monotonic() - began < 15
    assert isinstance(heard, Unavailable)
    assert heard.reason == "openai: it did not finish within 3 s and was ended"
    assert [opinion.exchange_id for opinion in heard.opinions] == ["connect#1"]
    assert heard.unanswered == ("stuck#1", "lookup#1")
    for pid in (tmp_path / "pids").read_text().split():
        assert gone(int(pid))


def gone(pid: int) -> bool:
    """Whether no live process has this id, within two seconds; one that init has yet to reap is dead."""
    for _ in range(40):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


@needs_node
def test_a_javascript_runner_in_an_endless_loop_is_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_javascript(tmp_path, monkeypatch)

    heard = told("openai-js", "fetch", "stuck", timeout_s=3.0)

    assert isinstance(heard, Unavailable)
    assert heard.reason == "openai-js: it did not finish within 3 s and was ended"
    assert [opinion.exchange_id for opinion in heard.opinions] == ["fetch#1"]
    assert heard.unanswered == ("stuck#1",)


def test_a_runner_that_crashes_says_so_and_what_came_before_is_kept(fake: str):
    heard = told(fake, "connect", "crash", "lookup")

    assert isinstance(heard, Unavailable)
    assert heard.reason.startswith(f"{fake}: its runner ended with code ")
    assert [opinion.exchange_id for opinion in heard.opinions] == ["connect#1"]
    assert heard.unanswered == ("crash#1", "lookup#1")
    if fake == "openai":
        assert heard.reason == "openai: its runner ended with code 3: the library lost its mind"


def test_a_runner_that_floods_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_python(tmp_path, monkeypatch)
    monkeypatch.setattr(asking, "MAX_OUTPUT_BYTES", 1_000_000)

    heard = told("openai", "flood", timeout_s=30.0)

    assert isinstance(heard, Unavailable)
    assert heard.reason == "openai: it wrote more than 1,000,000 bytes and was ended"


@needs_node
def test_what_a_library_leaves_behind_does_not_end_the_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_javascript(tmp_path, monkeypatch)

    heard = told("openai-js", "stray", "data", "lookup")

    assert isinstance(heard, Unavailable)  # the first two ask nothing
    assert heard.unanswered == ("stray#1", "data#1")
    assert heard.reason.endswith("and on it goes")
    assert [opinion.exchange_id for opinion in heard.opinions] == ["lookup#1"]


def children() -> set[str]:
    """The ids of our own child processes, dead ones too."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


@needs_proc
def test_nothing_is_left_running():
    before = {thread.name for thread in threading.enumerate()}
    running = children()

    for client in CLIENTS:
        ask(client, [question(completion())])

    assert children() <= running
    assert {thread.name for thread in threading.enumerate()} <= before


@pytest.mark.parametrize("client", ["python", "openai"])
def test_a_missing_python_package_is_said_with_what_to_do(client: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asking, "find_spec", lambda name: None)

    heard = ask(client, [question(completion())])

    package = {"python": "huggingface_hub", "openai": "openai"}[client]
    assert heard == Unavailable(
        f"the Python package {package} is not installed: run `pip install 'roadworthy[clients]'`",
        unanswered=("probe#1",),
    )


def test_a_missing_node_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))

    heard = ask("javascript", [question(completion())])

    assert isinstance(heard, Unavailable)
    assert heard.reason == "Node.js was not found: install Node.js 18 or newer, with npm, so that `node` is on PATH"
    assert installing.main() == 4
    assert "cannot be installed: Node.js was not found" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["v16.20.0", "hello", ""])
def test_an_old_node_is_said_with_what_to_do(said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    script(tmp_path / "node", f"echo '{said}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    heard = ask("openai-js", [question(completion())])

    assert isinstance(heard, Unavailable)
    assert f"says it is version '{said}': install Node.js 18 or newer" in heard.reason


def test_missing_npm_packages_are_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    script(tmp_path / "node", "echo v20.1.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    heard = ask("javascript", [question(completion())])

    assert isinstance(heard, Unavailable)
    assert heard.reason.startswith(
        "the npm package @huggingface/inference is not installed: run `python -m roadworthy.conformance.clients."
    )


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


NPM_THAT_WORKS = """
echo "$@" >> "$(dirname "$0")/calls"
test -f package-lock.json || exit 9
mkdir -p node_modules/openai node_modules/@huggingface/inference
echo '{}' > node_modules/openai/package.json
echo '{}' > node_modules/@huggingface/inference/package.json
"""


def with_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, npm: str) -> Path:
    script(folder / "node", "echo v20.1.0")
    script(folder / "npm", npm)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return folder / "cache" / "roadworthy" / "clients"


def test_installing_runs_npm_once_and_leaves_one_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    cache = with_npm(tmp_path, monkeypatch, NPM_THAT_WORKS)
    assert installed() is None

    first, second = installing.install(), installing.install()

    assert first == second == installed()
    assert [path.name for path in cache.iterdir()] == [first.name]
    assert installing.main() == 0
    assert str(first) in capsys.readouterr().out
    assert (tmp_path / "calls").read_text() == "ci --ignore-scripts --no-audit --no-fund --omit=dev\n"


def test_a_half_installed_folder_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with_npm(tmp_path, monkeypatch, NPM_THAT_WORKS)
    (installing.home() / "node_modules" / "openai").mkdir(parents=True)

    assert installing.install() == installed()


def test_installing_at_once_gives_all_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = with_npm(tmp_path, monkeypatch, "sleep 0.3\n" + NPM_THAT_WORKS)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(installing.install())) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [installed()] * 4
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("npm", "message"),
    [
        ("echo 'npm error code E500' >&2; exit 7", "`npm ci` failed with code 7: npm error code E500. Check that this"),
        ("exit 1", "`npm ci` failed with code 1: it said nothing"),
        ("exit 0", "npm ended well, yet .* lacks one of @huggingface/inference, openai"),
        ("sleep 30", "`npm ci` did not finish in 0.5 s"),
    ],
)
def test_a_failed_installation_is_told_and_leaves_nothing_behind(
    npm: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = with_npm(tmp_path, monkeypatch, npm)

    with pytest.raises(NotInstallableError, match=message):
        installing.install(timeout_s=0.5)

    assert installed() is None
    assert [path for path in cache.iterdir() if path.name.startswith(".")] == []


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with_npm(tmp_path, monkeypatch, NPM_THAT_WORKS)
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(NotInstallableError, match="Make the cache folder writable, or name another in XDG_CACHE_HOME"):
        installing.install()


def test_the_lock_file_pins_every_package_and_names_no_registry():
    lock = json.loads((JAVASCRIPT / "package-lock.json").read_text())

    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert {f"node_modules/{name}" for name in installing.PACKAGES} <= set(packages)
    for entry in packages.values():
        assert entry["integrity"].startswith("sha512-")
        assert "resolved" not in entry
    assert "http" not in (JAVASCRIPT / "package-lock.json").read_text()


def fetch(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_the_replayer_answers_any_method_with_what_was_recorded():
    headers = (("content-type", "text/x-own"), ("Inference-Id", "abc"), ("location", "http://192.0.2.1/"))
    recorded = [exchange("a", b"one", headers=headers), exchange("b", b"two", status=418, headers=headers)]

    with Replayer(recorded) as replayer:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            status, got, body = fetch(replayer.url(0) + "/v1/any?x=1", method, b"x" * 100_000)
            assert (status, body, got["content-type"], got["inference-id"]) == (200, b"one", "text/x-own", "abc")
            assert "location" not in got
        assert fetch(replayer.url(1))[::2] == (418, b"two")


@pytest.mark.parametrize(
    "path", ["/", "/x", "/x/", "/x/2", "/x/-1", "/x/0a", "/x/²", "/y/0", "/x/99999999999999999999"]
)
def test_the_replayer_knows_no_other_path(path: str):
    with Replayer([exchange("a", b"one"), exchange("b", b"two")]) as replayer:
        root = replayer.url(0).removesuffix("/x/0")
        assert fetch(root + urllib.request.quote(path))[0] == 404


def test_the_replayer_is_there_only_inside_its_block():
    replayer = Replayer([exchange("a", b"one")])
    with pytest.raises(RuntimeError, match="only inside its `with` block"):
        replayer.url(0)
    with replayer:
        url = replayer.url(0)
        assert url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.URLError):
        fetch(url)


def test_a_body_is_sent_in_the_pieces_it_was_read_in():
    reads = [Read(1, 3), Read(2, 3), Read(3, 5), Read(4, 99)]

    assert pieces(b"abcdefg", reads) == [b"abc", b"de", b"fg"]
    assert pieces(b"abcdefg", []) == [b"abcdefg"]
    assert pieces(b"", reads) == []
