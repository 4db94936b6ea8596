"""Probes of tool calling."""

from __future__ import annotations

import json
from typing import Any

from roadworthy.conformance import strict_json
from roadworthy.conformance.exchange import as_object
from roadworthy.conformance.facts import Capability
from roadworthy.conformance.probe import Context, Draft, Expects, probe
from roadworthy.conformance.probes.stream import STREAMS

TOOLS = [Capability.TOOLS]
PARALLEL = [Capability.TOOLS, Capability.PARALLEL_TOOLS]
TEMPERATURE = 17
SECOND_TEMPERATURE = 23
ACCENTED = "São Paulo"


def function(name: str, description: str, parameters: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A function tool."""
    body = {"name": name, "description": description, **more}
    return {"type": "function", "function": body if parameters is None else {**body, "parameters": parameters}}


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The schema of an object that has all of these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


WEATHER = function(
    "get_weather",
    "Get the current weather of a city",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city"],
    },
)
STOCK = function(
    "get_stock_price",
    "Get the latest price of a share",
    {"type": "object", "properties": {"symbol": {"type": "string"}}, "required": ["symbol"]},
)
EVENT_SCHEMA = closed(
    {
        "title": {"type": "string"},
        "priority": {"type": "string", "enum": ["low", "medium", "high"]},
        "attendees": {"type": "array", "items": {"type": "string"}},
        "place": closed({"city": {"type": "string"}, "floor": {"type": "integer"}}),
        "remote": {"type": "boolean"},
    }
)
EVENT = function("create_event", "Create an event in the calendar", EVENT_SCHEMA, strict=True)
PING = function("ping", "Check that the service is alive; takes no arguments", {"type": "object", "properties": {}})
BOTH = [WEATHER, STOCK]
QUESTION = "What is the weather in Paris right now? Use the tools."
TWO_CITIES = "What is the weather in Paris and in London? Look up both at once."


def named(name: str) -> dict[str, Any]:
    """A tool choice that names a function."""
    return {"type": "function", "function": {"name": name}}


@probe("tools.auto", needs=TOOLS)
def auto(context: Context) -> Draft:
    """A question that plainly wants one of two tools."""
    return context.chat(QUESTION, tools=BOTH, tool_choice="auto", temperature=0)


@probe("tools.abstain", needs=TOOLS)
def abstain(context: Context) -> Draft:
    """A question that wants neither of the tools on offer."""
    return context.chat("Reply with exactly: PONG", tools=BOTH, temperature=0)


@probe("tools.required", needs=TOOLS)
def required(context: Context) -> Draft:
    """A call that must come, with letters beyond ASCII in its argument."""
    question = f"What is the weather in {ACCENTED}?"
    return context.chat(question, tools=BOTH, tool_choice="required", temperature=0)


@probe("tools.named", needs=TOOLS)
def by_name(context: Context) -> Draft:
    """A function named by the caller, against the question's drift."""
    return context.chat(QUESTION, tools=BOTH, tool_choice=named("get_stock_price"), temperature=0)


@probe("tools.none", needs=TOOLS)
def none(context: Context) -> Draft:
    """Tools on offer that must not be called."""
    return context.chat(QUESTION, tools=BOTH, tool_choice="none", temperature=0)


@probe("tools.parallel", needs=PARALLEL)
def parallel(context: Context) -> Draft:
    """Two independent things to look up at once."""
    return context.chat(TWO_CITIES, tools=[WEATHER], parallel_tool_calls=True, temperature=0)


@probe("tools.strict", needs=TOOLS)
def strict(context: Context) -> Draft:
    """A strict function with nested objects, an enum, an array, an integer and a boolean."""
    question = 'Create a high priority event "Review" in Berlin on floor 3 with "Ada" and "Alan", not remote.'
    return context.chat(question, tools=[EVENT], tool_choice=named("create_event"), temperature=0)


@probe("tools.no_parameters", needs=TOOLS)
def no_parameters(context: Context) -> Draft:
    """A function without parameters, named by the caller."""
    return context.chat("Is the service alive?", tools=[PING], tool_choice=named("ping"), temperature=0)


@probe("tools.result", needs=TOOLS, after=[auto])
def result(context: Context) -> Draft:
    """The result of a call, handed back; the call as it came, or one of ours where none came."""
    earlier = context.answer_to(auto)
    calls = [call for call in earlier.tool_calls if _whole(call)][:1] if earlier else []
    if not calls:
        call = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
        calls = [{"id": "call_0001", "type": "function", "function": call}]
    told = json.dumps({"temperature_celsius": TEMPERATURE, "sky": "cloudy"})
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": told} for call in calls),
    ]
    return context.chat(messages, tools=BOTH, temperature=0)


@probe("tools.result.several", needs=TOOLS)
def several_results(context: Context) -> Draft:
    """The results of two calls, handed back one after the other beside empty content, answered in a stream."""
    told = {"call_0001": ("Paris", TEMPERATURE), "call_0002": ("London", SECOND_TEMPERATURE)}
    calls = [
        {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
        for id, (city, _) in told.items()
    ]
    results = [
        {"role": "tool", "tool_call_id": id, "content": json.dumps({"city": city, "temperature_celsius": degrees})}
        for id, (city, degrees) in told.items()
    ]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": TWO_CITIES},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *results,
    ]
    return context.chat(messages, tools=[WEATHER], stream=True, temperature=0)


@probe("tools.stream", needs=TOOLS)
def stream(context: Context) -> Draft:
    """A streamed call that must come."""
    question = f"What is the weather in {ACCENTED}?"
    return context.chat(question, tools=BOTH, tool_choice="required", stream=True, temperature=0)


@probe("tools.stream.parallel", needs=PARALLEL)
def stream_parallel(context: Context) -> Draft:
    """Two streamed calls at once."""
    return context.chat(TWO_CITIES, tools=[WEATHER], parallel_tool_calls=True, stream=True, temperature=0)


@probe("tools.unknown_choice", needs=TOOLS, expects=Expects.REFUSAL)
def unknown_choice(context: Context) -> Draft:
    """A tool choice that names a function which is not offered."""
    return context.chat("Hi.", tools=[WEATHER], tool_choice=named("no_such_function"), max_tokens=16)


@probe("tools.bad_choice", needs=TOOLS, expects=Expects.REFUSAL)
def bad_choice(context: Context) -> Draft:
    """A tool choice that is none of the words there are."""
    return context.chat("Hi.", tools=[WEATHER], tool_choice="sometimes", max_tokens=16)


@probe("tools.bad_type", needs=TOOLS, expects=Expects.REFUSAL)
def bad_type(context: Context) -> Draft:
    """A tool of a type that does not exist."""
    return context.chat("Hi.", tools=[{**WEATHER, "type": "gadget"}], max_tokens=16)


@probe("tools.bad_parameters", needs=TOOLS, expects=Expects.REFUSAL)
def bad_parameters(context: Context) -> Draft:
    """A function whose parameters are no JSON Schema."""
    tool = function("get_weather", "Get the weather", {"type": "objekt", "properties": {"city": {"type": "strnig"}}})
    return context.chat("Hi.", tools=[tool], max_tokens=16)


@probe("tools.duplicate", needs=TOOLS, expects=Expects.REFUSAL)
def duplicate(context: Context) -> Draft:
    """Two functions of one name with different parameters."""
    other = function("get_weather", "Get the weather of a zip code", closed({"zip_code": {"type": "string"}}))
    return context.chat("Hi.", tools=[WEATHER, other], max_tokens=16)


@probe("tools.orphan_result", needs=TOOLS, expects=Expects.REFUSAL)
def orphan_result(context: Context) -> Draft:
    """The result of a call that nobody made."""
    messages = [
        {"role": "user", "content": "Hi."},
        {"role": "tool", "tool_call_id": "call_nobody_made", "content": "17"},
    ]
    return context.chat(messages, tools=[WEATHER], max_tokens=16)


@probe("tools.nameless", needs=TOOLS, expects=Expects.REFUSAL)
def nameless(context: Context) -> Draft:
    """A tool without a name."""
    return context.chat("Hi.", tools=[{"type": "function", "function": {"parameters": {}}}], max_tokens=16)


@probe("tools.required_of_none", needs=TOOLS, expects=Expects.REFUSAL)
def required_of_none(context: Context) -> Draft:
    """A call required where there are no tools."""
    return context.chat("Hi.", tool_choice="required", max_tokens=16)


def _whole(call: dict[str, Any]) -> bool:
    """Whether a call can be handed back as it came."""
    part = as_object(call.get("function"))
    arguments = part.get("arguments")
    try:
        json.dumps(call, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON may escape halves of a letter, which no request can hold
        return False
    return (
        bool(call.get("id"))
        and isinstance(call["id"], str)
        and call.get("type") == "function"
        and part.get("name") == "get_weather"
        and isinstance(arguments, str)
        and isinstance(strict_json.loads(arguments), dict)
    )


STREAMS += [stream, stream_parallel, several_results]
PLAIN_CALLS = (auto, required, by_name, parallel, strict, no_parameters)
STREAMED_CALLS = (stream, stream_parallel)
CALLS = (*PLAIN_CALLS, *STREAMED_CALLS)
