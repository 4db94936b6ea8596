"""The Responses API: input items in, output items out, whole or as a stream of named events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from roadworthy.sandbox import answers, mcp, wire
from roadworthy.sandbox.routes import Server, known, parse, route
from roadworthy.sandbox.turn import ApiError, Choice, Frame, Kind, Stage, Turn
from roadworthy.sandbox.validation import EFFORTS, is_int, is_number, validate

IMAGE_TOKENS = 85
KEPT = 1000
"""Conversations remembered; the oldest are forgotten first."""
MAX_ROUNDS = 4
"""How often the model may call remote tools before it must answer."""
LEAST_TOKENS = 16
ROLES = ("user", "assistant", "system", "developer")
MCP_PATH = "/v1/mcp-demo"
CHAT_NAMES = (
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("max_tokens", "max_output_tokens"),
    ("reasoning_effort", "reasoning.effort"),
    (".function", ""),
    ("messages", "input"),
)
"""How the guards of chat name fields, and how this family names them."""

Event = dict[str, Any]
Item = dict[str, Any]
UNTOLD: dict[str, Item] = {
    "message": {"content": []},
    "reasoning": {"content": []},
    "function_call": {"arguments": ""},
    "mcp_list_tools": {"tools": []},
    "mcp_call": {"arguments": "", "output": None, "error": None},
}
"""What is not known yet of an item of each type when it is announced."""


@route("POST", "/v1/responses")
def create(turn: Turn, server: Server) -> None:
    """A response, streamed or not."""
    turn.body = parse(turn.raw)
    if not isinstance(turn.body.get("model"), str) and "model" not in turn.skip:
        raise _refuse("model", "a string", turn.body.get("model"))
    known(turn, turn.body.get("model"), server.options.models)
    for name, guard in GUARDS.items():
        if name not in turn.skip:
            guard(turn.body)
    turn.kind = Kind.RESPONSE
    server.mutate(Stage.REQUEST, turn)
    body = turn.body
    turn.kind = Kind.RESPONSE_STREAM if body.get("stream") else Kind.RESPONSE
    chat = _chat(turn, server)
    read = _tokens_read(chat)
    if read > server.options.context_length:
        raise ApiError(
            400,
            f"the input has {read:,} tokens; the context holds {server.options.context_length:,}",
            code="context_length_exceeded",
            param="input",
        )
    remote = _remote_items(turn, chat)
    turn.choices = answers.answer(chat, turn.request_id)
    turn.usage = _usage(wire.usage(turn, read))
    server.mutate(Stage.ANSWER, turn)
    items = [*remote, *_items(turn, turn.choices[0])]
    response = _response(turn, items)
    if body.get("store") is not False:
        _remember(server, response, chat["messages"][1 if body.get("instructions") else 0 :])
    if turn.kind is Kind.RESPONSE_STREAM:
        turn.chunks = list(events(response))
        turn.framing = frames
    else:
        turn.payload = response


@route("GET", "/v1/responses/{id}")
def fetch(turn: Turn, server: Server) -> None:
    """A response that was stored."""
    stored = server.memory.get("responses", {}).get(turn.parts["id"])
    if stored is None:
        raise ApiError(404, f"there is no response {turn.parts['id'][:200]!r}", code="response_not_found", param="id")
    turn.kind = Kind.RESPONSE
    turn.payload = stored["response"]


@route("GET", MCP_PATH)
def mcp_tools(turn: Turn, server: Server) -> None:
    """What the demonstration MCP server offers, for those who only want to look."""
    turn.kind = Kind.SERVER
    turn.payload = {"name": mcp.NAME, "protocolVersion": mcp.PROTOCOL, "tools": list(mcp.TOOLS)}


@route("POST", MCP_PATH)
def mcp_call(turn: Turn, server: Server) -> None:
    """The demonstration MCP server itself: JSON-RPC over HTTP."""
    turn.kind = Kind.SERVER
    turn.payload = mcp.answer(parse(turn.raw))


# Guards


def _refuse(param: str, expected: str, got: Any) -> ApiError:
    text = repr(got)
    text = text if len(text) <= 60 else text[:57] + "..."
    return ApiError(400, f"`{param}` must be {expected}, got {text}", param=param, code="invalid_value")


def _input(body: dict[str, Any]) -> None:
    given = body.get("input")
    if isinstance(given, str) and given:
        return
    if not isinstance(given, list) or not given:
        raise _refuse("input", "a string or a non-empty array of items", given)
    calls: set[str] = set()
    for index, item in enumerate(given):
        _item(item, f"input[{index}]", calls)


def _item(item: Any, place: str, calls: set[str]) -> None:
    if not isinstance(item, dict):
        raise _refuse(place, "an object", item)
    kind = item.get("type", "message")
    if kind == "message":
        if item.get("role") not in ROLES:
            raise _refuse(f"{place}.role", f"one of {', '.join(ROLES)}", item.get("role"))
        _content(item.get("content"), f"{place}.content")
    elif kind == "function_call":
        for key in ("call_id", "name", "arguments"):
            if not isinstance(item.get(key), str):
                raise _refuse(f"{place}.{key}", "a string", item.get(key))
        calls.add(item["call_id"])
    elif kind == "function_call_output":
        if item.get("call_id") not in calls:
            raise _refuse(f"{place}.call_id", "the call_id of an earlier function_call", item.get("call_id"))
        if not isinstance(item.get("output"), str | list):
            raise _refuse(f"{place}.output", "a string or an array of parts", item.get("output"))
    elif kind not in ("reasoning", "mcp_list_tools", "mcp_call"):
        raise _refuse(f"{place}.type", "message, function_call, function_call_output, reasoning or mcp_call", kind)


def _content(content: Any, place: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise _refuse(place, "a string or a non-empty array of parts", content)
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        where = f"{place}[{number}]"
        if kind in ("input_text", "output_text") and isinstance(part.get("text"), str):
            continue
        if kind == "refusal" and isinstance(part.get("refusal"), str):
            continue
        if kind == "input_image":
            url = part.get("image_url")
            if isinstance(url, str) and url.startswith("data:image/"):
                continue
            raise _refuse(f"{where}.image_url", "a data: URI of an image", url)
        raise _refuse(where, "an input_text, input_image or output_text part", part)


def _ranges(body: dict[str, Any]) -> None:
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1)):
        value = body.get(name)
        if value is not None and not (is_number(value) and low <= value <= high):
            raise _refuse(name, f"a number from {low} to {high}", value)
    limit = body.get("max_output_tokens")
    if limit is not None and not (is_int(limit) and limit >= LEAST_TOKENS):
        raise _refuse("max_output_tokens", f"an integer of at least {LEAST_TOKENS}", limit)
    for name in ("stream", "store", "parallel_tool_calls"):
        if body.get(name) is not None and not isinstance(body[name], bool):
            raise _refuse(name, "a boolean", body[name])
    for name in ("instructions", "previous_response_id"):
        if body.get(name) is not None and not isinstance(body[name], str):
            raise _refuse(name, "a string", body[name])
    if body.get("metadata") is not None and not isinstance(body["metadata"], dict):
        raise _refuse("metadata", "an object", body["metadata"])


def _reasoning(body: dict[str, Any]) -> None:
    reasoning = body.get("reasoning")
    if reasoning is None:
        return
    if not isinstance(reasoning, dict):
        raise _refuse("reasoning", "an object", reasoning)
    effort = reasoning.get("effort")
    if effort is not None and effort not in EFFORTS:
        raise _refuse("reasoning.effort", f"one of {', '.join(EFFORTS)}", effort)


def _tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise _refuse("tools", "an array", tools)
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind == "mcp":
            _mcp_tool(tool, place)
        elif kind != "function":
            raise _refuse(f"{place}.type", "function or mcp", kind)


def _mcp_tool(tool: dict[str, Any], place: str) -> None:
    if not isinstance(tool.get("server_label"), str) or not tool["server_label"]:
        raise _refuse(f"{place}.server_label", "a string", tool.get("server_label"))
    url = tool.get("server_url")
    if not isinstance(url, str) or not _is_own(url):
        raise _refuse(f"{place}.server_url", f"this server's own {MCP_PATH}: it reaches no other", url)
    allowed = tool.get("allowed_tools")
    if allowed is not None and not (isinstance(allowed, list) and all(isinstance(name, str) for name in allowed)):
        raise _refuse(f"{place}.allowed_tools", "an array of names", allowed)
    if tool.get("require_approval") != "never":
        raise _refuse(f"{place}.require_approval", "'never': approvals are not offered", tool.get("require_approval"))


def _is_own(url: str) -> bool:
    try:
        return urlsplit(url).path == MCP_PATH
    except ValueError:
        return False


def _form(body: dict[str, Any]) -> None:
    text = body.get("text")
    if text is None:
        return
    if not isinstance(text, dict):
        raise _refuse("text", "an object", text)
    form = text.get("format")
    if form is not None and not isinstance(form, dict):
        raise _refuse("text.format", "an object", form)


GUARDS = {
    "input": _input,
    "ranges": _ranges,
    "reasoning": _reasoning,
    "tools": _tools,
    "text": _form,
}
"""The guards by the names that `Turn.skip` may hold."""


# From a request of this family to one of chat


def _chat(turn: Turn, server: Server) -> dict[str, Any]:
    """The same request in the words of chat, and valid there. Raises `ApiError` naming this family's fields."""
    body = turn.body
    messages: list[dict[str, Any]] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    messages += _earlier(body.get("previous_response_id"), server, turn.skip)
    given = body.get("input")
    messages += _messages([{"role": "user", "content": given}] if isinstance(given, str) else given)
    chat: dict[str, Any] = {"model": body.get("model"), "messages": messages or [{"role": "user", "content": ""}]}
    for name in ("temperature", "top_p", "parallel_tool_calls"):
        if body.get(name) is not None:
            chat[name] = body[name]
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    effort = (body.get("reasoning") or {}).get("effort")
    if effort is not None:
        chat["reasoning_effort"] = effort
    form = _chat_form(body)
    if form is not None:
        chat["response_format"] = form
    tools = [tool for given in body.get("tools") or () for tool in _chat_tools(given)]
    if tools:
        chat["tools"] = tools
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    if choice is not None:
        chat["tool_choice"] = choice
    try:
        validate(chat, turn.skip)
    except ApiError as error:
        message, param = str(error), error.param or ""
        for theirs, ours in CHAT_NAMES:
            message, param = message.replace(theirs, ours), param.replace(theirs, ours)
        raise ApiError(error.status, message, code=error.code, param=param) from None
    return chat


def _earlier(id: Any, server: Server, skip: set[str]) -> list[dict[str, Any]]:
    if id is None or "previous" in skip:
        return []
    stored = server.memory.get("responses", {}).get(id)
    if stored is None:
        raise ApiError(
            404,
            f"there is no response {id[:200]!r} to continue",
            code="previous_response_not_found",
            param="previous_response_id",
        )
    kept: list[dict[str, Any]] = stored["messages"]
    return kept


def _messages(given: Any) -> list[dict[str, Any]]:
    """Input items as messages; calls that follow each other are one message, as chat wants them."""
    messages: list[dict[str, Any]] = []
    for item in given if isinstance(given, list) else ():
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "message":
            messages.append({"role": item["role"], "content": _parts(item["content"])})
        elif kind == "function_call":
            call = {
                "id": item["call_id"],
                "type": "function",
                "function": {"name": item["name"], "arguments": item["arguments"]},
            }
            if messages and messages[-1].get("tool_calls"):
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            output = item["output"]
            text = output if isinstance(output, str) else " ".join(str(part.get("text", "")) for part in output)
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
    return messages


def _parts(content: Any) -> Any:
    if isinstance(content, str):
        return content
    made: list[dict[str, Any]] = []
    for part in content:
        if part["type"] == "input_image":
            made.append({"type": "image_url", "image_url": {"url": part["image_url"]}})
        else:
            made.append({"type": "text", "text": part.get("text", part.get("refusal", ""))})
    return made


def _chat_form(body: dict[str, Any]) -> Any:
    """The form of the answer: `text.format`, or `response_format` as chat spells it."""
    form = (body.get("text") or {}).get("format")
    if form is None:
        return body.get("response_format")
    if form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {key: value for key, value in form.items() if key != "type"}}


def _chat_tools(tool: dict[str, Any]) -> list[dict[str, Any]]:
    if tool.get("type") == "mcp":
        return [
            {
                "type": "function",
                "function": {
                    "name": offered["name"],
                    "description": offered["description"],
                    "parameters": offered["inputSchema"],
                },
            }
            for offered in _offered(tool)
        ]
    if tool.get("type") != "function":
        return []
    return [{"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}]


def _offered(tool: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools of an MCP server that the caller allows."""
    allowed = tool.get("allowed_tools")
    return [offered for offered in mcp.TOOLS if allowed is None or offered["name"] in allowed]


# The answer


def _remote_items(turn: Turn, chat: dict[str, Any]) -> list[Item]:
    """List and call remote tools, adding what came to the chat; the items that tell of it."""
    items: list[Item] = []
    owner: dict[str, str] = {}
    for tool in turn.body.get("tools") or ():
        if not isinstance(tool, dict) or tool.get("type") != "mcp":
            continue
        label = tool["server_label"]
        offered = _offered(tool)
        owner |= {one["name"]: label for one in offered}
        tools = [
            {"name": one["name"], "description": one["description"], "input_schema": one["inputSchema"]}
            for one in offered
        ]
        items.append({"id": _id(turn, "mcpl", len(items)), "type": "mcp_list_tools", "server_label": label,
                      "tools": tools, "error": None})  # fmt: skip
    for _ in range(MAX_ROUNDS if owner else 0):
        made = answers.answer(chat, turn.request_id)[0].tool_calls
        if not made or any(name not in owner for name, _ in made):
            break
        for name, arguments in made:
            number = len(items)
            result = mcp.call(name, arguments)
            items.append(
                {
                    "id": _id(turn, "mcp", number),
                    "type": "mcp_call",
                    "status": "failed" if result.is_error else "completed",
                    "server_label": owner[name],
                    "name": name,
                    "arguments": json.dumps(arguments, ensure_ascii=False),
                    "output": None if result.is_error else result.text,
                    "error": result.text if result.is_error else None,
                    "approval_request_id": None,
                }
            )
            call = {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": "{}"}}
            chat["messages"].append({"role": "assistant", "content": None, "tool_calls": [call]})
            chat["messages"].append({"role": "tool", "tool_call_id": call["id"], "content": result.text})
        chat["tool_choice"] = "auto"
    return items


def _items(turn: Turn, choice: Choice) -> list[Item]:
    cut = choice.finish_reason == "length"
    items: list[Item] = []
    if choice.reasoning is not None:
        thought = {"type": "reasoning_text", "text": choice.reasoning}
        items.append({"id": _id(turn, "rs"), "type": "reasoning", "status": "completed", "summary": [],
                      "content": [thought]})  # fmt: skip
    for slot, (name, arguments) in enumerate(choice.tool_calls):
        items.append(
            {
                "id": _id(turn, "fc", slot),
                "type": "function_call",
                "status": "completed",
                "call_id": _id(turn, "call", slot),
                "name": name,
                "arguments": json.dumps(arguments, ensure_ascii=False),
            }
        )
    if choice.content is not None:
        text = {"type": "output_text", "text": choice.content, "annotations": [], "logprobs": []}
        items.append(
            {
                "id": _id(turn, "msg"),
                "type": "message",
                "status": "incomplete" if cut else "completed",
                "role": "assistant",
                "content": [text],
            }
        )
    return items


def _response(turn: Turn, items: list[Item]) -> dict[str, Any]:
    body = turn.body
    cut = turn.choices[0].finish_reason == "length"
    return {
        "id": f"resp_{turn.request_id.replace('-', '')}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body.get("model"),
        "output": items,
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": (body.get("reasoning") or {}).get("effort"), "summary": None},
        "store": body.get("store") is not False,
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "truncation": "disabled",
        "usage": turn.usage,
        "metadata": body.get("metadata") or {},
    }


def _usage(chat: dict[str, Any]) -> dict[str, Any]:
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {**chat["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": chat["completion_tokens_details"],
        "total_tokens": chat["total_tokens"],
    }


def _remember(server: Server, response: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    """Keep a response and the conversation it ends, without the instructions: those hold for one request."""
    kept = server.memory.setdefault("responses", {})
    kept[response["id"]] = {"response": response, "messages": messages + _messages(_said(response["output"]))}
    while len(kept) > KEPT:
        del kept[next(iter(kept))]


def _said(items: list[Item]) -> list[Item]:
    return [item for item in items if item["type"] in ("message", "function_call")]


def _tokens_read(chat: dict[str, Any]) -> int:
    """What a request costs to read: its texts, its images, its tools, and a little for each message."""
    total = 3
    for message in chat["messages"]:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content or ""}]
        total += 4 + sum(len(answers.tokens(part["text"])) if "text" in part else IMAGE_TOKENS for part in parts)
    return total + (len(answers.tokens(json.dumps(chat["tools"]))) if chat.get("tools") else 0)


def _id(turn: Turn, prefix: str, slot: int = 0) -> str:
    return f"{prefix}_{turn.request_id.replace('-', '')[:24]}{slot}"


# The stream


def events(response: dict[str, Any]) -> Iterator[Event]:
    """The events that tell one response, numbered from 0."""
    for number, event in enumerate(_events(response)):
        yield {"type": event["type"], "sequence_number": number, **event}


def _events(response: dict[str, Any]) -> Iterator[Event]:
    begun = {**response, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(response["output"]):
        yield {"type": "response.output_item.added", "output_index": index, "item": _opened(item)}
        place = {"item_id": item["id"], "output_index": index}
        yield from TELLERS[item["type"]](item, place)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _opened(item: Item) -> Item:
    """An item as it is announced: all that is known before its content."""
    opened = {**item, **UNTOLD[item["type"]]}
    if "status" in item:
        opened["status"] = "in_progress"
    return opened


def _tell_parts(item: Item, place: dict[str, Any]) -> Iterator[Event]:
    for number, part in enumerate(item["content"]):
        here = {**place, "content_index": number}
        kind = f"response.{part['type']}"
        more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
        yield {"type": "response.content_part.added", **here, "part": {**part, "text": ""}}
        for token in answers.tokens(part["text"]):
            yield {"type": f"{kind}.delta", **here, "delta": token, **more}
        yield {"type": f"{kind}.done", **here, "text": part["text"], **more}
        yield {"type": "response.content_part.done", **here, "part": part}


def _tell_call(item: Item, place: dict[str, Any]) -> Iterator[Event]:
    yield from _tell_arguments(item, place, "response.function_call_arguments")


def _tell_arguments(item: Item, place: dict[str, Any], kind: str) -> Iterator[Event]:
    text = item["arguments"]
    for start in range(0, len(text), wire.FRAGMENT_LENGTH):
        yield {"type": f"{kind}.delta", **place, "delta": text[start : start + wire.FRAGMENT_LENGTH]}
    yield {"type": f"{kind}.done", **place, "name": item["name"], "arguments": text}


def _tell_list(item: Item, place: dict[str, Any]) -> Iterator[Event]:
    yield {"type": "response.mcp_list_tools.in_progress", **place}
    yield {"type": "response.mcp_list_tools.completed", **place}


def _tell_remote_call(item: Item, place: dict[str, Any]) -> Iterator[Event]:
    yield {"type": "response.mcp_call.in_progress", **place}
    yield from _tell_arguments(item, place, "response.mcp_call_arguments")
    yield {"type": f"response.mcp_call.{item['status']}", **place}


TELLERS = {
    "message": _tell_parts,
    "reasoning": _tell_parts,
    "function_call": _tell_call,
    "mcp_list_tools": _tell_list,
    "mcp_call": _tell_remote_call,
}
"""What is told of an item of each type between its beginning and its end."""


def frames(chunks: list[Event], delay_s: float) -> list[Frame]:
    """The events as bytes: each under its name, and no end marker."""
    return [
        Frame(
            b"event: " + str(chunk.get("type", "message")).encode() + b"\ndata: " + wire.encode(chunk) + b"\n\n",
            delay_s,
        )
        for chunk in chunks
    ]
