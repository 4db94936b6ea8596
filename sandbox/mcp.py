"""A small MCP server for demonstration: it searches what the sandbox's own routes say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAME = "mcp-demo"
PROTOCOL = "2025-06-18"
_QUERY = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "A word to look for"}},
    "required": ["query"],
    "additionalProperties": False,
}
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "name": "search_documentation",
        "description": "Search the documentation of the routes for a word",
        "inputSchema": _QUERY,
    },
    {
        "name": "count_documentation",
        "description": "Count the entries in the documentation that hold a word",
        "inputSchema": _QUERY,
    },
)
METHOD_NOT_FOUND, INVALID_PARAMS = -32601, -32602


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool returned: a text, which may tell an error."""

    text: str
    is_error: bool = False


def call(name: str, arguments: dict[str, Any]) -> Result:
    """Run one tool."""
    query = arguments.get("query")
    if not isinstance(query, str) or not query:
        return Result("`query` must be a word to look for", is_error=True)
    found = [line for line in _lines() if query.casefold() in line.casefold()]
    if name == "search_documentation":
        return Result("\n".join(found) or f"nothing mentions {query!r}")
    if name == "count_documentation":
        return Result(str(len(found)))
    return Result(f"there is no tool {name!r}", is_error=True)


def _lines() -> list[str]:
    from roadworthy.sandbox.routes import load

    texts = [(route.method, " ".join((route.handler.__doc__ or "").split())) for route in load()]
    return [f"{method}: {text}" for method, text in texts]


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """The JSON-RPC answer to one message."""
    method, given = message.get("method"), message.get("params")
    params = given if isinstance(given, dict) else {}
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message.get("id")}
    if method == "initialize":
        info = {"name": NAME, "version": "1"}
        return {**reply, "result": {"protocolVersion": PROTOCOL, "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "tools/list":
        return {**reply, "result": {"tools": list(TOOLS)}}
    if method == "tools/call":
        arguments = params.get("arguments")
        if not isinstance(params.get("name"), str) or not isinstance(arguments, dict):
            return {**reply, "error": {"code": INVALID_PARAMS, "message": "name and arguments are needed"}}
        result = call(params["name"], arguments)
        return {**reply, "result": {"content": [{"type": "text", "text": result.text}], "isError": result.is_error}}
    return {**reply, "error": {"code": METHOD_NOT_FOUND, "message": f"there is no method {str(method)[:100]!r}"}}
