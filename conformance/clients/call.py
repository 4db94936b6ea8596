"""What a client is asked to do, rebuilt from a recorded request as far as the answer's reading depends on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from roadworthy.conformance.exchange import Exchange, as_object, objects

CHAT = ("chat-completion", "conversational", "image-text-to-text")
"""Names under which chat goes: the specification's, the mapping's, and that of chat about images."""
APIS = ("openai", "responses", "serverless")
_SENDABLE_BYTES = 64 * 1024
_SENDABLE_DEPTH = 32
_TEXT = "My name is Sarah and I live in [MASK]."
_LABELS = ["one", "two"]
_DATA = {"a": ["1", "2"], "b": ["3", "4"]}
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="  # one grey pixel
_WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA=="  # one silent sample


@dataclass(frozen=True, slots=True)
class Question:
    """One recorded exchange to judge as an answer to `task`, asked in the manner of `api`.

    `api` is "openai" (OpenAI's routes), "responses" (OpenAI's responses route) or "serverless" (the task's own
    form: `inputs` and `parameters`). `model` is the name the client is given.
    """

    exchange: Exchange
    task: str
    api: str
    model: str


def call(question: Question) -> dict[str, Any]:
    """The call as JSON for a runner: what the client's method is given.

    Only what changes how an answer is read is taken from the request; what is absent or malformed there, as in
    probes that are malformed on purpose, is replaced by something small, for the answer is what is judged.
    """
    sent = {key: value for key, value in as_object(question.exchange.sent).items() if _sendable(value)}
    task = "chat-completion" if question.task in CHAT else question.task
    parameters = as_object(sent.get("parameters"))
    common = {"task": task, "api": question.api, "model": question.model, "stream": sent.get("stream") is True}
    if question.api == "responses":
        text_format = as_object(as_object(sent.get("text")).get("format"))
        schema = as_object(text_format.get("schema")) if text_format.get("type") == "json_schema" else {}
        return {**common, "input": _text(sent.get("input")), "schema": schema or None}
    if task == "chat-completion":
        return {**common, **_chat(sent)}
    return {
        **common,
        "inputs": _inputs(task, sent),
        "labels": _texts(parameters.get("candidate_labels")) or _LABELS,
        "details": parameters.get("details") is True,
        # Of itself the SDK asks for base64 and decodes it.
        "encoding_format": "float" if sent.get("encoding_format") == "float" else None,
        "plain": question.exchange.media_type.startswith("text/plain"),
    }


def _chat(sent: dict[str, Any]) -> dict[str, Any]:
    messages = objects(sent.get("messages"))
    usable = bool(messages) and all(isinstance(message.get("role"), str) for message in messages)
    tools = [
        tool for tool in objects(sent.get("tools")) if isinstance(as_object(tool.get("function")).get("name"), str)
    ]
    response_format = as_object(sent.get("response_format"))
    schema = as_object(as_object(response_format.get("json_schema")).get("schema"))
    return {
        "messages": messages if usable else [{"role": "user", "content": _TEXT}],
        "tools": tools or None,
        "response_format": response_format if isinstance(response_format.get("type"), str) else None,
        "schema": schema if schema and response_format.get("type") == "json_schema" else None,
    }


def _inputs(task: str, sent: dict[str, Any]) -> Any:
    """The inputs of a task, of the type its method takes; binary ones are base64."""
    given = sent.get("inputs", sent.get("input", sent.get("prompt")))
    fields = as_object(given)
    if task == "question-answering":
        return {key: _text(fields.get(key)) for key in ("question", "context")}
    if task == "sentence-similarity":
        sentences = _texts(fields.get("sentences")) or _LABELS
        return {"source_sentence": _text(fields.get("source_sentence")), "sentences": sentences}
    if task == "table-question-answering":
        return {"query": _text(fields.get("query", fields.get("question"))), "table": _table(fields.get("table"))}
    if task in ("document-question-answering", "visual-question-answering"):
        return {"question": _text(fields.get("question")), "image": _PNG}
    if task.startswith("tabular-"):
        return _table(fields.get("data"))
    if task in ("audio-classification", "audio-to-audio", "automatic-speech-recognition"):
        return _WAV
    if task.startswith(("image-", "object-", "zero-shot-image-")):
        return _PNG
    if task == "feature-extraction" and _texts(given):
        return given
    return _text(given)


def _sendable(value: Any) -> bool:
    """Whether every client can send this: an honest size and depth, and no half of a surrogate pair."""

    def depth(item: Any, left: int) -> bool:
        parts = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        return left > 0 and all(depth(part, left - 1) for part in parts)

    if not depth(value, _SENDABLE_DEPTH):
        return False
    try:
        return len(json.dumps(value, ensure_ascii=False).encode()) <= _SENDABLE_BYTES
    except UnicodeEncodeError:
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else _TEXT


def _texts(value: Any) -> list[str]:
    """The value where it is a list of texts, else an empty one."""
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else []


def _table(value: Any) -> dict[str, list[str]]:
    table = as_object(value)
    return table if table and all(_texts(column) for column in table.values()) else _DATA
