"""Adapters: a provider with its own names, judged as its client helper would show it.

A hub's client may carry a small helper per provider that renames routes and fields. A provider that
relies on one describes it in `[adapter]`; requests are then translated on their way out and answers on
their way back, and every check judges what a caller of the helper would see.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from roadworthy.conformance import strict_json
from roadworthy.conformance.exchange import MAX_EVENTS
from roadworthy.conformance.strict_json import Malformed
from roadworthy.conformance.target import CostEndpoint
from roadworthy.http.message import Limits, Read, Reply, Request, Transport
from roadworthy.http.sse import Event, StreamTooLargeError, parse

EVERY = "*"
MAX_TOKENS = 32
"""Parts of a pointer: far more than any API nests, and few enough for every reader of JSON."""
MAX_GAP = 16
"""Nulls put before an item whose index a rule names. (An index taken from the answer itself needs no bound.)"""

MAX_PLACES = 50_000
"""Places that one pointer with `*` is followed to: far more than any answer has items, and little memory."""

LARGE_BODY_BYTES = 128 * 1024
"""Larger answers are translated in a thread: other requests are being timed meanwhile."""

_ROUTE = re.compile(r"(?:([A-Z]+) )?(\*|/[^\s?#]*)")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_LONE_TILDE = re.compile(r"~(?![01])")
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")
_BOM = b"\xef\xbb\xbf"

Path = tuple[str | int, ...]
"""A place in one document. Text that spells a number may still turn out to be an index."""


def _fault(message: str, **context: Any) -> PydanticCustomError:
    return PydanticCustomError("adapter", message, context)


def _pointer(text: str) -> str:
    if text and not text.startswith("/"):
        raise _fault('expected a JSON pointer (RFC 6901), such as /choices/0/message/content, or "" for all of it')
    if _LONE_TILDE.search(text):
        raise _fault("in a JSON pointer ~ is written ~0, and / inside a name ~1")
    if text.count("/") > MAX_TOKENS:
        raise _fault("expected a JSON pointer of at most {most} parts", most=MAX_TOKENS)
    return text


def _ours(text: str) -> str:
    match = _ROUTE.fullmatch(text)
    if match is None or EVERY in match[2].removesuffix(EVERY) or (match[2].endswith(EVERY) and not _open(match[2])):
        raise _fault(
            'expected a route below the base URL, such as /chat/completions, "POST /chat/completions", '
            "/models/* for all below /models, or * for all"
        )
    return text


def _theirs(text: str) -> str:
    match = _ROUTE.fullmatch(text)
    if match is None or match[2] == EVERY or EVERY in match[2].removesuffix("/*"):
        raise _fault("expected a path below the base URL, such as /v2/chat, without a query")
    return text


def _open(path: str) -> bool:
    return path == EVERY or path.endswith("/*")


def _json_value(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise _fault("expected a value that JSON can hold: no date, and no number beyond all bounds") from None
    return value


Pointer = Annotated[str, AfterValidator(_pointer)]
OurRoute = Annotated[str, AfterValidator(_ours)]
TheirRoute = Annotated[str, AfterValidator(_theirs)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RulesTable(_Table):
    """What is changed in one JSON body. Places are JSON pointers (RFC 6901); a part `*` is every item of a list.

    `rename` moves values, `drop` removes them, `set` writes constants. First all that is moved or dropped is
    taken out, inner values before those around them; then it is put in place, outer before inner. So names can
    be swapped, a value moved into itself ("/error" = "/error/message") and an answer unwrapped ("/result" = "").
    Missing parents are made, a list where a number follows; parents left empty go. What is not there is left
    alone, and so is what has a value other than an object, a list or null in its way.
    """

    rename: dict[Pointer, Pointer] = {}
    set: dict[Pointer, Annotated[Any, AfterValidator(_json_value)]] = {}
    drop: list[Pointer] = []

    @model_validator(mode="after")
    def _consistent(self) -> RulesTable:
        for source, target in self.rename.items():
            if _tokens(source).count(EVERY) != _tokens(target).count(EVERY):
                raise _fault(
                    "rename {source} = {target}: expected as many * on the right as on the left",
                    source=source,
                    target=target,
                )
        first: dict[str, str] = {}
        for source, target in self.rename.items():
            if target in first:
                raise _fault(
                    "rename: {one} and {other} both go to {target}; leave one out",
                    one=first[target],
                    other=source,
                    target=target,
                )
            first[target] = source
        for both, tables in (
            (first.keys() & self.set.keys(), "a target of rename and in set"),
            (self.rename.keys() & set(self.drop), "in rename and in drop"),
        ):
            if both:
                raise _fault("{place} stands {tables}; leave one out", place=min(both), tables=tables)
        return self


class AdapterTable(_Table):
    """`[adapter]`: how the provider's API differs in names. Without it nothing is translated.

    ```toml
    [adapter.routes]                                   # ours = theirs, both below the base URL
    "/chat/completions" = "/v2/text/chat"
    "GET /models" = "POST /v2/catalogue/list"          # of one method only; theirs may be another
    "/models/*" = "/v2/catalogue/*"                    # everything below

    [adapter.request."/chat/completions"]              # the body that we send; by our route, "*" for all
    rename = { "/max_tokens" = "/options/limit", "/messages/*/content" = "/messages/*/text" }
    set = { "/api_version" = 2 }
    drop = ["/n"]

    [adapter.response."/chat/completions"]             # the answer, from their names to ours
    rename = { "/output/text" = "/choices/0/message/content" }
    set = { "/object" = "chat.completion" }

    [adapter.errors."*"]                               # answers of status 400 and above
    rename = { "/fault" = "/error" }

    [adapter.stream."/chat/completions"]               # the JSON of every server-sent event
    rename = { "/piece" = "/choices/0/delta/content" }
    ```

    Of the routes the most specific one holds. Of the rules all that fit are applied, from `*` to the most
    specific, each to what the one before left.
    """

    routes: dict[OurRoute, TheirRoute] = {}
    request: dict[OurRoute, RulesTable] = {}
    response: dict[OurRoute, RulesTable] = {}
    errors: dict[OurRoute, RulesTable] = {}
    stream: dict[OurRoute, RulesTable] = {}

    @model_validator(mode="after")
    def _consistent(self) -> AdapterTable:
        for ours, theirs in self.routes.items():
            if ours.endswith("/*") != theirs.endswith("/*") or ours.endswith(" *") or ours == EVERY:
                expected = "expected two paths, or two that both end in /*"
                raise _fault(f"routes: {{ours}} = {{theirs}}: {expected}", ours=ours, theirs=theirs)
            if " " in theirs and " " not in ours:
                method = theirs.partition(" ")[0]
                raise _fault(
                    "routes: {ours} = {theirs}: would send every method as {method}; say which of ours, "
                    'as in "GET {ours}"',
                    ours=ours,
                    theirs=theirs,
                    method=method,
                )
        return self


def adapted(transport: Transport, table: AdapterTable, base_url: str, costs: CostEndpoint | None = None) -> Transport:
    """`transport`, through the adapter where one is described.

    What the cost endpoint is asked passes untouched: the hub asks it, and no client's helper does.
    """
    if table == AdapterTable():
        return transport
    return AdaptedTransport(transport, table, base_url, costs.url if costs else None)


class AdaptedTransport:
    """Sends through another transport, translating names both ways.

    Whatever is not JSON stays byte for byte as it is, and so does JSON that no rule fits. Arrival times are kept:
    a rewritten event arrived when its last byte did. The head of an answer is never translated.
    """

    def __init__(self, inner: Transport, table: AdapterTable, base_url: str, untouched: str | None = None) -> None:
        self._inner = inner
        self._base_url = base_url
        self._untouched = untouched
        self._routes = _by_specificity(table.routes)
        self._request = _compiled(table.request)
        self._response = _compiled(table.response)
        self._errors = _compiled(table.errors)
        self._stream = _compiled(table.stream)

    async def send(self, request: Request, limits: Limits) -> Reply:
        """See `Transport.send`."""
        rest = request.url.removeprefix(self._base_url)
        below = request.url.startswith(self._base_url) and rest[:1] in ("", "/", "?")
        if not below or request.url == self._untouched:
            return await self._inner.send(request, limits)
        path, mark, query = rest.partition("?")
        method, theirs = self._route(request.method, path)
        body = request.body
        if body is not None:
            body = _translate(body, _fitting(self._request, request.method, path)) or body
        sent = replace(request, method=method, url=self._base_url + theirs + mark + query, body=body)
        reply = await self._inner.send(sent, limits)
        if len(reply.body) > LARGE_BODY_BYTES:
            return await asyncio.to_thread(self._adapt, reply, request.method, path)
        return self._adapt(reply, request.method, path)

    async def aclose(self) -> None:
        """Give back every connection."""
        await self._inner.aclose()

    def _route(self, method: str, path: str) -> tuple[str, str]:
        for pattern, theirs in self._routes:
            if pattern.fits(method, path):
                their_method, _, their_path = theirs.rpartition(" ")
                if pattern.open:
                    their_path = their_path.removesuffix("*") + path[len(pattern.path) :]
                return their_method or method, their_path
        return method, path

    def _adapt(self, reply: Reply, method: str, path: str) -> Reply:
        if reply.status is None:
            return reply
        media_type = (reply.header("content-type") or "").partition(";")[0].strip().lower()
        streamed = media_type == "text/event-stream"
        tables = self._errors if reply.status >= 400 else self._stream if streamed else self._response
        rules = _fitting(tables, method, path)
        if not rules:
            return reply
        if streamed:
            edits = list(_edits_of_events(reply, rules))
        else:
            new = _translate(reply.body, rules)
            edits = [_Edit(0, len(reply.body), new)] if new is not None else []
        return _edited(reply, edits) if edits else reply


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A route of ours: of one method or of all, one path, or (`open`) all that begin with it."""

    method: str
    path: str
    open: bool

    @classmethod
    def of(cls, text: str) -> _Pattern:
        """From the text of a settings file."""
        method, _, path = text.rpartition(" ")
        return cls(method, path.removesuffix(EVERY), _open(path))

    def fits(self, method: str, path: str) -> bool:
        """Whether a request to this path below the base URL is meant."""
        return self.method in ("", method) and (path.startswith(self.path) if self.open else path == self.path)

    @property
    def specificity(self) -> tuple[bool, int, bool]:
        """Greater for a narrower pattern, of those that fit one request."""
        return not self.open, len(self.path), bool(self.method)


def _by_specificity(routes: Mapping[str, str]) -> list[tuple[_Pattern, str]]:
    found = [(_Pattern.of(ours), theirs) for ours, theirs in routes.items()]
    return sorted(found, key=lambda item: item[0].specificity, reverse=True)


def _compiled(tables: Mapping[str, RulesTable]) -> list[tuple[_Pattern, Rules]]:
    found = [(_Pattern.of(ours), Rules(table)) for ours, table in tables.items()]
    return sorted(found, key=lambda item: item[0].specificity)


def _fitting(tables: Iterable[tuple[_Pattern, Rules]], method: str, path: str) -> list[Rules]:
    return [rules for pattern, rules in tables if pattern.fits(method, path)]


# Documents


class _Mark:
    """A word about a value that is not there."""


_MISSING: Final = _Mark()
_BLOCKED: Final = _Mark()


@dataclass(slots=True)
class _Node:
    """Places to be taken out of a document, as a tree; `value` is what was found."""

    children: dict[str | int, _Node] = field(default_factory=dict)
    taken: bool = False
    value: Any = None

    def at(self, path: Path) -> _Node:
        node = self
        for token in path:
            node = node.children.setdefault(token, _Node())
        return node


@dataclass(frozen=True, slots=True)
class _Touched:
    """An object or list that something was taken out of, and where it stood."""

    container: Any
    parent: Any
    key: str | int


class Rules:
    """A `RulesTable`, ready to be applied."""

    def __init__(self, table: RulesTable) -> None:
        renames = [(_tokens(source), _tokens(target)) for source, target in table.rename.items()]
        self._renames = sorted(renames, key=lambda rename: len(rename[1]))
        self._drops = [_tokens(place) for place in table.drop]
        self._sets = sorted(((_tokens(place), value) for place, value in table.set.items()), key=lambda s: len(s[0]))

    def apply(self, document: Any) -> tuple[Any, bool]:
        """The document as the rules want it (changed in place where it can be), and whether any of them fitted."""
        before = document
        document, changed = self._moved(document)
        for place, value in self._sets:
            for path in _spots(document, place):
                put = _put(document, path, copy.deepcopy(value))
                if put is not _BLOCKED:
                    document, changed = put, True
        if document is _MISSING:
            document = [] if isinstance(before, list) else {}
        return document, changed

    def _moved(self, document: Any) -> tuple[Any, bool]:
        tree = _Node()
        moves: list[tuple[_Node, Path, Path]] = []
        for source, target in self._renames:
            for path, stars in islice(_places(document, source), MAX_PLACES):
                node = tree.at(path)
                if not node.taken:
                    node.taken = True
                    moves.append((node, path, _filled(target, stars)))
        for place in self._drops:
            for path, _ in islice(_places(document, place), MAX_PLACES):
                tree.at(path).taken = True
        if not tree.taken and not tree.children:
            return document, False
        touched: list[_Touched] = []
        if _take(document, tree, touched):
            document = _MISSING
        for node, path, target_path in moves:
            put = _put(document, target_path, node.value)
            if put is _BLOCKED:
                put = _put(document, path, node.value, insert=True)
            document = document if put is _BLOCKED else put
        _prune(touched)
        return document, True


def _tokens(pointer: str) -> tuple[str, ...]:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _index(token: str | int) -> int | None:
    if isinstance(token, int):
        return token
    return int(token) if _INDEX.fullmatch(token) else None


def _places(
    document: Any, tokens: Sequence[str], path: Path = (), stars: tuple[int, ...] = ()
) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Where in the document the pointer leads, and the index that each `*` stands for there."""
    if not tokens:
        yield path, stars
        return
    token, rest = tokens[0], tokens[1:]
    if isinstance(document, list) and token == EVERY:
        for index, item in enumerate(document):
            yield from _places(item, rest, (*path, index), (*stars, index))
    elif isinstance(document, list):
        found = _index(token)
        if found is not None and found < len(document):
            yield from _places(document[found], rest, (*path, found), stars)
    elif isinstance(document, dict) and token != EVERY and token in document:
        yield from _places(document[token], rest, (*path, token), stars)


def _spots(document: Any, tokens: Sequence[str]) -> list[Path]:
    """Where a constant is to be written: the pointer itself, for every item of the lists that `*` stands for."""
    if EVERY not in tokens:
        return [tuple(tokens)]
    last = max(position for position, token in enumerate(tokens) if token == EVERY) + 1
    return [(*path, *tokens[last:]) for path, _ in islice(_places(document, tokens[:last]), MAX_PLACES)]


def _filled(target: Sequence[str], stars: Sequence[int]) -> Path:
    """The target with each `*` as the index that its like in the source stood for."""
    indexes = iter(stars)
    return tuple(next(indexes) if token == EVERY else token for token in target)


def _take(value: Any, node: _Node, touched: list[_Touched], parent: Any = None, key: str | int = "") -> bool:
    """Take out of `value` what the tree names; tells whether `value` itself is to go."""
    taken: list[Any] = [at for at, child in node.children.items() if _take(value[at], child, touched, value, at)]
    for at in sorted(taken, reverse=True):
        del value[at]
    if node.taken:
        node.value = value
    elif node.children:
        touched.append(_Touched(value, parent, key))
    return node.taken


def _prune(touched: Iterable[_Touched]) -> None:
    """Remove what is left empty, given inner containers before those around them."""
    emptied: set[int] = set()
    for one in touched:
        container = one.container
        if isinstance(container, list) and _only_emptied(container, emptied):
            container.clear()
        if not container:
            emptied.add(id(container))
            if isinstance(one.parent, dict) and one.parent.get(one.key) is container:
                del one.parent[one.key]


def _only_emptied(items: Sequence[Any], emptied: Container[int]) -> bool:
    """Whether a list has nothing left but what was emptied.

    Emptied items keep the places of those after them, and go only with the whole list. A null before one may be
    our own filling; one behind it is the provider's.
    """
    return bool(items) and id(items[-1]) in emptied and all(item is None or id(item) in emptied for item in items)


def _put(document: Any, path: Path, value: Any, *, insert: bool = False) -> Any:
    """The document with a value at this place, or `_BLOCKED`, and then unchanged.

    `insert` puts an item of a list before what has its place now.
    """
    if not path:
        return value
    token, rest = path[0], path[1:]
    if document is _MISSING:
        is_item = isinstance(token, int) or token == "-" or _INDEX.fullmatch(token)  # noqa: S105 - of a pointer
        document = [] if is_item else {}
    if isinstance(document, dict):
        inner = _put(_missing_if_null(document.get(str(token)), rest), rest, value, insert=insert)
        if inner is not _BLOCKED:
            document[str(token)] = inner
        return _BLOCKED if inner is _BLOCKED else document
    if not isinstance(document, list):
        return _BLOCKED
    index = len(document) if token == "-" else _index(token)  # noqa: S105 - of a pointer
    if index is None or (isinstance(token, str) and index - len(document) > MAX_GAP):
        return _BLOCKED
    if insert and not rest:
        document.insert(index, value)
        return document
    found = document[index] if index < len(document) else None
    inner = _put(_missing_if_null(found, rest), rest, value, insert=insert)
    if inner is _BLOCKED:
        return _BLOCKED
    document.extend([None] * (index + 1 - len(document)))
    document[index] = inner
    return document


def _missing_if_null(value: Any, rest: Path) -> Any:
    """A null is no value to be in the way."""
    return _MISSING if value is None and rest else value


# Bytes


@dataclass(frozen=True, slots=True)
class _Edit:
    """The bytes from `start` to `end` become `new`."""

    start: int
    end: int
    new: bytes


def _translate(data: bytes | str, rules: Iterable[Rules]) -> bytes | None:
    """JSON with the rules applied, or None where it stays as it is."""
    rules = list(rules)
    document = strict_json.loads(data) if rules else None
    if not rules or isinstance(document, Malformed):
        return None
    changed = False
    for each in rules:
        document, fitted = each.apply(document)
        changed = changed or fitted
    return _dumped(document) if changed else None


def _dumped(document: Any) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
        return json.dumps(document, separators=(",", ":")).encode()


def _edits_of_events(reply: Reply, rules: Sequence[Rules]) -> Iterator[_Edit]:
    events = islice(parse(reply.body, reply.reads), MAX_EVENTS)
    while True:
        try:
            event = next(events, None)
        except StreamTooLargeError:
            return  # nobody reads on from here
        if event is None:
            return
        yield from _edits_of_event(reply.body, event, rules)


def _edits_of_event(body: bytes, event: Event, rules: Sequence[Rules]) -> Iterator[_Edit]:
    lines = list(_data_lines(body, event.start, event.end))
    try:
        for _, start, end, _ in lines:
            body[start:end].decode()
    except UnicodeDecodeError:
        return  # a fault that must be seen as it came
    new = _translate(event.data, rules)
    if new is None or not lines:
        return
    _, start, end, _ = lines[0]
    yield _Edit(start, end, new)
    for start, _, _, end in lines[1:]:
        yield _Edit(start, end, b"")


def _data_lines(body: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each line of data: where it starts, where its value starts and ends, and where the next line starts."""
    while start < end:
        match = _LINE.match(body, start, end)
        if match is None:
            return
        line = match[1]
        bom = len(_BOM) if start == 0 and line.startswith(_BOM) else 0
        line = line[bom:]
        if line == b"data" or line.startswith(b"data:"):
            head = len(b"data: ") if line.startswith(b"data: ") else len(b"data:")
            yield start, min(start + bom + head, match.end(1)), match.end(1), match.end()
        start = match.end()


def _edited(reply: Reply, edits: Sequence[_Edit]) -> Reply:
    """The reply with its body edited, and the arrivals counted in the new bytes."""
    body = bytearray()
    olds, news = [0], [0]
    done = 0
    for edit in edits:
        body += reply.body[done : edit.start]
        olds.append(edit.start)
        news.append(len(body))
        body += edit.new
        olds.append(edit.end)
        news.append(len(body))
        done = edit.end
    body += reply.body[done:]
    olds.append(len(reply.body))
    news.append(len(body))

    def moved(end: int) -> int:
        # Between two corners bytes keep their pace; a rewritten piece is whole only when its original was.
        corner = bisect_right(olds, end) - 1
        if corner + 1 == len(olds):
            return news[-1]
        old, new = olds[corner + 1] - olds[corner], news[corner + 1] - news[corner]
        return news[corner] + (end - olds[corner]) * new // old

    reads: list[Read] = []
    for read in reply.reads:
        end = moved(read.end)
        if not reads or end > reads[-1].end:
            reads.append(Read(read.at_ns, end))
    return replace(reply, body=bytes(body), reads=tuple(reads))
