"""Checks of whole answers of the Responses API: their shape, their figures, and what the model made of the request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.conformance import strict_json
from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object, objects
from roadworthy.conformance.facts import Capability, Facts
from roadworthy.conformance.probes import responses as probes
from roadworthy.conformance.refusal import must_accept, must_refuse
from roadworthy.conformance.responses import items, readable, response, steps, text
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, is_number, show
from roadworthy.schemas import problem

API = "OpenAI API reference, responses"
GUIDE = "hub's guide to the Responses API"
SDK = "OpenAI SDK, responses"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.OPENAI, Lens.SPEC)
TOOLS = [Capability.TOOLS]
SCHEMA = [Capability.JSON_SCHEMA]
REASONING = [Capability.REASONING]
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
COUNTS = ("input_tokens", "output_tokens", "total_tokens")
OFFERED = {tool["name"]: tool for tool in (probes.WEATHER, probes.STOCK)}


def _usage(exchange: Exchange) -> dict[str, Any]:
    """The usage where its three counts are counts, else an empty one."""
    usage = as_object(response(exchange).get("usage"))
    return usage if all(is_integer(usage.get(key)) and usage[key] >= 0 for key in COUNTS) else {}


def _whole(exchange: Exchange) -> bool:
    """Whether the answer says that it is whole, so that its text may be judged."""
    return response(exchange).get("status") == "completed" and not _failure(exchange)


def _failure(exchange: Exchange) -> bool:
    return bool(response(exchange).get("error"))


def _no_text(exchange: Exchange) -> Iterator[Outcome]:
    """Says why a text cannot be judged, where it cannot."""
    if not _whole(exchange):
        yield NotApplicable("the answer is not whole")
    elif not text(response(exchange)).strip():
        yield NotApplicable("there is no text; see responses.text")


def _has_word(exchange: Exchange, word: str) -> Iterator[Outcome]:
    unfit = next(_no_text(exchange), None)
    if unfit is not None:
        yield unfit
    elif word.casefold() not in text(response(exchange)).casefold():
        yield Finding(f"an answer that holds {word}", show(text(response(exchange))), at="/output")


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
    if _failure(exchange):
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
    if _failure(exchange):
        yield NotApplicable("it tells an error; see responses.error_null")
    elif exchange.answer.get("status") not in STATUSES:
        yield Finding("completed", show(exchange.answer.get("status")), at="/status")
    elif exchange.answer["status"] == "incomplete" and not _spent(exchange):
        yield Finding("completed", "incomplete, with tokens to spare", at="/status")


def _spent(exchange: Exchange) -> bool:
    """Whether so many tokens were said as the request allowed (or it is not known)."""
    limit, said = probes.limit_of(exchange.sent), _usage(exchange).get("output_tokens")
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
    if not _whole(exchange):
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
    if not _whole(exchange):
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
    if _failure(exchange):
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
    usage = _usage(exchange)
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
    first, second = _usage(short).get("input_tokens"), _usage(long).get("input_tokens")
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
    yield from _has_word(exchange, probes.SCRIPTS)


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
    yield from _has_word(exchange, probes.SYSTEM_WORD)


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
    yield from _has_word(exchange, probes.DEVELOPER_WORD)


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
    yield from _has_word(exchange, probes.CODE_WORD)


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
    if _failure(exchange):
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
    said = _usage(exchange).get("output_tokens")
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
        yield from _has_word(exchange, probes.STORED_WORD)


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


# Functions


def _calls(exchange: Exchange) -> list[dict[str, Any]]:
    return items(response(exchange), "function_call")


@check(
    "responses.call.accepted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: tool calling",
    remedy="Take tools in this API's flat form, and results as function_call_output items.",
    each=[probes.call, probes.call_stream, probes.call_named, probes.call_result],
    on=Usable.RESPONSE,
    needs=TOOLS,
)
def call_accepted(exchange: Exchange) -> Iterator[Outcome]:
    """Functions may be offered, demanded, named and answered, streamed or not.

    A loop of calls breaks wherever one of these is refused.
    """
    yield from must_accept(exchange)


@check(
    "responses.call.made",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: tool_choice",
    remedy='Constrain generation to a call where tool_choice is "required" or names a function.',
    each=[*probes.CALLS, probes.call_named],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_made(exchange: Exchange) -> Iterator[Outcome]:
    """A call that is required comes, as an output item of type function_call.

    The caller's program has nothing to do otherwise.
    """
    if not _whole(exchange):
        yield NotApplicable("the answer is not whole")
    elif not _calls(exchange):
        yield Finding("an item of type function_call", show(response(exchange).get("output")), at="/output")


@check(
    "responses.call.fields",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, function tool call",
    remedy="Give each function_call a call_id, a name and its arguments as a string of JSON.",
    each=[*probes.CALLS, probes.call_named],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_fields(exchange: Exchange) -> Iterator[Outcome]:
    """A call has a call_id, the name of one of the functions, and its arguments as a string.

    The result is sent back under the call_id; SDKs parse the string, and raise for an object.
    """
    offered = [tool.get("name") for tool in objects(as_object(exchange.sent).get("tools"))]
    for made in _calls(exchange):
        for key in ("call_id", "name", "arguments"):
            if not isinstance(made.get(key), str) or not made[key]:
                yield Finding("a string", show(made[key]) if key in made else "absent", at=f"/output/*/{key}")
                return
        if made["name"] not in offered:
            yield Finding(f"one of {show(offered)}", show(made["name"]), at="/output/*/name")
            return


@check(
    "responses.call.arguments",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, function tool call: arguments; strict mode",
    remedy="Constrain generation to the schema of the function's parameters.",
    each=[*probes.CALLS, probes.call_named],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_arguments(exchange: Exchange) -> Iterator[Outcome]:
    """The arguments are JSON that meets the schema of the function.

    The caller's function is called with them as they are.
    """
    for made in _calls(exchange):
        told, name = made.get("arguments"), made.get("name")
        if not isinstance(told, str) or not isinstance(name, str) or name not in OFFERED:
            continue
        value = strict_json.loads(told)
        if isinstance(value, Malformed):
            yield Finding("JSON", f"{value.reason}: {show(told)}", at="/output/*/arguments")
            return
        fault = _fault(OFFERED[name]["parameters"], value)
        if fault:
            expected = f"arguments that meet the schema of {name}"
            yield Finding(expected, f"{fault}: {show(told)}", at="/output/*/arguments")
            return


def _fault(schema: Any, value: Any) -> str | None:
    """Why a value does not meet one of our own schemas."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(value))
    return None if error is None else show(error.message)


@check(
    "responses.call.ids",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, function tool call: call_id",
    remedy="Make a new call_id for each call.",
    across=[*probes.CALLS, probes.call_named],
    on=Usable.SUCCESS,
    needs=TOOLS,
)
def call_ids(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """No two calls have the same call_id.

    Within one conversation the second call would get the first one's result.
    """
    seen: set[str] = set()
    for exchange in exchanges:
        for made in _calls(exchange):
            name = made.get("call_id")
            if isinstance(name, str) and name in seen:
                yield Finding("a new call_id", f"{show(name)} again", at="/output/*/call_id", exchange_id=exchange.id)
                return
            if isinstance(name, str) and name:
                seen.add(name)


@check(
    "responses.call.named",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: tool_choice",
    remedy="Where tool_choice names a function, allow no other call.",
    each=probes.call_named,
    on=Usable.JSON,
    needs=TOOLS,
)
def call_by_name(exchange: Exchange) -> Iterator[Outcome]:
    """A function that the caller names is the one that is called.

    Callers force a function where their next step can take no other.
    """
    wanted = as_object(as_object(exchange.sent).get("tool_choice")).get("name")
    told = [made.get("name") for made in _calls(exchange)]
    names = [name for name in told if isinstance(name, str) and name in OFFERED]
    if not names:
        yield NotApplicable("there is no call of a known function; see responses.call.made")
    elif any(name != wanted for name in names):
        yield Finding(show(wanted), show(names), at="/output/*/name")


@check(
    "responses.call.result",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, create: input, function_call_output",
    remedy="Turn function_call_output items into the tool messages of your chat template.",
    each=probes.call_result,
    on=Usable.JSON,
    needs=TOOLS,
    bar=0.5,
)
def call_result(exchange: Exchange) -> Iterator[Outcome]:
    """The model uses what the function returned.

    Else the whole round was for nothing, and the answer is made up.
    """
    yield from _has_word(exchange, probes.DEGREES.removeprefix("-"))


# Structured output


def _answer_to_schema(exchange: Exchange) -> str | None:
    """The text that must meet the schema, or None where there is none to judge."""
    made = text(response(exchange))
    return made if _whole(exchange) and made.strip() else None


@check(
    "responses.schema.accepted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: structured outputs",
    remedy="Take text.format with type json_schema, or declare that the model has no structured output.",
    each=[probes.schema, probes.schema_stream],
    on=Usable.RESPONSE,
    needs=SCHEMA,
)
def schema_accepted(exchange: Exchange) -> Iterator[Outcome]:
    """A schema given as text.format is accepted, streamed or not.

    It is what the SDK's `parse` sends.
    """
    yield from must_accept(exchange)


@check(
    "responses.schema.parses",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: structured outputs; {API}, create: text.format",
    remedy="Constrain generation by the schema in text.format; a fence or a sentence around the JSON breaks it.",
    each=[probes.schema, probes.schema_stream],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_parses(exchange: Exchange) -> Iterator[Outcome]:
    """With a schema the text is JSON and nothing else.

    The SDK's `parse` raises for anything around it.
    """
    made = _answer_to_schema(exchange)
    if made is None:
        yield NotApplicable("there is no whole text")
        return
    value = strict_json.loads(made)
    if isinstance(value, Malformed):
        yield Finding("JSON", f"{value.reason}: {show(made)}", at="/output")


@check(
    "responses.schema.met",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: structured outputs; {API}, create: text.format",
    remedy="Enforce strict schemas while generating.",
    each=[probes.schema, probes.schema_stream],
    on=Usable.SUCCESS,
    needs=SCHEMA,
)
def schema_met(exchange: Exchange) -> Iterator[Outcome]:
    """With a strict schema the JSON meets it exactly.

    The guide promises it, and typed callers raise otherwise.
    """
    made = _answer_to_schema(exchange)
    value = Malformed("") if made is None else strict_json.loads(made)
    if isinstance(value, Malformed):
        yield NotApplicable("there is no JSON; see responses.schema.parses")
        return
    fault = _fault(probes.EVENT, value)
    if fault:
        yield Finding("an object that meets the schema", f"{fault}: {show(made)}", at="/output")


@check(
    "responses.schema.chat_name",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=f"{GUIDE}: structured outputs by response_format",
    remedy="Treat `response_format` like `text.format`, or refuse it with 400 and say so.",
    each=probes.schema_chat_name,
    on=Usable.COMPLETE,
    needs=SCHEMA,
)
def schema_chat_name(exchange: Exchange) -> Iterator[Outcome]:
    """A schema under chat's name, `response_format`, is met or refused.

    The hub's guide shows this name to users of JavaScript and curl; ignored in silence, they get prose.
    """
    if exchange.status != 200:
        yield NotApplicable(f"response_format is refused: HTTP {exchange.status}")
        return
    made = _answer_to_schema(exchange)
    if made is None:
        yield NotApplicable("there is no whole text")
        return
    value = strict_json.loads(made)
    fault = value.reason if isinstance(value, Malformed) else _fault(probes.EVENT, value)
    if fault:
        yield Finding("JSON that meets the schema", f"{fault}: {show(made)}", at="/output")


# Images and thoughts


@check(
    "responses.image.accepted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: multimodal inputs",
    remedy="Take input_image parts whose image_url is a data: URI, or do not declare vision.",
    each=probes.image,
    on=Usable.RESPONSE,
    needs=[Capability.VISION],
)
def image_accepted(exchange: Exchange) -> Iterator[Outcome]:
    """A model that is said to see accepts an image as an input_image part.

    The image_url is a string here, not an object as in chat.
    """
    yield from must_accept(exchange)


@check(
    "responses.image.seen",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: multimodal inputs",
    remedy="Pass images on to the model, in their place among the texts.",
    each=probes.image,
    on=Usable.JSON,
    needs=[Capability.VISION],
    bar=0.5,
)
def image_seen(exchange: Exchange) -> Iterator[Outcome]:
    """The model sees the image.

    A model that was not given it makes something up.
    """
    yield from _has_word(exchange, "blue")


@check(
    "responses.reasoning.accepted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: reasoning effort controls",
    remedy='Take reasoning {"effort": "low"}, or do not declare reasoning.',
    each=[probes.reasoning, probes.reasoning_stream],
    on=Usable.RESPONSE,
    needs=REASONING,
)
def reasoning_accepted(exchange: Exchange) -> Iterator[Outcome]:
    """A model that is said to reason accepts an effort.

    Callers trade depth for time with it.
    """
    yield from must_accept(exchange)


@check(
    "responses.reasoning.order",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{GUIDE}: reasoning effort controls; {API}, reasoning items",
    remedy="Put reasoning items before the message that they led to.",
    each=[probes.reasoning, probes.reasoning_stream],
    on=Usable.SUCCESS,
    needs=REASONING,
)
def reasoning_order(exchange: Exchange) -> Iterator[Outcome]:
    """Thoughts are items of type reasoning, before the message.

    Interfaces show items as they come; a thought after the answer reads as a second one.
    """
    if not _whole(exchange):
        yield NotApplicable("the answer is not whole")
        return
    kinds = [item.get("type") for item in items(response(exchange))]
    if "message" not in kinds:
        yield NotApplicable("there is no message")
    elif "reasoning" not in kinds:
        yield Finding("an item of type reasoning", show(kinds), at="/output")
    elif kinds.index("reasoning") > kinds.index("message"):
        yield Finding("reasoning before the message", show(kinds), at="/output")


@check(
    "responses.reasoning.summary",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}, reasoning items: summary, content",
    remedy="Give reasoning items `summary`, an empty array where there is none, and whole thoughts as `content`.",
    each=[probes.reasoning, probes.reasoning_stream],
    on=Usable.SUCCESS,
    needs=REASONING,
)
def reasoning_summary(exchange: Exchange) -> Iterator[Outcome]:
    """A reasoning item has an array `summary`, and its texts are parts.

    The SDKs' callers loop over both.
    """
    found = items(response(exchange), "reasoning")
    if not found:
        yield NotApplicable("there is no reasoning item; see responses.reasoning.order")
    for item in found:
        if not isinstance(item.get("summary"), list):
            yield Finding("an array", show(item["summary"]) if "summary" in item else "absent", at="/output/*/summary")
            return
        parts = [*item["summary"], *(item["content"] if isinstance(item.get("content"), list) else ())]
        if not all(isinstance(as_object(part).get("text"), str) for part in parts):
            yield Finding("parts with a text", show(parts), at="/output/*/content")
            return


@check(
    "responses.reasoning.usage",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, the response object: usage.output_tokens_details",
    remedy="Report output_tokens_details.reasoning_tokens, as a part of output_tokens.",
    each=[probes.reasoning, probes.reasoning_stream],
    on=Usable.SUCCESS,
    needs=REASONING,
)
def reasoning_usage(exchange: Exchange) -> Iterator[Outcome]:
    """The usage tells how many of the output tokens were thoughts.

    They are charged, and often are most of the bill.
    """
    usage = _usage(exchange)
    if not usage:
        yield NotApplicable("there are no counts; see responses.usage.counts")
        return
    thought = as_object(usage.get("output_tokens_details")).get("reasoning_tokens")
    shown = any(objects(item.get("content")) for item in items(response(exchange), "reasoning"))
    if not is_integer(thought) or not (1 if shown else 0) <= thought <= usage["output_tokens"]:
        expected = f"a count from {1 if shown else 0} to {usage['output_tokens']}"
        yield Finding(expected, show(thought), at="/usage/output_tokens_details/reasoning_tokens")


# Remote tools


def _remote(exchange: Exchange) -> Iterator[NotApplicable]:
    """Says why remote tools cannot be judged, where they cannot."""
    if exchange.status != 200:
        yield NotApplicable(f"remote tools are not offered: HTTP {exchange.status}")
    elif not _whole(exchange):
        yield NotApplicable("the answer is not whole")


def _lists(exchange: Exchange) -> list[dict[str, Any]]:
    return items(exchange.answer, "mcp_list_tools")


@check(
    "responses.mcp.listed",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: remote MCP execution; {API}, mcp_list_tools",
    remedy="Tell the tools of a remote server in an item mcp_list_tools with its server_label, before they are called.",
    each=probes.mcp,
    on=Usable.COMPLETE,
)
def mcp_listed(exchange: Exchange) -> Iterator[Outcome]:
    """The tools of a remote server are told first, by name and schema, under the caller's label.

    Callers see by it whether the server was reached, and what the model was offered.
    """
    unfit = next(_remote(exchange), None)
    if unfit is not None:
        yield unfit
        return
    kinds = [item.get("type") for item in items(exchange.answer)]
    if "mcp_list_tools" not in kinds:
        yield Finding("an item mcp_list_tools", show(kinds), at="/output")
        return
    if "mcp_call" in kinds and kinds.index("mcp_list_tools") > kinds.index("mcp_call"):
        yield Finding("mcp_list_tools before mcp_call", show(kinds), at="/output")
        return
    for item in _lists(exchange):
        if item.get("server_label") != probes.MCP_LABEL:
            yield Finding(probes.MCP_LABEL, show(item.get("server_label")), at="/output/*/server_label")
            return
        if item.get("error"):
            yield NotApplicable(f"the server was not reached: {show(item['error'])}")
            return
        for tool in item["tools"] if isinstance(item.get("tools"), list) else (None,):
            entry = as_object(tool)
            if not isinstance(entry.get("name"), str) or not isinstance(entry.get("input_schema"), dict):
                yield Finding("a tool with name and input_schema", show(tool), at="/output/*/tools")
                return


@check(
    "responses.mcp.allowed",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: remote MCP execution, allowed_tools",
    remedy="Offer the model no tool that is not in allowed_tools, and run none.",
    each=probes.mcp,
    on=Usable.COMPLETE,
)
def mcp_allowed(exchange: Exchange) -> Iterator[Outcome]:
    """Only the tools that the caller allows are called.

    The list is how callers keep a model from the tools that delete or pay.
    """
    unfit = next(_remote(exchange), None)
    if unfit is not None:
        yield unfit
        return
    called = [item.get("name") for item in items(exchange.answer, "mcp_call")]
    beyond = [name for name in called if isinstance(name, str) and name != probes.MCP_TOOL]
    if beyond:
        yield Finding(f"calls of {probes.MCP_TOOL} alone", show(beyond), at="/output")


@check(
    "responses.mcp.called",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: remote MCP execution; {API}, mcp_call",
    remedy="Tell each remote call in an item mcp_call: server_label, name, arguments, and output or error.",
    each=probes.mcp,
    on=Usable.COMPLETE,
)
def mcp_called(exchange: Exchange) -> Iterator[Outcome]:
    """A remote call is told whole: label, name, arguments as a string of JSON, and output or error.

    It happened on the caller's account; this item is the only record of it.
    """
    unfit = next(_remote(exchange), None)
    if unfit is not None:
        yield unfit
        return
    made = items(exchange.answer, "mcp_call")
    if not made:
        yield Undecided("the model called no remote tool")
    for item in made:
        if not isinstance(item.get("arguments"), str) or isinstance(strict_json.loads(item["arguments"]), Malformed):
            yield Finding("a string of JSON", show(item.get("arguments")), at="/output/*/arguments")
            return
        for key in ("server_label", "name"):
            if not isinstance(item.get(key), str) or not item[key]:
                yield Finding("a string", show(item.get(key)), at=f"/output/*/{key}")
                return
        if not isinstance(item.get("output"), str) and not item.get("error"):
            yield Finding("an output or an error", "neither", at="/output/*/output")
            return


@check(
    "responses.mcp.order",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{GUIDE}: remote MCP execution",
    remedy="Go on until the model answers: the message is the last item, after its calls.",
    each=probes.mcp,
    on=Usable.COMPLETE,
)
def mcp_order(exchange: Exchange) -> Iterator[Outcome]:
    """After its remote calls the model answers with a message.

    The API promises to run the loop; a caller that gets calls and no answer has nothing to show.
    """
    unfit = next(_remote(exchange), None)
    if unfit is not None:
        yield unfit
        return
    kinds = [item.get("type") for item in items(exchange.answer)]
    calls = [place for place, kind in enumerate(kinds) if kind == "mcp_call"]
    messages = [place for place, kind in enumerate(kinds) if kind == "message"]
    if calls and not any(place > calls[-1] for place in messages):
        yield Finding("a message after the last mcp_call", show(kinds), at="/output")


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
