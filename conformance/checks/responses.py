"""Checks of whole answers of the Responses API: shape, figures, what the model made of the request, refusals."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import responses as probes
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.reading.refusal import must_accept, must_refuse
from roadworthy.conformance.reading.responses import (
    COUNTS,
    counts,
    has_word,
    items,
    readable,
    response,
    steps,
    tells_error,
    text,
    whole,
)
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, is_number, show
from roadworthy.schemas import problem

API = "OpenAI API reference, responses"
GUIDE = "hub's guide to the Responses API"
SDK = "OpenAI SDK, responses"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.OPENAI, Lens.SPEC)
DAY_S = 86_400
STATUSES = ("completed", "incomplete")
REQUIRED = (
    "error",
    "incomplete_details",
    "instructions",
    "metadata",
    "parallel_tool_calls",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
)
"""Fields that the reference requires beyond those that clients cannot do without; several may be null."""
LEAK = re.compile(r"</?think(?:ing)?>|<\|[a-z_]+\|>|\[/?INST\]|<end_of_turn>")


# Reachable


@check(
    "responses.accepted",
    level=Level.MUST,
    lenses=ALL,
    source=f"{GUIDE}; {API}, create",
    remedy="Serve POST /v1/responses, and take strings, arrays of messages and all four roles.",
    each=[*probes.FORMS, probes.cut, probes.stream, probes.stream_cut],
    on=Usable.RESPONSE,
)
def accepted(exchange: Exchange) -> Iterator[Outcome]:
    """The plain forms of a request are answered: strings, arrays of messages, every role, streamed or not.

    They are what the hub's guide shows, so what its users send on the first day.
    """
    yield from must_accept(exchange)


@check(
    "responses.json",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{SDK}; RFC 8259",
    remedy="Answer with one JSON object, and the header `Content-Type: application/json`.",
    each=probes.BODIES,
    on=Usable.SUCCESS,
)
def is_json(exchange: Exchange) -> Iterator[Finding]:
    """An unstreamed answer is one strict JSON object, and labelled so.

    Gateways and typed clients read JSON under this label alone, and parsers raise for anything beside the object.
    """
    if exchange.media_type != "application/json":
        yield Finding("application/json", exchange.media_type or "none", at="header Content-Type")
    elif isinstance(exchange.json, Malformed):
        yield Finding("one JSON object", f"{exchange.json.reason}: {show(exchange.reply.body)}", at="body")
    elif not isinstance(exchange.json, dict):
        yield Finding("a JSON object", show(exchange.reply.body), at="body")


@check(
    "responses.listed",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=f"{GUIDE}: which models can be used",
    remedy="List the model in GET /v1/models under the name it is asked by.",
    each=probes.models,
    on=Usable.COMPLETE,
)
def listed(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """The model is in the list of models.

    Users and routers choose from the list; what is not in it is not found.
    """
    if exchange.status != 200:
        yield NotApplicable(f"there is no list: HTTP {exchange.status}")
        return
    names = [entry.get("id") for entry in objects(exchange.answer.get("data"))]
    if facts.model not in names:
        yield Finding(facts.model, show(names), at="/data")


# The shape


@check(
    "responses.shape",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, the response object",
    remedy="Compare the body with schemas/responses/response.json, field by field.",
    each=probes.BODIES,
    on=Usable.JSON,
)
def shape(exchange: Exchange) -> Iterator[Outcome]:
    """A response has the fields that clients read, each of its type.

    Typed clients refuse the whole answer where one is missing or of another type.
    """
    if "error" in exchange.answer and "output" not in exchange.answer:
        yield NotApplicable("it is an error; see responses.error_null")
        return
    found = problem("responses/response.json", exchange.json)
    if found is not None:
        yield Finding(found.expected, found.got, at=found.pointer or "body")


@check(
    "responses.required",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, the response object: required fields",
    remedy="Echo the request's settings, with their defaults or null where it named none.",
    each=probes.plain,
    on=Usable.JSON,
)
def required(exchange: Exchange) -> Iterator[Finding]:
    """A response tells all that the reference requires, the settings it was made with among them.

    Clients generated from the reference insist on every required field, if only to find null there.
    """
    missing = [key for key in REQUIRED if key not in exchange.answer]
    if missing:
        yield Finding("present, if only null", "absent", at=f"/{missing[0]}", note=f"missing: {', '.join(missing)}")


@check(
    "responses.object",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, the response object: object",
    remedy='Set `object` to "response".',
    each=probes.BODIES,
    on=Usable.JSON,
)
def object_name(exchange: Exchange) -> Iterator[Outcome]:
    """`object` is "response".

    Gateways that serve several families tell them apart by it.
    """
    if tells_error(exchange):
        yield NotApplicable("it tells an error; see responses.error_null")
    elif exchange.answer.get("object") != "response":
        yield Finding('"response"', show(exchange.answer.get("object")), at="/object")


@check(
    "responses.id",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, the response object: id",
    remedy="Make a new id for each response, of a repeated request too.",
    across=[*probes.BODIES, *probes.STREAMS],
    on=Usable.SUCCESS,
)
def id_unique(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """Every response has an id of its own, also where the same request is sent again.

    Conversations continue from an id: two responses under one id mix up two users' words.
    """
    seen: dict[str, str] = {}
    for exchange in exchanges:
        name = response(exchange).get("id")
        if not isinstance(name, str):
            continue
        if not name:
            yield Finding("an id", "an empty string", at="/id", exchange_id=exchange.id)
            return
        if name in seen:
            yield Finding("a new id", f"{show(name)}, the id of {seen[name]}", at="/id", exchange_id=exchange.id)
            return
        seen[name] = exchange.id


@check(
    "responses.created_at",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, the response object: created_at",
    remedy="Set `created_at` to the time in seconds since 1970 (UTC).",
    each=probes.BODIES,
    on=Usable.JSON,
)
def created_at(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """`created_at` is the present time in unix seconds.

    Callers sort and expire by it; milliseconds lie fifty thousand years ahead.
    """
    value = exchange.answer.get("created_at")
    if is_number(value) and abs(value - facts.judged_at) > DAY_S:
        yield Finding(f"about {facts.judged_at}", show(value), at="/created_at")


@check(
    "responses.model",
    level=Level.SHOULD,
    lenses=[Lens.HUB, Lens.OPENAI],
    source=f"{API}, the response object: model",
    remedy="Name the model as the request did, with a version behind it at most.",
    each=probes.BODIES,
    on=Usable.JSON,
)
def model(exchange: Exchange, facts: Facts) -> Iterator[Finding]:
    """The response names the model that was asked.

    Callers log and bill by this name.
    """
    name = exchange.answer.get("model")
    if isinstance(name, str) and facts.model.rpartition("/")[2].casefold() not in name.casefold():
        yield Finding(facts.model, show(name), at="/model")


@check(
    "responses.status",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, the response object: status",
    remedy='Set `status` to "completed" when the model came to its end.',
    each=probes.TEXTS,
    on=Usable.JSON,
)
def status(exchange: Exchange) -> Iterator[Outcome]:
    """A whole answer has the status "completed".

    Callers wait, poll or retry for as long as the status is another.
    """
    if tells_error(exchange):
        yield NotApplicable("it tells an error; see responses.error_null")
    elif exchange.answer.get("status") not in STATUSES:
        yield Finding("completed", show(exchange.answer.get("status")), at="/status")
    elif exchange.answer["status"] == "incomplete" and not _spent(exchange):
        yield Finding("completed", "incomplete, with tokens to spare", at="/status")


def _spent(exchange: Exchange) -> bool:
    """Whether so many tokens were said as the request allowed (or it is not known)."""
    limit, said = probes.limit_of(exchange.sent), counts(exchange).get("output_tokens")
    return limit is None or said is None or said >= limit


@check(
    "responses.error_null",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, the response object: error, incomplete_details",
    remedy="Answer errors with their HTTP status; keep `error` and `incomplete_details` null in whole answers.",
    each=probes.BODIES,
    on=Usable.JSON,
)
def error_null(exchange: Exchange) -> Iterator[Finding]:
    """An answer of success tells no error, and no reason for being cut where it was not.

    Callers raise as soon as one of the two is there, and SDKs never look for an error below status 400.
    """
    if exchange.answer.get("error"):
        yield Finding("null", show(exchange.answer["error"]), at="/error")
    elif exchange.answer.get("status") == "completed" and exchange.answer.get("incomplete_details"):
        yield Finding("null", show(exchange.answer["incomplete_details"]), at="/incomplete_details")


@check(
    "responses.text",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: output_text; {SDK}",
    remedy="Put the answer into an output item of type message, as content parts of type output_text.",
    each=probes.TEXTS,
    on=Usable.JSON,
)
def has_text(exchange: Exchange) -> Iterator[Outcome]:
    """The output holds a message with the text of the answer, as output_text parts.

    The SDKs join these into `output_text`; from any other place it comes out empty.
    """
    if not whole(exchange):
        yield NotApplicable("the answer is not whole")
    elif not text(exchange.answer).strip():
        yield Finding("a message with output_text", show(exchange.answer.get("output")), at="/output")


@check(
    "responses.role",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, output message: role",
    remedy='Give messages of the output the role "assistant".',
    each=probes.BODIES,
    on=Usable.JSON,
)
def role(exchange: Exchange) -> Iterator[Finding]:
    """Messages of the output have the role "assistant".

    Callers send the output back as part of the next input; under another role the model reads its words as the user's.
    """
    for message in items(exchange.answer, "message"):
        if message.get("role") != "assistant":
            yield Finding('"assistant"', show(message.get("role")), at="/output")
            return


@check(
    "responses.annotations",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, output text: annotations",
    remedy="Give each output_text part `annotations`, an empty array where there are none.",
    each=probes.BODIES,
    on=Usable.JSON,
)
def has_annotations(exchange: Exchange) -> Iterator[Finding]:
    """Each text has an array of annotations, if only an empty one.

    Callers loop over it for sources, without looking whether it is there.
    """
    for message in items(exchange.answer, "message"):
        for part in objects(message.get("content")):
            if part.get("type") == "output_text" and not isinstance(part.get("annotations"), list):
                got = show(part["annotations"]) if "annotations" in part else "absent"
                yield Finding("an array", got, at="/output/*/content/*/annotations")
                return


@check(
    "responses.item_ids",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, output items: id",
    remedy="Give every output item an id of its own.",
    each=probes.BODIES,
    on=Usable.JSON,
)
def item_ids(exchange: Exchange) -> Iterator[Finding]:
    """Every item of the output has an id of its own.

    Interfaces keep their list of items by it, and drop the second of two.
    """
    seen: list[Any] = []
    for item in items(exchange.answer):
        name = item.get("id")
        if not isinstance(name, str) or not name:
            yield Finding("an id", show(name) if "id" in item else "absent", at=f"/output/{len(seen)}/id")
            return
        if name in seen:
            yield Finding("an id of its own", f"{show(name)} twice", at=f"/output/{len(seen)}/id")
            return
        seen.append(name)


@check(
    "responses.item_status",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, output message: status",
    remedy='Set the status of each item that is done to "completed".',
    each=probes.BODIES,
    on=Usable.JSON,
)
def item_status(exchange: Exchange) -> Iterator[Outcome]:
    """In a completed response every message and call has the status "completed".

    Interfaces show a spinner for what is in progress.
    """
    if not whole(exchange):
        yield NotApplicable("the answer is not whole")
        return
    for item in items(exchange.answer):
        if item.get("type") in ("message", "function_call") and item.get("status") not in (None, "completed"):
            yield Finding("completed", show(item.get("status")), at="/output/*/status")
            return


# Usage


@check(
    "responses.usage.counts",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, the response object: usage",
    remedy="Report input_tokens, output_tokens and total_tokens in every response.",
    each=probes.BODIES,
    on=Usable.JSON,
)
def usage_counts(exchange: Exchange) -> Iterator[Outcome]:
    """A response tells its usage: input_tokens, output_tokens and total_tokens, each a count above zero.

    Callers keep their budgets by it, under these names and not those of chat.
    """
    if tells_error(exchange):
        yield NotApplicable("it tells an error; see responses.error_null")
        return
    usage = exchange.answer.get("usage")
    if not isinstance(usage, dict):
        yield Finding("an object", show(usage) if "usage" in exchange.answer else "absent", at="/usage")
        return
    for key in COUNTS:
        if not is_integer(usage.get(key)) or usage[key] <= 0:
            yield Finding("a count", show(usage[key]) if key in usage else "absent", at=f"/usage/{key}")
            return


@check(
    "responses.usage.total",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, the response object: usage.total_tokens",
    remedy="Let total_tokens be the sum of the two others; thoughts are part of output_tokens.",
    each=probes.BODIES,
    on=Usable.JSON,
)
def usage_total(exchange: Exchange) -> Iterator[Outcome]:
    """total_tokens is the sum of input_tokens and output_tokens.

    Bills are checked against it.
    """
    usage = counts(exchange)
    if not usage:
        yield NotApplicable("there are no counts; see responses.usage.counts")
    elif usage["total_tokens"] != usage["input_tokens"] + usage["output_tokens"]:
        expected = f"{usage['input_tokens']} + {usage['output_tokens']}"
        yield Finding(expected, str(usage["total_tokens"]), at="/usage/total_tokens")


@check(
    "responses.usage.input",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, the response object: usage.input_tokens",
    remedy="Count what the model reads of this request, its whole conversation included.",
    joint=[probes.plain, probes.history],
    on=Usable.JSON,
)
def usage_input(short: Exchange, long: Exchange) -> Iterator[Outcome]:
    """A longer input counts more tokens than a short one.

    A constant charges everybody the same, whatever they send.
    """
    first, second = counts(short).get("input_tokens"), counts(long).get("input_tokens")
    if first is None or second is None:
        yield NotApplicable("there are no counts; see responses.usage.counts")
    elif second <= first:
        expected = f"more than the {first} of {short.id}"
        yield Finding(expected, str(second), at="/usage/input_tokens", exchange_id=long.id)


# What the model made of it


@check(
    "responses.echo",
    level=Level.MUST,
    lenses=[Lens.HUB],
    source=f"{GUIDE}: plain text output",
    remedy="Look at the prompt that your server made of the input parts, and at its encoding.",
    each=probes.echo,
    on=Usable.JSON,
    bar=0.5,
)
def echoed(exchange: Exchange) -> Iterator[Outcome]:
    """The model is given the text of the input, letters of every script included.

    A model that repeats something else was sent something else.
    """
    yield from has_word(exchange, probes.SCRIPTS)


@check(
    "responses.instructions",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}; {API}, create: instructions",
    remedy="Put `instructions` before the input as a system message.",
    each=probes.instructions,
    on=Usable.JSON,
    bar=0.5,
)
def instructed(exchange: Exchange) -> Iterator[Outcome]:
    """The model follows `instructions`.

    It is this API's place for the system prompt: dropped, every agent loses its character and its guard rails.
    """
    yield from has_word(exchange, probes.SYSTEM_WORD)


@check(
    "responses.developer",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: multi-turn conversations",
    remedy="Treat messages of the developer role like system messages.",
    each=probes.roles,
    on=Usable.JSON,
    bar=0.5,
)
def developed(exchange: Exchange) -> Iterator[Outcome]:
    """The model follows messages of the role developer.

    The hub's guide sets an assistant's behaviour with them.
    """
    yield from has_word(exchange, probes.DEVELOPER_WORD)


@check(
    "responses.history",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: multi-turn conversations",
    remedy="Give the model every item of the input, in order.",
    each=probes.history,
    on=Usable.JSON,
    bar=0.5,
)
def remembered(exchange: Exchange) -> Iterator[Outcome]:
    """The model sees the whole conversation.

    Callers send the history along with every turn.
    """
    yield from has_word(exchange, probes.CODE_WORD)


@check(
    "responses.no_leak",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, reasoning items",
    remedy="Parse thoughts into reasoning items, and strip control tokens.",
    each=probes.TEXTS,
    on=Usable.JSON,
)
def no_leak(exchange: Exchange) -> Iterator[Finding]:
    """The text holds no thoughts and no control tokens.

    Users would read them.
    """
    found = LEAK.search(text(exchange.answer))
    if found:
        yield Finding("the answer alone", f"{found[0]} in {show(text(exchange.answer))}", at="/output")


# Time


@check(
    "responses.total_time",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source="registration guide, Automatic validation: 30 seconds for whole answers",
    remedy="Raise the tokens per second of this model, or give it less to share its machine with.",
    each=[probes.echo, probes.stream],
    on=Usable.COMPLETE,
)
def total_time(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A short answer is whole within 30 seconds, streamed or not.

    It is what the hub allows.
    """
    yield from whole_in_time(exchange, facts)


# Limits


@check(
    "responses.cut.status",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, the response object: status, incomplete_details",
    remedy='Set status "incomplete" and incomplete_details {"reason": "max_output_tokens"} where the limit was met.',
    each=probes.cut,
    on=Usable.JSON,
)
def cut_status(exchange: Exchange) -> Iterator[Outcome]:
    """An answer that the limit cut is "incomplete", for the reason "max_output_tokens".

    It is how a caller knows to ask for the rest; half an answer under "completed" passes for a whole one.
    """
    answer = exchange.answer
    if tells_error(exchange):
        yield NotApplicable("it tells an error; see responses.error_null")
    elif answer.get("status") != "incomplete":
        if "thirty" in text(answer).casefold():
            yield NotApplicable("the answer ignores the limit; see responses.cut.limit")
        else:
            yield Finding("incomplete", show(answer.get("status")), at="/status")
    elif as_object(answer.get("incomplete_details")).get("reason") != "max_output_tokens":
        yield Finding("max_output_tokens", show(answer.get("incomplete_details")), at="/incomplete_details/reason")


@check(
    "responses.cut.limit",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: max_output_tokens",
    remedy="Pass max_output_tokens on to the engine, thoughts included.",
    each=probes.cut,
    on=Usable.JSON,
)
def cut_limit(exchange: Exchange) -> Iterator[Outcome]:
    """No more tokens are said, and counted, than max_output_tokens.

    Callers set it to bound what they pay.
    """
    said = counts(exchange).get("output_tokens")
    if "thirty" in text(exchange.answer).casefold():
        yield Finding(f"at most {probes.CUT_TOKENS} tokens", show(text(exchange.answer)), at="/output")
    elif said is None:
        yield NotApplicable("there are no counts; see responses.usage.counts")
    elif said > probes.CUT_TOKENS:
        yield Finding(f"at most {probes.CUT_TOKENS}", str(said), at="/usage/output_tokens")


@check(
    "responses.extra_field",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OpenAI SDK, extra_body",
    remedy="Ignore fields that you do not know.",
    each=probes.extra_field,
    on=Usable.RESPONSE,
)
def extra_field(exchange: Exchange) -> Iterator[Outcome]:
    """A field that nobody knows is ignored.

    New SDKs send new fields, and routers add their own: refusing them breaks callers you never met.
    """
    yield from must_accept(exchange)


@check(
    "responses.metadata",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, create: metadata",
    remedy="Give the caller's metadata back as they came.",
    each=probes.extra_field,
    on=Usable.JSON,
)
def metadata(exchange: Exchange) -> Iterator[Outcome]:
    """The caller's metadata come back in the response.

    Callers find their own job again by them.
    """
    sent, got = as_object(exchange.sent).get("metadata"), exchange.answer.get("metadata")
    if got is None:
        yield NotApplicable("metadata are not kept; see responses.required")
    elif got != sent:
        yield Finding(show(sent), show(got), at="/metadata")


# Conversations that the server keeps


@check(
    "responses.continued.remembers",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: previous_response_id",
    remedy="Put the earlier conversation before the input, or refuse previous_response_id with 400.",
    each=probes.continued,
    on=Usable.COMPLETE,
    bar=0.5,
)
def continued(exchange: Exchange) -> Iterator[Outcome]:
    """A response that continues another knows what was said there, or is refused.

    Ignored in silence, the caller's assistant forgets everything between two turns, and nobody knows why.
    """
    if exchange.status != 200:
        yield NotApplicable(f"conversations are not kept: HTTP {exchange.status}")
    else:
        yield from has_word(exchange, probes.STORED_WORD)


@check(
    "responses.continued.named",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, the response object: previous_response_id",
    remedy="Echo previous_response_id.",
    each=probes.continued,
    on=Usable.COMPLETE,
)
def continued_named(exchange: Exchange) -> Iterator[Outcome]:
    """A response that continues another names it.

    Callers follow the chain back by it.
    """
    wanted = as_object(exchange.sent).get("previous_response_id")
    if exchange.status != 200 or not isinstance(exchange.json, dict):
        yield NotApplicable(f"conversations are not kept: HTTP {exchange.status}")
    elif exchange.answer.get("previous_response_id") != wanted:
        yield Finding(show(wanted), show(exchange.answer.get("previous_response_id")), at="/previous_response_id")


@check(
    "responses.continued.unknown",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, create: previous_response_id",
    remedy="Answer 404 (or 400) to a previous_response_id that you do not know, or do not support.",
    each=probes.continued_unknown,
    on=Usable.RESPONSE,
)
def continued_unknown(exchange: Exchange) -> Iterator[Outcome]:
    """A conversation that was never kept cannot be continued.

    The caller would get an answer to half a question and take it for the whole.
    """
    yield from must_refuse(exchange, "there is no such response")


# Refusals


@check(
    "responses.no_key",
    level=Level.MUST,
    lenses=BOTH,
    source="OpenAI API reference, error codes: 401",
    remedy="Put this route behind the same look at the key as all others.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def no_key(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A request without a key gets 401.

    Whatever is served without a key is charged to nobody.
    """
    if not facts.authenticated:
        yield NotApplicable("the target is used without a key")
    elif (exchange.status or 0) < 500 and exchange.status != 401:
        yield Finding("HTTP 401", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "responses.unknown_model",
    level=Level.MUST,
    lenses=BOTH,
    source="OpenAI API reference, error codes: 404",
    remedy="Answer 404 with the code model_not_found.",
    each=probes.unknown_model,
    on=Usable.RESPONSE,
)
def unknown_model(exchange: Exchange) -> Iterator[Outcome]:
    """A model that does not exist gets 404 (or 400).

    An answer from another model is charged as something it is not.
    """
    if (exchange.status or 0) < 400:
        yield from must_refuse(exchange, "there is no such model")
    elif exchange.status not in (400, 404, 422) and (exchange.status or 0) < 500:
        yield Finding("HTTP 404", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "responses.no_input",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: input",
    remedy="Answer 400 and name `input`.",
    each=probes.no_input,
    on=Usable.RESPONSE,
)
def no_input(exchange: Exchange) -> Iterator[Outcome]:
    """A request without an input is refused.

    The model would talk about nothing, at the caller's cost.
    """
    yield from must_refuse(exchange, "the input is missing")


@check(
    "responses.wrong_type",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: input",
    remedy="Answer 400 and name `input`.",
    each=probes.wrong_type,
    on=Usable.RESPONSE,
)
def wrong_type(exchange: Exchange) -> Iterator[Outcome]:
    """An input that is neither a text nor an array is refused.

    The caller's mistake would pass for an answer.
    """
    yield from must_refuse(exchange, "the input must be a text or an array")


@check(
    "responses.unknown_tool",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: tools",
    remedy="Answer 400 to a type of tool that you do not offer, and name the ones you do.",
    each=probes.unknown_tool,
    on=Usable.RESPONSE,
)
def unknown_tool(exchange: Exchange) -> Iterator[Outcome]:
    """A tool of a type that does not exist is refused.

    Left out in silence, the caller waits for calls that never come.
    """
    yield from must_refuse(exchange, "there is no such type of tool")


@check(
    "responses.refusal_names_field",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OpenAI API reference, error codes: param",
    remedy="Name the field in the message of the error, or in its `param`.",
    each=[probes.no_input, probes.wrong_type, probes.unknown_tool],
    on=Usable.COMPLETE,
)
def names_field(exchange: Exchange) -> Iterator[Outcome]:
    """A refusal names the field that it is about.

    "Bad request" alone sends the caller to your support.
    """
    if exchange.status is None or not 400 <= exchange.status < 500:
        yield NotApplicable("it is not refused")
        return
    field = "tool" if exchange.probe == probes.unknown_tool.id else "input"
    if field not in exchange.reply.body.decode(errors="replace").casefold():
        yield Finding(f"a message that names {field}", show(exchange.reply.body), at="/error")


@check(
    "responses.bad_stream.refused",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, streaming events: error",
    remedy="Validate before you stream, and answer 400; once streaming, send an event of type error and end.",
    each=probes.bad_stream,
    on=Usable.COMPLETE,
)
def bad_stream(exchange: Exchange) -> Iterator[Outcome]:
    """A streamed request that is wrong is refused: by its status, or by an event that tells an error.

    A stream that just ends, or answers, hides the caller's mistake.
    """
    if exchange.media_type == "text/event-stream" and exchange.status == 200:
        told = steps(exchange)
        if not any(step.type in ("error", "response.failed") or step.body.get("error") for step in told):
            yield Finding("HTTP 400, or an event of type error", show(exchange.reply.body), at="status")
    else:
        yield from must_refuse(exchange, "there is no such role")


@check(
    "responses.bad_stream.event",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, streaming events: error, response.failed",
    remedy='Shape the event as {"type": "error", "code": "...", "message": "...", "sequence_number": 0}.',
    each=probes.bad_stream,
    on=Usable.COMPLETE,
)
def bad_stream_event(exchange: Exchange) -> Iterator[Outcome]:
    """An error within a stream has its type and a message where the SDKs read them.

    An event that they do not know is dropped, and the caller sees a stream that ends early for no reason.
    """
    told = steps(exchange) if exchange.media_type == "text/event-stream" else []
    if exchange.status != 200 or not readable(told):
        if exchange.status == 200 and any(step.body.get("error") for step in told):
            yield Finding("an event with a type", show(exchange.reply.body), at="event 0 /type")
        return
    for step in told:
        if step.type == "error":
            message = step.body.get("message") or as_object(step.body.get("error")).get("message")
        elif step.type == "response.failed":
            message = as_object(as_object(step.body.get("response")).get("error")).get("message")
        else:
            continue
        if not isinstance(message, str) or not message:
            yield Finding("a message", show(step.body), at=f"{step.at} /message")
            return
