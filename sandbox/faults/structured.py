"""Faults of structured output."""

from __future__ import annotations

import json
from typing import Any

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn

CHAT = {Kind.CHAT}
ANY = {Kind.CHAT, Kind.STREAM}


def _form(turn: Turn) -> str | None:
    form = turn.body.get("response_format")
    return form.get("type") if isinstance(form, dict) else None


def _is_structured(turn: Turn) -> bool:
    return _form(turn) in ("json_object", "json_schema")


def _is_strict(turn: Turn) -> bool:
    return _form(turn) == "json_schema" and bool(turn.body["response_format"]["json_schema"].get("strict"))


def _edit(turn: Turn, key: str, change: Any) -> None:
    """Change one property of a described person."""
    for choice in turn.choices:
        if _form(turn) == "json_schema" and choice.content and f'"{key}"' in choice.content:
            made = json.loads(choice.content)
            change(made)
            choice.content = json.dumps(made)


@fault("structured.schema_refused", caught_by={"structured.accepted"}, at=Stage.REQUEST, on=ANY)
def schema_refused(turn: Turn) -> None:
    """`/models` announces structured output, and schemas are refused."""
    if _form(turn) == "json_schema":
        raise ApiError(400, "response_format json_schema is not supported", param="response_format")


@fault("structured.references_refused", caught_by={"structured.accepted"}, at=Stage.REQUEST, on=ANY)
def references_refused(turn: Turn) -> None:
    """Schemas with references are refused."""
    if "$ref" in str(turn.body.get("response_format")):
        raise ApiError(400, "$ref is not supported", param="response_format")


@fault("structured.not_offered", caught_by={"structured.offered"}, at=Stage.PAYLOAD, on={Kind.MODELS})
def not_offered(turn: Turn) -> None:
    """`/models` says that the model has no structured output."""
    for entry in turn.payload["data"]:
        entry["supports_structured_output"] = False


@fault("structured.object_ignored", caught_by={"structured.object.parses"}, at=Stage.ANSWER, on=ANY)
def object_ignored(turn: Turn) -> None:
    """json_object is ignored, and the model answers in prose."""
    if _form(turn) == "json_object":
        turn.choices[0].content = "Paris is the capital of France."


@fault("structured.object_single_quotes", caught_by={"structured.object.parses"}, at=Stage.ANSWER, on=CHAT)
def object_single_quotes(turn: Turn) -> None:
    """JSON is written with single quotes."""
    if _form(turn) == "json_object":
        turn.choices[0].content = "{'city': 'Paris'}"


@fault("structured.object_is_array", caught_by={"structured.object.is_object"}, at=Stage.ANSWER, on=CHAT)
def object_is_array(turn: Turn) -> None:
    """json_object gives an array."""
    if _form(turn) == "json_object":
        turn.choices[0].content = '["Paris", "France"]'


@fault("structured.fenced", caught_by={"structured.bare"}, at=Stage.ANSWER, on=ANY)
def fenced(turn: Turn) -> None:
    """The JSON stands in a Markdown fence."""
    if _is_structured(turn):
        turn.choices[0].content = f"```json\n{turn.choices[0].content}\n```"


@fault("structured.fenced_stream", caught_by={"structured.bare"}, at=Stage.ANSWER, on={Kind.STREAM})
def fenced_stream(turn: Turn) -> None:
    """The JSON of streams stands in a Markdown fence, which is cut off whole answers only."""
    if _is_structured(turn):
        turn.choices[0].content = f"```json\n{turn.choices[0].content}\n```"


@fault("structured.afterthought", caught_by={"structured.bare"}, at=Stage.ANSWER, on=ANY)
def afterthought(turn: Turn) -> None:
    """The model goes on after the JSON."""
    if _is_structured(turn):
        turn.choices[0].content = f"{turn.choices[0].content}\n\nI hope this helps!"


@fault("structured.preamble", caught_by={"structured.bare"}, at=Stage.ANSWER, on=ANY)
def preamble(turn: Turn) -> None:
    """Words come before the JSON."""
    if _is_structured(turn):
        turn.choices[0].content = f"Here is the JSON you asked for: {turn.choices[0].content}"


@fault("structured.content_object", caught_by={"structured.content_string"}, at=Stage.PAYLOAD, on=CHAT)
def content_object(turn: Turn) -> None:
    """`content` is the object itself."""
    message = turn.payload["choices"][0]["message"]
    if _is_structured(turn):
        message["content"] = json.loads(message["content"])


@fault("structured.empty", caught_by={"structured.not_empty"}, at=Stage.ANSWER, on=ANY)
def empty(turn: Turn) -> None:
    """Structured answers are empty."""
    if _is_structured(turn):
        turn.choices[0].content = ""


@fault("structured.blanks", caught_by={"structured.not_empty"}, at=Stage.ANSWER, on=ANY)
def blanks(turn: Turn) -> None:
    """The model writes line breaks until the token limit, as the grammar allows it."""
    if _is_structured(turn):
        turn.choices[0].content = "\n" * 200
        turn.choices[0].finish_reason = "length"


@fault("structured.cut_json", caught_by={"structured.schema.parses", "structured.enforced"}, at=Stage.ANSWER, on=ANY)
def cut_json(turn: Turn) -> None:
    """The last brace is lost, though the answer ends with "stop"."""
    if _form(turn) == "json_schema":
        turn.choices[0].content = (turn.choices[0].content or "")[:-1]


@fault("structured.object_cut", caught_by={"structured.object.parses"}, at=Stage.ANSWER, on={Kind.STREAM})
def object_cut(turn: Turn) -> None:
    """The last brace of a streamed object is lost."""
    if _form(turn) == "json_object":
        turn.choices[0].content = (turn.choices[0].content or "")[:-1]


@fault(
    "structured.schema_ignored",
    caught_by={"structured.schema.parses", "structured.enforced"},
    at=Stage.REQUEST,
    on=ANY,
)
def schema_ignored(turn: Turn) -> None:
    """json_schema is ignored, and the model answers in prose."""
    if _form(turn) == "json_schema":
        turn.body.pop("response_format")


@fault("structured.ignored_when_streaming", caught_by={"structured.schema.parses"}, at=Stage.REQUEST, on={Kind.STREAM})
def ignored_when_streaming(turn: Turn) -> None:
    """json_schema is ignored in streams."""
    if _form(turn) == "json_schema":
        turn.body.pop("response_format")


@fault("structured.integer_as_text", caught_by={"structured.schema.types"}, at=Stage.ANSWER, on=ANY)
def integer_as_text(turn: Turn) -> None:
    """An integer comes as a text."""
    _edit(turn, "born", lambda made: made.update(born=str(made["born"])))


@fault("structured.reference_ignored", caught_by={"structured.schema.types"}, at=Stage.ANSWER, on=ANY)
def reference_ignored(turn: Turn) -> None:
    """References are taken for any value: items of an array are texts."""
    _edit(turn, "works", lambda made: made.update(works=["Notes"]))


@fault("structured.null_ignored", caught_by={"structured.schema.types"}, at=Stage.ANSWER, on=ANY)
def null_ignored(turn: Turn) -> None:
    """What may be a text or null comes as `false`."""
    _edit(turn, "nickname", lambda made: made.update(nickname=False))


@fault("structured.alternatives_ignored", caught_by={"structured.schema.types"}, at=Stage.ANSWER, on={Kind.STREAM})
def alternatives_ignored(turn: Turn) -> None:
    """`anyOf` is taken for any value."""
    _edit(turn, "works", lambda made: made.update(works=[{**made["works"][0], "year": "unknown"}]))


@fault("structured.enum_ignored", caught_by={"structured.schema.enum"}, at=Stage.ANSWER, on=ANY)
def enum_ignored(turn: Turn) -> None:
    """A value outside the enum is chosen."""
    _edit(turn, "field", lambda made: made.update(field="computing"))


@fault("structured.required_missing", caught_by={"structured.schema.required"}, at=Stage.ANSWER, on=ANY)
def required_missing(turn: Turn) -> None:
    """A required property is left out."""
    _edit(turn, "living", lambda made: made.pop("living"))


@fault("structured.extra_property", caught_by={"structured.schema.closed"}, at=Stage.ANSWER, on=ANY)
def extra_property(turn: Turn) -> None:
    """A closed object has one more property."""
    _edit(turn, "born", lambda made: made.update(note="born in London"))


@fault("structured.lenient_ignored", caught_by={"structured.lenient"}, at=Stage.ANSWER, on=CHAT)
def lenient_ignored(turn: Turn) -> None:
    """A schema that is not strict gives some JSON."""
    if _form(turn) == "json_schema" and not _is_strict(turn):
        turn.choices[0].content = '{"place": "Paris"}'


@fault("structured.prompt_wins", caught_by={"structured.enforced"}, at=Stage.ANSWER, on=CHAT)
def prompt_wins(turn: Turn) -> None:
    """A prompt that argues against the schema wins."""
    if "haiku" in str(turn.body["messages"]):
        turn.choices[0].content = "Grey waves fold and fall,\nsalt hangs in the morning air,\na gull keeps the time."


@fault("structured.ends_with_length", caught_by={"structured.finish_reason"}, at=Stage.ANSWER, on=ANY)
def ends_with_length(turn: Turn) -> None:
    """Strict answers end with "length", though they are whole: the grammar's end is not told from the limit."""
    if _is_strict(turn):
        turn.choices[0].finish_reason = "length"


@fault("structured.text_refused", caught_by={"structured.text"}, at=Stage.REQUEST, on=CHAT)
def text_refused(turn: Turn) -> None:
    """The response format "text" is refused."""
    if _form(turn) == "text":
        raise ApiError(400, "unknown response_format 'text'", param="response_format")


@fault("structured.unknown_type_accepted", caught_by={"structured.refuses.unknown_type"}, at=Stage.ARRIVAL)
def unknown_type_accepted(turn: Turn) -> None:
    """A response format of an unknown type gives prose."""
    turn.raw = turn.raw.replace(b'{"type": "yaml"}', b'{"type": "text"}')


@fault("structured.form_text_accepted", caught_by={"structured.refuses.unknown_type"}, at=Stage.ARRIVAL)
def form_text_accepted(turn: Turn) -> None:
    """A response format that is a word is dropped."""
    turn.raw = turn.raw.replace(b'"response_format": "json_object"', b'"response_format": null')


@fault("structured.no_schema_accepted", caught_by={"structured.refuses.no_schema"}, at=Stage.ARRIVAL)
def no_schema_accepted(turn: Turn) -> None:
    """json_schema without a schema gives prose."""
    turn.raw = turn.raw.replace(b'{"type": "json_schema"}', b'{"type": "text"}')


@fault("structured.malformed_accepted", caught_by={"structured.refuses.malformed"}, at=Stage.ARRIVAL)
def malformed_accepted(turn: Turn) -> None:
    """A schema that is not one gives an empty object."""
    if b'"response_format"' in turn.raw:
        turn.raw = turn.raw.replace(b'"objekt"', b'"object"').replace(b'"strnig"', b'"string"')


@fault("structured.schema_text_accepted", caught_by={"structured.refuses.malformed"}, at=Stage.ARRIVAL)
def schema_text_accepted(turn: Turn) -> None:
    """A string where the schema should be gives prose."""
    if b'"an object with a name"' in turn.raw:
        body = json.loads(turn.raw)
        del body["response_format"]
        turn.raw = json.dumps(body).encode()


@fault("structured.malformed_crashes", caught_by={"errors.no_5xx"}, at=Stage.ARRIVAL)
def malformed_crashes(turn: Turn) -> None:
    """A schema that is not one makes the server fail."""
    turn.crash = b'"response_format"' in turn.raw and b'"objekt"' in turn.raw
