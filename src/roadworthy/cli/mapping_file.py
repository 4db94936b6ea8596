"""Mapping files: `provider:` and a list of `models:`, in YAML or JSON, read with line numbers and written back.

Both forms are read as a stream of events with bounded depth and no aliases, so that no file,
however made, costs more than its own size.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from yaml.reader import Reader

from roadworthy.errors import ConfigError

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 8
MAX_PROBLEMS = 20
FIELDS = ("type", "task", "hfModel", "tags", "adapterType", "providerModel", "status")
"""What an item may have, in the order in which it is written."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_STR = "tag:yaml.org,2002:str"
_KINDS = {"int": "a number", "float": "a number", "bool": "a boolean", "null": "nothing", "timestamp": "a date"}
_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")|(?P<mark>[\[\]{}])|(?P<word>[^\s\[\]{},:"]+)|(?P<line>\n)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class MappingFile:
    """A provider's whole mapping as a file holds it. `lines` says where each item begins."""

    path: Path
    provider: str
    items: list[dict[str, Any]]
    lines: list[int]

    def where(self, index: int) -> str:
        """The place of an item, for messages."""
        return f"{self.path}, line {self.lines[index]}" if index < len(self.lines) else str(self.path)


@dataclass(frozen=True, slots=True)
class _Event:
    kind: Literal["map", "list", "end", "text", "other"]
    line: int
    value: str = ""
    """The text; or, of what is no text, what it is."""


@dataclass(slots=True)
class _Node:
    """A value and its line: text, a list, an object, or None with a word for what else it is."""

    line: int
    value: str | list[_Node] | dict[str, _Node] | None
    other: str = ""

    def shown(self) -> str:
        if isinstance(self.value, str):
            return repr(self.value[:80])
        if isinstance(self.value, list):
            return "a list"
        return "an object" if isinstance(self.value, dict) else self.other


def read(path: Path) -> MappingFile:
    """The mapping in a file. Raises `ConfigError` naming the line of what cannot be used."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes; is it the right file?")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file. Check the path given.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8, at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    events = _json_events(text, path) if path.suffix.lower() == ".json" else _yaml_events(text, path)
    return _Checker(path).file(_build(events, path))


def write(provider: str, items: Sequence[Mapping[str, Any]], *, as_json: bool) -> str:
    """The text of a file that holds these items."""
    ordered = [{name: item[name] for name in FIELDS if name in item} for item in items]
    content = {"provider": provider, "models": ordered}
    if as_json:
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text


def _fail(path: Path, line: int, message: str) -> NoReturn:
    raise ConfigError(f"{path}, line {line}: {message}")


def _yaml_events(text: str, path: Path) -> Iterator[_Event]:
    odd = Reader.NON_PRINTABLE.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        _fail(path, line, f"holds the character U+{ord(odd[0]):04X}, which YAML does not allow")
    loader, documents = _Loader(text), 0
    try:
        while loader.check_event():
            event = loader.get_event()
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                _fail(path, line, "anchors and aliases (&, *) are not taken here; write the item out")
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                _fail(path, line, "a second document begins (---); keep one mapping in a file")
            if isinstance(event, yaml.ScalarEvent):
                yield _scalar(loader, event, line, path)
            elif isinstance(event, yaml.CollectionStartEvent):
                _check_tag(event.tag, line, path)
                yield _Event("map" if isinstance(event, yaml.MappingStartEvent) else "list", line)
            elif isinstance(event, yaml.CollectionEndEvent):
                yield _Event("end", line)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        lines = text.split("\n")
        tabbed = line <= len(lines) and "\t" in lines[line - 1]
        hint = "; YAML is indented with spaces, never with tabs" if tabbed else ""
        _fail(path, line, f"not valid YAML: {error.problem or error.context}{hint}")
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    finally:
        loader.dispose()


def _scalar(loader: Any, event: yaml.ScalarEvent, line: int, path: Path) -> _Event:
    _check_tag(event.tag, line, path)
    tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
    if tag == _STR:
        return _Event("text", line, event.value)
    kind = _KINDS.get(tag.rpartition(":")[2], "something else")
    if kind == "nothing":
        return _Event("other", line, "nothing; write a value, or leave the line out")
    return _Event("other", line, f"{event.value[:80]}, which YAML reads as {kind}; put it in quotes")


def _check_tag(tag: str | None, line: int, path: Path) -> None:
    if tag is not None and tag != "!":
        _fail(path, line, f"tags such as {tag[:80]} are not taken here; write plain values")


def _json_events(text: str, path: Path) -> Iterator[_Event]:
    try:
        json.loads(text, parse_constant=float)
    except json.JSONDecodeError as error:
        _fail(path, error.lineno, f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]} (column {error.colno})")
    except (RecursionError, ValueError):
        raise ConfigError(f"{path}: nested too deep, or a number too long; expected a plain mapping") from None
    line = 1
    # The text is valid, so that its tokens alone tell the structure.
    for token in _TOKEN.finditer(text):
        if token["line"]:
            line += 1
        elif token["mark"]:
            yield _Event({"{": "map", "[": "list"}.get(token[0], "end"), line)  # type: ignore[arg-type]
        elif token["text"]:
            value = json.loads(token[0])
            if any("\ud800" <= character <= "\udfff" for character in value):
                _fail(path, line, "holds half a surrogate pair; write whole characters")
            yield _Event("text", line, value)
        else:
            yield _Event("other", line, f"{token[0][:80]}, which is no text; put it in quotes")


def _build(events: Iterable[_Event], path: Path) -> _Node:
    root = _Node(1, None, "an empty file")
    stack: list[tuple[_Node, list[_Node]]] = []
    for event in events:
        if event.kind == "end":
            node, parts = stack.pop()
            node.value = _object(parts, path) if isinstance(node.value, dict) else parts
            continue
        node = _Node(event.line, event.value if event.kind == "text" else None, event.value)
        if stack:
            stack[-1][1].append(node)
        else:
            root = node
        if event.kind in {"map", "list"}:
            node.value = {} if event.kind == "map" else []
            stack.append((node, []))
            if len(stack) > MAX_DEPTH:
                _fail(path, event.line, f"nested more than {MAX_DEPTH} levels deep; expected a plain mapping")
    return root


def _object(parts: Sequence[_Node], path: Path) -> dict[str, _Node]:
    made: dict[str, _Node] = {}
    lines: dict[str, int] = {}
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        if not isinstance(key.value, str):
            _fail(path, key.line, f"expected a key in text, got {key.shown()}")
        if key.value in made:
            _fail(path, key.line, f"the key {key.value[:80]!r} stands here again, after line {lines[key.value]}")
        made[key.value] = value
        lines[key.value] = key.line
    return made


class _Checker:
    """Turns nodes into items, and gathers what cannot be used. What values mean is the service's to judge."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems: list[str] = []

    def file(self, root: _Node) -> MappingFile:
        if not isinstance(root.value, dict):
            _fail(self._path, root.line, f"expected `provider:` and `models:`, got {root.shown()}")
        self._known(root, root.value, ("provider", "models"))
        provider, models = root.value.get("provider"), root.value.get("models")
        if provider is None or not isinstance(provider.value, str):
            got = f", got {provider.shown()}" if provider else ""
            self._problem(
                provider or root, f"provider: expected the provider's slug, such as `provider: together`{got}"
            )
        if models is None or not isinstance(models.value, list):
            got = f", got {models.shown()}" if models else ""
            self._problem(models or root, f"models: expected a list of items (an empty one is written []){got}")
        nodes = models.value if models is not None and isinstance(models.value, list) else []
        items = [self._item(node, f"models[{index}]") for index, node in enumerate(nodes)]
        if self._problems:
            more = len(self._problems) - MAX_PROBLEMS
            told = self._problems[:MAX_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
            raise ConfigError("\n  ".join(["this mapping cannot be used:", *told]) if len(told) > 1 else told[0])
        assert provider is not None
        return MappingFile(self._path, str(provider.value), items, [node.line for node in nodes])

    def _item(self, node: _Node, place: str) -> dict[str, Any]:
        if not isinstance(node.value, dict):
            self._problem(node, f"{place}: expected an item (`- task: ...`), got {node.shown()}")
            return {}
        self._known(node, node.value, FIELDS)
        item: dict[str, Any] = {}
        for name, field in node.value.items():
            if name == "tags":
                item[name] = self._texts(field)
            elif isinstance(field.value, str):
                item[name] = field.value
            else:
                self._problem(field, f"{name}: expected text, got {field.shown()}")
        return item

    def _texts(self, node: _Node) -> list[str]:
        parts = node.value if isinstance(node.value, list) else [node]
        if not isinstance(node.value, list):
            self._problem(node, f"tags: expected a list of tags, got {node.shown()}")
        texts = []
        for part in parts:
            if isinstance(part.value, str):
                texts.append(part.value)
            elif part is not node:
                self._problem(part, f"tags: expected text, got {part.shown()}")
        return texts

    def _known(self, node: _Node, fields: Mapping[str, _Node], known: Sequence[str]) -> None:
        for name, field in fields.items():
            if name not in known:
                near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
                line = field if field.line >= node.line else node
                self._problem(line, f"{name[:80]!r}: there is no such field; {hint}")

    def _problem(self, node: _Node, message: str) -> None:
        self._problems.append(f"{self._path}, line {node.line}: {message}")
