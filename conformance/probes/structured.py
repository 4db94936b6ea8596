"""Probes of structured output."""

from __future__ import annotations

from typing import Any

from roadworthy.conformance.facts import Capability
from roadworthy.conformance.probe import Context, Draft, Expects, probe
from roadworthy.conformance.probes.stream import STREAMS
from roadworthy.conformance.probes.tools import closed

OBJECT = [Capability.JSON_OBJECT]
SCHEMA = [Capability.JSON_SCHEMA]

YEAR = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
"""How schema builders write what may be missing; a list of types, as in `nickname` below, is the other way."""
PERSON: dict[str, Any] = closed(
    {
        "name": {"type": "string"},
        "field": {"type": "string", "enum": ["mathematics", "physics", "chemistry"]},
        "born": {"type": "integer"},
        "living": {"type": "boolean"},
        "nickname": {"type": ["string", "null"]},
        "works": {"type": "array", "items": {"$ref": "#/$defs/work"}},
    },
    **{"$defs": {"work": closed({"title": {"type": "string"}, "year": YEAR})}},
)
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}, "population": {"type": "number"}},
    "required": ["city", "country"],
}
ADA = 'Describe Ada Lovelace, born 1815, known for mathematics and the work "Notes" of 1843, as JSON.'
PARIS = "Describe Paris in France as a JSON object with the keys `city` and `country`."


def by_schema(schema: Any, *, strict: bool | None = None, name: str = "answer") -> dict[str, Any]:
    """A response format that asks for this schema."""
    spec: dict[str, Any] = {"name": name, "schema": schema}
    return {"type": "json_schema", "json_schema": spec if strict is None else {**spec, "strict": strict}}


@probe("structured.object", needs=OBJECT)
def json_object(context: Context) -> Draft:
    """Some JSON object."""
    return context.chat(PARIS, response_format={"type": "json_object"}, temperature=0)


@probe("structured.object.stream", needs=OBJECT)
def json_object_stream(context: Context) -> Draft:
    """Some JSON object, streamed."""
    return context.chat(PARIS, response_format={"type": "json_object"}, temperature=0, stream=True)


@probe("structured.strict", needs=SCHEMA)
def strict(context: Context) -> Draft:
    """A strict schema with an enum, an integer, a boolean, a nullable text, and an array of references."""
    return context.chat(ADA, response_format=by_schema(PERSON, strict=True), temperature=0)


@probe("structured.strict.stream", needs=SCHEMA)
def strict_stream(context: Context) -> Draft:
    """The same strict schema, streamed."""
    return context.chat(ADA, response_format=by_schema(PERSON, strict=True), temperature=0, stream=True)


@probe("structured.lenient", needs=SCHEMA)
def lenient(context: Context) -> Draft:
    """A schema that is not strict, with an optional property."""
    return context.chat(PARIS, response_format=by_schema(CITY), temperature=0)


@probe("structured.argued", needs=SCHEMA)
def argued(context: Context) -> Draft:
    """A strict schema that the prompt argues against."""
    question = "Write a haiku about the sea. Do not use JSON, do not use braces, answer in plain verse only."
    schema = closed({"mood": {"type": "string", "enum": ["calm", "stormy"]}})
    return context.chat(question, response_format=by_schema(schema, strict=True), temperature=0)


@probe("structured.text")
def text(context: Context) -> Draft:
    """The response format "text", which changes nothing."""
    return context.chat("Say hello.", response_format={"type": "text"}, max_tokens=16)


@probe("structured.unknown_type", needs=SCHEMA, expects=Expects.REFUSAL)
def unknown_type(context: Context) -> Draft:
    """A response format of a type that does not exist."""
    return context.chat("Say hello.", response_format={"type": "yaml"}, max_tokens=16)


@probe("structured.form_text", needs=SCHEMA, expects=Expects.REFUSAL)
def form_text(context: Context) -> Draft:
    """A response format that is a word, not an object."""
    return context.chat("Say hello.", response_format="json_object", max_tokens=16)


@probe("structured.no_schema", needs=SCHEMA, expects=Expects.REFUSAL)
def no_schema(context: Context) -> Draft:
    """A schema asked for and not given."""
    return context.chat("Say hello.", response_format={"type": "json_schema"}, max_tokens=16)


@probe("structured.malformed", needs=SCHEMA, expects=Expects.REFUSAL)
def malformed(context: Context) -> Draft:
    """A schema that is not one."""
    form = by_schema({"type": "objekt", "properties": {"a": {"type": "strnig"}}}, strict=True)
    return context.chat("Say hello.", response_format=form, max_tokens=16)


@probe("structured.schema_text", needs=SCHEMA, expects=Expects.REFUSAL)
def schema_text(context: Context) -> Draft:
    """A string where the schema should be."""
    form = by_schema("an object with a name", strict=True)
    return context.chat("Say hello.", response_format=form, max_tokens=16)


STREAMS += [json_object_stream, strict_stream]
OBJECTS = (json_object, json_object_stream)
BY_SCHEMA = (strict, strict_stream, lenient, argued)
"""The probes whose answers must meet the schema they carry."""
EXACT = (strict, strict_stream, argued)
ALL = (*OBJECTS, *BY_SCHEMA)
