"""The sandbox's model: deterministic, and prompt-aware enough for every model-level check."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from roadworthy.sandbox import images
from roadworthy.sandbox.instances import Hints, UnsatisfiableError, instance
from roadworthy.sandbox.turn import ApiError, Choice

NUMBER_WORDS = tuple(
    "zero,one,two,three,four,five,six,seven,eight,nine,ten,eleven,twelve,thirteen,fourteen,fifteen,sixteen,seventeen,"
    "eighteen,nineteen,twenty".split(",")
)
TENS = {20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 60: "sixty", 70: "seventy", 80: "eighty", 90: "ninety"}
GREETINGS = ("Hello! How can I help you today?", "Hi there! What can I do for you?", "Hello, and what brings you here?")
"""Each with a question mark, so that a fault which damages single characters shows in any of them."""
EFFORT_SENTENCES = {"minimal": 1, "low": 2, "medium": 4, "high": 7, "xhigh": 10}
STOP_WORDS = frozenset(
    (
        "a an the of for to in on at is are what whats which who how do does i you me my please tell give get and or "
        "it with this that from by s current be can could would today now"
    ).split()
)
_TOKEN = re.compile(r" ?\w+| ?[^\w\s]|\s")


def tokens(text: str) -> list[str]:
    """Split a text into the sandbox's tokens: words and signs, each with the one space before it; they join to it."""
    return _TOKEN.findall(text)


def answer(body: dict[str, Any], request_id: str = "") -> list[Choice]:
    """The choices for a valid chat request, cut by `stop` and the token limits."""
    return [_one(body, number, request_id) for number in range(body.get("n") or 1)]


def _one(body: dict[str, Any], number: int, request_id: str) -> Choice:
    choice = _called(body) or Choice(_text(body, number, request_id))
    effort = body.get("reasoning_effort")
    if effort in EFFORT_SENTENCES:
        choice.reasoning = " ".join(["I look at the question from one more side."] * EFFORT_SENTENCES[effort])
    return _cut(choice, body)


def _cut(choice: Choice, body: dict[str, Any]) -> Choice:
    stops = body.get("stop") or []
    text = choice.content
    if text is not None:
        for stop in [stops] if isinstance(stops, str) else stops:
            if stop in text:
                text = text[: text.index(stop)]
        choice.content = text
    limits = [body[key] for key in ("max_tokens", "max_completion_tokens") if body.get(key) is not None]
    limit = min(limits, default=None)
    if limit is None:
        return choice
    thought = tokens(choice.reasoning or "")
    if len(thought) > limit:
        choice.reasoning, choice.content, choice.tool_calls = "".join(thought[:limit]), None, []
        choice.finish_reason = "length"
        return choice
    said = tokens(choice.content or "")
    left = limit - len(thought)
    if len(said) > left:
        choice.content = "".join(said[:left])
        choice.finish_reason = "length"
    return choice


# Tool calls


def _called(body: dict[str, Any]) -> Choice | None:
    tools = [tool["function"] for tool in body.get("tools") or ()]
    wanted = body.get("tool_choice") or ("auto" if tools else "none")
    if not tools or wanted == "none":
        return None
    prompt = _prompt(body)
    if isinstance(wanted, dict):
        tool = next(tool for tool in tools if tool["name"] == wanted["function"]["name"])
        chosen = [tool]
    else:
        if wanted == "auto" and body["messages"][-1].get("role") == "tool":
            return None
        chosen = _fitting(tools, prompt)
        if wanted == "required" and not chosen:
            chosen = [tools[0]]
    calls = [(tool["name"], arguments) for tool in chosen for arguments in _arguments(tool, prompt)]
    if body.get("parallel_tool_calls") is False:
        calls = calls[:1]
    return Choice(None, calls, "tool_calls") if calls else None


def _fitting(tools: list[dict[str, Any]], prompt: str) -> list[dict[str, Any]]:
    """The tools that share the most words with the prompt, if any share one."""
    asked = _words(prompt)
    scores = [(len(asked & (_words(tool["name"]) | _words(tool.get("description") or ""))), tool) for tool in tools]
    best = max((score for score, _ in scores), default=0)
    return [tool for score, tool in scores if score == best][:1] if best else []


def _words(text: str) -> set[str]:
    words = re.findall(r"[^\W_]+", text.casefold())
    stems = {word[:-1] if word.endswith("s") and len(word) > 3 else word for word in words}
    return stems - STOP_WORDS


def _arguments(tool: dict[str, Any], prompt: str) -> Iterator[dict[str, Any]]:
    """One set of arguments for each thing asked about: "in Paris and in London" makes two."""
    schema = tool.get("parameters") or {"type": "object", "properties": {}}
    hints = Hints.read(prompt)
    places = [place for found in hints.places for place in re.split(r"\s+and\s+", found)]
    several = re.findall(
        r"\b(?:in|for|of)\s+([^\W\d_a-z][\w'-]*)\s+and\s+(?:in\s+|for\s+|of\s+)?([^\W\d_a-z][\w'-]*)", prompt
    )
    if several:
        places = list(several[0])
    takes_place = any(
        isinstance(part, dict) and part.get("type") == "string" and "enum" not in part
        for part in (schema.get("properties") or {}).values()
    )
    rounds = [[place] for place in places] if takes_place and len(places) > 1 else [places]
    for own in rounds:
        hints.places = own
        try:
            made = instance(schema, prompt, hints)
        except UnsatisfiableError as error:
            raise ApiError(400, f"the parameters of {tool['name']!r} cannot be met: {error}", param="tools") from None
        yield made if isinstance(made, dict) else {}


# Text


def _text(body: dict[str, Any], number: int, request_id: str) -> str:
    prompt = _prompt(body)
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        try:
            made = instance(form["json_schema"]["schema"], prompt)
        except UnsatisfiableError as error:
            raise ApiError(400, f"the schema cannot be met: {error}", param="response_format") from None
        return json.dumps(made, ensure_ascii=False)
    if form.get("type") == "json_object":
        return json.dumps(_object_from(prompt), ensure_ascii=False)
    system = " ".join(_plain(m.get("content")) for m in body["messages"] if m["role"] in ("system", "developer"))
    text = _reply(body, prompt, number, request_id)
    only = re.search(r"(?:only|exactly|always)[^.]*?\bword:?\s+[\"'“]?([\w-]+)", system, re.IGNORECASE)
    if only:
        return only[1]
    ending = re.search(
        r"end (?:every|each|all|your) (?:answer|reply|response|message)s? with:?\s+[\"'“]?([\w-]+)",
        system,
        re.IGNORECASE,
    )
    return f"{text} {ending[1]}" if ending else text


def _reply(body: dict[str, Any], prompt: str, number: int, request_id: str) -> str:
    messages = body["messages"]
    if messages[-1]["role"] == "tool":
        results = []
        for message in reversed(messages):
            if message["role"] != "tool":
                break
            results.append(_plain(message.get("content")))
        return "According to the tool: " + "; ".join(reversed(results))
    for rule in (_exact, _colours, _recalled, _counted, _sum, _long):
        said = rule(prompt, messages)
        if said is not None:
            return said
    if body.get("temperature") == 0:
        return GREETINGS[0]
    seed = body.get("seed")
    turn = seed if seed is not None else sum(request_id.encode())
    return GREETINGS[(turn + number) % len(GREETINGS)]


def _exact(prompt: str, messages: list[dict[str, Any]]) -> str | None:
    found = re.search(
        r"(?:repl(?:y|ied)|answer|respond|say|repeat|write|output|print)\b[^:.]*?"
        r"\b(?:exactly|only|just|verbatim|nothing but|back)\b"
        r"[^:\n]*?(?::\s*|\bwords?\s+)[\"'“]?([^\"”\n]+?)[\"'”]?\.?\s*$",
        prompt.strip(),
        re.IGNORECASE,
    )
    return found[1] if found else None


def _colours(prompt: str, messages: list[dict[str, Any]]) -> str | None:
    if not re.search(r"colou?r", prompt, re.IGNORECASE):
        return None
    parts = [part for m in messages if isinstance(m.get("content"), list) for part in m["content"]]
    seen = [images.colour(part["image_url"]["url"]) for part in parts if part.get("type") == "image_url"]
    names = [name for name in seen if name]
    return f"I see {' and '.join(names)}." if names else None


def _recalled(prompt: str, messages: list[dict[str, Any]]) -> str | None:
    asked = re.search(
        r"what(?:'s| is| was)\s+(?:my|the|your)\s+([\w ]+?)(?:\?|\.|$| I\b| that\b)", prompt, re.IGNORECASE
    )
    if not asked:
        return None
    topic = re.escape(asked[1].strip())
    for message in reversed(messages[:-1]):
        told = re.search(rf"\b{topic}\s+is\s+[\"'“]?([\w-]+)", _plain(message.get("content")), re.IGNORECASE)
        if told:
            return f"The {asked[1].strip()} is {told[1]}."
    return None


def _counted(prompt: str, messages: list[dict[str, Any]]) -> str | None:
    found = re.search(r"count (?:up )?from (\w+) to ([\w-]+)", prompt, re.IGNORECASE)
    if not found:
        return None
    low, high = _number(found[1]), _number(found[2])
    if low is None or high is None or high - low > 1000:
        return None
    in_words = "word" in prompt.casefold()
    return ", ".join(_spelled(n) if in_words else str(n) for n in range(low, high + 1)) + "."


def _number(word: str) -> int | None:
    if word.isascii() and word.isdigit():
        return int(word)
    return next((n for n in range(1001) if _spelled(n) == word.casefold()), None)


def _spelled(number: int) -> str:
    if number <= 20:
        return NUMBER_WORDS[number]
    if number < 100:
        rest = number % 10
        return TENS[number - rest] + (f"-{NUMBER_WORDS[rest]}" if rest else "")
    hundreds, rest = divmod(number, 100)
    if hundreds >= 10:
        return str(number)
    return f"{NUMBER_WORDS[hundreds]} hundred" + (f" and {_spelled(rest)}" if rest else "")


def _sum(prompt: str, messages: list[dict[str, Any]]) -> str | None:
    found = re.search(r"(-?\d+)\s*(\+|-|\*|x|\u00d7|plus|minus|times)\s*(-?\d+)", prompt, re.IGNORECASE)
    if not found:
        return None
    a, b = int(found[1]), int(found[3])
    sign = {"plus": "+", "minus": "-", "times": "*", "x": "*", "\u00d7": "*"}.get(found[2].casefold(), found[2])
    return str({"+": a + b, "-": a - b, "*": a * b}[sign])


def _long(prompt: str, messages: list[dict[str, Any]]) -> str | None:
    if not re.search(
        r"\b(long|story|essay|poem|paragraphs?|sentences|hundred words|haiku|list)\b", prompt, re.IGNORECASE
    ):
        return None
    lines = [f"On day {_spelled(day)} the ship sailed on under a wide and quiet sky." for day in range(1, 31)]
    return " ".join(lines)


def _object_from(prompt: str) -> dict[str, Any]:
    hints = Hints.read(prompt)
    keys = re.findall(
        r"(?:keys?|fields?|propert(?:y|ies))[^:\n]*?((?:[\"'`][\w-]+[\"'`](?:,|\s|and)*)+)", prompt, re.IGNORECASE
    )
    names = re.findall(r"[\"'`]([\w-]+)[\"'`]", keys[0]) if keys else []
    values: list[Any] = [*hints.places, *(int(n) if "." not in n else float(n) for n in hints.numbers)]
    made: dict[str, Any] = {name: values[i] if i < len(values) else "text" for i, name in enumerate(names)}
    return made or {"answer": values[0] if values else "yes"}


def _prompt(body: dict[str, Any]) -> str:
    """The text of the last user message."""
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            return _plain(message.get("content"))
    return ""


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(part["text"] for part in content if part.get("type") == "text")
    return ""
