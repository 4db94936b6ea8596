"""Our OpenAPI descriptions of each family's routes: `schemas/openapi/*.json`, read and narrowed to one task.

A description is one document for any tool; it refers to our other schemas by relative paths. `bundled`
gives it whole, `operations` gives what a run needs of it: one operation each, its request and its answers.
"""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from roadworthy.schemas import BASE, load

FOLDER = "openapi"
COMPONENTS = "#/components/schemas/"
BASE_PATH = "/v1"
"""The path that base URLs end in."""
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as one task sees it.

    `path` has its `{names}`; `parameters` gives the schema of each. It stands below the base URL or, `at_root`,
    beside its /v1; `version` is what stands between, unless the base URL ends in it. `request` is whole: it refers
    to nothing outside itself. `answers` gives per status, and per media type (or range, "image/*"), the schema's
    name for `schemas.problem`; an empty name leaves the form open.
    """

    id: str
    method: str
    path: str
    at_root: bool
    version: str
    parameters: Mapping[str, dict[str, Any]]
    media_type: str = ""
    request: dict[str, Any] | None = None
    answers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def documents(self, status: int) -> bool:
        """Whether the description knows this status."""
        return str(status) in self.answers

    def schema(self, status: int, media_type: str) -> str | None:
        """The name of the schema for an answer of this kind, empty where any form will do; None: not documented."""
        content = self.answers.get(str(status), {})
        for pattern, name in content.items():
            if pattern == media_type or (pattern.endswith("/*") and media_type.startswith(pattern[:-1])):
                return name
        return None


@cache
def names() -> tuple[str, ...]:
    """Every description, in order of its name."""
    folder = resources.files(__package__).joinpath(FOLDER)
    return tuple(sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")))


def bundled(name: str) -> dict[str, Any]:
    """A description in which every reference leads into itself. Raises `KeyError` where there is none of this name."""
    bundle = _Bundle()
    document: dict[str, Any] = bundle.rewrite(copy.deepcopy(load(f"{FOLDER}/{name}.json")), f"{FOLDER}/{name}.json")
    document["components"]["schemas"].update(bundle.taken)
    return document


@cache
def operations(name: str, task: str) -> tuple[Operation, ...]:
    """The operations of a description that serve a task; none where there is no such description."""
    if name not in names():
        return ()
    return tuple(_operations(name, task))


@cache
def operation(name: str, task: str, id: str) -> Operation | None:
    """One operation by its id, or None where the task has none of this id."""
    return next((one for one in operations(name, task) if one.id == id), None)


def _operations(name: str, task: str) -> Iterator[Operation]:
    document = bundled(name)
    base = document["servers"][0]["url"]
    for path, item in document["paths"].items():
        for method, declared in item.items():
            if method not in METHODS or declared.get("x-task", task) != task:
                continue
            pointer = f"{FOLDER}/{name}.json#/paths/{path.replace('~', '~0').replace('/', '~1')}/{method}"
            body = declared.get("requestBody", {}).get("content", {})
            media_type = next(iter(body), "")
            request = _narrowed(body[media_type]["schema"], task) if media_type else None
            if media_type and request is None:
                continue
            yield Operation(
                id=declared["operationId"],
                method=method.upper(),
                path=path,
                at_root=base != BASE_PATH,
                version=base.rstrip("/") if base != BASE_PATH else "",
                parameters={one["name"]: one["schema"] for one in declared.get("parameters", ())},
                media_type=media_type,
                request=request and _whole(request, document),
                answers=dict(_answers(document, declared, task, pointer, name)),
            )


def _answers(
    document: dict[str, Any], declared: dict[str, Any], task: str, pointer: str, name: str
) -> Iterator[tuple[str, dict[str, str]]]:
    for status, answer in declared["responses"].items():
        found, at = answer, f"{pointer}/responses/{status}"
        if "$ref" in answer:
            found = _at(document, answer["$ref"])
            at = f"{FOLDER}/{name}.json{answer['$ref']}"
        content = {}
        for media_type, shown in found.get("content", {}).items():
            schema = _narrowed(shown["schema"], task)
            if schema is None:
                continue
            here = f"{at}/content/{media_type.replace('/', '~1')}/schema"
            is_json = media_type in ("application/json", "text/event-stream")
            chosen = _component(name, schema) if schema is not shown["schema"] else here
            content[media_type] = chosen if is_json else ""
        yield status, content


def _component(name: str, schema: dict[str, Any]) -> str:
    return f"{FOLDER}/{name}.json{schema['$ref']}"


def _narrowed(schema: dict[str, Any], task: str) -> dict[str, Any] | None:
    """Of alternatives that are named by tasks, this task's own, or None where it has none; anything else as it is."""
    options = schema.get("anyOf", ())
    if not options or not all("$ref" in option for option in options):
        return schema
    mine = [option for option in options if option["$ref"].removeprefix(COMPONENTS).startswith(f"{task}.")]
    return mine[0] if mine else None


def _whole(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A schema with every reference replaced by what it leads to; none of ours leads to itself."""

    def follow(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return follow(_at(document, value["$ref"]))
            return {key: follow(item) for key, item in value.items()}
        return [follow(item) for item in value] if isinstance(value, list) else value

    whole: dict[str, Any] = follow(schema)
    return whole


def _at(document: Any, pointer: str) -> Any:
    for part in pointer.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


class _Bundle:
    """Takes in the files that a description refers to, as components of their own."""

    def __init__(self) -> None:
        self.taken: dict[str, Any] = {}

    def rewrite(self, value: Any, file: str) -> Any:
        """The same value with its references leading into the bundle; `file` is where it stands."""
        if isinstance(value, list):
            return [self.rewrite(item, file) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: self._reference(item, file) if key == "$ref" else self.rewrite(item, file)
            for key, item in value.items()
            if key not in ("$id", "$schema")
        }

    def _reference(self, reference: str, file: str) -> str:
        path, _, pointer = reference.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), path.removeprefix(BASE))) if path else file
        if target.startswith(f"{FOLDER}/"):
            return f"#{pointer}"
        key = target.replace("/", ".")
        if key not in self.taken:
            self.taken[key] = {}
            self.taken[key] = self.rewrite(copy.deepcopy(load(target)), target)
        return f"{COMPONENTS}{key}{pointer}"
