"""Faults and legal variations of streams of the Responses API."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from roadworthy.sandbox.faults.responses import fault, variation
from roadworthy.sandbox.turn import Frame, Kind, Stage, Turn

STREAM = {Kind.RESPONSE_STREAM}
DELTA, DONE = "response.output_text.delta", "response.output_text.done"
ARGUMENTS_DELTA, ARGUMENTS_DONE = "response.function_call_arguments.delta", "response.function_call_arguments.done"
Event = dict[str, Any]


def _of(turn: Turn, *kinds: str) -> list[Event]:
    return [event for event in turn.chunks if event["type"] in kinds]


def _drop(turn: Turn, *kinds: str) -> None:
    turn.chunks = [event for event in turn.chunks if event["type"] not in kinds]


def _end(turn: Turn) -> Event:
    """The response within the last event, free to be changed."""
    turn.chunks[-1]["response"] = copy.deepcopy(turn.chunks[-1]["response"])
    response: Event = turn.chunks[-1]["response"]
    return response


def _plain(turn: Turn) -> bool:
    return not any(key in turn.body for key in ("tools", "text", "reasoning"))


def _number(turn: Turn, first: int = 0, step: int = 1) -> None:
    for place, event in enumerate(turn.chunks):
        event["sequence_number"] = first + step * place


def _each_frame(turn: Turn, change: Callable[[bytes], bytes]) -> None:
    for frame in turn.frames:
        frame.data = change(frame.data)


# Each event


@fault("responses.stream.content_type_json", caught_by={"responses.stream.content_type"}, at=Stage.HEAD, on=STREAM)
def content_type_json(turn: Turn) -> None:
    """Streams are labelled application/json."""
    turn.headers["content-type"] = "application/json"


@fault("responses.stream.type_missing", caught_by={"responses.stream.events"}, at=Stage.CHUNKS, on=STREAM)
def type_missing(turn: Turn) -> None:
    """Deltas have no type."""
    for event in _of(turn, DELTA):
        del event["type"]


@fault("responses.stream.python_words", caught_by={"responses.stream.events"}, at=Stage.FRAMES, on=STREAM)
def python_words(turn: Turn) -> None:
    """Events hold None where null belongs."""
    _each_frame(turn, lambda data: data.replace(b":null", b":None"))


@fault("responses.stream.unnamed", caught_by={"responses.stream.named"}, at=Stage.FRAMES, on=STREAM)
def unnamed(turn: Turn) -> None:
    """Events have no `event:` line, as in chat."""
    _each_frame(turn, lambda data: data[data.index(b"data:") :])


@fault("responses.stream.misnamed", caught_by={"responses.stream.named"}, at=Stage.FRAMES, on=STREAM)
def misnamed(turn: Turn) -> None:
    """The `event:` line leaves out the family's prefix."""
    _each_frame(turn, lambda data: data.replace(b"event: response.", b"event: ", 1))


@fault("responses.stream.sequence_missing", caught_by={"responses.stream.sequence"}, at=Stage.CHUNKS, on=STREAM)
def sequence_missing(turn: Turn) -> None:
    """Events are not numbered."""
    for event in turn.chunks:
        del event["sequence_number"]


@fault("responses.stream.sequence_constant", caught_by={"responses.stream.sequence"}, at=Stage.CHUNKS, on=STREAM)
def sequence_constant(turn: Turn) -> None:
    """Every event has the number 0."""
    _number(turn, step=0)


@fault("responses.stream.sequence_restarts", caught_by={"responses.stream.sequence"}, at=Stage.CHUNKS, on=STREAM)
def sequence_restarts(turn: Turn) -> None:
    """Deltas are counted for themselves."""
    for number, event in enumerate(_of(turn, DELTA)):
        event["sequence_number"] = number


# Beginning and end


@fault("responses.stream.fails", caught_by={"responses.stream.no_error"}, at=Stage.CHUNKS, on=STREAM)
def fails(turn: Turn) -> None:
    """A longer stream breaks off with an error."""
    if "thirty" in str(turn.body["input"]):
        number = turn.chunks[-1]["sequence_number"]
        error = {"type": "error", "code": "server_error", "message": "the engine is overloaded", "param": None}
        turn.chunks[-1] = {**error, "sequence_number": number}


@fault("responses.stream.failed_response", caught_by={"responses.stream.no_error"}, at=Stage.CHUNKS, on=STREAM)
def failed_response(turn: Turn) -> None:
    """A longer stream ends as failed."""
    if "thirty" in str(turn.body["input"]):
        _end(turn).update(status="failed", error={"code": "server_error", "message": "try again"})
        turn.chunks[-1]["type"] = "response.failed"


@fault("responses.stream.created_missing", caught_by={"responses.stream.begins"}, at=Stage.CHUNKS, on=STREAM)
def created_missing(turn: Turn) -> None:
    """Streams begin without response.created."""
    _drop(turn, "response.created")


@fault("responses.stream.created_late", caught_by={"responses.stream.begins"}, at=Stage.CHUNKS, on=STREAM)
def created_late(turn: Turn) -> None:
    """response.in_progress comes before response.created."""
    turn.chunks[:2] = [turn.chunks[1], turn.chunks[0]]
    _number(turn)


@fault("responses.stream.created_bare", caught_by={"responses.stream.begins"}, at=Stage.CHUNKS, on=STREAM)
def created_bare(turn: Turn) -> None:
    """response.created holds a response without its id."""
    turn.chunks[0]["response"] = {"status": "in_progress"}


@fault("responses.stream.end_missing", caught_by={"responses.stream.ends"}, at=Stage.CHUNKS, on=STREAM)
def end_missing(turn: Turn) -> None:
    """Streams end without response.completed."""
    turn.chunks.pop()


@fault("responses.stream.chat_marker", caught_by={"responses.stream.ends"}, at=Stage.FRAMES, on=STREAM)
def chat_marker(turn: Turn) -> None:
    """Streams end with chat's marker in place of response.completed."""
    turn.frames[-1] = Frame(b"data: [DONE]\n\n")


@fault("responses.stream.end_twice", caught_by={"responses.stream.ends"}, at=Stage.CHUNKS, on=STREAM)
def end_twice(turn: Turn) -> None:
    """The end comes twice."""
    turn.chunks.append(dict(turn.chunks[-1]))
    _number(turn)


@fault("responses.stream.end_early", caught_by={"responses.stream.ends"}, at=Stage.CHUNKS, on=STREAM)
def end_early(turn: Turn) -> None:
    """Something follows the end."""
    turn.chunks.append({**turn.chunks[1], "sequence_number": len(turn.chunks)})


@fault("responses.stream.hangs_up", caught_by={"responses.stream.ends"}, at=Stage.FRAMES, on=STREAM)
def hangs_up(turn: Turn) -> None:
    """The connection of a longer stream breaks before its end."""
    if "thirty" in str(turn.body["input"]):
        turn.abort_after_frame = 8


@fault("responses.stream.completed_at_once", caught_by={"responses.stream.state"}, at=Stage.CHUNKS, on=STREAM)
def completed_at_once(turn: Turn) -> None:
    """The response in response.created is completed already."""
    turn.chunks[0]["response"] = {**turn.chunks[0]["response"], "status": "completed"}


@fault("responses.stream.never_completed", caught_by={"responses.stream.state"}, at=Stage.CHUNKS, on=STREAM)
def never_completed(turn: Turn) -> None:
    """The response in the last event is still in progress."""
    _end(turn)["status"] = "in_progress"


@fault("responses.stream.other_id_at_end", caught_by={"responses.stream.response_id"}, at=Stage.CHUNKS, on=STREAM)
def other_id_at_end(turn: Turn) -> None:
    """The response gets another id at its end."""
    _end(turn)["id"] += "f"


# Items and parts


@fault("responses.stream.index_missing", caught_by={"responses.stream.indexes"}, at=Stage.CHUNKS, on=STREAM)
def index_missing(turn: Turn) -> None:
    """Deltas do not say which item they belong to."""
    for event in _of(turn, DELTA):
        del event["output_index"]


@fault("responses.stream.index_from_one", caught_by={"responses.stream.indexes"}, at=Stage.CHUNKS, on=STREAM)
def index_from_one(turn: Turn) -> None:
    """Items are counted from one."""
    for event in turn.chunks:
        if "output_index" in event:
            event["output_index"] += 1


@fault("responses.stream.item_id_of_response", caught_by={"responses.stream.indexes"}, at=Stage.CHUNKS, on=STREAM)
def item_id_of_response(turn: Turn) -> None:
    """Deltas name the response where they should name their item."""
    for event in _of(turn, DELTA):
        event["item_id"] = turn.chunks[0]["response"]["id"]


@fault("responses.stream.part_unannounced", caught_by={"responses.stream.order"}, at=Stage.CHUNKS, on=STREAM)
def part_unannounced(turn: Turn) -> None:
    """Parts are not announced."""
    _drop(turn, "response.content_part.added")


@fault("responses.stream.item_unannounced", caught_by={"responses.stream.order"}, at=Stage.CHUNKS, on=STREAM)
def item_unannounced(turn: Turn) -> None:
    """Items are not announced."""
    _drop(turn, "response.output_item.added")


@fault("responses.stream.item_unfinished", caught_by={"responses.stream.order"}, at=Stage.CHUNKS, on=STREAM)
def item_unfinished(turn: Turn) -> None:
    """Items of plain streams are never ended."""
    if _plain(turn):
        _drop(turn, "response.output_item.done")


@fault("responses.stream.part_after_item", caught_by={"responses.stream.order"}, at=Stage.CHUNKS, on=STREAM)
def part_after_item(turn: Turn) -> None:
    """The part of a plain stream is ended after its item."""
    if _plain(turn):
        turn.chunks[-3:-1] = [turn.chunks[-2], turn.chunks[-3]]
        _number(turn)


@fault("responses.stream.blanks_lost", caught_by={"responses.stream.text"}, at=Stage.CHUNKS, on=STREAM)
def blanks_lost(turn: Turn) -> None:
    """Deltas lose the blank they begin with."""
    for event in _of(turn, DELTA):
        event["delta"] = event["delta"].lstrip()


@fault("responses.stream.delta_lost", caught_by={"responses.stream.text"}, at=Stage.CHUNKS, on=STREAM)
def delta_lost(turn: Turn) -> None:
    """The third delta of a text is lost."""
    for event in _of(turn, DELTA)[2:3]:
        turn.chunks.remove(event)


@fault("responses.stream.done_text_empty", caught_by={"responses.stream.text"}, at=Stage.CHUNKS, on=STREAM)
def done_text_empty(turn: Turn) -> None:
    """The end of a text tells an empty one."""
    for event in _of(turn, DONE):
        event["text"] = ""


@fault("responses.stream.text_done_missing", caught_by={"responses.stream.text_done"}, at=Stage.CHUNKS, on=STREAM)
def text_done_missing(turn: Turn) -> None:
    """The end of a text is not told."""
    _drop(turn, DONE)


@fault("responses.stream.final_empty", caught_by={"responses.stream.final"}, at=Stage.CHUNKS, on=STREAM)
def final_empty(turn: Turn) -> None:
    """The response in the last event of a plain stream has no output."""
    if _plain(turn):
        _end(turn)["output"] = []


@fault("responses.stream.final_cut", caught_by={"responses.stream.final"}, at=Stage.CHUNKS, on=STREAM)
def final_cut(turn: Turn) -> None:
    """The response in the last event of a plain stream lacks the last letter."""
    if _plain(turn):
        part = _end(turn)["output"][0]["content"][0]
        part["text"] = part["text"][:-1]


@fault("responses.stream.final_other_ids", caught_by={"responses.stream.final"}, at=Stage.CHUNKS, on=STREAM)
def final_other_ids(turn: Turn) -> None:
    """The items in the last event have new ids."""
    for number, item in enumerate(_end(turn)["output"]):
        item["id"] = f"item_{number}"


@fault("responses.stream.usage_missing", caught_by={"responses.stream.usage"}, at=Stage.CHUNKS, on=STREAM)
def usage_missing(turn: Turn) -> None:
    """Streams tell no usage."""
    _end(turn)["usage"] = None


@fault("responses.stream.usage_total_wrong", caught_by={"responses.stream.usage"}, at=Stage.CHUNKS, on=STREAM)
def usage_total_wrong(turn: Turn) -> None:
    """The total of a streamed usage leaves the input out."""
    usage = _end(turn)["usage"]
    usage["total_tokens"] = usage["output_tokens"]


@fault("responses.stream.final_sparse", caught_by={"responses.stream.shape"}, at=Stage.CHUNKS, on=STREAM)
def final_sparse(turn: Turn) -> None:
    """The response in the last event does not name its model."""
    del _end(turn)["model"]


@fault("responses.stream.one_delta", caught_by={"responses.stream.incremental"}, at=Stage.CHUNKS, on=STREAM)
def one_delta(turn: Turn) -> None:
    """The text comes in one delta."""
    deltas = _of(turn, DELTA)
    if deltas:
        deltas[0]["delta"] = "".join(event["delta"] for event in deltas)
        for event in deltas[1:]:
            turn.chunks.remove(event)


@fault("responses.stream.no_deltas", caught_by={"responses.stream.incremental", "responses.stream.text"},
       at=Stage.CHUNKS, on=STREAM)  # fmt: skip
def no_deltas(turn: Turn) -> None:
    """The text comes at its end alone."""
    _drop(turn, DELTA)


@fault("responses.stream.cut_completed", caught_by={"responses.stream.incomplete"}, at=Stage.CHUNKS, on=STREAM)
def cut_completed(turn: Turn) -> None:
    """A stream that was cut ends as completed."""
    if turn.chunks[-1]["type"] == "response.incomplete":
        turn.chunks[-1]["type"] = "response.completed"
        _end(turn).update(status="completed", incomplete_details=None)


@fault("responses.stream.cut_reason_missing", caught_by={"responses.stream.incomplete"}, at=Stage.CHUNKS, on=STREAM)
def cut_reason_missing(turn: Turn) -> None:
    """A stream that was cut does not say why."""
    _end(turn)["incomplete_details"] = None


@fault("responses.stream.slow_first_token", caught_by={"responses.stream.first_token"}, at=Stage.FRAMES, on=STREAM)
def slow_first_token(turn: Turn) -> None:
    """The first delta comes late, long after events that only announce it."""
    if "visitor" in str(turn.body["input"]):
        place = next((n for n, event in enumerate(turn.chunks) if event["type"] == DELTA), 0)
        turn.frames[place].delay_s = 0.3


# Calls and thoughts


@fault("responses.stream.arguments_done_missing", caught_by={"responses.call.events"}, at=Stage.CHUNKS, on=STREAM)
def arguments_done_missing(turn: Turn) -> None:
    """The end of a call's arguments is not told."""
    _drop(turn, ARGUMENTS_DONE)


@fault("responses.stream.arguments_at_once", caught_by={"responses.call.events"}, at=Stage.CHUNKS, on=STREAM)
def arguments_at_once(turn: Turn) -> None:
    """A call's arguments come in its item alone."""
    _drop(turn, ARGUMENTS_DELTA, ARGUMENTS_DONE)


@fault("responses.stream.arguments_lost", caught_by={"responses.call.joined"}, at=Stage.CHUNKS, on=STREAM)
def arguments_lost(turn: Turn) -> None:
    """The second piece of a call's arguments is lost."""
    for event in _of(turn, ARGUMENTS_DELTA)[1:2]:
        turn.chunks.remove(event)


@fault("responses.stream.arguments_done_empty", caught_by={"responses.call.joined"}, at=Stage.CHUNKS, on=STREAM)
def arguments_done_empty(turn: Turn) -> None:
    """The end of a call's arguments tells none."""
    for event in _of(turn, ARGUMENTS_DONE):
        event["arguments"] = ""


@fault("responses.stream.thoughts_held_back", caught_by={"responses.reasoning.streamed"}, at=Stage.CHUNKS, on=STREAM)
def thoughts_held_back(turn: Turn) -> None:
    """Thoughts are shown when they are done, and not before."""
    _drop(turn, "response.reasoning_text.delta")


@fault("responses.stream.remote_call_silent", caught_by={"responses.mcp.streamed"}, at=Stage.CHUNKS, on=STREAM)
def remote_call_silent(turn: Turn) -> None:
    """A remote call runs without a word."""
    _drop(turn, "response.mcp_call.in_progress", "response.mcp_call.completed")


@fault("responses.stream.remote_call_endless", caught_by={"responses.mcp.streamed"}, at=Stage.CHUNKS, on=STREAM)
def remote_call_endless(turn: Turn) -> None:
    """A remote call is not told to be over."""
    _drop(turn, "response.mcp_call.completed")


# Legal variations


@variation("responses.stream.done_marker", at=Stage.FRAMES, on=STREAM)
def done_marker(turn: Turn) -> None:
    """Chat's marker follows the end: the SDKs stop at it in any family."""
    turn.frames.append(Frame(b"data: [DONE]\n\n"))


@variation("responses.stream.sequence_from_one", at=Stage.CHUNKS, on=STREAM)
def sequence_from_one(turn: Turn) -> None:
    """Events are numbered from one, with gaps: the numbers only have to rise."""
    _number(turn, first=1, step=2)


@variation("responses.stream.no_in_progress", at=Stage.CHUNKS, on=STREAM)
def no_in_progress(turn: Turn) -> None:
    """response.in_progress is left out."""
    _drop(turn, "response.in_progress")


@variation("responses.stream.queued", at=Stage.CHUNKS, on=STREAM)
def queued(turn: Turn) -> None:
    """A response waits in a queue before it is in progress."""
    waiting = {**turn.chunks[0]["response"], "status": "queued"}
    turn.chunks[0]["response"] = waiting
    turn.chunks.insert(1, {"type": "response.queued", "response": waiting})
    _number(turn)


@variation("responses.stream.padded", at=Stage.CHUNKS, on=STREAM)
def padded(turn: Turn) -> None:
    """Deltas are padded against those who listen to lengths, as OpenAI's are."""
    for event in turn.chunks:
        if "delta" in event:
            event["obfuscation"] = "x" * 7


@variation("responses.stream.empty_deltas", at=Stage.CHUNKS, on=STREAM)
def empty_deltas(turn: Turn) -> None:
    """An empty delta comes first."""
    place = next((n for n, event in enumerate(turn.chunks) if event["type"] == DELTA), None)
    if place is not None:
        turn.chunks.insert(place, {**turn.chunks[place], "delta": ""})
        _number(turn)


@variation("responses.stream.other_events", at=Stage.CHUNKS, on=STREAM)
def other_events(turn: Turn) -> None:
    """Events of types that nobody knows stand between the others."""
    turn.chunks.insert(2, {"type": "x_provider.progress", "share": 0.5})
    _number(turn)


@variation("responses.stream.bare_deltas", at=Stage.CHUNKS, on=STREAM)
def bare_deltas(turn: Turn) -> None:
    """Deltas carry no log probabilities."""
    for event in _of(turn, DELTA, DONE):
        del event["logprobs"]


@variation("responses.stream.crlf", at=Stage.FRAMES, on=STREAM)
def crlf(turn: Turn) -> None:
    """Lines end with CR LF, without a space after the colon, and comments stand between events."""
    _each_frame(turn, lambda data: b": ping\r\n\r\n" + data.replace(b": ", b":", 1).replace(b"\n", b"\r\n"))


@variation("responses.stream.coalesced", at=Stage.FRAMES, on=STREAM)
def coalesced(turn: Turn) -> None:
    """Several events come in one packet."""
    frames = turn.frames
    turn.frames = [Frame(b"".join(f.data for f in frames[place : place + 4])) for place in range(0, len(frames), 4)]
