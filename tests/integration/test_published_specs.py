"""Our task schemas against the hub's published ones: they differ only where we mean them to.

Compared are names of properties, types, what is required, enums and alternatives, through every
reference, both ways. `nullable` is read as its authors meant it: null is allowed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, reduce
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from roadworthy.schemas import BASE, load

NODE_MODULES = Path(
    os.environ.get("ROADWORTHY_NODE_MODULES") or Path(__file__).parents[1] / "javascript" / "node_modules"
)
SPECS = NODE_MODULES / "@huggingface" / "tasks" / "src" / "tasks"
ROOT = "/inference/schemas/"  # where their addresses begin
TEMPLATE = "placeholder"  # a folder there that is for copying and is no task

PUBLISHED = (
    "audio-classification automatic-speech-recognition chat-completion depth-estimation document-question-answering "
    "feature-extraction fill-mask image-classification image-segmentation image-text-to-image image-text-to-video "
    "image-to-image image-to-text image-to-video object-detection question-answering sentence-similarity "
    "summarization table-question-answering text-classification text-generation text-to-audio text-to-image "
    "text-to-speech text-to-video token-classification translation video-classification visual-question-answering "
    "zero-shot-classification zero-shot-image-classification zero-shot-object-detection"
).split()
FILES = [(task, file) for task in PUBLISHED for file in ("input", "output")]
FILES += [("chat-completion", "stream_output"), ("text-generation", "stream_output")]

FILE_AS_TEXT = "Published without a type; a JSON body can carry a file only as base64 text."
FRACTIONS = "Published as integers; models predict fractions of a pixel and clients read them."
MISSPELT = "Published under the name that JavaScript gives the field, which no published property has."
OWN_CHECKS = "Checks of their own judge this, so that each fault has one name; the schema leaves it open."
NULLABLE = "OpenAI's interface sends null here, and clients read it."
NEWER = "Part of OpenAI's interface that the published form does not have."
LEFT_OUT = "Servers legally leave these out, and no client raises; what matters of them has checks of its own."
CALL = "A call as OpenAI writes it: a name and arguments. The published form has parts of a tool's definition here."
ONE_FORM = "A message may have a text and calls at once, which the published oneOf forbids."
NOT_SAID = "Belongs to a message with the result of a call, which a model never says."

# What is meant to differ: where (see `differences`), and why. An entry that is no longer so fails.
DELIBERATE = {
    (task, file, pointer): reason
    for task, file, reason, pointers in (
        (
            "chat-completion",
            "input",
            "Published as an array, though its own text calls it an object; callers send the object.",
            "/logit_bias#type",
        ),
        ("chat-completion", "input", "OpenAI's interface takes one text without a list too.", "/stop#type"),
        (
            "chat-completion",
            "input",
            CALL,
            """
            /messages/*(1)/tool_calls/*#required
            /messages/*(1)/tool_calls/*/function/arguments#extra
            /messages/*(1)/tool_calls/*/function/description#absent
            /messages/*(1)/tool_calls/*/function/parameters#absent
            """,
        ),
        ("chat-completion", "output", LEFT_OUT, "#required /choices/*#required"),
        (
            "chat-completion",
            "output",
            NULLABLE,
            """
            /choices/*/finish_reason#type
            /choices/*/logprobs/content#type
            /choices/*/message/content#type
            /choices/*/message/tool_calls#type
            /system_fingerprint#type
            /usage#type
            """,
        ),
        (
            "chat-completion",
            "output",
            OWN_CHECKS,
            """
            /choices/*/logprobs#required
            /choices/*/logprobs/content/*#required
            /choices/*/logprobs/content/*/logprob#absent
            /choices/*/logprobs/content/*/token#absent
            /choices/*/logprobs/content/*/top_logprobs#absent
            /choices/*/message/tool_calls/*#required
            /choices/*/message/tool_calls/*/function#required
            /choices/*/message/tool_calls/*/function/arguments#type
            /usage#required
            /usage/completion_tokens#type
            /usage/prompt_tokens#type
            /usage/total_tokens#type
            """,
        ),
        (
            "chat-completion",
            "output",
            NEWER,
            """
            /choices/*/message/annotations#extra
            /choices/*/message/reasoning_content#extra
            /choices/*/message/refusal#extra
            /object#extra
            /service_tier#extra
            /usage/completion_tokens_details#extra
            /usage/prompt_tokens_details#extra
            """,
        ),
        ("chat-completion", "output", ONE_FORM, "/choices/*/message#alternatives"),
        ("chat-completion", "output", NOT_SAID, "/choices/*/message/tool_call_id#absent"),
        ("chat-completion", "output", CALL, "/choices/*/message/tool_calls/*/function/description#absent"),
        ("chat-completion", "output", "Clients read a time with fractions of a second too.", "/created#type"),
        ("chat-completion", "stream_output", LEFT_OUT, "#required"),
        (
            "chat-completion",
            "stream_output",
            NULLABLE,
            "/choices/*/delta/tool_calls#type /choices/*/logprobs/content#type /system_fingerprint#type",
        ),
        (
            "chat-completion",
            "stream_output",
            OWN_CHECKS,
            """
            /choices#type
            /choices/*#required
            /choices/*/delta#type
            /choices/*/delta#required
            /choices/*/delta/content#absent
            /choices/*/delta/role#absent
            /choices/*/delta/tool_calls/*#required
            /choices/*/delta/tool_calls/*/function#absent
            /choices/*/delta/tool_calls/*/id#absent
            /choices/*/delta/tool_calls/*/index#absent
            /choices/*/delta/tool_calls/*/type#absent
            /choices/*/index#absent
            /choices/*/logprobs#required
            /choices/*/logprobs/content/*#required
            /choices/*/logprobs/content/*/logprob#absent
            /choices/*/logprobs/content/*/token#absent
            /choices/*/logprobs/content/*/top_logprobs#absent
            /created#type
            /usage#required
            /usage/completion_tokens#type
            /usage/prompt_tokens#type
            /usage/total_tokens#type
            """,
        ),
        (
            "chat-completion",
            "stream_output",
            NEWER,
            """
            /object#extra
            /service_tier#extra
            /usage/completion_tokens_details#extra
            /usage/prompt_tokens_details#extra
            """,
        ),
        ("chat-completion", "stream_output", ONE_FORM, "/choices/*/delta#alternatives"),
        ("chat-completion", "stream_output", NOT_SAID, "/choices/*/delta/tool_call_id#absent"),
        ("depth-estimation", "input", FILE_AS_TEXT, "/inputs#type"),
        ("depth-estimation", "output", FILE_AS_TEXT, "/depth#type"),
        (
            "depth-estimation",
            "output",
            "Published without a type; a tensor in JSON is nested arrays.",
            "/predicted_depth#type",
        ),
        ("document-question-answering", "input", FILE_AS_TEXT, "/inputs/image#type"),
        ("fill-mask", "output", MISSPELT, "/*#required"),
        ("image-to-text", "input", FILE_AS_TEXT, "/inputs#type"),
        ("image-to-text", "output", MISSPELT, "#required"),
        (
            "object-detection",
            "output",
            FRACTIONS,
            "/*/box/xmin#type /*/box/xmax#type /*/box/ymin#type /*/box/ymax#type",
        ),
        ("video-classification", "input", FILE_AS_TEXT, "/inputs#type"),
        ("visual-question-answering", "input", FILE_AS_TEXT, "/inputs/image#type"),
        (
            "zero-shot-object-detection",
            "output",
            FRACTIONS,
            "/*/box/xmin#type /*/box/xmax#type /*/box/ymin#type /*/box/ymax#type",
        ),
    )
    for pointer in pointers.split()
}

# A number is an integer or a fraction, so that types can be compared as sets.
TYPES = {
    "number": {"integer", "fraction"},
    **{name: {name} for name in ("null", "boolean", "integer", "string", "array", "object")},
}
ANY = frozenset[str]().union(*TYPES.values())
TYPE_OF = {str: "string", bool: "boolean", int: "integer", float: "fraction", type(None): "null"}


@dataclass(frozen=True)
class Form:
    """One alternative of what a value may be; a value's whole meaning is a list of them."""

    types: frozenset[str] = ANY
    enum: frozenset[str] | None = None
    required: frozenset[str] = frozenset()
    properties: Mapping[str, list[Form]] = field(default_factory=dict)
    items: list[Form] | None = None
    others: list[Form] | None = None

    def both(self, other: Form) -> Form:
        """What meets this form and the other one."""
        shared = {
            name: both(self.properties[name], other.properties[name])
            for name in self.properties.keys() & other.properties.keys()
        }
        return Form(
            self.types & other.types,
            self.enum if other.enum is None else other.enum if self.enum is None else self.enum & other.enum,
            self.required | other.required,
            {**self.properties, **other.properties, **shared},
            both(self.items, other.items),
            both(self.others, other.others),
        )


def both(left: list[Form] | None, right: list[Form] | None) -> Any:
    """What meets two lists of alternatives; None allows everything."""
    if left is None or right is None:
        return right if left is None else left
    return [form for one in left for other in right if (form := one.both(other)).types]


def read(schema: Mapping[str, Any], home: str, documents: Mapping[str, Any]) -> list[Form]:
    """The forms that a schema allows; `home` is the address of its file."""

    def go(part: Any) -> list[Form]:
        return read(part, home, documents)

    named = schema.get("type")
    types = (
        ANY
        if named is None
        else frozenset[str]().union(*(TYPES[t] for t in ([named] if isinstance(named, str) else named)))
    )
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        types &= {TYPE_OF[type(value)] for value in values}
    others = schema.get("additionalProperties")
    forms = [
        Form(
            types,
            None if values is None else frozenset(json.dumps(value) for value in values if value is not None),
            frozenset(schema.get("required", ())),
            {name: go(part) for name, part in schema.get("properties", {}).items()},
            go(schema["items"]) if "items" in schema else None,
            go(others) if isinstance(others, dict) else None,
        )
    ]
    if "$ref" in schema:
        address, _, pointer = urljoin(home, schema["$ref"]).partition("#")
        target = reduce(lambda part, key: part[key], pointer.split("/")[1:], documents[address])
        forms = both(forms, read(target, address, documents))
    for part in schema.get("allOf", ()):
        forms = both(forms, go(part))
    for word in ("oneOf", "anyOf"):
        if word in schema:
            forms = both(forms, [form for part in schema[word] for form in go(part)])
    return [*forms, Form(frozenset({"null"}))] if schema.get("nullable") else forms


def differences(theirs: list[Form], ours: list[Form], at: str = "") -> Iterator[tuple[str, str]]:
    """Where two meanings differ: "<pointer>#<what>", and how. `*` is any item, `{}` any property."""
    for what, of in (("type", types_of), ("enum", values_of)):
        if of(theirs) != of(ours):
            yield f"{at}#{what}", f"published {of(theirs)}, ours {of(ours)}"
    for kind, inside in (("array", array_differences), ("object", object_differences)):
        left, right = ([form for form in side if kind in form.types] for side in (theirs, ours))
        if left and right and len(left) != len(right):
            yield f"{at}#alternatives", f"published {len(left)} for {kind}, ours {len(right)}"
            left, right = [any_of(left)], [any_of(right)]
        if len(left) == len(right):
            for place, (one, other) in enumerate(zip(left, right, strict=True)):
                yield from inside(one, other, at if len(left) == 1 else f"{at}({place})")


def types_of(forms: list[Form]) -> str:
    types = frozenset[str]().union(*(form.types for form in forms))
    if types == ANY:
        return "any"
    whole = types - TYPES["number"] | {"number"} if TYPES["number"] <= types else types
    return " or ".join(sorted(whole))


def values_of(forms: list[Form]) -> str:
    plain = [form for form in forms if form.types - {"null", "array", "object"}]
    if not plain or any(form.enum is None for form in plain):
        return "any"
    return " or ".join(sorted({value for form in plain for value in form.enum or ()}))


def array_differences(theirs: Form, ours: Form, at: str) -> Iterator[tuple[str, str]]:
    if theirs.items is not None or ours.items is not None:
        yield from differences(theirs.items or [Form()], ours.items or [Form()], f"{at}/*")


def object_differences(theirs: Form, ours: Form, at: str) -> Iterator[tuple[str, str]]:
    if theirs.required != ours.required:
        yield f"{at}#required", f"published {sorted(theirs.required)}, ours {sorted(ours.required)}"
    for name in sorted({*theirs.properties, *ours.properties}):
        if name not in ours.properties:
            yield f"{at}/{name}#absent", "published, but not ours"
        elif name not in theirs.properties:
            yield f"{at}/{name}#extra", "ours, but not published"
        else:
            yield from differences(theirs.properties[name], ours.properties[name], f"{at}/{name}")
    if theirs.others is not None or ours.others is not None:
        yield from differences(theirs.others or [Form()], ours.others or [Form()], f"{at}/{{}}")


def any_of(forms: list[Form]) -> Form:
    """Alternatives laid over each other, for where the two sides have unlike numbers of them."""
    names = {name for form in forms for name in form.properties}
    items = [item for form in forms for item in form.items or [Form()]]
    return Form(
        required=frozenset.intersection(*(form.required for form in forms)),
        properties={name: [p for form in forms for p in form.properties.get(name, ())] for name in names},
        items=items if any(form.items is not None for form in forms) else None,
    )


@cache
def published() -> dict[str, Any]:
    """Every published specification by its address."""
    files = [SPECS / "common-definitions.json", *SPECS.glob("*/spec/*.json")]
    specs = [json.loads(path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    return {spec["$id"]: spec for spec in specs}


class Own(dict[str, Any]):
    """Our schemas by their addresses, loaded when asked for."""

    def __missing__(self, address: str) -> Any:
        return load(address.removeprefix(BASE))


@pytest.fixture
def specs() -> dict[str, Any]:
    """The published specifications, where they are installed."""
    if not SPECS.is_dir():
        pytest.skip(
            "needs the npm package @huggingface/tasks: npm ci --prefix tests/javascript, "
            "or name a folder that has it: ROADWORTHY_NODE_MODULES=/path/to/node_modules"
        )
    return published()


def found(task: str, file: str, specs: Mapping[str, Any]) -> dict[str, str]:
    """The differences between a published file and ours, by where they are."""
    theirs, ours, own = f"{ROOT}{task}/{file}.json", f"{BASE}tasks/{task}/{file}.json", Own()
    return dict(differences(read(specs[theirs], theirs, specs), read(own[ours], ours, own)))


def test_these_are_all_the_published_files(specs: dict[str, Any]) -> None:
    there = {
        (path.parent.parent.name, path.stem)
        for path in SPECS.glob("*/spec/*.json")
        if path.parent.parent.name != TEMPLATE
    }
    assert there == set(FILES)


@pytest.mark.parametrize(("task", "file"), FILES)
def test_ours_differs_only_where_it_is_meant_to(task: str, file: str, specs: dict[str, Any]) -> None:
    differing = found(task, file, specs)
    meant = {pointer for of_task, of_file, pointer in DELIBERATE if (of_task, of_file) == (task, file)}
    assert {pointer: how for pointer, how in differing.items() if pointer not in meant} == {}, "not meant to differ"
    assert meant - differing.keys() == set(), "no longer different: take them out of DELIBERATE"


def test_every_deliberate_difference_is_of_a_published_file_and_has_a_reason() -> None:
    assert {(task, file) for task, file, _ in DELIBERATE} <= set(FILES)
    assert all(reason.endswith(".") for reason in DELIBERATE.values())


def places(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema in a published file."""
    if isinstance(schema, dict):
        yield schema
        for word in ("properties", "$defs", "definitions"):
            for child in schema.get(word, {}).values():
                yield from places(child)
        for word in ("items", "additionalProperties"):
            yield from places(schema.get(word))
        for word in ("allOf", "oneOf", "anyOf"):
            for child in schema.get(word, ()):
                yield from places(child)


def changes(place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Small changes of one schema, one at a time, each of which changes what it means."""
    for name in place.get("properties", {}):
        yield {"properties": {key: part for key, part in place["properties"].items() if key != name}}
    for name in place.get("required", ()):
        yield {"required": [key for key in place["required"] if key != name]}
    for value in place.get("enum", ())[1:]:
        yield {"enum": [other for other in place["enum"] if other is not value]}
    if isinstance(place.get("type"), str) and "$ref" not in place and place["type"] != "null":
        yield {"type": "boolean" if place["type"] != "boolean" else "string"}
    if "oneOf" in place and len(place["oneOf"]) > 1:
        yield {"oneOf": place["oneOf"][1:]}


def changed(spec: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Copies of a published file with one change each, and the change."""
    for number, place in enumerate(places(spec)):
        for change in changes(place):
            copy = json.loads(json.dumps(spec))
            next(islice(places(copy), number, None)).update(change)
            yield copy, change


# Ours leave parts of a chat answer to checks; what is published of those parts may change unnoticed.
@pytest.mark.parametrize(
    ("task", "file"), [pair for pair in FILES if pair[0] != "chat-completion" or pair[1] == "input"]
)
def test_any_change_of_a_published_file_would_be_noticed(task: str, file: str, specs: dict[str, Any]) -> None:
    address = f"{ROOT}{task}/{file}.json"
    before = found(task, file, specs)
    after = [(change, found(task, file, {**specs, address: copy})) for copy, change in changed(specs[address])]
    assert [change for change, seen in after if seen == before] == []
    assert after


def test_any_change_of_the_published_common_definitions_would_be_noticed(specs: dict[str, Any]) -> None:
    address = f"{ROOT}common-definitions.json"
    users = [("text-to-audio", "input"), ("text-classification", "input"), ("text-classification", "output")]
    before = [found(*user, specs) for user in users]
    after = [
        (change, [found(*user, {**specs, address: copy}) for user in users]) for copy, change in changed(specs[address])
    ]
    assert [change for change, seen in after if seen == before] == []
    assert len(after) > 20


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ({"type": "integer"}, {"type": "number"}, {"#type"}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}, set()),
        ({"type": "string", "nullable": True}, {"type": "string"}, {"#type"}),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, {"enum": ["b", "a"]}, set()),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, {"#enum"}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "string"}}}, {"type": "boolean"}, {"#type"}),
        ({"items": {"items": {"type": "string"}}}, {"items": {"items": {}}}, {"/*/*#type"}),
        ({"additionalProperties": {"type": "string"}}, {}, {"/{}#type"}),
        ({"properties": {"a": {}}}, {"properties": {"b": {}}}, {"/a#absent", "/b#extra"}),
        (
            {"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "string"}}}]},
            {"required": ["a"], "properties": {"a": {"type": "string"}}},
            set(),
        ),
        (
            {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["c"]}]},
            {"(1)#required"},
        ),
        (
            {"type": "object", "oneOf": [{"required": ["a", "b"]}, {"required": ["b"]}]},
            {"type": "object"},
            {"#alternatives", "#required"},
        ),
    ],
)
def test_the_comparison_sees_what_differs_and_nothing_else(
    theirs: dict[str, Any], ours: dict[str, Any], expected: set[str]
) -> None:
    seen = differences(read(theirs, "/t", {"/t": theirs}), read(ours, "/o", {"/o": ours}))
    assert {pointer for pointer, _ in seen} == expected
