"""The routes of the sandbox: each family of APIs declares its own, in a module of `families/`."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Protocol

from roadworthy.sandbox.turn import ApiError, Stage, Turn


class ErrorForm(StrEnum):
    """How a family writes its errors.

    OPENAI   {"error": {"message", "type", "param", "code"}}
    TEXT     {"error": "..."}, as the hub's task routes do
    TGI      {"error": "...", "error_type": "..."}, as the text-generation server does
    STATUS   {"statusCode": 404, "error": "..."}, as the management of endpoints does
    """

    OPENAI = "openai"
    TEXT = "text"
    TGI = "tgi"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Options:
    """How the sandbox serves. Delays in seconds; no key means that none is asked for."""

    models: tuple[str, ...] = ("acme/chat-1", "acme/chat-2")
    api_key: str | None = None
    request_id_header: str = "Inference-Id"
    first_token_delay_s: float = 0.0
    token_delay_s: float = 0.0
    context_length: int = 32_768
    all_tasks: bool = False
    """Whether `/models` lists the models of every other task too; they are served in any case."""


class Server(Protocol):
    """What a handler may use of the sandbox: its options, its memory, and the faults at work."""

    options: Options
    started: int
    memory: dict[str, Any]

    def mutate(self, stage: Stage, turn: Turn) -> None:
        """Let the faults and variations of this stage at the turn."""


Handler = Callable[[Turn, Server], None]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    errors: ErrorForm
    auth: bool


ROUTES: list[Route] = []


def route(
    method: str, path: str, *, errors: ErrorForm = ErrorForm.OPENAI, auth: bool = True
) -> Callable[[Handler], Handler]:
    """Declare a handler. `{name}` in the path matches one segment, `{name:path}` any number of them."""
    pattern = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", path)
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)

    def declare(handler: Handler) -> Handler:
        ROUTES.append(Route(method, re.compile(pattern), handler, errors, auth))
        return handler

    return declare


@cache
def load() -> tuple[Route, ...]:
    """Every route, in order of the families' names."""
    from roadworthy.sandbox import families

    for module in sorted(info.name for info in pkgutil.iter_modules(families.__path__)):
        importlib.import_module(f"{families.__name__}.{module}")
    return tuple(ROUTES)


def find(path: str) -> list[tuple[Route, dict[str, str]]]:
    """The routes that a path matches, those first that name more of it, with what their parts stand for."""
    found = [(route, match) for route in load() if (match := route.pattern.fullmatch(path))]
    found.sort(key=lambda pair: sum(map(len, pair[1].groups())))
    return [(route, match.groupdict()) for route, match in found]


def parse(raw: bytes) -> dict[str, Any]:
    """A request's JSON object. Raises `ApiError` (400) for anything else."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, f"the body must be a JSON object, got {type(body).__name__}")
    return body


def known(turn: Turn, model: Any, models: Iterable[str]) -> None:
    """Raise `ApiError` (404) for a model that is not served."""
    if model not in models and "model" not in turn.skip:
        raise ApiError(404, f"the model {str(model)[:200]!r} does not exist", code="model_not_found", param="model")
