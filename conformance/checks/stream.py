"""Checks of streamed chat completions: the wire, the chunks, the usage, the behaviour."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import DONE, Chunk, Exchange, Malformed, as_object
from roadworthy.conformance.measure import stream_timing
from roadworthy.conformance.probes.stream import STREAMS, after_close, chat_stream, cut, early_close, twin
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, show
from roadworthy.http.message import FailureKind

STREAMING = "OpenAI API reference, chat completions, streaming"
SSE = "WHATWG HTML, server-sent events"
JS_CLIENT = "JavaScript inference client, stream reader"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.OPENAI, Lens.SPEC)
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
UNFINISHED = (FailureKind.TRUNCATED, FailureKind.DISCONNECTED, FailureKind.IDLE_TIMEOUT, FailureKind.TOTAL_TIMEOUT)


# The wire


@check(
    "chat.stream.status",
    level=Level.MUST,
    lenses=ALL,
    source=STREAMING,
    remedy='Answer a request with "stream": true as you answer one without it.',
    each=[chat_stream],
    on=Usable.RESPONSE,
)
def status(exchange: Exchange) -> Iterator[Finding]:
    """A request for a stream is answered with HTTP 200.

    The hub measures latency by streaming; a provider that cannot stream cannot be listed for chat.
    """
    if exchange.status != 200:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


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
    for line in stream.unknown_lines[:1]:
        yield Finding("a line that begins with data:, event:, id:, retry: or :", show(line), at="body")
    for event in stream.events:
        if "\n" in event.data and all(line.lstrip().startswith(("{", DONE)) for line in event.data.split("\n")):
            yield Finding(
                "an empty line after each event", "several data lines in one event", at=f"event {event.index}"
            )
            break
    if stream.unfinished and exchange.complete:
        yield Finding("an empty line after the last event", "the stream ends inside an event", at="end of body")
    if not stream.events and not stream.unfinished and not stream.unknown_lines:
        yield Finding("at least one event", show(exchange.reply.body) or "an empty body", at="body")


@check(
    "chat.stream.utf8",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=SSE,
    remedy="Encode the stream as UTF-8, and never cut a token's bytes apart into two JSON strings.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def utf8(exchange: Exchange) -> Iterator[Finding]:
    """The stream is UTF-8.

    Every reader decodes it as UTF-8; other bytes turn into replacement characters in the caller's text.
    """
    if exchange.stream.undecodable:
        yield Finding("UTF-8", f"{exchange.stream.undecodable} lines that are not", at="body")


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
        if "\n" in chunk.event.data and isinstance(chunk.value, Malformed):
            continue
        if not isinstance(chunk.value, dict):
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
    if not exchange.complete:
        return
    events = exchange.stream.events
    marks = [event.index for event in events if event.data.strip() == DONE]
    if not marks and events[-1].data.endswith(f"\n{DONE}"):
        return  # chat.stream.framing tells of the empty lines that are missing
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
    remedy="Find what cuts the connection: a worker that dies, a proxy's read timeout, a missing final chunk.",
    each=STREAMS,
    on=Usable.EVENTS,
)
def complete(exchange: Exchange) -> Iterator[Finding]:
    """The connection is not cut before the stream's end.

    The caller gets half an answer, and an exception or, worse, none.
    """
    failure = exchange.reply.failure
    if failure is not None and failure.kind in UNFINISHED:
        yield Finding("the whole stream", failure.message, at="end of body")


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
        if chunk.object.get("error") or (chunk.event.event == "error" and chunk.object):
            yield Finding("no error", show(chunk.object), at=_at(chunk, "/error"))
            return


# The chunks


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
    yield from _constant(exchange, "id", lambda value: isinstance(value, str) and bool(value), "a non-empty string")


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
    yield from _constant(exchange, "model", lambda value: isinstance(value, str) and bool(value), "a non-empty string")


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
    """Each chunk has an array `choices`, empty only where the chunk tells the usage.

    The SDK iterates over it in every chunk; naive callers take its first item.
    """
    for chunk in _data(exchange):
        value = chunk.object.get("choices")
        if not isinstance(value, list):
            yield Finding("an array", show(value), at=_at(chunk, "/choices"))
            return
        azure_like = any(key in chunk.object for key in ("prompt_filter_results", "prompt_annotations"))
        if not value and chunk.object.get("usage") is None and not azure_like:
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
        if not is_integer(choice.get("index")) or choice["index"] < 0:
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
        for key in ("content", "reasoning_content", "reasoning", "refusal"):
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
    if _unreadable(exchange):
        return
    seen: set[Any] = set()
    for chunk, place, choice in _choices(exchange):
        part = as_object(choice.get("delta"))
        at = _at(chunk, f"/choices/{place}/delta/role")
        first = show(choice.get("index")) not in seen
        seen.add(show(choice.get("index")))
        if part.get("role") not in (None, "assistant"):
            yield Finding("assistant", show(part["role"]), at=at)
            return
        if first and isinstance(choice.get("delta"), dict) and part.get("role") != "assistant":
            yield Finding("assistant", show(part.get("role")), at=at)
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
    broken = any(not isinstance(c.get("delta"), dict) for _, _, c in _choices(exchange)) or _unreadable(exchange)
    if broken or not exchange.complete:
        yield NotApplicable("the chunks cannot be read; see chat.stream.json and chat.stream.delta")
    elif not stream.content() and stream.finish_reasons(0) == ["length"] and stream.reasoning():
        yield NotApplicable("the token limit was spent on reasoning")
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
    texts = [t for chunk in exchange.stream.chunks if isinstance(t := chunk.delta().get("content"), str) and t]
    grown = sum(later.startswith(earlier) and len(later) > len(earlier) for earlier, later in itertools.pairwise(texts))
    if len(texts) >= 4 and grown >= 0.8 * (len(texts) - 1):
        yield Finding("new text only", f"each delta repeats the last: {show(texts[-1])}", at="/choices/0/delta/content")


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
    texts = [t for chunk in exchange.stream.chunks if isinstance(t := chunk.delta().get("content"), str) and t]
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    if len(pairs) >= 6 and len(set(texts)) >= 4 and all(first == second for first, second in pairs):
        yield Finding("each piece once", f"every piece twice: {show(texts[:4])}", at="/choices/0/delta/content")


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
    if not exchange.complete or _unreadable(exchange) or _has_error(exchange):
        return
    indexes = {choice.get("index", 0) for _, _, choice in _choices(exchange) if is_integer(choice.get("index", 0))}
    for number in sorted(indexes):
        reasons = [c.get("finish_reason") for _, _, c in _choices(exchange) if c.get("index", 0) == number]
        if all(reason is None for reason in reasons):
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
    counts = Counter(
        choice.get("index", 0)
        for _, _, choice in _choices(exchange)
        if choice.get("finish_reason") is not None and is_integer(choice.get("index", 0))
    )
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
        number = choice.get("index", 0)
        if not is_integer(number):
            continue
        part = as_object(choice.get("delta"))
        if number in finished and any(part.get(key) for key in ("content", "tool_calls")):
            yield Finding("nothing after finish_reason", show(part), at=_at(chunk, f"/choices/{place}/delta"))
            return
        if choice.get("finish_reason") is not None:
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
        if reason is not None and reason not in FINISH_REASONS:
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
    each=[cut],
    on=Usable.EVENTS,
)
def finish_reason_length(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed answer that the token limit cut off says "length".

    "stop" tells the caller that a torso is the whole answer.
    """
    reasons = exchange.stream.finish_reasons(0)
    if not reasons or reasons[-1] not in FINISH_REASONS:
        yield NotApplicable("the finish reason itself is missing or unknown")
    elif reasons[-1] == "stop" and "thirty" not in exchange.text:
        yield Finding("length", show(reasons[-1]), at="/choices/0/finish_reason")


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
    """With `include_usage` the stream ends with a chunk that tells the usage.

    Metering of streams, the caller's and the router's, has no other source.
    """
    if not exchange.complete or _unreadable(exchange):
        return
    if not isinstance(exchange.stream.usage, dict):
        yield Finding("an object `usage` in the last chunk", show(exchange.stream.usage), at="/usage")


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
    "chat.stream.usage.same_as_unstreamed",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OpenAI API reference, usage",
    remedy="Count the prompt's tokens once, in the code that both ways share.",
    joint=[chat_stream, twin],
    on=Usable.SUCCESS,
)
def usage_same(stream: Exchange, plain: Exchange) -> Iterator[Outcome]:
    """The same prompt counts the same tokens, streamed or not.

    Otherwise one of the two is charged wrongly.
    """
    streamed = as_object(stream.stream.usage).get("prompt_tokens")
    unstreamed = as_object(plain.answer.get("usage")).get("prompt_tokens")
    if not is_integer(streamed) or not is_integer(unstreamed) or min(streamed, unstreamed) <= 0:
        yield NotApplicable("one of the two told no usage")
    elif streamed != unstreamed:
        yield Finding(f"{unstreamed} prompt tokens, as without streaming", str(streamed), at="/usage/prompt_tokens")


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
def incremental(exchange: Exchange) -> Iterator[Finding]:
    """A stream arrives as it is made, not all at once at its end.

    A buffered stream has the latency of a whole answer, and its time to first token gets the mapping delisted.
    An answer that is whole within a second is not held against a fast server.
    """
    timing = stream_timing(exchange)
    if timing is None or len(timing.token_times_s) < 5 or timing.total_time_s < 1.0:
        return
    first, last = timing.token_times_s[0], timing.token_times_s[-1]
    if last - first < 0.05 * timing.total_time_s:
        yield Finding(
            "tokens spread over the time of the answer",
            f"{len(timing.token_times_s)} pieces within {last - first:.3f} s, after {first:.3f} s of silence",
            at="arrival times",
        )


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

    Batches of other requests may change a model's words, so only what points to the wire is held against it: an
    answer that is the other one with its beginning or end cut off, or without its spaces.
    """
    streamed, whole = stream.text, plain.text
    if not streamed or not whole or stream.finish_reason != plain.finish_reason or _unreadable(stream):
        yield NotApplicable("there are no two answers to compare")
    elif len(streamed) < len(whole) and _damaged(streamed, whole):
        yield Finding(show(whole), show(streamed), at="/choices/0/delta/content")


def _damaged(streamed: str, whole: str) -> bool:
    if "".join(streamed.split()) == "".join(whole.split()):
        return True
    part = streamed.strip()
    return len(part) > 20 and (whole.strip().startswith(part) or whole.strip().endswith(part))


@check(
    "chat.stream.survives_close",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source="RFC 9110, section 2.3; users close pages",
    remedy="Treat a client that leaves as an end of that request alone: cancel its generation and free its slot.",
    joint=[early_close, after_close],
    on=Usable.ANYTHING,
)
def survives_close(left: Exchange, after: Exchange) -> Iterator[Outcome]:
    """After a client leaves a stream, the next question is answered.

    A worker that dies, or a slot that stays taken, takes down the callers that come after.
    """
    if not left.reply.closed_early:
        yield NotApplicable("the stream ended before we could leave it")
    elif after.status != 200 or not after.complete:
        got = after.reply.failure.message if after.reply.failure else f"HTTP {after.status}"
        yield Finding("HTTP 200", got, at="status", exchange_id=after.id)


# What they share


def _at(chunk: Chunk, pointer: str) -> str:
    return f"event {chunk.event.index} {pointer}"


def _data(exchange: Exchange) -> list[Chunk]:
    """The chunks that are objects and tell no error: others have checks of their own."""
    return [c for c in exchange.stream.chunks if isinstance(c.value, dict) and not c.object.get("error")]


def _choices(exchange: Exchange) -> Iterator[tuple[Chunk, int, dict[str, Any]]]:
    for chunk in _data(exchange):
        for place, choice in enumerate(chunk.choices):
            yield chunk, place, choice


def _unreadable(exchange: Exchange) -> bool:
    stream = exchange.stream
    return (
        any(not isinstance(chunk.value, dict) for chunk in stream.chunks)
        or any(not isinstance(c.delta().get("content"), str | type(None)) for c in stream.chunks)
        or bool(stream.unknown_lines)
        or stream.unfinished
        or not stream.chunks
    )


def _has_error(exchange: Exchange) -> bool:
    return any(chunk.object.get("error") for chunk in exchange.stream.chunks)


def _constant(exchange: Exchange, key: str, good: Any, expected: str) -> Iterator[Finding]:
    first: Any = None
    for number, chunk in enumerate(_data(exchange)):
        value = chunk.object.get(key)
        if not good(value):
            yield Finding(expected, show(value), at=_at(chunk, f"/{key}"))
            return
        if number == 0:
            first = value
        elif value != first:
            yield Finding(f"{show(first)}, as in the first chunk", show(value), at=_at(chunk, f"/{key}"))
            return
