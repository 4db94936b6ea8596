"""Faults of tool calling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn

CHAT = {Kind.CHAT}
STREAM = {Kind.STREAM}
ANY = {Kind.CHAT, Kind.STREAM}


def _calls(turn: Turn) -> list[dict[str, Any]]:
    """The tool calls of an unstreamed answer."""
    return [call for choice in turn.payload["choices"] for call in choice["message"].get("tool_calls") or ()]


def _fragments(turn: Turn) -> Iterator[dict[str, Any]]:
    for chunk in turn.chunks:
        for choice in chunk["choices"]:
            yield from choice["delta"].get("tool_calls") or ()


def _said(turn: Turn) -> list[tuple[str, dict[str, Any]]]:
    """The calls of the model's first answer."""
    return turn.choices[0].tool_calls


def _choice(turn: Turn) -> Any:
    return turn.body.get("tool_choice")


# Whether it is offered


@fault("tools.advertised_but_refused", caught_by={"tools.accepted"}, at=Stage.REQUEST, on=ANY)
def advertised_but_refused(turn: Turn) -> None:
    """`/models` announces tools, and requests with them are refused."""
    if turn.body.get("tools"):
        raise ApiError(400, "this model has no tools", param="tools")


@fault("tools.not_offered", caught_by={"tools.offered"}, at=Stage.PAYLOAD, on={Kind.MODELS})
def not_offered(turn: Turn) -> None:
    """`/models` says that the model has no tools."""
    for entry in turn.payload["data"]:
        entry["supports_tools"] = False
        entry["supported_parameters"].remove("tools")


# What the model chose


@fault("tools.never_calls", caught_by={"tools.auto.calls"}, at=Stage.REQUEST, on=CHAT)
def never_calls(turn: Turn) -> None:
    """Left the choice, the model never calls: the tools are not in its prompt."""
    if _choice(turn) == "auto":
        turn.body.pop("tools")


@fault("tools.wrong_tool", caught_by={"tools.auto.right_tool"}, at=Stage.ANSWER, on=CHAT)
def wrong_tool(turn: Turn) -> None:
    """Left the choice, the model calls the first tool of the alphabet."""
    if _choice(turn) == "auto":
        turn.choices[0].tool_calls = [("get_stock_price", {"symbol": "PAR"})]


@fault("tools.wrong_city", caught_by={"tools.auto.argument"}, at=Stage.ANSWER, on=CHAT)
def wrong_city(turn: Turn) -> None:
    """The model sees the tools, but not the question."""
    if _choice(turn) == "auto":
        turn.choices[0].tool_calls = [("get_weather", {"city": "New York"})]


@fault("tools.always_calls", caught_by={"tools.auto.abstains"}, at=Stage.ANSWER, on=CHAT)
def always_calls(turn: Turn) -> None:
    """Where there are tools, the model calls one, whatever was asked."""
    if turn.body.get("tools") and "PONG" in str(turn.body["messages"]):
        turn.choices[0].tool_calls = [("get_weather", {"city": "PONG"})]
        turn.choices[0].finish_reason = "tool_calls"


@fault("tools.one_call_only", caught_by={"tools.parallel"}, at=Stage.ANSWER, on=CHAT)
def one_call_only(turn: Turn) -> None:
    """The parser stops after the first call."""
    for choice in turn.choices:
        choice.tool_calls = choice.tool_calls[:1]


@fault("tools.stream.one_call_only", caught_by={"tools.stream.parallel"}, at=Stage.ANSWER, on=STREAM)
def one_call_only_streamed(turn: Turn) -> None:
    """The streaming parser stops after the first call."""
    for choice in turn.choices:
        choice.tool_calls = choice.tool_calls[:1]


@fault("tools.stream.never_calls", caught_by={"tools.stream.calls"}, at=Stage.REQUEST, on=STREAM)
def never_calls_streamed(turn: Turn) -> None:
    """Left the choice, the model never calls in a stream."""
    if turn.body.get("tools") and _choice(turn) is None:
        turn.body.pop("tools")


@fault("tools.argument_missing", caught_by={"tools.arguments.schema"}, at=Stage.ANSWER, on=CHAT)
def argument_missing(turn: Turn) -> None:
    """Left the choice, the model forgets the required argument."""
    if _choice(turn) == "auto":
        turn.choices[0].tool_calls = [("get_weather", {"unit": "celsius"})]


# What the server enforces


@fault("tools.required_ignored", caught_by={"tools.required"}, at=Stage.REQUEST, on=ANY)
def required_ignored(turn: Turn) -> None:
    """`tool_choice: "required"` is ignored, and the model answers in prose."""
    if _choice(turn) == "required":
        turn.body["tool_choice"] = "none"


@fault("tools.named_ignored", caught_by={"tools.named"}, at=Stage.REQUEST, on=CHAT)
def named_ignored(turn: Turn) -> None:
    """A named function is ignored, and the model chooses."""
    if isinstance(_choice(turn), dict):
        turn.body["tool_choice"] = "auto"


@fault("tools.named_prose", caught_by={"tools.named"}, at=Stage.REQUEST, on=CHAT)
def named_prose(turn: Turn) -> None:
    """A named function gives prose."""
    if isinstance(_choice(turn), dict):
        turn.body["tool_choice"] = "none"


@fault("tools.none_ignored", caught_by={"tools.none"}, at=Stage.REQUEST, on=CHAT)
def none_ignored(turn: Turn) -> None:
    """`tool_choice: "none"` is ignored."""
    if _choice(turn) == "none":
        turn.body["tool_choice"] = "auto"


def _as_text(turn: Turn, text: str) -> None:
    turn.choices[0].tool_calls = []
    turn.choices[0].content = text
    turn.choices[0].finish_reason = "stop"


@fault("tools.leaked_tags", caught_by={"tools.not_leaked"}, at=Stage.ANSWER, on=ANY)
def leaked_tags(turn: Turn) -> None:
    """Calls come as text between <tool_call> tags: the parser is off."""
    for name, arguments in turn.choices[0].tool_calls[:1]:
        _as_text(turn, f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>")


@fault("tools.leaked_json", caught_by={"tools.not_leaked"}, at=Stage.ANSWER, on=ANY)
def leaked_json(turn: Turn) -> None:
    """Calls come as bare JSON in the text: the parser is for another model."""
    for name, arguments in turn.choices[0].tool_calls[:1]:
        _as_text(turn, json.dumps({"name": name, "parameters": arguments}))


@fault("tools.leaked_mistral", caught_by={"tools.not_leaked"}, at=Stage.ANSWER, on=ANY)
def leaked_mistral(turn: Turn) -> None:
    """Calls come as text behind [TOOL_CALLS]."""
    made = [{"name": name, "arguments": arguments} for name, arguments in turn.choices[0].tool_calls]
    if made:
        _as_text(turn, f"[TOOL_CALLS]{json.dumps(made)}")


@fault("tools.leaked_python", caught_by={"tools.not_leaked"}, at=Stage.ANSWER, on=ANY)
def leaked_python(turn: Turn) -> None:
    """Calls come as text in the form of Python calls."""
    made = [f"{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})" for name, arguments in _said(turn)]
    if made:
        _as_text(turn, f"[{', '.join(made)}]")


@fault("tools.leaked_deepseek", caught_by={"tools.not_leaked"}, at=Stage.ANSWER, on=STREAM)
def leaked_deepseek(turn: Turn) -> None:
    """Streamed calls come as text between tags with full-width bars: only the whole-answer parser is on."""
    for name, arguments in _said(turn)[:1]:
        _as_text(turn, f"<\uff5ctool\u2581calls\u2581begin\uff5c>function {name} {json.dumps(arguments)}")


@fault("tools.leaked_beside", caught_by={"tools.not_leaked"}, at=Stage.ANSWER, on=ANY)
def leaked_beside(turn: Turn) -> None:
    """Calls are parsed, and their markup stays in the text as well."""
    for name, arguments in _said(turn)[:1]:
        turn.choices[0].content = f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@fault("tools.legacy_function_call", caught_by={"tools.not_legacy"}, at=Stage.PAYLOAD, on=CHAT)
def legacy_function_call(turn: Turn) -> None:
    """Calls come in the old field `function_call`."""
    message = turn.payload["choices"][0]["message"]
    if message.get("tool_calls"):
        message["function_call"] = message.pop("tool_calls")[0]["function"]


# The form of a call


@fault("tools.id_null", caught_by={"tools.call.id"}, at=Stage.PAYLOAD, on=CHAT)
def id_null(turn: Turn) -> None:
    """Calls have a null id."""
    for call in _calls(turn):
        call["id"] = None


@fault("tools.id_empty_streamed", caught_by={"tools.call.id"}, at=Stage.CHUNKS, on=STREAM)
def id_empty_streamed(turn: Turn) -> None:
    """Streamed calls have an empty id."""
    for part in _fragments(turn):
        if "id" in part:
            part["id"] = ""


@fault("tools.id_number", caught_by={"tools.call.id"}, at=Stage.PAYLOAD, on=CHAT)
def id_number(turn: Turn) -> None:
    """Calls are numbered: the id is an integer."""
    for number, call in enumerate(_calls(turn)):
        call["id"] = number


@fault("tools.id_twice", caught_by={"tools.call.id_unique"}, at=Stage.PAYLOAD, on=CHAT)
def id_twice(turn: Turn) -> None:
    """The id is made of the function's name, so parallel calls share it."""
    for call in _calls(turn):
        call["id"] = f"call_{call['function']['name']}"


@fault("tools.type_missing", caught_by={"tools.call.type"}, at=Stage.PAYLOAD, on=CHAT)
def type_missing(turn: Turn) -> None:
    """Calls have no type."""
    for call in _calls(turn):
        del call["type"]


@fault("tools.name_prefixed", caught_by={"tools.call.name"}, at=Stage.ANSWER, on=CHAT)
def name_prefixed(turn: Turn) -> None:
    """The model's own prefix stays on the name."""
    if _choice(turn) == "auto":
        turn.choices[0].tool_calls = [(f"functions.{name}", made) for name, made in turn.choices[0].tool_calls]


@fault("tools.arguments_object", caught_by={"tools.arguments.string"}, at=Stage.PAYLOAD, on=CHAT)
def arguments_object(turn: Turn) -> None:
    """`arguments` is an object."""
    for call in _calls(turn):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])


@fault("tools.arguments_cut", caught_by={"tools.arguments.json"}, at=Stage.PAYLOAD, on=CHAT)
def arguments_cut(turn: Turn) -> None:
    """The last brace of the arguments is lost."""
    for call in _calls(turn):
        if len(call["function"]["arguments"]) > 2:
            call["function"]["arguments"] = call["function"]["arguments"][:-1]


@fault("tools.arguments_python", caught_by={"tools.arguments.json"}, at=Stage.PAYLOAD, on=CHAT)
def arguments_python(turn: Turn) -> None:
    """Arguments are written as Python prints them, with single quotes."""
    for call in _calls(turn):
        if len(call["function"]["arguments"]) > 2:
            call["function"]["arguments"] = str(json.loads(call["function"]["arguments"]))


@fault("tools.arguments_encoded_twice", caught_by={"tools.arguments.object"}, at=Stage.PAYLOAD, on=CHAT)
def arguments_encoded_twice(turn: Turn) -> None:
    """Arguments are serialised twice."""
    for call in _calls(turn):
        if len(call["function"]["arguments"]) > 2:
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])


@fault("tools.no_arguments_empty", caught_by={"tools.arguments.empty"}, at=Stage.PAYLOAD, on=CHAT)
def no_arguments_empty(turn: Turn) -> None:
    """A call without arguments has an empty string for them."""
    for call in _calls(turn):
        if call["function"]["arguments"] == "{}":
            call["function"]["arguments"] = ""


@fault("tools.no_arguments_null", caught_by={"tools.arguments.empty"}, at=Stage.PAYLOAD, on=CHAT)
def no_arguments_null(turn: Turn) -> None:
    """A call without arguments has null for them."""
    for call in _calls(turn):
        if call["function"]["arguments"] == "{}":
            call["function"]["arguments"] = None


@fault("tools.no_arguments_missing", caught_by={"tools.arguments.empty"}, at=Stage.PAYLOAD, on=CHAT)
def no_arguments_missing(turn: Turn) -> None:
    """A call without arguments leaves the field out."""
    for call in _calls(turn):
        if call["function"]["arguments"] == "{}":
            del call["function"]["arguments"]


@fault("tools.strict_extra", caught_by={"tools.arguments.strict"}, at=Stage.ANSWER, on=CHAT)
def strict_extra(turn: Turn) -> None:
    """A strict function gets an argument that it does not know."""
    for name, arguments in turn.choices[0].tool_calls:
        if name == "create_event":
            arguments["reminder"] = True


@fault("tools.strict_enum", caught_by={"tools.arguments.strict"}, at=Stage.ANSWER, on=CHAT)
def strict_enum(turn: Turn) -> None:
    """A strict function gets a value outside its enum."""
    for name, arguments in turn.choices[0].tool_calls:
        if name == "create_event":
            arguments["priority"] = "urgent"


@fault("tools.strict_missing", caught_by={"tools.arguments.strict"}, at=Stage.ANSWER, on=CHAT)
def strict_missing(turn: Turn) -> None:
    """A strict function does not get a required argument."""
    for name, arguments in _said(turn):
        if name == "create_event":
            del arguments["attendees"]


@fault("tools.strict_types", caught_by={"tools.arguments.strict"}, at=Stage.ANSWER, on=CHAT)
def strict_types(turn: Turn) -> None:
    """A strict function gets a string where an integer belongs, inside a nested object."""
    for name, arguments in turn.choices[0].tool_calls:
        if name == "create_event":
            arguments["place"]["floor"] = "3"


@fault("tools.arguments_mojibake", caught_by={"tools.arguments.unicode"}, at=Stage.ANSWER, on=ANY)
def arguments_mojibake(turn: Turn) -> None:
    """UTF-8 in arguments is read as Latin-1."""
    for _, arguments in turn.choices[0].tool_calls:
        if isinstance(arguments.get("city"), str):
            arguments["city"] = arguments["city"].encode().decode("latin-1")


@fault("tools.arguments_escaped_twice", caught_by={"tools.arguments.unicode"}, at=Stage.ANSWER, on=ANY)
def arguments_escaped_twice(turn: Turn) -> None:
    """Letters beyond ASCII in arguments are escaped twice."""
    for _, arguments in _said(turn):
        if isinstance(arguments.get("city"), str):
            arguments["city"] = json.dumps(arguments["city"])[1:-1]


@fault("tools.finish_stop", caught_by={"tools.finish_reason.auto"}, at=Stage.ANSWER, on=ANY)
def finish_stop(turn: Turn) -> None:
    """Answers with calls of the model's own choice end with "stop"."""
    if turn.choices[0].finish_reason == "tool_calls" and _choice(turn) != "required":
        turn.choices[0].finish_reason = "stop"


@fault("tools.finish_stop_required", caught_by={"tools.finish_reason.required"}, at=Stage.ANSWER, on=CHAT)
def finish_stop_required(turn: Turn) -> None:
    """Required calls end with "stop", as if the function had been named."""
    if turn.choices[0].finish_reason == "tool_calls" and _choice(turn) == "required":
        turn.choices[0].finish_reason = "stop"


@fault("tools.finish_without_calls", caught_by={"tools.finish_reason.empty"}, at=Stage.ANSWER, on=CHAT)
def finish_without_calls(turn: Turn) -> None:
    """Where tools were offered, every answer ends with "tool_calls"."""
    if turn.body.get("tools"):
        turn.choices[0].finish_reason = "tool_calls"


# The result


@fault("tools.result_refused", caught_by={"tools.result.accepted"}, at=Stage.REQUEST, on=CHAT)
def result_refused(turn: Turn) -> None:
    """Null content is refused, also beside tool calls."""
    if any(message.get("content", "") is None for message in turn.body["messages"]):
        raise ApiError(400, "content must be a string", param="messages")


@fault("tools.result_dropped", caught_by={"tools.result.used"}, at=Stage.ANSWER, on=CHAT)
def result_dropped(turn: Turn) -> None:
    """Results never reach the model."""
    if turn.body["messages"][-1]["role"] == "tool":
        turn.choices[0].content = "I cannot look up the weather."


def _results(turn: Turn) -> list[str]:
    return [message["content"] for message in turn.body["messages"] if message["role"] == "tool"]


@fault("tools.results_in_a_row_refused", caught_by={"tools.result.several"}, at=Stage.REQUEST, on=ANY)
def results_in_a_row_refused(turn: Turn) -> None:
    """The template wants the roles in turn, so a second result is refused."""
    if len(_results(turn)) > 1:
        raise ApiError(400, "conversation roles must alternate", param="messages")


@fault("tools.empty_content_refused", caught_by={"tools.result.several"}, at=Stage.REQUEST, on=ANY)
def empty_content_refused(turn: Turn) -> None:
    """Empty content is refused, also beside tool calls."""
    if any(message.get("content") == "" for message in turn.body["messages"]):
        raise ApiError(400, "content must not be empty", param="messages")


@fault("tools.last_result_only", caught_by={"tools.result.all_used"}, at=Stage.ANSWER, on=ANY)
def last_result_only(turn: Turn) -> None:
    """Only the last result reaches the model."""
    if len(_results(turn)) > 1:
        turn.choices[0].content = f"According to the tool: {_results(turn)[-1]}"


# Streams


@fault("tools.stream.index_missing", caught_by={"tools.stream.index"}, at=Stage.CHUNKS, on=STREAM)
def index_missing(turn: Turn) -> None:
    """Fragments of streamed calls have no index."""
    for part in _fragments(turn):
        del part["index"]


@fault("tools.stream.index_text", caught_by={"tools.stream.index"}, at=Stage.CHUNKS, on=STREAM)
def index_text(turn: Turn) -> None:
    """The index is a text."""
    for part in _fragments(turn):
        part["index"] = str(part["index"])


@fault("tools.stream.type_missing", caught_by={"tools.stream.type"}, at=Stage.CHUNKS, on=STREAM)
def stream_type_missing(turn: Turn) -> None:
    """Streamed calls have no type."""
    for part in _fragments(turn):
        part.pop("type", None)


@fault("tools.stream.id_late", caught_by={"tools.stream.id_once"}, at=Stage.CHUNKS, on=STREAM)
def id_late(turn: Turn) -> None:
    """The id comes with a call's last fragment."""
    last: dict[int, dict[str, Any]] = {}
    ids: dict[int, str] = {}
    for part in _fragments(turn):
        last[part["index"]] = part
        if "id" in part:
            ids[part["index"]] = part.pop("id")
    for index, part in last.items():
        part["id"] = ids[index]


@fault("tools.stream.name_everywhere", caught_by={"tools.stream.name_once"}, at=Stage.CHUNKS, on=STREAM)
def name_everywhere(turn: Turn) -> None:
    """Every fragment repeats id and name."""
    heads: dict[int, dict[str, Any]] = {}
    for part in _fragments(turn):
        head = heads.setdefault(part["index"], part)
        part["id"] = head["id"]
        part["function"]["name"] = head["function"]["name"]


@fault("tools.stream.name_in_pieces", caught_by={"tools.stream.name_once"}, at=Stage.CHUNKS, on=STREAM)
def name_in_pieces(turn: Turn) -> None:
    """The name is streamed token by token, as text is."""
    heads: dict[int, dict[str, Any]] = {}
    rests: dict[int, str] = {}
    for part in _fragments(turn):
        if part["index"] not in heads:
            heads[part["index"]] = part
            name = part["function"]["name"]
            part["function"]["name"], rests[part["index"]] = name[:4], name[4:]
        elif rests[part["index"]]:
            part["function"]["name"], rests[part["index"]] = rests[part["index"]], ""


@fault("tools.stream.id_changes", caught_by={"tools.stream.id_once"}, at=Stage.CHUNKS, on=STREAM)
def id_changes(turn: Turn) -> None:
    """Every fragment has an id of its own."""
    for number, part in enumerate(_fragments(turn)):
        part["id"] = f"call_{number}"


@fault("tools.stream.name_repeated", caught_by={"tools.stream.name_once"}, at=Stage.CHUNKS, on=STREAM)
def name_repeated(turn: Turn) -> None:
    """The second fragment repeats the name."""
    parts = list(_fragments(turn))
    if len(parts) > 1:
        parts[1]["function"]["name"] = parts[0]["function"]["name"]


@fault("tools.stream.arguments_object", caught_by={"tools.stream.arguments"}, at=Stage.CHUNKS, on=STREAM)
def stream_arguments_object(turn: Turn) -> None:
    """The first fragment has an empty object for its arguments."""
    for part in _fragments(turn):
        if "name" in part["function"]:
            part["function"]["arguments"] = {}


@fault("tools.stream.arguments_object_whole", caught_by={"tools.stream.arguments"}, at=Stage.CHUNKS, on=STREAM)
def stream_arguments_object_whole(turn: Turn) -> None:
    """Every fragment's arguments are an object."""
    for part in _fragments(turn):
        part["function"]["arguments"] = {"city": "Paris"}


@fault("tools.stream.one_index", caught_by={"tools.stream.own_index"}, at=Stage.CHUNKS, on=STREAM)
def one_index(turn: Turn) -> None:
    """All calls are streamed under index 0."""
    for part in _fragments(turn):
        part["index"] = 0


@fault("tools.stream.fragment_lost", caught_by={"tools.arguments.json"}, at=Stage.CHUNKS, on=STREAM)
def fragment_lost(turn: Turn) -> None:
    """The last fragment of a streamed call is lost."""
    for chunk in reversed(turn.chunks):
        if chunk["choices"] and chunk["choices"][0]["delta"].get("tool_calls"):
            turn.chunks.remove(chunk)
            return


# What must be refused


@fault("tools.bad_choice_accepted", caught_by={"tools.refuses.bad_choice"}, at=Stage.ARRIVAL)
def bad_choice_accepted(turn: Turn) -> None:
    """A tool choice that means nothing is taken for "auto"."""
    turn.raw = turn.raw.replace(b'"sometimes"', b'"auto"')


@fault("tools.bad_type_accepted", caught_by={"tools.refuses.bad_type"}, at=Stage.ARRIVAL)
def bad_type_accepted(turn: Turn) -> None:
    """A tool of an unknown type is taken for a function."""
    turn.raw = turn.raw.replace(b'"gadget"', b'"function"')


@fault("tools.bad_parameters_accepted", caught_by={"tools.refuses.bad_parameters"}, at=Stage.ARRIVAL)
def bad_parameters_accepted(turn: Turn) -> None:
    """Parameters that are no schema go into the prompt as they are."""
    if b'"tools"' in turn.raw:
        turn.raw = turn.raw.replace(b'"objekt"', b'"object"').replace(b'"strnig"', b'"string"')


@fault("tools.duplicate_accepted", caught_by={"tools.refuses.duplicate"}, at=Stage.ARRIVAL)
def duplicate_accepted(turn: Turn) -> None:
    """Of two functions of one name the last one counts."""
    if b'"zip_code"' in turn.raw:
        body = json.loads(turn.raw)
        body["tools"] = body["tools"][-1:]
        turn.raw = json.dumps(body).encode()


@fault("tools.orphan_result_accepted", caught_by={"tools.refuses.orphan_result"}, at=Stage.ARRIVAL)
def orphan_result_accepted(turn: Turn) -> None:
    """The result of a call that nobody made is read as the user's words."""
    if b'"call_nobody_made"' in turn.raw:
        turn.raw = turn.raw.replace(b'"tool"', b'"user"')


@fault("tools.unknown_choice_accepted", caught_by={"tools.refuses.unknown_choice"}, at=Stage.ARRIVAL)
def unknown_choice_accepted(turn: Turn) -> None:
    """A tool choice that names nothing on offer is ignored."""
    turn.raw = turn.raw.replace(b'"no_such_function"', b'"get_weather"')


@fault("tools.nameless_accepted", caught_by={"tools.refuses.nameless"}, at=Stage.ARRIVAL)
def nameless_accepted(turn: Turn) -> None:
    """Tools without a name are dropped in silence."""
    turn.raw = turn.raw.replace(b'{"parameters": {}}', b'{"parameters": {}, "name": "unnamed"}')


@fault("tools.nameless_crashes", caught_by={"errors.no_5xx"}, at=Stage.ARRIVAL)
def nameless_crashes(turn: Turn) -> None:
    """A tool without a name makes the server fail."""
    if b'{"parameters": {}}' in turn.raw:
        turn.skip.add("tools")
        turn.crash = True


@fault("tools.required_of_none_accepted", caught_by={"tools.refuses.required_of_none"}, at=Stage.ARRIVAL)
def required_of_none_accepted(turn: Turn) -> None:
    """A call required without tools gives prose."""
    if b'"tools"' not in turn.raw:
        turn.raw = turn.raw.replace(b'"tool_choice": "required"', b'"tool_choice": "none"')
