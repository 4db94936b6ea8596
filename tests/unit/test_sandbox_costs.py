"""The sandbox knows what each request cost, and tells it as the registration guide wants."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from roadworthy.sandbox import models
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.families import costs
from roadworthy.sandbox.mutation import Mutation
from roadworthy.sandbox.server import running
from roadworthy.sandbox.turn import Kind, Stage
from roadworthy.schemas import problem

KEY = "sandbox-key-0123456789"
CHAT = "acme/chat-1"
MESSAGES = [{"role": "user", "content": "Say hello, and count from one to nine in words."}]
INPUT_NANO_USD, OUTPUT_NANO_USD = 200, 600


@pytest.fixture(scope="module")
def url():
    with running(Sandbox((), Options(api_key=KEY))) as address:
        yield address


def send(url, path, body=None, *, key=KEY):
    """The status, the id and the body of an answer."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        with urlopen(Request(url + path, data, headers)) as reply:
            return reply.status, reply.headers["Inference-Id"], reply.read()
    except HTTPError as error:
        return error.code, error.headers["Inference-Id"], error.read()


def told(url, ids):
    status, _, raw = send(url, "/request-costs", {"requestIds": ids})
    assert status == 200, raw
    answer = json.loads(raw)
    assert problem("wire/cost_request.json", {"requestIds": ids}) is None
    assert problem("wire/cost_answer.json", answer) is None
    return answer["requests"]


def cost(url, id):
    [entry] = told(url, [id])
    assert entry["requestId"] == id
    return entry["costNanoUsd"]


def events(raw):
    lines = [line.removeprefix("data:").strip() for line in raw.decode().splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("counted", [True, False])
def test_a_streamed_answer_costs_as_much_as_a_whole_one_whether_or_not_it_tells_its_usage(url, counted):
    body = {"model": CHAT, "messages": MESSAGES, "temperature": 0}
    _, id, raw = send(url, "/chat/completions", body)
    usage = json.loads(raw)["usage"]
    expected = usage["prompt_tokens"] * INPUT_NANO_USD + usage["completion_tokens"] * OUTPUT_NANO_USD
    assert expected > 0
    assert cost(url, id) == expected
    options = {"stream_options": {"include_usage": True}} if counted else {}
    _, streamed, raw = send(url, "/chat/completions", {**body, "stream": True, **options})
    assert any(event.get("usage") for event in events(raw)) == counted
    assert streamed != id
    assert cost(url, streamed) == expected


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("/completions", {"model": "acme/text-generation", "prompt": "one, two, three,"}, "prompt completion"),
        ("/responses", {"model": CHAT, "input": "Say hello."}, "input output"),
        ("/embeddings", {"model": "acme/feature-extraction", "input": "a text of some words"}, "prompt none"),
    ],
)
def test_every_family_that_tells_usage_has_costs(url, path, body, names):
    _, id, raw = send(url, path, body)
    usage = json.loads(raw)["usage"]
    read, said = (usage.get(f"{name}_tokens", 0) for name in names.split())
    assert read > 0
    assert cost(url, id) == read * INPUT_NANO_USD + said * OUTPUT_NANO_USD


def test_a_text_generation_server_costs_what_its_details_tell(url):
    body = {"inputs": "one, two, three,", "parameters": {"details": True, "decoder_input_details": True}}
    root = url.removesuffix("/v1")
    _, id, raw = send(root, "/generate", body)
    details = json.loads(raw)["details"]
    expected = len(details["prefill"]) * INPUT_NANO_USD + details["generated_tokens"] * OUTPUT_NANO_USD
    assert cost(url, id) == expected
    _, streamed, _ = send(root, "/generate_stream", {"inputs": "one, two, three,"})
    assert cost(url, streamed) == expected


def test_an_answer_without_tokens_costs_nothing_and_a_failure_has_no_cost(url):
    _, listed, raw = send(url, "/models")
    assert json.loads(raw)["data"][0]["pricing"] == {"input": 0.2, "output": 0.6}
    status, failed, _ = send(url, "/chat/completions", {"model": "acme/nothing", "messages": MESSAGES})
    assert status == 404
    assert failed
    assert told(url, [failed, listed, "an-unknown-id"]) == [{"requestId": listed, "costNanoUsd": 0}]


def test_asking_again_gives_the_same_and_each_id_is_answered_once_in_order(url):
    ids = [send(url, "/embeddings", {"model": "acme/feature-extraction", "input": text})[1] for text in ("a", "b c d")]
    first = told(url, [ids[1], ids[0], ids[1]])
    assert [entry["requestId"] for entry in first] == [ids[1], ids[0]]
    assert told(url, [ids[1], ids[0]]) == first
    assert told(url, []) == []


def test_ten_thousand_ids_are_answered_and_one_more_is_refused(url):
    _, id, _ = send(url, "/models")
    many = [f"unknown-{number}" for number in range(9_999)]
    assert told(url, [*many, id]) == [{"requestId": id, "costNanoUsd": 0}]
    status, _, raw = send(url, "/request-costs", {"requestIds": [*many, id, id]})
    assert status == 400
    assert "10,000" in json.loads(raw)["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"requestIds": None}, "got null"),
        ({}, "got nothing"),
        ({"requestIds": "a"}, "got a string"),
        ({"requestIds": ["a", 7]}, "`requestIds[1]` must be a string, got a number"),
        ({"requestIds": [["a"]]}, "got an array"),
        ([], "got an array"),
        (b"requestIds", "not JSON"),
        (b'{"requestIds": ["\xff"]}', "not JSON"),
        (b'{"requestIds": [], "requestIds": ["a"]}', "twice"),
        pytest.param(b"[" * 100_000, "not JSON", id="nested"),
    ],
)
def test_a_question_of_another_shape_is_refused(url, body, said):
    status, _, raw = send(url, "/request-costs", body)
    error = json.loads(raw)["error"]
    assert status == 400
    assert said in error["message"]


def test_the_key_is_that_of_inference(url):
    assert send(url, "/request-costs", {"requestIds": []}, key="wrong")[0] == 401
    assert send(url, "/request-costs")[0] == 405


def test_costs_are_kept_under_the_id_that_was_told_and_told_costs_never_change():
    def constant(turn):
        turn.headers["Inference-Id"] = "the-replica"

    broken = Mutation("test.constant", "One id.", frozenset(), Stage.HEAD, frozenset({Kind.EMBEDDINGS}), constant)
    with running(Sandbox([broken])) as url:
        tokens = []
        for text in ("a few words", "many more words than in the one before"):
            _, id, raw = send(url, "/embeddings", {"model": "acme/feature-extraction", "input": text})
            assert id == "the-replica"
            tokens.append(json.loads(raw)["usage"]["prompt_tokens"])
        assert tokens[0] < tokens[1]
        assert cost(url, "the-replica") == tokens[0] * INPUT_NANO_USD


def test_memory_is_bounded_and_the_oldest_are_forgotten(monkeypatch):
    monkeypatch.setattr(costs, "KEPT", 3)
    with running(Sandbox()) as url:
        ids = [send(url, "/models")[1] for _ in range(4)]
        # Asking is a request too, with an id of its own.
        assert [entry["requestId"] for entry in told(url, ids)] == ids[1:]
        assert [entry["requestId"] for entry in told(url, ids)] == ids[2:]


def test_the_price_is_the_published_one():
    assert models.PRICE.published() == {"input": 0.2, "output": 0.6}
    assert models.PRICE.input_nano_usd_per_million == INPUT_NANO_USD * 1_000_000
    assert models.PRICE.output_nano_usd_per_million == OUTPUT_NANO_USD * 1_000_000
