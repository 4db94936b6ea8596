"""Faults and legal variations of the text-generation server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roadworthy.sandbox.mutation import Change, Mutation, fault, variation
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

SUBJECTS = ("acme/text-generation=text-generation@tgi",)
TEXT, STREAM, SERVER, ERROR = {Kind.GENERATE}, {Kind.GENERATE_STREAM}, {Kind.SERVER}, {Kind.ERROR}
BOTH = TEXT | STREAM
UNREADABLE = b'"value": "{"'
"""How a grammar begins and ends that cannot be read."""
Declare = Callable[[Change], Mutation]


def _fault(name: str, caught_by: str, at: Stage, on: set[Kind] | None = None) -> Declare:
    """Declare a fault of this family, caught by the checks whose names follow "tgi." in `caught_by`."""
    checks = {check if check == "errors.no_5xx" else f"tgi.{check}" for check in caught_by.split()}

    def declare(change: Change) -> Mutation:
        return fault(f"tgi.{name}", caught_by=checks, at=at, on=on or (), subjects=SUBJECTS)(change)

    return declare


def _variation(name: str, at: Stage, on: set[Kind]) -> Declare:
    return variation(f"tgi.{name}", at=at, on=on, subjects=SUBJECTS)


def _parameters(turn: Turn) -> dict[str, Any]:
    found: dict[str, Any] = turn.body.get("parameters") or {}
    return found


def _details(turn: Turn) -> dict[str, Any]:
    """The details of an unstreamed text, or an empty object that changes nothing."""
    found = turn.payload.get("details") if isinstance(turn.payload, dict) else None
    return found if isinstance(found, dict) else {}


def _tokens(turn: Turn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _details(turn).get("tokens", [])
    return found


def _rewrite(turn: Turn, old: bytes, new: bytes) -> None:
    for frame in turn.frames:
        frame.data = frame.data.replace(old, new)


def _ends(turn: Turn) -> dict[str, Any]:
    """The details of a stream's last event, or an empty object."""
    return turn.chunks[-1]["details"] or {}


# Every text


@_fault("stop_refused", "answered", Stage.REQUEST, TEXT)
def stop_refused(turn: Turn) -> None:
    """Stop sequences are refused."""
    if _parameters(turn).get("stop"):
        raise ApiError(422, "Input validation error: `stop` is not supported", code="validation")


@_fault("typical_refused", "parameters", Stage.REQUEST, TEXT)
def typical_refused(turn: Turn) -> None:
    """A documented parameter of sampling is refused."""
    if "typical_p" in _parameters(turn):
        raise ApiError(422, "unexpected keyword: typical_p", code="validation")


@_fault("label_text", "json", Stage.HEAD, TEXT)
def label_text(turn: Turn) -> None:
    """Texts are labelled text/plain."""
    turn.headers["content-type"] = "text/plain"


@_fault("text_missing", "shape root.answered", Stage.PAYLOAD, TEXT)
def text_missing(turn: Turn) -> None:
    """The text is called `text`."""
    for answer in turn.payload if isinstance(turn.payload, list) else [turn.payload]:
        answer["text"] = answer.pop("generated_text")


@_fault("in_array", "json", Stage.PAYLOAD, TEXT)
def in_array(turn: Turn) -> None:
    """/generate answers with an array, as only / does."""
    if turn.path == "/generate":
        turn.payload = [turn.payload]


@_fault("prompt_dropped", "full_text", Stage.REQUEST, TEXT)
def prompt_dropped(turn: Turn) -> None:
    """return_full_text is ignored."""
    _parameters(turn).pop("return_full_text", None)


@_fault("prompt_always", "full_text tokens.joined", Stage.REQUEST, TEXT)
def prompt_always(turn: Turn) -> None:
    """The prompt stands before every text that follows no grammar."""
    if "grammar" not in _parameters(turn):
        _parameters(turn)["return_full_text"] = True


# Details


@_fault("details_ignored", "details.present", Stage.REQUEST, TEXT)
def details_ignored(turn: Turn) -> None:
    """Details are never given."""
    _parameters(turn).pop("details", None)


@_fault("tokens_absent", "details.shape best_of.shape", Stage.PAYLOAD, TEXT)
def tokens_absent(turn: Turn) -> None:
    """Details have no list of tokens."""
    for holder in (_details(turn), *_details(turn).get("best_of_sequences", ())):
        holder.pop("tokens", None)


@_fault("count_text", "details.shape", Stage.PAYLOAD, TEXT)
def count_text(turn: Turn) -> None:
    """The number of tokens is written as text."""
    if _details(turn):
        _details(turn)["generated_tokens"] = str(_details(turn)["generated_tokens"])


@_fault("reason_stop", "details.finish_reason", Stage.PAYLOAD, TEXT)
def reason_stop(turn: Turn) -> None:
    """The end token is called by OpenAI's name for it, stop."""
    if _details(turn).get("finish_reason") == "eos_token":
        _details(turn)["finish_reason"] = "stop"


@_fault("end_not_counted", "details.count", Stage.PAYLOAD, TEXT)
def end_not_counted(turn: Turn) -> None:
    """The end token is listed, and not counted."""
    if _details(turn).get("finish_reason") == "eos_token":
        _details(turn)["generated_tokens"] -= 1


@_fault("token_bare", "tokens.shape", Stage.PAYLOAD, TEXT)
def token_bare(turn: Turn) -> None:
    """Tokens have no id."""
    for token in _tokens(turn):
        del token["id"]


@_fault("special_missing", "tokens.shape", Stage.PAYLOAD, TEXT)
def special_missing(turn: Turn) -> None:
    """Ordinary tokens do not say that they are not special."""
    for token in _tokens(turn):
        if not token["special"]:
            del token["special"]


@_fault("logprob_positive", "tokens.logprob", Stage.PAYLOAD, TEXT)
def logprob_positive(turn: Turn) -> None:
    """The tokens of greedy texts have costs instead of logarithms."""
    if _details(turn).get("seed") is None:
        for token in _tokens(turn):
            token["logprob"] = -token["logprob"]


@_fault("blanks_lost", "tokens.joined", Stage.PAYLOAD, TEXT)
def blanks_lost(turn: Turn) -> None:
    """Tokens are decoded one by one, and lose the blanks before them."""
    for token in _tokens(turn):
        token["text"] = token["text"].strip()


@_fault("end_shown", "tokens.joined", Stage.PAYLOAD, TEXT)
def end_shown(turn: Turn) -> None:
    """The end token is not marked as special."""
    for token in _tokens(turn):
        token["special"] = False


@_fault("prefill_ids", "prefill.shape", Stage.PAYLOAD, TEXT)
def prefill_ids(turn: Turn) -> None:
    """The prompt's tokens are bare numbers."""
    if _details(turn).get("prefill"):
        _details(turn)["prefill"] = [token["id"] for token in _details(turn)["prefill"]]


@_fault("prefill_short", "prefill.count", Stage.PAYLOAD, TEXT)
def prefill_short(turn: Turn) -> None:
    """The prompt's first token is left out."""
    if _details(turn).get("prefill"):
        del _details(turn)["prefill"][0]


# Limits


@_fault("limit_off", "length.limit stream.limit", Stage.REQUEST, BOTH)
def limit_off(turn: Turn) -> None:
    """One token more is written than was allowed."""
    _parameters(turn)["max_new_tokens"] += 1


@_fault("length_always", "length.reason", Stage.PAYLOAD, TEXT)
def length_always(turn: Turn) -> None:
    """Texts that ended of themselves are said to be cut."""
    if _details(turn).get("finish_reason") == "eos_token":
        _details(turn)["finish_reason"] = "length"


@_fault("length_hidden", "length.reason", Stage.PAYLOAD, TEXT)
def length_hidden(turn: Turn) -> None:
    """Texts that were cut are said to have ended of themselves."""
    if _details(turn).get("finish_reason") == "length":
        _details(turn)["finish_reason"] = "eos_token"


@_fault("stop_ignored", "stop.obeyed stream.stop", Stage.REQUEST, BOTH)
def stop_ignored(turn: Turn) -> None:
    """Stop sequences are ignored."""
    _parameters(turn).pop("stop", None)


@_fault("stop_called_end", "stop.reason", Stage.PAYLOAD, TEXT)
def stop_called_end(turn: Turn) -> None:
    """A text that a stop sequence ended is said to have ended of itself."""
    if _details(turn).get("finish_reason") == "stop_sequence":
        _details(turn)["finish_reason"] = "eos_token"


@_fault("truncate_ignored", "truncate", Stage.ARRIVAL)
def truncate_ignored(turn: Turn) -> None:
    """Prompts are read whole, whatever truncate says."""
    turn.skip.add("truncate")


# Sampling


@_fault("seed_hidden", "seed.told", Stage.PAYLOAD, TEXT)
def seed_hidden(turn: Turn) -> None:
    """The seed is not told."""
    if _details(turn):
        _details(turn)["seed"] = None


@_fault("seed_ignored", "seed.repeats", Stage.PAYLOAD, TEXT)
def seed_ignored(turn: Turn) -> None:
    """The text depends on the request, whatever the seed."""
    if "seed" in _parameters(turn) and _tokens(turn):
        turn.payload["generated_text"] = turn.request_id + turn.payload["generated_text"]
        _tokens(turn)[0]["text"] = turn.request_id + _tokens(turn)[0]["text"]


@_fault("best_of_ignored", "best_of.count", Stage.REQUEST, TEXT)
def best_of_ignored(turn: Turn) -> None:
    """best_of is ignored."""
    _parameters(turn).pop("best_of", None)


@_fault("others_bare", "best_of.shape", Stage.PAYLOAD, TEXT)
def others_bare(turn: Turn) -> None:
    """The texts that were not chosen come without their details."""
    others = _details(turn).get("best_of_sequences")
    if others:
        _details(turn)["best_of_sequences"] = [{"generated_text": other["generated_text"]} for other in others]


@_fault("worst_chosen", "best_of.best", Stage.PAYLOAD, TEXT)
def worst_chosen(turn: Turn) -> None:
    """The least likely text is chosen."""
    others = _details(turn).get("best_of_sequences")
    if others:
        worst = others[-1]
        chosen = {key: value for key, value in _details(turn).items() if key != "best_of_sequences"}
        others[-1] = {"generated_text": turn.payload["generated_text"], **chosen}
        turn.payload["generated_text"] = worst.pop("generated_text")
        turn.payload["details"] = {**worst, "best_of_sequences": others}


# Grammars


def _ungrammatical(turn: Turn, kind: str, value: type) -> None:
    grammar = _parameters(turn).get("grammar")
    if grammar and grammar["type"] == kind and isinstance(grammar["value"], value):
        del _parameters(turn)["grammar"]


@_fault("object_ignored", "grammar.object", Stage.REQUEST, TEXT)
def object_ignored(turn: Turn) -> None:
    """A JSON Schema as grammar is ignored."""
    _ungrammatical(turn, "json", dict)


@_fault("text_ignored", "grammar.text", Stage.REQUEST, TEXT)
def text_ignored(turn: Turn) -> None:
    """A JSON Schema written as text is ignored."""
    _ungrammatical(turn, "json", str)


@_fault("named_loose", "grammar.named", Stage.REQUEST, TEXT)
def named_loose(turn: Turn) -> None:
    """Of a named JSON Schema only the type is kept."""
    grammar = _parameters(turn).get("grammar")
    if grammar and grammar["type"] == "json_schema":
        _parameters(turn)["grammar"] = {"type": "json", "value": {"type": "object"}}


@_fault("regex_search", "grammar.regex", Stage.PAYLOAD, TEXT)
def regex_search(turn: Turn) -> None:
    """A text under a regular expression goes on after the match."""
    if _parameters(turn).get("grammar", {}).get("type") == "regex":
        turn.payload["generated_text"] += "."
        _tokens(turn)[-2]["text"] += "."


# Streams


@_fault("stream_label", "stream.answered root.streamed", Stage.HEAD, STREAM)
def stream_label(turn: Turn) -> None:
    """Streams are labelled as JSON."""
    turn.headers["content-type"] = "application/json"


@_fault("stream_torn", "stream.answered", Stage.FRAMES, STREAM)
def stream_torn(turn: Turn) -> None:
    """The connection breaks off behind the first event of a stream from /generate_stream that needs no details."""
    if turn.path == "/generate_stream" and not _parameters(turn).get("details"):
        turn.frames.append(Frame(b"data:{"))


@_fault("stream_logprob_text", "stream.events", Stage.CHUNKS, STREAM)
def stream_logprob_text(turn: Turn) -> None:
    """The probabilities of streamed tokens are text."""
    for chunk in turn.chunks:
        chunk["token"]["logprob"] = str(chunk["token"]["logprob"])


@_fault("stream_broken_json", "stream.events", Stage.FRAMES, STREAM)
def stream_broken_json(turn: Turn) -> None:
    """Events hold NaN where no details are told."""
    _rewrite(turn, b'"details":null', b'"details":NaN')


@_fault("stream_error_inside", "stream.events", Stage.CHUNKS, STREAM)
def stream_error_inside(turn: Turn) -> None:
    """In the middle of a stream stands an error, and then it goes on."""
    turn.chunks[2] = {"error": "a worker died", "error_type": "generation"}


@_fault("stream_index_constant", "stream.index", Stage.CHUNKS, STREAM)
def stream_index_constant(turn: Turn) -> None:
    """Every event has the number 0."""
    for chunk in turn.chunks:
        chunk["index"] = 0


@_fault("stream_index_gap", "stream.index", Stage.CHUNKS, STREAM)
def stream_index_gap(turn: Turn) -> None:
    """The last event's number leaves a gap."""
    turn.chunks[-1]["index"] += 1


@_fault("stream_text_early", "stream.last_only", Stage.CHUNKS, STREAM)
def stream_text_early(turn: Turn) -> None:
    """Every event has the text so far."""
    text = ""
    for chunk in turn.chunks[:-1]:
        text += chunk["token"]["text"]
        chunk["generated_text"] = text


@_fault("stream_text_missing", "stream.whole root.streamed", Stage.CHUNKS, STREAM)
def stream_text_missing(turn: Turn) -> None:
    """The last event has no text."""
    turn.chunks[-1]["generated_text"] = None


@_fault("stream_details_missing", "stream.details", Stage.CHUNKS, STREAM)
def stream_details_missing(turn: Turn) -> None:
    """The last event has no details."""
    turn.chunks[-1]["details"] = None


@_fault("stream_reason_stop", "stream.details", Stage.CHUNKS, STREAM)
def stream_reason_stop(turn: Turn) -> None:
    """Streams end for the reason `stop`."""
    if _ends(turn):
        _ends(turn)["finish_reason"] = "stop"


@_fault("stream_blanks_lost", "stream.joined", Stage.CHUNKS, STREAM)
def stream_blanks_lost(turn: Turn) -> None:
    """Streamed tokens lose the blanks before them."""
    for chunk in turn.chunks:
        chunk["token"]["text"] = chunk["token"]["text"].strip()


@_fault("stream_token_lost", "stream.joined stream.count", Stage.CHUNKS, STREAM)
def stream_token_lost(turn: Turn) -> None:
    """A token is lost, and the events are numbered as if it had not been."""
    del turn.chunks[2]
    for place, chunk in enumerate(turn.chunks, 1):
        chunk["index"] = place


@_fault("stream_count_short", "stream.count", Stage.CHUNKS, STREAM)
def stream_count_short(turn: Turn) -> None:
    """The last token of a stream is not counted."""
    if _ends(turn):
        _ends(turn)["generated_tokens"] -= 1


@_fault("stream_stop_length", "stream.stop", Stage.CHUNKS, STREAM)
def stream_stop_length(turn: Turn) -> None:
    """A stream that a stop sequence ended is said to be cut."""
    if _ends(turn).get("finish_reason") == "stop_sequence":
        _ends(turn)["finish_reason"] = "length"


@_fault("stream_empty", "stream.error", Stage.PAYLOAD, ERROR)
def stream_empty(turn: Turn) -> None:
    """A stream that fails validation is an empty stream of success."""
    if turn.path == "/generate_stream":
        turn.status, turn.payload = 200, b"data:{}\n\n"
        turn.headers["content-type"] = "text/event-stream"


@_fault("root_text", "root.answered", Stage.PAYLOAD, TEXT)
def root_text(turn: Turn) -> None:
    """/ answers with the bare text."""
    if turn.path == "/":
        turn.payload = turn.payload[0]["generated_text"]


@_fault("root_never_streams", "root.streamed", Stage.FRAMES, STREAM)
def root_never_streams(turn: Turn) -> None:
    """/ answers in one piece where a stream is asked for."""
    if turn.path == "/":
        turn.headers["content-type"] = "application/json"
        turn.frames = [Frame(turn.frames[-1].data.removeprefix(b"data:"))]


# Time


@_fault("slow_first_token", "time.first_token", Stage.FRAMES, STREAM)
def slow_first_token(turn: Turn) -> None:
    """The first token takes 0.4 s (proven with a limit of 0.25 s)."""
    turn.frames[0].delay_s = 0.4


@_fault("slow_text", "time.total", Stage.FRAMES, TEXT)
def slow_text(turn: Turn) -> None:
    """A text takes 0.6 s (proven with a limit of 0.4 s)."""
    if turn.path == "/generate" and _parameters(turn).get("stop"):
        turn.frames[0].delay_s = 0.6


# Headers

TIMES = ("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time")


@_fault("header_missing", "headers.present", Stage.HEAD, TEXT)
def header_missing(turn: Turn) -> None:
    """The time in the queue is not told."""
    del turn.headers["x-queue-time"]


@_fault("headers_dropped", "headers.present", Stage.HEAD, TEXT)
def headers_dropped(turn: Turn) -> None:
    """A gateway drops every header that begins with x-."""
    for name in [name for name in turn.headers if name.startswith("x-")]:
        del turn.headers[name]


@_fault("header_unit", "headers.numbers", Stage.HEAD, TEXT)
def header_unit(turn: Turn) -> None:
    """Times have their unit behind them."""
    for name in TIMES:
        turn.headers[name] += "ms"


@_fault("header_sum", "headers.sum headers.per_token", Stage.HEAD, TEXT)
def header_sum(turn: Turn) -> None:
    """The time of inference holds that of the requests before it."""
    turn.headers["x-inference-time"] = "1234.5"


@_fault("header_per_token", "headers.per_token", Stage.HEAD, TEXT)
def header_per_token(turn: Turn) -> None:
    """The header of the time per token tells tokens per second."""
    turn.headers["x-time-per-token"] = "83.2"


@_fault("header_nanoseconds", "headers.clock", Stage.HEAD, TEXT)
def header_nanoseconds(turn: Turn) -> None:
    """Times are told in nanoseconds."""
    parts = {name: round(1_000_000 * float(turn.headers[name])) for name in TIMES[1:]}
    each = parts["x-inference-time"] / int(turn.headers["x-generated-tokens"])
    told = {**parts, "x-total-time": sum(parts.values()), "x-time-per-token": each}
    turn.headers.update({name: f"{number:.3f}" for name, number in told.items()})


@_fault("header_end_not_counted", "headers.tokens", Stage.HEAD, TEXT)
def header_end_not_counted(turn: Turn) -> None:
    """The header counts one token less than the details."""
    turn.headers["x-generated-tokens"] = str(int(turn.headers["x-generated-tokens"]) - 1)


@_fault("header_bytes", "headers.characters", Stage.HEAD, TEXT)
def header_bytes(turn: Turn) -> None:
    """Bytes are counted for characters."""
    turn.headers["x-compute-characters"] = str(len(turn.body["inputs"].encode()))


# The server


@_fault("info_closed", "open", Stage.HEAD, SERVER)
def info_closed(turn: Turn) -> None:
    """/info and /health need a key."""
    if turn.path in ("/info", "/health") and "authorization" not in turn.request_headers:
        turn.status = 401


@_fault("health_moved", "health", Stage.HEAD, SERVER)
def health_moved(turn: Turn) -> None:
    """/health is somewhere else."""
    if turn.path == "/health":
        turn.status = 404


@_fault("info_no_version", "info.shape", Stage.PAYLOAD, SERVER)
def info_no_version(turn: Turn) -> None:
    """/info tells no version."""
    if turn.path == "/info":
        del turn.payload["version"]


@_fault("info_other_model", "info.model", Stage.PAYLOAD, SERVER)
def info_other_model(turn: Turn) -> None:
    """/info names a smaller model."""
    if turn.path == "/info":
        turn.payload["model_id"] = "acme/text-generation-mini"


@_fault("info_no_room", "info.limits", Stage.PAYLOAD, SERVER)
def info_no_room(turn: Turn) -> None:
    """The longest prompt leaves no room for an answer."""
    if turn.path == "/info":
        turn.payload["max_input_tokens"] = turn.payload["max_total_tokens"]


def _metrics(turn: Turn, old: bytes, new: bytes) -> None:
    if turn.path == "/metrics":
        turn.payload = turn.payload.replace(old, new)


@_fault("metrics_label", "metrics.content_type", Stage.HEAD, SERVER)
def metrics_label(turn: Turn) -> None:
    """Metrics are labelled as a web page."""
    if turn.path == "/metrics":
        turn.headers["content-type"] = "text/html"


@_fault("metrics_unquoted", "metrics.format", Stage.PAYLOAD, SERVER)
def metrics_unquoted(turn: Turn) -> None:
    """A label's value has no quotes."""
    _metrics(turn, b'"acme/text-generation"', b"acme/text-generation")


@_fault("metrics_typed_late", "metrics.format", Stage.PAYLOAD, SERVER)
def metrics_typed_late(turn: Turn) -> None:
    """The type of a metric stands after its sample."""
    if turn.path == "/metrics":
        line = b"# TYPE tgi_queue_size gauge\n"
        turn.payload = turn.payload.replace(line, b"") + line


@_fault("metrics_not_cumulative", "metrics.histograms", Stage.PAYLOAD, SERVER)
def metrics_not_cumulative(turn: Turn) -> None:
    """The buckets of a histogram count each request once."""
    if turn.path == "/metrics":
        lines = turn.payload.decode().splitlines(keepends=True)
        places = [place for place, line in enumerate(lines) if "_bucket" in line]
        counts = [int(lines[place].split()[-1]) for place in places]
        for earlier, place, count in zip([0, *counts], places, counts, strict=False):
            lines[place] = f"{lines[place].split()[0]} {count - earlier}\n"
        turn.payload = "".join(lines).encode()


@_fault("metrics_frozen", "metrics.counters", Stage.PAYLOAD, SERVER)
def metrics_frozen(turn: Turn) -> None:
    """The counters stand still."""
    if turn.path == "/metrics":
        lines = turn.payload.decode().splitlines()
        still = (line if line.startswith("#") else f"{line.rpartition(' ')[0]} 7" for line in lines)
        turn.payload = ("\n".join(still) + "\n").encode()


# Tokens


def _places(turn: Turn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = turn.payload if turn.path == "/tokenize" else []
    return found


@_fault("tokenize_wrapped", "tokenize.shape", Stage.PAYLOAD, SERVER)
def tokenize_wrapped(turn: Turn) -> None:
    """/tokenize answers with an object."""
    if turn.path == "/tokenize":
        turn.payload = {"tokens": turn.payload}


@_fault("tokenize_bytes", "tokenize.order tokenize.slices", Stage.PAYLOAD, SERVER)
def tokenize_bytes(turn: Turn) -> None:
    """The places of tokens are counted in bytes."""
    place = 0
    for token in _places(turn):
        token["start"] = place
        place += len(token["text"].encode())
        token["stop"] = place


@_fault("tokenize_stops_short", "tokenize.covered tokenize.count", Stage.PAYLOAD, SERVER)
def tokenize_stops_short(turn: Turn) -> None:
    """The last token is left out."""
    del _places(turn)[-1:]


@_fault("tokenize_pieces", "tokenize.slices", Stage.PAYLOAD, SERVER)
def tokenize_pieces(turn: Turn) -> None:
    """Tokens show the tokenizer's own mark for a blank."""
    for token in _places(turn):
        token["text"] = token["text"].replace(" ", "\u2581")


@_fault("tokenize_backwards", "tokenize.order", Stage.PAYLOAD, SERVER)
def tokenize_backwards(turn: Turn) -> None:
    """Tokens come from the last to the first."""
    _places(turn).reverse()


@_fault("tokenize_always_special", "tokenize.special", Stage.PAYLOAD, SERVER)
def tokenize_always_special(turn: Turn) -> None:
    """add_special_tokens is ignored."""
    if _places(turn) and _places(turn)[0]["stop"] > 0:
        turn.payload.insert(0, {"id": 1, "text": "", "start": 0, "stop": 0})


@_fault("tokenize_never_special", "tokenize.count", Stage.PAYLOAD, SERVER)
def tokenize_never_special(turn: Turn) -> None:
    """The token that begins every prompt is never listed."""
    if _places(turn) and _places(turn)[0]["stop"] == 0:
        del turn.payload[0]


# Neighbours below /v1


@_fault("models_empty", "models", Stage.PAYLOAD, {Kind.MODELS})
def models_empty(turn: Turn) -> None:
    """The list of models is empty."""
    turn.payload["data"] = []


@_fault("chat_bare", "chat", Stage.PAYLOAD, {Kind.CHAT})
def chat_bare(turn: Turn) -> None:
    """Chats are answered as prompts are."""
    turn.payload = {"generated_text": turn.payload["choices"][0]["message"]["content"]}


# Refusals


@_fault("inputs_default", "errors.inputs", Stage.ARRIVAL)
def inputs_default(turn: Turn) -> None:
    """A missing prompt is taken for an empty one."""
    if b'"inputs"' not in turn.raw:
        turn.raw = turn.raw.replace(b"{", b'{"inputs": " ", ', 1)


@_fault("no_limit", "errors.no_tokens stream.error", Stage.ARRIVAL)
def no_limit(turn: Turn) -> None:
    """Zero tokens are taken for no limit."""
    turn.raw = turn.raw.replace(b'"max_new_tokens": 0', b'"max_new_tokens": 4000')


@_fault("bad_grammar_dropped", "errors.grammar", Stage.ARRIVAL)
def bad_grammar_dropped(turn: Turn) -> None:
    """A grammar that cannot be read is dropped."""
    if UNREADABLE in turn.raw:
        turn.raw = turn.raw.replace(b'"grammar"', b'"grammar_unread"')


@_fault("refused_404", "errors.status", Stage.HEAD, ERROR)
def refused_404(turn: Turn) -> None:
    """Requests that fail validation get 404."""
    if turn.status == 422:
        turn.status = 404


@_fault("error_untyped", "errors.shape", Stage.PAYLOAD, ERROR)
def error_untyped(turn: Turn) -> None:
    """Errors have no class."""
    turn.payload.pop("error_type", None)


@_fault("crash_on_grammar", "errors.no_5xx", Stage.HEAD, ERROR)
def crash_on_grammar(turn: Turn) -> None:
    """A grammar that cannot be read makes the server fail."""
    if UNREADABLE in turn.raw:
        turn.status = 500


@_fault("any_route", "errors.route", Stage.HEAD, ERROR)
def any_route(turn: Turn) -> None:
    """Unknown routes are answered with success."""
    if turn.status == 404 and turn.path not in ("/generate", "/generate_stream", "/"):
        turn.status = 200


@_fault("no_key_needed", "errors.key", Stage.ARRIVAL)
def no_key_needed(turn: Turn) -> None:
    """Prompts are answered without a key."""
    turn.skip.add("auth")


# Legal variations


@_variation("whole_milliseconds", Stage.HEAD, TEXT)
def whole_milliseconds(turn: Turn) -> None:
    """Times are cut to whole milliseconds, as the reference server does."""
    for name in (*TIMES, "x-time-per-token"):
        turn.headers[name] = str(int(float(turn.headers[name])))


@_variation("index_from_zero", Stage.CHUNKS, STREAM)
def index_from_zero(turn: Turn) -> None:
    """Events are numbered from 0: the first number is nowhere fixed."""
    for chunk in turn.chunks:
        chunk["index"] -= 1


@_variation("no_index", Stage.CHUNKS, STREAM)
def no_index(turn: Turn) -> None:
    """Events are not numbered: the published description has no number."""
    for chunk in turn.chunks:
        del chunk["index"]


@_variation("nulls_left_out", Stage.CHUNKS, STREAM)
def nulls_left_out(turn: Turn) -> None:
    """Fields that are null until the last event are left out before it."""
    for chunk in turn.chunks:
        for key in [key for key, value in chunk.items() if value is None]:
            del chunk[key]


@_variation("done_marker", Stage.FRAMES, STREAM)
def done_marker(turn: Turn) -> None:
    """Streams end with [DONE], which clients of this server skip."""
    turn.frames.append(Frame(b"data: [DONE]\n\n"))


@_variation("comments_and_crlf", Stage.FRAMES, STREAM)
def comments_and_crlf(turn: Turn) -> None:
    """Lines end in CRLF, and comments keep the connection open: both are of the standard."""
    _rewrite(turn, b"\n", b"\r\n")
    turn.frames.insert(0, Frame(b":\r\n\r\n"))


@_variation("more_fields", Stage.PAYLOAD, TEXT)
def more_fields(turn: Turn) -> None:
    """Answers, details and tokens have fields of newer versions."""
    for holder in (turn.payload, _details(turn), *_tokens(turn)):
        if isinstance(holder, dict) and holder:
            holder["x_newer"] = {"a": 1}


@_variation("no_prefill", Stage.PAYLOAD, TEXT)
def no_prefill(turn: Turn) -> None:
    """The prompt's tokens are not told: newer servers leave that switched off."""
    if _details(turn):
        _details(turn)["prefill"] = []


@_variation("stop_cut_off", Stage.PAYLOAD, TEXT)
def stop_cut_off(turn: Turn) -> None:
    """The stop sequence is not part of the text: the token is there, and adds nothing."""
    if _details(turn).get("finish_reason") == "stop_sequence":
        last = _tokens(turn)[-1]
        turn.payload["generated_text"] = turn.payload["generated_text"].removesuffix(last["text"])
        last["text"] = ""


@_variation("no_grammars", Stage.REQUEST, TEXT)
def no_grammars(turn: Turn) -> None:
    """Grammars are refused: the server was started without them, and says so."""
    if "grammar" in _parameters(turn):
        raise ApiError(422, "Input validation error: grammar support is disabled", code="validation")


@_variation("no_best_of", Stage.REQUEST, TEXT)
def no_best_of(turn: Turn) -> None:
    """best_of is refused: the server allows one text a request."""
    if "best_of" in _parameters(turn):
        raise ApiError(422, "Input validation error: `best_of` must be at most 1", code="validation")


@_variation("error_as_event", Stage.PAYLOAD, ERROR)
def error_as_event(turn: Turn) -> None:
    """A stream's error is an event under status 200, as the reference server sends it."""
    if turn.path == "/generate_stream" and turn.status == 422:
        turn.status = 200
        turn.headers["content-type"] = "text/event-stream"
        turn.payload = b'data:{"error":"`max_new_tokens` must be > 0","error_type":"validation"}\n\n'


@_variation("only_generate", Stage.HEAD, BOTH | SERVER)
def only_generate(turn: Turn) -> None:
    """/, /tokenize and /metrics are not shown to the outside."""
    if turn.path in ("/", "/tokenize", "/metrics"):
        turn.status = 404
        turn.headers["content-type"] = "application/json"
        turn.frames = [Frame(b'{"error":"not found","error_type":"not_found"}')]


@_variation("older_info", Stage.PAYLOAD, SERVER)
def older_info(turn: Turn) -> None:
    """/info has the older name of the longest prompt, and the model from a folder."""
    if turn.path == "/info":
        turn.payload["max_input_length"] = turn.payload.pop("max_input_tokens")
        turn.payload["model_id"] = "/repository"


@_variation("split_characters", Stage.PAYLOAD, SERVER)
def split_characters(turn: Turn) -> None:
    """A character of four bytes is two tokens of one place, as byte-level tokenizers make them."""
    for place, token in enumerate(_places(turn)):
        if "\U0001f680" in token["text"]:
            turn.payload.insert(place + 1, {**token, "id": token["id"] + 1})
            del turn.payload[0]
            break


@_variation("refused_400", Stage.HEAD, ERROR)
def refused_400(turn: Turn) -> None:
    """Requests that fail validation get 400, which the description has as well."""
    if turn.status == 422:
        turn.status = 400


@_variation("grown_characters", Stage.CHUNKS, STREAM)
def grown_characters(turn: Turn) -> None:
    """A token of a stream adds nothing, and the next one adds both their texts: parts of a character do so."""
    first, second = turn.chunks[0]["token"], turn.chunks[1]["token"]
    first["text"], second["text"] = "", first["text"] + second["text"]
