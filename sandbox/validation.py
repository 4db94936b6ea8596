"""What the sandbox refuses: every malformed request gets a 400 that names the field."""

from __future__ import annotations

import re
from typing import Any

from roadworthy.sandbox.turn import ApiError

ROLES = ("system", "developer", "user", "assistant", "tool")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
MAX_CHOICES = 8


def validate(body: dict[str, Any], skip: set[str]) -> None:
    """Raise `ApiError` (400) for the first thing that is wrong; `skip` names guards that are switched off."""
    for name, guard in GUARDS.items():
        if name not in skip:
            guard(body)


def _refuse(param: str, expected: str, got: Any) -> ApiError:
    return ApiError(400, f"`{param}` must be {expected}, got {_short(got)}", param=param, code="invalid_value")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def is_int(value: Any) -> bool:
    """Whether a JSON value is an integer (a boolean is none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number (a boolean is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _messages(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _refuse("messages", "a non-empty array", messages)
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _refuse(place, "an object", message)
        if message.get("role") not in ROLES:
            raise _refuse(f"{place}.role", f"one of {', '.join(ROLES)}", message.get("role"))
        _content(message, place)
        for call in message.get("tool_calls") or ():
            if isinstance(call, dict) and isinstance(call.get("id"), str):
                open_calls.add(call["id"])
        if message["role"] == "tool" and message.get("tool_call_id") not in open_calls:
            raise _refuse(f"{place}.tool_call_id", "the id of an earlier tool call", message.get("tool_call_id"))


def _content(message: dict[str, Any], place: str) -> None:
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        return
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise _refuse(f"{place}.content", "a string or an array of parts", content)
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        where = f"{place}.content[{number}]"
        if kind == "text" and isinstance(part.get("text"), str):
            continue
        if kind == "image_url":
            image = part.get("image_url")
            if isinstance(image, dict) and isinstance(image.get("url"), str) and image["url"].startswith("data:image/"):
                continue
            raise _refuse(f"{where}.image_url.url", "a data: URI of an image", image)
        raise _refuse(where, "a text or image_url part", part)


def _ranges(body: dict[str, Any]) -> None:
    for name, low, high in (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
    ):
        value = body.get(name)
        if value is not None and not (is_number(value) and low <= value <= high):
            raise _refuse(name, f"a number from {low} to {high}", value)
    for name, low, high in (
        ("n", 1, MAX_CHOICES),
        ("max_tokens", 1, 1 << 31),
        ("max_completion_tokens", 1, 1 << 31),
        ("seed", -(1 << 63), (1 << 63) - 1),
        ("top_logprobs", 0, 20),
    ):
        value = body.get(name)
        if value is not None and not (is_int(value) and low <= value <= high):
            raise _refuse(name, f"an integer from {low} to {high}", value)
    for name in ("stream", "logprobs", "parallel_tool_calls"):
        if body.get(name) is not None and not isinstance(body[name], bool):
            raise _refuse(name, "a boolean", body[name])
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise _refuse("logprobs", "true where top_logprobs is given", body.get("logprobs"))
    if body.get("reasoning_effort") is not None and body["reasoning_effort"] not in EFFORTS:
        raise _refuse("reasoning_effort", f"one of {', '.join(EFFORTS)}", body["reasoning_effort"])


def _stop(body: dict[str, Any]) -> None:
    stop = body.get("stop")
    many = isinstance(stop, list) and len(stop) <= 4 and all(isinstance(item, str) and item for item in stop)
    if stop is not None and not isinstance(stop, str) and not many:
        raise _refuse("stop", "a string or up to 4 strings", stop)


def _stream_options(body: dict[str, Any]) -> None:
    options = body.get("stream_options")
    if options is None:
        return
    if not isinstance(options, dict):
        raise _refuse("stream_options", "an object", options)
    if not body.get("stream"):
        raise _refuse("stream_options", "absent where `stream` is not true", options)
    if options.get("include_usage") is not None and not isinstance(options["include_usage"], bool):
        raise _refuse("stream_options.include_usage", "a boolean", options["include_usage"])


def _tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise _refuse("tools", "an array", tools)
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise _refuse(f"{place}.type", "'function'", tool.get("type") if isinstance(tool, dict) else tool)
        function = tool.get("function")
        if not isinstance(function, dict):
            raise _refuse(f"{place}.function", "an object", function)
        name = function.get("name")
        if not isinstance(name, str) or not TOOL_NAME.match(name):
            raise _refuse(f"{place}.function.name", "1 to 64 letters, digits, _ or -", name)
        if name in seen:
            raise _refuse(f"{place}.function.name", "a name that no other tool has", name)
        seen.add(name)
        parameters = function.get("parameters")
        if parameters is not None:
            _schema(parameters, f"{place}.function.parameters")


def _tool_choice(body: dict[str, Any]) -> None:
    choice = body.get("tool_choice")
    names = {tool["function"]["name"] for tool in body.get("tools") or () if _named(tool)}
    if choice in (None, "none", "auto"):
        return
    if choice == "required":
        if not names:
            raise _refuse("tool_choice", "used with tools", choice)
        return
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _refuse("tool_choice", "none, auto, required or a function", choice)
    if function["name"] not in names:
        raise _refuse("tool_choice.function.name", "the name of one of the tools", function["name"])


def _named(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("function"), dict) and "name" in tool["function"]


def _response_format(body: dict[str, Any]) -> None:
    form = body.get("response_format")
    if form is None:
        return
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise _refuse("response_format.type", "text, json_object or json_schema", kind if kind is not None else form)
    if kind != "json_schema":
        return
    spec = form.get("json_schema")
    if not isinstance(spec, dict):
        raise _refuse("response_format.json_schema", "an object", spec)
    if not isinstance(spec.get("name"), str) or not TOOL_NAME.match(spec["name"]):
        raise _refuse("response_format.json_schema.name", "1 to 64 letters, digits, _ or -", spec.get("name"))
    if not isinstance(spec.get("schema"), dict):
        raise _refuse("response_format.json_schema.schema", "an object", spec.get("schema"))
    if spec.get("strict") is not None and not isinstance(spec["strict"], bool):
        raise _refuse("response_format.json_schema.strict", "a boolean", spec["strict"])
    _schema(spec["schema"], "response_format.json_schema.schema")


def _schema(schema: Any, place: str) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if not isinstance(schema, dict):
        raise _refuse(place, "a JSON Schema object", schema)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ApiError(400, f"`{place}` is not a valid JSON Schema: {error.message[:200]}", param=place) from None


GUARDS = {
    "messages": _messages,
    "ranges": _ranges,
    "stop": _stop,
    "stream_options": _stream_options,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "response_format": _response_format,
}
"""The guards by the names that `Turn.skip` may hold."""
