"""The hub's own task routes: a model's, a task's, and both."""

from __future__ import annotations

from typing import Any

from roadworthy.sandbox import tasks
from roadworthy.sandbox.families.chat import converse
from roadworthy.sandbox.models import task_model, task_of
from roadworthy.sandbox.routes import ErrorForm, Server, parse, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn
from roadworthy.schemas import load, problem

LOADING_S = 0.05


@route("POST", "/models/{owner}/{name}", errors=ErrorForm.TEXT)
def model(turn: Turn, server: Server) -> None:
    """One model, asked for its own task."""
    _answer(turn, server, f"{turn.parts['owner']}/{turn.parts['name']}")


@route("POST", "/models/{owner}/{name}/pipeline/{task}", errors=ErrorForm.TEXT)
@route("POST", "/models/{owner}/{name}/{task}", errors=ErrorForm.TEXT)
def model_for_task(turn: Turn, server: Server) -> None:
    """One model, asked for a task by name."""
    name = f"{turn.parts['owner']}/{turn.parts['name']}"
    if task_of(name) != turn.parts["task"] and "task" not in turn.skip:
        raise ApiError(400, f"the model {name!r} does not do {turn.parts['task']}")
    _answer(turn, server, name)


@route("POST", "/pipeline/{task}", errors=ErrorForm.TEXT)
def pipeline(turn: Turn, server: Server) -> None:
    """The recommended model of a task."""
    _answer(turn, server, task_model(turn.parts["task"]))


@route("POST", "/models/{owner}/{name}/v1/chat/completions")
def chat(turn: Turn, server: Server) -> None:
    """A model that is asked by chat below its own route."""
    name = f"{turn.parts['owner']}/{turn.parts['name']}"
    converse(turn, server, [name] if task_of(name) == "image-text-to-text" else server.options.models)
    turn.kind = Kind.STREAM if turn.kind is Kind.STREAM else Kind.TASK


def _answer(turn: Turn, server: Server, model: str) -> None:
    task = task_of(model)
    if task not in tasks.MODELS:
        raise ApiError(404, f"the model {model!r} does not exist")
    turn.kind = Kind.TASK
    if turn.request_headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        turn.body = parse(turn.raw)
    else:
        turn.body = {tasks.RAW: turn.raw}
    _load(turn, server, model)
    _check_parameters(task, turn.body, lenient="inputs" in turn.skip)
    server.mutate(Stage.REQUEST, turn)
    asked = tasks.Asked(turn.body, lenient="inputs" in turn.skip)
    turn.payload = tasks.MODELS[task](asked)
    turn.headers["content-type"] = tasks.content_type(task)


def _check_parameters(task: str, body: dict[str, Any], *, lenient: bool) -> None:
    """Raise `ApiError` (400) for parameters that the task's published specification does not allow.

    With `lenient`, those that the task cannot do without are taken as they are.
    """
    found, form = body.get("parameters"), f"tasks/{task}/input.json"
    known = load(form).get("properties", {}).get("parameters")
    wrong = problem(f"{form}#/properties/parameters", found) if known and found is not None else None
    if wrong is not None and not (lenient and wrong.pointer.strip("/") in known.get("required", ())):
        place = f"parameters{wrong.pointer.replace('/', '.')}"
        raise ApiError(400, f"`{place}` must be {wrong.expected}, got {wrong.got}", param=place)


def _load(turn: Turn, server: Server, model: str) -> None:
    """A cold model answers 503 once, except to who waits for it."""
    warm = server.memory.setdefault("warm", set())
    options = turn.body.get("options")
    waits = isinstance(options, dict) and options.get("wait_for_model") is True and "wait_for_model" not in turn.skip
    if turn.cold and (model not in warm or "wait_for_model" in turn.skip) and not waits:
        warm.add(model)
        extra = {} if "estimated_time" in turn.skip else {"estimated_time": LOADING_S}
        raise ApiError(503, f"Model {model} is currently loading", extra=extra)
