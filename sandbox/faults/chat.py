"""Faults of unstreamed chat completions."""

from __future__ import annotations

from typing import Any

from roadworthy.sandbox.mutation import fault
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

CHAT = {Kind.CHAT}


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = turn.payload["choices"][0]["message"]
    return message


def _is_plain(turn: Turn) -> bool:
    """Whether the request is a plain question, which other families' checks do not read."""
    return not any(key in turn.body for key in ("tools", "response_format", "logprobs", "n", "reasoning_effort"))


# The shape


@fault("chat.trailing_text", caught_by={"chat.json"}, at=Stage.FRAMES, on=CHAT)
def trailing_text(turn: Turn) -> None:
    """Something follows the JSON of a plain answer."""
    if _is_plain(turn):
        turn.frames.append(Frame(b"\n</response>"))


@fault("chat.nan", caught_by={"chat.json"}, at=Stage.FRAMES, on=CHAT)
def nan(turn: Turn) -> None:
    """A plain answer holds NaN."""
    if _is_plain(turn):
        turn.frames = [Frame(turn.frames[0].data.replace(b'"logprobs":null', b'"logprobs":NaN'))]


@fault("chat.key_twice", caught_by={"chat.json"}, at=Stage.FRAMES, on=CHAT)
def key_twice(turn: Turn) -> None:
    """A plain answer has the key `id` twice."""
    if _is_plain(turn):
        turn.frames = [Frame(b'{"id":"other",' + turn.frames[0].data[1:])]


@fault("chat.content_type_text", caught_by={"chat.content_type"}, at=Stage.HEAD, on=CHAT)
def content_type_text(turn: Turn) -> None:
    """Answers are labelled text/plain."""
    turn.headers["content-type"] = "text/plain; charset=utf-8"


@fault("chat.content_type_missing", caught_by={"chat.content_type"}, at=Stage.HEAD, on=CHAT)
def content_type_missing(turn: Turn) -> None:
    """Answers have no content type."""
    del turn.headers["content-type"]


@fault("chat.id_missing", caught_by={"chat.shape"}, at=Stage.PAYLOAD, on=CHAT)
def id_missing(turn: Turn) -> None:
    """Answers have no id."""
    del turn.payload["id"]


@fault("chat.created_missing", caught_by={"chat.shape"}, at=Stage.PAYLOAD, on=CHAT)
def created_missing(turn: Turn) -> None:
    """Answers have no time."""
    del turn.payload["created"]


@fault("chat.model_missing", caught_by={"chat.shape"}, at=Stage.PAYLOAD, on=CHAT)
def model_missing(turn: Turn) -> None:
    """Answers name no model."""
    del turn.payload["model"]


@fault("chat.content_parts", caught_by={"chat.shape"}, at=Stage.PAYLOAD, on=CHAT)
def content_parts(turn: Turn) -> None:
    """The warm-up's answer comes as an array of parts."""
    if turn.body.get("max_tokens") == 16 and len(turn.body) == 3:
        _message(turn)["content"] = [{"type": "text", "text": "Hello!"}]


@fault("chat.fingerprint_number", caught_by={"chat.shape"}, at=Stage.PAYLOAD, on=CHAT)
def fingerprint_number(turn: Turn) -> None:
    """`system_fingerprint` is a number, which the JavaScript client refuses."""
    turn.payload["system_fingerprint"] = 7


@fault("chat.index_missing", caught_by={"chat.shape"}, at=Stage.PAYLOAD, on=CHAT)
def index_missing(turn: Turn) -> None:
    """Choices have no index."""
    for choice in turn.payload["choices"]:
        del choice["index"]


@fault("chat.error_in_200", caught_by={"chat.no_error_in_200"}, at=Stage.PAYLOAD, on=CHAT)
def error_in_200(turn: Turn) -> None:
    """Long plain answers fail with an error under status 200."""
    if _is_plain(turn) and "thirty" in str(turn.body["messages"]):
        turn.payload = {"error": {"message": "the engine is overloaded", "type": "server_error", "code": None}}


@fault("chat.no_choices", caught_by={"chat.choices"}, at=Stage.PAYLOAD, on=CHAT)
def no_choices(turn: Turn) -> None:
    """Long plain answers have an empty array of choices."""
    if _is_plain(turn) and "thirty" in str(turn.body["messages"]):
        turn.payload["choices"] = []


@fault("chat.index_from_one", caught_by={"chat.choices"}, at=Stage.PAYLOAD, on=CHAT)
def index_from_one(turn: Turn) -> None:
    """Choices are counted from one."""
    if _is_plain(turn):
        for choice in turn.payload["choices"]:
            choice["index"] += 1


@fault("chat.object_wrong", caught_by={"chat.object"}, at=Stage.PAYLOAD, on=CHAT)
def object_wrong(turn: Turn) -> None:
    """`object` is "text_completion"."""
    turn.payload["object"] = "text_completion"


@fault("chat.id_constant", caught_by={"chat.id"}, at=Stage.PAYLOAD, on=CHAT)
def id_constant(turn: Turn) -> None:
    """Every answer has the same id."""
    turn.payload["id"] = "chatcmpl-0"


@fault("chat.id_empty", caught_by={"chat.id"}, at=Stage.PAYLOAD, on=CHAT)
def id_empty(turn: Turn) -> None:
    """The id is an empty string."""
    turn.payload["id"] = ""


@fault("chat.created_ms", caught_by={"chat.created"}, at=Stage.PAYLOAD, on=CHAT)
def created_ms(turn: Turn) -> None:
    """`created` is in milliseconds."""
    turn.payload["created"] *= 1000


@fault("chat.created_float", caught_by={"chat.created"}, at=Stage.PAYLOAD, on=CHAT)
def created_float(turn: Turn) -> None:
    """`created` is a float."""
    turn.payload["created"] += 0.5


@fault("chat.model_other", caught_by={"chat.model"}, at=Stage.PAYLOAD, on=CHAT)
def model_other(turn: Turn) -> None:
    """Answers name the default model, whichever was asked for."""
    turn.payload["model"] = "default"


@fault("chat.model_path", caught_by={"chat.model"}, at=Stage.PAYLOAD, on=CHAT)
def model_path(turn: Turn) -> None:
    """Answers name the file that the model was loaded from."""
    turn.payload["model"] = "/models/chat-1.safetensors"


@fault("chat.role_user", caught_by={"chat.role"}, at=Stage.PAYLOAD, on=CHAT)
def role_user(turn: Turn) -> None:
    """Plain answers have the role "user"."""
    if _is_plain(turn):
        _message(turn)["role"] = "user"


@fault("chat.content_null", caught_by={"chat.content"}, at=Stage.PAYLOAD, on=CHAT)
def content_null(turn: Turn) -> None:
    """The warm-up's answer is null."""
    if turn.body.get("max_tokens") == 16 and len(turn.body) == 3:
        _message(turn)["content"] = None


@fault("chat.answer_in_reasoning", caught_by={"chat.content"}, at=Stage.PAYLOAD, on=CHAT)
def answer_in_reasoning(turn: Turn) -> None:
    """The warm-up's answer is taken for a thought."""
    if turn.body.get("max_tokens") == 16 and len(turn.body) == 3:
        _message(turn)["reasoning_content"], _message(turn)["content"] = _message(turn)["content"], ""


@fault("chat.finish_reason_null", caught_by={"chat.finish_reason.known"}, at=Stage.PAYLOAD, on=CHAT)
def finish_reason_null(turn: Turn) -> None:
    """The finish reason of plain answers is null."""
    if _is_plain(turn):
        turn.payload["choices"][0]["finish_reason"] = None


@fault("chat.finish_reason_unknown", caught_by={"chat.finish_reason.known"}, at=Stage.PAYLOAD, on=CHAT)
def finish_reason_unknown(turn: Turn) -> None:
    """The engine's own word comes through: "eos" for "stop"."""
    if _is_plain(turn) and turn.payload["choices"][0]["finish_reason"] == "stop":
        turn.payload["choices"][0]["finish_reason"] = "eos"


@fault(
    "chat.stop_as_length",
    caught_by={"chat.finish_reason.natural", "chat.stop.finish_reason"},
    at=Stage.PAYLOAD,
    on=CHAT,
)
def stop_as_length(turn: Turn) -> None:
    """Every plain answer says "length"."""
    if _is_plain(turn):
        turn.payload["choices"][0]["finish_reason"] = "length"


@fault("chat.think_leak", caught_by={"chat.no_think_leak"}, at=Stage.PAYLOAD, on=CHAT)
def think_leak(turn: Turn) -> None:
    """The warm-up's answer begins with the model's thoughts."""
    if turn.body.get("max_tokens") == 16 and len(turn.body) == 3:
        _message(turn)["content"] = "<think>They greet me.</think>Hello!"


@fault("chat.template_leak", caught_by={"chat.no_think_leak"}, at=Stage.PAYLOAD, on=CHAT)
def template_leak(turn: Turn) -> None:
    """The warm-up's answer ends with a control token."""
    if turn.body.get("max_tokens") == 16 and len(turn.body) == 3:
        _message(turn)["content"] += "<|im_end|>"


# The usage


@fault("chat.usage.absent", caught_by={"chat.usage.present"}, at=Stage.PAYLOAD, on=CHAT)
def usage_absent(turn: Turn) -> None:
    """Plain answers tell no usage."""
    if _is_plain(turn):
        del turn.payload["usage"]


@fault("chat.usage.null", caught_by={"chat.usage.present"}, at=Stage.PAYLOAD, on=CHAT)
def usage_null(turn: Turn) -> None:
    """The usage is null."""
    turn.payload["usage"] = None


@fault("chat.usage.strings", caught_by={"chat.usage.integers"}, at=Stage.PAYLOAD, on=CHAT)
def usage_strings(turn: Turn) -> None:
    """Counts are strings."""
    turn.payload["usage"] = {**turn.usage, "prompt_tokens": str(turn.usage["prompt_tokens"])}


@fault("chat.usage.negative", caught_by={"chat.usage.integers"}, at=Stage.PAYLOAD, on=CHAT)
def usage_negative(turn: Turn) -> None:
    """The prompt counts minus one token."""
    turn.payload["usage"] = {**turn.usage, "prompt_tokens": -1}


@fault("chat.usage.total_wrong", caught_by={"chat.usage.total"}, at=Stage.PAYLOAD, on=CHAT)
def usage_total_wrong(turn: Turn) -> None:
    """The total leaves the prompt out."""
    turn.payload["usage"] = {**turn.usage, "total_tokens": turn.usage["completion_tokens"]}


@fault("chat.usage.zeros", caught_by={"chat.usage.plausible"}, at=Stage.PAYLOAD, on=CHAT)
def usage_zeros(turn: Turn) -> None:
    """All counts are zero."""
    turn.payload["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@fault("chat.usage.never_reset", caught_by={"chat.usage.plausible"}, at=Stage.PAYLOAD, on=CHAT)
def usage_never_reset(turn: Turn) -> None:
    """The counter of the warm-up's completion holds the tokens of everybody."""
    if turn.body.get("max_tokens") == 16 and len(turn.body) == 3:
        counts = {"completion_tokens": 100_000, "total_tokens": turn.usage["prompt_tokens"] + 100_000}
        turn.payload["usage"] = {**turn.usage, **counts}


@fault("chat.usage.cached_beyond_prompt", caught_by={"chat.usage.details"}, at=Stage.PAYLOAD, on=CHAT)
def cached_beyond_prompt(turn: Turn) -> None:
    """More tokens are said to be cached than the prompt has."""
    details = {"cached_tokens": turn.usage["prompt_tokens"] + 100}
    turn.payload["usage"] = {**turn.usage, "prompt_tokens_details": details}


# The parameters


@fault("chat.max_tokens_ignored", caught_by={"chat.max_tokens"}, at=Stage.REQUEST, on=CHAT)
def max_tokens_ignored(turn: Turn) -> None:
    """`max_tokens` is ignored."""
    turn.body.pop("max_tokens", None)


@fault("chat.max_completion_tokens_ignored", caught_by={"chat.max_completion_tokens"}, at=Stage.REQUEST, on=CHAT)
def max_completion_tokens_ignored(turn: Turn) -> None:
    """`max_completion_tokens` is ignored."""
    turn.body.pop("max_completion_tokens", None)


@fault("chat.length_as_stop", caught_by={"chat.finish_reason.length"}, at=Stage.PAYLOAD, on=CHAT)
def length_as_stop(turn: Turn) -> None:
    """An answer that the token limit cut says "stop"."""
    for choice in turn.payload["choices"]:
        if choice["finish_reason"] == "length":
            choice["finish_reason"] = "stop"


@fault("chat.stop_ignored", caught_by={"chat.stop.honoured"}, at=Stage.REQUEST, on=CHAT)
def stop_ignored(turn: Turn) -> None:
    """`stop` is ignored."""
    turn.body.pop("stop", None)


@fault("chat.stop_included", caught_by={"chat.stop.honoured"}, at=Stage.ANSWER, on=CHAT)
def stop_included(turn: Turn) -> None:
    """The stop sequence is part of the answer."""
    stops = turn.body.get("stop")
    if isinstance(stops, list) and turn.choices[0].content:
        turn.choices[0].content += stops[-1]


@fault("chat.developer_refused", caught_by={"chat.accepts_newer"}, at=Stage.REQUEST, on={Kind.CHAT, Kind.STREAM})
def developer_refused(turn: Turn) -> None:
    """The role "developer" is unknown."""
    if any(message.get("role") == "developer" for message in turn.body["messages"]):
        raise ApiError(400, "unknown role 'developer'", param="messages")


@fault("chat.parts_refused", caught_by={"chat.accepts"}, at=Stage.REQUEST, on=CHAT)
def parts_refused(turn: Turn) -> None:
    """Content as an array of text parts is refused."""
    if any(
        isinstance(m.get("content"), list) and all(part["type"] == "text" for part in m["content"])
        for m in turn.body["messages"]
    ) and _is_plain(turn):
        raise ApiError(400, "content must be a string", param="messages")


@fault("chat.system_crashes", caught_by={"errors.no_5xx"}, at=Stage.REQUEST, on=CHAT)
def system_crashes(turn: Turn) -> None:
    """A system message that wants one word makes the server fail."""
    if "only with the word" in str(turn.body["messages"]):
        raise ApiError(500, "internal error", type="server_error")


@fault("chat.redirected", caught_by={"chat.succeeds"}, at=Stage.HEAD, on=CHAT)
def redirected(turn: Turn) -> None:
    """Long plain questions are redirected to another replica."""
    if _is_plain(turn) and "thirty" in str(turn.body["messages"]):
        turn.status = 307
        turn.headers["location"] = "/v1/replica-2/chat/completions"


@fault("chat.body_cut", caught_by={"chat.succeeds"}, at=Stage.FRAMES, on=CHAT)
def body_cut(turn: Turn) -> None:
    """Long plain answers break off."""
    if _is_plain(turn) and "thirty" in str(turn.body["messages"]):
        data = turn.frames[0].data
        turn.frames = [Frame(data[: len(data) // 2]), Frame(data[len(data) // 2 :])]
        turn.abort_after_frame = 1


@fault("chat.n_ignored", caught_by={"chat.n"}, at=Stage.REQUEST, on=CHAT)
def n_ignored(turn: Turn) -> None:
    """`n` is ignored."""
    turn.body.pop("n", None)


@fault("chat.logprobs_ignored", caught_by={"chat.logprobs.values"}, at=Stage.REQUEST, on=CHAT)
def logprobs_ignored(turn: Turn) -> None:
    """`logprobs` is ignored."""
    turn.body.pop("logprobs", None)


@fault("chat.logprobs_probabilities", caught_by={"chat.logprobs.values"}, at=Stage.PAYLOAD, on=CHAT)
def logprobs_probabilities(turn: Turn) -> None:
    """`logprob` holds probabilities, not their logarithms."""
    for entry in (turn.payload["choices"][0].get("logprobs") or {}).get("content") or ():
        entry["logprob"] = 0.95


@fault("chat.top_logprobs_ignored", caught_by={"chat.logprobs.values"}, at=Stage.REQUEST, on=CHAT)
def top_logprobs_ignored(turn: Turn) -> None:
    """`top_logprobs` is ignored."""
    turn.body.pop("top_logprobs", None)


@fault("chat.logprobs_first_only", caught_by={"chat.logprobs.join"}, at=Stage.PAYLOAD, on=CHAT)
def logprobs_first_only(turn: Turn) -> None:
    """Only the first token has a probability."""
    logprobs = turn.payload["choices"][0].get("logprobs")
    if logprobs:
        logprobs["content"] = logprobs["content"][:1]


@fault("chat.seed_ignored", caught_by={"chat.seed"}, at=Stage.ANSWER, on=CHAT)
def seed_ignored(turn: Turn) -> None:
    """Seeded answers differ from time to time."""
    if turn.body.get("seed") == 1 and turn.body.get("max_tokens") == 24:
        turn.choices[0].content = f"Hello number {turn.request_id}"


# The behaviour


@fault("chat.parts_dropped", caught_by={"chat.echo"}, at=Stage.REQUEST, on=CHAT)
def parts_dropped(turn: Turn) -> None:
    """Text parts never reach the model."""
    for message in turn.body["messages"]:
        if isinstance(message.get("content"), list) and len(message["content"]) == 1:
            message["content"] = "Say hello."


@fault("chat.system_dropped", caught_by={"chat.system"}, at=Stage.REQUEST, on=CHAT)
def system_dropped(turn: Turn) -> None:
    """System messages never reach the model."""
    turn.body["messages"] = [message for message in turn.body["messages"] if message["role"] != "system"]


@fault("chat.history_dropped", caught_by={"chat.history"}, at=Stage.REQUEST, on=CHAT)
def history_dropped(turn: Turn) -> None:
    """Only the last message of a plain conversation reaches the model."""
    if turn.body["messages"][-1]["role"] == "user" and turn.body["messages"][0]["role"] == "user":
        turn.body["messages"] = turn.body["messages"][-1:]


@fault("chat.mojibake", caught_by={"chat.unicode"}, at=Stage.ANSWER, on=CHAT)
def mojibake(turn: Turn) -> None:
    """UTF-8 is read as Latin-1 on its way out."""
    for choice in turn.choices:
        if choice.content and _is_plain(turn):
            choice.content = choice.content.encode().decode("latin-1")


@fault("chat.replacement_characters", caught_by={"chat.unicode"}, at=Stage.ANSWER, on=CHAT)
def replacement_characters(turn: Turn) -> None:
    """Tokens are decoded one by one, and characters that span two are lost."""
    for choice in turn.choices:
        if choice.content and _is_plain(turn):
            choice.content = choice.content.encode("ascii", "replace").decode().replace("?", "\ufffd")


@fault("chat.reasoning_uncounted", caught_by={"chat.reasoning.told"}, at=Stage.PAYLOAD, on=CHAT)
def reasoning_uncounted(turn: Turn) -> None:
    """Thoughts are neither told nor counted."""
    if "reasoning_effort" in turn.body:
        _message(turn).pop("reasoning_content", None)
        turn.payload["usage"] = {**turn.usage, "completion_tokens_details": None}


@fault("chat.reasoning_swallows_answer", caught_by={"chat.reasoning.answer"}, at=Stage.PAYLOAD, on=CHAT)
def reasoning_swallows_answer(turn: Turn) -> None:
    """The reasoning parser takes the answer for a thought."""
    if "reasoning_effort" in turn.body:
        _message(turn)["reasoning_content"] += _message(turn)["content"]
        _message(turn)["content"] = ""


@fault("chat.images_refused", caught_by={"chat.images.accepted"}, at=Stage.REQUEST, on=CHAT)
def images_refused(turn: Turn) -> None:
    """Images are refused, though vision is advertised."""
    if "image_url" in str(turn.body["messages"]):
        raise ApiError(400, "this model takes text only", param="messages")


@fault("chat.images_dropped", caught_by={"chat.images.seen"}, at=Stage.REQUEST, on=CHAT)
def images_dropped(turn: Turn) -> None:
    """The pixels never reach the model."""
    for message in turn.body["messages"]:
        if isinstance(message.get("content"), list):
            message["content"] = [part for part in message["content"] if part["type"] == "text"]


@fault("chat.second_image_dropped", caught_by={"chat.images.seen"}, at=Stage.REQUEST, on=CHAT)
def second_image_dropped(turn: Turn) -> None:
    """Only the first image reaches the model."""
    for message in turn.body["messages"]:
        if isinstance(message.get("content"), list):
            message["content"] = message["content"][:2]


@fault("chat.images_uncounted", caught_by={"chat.images.counted"}, at=Stage.PAYLOAD, on=CHAT)
def images_uncounted(turn: Turn) -> None:
    """Images cost no tokens."""
    if "image_url" in str(turn.body["messages"]):
        said = turn.usage["completion_tokens"]
        turn.payload["usage"] = {"prompt_tokens": 12, "completion_tokens": said, "total_tokens": 12 + said}
