"""The text-generation server: a prompt continued, whole or token by token, and what the server says of itself."""

from __future__ import annotations

import json
import re
import time
import zlib
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from roadworthy.sandbox import answers, wire
from roadworthy.sandbox.instances import UnsatisfiableError, instance
from roadworthy.sandbox.models import task_model
from roadworthy.sandbox.routes import ErrorForm, Server, parse, route
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn
from roadworthy.sandbox.validation import is_int, is_number

MODEL = task_model("text-generation")
VERSION = "3.0.0"
FIRST_IDS = {"<s>": 1, "</s>": 2}
VOCABULARY = 32_000
MAX_BEST_OF = 4
MAX_STOPS = 4
DEFAULT_TOKENS = 100
BUCKETS_S = (0.001, 0.01, 0.1, 1.0, 10.0)
COUNTING = re.compile(r"(?:\w+, ){2,}(\w+)[,.]?\s*$")


@dataclass
class Sequence:
    """One written text: its tokens, the end token among them, and why it ended."""

    tokens: list[dict[str, Any]]
    finish_reason: str
    seed: int | None

    @property
    def text(self) -> str:
        """The text of the tokens that belong to it."""
        return "".join(token["text"] for token in self.tokens if not token["special"])

    @property
    def likelihood(self) -> float:
        """The mean of the tokens' logarithms: the best of several has the highest."""
        return fmean(token["logprob"] for token in self.tokens)


@dataclass
class Clock:
    """When each step of a request began and ended, in seconds of one clock."""

    started: float
    validated: float
    ended: float


# Requests


def _wrong(what: str) -> ApiError:
    return ApiError(422, f"Input validation error: {what}", code="validation")


def _read(turn: Turn) -> None:
    """Parse and check the body; its parameters become an object without nulls."""
    body = parse(turn.raw)
    given = body.get("parameters")
    if given is not None and not isinstance(given, dict):
        raise _wrong("`parameters` must be an object")
    parameters = {key: value for key, value in (given or {}).items() if value is not None}
    turn.body = {**body, "parameters": parameters}
    if "inputs" not in turn.skip and (not isinstance(body.get("inputs"), str) or not body["inputs"]):
        raise _wrong("`inputs` must be a non-empty string")
    for name, (kind, low, high) in RANGES.items():
        value = parameters.get(name)
        if value is None or name in turn.skip:
            continue
        if not (is_int(value) if kind is int else is_number(value)) or not low <= value <= high:
            raise _wrong(f"`{name}` must be {'an integer' if kind is int else 'a number'} from {low:g} to {high:g}")
    for name in ("do_sample", "details", "decoder_input_details", "return_full_text", "watermark"):
        if not isinstance(parameters.get(name, False), bool):
            raise _wrong(f"`{name}` must be a boolean")
    stops = parameters.get("stop", [])
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(stop, str) for stop in stops):
        raise _wrong(f"`stop` must be an array of at most {MAX_STOPS} strings")
    if parameters.get("best_of", 1) > 1 and not (parameters.get("do_sample") or "temperature" in parameters):
        raise _wrong("`best_of` needs sampling; set `do_sample` to true")
    if "grammar" in parameters and "grammar" not in turn.skip:
        _pattern_or_schema(parameters["grammar"])


RANGES: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, 4096),
    "temperature": (float, 1e-6, 100),
    "top_p": (float, 1e-6, 1),
    "typical_p": (float, 1e-6, 1),
    "repetition_penalty": (float, 1e-6, 100),
    "frequency_penalty": (float, -2, 2),
    "top_k": (int, 1, VOCABULARY),
    "top_n_tokens": (int, 0, 5),
    "truncate": (int, 1, 1_000_000),
    "best_of": (int, 1, MAX_BEST_OF),
    "seed": (int, 0, 2**64 - 1),
}
"""Parameters that are numbers, with their least and greatest values."""


def _pattern_or_schema(grammar: Any) -> dict[str, Any]:
    """The JSON Schema that a grammar means; of a regular expression, that of a matching string."""
    kind = grammar.get("type") if isinstance(grammar, dict) else None
    value = grammar.get("value") if isinstance(grammar, dict) else None
    if kind == "regex" and isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise _wrong(f"`grammar` is no regular expression: {error}") from None
        return {"type": "string", "pattern": f"^(?:{value})$"}
    if kind == "json_schema" and isinstance(value, dict):
        value = value.get("schema")
    if kind == "json" and isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise _wrong("`grammar.value` is not JSON") from None
    if kind in ("json", "json_schema") and isinstance(value, dict):
        return value
    raise _wrong("`grammar` must have a type (json, json_schema or regex) and a value that fits it")


# Generation


def _token(text: str, position: int, *, special: bool = False) -> dict[str, Any]:
    """A token; its probability depends on its text and place only, so that the same text is equally likely."""
    number = FIRST_IDS.get(text, 3 + zlib.crc32(text.encode()) % (VOCABULARY - 3))
    logprob = -(zlib.crc32(f"{position} {text}".encode()) % 3000) / 1000
    return {"id": number, "text": text, "logprob": logprob, "special": special}


def _prompt(inputs: str, truncate: int | None = None) -> list[dict[str, Any]]:
    """The tokens of a prompt, the one that begins every text first; cut from the left where asked."""
    pieces = ["<s>", *answers.tokens(inputs)]
    pieces = pieces[-truncate:] if truncate else pieces
    read = [_token(piece, place) for place, piece in enumerate(pieces)]
    return [
        {"id": t["id"], "text": t["text"], "logprob": t["logprob"] if place else None} for place, t in enumerate(read)
    ]


def _said(inputs: str, parameters: dict[str, Any], seed: int | None) -> str:
    """What the model would write if nothing stopped it."""
    grammar = parameters.get("grammar")
    if grammar is not None:
        try:
            made = instance(_pattern_or_schema(grammar), inputs)
        except UnsatisfiableError as error:
            raise ApiError(422, f"Request failed during generation: {error}", code="generation") from None
        return str(made) if grammar["type"] == "regex" else json.dumps(made, ensure_ascii=False)
    counted = COUNTING.search(inputs)
    if counted:
        words = answers.answer(_question("Count from one to ninety-nine in words."))[0].content or ""
        _, found, after = words.partition(f"{counted[1]}, ")
        if found:
            return f" {after}"
    said = answers.answer({**_question(inputs), **({"temperature": 0} if seed is None else {"seed": seed})})
    return said[0].content or ""


def _question(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _write(inputs: str, parameters: dict[str, Any], seed: int | None) -> Sequence:
    """One text, ended by the limit, a stop sequence, or the end token."""
    limit = parameters.get("max_new_tokens", DEFAULT_TOKENS)
    stops = [stop for stop in parameters.get("stop", ()) if stop]
    written: list[dict[str, Any]] = []
    text = ""
    for piece in answers.tokens(_said(inputs, parameters, seed)):
        written.append(_token(piece, len(written)))
        text += piece
        if any(stop in text for stop in stops):
            return Sequence(written, "stop_sequence", seed)
        if len(written) >= limit:
            return Sequence(written, "length", seed)
    written.append(_token("</s>", len(written), special=True))
    return Sequence(written, "eos_token", seed)


def _sequences(turn: Turn) -> list[Sequence]:
    """The texts of a request, the likeliest first."""
    parameters = turn.body["parameters"]
    sampled = parameters.get("do_sample") or "temperature" in parameters
    seed = parameters.get("seed", sum(turn.request_id.encode())) if sampled else None
    count = parameters.get("best_of", 1)
    texts = [_write(turn.body["inputs"], parameters, None if seed is None else seed + n) for n in range(count)]
    return sorted(texts, key=lambda sequence: -sequence.likelihood)


def _details(sequence: Sequence, prefill: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "finish_reason": sequence.finish_reason,
        "generated_tokens": len(sequence.tokens),
        "seed": sequence.seed,
        "prefill": prefill,
        "tokens": sequence.tokens,
    }


def _generation(turn: Turn, sequences: list[Sequence], prompt: list[dict[str, Any]]) -> dict[str, Any]:
    """The body of an unstreamed answer."""
    parameters = turn.body["parameters"]
    before = turn.body["inputs"] if parameters.get("return_full_text") else ""
    prefill = prompt if parameters.get("decoder_input_details") else []
    best, *others = sequences
    answer: dict[str, Any] = {"generated_text": before + best.text}
    if parameters.get("details"):
        answer["details"] = _details(best, prefill)
        if others:
            answer["details"]["best_of_sequences"] = [
                {"generated_text": before + other.text, **_details(other, prefill)} for other in others
            ]
    return answer


def _headers(turn: Turn, sequences: list[Sequence], prompt: list[dict[str, Any]], clock: Clock) -> dict[str, str]:
    """The headers that tell what a request took; times in milliseconds."""
    generated = len(sequences[0].tokens)
    inference_s = clock.ended - clock.validated
    times_s = {
        "total": clock.ended - clock.started,
        "validation": clock.validated - clock.started,
        "queue": 0.0,
        "inference": inference_s,
    }
    return {
        "x-compute-type": "cpu+sandbox",
        "x-compute-characters": str(len(turn.body["inputs"])),
        **{f"x-{name}-time": f"{1000 * seconds:.3f}" for name, seconds in times_s.items()},
        "x-time-per-token": f"{1000 * inference_s / generated:.3f}",
        "x-prompt-tokens": str(len(prompt)),
        "x-generated-tokens": str(generated),
    }


def _events(turn: Turn, sequence: Sequence) -> list[dict[str, Any]]:
    """The events of a streamed answer: one a token, the last with the whole text."""
    events: list[dict[str, Any]] = [
        {"index": place, "token": token, "generated_text": None, "details": None}
        for place, token in enumerate(sequence.tokens, 1)
    ]
    parameters = turn.body["parameters"]
    events[-1]["generated_text"] = (turn.body["inputs"] if parameters.get("return_full_text") else "") + sequence.text
    if parameters.get("details"):
        told = {key: value for key, value in _details(sequence, []).items() if key not in ("tokens", "prefill")}
        events[-1]["details"] = told
    return events


def _frames(chunks: list[dict[str, Any]], delay_s: float) -> list[Frame]:
    return [Frame(b"data:" + wire.encode(chunk) + b"\n\n", delay_s) for chunk in chunks]


def _run(turn: Turn, server: Server, kind: Kind) -> None:
    """Answer a request, and count it."""
    started = time.perf_counter()
    _read(turn)
    parameters = turn.body["parameters"]
    if kind is Kind.GENERATE_STREAM and parameters.get("best_of", 1) > 1:
        raise _wrong("`best_of` must be 1 for a stream")
    if kind is Kind.GENERATE_STREAM and parameters.get("decoder_input_details"):
        raise _wrong("`decoder_input_details` cannot be streamed")
    prompt = _prompt(turn.body["inputs"], parameters.get("truncate"))
    limit = server.options.context_length - parameters.get("max_new_tokens", DEFAULT_TOKENS)
    if len(prompt) > limit:
        raise _wrong(f"`inputs` must have at most {limit:,} tokens, got {len(prompt):,}")
    turn.kind = kind
    server.mutate(Stage.REQUEST, turn)
    if "truncate" in turn.skip:
        prompt = _prompt(turn.body["inputs"])
    validated = time.perf_counter()
    sequences = _sequences(turn)
    # Never written into a body: what the headers and details tell, for the cost endpoint.
    turn.usage = {"prompt_tokens": len(prompt), "completion_tokens": len(sequences[0].tokens)}
    if kind is Kind.GENERATE_STREAM:
        turn.chunks, turn.framing = _events(turn, sequences[0]), _frames
        turn.headers = {"x-compute-type": "cpu+sandbox", "x-compute-characters": str(len(turn.body["inputs"]))}
    else:
        turn.payload = _generation(turn, sequences, prompt)
        turn.headers = _headers(turn, sequences, prompt, Clock(started, validated, time.perf_counter()))
    _count(server, sum(len(sequence.tokens) for sequence in sequences), time.perf_counter() - started)


# Routes


@route("POST", "/generate", errors=ErrorForm.TGI)
def generate(turn: Turn, server: Server) -> None:
    """A text in one piece."""
    _run(turn, server, Kind.GENERATE)


@route("POST", "/generate_stream", errors=ErrorForm.TGI)
def generate_stream(turn: Turn, server: Server) -> None:
    """A text token by token."""
    _run(turn, server, Kind.GENERATE_STREAM)


@route("POST", "/", errors=ErrorForm.TGI)
def root(turn: Turn, server: Server) -> None:
    """Either of both, by the field `stream`; a text in one piece stands in an array here."""
    if parse(turn.raw).get("stream") is True:
        _run(turn, server, Kind.GENERATE_STREAM)
    else:
        _run(turn, server, Kind.GENERATE)
        turn.payload = [turn.payload]


@route("POST", "/tokenize", errors=ErrorForm.TGI)
def tokenize(turn: Turn, server: Server) -> None:
    """A text in tokens, with their places in characters; the token that begins every text has none."""
    _read(turn)
    turn.kind = Kind.SERVER
    added = turn.body.get("add_special_tokens", True)
    if not isinstance(added, bool):
        raise _wrong("`add_special_tokens` must be a boolean")
    turn.payload = [{"id": FIRST_IDS["<s>"], "text": "", "start": 0, "stop": 0}] if added else []
    start = 0
    for place, piece in enumerate(answers.tokens(turn.body["inputs"])):
        turn.payload.append(
            {"id": _token(piece, place)["id"], "text": piece, "start": start, "stop": start + len(piece)}
        )
        start += len(piece)


@route("GET", "/info", errors=ErrorForm.TGI, auth=False)
def info(turn: Turn, server: Server) -> None:
    """The model and the server's limits."""
    turn.kind = Kind.SERVER
    turn.payload = {
        "model_id": MODEL,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": 128,
        "max_best_of": MAX_BEST_OF,
        "max_stop_sequences": MAX_STOPS,
        "max_input_tokens": server.options.context_length - 1,
        "max_total_tokens": server.options.context_length,
        "validation_workers": 1,
        "max_client_batch_size": 1,
        "router": "roadworthy-sandbox",
        "version": VERSION,
        "sha": None,
        "docker_label": None,
    }


@route("GET", "/health", errors=ErrorForm.TGI, auth=False)
def health(turn: Turn, server: Server) -> None:
    """Ready: an empty 200."""
    turn.kind = Kind.SERVER
    turn.payload = b""
    turn.headers["content-type"] = "text/plain; charset=utf-8"


@route("GET", "/metrics", errors=ErrorForm.TGI, auth=False)
def metrics(turn: Turn, server: Server) -> None:
    """What was counted so far, in the text format of Prometheus."""
    turn.kind = Kind.SERVER
    turn.payload = _exposition(server).encode()
    turn.headers["content-type"] = "text/plain; version=0.0.4; charset=utf-8"


# Metrics


@dataclass
class Counters:
    """What the server counts: texts, tokens, and how long each request took (seconds)."""

    texts: int
    tokens: int
    durations_s: list[float]


def _counters(server: Server) -> Counters:
    counters: Counters = server.memory.setdefault("tgi", Counters(0, 0, []))
    return counters


def _count(server: Server, tokens: int, duration_s: float) -> None:
    counters = _counters(server)
    counters.texts += 1
    counters.tokens += tokens
    counters.durations_s.append(duration_s)


def _exposition(server: Server) -> str:
    counters = _counters(server)
    took_s = counters.durations_s
    lines = [
        "# HELP tgi_request_count Requests that were answered.",
        "# TYPE tgi_request_count counter",
        f'tgi_request_count{{model="{MODEL}"}} {counters.texts}',
        "# HELP tgi_generated_tokens_total Tokens that were generated.",
        "# TYPE tgi_generated_tokens_total counter",
        f"tgi_generated_tokens_total {counters.tokens}",
        "# HELP tgi_queue_size Requests that wait.",
        "# TYPE tgi_queue_size gauge",
        "tgi_queue_size 0",
        "# HELP tgi_request_duration Seconds that a request took.",
        "# TYPE tgi_request_duration histogram",
        *(f'tgi_request_duration_bucket{{le="{top:g}"}} {sum(t <= top for t in took_s)}' for top in BUCKETS_S),
        f'tgi_request_duration_bucket{{le="+Inf"}} {len(took_s)}',
        f"tgi_request_duration_sum {sum(took_s)!r}",
        f"tgi_request_duration_count {len(took_s)}",
    ]
    return "\n".join(lines) + "\n"
