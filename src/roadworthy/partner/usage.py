"""What an answer says of its tokens and its model, read as its bytes pass, in bounded memory.

A whole answer tells both at the top of one JSON object; a stream in the events that hold them, mostly the last.
Nothing here ever raises, whatever the bytes are: what cannot be read is told as `trouble`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from roadworthy.partner.costs import Tokens, tokens_of

MAX_MEMBER_BYTES = 64 * 1024
"""Of a JSON answer only `usage` and `model` are kept; longer ones than this are none."""
MAX_DEPTH = 100
"""Answers that are nested deeper are not read."""
MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A longer event of a stream is passed on but not read."""
LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""The events of the Responses API after which nothing follows."""

_PLAIN = rb'[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+"'
_PAIR = rb"[{\[](?:" + _PLAIN + rb")*+[}\]]"
_PAIRS = rb"[{\[](?:" + _PLAIN + rb"|" + _PAIR + rb")*+[}\]]"
_BALANCED = re.compile(rb"(?:" + _PLAIN + rb"|" + _PAIR + rb"|" + _PAIRS + rb")*+", re.DOTALL)
"""Whole strings, objects and arrays: what lies deep inside is skipped in one go, not bracket by bracket."""
_IN_STRING = re.compile(rb'["\\]')
_AT_TOP = re.compile(rb'["{}\[\],]')
_DEEPER = re.compile(rb'["{}\[\]]')
_WANTED = (b'"usage"', b'"model"')
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Reader:
    """What has been read so far. This one reads nothing: for answers that tell no tokens in a form we know."""

    def __init__(self, trouble: str | None = None) -> None:
        self.tokens: Tokens | None = None
        self.model: str | None = None
        self.trouble = trouble
        """What kept the usage from being read, if anything did."""
        self.ended = False
        """Whether the answer says of itself that it is whole."""

    def feed(self, data: bytes) -> None:
        """Look at the next bytes."""

    def finish(self) -> None:
        """Look at what is left, since nothing follows."""

    def _take(self, told: Mapping[str, Any]) -> None:
        """Take the usage and the model of an object that may hold them."""
        if isinstance(told.get("model"), str):
            self.model = told["model"]
        usage = told.get("usage")
        if usage is None:
            return
        tokens = tokens_of(usage)
        if tokens is not None:
            self.tokens = tokens
        else:
            self.trouble = "its usage holds no counts of tokens"


class JsonReader(Reader):
    """Reads the members `usage` and `model` at the top of one JSON object, however long the others are."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._member = bytearray()

    def feed(self, data: bytes) -> None:
        """Follow strings and brackets; a member ends at a comma or bracket of the outermost object."""
        at = 0
        while at < len(data) and not self.ended and self._depth <= MAX_DEPTH:
            if self._escaped:
                self._escaped = False
                self._keep(data, at, at + 1)
                at += 1
                continue
            if self._depth > 1 and not self._in_string:
                skipped = _BALANCED.match(data, at)
                start, at = at, skipped.end() if skipped else at
                self._keep(data, start, at)
            pattern = _IN_STRING if self._in_string else _AT_TOP if self._depth <= 1 else _DEEPER
            found = pattern.search(data, at)
            if found is None:
                self._keep(data, at, len(data))
                return
            mark = found[0]
            closes = not self._in_string and self._depth == 1 and mark in b",}]"
            self._keep(data, at, found.start() if closes else found.end())
            at = found.end()
            self._step(mark)
            if closes:
                self._read_member()
            elif self._depth == 1 and mark in b"{[" and not self._in_string:
                self._member.clear()

    def _step(self, mark: bytes) -> None:
        if mark == b"\\":
            self._escaped = True
        elif mark == b'"':
            self._in_string = not self._in_string
        elif mark in b"{[":
            self._depth += 1
            if self._depth > MAX_DEPTH:
                self.trouble = f"it is nested deeper than {MAX_DEPTH} levels"
        elif mark in b"}]":
            self._depth -= 1
            self.ended = self._depth <= 0

    def _keep(self, data: bytes, start: int, stop: int) -> None:
        room = MAX_MEMBER_BYTES + 1 - len(self._member)
        self._member += data[start : min(stop, start + room)]

    def _read_member(self) -> None:
        member = bytes(self._member).strip()
        self._member.clear()
        if not member.startswith(_WANTED):
            return
        if len(member) > MAX_MEMBER_BYTES:
            self.trouble = f"its usage or model is longer than {MAX_MEMBER_BYTES:,} bytes"
            return
        told = _parsed(b"{" + member + b"}")
        if isinstance(told, dict):
            self._take(told)
        else:
            self.trouble = "its usage or model is not JSON"


class StreamReader(Reader):
    """Reads the server-sent events of chat, completions and responses; the last usage that tells tokens counts."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = bytearray()
        self._searched = 0
        self._event = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> None:
        """Read every line that is whole."""
        self._rest += data
        start = 0
        for found in _LINE_END.finditer(self._rest, self._searched):
            if found[0] == b"\r" and found.end() == len(self._rest):
                break  # the other half of a line's end may follow
            self._line(bytes(self._rest[start : found.start()]))
            start = found.end()
        del self._rest[:start]
        if len(self._rest) > MAX_EVENT_BYTES:
            self._skip()
            self._rest.clear()
        self._searched = max(0, len(self._rest) - 1)

    def finish(self) -> None:
        """Read a last line and a last event that nothing ends."""
        self._line(bytes(self._rest).rstrip(b"\r"))
        self._rest.clear()
        self._line(b"")

    def _line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(b"data:"):
            value = line.removeprefix(b"data:").strip()
            # Clients stop at this line, without waiting for the event's end.
            self.ended = self.ended or value == b"[DONE]"
            if len(self._event) + len(value) > MAX_EVENT_BYTES:
                self._skip()
            elif not self._too_long:
                self._event += value + b"\n"

    def _skip(self) -> None:
        self._too_long = True
        self._event.clear()
        self.trouble = f"an event is longer than {MAX_EVENT_BYTES:,} bytes"

    def _dispatch(self) -> None:
        event, self._too_long = bytes(self._event), False
        self._event.clear()
        # Most events are a token's: only those that can say something new are parsed.
        if not event or (self.model is not None and b'"usage"' not in event):
            return
        told = _parsed(event)
        if not isinstance(told, dict):
            return
        self.ended = self.ended or told.get("type") in LAST_EVENTS
        self._take(told)
        if isinstance(told.get("response"), dict):
            self._take(told["response"])


def reader_for(content_type: str, content_encoding: str) -> Reader:
    """The reader of an answer with these headers."""
    kind = content_type.partition(";")[0].strip().lower()
    streams, whole = kind == "text/event-stream", kind == "application/json" or kind.endswith("+json")
    if (streams or whole) and content_encoding.strip().lower() not in ("", "identity"):
        return Reader(f"it is compressed ({content_encoding[:40]}); compress outside of the middleware")
    return StreamReader() if streams else JsonReader() if whole else Reader()


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
