"""Faults and legal variations of whole answers of the Responses API."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Any

from roadworthy.sandbox import mutation
from roadworthy.sandbox.turn import ApiError, Choice, Frame, Kind, Stage, Turn

SUBJECT = "acme/chat-1=chat-completion@responses"
fault = partial(mutation.fault, subjects=(SUBJECT,))
variation = partial(mutation.variation, subjects=(SUBJECT,))
BODY = {Kind.RESPONSE}
BOTH = {Kind.RESPONSE, Kind.RESPONSE_STREAM}
ERROR = {Kind.ERROR}


def _plain(turn: Turn) -> bool:
    """Whether the request is a question without tools, forms or effort, which other groups' checks do not read."""
    return not any(key in turn.body for key in ("tools", "text", "response_format", "reasoning"))


def _items(turn: Turn, kind: str) -> list[dict[str, Any]]:
    return [item for item in turn.payload["output"] if item["type"] == kind]


def _parts(turn: Turn) -> list[dict[str, Any]]:
    return [part for message in _items(turn, "message") for part in message["content"]]


def _given(turn: Turn) -> list[Any]:
    """The input's items, none where it is a text."""
    given = turn.body["input"]
    return given if isinstance(given, list) else []


def _asked(turn: Turn) -> bool:
    """Whether the request came to this family's route."""
    return turn.path.endswith("/responses")


# Reachable


@fault("responses.developer_refused", caught_by={"responses.accepted"}, at=Stage.REQUEST, on=BODY)
def developer_refused(turn: Turn) -> None:
    """Messages of the role developer are refused."""
    if any(item.get("role") == "developer" for item in _given(turn)):
        raise ApiError(400, "unknown role: developer", param="input")


@fault("responses.parts_refused", caught_by={"responses.accepted"}, at=Stage.REQUEST, on=BODY)
def parts_refused(turn: Turn) -> None:
    """Content in parts is refused where it is a question's text."""
    in_parts = any(isinstance(item.get("content"), list) and item["role"] == "user" for item in _given(turn))
    if in_parts and "input_image" not in str(turn.body["input"]):
        raise ApiError(400, "content must be a string", param="input")


@fault("responses.unknown_field_refused", caught_by={"responses.extra_field"}, at=Stage.REQUEST, on=BODY)
def unknown_field_refused(turn: Turn) -> None:
    """Fields that the server does not know are refused."""
    if any(key.startswith("x_") for key in turn.body):
        raise ApiError(400, "unknown field")


@fault("responses.content_type_text", caught_by={"responses.json"}, at=Stage.HEAD, on=BODY)
def content_type_text(turn: Turn) -> None:
    """Answers are labelled text/plain."""
    turn.headers["content-type"] = "text/plain"


@fault("responses.trailing_text", caught_by={"responses.json"}, at=Stage.FRAMES, on=BODY)
def trailing_text(turn: Turn) -> None:
    """Something follows the JSON of a plain answer."""
    if _plain(turn):
        turn.frames.append(Frame(b"\n</response>"))


@fault("responses.not_listed", caught_by={"responses.listed"}, at=Stage.PAYLOAD, on={Kind.MODELS})
def not_listed(turn: Turn) -> None:
    """The list of models names other models alone."""
    turn.payload["data"] = [entry for entry in turn.payload["data"] if entry["id"] != "acme/chat-1"]


# The shape


@fault("responses.id_missing", caught_by={"responses.shape"}, at=Stage.PAYLOAD, on=BODY)
def id_missing(turn: Turn) -> None:
    """Responses have no id."""
    del turn.payload["id"]


@fault("responses.model_missing", caught_by={"responses.shape"}, at=Stage.PAYLOAD, on=BODY)
def model_missing(turn: Turn) -> None:
    """Responses name no model."""
    del turn.payload["model"]


@fault("responses.created_at_text", caught_by={"responses.shape"}, at=Stage.PAYLOAD, on=BODY)
def created_at_text(turn: Turn) -> None:
    """`created_at` is a date as text."""
    turn.payload["created_at"] = "2026-01-15T12:00:00Z"


@fault(
    "responses.chat_body",
    caught_by={"responses.shape", "responses.object", "responses.status", "responses.usage.counts"},
    at=Stage.PAYLOAD,
    on=BODY,
)
def chat_body(turn: Turn) -> None:
    """A conversation is answered with a chat completion."""
    if "ZEBRA" in str(turn.body["input"]):
        message = {"role": "assistant", "content": turn.choices[0].content}
        turn.payload = {
            "id": turn.payload["id"],
            "object": "chat.completion",
            "created": turn.payload["created_at"],
            "model": turn.payload["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
        }


@fault("responses.settings_missing", caught_by={"responses.required"}, at=Stage.PAYLOAD, on=BODY)
def settings_missing(turn: Turn) -> None:
    """Responses do not tell the settings they were made with."""
    for key in ("instructions", "metadata", "temperature", "tool_choice", "tools", "top_p"):
        del turn.payload[key]


@fault("responses.object_wrong", caught_by={"responses.object"}, at=Stage.PAYLOAD, on=BODY)
def object_wrong(turn: Turn) -> None:
    """`object` is "realtime.response"."""
    turn.payload["object"] = "realtime.response"


@fault("responses.id_constant", caught_by={"responses.id"}, at=Stage.PAYLOAD, on=BODY)
def id_constant(turn: Turn) -> None:
    """Every response has the same id."""
    turn.payload["id"] = "resp_1"


@fault("responses.id_of_request", caught_by={"responses.id"}, at=Stage.PAYLOAD, on=BODY)
def id_of_request(turn: Turn) -> None:
    """The id is made of the request, so that the same request gets it again."""
    turn.payload["id"] = "resp_" + hashlib.sha256(turn.raw).hexdigest()[:32]


@fault("responses.created_at_ms", caught_by={"responses.created_at"}, at=Stage.PAYLOAD, on=BODY)
def created_at_ms(turn: Turn) -> None:
    """`created_at` is in milliseconds."""
    turn.payload["created_at"] *= 1000


@fault("responses.model_other", caught_by={"responses.model"}, at=Stage.PAYLOAD, on=BODY)
def model_other(turn: Turn) -> None:
    """Responses name the default model, whichever was asked for."""
    turn.payload["model"] = "default"


@fault("responses.status_unknown", caught_by={"responses.status"}, at=Stage.PAYLOAD, on=BODY)
def status_unknown(turn: Turn) -> None:
    """The engine's own word comes through: "succeeded" for "completed"."""
    if turn.payload["status"] == "completed":
        turn.payload["status"] = "succeeded"


@fault("responses.status_always_incomplete", caught_by={"responses.status"}, at=Stage.PAYLOAD, on=BODY)
def status_always_incomplete(turn: Turn) -> None:
    """Every response says that it was cut."""
    turn.payload["status"] = "incomplete"
    turn.payload["incomplete_details"] = {"reason": "max_output_tokens"}


@fault("responses.error_in_200", caught_by={"responses.error_null"}, at=Stage.PAYLOAD, on=BODY)
def error_in_200(turn: Turn) -> None:
    """Conversations fail with an error under status 200."""
    if "ZEBRA" in str(turn.body["input"]):
        turn.payload = {"error": {"message": "the engine is overloaded", "type": "server_error", "code": None}}


@fault("responses.failed_in_200", caught_by={"responses.error_null"}, at=Stage.PAYLOAD, on=BODY)
def failed_in_200(turn: Turn) -> None:
    """Conversations come back as failed responses."""
    if "ZEBRA" in str(turn.body["input"]):
        turn.payload |= {"status": "failed", "error": {"code": "server_error", "message": "try again"}, "output": []}


@fault("responses.reason_always", caught_by={"responses.error_null"}, at=Stage.PAYLOAD, on=BODY)
def reason_always(turn: Turn) -> None:
    """`incomplete_details` is there in whole answers too."""
    turn.payload["incomplete_details"] = turn.payload["incomplete_details"] or {"reason": None}


@fault("responses.text_beside_output", caught_by={"responses.text"}, at=Stage.PAYLOAD, on=BODY)
def text_beside_output(turn: Turn) -> None:
    """The text stands beside the output, in a field that is the SDK's own."""
    if _plain(turn) and turn.payload["status"] == "completed":
        turn.payload |= {"output_text": turn.choices[0].content, "output": []}


@fault("responses.text_type", caught_by={"responses.text"}, at=Stage.PAYLOAD, on=BODY)
def text_type(turn: Turn) -> None:
    """Parts of plain messages have the type "text", as in chat."""
    if _plain(turn) and turn.payload["status"] == "completed":
        for part in _parts(turn):
            part["type"] = "text"


@fault("responses.content_text", caught_by={"responses.shape", "responses.text"}, at=Stage.PAYLOAD, on=BODY)
def content_text(turn: Turn) -> None:
    """The content of plain messages is a text, as in chat."""
    if _plain(turn) and turn.payload["status"] == "completed":
        for message in _items(turn, "message"):
            message["content"] = turn.choices[0].content


@fault("responses.role_model", caught_by={"responses.role"}, at=Stage.PAYLOAD, on=BODY)
def role_model(turn: Turn) -> None:
    """Messages have the role "model"."""
    for message in _items(turn, "message"):
        message["role"] = "model"


@fault("responses.annotations_missing", caught_by={"responses.annotations"}, at=Stage.PAYLOAD, on=BODY)
def annotations_missing(turn: Turn) -> None:
    """Texts have no annotations."""
    for part in _parts(turn):
        del part["annotations"]


@fault("responses.annotations_null", caught_by={"responses.annotations"}, at=Stage.PAYLOAD, on=BODY)
def annotations_null(turn: Turn) -> None:
    """The annotations of texts are null."""
    for part in _parts(turn):
        part["annotations"] = None


@fault("responses.item_ids_missing", caught_by={"responses.item_ids"}, at=Stage.PAYLOAD, on=BODY)
def item_ids_missing(turn: Turn) -> None:
    """Messages of the output have no id."""
    for message in _items(turn, "message"):
        del message["id"]


@fault("responses.item_ids_same", caught_by={"responses.item_ids"}, at=Stage.PAYLOAD, on=BODY)
def item_ids_same(turn: Turn) -> None:
    """All items of one output have the response's id."""
    for item in turn.payload["output"]:
        item["id"] = turn.payload["id"]


@fault("responses.item_in_progress", caught_by={"responses.item_status"}, at=Stage.PAYLOAD, on=BODY)
def item_in_progress(turn: Turn) -> None:
    """Messages of completed responses are still in progress."""
    for message in _items(turn, "message"):
        message["status"] = "in_progress"


# Usage


@fault("responses.usage_missing", caught_by={"responses.usage.counts"}, at=Stage.PAYLOAD, on=BODY)
def usage_missing(turn: Turn) -> None:
    """Responses tell no usage."""
    turn.payload["usage"] = None


@fault("responses.usage_of_chat", caught_by={"responses.usage.counts"}, at=Stage.PAYLOAD, on=BODY)
def usage_of_chat(turn: Turn) -> None:
    """The usage has the names of chat."""
    usage = turn.payload["usage"]
    turn.payload["usage"] = {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }


@fault("responses.usage_zero", caught_by={"responses.usage.counts"}, at=Stage.PAYLOAD, on=BODY)
def usage_zero(turn: Turn) -> None:
    """Plain answers cost nothing."""
    if "PONG" in str(turn.body["input"]):
        turn.payload["usage"] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


@fault("responses.total_without_thoughts", caught_by={"responses.usage.total"}, at=Stage.PAYLOAD, on=BODY)
def total_without_thoughts(turn: Turn) -> None:
    """The total leaves the thoughts out."""
    usage = turn.payload["usage"]
    thought = usage["output_tokens_details"]["reasoning_tokens"]
    turn.payload["usage"] = {**usage, "total_tokens": usage["total_tokens"] - thought}


@fault("responses.input_constant", caught_by={"responses.usage.input"}, at=Stage.PAYLOAD, on=BODY)
def input_constant(turn: Turn) -> None:
    """Every input counts ten tokens."""
    usage = turn.payload["usage"]
    turn.payload["usage"] = {**usage, "input_tokens": 10, "total_tokens": 10 + usage["output_tokens"]}


# What the model is given


@fault("responses.encoding", caught_by={"responses.echo"}, at=Stage.PAYLOAD, on=BODY)
def encoding(turn: Turn) -> None:
    """The answer's UTF-8 is read as Latin-1."""
    if _plain(turn):
        for part in _parts(turn):
            part["text"] = part["text"].encode().decode("latin-1")


@fault("responses.instructions_dropped", caught_by={"responses.instructions"}, at=Stage.REQUEST, on=BODY)
def instructions_dropped(turn: Turn) -> None:
    """Instructions do not reach the model."""
    turn.body.pop("instructions", None)


@fault("responses.developer_dropped", caught_by={"responses.developer"}, at=Stage.REQUEST, on=BODY)
def developer_dropped(turn: Turn) -> None:
    """Messages of the role developer do not reach the model."""
    if _given(turn):
        turn.body["input"] = [item for item in _given(turn) if item.get("role") != "developer"]


@fault("responses.history_dropped", caught_by={"responses.history"}, at=Stage.REQUEST, on=BODY)
def history_dropped(turn: Turn) -> None:
    """Only the last question reaches the model."""
    if _given(turn) and _plain(turn):
        told = [item for item in _given(turn)[:-1] if item.get("role") in ("system", "developer")]
        turn.body["input"] = [*told, _given(turn)[-1]]


@fault("responses.think_leak", caught_by={"responses.no_leak"}, at=Stage.PAYLOAD, on=BODY)
def think_leak(turn: Turn) -> None:
    """Plain answers begin with the model's thoughts."""
    if _plain(turn):
        for part in _parts(turn):
            part["text"] = "<think>They ask me.</think>" + part["text"]


@fault("responses.template_leak", caught_by={"responses.no_leak"}, at=Stage.PAYLOAD, on=BODY)
def template_leak(turn: Turn) -> None:
    """Plain answers end with a control token."""
    if _plain(turn):
        for part in _parts(turn):
            part["text"] += "<|im_end|>"


# Time


@fault("responses.slow_answer", caught_by={"responses.total_time"}, at=Stage.FRAMES, on=BODY)
def slow_answer(turn: Turn) -> None:
    """A short answer takes its time."""
    if "PONG" in str(turn.body.get("input")):
        turn.frames[0].delay_s = 0.5


# Limits


@fault("responses.cut_completed", caught_by={"responses.cut.status"}, at=Stage.PAYLOAD, on=BODY)
def cut_completed(turn: Turn) -> None:
    """An answer that was cut calls itself completed."""
    turn.payload |= {"status": "completed", "incomplete_details": None}
    for message in _items(turn, "message"):
        message["status"] = "completed"


@fault("responses.cut_reason_missing", caught_by={"responses.cut.status"}, at=Stage.PAYLOAD, on=BODY)
def cut_reason_missing(turn: Turn) -> None:
    """An answer that was cut does not say why."""
    turn.payload["incomplete_details"] = None


@fault("responses.cut_reason_of_chat", caught_by={"responses.cut.status"}, at=Stage.PAYLOAD, on=BODY)
def cut_reason_of_chat(turn: Turn) -> None:
    """The reason is chat's word: "length"."""
    if turn.payload["incomplete_details"]:
        turn.payload["incomplete_details"] = {"reason": "length"}


@fault("responses.limit_ignored", caught_by={"responses.cut.limit"}, at=Stage.REQUEST, on=BODY)
def limit_ignored(turn: Turn) -> None:
    """max_output_tokens is ignored where nothing is streamed."""
    if not turn.body.get("stream"):
        turn.body["max_output_tokens"] = None


@fault("responses.limit_overcounted", caught_by={"responses.cut.limit"}, at=Stage.PAYLOAD, on=BODY)
def limit_overcounted(turn: Turn) -> None:
    """Of a cut answer also those tokens are counted that nobody got."""
    usage = turn.payload["usage"]
    if turn.payload["status"] == "incomplete":
        more = {"output_tokens": usage["output_tokens"] + 9, "total_tokens": usage["total_tokens"] + 9}
        turn.payload["usage"] = {**usage, **more}


@fault("responses.metadata_dropped", caught_by={"responses.metadata"}, at=Stage.PAYLOAD, on=BODY)
def metadata_dropped(turn: Turn) -> None:
    """The caller's metadata are lost."""
    turn.payload["metadata"] = {}


# Conversations that the server keeps


@fault("responses.continued_ignored", caught_by={"responses.continued.remembers"}, at=Stage.ARRIVAL)
def continued_ignored(turn: Turn) -> None:
    """previous_response_id is taken and ignored, where it is known."""
    if b"resp_0000" not in turn.raw:
        turn.skip.add("previous")


@fault("responses.continued_unnamed", caught_by={"responses.continued.named"}, at=Stage.PAYLOAD, on=BODY)
def continued_unnamed(turn: Turn) -> None:
    """A response does not name the one it continues."""
    turn.payload["previous_response_id"] = None


@fault("responses.continued_unknown_taken", caught_by={"responses.continued.unknown"}, at=Stage.ARRIVAL)
def continued_unknown_taken(turn: Turn) -> None:
    """Conversations that never were are continued."""
    if b"resp_0000" in turn.raw:
        turn.skip.add("previous")


# Functions


@fault("responses.streamed_tools_refused", caught_by={"responses.call.accepted"}, at=Stage.REQUEST, on=BODY)
def streamed_tools_refused(turn: Turn) -> None:
    """Tools are refused in streams."""
    if turn.body.get("stream") and turn.body.get("tools"):
        raise ApiError(400, "tools cannot be streamed", param="stream")


@fault("responses.results_refused", caught_by={"responses.call.accepted"}, at=Stage.REQUEST, on=BODY)
def results_refused(turn: Turn) -> None:
    """Items of type function_call_output are refused."""
    if any(item.get("type") == "function_call_output" for item in _given(turn)):
        raise ApiError(400, "unknown item type: function_call_output", param="input")


@fault("responses.required_ignored", caught_by={"responses.call.made"}, at=Stage.ANSWER, on=BOTH)
def required_ignored(turn: Turn) -> None:
    """A call that is required comes as a text."""
    if turn.choices[0].tool_calls:
        turn.choices = [Choice("I would look at the weather service.")]


@fault("responses.call_in_message", caught_by={"responses.call.made"}, at=Stage.PAYLOAD, on=BODY)
def call_in_message(turn: Turn) -> None:
    """Calls stand within a message, as in chat."""
    calls = _items(turn, "function_call")
    if calls:
        tool_calls = [{"id": c["call_id"], "type": "function", "function": {"name": c["name"]}} for c in calls]
        message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "tool_calls": tool_calls}
        turn.payload["output"] = [message]


@fault("responses.call_id_missing", caught_by={"responses.call.fields"}, at=Stage.PAYLOAD, on=BODY)
def call_id_missing(turn: Turn) -> None:
    """Calls have no call_id."""
    for call in _items(turn, "function_call"):
        del call["call_id"]


@fault("responses.call_arguments_object", caught_by={"responses.call.fields"}, at=Stage.PAYLOAD, on=BODY)
def call_arguments_object(turn: Turn) -> None:
    """Arguments are an object, not a string."""
    for call in _items(turn, "function_call"):
        call["arguments"] = json.loads(call["arguments"])


@fault("responses.call_name_prefixed", caught_by={"responses.call.fields"}, at=Stage.PAYLOAD, on=BODY)
def call_name_prefixed(turn: Turn) -> None:
    """Names of functions come with the template's prefix."""
    for call in _items(turn, "function_call"):
        call["name"] = "functions." + call["name"]


@fault("responses.call_arguments_cut", caught_by={"responses.call.arguments"}, at=Stage.PAYLOAD, on=BODY)
def call_arguments_cut(turn: Turn) -> None:
    """Arguments lack their last brace."""
    for call in _items(turn, "function_call"):
        call["arguments"] = call["arguments"][:-1]


@fault("responses.call_enum_ignored", caught_by={"responses.call.arguments"}, at=Stage.ANSWER, on=BOTH)
def call_enum_ignored(turn: Turn) -> None:
    """Arguments go beyond their enum."""
    for name, arguments in turn.choices[0].tool_calls:
        if name == "get_weather":
            arguments["unit"] = "kelvin"


@fault("responses.call_ids_counted", caught_by={"responses.call.ids"}, at=Stage.PAYLOAD, on=BODY)
def call_ids_counted(turn: Turn) -> None:
    """Calls are counted from zero in each response."""
    for number, call in enumerate(_items(turn, "function_call")):
        call["call_id"] = f"call_{number}"


@fault("responses.named_ignored", caught_by={"responses.call.named"}, at=Stage.REQUEST, on=BODY)
def named_ignored(turn: Turn) -> None:
    """A function that the caller names only means that some call must come."""
    if isinstance(turn.body.get("tool_choice"), dict):
        turn.body["tool_choice"] = "required"


@fault("responses.result_dropped", caught_by={"responses.call.result"}, at=Stage.REQUEST, on=BODY)
def result_dropped(turn: Turn) -> None:
    """What a function returned does not reach the model."""
    for item in _given(turn):
        if item.get("type") == "function_call_output":
            item["output"] = ""


# Structured output


@fault("responses.streamed_schema_refused", caught_by={"responses.schema.accepted"}, at=Stage.REQUEST, on=BODY)
def streamed_schema_refused(turn: Turn) -> None:
    """A schema is refused in streams."""
    if turn.body.get("stream") and turn.body.get("text"):
        raise ApiError(400, "structured output cannot be streamed", param="stream")


@fault("responses.schema_fenced", caught_by={"responses.schema.parses"}, at=Stage.ANSWER, on=BOTH)
def schema_fenced(turn: Turn) -> None:
    """JSON comes in a fence."""
    if "text" in turn.body:
        turn.choices[0].content = f"```json\n{turn.choices[0].content}\n```"


@fault("responses.schema_key_missing", caught_by={"responses.schema.met"}, at=Stage.ANSWER, on=BOTH)
def schema_key_missing(turn: Turn) -> None:
    """A required property is left out."""
    said = turn.choices[0].content or ""
    if "text" in turn.body and said.startswith("{"):
        made = json.loads(said)
        made.pop("participants", None)
        turn.choices[0].content = json.dumps(made)


@fault("responses.chat_name_ignored", caught_by={"responses.schema.chat_name"}, at=Stage.REQUEST, on=BODY)
def chat_name_ignored(turn: Turn) -> None:
    """response_format is taken and ignored."""
    turn.body.pop("response_format", None)


# Images and thoughts


@fault("responses.image_refused", caught_by={"responses.image.accepted"}, at=Stage.REQUEST, on=BODY)
def image_refused(turn: Turn) -> None:
    """Images are refused by a model that is said to see."""
    if "input_image" in str(turn.body["input"]):
        raise ApiError(400, "input_image is not supported", param="input")


@fault("responses.image_dropped", caught_by={"responses.image.seen"}, at=Stage.REQUEST, on=BODY)
def image_dropped(turn: Turn) -> None:
    """Images do not reach the model."""
    for item in _given(turn):
        if isinstance(item.get("content"), list):
            item["content"] = [part for part in item["content"] if part["type"] != "input_image"]


@fault("responses.effort_refused", caught_by={"responses.reasoning.accepted"}, at=Stage.REQUEST, on=BODY)
def effort_refused(turn: Turn) -> None:
    """An effort is refused by a model that is said to reason."""
    if "reasoning" in turn.body:
        raise ApiError(400, "reasoning is not supported", param="reasoning")


@fault("responses.thoughts_last", caught_by={"responses.reasoning.order"}, at=Stage.PAYLOAD, on=BODY)
def thoughts_last(turn: Turn) -> None:
    """Thoughts come after the message."""
    if "reasoning" in turn.body:
        turn.payload["output"].reverse()


@fault("responses.thoughts_missing", caught_by={"responses.reasoning.order"}, at=Stage.PAYLOAD, on=BODY)
def thoughts_missing(turn: Turn) -> None:
    """Thoughts are thrown away."""
    turn.payload["output"] = [item for item in turn.payload["output"] if item["type"] != "reasoning"]


@fault("responses.summary_missing", caught_by={"responses.reasoning.summary"}, at=Stage.PAYLOAD, on=BODY)
def summary_missing(turn: Turn) -> None:
    """Reasoning items have no summary."""
    for item in _items(turn, "reasoning"):
        del item["summary"]


@fault("responses.thought_text", caught_by={"responses.reasoning.summary"}, at=Stage.PAYLOAD, on=BODY)
def thought_text(turn: Turn) -> None:
    """Summaries are texts, not parts."""
    for item in _items(turn, "reasoning"):
        item["summary"] = ["I looked at the question."]


@fault("responses.thoughts_uncounted", caught_by={"responses.reasoning.usage"}, at=Stage.PAYLOAD, on=BODY)
def thoughts_uncounted(turn: Turn) -> None:
    """The usage tells of no thoughts where there are some."""
    turn.payload["usage"] = {**turn.payload["usage"], "output_tokens_details": {"reasoning_tokens": 0}}


# Remote tools


@fault("responses.mcp_list_missing", caught_by={"responses.mcp.listed"}, at=Stage.PAYLOAD, on=BODY)
def mcp_list_missing(turn: Turn) -> None:
    """The tools of a remote server are not told."""
    turn.payload["output"] = [item for item in turn.payload["output"] if item["type"] != "mcp_list_tools"]


@fault("responses.mcp_label_lost", caught_by={"responses.mcp.listed"}, at=Stage.PAYLOAD, on=BODY)
def mcp_label_lost(turn: Turn) -> None:
    """A remote server is called by its own name, not by the caller's."""
    for item in _items(turn, "mcp_list_tools"):
        item["server_label"] = "mcp-demo"


@fault("responses.mcp_schema_missing", caught_by={"responses.mcp.listed"}, at=Stage.PAYLOAD, on=BODY)
def mcp_schema_missing(turn: Turn) -> None:
    """Remote tools are told by name alone."""
    for item in _items(turn, "mcp_list_tools"):
        item["tools"] = [tool["name"] for tool in item["tools"]]


@fault("responses.mcp_allowed_ignored", caught_by={"responses.mcp.allowed"}, at=Stage.REQUEST, on=BODY)
def mcp_allowed_ignored(turn: Turn) -> None:
    """All tools of a remote server are offered, whatever the caller allows."""
    for tool in turn.body.get("tools") or ():
        tool.pop("allowed_tools", None)


@fault("responses.mcp_arguments_object", caught_by={"responses.mcp.called"}, at=Stage.PAYLOAD, on=BODY)
def mcp_arguments_object(turn: Turn) -> None:
    """Arguments of remote calls are objects."""
    for item in _items(turn, "mcp_call"):
        item["arguments"] = json.loads(item["arguments"])


@fault("responses.mcp_output_missing", caught_by={"responses.mcp.called"}, at=Stage.PAYLOAD, on=BODY)
def mcp_output_missing(turn: Turn) -> None:
    """Remote calls are told without what they returned."""
    for item in _items(turn, "mcp_call"):
        item["output"] = None


@fault("responses.mcp_unanswered", caught_by={"responses.mcp.order"}, at=Stage.PAYLOAD, on=BODY)
def mcp_unanswered(turn: Turn) -> None:
    """After a remote call the response ends."""
    if _items(turn, "mcp_call"):
        turn.payload["output"] = [item for item in turn.payload["output"] if item["type"] != "message"]


# Refusals


@fault("responses.open", caught_by={"responses.no_key"}, at=Stage.ARRIVAL)
def unlocked(turn: Turn) -> None:
    """The route asks for no key."""
    if _asked(turn):
        turn.skip.add("auth")


@fault("responses.any_model", caught_by={"responses.unknown_model"}, at=Stage.ARRIVAL)
def any_model(turn: Turn) -> None:
    """A model that does not exist is answered by another."""
    if _asked(turn):
        turn.skip.add("model")


@fault("responses.unknown_model_403", caught_by={"responses.unknown_model"}, at=Stage.HEAD, on=ERROR)
def unknown_model_403(turn: Turn) -> None:
    """A model that does not exist gets 403."""
    if b"no-such-model" in turn.raw:
        turn.status = 403


@fault("responses.no_input_taken", caught_by={"responses.no_input"}, at=Stage.ARRIVAL)
def no_input_taken(turn: Turn) -> None:
    """A request without an input is answered."""
    if b'"input"' not in turn.raw:
        turn.skip.add("input")


@fault("responses.number_taken", caught_by={"responses.wrong_type"}, at=Stage.ARRIVAL)
def number_taken(turn: Turn) -> None:
    """An input that is a number is answered."""
    if b'"input": 7' in turn.raw:
        turn.skip.add("input")


@fault("responses.unknown_tool_taken", caught_by={"responses.unknown_tool"}, at=Stage.ARRIVAL)
def unknown_tool_taken(turn: Turn) -> None:
    """Tools of a type that does not exist are left out in silence."""
    if b"telepathy" in turn.raw:
        turn.skip.add("tools")


@fault("responses.refusal_vague", caught_by={"responses.refusal_names_field"}, at=Stage.PAYLOAD, on=ERROR)
def refusal_vague(turn: Turn) -> None:
    """Refusals say "bad request" and no more."""
    if _asked(turn) and turn.status == 400:
        turn.payload["error"] |= {"message": "bad request", "param": None}


@fault("responses.crash", caught_by={"errors.no_5xx"}, at=Stage.ARRIVAL)
def crash(turn: Turn) -> None:
    """An input that is a number makes the server fail."""
    turn.crash = b'"input": 7' in turn.raw


@fault("responses.bad_role_taken", caught_by={"responses.bad_stream.refused"}, at=Stage.ARRIVAL)
def bad_role_taken(turn: Turn) -> None:
    """A role that does not exist is answered."""
    if b"robot" in turn.raw:
        turn.skip |= {"input", "messages"}


def _as_stream(turn: Turn, data: bytes) -> None:
    """Answer a refused stream as a stream of these bytes, under status 200."""
    if _asked(turn) and b'"stream": true' in turn.raw:
        turn.status, turn.frames = 200, [Frame(data)]
        turn.headers |= {"content-type": "text/event-stream"}


@fault("responses.bad_stream_silent", caught_by={"responses.bad_stream.refused"}, at=Stage.HEAD, on=ERROR)
def bad_stream_silent(turn: Turn) -> None:
    """A streamed request that is wrong gets an empty stream."""
    _as_stream(turn, b": refused\n\n")


@fault("responses.bad_stream_of_chat", caught_by={"responses.bad_stream.event"}, at=Stage.HEAD, on=ERROR)
def bad_stream_of_chat(turn: Turn) -> None:
    """A streamed request that is wrong gets chat's error as an event, without a type."""
    _as_stream(turn, b"data: " + json.dumps(turn.payload).encode() + b"\n\n")


@fault("responses.bad_stream_mute", caught_by={"responses.bad_stream.event"}, at=Stage.HEAD, on=ERROR)
def bad_stream_mute(turn: Turn) -> None:
    """A streamed request that is wrong gets an error event without a message."""
    _as_stream(turn, b'event: error\ndata: {"type":"error","detail":{"status":400},"sequence_number":0}\n\n')


# Legal variations


@variation("responses.extra_fields", at=Stage.PAYLOAD, on=BODY)
def extra_fields(turn: Turn) -> None:
    """Responses, items and parts have fields of the provider's own."""
    turn.payload["x_provider"] = {"region": "eu"}
    turn.payload["output_text"] = turn.choices[0].content if turn.choices else None
    for item in turn.payload["output"]:
        item["x_took_ms"] = 3
    for part in _parts(turn):
        part["parsed"] = None


@variation("responses.sparse", at=Stage.PAYLOAD, on=BODY)
def sparse(turn: Turn) -> None:
    """What may be absent or null is: details of usage, log probabilities, statuses of items."""
    turn.payload["usage"] = {**turn.payload["usage"], "input_tokens_details": None}
    for key in ("background", "truncation", "store", "reasoning", "text", "max_output_tokens"):
        turn.payload.pop(key)
    for part in _parts(turn):
        del part["logprobs"]
    for item in turn.payload["output"]:
        item.pop("status", None)


@variation("responses.fraction_of_second", at=Stage.PAYLOAD, on=BODY)
def fraction_of_second(turn: Turn) -> None:
    """`created_at` has a fraction: the SDK's type is a float."""
    turn.payload["created_at"] += 0.25


@variation("responses.dated_model", at=Stage.PAYLOAD, on=BODY)
def dated_model(turn: Turn) -> None:
    """The response names the dated version of the model that was asked for."""
    turn.payload["model"] += "-2026-01-15"


@variation("responses.plain_item_ids", at=Stage.PAYLOAD, on=BODY)
def plain_item_ids(turn: Turn) -> None:
    """Ids of items have no prefix that tells their type."""
    for number, item in enumerate(turn.payload["output"]):
        item["id"] = f"{turn.request_id}-{number}"


@variation("responses.two_parts", at=Stage.PAYLOAD, on=BODY)
def two_parts(turn: Turn) -> None:
    """A message's text comes in two parts."""
    for message in _items(turn, "message"):
        [part] = message["content"]
        half = len(part["text"]) // 2
        message["content"] = [{**part, "text": part["text"][:half]}, {**part, "text": part["text"][half:]}]


@variation("responses.thoughts_unasked", at=Stage.PAYLOAD, on=BODY)
def thoughts_unasked(turn: Turn) -> None:
    """Every output begins with a reasoning item that shows nothing, as OpenAI's own does."""
    hidden: dict[str, Any] = {"id": "rs_hidden", "type": "reasoning", "summary": [], "encrypted_content": None}
    turn.payload["output"] = [hidden, *turn.payload["output"]]


@variation("responses.other_items", at=Stage.PAYLOAD, on=BODY)
def other_items(turn: Turn) -> None:
    """The output holds an item of a type of the provider's own, with an id and nothing else."""
    turn.payload["output"] = [{"id": "x_1", "type": "x_safety_check"}, *turn.payload["output"]]


@variation("responses.summaries", at=Stage.PAYLOAD, on=BODY)
def summaries(turn: Turn) -> None:
    """Thoughts are shown as a summary, not whole."""
    for item in _items(turn, "reasoning"):
        item["summary"] = [{"type": "summary_text", "text": "I looked at the question."}]
        del item["content"]


@variation("responses.nothing_kept", at=Stage.REQUEST, on=BODY)
def nothing_kept(turn: Turn) -> None:
    """Conversations are not kept, and continuing one is refused."""
    if turn.body.get("previous_response_id") is not None:
        raise ApiError(400, "previous_response_id is not supported", param="previous_response_id")


@variation("responses.keeps_nothing", at=Stage.REQUEST, on=BODY)
def keeps_nothing(turn: Turn) -> None:
    """Responses are never kept, and asking for it is refused."""
    if turn.body.get("store"):
        raise ApiError(400, "store is not supported", param="store")


@variation("responses.whole_list", at=Stage.PAYLOAD, on=BODY)
def whole_list(turn: Turn) -> None:
    """The list of a remote server's tools tells of those too that are not allowed: it calls none of them."""
    for item in _items(turn, "mcp_list_tools"):
        item["tools"] = [*item["tools"], {"name": "other", "description": None, "input_schema": {}}]


@variation("responses.no_remote_tools", at=Stage.REQUEST, on=BODY)
def no_remote_tools(turn: Turn) -> None:
    """Remote tools are refused in so many words."""
    if any(tool.get("type") == "mcp" for tool in turn.body.get("tools") or ()):
        raise ApiError(400, "tools of type mcp are not supported", param="tools")


@variation("responses.no_mcp_host", at=Stage.HEAD, on={Kind.SERVER})
def no_mcp_host(turn: Turn) -> None:
    """There is no demonstration MCP server."""
    turn.status = 404


@variation("responses.mcp_unreached", at=Stage.PAYLOAD, on=BODY)
def mcp_unreached(turn: Turn) -> None:
    """The remote server was not reached, and its item says so; the model answers without."""
    if _items(turn, "mcp_list_tools"):
        for item in _items(turn, "mcp_list_tools"):
            item |= {"tools": [], "error": {"type": "http_error", "code": 404, "message": "not found"}}
        turn.payload["output"] = [item for item in turn.payload["output"] if item["type"] != "mcp_call"]


@variation("responses.chat_name_refused", at=Stage.REQUEST, on=BODY)
def chat_name_refused(turn: Turn) -> None:
    """response_format is refused, as OpenAI does, which names text.format instead."""
    if "response_format" in turn.body:
        raise ApiError(400, "response_format has moved to text.format", param="response_format")


@variation("responses.status_422", at=Stage.HEAD, on=ERROR)
def status_422(turn: Turn) -> None:
    """Malformed requests get 422, which is as clear as 400."""
    if turn.status == 400:
        turn.status = 422


@variation("responses.error_event", at=Stage.HEAD, on=ERROR)
def error_event(turn: Turn) -> None:
    """A streamed request that is wrong gets an error event, after a status of 200."""
    event = {"type": "error", "code": "invalid", "message": "unknown role", "param": "input", "sequence_number": 0}
    _as_stream(turn, b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n")
