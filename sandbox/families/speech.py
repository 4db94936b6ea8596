"""Speech of a text, over the OpenAI-compatible route: a tone for each character, in each of the formats."""

from __future__ import annotations

from roadworthy.sandbox import media
from roadworthy.sandbox.models import task_model
from roadworthy.sandbox.routes import Server, known, parse, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn
from roadworthy.sandbox.validation import is_number

TASK = "text-to-speech"
DEFAULT_FORMAT = "mp3"
LONGEST_INPUT = 4096
SLOWEST, FASTEST = 0.25, 4.0


@route("POST", "/v1/audio/speech")
def speech(turn: Turn, server: Server) -> None:
    """The sound of one text."""
    turn.body = parse(turn.raw)
    known(turn, turn.body.get("model"), [task_model(TASK)])
    text, format, speed = turn.body.get("input"), turn.body.get("response_format"), turn.body.get("speed")
    if "input" not in turn.skip and not (isinstance(text, str) and text.strip() and len(text) <= LONGEST_INPUT):
        raise ApiError(400, f"`input` must be a text of 1 to {LONGEST_INPUT:,} characters", param="input")
    if "response_format" not in turn.skip and format is not None and format not in media.CONTENT_TYPES:
        names = ", ".join(media.CONTENT_TYPES)
        raise ApiError(400, f"`response_format` must be one of {names}", param="response_format")
    if "speed" not in turn.skip and speed is not None and not (is_number(speed) and SLOWEST <= speed <= FASTEST):
        raise ApiError(400, f"`speed` must be a number from {SLOWEST} to {FASTEST}", param="speed")
    if turn.body.get("voice") is not None and not isinstance(turn.body["voice"], str):
        raise ApiError(400, "`voice` must be a string", param="voice")
    turn.kind = Kind.SPEECH
    server.mutate(Stage.REQUEST, turn)
    format = turn.body.get("response_format")
    if format not in media.CONTENT_TYPES:
        format = DEFAULT_FORMAT
    server.mutate(Stage.ANSWER, turn)
    speed = turn.body.get("speed") or 1.0
    turn.payload = media.sound(str(turn.body.get("input") or ""), format, min(FASTEST, max(SLOWEST, speed)))
    turn.headers["content-type"] = media.CONTENT_TYPES[format]
