"""An exchange: one request, everything that came back, and the views checks read it by.

An exchange is immutable. The views are computed once, on first use, and never
raise for what a server sent: a malformed part is a `Malformed` value or simply
absent, so that a check can say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from roadworthy.conformance import strict_json
from roadworthy.conformance.clients.opinion import Opinion
from roadworthy.conformance.strict_json import Malformed
from roadworthy.http.message import FailureKind, Reply, Request
from roadworthy.http.sse import Event, Parser, StreamTooLargeError, parse

DONE = "[DONE]"
MAX_EVENTS = 50_000
"""Events read of one stream: far above any answer, and few enough to be judged in a moment."""
_FIELD = re.compile(r"(?!error:)[a-z][a-z0-9_.-]*:")
"""A field of some other name, which readers of event streams must ignore. (An error on a line of its own is none.)"""
_TAIL_BYTES = 1024

View = TypeVar("View")

if TYPE_CHECKING:
    from functools import cached_property as _once
else:

    class _once(Generic[View]):  # noqa: N801 - used as a decorator
        """A view computed on first use and kept in the instance.

        functools.cached_property of Python 3.11 takes a lock at each computation, which for views of chunks
        costs as much as the checks that read them.
        """

        def __init__(self, compute: Callable[[Any], View]) -> None:
            self._compute = compute
            self._name = compute.__name__
            self.__doc__ = compute.__doc__

        def __get__(self, holder: Any, owner: type | None = None) -> Any:
            if holder is None:
                return self
            value = holder.__dict__[self._name] = self._compute(holder)
            return value


@dataclass(frozen=True, slots=True)
class Retry:
    """An attempt that was answered 429 or 503 before the one that is judged."""

    status: int
    retry_after: str | None
    waited_s: float
    said: str = ""
    """The beginning of its body."""


@dataclass(frozen=True)
class Exchange:
    """What one sending of one probe showed.

    `id` names it in findings and recordings ("chat.basic#1"); `trial` counts from 1.
    `started_at` is UTC, ISO 8601. Secrets were masked before this was made.
    """

    id: str
    probe: str
    trial: int
    request: Request
    reply: Reply
    started_at: str = ""
    retries: tuple[Retry, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    """What the official clients made of the answer, where they were asked."""

    @property
    def status(self) -> int | None:
        """The HTTP status, or None where no response head arrived."""
        return self.reply.status

    @property
    def media_type(self) -> str:
        """The content type without parameters, lower case; empty where absent."""
        return (self.reply.header("content-type") or "").partition(";")[0].strip().lower()

    @property
    def complete(self) -> bool:
        """Whether the answer arrived whole (or we hung up on purpose)."""
        return self.reply.failure is None or self.reply.failure.kind is FailureKind.NOT_CLOSED

    @property
    def answered(self) -> bool:
        """Whether this is a whole answer of success: JSON, or media; a web page is none."""
        if self.status is None or not 200 <= self.status < 300 or not self.complete:
            return False
        media = self.media_type.startswith(("image/", "audio/", "video/", "application/octet-stream"))
        return media or self.reply.body.lstrip().startswith((b"{", b"["))

    @property
    def unreachable(self) -> bool:
        """Whether nothing can be said of the provider from this exchange: no contact, or told to wait."""
        failure = self.reply.failure
        return self.status in (429, 503) or (failure is not None and self.status is None and failure.kind.is_network)

    @_once
    def sent(self) -> Any:
        """The request's JSON body (a `Malformed` for bodies broken on purpose, None for none)."""
        return None if self.request.body is None else strict_json.loads(self.request.body)

    @_once
    def json(self) -> Any:
        """The response body as strict JSON, or `Malformed`."""
        return strict_json.loads(self.reply.body)

    @_once
    def answer(self) -> dict[str, Any]:
        """The response body where it is a JSON object, else an empty one."""
        return self.json if isinstance(self.json, dict) else {}

    @_once
    def choices(self) -> list[dict[str, Any]]:
        """The choices of a chat completion that are objects."""
        return objects(self.answer.get("choices"))

    @_once
    def message(self) -> dict[str, Any]:
        """The first choice's message, or an empty object."""
        return as_object(self.choices[0].get("message")) if self.choices else {}

    @_once
    def stream(self) -> ChatStream:
        """The body as a stream of chat completion chunks."""
        return ChatStream.read(self.reply)

    @property
    def garbled(self) -> bool:
        """Whether a stream was asked for and what came cannot be read as one.

        `chat.stream.*` says why; checks of what a stream holds have nothing to add.
        """
        if as_object(self.sent).get("stream") is not True or self.status != 200:
            return False
        return self.media_type != "text/event-stream" or not self.complete or not self.stream.readable

    @property
    def text(self) -> str:
        """The answer's text, streamed or not: the first choice's content, or ""."""
        if self.media_type == "text/event-stream":
            return self.stream.content()
        content = self.message.get("content")
        return content if isinstance(content, str) else ""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The first choice's tool calls, joined from fragments where streamed."""
        if self.media_type == "text/event-stream":
            return self.stream.tool_calls()
        return objects(self.message.get("tool_calls"))

    @property
    def finish_reason(self) -> str | None:
        """The first choice's finish reason, streamed or not."""
        if self.media_type == "text/event-stream":
            return next(iter(self.stream.finish_reasons(0)), None)
        reason = self.choices[0].get("finish_reason") if self.choices else None
        return reason if isinstance(reason, str) else None


@dataclass(frozen=True)
class Chunk:
    """One event of a chat stream and the object it held (`Malformed` where it held none)."""

    event: Event
    value: Any

    @_once
    def object(self) -> dict[str, Any]:
        """The chunk where it is a JSON object, else an empty one."""
        return as_object(self.value)

    @_once
    def choices(self) -> list[dict[str, Any]]:
        """Its choices that are objects."""
        return objects(self.object.get("choices"))

    def delta(self, index: int = 0) -> dict[str, Any]:
        """The delta of the choice with this index, or an empty object."""
        for choice in self.choices:
            if choice.get("index", 0) == index:
                return as_object(choice.get("delta"))
        return {}

    @_once
    def readable(self) -> bool:
        """Whether it is a chunk whose every choice has a delta, with text where text belongs; an error is none."""
        deltas = [choice.get("delta") for choice in self.choices]
        return (
            isinstance(self.value, dict)
            and not self.tells_error
            and all(isinstance(d, dict) and isinstance(d.get("content"), str | None) for d in deltas)
        )

    @_once
    def tells_error(self) -> bool:
        """Whether this event tells that the answer failed."""
        return self.event.event == "error" or bool(self.object.get("error"))

    @_once
    def has_token(self) -> bool:
        """Whether any choice carries a first token: non-empty content, reasoning, refusal or tool call.

        A role alone, an empty string or a comment is not a token.
        """
        for choice in self.choices:
            delta = as_object(choice.get("delta"))
            if any(
                isinstance(delta.get(key), str) and delta[key]
                for key in ("content", "reasoning", "reasoning_content", "refusal")
            ):
                return True
            if objects(delta.get("tool_calls")):
                return True
        return False


@dataclass(frozen=True)
class ChatStream:
    """A chat stream: all events, the chunks among them, and how the stream ended.

    `unfinished` says whether the stream ends inside an event, and `tail` holds that beginning.
    `stray_lines` are lines that are neither a comment nor a field, at most ten of them.
    `oversized` holds the sentence of a line or event beyond the cap.
    """

    events: tuple[Event, ...]
    chunks: tuple[Chunk, ...]
    comments: int = 0
    unfinished: bool = False
    undecodable: int = 0
    stray_lines: tuple[str, ...] = ()
    oversized: str | None = None
    tail: str = ""

    @classmethod
    def read(cls, reply: Reply) -> ChatStream:
        """Parse the body of a reply."""
        parser = Parser()
        events: list[Event] = []
        oversized = None
        try:
            events.extend(islice(parse(reply.body, reply.reads, parser), MAX_EVENTS))
            if len(events) == MAX_EVENTS:
                oversized = f"the stream has {MAX_EVENTS:,} events or more"
        except StreamTooLargeError as error:
            oversized = str(error)
        chunks = tuple(Chunk(event, strict_json.loads(event.data)) for event in events if event.data.strip() != DONE)
        tail = reply.body[events[-1].end if events else 0 :][:_TAIL_BYTES].decode(errors="replace").strip()
        return cls(
            tuple(events),
            chunks,
            parser.comments,
            parser.unfinished and any(not line.startswith(":") for line in tail.splitlines()),
            parser.undecodable,
            tuple(line for line in parser.unknown_lines if not _FIELD.match(line)),
            oversized,
            tail,
        )

    @_once
    def readable(self) -> bool:
        """Whether every event is a whole chunk, so that reading it loses nothing of the answer."""
        return (
            bool(self.chunks)
            and not self.stray_lines
            and not self.oversized
            and (not self.unfinished or self.ends_in_marker)
            and all(chunk.readable for chunk in self.chunks)
        )

    @property
    def ends_in_marker(self) -> bool:
        """Whether the event that the stream ends inside is the end marker."""
        return self.tail.removeprefix("data:").strip() == DONE

    @property
    def done(self) -> bool:
        """Whether the end marker came."""
        return any(event.data.strip() == DONE for event in self.events)

    @property
    def first_token(self) -> Chunk | None:
        """The first chunk that carries a token."""
        return next((chunk for chunk in self.chunks if chunk.has_token), None)

    @_once
    def answered(self) -> tuple[Chunk, ...]:
        """The chunks that are objects, tell no error, and come before the end marker."""
        end = next((event.index for event in self.events if event.data.strip() == DONE), len(self.events))
        return tuple(
            chunk
            for chunk in self.chunks
            if isinstance(chunk.value, dict) and not chunk.tells_error and chunk.event.index < end
        )

    @_once
    def _deltas_by_index(self) -> dict[int, list[dict[str, Any]]]:
        return {}

    def deltas(self, index: int = 0) -> list[dict[str, Any]]:
        """One choice's delta in each chunk, empty where it has none; gathered once, for many checks ask."""
        known = self._deltas_by_index.get(index)
        if known is None:
            known = self._deltas_by_index[index] = [chunk.delta(index) for chunk in self.chunks]
        return known

    def content(self, index: int = 0) -> str:
        """The joined content deltas of one choice."""
        parts = (delta.get("content") for delta in self.deltas(index))
        return "".join(part for part in parts if isinstance(part, str))

    def reasoning(self, index: int = 0) -> str:
        """The joined reasoning deltas of one choice, under either name in use."""
        parts = (delta.get("reasoning_content", delta.get("reasoning")) for delta in self.deltas(index))
        return "".join(part for part in parts if isinstance(part, str))

    def finish_reasons(self, index: int) -> list[str]:
        """Every finish reason that one choice was given, in order."""
        return [
            choice["finish_reason"]
            for chunk in self.chunks
            for choice in chunk.choices
            if choice.get("index", 0) == index and isinstance(choice.get("finish_reason"), str)
        ]

    def tool_calls(self, index: int = 0) -> list[dict[str, Any]]:
        """The tool calls of one choice, each joined from its fragments by their `index`."""
        calls: dict[int, dict[str, Any]] = {}
        for delta in self.deltas(index):
            for position, part in enumerate(objects(delta.get("tool_calls"))):
                slot = part.get("index")
                call = calls.setdefault(
                    slot if isinstance(slot, int) and not isinstance(slot, bool) else position,
                    {"id": None, "type": "function", "function": {"name": "", "arguments": ""}},
                )
                call["id"] = call["id"] or part.get("id")
                function = as_object(part.get("function"))
                for key in ("name", "arguments"):
                    if isinstance(function.get(key), str):
                        call["function"][key] += function[key]
        return [calls[slot] for slot in sorted(calls)]

    @property
    def usage(self) -> Any:
        """The last non-null usage of any chunk, or None."""
        return next((c.object["usage"] for c in reversed(self.chunks) if c.object.get("usage") is not None), None)


def as_object(value: Any) -> dict[str, Any]:
    """`value` where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in `value` where it is an array, else none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


__all__ = ["DONE", "ChatStream", "Chunk", "Exchange", "Malformed", "Retry", "as_object", "objects"]
