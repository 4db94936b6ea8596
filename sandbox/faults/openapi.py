"""Faults that only generated requests bring out, in families that have an OpenAPI description; and legal oddities.

They look at the whole of a request and not at its purpose: control characters, very short texts and wholly
wrong parameters are what requests written by hand never hold.
"""

from __future__ import annotations

import json
import re
from typing import Any

from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import Frame, Kind, Stage, Turn

SUBJECTS = ("acme/text-classification=text-classification@serverless",)
TASK = {Kind.TASK}
CONTROL = re.compile(rb"\\u00[01][0-9a-f]|\\[bfnrt]|\xc2[\x80-\x9f]")
"""A control character in JSON, escaped or as UTF-8."""
SHORT = 3


def _body(turn: Turn) -> Any:
    try:
        return json.loads(turn.raw)
    except ValueError:
        return None


def _is_short(turn: Turn) -> bool:
    """Whether the input is a text of few characters, but not empty."""
    inputs = turn.body.get("inputs")
    return isinstance(inputs, str) and 0 < len(inputs) <= SHORT


@fault("openapi.control_characters_crash", caught_by={"openapi.no_5xx"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def control_characters_crash(turn: Turn) -> None:
    """A control character in a text cannot be written into the log."""
    turn.crash = CONTROL.search(turn.raw) is not None


@fault("openapi.hangs_up_on_garbage", caught_by={"openapi.no_5xx"}, at=Stage.HEAD, subjects=SUBJECTS)
def hangs_up_on_garbage(turn: Turn) -> None:
    """Bytes that are no UTF-8 kill the worker."""
    try:
        turn.raw.decode()
    except UnicodeDecodeError:
        if turn.request_headers.get("content-type") == "application/json":
            turn.frames = [Frame(b"{"), Frame(b"}")]
            turn.abort_after_frame = 1


@fault("openapi.short_is_accepted", caught_by={"openapi.status_documented"}, at=Stage.HEAD, on=TASK, subjects=SUBJECTS)
def short_is_accepted(turn: Turn) -> None:
    """A very short text is answered with 202."""
    if _is_short(turn):
        turn.status = 202


@fault("openapi.short_is_plain_text", caught_by={"openapi.content_type"}, at=Stage.HEAD, on=TASK, subjects=SUBJECTS)
def short_is_plain_text(turn: Turn) -> None:
    """The answer to a very short text is said to be plain text."""
    if _is_short(turn):
        turn.headers["content-type"] = "text/plain; charset=utf-8"


@fault(
    "openapi.short_has_no_scores", caught_by={"openapi.response_shape"}, at=Stage.PAYLOAD, on=TASK, subjects=SUBJECTS
)
def short_has_no_scores(turn: Turn) -> None:
    """The answer to a very short text has labels alone."""
    if _is_short(turn) and isinstance(turn.payload, list):
        turn.payload = [[{"label": item["label"]} for item in row] for row in turn.payload]


@fault(
    "openapi.wrong_parameters_overlooked", caught_by={"openapi.invalid_refused"}, at=Stage.ARRIVAL, subjects=SUBJECTS
)
def wrong_parameters_overlooked(turn: Turn) -> None:
    """Parameters that are no object are taken for none."""
    body = _body(turn)
    if isinstance(body, dict) and not isinstance(body.get("parameters", {}), dict):
        del body["parameters"]
        turn.raw = json.dumps(body).encode()


@variation("openapi.lenient", at=Stage.ARRIVAL, subjects=SUBJECTS)
def lenient(turn: Turn) -> None:
    """Numbers are read from texts and texts from numbers, null is absent, and unknown words are overlooked."""
    body = _body(turn)
    if not isinstance(body, dict):
        return
    if isinstance(body.get("inputs"), bool | int | float):
        body["inputs"] = str(body["inputs"])
    if isinstance(body.get("parameters"), dict):
        given = {name: value for name, value in body["parameters"].items() if value is not None}
        if isinstance(given.get("top_k"), bool | float):
            given["top_k"] = int(given["top_k"])
        if given.get("function_to_apply") not in ("sigmoid", "softmax", "none"):
            given.pop("function_to_apply", None)
        body["parameters"] = given
    turn.raw = json.dumps(body).encode()


@variation("openapi.refuses_much", at=Stage.ARRIVAL, subjects=SUBJECTS)
def refuses_much(turn: Turn) -> None:
    """A server may refuse what the description allows: here every text of few characters."""
    body = _body(turn)
    if isinstance(body, dict) and isinstance(body.get("inputs"), str) and len(body["inputs"]) <= SHORT:
        turn.raw = json.dumps({**body, "inputs": ""}).encode()


@variation("openapi.refuses_with_422", at=Stage.HEAD, on={Kind.ERROR}, subjects=SUBJECTS)
def refuses_with_422(turn: Turn) -> None:
    """Wrong requests may be answered with 422 as well as with 400."""
    if turn.status == 400:
        turn.status = 422
