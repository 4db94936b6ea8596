"""Checks of text completions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Chunk, Exchange, as_object
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import completions as probes
from roadworthy.conformance.reading import route_rules as rules
from roadworthy.conformance.reading.in_time import by, whole_in_time
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, show
from roadworthy.schemas import problem

API = "OpenAI API reference, completions"
SPEC = "published inference API, POST /v1/completions"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.SPEC, Lens.OPENAI)
FINISH_REASONS = ("stop", "length", "content_filter")
MULTIPLE = (*probes.WHOLE, probes.batch, probes.several)
LONG_CHARACTERS = 100
LEAST_COMPARED = 20
"""Characters that two answers must have before one is called a damaged copy of the other."""


def _first_text(exchange: Exchange) -> str | None:
    text = exchange.choices[0].get("text") if exchange.choices else None
    return text if isinstance(text, str) else None


def _reason(exchange: Exchange) -> object:
    return exchange.choices[0].get("finish_reason") if exchange.choices else None


def _spent(exchange: Exchange) -> int | None:
    spent = as_object(exchange.answer.get("usage")).get("completion_tokens")
    return spent if is_integer(spent) else None


# The answer


@check(
    "completions.answered",
    level=Level.MUST,
    lenses=ALL,
    source=SPEC,
    remedy="Serve POST /v1/completions for this model, with `prompt`, `max_tokens`, `stop` and `temperature`.",
    each=probes.WHOLE,
    on=Usable.COMPLETE,
)
def answered(exchange: Exchange) -> Iterator[Finding]:
    """A plain prompt is answered with 200.

    The model is listed for text generation, and this is the route that clients of the OpenAI SDK use for it.
    """
    yield from rules.not_answered(exchange)


@check(
    "completions.json",
    level=Level.MUST,
    lenses=BOTH,
    source="RFC 8259; JavaScript inference client, request",
    remedy="Answer with one strict JSON object under `Content-Type: application/json`.",
    each=MULTIPLE,
    on=Usable.SUCCESS,
)
def is_json(exchange: Exchange) -> Iterator[Finding]:
    """An answer is one strict JSON object, and labelled as JSON.

    Clients parse by the label, and throw or hand on bytes where it says something else.
    """
    yield from rules.not_json(exchange)


@check(
    "completions.shape",
    level=Level.MUST,
    lenses=ALL,
    source=f"{SPEC}; {API}",
    remedy="Compare the answer with schemas/completions/completion.json, field by field.",
    each=MULTIPLE,
    on=Usable.JSON,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """An answer has the published shape: id, object, created, model, and choices with their text.

    Typed SDKs read these fields without looking; where one is absent, callers meet None in its place.
    """
    yield from rules.misshapen(exchange, "completions/completion.json")


@check(
    "completions.text",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Put what the model generated into `choices[].text`; a chat server's `message` is not read here.",
    each=(probes.plain, probes.cut),
)
def text(exchange: Exchange) -> Iterator[Finding]:
    """The text of a continuation is not empty.

    An empty answer that used its tokens is charged for nothing.
    """
    said = _first_text(exchange)
    if said == "":
        yield Finding("some text", '""', at="/choices/0/text")


@check(
    "completions.finish_reason",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy=f"Say one of {', '.join(FINISH_REASONS)}.",
    each=MULTIPLE,
)
def finish_reason(exchange: Exchange) -> Iterator[Finding]:
    """Every choice says why it ended, in a known word.

    Callers decide by it whether to ask for more.
    """
    for place, choice in enumerate(exchange.choices):
        said = choice.get("finish_reason")
        # A number or an object there is the shape's matter.
        if said is None or (isinstance(said, str) and said not in FINISH_REASONS):
            yield Finding(" or ".join(FINISH_REASONS), show(said), at=f"/choices/{place}/finish_reason")


@check(
    "completions.index",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=API,
    remedy="Number the choices from 0, over all prompts.",
    each=MULTIPLE,
)
def index(exchange: Exchange) -> Iterator[Finding]:
    """The choices are numbered from 0, each number once.

    With several prompts or choices the number is all that tells which is which.
    """
    numbers = [choice["index"] for choice in exchange.choices if is_integer(choice.get("index"))]
    if len(numbers) == len(exchange.choices) and sorted(numbers) != list(range(len(numbers))):
        yield Finding(f"0 to {len(numbers) - 1}, each once", show(numbers), at="/choices")


@check(
    "completions.model",
    level=Level.SHOULD,
    lenses=BOTH,
    source=API,
    remedy="Echo the model's public name.",
    each=MULTIPLE,
)
def model(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """`model` names the model that was asked for.

    Routers and bills group by it.
    """
    yield from rules.other_model(exchange, facts)


# Usage


@check(
    "completions.usage.counts",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, usage; pay-as-you-go guide",
    remedy="Count prompt_tokens, completion_tokens and total_tokens in every answer.",
    each=MULTIPLE,
)
def usage_counts(exchange: Exchange) -> Iterator[Finding]:
    """An answer tells its three counts of tokens.

    Requests are charged by them.
    """
    yield from rules.uncounted(exchange.answer.get("usage"), ("prompt_tokens", "completion_tokens", "total_tokens"))


@check(
    "completions.usage.total",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, usage",
    remedy="Add prompt and completion tokens.",
    each=MULTIPLE,
)
def usage_total(exchange: Exchange) -> Iterator[Outcome]:
    """The total is the sum of prompt and completion tokens.

    Bills that are checked against each other must agree.
    """
    yield from rules.total(exchange.answer.get("usage"))


@check(
    "completions.usage.spent",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, usage",
    remedy="Count what was read and what was generated; never fill in zeros.",
    each=probes.plain,
)
def usage_spent(exchange: Exchange) -> Iterator[Outcome]:
    """A prompt and its continuation cost tokens: neither count is zero.

    Zeros are charged as nothing.
    """
    usage = as_object(exchange.answer.get("usage"))
    if not _first_text(exchange):
        yield NotApplicable("there is no text to count")
        return
    for key in ("prompt_tokens", "completion_tokens"):
        if usage.get(key) == 0:
            yield Finding("more than 0", "0", at=f"/usage/{key}")


# Limits and stops


@check(
    "completions.cut.reason",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, max_tokens and finish_reason",
    remedy='Say "length" where the token limit ended the text.',
    each=probes.cut,
)
def cut_reason(exchange: Exchange) -> Iterator[Outcome]:
    """A text that max_tokens cut off says finish_reason "length".

    Callers that read "stop" take half an answer for a whole one.
    """
    spent, said = _spent(exchange), _reason(exchange)
    if spent is None or spent < probes.CUT_TOKENS:
        yield NotApplicable("the model ended before the limit, as far as its usage tells")
    elif said in FINISH_REASONS and said != "length":
        yield Finding("length", show(said), at="/choices/0/finish_reason")


@check(
    "completions.cut.tokens",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, max_tokens",
    remedy="Pass max_tokens on to the engine.",
    each=probes.cut,
)
def cut_tokens(exchange: Exchange) -> Iterator[Outcome]:
    """No more tokens are generated than max_tokens allows.

    It is the only limit on the price of a request.
    """
    spent = _spent(exchange)
    if spent is None:
        yield NotApplicable("the usage does not tell what was generated")
    elif spent > probes.CUT_TOKENS:
        yield Finding(f"at most {probes.CUT_TOKENS}", str(spent), at="/usage/completion_tokens")


@check(
    "completions.stop.text",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, stop",
    remedy="Pass stop sequences on to the engine, and cut the text before the one that was met.",
    each=probes.stop,
)
def stop_text(exchange: Exchange) -> Iterator[Finding]:
    """The text ends before a stop sequence, which is no part of it.

    Programs cut the model's output with it, and parse what they find behind it otherwise.
    """
    said = _first_text(exchange) or ""
    if probes.STOP in said:
        yield Finding(f"no {probes.STOP!r} in the text", show(said), at="/choices/0/text")


@check(
    "completions.stop.reason",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, stop and finish_reason",
    remedy='Say "stop" where a stop sequence ended the text.',
    each=probes.stop,
)
def stop_reason(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A text that ended before the token limit does not say "length".

    Callers that read "length" ask for the rest, for ever.
    """
    spent = _spent(exchange)
    if spent is None or spent >= facts.max_tokens:
        yield NotApplicable("the limit was reached, or the usage does not tell")
    elif _reason(exchange) == "length":
        yield Finding("stop", f"length, after {spent} of {facts.max_tokens} tokens", at="/choices/0/finish_reason")


# Options


@check(
    "completions.echo",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, echo",
    remedy="Repeat the prompt before the text, or refuse `echo` with a 400.",
    each=probes.echo,
    on=Usable.COMPLETE,
)
def echo(exchange: Exchange) -> Iterator[Outcome]:
    """`echo` is honoured or refused, and not ignored.

    Callers cut the prompt's length off the text; without the prompt they cut off the answer.
    """
    refused = rules.declined(exchange, "echo")
    said = _first_text(exchange)
    if refused:
        yield refused
    elif said is None:
        yield NotApplicable("there is no text")
    elif probes.COUNT not in said:
        yield Finding(f"a text that begins with the prompt {probes.COUNT!r}", show(said), at="/choices/0/text")


@check(
    "completions.batch",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, prompt",
    remedy="Continue every prompt of an array, or refuse arrays with a 400.",
    each=probes.batch,
    on=Usable.COMPLETE,
)
def batch(exchange: Exchange) -> Iterator[Outcome]:
    """An array of prompts gets one choice each, or is refused.

    Whoever sends two and gets one back matches answers to the wrong questions.
    """
    refused = rules.declined(exchange, "an array of prompts")
    if refused:
        yield refused
    elif exchange.choices and len(exchange.choices) != len(probes.PROMPTS):
        yield Finding(f"{len(probes.PROMPTS)} choices", str(len(exchange.choices)), at="/choices")


@check(
    "completions.choices",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, n",
    remedy="Generate as many choices as `n` asks for, or refuse n > 1 with a 400.",
    each=probes.several,
)
def choices(exchange: Exchange) -> Iterator[Finding]:
    """`n` choices are answered where they were asked for.

    A server that ignores `n` gives one, and programs that pick the best of several fail on it.
    """
    if len(exchange.choices) != 2:
        yield Finding("2 choices", str(len(exchange.choices)), at="/choices")


# Streams


def _text_chunks(exchange: Exchange) -> list[tuple[Chunk, str]]:
    found = []
    for chunk in exchange.stream.chunks:
        for choice in chunk.choices:
            said = choice.get("text")
            if choice.get("index", 0) == 0 and isinstance(said, str) and said:
                found.append((chunk, said))
    return found


def _joined(exchange: Exchange) -> str:
    return "".join(said for _, said in _text_chunks(exchange))


def _stream_reasons(exchange: Exchange) -> list[str]:
    return exchange.stream.finish_reasons(0)


@check(
    "completions.stream.events",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, stream; WHATWG HTML, server-sent events",
    remedy="Answer `stream: true` with server-sent events under `Content-Type: text/event-stream`.",
    each=probes.streamed,
    on=Usable.RESPONSE,
)
def stream_events(exchange: Exchange) -> Iterator[Outcome]:
    """`stream: true` is answered by a whole stream of server-sent events.

    Streaming clients read nothing else; from a plain JSON answer they make an empty one.
    """
    if exchange.status != 200:
        yield from rules.not_answered(exchange)
    elif exchange.media_type != "text/event-stream":
        yield Finding("text/event-stream", exchange.media_type or "none", at="header Content-Type")
    elif not exchange.stream.events:
        yield Finding("server-sent events", show(exchange.reply.body) or "an empty body", at="body")
    elif not exchange.complete:
        got = exchange.reply.failure.message if exchange.reply.failure else "cut off"
        yield Finding("a whole stream", got, at="body")


@check(
    "completions.stream.shape",
    level=Level.MUST,
    lenses=ALL,
    source=f"{SPEC}; {API}, stream",
    remedy="Compare each event with schemas/completions/completion_chunk.json.",
    each=probes.streamed,
    on=Usable.EVENTS,
)
def stream_shape(exchange: Exchange) -> Iterator[Finding]:
    """Every event is a chunk of the published shape, with `text` and the object "text_completion".

    Chunks of the chat kind hold a delta, which no reader of completions looks for.
    """
    for chunk in exchange.stream.chunks:
        found = problem("completions/completion_chunk.json", chunk.value if isinstance(chunk.value, dict) else None)
        if found is not None:
            got = found.got if isinstance(chunk.value, dict) else show(chunk.event.data)
            yield Finding(found.expected, got, at=f"event {chunk.event.index} {found.pointer}".strip())
            return


@check(
    "completions.stream.done",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, stream",
    remedy="End the stream with `data: [DONE]`.",
    each=probes.streamed,
    on=Usable.EVENTS,
)
def stream_done(exchange: Exchange) -> Iterator[Finding]:
    """A stream ends with [DONE].

    Without it readers cannot tell the end from a broken connection.
    """
    stream = exchange.stream
    if exchange.complete and not stream.done and not stream.ends_in_marker:
        yield Finding("data: [DONE]", show(stream.events[-1].data), at="the last event")


@check(
    "completions.stream.finish",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, stream and finish_reason",
    remedy="Send the finish reason once, in the last chunk of the text.",
    each=probes.streamed,
    on=Usable.EVENTS,
)
def stream_finish(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed text says once why it ended, in a known word, and nothing comes behind.

    Readers stop at the first finish reason.
    """
    if not exchange.complete:
        yield NotApplicable("the stream broke off; see completions.stream.events")
        return
    said = _stream_reasons(exchange)
    if len(said) != 1 or said[0] not in FINISH_REASONS:
        yield Finding(f"one of {', '.join(FINISH_REASONS)}", show(said), at="finish_reason")
        return
    ended = next(
        c.event.index
        for c in exchange.stream.chunks
        if any(x.get("index", 0) == 0 and isinstance(x.get("finish_reason"), str) for x in c.choices)
    )
    for chunk, late in _text_chunks(exchange):
        if chunk.event.index > ended:
            yield Finding("no text behind the finish reason", show(late), at=f"event {chunk.event.index}")
            return


@check(
    "completions.stream.one_id",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, stream",
    remedy="Make the id once per answer.",
    each=probes.streamed,
    on=Usable.EVENTS,
)
def stream_one_id(exchange: Exchange) -> Iterator[Finding]:
    """All chunks of an answer have one id.

    Callers that join several streams sort the chunks by it.
    """
    ids = {id for chunk in exchange.stream.chunks if isinstance(id := chunk.object.get("id"), str)}
    if len(ids) > 1:
        yield Finding("one id", show(sorted(ids)), at="/id")


@check(
    "completions.stream.usage",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, stream_options.include_usage",
    remedy="Send a last chunk with empty `choices` and the usage where include_usage asks for it.",
    each=probes.streamed,
    on=Usable.EVENTS,
)
def stream_usage(exchange: Exchange) -> Iterator[Outcome]:
    """A stream that was asked for its usage tells it, and it adds up.

    Streamed requests are charged by it; without it by an estimate.
    """
    usage = exchange.stream.usage
    if not exchange.complete:
        yield NotApplicable("the stream broke off; see completions.stream.events")
        return
    found = list(rules.uncounted(usage, ("prompt_tokens", "completion_tokens", "total_tokens")))
    yield from found or rules.total(usage)


@check(
    "completions.stream.first_text",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source="registration guide, Automatic validation: latency requirements",
    remedy="Keep the model warm, shorten the queue before it, and flush the first token as soon as it exists.",
    each=probes.streamed,
    on=Usable.EVENTS,
)
def stream_first_text(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """The first text of a stream comes within 5 seconds.

    The hub takes a mapping that misses it off the active list. An empty text is none.
    """
    pieces = _text_chunks(exchange)
    limit_s = facts.limits.time_to_first_token_s
    if not pieces:
        yield NotApplicable("no text came")
        return
    yield from by(pieces[0][0].event.at_ns, exchange, limit_s, "first text")


@check(
    "completions.stream.pieces",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, stream",
    remedy="Flush tokens as they are made.",
    each=probes.streamed,
    on=Usable.EVENTS,
)
def stream_pieces(exchange: Exchange) -> Iterator[Outcome]:
    """A long streamed text comes in several chunks.

    One chunk with everything in it is an unstreamed answer in disguise: its first token comes last.
    """
    pieces = _text_chunks(exchange)
    if sum(len(said) for _, said in pieces) < LONG_CHARACTERS:
        yield NotApplicable("the text is short, or there is none")
    elif len(pieces) == 1:
        yield Finding("several chunks with text", "all text in one chunk", at=f"event {pieces[0][0].event.index}")


@check(
    "completions.stream.equals_unstreamed",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, stream",
    remedy="Look for text lost or doubled between the engine and the stream: first and last token, spaces.",
    joint=[probes.streamed, probes.plain],
    on=Usable.SUCCESS,
)
def stream_equals(stream: Exchange, whole: Exchange) -> Iterator[Outcome]:
    """At temperature 0 the joined chunks tell the same as the unstreamed answer.

    What is lost on the way is lost to every user who streams. Only what points to the wire is held against it, for
    a model may well word an answer differently the second time: a piece missing, everything twice, spaces lost.
    """
    streamed, plain = _joined(stream).strip(), (_first_text(whole) or "").strip()
    if min(len(streamed), len(plain)) < LEAST_COMPARED or next(iter(_stream_reasons(stream)), 0) != _reason(whole):
        yield NotApplicable("there are no two answers to compare")
    elif streamed != plain and _damaged(stream, whole, streamed, plain):
        yield Finding(show(plain), show(streamed), at="/choices/0/text")
    elif streamed != plain:
        yield NotApplicable("the model worded its two answers differently")


def _damaged(stream: Exchange, whole: Exchange, streamed: str, plain: str) -> bool:
    """Whether one text plainly came from the other.

    A model may say a word more or less; then it counts a token more or less, too.
    """
    pieces = [said for _, said in _text_chunks(stream)]
    growing = len(pieces) > 2 and all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))
    if growing or "".join(streamed.split()) == "".join(plain.split()):
        return True
    less, more = sorted((streamed, plain), key=len)
    head = next((at for at, (a, b) in enumerate(zip(less, more, strict=False)) if a != b), len(less))
    counted = as_object(stream.stream.usage).get("completion_tokens")
    same_count = is_integer(counted) and counted == _spent(whole)
    return len(less) < len(more) and more.endswith(less[head:]) and (head == 0 or same_count)


# Time and refusals


@check(
    "completions.latency",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=rules.GUIDE,
    remedy="Raise the tokens per second of this model, or give it less to share its machine with.",
    each=probes.stop,
    on=Usable.SUCCESS,
)
def latency(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A short continuation is whole within 30 seconds.

    It is what the hub allows a request that does not stream.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "completions.no_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 401",
    remedy="Ask for a key on this route as on every other.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def no_key(exchange: Exchange) -> Iterator[Finding]:
    """A prompt without a key gets 401.

    Whatever is served without a key is charged to nobody.
    """
    yield from rules.keyless(exchange)


@check(
    "completions.unknown_model",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 404",
    remedy="Answer 404, code model_not_found, to a model that you do not serve.",
    each=probes.unknown_model,
    on=Usable.RESPONSE,
)
def unknown_model(exchange: Exchange) -> Iterator[Outcome]:
    """A model that does not exist is refused.

    An answer by some other model misleads the caller, who is charged for what was not asked.
    """
    yield from must_refuse(exchange, "there is no such model")


@check(
    "completions.wrong_prompt",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400",
    remedy="Validate requests by a schema before generation.",
    each=probes.no_prompt,
    on=Usable.RESPONSE,
)
def wrong_prompt(exchange: Exchange) -> Iterator[Outcome]:
    """A prompt that is an object is refused.

    An answer to something else hides the caller's mistake, and is charged.
    """
    yield from must_refuse(exchange, "the prompt must be a text")


@check(
    "completions.out_of_range",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400",
    remedy="Validate the ranges of sampling parameters.",
    each=probes.out_of_range,
    on=Usable.RESPONSE,
)
def out_of_range(exchange: Exchange) -> Iterator[Outcome]:
    """A negative temperature is refused.

    It has no meaning; some engines clamp it, others return noise.
    """
    yield from must_refuse(exchange, "the temperature is out of range")
