"""Checks of structured output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.conformance import strict_json
from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object
from roadworthy.conformance.facts import Capability, Facts, chat
from roadworthy.conformance.probes import structured as probes
from roadworthy.conformance.reading.refusal import must_accept, must_refuse
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import show

API = "OpenAI API reference, chat completions, response_format"
GUIDE = "structured output guide"
HUB = "registration guide, Automatic validation: structured output support"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.OPENAI, Lens.SPEC)
OBJECT = [Capability.JSON_OBJECT]
SCHEMA = [Capability.JSON_SCHEMA]
CONTENT = "/choices/0/message/content"
FENCE = re.compile(r"^\s*```")
RUNAWAY = 20
"""Blanks in a row that no writer means: a grammar that allows white space, and a model that never stops."""
SHAPES = {"enum": ("enum", "const"), "required": ("required",), "closed": ("additionalProperties",)}
"""Keywords with a check of their own; `structured.schema.types` has all others."""


def _readable(exchange: Exchange) -> bool:
    """Whether there is a text to parse: not cut off, and free of what other checks tell."""
    return exchange.finish_reason != "length" and not exchange.garbled and bool(exchange.text.strip())


def _bare(exchange: Exchange) -> Any:
    """The answer as strict JSON, or `Malformed`."""
    return strict_json.loads(exchange.text)


def _wrapped(exchange: Exchange) -> bool:
    """Whether JSON is there, inside a fence or inside prose."""
    found = re.search(r"\{.*\}", exchange.text, re.DOTALL)
    inside = bool(found) and isinstance(strict_json.loads(found[0] if found else ""), dict)
    return isinstance(_bare(exchange), Malformed) and inside


def _schema(exchange: Exchange) -> dict[str, Any]:
    form = as_object(as_object(exchange.sent).get("response_format"))
    return as_object(as_object(form.get("json_schema")).get("schema"))


@check(
    "structured.accepted",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; {HUB}",
    remedy="Accept json_schema, or declare that the model has no structured output.",
    each=[p for p in probes.ALL if p not in probes.OBJECTS],
    on=Usable.RESPONSE,
    needs=SCHEMA,
)
def accepted(exchange: Exchange) -> Iterator[Outcome]:
    """A model that is said to have structured output accepts an ordinary schema.

    Nested objects, enums, arrays, references and nullable fields are what schema builders write.
    """
    yield from must_accept(exchange)


@check(
    "structured.offered",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=HUB,
    remedy="Switch on guided generation in your engine.",
    across=[],
    applies=chat,
    on=Usable.ANYTHING,
)
def offered(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """The model offers structured output by a schema.

    The hub's validation of language models tests it.
    """
    ability = facts.ability(Capability.JSON_SCHEMA)
    if not any(exchange.status == 200 for exchange in exchanges):
        yield NotApplicable("nothing was answered")
    elif ability.offered is False:
        yield Finding("structured output", f"not offered: {ability.source}")


@check(
    "structured.object.parses",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Constrain generation to JSON when the response format is json_object.",
    each=probes.OBJECTS,
    on=Usable.SUCCESS,
    needs=OBJECT,
)
def object_parses(exchange: Exchange) -> Iterator[Outcome]:
    """With json_object the text parses as JSON.

    It is all this format promises, and callers parse without looking.
    """
    if not _readable(exchange) or _wrapped(exchange):
        yield NotApplicable("there is no bare text to parse; see structured.bare")
        return
    made = _bare(exchange)
    if isinstance(made, Malformed):
        yield Finding("JSON", f"{made.reason}: {show(exchange.text)}", at=CONTENT)


@check(
    "structured.object.is_object",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Constrain generation to an object, not to any JSON value.",
    each=probes.OBJECTS,
    on=Usable.SUCCESS,
    needs=OBJECT,
)
def object_is_object(exchange: Exchange) -> Iterator[Outcome]:
    """With json_object the text is a JSON object.

    Callers read fields of it; an array or a quoted text has none.
    """
    made = _bare(exchange) if _readable(exchange) else Malformed("")
    if isinstance(made, Malformed):
        yield NotApplicable("there is no JSON; see structured.object.parses")
    elif not isinstance(made, dict):
        yield Finding("an object", show(exchange.text), at=CONTENT)


@check(
    "structured.bare",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}; {GUIDE}",
    remedy="Constrain generation from the first token on, so that no fence and no preamble can come before the JSON.",
    each=probes.ALL,
    on=Usable.SUCCESS,
)
def bare(exchange: Exchange) -> Iterator[Outcome]:
    """The JSON stands alone: no Markdown fence around it, no words before or after.

    `JSON.parse` raises at the first backtick.
    """
    if not _readable(exchange):
        yield NotApplicable("there is no whole text to look at")
    elif _wrapped(exchange):
        got = "a Markdown fence: " if FENCE.match(exchange.text) else "words around it: "
        yield Finding("JSON and nothing else", got + show(exchange.text), at=CONTENT)


@check(
    "structured.content_string",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Return the JSON as text in `content`; parsing it is the caller's part.",
    each=[probes.json_object, probes.strict, probes.lenient, probes.argued],
)
def content_string(exchange: Exchange) -> Iterator[Outcome]:
    """`content` is a string that holds the JSON, not the object itself.

    Every client parses it; typed ones raise before that.
    """
    value = exchange.message.get("content")
    if value is None:
        yield NotApplicable("there is no content; see structured.not_empty")
    elif not isinstance(value, str):
        yield Finding("a string", show(value), at=CONTENT)


@check(
    "structured.not_empty",
    level=Level.MUST,
    lenses=ALL,
    source=API,
    remedy="Look at the reasoning parser and the grammar: one of them swallows the whole answer.",
    each=probes.ALL,
    on=Usable.SUCCESS,
)
def not_empty(exchange: Exchange) -> Iterator[Outcome]:
    """A structured answer has a text, and not of blanks alone.

    An empty one parses as nothing; one of blanks up to the token limit is paid for besides.
    """
    streamed = exchange.media_type == "text/event-stream"
    content = exchange.message.get("content")
    blanks = len(exchange.text) if not exchange.text.strip() else 0
    if exchange.garbled or (not streamed and (not exchange.choices or not isinstance(content, str | type(None)))):
        yield NotApplicable("there is no text to look at")
    elif blanks > RUNAWAY:
        yield Finding("a text", f"{blanks} blanks and nothing else", at=CONTENT)
    elif exchange.finish_reason == "length":
        yield NotApplicable("the token limit cut the answer off")
    elif not exchange.text.strip():
        yield Finding("a text", show(exchange.text) or "an empty text", at=CONTENT)


@check(
    "structured.schema.parses",
    level=Level.MUST,
    lenses=ALL,
    source=f"{API}; {GUIDE}; {HUB}",
    remedy="Constrain generation to the schema; do not leave it to the prompt.",
    each=[probes.strict, probes.strict_stream, probes.lenient],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_parses(exchange: Exchange) -> Iterator[Outcome]:
    """With json_schema the text parses as JSON.

    It is the heart of the hub's test of structured output.
    """
    if not _readable(exchange) or _wrapped(exchange):
        yield NotApplicable("there is no bare text to parse; see structured.bare")
        return
    made = _bare(exchange)
    if isinstance(made, Malformed):
        yield Finding("JSON", f"{made.reason}: {show(exchange.text)}", at=CONTENT)


def _faults(exchange: Exchange, keywords: Sequence[str] | None) -> Iterator[Outcome]:
    """What breaks the schema, by these keywords (all that have no check of their own, where None)."""
    from jsonschema import Draft202012Validator

    made = _bare(exchange) if _readable(exchange) else Malformed("")
    if isinstance(made, Malformed):
        yield NotApplicable("there is no JSON; see structured.schema.parses")
        return
    own = {word for words in SHAPES.values() for word in words}
    for error in Draft202012Validator(_schema(exchange)).iter_errors(made):
        if (error.validator in keywords) if keywords is not None else (error.validator not in own):
            pointer = "".join(f"/{part}" for part in error.absolute_path)
            expected = f"{error.validator} {show(error.validator_value)}"
            yield Finding(expected, error.message[:200], at=f"{CONTENT} → {pointer or '/'}")
            return


@check(
    "structured.schema.types",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, strict; {GUIDE}",
    remedy="Enforce the schema while generating, references included, or refuse what you cannot enforce with a 400.",
    each=[probes.strict, probes.strict_stream],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_types(exchange: Exchange) -> Iterator[Outcome]:
    """A strict schema's types hold everywhere: in nested objects, arrays, references and nullable fields.

    Strict is a promise of the server; callers load the text into typed objects because of it.
    """
    yield from _faults(exchange, None)


@check(
    "structured.schema.enum",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, strict; {GUIDE}",
    remedy="Compile enums into the grammar.",
    each=[probes.strict, probes.strict_stream],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_enum(exchange: Exchange) -> Iterator[Outcome]:
    """A strict schema's enums hold.

    Callers switch on the value, and have no branch for another.
    """
    yield from _faults(exchange, SHAPES["enum"])


@check(
    "structured.schema.required",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, strict; {GUIDE}",
    remedy="Compile required properties into the grammar.",
    each=[probes.strict, probes.strict_stream],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_required(exchange: Exchange) -> Iterator[Outcome]:
    """A strict schema's required properties are there.

    A missing field raises in the caller's code.
    """
    yield from _faults(exchange, SHAPES["required"])


@check(
    "structured.schema.closed",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, strict; {GUIDE}",
    remedy="Compile `additionalProperties: false` into the grammar.",
    each=[probes.strict, probes.strict_stream],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_closed(exchange: Exchange) -> Iterator[Outcome]:
    """A strict schema's objects have no other properties.

    Strict readers refuse what they do not know.
    """
    yield from _faults(exchange, SHAPES["closed"])


@check(
    "structured.lenient",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}; {GUIDE}",
    remedy="Enforce the schema also where `strict` is not set.",
    each=probes.lenient,
    needs=SCHEMA,
)
def lenient(exchange: Exchange) -> Iterator[Outcome]:
    """A schema that is not strict is met all the same.

    Most callers never set `strict`, and expect what the guide shows.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    made = _bare(exchange) if _readable(exchange) else Malformed("")
    if isinstance(made, Malformed):
        yield NotApplicable("there is no JSON; see structured.schema.parses")
        return
    fault = best_match(Draft202012Validator(_schema(exchange)).iter_errors(made))
    if fault is not None:
        yield Finding("an object that meets the schema", fault.message[:200], at=CONTENT)


@check(
    "structured.enforced",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, strict; {HUB}",
    remedy="Enforce the schema while generating; a schema that is only mentioned in the prompt loses to the prompt.",
    each=probes.argued,
    needs=SCHEMA,
)
def enforced(exchange: Exchange) -> Iterator[Outcome]:
    """A strict schema is enforced even when the prompt argues against it.

    Users' texts argue all the time, and injected ones on purpose.
    """
    from jsonschema import Draft202012Validator

    if exchange.finish_reason == "length" and exchange.text.strip()[:1] in ("", "{"):
        yield NotApplicable("the token limit cut the answer off")
    elif not isinstance(exchange.message.get("content"), str):
        yield NotApplicable("there is no text; see structured.content_string and structured.not_empty")
    elif _wrapped(exchange) or not exchange.text.strip():
        yield NotApplicable("see structured.bare")
    else:
        made = _bare(exchange)
        if isinstance(made, Malformed) or not Draft202012Validator(_schema(exchange)).is_valid(made):
            yield Finding('{"mood": "calm"} or {"mood": "stormy"}', show(exchange.text), at=CONTENT)


@check(
    "structured.finish_reason",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy='Say "stop" when the grammar is finished.',
    each=probes.ALL,
    on=Usable.SUCCESS,
)
def finish_reason(exchange: Exchange) -> Iterator[Outcome]:
    """A structured answer that is whole ends with "stop".

    Callers throw away what ends with "length", and take "tool_calls" for a call.
    """
    if exchange.garbled or not isinstance(_bare(exchange), dict):
        yield NotApplicable("there is no whole answer")
    elif exchange.finish_reason in ("length", "content_filter", "tool_calls", "function_call"):
        yield Finding("stop", show(exchange.finish_reason), at="/choices/0/finish_reason")


@check(
    "structured.text",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=API,
    remedy='Accept `response_format: {"type": "text"}` as the default that it is.',
    each=probes.text,
    on=Usable.RESPONSE,
)
def text(exchange: Exchange) -> Iterator[Outcome]:
    """The response format "text" is accepted.

    SDKs with a fixed set of formats send it for plain answers.
    """
    yield from must_accept(exchange)


# What must be refused


@check(
    "structured.refuses.unknown_type",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Answer 400 to a response format that you do not know.",
    each=[probes.unknown_type, probes.form_text],
    on=Usable.RESPONSE,
    needs=SCHEMA,
)
def refuses_unknown_type(exchange: Exchange) -> Iterator[Outcome]:
    """A response format of an unknown type, or without one, is refused.

    Prose in place of the format asked for is found out much later.
    """
    yield from must_refuse(exchange, "there is no such response format")


@check(
    "structured.refuses.no_schema",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Answer 400 to json_schema without a schema.",
    each=probes.no_schema,
    on=Usable.RESPONSE,
    needs=SCHEMA,
)
def refuses_no_schema(exchange: Exchange) -> Iterator[Outcome]:
    """json_schema without a schema is refused.

    The caller believes a schema is enforced.
    """
    yield from must_refuse(exchange, "the schema is missing")


@check(
    "structured.refuses.malformed",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Validate the schema before generation, and answer 400 with the place that is wrong.",
    each=[probes.malformed, probes.schema_text],
    on=Usable.RESPONSE,
    needs=SCHEMA,
)
def refuses_malformed(exchange: Exchange) -> Iterator[Outcome]:
    """A schema that is not one is refused, with a clear word.

    Prose or a server error leaves the caller to guess.
    """
    yield from must_refuse(exchange, "this is not a schema")
