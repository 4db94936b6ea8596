"""The sandbox's Responses API answers for real: the official client gets along with it, and wrong requests do not."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from roadworthy.sandbox.app import Sandbox
from roadworthy.sandbox.families import responses
from roadworthy.sandbox.server import running
from roadworthy.schemas import is_valid, problem

MODEL = "acme/chat-1"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def url():
    with running(Sandbox()) as address:
        yield address


def send(url: str, body: Any = None, path: str = "/responses") -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(url + path, data)) as reply:
            return reply.status, json.loads(reply.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def ask(url: str, given: Any, **more: Any) -> dict[str, Any]:
    status, answer = send(url, {"model": MODEL, "input": given, **more})
    assert status == 200, answer
    return answer


def said(answer: dict[str, Any]) -> str:
    return "".join(p["text"] for item in answer["output"] if item["type"] == "message" for p in item["content"])


def events(url: str, given: Any, **more: Any) -> list[dict[str, Any]]:
    body = {"model": MODEL, "input": given, "stream": True, **more}
    with urlopen(Request(url + "/responses", json.dumps(body).encode())) as reply:
        lines = reply.read().decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("input", {"input": 7}),
        ("input", {"input": []}),
        ("input", {}),
        ("input[0].role", {"input": [{"role": "robot", "content": "a"}]}),
        ("input[0].content", {"input": [{"role": "user", "content": 5}]}),
        ("input[0].content[0]", {"input": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}),
        ("image_url", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": {"url": "x"}}]}]}),
        ("input[0].type", {"input": [{"type": "telepathy"}]}),
        ("input[0].call_id", {"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}),
        ("max_output_tokens", {"input": "a", "max_output_tokens": 1}),
        ("temperature", {"input": "a", "temperature": -1}),
        ("stream", {"input": "a", "stream": "yes"}),
        ("reasoning.effort", {"input": "a", "reasoning": {"effort": "heroic"}}),
        ("tools[0].type", {"input": "a", "tools": [{"type": "telepathy"}]}),
        ("tools[0].name", {"input": "a", "tools": [{"type": "function", "name": "a b"}]}),
        (
            "tools[0].server_url",
            {"input": "a", "tools": [{"type": "mcp", "server_label": "x", "server_url": "http://[x"}]},
        ),
        ("tool_choice", {"input": "a", "tool_choice": "required"}),
        ("text.format", {"input": "a", "text": {"format": {"type": "yaml"}}}),
        ("text.format.schema", {"input": "a", "text": {"format": {"type": "json_schema", "name": "x", "schema": 1}}}),
        ("previous_response_id", {"input": "a", "previous_response_id": "resp_none"}),
    ],
)
def test_a_wrong_request_is_refused_and_its_field_named(url, field, body):
    status, answer = send(url, {"model": MODEL, **body})
    assert status in (400, 404), answer
    assert field in answer["error"]["message"] or field in answer["error"]["param"], answer


def test_a_response_and_its_events_meet_their_schemas(url):
    more: dict[str, Any] = {"reasoning": {"effort": "low"}, "tools": [WEATHER]}
    for given in ("Say hello.", "What is the weather in Paris?"):
        assert problem("responses/response.json", ask(url, given, **more)) is None
        told = events(url, given, **more)
        assert [problem("responses/event.json", event) for event in told] == [None] * len(told)
        assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert not is_valid("responses/response.json", {"id": "resp_1"})
    assert not is_valid("responses/event.json", {"sequence_number": 1})


def test_conversations_are_kept_without_their_instructions(url):
    first = ask(url, "The code word is HERON.", instructions="Always answer only with the word BANANA.")
    assert said(first) == "BANANA"
    second = ask(url, "What is the code word?", previous_response_id=first["id"])
    assert "HERON" in said(second)
    third = ask(url, "What is the code word?", previous_response_id=second["id"])
    assert "HERON" in said(third)
    assert send(url, path=f"/responses/{first['id']}") == (200, first)


def test_what_is_not_to_be_kept_is_not(url):
    first = ask(url, "The code word is HERON.", store=False)
    status, _ = send(url, {"model": MODEL, "input": "a", "previous_response_id": first["id"]})
    assert status == 404
    assert send(url, path=f"/responses/{first['id']}")[0] == 404


def test_the_oldest_conversations_are_forgotten(url, monkeypatch):
    monkeypatch.setattr(responses, "KEPT", 2)
    names = [ask(url, "Say hello.")["id"] for _ in range(3)]
    assert [send(url, path=f"/responses/{name}")[0] for name in names] == [404, 200, 200]


def test_calls_and_their_results_go_round(url):
    first = ask(url, "What is the weather in Paris?", tools=[WEATHER], tool_choice="required")
    [call] = first["output"]
    assert json.loads(call["arguments"]) == {"city": "Paris"}
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "-3 degrees"}
    given = [{"role": "user", "content": "What is the weather in Paris?"}, call, result]
    assert "-3 degrees" in said(ask(url, given, tools=[WEATHER]))


def test_remote_tools_are_run(url):
    tool = {"type": "mcp", "server_label": "own", "server_url": url + "/mcp-demo", "require_approval": "never"}
    answer = ask(url, 'Count the documentation entries that hold "chat".', tools=[tool])
    listed, call, message = answer["output"]
    assert [one["name"] for one in listed["tools"]] == ["search_documentation", "count_documentation"]
    assert (call["name"], json.loads(call["arguments"]), call["server_label"]) == (
        "count_documentation",
        {"query": "chat"},
        "own",
    )
    assert call["output"] in said(answer)
    assert message["type"] == "message"


def test_the_remote_server_speaks_json_rpc(url):
    def rpc(method, **params):
        return send(url, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, "/mcp-demo")[1]

    assert rpc("initialize")["result"]["serverInfo"]["name"] == "mcp-demo"
    names = [tool["name"] for tool in rpc("tools/list")["result"]["tools"]]
    assert names == ["search_documentation", "count_documentation"]
    found = rpc("tools/call", name=names[0], arguments={"query": "response"})["result"]
    assert "A response, streamed or not." in found["content"][0]["text"]
    assert not found["isError"]
    for name, arguments in (("x", {"query": "a"}), (names[0], {})):
        assert rpc("tools/call", name=name, arguments=arguments)["result"]["isError"]
    assert rpc("tools/call", name=7)["error"]["code"] == -32602
    assert rpc("x")["error"]["code"] == -32601


def test_the_end_of_a_cut_stream_says_so(url):
    told = events(url, "Count from one to thirty in words.", max_output_tokens=16)
    assert told[-1]["type"] == "response.incomplete"
    assert told[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert told[-1]["response"]["usage"]["output_tokens"] == 16
