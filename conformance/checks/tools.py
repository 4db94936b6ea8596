"""Checks of tool calling."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from roadworthy.conformance import strict_json
from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object, objects
from roadworthy.conformance.facts import Capability, Facts, chat
from roadworthy.conformance.probes import tools as probes
from roadworthy.conformance.reading.refusal import must_accept, must_refuse
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, show

API = "OpenAI API reference, chat completions, tools"
GUIDE = "function calling guide"
HUB = "registration guide, Automatic validation: tool calling support"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.OPENAI, Lens.SPEC)
TOOLS = [Capability.TOOLS]
PARALLEL = [Capability.TOOLS, Capability.PARALLEL_TOOLS]
OFFERED = "get_weather|get_stock_price|create_event|ping"
MARKUP = re.compile(
    r"</?(?:minimax:)?tool_calls?>|\[/?TOOL_CALLS\]|<function[=_]|<invoke name=|<[|\uff5c]tool|<\|python_tag\|>|"
    r"<\|(?:start|channel|message)\|>|<\|START_ACTION\|>|functools\[|to=functions\."
)
"""What models wrap calls in, by family; a parser that fits the model takes all of it out of the text."""
JSON_CALL = re.compile(
    rf'"(?:name|function|tool)"\s*:\s*"(?:{OFFERED})"[^"]*"(?:arguments|parameters)"|'
    rf'"(?:arguments|parameters)"\s*:\s*{{.*}}\s*,\s*"(?:name|function|tool)"\s*:\s*"(?:{OFFERED})"',
    re.DOTALL,
)
PYTHON_CALL = re.compile(rf"\s*(?:```\w*\s*)?\[?\s*(?:{OFFERED})\(.*\)\s*\]?\s*(?:```)?\s*", re.DOTALL)
ARGUMENTS = "/function/arguments"
BROKEN_LETTERS = re.compile(r"\ufffd|\u00c3[\u0080-\u00bf]|\\+u00[0-9a-fA-F]{2}|S\?+o")
"""UTF-8 cut between its bytes, read as Latin-1, escaped twice, or squeezed into ASCII."""
NO_CALL = NotApplicable("there is no call to look at")
RUN_TOGETHER = re.compile(r"}\s*{")


def _arguments(call: dict[str, Any]) -> Any:
    return as_object(call.get("function")).get("arguments")


def _parsed(call: dict[str, Any]) -> Any:
    text = _arguments(call)
    return strict_json.loads(text) if isinstance(text, str) else None


def _name(call: dict[str, Any]) -> Any:
    return as_object(call.get("function")).get("name")


def _leaked(exchange: Exchange) -> bool:
    """Whether there is a call in the text, and none where it belongs."""
    text = exchange.text
    found = MARKUP.search(text) or JSON_CALL.search(text) or PYTHON_CALL.fullmatch(text)
    return bool(found) and not exchange.tool_calls


def _legacy(exchange: Exchange) -> bool:
    """Whether there is a call in the old field, and none in the new one; beside it the old one harms nobody."""
    return isinstance(exchange.message.get("function_call"), dict) and not exchange.tool_calls


def _cut(exchange: Exchange) -> bool:
    return exchange.finish_reason == "length"


def _called_elsewhere(exchange: Exchange) -> str:
    """Why a call is missing, where it is for another check or nobody to answer for; else empty."""
    if exchange.garbled:
        return "the stream cannot be read; see chat.stream"
    if _leaked(exchange):
        return "the call is in the text; see tools.not_leaked"
    if _legacy(exchange):
        return "the call has the old form; see tools.not_legacy"
    return "the token limit cut the answer off" if _cut(exchange) else ""


# Whether it is offered


@check(
    "tools.accepted",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; {HUB}",
    remedy="Accept tools and every tool_choice, or declare that the model has no tools.",
    each=[*probes.CALLS, probes.abstain, probes.none],
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def accepted(exchange: Exchange) -> Iterator[Outcome]:
    """A model that is said to have tools accepts requests with tools.

    Agents send tools with every request; a refusal breaks them at the first.
    """
    yield from must_accept(exchange)


@check(
    "tools.offered",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=HUB,
    remedy="Switch on tool calling in your engine, with the parser that fits the model.",
    across=[],
    applies=chat,
    on=Usable.ANYTHING,
)
def offered(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """The model offers tool calling.

    The hub's validation of language models tests it.
    """
    ability = facts.ability(Capability.TOOLS)
    if not any(exchange.status == 200 for exchange in exchanges):
        yield NotApplicable("nothing was answered")
    elif ability.offered is False:
        yield Finding("tool calling", f"not offered: {ability.source}")


# What the model chose


@check(
    "tools.auto.calls",
    level=Level.MUST,
    lenses=ALL,
    source=f"{HUB}; {GUIDE}",
    remedy="See that the chat template puts the tools into the prompt, and switch on the parser that fits the model.",
    each=probes.auto,
    bar=0.5,
    needs=TOOLS,
)
def auto_calls(exchange: Exchange) -> Iterator[Outcome]:
    """Asked what a tool plainly answers, the model calls it.

    It is the heart of the hub's test of tool calling.
    """
    yield from _some_call(exchange)


def _some_call(exchange: Exchange) -> Iterator[Outcome]:
    elsewhere = _called_elsewhere(exchange)
    if exchange.tool_calls:
        return
    if elsewhere:
        yield NotApplicable(elsewhere)
    else:
        yield Finding("a tool call", f"no call, and the text: {show(exchange.text)}", at="/choices/0")


@check(
    "tools.auto.right_tool",
    level=Level.MUST,
    lenses=BOTH,
    source=GUIDE,
    remedy="See that the chat template hands names and descriptions of all tools to the model.",
    each=probes.auto,
    bar=0.5,
    needs=TOOLS,
)
def right_tool(exchange: Exchange) -> Iterator[Outcome]:
    """Of two tools the model calls the one that fits.

    A model that cannot tell them apart has not seen their descriptions.
    """
    names = [_name(call) for call in exchange.tool_calls]
    if not names or not all(name in ("get_weather", "get_stock_price") for name in names):
        yield NotApplicable("there is no call of an offered function")
    elif "get_weather" not in names:
        yield Finding("get_weather", show(names), at="/choices/0/message/tool_calls")


@check(
    "tools.auto.argument",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=GUIDE,
    remedy="See that the chat template keeps the question beside the tools.",
    each=probes.auto,
    bar=0.5,
    needs=TOOLS,
)
def auto_argument(exchange: Exchange) -> Iterator[Outcome]:
    """The argument is what the question asked about.

    A well-formed call about something else is a wrong answer with more steps.
    """
    made = [_parsed(call) for call in exchange.tool_calls if _name(call) == "get_weather"]
    cities = [value["city"] for value in made if isinstance(value, dict) and isinstance(value.get("city"), str)]
    if not cities:
        yield NotApplicable("there is no city to look at")
    elif not any("paris" in city.lower() for city in cities):
        yield Finding("Paris", show(cities), at="/choices/0/message/tool_calls/0/function/arguments")


@check(
    "tools.auto.abstains",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=GUIDE,
    remedy="See that neither the chat template nor the grammar forces a call where none is wanted.",
    each=probes.abstain,
    bar=0.5,
    needs=TOOLS,
)
def auto_abstains(exchange: Exchange) -> Iterator[Outcome]:
    """Asked what no tool is for, the model calls none.

    Needless calls cost time and money, and some have effects.
    """
    if exchange.tool_calls:
        yield Finding("no tool call", show(exchange.tool_calls), at="/choices/0/message/tool_calls")


@check(
    "tools.parallel",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, parallel_tool_calls",
    remedy="See that the tool parser does not stop after the first call.",
    each=probes.parallel,
    bar=0.5,
    needs=PARALLEL,
)
def parallel(exchange: Exchange) -> Iterator[Outcome]:
    """Asked for two things at once, the model makes two calls.

    One after the other they take twice as long.
    """
    yield from _two_calls(exchange)


def _two_calls(exchange: Exchange) -> Iterator[Outcome]:
    if _called_elsewhere(exchange) or not exchange.tool_calls:
        yield NotApplicable(_called_elsewhere(exchange) or NO_CALL.reason)
    elif len(exchange.tool_calls) < 2:
        yield Finding("two calls", show(exchange.tool_calls), at="/choices/0/message/tool_calls")


# What the server enforces


@check(
    "tools.required",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}, tool_choice; {GUIDE}",
    remedy='Constrain generation to a call when tool_choice is "required".',
    each=[probes.required, probes.stream],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def required(exchange: Exchange) -> Iterator[Outcome]:
    """`tool_choice: "required"` gives a call.

    Callers take the first call without looking.
    """
    yield from _some_call(exchange)


@check(
    "tools.named",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}, tool_choice; {GUIDE}",
    remedy="Constrain generation to the function that tool_choice names.",
    each=[probes.by_name, probes.strict, probes.no_parameters],
    needs=TOOLS,
)
def named(exchange: Exchange) -> Iterator[Outcome]:
    """A named function is the one that is called.

    Structured extraction is built on it: the caller reads the arguments of that function.
    """
    wanted = as_object(as_object(as_object(exchange.sent).get("tool_choice")).get("function")).get("name")
    if _called_elsewhere(exchange):
        yield NotApplicable(_called_elsewhere(exchange))
        return
    names = [_name(call) for call in exchange.tool_calls]
    if not names or any(name != wanted for name in names):
        got = show(names) if names else f"no call: {show(exchange.text)}"
        yield Finding(f"a call of {wanted}", got, at="/choices/0/message/tool_calls")


@check(
    "tools.none",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}, tool_choice",
    remedy='Leave the tools out of the prompt, or the parser off, when tool_choice is "none".',
    each=probes.none,
    needs=TOOLS,
)
def none(exchange: Exchange) -> Iterator[Finding]:
    """`tool_choice: "none"` gives no call.

    A caller who forbids calls has no code to answer one.
    """
    if exchange.tool_calls:
        yield Finding("no tool call", show(exchange.tool_calls), at="/choices/0/message/tool_calls")


@check(
    "tools.not_leaked",
    level=Level.MUST,
    lenses=ALL,
    source=HUB,
    remedy="Switch on the tool parser that fits this model's format, for streams too.",
    each=probes.CALLS,
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def not_leaked(exchange: Exchange) -> Iterator[Outcome]:
    """A call comes as a call, not as text in the model's own format.

    The user is shown markup, and the agent stops.
    """
    if not exchange.tool_calls and not exchange.text.strip():
        yield NotApplicable("there is neither call nor text")
    elif _leaked(exchange):
        yield Finding("tool_calls", f"text: {show(exchange.text)}", at="/choices/0/message/content")
    elif MARKUP.search(exchange.text):
        got = f"the call's markup beside it: {show(exchange.text)}"
        yield Finding("text without markup, or null", got, at="/choices/0/message/content")


@check(
    "tools.not_legacy",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Return `tool_calls`, an array, in place of `function_call`.",
    each=probes.PLAIN_CALLS,
    needs=TOOLS,
)
def not_legacy(exchange: Exchange) -> Iterator[Outcome]:
    """A call comes in `tool_calls`, not in the old `function_call`.

    Current SDKs do not look there.
    """
    if not exchange.tool_calls:
        found = Finding("tool_calls", "function_call", at="/choices/0/message/function_call")
        yield found if _legacy(exchange) else NO_CALL


# The form of a call


def _fragments(exchange: Exchange) -> Iterator[tuple[int, dict[str, Any]]]:
    """The pieces of streamed calls, each with the number of its event."""
    if exchange.media_type == "text/event-stream" and not exchange.garbled:
        for chunk in exchange.stream.chunks:
            for part in objects(chunk.delta().get("tool_calls")):
                yield chunk.event.index, part


def _shared_indexes(exchange: Exchange) -> dict[int, str]:
    """The indexes under which several calls were streamed, with their arguments as they run together."""
    joined: dict[int, str] = {}
    for _, part in _fragments(exchange):
        index, piece = part.get("index"), as_object(part.get("function")).get("arguments")
        if is_integer(index) and isinstance(piece, str):
            joined[index] = joined.get(index, "") + piece
    return {
        index: text
        for index, text in joined.items()
        if RUN_TOGETHER.search(text) and isinstance(strict_json.loads(text), Malformed)
    }


def _joinable(exchange: Exchange) -> bool:
    """Whether streamed fragments join to calls; where not, a check of the fragments tells why."""
    parts = [part for _, part in _fragments(exchange)]
    pieces = [as_object(part.get("function")).get("arguments") for part in parts]
    return (
        not exchange.garbled
        and all(is_integer(part.get("index")) for part in parts)
        and all(piece is None or isinstance(piece, str) for piece in pieces)
        and not _shared_indexes(exchange)
    )


CallJudge = Callable[[dict[str, Any]], tuple[str, Any, str] | None]
"""What is wrong with one call: what was expected, what came, and where below the call."""


def _of_calls(exchange: Exchange, judge: CallJudge) -> Iterator[Outcome]:
    """The first call that is wrong, if any; nothing is said of a call that did not come."""
    calls = exchange.tool_calls if _joinable(exchange) else []
    if not calls:
        yield NO_CALL
    for place, call in enumerate(calls):
        wrong = judge(call)
        if wrong is not None:
            expected, got, below = wrong
            yield Finding(expected, show(got), at=f"/choices/0/message/tool_calls/{place}{below}")
            return


@check(
    "tools.call.id",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Give every call a non-empty id.",
    each=probes.CALLS,
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_id(exchange: Exchange) -> Iterator[Outcome]:
    """Every call has an id.

    The result is handed back under it; without it the conversation cannot go on.
    """

    def judge(call: dict[str, Any]) -> tuple[str, Any, str] | None:
        value = call.get("id")
        return None if isinstance(value, str) and value else ("a non-empty string", value, "/id")

    yield from _of_calls(exchange, judge)


@check(
    "tools.call.id_unique",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Make an id for each call, not for each answer or each function.",
    each=probes.CALLS,
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_id_unique(exchange: Exchange) -> Iterator[Outcome]:
    """No two calls of one answer have the same id.

    Two results under one id: the model gets one of them, or the request is refused.
    """
    calls = exchange.tool_calls if _joinable(exchange) else []
    ids = [call["id"] for call in calls if isinstance(call.get("id"), str) and call["id"]]
    if len(ids) < 2:
        yield NotApplicable("there are no two calls in one answer")
    elif len(set(ids)) < len(ids):
        yield Finding("different ids", show(ids), at="/choices/0/message/tool_calls")


@check(
    "tools.call.type",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=API,
    remedy='Set "type": "function" in each call.',
    each=probes.PLAIN_CALLS,
    needs=TOOLS,
)
def call_type(exchange: Exchange) -> Iterator[Outcome]:
    """Every call has the type "function".

    Typed clients choose by it what to read.
    """

    def judge(call: dict[str, Any]) -> tuple[str, Any, str] | None:
        return None if call.get("type") == "function" else ("function", call.get("type"), "/type")

    yield from _of_calls(exchange, judge)


@check(
    "tools.call.name",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Constrain names to the functions on offer; strip prefixes that your template adds.",
    each=probes.CALLS,
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_name(exchange: Exchange) -> Iterator[Outcome]:
    """Only functions that were offered are called, by their exact names.

    The caller looks the name up, and finds nothing.
    """
    offered = [as_object(t.get("function")).get("name") for t in objects(as_object(exchange.sent).get("tools"))]

    def judge(call: dict[str, Any]) -> tuple[str, Any, str] | None:
        name = _name(call)
        repeated = isinstance(name, str) and name and any(known and not name.replace(known, "") for known in offered)
        if name in offered or repeated:  # a repeated name is for tools.stream.name_once to tell
            return None
        return f"one of {', '.join(map(str, offered))}", name, "/function/name"

    yield from _of_calls(exchange, judge)


@check(
    "tools.arguments.string",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Serialise the arguments: a string that holds JSON.",
    each=probes.PLAIN_CALLS,
    needs=TOOLS,
)
def arguments_string(exchange: Exchange) -> Iterator[Outcome]:
    """`arguments` is a string that holds JSON, not the object itself.

    Every client parses it; typed ones raise before that.
    """

    def judge(call: dict[str, Any]) -> tuple[str, Any, str] | None:
        absent = _arguments(call) is None and exchange.probe == probes.no_parameters.id
        if isinstance(_arguments(call), str) or absent:  # tools.arguments.empty tells of absent ones
            return None
        return "a string", _arguments(call), ARGUMENTS

    yield from _of_calls(exchange, judge)


@check(
    "tools.arguments.json",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Constrain generation to JSON, or repair the parser that cuts the arguments out.",
    each=[p for p in probes.CALLS if p is not probes.no_parameters],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def arguments_json(exchange: Exchange) -> Iterator[Outcome]:
    """The arguments parse as JSON.

    The caller's code raises where it should have run a function.
    """
    if _cut(exchange):
        yield NotApplicable("the token limit cut the call off")
        return

    def judge(call: dict[str, Any]) -> tuple[str, Any, str] | None:
        made = _parsed(call)
        if isinstance(made, Malformed):
            return "JSON", f"{made.reason}: {_arguments(call)}", ARGUMENTS
        return None

    yield from _of_calls(exchange, judge)


@check(
    "tools.arguments.object",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Serialise the arguments once: the string holds an object, not a string that holds one.",
    each=[p for p in probes.CALLS if p is not probes.no_parameters],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def arguments_object(exchange: Exchange) -> Iterator[Outcome]:
    """The arguments are one JSON object.

    Functions are called with named arguments; an object encoded twice is a string, and has no names.
    """

    def judge(call: dict[str, Any]) -> tuple[str, Any, str] | None:
        if isinstance(_arguments(call), str) and not isinstance(_parsed(call), Malformed | dict):
            return "an object", _arguments(call), ARGUMENTS
        return None

    yield from _of_calls(exchange, judge)


@check(
    "tools.arguments.empty",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Send `{}` for a call without arguments.",
    each=probes.no_parameters,
    needs=TOOLS,
)
def arguments_empty(exchange: Exchange) -> Iterator[Outcome]:
    """A call of a function without parameters has the arguments `{}`.

    An empty string or null is not JSON, and parsing it raises.
    """

    def judge(call: dict[str, Any]) -> tuple[str, Any, str] | None:
        if isinstance(_arguments(call), str | None) and not isinstance(_parsed(call), dict):
            return "{}", _arguments(call), ARGUMENTS
        return None

    yield from _of_calls(exchange, judge)


def _schema_faults(exchange: Exchange) -> Iterator[Outcome]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    schemas = {
        as_object(t.get("function")).get("name"): as_object(t.get("function")).get("parameters")
        for t in objects(as_object(exchange.sent).get("tools"))
    }

    def judge(call: dict[str, Any]) -> tuple[str, Any, str] | None:
        made, name = _parsed(call), _name(call)
        if not isinstance(made, dict) or not isinstance(name, str) or name not in schemas:
            return None
        fault = best_match(Draft202012Validator(as_object(schemas[name])).iter_errors(made))
        return None if fault is None else (f"arguments that meet the schema of {name}", fault.message, ARGUMENTS)

    yield from _of_calls(exchange, judge)


@check(
    "tools.arguments.schema",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}; {GUIDE}",
    remedy="Constrain generation to the schema of the parameters, also where `strict` is not set.",
    each=probes.auto,
    bar=0.5,
    needs=TOOLS,
)
def arguments_schema(exchange: Exchange) -> Iterator[Outcome]:
    """The arguments meet the schema of the parameters.

    Without `strict` this is the model's doing, so it is tried; functions fail on what does not.
    """
    yield from _schema_faults(exchange)


@check(
    "tools.arguments.strict",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source=f"{API}, strict; {GUIDE}, Strict Mode",
    remedy="Enforce the schema of strict functions while generating; a schema in the prompt alone is no promise.",
    each=probes.strict,
    needs=TOOLS,
)
def arguments_strict(exchange: Exchange) -> Iterator[Outcome]:
    """With `strict: true` the arguments meet the schema exactly.

    It is a promise of the server: callers drop their own validation because of it.
    """
    if _cut(exchange):
        yield NotApplicable("the token limit cut the call off")
    else:
        yield from _schema_faults(exchange)


@check(
    "tools.arguments.unicode",
    level=Level.MUST,
    lenses=ALL,
    source="RFC 8259, section 8.1",
    remedy="Decode tokens to UTF-8 across their borders before you cut the arguments into pieces.",
    each=[probes.required, probes.stream],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def arguments_unicode(exchange: Exchange) -> Iterator[Outcome]:
    """Letters beyond ASCII survive in arguments.

    The weather of "SÃ£o Paulo" is not known anywhere.
    """
    cities = [as_object(_parsed(call)).get("city") for call in exchange.tool_calls]
    written = [city for city in cities if isinstance(city, str)]
    broken = [city for city in written if BROKEN_LETTERS.search(city)]
    if broken:
        yield Finding(probes.ACCENTED, show(broken[0]), at="/choices/0/message/tool_calls/0/function/arguments")
    elif all(city.isascii() for city in written):
        yield NotApplicable("the model wrote no letter beyond ASCII")


@check(
    "tools.finish_reason.auto",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy='Say "tool_calls" when the model ended with a call.',
    each=[probes.auto, probes.parallel, probes.stream_parallel],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def finish_reason(exchange: Exchange) -> Iterator[Outcome]:
    """An answer with calls of the model's own choice ends with "tool_calls".

    Agents decide by it whether to run tools, and take "stop" for the final answer.
    """
    yield from _finish_with_calls(exchange)


def _finish_with_calls(exchange: Exchange) -> Iterator[Outcome]:
    """A known reason that is the wrong one; an unknown or missing one is for the checks of every answer."""
    if not exchange.tool_calls:
        yield NO_CALL
    elif exchange.finish_reason in ("stop", "content_filter", "function_call"):
        yield Finding("tool_calls", show(exchange.finish_reason), at="/choices/0/finish_reason")


@check(
    "tools.finish_reason.required",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy='Say "tool_calls" under tool_choice "required" too, streamed or not.',
    each=[probes.required, probes.stream],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def finish_reason_required(exchange: Exchange) -> Iterator[Outcome]:
    """An answer under `tool_choice: "required"` ends with "tool_calls".

    Only a named function may end with "stop"; callers who required a call often look at it itself, but not all do.
    """
    yield from _finish_with_calls(exchange)


@check(
    "tools.finish_reason.empty",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy='Say "stop" when there is no call.',
    each=[*probes.CALLS, probes.abstain, probes.none],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def finish_reason_empty(exchange: Exchange) -> Iterator[Finding]:
    """An answer without calls does not end with "tool_calls".

    Agents then wait for calls that never come.
    """
    if exchange.finish_reason == "tool_calls" and not exchange.tool_calls and not _called_elsewhere(exchange):
        yield Finding("stop", "tool_calls without a call", at="/choices/0/finish_reason")


# The result


@check(
    "tools.result.accepted",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; {GUIDE}",
    remedy="Accept an assistant message with tool_calls and null content, followed by messages of the role tool.",
    joint=[probes.auto, probes.result],
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def result_accepted(asked: Exchange, exchange: Exchange) -> Iterator[Outcome]:
    """The result of a call is accepted.

    A call whose result cannot be handed back is worth nothing.
    """
    if asked.status != 200:
        yield NotApplicable("tools were refused before; see tools.accepted")
    else:
        yield from must_accept(exchange)


@check(
    "tools.result.used",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=GUIDE,
    remedy="See that the chat template hands messages of the role tool to the model.",
    each=probes.result,
    bar=0.5,
    needs=TOOLS,
)
def result_used(exchange: Exchange) -> Iterator[Outcome]:
    """The model answers with the result of the call.

    A template that drops it makes the model ask again, or invent.
    """
    if _cut(exchange) and not exchange.text:
        yield NotApplicable("the token limit was spent before any answer")
    elif str(probes.TEMPERATURE) not in exchange.text:
        got = show(exchange.text) if exchange.text else show(exchange.tool_calls)
        yield Finding(f"a text with {probes.TEMPERATURE}", got, at="/choices/0/message/content")


@check(
    "tools.result.several",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; {GUIDE}",
    remedy="Accept several messages of the role tool in a row, and empty content beside tool_calls.",
    joint=[probes.auto, probes.several_results],
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def result_several(asked: Exchange, exchange: Exchange) -> Iterator[Outcome]:
    """The results of several calls are accepted one after the other.

    Agents run the calls of an answer together; templates that want user and assistant in turn refuse what comes back.
    """
    if asked.status != 200:
        yield NotApplicable("tools were refused before; see tools.accepted")
    else:
        yield from must_accept(exchange)


@check(
    "tools.result.all_used",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=GUIDE,
    remedy="See that the chat template hands every message of the role tool to the model, not only the last.",
    each=probes.several_results,
    on=Usable.EVENTS,
    bar=0.5,
    needs=TOOLS,
)
def result_all_used(exchange: Exchange) -> Iterator[Outcome]:
    """The model answers with the results of all calls, not with one of them.

    A template that keeps only one leaves the model to guess the rest.
    """
    wanted = [str(number) for number in (probes.TEMPERATURE, probes.SECOND_TEMPERATURE)]
    if _cut(exchange) or exchange.garbled:
        yield NotApplicable("the answer was cut off, or cannot be read; see chat.stream")
    elif not all(number in exchange.text for number in wanted):
        got = show(exchange.text) if exchange.text else show(exchange.tool_calls)
        yield Finding(f"a text with {' and '.join(wanted)}", got, at="/choices/0/delta/content")


# Streams


@check(
    "tools.stream.calls",
    level=Level.MUST,
    lenses=ALL,
    source=f"{HUB}; {GUIDE}",
    remedy="Look at the engine's streaming tool parser: it is other code than the one for whole answers.",
    each=probes.stream_parallel,
    on=Usable.EVENTS,
    bar=0.5,
    needs=PARALLEL,
)
def stream_calls(exchange: Exchange) -> Iterator[Outcome]:
    """Asked in a stream what a tool plainly answers, the model calls it.

    Agents stream; a model that calls only in whole answers calls nothing for them.
    """
    yield from _some_call(exchange)


@check(
    "tools.stream.parallel",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, parallel_tool_calls",
    remedy="See that the streaming tool parser does not stop after the first call.",
    each=probes.stream_parallel,
    on=Usable.EVENTS,
    bar=0.5,
    needs=PARALLEL,
)
def stream_parallel(exchange: Exchange) -> Iterator[Outcome]:
    """Asked in a stream for two things at once, the model makes two calls.

    One after the other they take twice as long.
    """
    if not exchange.garbled and not _joinable(exchange):
        yield NotApplicable("the fragments do not join to calls; see tools.stream.index and tools.stream.own_index")
    else:
        yield from _two_calls(exchange)


@check(
    "tools.stream.index",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, streaming",
    remedy="Give each fragment the integer index of its call.",
    each=probes.STREAMED_CALLS,
    on=Usable.EVENTS,
    needs=TOOLS,
)
def stream_index(exchange: Exchange) -> Iterator[Outcome]:
    """Every fragment of a streamed call has an integer `index`.

    It is all that tells which call a fragment belongs to.
    """
    if not exchange.tool_calls:
        yield NO_CALL
    for event, part in _fragments(exchange):
        if not is_integer(part.get("index")) or part["index"] < 0:
            yield Finding(
                "an integer", show(part.get("index")), at=f"event {event} /choices/0/delta/tool_calls/0/index"
            )
            return


@check(
    "tools.stream.id_once",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, streaming",
    remedy="Send the id in a call's first fragment; if you repeat it, repeat the same.",
    each=probes.STREAMED_CALLS,
    on=Usable.EVENTS,
    needs=TOOLS,
)
def stream_id_once(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed call has one id, from its first fragment on.

    Accumulators take a new id for a new call, and the arguments fall apart.
    """
    if not exchange.tool_calls:
        yield NO_CALL
    shared = _shared_indexes(exchange)
    seen: dict[int, str | None] = {}
    for event, part in _fragments(exchange):
        index, value = part.get("index"), part.get("id")
        if not is_integer(index) or index in shared:
            continue
        known = seen.setdefault(index, value if isinstance(value, str) and value else None)
        if isinstance(value, str) and value and known != value:
            at = f"event {event} /choices/0/delta/tool_calls/0/id"
            yield Finding(f"{known}, as before" if known else "the id in the first fragment", show(value), at=at)
            return


@check(
    "tools.stream.name_once",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, streaming",
    remedy="Send the name once, whole, in a call's first fragment.",
    each=probes.STREAMED_CALLS,
    on=Usable.EVENTS,
    needs=TOOLS,
)
def stream_name_once(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed call's name comes once, whole, in its first fragment.

    Accumulators join names as they join arguments: repeated, it reads "get_weatherget_weather".
    """
    if not exchange.tool_calls:
        yield NO_CALL
    shared = _shared_indexes(exchange)
    started: set[int] = set()
    for event, part in _fragments(exchange):
        index, name = part.get("index"), as_object(part.get("function")).get("name")
        if not is_integer(index) or index in shared:
            continue
        at = f"event {event} /choices/0/delta/tool_calls/0/function/name"
        if index not in started and not name:
            yield Finding("the name in the first fragment", show(name), at=at)
            return
        if index in started and name:
            yield Finding("no name after the first fragment", show(name), at=at)
            return
        started.add(index)


@check(
    "tools.stream.type",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, streaming",
    remedy='Send "type": "function" with the id and the name, in a call\'s first fragment.',
    each=probes.STREAMED_CALLS,
    on=Usable.EVENTS,
    needs=TOOLS,
)
def stream_type(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed call's first fragment has the type "function".

    Some SDKs raise where it is missing; most have learned to live without it.
    """
    if not exchange.tool_calls:
        yield NO_CALL
    started: set[int] = set()
    for event, part in _fragments(exchange):
        index, kind = part.get("index"), part.get("type")
        if not is_integer(index):
            continue
        wrong = kind != "function" if index not in started else kind not in (None, "", "function")
        if wrong:
            yield Finding("function", show(kind), at=f"event {event} /choices/0/delta/tool_calls/0/type")
            return
        started.add(index)


@check(
    "tools.stream.arguments",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, streaming",
    remedy="Send the arguments as pieces of one string.",
    each=probes.STREAMED_CALLS,
    on=Usable.EVENTS,
    needs=TOOLS,
)
def stream_arguments(exchange: Exchange) -> Iterator[Outcome]:
    """A fragment's `arguments` is a string, null, or absent.

    Accumulators add strings; an object raises.
    """
    if not exchange.tool_calls:
        yield NO_CALL
    for event, part in _fragments(exchange):
        value = as_object(part.get("function")).get("arguments")
        if value is not None and not isinstance(value, str):
            at = f"event {event} /choices/0/delta/tool_calls/0/function/arguments"
            yield Finding("a piece of a string", show(value), at=at)
            return


@check(
    "tools.stream.own_index",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, streaming",
    remedy="Count calls from 0: each call's fragments carry its own index.",
    each=probes.STREAMED_CALLS,
    on=Usable.EVENTS,
    needs=TOOLS,
)
def stream_own_index(exchange: Exchange) -> Iterator[Outcome]:
    """Parallel streamed calls have different indexes.

    Under one index their arguments run together: {"city": "Paris"}{"city": "London"}.
    """
    if not exchange.tool_calls:
        yield NO_CALL
    for index, text in _shared_indexes(exchange).items():
        got = f"several calls under index {index}: {show(text)}"
        yield Finding("an index for each call", got, at="/choices/0/delta/tool_calls")
        return


# What must be refused


@check(
    "tools.refuses.unknown_choice",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, tool_choice",
    remedy="Answer 400 when tool_choice names a function that is not among the tools.",
    each=probes.unknown_choice,
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def refuses_unknown_choice(exchange: Exchange) -> Iterator[Outcome]:
    """A tool choice that names no offered function is refused.

    It is a misspelling; an answer of some kind hides it.
    """
    yield from must_refuse(exchange, "there is no such function")


@check(
    "tools.refuses.bad_choice",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, tool_choice",
    remedy="Answer 400 to a tool_choice that is none of none, auto, required and a function.",
    each=probes.bad_choice,
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def refuses_bad_choice(exchange: Exchange) -> Iterator[Outcome]:
    """A tool choice that means nothing is refused.

    Taken for "auto", it hides the caller's mistake until the model does not call.
    """
    yield from must_refuse(exchange, "there is no such tool_choice")


@check(
    "tools.refuses.bad_type",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, tools",
    remedy="Answer 400 to a tool of a type that you do not know.",
    each=probes.bad_type,
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def refuses_bad_type(exchange: Exchange) -> Iterator[Outcome]:
    """A tool of an unknown type is refused.

    Dropped in silence, it is missed only when the model says that it cannot help.
    """
    yield from must_refuse(exchange, "there is no such type of tool")


@check(
    "tools.refuses.bad_parameters",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, tools",
    remedy="Validate the parameters as a JSON Schema, and answer 400 with the place that is wrong.",
    each=probes.bad_parameters,
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def refuses_bad_parameters(exchange: Exchange) -> Iterator[Outcome]:
    """A function whose parameters are no JSON Schema is refused.

    Nothing can hold arguments to a schema that means nothing.
    """
    yield from must_refuse(exchange, "the parameters are not a schema")


@check(
    "tools.refuses.duplicate",
    level=Level.MAY,
    lenses=[Lens.OPENAI],
    source=f"{API}, tools",
    remedy="Answer 400 to two functions of one name.",
    each=probes.duplicate,
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def refuses_duplicate(exchange: Exchange) -> Iterator[Outcome]:
    """Two functions of one name are refused.

    Nobody can tell which of them a call means.
    """
    yield from must_refuse(exchange, "the name is taken")


@check(
    "tools.refuses.orphan_result",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, messages; {GUIDE}",
    remedy="Answer 400 to a message of the role tool whose tool_call_id belongs to no earlier call.",
    each=probes.orphan_result,
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def refuses_orphan_result(exchange: Exchange) -> Iterator[Outcome]:
    """The result of a call that nobody made is refused.

    It shows that the caller lost a part of the conversation; the model would answer to what it never asked.
    """
    yield from must_refuse(exchange, "there is no call of this id")


@check(
    "tools.refuses.nameless",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, tools",
    remedy="Answer 400 to a tool without a name.",
    each=probes.nameless,
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def refuses_nameless(exchange: Exchange) -> Iterator[Outcome]:
    """A tool without a name is refused.

    It cannot be called; an answer of some kind hides the mistake.
    """
    yield from must_refuse(exchange, "a tool needs a name")


@check(
    "tools.refuses.required_of_none",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, tool_choice",
    remedy='Answer 400 to tool_choice "required" without tools.',
    each=probes.required_of_none,
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def refuses_required_of_none(exchange: Exchange) -> Iterator[Outcome]:
    """A call required where there are no tools is refused.

    It cannot be met, and the caller counts on it.
    """
    yield from must_refuse(exchange, "there are no tools to require")
