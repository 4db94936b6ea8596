"""Checks of what a response may hold besides text: calls, structured output, images, thoughts and remote tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.conformance import strict_json
from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object, objects
from roadworthy.conformance.facts import Capability
from roadworthy.conformance.probes import responses as probes
from roadworthy.conformance.reading.refusal import must_accept
from roadworthy.conformance.reading.responses import counts, has_word, items, response, text, whole
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, show

API = "OpenAI API reference, responses"
GUIDE = "hub's guide to the Responses API"
BOTH = (Lens.HUB, Lens.OPENAI)
TOOLS = [Capability.TOOLS]
SCHEMA = [Capability.JSON_SCHEMA]
REASONING = [Capability.REASONING]
OFFERED = {tool["name"]: tool for tool in (probes.WEATHER, probes.STOCK)}


# Functions


def _calls(exchange: Exchange) -> list[dict[str, Any]]:
    return items(response(exchange), "function_call")


@check(
    "responses.call.accepted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: tool calling",
    remedy="Take tools in this API's flat form, and results as function_call_output items.",
    each=[probes.call, probes.call_stream, probes.call_named, probes.call_result],
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def call_accepted(exchange: Exchange) -> Iterator[Outcome]:
    """Functions may be offered, demanded, named and answered, streamed or not.

    A loop of calls breaks wherever one of these is refused.
    """
    yield from must_accept(exchange)


@check(
    "responses.call.made",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: tool_choice",
    remedy='Constrain generation to a call where tool_choice is "required" or names a function.',
    each=[*probes.CALLS, probes.call_named],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_made(exchange: Exchange) -> Iterator[Outcome]:
    """A call that is required comes, as an output item of type function_call.

    The caller's program has nothing to do otherwise.
    """
    if not whole(exchange):
        yield NotApplicable("the answer is not whole")
    elif not _calls(exchange):
        yield Finding("an item of type function_call", show(response(exchange).get("output")), at="/output")


@check(
    "responses.call.fields",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, function tool call",
    remedy="Give each function_call a call_id, a name and its arguments as a string of JSON.",
    each=[*probes.CALLS, probes.call_named],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_fields(exchange: Exchange) -> Iterator[Outcome]:
    """A call has a call_id, the name of one of the functions, and its arguments as a string.

    The result is sent back under the call_id; SDKs parse the string, and raise for an object.
    """
    offered = [tool.get("name") for tool in objects(as_object(exchange.sent).get("tools"))]
    for made in _calls(exchange):
        for key in ("call_id", "name", "arguments"):
            if not isinstance(made.get(key), str) or not made[key]:
                yield Finding("a string", show(made[key]) if key in made else "absent", at=f"/output/*/{key}")
                return
        if made["name"] not in offered:
            yield Finding(f"one of {show(offered)}", show(made["name"]), at="/output/*/name")
            return


@check(
    "responses.call.arguments",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, function tool call: arguments; strict mode",
    remedy="Constrain generation to the schema of the function's parameters.",
    each=[*probes.CALLS, probes.call_named],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_arguments(exchange: Exchange) -> Iterator[Outcome]:
    """The arguments are JSON that meets the schema of the function.

    The caller's function is called with them as they are.
    """
    for made in _calls(exchange):
        told, name = made.get("arguments"), made.get("name")
        if not isinstance(told, str) or not isinstance(name, str) or name not in OFFERED:
            continue
        value = strict_json.loads(told)
        if isinstance(value, Malformed):
            yield Finding("JSON", f"{value.reason}: {show(told)}", at="/output/*/arguments")
            return
        fault = _fault(OFFERED[name]["parameters"], value)
        if fault:
            expected = f"arguments that meet the schema of {name}"
            yield Finding(expected, f"{fault}: {show(told)}", at="/output/*/arguments")
            return


def _fault(schema: Any, value: Any) -> str | None:
    """Why a value does not meet one of our own schemas."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(value))
    return None if error is None else show(error.message)


@check(
    "responses.call.ids",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, function tool call: call_id",
    remedy="Make a new call_id for each call.",
    across=[*probes.CALLS, probes.call_named],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_ids(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """No two calls have the same call_id.

    Within one conversation the second call would get the first one's result.
    """
    seen: set[str] = set()
    for exchange in exchanges:
        for made in _calls(exchange):
            name = made.get("call_id")
            if isinstance(name, str) and name in seen:
                yield Finding("a new call_id", f"{show(name)} again", at="/output/*/call_id", exchange_id=exchange.id)
                return
            if isinstance(name, str) and name:
                seen.add(name)


@check(
    "responses.call.named",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: tool_choice",
    remedy="Where tool_choice names a function, allow no other call.",
    each=probes.call_named,
    on=Usable.JSON,
    needs=TOOLS,
)
def call_by_name(exchange: Exchange) -> Iterator[Outcome]:
    """A function that the caller names is the one that is called.

    Callers force a function where their next step can take no other.
    """
    wanted = as_object(as_object(exchange.sent).get("tool_choice")).get("name")
    told = [made.get("name") for made in _calls(exchange)]
    names = [name for name in told if isinstance(name, str) and name in OFFERED]
    if not names:
        yield NotApplicable("there is no call of a known function; see responses.call.made")
    elif any(name != wanted for name in names):
        yield Finding(show(wanted), show(names), at="/output/*/name")


@check(
    "responses.call.result",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: input, function_call_output",
    remedy="Turn function_call_output items into the tool messages of your chat template.",
    each=probes.call_result,
    on=Usable.JSON,
    needs=TOOLS,
    bar=0.5,
)
def call_result(exchange: Exchange) -> Iterator[Outcome]:
    """The model uses what the function returned.

    Else the whole round was for nothing, and the answer is made up.
    """
    yield from has_word(exchange, probes.DEGREES.removeprefix("-"))


# Structured output


def _answer_to_schema(exchange: Exchange) -> str | None:
    """The text that must meet the schema, or None where there is none to judge."""
    made = text(response(exchange))
    return made if whole(exchange) and made.strip() else None


@check(
    "responses.schema.accepted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: structured outputs",
    remedy="Take text.format with type json_schema, or declare that the model has no structured output.",
    each=[probes.schema, probes.schema_stream],
    on=Usable.RESPONSE,
    needs=SCHEMA,
)
def schema_accepted(exchange: Exchange) -> Iterator[Outcome]:
    """A schema given as text.format is accepted, streamed or not.

    It is what the SDK's `parse` sends.
    """
    yield from must_accept(exchange)


@check(
    "responses.schema.parses",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: structured outputs; {API}, create: text.format",
    remedy="Constrain generation by the schema in text.format; a fence or a sentence around the JSON breaks it.",
    each=[probes.schema, probes.schema_stream],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_parses(exchange: Exchange) -> Iterator[Outcome]:
    """With a schema the text is JSON and nothing else.

    The SDK's `parse` raises for anything around it.
    """
    made = _answer_to_schema(exchange)
    if made is None:
        yield NotApplicable("there is no whole text")
        return
    value = strict_json.loads(made)
    if isinstance(value, Malformed):
        yield Finding("JSON", f"{value.reason}: {show(made)}", at="/output")


@check(
    "responses.schema.met",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: structured outputs; {API}, create: text.format",
    remedy="Enforce strict schemas while generating.",
    each=[probes.schema, probes.schema_stream],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_met(exchange: Exchange) -> Iterator[Outcome]:
    """With a strict schema the JSON meets it exactly.

    The guide promises it, and typed callers raise otherwise.
    """
    made = _answer_to_schema(exchange)
    value = Malformed("") if made is None else strict_json.loads(made)
    if isinstance(value, Malformed):
        yield NotApplicable("there is no JSON; see responses.schema.parses")
        return
    fault = _fault(probes.EVENT, value)
    if fault:
        yield Finding("an object that meets the schema", f"{fault}: {show(made)}", at="/output")


@check(
    "responses.schema.chat_name",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=f"{GUIDE}: structured outputs by response_format",
    remedy="Treat `response_format` like `text.format`, or refuse it with 400 and say so.",
    each=probes.schema_chat_name,
    on=Usable.COMPLETE,
    needs=SCHEMA,
)
def schema_chat_name(exchange: Exchange) -> Iterator[Outcome]:
    """A schema under chat's name, `response_format`, is met or refused.

    The hub's guide shows this name to users of JavaScript and curl; ignored in silence, they get prose.
    """
    if exchange.status != 200:
        yield NotApplicable(f"response_format is refused: HTTP {exchange.status}")
        return
    made = _answer_to_schema(exchange)
    if made is None:
        yield NotApplicable("there is no whole text")
        return
    value = strict_json.loads(made)
    fault = value.reason if isinstance(value, Malformed) else _fault(probes.EVENT, value)
    if fault:
        yield Finding("JSON that meets the schema", f"{fault}: {show(made)}", at="/output")


# Images and thoughts


@check(
    "responses.image.accepted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: multimodal inputs",
    remedy="Take input_image parts whose image_url is a data: URI, or do not declare vision.",
    each=probes.image,
    on=Usable.RESPONSE,
    needs=[Capability.VISION],
)
def image_accepted(exchange: Exchange) -> Iterator[Outcome]:
    """A model that is said to see accepts an image as an input_image part.

    The image_url is a string here, not an object as in chat.
    """
    yield from must_accept(exchange)


@check(
    "responses.image.seen",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: multimodal inputs",
    remedy="Pass images on to the model, in their place among the texts.",
    each=probes.image,
    on=Usable.JSON,
    needs=[Capability.VISION],
    bar=0.5,
)
def image_seen(exchange: Exchange) -> Iterator[Outcome]:
    """The model sees the image.

    A model that was not given it makes something up.
    """
    yield from has_word(exchange, "blue")


@check(
    "responses.reasoning.accepted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: reasoning effort controls",
    remedy='Take reasoning {"effort": "low"}, or do not declare reasoning.',
    each=[probes.reasoning, probes.reasoning_stream],
    on=Usable.RESPONSE,
    needs=REASONING,
)
def reasoning_accepted(exchange: Exchange) -> Iterator[Outcome]:
    """A model that is said to reason accepts an effort.

    Callers trade depth for time with it.
    """
    yield from must_accept(exchange)


@check(
    "responses.reasoning.order",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{GUIDE}: reasoning effort controls; {API}, reasoning items",
    remedy="Put reasoning items before the message that they led to.",
    each=[probes.reasoning, probes.reasoning_stream],
    on=Usable.SUCCESS,
    needs=REASONING,
)
def reasoning_order(exchange: Exchange) -> Iterator[Outcome]:
    """Thoughts are items of type reasoning, before the message.

    Interfaces show items as they come; a thought after the answer reads as a second one.
    """
    if not whole(exchange):
        yield NotApplicable("the answer is not whole")
        return
    kinds = [item.get("type") for item in items(response(exchange))]
    if "message" not in kinds:
        yield NotApplicable("there is no message")
    elif "reasoning" not in kinds:
        yield Finding("an item of type reasoning", show(kinds), at="/output")
    elif kinds.index("reasoning") > kinds.index("message"):
        yield Finding("reasoning before the message", show(kinds), at="/output")


@check(
    "responses.reasoning.summary",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, reasoning items: summary, content",
    remedy="Give reasoning items `summary`, an empty array where there is none, and whole thoughts as `content`.",
    each=[probes.reasoning, probes.reasoning_stream],
    on=Usable.SUCCESS,
    needs=REASONING,
)
def reasoning_summary(exchange: Exchange) -> Iterator[Outcome]:
    """A reasoning item has an array `summary`, and its texts are parts.

    The SDKs' callers loop over both.
    """
    found = items(response(exchange), "reasoning")
    if not found:
        yield NotApplicable("there is no reasoning item; see responses.reasoning.order")
    for item in found:
        if not isinstance(item.get("summary"), list):
            yield Finding("an array", show(item["summary"]) if "summary" in item else "absent", at="/output/*/summary")
            return
        parts = [*item["summary"], *(item["content"] if isinstance(item.get("content"), list) else ())]
        if not all(isinstance(as_object(part).get("text"), str) for part in parts):
            yield Finding("parts with a text", show(parts), at="/output/*/content")
            return


@check(
    "responses.reasoning.usage",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, the response object: usage.output_tokens_details",
    remedy="Report output_tokens_details.reasoning_tokens, as a part of output_tokens.",
    each=[probes.reasoning, probes.reasoning_stream],
    on=Usable.SUCCESS,
    needs=REASONING,
)
def reasoningcounts(exchange: Exchange) -> Iterator[Outcome]:
    """The usage tells how many of the output tokens were thoughts.

    They are charged, and often are most of the bill.
    """
    usage = counts(exchange)
    if not usage:
        yield NotApplicable("there are no counts; see responses.usage.counts")
        return
    thought = as_object(usage.get("output_tokens_details")).get("reasoning_tokens")
    shown = any(objects(item.get("content")) for item in items(response(exchange), "reasoning"))
    if not is_integer(thought) or not (1 if shown else 0) <= thought <= usage["output_tokens"]:
        expected = f"a count from {1 if shown else 0} to {usage['output_tokens']}"
        yield Finding(expected, show(thought), at="/usage/output_tokens_details/reasoning_tokens")


# Remote tools


def _remote(exchange: Exchange) -> Iterator[NotApplicable]:
    """Says why remote tools cannot be judged, where they cannot."""
    if exchange.status != 200:
        yield NotApplicable(f"remote tools are not offered: HTTP {exchange.status}")
    elif not whole(exchange):
        yield NotApplicable("the answer is not whole")


def _lists(exchange: Exchange) -> list[dict[str, Any]]:
    return items(exchange.answer, "mcp_list_tools")


@check(
    "responses.mcp.listed",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: remote MCP execution; {API}, mcp_list_tools",
    remedy="Tell the tools of a remote server in an item mcp_list_tools with its server_label, before they are called.",
    each=probes.mcp,
    on=Usable.COMPLETE,
)
def mcp_listed(exchange: Exchange) -> Iterator[Outcome]:
    """The tools of a remote server are told first, by name and schema, under the caller's label.

    Callers see by it whether the server was reached, and what the model was offered.
    """
    unfit = next(_remote(exchange), None)
    if unfit is not None:
        yield unfit
        return
    kinds = [item.get("type") for item in items(exchange.answer)]
    if "mcp_list_tools" not in kinds:
        yield Finding("an item mcp_list_tools", show(kinds), at="/output")
        return
    if "mcp_call" in kinds and kinds.index("mcp_list_tools") > kinds.index("mcp_call"):
        yield Finding("mcp_list_tools before mcp_call", show(kinds), at="/output")
        return
    for item in _lists(exchange):
        if item.get("server_label") != probes.MCP_LABEL:
            yield Finding(probes.MCP_LABEL, show(item.get("server_label")), at="/output/*/server_label")
            return
        if item.get("error"):
            yield NotApplicable(f"the server was not reached: {show(item['error'])}")
            return
        for tool in item["tools"] if isinstance(item.get("tools"), list) else (None,):
            entry = as_object(tool)
            if not isinstance(entry.get("name"), str) or not isinstance(entry.get("input_schema"), dict):
                yield Finding("a tool with name and input_schema", show(tool), at="/output/*/tools")
                return


@check(
    "responses.mcp.allowed",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: remote MCP execution, allowed_tools",
    remedy="Offer the model no tool that is not in allowed_tools, and run none.",
    each=probes.mcp,
    on=Usable.COMPLETE,
)
def mcp_allowed(exchange: Exchange) -> Iterator[Outcome]:
    """Only the tools that the caller allows are called.

    The list is how callers keep a model from the tools that delete or pay.
    """
    unfit = next(_remote(exchange), None)
    if unfit is not None:
        yield unfit
        return
    called = [item.get("name") for item in items(exchange.answer, "mcp_call")]
    beyond = [name for name in called if isinstance(name, str) and name != probes.MCP_TOOL]
    if beyond:
        yield Finding(f"calls of {probes.MCP_TOOL} alone", show(beyond), at="/output")


@check(
    "responses.mcp.called",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: remote MCP execution; {API}, mcp_call",
    remedy="Tell each remote call in an item mcp_call: server_label, name, arguments, and output or error.",
    each=probes.mcp,
    on=Usable.COMPLETE,
)
def mcp_called(exchange: Exchange) -> Iterator[Outcome]:
    """A remote call is told whole: label, name, arguments as a string of JSON, and output or error.

    It happened on the caller's account; this item is the only record of it.
    """
    unfit = next(_remote(exchange), None)
    if unfit is not None:
        yield unfit
        return
    made = items(exchange.answer, "mcp_call")
    if not made:
        yield Undecided("the model called no remote tool")
    for item in made:
        if not isinstance(item.get("arguments"), str) or isinstance(strict_json.loads(item["arguments"]), Malformed):
            yield Finding("a string of JSON", show(item.get("arguments")), at="/output/*/arguments")
            return
        for key in ("server_label", "name"):
            if not isinstance(item.get(key), str) or not item[key]:
                yield Finding("a string", show(item.get(key)), at=f"/output/*/{key}")
                return
        if not isinstance(item.get("output"), str) and not item.get("error"):
            yield Finding("an output or an error", "neither", at="/output/*/output")
            return


@check(
    "responses.mcp.order",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: remote MCP execution",
    remedy="Go on until the model answers: the message is the last item, after its calls.",
    each=probes.mcp,
    on=Usable.COMPLETE,
)
def mcp_order(exchange: Exchange) -> Iterator[Outcome]:
    """After its remote calls the model answers with a message.

    The API promises to run the loop; a caller that gets calls and no answer has nothing to show.
    """
    unfit = next(_remote(exchange), None)
    if unfit is not None:
        yield unfit
        return
    kinds = [item.get("type") for item in items(exchange.answer)]
    calls = [place for place, kind in enumerate(kinds) if kind == "mcp_call"]
    messages = [place for place, kind in enumerate(kinds) if kind == "message"]
    if calls and not any(place > calls[-1] for place in messages):
        yield Finding("a message after the last mcp_call", show(kinds), at="/output")
