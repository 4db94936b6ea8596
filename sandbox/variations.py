"""Legal variations: unusual answers that clients read without trouble, so nothing may turn red."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from roadworthy.sandbox.mutation import variation
from roadworthy.sandbox.turn import Frame, Kind, Stage, Turn

CHAT, STREAM = {Kind.CHAT}, {Kind.STREAM}
EVERY_ANSWER = {Kind.CHAT, Kind.STREAM}


def _messages(turn: Turn) -> list[dict[str, Any]]:
    return [choice["message"] for choice in turn.payload["choices"]]


def _deltas(turn: Turn) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in turn.chunks for choice in chunk["choices"]]


def _rewrite(turn: Turn, old: bytes, new: bytes) -> None:
    for frame in turn.frames:
        frame.data = frame.data.replace(old, new)


# Bodies


@variation("null_system_fingerprint", at=Stage.PAYLOAD, on=CHAT)
def null_system_fingerprint(turn: Turn) -> None:
    """`system_fingerprint` is null: the JavaScript client allows undefined, null and string."""
    turn.payload["system_fingerprint"] = None


@variation("absent_system_fingerprint", at=Stage.PAYLOAD, on=CHAT)
def absent_system_fingerprint(turn: Turn) -> None:
    """`system_fingerprint` is absent: no client needs it."""
    del turn.payload["system_fingerprint"]


@variation("absent_logprobs", at=Stage.PAYLOAD, on=CHAT)
def absent_logprobs(turn: Turn) -> None:
    """The key `logprobs` is absent where none were asked for."""
    for choice in turn.payload["choices"]:
        if choice["logprobs"] is None:
            del choice["logprobs"]


@variation("extra_fields", at=Stage.PAYLOAD)
def extra_fields(turn: Turn) -> None:
    """Bodies have fields of the provider's own: clients ignore what they do not know."""
    if isinstance(turn.payload, dict):
        turn.payload["x_provider"] = {"region": "eu", "queue_ms": 3}


@variation("extra_choice_fields", at=Stage.PAYLOAD, on=CHAT)
def extra_choice_fields(turn: Turn) -> None:
    """Choices and messages have fields of the engine's own, such as stop_reason."""
    for choice in turn.payload["choices"]:
        choice["stop_reason"] = None
        choice["message"]["function_call"] = None


@variation("null_tool_calls", at=Stage.PAYLOAD, on=CHAT)
def null_tool_calls(turn: Turn) -> None:
    """`tool_calls` is null where there are none."""
    for message in _messages(turn):
        message.setdefault("tool_calls", None)


@variation("empty_tool_calls", at=Stage.PAYLOAD, on=CHAT)
def empty_tool_calls(turn: Turn) -> None:
    """`tool_calls` is an empty array where there are none."""
    for message in _messages(turn):
        message.setdefault("tool_calls", [])


@variation("empty_content_beside_calls", at=Stage.PAYLOAD, on=CHAT)
def empty_content_beside_calls(turn: Turn) -> None:
    """`content` is an empty string, not null, beside tool calls."""
    for message in _messages(turn):
        message["content"] = message["content"] or ""


@variation("absent_content_beside_calls", at=Stage.PAYLOAD, on=CHAT)
def absent_content_beside_calls(turn: Turn) -> None:
    """`content` is absent beside tool calls."""
    for message in _messages(turn):
        if message["content"] is None:
            del message["content"]


@variation("words_beside_calls", at=Stage.PAYLOAD, on=CHAT)
def words_beside_calls(turn: Turn) -> None:
    """The model says a word beside its calls."""
    for message in _messages(turn):
        if message.get("tool_calls"):
            message["content"] = "Let me look that up."


@variation("absent_refusal", at=Stage.PAYLOAD, on=CHAT)
def absent_refusal(turn: Turn) -> None:
    """`refusal` and other newer keys are absent."""
    for message in _messages(turn):
        message.pop("refusal", None)


@variation("annotations_and_tier", at=Stage.PAYLOAD, on=CHAT)
def annotations_and_tier(turn: Turn) -> None:
    """Empty annotations, and a service tier that OpenAI does not have."""
    turn.payload["service_tier"] = "on_demand"
    for message in _messages(turn):
        message["annotations"] = []


@variation("null_usage_details", at=Stage.PAYLOAD, on=CHAT)
def null_usage_details(turn: Turn) -> None:
    """The details of the usage are null."""
    turn.payload["usage"] = {
        **turn.usage,
        "prompt_tokens_details": None,
        "completion_tokens_details": turn.usage["completion_tokens_details"]
        if "reasoning_effort" in turn.body
        else None,
    }


@variation("bare_usage", at=Stage.ANSWER, on=EVERY_ANSWER)
def bare_usage(turn: Turn) -> None:
    """The usage has its three counts and nothing else."""
    turn.usage.pop("prompt_tokens_details", None)
    turn.usage.pop("completion_tokens_details", None)


@variation("plain_ids", at=Stage.PAYLOAD, on=CHAT)
def plain_ids(turn: Turn) -> None:
    """Ids do not begin with chatcmpl-: no client looks at it."""
    turn.payload["id"] = turn.payload["id"].removeprefix("chatcmpl-").replace("-", "")


@variation("reasoning_key", at=Stage.PAYLOAD, on=CHAT)
def reasoning_key(turn: Turn) -> None:
    """Thoughts stand under `reasoning`, the other name in use."""
    for message in _messages(turn):
        if "reasoning_content" in message:
            message["reasoning"] = message.pop("reasoning_content")


@variation("dated_model", at=Stage.PAYLOAD, on=CHAT)
def dated_model(turn: Turn) -> None:
    """The answer names the dated version of the model that was asked for."""
    turn.payload["model"] += "-2026-01-15"


@variation("forced_call_stops", at=Stage.ANSWER, on=EVERY_ANSWER)
def forced_call_stops(turn: Turn) -> None:
    """Where the caller named the function, the finish reason is "stop": OpenAI does the same."""
    if isinstance(turn.body.get("tool_choice"), dict):
        turn.choices[0].finish_reason = "stop"


@variation("short_call_ids", at=Stage.PAYLOAD, on=CHAT)
def short_call_ids(turn: Turn) -> None:
    """Ids of calls are nine letters and digits, as some models want them."""
    for message in _messages(turn):
        for number, call in enumerate(message.get("tool_calls") or ()):
            call["id"] = f"{turn.request_id.replace('-', '')[:8]}{number}"


@variation("indexed_calls", at=Stage.PAYLOAD, on=CHAT)
def indexed_calls(turn: Turn) -> None:
    """Unstreamed calls carry an index as well."""
    for message in _messages(turn):
        for number, call in enumerate(message.get("tool_calls") or ()):
            call["index"] = number


@variation("spaced_json", at=Stage.FRAMES, on={Kind.CHAT, Kind.MODELS, Kind.MODEL, Kind.ERROR})
def spaced_json(turn: Turn) -> None:
    """JSON is indented, escaped to ASCII, and ends with a line end."""
    turn.frames = [Frame(json.dumps(turn.payload, indent=2).encode() + b"\n")]


# Errors and lists


@variation("status_422", at=Stage.HEAD, on={Kind.ERROR})
def status_422(turn: Turn) -> None:
    """Malformed requests get 422, which is as clear as 400."""
    if turn.status == 400:
        turn.status = 422


@variation("numeric_error_code", at=Stage.PAYLOAD, on={Kind.ERROR})
def numeric_error_code(turn: Turn) -> None:
    """The code of an error repeats its status as a number."""
    turn.payload["error"]["code"] = turn.status


@variation("sparse_errors", at=Stage.PAYLOAD, on={Kind.ERROR})
def sparse_errors(turn: Turn) -> None:
    """Errors leave param and code out."""
    for key in ("param", "code"):
        turn.payload["error"].pop(key, None)


SPARED = (
    "architecture",
    "supports_tools",
    "supports_structured_output",
    "supported_parameters",
    "owned_by",
    "providers",
    "pipeline_tag",
)


@variation("sparse_models", at=Stage.PAYLOAD, on={Kind.MODELS, Kind.MODEL})
def sparse_models(turn: Turn) -> None:
    """Entries of models tell nothing of abilities: they are tried, or declared."""
    for entry in turn.payload["data"] if turn.kind is Kind.MODELS else [turn.payload]:
        for key in SPARED:
            entry.pop(key, None)


@variation("whole_prices", at=Stage.PAYLOAD, on={Kind.MODELS, Kind.MODEL})
def whole_prices(turn: Turn) -> None:
    """A price is a whole number, or nothing at all."""
    for entry in turn.payload["data"] if turn.kind is Kind.MODELS else [turn.payload]:
        entry["pricing"] = {"input": 0, "output": 2}


# Streams


@variation("crlf_events", at=Stage.FRAMES, on=STREAM)
def crlf_events(turn: Turn) -> None:
    """Lines end with CR LF: the standard allows it."""
    _rewrite(turn, b"\n", b"\r\n")


@variation("cr_events", at=Stage.FRAMES, on=STREAM)
def cr_events(turn: Turn) -> None:
    """Lines end with CR: the standard allows it."""
    _rewrite(turn, b"\n", b"\r")


@variation("no_space_after_data", at=Stage.FRAMES, on=STREAM)
def no_space_after_data(turn: Turn) -> None:
    """There is no space after `data:`: the standard allows it."""
    _rewrite(turn, b"data: ", b"data:")


@variation("comments", at=Stage.FRAMES, on=STREAM)
def comments(turn: Turn) -> None:
    """Comments keep the connection alive between events."""
    turn.frames = [piece for frame in turn.frames for piece in (Frame(b": ping\n\n"), frame)]


@variation("byte_order_mark", at=Stage.FRAMES, on=STREAM)
def byte_order_mark(turn: Turn) -> None:
    """The stream begins with a byte order mark: the standard removes it."""
    turn.frames[0].data = b"\xef\xbb\xbf" + turn.frames[0].data


@variation("event_and_id_lines", at=Stage.FRAMES, on=STREAM)
def event_and_id_lines(turn: Turn) -> None:
    """Events name their type and id, and a time to retry."""
    for number, frame in enumerate(turn.frames):
        frame.data = b"event: message\nid: %d\nretry: 3000\n" % number + frame.data


@variation("split_anywhere", at=Stage.FRAMES, on=STREAM)
def split_anywhere(turn: Turn) -> None:
    """Events are split over packets at odd places, inside characters too."""
    whole = b"".join(frame.data for frame in turn.frames)
    turn.frames = [Frame(whole[place : place + 97]) for place in range(0, len(whole), 97)]


@variation("coalesced", at=Stage.FRAMES, on=STREAM)
def coalesced(turn: Turn) -> None:
    """Several events come in one packet."""
    frames = turn.frames
    turn.frames = [Frame(b"".join(f.data for f in frames[place : place + 4])) for place in range(0, len(frames), 4)]


@variation("usage_in_every_chunk", at=Stage.CHUNKS, on=STREAM)
def usage_in_every_chunk(turn: Turn) -> None:
    """With include_usage, each chunk tells the usage so far."""
    if not turn.chunks[-1]["choices"]:
        for number, chunk in enumerate(turn.chunks[:-1]):
            read, said = turn.usage["prompt_tokens"], min(number, turn.usage["completion_tokens"])
            chunk["usage"] = {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


@variation("usage_absent_before", at=Stage.CHUNKS, on=STREAM)
def usage_absent_before(turn: Turn) -> None:
    """The key `usage` is absent before the last chunk, rather than null."""
    for chunk in turn.chunks:
        if chunk.get("usage", 0) is None:
            del chunk["usage"]


@variation("role_alone_first", at=Stage.CHUNKS, on=STREAM)
def role_alone_first(turn: Turn) -> None:
    """The first delta holds the role and nothing else."""
    for delta in _deltas(turn):
        if "role" in delta:
            delta.pop("content", None)


@variation("role_repeated", at=Stage.CHUNKS, on=STREAM)
def role_repeated(turn: Turn) -> None:
    """Every delta repeats the role."""
    for delta in _deltas(turn):
        delta["role"] = "assistant"


@variation("role_with_first_text", at=Stage.CHUNKS, on=STREAM)
def role_with_first_text(turn: Turn) -> None:
    """The role comes with the first text, in one delta."""
    texts = [chunk for chunk in turn.chunks if chunk["choices"] and chunk["choices"][0]["delta"].get("content")]
    if texts and len({c["choices"][0]["index"] for c in texts}) == 1:
        texts[0]["choices"][0]["delta"]["role"] = "assistant"
        turn.chunks.pop(0)


@variation("empty_deltas", at=Stage.CHUNKS, on=STREAM)
def empty_deltas(turn: Turn) -> None:
    """Between the texts come deltas that say nothing."""
    spare = {
        **turn.chunks[0],
        "choices": [{"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": None}],
    }
    turn.chunks = [turn.chunks[0], spare, spare, *turn.chunks[1:]]


@variation("null_deltas_fields", at=Stage.CHUNKS, on=STREAM)
def null_delta_fields(turn: Turn) -> None:
    """Deltas spell out what they lack as null."""
    for delta in _deltas(turn):
        for key in ("content", "tool_calls", "reasoning_content", "function_call", "refusal"):
            delta.setdefault(key, None)


@variation("finish_with_last_text", at=Stage.CHUNKS, on=STREAM)
def finish_with_last_text(turn: Turn) -> None:
    """The finish reason comes with the last text, in one chunk."""
    for place in range(len(turn.chunks) - 1, 0, -1):
        one, before = turn.chunks[place]["choices"], turn.chunks[place - 1]["choices"]
        if one and before and one[0]["finish_reason"] and before[0]["delta"].get("content"):
            before[0]["finish_reason"] = one[0]["finish_reason"]
            del turn.chunks[place]
            return


@variation("call_in_one_delta", at=Stage.CHUNKS, on=STREAM)
def call_in_one_delta(turn: Turn) -> None:
    """A streamed call comes whole, in one delta."""
    whole: dict[tuple[int, int], dict[str, Any]] = {}
    kept = []
    for chunk in turn.chunks:
        parts = chunk["choices"][0]["delta"].get("tool_calls") if chunk["choices"] else None
        if not parts:
            kept.append(chunk)
            continue
        place = (chunk["choices"][0]["index"], parts[0]["index"])
        if place in whole:
            whole[place]["function"]["arguments"] += parts[0]["function"]["arguments"]
        else:
            whole[place] = parts[0]
            kept.append(chunk)
    turn.chunks = kept


@variation("thoughts_first", at=Stage.CHUNKS, on=STREAM)
def thoughts_first(turn: Turn) -> None:
    """The model streams a thought before its answer, unasked."""
    thought = {"index": 0, "delta": {"reasoning_content": "Hm."}, "logprobs": None, "finish_reason": None}
    turn.chunks.insert(1, {**turn.chunks[0], "choices": [thought]})


@variation("filter_results_first", at=Stage.CHUNKS, on=STREAM)
def filter_results_first(turn: Turn) -> None:
    """A first chunk tells the filter's results and has no choices, as one large provider does."""
    turn.chunks.insert(0, {**turn.chunks[0], "choices": [], "prompt_filter_results": []})


# The connection


@variation("keep_alive_off", at=Stage.HEAD)
def keep_alive_off(turn: Turn) -> None:
    """Every response closes its connection."""
    turn.headers["connection"] = "close"


@variation("charset", at=Stage.HEAD)
def charset(turn: Turn) -> None:
    """The content type carries a charset, in capitals."""
    turn.headers["content-type"] = turn.headers["content-type"].partition(";")[0] + "; charset=UTF-8"


@variation("header_case_and_company", at=Stage.HEAD)
def header_case_and_company(turn: Turn) -> None:
    """Header names are in capitals, and there are many more of them."""
    turn.headers = {name.upper(): value for name, value in turn.headers.items()}
    turn.headers |= {f"X-Extra-{number}": "v" * 50 for number in range(30)}


@variation("gzip_json", at=Stage.HEAD, on={Kind.CHAT, Kind.MODELS, Kind.MODEL, Kind.ERROR})
def gzip_json(turn: Turn) -> None:
    """JSON is compressed, though nobody asked for it: proxies do."""
    turn.headers["content-encoding"] = "gzip"
    turn.frames = [Frame(gzip.compress(b"".join(frame.data for frame in turn.frames)))]


@variation("gzip_stream", at=Stage.HEAD, on=STREAM)
def gzip_stream(turn: Turn) -> None:
    """Streams are compressed and flushed event by event."""
    turn.headers["content-encoding"] = "gzip"
    engine = zlib.compressobj(wbits=31)
    turn.frames = [
        Frame(engine.compress(frame.data) + engine.flush(zlib.Z_SYNC_FLUSH), frame.delay_s) for frame in turn.frames
    ]
    turn.frames[-1].data += engine.flush()


@variation("chunked_json", at=Stage.HEAD, on={Kind.CHAT, Kind.MODELS, Kind.MODEL, Kind.ERROR})
def chunked_json(turn: Turn) -> None:
    """JSON comes in chunks of 50 bytes, without a content length."""
    turn.headers["transfer-encoding"] = "chunked"
    whole = b"".join(frame.data for frame in turn.frames)
    turn.frames = [Frame(whole[place : place + 50]) for place in range(0, len(whole), 50)]
