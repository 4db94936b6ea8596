"""Checks of what the text-generation server says besides texts: headers, facts, metrics, tokens, refusals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.checks.tgi import details, inputs, optional, tokens
from roadworthy.conformance.exchange import Exchange, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.measure import NS
from roadworthy.conformance.probes import tgi as probes
from roadworthy.conformance.reading import prometheus
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, show
from roadworthy.schemas import problem

SERVER = "text-generation server"
HEADERS = f"{SERVER}, POST /generate, response headers"
BOTH = (Lens.HUB, Lens.SPEC)
TIMES = ("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token")
COUNTS = ("x-compute-characters", "x-prompt-tokens", "x-generated-tokens")
TIMED = (probes.first, probes.cut, probes.stop)
"""The texts whose headers are read."""
ROUNDING_MS = 1.0
"""What a time loses where it is told in whole milliseconds."""
CLOCK_SLACK_MS = 250.0
"""How much longer than we saw a server may say that it took: clocks differ, and it began before we could know."""


# Headers


def _header(exchange: Exchange, name: str) -> str:
    return (exchange.reply.header(name) or "").strip()


def _number(exchange: Exchange, name: str) -> float | None:
    """A header as a number that is not negative, or None where it is none."""
    value = _header(exchange, name)
    return float(value) if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,20})?(e-?[0-9]{1,2})?", value, re.IGNORECASE) else None


@check(
    "tgi.headers.present",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=HEADERS,
    remedy="Set the headers on every text, and let them through at your gateway.",
    each=TIMED,
    on=Usable.SUCCESS,
)
def headers_present(exchange: Exchange) -> Iterator[Finding]:
    """A text comes with the headers that tell what it took.

    Dashboards and gateways read time and tokens from them without parsing the body.
    """
    missing = [name for name in ("x-compute-type", *TIMES, *COUNTS) if not _header(exchange, name)]
    if missing:
        yield Finding("the header", "none", at=f"header {', '.join(missing)}")


@check(
    "tgi.headers.numbers",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=HEADERS,
    remedy="Write times as plain milliseconds and counts as integers, without a unit.",
    each=TIMED,
    on=Usable.SUCCESS,
)
def headers_numbers(exchange: Exchange) -> Iterator[Outcome]:
    """Times and counts in the headers are plain numbers that are not negative, the counts integers.

    Readers turn them into numbers as they are.
    """
    given = [name for name in (*TIMES, *COUNTS) if _header(exchange, name)]
    if not given:
        yield NotApplicable("there are no such headers; see tgi.headers.present")
    for name in given:
        number = _number(exchange, name)
        if number is None or (name in COUNTS and not number.is_integer()):
            expected = "an integer" if name in COUNTS else "a number of milliseconds"
            yield Finding(expected, show(_header(exchange, name)), at=f"header {name}")


@check(
    "tgi.headers.sum",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=HEADERS,
    remedy="Measure the parts and the whole by one clock: validation, queue and inference lie within the total.",
    each=TIMED,
    on=Usable.SUCCESS,
)
def headers_sum(exchange: Exchange) -> Iterator[Outcome]:
    """Validation, queue and inference together take no longer than the whole.

    Whoever looks for the slow part is sent to the wrong one otherwise.
    """
    total = _number(exchange, "x-total-time")
    parts = [_number(exchange, f"x-{part}-time") for part in ("validation", "queue", "inference")]
    known = [part for part in parts if part is not None]
    if total is None or len(known) < len(parts):
        yield NotApplicable("not every time is told")
    elif sum(known) > total + ROUNDING_MS * len(known):
        yield Finding(f"at most {total:g}, the total", f"{' + '.join(f'{part:g}' for part in known)}", at="headers")


@check(
    "tgi.headers.per_token",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=HEADERS,
    remedy="Divide the time of inference by the generated tokens.",
    each=TIMED,
    on=Usable.SUCCESS,
)
def headers_per_token(exchange: Exchange) -> Iterator[Outcome]:
    """The time per token is that of inference, divided by the generated tokens.

    Capacity is planned by it.
    """
    each, whole = _number(exchange, "x-time-per-token"), _number(exchange, "x-inference-time")
    count = _number(exchange, "x-generated-tokens")
    if each is None or whole is None or not count:
        yield NotApplicable("not every number is told")
    elif abs(each * count - whole) > ROUNDING_MS * (count + 1):
        yield Finding(f"{whole:g} / {count:g}", f"{each:g}", at="header x-time-per-token")


@check(
    "tgi.headers.clock",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=HEADERS,
    remedy="Tell times in milliseconds.",
    each=TIMED,
    on=Usable.SUCCESS,
)
def headers_clock(exchange: Exchange) -> Iterator[Outcome]:
    """The total time is no longer than the answer took to arrive.

    A number in another unit makes every graph of it wrong by a factor of a thousand.
    """
    total, last_ns = _number(exchange, "x-total-time"), exchange.reply.timings.last_byte_ns
    if total is None or last_ns is None:
        yield NotApplicable("the time is not told, or nothing came")
    elif total > last_ns / NS * 1000 + CLOCK_SLACK_MS:
        got = f"{total:g} ms"
        yield Finding(f"at most {last_ns / NS * 1000:.1f} ms, as it took", got, at="header x-total-time")


@check(
    "tgi.headers.tokens",
    level=Level.MUST,
    lenses=BOTH,
    source=HEADERS,
    remedy="Set x-generated-tokens from the count that the details tell.",
    each=[probes.cut, probes.stop],
    on=Usable.JSON,
)
def headers_tokens(exchange: Exchange) -> Iterator[Outcome]:
    """The header tells as many generated tokens as the details list.

    Gateways charge by the header.
    """
    told, listed = _number(exchange, "x-generated-tokens"), tokens(details(exchange))
    if told is None or not listed:
        yield NotApplicable("the number is not told, or there is no list of tokens")
    elif told != len(listed):
        yield Finding(f"{len(listed)}, as many as tokens", f"{told:g}", at="header x-generated-tokens")


@check(
    "tgi.headers.characters",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=HEADERS,
    remedy="Count the characters (code points) of the prompt, not its bytes.",
    each=TIMED,
    on=Usable.SUCCESS,
)
def headers_characters(exchange: Exchange) -> Iterator[Outcome]:
    """The header tells the number of characters in the prompt.

    Where characters are charged, those of every script must cost the same.
    """
    told = _number(exchange, "x-compute-characters")
    if told is None:
        yield NotApplicable("the number is not told")
    elif told != len(inputs(exchange)):
        yield Finding(f"{len(inputs(exchange))} characters", f"{told:g}", at="header x-compute-characters")


# What the server says of itself

CLOSED = (401, 403)


@check(
    "tgi.open",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{SERVER}, security of /info and /health: none",
    remedy="Let /info and /health be read without a key.",
    each=[probes.info, probes.health],
    on=Usable.RESPONSE,
)
def is_open(exchange: Exchange) -> Iterator[Finding]:
    """What the server says of itself is told without a key.

    Load balancers and monitors ask for it, and have none.
    """
    if exchange.status in CLOSED:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "tgi.health",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{SERVER}, GET /health",
    remedy="Answer GET /health with 200 when the model is loaded, and 503 before.",
    each=probes.health,
    on=Usable.RESPONSE,
)
def healthy(exchange: Exchange) -> Iterator[Outcome]:
    """A server that answers prompts says that it is ready.

    Load balancers take a server out that does not.
    """
    if exchange.status in CLOSED:
        yield NotApplicable("a key is needed; see tgi.open")
    elif exchange.status != 200 and (exchange.status or 0) < 500:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "tgi.info.shape",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{SERVER}, GET /info; official Python inference client, get_endpoint_info",
    remedy="Compare the answer with schemas/tgi/info.json, field by field.",
    each=probes.info,
    on=Usable.COMPLETE,
)
def info_shape(exchange: Exchange) -> Iterator[Outcome]:
    """/info tells the model, the version and the limits.

    Clients learn from it how long a prompt may be, and which kind of server it is.
    """
    if exchange.status in CLOSED or (exchange.status or 0) >= 500:
        yield NotApplicable("there is no answer; see tgi.open and errors.no_5xx")
        return
    found = problem("tgi/info.json", exchange.json if isinstance(exchange.json, dict) else None)
    if exchange.status != 200 or found:
        got = found.got if exchange.status == 200 and found else f"HTTP {exchange.status}"
        yield Finding(found.expected if found else "HTTP 200", got, at=(found.pointer if found else "") or "body")


@check(
    "tgi.info.model",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=f"{SERVER}, GET /info, model_id",
    remedy="Load the model by its name, or tell roadworthy the name that the server uses.",
    each=probes.info,
    on=Usable.JSON,
)
def info_model(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """The server says that it serves the model that is judged.

    A report about one model must not be earned by another one.
    """
    model = exchange.answer.get("model_id")
    if not isinstance(model, str) or model.startswith(("/", ".")):
        yield NotApplicable("the model is not told by a name, but by a folder or not at all")
    elif model.casefold() != facts.model.casefold():
        yield Finding(facts.model, show(model), at="/model_id")


@check(
    "tgi.info.limits",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{SERVER}, GET /info, max_input_length and max_total_tokens",
    remedy="Tell the limits that the server was started with; a prompt must leave room for an answer.",
    each=probes.info,
    on=Usable.JSON,
)
def info_limits(exchange: Exchange) -> Iterator[Outcome]:
    """The longest prompt is shorter than prompt and answer together.

    Clients compute from both how many tokens they may ask for.
    """
    answer = exchange.answer
    read = answer.get("max_input_tokens", answer.get("max_input_length"))
    total = answer.get("max_total_tokens")
    if not is_integer(read) or not is_integer(total):
        yield NotApplicable("the limits are not told; see tgi.info.shape")
    elif not 0 < read < total:
        yield Finding(f"above 0 and below {total}", str(read), at="/max_input_tokens")


# Metrics

FORMAT = "Prometheus, exposition formats, text-based format"
HIDDEN = "the server shows no metrics"


def _metrics(exchange: Exchange) -> prometheus.Metrics:
    return prometheus.parse(exchange.reply.body.decode(errors="replace"))


@check(
    "tgi.metrics.content_type",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{SERVER}, GET /metrics; {FORMAT}",
    remedy="Label the metrics `text/plain; version=0.0.4`.",
    each=probes.metrics_after,
    on=Usable.COMPLETE,
)
def metrics_content_type(exchange: Exchange) -> Iterator[Outcome]:
    """Metrics are labelled as text.

    A scraper chooses its parser by the label, and refuses a page of another one.
    """
    if exchange.status != 200:
        yield NotApplicable(f"{HIDDEN}: HTTP {exchange.status}")
    elif exchange.media_type not in ("text/plain", "application/openmetrics-text"):
        yield Finding("text/plain", exchange.media_type or "none", at="header Content-Type")


@check(
    "tgi.metrics.format",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=FORMAT,
    remedy="Let a Prometheus library write the page; every line must be a comment or a sample.",
    each=probes.metrics_after,
    on=Usable.COMPLETE,
)
def metrics_format(exchange: Exchange) -> Iterator[Outcome]:
    """Metrics can be read by a scraper, and there are some.

    A scraper drops the whole page for one bad line, and the dashboard stays empty.
    """
    if exchange.status != 200:
        yield NotApplicable(f"{HIDDEN}: HTTP {exchange.status}")
        return
    found = _metrics(exchange)
    if found.problems:
        yield Finding("the text format", show(found.problems[0]), at="body")
    elif not found.samples:
        yield Finding("samples", show(exchange.reply.body) or "an empty page", at="body")


@check(
    "tgi.metrics.histograms",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{FORMAT}, histograms",
    remedy="Count into every bucket whose bound is not below the value, and into +Inf always.",
    each=probes.metrics_after,
    on=Usable.COMPLETE,
)
def metrics_histograms(exchange: Exchange) -> Iterator[Outcome]:
    """The buckets of a histogram are cumulative, and the last one is its count.

    Latency percentiles are computed from them.
    """
    if exchange.status != 200:
        yield NotApplicable(f"{HIDDEN}: HTTP {exchange.status}")
        return
    wrong = next(prometheus.histogram_problems(_metrics(exchange)), None)
    if wrong:
        yield Finding("cumulative buckets", show(wrong), at="body")


@check(
    "tgi.metrics.counters",
    level=Level.MAY,
    lenses=[Lens.SPEC],
    source=f"{SERVER}, GET /metrics; {FORMAT}",
    remedy="Count requests and tokens with counters that live as long as the server.",
    joint=[probes.metrics_before, probes.metrics_after],
    on=Usable.COMPLETE,
)
def metrics_counters(before: Exchange, after: Exchange) -> Iterator[Outcome]:
    """Counters grow with the requests, and none falls.

    Rates are computed from them. Several servers behind one address show each its own, which is why this is only
    good manners.
    """
    if before.status != 200 or after.status != 200:
        yield NotApplicable(f"{HIDDEN}: HTTP {before.status} and {after.status}")
        return
    old, new = _metrics(before).counters, _metrics(after).counters
    fallen = next((key for key, value in old.items() if new.get(key, value) < value), None)
    if fallen:
        got = f"{old[fallen]:g}, then {new[fallen]:g}"
        yield Finding("a counter that does not fall", got, at=show(fallen[0]), exchange_id=after.id)
    elif not any(value > old.get(key, 0) for key, value in new.items()):
        yield Finding("a counter that grew", f"none of {len(new)} did", at="body", exchange_id=after.id)


# Tokens

TOKENIZE = f"{SERVER}, POST /tokenize"
NO_TOKENIZER = "the server splits no texts"


def _spans(exchange: Exchange) -> list[tuple[int, int, dict[str, Any]]]:
    """The tokens that have a place in the text: where each begins and ends."""
    places = [(token.get("start"), token.get("stop"), token) for token in objects(exchange.json)]
    return [(a, b, token) for a, b, token in places if is_integer(a) and is_integer(b) and a < b]


@check(
    "tgi.tokenize.shape",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{TOKENIZE}, 200",
    remedy="Compare the answer with schemas/tgi/tokenize.json: an array of id, text, start and stop.",
    each=[probes.tokenize, probes.tokenize_bare],
    on=Usable.COMPLETE,
)
def tokenize_shape(exchange: Exchange) -> Iterator[Outcome]:
    """/tokenize answers with an array of tokens, each with its number, text and place.

    Clients count and cut prompts by it.
    """
    reason = optional(exchange, NO_TOKENIZER)
    if reason:
        yield NotApplicable(reason)
        return
    found = problem("tgi/tokenize.json", exchange.json if isinstance(exchange.json, list) else None)
    if found:
        yield Finding(found.expected, show(exchange.reply.body), at=found.pointer or "body")


@check(
    "tgi.tokenize.order",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{TOKENIZE}, start and stop",
    remedy="Give places in characters, in the order of the text and within it.",
    each=[probes.tokenize, probes.tokenize_bare],
    on=Usable.VALUE,
)
def tokenize_order(exchange: Exchange) -> Iterator[Outcome]:
    """The places of the tokens go forward and lie within the text.

    Whoever cuts a prompt at a token cuts it at that place.
    """
    spans, length = _spans(exchange), len(inputs(exchange))
    if not spans:
        yield NotApplicable("no token has a place; see tgi.tokenize.shape")
        return
    for (start, stop, _), (later, end, _) in pairwise(spans):
        if later < start or end < stop:
            yield Finding(f"from {start} or later", f"{later} to {end} after {start} to {stop}", at="/start")
            return
    if spans[-1][1] > length:
        yield Finding(f"at most {length}, the length of the text", str(spans[-1][1]), at="/stop of the last")


@check(
    "tgi.tokenize.slices",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{TOKENIZE}, text",
    remedy="Give as a token's text the characters from start to stop.",
    each=[probes.tokenize, probes.tokenize_bare],
    on=Usable.VALUE,
)
def tokenize_slices(exchange: Exchange) -> Iterator[Outcome]:
    """A token's text is what stands at its place, counted in characters.

    Counting bytes moves every token behind the first letter with an accent.
    """
    text = inputs(exchange)
    spans = [span for span in _spans(exchange) if span[1] <= len(text)]
    if not spans:
        yield NotApplicable("no token has a place in the text; see tgi.tokenize.order")
    for start, stop, token in spans:
        if token.get("text") != text[start:stop]:
            yield Finding(show(text[start:stop]), show(token.get("text")), at=f"text of {start} to {stop}")
            return


@check(
    "tgi.tokenize.covered",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{TOKENIZE}, start and stop",
    remedy="List every token of the text.",
    each=[probes.tokenize, probes.tokenize_bare],
    on=Usable.VALUE,
)
def tokenize_covered(exchange: Exchange) -> Iterator[Outcome]:
    """Every character of the text that is no blank belongs to a token.

    A prompt that is counted without a part of it is longer than it seems.
    """
    text, spans = inputs(exchange), _spans(exchange)
    if not spans:
        yield NotApplicable("no token has a place; see tgi.tokenize.shape")
        return
    covered = {place for start, stop, _ in spans for place in range(max(0, start), min(stop, len(text)))}
    bare = [place for place, character in enumerate(text) if not character.isspace() and place not in covered]
    if bare:
        yield Finding("a token", f"none for {text[bare[0]]!r}", at=f"character {bare[0]}")


@check(
    "tgi.tokenize.special",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{TOKENIZE}, add_special_tokens",
    remedy="Add no token of the model's own where add_special_tokens is false.",
    each=probes.tokenize_bare,
    on=Usable.VALUE,
)
def tokenize_special(exchange: Exchange) -> Iterator[Outcome]:
    """Without special tokens, only tokens of the text are listed.

    Whoever joins several parts to one prompt would put a beginning into its middle.
    """
    listed = objects(exchange.json)
    if not _spans(exchange):
        yield NotApplicable("no token has a place; see tgi.tokenize.shape")
        return
    for token in (listed[0], listed[-1]):
        empty = is_integer(token.get("start")) and token.get("start") == token.get("stop")
        if empty or token.get("special") is True:
            yield Finding("tokens of the text only", show(token), at="body")
            return


@check(
    "tgi.tokenize.count",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{TOKENIZE}; {HEADERS}, x-prompt-tokens",
    remedy="Use one tokenizer, with the same special tokens, for /tokenize and for /generate.",
    joint=[probes.cut, probes.tokenize],
    on=Usable.COMPLETE,
)
def tokenize_count(written: Exchange, split: Exchange) -> Iterator[Outcome]:
    """/tokenize gives as many tokens as the prompt is said to have.

    Callers reckon by it what a prompt costs, and whether it fits.
    """
    told, listed = _number(written, "x-prompt-tokens"), objects(split.json)
    reason = optional(split, NO_TOKENIZER)
    if reason or told is None or not listed:
        yield NotApplicable(reason or "there is no number, or there are no tokens")
    elif told != len(listed):
        yield Finding(f"{told:g}, as x-prompt-tokens says", str(len(listed)), at="body", exchange_id=split.id)


# Neighbours below /v1


@check(
    "tgi.models",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{SERVER}, GET /v1/models",
    remedy='Answer {"object": "list", "data": [{"id": "..."}]} with the model that is loaded.',
    each=probes.models,
    on=Usable.COMPLETE,
)
def models(exchange: Exchange) -> Iterator[Outcome]:
    """/v1/models lists at least one model.

    Tools made for OpenAI's API offer their users what stands there.
    """
    reason = optional(exchange, "the server has no list of models")
    if reason:
        yield NotApplicable(reason)
        return
    found = problem("openai/model_list.json", exchange.json if isinstance(exchange.json, dict) else None)
    if found:
        yield Finding(found.expected, found.got, at=found.pointer or "body")
    elif not objects(exchange.answer.get("data")):
        yield Finding("at least one model", show(exchange.reply.body), at="/data")


@check(
    "tgi.chat",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{SERVER}, POST /v1/chat/completions",
    remedy="Compare the answer with schemas/openai/chat_completion.json; run the chat suite for all the rest.",
    each=probes.chat,
    on=Usable.COMPLETE,
)
def chat(exchange: Exchange) -> Iterator[Outcome]:
    """A chat completion from the same server has the shape of one, and a text.

    Official clients send conversations there. A model without a chat template may refuse.
    """
    reason = optional(exchange, "the server does not chat")
    if reason:
        yield NotApplicable(reason)
        return
    found = problem("openai/chat_completion.json", exchange.json if isinstance(exchange.json, dict) else None)
    if found:
        yield Finding(found.expected, found.got, at=found.pointer or "body")
    elif not isinstance(exchange.message.get("content"), str):
        yield Finding("a text", show(exchange.message), at="/choices/0/message/content")


# Refusals

ERRORS = f"{SERVER}, ErrorResponse"


@check(
    "tgi.errors.inputs",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{SERVER}, POST /generate: inputs is required",
    remedy="Answer 422 where `inputs` is missing.",
    each=probes.no_inputs,
    on=Usable.RESPONSE,
)
def errors_inputs(exchange: Exchange) -> Iterator[Outcome]:
    """A request without a prompt is refused.

    An answer to nothing hides the caller's mistake, and is charged.
    """
    yield from must_refuse(exchange, "inputs are missing")


@check(
    "tgi.errors.no_tokens",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{SERVER}, POST /generate: max_new_tokens",
    remedy="Answer 422 where `max_new_tokens` is not above zero.",
    each=probes.no_tokens,
    on=Usable.RESPONSE,
)
def errors_no_tokens(exchange: Exchange) -> Iterator[Outcome]:
    """A text of no tokens is refused.

    Taken for "no limit", as some engines do, it costs the caller a whole context.
    """
    yield from must_refuse(exchange, "max_new_tokens must be above zero")


@check(
    "tgi.errors.grammar",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{SERVER}, POST /generate: grammar",
    remedy="Compile the grammar before generation, and answer 422 where that fails.",
    each=probes.bad_grammar,
    on=Usable.RESPONSE,
)
def errors_grammar(exchange: Exchange) -> Iterator[Outcome]:
    """A grammar that cannot be read is refused.

    A text that keeps to no grammar is parsed as if it did.
    """
    yield from must_refuse(exchange, "the grammar cannot be read")


@check(
    "tgi.errors.status",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{SERVER}, POST /generate: 400 and 422",
    remedy="Answer 422 (or 400) to a request that fails validation.",
    each=probes.REFUSED,
    on=Usable.RESPONSE,
)
def errors_status(exchange: Exchange) -> Iterator[Outcome]:
    """A request that fails validation gets 400 or 422.

    Clients make their exception of it; others mean a wrong key, a missing model or a limit.
    """
    status = exchange.status or 0
    if not 400 <= status < 500:
        yield NotApplicable("it was not refused; other checks tell of it")
    elif status not in (400, 422):
        yield Finding("HTTP 422", f"HTTP {status}: {show(exchange.reply.body)}", at="status")


@check(
    "tgi.errors.shape",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{ERRORS}; official Python inference client, errors of text_generation",
    remedy='Shape errors as {"error": "...", "error_type": "validation"}.',
    each=probes.REFUSED,
    on=Usable.COMPLETE,
)
def errors_shape(exchange: Exchange) -> Iterator[Outcome]:
    """An error has a sentence under error and its class under error_type.

    Official clients choose their exception by the class, and fall back to a bare HTTP error without it.
    """
    if not 400 <= (exchange.status or 0) < 500 or not isinstance(exchange.json, dict):
        yield NotApplicable("there is no error to read; other checks tell of it")
        return
    found = problem("tgi/error.json", exchange.answer)
    if found:
        yield Finding(found.expected, found.got, at=found.pointer)


@check(
    "tgi.errors.route",
    level=Level.MAY,
    lenses=[Lens.SPEC],
    source="RFC 9110, section 15.5.5",
    remedy="Answer 404 to a route that does not exist.",
    each=probes.unknown_route,
    on=Usable.RESPONSE,
)
def errors_route(exchange: Exchange) -> Iterator[Outcome]:
    """A route that does not exist is refused with 404 or 405.

    An answer there makes a misspelt address look right.
    """
    if exchange.status not in (404, 405) and (exchange.status or 0) < 500:
        yield Finding("HTTP 404", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "tgi.errors.key",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=f"{SERVER}, security of /generate",
    remedy="Ask for a key before anything else, and answer 401 without one.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def errors_key(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A prompt without a key gets 401.

    Whatever is generated without a key is charged to nobody.
    """
    if not facts.authenticated:
        yield NotApplicable("the target is used without a key")
    elif exchange.status != 401 and (exchange.status or 0) < 500:
        yield Finding("HTTP 401", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")
