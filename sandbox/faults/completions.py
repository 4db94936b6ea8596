"""Faults and variations of text completions."""

from __future__ import annotations

from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

SUBJECTS = ("acme/text-generation=text-generation@openai",)
WHOLE, STREAM, ERROR = {Kind.COMPLETION}, {Kind.COMPLETION_STREAM}, {Kind.ERROR}
EVERY = WHOLE | STREAM
PATH = "/v1/completions"


def _plain(turn: Turn) -> bool:
    """Whether this is the first, plain request."""
    return set(turn.body) == {"model", "prompt", "max_tokens", "temperature"} and turn.body["max_tokens"] > 100


def _cut(turn: Turn) -> bool:
    return turn.body.get("max_tokens") == 8 and "echo" not in turn.body


# The answer


@fault("completions.not_served", caught_by={"completions.answered"}, at=Stage.REQUEST, on=EVERY, subjects=SUBJECTS)
def not_served(turn: Turn) -> None:
    """Requests with stop sequences are refused."""
    if "stop" in turn.body:
        raise ApiError(400, "stop sequences are not supported here", param="stop")


@fault("completions.as_text", caught_by={"completions.json"}, at=Stage.HEAD, on=WHOLE, subjects=SUBJECTS)
def as_text(turn: Turn) -> None:
    """Answers are labelled text/plain."""
    turn.headers["content-type"] = "text/plain"


@fault("completions.trailing_text", caught_by={"completions.json"}, at=Stage.FRAMES, on=WHOLE, subjects=SUBJECTS)
def trailing_text(turn: Turn) -> None:
    """Something follows the JSON of the cut answer's neighbour."""
    if turn.body.get("n") == 2:
        turn.frames.append(Frame(b"\nok"))
        turn.headers["x-note"] = "two parts"


@fault("completions.chat_object", caught_by={"completions.shape"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def chat_object(turn: Turn) -> None:
    """Answers call themselves chat completions."""
    turn.payload["object"] = "chat.completion"


@fault("completions.created_text", caught_by={"completions.shape"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def created_text(turn: Turn) -> None:
    """The time of the answer is a text."""
    turn.payload["created"] = "just now"


@fault("completions.index_missing", caught_by={"completions.shape"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def index_missing(turn: Turn) -> None:
    """Choices have no index."""
    for choice in turn.payload["choices"]:
        del choice["index"]


@fault("completions.blank", caught_by={"completions.text"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def blank(turn: Turn) -> None:
    """The cut text is empty, though its tokens are counted."""
    if _cut(turn):
        turn.payload["choices"][0]["text"] = ""


@fault("completions.odd_reason", caught_by={"completions.finish_reason"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def odd_reason(turn: Turn) -> None:
    """The finish reason is the engine's own word."""
    for choice in turn.payload["choices"]:
        choice["finish_reason"] = "eos_token"


@fault("completions.no_reason", caught_by={"completions.finish_reason"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def no_reason(turn: Turn) -> None:
    """The finish reason of several choices is null."""
    if turn.body.get("n") == 2:
        turn.payload["choices"][1]["finish_reason"] = None


@fault("completions.same_index", caught_by={"completions.index"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def same_index(turn: Turn) -> None:
    """Every choice has the number 0."""
    for choice in turn.payload["choices"]:
        choice["index"] = 0


@fault("completions.other_model", caught_by={"completions.model"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def other_model(turn: Turn) -> None:
    """The answer names the engine in place of the model."""
    turn.payload["model"] = "engine-7"


# Usage


@fault("completions.no_usage", caught_by={"completions.usage.counts"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def no_usage(turn: Turn) -> None:
    """The cut answer has no usage."""
    if turn.body.get("n") == 2:
        del turn.payload["usage"]


@fault(
    "completions.usage_null_count",
    caught_by={"completions.usage.counts"},
    at=Stage.PAYLOAD,
    on=WHOLE,
    subjects=SUBJECTS,
)
def usage_null_count(turn: Turn) -> None:
    """The count of completion tokens is null for several prompts."""
    if isinstance(turn.body["prompt"], list):
        turn.payload["usage"] = {**turn.usage, "completion_tokens": None, "total_tokens": turn.usage["prompt_tokens"]}


@fault("completions.wrong_total", caught_by={"completions.usage.total"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def wrong_total(turn: Turn) -> None:
    """The total leaves the prompt out."""
    turn.payload["usage"] = {**turn.usage, "total_tokens": turn.usage["completion_tokens"]}


@fault("completions.zero_usage", caught_by={"completions.usage.spent"}, at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def zero_usage(turn: Turn) -> None:
    """The prompt of a plain request counts as nothing."""
    if _plain(turn):
        said = turn.usage["completion_tokens"]
        turn.payload["usage"] = {"prompt_tokens": 0, "completion_tokens": said, "total_tokens": said}


# Limits, stops and options


@fault("completions.cut_says_stop", caught_by={"completions.cut.reason"}, at=Stage.ANSWER, on=WHOLE, subjects=SUBJECTS)
def cut_says_stop(turn: Turn) -> None:
    """A text that was cut says "stop"."""
    if _cut(turn):
        turn.choices[0].finish_reason = "stop"


@fault("completions.limit_ignored", caught_by={"completions.cut.tokens"}, at=Stage.REQUEST, on=WHOLE, subjects=SUBJECTS)
def limit_ignored(turn: Turn) -> None:
    """max_tokens is doubled on its way to the engine."""
    if _cut(turn):
        turn.body["max_tokens"] = 16


@fault("completions.stop_ignored", caught_by={"completions.stop.text"}, at=Stage.REQUEST, on=WHOLE, subjects=SUBJECTS)
def stop_ignored(turn: Turn) -> None:
    """Stop sequences are ignored."""
    turn.body.pop("stop", None)


@fault("completions.stop_included", caught_by={"completions.stop.text"}, at=Stage.ANSWER, on=WHOLE, subjects=SUBJECTS)
def stop_included(turn: Turn) -> None:
    """The stop sequence stays in the text."""
    if "stop" in turn.body:
        turn.choices[0].content = (turn.choices[0].content or "") + turn.body["stop"][-1]


@fault(
    "completions.stop_says_length", caught_by={"completions.stop.reason"}, at=Stage.ANSWER, on=WHOLE, subjects=SUBJECTS
)
def stop_says_length(turn: Turn) -> None:
    """A text that a stop sequence ended says "length"."""
    if "stop" in turn.body:
        turn.choices[0].finish_reason = "length"


@fault("completions.echo_ignored", caught_by={"completions.echo"}, at=Stage.REQUEST, on=WHOLE, subjects=SUBJECTS)
def echo_ignored(turn: Turn) -> None:
    """`echo` is ignored."""
    turn.body.pop("echo", None)


@fault("completions.batch_first_only", caught_by={"completions.batch"}, at=Stage.REQUEST, on=WHOLE, subjects=SUBJECTS)
def batch_first_only(turn: Turn) -> None:
    """Of several prompts only the first is continued."""
    if isinstance(turn.body["prompt"], list):
        turn.body["prompt"] = turn.body["prompt"][0]


@fault("completions.n_ignored", caught_by={"completions.choices"}, at=Stage.REQUEST, on=WHOLE, subjects=SUBJECTS)
def n_ignored(turn: Turn) -> None:
    """`n` is ignored."""
    turn.body.pop("n", None)


# Streams


@fault(
    "completions.stream_ignored",
    caught_by={"completions.stream.events"},
    at=Stage.REQUEST,
    on=STREAM,
    subjects=SUBJECTS,
)
def stream_ignored(turn: Turn) -> None:
    """A stream that was asked for comes as plain JSON."""
    turn.body["stream"] = False


@fault(
    "completions.stream_as_json", caught_by={"completions.stream.events"}, at=Stage.HEAD, on=STREAM, subjects=SUBJECTS
)
def stream_as_json(turn: Turn) -> None:
    """Streams are labelled application/json."""
    turn.headers["content-type"] = "application/json"


@fault(
    "completions.stream_deltas", caught_by={"completions.stream.shape"}, at=Stage.CHUNKS, on=STREAM, subjects=SUBJECTS
)
def stream_deltas(turn: Turn) -> None:
    """Chunks call themselves chat chunks."""
    for chunk in turn.chunks:
        chunk["object"] = "chat.completion.chunk"


@fault(
    "completions.stream_no_done", caught_by={"completions.stream.done"}, at=Stage.FRAMES, on=STREAM, subjects=SUBJECTS
)
def stream_no_done(turn: Turn) -> None:
    """Streams end without the end marker."""
    turn.frames.pop()


@fault(
    "completions.stream_no_finish",
    caught_by={"completions.stream.finish"},
    at=Stage.CHUNKS,
    on=STREAM,
    subjects=SUBJECTS,
)
def stream_no_finish(turn: Turn) -> None:
    """No chunk says why the text ended."""
    for chunk in turn.chunks:
        for choice in chunk["choices"]:
            choice["finish_reason"] = None


@fault(
    "completions.stream_text_behind",
    caught_by={"completions.stream.finish"},
    at=Stage.CHUNKS,
    on=STREAM,
    subjects=SUBJECTS,
)
def stream_text_behind(turn: Turn) -> None:
    """The finish reason comes one chunk too early."""
    last = next(place for place, chunk in enumerate(turn.chunks) if chunk["choices"][0]["finish_reason"])
    turn.chunks[last - 1], turn.chunks[last] = turn.chunks[last], turn.chunks[last - 1]


@fault(
    "completions.stream_new_ids", caught_by={"completions.stream.one_id"}, at=Stage.CHUNKS, on=STREAM, subjects=SUBJECTS
)
def stream_new_ids(turn: Turn) -> None:
    """Every chunk has an id of its own."""
    for place, chunk in enumerate(turn.chunks):
        chunk["id"] += f"-{place}"


@fault(
    "completions.stream_no_usage", caught_by={"completions.stream.usage"}, at=Stage.CHUNKS, on=STREAM, subjects=SUBJECTS
)
def stream_no_usage(turn: Turn) -> None:
    """The usage that was asked for does not come."""
    turn.chunks = [chunk for chunk in turn.chunks if not chunk.get("usage")]


@fault(
    "completions.stream_wrong_total",
    caught_by={"completions.stream.usage"},
    at=Stage.CHUNKS,
    on=STREAM,
    subjects=SUBJECTS,
)
def stream_wrong_total(turn: Turn) -> None:
    """The streamed total is one too many."""
    turn.chunks[-1]["usage"] = {**turn.usage, "total_tokens": turn.usage["total_tokens"] + 1}


@fault(
    "completions.stream_in_one", caught_by={"completions.stream.pieces"}, at=Stage.CHUNKS, on=STREAM, subjects=SUBJECTS
)
def stream_in_one(turn: Turn) -> None:
    """All text comes in one chunk."""
    texts = [chunk for chunk in turn.chunks if chunk["choices"] and chunk["choices"][0]["text"]]
    texts[0]["choices"][0]["text"] = "".join(chunk["choices"][0]["text"] for chunk in texts)
    turn.chunks = [chunk for chunk in turn.chunks if chunk not in texts[1:]]


@fault(
    "completions.stream_first_lost",
    caught_by={"completions.stream.equals_unstreamed"},
    at=Stage.CHUNKS,
    on=STREAM,
    subjects=SUBJECTS,
)
def stream_first_lost(turn: Turn) -> None:
    """The first token is lost in streams."""
    del turn.chunks[0]


@fault(
    "completions.stream_no_spaces",
    caught_by={"completions.stream.equals_unstreamed"},
    at=Stage.CHUNKS,
    on=STREAM,
    subjects=SUBJECTS,
)
def stream_no_spaces(turn: Turn) -> None:
    """Streamed tokens lose the space before them."""
    for chunk in turn.chunks:
        for choice in chunk["choices"]:
            choice["text"] = choice["text"].strip(" ")


@fault(
    "completions.stream_cumulative",
    caught_by={"completions.stream.equals_unstreamed"},
    at=Stage.CHUNKS,
    on=STREAM,
    subjects=SUBJECTS,
)
def stream_cumulative(turn: Turn) -> None:
    """Every chunk repeats all of the text so far."""
    said = ""
    for chunk in turn.chunks:
        for choice in chunk["choices"]:
            if choice["finish_reason"] is None:
                said += choice["text"]
                choice["text"] = said


# Time and refusals


@fault(
    "completions.stream_slow_start",
    caught_by={"completions.stream.first_text"},
    at=Stage.FRAMES,
    on=STREAM,
    subjects=SUBJECTS,
)
def stream_slow_start(turn: Turn) -> None:
    """A comment comes at once, and the first text late; the test shrinks the limit."""
    turn.frames = [Frame(b": wait\n\n"), *turn.frames]
    turn.frames[1].delay_s = 0.5


@fault("completions.slow", caught_by={"completions.latency"}, at=Stage.FRAMES, on=WHOLE, subjects=SUBJECTS)
def slow(turn: Turn) -> None:
    """Answers take their time; the test shrinks the limit."""
    turn.frames[0].delay_s = 0.6


@fault("completions.no_key_needed", caught_by={"completions.no_key"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def no_key_needed(turn: Turn) -> None:
    """The route asks for no key."""
    if turn.path == PATH:
        turn.skip.add("auth")


@fault("completions.any_model", caught_by={"completions.unknown_model"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_model(turn: Turn) -> None:
    """Whatever model is asked for, the one at hand answers."""
    if turn.path == PATH:
        turn.skip.add("model")


@fault("completions.unknown_model_crashes", caught_by={"errors.no_5xx"}, at=Stage.HEAD, on=ERROR, subjects=SUBJECTS)
def unknown_model_crashes(turn: Turn) -> None:
    """An unknown model makes the server fail."""
    if turn.path == PATH and turn.status == 404:
        turn.status = 500


@fault("completions.any_prompt", caught_by={"completions.wrong_prompt"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_prompt(turn: Turn) -> None:
    """Prompts of the wrong type count as empty."""
    if turn.path == PATH:
        turn.skip.add("prompt")


@fault("completions.any_temperature", caught_by={"completions.out_of_range"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_temperature(turn: Turn) -> None:
    """Parameters are not validated."""
    if turn.path == PATH:
        turn.skip.add("ranges")


# Legal variations


@variation("completions_sparse_choices", at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def sparse_choices(turn: Turn) -> None:
    """Choices have no `logprobs`, and the answer no fingerprint."""
    del turn.payload["system_fingerprint"]
    for choice in turn.payload["choices"]:
        del choice["logprobs"]


@variation("completions_reversed", at=Stage.PAYLOAD, on=WHOLE, subjects=SUBJECTS)
def reversed_choices(turn: Turn) -> None:
    """Choices come in any order: their index tells which is which."""
    turn.payload["choices"].reverse()
    turn.payload["x_engine"] = {"replica": 3}


@variation("completions_no_extras", at=Stage.REQUEST, on=WHOLE, subjects=SUBJECTS)
def no_extras(turn: Turn) -> None:
    """Echo, several choices and several prompts are refused in words: a server need not offer them."""
    for name in ("echo", "n"):
        if turn.body.get(name) not in (None, False, 1):
            raise ApiError(400, f"`{name}` is not supported", param=name)
    if isinstance(turn.body["prompt"], list):
        raise ApiError(422, "`prompt` must be one text", param="prompt")


@variation("completions_stream_wire", at=Stage.FRAMES, on=STREAM, subjects=SUBJECTS)
def stream_wire(turn: Turn) -> None:
    """Streams have comments, no space after `data:`, and CR LF."""
    for frame in turn.frames:
        frame.data = b": ping\n\n" + frame.data.replace(b"data: ", b"data:").replace(b"\n", b"\r\n")


@variation("completions_finish_with_text", at=Stage.CHUNKS, on=STREAM, subjects=SUBJECTS)
def finish_with_text(turn: Turn) -> None:
    """The finish reason comes with the last text."""
    for place in range(len(turn.chunks) - 1, 0, -1):
        choices = turn.chunks[place]["choices"]
        if choices and choices[0]["finish_reason"]:
            turn.chunks[place - 1]["choices"][0]["finish_reason"] = choices[0]["finish_reason"]
            del turn.chunks[place]
            return
