"""Generated requests for any family that has an OpenAPI description: valid ones, and ones that break it.

schemathesis draws them, from a seed and before anything is sent, so that a run can be planned, bounded and
repeated. What it draws is bounded once more: no request may ask for more than the description's budgets, and
every one names the model of the run.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice, zip_longest
from typing import Any
from unittest.mock import patch
from urllib.parse import quote, unquote

from roadworthy.conformance.subject import Subject
from roadworthy.conformance.words import show
from roadworthy.schemas import manifest, openapi
from roadworthy.schemas.openapi import Operation

PACKAGE = "schemathesis"
INSTALL = 'pip install "roadworthy[fuzz]"'
BOUNDARY = "roadworthy-7f0b6c52"
MAX_BODY_BYTES = 8_192
"""Larger bodies are left out: what they show, smaller ones show too."""
DRAWS_PER_CASE = 4
"""Drawing begins with the simplest, and draws the like again."""
_LABEL = 80


@dataclass(frozen=True, slots=True)
class Case:
    """One request to one operation: what to send, what is odd about it, and whether it must be refused."""

    operation: str
    method: str
    path: str
    at_root: bool
    version: str
    body: bytes | None
    content_type: str
    label: str
    must_refuse: bool = False


def available() -> bool:
    """Whether what draws the requests is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


@cache
def valid(subject: Subject, namespace: str, count: int, seed: int) -> tuple[Case, ...]:
    """At most so many valid requests, the operations in turn."""
    return _in_turn(_forms(subject, namespace), count, seed, broken=False)


@cache
def invalid(subject: Subject, namespace: str, count: int, seed: int) -> tuple[Case, ...]:
    """At most so many requests that break the description, the operations in turn."""
    return _in_turn(_forms(subject, namespace), count, seed, broken=True)


def _forms(subject: Subject, namespace: str) -> list[_Form]:
    return [_Form(one, subject, namespace) for one in openapi.operations(subject.api, subject.task)]


def _in_turn(forms: Sequence[_Form], count: int, seed: int, *, broken: bool) -> tuple[Case, ...]:
    """The first cases of each operation, then the second ones, and so on."""
    # Beside those that can be drawn, the others add one case each or none.
    share = -(-count // max(1, sum(form.varies for form in forms)))
    kinds = [_cases(form, share, seed, broken=broken) for form in forms] if count else []
    mixed = (case for row in zip_longest(*kinds) for case in row if case is not None)
    return tuple(islice(mixed, count))


def _cases(form: _Form, count: int, seed: int, *, broken: bool) -> list[Case]:
    """So many cases of one operation, as different from each other as were drawn."""
    if not form.varies:
        return [] if broken else [form.case({}, None, "valid: nothing to choose")]
    found: dict[tuple[str, str], Case] = {}
    for path, body in _draw(form, count, seed, broken=broken):
        case = form.broken(path, body) if broken else form.whole(path, body)
        if case is not None and len(case.body or b"") <= MAX_BODY_BYTES + form.media_bytes:
            found.setdefault((case.path, _canonical(case.body)), case)
    return _various(list(found.values()), count)


def _various(cases: list[Case], count: int) -> list[Case]:
    """So many of the cases: the first, which is the simplest, then always the one with most that none had before."""
    features = [_features(case) for case in cases]
    left, chosen, seen = list(range(len(cases))), list[Case](), set[str]()
    while left and len(chosen) < count:
        best = max(left, key=lambda place: len(features[place] - seen)) if chosen else left[0]
        left.remove(best)
        chosen.append(cases[best])
        seen |= features[best]
    return chosen


def _features(case: Case) -> set[str]:
    """What a case has that another may not have: its fault, its fields, and of each the type or the plain value."""
    found = {case.label.partition(" = ")[0]}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                walk(item, f"{place}.{name}")
        elif (
            isinstance(value, bool) or value is None or (isinstance(value, str) and value.isascii() and value.isalpha())
        ):
            found.add(f"{place}={value}")
        else:
            found.add(f"{place}:{type(value).__name__}")

    if case.body is not None and case.content_type == "application/json":
        with suppress(ValueError):
            walk(json.loads(case.body), "")
    return found


def _canonical(body: bytes | None) -> str:
    try:
        return json.dumps(json.loads(body or b""), sort_keys=True)
    except ValueError:
        return repr(body)


class _Form:
    """One operation as a run asks it: what is fixed is filled in, what is left is drawn."""

    def __init__(self, operation: Operation, subject: Subject, namespace: str) -> None:
        self.operation = operation
        self.fixed = {"model": subject.model, "task": subject.task, "namespace": namespace}
        given = {name: schema.get("x-subject") for name, schema in operation.parameters.items()}
        self.free = [name for name, known in given.items() if known is None]
        self.path = operation.path
        for name, known in given.items():
            if known is not None:
                self.path = self.path.replace("{" + name + "}", quote(self.fixed[known], safe="/"))
        self.schema = _filled(operation.request, self.fixed) if operation.request else None

    def document(self) -> dict[str, Any]:
        """A description of this operation alone, as plain as can be."""
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": self.operation.parameters[name]}
            for name in self.free
        ]
        declared: dict[str, Any] = {"parameters": parameters, "responses": {"200": {"description": "An answer."}}}
        if self.schema is not None:
            # Forms are drawn as JSON too, and made into parts at the end.
            declared["requestBody"] = {"required": True, "content": {"application/json": {"schema": self.schema}}}
        return {
            "openapi": "3.1.0",
            "info": {"title": self.operation.id, "version": "1"},
            "paths": {
                "/" + "/".join("{" + name + "}" for name in self.free): {self.operation.method.lower(): declared}
            },
        }

    @property
    def varies(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.free) or self.schema is not None

    @property
    def media_bytes(self) -> int:
        """How much longer a body is for the media in it."""
        return len(json.dumps(_with_media(self.schema, _samples(self.schema or {}))))

    def whole(self, path: Mapping[str, str], body: Any) -> Case | None:
        """A valid case, or None where what was drawn cannot be made one."""
        if self.schema is None:
            return self.case(path, None, "valid: a name") if _is_name(path) else None
        kept = self._bounded(body)
        if not _is_sendable(kept) or self._problems(kept):
            return None
        names = ", ".join(sorted(_leaves(kept))) if isinstance(kept, dict) else ""
        return self.case(path, kept, f"valid: {names or 'nothing optional'}")

    def broken(self, path: Mapping[str, str], body: Any) -> Case | None:
        """A case that breaks the description, or None where what was drawn does not."""
        if self.schema is None:
            return replace(self.case(path, None, "a name that is none"), must_refuse=True) if _is_name(path) else None
        kept = self._bounded(body)
        fault = self._fault_of_bytes(kept) if isinstance(kept, bytes) else self._fault(kept)
        if fault is None or not (isinstance(kept, bytes) or _is_sendable(kept)):
            return None
        label, must_refuse = fault
        return replace(self.case(path, kept, label), must_refuse=must_refuse)

    def _bounded(self, body: Any) -> Any:
        """The body with its budgets kept and the run's model named, as far as it has places for them."""
        return _kept(self.schema, body) if isinstance(body, dict) and self.schema is not None else body

    def _problems(self, body: Any) -> list[Any]:
        """What the description has against a body."""
        from jsonschema import Draft202012Validator

        found = Draft202012Validator(self.schema or {}).iter_errors(body)
        return sorted(found, key=lambda error: [str(part) for part in error.absolute_path])

    def _fault(self, body: Any) -> tuple[str, bool] | None:
        """What is wrong with a body, and whether no reader may overlook it; None where nothing is."""
        problems = self._problems(body)
        if not problems:
            return None
        plain = [error for error in problems if self._is_plain(error)]
        error = (plain or problems)[0]
        place = ".".join(map(str, error.absolute_path)) or "the body"
        if error.validator == "required":
            text = f"{place} without {next(key for key in error.validator_value if key not in error.instance)}"
        else:
            text = f"{place} = {show(error.instance)}"
        return text[:_LABEL], bool(plain)

    def _fault_of_bytes(self, body: bytes) -> tuple[str, bool] | None:
        """The same of a body that is not JSON, unless by chance."""
        if self.operation.media_type != "application/json":
            return None
        try:
            return self._fault(json.loads(body))
        except ValueError:
            return "bytes that are not JSON", True

    def _is_plain(self, error: Any) -> bool:
        """Whether even a lenient reader sees this fault: it must read the field, and can make nothing of the value."""
        schema = self.schema or {}
        for part in error.absolute_path:
            inner = schema.get("properties", {}).get(part) if isinstance(part, str) else None
            if inner is None or (part not in schema.get("required", ()) and not inner.get("x-checked")):
                return False
            schema = inner
        if self.operation.media_type != "application/json" and error.absolute_path:
            return False  # a form's parts are texts, whatever they stand for
        if error.validator == "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            return any("x-subject" not in schema["properties"][key] for key in missing)
        return error.validator in ("type", "anyOf", "const", "enum") and not _could_pass(error.instance, _kinds(schema))

    def case(self, path: Mapping[str, Any], body: Any, label: str) -> Case:
        """The request itself."""
        filled = self.path
        for name, value in path.items():
            filled = filled.replace("{" + name + "}", quote(value, safe=""))
        sent, content_type = self._encoded(body)
        one = self.operation
        return Case(one.id, one.method, filled, one.at_root, one.version, sent, content_type, label)

    def _encoded(self, body: Any) -> tuple[bytes | None, str]:
        media_type = self.operation.media_type
        if self.schema is None:
            return None, "application/json"
        if isinstance(body, bytes):
            return body, media_type
        if media_type == "multipart/form-data":
            return _multipart(self.schema, body), f"{media_type}; boundary={BOUNDARY}"
        return json.dumps(_with_media(self.schema, body), ensure_ascii=False).encode(), media_type


def _draw(form: _Form, count: int, seed: int, *, broken: bool) -> list[tuple[dict[str, str], Any]]:
    """What schemathesis draws for an operation: values for the path's names, and a body; the same for the same seed."""
    import hypothesis
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.config import SchemathesisConfig
    from schemathesis.generation.feedback import FeedbackSources

    # Settings of its own: a schemathesis.toml in the user's folder must not change what is drawn.
    config = SchemathesisConfig()
    config.projects.default.generation.allow_x00 = False
    document = form.document()
    [path] = document["paths"]
    operation = schemathesis.openapi.from_dict(document, config=config)[path][form.operation.method]
    mode = schemathesis.GenerationMode.NEGATIVE if broken else schemathesis.GenerationMode.POSITIVE
    drawn: list[tuple[dict[str, str], Any]] = []

    # A seed of its own for each operation, lest all are asked the same.
    @hypothesis.seed(zlib.crc32(f"{seed} {form.operation.id}".encode()))
    @settings(
        max_examples=DRAWS_PER_CASE * (count + 2),
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode, feedback=FeedbackSources()))
    def collect(case: Any) -> None:
        drawn.append(({name: unquote(str(value)) for name, value in (case.path_parameters or {}).items()}, case.body))

    with _no_constants_of_programs():
        collect()
    return drawn


@contextmanager
def _no_constants_of_programs() -> Iterator[None]:
    """Keep Hypothesis from drawing the constants of whatever Python modules happen to be loaded.

    With them the same seed would give other requests in another program.
    """
    from hypothesis.internal.cache import LRUCache
    from hypothesis.internal.conjecture import providers
    from hypothesis.internal.constants_ast import Constants

    with (
        patch.object(providers, "_get_local_constants", Constants, create=True),
        patch.object(providers, "CONSTANTS_CACHE", LRUCache(1024), create=True),
    ):
        yield


def _filled(schema: Any, fixed: Mapping[str, str]) -> Any:
    """The schema with what the run fills in as constants, media as their file names."""
    if isinstance(schema, list):
        return [_filled(item, fixed) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("x-subject"), str):
        return {"type": "string", "const": fixed[schema["x-subject"]], "x-subject": schema["x-subject"]}
    if isinstance(schema.get("x-media"), str):
        return {"type": "string", "const": schema["x-media"], "x-media": schema["x-media"]}
    return {key: _filled(value, fixed) for key, value in schema.items()}


def _kept(schema: Mapping[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    kept = dict(body)
    for name, part in schema.get("properties", {}).items():
        value = kept.get(name)
        if "x-subject" in part and (name in kept or name in schema.get("required", ())):
            kept[name] = part["const"]
        elif "x-budget" in part and (value is None or (_is_number(value) and value > part["x-budget"])):
            kept[name] = part["x-budget"]
        elif isinstance(value, float) and part.get("type") == "integer" and value.is_integer():
            kept[name] = int(value)  # 5.0 is an integer in JSON Schema, but not in many a server's language
        elif isinstance(value, dict):
            kept[name] = _kept(part, value)
        elif value is None and name not in kept and _has_budget(part):
            kept[name] = _kept(part, {})
    return kept


def _is_name(path: Mapping[str, str]) -> bool:
    """Whether values can stand in a path as they are: dots alone would be taken for a way up, a slash for two names."""
    return all(value.strip(".") and "/" not in value for value in path.values())


def _is_sendable(body: Any) -> bool:
    """Whether a value can be written as JSON and as UTF-8."""
    try:
        return bool(json.dumps(body, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError):
        return False


def _samples(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A body of media alone."""
    found: dict[str, Any] = {}
    for name, part in schema.get("properties", {}).items():
        if "x-media" in part:
            found[name] = part["x-media"]
        elif "properties" in part:
            found[name] = _samples(part)
    return found


def _has_budget(schema: Mapping[str, Any]) -> bool:
    return any("x-budget" in part for part in schema.get("properties", {}).values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema takes."""
    if "anyOf" in schema:
        return set(chain.from_iterable(_kinds(option) for option in schema["anyOf"]))
    if "const" in schema:
        return {_kind(schema["const"])}
    kinds = schema.get("type", [])
    return {kinds} if isinstance(kinds, str) else set(kinds)


def _kind(value: Any) -> str:
    for types, name in ((bool, "boolean"), (int | float, "number"), (str, "string"), (dict, "object"), (list, "array")):
        if isinstance(value, types):
            return name
    return "null"


def _could_pass(value: Any, kinds: set[str]) -> bool:
    """Whether a lenient reader could make one of these types of a value.

    Numbers are read from texts and texts from numbers, a list is taken for a batch and a single thing for a
    list of one, and null for absent.
    """
    kind = _kind(value)
    if kind == "null" or kind in kinds or (kind == "number" and "integer" in kinds) or "array" in kinds:
        return kind != "object" or "object" in kinds
    if kind in ("object", "array"):
        return kind == "array" and "string" in kinds
    if kind == "string" and kinds <= {"number", "integer"}:
        return any(letter.isdigit() for letter in value) or not value.strip()
    return "object" not in kinds


def _leaves(body: Mapping[str, Any]) -> Iterator[str]:
    for name, value in body.items():
        if isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name


def _with_media(schema: Any, body: Any) -> Any:
    """The body with the bytes of media, as base64, where the schema names a file."""
    if isinstance(schema, dict) and "x-media" in schema and body == schema["x-media"]:
        return base64.b64encode(manifest.media(body)).decode()
    if isinstance(schema, dict) and isinstance(body, dict):
        parts = schema.get("properties", {})
        return {name: _with_media(parts.get(name), value) for name, value in body.items()}
    return body


def _multipart(schema: Mapping[str, Any], body: Any) -> bytes:
    """A form of parts (RFC 7578); what is no object has no parts, and what is no text goes as JSON."""
    parts = []
    for name, value in (body if isinstance(body, dict) else {}).items():
        part = schema.get("properties", {}).get(name, {})
        head = f'Content-Disposition: form-data; name="{quote(str(name), safe=" ")}"'
        if "x-media" in part and value == part["x-media"]:
            head += f'; filename="{value}"\r\nContent-Type: {manifest.media_type(value)}'
            data = manifest.media(value)
        else:
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
