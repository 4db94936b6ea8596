"""Probes of the Responses API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from roadworthy.conformance.exchange import as_object, objects
from roadworthy.conformance.facts import Capability, asked
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Phase, probe
from roadworthy.conformance.probes.chat import png
from roadworthy.conformance.probes.tools import closed
from roadworthy.conformance.subject import Api
from roadworthy.conformance.words import is_integer

HERE = asked(Api.RESPONSES)
ROUTE = "/responses"
MCP_PATH = "/mcp-demo"
PONG = "PONG"
SCRIPTS = "naïve 東京 🚀"
SYSTEM_WORD = "BANANA"
DEVELOPER_WORD = "MANGO"
CODE_WORD = "ZEBRA"
STORED_WORD = "FALCON"
CUT_TOKENS = 16
"""The fewest that OpenAI takes."""
COUNT = "Count from one to thirty in words, separated by commas."
UNKNOWN_MODEL = "roadworthy/no-such-model"
UNKNOWN_RESPONSE = "resp_00000000000000000000000000000000"
MCP_LABEL = "demo"
MCP_TOOL = "search_documentation"
MCP_QUESTION = 'Count the entries of the documentation that hold the word "chat". Use the tools you have.'
"""It tempts the model to the tool that is not allowed."""
SAMPLES = 3
DEGREES = "-17"

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather of a city",
    "parameters": closed({"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}),
    "strict": True,
}
STOCK: dict[str, Any] = {
    "type": "function",
    "name": "get_stock_price",
    "description": "Get the latest price of a share",
    "parameters": {"type": "object", "properties": {"symbol": {"type": "string"}}, "required": ["symbol"]},
}
QUESTION = "What is the weather in São Paulo right now, in celsius?"
EVENT = closed(
    {
        "name": {"type": "string"},
        "day": {"type": "string", "enum": ["Thursday", "Friday", "Saturday"]},
        "guests": {"type": "integer"},
        "participants": {"type": "array", "items": {"type": "string"}},
    }
)
EXTRACT = 'Extract the event as JSON: "Alice" and 2 guests go to a science fair on Friday.'
FORMAT: dict[str, Any] = {"type": "json_schema", "name": "event", "schema": EVENT, "strict": True}
CHAT_FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "event", "schema": EVENT, "strict": True}}
TOOLS = [Capability.TOOLS]
SCHEMA = [Capability.JSON_SCHEMA]


def ask(context: Context, given: Sequence[Mapping[str, Any]] | str, **parameters: Any) -> Draft:
    """A request for a response. Parameters that are None are left out."""
    body = {"model": context.facts.model, "input": given, "max_output_tokens": context.facts.max_tokens, **parameters}
    return Draft("POST", ROUTE, json={key: value for key, value in body.items() if value is not None})


def says(role: str, text: str) -> dict[str, Any]:
    """A message of the input."""
    return {"role": role, "content": text}


# The first requests


@probe("responses.plain", phase=Phase.FIRST, gate=True, applies=HERE)
def plain(context: Context) -> Draft:
    """A first plain question, a string and nothing else, so that a cold start falls to it."""
    return Draft("POST", ROUTE, json={"model": context.facts.model, "input": "Say hello."})


@probe("responses.models", phase=Phase.FIRST, applies=HERE)
def models(context: Context) -> Draft:
    """The list of models, for what it says of this one."""
    return Draft("GET", "/models")


# Text


@probe("responses.echo", applies=HERE)
def echo(context: Context) -> Draft:
    """A short answer asked for in so many words, as an array of content parts."""
    parts = [{"type": "input_text", "text": f"Reply with exactly: {PONG} {SCRIPTS}"}]
    return ask(context, [{"type": "message", "role": "user", "content": parts}], temperature=0)


@probe("responses.instructions", applies=HERE)
def instructions(context: Context) -> Draft:
    """Instructions that tell how to answer, beside a string."""
    told = f"Always answer only with the word {SYSTEM_WORD}."
    return ask(context, "Hi, how are you?", instructions=told, temperature=0)


@probe("responses.roles", applies=HERE)
def roles(context: Context) -> Draft:
    """A developer message that tells how to answer."""
    return ask(
        context,
        [
            says("developer", f"Always answer only with the word {DEVELOPER_WORD}."),
            says("user", "Hi, how are you?"),
        ],
        temperature=0,
    )


@probe("responses.history", applies=HERE)
def history(context: Context) -> Draft:
    """A conversation of several turns behind a system message, whose last question needs the first."""
    return ask(
        context,
        [
            says("system", "You are a helpful assistant."),
            says("user", f"The code word is {CODE_WORD}. Please remember it."),
            {"role": "assistant", "content": [{"type": "output_text", "text": "I will remember it."}]},
            says("user", "What is the code word?"),
        ],
        temperature=0,
    )


@probe("responses.cut", applies=HERE)
def cut(context: Context) -> Draft:
    """An answer that max_output_tokens cuts off."""
    return ask(context, COUNT, max_output_tokens=CUT_TOKENS)


@probe("responses.extra_field", applies=HERE)
def extra_field(context: Context) -> Draft:
    """A plain question with a field that nobody knows, and notes of the caller's own."""
    return ask(context, "Say hello.", x_roadworthy_unknown={"a": 1}, metadata={"purpose": "test"})


# Conversations that the server keeps


@probe("responses.stored", applies=HERE, expects=Expects.EITHER)
def stored(context: Context) -> Draft:
    """Something to remember, in a response that the server is asked to keep; refusing to keep any is legal."""
    return ask(context, f"The code word is {STORED_WORD}. Please remember it.", store=True)


@probe("responses.continued", applies=HERE, after=[stored], expects=Expects.EITHER)
def continued(context: Context) -> Draft | None:
    """A question that only the kept response answers; not sent where none was kept."""
    first = context.answer_to(stored)
    name = first.answer.get("id") if first and first.status == 200 else None
    if not isinstance(name, str) or not name:
        return None
    return ask(context, "What is the code word?", previous_response_id=name, temperature=0)


@probe("responses.continued_unknown", applies=HERE, expects=Expects.REFUSAL)
def continued_unknown(context: Context) -> Draft:
    """A response to continue that never was."""
    return ask(context, "What is the code word?", previous_response_id=UNKNOWN_RESPONSE)


# Streams


@probe("responses.stream", applies=HERE)
def stream(context: Context) -> Draft:
    """A streamed answer of a few sentences."""
    return ask(context, [says("user", COUNT)], stream=True, temperature=0)


@probe("responses.stream.cut", applies=HERE)
def stream_cut(context: Context) -> Draft:
    """A streamed answer that max_output_tokens cuts off."""
    return ask(context, COUNT, stream=True, max_output_tokens=CUT_TOKENS)


@probe("responses.stream.first_token", applies=HERE, phase=Phase.ALONE, repeat=SAMPLES)
def first_token(context: Context) -> Draft:
    """A short streamed answer, alone on a quiet client, each sample a little different."""
    return ask(context, f"Say hello to visitor number {context.trial}.", stream=True)


# Functions


@probe("responses.call", applies=HERE, needs=TOOLS)
def call(context: Context) -> Draft:
    """A call that must come, of one of two functions, with letters beyond ASCII in its argument."""
    return ask(context, QUESTION, tools=[STOCK, WEATHER], tool_choice="required", temperature=0)


@probe("responses.call.stream", applies=HERE, needs=TOOLS)
def call_stream(context: Context) -> Draft:
    """The same call, streamed."""
    return ask(context, QUESTION, tools=[WEATHER], tool_choice="required", temperature=0, stream=True)


@probe("responses.call.named", applies=HERE, needs=TOOLS)
def call_named(context: Context) -> Draft:
    """A function named by the caller, against the question's drift."""
    choice = {"type": "function", "name": "get_stock_price"}
    return ask(context, "What is the weather in Paris?", tools=[WEATHER, STOCK], tool_choice=choice, temperature=0)


@probe("responses.call.result", applies=HERE, needs=TOOLS, after=[call])
def call_result(context: Context) -> Draft | None:
    """What the function returned, sent back beside the items that asked for it."""
    first = context.answer_to(call)
    items = objects(first.answer.get("output")) if first else []
    items = [item for item in items if item.get("type") in ("reasoning", "function_call", "message")]
    made = [item for item in items if item.get("type") == "function_call"]
    if not made or not all(isinstance(item.get(key), str) for item in made for key in ("call_id", "name", "arguments")):
        return None
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": f"{DEGREES} degrees, snow"}
        for item in made
    ]
    return ask(context, [says("user", QUESTION), *items, *results], tools=[STOCK, WEATHER], temperature=0)


# Structured output, images, thoughts


@probe("responses.schema", applies=HERE, needs=SCHEMA)
def schema(context: Context) -> Draft:
    """An answer that must meet a strict schema."""
    return ask(context, EXTRACT, text={"format": FORMAT}, temperature=0)


@probe("responses.schema.stream", applies=HERE, needs=SCHEMA)
def schema_stream(context: Context) -> Draft:
    """The same schema, streamed."""
    return ask(context, EXTRACT, text={"format": FORMAT}, temperature=0, stream=True)


@probe("responses.schema.chat_name", applies=HERE, needs=SCHEMA, expects=Expects.EITHER)
def schema_chat_name(context: Context) -> Draft:
    """The same schema as `response_format`, as the hub's guide writes it; a refusal is legal."""
    told = "Return JSON that matches the event schema."
    return ask(context, EXTRACT, instructions=told, response_format=CHAT_FORMAT, temperature=0)


@probe("responses.image", applies=HERE, needs=[Capability.VISION])
def image(context: Context) -> Draft:
    """A small blue picture as a data: URI, and a question about it."""
    parts = [
        {"type": "input_text", "text": "What colour is this image? Answer with one word."},
        {"type": "input_image", "image_url": png((20, 40, 220))},
    ]
    return ask(context, [{"role": "user", "content": parts}], temperature=0)


def _thoughtful(context: Context, **more: Any) -> Draft:
    limit = 8 * context.facts.max_tokens
    return ask(context, "What is 12 + 30?", reasoning={"effort": "low"}, max_output_tokens=limit, **more)


@probe("responses.reasoning", applies=HERE, needs=[Capability.REASONING])
def reasoning(context: Context) -> Draft:
    """A question with a little effort of reasoning asked for."""
    return _thoughtful(context)


@probe("responses.reasoning.stream", applies=HERE, needs=[Capability.REASONING])
def reasoning_stream(context: Context) -> Draft:
    """The same question, streamed."""
    return _thoughtful(context, stream=True)


# Remote tools


@probe("responses.mcp.host", applies=HERE, expects=Expects.EITHER)
def mcp_host(context: Context) -> Draft:
    """Whether the target hosts a demonstration MCP server, since we bring none that it could reach."""
    return Draft("GET", MCP_PATH)


def _remote(context: Context, **more: Any) -> Draft | None:
    host = context.answer_to(mcp_host)
    offered = [tool.get("name") for tool in objects(host.answer.get("tools"))] if host and host.status == 200 else []
    if MCP_TOOL not in offered:
        return None
    tool = {
        "type": "mcp",
        "server_label": MCP_LABEL,
        "server_url": context.facts.base_url + MCP_PATH,
        "allowed_tools": [MCP_TOOL],
        "require_approval": "never",
    }
    return ask(context, MCP_QUESTION, tools=[tool], temperature=0, **more)


@probe("responses.mcp", applies=HERE, after=[mcp_host], expects=Expects.EITHER)
def mcp(context: Context) -> Draft | None:
    """A question for remote tools, one of two allowed; not sent where no server is at hand, and legally refused."""
    return _remote(context)


@probe("responses.mcp.stream", applies=HERE, after=[mcp_host], expects=Expects.EITHER)
def mcp_stream(context: Context) -> Draft | None:
    """The same question, streamed."""
    return _remote(context, stream=True)


# Refusals


@probe("responses.no_key", applies=HERE, expects=Expects.REFUSAL)
def no_key(context: Context) -> Draft | None:
    """A plain question without a key; not asked where the target is used without one."""
    return replace(ask(context, "Say hello."), auth=Auth.NONE) if context.facts.authenticated else None


@probe("responses.unknown_model", applies=HERE, expects=Expects.REFUSAL)
def unknown_model(context: Context) -> Draft:
    """A plain question to a model that does not exist."""
    return ask(context, "Say hello.", model=UNKNOWN_MODEL)


@probe("responses.no_input", applies=HERE, expects=Expects.REFUSAL)
def no_input(context: Context) -> Draft:
    """A request without an input."""
    return Draft("POST", ROUTE, json={"model": context.facts.model, "max_output_tokens": CUT_TOKENS})


@probe("responses.wrong_type", applies=HERE, expects=Expects.REFUSAL)
def wrong_type(context: Context) -> Draft:
    """An input that is a number."""
    return Draft("POST", ROUTE, json={"model": context.facts.model, "input": 7})


@probe("responses.unknown_tool", applies=HERE, expects=Expects.REFUSAL)
def unknown_tool(context: Context) -> Draft:
    """A tool of a type that does not exist."""
    return ask(context, "Say hello.", tools=[{"type": "telepathy"}])


@probe("responses.bad_stream", applies=HERE, expects=Expects.REFUSAL)
def bad_stream(context: Context) -> Draft:
    """A streamed request whose message has a role that does not exist."""
    return ask(context, [says("robot", "Say hello.")], stream=True)


FORMS = (plain, echo, instructions, roles, history)
"""The forms that the hub's guide shows, which nobody may refuse."""
TEXTS = (*FORMS, extra_field, stored)
"""The probes whose answers are whole plain messages."""
BODIES = (*TEXTS, cut, continued, call, call_named, call_result, schema, schema_chat_name, image, reasoning, mcp)
"""Every probe whose answer is one response object."""
STREAMS = (stream, stream_cut, first_token, call_stream, schema_stream, reasoning_stream, mcp_stream)
CALLS = (call, call_stream)
ERRORS = (unknown_model, no_input, wrong_type, unknown_tool)


def limit_of(sent: Any) -> int | None:
    """The limit of tokens that a request set."""
    limit = as_object(sent).get("max_output_tokens")
    return limit if is_integer(limit) else None
