"""A turn: one request on its way through the sandbox, and what each stage made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a turn answers."""

    CHAT = "chat"
    STREAM = "stream"
    COMPLETION = "completion"
    COMPLETION_STREAM = "completion_stream"
    EMBEDDINGS = "embeddings"
    IMAGES = "images"
    TRANSCRIPTION = "transcription"
    SPEECH = "speech"
    RESPONSE = "response"
    RESPONSE_STREAM = "response_stream"
    TASK = "task"
    GENERATE = "generate"
    GENERATE_STREAM = "generate_stream"
    SERVER = "server"
    ENDPOINT = "endpoint"
    JOB = "job"
    COSTS = "costs"
    MODELS = "models"
    MODEL = "model"
    ERROR = "error"

    @property
    def streams(self) -> bool:
        """Whether it is answered by server-sent events."""
        return self.value.endswith("stream")


class Stage(StrEnum):
    """The places where a fault or a variation may change a turn, in order.

    ARRIVAL  before anything is looked at; `turn.skip` may switch off a guard
    REQUEST  the parsed, valid body, before it is answered (here a parameter can be ignored)
    ANSWER   `turn.choices`, `turn.usage`: what the model says, free of any wire format
    PAYLOAD  `turn.payload`: the body of an unstreamed answer, of models and of errors: JSON, or bytes as they are
    CHUNKS   `turn.chunks`: the JSON bodies of a streamed answer
    FRAMES   `turn.frames`: the bytes to be written, each with its delay
    HEAD     `turn.status` and `turn.headers`
    """

    ARRIVAL = "arrival"
    REQUEST = "request"
    ANSWER = "answer"
    PAYLOAD = "payload"
    CHUNKS = "chunks"
    FRAMES = "frames"
    HEAD = "head"


@dataclass(slots=True)
class Frame:
    """Bytes written in one go, after a pause."""

    data: bytes
    delay_s: float = 0.0


Framing = Callable[[list[dict[str, Any]], float], list[Frame]]
"""From the JSON bodies of a stream and the pause before each (seconds) to its bytes."""


@dataclass(slots=True)
class Choice:
    """One answer of the model. `tool_calls` are (name, arguments object) pairs."""

    content: str | None
    tool_calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    finish_reason: str = "stop"
    reasoning: str | None = None


class ApiError(Exception):
    """An error answer in the OpenAI shape, with headers that belong to it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.extra = dict(extra or {})
        self.status, self.type, self.code, self.param = status, type, code, param
        self.headers = dict(headers or {})

    def payload(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}


@dataclass(slots=True)
class Turn:
    """One request and its answer in the making. Faults change it in place.

    `skip` holds names of guards to switch off, from stage ARRIVAL on: "auth",
    "method", "model", "context", and the names in `validation.GUARDS`.
    """

    method: str
    path: str
    request_headers: dict[str, str]
    raw: bytes
    request_id: str
    kind: Kind = Kind.ERROR
    skip: set[str] = field(default_factory=set)
    parts: dict[str, str] = field(default_factory=dict)
    """What the named parts of the route's path stand for."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What the sandbox remembers between requests, for faults that need to."""
    base_url: str = ""
    """Scheme and host that the request came to, for answers that link to others."""
    body: dict[str, Any] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    payload: Any = None
    chunks: list[dict[str, Any]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    framing: Framing | None = None
    """How the chunks of this family become bytes, where it is not as in chat."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    crash: bool = False
    """Answer 500, as a server does whose code raised."""
    cold: bool = False
    """Behave as if the model had to be loaded first."""
    linger_s: float = 0.0
    """Keep the connection open so long after the last frame."""
    abort_after_frame: int | None = None
    """Cut the connection after so many frames, as a crashing server would."""
