"""Checks of texts from the text-generation server: shape, details, limits, grammars and streams."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import fsum, inf
from statistics import median
from typing import Any

from roadworthy.conformance import strict_json
from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Chunk, Exchange, Malformed, as_object, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.measure import NS
from roadworthy.conformance.probes import tgi as probes
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.reading.refusal import must_accept
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, is_number, show
from roadworthy.http.message import FailureKind
from roadworthy.schemas import problem

GENERATE = "text-generation server, POST /generate"
STREAM = "text-generation server, POST /generate_stream"
ROOT = "official Python inference client, text_generation"
GUIDE = "registration guide, Automatic validation"
REASONS = ("length", "eos_token", "stop_sequence")
REFUSALS = (400, 404, 405, 415, 422, 501)
BOTH = (Lens.HUB, Lens.SPEC)
SPECIALS = 2
"""Tokens that a model may add to a prompt of its own accord."""
LEAST_SAMPLES = 2
TIMEOUTS = (FailureKind.IDLE_TIMEOUT, FailureKind.TOTAL_TIMEOUT)


# What an answer holds


def parameters(exchange: Exchange) -> dict[str, Any]:
    """The parameters that were sent."""
    return as_object(as_object(exchange.sent).get("parameters"))


def inputs(exchange: Exchange) -> str:
    """The prompt that was sent."""
    found = as_object(exchange.sent).get("inputs")
    return found if isinstance(found, str) else ""


def details(exchange: Exchange) -> dict[str, Any]:
    """The details of an unstreamed text, or an empty object."""
    return as_object(exchange.answer.get("details"))


def tokens(holder: dict[str, Any]) -> list[dict[str, Any]]:
    """The tokens in some details that are objects."""
    return objects(holder.get("tokens"))


def generated(holder: dict[str, Any]) -> str | None:
    """The generated text of an answer or an event, where it is a text."""
    text = holder.get("generated_text")
    return text if isinstance(text, str) else None


def optional(exchange: Exchange, what: str) -> str | None:
    """The reason why an answer to something optional says nothing, or None for an answer of success."""
    status = exchange.status or 0
    if status in REFUSALS:
        return f"{what}: refused with HTTP {status}"
    if status >= 300:
        return f"{what}: HTTP {status}; other checks tell of it"
    return None


def events(exchange: Exchange) -> list[Chunk]:
    """The events of a stream, without an end marker."""
    return list(exchange.stream.chunks)


def _lost(exchange: Exchange) -> bool:
    """Whether some event of a stream holds no token, so that reading it loses part of the text."""
    return any(chunk.tells_error or not isinstance(chunk.object.get("token"), dict) for chunk in events(exchange))


UNREADABLE = NotApplicable("an event holds no token; see tgi.stream.events")


def _joined(parts: Sequence[dict[str, Any]]) -> str:
    """The texts of the tokens that belong to the text."""
    texts = (part.get("text") for part in parts if part.get("special") is not True)
    return "".join(text for text in texts if isinstance(text, str))


def _same(one: str, other: str) -> bool:
    """Whether two texts agree: blanks at the ends, and a character that was cut in the middle, are no difference."""
    return one.strip(" \n\ufffd") == other.strip(" \n\ufffd")


def _after_stop(text: str) -> tuple[str, str] | None:
    """The first stop sequence in a text and what follows it, or None where there is none."""
    found = [(text.index(stop), stop) for stop in probes.STOPS if stop in text]
    if not found:
        return None
    place, stop = min(found)
    return stop, text[place + len(stop) :]


# Every text


@check(
    "tgi.answered",
    level=Level.MUST,
    lenses=BOTH,
    source=GENERATE,
    remedy="Answer 200 to a prompt with the documented parameters; the exchange holds what was sent.",
    each=[p for p in probes.PLAIN if p is not probes.parameters],
    on=Usable.RESPONSE,
)
def answered(exchange: Exchange) -> Iterator[Outcome]:
    """A prompt with ordinary parameters is answered.

    The hub sends such requests before it lists a model, and again every six hours.
    """
    yield from must_accept(exchange)


@check(
    "tgi.parameters",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, parameters",
    remedy="Accept every documented parameter, and null for one that the caller leaves open.",
    each=probes.parameters,
    on=Usable.RESPONSE,
)
def accepts_parameters(exchange: Exchange) -> Iterator[Outcome]:
    """Every documented parameter is accepted, and null stands for its default.

    Official clients fill them from the arguments of their method, those that were not given with null.
    """
    yield from must_accept(exchange)


@check(
    "tgi.json",
    level=Level.MUST,
    lenses=BOTH,
    source="JavaScript inference client, request: JSON is read only under application/json",
    remedy="Answer with one JSON object, and the header `Content-Type: application/json`.",
    each=probes.TEXTS,
    on=Usable.SUCCESS,
)
def is_json(exchange: Exchange) -> Iterator[Finding]:
    """An unstreamed text comes as one JSON object, labelled so.

    Clients read the text out of it; the JavaScript one hands on bytes where the label is another.
    """
    if not isinstance(exchange.json, dict):
        yield Finding("one JSON object", show(exchange.reply.body), at="body")
    elif exchange.media_type != "application/json":
        yield Finding("application/json", exchange.media_type or "none", at="header Content-Type")


@check(
    "tgi.shape",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, 200",
    remedy='Answer {"generated_text": "..."}, with `details` as an object or not at all.',
    each=probes.TEXTS,
    on=Usable.JSON,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """An answer has a text under generated_text.

    It is the field that every client returns; the JavaScript one throws where it is missing.
    """
    found = problem("tgi/generate_response.json", exchange.answer)
    if found:
        yield Finding(found.expected, found.got, at=found.pointer or "body")


@check(
    "tgi.full_text",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, return_full_text",
    remedy="Put the prompt before the text where return_full_text is true, and only there.",
    joint=[probes.parameters, probes.cut],
    on=Usable.JSON,
)
def full_text(with_prompt: Exchange, without: Exchange) -> Iterator[Finding]:
    """The text begins with the prompt where return_full_text is true, and only there.

    Callers cut the prompt off, or put it before the text, by its length.
    """
    text = generated(with_prompt.answer)
    if text is not None and not text.startswith(inputs(with_prompt)):
        yield Finding(
            f"a text that begins with {show(inputs(with_prompt))}",
            show(text),
            at="/generated_text",
            exchange_id=with_prompt.id,
        )
    text = generated(without.answer)
    if text is not None and text.startswith(inputs(without)):
        yield Finding("the text without the prompt", show(text), at="/generated_text", exchange_id=without.id)


# Details


@check(
    "tgi.details.present",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, details",
    remedy="Add the object `details` to the answer where the parameter details is true.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def details_present(exchange: Exchange) -> Iterator[Finding]:
    """Details that were asked for are there.

    Clients that ask for them read the reason of the end and the tokens without looking whether they came.
    """
    if exchange.answer.get("details") is None:
        yield Finding("an object", "none", at="/details")


@check(
    "tgi.details.shape",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, details",
    remedy="Compare `details` with schemas/tgi/details.json, field by field.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def details_shape(exchange: Exchange) -> Iterator[Outcome]:
    """Details hold the reason of the end, the number of tokens, and the tokens.

    Typed clients fill their classes from them.
    """
    if not isinstance(exchange.answer.get("details"), dict):
        yield NotApplicable("there are no details; see tgi.details.present")
        return
    found = problem("tgi/details.json", details(exchange))
    if found:
        yield Finding(found.expected, found.got, at=f"/details{found.pointer}")


@check(
    "tgi.details.finish_reason",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, finish_reason",
    remedy="Give one of length, eos_token and stop_sequence.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def finish_reason(exchange: Exchange) -> Iterator[Outcome]:
    """The reason of the end is length, eos_token or stop_sequence.

    Typed clients know these three; on others their callers take a cut text for a whole one.
    """
    reason = details(exchange).get("finish_reason")
    if not isinstance(reason, str):
        yield NotApplicable("there is no reason; see tgi.details.shape")
    elif reason not in REASONS:
        yield Finding(f"one of {', '.join(REASONS)}", show(reason), at="/details/finish_reason")


@check(
    "tgi.details.count",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, generated_tokens",
    remedy="Count every token that was generated, the end token included, and list them all.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def count(exchange: Exchange) -> Iterator[Outcome]:
    """The number of generated tokens is that of the tokens that are listed.

    Callers are charged by it.
    """
    told, listed = details(exchange).get("generated_tokens"), details(exchange).get("tokens")
    if not is_integer(told) or not isinstance(listed, list):
        yield NotApplicable("there is no number or no list; see tgi.details.shape")
    elif told != len(listed):
        yield Finding(f"{len(listed)}, as many as tokens", show(told), at="/details/generated_tokens")


@check(
    "tgi.tokens.shape",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, tokens",
    remedy="Give each token an id, its text, its logprob and whether it is special.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def tokens_shape(exchange: Exchange) -> Iterator[Finding]:
    """Each token has its number, its text, its probability and whether it is special.

    Typed clients fill their classes from them, and callers leave special tokens out.
    """
    listed = details(exchange).get("tokens")
    for place, token in enumerate(listed if isinstance(listed, list) else ()):
        found = problem("tgi/token.json", token)
        if found:
            yield Finding(found.expected, found.got, at=f"/details/tokens/{place}{found.pointer}")
            return


@check(
    "tgi.tokens.logprob",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{GENERATE}, tokens, logprob",
    remedy="Give the natural logarithm of the probability, which is never above zero.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def logprob(exchange: Exchange) -> Iterator[Finding]:
    """The logarithm of a token's probability is not above zero.

    Whoever ranks texts by it takes a probability or a cost for a logarithm otherwise.
    """
    for place, token in enumerate(tokens(details(exchange))):
        value = token.get("logprob")
        if is_number(value) and value > 1e-6:
            yield Finding("at most 0", show(value), at=f"/details/tokens/{place}/logprob")
            return


@check(
    "tgi.tokens.joined",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, tokens and generated_text",
    remedy="Decode tokens with their neighbours, so that blanks and split characters come out as in the whole text.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def tokens_joined(exchange: Exchange) -> Iterator[Outcome]:
    """The tokens that are not special, joined, are the generated text.

    Callers that show or cut a text token by token would show another one.
    """
    text = generated(exchange.answer)
    if text is None or not isinstance(details(exchange).get("tokens"), list):
        yield NotApplicable("there is no text or no list of tokens; see tgi.shape and tgi.details.shape")
        return
    if parameters(exchange).get("return_full_text") is True:
        text = text.removeprefix(inputs(exchange))
    joined = _joined(tokens(details(exchange)))
    if not _same(joined, text):
        yield Finding(f"the text: {show(text)}", show(joined), at="/details/tokens")


@check(
    "tgi.prefill.shape",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{GENERATE}, decoder_input_details",
    remedy="List the prompt's tokens with id, text and logprob; null for the first one's.",
    each=[probes.cut, probes.truncated],
    on=Usable.JSON,
)
def prefill_shape(exchange: Exchange) -> Iterator[Outcome]:
    """Each token of the prompt has its number, its text and its probability, if they are given.

    Whoever measures how likely a given text is reads them.
    """
    listed = details(exchange).get("prefill")
    if not listed or not isinstance(listed, list):
        yield NotApplicable("the server does not tell the prompt's tokens")
        return
    for place, token in enumerate(listed):
        found = problem("tgi/prefill_token.json", token)
        if found:
            yield Finding(found.expected, found.got, at=f"/details/prefill/{place}{found.pointer}")
            return


@check(
    "tgi.prefill.count",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{GENERATE}, decoder_input_details and x-prompt-tokens",
    remedy="List every token of the prompt, and count the same ones.",
    each=[probes.cut, probes.truncated],
    on=Usable.JSON,
)
def prefill_count(exchange: Exchange) -> Iterator[Outcome]:
    """There are as many tokens of the prompt as the header tells.

    The header is what callers are charged by, and the list is how they can see why.
    """
    listed, told = details(exchange).get("prefill"), _counted(exchange, "x-prompt-tokens")
    if not listed or not isinstance(listed, list) or told is None:
        yield NotApplicable("the server does not tell the prompt's tokens, or not their number")
    elif len(listed) != told:
        yield Finding(f"{told}, as x-prompt-tokens says", str(len(listed)), at="/details/prefill")


def _counted(exchange: Exchange, name: str) -> int | None:
    """The number in a header, where it is one."""
    value = (exchange.reply.header(name) or "").strip()
    return int(value) if re.fullmatch(r"[0-9]{1,12}", value) else None


# Limits


@check(
    "tgi.length.limit",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, max_new_tokens",
    remedy="Stop after max_new_tokens, the end token counted.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def length_limit(exchange: Exchange) -> Iterator[Finding]:
    """No more tokens are generated than max_new_tokens allows.

    It is how callers bound what they pay.
    """
    limit, listed = parameters(exchange).get("max_new_tokens"), tokens(details(exchange))
    if is_integer(limit) and len(listed) > limit:
        yield Finding(f"at most {limit} tokens", str(len(listed)), at="/details/tokens")


@check(
    "tgi.length.reason",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, finish_reason",
    remedy="Say length where max_new_tokens ended the text, and only there.",
    each=probes.DETAILED,
    on=Usable.JSON,
)
def length_reason(exchange: Exchange) -> Iterator[Outcome]:
    """The reason of the end is length where the limit cut the text, and only there.

    Callers go on with a text that was cut, and take any other for whole.
    """
    reason, listed = details(exchange).get("finish_reason"), tokens(details(exchange))
    limit = parameters(exchange).get("max_new_tokens")
    if not listed or not is_integer(limit):
        yield NotApplicable("there are no tokens to look at")
    elif reason == "length" and len(listed) < limit:
        got = f"length after {len(listed)} of {limit} tokens"
        yield Finding("another reason than length", got, at="/details/finish_reason")
    elif reason == "eos_token" and len(listed) >= limit and _is_word(listed[-1]):
        got = f"eos_token after {limit} tokens, the last of which is {show(listed[-1].get('text'))}"
        yield Finding("length", got, at="/details/finish_reason")


def _is_word(token: dict[str, Any]) -> bool:
    """Whether a token is an ordinary piece of text, and so cannot have ended it."""
    text = token.get("text")
    return token.get("special") is False and isinstance(text, str) and re.fullmatch(r"\s*\w+,?", text) is not None


@check(
    "tgi.stop.obeyed",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, stop",
    remedy="End the text at the first stop sequence; whether it is part of the text is the server's choice.",
    each=probes.stop,
    on=Usable.JSON,
)
def stop_obeyed(exchange: Exchange) -> Iterator[Finding]:
    """Nothing more is generated after a stop sequence.

    Callers set one where the model would go on with the user's next turn.
    """
    found = _after_stop(generated(exchange.answer) or "")
    if found and re.search(r"\w", found[1]):
        yield Finding(f"nothing after {found[0]!r}", show(found[1]), at="/generated_text")


@check(
    "tgi.stop.reason",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, finish_reason",
    remedy="Say stop_sequence where a stop sequence ended the text.",
    each=probes.stop,
    on=Usable.JSON,
)
def stop_reason(exchange: Exchange) -> Iterator[Outcome]:
    """The reason of the end is stop_sequence where one ended the text.

    Callers cut it off the text by that.
    """
    found = _after_stop(generated(exchange.answer) or "")
    reason = details(exchange).get("finish_reason")
    if found is None or re.search(r"\w", found[1]) or reason not in REASONS:
        yield NotApplicable("no stop sequence ended the text, or the reason is none of the three")
    elif reason != "stop_sequence":
        yield Finding("stop_sequence", show(reason), at="/details/finish_reason")


@check(
    "tgi.truncate",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GENERATE}, truncate",
    remedy="Read only the last `truncate` tokens of the prompt.",
    each=probes.truncated,
    on=Usable.JSON,
)
def truncate(exchange: Exchange) -> Iterator[Outcome]:
    """Of a long prompt only as many tokens are read as truncate says.

    Callers bound by it what they pay for the prompt.
    """
    listed = details(exchange).get("prefill")
    read = _counted(exchange, "x-prompt-tokens")
    if read is None and listed and isinstance(listed, list):
        read = len(listed)
    if read is None:
        yield NotApplicable("the server tells neither the prompt's tokens nor their number")
    elif read > probes.KEPT_TOKENS + SPECIALS:
        yield Finding(f"at most {probes.KEPT_TOKENS}, special ones apart", str(read), at="header x-prompt-tokens")


# Sampling


@check(
    "tgi.seed.told",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{GENERATE}, seed",
    remedy="Return the seed that the sampler used: the caller's, where there is one.",
    each=probes.seeded,
    on=Usable.JSON,
)
def seed_told(exchange: Exchange) -> Iterator[Outcome]:
    """The seed in the details is the one that was sent.

    Whoever wants the same text again sends what stands there.
    """
    if not details(exchange):
        yield NotApplicable("there are no details; see tgi.details.present")
    elif details(exchange).get("seed") != probes.SEED:
        yield Finding(str(probes.SEED), show(details(exchange).get("seed")), at="/details/seed")


@check(
    "tgi.seed.repeats",
    level=Level.MAY,
    lenses=[Lens.SPEC],
    source=f"{GENERATE}, seed",
    remedy="Seed the sampler of each request with the seed that was sent.",
    across=[probes.seeded],
    on=Usable.JSON,
)
def seed_repeats(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """The same seed gives the same text.

    Tests of applications rely on it; batching can break it, which is why it is only good manners.
    """
    texts = [generated(exchange.answer) for exchange in exchanges]
    if len(texts) < 2:
        yield NotApplicable("there are no two answers to compare")
    elif texts[0] != texts[1]:
        yield Finding(show(texts[0]), show(texts[1]), at="/generated_text", exchange_id=exchanges[1].id)


BEST_OF = f"{GENERATE}, best_of"
NO_BEST_OF = "choosing the best of several texts is not offered"


@check(
    "tgi.best_of.count",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=BEST_OF,
    remedy="List the texts that were not chosen under details.best_of_sequences, or refuse best_of.",
    each=probes.best_of,
    on=Usable.COMPLETE,
)
def best_of_count(exchange: Exchange) -> Iterator[Outcome]:
    """With best_of, the details list the texts that were not chosen.

    They were generated and are charged; without them best_of was ignored, or hides what it cost.
    """
    reason = optional(exchange, NO_BEST_OF)
    if reason or not details(exchange):
        yield NotApplicable(reason or "there are no details; see tgi.details.present")
        return
    listed = details(exchange).get("best_of_sequences")
    others = len(listed) if isinstance(listed, list) else 0
    if others != probes.BEST_OF - 1:
        yield Finding(f"{probes.BEST_OF - 1} others", str(others), at="/details/best_of_sequences")


@check(
    "tgi.best_of.shape",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=BEST_OF,
    remedy="Compare each sequence with schemas/tgi/sequence.json, field by field.",
    each=probes.best_of,
    on=Usable.COMPLETE,
)
def best_of_shape(exchange: Exchange) -> Iterator[Outcome]:
    """A text that was not chosen has the details that the chosen one has.

    Typed clients fill their classes from them.
    """
    listed = details(exchange).get("best_of_sequences")
    reason = optional(exchange, NO_BEST_OF)
    if reason or not isinstance(listed, list):
        yield NotApplicable(reason or "no texts are listed; see tgi.best_of.count")
        return
    for place, sequence in enumerate(listed):
        found = problem("tgi/sequence.json", sequence)
        if found:
            yield Finding(found.expected, found.got, at=f"/details/best_of_sequences/{place}{found.pointer}")
            return


@check(
    "tgi.best_of.best",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=BEST_OF,
    remedy="Choose the text whose tokens have the highest mean logprob.",
    each=probes.best_of,
    on=Usable.COMPLETE,
)
def best_of_best(exchange: Exchange) -> Iterator[Outcome]:
    """The chosen text is the likeliest.

    That is what best_of pays for.
    """
    reason = optional(exchange, NO_BEST_OF)
    chosen = _mean_logprob(details(exchange))
    others = [_mean_logprob(sequence) for sequence in objects(details(exchange).get("best_of_sequences"))]
    known = [mean for mean in others if mean is not None]
    if reason or chosen is None or not known:
        yield NotApplicable(reason or "there are no probabilities to compare")
    elif max(known) > chosen + 1e-3:
        yield Finding(f"at least {max(known):.4f}, as another text has", f"{chosen:.4f}", at="/details/tokens")


def _mean_logprob(holder: dict[str, Any]) -> float | None:
    values = [token.get("logprob") for token in tokens(holder)]
    numbers = [float(value) for value in values if is_number(value) and abs(value) < 1e6]
    return fsum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None


# Grammars

GRAMMAR = f"{GENERATE}, grammar"
GRAMMAR_REMEDY = "Constrain generation by the grammar, or refuse it with 422; do not ignore it."


def _finished(exchange: Exchange) -> str | None:
    """The reason why a text under a grammar cannot be judged, or None."""
    reason = optional(exchange, "this form of grammar is not offered")
    if reason:
        return reason
    if generated(exchange.answer) is None:
        return "there is no text; see tgi.shape"
    return "the limit cut the text" if details(exchange).get("finish_reason") == "length" else None


def _meets_schema(exchange: Exchange) -> Iterator[Outcome]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    reason = _finished(exchange)
    if reason:
        yield NotApplicable(reason)
        return
    text = generated(exchange.answer) or ""
    made = strict_json.loads(text.strip())
    if isinstance(made, Malformed):
        yield Finding("JSON that meets the grammar", show(text), at="/generated_text")
        return
    fault = best_match(Draft202012Validator(probes.PERSON).iter_errors(made))
    if fault is not None:
        place = "".join(f"/{part}" for part in fault.absolute_path)
        yield Finding(f"{fault.validator} {show(fault.validator_value)}", show(fault.instance), at=f"the JSON {place}")


@check(
    "tgi.grammar.object",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GRAMMAR}, type json",
    remedy=GRAMMAR_REMEDY,
    each=probes.grammar_object,
    on=Usable.COMPLETE,
)
def grammar_object(exchange: Exchange) -> Iterator[Outcome]:
    """With a JSON Schema as grammar, the text is JSON that meets it.

    Callers parse it without looking; it is what they asked for.
    """
    yield from _meets_schema(exchange)


@check(
    "tgi.grammar.text",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GRAMMAR}, type json, value as text",
    remedy=GRAMMAR_REMEDY,
    each=probes.grammar_text,
    on=Usable.COMPLETE,
)
def grammar_text(exchange: Exchange) -> Iterator[Outcome]:
    """With a JSON Schema written as text as grammar, the text is JSON that meets it.

    The published description of the server gives the value this type.
    """
    yield from _meets_schema(exchange)


@check(
    "tgi.grammar.named",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{GRAMMAR}, type json_schema",
    remedy=GRAMMAR_REMEDY,
    each=probes.grammar_named,
    on=Usable.COMPLETE,
)
def grammar_named(exchange: Exchange) -> Iterator[Outcome]:
    """With a named JSON Schema as grammar, the text is JSON that meets it.

    Newer clients send the form that chat completions use.
    """
    yield from _meets_schema(exchange)


@check(
    "tgi.grammar.regex",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GRAMMAR}, type regex",
    remedy=GRAMMAR_REMEDY,
    each=probes.grammar_regex,
    on=Usable.COMPLETE,
)
def grammar_regex(exchange: Exchange) -> Iterator[Outcome]:
    """With a regular expression as grammar, the whole text matches it.

    Callers take the text as the address, number or date that they asked for.
    """
    reason = _finished(exchange)
    text = (generated(exchange.answer) or "").strip()
    if reason:
        yield NotApplicable(reason)
    elif not re.fullmatch(probes.ADDRESS, text):
        yield Finding(f"a match of {probes.ADDRESS}", show(text), at="/generated_text")


# Streams


@check(
    "tgi.stream.answered",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, 200",
    remedy="Answer with `Content-Type: text/event-stream`, one event a token, and end the response after the last.",
    each=probes.STREAMS,
    on=Usable.RESPONSE,
)
def stream_answered(exchange: Exchange) -> Iterator[Outcome]:
    """A stream is answered with server-sent events, to its end.

    Clients read events only, and raise when the connection breaks off.
    """
    if exchange.status != 200:
        yield from must_accept(exchange)
    elif exchange.media_type != "text/event-stream":
        yield Finding("text/event-stream", exchange.media_type or "none", at="header Content-Type")
    elif not events(exchange):
        yield Finding("one event a token", show(exchange.reply.body) or "an empty body", at="body")
    elif not exchange.complete or exchange.stream.unfinished:
        yield Finding("a whole stream", f"it broke off after {len(events(exchange))} events", at="body")


@check(
    "tgi.stream.events",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, 200",
    remedy="Compare each event with schemas/tgi/stream_response.json, field by field.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def stream_events(exchange: Exchange) -> Iterator[Finding]:
    """Each event is a JSON object with one token.

    Clients parse each event by itself, and raise at the first that is none.
    """
    for chunk in events(exchange):
        found = problem("tgi/stream_response.json", None if isinstance(chunk.value, Malformed) else chunk.value)
        if found:
            got = show(chunk.event.data) if isinstance(chunk.value, Malformed) or chunk.tells_error else found.got
            yield Finding(found.expected, got, at=f"event {chunk.event.index} {found.pointer}")
            return


@check(
    "tgi.stream.index",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source="official Python inference client, text_generation: index of a streamed token",
    remedy="Number the events one after the other.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def stream_index(exchange: Exchange) -> Iterator[Outcome]:
    """The events are numbered without a gap.

    Clients hand the number on, and whoever joins the tokens notices lost ones by it.
    """
    if _lost(exchange):
        yield UNREADABLE
        return
    numbers = [chunk.object.get("index") for chunk in events(exchange)]
    told = [number for number in numbers if is_integer(number)]
    if not told:
        yield NotApplicable("the events are not numbered")
        return
    wrong = next((later for earlier, later in pairwise(told) if later != earlier + 1), None)
    if wrong is not None or len(told) != len(numbers):
        yield Finding("1, 2, 3, ...", show(numbers[:20]), at="/index of the events")


@check(
    "tgi.stream.last_only",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, generated_text and details",
    remedy="Leave generated_text and details null until the last event.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def stream_last_only(exchange: Exchange) -> Iterator[Outcome]:
    """The whole text and the details come in the last event only.

    Clients take the event that has them for the end, and stop reading or show the text twice.
    """
    if _lost(exchange):
        yield UNREADABLE
        return
    for chunk in events(exchange)[:-1]:
        for key in ("generated_text", "details"):
            if chunk.object.get(key) is not None:
                got = show(chunk.object[key])
                yield Finding("null before the last event", got, at=f"event {chunk.event.index} /{key}")
                return


@check(
    "tgi.stream.whole",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, generated_text",
    remedy="Put the whole text into generated_text of the last event.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def stream_whole(exchange: Exchange) -> Iterator[Outcome]:
    """The last event has the whole text.

    It is how clients know the end, for there is no other mark.
    """
    if _lost(exchange):
        yield UNREADABLE
        return
    last = events(exchange)[-1:]
    if last and generated(last[0].object) is None:
        got = show(last[0].object.get("generated_text"))
        yield Finding("the text", got, at=f"event {last[0].event.index} /generated_text")


def _end(exchange: Exchange) -> dict[str, Any]:
    """The last event of a stream as an object."""
    found = events(exchange)
    return found[-1].object if found else {}


def _streamed(exchange: Exchange) -> list[dict[str, Any]]:
    """The tokens of a stream."""
    return [as_object(chunk.object.get("token")) for chunk in events(exchange) if "token" in chunk.object]


@check(
    "tgi.stream.details",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, details",
    remedy="Put details with finish_reason and generated_tokens into the last event where they were asked for.",
    each=[probes.stream, probes.stream_stop],
    on=Usable.EVENTS,
)
def stream_details(exchange: Exchange) -> Iterator[Outcome]:
    """The last event has the details that were asked for, with one of the three reasons.

    Without them nobody knows whether the text was cut, nor what it cost.
    """
    if _lost(exchange):
        yield UNREADABLE
        return
    found = problem("tgi/stream_details.json", _end(exchange).get("details"))
    if found:
        yield Finding(found.expected, found.got, at=f"last event /details{found.pointer}")
        return
    reason = as_object(_end(exchange)["details"]).get("finish_reason")
    if reason not in REASONS:
        yield Finding(f"one of {', '.join(REASONS)}", show(reason), at="last event /details/finish_reason")


@check(
    "tgi.stream.joined",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, token and generated_text",
    remedy="Send each token's text once, as it stands in the whole text, and mark special tokens.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def stream_joined(exchange: Exchange) -> Iterator[Outcome]:
    """The tokens that are not special, joined, are the whole text of the last event.

    Users see the joined tokens, and programs keep the text: both must have read the same.
    """
    if _lost(exchange):
        yield UNREADABLE
        return
    text = generated(_end(exchange))
    if text is None:
        yield NotApplicable("there is no whole text; see tgi.stream.whole")
        return
    joined = _joined(_streamed(exchange))
    if not _same(joined, text):
        yield Finding(f"the text: {show(text)}", show(joined), at="/token/text of the events")


@check(
    "tgi.stream.count",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, generated_tokens",
    remedy="Send one event for each generated token, the end token included, and count them all.",
    each=[probes.stream, probes.stream_stop],
    on=Usable.EVENTS,
)
def stream_count(exchange: Exchange) -> Iterator[Outcome]:
    """The number of generated tokens is that of the events.

    Callers are charged by it.
    """
    if _lost(exchange):
        yield UNREADABLE
        return
    told = as_object(_end(exchange).get("details")).get("generated_tokens")
    sent = len(_streamed(exchange))
    if not is_integer(told):
        yield NotApplicable("there is no number; see tgi.stream.details")
    elif told != sent:
        yield Finding(f"{sent}, as many as tokens", str(told), at="last event /details/generated_tokens")


@check(
    "tgi.stream.limit",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, max_new_tokens",
    remedy="Stop after max_new_tokens, the end token counted, when streaming too.",
    each=probes.STREAMS,
    on=Usable.EVENTS,
)
def stream_limit(exchange: Exchange) -> Iterator[Outcome]:
    """No more tokens are streamed than max_new_tokens allows.

    It is how callers bound what they pay.
    """
    if _lost(exchange):
        yield UNREADABLE
        return
    limit, sent = parameters(exchange).get("max_new_tokens"), len(_streamed(exchange))
    if is_integer(limit) and sent > limit:
        yield Finding(f"at most {limit} tokens", str(sent), at="body")


@check(
    "tgi.stream.stop",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, stop",
    remedy="End the stream at the first stop sequence, and say stop_sequence.",
    each=probes.stream_stop,
    on=Usable.EVENTS,
)
def stream_stop(exchange: Exchange) -> Iterator[Outcome]:
    """Nothing more is streamed after a stop sequence, and the reason of the end says so.

    Callers set one where the model would go on with the user's next turn.
    """
    if _lost(exchange):
        yield UNREADABLE
        return
    found = _after_stop(_joined(_streamed(exchange)))
    reason = as_object(_end(exchange).get("details")).get("finish_reason")
    if found is None:
        yield NotApplicable("the model did not say a stop sequence")
    elif re.search(r"\w", found[1]):
        yield Finding(f"nothing after {found[0]!r}", show(found[1]), at="/token/text of the events")
    elif reason in REASONS and reason != "stop_sequence":
        yield Finding("stop_sequence", show(reason), at="last event /details/finish_reason")


@check(
    "tgi.stream.error",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{STREAM}, 400; official Python inference client, text_generation: error in a stream",
    remedy='Answer 422, or send one event {"error": "...", "error_type": "..."} and nothing else.',
    each=probes.stream_refused,
    on=Usable.COMPLETE,
)
def stream_error(exchange: Exchange) -> Iterator[Outcome]:
    """A stream that cannot be answered is refused by its status, or by an event with error and error_type.

    Clients look for `error` in each event; anything else ends as an empty text without a reason.
    """
    status = exchange.status or 0
    if status >= 500:
        yield NotApplicable("the server failed instead; see errors.no_5xx")
    elif status < 400:
        errors = [chunk for chunk in events(exchange) if chunk.object.get("error") is not None]
        if not errors or _streamed(exchange):
            got = f"HTTP {status}: {show(exchange.reply.body)}"
            yield Finding("a 4xx, or an event that tells the error", got, at="status")
            return
        found = problem("tgi/error.json", errors[0].value)
        if found:
            yield Finding(found.expected, found.got, at=f"event {errors[0].event.index} {found.pointer}")


# /, where clients send that know only an address


@check(
    "tgi.root.answered",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=ROOT,
    remedy='Answer POST / as /generate, with the object alone or in an array: [{"generated_text": "..."}].',
    each=probes.root,
    on=Usable.COMPLETE,
)
def root_answered(exchange: Exchange) -> Iterator[Outcome]:
    """A text from / has generated_text, alone or as the first of an array.

    Official clients send to a server's address as it is, and read either form.
    """
    reason = optional(exchange, "the server answers nothing at /")
    if reason:
        yield NotApplicable(reason)
        return
    value = exchange.json
    first = value[0] if isinstance(value, list) and value else value
    found = problem("tgi/generate_response.json", None if isinstance(first, Malformed) else first)
    if found:
        yield Finding(found.expected, show(exchange.reply.body), at=found.pointer or "body")


@check(
    "tgi.root.streamed",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=ROOT,
    remedy="Answer POST / as /generate_stream where the field stream is true.",
    each=probes.root_stream,
    on=Usable.COMPLETE,
)
def root_streamed(exchange: Exchange) -> Iterator[Outcome]:
    """A stream from / is one of /generate_stream.

    Official clients ask for it by the field stream, and read events only.
    """
    reason = optional(exchange, "the server answers nothing at /")
    if reason:
        yield NotApplicable(reason)
    elif exchange.media_type != "text/event-stream" or not events(exchange):
        got = f"{exchange.media_type or 'no content type'}: {show(exchange.reply.body)}"
        yield Finding("server-sent events", got, at="header Content-Type")
    elif generated(_end(exchange)) is None:
        yield Finding("the text", show(_end(exchange)), at="last event /generated_text")


# Time


@check(
    "tgi.time.first_token",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=f"{GUIDE}: latency requirements",
    remedy="Keep the model warm, shorten the queue before it, and flush the first token as soon as it exists.",
    across=[probes.first_token],
    on=Usable.ANYTHING,
)
def first_token(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """The first token of a stream comes within 5 seconds (the median of several samples).

    The hub measures this every six hours, and takes a mapping that misses it off the active list.
    """
    samples = [sample for exchange in exchanges if (sample := _first_token_s(exchange)) is not None]
    limit_s = facts.limits.time_to_first_token_s
    if len(samples) < LEAST_SAMPLES:
        yield Undecided(f"{len(samples)} of {len(exchanges)} streams gave a reading; {LEAST_SAMPLES} are needed")
        return
    shown = ", ".join(f"{most:.3f}" if most < inf else f"over {least:.1f}" for least, most in samples)
    if median(least for least, _ in samples) > limit_s:
        yield Finding(f"a median of at most {limit_s:g} s", f"samples in s: {shown}", at="first token")
    elif median(most for _, most in samples) > limit_s:
        yield Undecided(f"the median is closer to {limit_s:g} s than our own uncertainty (samples in s: {shown})")


def _first_token_s(exchange: Exchange) -> tuple[float, float] | None:
    """When the first token came at the earliest and at the latest, in seconds; None where nothing can be said."""
    timings, failure = exchange.reply.timings, exchange.reply.failure
    if exchange.status == 200 and exchange.media_type == "text/event-stream":
        for chunk in events(exchange):
            text = as_object(chunk.object.get("token")).get("text")
            if isinstance(text, str) and text:
                at_ns = chunk.event.at_ns
                return max(0.0, (at_ns - timings.uncertainty_ns) / NS), at_ns / NS
    if failure is None or timings.ended_ns is None or failure.kind not in TIMEOUTS:
        return None
    return timings.ended_ns / NS, inf


@check(
    "tgi.time.total",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=f"{GUIDE}: 30 seconds for whole answers",
    remedy="Raise the tokens per second of this model, or give it less to share its machine with.",
    each=[probes.cut, probes.stop],
    on=Usable.SUCCESS,
)
def total_time(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A short text that is not streamed is whole within 30 seconds.

    It is what the hub allows a request that does not stream.
    """
    yield from whole_in_time(exchange, facts)
