"""Faults of the task routes themselves."""

from __future__ import annotations

from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import Kind, Stage, Turn

CLASSIFICATION = ("acme/text-classification=text-classification@serverless",)
BOTH = (*CLASSIFICATION, "acme/text-to-image=text-to-image@serverless")
TASK = {Kind.TASK}


@fault(
    "serverless.pipeline_wrapped",
    caught_by={"serverless.pipeline_route"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=CLASSIFICATION,
)
def pipeline_wrapped(turn: Turn) -> None:
    """The task's route wraps its answer."""
    if turn.path.startswith("/pipeline/"):
        turn.payload = {"results": turn.payload}


@fault(
    "serverless.task_route_labelled",
    caught_by={"serverless.task_route"},
    at=Stage.HEAD,
    on=TASK,
    subjects=("acme/text-to-image=text-to-image@serverless",),
)
def task_route_labelled(turn: Turn) -> None:
    """The model's route with the task's name sends a picture as text."""
    if "task" in turn.parts and turn.path.startswith("/models/"):
        turn.headers["content-type"] = "text/plain"


@fault(
    "serverless.any_model",
    caught_by={"serverless.unknown_model"},
    at=Stage.ARRIVAL,
    subjects=CLASSIFICATION,
)
def any_model(turn: Turn) -> None:
    """A model that does not exist is answered by another."""
    turn.path = turn.path.replace("/models/roadworthy/no-such-model", "/models/acme/text-classification")


@fault(
    "serverless.error_objects", caught_by={"serverless.error_text"}, at=Stage.PAYLOAD, on={Kind.ERROR}, subjects=BOTH
)
def error_objects(turn: Turn) -> None:
    """Errors are objects, which the client shows as "[object Object]"."""
    turn.payload = {"error": {"message": turn.payload["error"]}}


@fault(
    "serverless.errors_empty",
    caught_by={"errors.readable"},
    at=Stage.PAYLOAD,
    on={Kind.ERROR},
    subjects=BOTH,
)
def errors_empty(turn: Turn) -> None:
    """Errors have no text."""
    turn.payload = {"error": ""}


@fault(
    "serverless.loading_untold",
    caught_by={"serverless.loading"},
    at=Stage.ARRIVAL,
    subjects=CLASSIFICATION,
)
def loading_untold(turn: Turn) -> None:
    """A loading model does not say how long it needs."""
    turn.cold = True
    turn.skip.add("estimated_time")


@fault(
    "serverless.wait_ignored",
    caught_by={"serverless.wait_for_model"},
    at=Stage.ARRIVAL,
    subjects=CLASSIFICATION,
)
def wait_ignored(turn: Turn) -> None:
    """`wait_for_model` is ignored, and its caller told to come back."""
    if b"wait_for_model" in turn.raw:
        turn.cold = True
        turn.skip.add("wait_for_model")


@variation(
    "serverless.cold",
    at=Stage.ARRIVAL,
    subjects=BOTH,
)
def cold(turn: Turn) -> None:
    """A model may have to be loaded first, if it says how long."""
    turn.cold = True


@variation(
    "serverless.no_pipelines",
    at=Stage.ARRIVAL,
    subjects=CLASSIFICATION,
)
def no_pipelines(turn: Turn) -> None:
    """The routes of tasks need not be offered."""
    if turn.path.startswith("/pipeline/"):
        turn.path = "/models/acme/nothing"


@variation("serverless.optional_routes_refused", at=Stage.ARRIVAL, subjects=CLASSIFICATION)
def optional_routes_refused(turn: Turn) -> None:
    """Routes that are not offered may be refused with 400 as well."""
    if turn.path.startswith("/pipeline/"):
        turn.raw = b"{}"
