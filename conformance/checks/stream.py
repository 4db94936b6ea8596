"""Checks of streamed chat completions: the wire, the chunks, the usage, the behaviour."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import DONE, Chunk, Exchange, Malformed, as_object
from roadworthy.conformance.facts import Capability
from roadworthy.conformance.judge import describe
from roadworthy.conformance.measure import StreamTiming, stream_timing
from roadworthy.conformance.probes import chat as plain_probes
from roadworthy.conformance.probes.stream import (
    CUT_TOKENS,
    STREAMS,
    after_close,
    chat_stream,
    cut,
    early_close,
    several,
    twin,
)
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, show
from roadworthy.http.message import FailureKind
from roadworthy.http.sse import Event
from roadworthy.schemas import problem

STREAMING = "OpenAI API reference, chat completions, streaming"
SSE = "WHATWG HTML, server-sent events"
JS_CLIENT = "JavaScript inference client, stream reader"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.OPENAI, Lens.SPEC)
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
"""Keys of a delta that hold text."""
REPLACED = "\N{REPLACEMENT CHARACTER}"

SLOW_S = 1.0
"""Answers that are whole within this time are not asked how they arrived."""
LONG_CHARACTERS = 80
BURST_S = 0.002
MOST_BURSTS = 3
"""What was held back comes at the speed of the line: in one burst, or a few where the network's window is small."""
SAME_TOKENS = 2
"""Two counts of one text may differ by a start and an end token."""
LEAST_CHARACTERS = 20
"""Shorter texts may share a beginning or an end by chance."""
ALIVE_NS = 10_000_000_000


# The wire


@check(
    "chat.stream.status",
    level=Level.MUST,
    lenses=ALL,
    source=STREAMING,
    remedy='Answer a request with "stream": true as you answer one without it.',
    each=[chat_stream],
    on=Usable.ANYTHING,
)
def status(exchange: Exchange) -> Iterator[Outcome]:
    """A request for a stream is answered with HTTP 200.

    The hub measures latency by streaming; a provider that cannot stream cannot be listed for chat.
    """
    if exchange.status == 200:
        return
    if exchange.unreachable or exchange.status in (401, 403):
        yield Undecided(f"could not tell: {describe(exchange)}")
    else:
        got = describe(exchange) if exchange.status is None else f"HTTP {exchange.status}: {show(exchange.reply.body)}"
        yield Finding("HTTP 200", got, at="status")


@check(
    "chat.stream.content_type",
    level=Level.MUST,
    lenses=BOTH,
    source=JS_CLIENT,
    remedy="Send `Content-Type: text/event-stream` with every streamed answer.",
    each=STREAMS,
    on=Usable.SUCCESS,
)
def content_type(exchange: Exchange) -> Iterator[Finding]:
    """A streamed answer says that it is one: its content type is text/event-stream.

    The JavaScript client refuses to read a stream under any other content type.
    """
    if exchange.media_type != "text/event-stream":
        yield Finding("text/event-stream", exchange.media_type or "no content type", at="header Content-Type")


@check(
    "chat.stream.framing",
    level=Level.MUST,
    lenses=BOTH,
    source=SSE,
    remedy="Write each event as `data: <one line of JSON>` followed by an empty line, and nothing else but comments.",
    each=STREAMS,
    on=Usable.SUCCESS,
)
def framing(exchange: Exchange) -> Iterator[Finding]:
    """Every line of the stream is a field or a comment, and every event ends with an empty line.

    Readers drop an event that is not ended, and lines that are not fields: the caller silently loses text.
    """
    if exchange.media_type != "text/event-stream":
        return
    stream = exchange.stream
    if stream.oversized:
        yield Finding("lines and events of a sane size", stream.oversized, at="body")
    for line in stream.stray_lines[:1]:
        yield Finding("a line that begins with data:, event:, id:, retry: or :", show(line), at="body")
    for event in filter(_run_together, stream.events):
        yield Finding("an empty line after each event", "several data lines in one event", at=f"event {event.index}")
        break
    if stream.unfinished and not stream.ends_in_marker and not stream.stray_lines:
        yield Finding("an empty line after the last event", show(stream.tail), at="end of body")


@check(
    "chat.stream.not_empty",
    level=Level.MUST,
    lenses=ALL,
    source=STREAMING,
    remedy="Look for an exception after the response head was sent: it must become an error event, or a 4xx or 5xx.",
    each=STREAMS,
    on=Usable.SUCCESS,
)
def not_empty(exchange: Exchange) -> Iterator[Finding]:
    """A stream has events.

    An empty one looks to the caller as an answer without a word, and without a reason.
    """
    stream = exchange.stream
    silent = not stream.events and not stream.unfinished and not stream.stray_lines and not stream.oversized
    if exchange.media_type == "text/event-stream" and silent:
        yield Finding("at least one event", show(exchange.reply.body) or "an empty body", at="body")


@check(
    "chat.stream.last_event",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=SSE,
    remedy="Write `data: [DONE]` with two line ends, as every other event.",
    each=STREAMS,
    on=Usable.SUCCESS,
)
def last_event(exchange: Exchange) -> Iterator[Outcome]:
    """The end marker, too, is followed by an empty line.

    Strict readers drop it, and learn of the end only from the connection.
    """
    if exchange.media_type == "text/event-stream" and exchange.stream.unfinished and exchange.stream.ends_in_marker:
        yield Finding("an empty line after [DONE]", "the end of the body", at="end of body")


@check(
    "chat.stream.utf8",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=SSE,
    remedy="Encode the stream as UTF-8.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def utf8(exchange: Exchange) -> Iterator[Finding]:
    """The stream is UTF-8.

    Every reader decodes it as UTF-8; other bytes turn into replacement characters in the caller's text.
    """
    if exchange.complete and exchange.stream.undecodable:
        yield Finding("UTF-8", f"{exchange.stream.undecodable} lines that are not", at="body")


@check(
    "chat.stream.characters",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source="OpenAI API reference, chat completions, stream",
    remedy="Hold a token's bytes back until they make a whole character; most engines have such a decoder.",
    joint=[after_close, plain_probes.unicode_text],
    on=Usable.SUCCESS,
)
def characters(stream: Exchange, plain: Exchange) -> Iterator[Outcome]:
    """A character whose bytes belong to several tokens arrives whole.

    Decoded token by token it becomes U+FFFD: emoji and rare scripts are lost in streams alone.
    """
    if stream.garbled or not stream.text:
        yield NotApplicable("there is no text to read")
    elif REPLACED in plain.text:
        yield NotApplicable("the unstreamed answer has replacement characters too: they are the model's own")
    elif REPLACED in stream.text:
        yield Finding(f"no U+FFFD, as in {show(plain.text)}", show(stream.text), at="/choices/0/delta/content")
    elif stream.text.isascii():
        yield NotApplicable("the model repeated no character that takes several bytes")


@check(
    "chat.stream.json",
    level=Level.MUST,
    lenses=BOTH,
    source=STREAMING,
    remedy="Serialise each chunk with a JSON library, one object to an event.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def json_chunks(exchange: Exchange) -> Iterator[Finding]:
    """The data of each event is one JSON object, or [DONE].

    Clients parse each event by itself; one that is not JSON ends the answer with an exception.
    """
    for chunk in exchange.stream.chunks:
        if not isinstance(chunk.value, dict) and not _run_together(chunk.event) and not chunk.tells_error:
            got = f"{chunk.value.reason}: " if isinstance(chunk.value, Malformed) else ""
            yield Finding("one JSON object", got + show(chunk.event.data), at=f"event {chunk.event.index}")
            return


@check(
    "chat.stream.done",
    level=Level.MUST,
    lenses=BOTH,
    source=STREAMING,
    remedy="Send `data: [DONE]` once, as the last event, after the usage chunk.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def done(exchange: Exchange) -> Iterator[Finding]:
    """A finished stream ends with the event `[DONE]`, and nothing follows it.

    Clients read until this event; without it they wait for more, or cannot tell a whole answer from a cut one.
    What follows it is lost.
    """
    if not exchange.complete or any(chunk.tells_error for chunk in exchange.stream.chunks):
        return
    events = exchange.stream.events
    marks = [event.index for event in events if event.data.strip() == DONE]
    if not marks and (exchange.stream.unfinished or _run_together(events[-1])):
        return  # chat.stream.framing and chat.stream.last_event tell of the empty lines that are missing
    if not marks:
        yield Finding(DONE, show(events[-1].data), at=f"event {events[-1].index}")
    elif marks[0] != events[-1].index:
        after = events[marks[0] + 1]
        yield Finding(f"nothing after {DONE}", show(after.data), at=f"event {after.index}")


@check(
    "chat.stream.closed",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="RFC 9112, message framing",
    remedy="End the response (the last chunk of chunked encoding) right after `[DONE]`.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def closed(exchange: Exchange) -> Iterator[Finding]:
    """The response ends after [DONE].

    A response that stays open holds a connection of the client's pool until some timeout.
    """
    failure = exchange.reply.failure
    if failure is not None and failure.kind is FailureKind.NOT_CLOSED:
        yield Finding("the end of the response", failure.message, at="end of body")


@check(
    "chat.stream.complete",
    level=Level.MUST,
    lenses=ALL,
    source="RFC 9112, message framing",
    remedy="Find what cuts or stops it: a worker that dies, a proxy's read timeout, a missing end token.",
    each=STREAMS,
    on=Usable.RESPONSE,
)
def complete(exchange: Exchange) -> Iterator[Outcome]:
    """A stream comes to its end: it is not cut, it does not fall silent, and it does not go on for ever.

    The caller gets half an answer, and an exception or, worse, none.
    """
    failure = exchange.reply.failure
    if exchange.status != 200:
        yield NotApplicable("there is no stream")
    elif failure is not None and failure.kind is FailureKind.TOTAL_TIMEOUT and _still_speaking(exchange):
        yield Undecided(f"{failure.message}, though tokens still came; latency.total_time judges the speed")
    elif failure is not None and failure.kind is not FailureKind.NOT_CLOSED:
        note = "If other requests of this run can be the cause, --concurrency 1 shows it."
        yield Finding("the whole stream", failure.message, at="end of body", note=note)


def _still_speaking(exchange: Exchange) -> bool:
    """Whether the answer was slow rather than stuck or endless: within its token limit, and not silent at last."""
    times = [chunk.event.at_ns for chunk in exchange.stream.chunks if chunk.has_token]
    limit, ended_ns = as_object(exchange.sent).get("max_tokens"), exchange.reply.timings.ended_ns
    return (
        bool(times)
        and is_integer(limit)
        and len(times) <= limit
        and ended_ns is not None
        and ended_ns - times[-1] < ALIVE_NS
    )


@check(
    "chat.stream.no_error_key",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=JS_CLIENT,
    remedy="Leave the key `error` out of chunks that carry no error; null is not enough.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def no_error_key(exchange: Exchange) -> Iterator[Finding]:
    """No chunk of a good stream has the key `error`, not even with null.

    The JavaScript client throws on any chunk that has this key, whatever its value.
    """
    for chunk in exchange.stream.chunks:
        if "error" in chunk.object and not chunk.object["error"]:
            yield Finding("no key error", show(chunk.object["error"]), at=_at(chunk, "/error"))
            return


@check(
    "chat.stream.no_error_event",
    level=Level.MUST,
    lenses=ALL,
    source=STREAMING,
    remedy="Find why generation failed; refuse before the first byte what can be refused then.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def no_error_event(exchange: Exchange) -> Iterator[Finding]:
    """A plain question does not fail in the middle of its stream.

    The caller has shown half an answer by then, and was answered 200.
    """
    for chunk in exchange.stream.chunks:
        if chunk.tells_error:
            yield Finding("no error", show(chunk.event.data), at=_at(chunk, "/error"))
            return


# The chunks


@check(
    "chat.stream.shape",
    level=Level.MUST,
    lenses=ALL,
    source=STREAMING,
    remedy="Compare a chunk with schemas/openai/chat_completion_chunk.json, field by field.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """A chunk's fields, where present, are of the right type.

    Typed clients raise on the first field that is not.
    """
    for chunk in _data(exchange):
        found = problem("openai/chat_completion_chunk.json", chunk.value)
        if found is not None:
            yield Finding(found.expected, found.got, at=_at(chunk, found.pointer))
            return


@check(
    "chat.stream.object",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=STREAMING,
    remedy='Set "object": "chat.completion.chunk" in every chunk.',
    each=STREAMS,
    on=Usable.EVENTS,
)
def object_kind(exchange: Exchange) -> Iterator[Finding]:
    """Each chunk's `object` is "chat.completion.chunk".

    Loggers and gateways tell chunks from completions by it.
    """
    for chunk in _data(exchange):
        if chunk.object.get("object") != "chat.completion.chunk":
            yield Finding("chat.completion.chunk", show(chunk.object.get("object")), at=_at(chunk, "/object"))
            return


@check(
    "chat.stream.id_constant",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Make the id once for each response and repeat it in each of its chunks.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def id_constant(exchange: Exchange) -> Iterator[Finding]:
    """All chunks of a stream have the same non-empty string `id`.

    Clients that join chunks by id see as many answers as there are ids.
    """
    yield from _constant(exchange, "id", _is_name, "a non-empty string")


@check(
    "chat.stream.id_unique",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Make a new id for each response.",
    across=STREAMS,
    on=Usable.EVENTS,
)
def id_unique(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """No two streams have the same `id`.

    Logs and stores that keep answers by id overwrite one with the other.
    """
    first: dict[str, str] = {}
    for exchange in exchanges:
        name = next((chunk.object.get("id") for chunk in _data(exchange)), None)
        if isinstance(name, str) and name:
            if name in first:
                yield Finding(
                    "an id of its own", f"{show(name)}, as {first[name]}", at="event 0 /id", exchange_id=exchange.id
                )
                return
            first[name] = exchange.id
    if not first:
        yield NotApplicable("no stream told an id; see chat.stream.id_constant")


@check(
    "chat.stream.model_constant",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Repeat the same model name in each chunk.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def model_constant(exchange: Exchange) -> Iterator[Finding]:
    """All chunks of a stream name the same `model`, a string.

    Accounting by model takes the name from whichever chunk it sees.
    """
    yield from _constant(exchange, "model", _is_name, "a non-empty string")


@check(
    "chat.stream.created_constant",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Take the time once for each response, as an integer of unix seconds.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def created_constant(exchange: Exchange) -> Iterator[Finding]:
    """All chunks of a stream have the same `created`, an integer of unix seconds.

    The SDK declares an integer; strict readers refuse a float, and milliseconds land in the year 57000.
    """
    yield from _constant(exchange, "created", lambda v: is_integer(v) and 0 <= v < 1 << 33, "an integer of seconds")


@check(
    "chat.stream.choices",
    level=Level.MUST,
    lenses=BOTH,
    source=STREAMING,
    remedy="Give every chunk an array `choices`; only the usage chunk's may be empty.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def choices(exchange: Exchange) -> Iterator[Finding]:
    """Each chunk has an array `choices`.

    The SDK's readers iterate over it in every chunk, and raise where it is null or missing.
    """
    for chunk in _data(exchange):
        if not isinstance(chunk.object.get("choices"), list):
            yield Finding("an array", show(chunk.object.get("choices")), at=_at(chunk, "/choices"))
            return


@check(
    "chat.stream.choices_filled",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Send a comment (`: ping`) to keep a connection alive, not a chunk without choices.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def choices_filled(exchange: Exchange) -> Iterator[Finding]:
    """Only a chunk that tells the usage has an empty `choices`.

    Many callers take the first choice of every chunk, and crash on one that has none.
    """
    for chunk in _data(exchange):
        # Chunks that tell of content filters come before the first choice, by their publisher's own documents.
        tells = ("usage", "prompt_filter_results", "prompt_annotations")
        if chunk.object.get("choices") == [] and all(chunk.object.get(key) is None for key in tells):
            yield Finding("a choice, or the usage", "an empty array and no usage", at=_at(chunk, "/choices"))
            return


@check(
    "chat.stream.index",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Give each choice in each chunk its integer `index`.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def index(exchange: Exchange) -> Iterator[Finding]:
    """Each choice has an integer `index`.

    It is what joins the deltas of an answer; the SDK's accumulator fails without it.
    """
    for chunk, place, choice in _choices(exchange):
        if _number(choice) is None:
            yield Finding("an integer", show(choice.get("index")), at=_at(chunk, f"/choices/{place}/index"))
            return


@check(
    "chat.stream.delta",
    level=Level.MUST,
    lenses=BOTH,
    source=STREAMING,
    remedy="Put what is new into `delta`; `message` belongs to unstreamed answers.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def delta(exchange: Exchange) -> Iterator[Finding]:
    """Each choice has an object `delta`.

    Clients read only the delta; text under any other key is never shown.
    """
    for chunk, place, choice in _choices(exchange):
        if not isinstance(choice.get("delta"), dict):
            got = "`message` instead" if "message" in choice else show(choice.get("delta"))
            yield Finding("an object", got, at=_at(chunk, f"/choices/{place}/delta"))
            return


@check(
    "chat.stream.content_string",
    level=Level.MUST,
    lenses=BOTH,
    source=STREAMING,
    remedy="Send each piece of text as a JSON string.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def content_string(exchange: Exchange) -> Iterator[Finding]:
    """A delta's `content` is a string, null, or absent; so are its reasoning fields.

    Clients add the pieces as strings; anything else raises, or shows as [object Object].
    """
    for chunk, place, choice in _choices(exchange):
        part = as_object(choice.get("delta"))
        for key in TEXTS:
            if part.get(key) is not None and not isinstance(part[key], str):
                yield Finding("a string or null", show(part[key]), at=_at(chunk, f"/choices/{place}/delta/{key}"))
                return


@check(
    "chat.stream.role",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=STREAMING,
    remedy='Send "role": "assistant" in the first delta of each choice.',
    each=STREAMS,
    on=Usable.EVENTS,
)
def role(exchange: Exchange) -> Iterator[Finding]:
    """The first delta of each choice has the role "assistant", and no delta has another.

    Callers store the joined message as the next turn's history, and that needs its role.
    """
    if not exchange.stream.readable:
        return
    begun: set[int] = set()
    for chunk, place, choice in _choices(exchange):
        number = _number(choice)
        if number is None:
            continue
        told = as_object(choice.get("delta")).get("role")
        first = number not in begun
        begun.add(number)
        if told != "assistant" and (first or told is not None):
            yield Finding("assistant", show(told), at=_at(chunk, f"/choices/{place}/delta/role"))
            return


@check(
    "chat.stream.content",
    level=Level.MUST,
    lenses=ALL,
    source=STREAMING,
    remedy="Send the text as it is made, in `delta.content`.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def content(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed answer to a plain question carries text.

    An empty answer is what a broken template or parser looks like from outside.
    """
    stream = exchange.stream
    if exchange.garbled:
        yield NotApplicable("the stream cannot be read; see the other checks of chat.stream")
    elif not stream.content() and stream.finish_reasons(0) == ["length"]:
        yield NotApplicable("the token limit was spent before any answer")
    elif not stream.content():
        yield Finding("some text", "no content in any delta", at="/choices/0/delta/content")


@check(
    "chat.stream.not_cumulative",
    level=Level.MUST,
    lenses=ALL,
    source=STREAMING,
    remedy="Send only what is new in each delta.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def not_cumulative(exchange: Exchange) -> Iterator[Finding]:
    """Each delta carries new text, not all the text so far.

    Clients append deltas; repeated text shows as "one one, two one, two, three".
    """
    if _cumulative(exchange):
        got = f"each delta repeats the last: {show(_pieces(exchange)[-1])}"
        yield Finding("new text only", got, at="/choices/0/delta/content")


@check(
    "chat.stream.no_repeats",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Send each chunk once; look for a retry that replays a stream, or two writers.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def no_repeats(exchange: Exchange) -> Iterator[Finding]:
    """No chunk with text is sent twice in a row.

    The words double in the caller's text.
    """
    if _all_twice(exchange):
        got = f"every piece twice: {show(_pieces(exchange)[:4])}"
        yield Finding("each piece once", got, at="/choices/0/delta/content")


@check(
    "chat.stream.finish_reason.present",
    level=Level.MUST,
    lenses=BOTH,
    source=STREAMING,
    remedy="End each choice with a chunk whose `finish_reason` says why it ended.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def finish_reason_present(exchange: Exchange) -> Iterator[Finding]:
    """A finished stream gives each choice a `finish_reason`.

    Without it a caller cannot tell a whole answer from one that was cut off.
    """
    if exchange.garbled:
        return
    told: dict[int, bool] = {}
    for _, _, choice in _choices(exchange):
        number = _number(choice)
        if number is not None:
            told[number] = told.get(number, False) or bool(choice.get("finish_reason"))
    for number in sorted(number for number, ended in told.items() if not ended):
        yield Finding("a finish_reason", "none in any chunk", at=f"/choices/{number}/finish_reason")


@check(
    "chat.stream.finish_reason.once",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Send `finish_reason` in one chunk only, and null in the others.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def finish_reason_once(exchange: Exchange) -> Iterator[Finding]:
    """A choice is given one finish reason, once.

    Callers act on it: two endings run a tool twice, or close a stream that goes on.
    """
    counts = Counter(_number(choice) for _, _, choice in _choices(exchange) if choice.get("finish_reason"))
    counts.pop(None, None)
    for number, count in counts.items():
        if count > 1:
            yield Finding("one finish_reason", f"{count} of them", at=f"/choices/{number}/finish_reason")


@check(
    "chat.stream.finish_reason.last",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy="Send `finish_reason` with or after the last piece of text.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def finish_reason_last(exchange: Exchange) -> Iterator[Finding]:
    """No text and no tool call follows a choice's finish reason.

    Callers stop reading there; what follows is lost.
    """
    finished: set[int] = set()
    for chunk, place, choice in _choices(exchange):
        number = _number(choice)
        if number is None:
            continue
        part = as_object(choice.get("delta"))
        if number in finished and any(part.get(key) for key in (*TEXTS, "tool_calls")):
            yield Finding("nothing after finish_reason", show(part), at=_at(chunk, f"/choices/{place}/delta"))
            return
        if choice.get("finish_reason"):
            finished.add(number)


@check(
    "chat.stream.finish_reason.value",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy=f"Map your engine's own words to one of: {', '.join(FINISH_REASONS[:4])}.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def finish_reason_value(exchange: Exchange) -> Iterator[Finding]:
    """The finish reason is one that clients know.

    They branch on it: an unknown word is neither an end, nor a tool call, nor a cut.
    """
    for chunk, place, choice in _choices(exchange):
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason not in FINISH_REASONS:
            yield Finding(
                " or ".join(FINISH_REASONS[:4]), show(reason), at=_at(chunk, f"/choices/{place}/finish_reason")
            )
            return


@check(
    "chat.stream.finish_reason.length",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=STREAMING,
    remedy='Say "length" when the token limit ended the answer.',
    joint=[cut, chat_stream],
    on=Usable.EVENTS,
)
def finish_reason_length(short: Exchange, whole: Exchange) -> Iterator[Outcome]:
    """A streamed answer that the token limit cut off says "length".

    "stop" tells the caller that a torso is the whole answer.
    """
    if short.finish_reason == "length":
        return
    if short.finish_reason == "stop" and _is_beginning(_said(short), _said(whole)):
        yield Finding("length", f'"stop" after {show(_said(short))}', at="/choices/0/finish_reason")
    else:
        yield NotApplicable("the answer was not cut, or its finish reason is missing or unknown")


@check(
    "chat.stream.max_tokens",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source="OpenAI API reference, chat completions, max_tokens",
    remedy="Pass the token limit on where you stream, too.",
    joint=[cut, chat_stream],
    on=Usable.EVENTS,
)
def max_tokens(short: Exchange, whole: Exchange) -> Iterator[Outcome]:
    """`max_tokens` limits a streamed answer.

    Callers bound what an answer may cost by it.
    """
    told = as_object(whole.stream.usage).get("completion_tokens")
    tokens = told if is_integer(told) else sum(chunk.has_token for chunk in whole.stream.chunks)
    if short.garbled or whole.garbled or tokens <= 2 * CUT_TOKENS or not _said(whole):
        yield NotApplicable("the whole answer is too short to tell")
    elif len(_said(short)) >= len(_said(whole)):
        yield Finding(f"at most {CUT_TOKENS} tokens", f"all of {show(_said(short))}", at="/choices/0/delta/content")


@check(
    "chat.stream.n",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source="OpenAI API reference, chat completions, n",
    remedy="Give each chunk the index of the answer it belongs to, or refuse `n` with 400.",
    each=[several],
    on=Usable.EVENTS,
    needs=[Capability.MULTIPLE_CHOICES],
)
def n(exchange: Exchange) -> Iterator[Outcome]:
    """Several answers that are streamed side by side are told apart by their index.

    Under one index their words mix; where `n` is ignored the second answer never comes.
    """
    indexes = {_number(choice) for _, _, choice in _choices(exchange)} - {None}
    if exchange.garbled or not indexes:
        yield NotApplicable("the stream cannot be read, or its choices have no index")
    elif indexes != {0, 1}:
        yield Finding("the indexes 0 and 1", show(sorted(filter(is_integer, indexes))), at="/choices")


# The usage


@check(
    "chat.stream.usage.final",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source=f"{STREAMING}, stream_options.include_usage",
    remedy="With include_usage, send one more chunk before [DONE], with `usage` and an empty `choices`.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def usage_final(exchange: Exchange) -> Iterator[Finding]:
    """With `include_usage` the usage is told after the last piece of the answer.

    Metering of streams, the caller's and the router's, has no other source.
    """
    if exchange.garbled:
        return
    told = [chunk for chunk in exchange.stream.chunks if chunk.object.get("usage") is not None]
    spoken = [chunk.event.index for chunk in exchange.stream.chunks if chunk.has_token]
    if not told:
        yield Finding("a chunk with `usage` before [DONE]", "none", at="/usage")
    elif spoken and told[-1].event.index < spoken[-1]:
        got = f"in event {told[-1].event.index}, with pieces up to event {spoken[-1]}"
        yield Finding("the usage after the last piece", got, at=_at(told[-1], "/usage"))


@check(
    "chat.stream.usage.own_chunk",
    level=Level.MAY,
    lenses=[Lens.SPEC],
    source=f"{STREAMING}, stream_options.include_usage",
    remedy="Tell the usage in a chunk of its own, with an empty `choices`.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def usage_own_chunk(exchange: Exchange) -> Iterator[Outcome]:
    """The last usage comes in a chunk whose `choices` is empty.

    The published text promises it; readers cope with usage beside the finish reason.
    """
    told = [chunk for chunk in exchange.stream.chunks if isinstance(chunk.object.get("usage"), dict)]
    if not told:
        yield NotApplicable("no usage was told; see chat.stream.usage.final")
    elif len(told) > 1:
        yield NotApplicable("the usage is counted along, in every chunk")
    elif told[-1].choices:
        yield Finding("[]", show(told[-1].object.get("choices")), at=_at(told[-1], "/choices"))


@check(
    "chat.stream.usage.counts",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source="OpenAI API reference, usage",
    remedy="Count prompt and completion tokens as integers; the total is their sum.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def usage_counts(exchange: Exchange) -> Iterator[Finding]:
    """A stream's usage has non-negative integers whose total is their sum.

    Callers are charged by these figures.
    """
    told = exchange.stream.usage
    if not isinstance(told, dict):
        return
    figures: list[Any] = [told.get(key) for key in ("prompt_tokens", "completion_tokens", "total_tokens")]
    if not all(is_integer(figure) and figure >= 0 for figure in figures):
        yield Finding("three non-negative integers", show(figures), at="/usage")
    elif figures[0] + figures[1] != figures[2]:
        yield Finding(f"a total of {figures[0] + figures[1]}", show(figures[2]), at="/usage/total_tokens")


@check(
    "chat.stream.usage.plausible",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source="OpenAI API reference, usage",
    remedy="Count the tokens of this stream alone; look for counters that are never set, or never reset.",
    each=[chat_stream, after_close],
    on=Usable.EVENTS,
)
def usage_plausible(exchange: Exchange) -> Iterator[Outcome]:
    """A stream's usage fits its text: some tokens for a prompt, some for an answer, no more than its letters allow.

    Zeros give the answer away for nothing, and counts beyond the text charge for what was never said.
    """
    told, text = as_object(exchange.stream.usage), _said(exchange)
    read, said = told.get("prompt_tokens"), told.get("completion_tokens")
    if exchange.garbled or not is_integer(read) or not is_integer(said) or not text:
        yield NotApplicable("there is no usage, or no text to compare it with")
        return
    if read == 0:
        yield Finding("at least one token for the prompt", "0", at="/usage/prompt_tokens")
    most = 4 * len(text.encode()) + 64
    if said == 0 or (said > most and not _thoughts(told)):
        expected = f"from 1 to {most} tokens for a text of {len(text)} characters"
        yield Finding(expected, str(said), at="/usage/completion_tokens")


@check(
    "chat.stream.usage.null_before",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{STREAMING}, stream_options.include_usage",
    remedy="Send `usage: null`, or no usage, until the last chunk; where you count along, count from the true prompt.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def usage_null_before(exchange: Exchange) -> Iterator[Outcome]:
    """Before the last usage a chunk tells none, or a true count so far: the same prompt, and an answer that only grows.

    Readers that take the first usage they meet, or the largest, charge for something else.
    """
    told = [chunk for chunk in exchange.stream.chunks if isinstance(chunk.object.get("usage"), dict)]
    if not told:
        yield NotApplicable("no usage was told; see chat.stream.usage.final")
        return
    counts = [[c.object["usage"].get(key) for key in ("prompt_tokens", "completion_tokens")] for c in told]
    for chunk, (earlier, later) in zip(told, itertools.pairwise(counts), strict=False):
        if not all(map(is_integer, (*earlier, *later))):
            return
        if earlier[0] != later[0] or earlier[1] > later[1]:
            got = f"{show(chunk.object['usage'])}, and {show(counts[-1])} at the end"
            yield Finding("null, or the count so far", got, at=_at(chunk, "/usage"))
            return


@check(
    "chat.stream.usage.same_as_unstreamed",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OpenAI API reference, usage",
    remedy="Count tokens once, in the code that both ways share; a chunk is not a token.",
    joint=[chat_stream, twin],
    on=Usable.SUCCESS,
)
def usage_same(stream: Exchange, plain: Exchange) -> Iterator[Outcome]:
    """The same prompt counts the same tokens, streamed or not, and so does the same answer.

    Otherwise one of the two is charged wrongly.
    """
    streamed, unstreamed = as_object(stream.stream.usage), as_object(plain.answer.get("usage"))
    same_text = stream.text.strip() == plain.text.strip() and stream.finish_reason == plain.finish_reason
    # Hidden thoughts are counted too, and may well differ between two answers with the same words.
    thoughts = _thoughts(streamed) or _thoughts(unstreamed) or bool(stream.stream.reasoning())
    compared = False
    for key, slack, comparable in (
        ("prompt_tokens", 0, True),
        ("completion_tokens", SAME_TOKENS, same_text and bool(stream.text) and not thoughts),
    ):
        said, meant = streamed.get(key), unstreamed.get(key)
        if comparable and is_integer(said) and is_integer(meant) and min(said, meant) > 0:
            compared = True
            if abs(said - meant) > slack:
                yield Finding(f"{meant}, as without streaming", str(said), at=f"/usage/{key}")
    if not compared:
        yield NotApplicable("one of the two told no usage")


@check(
    "chat.stream.usage.not_unasked",
    level=Level.MAY,
    lenses=[Lens.OPENAI],
    source=f"{STREAMING}, stream_options.include_usage",
    remedy="Send the usage chunk only where include_usage asks for it.",
    each=[cut],
    on=Usable.EVENTS,
)
def usage_not_unasked(exchange: Exchange) -> Iterator[Finding]:
    """Without `include_usage` no chunk has an empty `choices` for the usage's sake.

    Callers who did not ask for it take `choices[0]` of every chunk, and crash on that one.
    """
    for chunk in exchange.stream.chunks:
        if chunk.object.get("choices") == [] and isinstance(chunk.object.get("usage"), dict):
            yield Finding("no usage chunk", show(chunk.object["usage"]), at=_at(chunk, "/usage"))
            return


# The behaviour


@check(
    "chat.stream.incremental",
    level=Level.MUST,
    lenses=BOTH,
    source="registration guide, Automatic validation: time to first token in streaming mode",
    remedy="Flush each event as it is made, and switch off buffering in every proxy before it.",
    each=[chat_stream],
    on=Usable.EVENTS,
)
def incremental(exchange: Exchange) -> Iterator[Outcome]:
    """A long answer arrives as it is made, not all at once at its end.

    A buffered stream has the latency of a whole answer, and its time to first token gets the mapping delisted.
    An answer that is whole within a second is not held against a fast server.
    """
    timing = stream_timing(exchange)
    if timing is None:
        yield NotApplicable("no token came; see chat.stream.content")
        return
    first, whole = timing.time_to_first_token_s, timing.total_time_s
    long = len(_said(exchange)) >= LONG_CHARACTERS
    if not long or whole < SLOW_S or first < 0.8 * whole or _bursts(timing) > MOST_BURSTS:
        return
    if timing.uncertainty_s > 0.1 * whole:
        yield Undecided(f"our own process was busy for {timing.uncertainty_s:.3f} s meanwhile")
        return
    yield Finding(
        "tokens spread over the time of the answer",
        f"{len(_said(exchange))} characters in {_bursts(timing)} burst(s), after {first:.3f} s of silence",
        at="arrival times",
    )


def _bursts(timing: StreamTiming) -> int:
    """How many moments the tokens came in; a fast engine's tokens come in many, however quick they follow."""
    count, since = 0, -BURST_S
    for at in timing.token_times_s:
        if at - since >= BURST_S:
            count, since = count + 1, at
    return count


@check(
    "chat.stream.equals_unstreamed",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OpenAI API reference, chat completions, stream",
    remedy="Look for text lost or doubled between the engine and the stream: first token, last token, special tokens.",
    joint=[chat_stream, twin],
    on=Usable.SUCCESS,
)
def equals_unstreamed(stream: Exchange, plain: Exchange) -> Iterator[Outcome]:
    """At temperature 0 the joined deltas tell the same as the unstreamed answer.

    What is lost or doubled on the way is lost to every user who streams. Batches of other requests may change a
    model's words, so only what points to the wire is held against it: one of the two answers is the other with a
    piece missing, with pieces twice, or without its spaces.
    """
    streamed, whole = stream.text.strip(), plain.text.strip()
    if not streamed or not whole or stream.finish_reason != plain.finish_reason or stream.garbled:
        yield NotApplicable("there are no two answers to compare")
    elif streamed == whole or _all_twice(stream) or _cumulative(stream):
        return
    elif why := _damage(stream, plain):
        yield Finding(show(whole), show(streamed), at="/choices/0/delta/content", note=why)
    else:
        yield NotApplicable("the model worded its two answers differently")


def _damage(stream: Exchange, plain: Exchange) -> str | None:
    """How the streamed text came from the whole one, where that is plain to see."""
    streamed, whole = stream.text.strip(), plain.text.strip()
    if "".join(streamed.split()) == "".join(whole.split()):
        return "white space was lost or added"
    if _without_repeats(_pieces(stream), plain.text):
        return "a piece came twice"
    less, more, word = (streamed, whole, "lost") if len(streamed) < len(whole) else (whole, streamed, "added")
    head = _common(less, more)
    tail = _common(less[head:][::-1], more[head:][::-1])
    # A model may well say a word more or less; then it also counts a token more or less.
    if len(less) < LEAST_CHARACTERS or head + tail < len(less) or (head and not _same_count(stream, plain)):
        return None
    return f"{show(more[head : len(more) - tail])} was {word}"


def _common(one: str, other: str) -> int:
    """The length of the beginning that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _without_repeats(pieces: Sequence[str], whole: str) -> bool:
    """Whether leaving out pieces that repeat the one before them gives the whole text."""
    at, skipped, before = 0, 0, None
    for piece in pieces:
        if whole.startswith(piece, at):
            at += len(piece)
        elif piece == before:
            skipped += 1
        else:
            return False
        before = piece
    return skipped > 0 and at == len(whole)


def _same_count(stream: Exchange, plain: Exchange) -> bool:
    said = as_object(stream.stream.usage).get("completion_tokens")
    return is_integer(said) and said == as_object(plain.answer.get("usage")).get("completion_tokens")


@check(
    "chat.stream.survives_close",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source="RFC 9110, section 2.3; users close pages",
    remedy="Treat a client that leaves as an end of that request alone: cancel its generation and free its slot.",
    joint=[chat_stream, early_close, after_close],
    on=Usable.ANYTHING,
)
def survives_close(usual: Exchange, left: Exchange, after: Exchange) -> Iterator[Outcome]:
    """After a client leaves a stream, the next stream is answered.

    A worker that dies, or a slot that stays taken, takes down the callers that come after.
    """
    if usual.status != 200 or not usual.complete or not left.reply.closed_early:
        yield NotApplicable("streams do not work here, or this one ended before we could leave it")
    elif after.unreachable and after.status is not None:
        yield Undecided(f"could not tell: {describe(after)}")
    elif after.status != 200 or not after.complete:
        yield Finding("a whole stream", describe(after), at="status", exchange_id=after.id)


# What they share


def _at(chunk: Chunk, pointer: str) -> str:
    return f"event {chunk.event.index} {pointer}"


def _data(exchange: Exchange) -> Sequence[Chunk]:
    """The chunks that carry the answer: others have checks of their own."""
    return exchange.stream.answered


def _choices(exchange: Exchange) -> Iterator[tuple[Chunk, int, dict[str, Any]]]:
    for chunk in _data(exchange):
        for place, choice in enumerate(chunk.choices):
            yield chunk, place, choice


def _number(choice: dict[str, Any]) -> int | None:
    """A choice's index, or None where it is none; chat.stream.index tells of those."""
    number = choice.get("index")
    return number if is_integer(number) and number >= 0 else None


def _pieces(exchange: Exchange) -> list[str]:
    """The first choice's pieces of text, as they came."""
    return [t for delta in exchange.stream.deltas() if isinstance(t := delta.get("content"), str) and t]


def _said(exchange: Exchange) -> str:
    """All that a streamed answer thought and said."""
    return exchange.stream.reasoning() + exchange.stream.content()


def _is_beginning(short: str, whole: str) -> bool:
    short, whole = short.strip(), whole.strip()
    return 0 < len(short) < len(whole) and whole.startswith(short)


def _cumulative(exchange: Exchange) -> bool:
    texts = _pieces(exchange)
    grown = sum(later.startswith(earlier) and len(later) > len(earlier) for earlier, later in itertools.pairwise(texts))
    return len(texts) >= 4 and grown >= 0.8 * (len(texts) - 1)


def _all_twice(exchange: Exchange) -> bool:
    texts = _pieces(exchange)
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    return len(pairs) >= 6 and len(set(texts)) >= 4 and all(first == second for first, second in pairs)


def _run_together(event: Event) -> bool:
    """Whether the empty line between two events was left out, so that readers see one."""
    return "\n" in event.data and all(line.lstrip().startswith(("{", DONE)) for line in event.data.split("\n"))


def _thoughts(usage: dict[str, Any]) -> bool:
    return bool(as_object(usage.get("completion_tokens_details")).get("reasoning_tokens"))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _constant(exchange: Exchange, key: str, good: Callable[[Any], bool], expected: str) -> Iterator[Finding]:
    first: Any = None
    for number, chunk in enumerate(_data(exchange)):
        value = chunk.object.get(key)
        if not good(value):
            typed = good is _is_name and key in chunk.object and not isinstance(value, str)
            if not typed:  # else chat.stream.shape says so
                yield Finding(expected, show(value), at=_at(chunk, f"/{key}"))
            return
        if number == 0:
            first = value
        elif value != first:
            yield Finding(f"{show(first)}, as in the first chunk", show(value), at=_at(chunk, f"/{key}"))
            return
