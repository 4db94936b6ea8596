"""JSON Schemas (2020-12) of every wire format and task, and one small loader.

The files are plain data under one base URL, referring to each other by relative
paths; any language can read them. Nothing is loaded before it is asked for.
jsonschema-rs judges, since it is fast; where it finds a fault, jsonschema, which
names the exact place inside alternatives, explains it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

BASE = "https://roadworthy.dev/schemas/v1/"
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """Where a value breaks its schema: a JSON pointer, what was expected there, and what came."""

    pointer: str
    expected: str
    got: str


@cache
def load(name: str) -> dict[str, Any]:
    """The schema file of this name ("openai/error.json"). Raises `KeyError` where there is none."""
    file = resources.files(__package__).joinpath(*name.split("/"))
    if ".." in name or not name.endswith(".json") or not file.is_file():
        raise KeyError(f"there is no schema {name!r}")
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


def is_valid(name: str, value: Any) -> bool:
    """Whether a value meets the schema of this name; a pointer may follow ("openapi/tgi.json#/components/...")."""
    return bool(_fast(name).is_valid(value))


def problem(name: str, value: Any) -> Problem | None:
    """The first and deepest fault of a value against the schema of this name, or None."""
    if is_valid(name, value):
        return None
    from jsonschema.exceptions import best_match

    error = best_match(_thorough(name).iter_errors(value))
    if error is None:
        return Problem("", f"a value that meets {name}", _show(value))
    pointer = "".join(f"/{part}" for part in error.absolute_path)
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return Problem(f"{pointer}/{missing}", "present", "absent")
    if error.validator == "type":
        kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        return Problem(pointer, " or ".join(kinds), _show(error.instance))
    return Problem(pointer, f"{error.validator} {_show(error.validator_value)}", _show(error.instance))


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


@cache
def _fast(name: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(_schema(name), retriever=_retrieve)


@cache
def _thorough(name: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    registry: Any = Registry(retrieve=lambda uri: DRAFT202012.create_resource(_retrieve(uri)))  # type: ignore[call-arg]
    return Draft202012Validator(_schema(name), registry=registry)


def _schema(name: str) -> dict[str, Any]:
    # Pointers into the paths of an API description hold braces, which a URI must not.
    return {"$ref": BASE + quote(name, safe="/#~")} if "#" in name else load(name)


def _retrieve(uri: str) -> Any:
    return load(uri.removeprefix(BASE))
