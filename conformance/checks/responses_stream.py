"""Checks of streamed answers of the Responses API: their events, one by one and together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Capability, Facts
from roadworthy.conformance.probes import responses as probes
from roadworthy.conformance.reading import responses as view
from roadworthy.conformance.reading.responses import Step, failed, readable, steps, terminal
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, show
from roadworthy.schemas import problem

API = "OpenAI API reference, responses, streaming events"
GUIDE = "hub's guide to the Responses API: event-based streaming"
SDK = "OpenAI SDK, response stream"
BOTH = (Lens.HUB, Lens.OPENAI)
TOOLS = [Capability.TOOLS]
LEAST_DELTAS = 3
"""Thirty number words come in more pieces than this wherever anything is streamed at all."""
INDEXED = (view.ADDED, view.ITEM_DONE, view.PART_ADDED, view.PART_DONE, view.TEXT_DELTA, view.TEXT_DONE,
           view.ARGUMENTS_DELTA, view.ARGUMENTS_DONE)  # fmt: skip
OF_PART = (view.PART_ADDED, view.PART_DONE, view.TEXT_DELTA, view.TEXT_DONE)


def _sound(exchange: Exchange) -> list[Step]:
    """The events where each can be read and none tells a failure, else none: other checks tell of that."""
    told = steps(exchange)
    return told if readable(told) and not failed(told) else []


def _placed(told: list[Step]) -> bool:
    """Whether every event of an item says which item, so that they can be sorted."""
    return all(
        step.index("output_index") is not None and (step.type not in OF_PART or step.index("content_index") is not None)
        for step in told
        if step.type in INDEXED
    )


UNREADABLE = NotApplicable("the events cannot be read, or tell a failure; see responses.stream.events")
UNPLACED = NotApplicable("the events do not say where they belong; see responses.stream.indexes")


@check(
    "responses.stream.content_type",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}; WHATWG HTML, server-sent events",
    remedy="Answer `stream: true` with Content-Type: text/event-stream, and flush every event.",
    each=probes.STREAMS,
    on=Usable.SUCCESS,
)
def content_type(exchange: Exchange) -> Iterator[Finding]:
    """A streamed answer is labelled text/event-stream.

    Browsers' readers refuse anything else, and proxies hold back what does not look like a stream.
    """
    if exchange.media_type != "text/event-stream":
        yield Finding("text/event-stream", exchange.media_type or "none", at="header Content-Type")


@check(
    "responses.stream.events",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Send each event's data as one JSON object with its `type`.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def events(exchange: Exchange) -> Iterator[Finding]:
    """Every event is one JSON object that names its type.

    SDKs choose by `type` what to make of an event, and raise where there is no JSON.
    """
    for step in steps(exchange):
        if not isinstance(step.value, dict):
            yield Finding("a JSON object", show(getattr(step.value, "reason", step.value)), at=step.at)
            return
        found = None if step.body.get("error") else problem("responses/event.json", step.value)
        if found is not None:
            yield Finding(found.expected, found.got, at=f"{step.at} {found.pointer}")
            return


@check(
    "responses.stream.named",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: event names",
    remedy="Write `event: <type>` before the data of each event.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def named(exchange: Exchange) -> Iterator[Outcome]:
    """The name on each event's `event:` line is its type.

    Browsers' readers sort events by this line, and never see those under another name.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
    for step in told:
        if step.name != step.type:
            yield Finding(step.type, show(step.name), at=f"{step.at} event")
            return


@check(
    "responses.stream.sequence",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: sequence_number",
    remedy="Number the events upwards, one by one.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def sequence(exchange: Exchange) -> Iterator[Outcome]:
    """Each event has a sequence_number higher than the one before.

    Callers that lost the connection take up again after the last number they saw.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
    last = -1
    for step in told:
        number = step.body.get("sequence_number")
        if not is_integer(number) or number <= last:
            got = show(number) if "sequence_number" in step.body else "absent"
            yield Finding(f"an integer above {last}", got, at=f"{step.at} /sequence_number")
            return
        last = number


@check(
    "responses.stream.no_error",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: error, response.failed",
    remedy="Read your server's log at the time of this request.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def no_error(exchange: Exchange) -> Iterator[Finding]:
    """No stream fails under way.

    The status said 200 long before, so nothing retries it.
    """
    for step in steps(exchange):
        if failed([step]):
            yield Finding("no failure", show(step.body), at=step.at)
            return


@check(
    "responses.stream.begins",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: response.created; {SDK}",
    remedy="Send response.created, with the response so far, before anything else.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def begins(exchange: Exchange) -> Iterator[Outcome]:
    """The first event is response.created, once, and holds the response.

    The SDKs' accumulators raise for any other first event.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
        return
    places = [place for place, step in enumerate(told) if step.type == view.CREATED]
    if places != [0]:
        got = f"at {places}" if places else f"it never came; first {told[0].type}"
        yield Finding("response.created first, and once", got, at=told[0].at)
    elif not isinstance(as_object(told[0].body.get("response")).get("id"), str):
        yield Finding("a response with its id", show(told[0].body.get("response")), at=f"{told[0].at} /response")


@check(
    "responses.stream.ends",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: response.completed, response.incomplete; {SDK}",
    remedy="End every stream with exactly one of response.completed, response.incomplete and response.failed.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def ends(exchange: Exchange) -> Iterator[Outcome]:
    """The last event ends the response, and no other does.

    It alone carries the usage and the whole response: without it the SDKs raise, and the request is not billed.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
        return
    places = [place for place, step in enumerate(told) if step.type in view.TERMINAL]
    if not places:
        yield Finding("response.completed", f"the stream ends after {told[-1].type}", at=told[-1].at)
    elif len(places) > 1:
        yield Finding("one end", f"{len(places)} of them", at=told[places[1]].at)
    elif places[0] != len(told) - 1:
        yield Finding("nothing after the end", told[-1].type, at=told[-1].at)


@check(
    "responses.stream.state",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: response.created, response.completed",
    remedy="Give the response the status of its event: in_progress (or queued) first, then completed or incomplete.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def state(exchange: Exchange) -> Iterator[Outcome]:
    """The status within the response goes with the event: in progress at first, at the end what the event says.

    Callers that keep the object look at its status alone.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
    for step in told:
        status = as_object(step.body.get("response")).get("status")
        if step.type == view.CREATED and status not in ("in_progress", "queued"):
            yield Finding("in_progress", show(status), at=f"{step.at} /response/status")
            return
        if step.type in view.TERMINAL and status != step.type.removeprefix("response."):
            yield Finding(step.type.removeprefix("response."), show(status), at=f"{step.at} /response/status")
            return


@check(
    "responses.stream.response_id",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}: response.created, response.completed",
    remedy="Make the response's id once, before the stream begins.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def response_id(exchange: Exchange) -> Iterator[Outcome]:
    """The response keeps its id from the first event to the last.

    The next turn continues from this id; callers take it from either end.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
    first: Any = None
    for step in told:
        name = as_object(step.body.get("response")).get("id")
        if isinstance(name, str):
            first = name if first is None else first
            if name != first:
                yield Finding(show(first), show(name), at=f"{step.at} /response/id")
                return


@check(
    "responses.stream.indexes",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: item_id, output_index, content_index; {SDK}",
    remedy="Count items and parts from 0, and name in each event the item that it belongs to.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def indexes(exchange: Exchange) -> Iterator[Outcome]:
    """Each event says which item and part it belongs to, and item_id and output_index agree.

    SDKs collect by index and interfaces by id: where the two differ, texts land in each other.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
    names: dict[int, Any] = {}
    for step in told:
        if step.type not in INDEXED:
            continue
        for key in ("output_index", "content_index") if step.type in OF_PART else ("output_index",):
            if step.index(key) is None:
                got = show(step.body[key]) if key in step.body else "absent"
                yield Finding("a count from 0", got, at=f"{step.at} /{key}")
                return
        place = step.index("output_index") or 0
        own = as_object(step.body.get("item")).get("id") if "item" in step.body else step.body.get("item_id")
        if step.type == view.ADDED:
            if place != len(names) and place not in names:
                yield Finding(f"output_index {len(names)}", str(place), at=f"{step.at} /output_index")
                return
            names.setdefault(place, own)
        elif place in names and own != names[place]:
            yield Finding(show(names[place]), show(own), at=f"{step.at} /item_id")
            return


@check(
    "responses.stream.order",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}; {SDK}, accumulation of events",
    remedy="Announce each item and each part before you tell of it, and end each part and each item after.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def order(exchange: Exchange) -> Iterator[Outcome]:
    """Items and parts are announced before they are told, and ended after: item, part, deltas, part, item.

    The SDKs add each delta to the part that was announced; where none was, they raise an index error.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
    elif not _placed(told):
        yield UNPLACED
    else:
        yield from _first_disorder(told)


def _first_disorder(told: list[Step]) -> Iterator[Finding]:
    items: dict[int, bool] = {}
    parts: dict[tuple[int, int], bool] = {}
    for step in told:
        item = step.index("output_index") or 0
        part = (item, step.index("content_index") or 0)
        wrong = ""
        if step.type == view.ADDED:
            wrong = f"output_item.added twice for item {item}" if item in items else ""
            items[item] = True
        elif step.type in INDEXED and not items.get(item):
            wrong = f"{step.type} with no item {item} open"
        elif step.type == view.PART_ADDED:
            parts[part] = True
        elif step.type in OF_PART and not parts.get(part):
            wrong = f"{step.type} with no part {part[1]} of item {item} open"
        elif step.type == view.PART_DONE:
            parts[part] = False
        elif step.type == view.ITEM_DONE:
            open_parts = [key for key, is_open in parts.items() if key[0] == item and is_open]
            wrong = f"output_item.done with part {open_parts[0][1]} open" if open_parts else ""
            items[item] = False
        elif step.type == "response.completed":
            still = [key for key, is_open in items.items() if is_open]
            wrong = f"response.completed with item {still[0]} open" if still else ""
        if wrong:
            yield Finding("item, part, deltas, end of part, end of item", wrong, at=step.at)
            return


@check(
    "responses.stream.text",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: response.output_text.delta, .done",
    remedy="Send every piece of text once, blanks included, and in output_text.done what they join to.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def joined(exchange: Exchange) -> Iterator[Outcome]:
    """The deltas of a text join to the text that the end of the part tells.

    Users read the deltas, and the transcript keeps the end: they must have seen the same.
    """
    told = _sound(exchange)
    if not told:
        yield UNREADABLE
        return
    if not _placed(told):
        yield UNPLACED
        return
    deltas: dict[tuple[int | None, int | None], list[str]] = {}
    for step in told:
        place = (step.index("output_index"), step.index("content_index"))
        if step.type == view.TEXT_DELTA:
            deltas.setdefault(place, []).append(step.delta)
            continue
        part = as_object(step.body.get("part"))
        if step.type == view.TEXT_DONE:
            whole = step.body.get("text")
        elif step.type == view.PART_DONE and part.get("type") == "output_text":
            whole = part.get("text")
        else:
            continue
        expected = "".join(deltas.get(place, ()))
        if whole != expected:
            yield Finding(*view.parting(expected, whole), at=f"{step.at} text")
            return


@check(
    "responses.stream.text_done",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: response.output_text.done",
    remedy="Send response.output_text.done after the last delta of each text.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def text_done(exchange: Exchange) -> Iterator[Outcome]:
    """Each text that came in deltas is ended by response.output_text.done.

    Callers that only want whole texts wait for it.
    """
    told = _sound(exchange)
    end = terminal(told)
    if end is None or end.type != "response.completed":
        yield NotApplicable("the answer is not whole, or cannot be read")
    elif not any(step.type == view.TEXT_DELTA for step in told):
        yield NotApplicable("there is no text")
    elif not any(step.type == view.TEXT_DONE for step in told):
        yield Finding("response.output_text.done", "none", at="stream")


@check(
    "responses.stream.final",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: response.completed, response.output_item.done; {SDK}",
    remedy="Put the whole output into the response of the last event, item for item as it was told.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def final(exchange: Exchange) -> Iterator[Outcome]:
    """The response in the last event holds the output that was streamed.

    `get_final_response()` returns it, and callers send it back as the next turn's history.
    """
    told = _sound(exchange)
    end = terminal(told)
    if end is None:
        yield NotApplicable("the response has no end; see responses.stream.ends")
        return
    answer = as_object(end.body.get("response"))
    done = [as_object(step.body.get("item")) for step in told if step.type == view.ITEM_DONE]
    streamed = "".join(step.delta for step in told if step.type == view.TEXT_DELTA)
    said = "".join(text for item in done for text in view.texts(item)) if done else streamed
    kinds, kept = [item.get("type") for item in done], [item.get("type") for item in view.items(answer)]
    if kinds and kinds != kept:
        yield Finding(show(kinds), show(kept), at=f"{end.at} /response/output")
    elif view.text(answer) != said:
        yield Finding(*view.parting(said, view.text(answer)), at=f"{end.at} /response/output")
    else:
        pairs = zip(done, view.items(answer), strict=False)
        other = next(((a, b) for a, b in pairs if a.get("id") != b.get("id") or _said(a) != _said(b)), None)
        if other:
            yield Finding(show(other[0]), show(other[1]), at=f"{end.at} /response/output")


def _said(item: dict[str, Any]) -> tuple[Any, ...]:
    return ("".join(view.texts(item)), item.get("name"), item.get("arguments"), item.get("call_id"))


@check(
    "responses.stream.usage",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: response.completed",
    remedy="Tell the usage in the response of the last event.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def usage(exchange: Exchange) -> Iterator[Outcome]:
    """The response in the last event tells the usage, and its sum is right.

    There is no option to ask for it: streamed or not, every response has it, and callers count on it.
    """
    end = terminal(_sound(exchange))
    if end is None:
        yield NotApplicable("the response has no end; see responses.stream.ends")
        return
    told = as_object(as_object(end.body.get("response")).get("usage"))
    for key in view.COUNTS:
        if not is_integer(told.get(key)) or told[key] <= 0:
            yield Finding("a count", show(told[key]) if key in told else "absent", at=f"{end.at} /response/usage/{key}")
            return
    if told["total_tokens"] != told["input_tokens"] + told["output_tokens"]:
        expected = f"{told['input_tokens']} + {told['output_tokens']}"
        yield Finding(expected, str(told["total_tokens"]), at=f"{end.at} /response/usage/total_tokens")


@check(
    "responses.stream.shape",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: response.completed; {SDK}",
    remedy="Send the same response object in the last event as without streaming.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def shape(exchange: Exchange) -> Iterator[Outcome]:
    """The response in the last event has the shape of one that is not streamed.

    Callers treat the two alike.
    """
    end = terminal(_sound(exchange))
    if end is None:
        yield NotApplicable("the response has no end; see responses.stream.ends")
        return
    found = problem("responses/response.json", end.body.get("response"))
    if found is not None:
        yield Finding(found.expected, found.got, at=f"{end.at} /response{found.pointer}")


@check(
    "responses.stream.incremental",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: render words as they stream in",
    remedy="Send each token as the engine makes it, and tell your proxy not to buffer.",
    each=probes.stream,
    on=Usable.EVENTS,
)
def incremental(exchange: Exchange) -> Iterator[Outcome]:
    """A longer text comes in several deltas.

    In one piece at the end, it is no stream but a late answer.
    """
    told = _sound(exchange)
    deltas = [step.delta for step in told if step.type == view.TEXT_DELTA and step.delta]
    if not told:
        yield UNREADABLE
    elif len("".join(deltas)) < 60 and deltas:
        yield Undecided(f"the answer is too short to say: {show(''.join(deltas))}")
    elif len(deltas) < LEAST_DELTAS:
        yield Finding(f"at least {LEAST_DELTAS} events of {view.TEXT_DELTA}", str(len(deltas)), at="stream")


@check(
    "responses.stream.incomplete",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: response.incomplete",
    remedy="End a stream that met max_output_tokens with response.incomplete, and tell the reason there.",
    each=probes.stream_cut,
    on=Usable.EVENTS,
)
def incomplete(exchange: Exchange) -> Iterator[Outcome]:
    """A stream that the limit cut ends with response.incomplete, for the reason "max_output_tokens".

    Half an answer under response.completed passes for a whole one.
    """
    end = terminal(_sound(exchange))
    if end is None:
        yield NotApplicable("the response has no end; see responses.stream.ends")
        return
    details = as_object(as_object(end.body.get("response")).get("incomplete_details"))
    if end.type != "response.incomplete":
        yield Finding("response.incomplete", end.type, at=end.at)
    elif details.get("reason") != "max_output_tokens":
        yield Finding("max_output_tokens", show(details), at=f"{end.at} /response/incomplete_details/reason")


@check(
    "responses.stream.first_token",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source="registration guide, Automatic validation: latency requirements",
    remedy="Keep the model warm, shorten the queue before it, and flush the first delta as soon as it exists.",
    across=[probes.first_token],
    on=Usable.EVENTS,
)
def first_token(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """The first delta of a stream comes within 5 seconds (the median of several samples).

    The hub measures this every six hours, and takes a mapping that misses it off the active list. Events that only
    announce something are not tokens.
    """
    read = [
        (seconds, exchange.reply.timings.uncertainty_ns / 1e9)
        for exchange in exchanges
        if (seconds := view.seconds_to_first_token(exchange)) is not None
    ]
    limit_s = facts.limits.time_to_first_token_s
    if not read:
        yield NotApplicable("no stream gave a token")
        return
    most, least = median(seconds for seconds, _ in read), median(max(0.0, s - doubt) for s, doubt in read)
    shown = ", ".join(f"{seconds:.3f}" for seconds, _ in read)
    if least > limit_s:
        yield Finding(f"a median of at most {limit_s:g} s", f"{most:.3f} s (samples in s: {shown})", at="first token")
    elif most > limit_s:
        yield Undecided(f"the median, {most:.3f} s, is over {limit_s:g} s by less than our own uncertainty")


# Calls


def _of_calls(told: list[Step]) -> Iterator[tuple[int, dict[str, Any], list[Step]]]:
    """Each function call that was told whole: its place, its item, and the events of its arguments."""
    for step in told:
        item, place = as_object(step.body.get("item")), step.index("output_index")
        if step.type == view.ITEM_DONE and item.get("type") == "function_call" and place is not None:
            kinds = (view.ARGUMENTS_DELTA, view.ARGUMENTS_DONE)
            yield place, item, [s for s in told if s.type in kinds and s.index("output_index") == place]


@check(
    "responses.call.events",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: response.function_call_arguments.delta, .done; {SDK}",
    remedy="Stream arguments as response.function_call_arguments.delta, and end them with .done.",
    each=probes.call_stream,
    on=Usable.EVENTS,
    needs=TOOLS,
)
def call_events(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed call tells its arguments by response.function_call_arguments.delta and .done.

    Callers start their function at .done; agents show the deltas.
    """
    told = _sound(exchange)
    if not told or not _placed(told):
        yield UNREADABLE
        return
    made = list(_of_calls(told))
    if not made:
        yield NotApplicable("no call was told whole; see responses.call.made and responses.stream.order")
    for place, _, own in made:
        kinds = {step.type for step in own}
        missing = [kind for kind in (view.ARGUMENTS_DELTA, view.ARGUMENTS_DONE) if kind not in kinds]
        if missing:
            yield Finding(missing[0], "none", at=f"item {place}")
            return


@check(
    "responses.call.joined",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: response.function_call_arguments.delta, .done",
    remedy="Send every piece of the arguments once, and in .done and in the item what they join to.",
    each=probes.call_stream,
    on=Usable.EVENTS,
    needs=TOOLS,
)
def call_joined(exchange: Exchange) -> Iterator[Outcome]:
    """The deltas of a call's arguments join to what .done and the item tell.

    Whichever of the three a caller reads, it calls its function with it.
    """
    told = _sound(exchange)
    made = list(_of_calls(told)) if _placed(told) else []
    if not made:
        yield NotApplicable("no call was told whole; see responses.call.made and responses.stream.order")
    for place, item, own in made:
        deltas = "".join(step.delta for step in own if step.type == view.ARGUMENTS_DELTA)
        ends = [step.body.get("arguments") for step in own if step.type == view.ARGUMENTS_DONE]
        if not deltas or not ends:
            continue
        for whole in (*ends, item.get("arguments")):
            if whole != deltas:
                yield Finding(*view.parting(deltas, whole), at=f"item {place} arguments")
                return


# Thoughts


@check(
    "responses.reasoning.streamed",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}: response.reasoning_text.delta, response.reasoning_summary_text.delta",
    remedy="Stream thoughts as response.reasoning_text.delta, or summaries as response.reasoning_summary_text.delta.",
    each=probes.reasoning_stream,
    on=Usable.EVENTS,
    needs=[Capability.REASONING],
)
def reasoning_streamed(exchange: Exchange) -> Iterator[Outcome]:
    """Thoughts that are shown at the end were streamed before, and join to the same text.

    Users watch them come; without deltas the interface stands still for as long as the model thinks.
    """
    told = _sound(exchange)
    thoughts = [
        as_object(step.body.get("item"))
        for step in told
        if step.type == view.ITEM_DONE and as_object(step.body.get("item")).get("type") == "reasoning"
    ]
    kept = [
        part["text"]
        for item in thoughts
        for key in ("summary", "content")
        for part in objects(item.get(key))
        if isinstance(part.get("text"), str) and part["text"]
    ]
    if not kept:
        yield NotApplicable("no thoughts are shown")
        return
    kinds = [kind for kind in view.TOKENS if kind.startswith("response.reasoning")]
    streamed = "".join(step.delta for step in told if step.type in kinds)
    missing = next((text for text in kept if text not in streamed), None)
    if missing is not None:
        yield Finding(show(missing), show(streamed) or "no deltas", at="stream")


# Remote tools


@check(
    "responses.mcp.streamed",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{GUIDE}: monitor tool execution; {API}, response.mcp_call.in_progress, .completed",
    remedy="Announce each mcp_call, and send response.mcp_call.in_progress and .completed (or .failed) while it runs.",
    each=probes.mcp_stream,
    on=Usable.EVENTS,
)
def mcp_streamed(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed remote call tells when it begins and when it is over.

    A tool may take a minute; the guide promises that its users can watch.
    """
    told = _sound(exchange)
    end = terminal(told)
    made = view.items(as_object(end.body.get("response")), "mcp_call") if end else []
    if not told:
        yield UNREADABLE
    elif not made:
        yield NotApplicable("no remote tool was called")
    else:
        kinds = [step.type for step in told]
        over = [kind for kind in kinds if kind in ("response.mcp_call.completed", "response.mcp_call.failed")]
        if kinds.count("response.mcp_call.in_progress") < len(made):
            yield Finding("response.mcp_call.in_progress", "none, or too few", at="stream")
        elif len(over) < len(made):
            yield Finding("response.mcp_call.completed", "none, or too few", at="stream")
