"""Values that conform to a JSON Schema, filled from a prompt where it offers something fitting."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 8
FORMATS: dict[str, str] = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}
_QUOTED = re.compile(r"[\"'\u201c\u2018`]([^\"'\u201d\u2019`\n]{1,80})[\"'\u201d\u2019`]")
_PLACE = re.compile(r"\b(?:in|for|to|of|from|at|city)\s+((?:[^\W\d_a-z][\w'-]*)(?:\s+(?:[^\W\d_a-z][\w'-]*))*)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")


@dataclass
class Hints:
    """What a prompt offers: its words, and the quoted strings, places, numbers and dates in it, in order."""

    prompt: str
    quoted: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    dates: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, prompt: str) -> Hints:
        """Collect the hints of a prompt."""
        dates = _DATE.findall(prompt)
        return cls(
            prompt,
            _QUOTED.findall(prompt),
            _PLACE.findall(prompt),
            _NUMBER.findall(_DATE.sub(" ", prompt)),
            dates,
        )


class UnsatisfiableError(ValueError):
    """The schema, or the part of it that was reached, admits no value we know how to make."""


def instance(schema: Any, prompt: str = "", hints: Hints | None = None) -> Any:
    """A value that `schema` accepts. Raises `UnsatisfiableError` where none can be made."""
    return _Maker(schema, hints or Hints.read(prompt)).make(schema, 0, "")


class _Maker:
    def __init__(self, root: Any, hints: Hints) -> None:
        self.root = root
        self.hints = hints

    def make(self, schema: Any, depth: int, name: str) -> Any:
        if schema is True:
            return self._text({}, name)
        if not isinstance(schema, dict):
            raise UnsatisfiableError("the schema admits nothing")
        if depth > MAX_DEPTH * 3:
            raise UnsatisfiableError("the schema never ends")
        if "$ref" in schema:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            target = self._resolve(schema["$ref"])
            return self.make(_merge(target, rest) if _constrains(rest) else target, depth + 1, name)
        if "allOf" in schema:
            merged = {key: value for key, value in schema.items() if key != "allOf"}
            for part in schema["allOf"]:
                whole = self._resolve(part["$ref"]) if isinstance(part, dict) and "$ref" in part else part
                merged = _merge(merged, whole)
            return self.make(merged, depth + 1, name)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._first_possible(schema, key, depth, name)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._enum(schema["enum"])
        return self._by_type(schema, depth, name)

    def _first_possible(self, schema: dict[str, Any], key: str, depth: int, name: str) -> Any:
        rest = {k: v for k, v in schema.items() if k != key}
        # Null comes last, until a schema that contains itself has been followed far enough.
        options = sorted(schema[key], key=lambda option: (option == {"type": "null"}) == (depth < MAX_DEPTH))
        for option in options:
            try:
                whole = self._resolve(option["$ref"]) if isinstance(option, dict) and "$ref" in option else option
                return self.make(_merge(rest, whole), depth + 1, name)
            except (UnsatisfiableError, RecursionError):
                continue
        raise UnsatisfiableError(f"no branch of {key} can be met")

    def _resolve(self, ref: Any) -> Any:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise UnsatisfiableError(f"cannot follow {ref!r}")
        current = self.root
        for part in ref.removeprefix("#").strip("/").split("/"):
            if not part:
                continue
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(current, dict) and key in current:
                current = current[key]
            else:
                raise UnsatisfiableError(f"nothing is at {ref!r}")
        return current

    def _enum(self, values: list[Any]) -> Any:
        if not values:
            raise UnsatisfiableError("an empty enum")
        prompt = self.hints.prompt.casefold()
        named = [value for value in values if isinstance(value, str) and _mentioned(value.casefold(), prompt)]
        return max(named, key=len) if named else values[0]

    def _by_type(self, schema: dict[str, Any], depth: int, name: str) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((k for k in kind if k != "null"), "null")
        if kind is None:
            kind = _implied(schema)
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, depth),
            "array": lambda: self._array(schema, depth, name),
            "string": lambda: self._text(schema, name),
            "integer": lambda: self._integer(schema),
            "number": lambda: self._number(schema),
            "boolean": lambda: True,
            "null": lambda: None,
        }
        if kind not in makers:
            raise UnsatisfiableError(f"unknown type {kind!r}")
        return makers[kind]()

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        made: dict[str, Any] = {}
        for key in [*properties, *(key for key in required if key not in properties)]:
            part = properties.get(key, schema.get("additionalProperties", True))
            if key not in required and (depth >= MAX_DEPTH or part is False):
                continue
            try:
                made[key] = self.make(part, depth + 1, key)
            except UnsatisfiableError:
                if key in required:
                    raise
        while len(made) < schema.get("minProperties", 0):
            made[f"item_{len(made) + 1}"] = self.make(schema.get("additionalProperties", True), depth + 1, "")
        return made

    def _array(self, schema: dict[str, Any], depth: int, name: str) -> list[Any]:
        items = schema.get("items", True)
        fixed = [self.make(part, depth + 1, name) for part in schema.get("prefixItems", ())]
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", 1 << 30)
        wanted = min(max(least, 0 if depth >= MAX_DEPTH or items is False else 1, len(fixed)), most)
        made = fixed[:most]
        while len(made) < wanted:
            value = self.make(items, depth + 1, name)
            if schema.get("uniqueItems") and value in made:
                value = _other(value, made, items)
            made.append(value)
        return made

    def _text(self, schema: dict[str, Any], name: str) -> str:
        least: int = schema.get("minLength", 0)
        most: int = schema.get("maxLength", 1 << 30)
        if "pattern" in schema:
            return _matching(schema["pattern"], least, most)
        if schema.get("format") in FORMATS:
            return self.hints.dates[0] if schema["format"] == "date" and self.hints.dates else FORMATS[schema["format"]]
        candidates = [*self.hints.quoted, *self.hints.places]
        if "date" in name:
            candidates = [*self.hints.dates, *candidates]
        text = next((c for c in candidates if least <= len(c) <= most), name or "text")
        return (text + "x" * max(0, least - len(text)))[:most]

    def _integer(self, schema: dict[str, Any]) -> int:
        low, high = _bounds(schema, 1)
        step = schema.get("multipleOf", 1)
        for text in self.hints.numbers:
            if "." not in text and low <= int(text) <= high and int(text) % step == 0:
                return int(text)
        start = int(max(low, min(1, high)))
        value = start if start % step == 0 else int((start // step + 1) * step)
        if value > high:
            raise UnsatisfiableError("no integer lies in the bounds")
        return value

    def _number(self, schema: dict[str, Any]) -> float | int:
        low, high = _bounds(schema, 0)
        for text in self.hints.numbers:
            if low <= float(text) <= high and "multipleOf" not in schema:
                return float(text) if "." in text else int(text)
        if "multipleOf" in schema or high - low >= 1:
            return self._integer({**schema, "minimum": low if low > -1e300 else 0, "maximum": min(high, 1e300)})
        return (low + high) / 2


def _bounds(schema: dict[str, Any], step: int) -> tuple[float, float]:
    low = float(schema.get("minimum", -1e308))
    high = float(schema.get("maximum", 1e308))
    if "exclusiveMinimum" in schema:
        low = max(low, schema["exclusiveMinimum"] + (step or 1e-6))
    if "exclusiveMaximum" in schema:
        high = min(high, schema["exclusiveMaximum"] - (step or 1e-6))
    if step:
        low = -(-low // 1) if abs(low) < 1e15 else low
        high = high // 1 if abs(high) < 1e15 else high
    if low > high:
        raise UnsatisfiableError("the bounds admit no number")
    return low, high


def _implied(schema: dict[str, Any]) -> str:
    for key, kind in (
        ("properties", "object"),
        ("required", "object"),
        ("items", "array"),
        ("prefixItems", "array"),
        ("minimum", "number"),
        ("maximum", "number"),
    ):
        if key in schema:
            return kind
    return "string"


def _constrains(schema: dict[str, Any]) -> bool:
    return any(key not in ("title", "description", "default", "examples", "$comment") for key in schema)


def _merge(a: Any, b: Any) -> Any:
    """A schema that means both, as far as the keywords that tool builders use go."""
    if a is True or a == {}:
        return b
    if b is True or b == {}:
        return a
    if not isinstance(a, dict) or not isinstance(b, dict):
        return False
    merged = {**a, **b}
    if "properties" in a and "properties" in b:
        merged["properties"] = {**a["properties"], **b["properties"]}
    if "required" in a and "required" in b:
        merged["required"] = list(dict.fromkeys([*a["required"], *b["required"]]))
    if "enum" in a and "enum" in b:
        merged["enum"] = [value for value in a["enum"] if value in b["enum"]]
    if "allOf" in a and "allOf" in b:
        merged["allOf"] = [*a["allOf"], *b["allOf"]]
    return merged


def _mentioned(value: str, prompt: str) -> bool:
    return bool(value) and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", prompt) is not None


def _other(value: Any, taken: list[Any], items: Any) -> Any:
    """A value like `value` that is not taken yet."""
    if isinstance(items, dict) and "enum" in items:
        free = [candidate for candidate in items["enum"] if candidate not in taken]
        if free:
            return free[0]
    if isinstance(value, str):
        return next(f"{value}-{n}" for n in range(2, 1000) if f"{value}-{n}" not in taken)
    if isinstance(value, int) and not isinstance(value, bool):
        return next(value + n for n in range(1, 1000) if value + n not in taken)
    if value is True and False not in taken:
        return False
    raise UnsatisfiableError("no further distinct item can be made")


def _matching(pattern: str, least: int, most: int) -> str:
    """A string that a regular expression accepts, by its parse tree; simple patterns only."""
    from re import _parser as parser  # type: ignore[attr-defined, unused-ignore]

    for spread in (0, 1, 3, 8, least):
        try:
            text = "".join(_piece(op, argument, spread) for op, argument in parser.parse(pattern))
        except (re.error, KeyError, IndexError):
            break
        if least <= len(text) <= most and re.search(pattern, text):
            return text
    raise UnsatisfiableError(f"no string for the pattern {pattern!r}")


def _piece(op: Any, argument: Any, spread: int) -> str:
    name = str(op)
    if name == "LITERAL":
        return chr(argument)
    if name in ("AT", "ASSERT", "ASSERT_NOT"):
        return ""
    if name == "ANY":
        return "x"
    if name == "NOT_LITERAL":
        return "x" if argument != ord("x") else "y"
    if name == "IN":
        return _one_of(argument)
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        low, high, inner = argument
        times = min(max(low, spread), int(high))
        return "".join(_piece(o, a, spread) for _ in range(times) for o, a in inner)
    if name == "SUBPATTERN":
        return "".join(_piece(o, a, spread) for o, a in argument[3])
    if name == "BRANCH":
        return "".join(_piece(o, a, spread) for o, a in argument[1][0])
    raise KeyError(name)


def _one_of(options: Any) -> str:
    negated = str(options[0][0]) == "NEGATE"
    if negated:
        taken = {chr(argument) for op, argument in options if str(op) == "LITERAL"}
        return next(char for char in "xyz019_-" if char not in taken)
    op, argument = options[0]
    if str(op) == "RANGE":
        return chr(argument[0])
    if str(op) == "LITERAL":
        return chr(argument)
    return {"CATEGORY_DIGIT": "7", "CATEGORY_WORD": "x", "CATEGORY_SPACE": " "}.get(str(argument), "x")
