"""Faults of streams."""

from __future__ import annotations

from typing import Any

from roadworthy.sandbox import wire
from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn


def _asks(turn: Turn, words: str) -> bool:
    """Whether the question holds these words. Faults that change what is said keep to one question."""
    return words in str(turn.body["messages"])


def _first_choices(turn: Turn) -> list[dict[str, Any]]:
    return [choice for chunk in turn.chunks for choice in chunk["choices"]]


def _texts(turn: Turn) -> list[dict[str, Any]]:
    """The deltas that carry text."""
    return [choice["delta"] for choice in _first_choices(turn) if choice["delta"].get("content")]


# The wire


@fault("chat.stream.refused", caught_by={"chat.stream.status"}, at=Stage.REQUEST, on={Kind.STREAM})
def refused(turn: Turn) -> None:
    """A long answer cannot be streamed."""
    if _asks(turn, "thirty"):
        raise ApiError(400, "streaming is not supported", param="stream")


@fault("chat.stream.content_type_json", caught_by={"chat.stream.content_type"}, at=Stage.HEAD, on={Kind.STREAM})
def content_type_json(turn: Turn) -> None:
    """Streams are labelled application/json."""
    turn.headers["content-type"] = "application/json"


@fault("chat.stream.content_type_missing", caught_by={"chat.stream.content_type"}, at=Stage.HEAD, on={Kind.STREAM})
def content_type_missing(turn: Turn) -> None:
    """Streams have no content type."""
    del turn.headers["content-type"]


@fault("chat.stream.ignored", caught_by={"chat.stream.content_type"}, at=Stage.REQUEST, on={Kind.STREAM})
def ignored(turn: Turn) -> None:
    """`stream` is ignored: the answer comes whole, as JSON."""
    turn.body["stream"] = False


@fault("chat.stream.ndjson", caught_by={"chat.stream.framing"}, at=Stage.FRAMES, on={Kind.STREAM})
def ndjson(turn: Turn) -> None:
    """Each chunk is a line of JSON without `data:`."""
    turn.frames = [Frame(frame.data.removeprefix(b"data: ")) for frame in turn.frames]


@fault("chat.stream.no_blank_line", caught_by={"chat.stream.framing"}, at=Stage.FRAMES, on={Kind.STREAM})
def no_blank_line(turn: Turn) -> None:
    """Events are separated by one line end instead of two."""
    turn.frames = [Frame(frame.data.replace(b"\n\n", b"\n")) for frame in turn.frames]
    turn.frames.append(Frame(b"\n"))


@fault("chat.stream.stray_text", caught_by={"chat.stream.framing"}, at=Stage.FRAMES, on={Kind.STREAM})
def stray_text(turn: Turn) -> None:
    """A log line of the server lands in the stream."""
    turn.frames.insert(2, Frame(b"WARNING: tokenizers parallelism is switched off\n"))


@fault("chat.stream.last_chunk_open", caught_by={"chat.stream.framing"}, at=Stage.FRAMES, on={Kind.STREAM})
def last_chunk_open(turn: Turn) -> None:
    """There is no end marker, and the last chunk lacks its empty line, so that readers drop it."""
    turn.frames.pop()
    turn.frames[-1].data = turn.frames[-1].data.rstrip()


@fault("chat.stream.last_event_open", caught_by={"chat.stream.last_event"}, at=Stage.FRAMES, on={Kind.STREAM})
def last_event_open(turn: Turn) -> None:
    """The end marker lacks its empty line, so that readers drop it."""
    turn.frames[-1].data = b"data: [DONE]\n"


@fault("chat.stream.comments_alone", caught_by={"chat.stream.not_empty"}, at=Stage.FRAMES, on={Kind.STREAM})
def comments_alone(turn: Turn) -> None:
    """Nothing but comments is streamed."""
    turn.frames = [Frame(b": ping\n\n")]


@fault("chat.stream.empty", caught_by={"chat.stream.not_empty"}, at=Stage.FRAMES, on={Kind.STREAM})
def empty(turn: Turn) -> None:
    """The head of a stream, and then its end."""
    turn.frames = []


@fault("chat.stream.latin1", caught_by={"chat.stream.utf8"}, at=Stage.FRAMES, on={Kind.STREAM})
def latin1(turn: Turn) -> None:
    """Characters beyond ASCII are sent as Latin-1."""
    turn.frames = [Frame(frame.data.replace(b'"sandbox-1"', b'"sandb\xf6x"')) for frame in turn.frames]


@fault("chat.stream.split_characters", caught_by={"chat.stream.characters"}, at=Stage.CHUNKS, on={Kind.STREAM})
def split_characters(turn: Turn) -> None:
    """Tokens are decoded one by one: a character of three bytes or more, in several tokens, is lost."""
    if _asks(turn, "naïve"):
        for delta in _texts(turn):
            delta["content"] = "".join("\ufffd" if ord(letter) > 0x7FF else letter for letter in delta["content"])


@fault("chat.stream.python_repr", caught_by={"chat.stream.json"}, at=Stage.FRAMES, on={Kind.STREAM})
def python_repr(turn: Turn) -> None:
    """Chunks are written as Python prints them, with single quotes and None."""
    turn.frames = [Frame(f"data: {chunk!r}\n\n".encode()) for chunk in turn.chunks] + turn.frames[-1:]


@fault("chat.stream.nan", caught_by={"chat.stream.json"}, at=Stage.FRAMES, on={Kind.STREAM})
def nan(turn: Turn) -> None:
    """A chunk holds NaN, which is not JSON."""
    frame = turn.frames[0]
    frame.data = frame.data.replace(b'"logprobs":null', b'"logprobs":NaN')


@fault("chat.stream.two_objects", caught_by={"chat.stream.json"}, at=Stage.FRAMES, on={Kind.STREAM})
def two_objects(turn: Turn) -> None:
    """Two chunks share one data line."""
    second = turn.frames.pop(1)
    turn.frames[0].data = turn.frames[0].data.rstrip() + second.data.removeprefix(b"data: ")


@fault("chat.stream.no_done", caught_by={"chat.stream.done"}, at=Stage.FRAMES, on={Kind.STREAM})
def no_done(turn: Turn) -> None:
    """The stream ends without `data: [DONE]`."""
    turn.frames = [frame for frame in turn.frames if b"[DONE]" not in frame.data]


@fault("chat.stream.done_twice", caught_by={"chat.stream.done"}, at=Stage.FRAMES, on={Kind.STREAM})
def done_twice(turn: Turn) -> None:
    """The end marker comes twice."""
    turn.frames.append(Frame(b"data: [DONE]\n\n"))


@fault("chat.stream.usage_after_done", caught_by={"chat.stream.done"}, at=Stage.FRAMES, on={Kind.STREAM})
def usage_after_done(turn: Turn) -> None:
    """The usage chunk comes after the end marker."""
    if turn.chunks and not turn.chunks[-1]["choices"]:
        turn.frames[-2], turn.frames[-1] = turn.frames[-1], turn.frames[-2]


@fault("chat.stream.chunk_after_done", caught_by={"chat.stream.done"}, at=Stage.FRAMES, on={Kind.STREAM})
def chunk_after_done(turn: Turn) -> None:
    """The closing chunk comes again after the end marker."""
    turn.frames.append(turn.frames[-2])


@fault("chat.stream.left_open", caught_by={"chat.stream.closed"}, at=Stage.FRAMES, on={Kind.STREAM})
def left_open(turn: Turn) -> None:
    """Long answers leave the connection open after the end marker."""
    if _asks(turn, "thirty"):
        turn.linger_s = 1.6


@fault("chat.stream.cut_off", caught_by={"chat.stream.complete"}, at=Stage.FRAMES, on={Kind.STREAM})
def cut_off(turn: Turn) -> None:
    """The connection breaks in the middle of every stream."""
    turn.abort_after_frame = len(turn.frames) // 2


@fault("chat.stream.cut_at_once", caught_by={"chat.stream.complete"}, at=Stage.FRAMES, on={Kind.STREAM})
def cut_at_once(turn: Turn) -> None:
    """The connection breaks after the response head."""
    turn.abort_after_frame = 0


@fault("chat.stream.error_null", caught_by={"chat.stream.no_error_key"}, at=Stage.CHUNKS, on={Kind.STREAM})
def error_null(turn: Turn) -> None:
    """Every chunk has `"error": null`."""
    for chunk in turn.chunks:
        chunk["error"] = None


@fault("chat.stream.error_event", caught_by={"chat.stream.no_error_event"}, at=Stage.FRAMES, on={Kind.STREAM})
def error_event(turn: Turn) -> None:
    """Every stream fails in its middle."""
    body = wire.encode({"error": {"message": "the engine ran out of memory", "type": "server_error", "code": 500}})
    turn.frames.insert(len(turn.frames) // 2, Frame(b"data: " + body + b"\n\n"))


@fault("chat.stream.error_named", caught_by={"chat.stream.no_error_event"}, at=Stage.FRAMES, on={Kind.STREAM})
def error_named(turn: Turn) -> None:
    """Every stream fails in its middle, with an event of type "error" that holds a sentence."""
    turn.frames[len(turn.frames) // 2 :] = [Frame(b"event: error\ndata: the engine ran out of memory\n\n")]


# The chunks


@fault("chat.stream.fingerprint_number", caught_by={"chat.stream.shape"}, at=Stage.CHUNKS, on={Kind.STREAM})
def fingerprint_number(turn: Turn) -> None:
    """`system_fingerprint` is a number."""
    for chunk in turn.chunks:
        chunk["system_fingerprint"] = 7


@fault("chat.stream.id_number", caught_by={"chat.stream.shape"}, at=Stage.CHUNKS, on={Kind.STREAM})
def id_number(turn: Turn) -> None:
    """`id` is a number."""
    number = abs(hash(turn.request_id))
    for chunk in turn.chunks:
        chunk["id"] = number


@fault("chat.stream.object_wrong", caught_by={"chat.stream.object"}, at=Stage.CHUNKS, on={Kind.STREAM})
def object_wrong(turn: Turn) -> None:
    """Chunks call themselves chat.completion."""
    for chunk in turn.chunks:
        chunk["object"] = "chat.completion"


@fault("chat.stream.id_per_chunk", caught_by={"chat.stream.id_constant"}, at=Stage.CHUNKS, on={Kind.STREAM})
def id_per_chunk(turn: Turn) -> None:
    """Every chunk has an id of its own."""
    for number, chunk in enumerate(turn.chunks):
        chunk["id"] += f"-{number}"


@fault("chat.stream.id_missing", caught_by={"chat.stream.id_constant"}, at=Stage.CHUNKS, on={Kind.STREAM})
def id_missing(turn: Turn) -> None:
    """Chunks have no id."""
    for chunk in turn.chunks:
        del chunk["id"]


@fault("chat.stream.id_fixed", caught_by={"chat.stream.id_unique"}, at=Stage.CHUNKS, on={Kind.STREAM})
def id_fixed(turn: Turn) -> None:
    """Every stream has the same id."""
    for chunk in turn.chunks:
        chunk["id"] = "chatcmpl-0"


@fault("chat.stream.model_changes", caught_by={"chat.stream.model_constant"}, at=Stage.CHUNKS, on={Kind.STREAM})
def model_changes(turn: Turn) -> None:
    """The first chunk names the model, the others the file it was loaded from."""
    for chunk in turn.chunks[1:]:
        chunk["model"] = "models/chat-1.safetensors"


@fault("chat.stream.created_float", caught_by={"chat.stream.created_constant"}, at=Stage.CHUNKS, on={Kind.STREAM})
def created_float(turn: Turn) -> None:
    """`created` is a float."""
    for chunk in turn.chunks:
        chunk["created"] += 0.25


@fault("chat.stream.created_changes", caught_by={"chat.stream.created_constant"}, at=Stage.CHUNKS, on={Kind.STREAM})
def created_changes(turn: Turn) -> None:
    """`created` tells the time of each chunk."""
    for number, chunk in enumerate(turn.chunks):
        chunk["created"] += number


@fault("chat.stream.created_ms", caught_by={"chat.stream.created_constant"}, at=Stage.CHUNKS, on={Kind.STREAM})
def created_ms(turn: Turn) -> None:
    """`created` is in milliseconds."""
    for chunk in turn.chunks:
        chunk["created"] *= 1000


@fault("chat.stream.choices_null", caught_by={"chat.stream.choices"}, at=Stage.CHUNKS, on={Kind.STREAM})
def choices_null(turn: Turn) -> None:
    """The usage chunk has `"choices": null`."""
    for chunk in turn.chunks:
        if not chunk["choices"]:
            chunk["choices"] = None


@fault("chat.stream.choices_missing", caught_by={"chat.stream.choices"}, at=Stage.CHUNKS, on={Kind.STREAM})
def choices_missing(turn: Turn) -> None:
    """A stream begins with a chunk that has no choices."""
    turn.chunks.insert(0, {key: value for key, value in turn.chunks[0].items() if key != "choices"})


@fault("chat.stream.choices_empty", caught_by={"chat.stream.choices_filled"}, at=Stage.CHUNKS, on={Kind.STREAM})
def choices_empty(turn: Turn) -> None:
    """Between the text come chunks that say nothing."""
    turn.chunks.insert(1, {**turn.chunks[0], "choices": []})


@fault("chat.stream.index_missing", caught_by={"chat.stream.index"}, at=Stage.CHUNKS, on={Kind.STREAM})
def index_missing(turn: Turn) -> None:
    """Choices have no index."""
    for choice in _first_choices(turn):
        del choice["index"]


@fault("chat.stream.message_for_delta", caught_by={"chat.stream.delta"}, at=Stage.CHUNKS, on={Kind.STREAM})
def message_for_delta(turn: Turn) -> None:
    """A long answer's pieces are called `message`."""
    if _asks(turn, "thirty"):
        for choice in _first_choices(turn):
            choice["message"] = choice.pop("delta")


@fault("chat.stream.content_parts", caught_by={"chat.stream.content_string"}, at=Stage.CHUNKS, on={Kind.STREAM})
def content_parts(turn: Turn) -> None:
    """The first piece of a long answer is an array of parts."""
    if _asks(turn, "thirty") and _texts(turn):
        _texts(turn)[0]["content"] = [{"type": "text", "text": "one"}]


@fault("chat.stream.reasoning_list", caught_by={"chat.stream.content_string"}, at=Stage.CHUNKS, on={Kind.STREAM})
def reasoning_list(turn: Turn) -> None:
    """Thoughts are an array of strings."""
    if _asks(turn, "thirty"):
        _first_choices(turn)[0]["delta"]["reasoning_content"] = ["The user wants me to count."]


@fault("chat.stream.role_missing", caught_by={"chat.stream.role"}, at=Stage.CHUNKS, on={Kind.STREAM})
def role_missing(turn: Turn) -> None:
    """No delta has a role."""
    for choice in _first_choices(turn):
        choice["delta"].pop("role", None)


@fault("chat.stream.role_user", caught_by={"chat.stream.role"}, at=Stage.CHUNKS, on={Kind.STREAM})
def role_user(turn: Turn) -> None:
    """The role is "user"."""
    for choice in _first_choices(turn):
        if "role" in choice["delta"]:
            choice["delta"]["role"] = "user"


@fault("chat.stream.role_late", caught_by={"chat.stream.role"}, at=Stage.CHUNKS, on={Kind.STREAM})
def role_late(turn: Turn) -> None:
    """The role comes with the last delta."""
    told = [choice["delta"] for choice in _first_choices(turn)]
    told[0].pop("role", None)
    told[-1]["role"] = "assistant"


@fault("chat.stream.no_content", caught_by={"chat.stream.content"}, at=Stage.CHUNKS, on={Kind.STREAM})
def no_content(turn: Turn) -> None:
    """A long answer's pieces are empty."""
    if _asks(turn, "thirty"):
        for delta in _texts(turn):
            delta["content"] = ""


@fault("chat.stream.cumulative", caught_by={"chat.stream.not_cumulative"}, at=Stage.CHUNKS, on={Kind.STREAM})
def cumulative(turn: Turn) -> None:
    """Each delta of a long answer holds all the text so far."""
    if _asks(turn, "thirty"):
        text = ""
        for delta in _texts(turn):
            text += delta["content"]
            delta["content"] = text


@fault("chat.stream.doubled", caught_by={"chat.stream.no_repeats"}, at=Stage.CHUNKS, on={Kind.STREAM})
def doubled(turn: Turn) -> None:
    """Each piece of a long answer is sent twice."""
    if _asks(turn, "thirty"):
        texts = [chunk for chunk in turn.chunks if chunk["choices"] and chunk["choices"][0]["delta"].get("content")]
        turn.chunks = [again for chunk in turn.chunks for again in ([chunk, chunk] if chunk in texts else [chunk])]


@fault(
    "chat.stream.finish_reason_missing",
    caught_by={"chat.stream.finish_reason.present"},
    at=Stage.CHUNKS,
    on={Kind.STREAM},
)
def finish_reason_missing(turn: Turn) -> None:
    """A long answer's choice is never given a finish reason."""
    if _asks(turn, "thirty"):
        for choice in _first_choices(turn):
            choice["finish_reason"] = None


@fault(
    "chat.stream.finish_reason_twice", caught_by={"chat.stream.finish_reason.once"}, at=Stage.CHUNKS, on={Kind.STREAM}
)
def finish_reason_twice(turn: Turn) -> None:
    """The closing chunk comes twice."""
    last = next(chunk for chunk in reversed(turn.chunks) if chunk["choices"])
    turn.chunks.insert(turn.chunks.index(last), last)


@fault("chat.stream.text_after_finish", caught_by={"chat.stream.finish_reason.last"}, at=Stage.CHUNKS, on={Kind.STREAM})
def text_after_finish(turn: Turn) -> None:
    """The last piece of a long answer comes after the finish reason."""
    if _asks(turn, "thirty") and _texts(turn):
        last = next(number for number, c in enumerate(turn.chunks) if c["choices"] and c["choices"][0]["finish_reason"])
        turn.chunks[last - 1], turn.chunks[last] = turn.chunks[last], turn.chunks[last - 1]


@fault(
    "chat.stream.finish_reason_unknown",
    caught_by={"chat.stream.finish_reason.value"},
    at=Stage.CHUNKS,
    on={Kind.STREAM},
)
def finish_reason_unknown(turn: Turn) -> None:
    """The engine's own word comes through: "eos_token" for "stop"."""
    for choice in _first_choices(turn):
        if choice["finish_reason"] == "stop":
            choice["finish_reason"] = "eos_token"


@fault(
    "chat.stream.finish_reason_empty", caught_by={"chat.stream.finish_reason.value"}, at=Stage.CHUNKS, on={Kind.STREAM}
)
def finish_reason_empty(turn: Turn) -> None:
    """The finish reason is an empty string until the end, where null belongs."""
    if _asks(turn, "thirty") and turn.chunks[0]["choices"][0]["finish_reason"] is None:
        turn.chunks[0]["choices"][0]["finish_reason"] = ""


@fault("chat.stream.length_as_stop", caught_by={"chat.stream.finish_reason.length"}, at=Stage.CHUNKS, on={Kind.STREAM})
def length_as_stop(turn: Turn) -> None:
    """A stream that the token limit cut says "stop"."""
    for choice in _first_choices(turn):
        if choice["finish_reason"] == "length":
            choice["finish_reason"] = "stop"


@fault("chat.stream.limit_ignored", caught_by={"chat.stream.max_tokens"}, at=Stage.REQUEST, on={Kind.STREAM})
def limit_ignored(turn: Turn) -> None:
    """Streams have no token limit."""
    turn.body.pop("max_tokens", None)


@fault("chat.stream.one_index", caught_by={"chat.stream.n"}, at=Stage.REQUEST, on={Kind.STREAM})
def one_index(turn: Turn) -> None:
    """Where an answer is streamed, `n` is ignored."""
    turn.body.pop("n", None)


# The usage


@fault("chat.stream.usage_never", caught_by={"chat.stream.usage.final"}, at=Stage.CHUNKS, on={Kind.STREAM})
def usage_never(turn: Turn) -> None:
    """`include_usage` is ignored."""
    turn.chunks = [chunk for chunk in turn.chunks if chunk["choices"]]


@fault("chat.stream.usage_too_early", caught_by={"chat.stream.usage.final"}, at=Stage.CHUNKS, on={Kind.STREAM})
def usage_too_early(turn: Turn) -> None:
    """The usage chunk comes first."""
    if not turn.chunks[-1]["choices"]:
        turn.chunks.insert(0, turn.chunks.pop())


@fault("chat.stream.usage_zeros_before", caught_by={"chat.stream.usage.null_before"}, at=Stage.CHUNKS, on={Kind.STREAM})
def usage_zeros_before(turn: Turn) -> None:
    """Until the last chunk the usage is all zeros."""
    for chunk in turn.chunks:
        if "usage" in chunk and chunk["usage"] is None:
            chunk["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@fault("chat.stream.usage_beside_finish", caught_by={"chat.stream.usage.own_chunk"}, at=Stage.CHUNKS, on={Kind.STREAM})
def usage_beside_finish(turn: Turn) -> None:
    """The usage is told in the closing chunk, and in none of its own."""
    if not turn.chunks[-1]["choices"]:
        told = turn.chunks.pop()
        turn.chunks[-1]["usage"] = told["usage"]


@fault("chat.stream.usage_total_wrong", caught_by={"chat.stream.usage.counts"}, at=Stage.CHUNKS, on={Kind.STREAM})
def usage_total_wrong(turn: Turn) -> None:
    """A stream's total is the completion's alone."""
    for chunk in turn.chunks:
        if chunk.get("usage"):
            chunk["usage"] = {**chunk["usage"], "total_tokens": chunk["usage"]["completion_tokens"]}


@fault("chat.stream.usage_zeros", caught_by={"chat.stream.usage.plausible"}, at=Stage.CHUNKS, on={Kind.STREAM})
def usage_zeros(turn: Turn) -> None:
    """A stream's counters are never set."""
    for chunk in turn.chunks:
        if chunk.get("usage"):
            chunk["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@fault("chat.stream.usage_never_reset", caught_by={"chat.stream.usage.plausible"}, at=Stage.CHUNKS, on={Kind.STREAM})
def usage_never_reset(turn: Turn) -> None:
    """A stream's usage counts every answer since the server started."""
    for chunk in turn.chunks:
        if chunk.get("usage") and _asks(turn, "naïve"):
            said = chunk["usage"]["completion_tokens"] + 100_000
            total = chunk["usage"]["prompt_tokens"] + said
            chunk["usage"] = {**chunk["usage"], "completion_tokens": said, "total_tokens": total}


@fault("chat.stream.usage_strings", caught_by={"chat.stream.usage.counts"}, at=Stage.CHUNKS, on={Kind.STREAM})
def usage_strings(turn: Turn) -> None:
    """A stream's usage holds strings."""
    for chunk in turn.chunks:
        if chunk.get("usage"):
            chunk["usage"] = {**chunk["usage"], "completion_tokens": str(chunk["usage"]["completion_tokens"])}


@fault(
    "chat.stream.usage_prompt_differs",
    caught_by={"chat.stream.usage.same_as_unstreamed"},
    at=Stage.ANSWER,
    on={Kind.STREAM},
)
def usage_prompt_differs(turn: Turn) -> None:
    """A streamed request counts its prompt twice."""
    turn.usage["prompt_tokens"] *= 2
    turn.usage["total_tokens"] = turn.usage["prompt_tokens"] + turn.usage["completion_tokens"]


@fault(
    "chat.stream.usage_counts_chunks",
    caught_by={"chat.stream.usage.same_as_unstreamed"},
    at=Stage.CHUNKS,
    on={Kind.STREAM},
)
def usage_counts_chunks(turn: Turn) -> None:
    """Chunks are counted for tokens, and each chunk holds four."""
    for chunk in turn.chunks:
        if chunk.get("usage") and _asks(turn, "thirty"):
            counted = chunk["usage"]["completion_tokens"] // 4
            total = chunk["usage"]["prompt_tokens"] + counted
            chunk["usage"] = {**chunk["usage"], "completion_tokens": counted, "total_tokens": total}


@fault("chat.stream.usage_unasked", caught_by={"chat.stream.usage.not_unasked"}, at=Stage.REQUEST, on={Kind.STREAM})
def usage_unasked(turn: Turn) -> None:
    """The usage chunk is sent to everyone."""
    turn.body["stream_options"] = {"include_usage": True}


# The behaviour


@fault("chat.stream.buffered", caught_by={"chat.stream.incremental"}, at=Stage.FRAMES, on={Kind.STREAM})
def buffered(turn: Turn) -> None:
    """A proxy holds a long answer back until it is whole."""
    if _asks(turn, "thirty"):
        turn.frames = [Frame(b"".join(frame.data for frame in turn.frames), delay_s=1.2)]


@fault("chat.stream.in_one_piece", caught_by={"chat.stream.incremental"}, at=Stage.FRAMES, on={Kind.STREAM})
def in_one_piece(turn: Turn) -> None:
    """The role comes at once, then the answer is made whole and sent as one delta."""
    if _asks(turn, "thirty"):
        first, *others = _texts(turn)
        first["content"] += "".join(delta["content"] for delta in others)
        for delta in others:
            delta["content"] = ""
        turn.frames = wire.frames(turn.chunks)
        turn.frames[1].delay_s = 1.2


@fault("chat.stream.first_token_lost", caught_by={"chat.stream.equals_unstreamed"}, at=Stage.CHUNKS, on={Kind.STREAM})
def first_token_lost(turn: Turn) -> None:
    """The first piece of a long answer is lost."""
    if _asks(turn, "thirty") and _texts(turn):
        _texts(turn)[0]["content"] = ""


@fault("chat.stream.spaces_lost", caught_by={"chat.stream.equals_unstreamed"}, at=Stage.CHUNKS, on={Kind.STREAM})
def spaces_lost(turn: Turn) -> None:
    """Each piece is decoded by itself, and loses the space before it."""
    if _asks(turn, "thirty"):
        for delta in _texts(turn):
            delta["content"] = delta["content"].strip()


@fault("chat.stream.piece_lost", caught_by={"chat.stream.equals_unstreamed"}, at=Stage.CHUNKS, on={Kind.STREAM})
def piece_lost(turn: Turn) -> None:
    """A piece in the middle of a long answer is lost."""
    if _asks(turn, "thirty") and len(_texts(turn)) > 20:
        _texts(turn)[12]["content"] = ""


@fault("chat.stream.piece_twice", caught_by={"chat.stream.equals_unstreamed"}, at=Stage.CHUNKS, on={Kind.STREAM})
def piece_twice(turn: Turn) -> None:
    """A piece of a long answer is sent again, as after a retry."""
    if _asks(turn, "thirty") and len(turn.chunks) > 20:
        turn.chunks.insert(7, turn.chunks[7])


@fault("chat.stream.end_token_shown", caught_by={"chat.stream.equals_unstreamed"}, at=Stage.CHUNKS, on={Kind.STREAM})
def end_token_shown(turn: Turn) -> None:
    """The model's end token is shown at the end of a stream."""
    if _asks(turn, "thirty"):
        _texts(turn)[-1]["content"] += "<|im_end|>"


_left: set[str] = set()


@fault("chat.stream.dies_on_close", caught_by={"chat.stream.survives_close"}, at=Stage.REQUEST, on={Kind.STREAM})
def dies_on_close(turn: Turn) -> None:
    """When a client leaves a stream, its slot is never freed: the next stream gets an error."""
    who = turn.request_headers.get("authorization", "")
    if _asks(turn, "1 to 300"):
        _left.add(who)
    elif _asks(turn, "naïve") and who in _left:
        _left.discard(who)
        raise ApiError(500, "no free slot", type="server_error")
