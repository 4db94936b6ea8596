"""Faults of refusals."""

from __future__ import annotations

import json
from typing import Any

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

ERROR = {Kind.ERROR}


def _sent(turn: Turn) -> dict[str, Any]:
    """The request's body, as far as it is a JSON object."""
    try:
        body = json.loads(turn.raw)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _generated(turn: Turn) -> bool:
    """Whether the request is one of the property-based leg, which has faults of its own."""
    return "roadworthy-case" in turn.request_headers


def _resend(turn: Turn, **changes: Any) -> None:
    turn.raw = json.dumps({**_sent(turn), **changes}).encode()


HELLO = [{"role": "user", "content": "Say hello."}]


# Keys


@fault("errors.no_key_needed", caught_by={"errors.no_key"}, at=Stage.ARRIVAL)
def no_key_needed(turn: Turn) -> None:
    """Requests without a key are served."""
    if "authorization" not in turn.request_headers:
        turn.skip.add("auth")


@fault("errors.any_key_serves", caught_by={"errors.wrong_key"}, at=Stage.ARRIVAL)
def any_key_serves(turn: Turn) -> None:
    """Any key is served."""
    if "authorization" in turn.request_headers:
        turn.skip.add("auth")


@fault("errors.wrong_key_403", caught_by={"errors.wrong_key"}, at=Stage.HEAD, on=ERROR)
def wrong_key_403(turn: Turn) -> None:
    """A wrong key gets 403."""
    if turn.status == 401 and "authorization" in turn.request_headers:
        turn.status = 403


@fault("errors.wrong_key_crashes", caught_by={"errors.no_5xx"}, at=Stage.HEAD, on=ERROR)
def wrong_key_crashes(turn: Turn) -> None:
    """A wrong key makes the server fail."""
    if turn.status == 401 and "authorization" in turn.request_headers:
        turn.status = 500


@fault("errors.key_echoed", caught_by={"errors.key_not_echoed"}, at=Stage.PAYLOAD, on=ERROR)
def key_echoed(turn: Turn) -> None:
    """The error repeats the key it was shown."""
    if turn.status == 401:
        turn.payload["error"]["message"] = f"unknown key {turn.request_headers.get('authorization')}"


# Cases


@fault("errors.default_model", caught_by={"errors.unknown_model.refused"}, at=Stage.ARRIVAL)
def default_model(turn: Turn) -> None:
    """An unknown model is answered by the default one."""
    if _sent(turn).get("model") == "roadworthy/no-such-model":
        _resend(turn, model="acme/chat-1")


@fault("errors.unknown_model_400", caught_by={"errors.unknown_model.status"}, at=Stage.HEAD, on=ERROR)
def unknown_model_400(turn: Turn) -> None:
    """An unknown model gets 400."""
    if turn.status == 404 and turn.method == "POST":
        turn.status = 400


@fault("errors.unknown_model_crashes", caught_by={"errors.no_5xx"}, at=Stage.HEAD, on=ERROR)
def unknown_model_crashes(turn: Turn) -> None:
    """An unknown model makes the server fail."""
    if turn.status == 404 and turn.method == "POST":
        turn.status = 500


@fault("errors.no_messages_answered", caught_by={"errors.no_messages"}, at=Stage.ARRIVAL)
def no_messages_answered(turn: Turn) -> None:
    """A request without messages is answered."""
    body = _sent(turn)
    if "model" in body and "messages" not in body and not _generated(turn):
        _resend(turn, messages=HELLO)


@fault("errors.no_messages_crashes", caught_by={"errors.no_5xx", "errors.no_trace"}, at=Stage.PAYLOAD, on=ERROR)
def no_messages_crashes(turn: Turn) -> None:
    """A request without messages makes the server fail, with its traceback in the body."""
    if turn.status == 400 and "model" in _sent(turn) and "messages" not in _sent(turn) and not _generated(turn):
        turn.status = 500
        trace = 'Traceback (most recent call last):\n  File "/srv/app/server.py", line 88, in chat\nKeyError: messages'
        turn.payload["error"]["message"] = trace


@fault("errors.trace_shown", caught_by={"errors.no_trace"}, at=Stage.PAYLOAD, on=ERROR)
def trace_shown(turn: Turn) -> None:
    """Refusals name the line that refused."""
    turn.payload["error"]["message"] += ' (File "/srv/app/validate.py", line 12)'


@fault("errors.empty_messages_streamed", caught_by={"errors.empty_messages"}, at=Stage.HEAD, on=ERROR)
def empty_messages_streamed(turn: Turn) -> None:
    """An error of a streamed request is told inside a stream, under 200."""
    if _sent(turn).get("stream") and _sent(turn).get("messages") == []:
        turn.status = 200
        turn.headers["content-type"] = "text/event-stream"
        turn.frames = [Frame(b"data: " + turn.frames[0].data + b"\n\n"), Frame(b"data: [DONE]\n\n")]


@fault("errors.wrong_type_answered", caught_by={"errors.wrong_type"}, at=Stage.ARRIVAL)
def wrong_type_answered(turn: Turn) -> None:
    """Messages as a string are taken for one message."""
    if isinstance(_sent(turn).get("messages"), str) and not _generated(turn):
        _resend(turn, messages=HELLO)


@fault("errors.wrong_role_dropped", caught_by={"errors.wrong_role"}, at=Stage.ARRIVAL)
def wrong_role_dropped(turn: Turn) -> None:
    """Messages of an unknown role are dropped."""
    if b'"robot"' in turn.raw:
        _resend(turn, messages=HELLO)


@fault("errors.range_clamped", caught_by={"errors.out_of_range"}, at=Stage.ARRIVAL)
def range_clamped(turn: Turn) -> None:
    """A negative temperature is taken for zero."""
    if _sent(turn).get("temperature") == -1:
        _resend(turn, temperature=0)


@fault("errors.malformed_json_answered", caught_by={"errors.malformed_json"}, at=Stage.ARRIVAL)
def malformed_json_answered(turn: Turn) -> None:
    """A body that breaks off is answered as far as it goes."""
    if turn.raw.endswith(b'"content"'):
        turn.raw = json.dumps({"model": "acme/chat-1", "messages": HELLO}).encode()


@fault("errors.malformed_json_crashes", caught_by={"errors.no_5xx"}, at=Stage.ARRIVAL)
def malformed_json_crashes(turn: Turn) -> None:
    """A body that breaks off makes the server fail."""
    turn.crash = turn.raw.endswith(b'"content"')


@fault("errors.get_answered", caught_by={"errors.method"}, at=Stage.HEAD, on=ERROR)
def get_answered(turn: Turn) -> None:
    """GET on the chat route gets 200 and a greeting."""
    if turn.status == 405:
        turn.status = 200


@fault("errors.prompt_cut", caught_by={"errors.too_long"}, at=Stage.ARRIVAL)
def prompt_cut(turn: Turn) -> None:
    """A prompt that is too long is cut in silence."""
    turn.skip.add("context")


@fault("errors.prompt_crashes", caught_by={"errors.no_5xx"}, at=Stage.HEAD, on=ERROR)
def prompt_crashes(turn: Turn) -> None:
    """A prompt that is too long makes the server fail."""
    if turn.payload["error"]["code"] == "context_length_exceeded":
        turn.status = 502


@fault("errors.extra_field_refused", caught_by={"errors.extra_field"}, at=Stage.REQUEST)
def extra_field_refused(turn: Turn) -> None:
    """Unknown fields are refused."""
    if "x_roadworthy_unknown" in turn.body:
        raise ApiError(422, "extra fields are not permitted", param="x_roadworthy_unknown")


# Every error


@fault("errors.html", caught_by={"errors.json"}, at=Stage.HEAD, on=ERROR)
def html(turn: Turn) -> None:
    """Errors are web pages of the proxy."""
    turn.headers["content-type"] = "text/html"
    turn.frames = [Frame(b"<html><body><h1>Bad Request</h1></body></html>")]


@fault("errors.text", caught_by={"errors.json"}, at=Stage.HEAD, on=ERROR)
def text(turn: Turn) -> None:
    """Errors are plain text."""
    turn.headers["content-type"] = "text/plain"
    turn.frames = [Frame(b"Bad Request")]


@fault("errors.empty", caught_by={"errors.json"}, at=Stage.FRAMES, on=ERROR)
def empty(turn: Turn) -> None:
    """Errors have an empty body."""
    turn.frames = []


@fault("errors.label_missing", caught_by={"errors.json"}, at=Stage.HEAD, on=ERROR)
def label_missing(turn: Turn) -> None:
    """Errors have no content type."""
    del turn.headers["content-type"]


@fault("errors.detail_list", caught_by={"errors.readable"}, at=Stage.PAYLOAD, on=ERROR)
def detail_list(turn: Turn) -> None:
    """Errors are the framework's list of details."""
    turn.payload = {"detail": [{"loc": ["body", "messages"], "msg": turn.payload["error"]["message"], "type": "x"}]}


@fault("errors.message_empty", caught_by={"errors.readable"}, at=Stage.PAYLOAD, on=ERROR)
def message_empty(turn: Turn) -> None:
    """The message of errors is empty."""
    turn.payload["error"]["message"] = ""


@fault("errors.string", caught_by={"errors.shape"}, at=Stage.PAYLOAD, on=ERROR)
def string(turn: Turn) -> None:
    """`error` is a string."""
    turn.payload = {"error": turn.payload["error"]["message"]}


@fault("errors.bare_message", caught_by={"errors.shape"}, at=Stage.PAYLOAD, on=ERROR)
def bare_message(turn: Turn) -> None:
    """The message stands at the root."""
    turn.payload = {"message": turn.payload["error"]["message"]}


_limited: set[str] = set()


@fault("errors.retry_after_missing", caught_by={"errors.retry_after"}, at=Stage.HEAD, on={Kind.CHAT})
def retry_after_missing(turn: Turn) -> None:
    """One question is told to wait, and not how long."""
    who = turn.request_headers.get("x-run", "") + turn.request_headers.get("host", "")
    if "code word" in str(turn.body["messages"]) and who not in _limited:
        _limited.add(who)
        turn.status = 429
        turn.headers["x-limited"] = "1"
