"""Checks of refusals: the right status, a body that clients can read, and never a crash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, as_object
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import describe
from roadworthy.conformance.probes import errors as probes
from roadworthy.conformance.run import WRONG_KEY
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import show
from roadworthy.schemas import problem

API = "OpenAI API reference, error codes"
JS_CLIENT = "JavaScript inference client, error handling"
BOTH = (Lens.HUB, Lens.OPENAI)
TRACE = re.compile(
    r'Traceback \(most recent call last\)|File \\?"[^"]+", line \d+|/site-packages/|'
    r"\bat [\w.$]+\([\w./]+:\d+(?::\d+)?\)"
)


def _refused(exchange: Exchange, what: str) -> Iterator[Finding]:
    """Fails for an answer; a crash is told by errors.no_5xx."""
    if exchange.status is not None and exchange.status < 400:
        yield Finding(f"a 4xx that says: {what}", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


def _errors(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """The answers that tell an error; the hub's own clients never see those to a GET."""
    return [x for x in exchanges if x.status is not None and x.status >= 400 and x.request.method == "POST"]


# Keys


def _unauthorised(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    if not facts.authenticated:
        yield NotApplicable("the target is used without a key")
    elif exchange.status is not None and exchange.status < 500 and exchange.status != 401:
        yield Finding("HTTP 401", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "errors.no_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: 401",
    remedy="Ask for a key before anything else, and answer 401 without one.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def no_key(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A request without a key gets 401.

    Whatever is served without a key is charged to nobody.
    """
    yield from _unauthorised(exchange, facts)


@check(
    "errors.wrong_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: 401",
    remedy="Answer 401 to a key you do not know; 403 is for a known key that may not.",
    each=probes.wrong_key,
    on=Usable.RESPONSE,
)
def wrong_key(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A request with a wrong key gets 401.

    SDKs turn 401 into their authentication error, which tells users to look at their key.
    """
    yield from _unauthorised(exchange, facts)


@check(
    "errors.key_not_echoed",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source="OWASP, error handling",
    remedy="Show at most the last four characters of a key.",
    each=probes.wrong_key,
    on=Usable.RESPONSE,
)
def key_not_echoed(exchange: Exchange) -> Iterator[Finding]:
    """An error does not repeat the whole key it was shown.

    Errors are logged and pasted into tickets, and a key is often wrong by one letter only.
    """
    if WRONG_KEY.encode() in exchange.reply.body:
        yield Finding("no key in the body", show(exchange.reply.body), at="body")


# Cases


@check(
    "errors.unknown_model.refused",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: 404",
    remedy="Answer 404, code model_not_found, to a model that you do not serve.",
    each=probes.unknown_model,
    on=Usable.RESPONSE,
)
def unknown_model(exchange: Exchange) -> Iterator[Finding]:
    """A model that does not exist is refused.

    An answer by some other model misleads the caller, who is charged for what was not asked.
    """
    yield from _refused(exchange, "there is no such model")


@check(
    "errors.unknown_model.status",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: 404",
    remedy="Answer 404 rather than 400 to a model that you do not serve.",
    each=probes.unknown_model,
    on=Usable.RESPONSE,
)
def unknown_model_status(exchange: Exchange) -> Iterator[Finding]:
    """The status for a model that does not exist is 404.

    SDKs make their not-found error of it, on which callers fall back to another model.
    """
    if exchange.status is not None and 400 <= exchange.status < 500 and exchange.status != 404:
        yield Finding("HTTP 404", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "errors.no_messages",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: 400",
    remedy="Validate requests before generation.",
    each=probes.no_messages,
    on=Usable.RESPONSE,
)
def no_messages(exchange: Exchange) -> Iterator[Finding]:
    """A request without messages is refused.

    An answer to nothing hides the caller's mistake, and is charged.
    """
    yield from _refused(exchange, "messages are missing")


@check(
    "errors.empty_messages",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}: 400",
    remedy="Validate requests before the stream begins, so that the status can still tell.",
    each=probes.empty_messages,
    on=Usable.RESPONSE,
)
def empty_messages(exchange: Exchange) -> Iterator[Finding]:
    """A streamed request with an empty array of messages is refused by its status.

    Once 200 is sent, an error can only be whispered inside the stream, where most clients miss it.
    """
    yield from _refused(exchange, "messages are empty")


@check(
    "errors.wrong_type",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}: 400",
    remedy="Validate requests by a schema.",
    each=probes.wrong_type,
    on=Usable.RESPONSE,
)
def wrong_type(exchange: Exchange) -> Iterator[Finding]:
    """Messages of the wrong type are refused.

    Guessing what was meant hides the caller's mistake.
    """
    yield from _refused(exchange, "messages must be an array")


@check(
    "errors.wrong_role",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}: 400",
    remedy="Refuse roles that your chat template does not know; many templates drop them in silence.",
    each=probes.wrong_role,
    on=Usable.RESPONSE,
)
def wrong_role(exchange: Exchange) -> Iterator[Finding]:
    """A message of an unknown role is refused.

    Templates drop such messages, and the model answers without having read them.
    """
    yield from _refused(exchange, "there is no such role")


@check(
    "errors.out_of_range",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=f"{API}: 400",
    remedy="Validate the ranges of sampling parameters.",
    each=probes.out_of_range,
    on=Usable.RESPONSE,
)
def out_of_range(exchange: Exchange) -> Iterator[Finding]:
    """A negative temperature is refused.

    It has no meaning; some engines clamp it, others return noise.
    """
    yield from _refused(exchange, "the temperature is out of range")


@check(
    "errors.malformed_json",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}: 400; RFC 8259",
    remedy="Answer 400 to a body that is not JSON.",
    each=probes.malformed_json,
    on=Usable.RESPONSE,
)
def malformed_json(exchange: Exchange) -> Iterator[Finding]:
    """A body that is not JSON is refused.

    Half a request, as a broken connection leaves it, must not be answered, nor charged.
    """
    yield from _refused(exchange, "the body is not JSON")


@check(
    "errors.method",
    level=Level.MAY,
    lenses=[Lens.OPENAI],
    source="RFC 9110, section 15.5.6",
    remedy="Answer 405 with `Allow: POST` to other methods.",
    each=probes.method,
    on=Usable.RESPONSE,
)
def method(exchange: Exchange) -> Iterator[Finding]:
    """GET on the chat route is refused.

    A page or an empty 200 there makes monitors believe that the route works.
    """
    if exchange.status is not None and exchange.status < 400:
        yield Finding("HTTP 405", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


@check(
    "errors.too_long",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: context_length_exceeded",
    remedy="Count the prompt's tokens before generation, and answer 400 with the code context_length_exceeded.",
    each=probes.too_long,
    on=Usable.ANYTHING,
)
def too_long(exchange: Exchange) -> Iterator[Outcome]:
    """A prompt longer than the published context is refused.

    Cut in silence, it gets an answer to another question than was asked, at the full price. A limit of tokens per
    minute that the prompt passes all by itself (429) is a refusal too.
    """
    if exchange.status is None or exchange.status == 503:
        yield Undecided(f"could not tell: {describe(exchange)}")
    else:
        yield from _refused(exchange, "the prompt is too long")


@check(
    "errors.extra_field",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OpenAI SDK, extra_body; peers' provider extensions",
    remedy="Ignore fields that you do not know.",
    each=probes.extra_field,
    on=Usable.RESPONSE,
)
def extra_field(exchange: Exchange) -> Iterator[Finding]:
    """A field that nobody knows is ignored.

    New SDKs send new fields, and routers add their own: refusing them breaks callers you never met.
    """
    if exchange.status is not None and 400 <= exchange.status < 500:
        yield Finding("HTTP 200", f"HTTP {exchange.status}: {show(exchange.reply.body)}", at="status")


# Every error


@check(
    "errors.no_5xx",
    level=Level.MUST,
    lenses=(Lens.HUB, Lens.OPENAI, Lens.SPEC),
    source="registration guide, Automatic validation; RFC 9110, section 15.6",
    remedy="Read your server's log at the time of this request; validate before you generate.",
    across=[],
    on=Usable.RESPONSE,
)
def no_5xx(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """No request makes the server fail, valid or not.

    SDKs retry a 5xx, which multiplies the load of a request that will never succeed; the hub counts it as down.
    """
    for exchange in exchanges:
        generated = exchange.probe.startswith(("fuzz.", "openapi.")) or exchange.probe == "chat.stream.after_close"
        if exchange.status is not None and exchange.status >= 500 and not generated:
            got = f"HTTP {exchange.status}: {show(exchange.reply.body)}"
            yield Finding("an answer, or a 4xx that says why not", got, at="status", exchange_id=exchange.id)


@check(
    "errors.json",
    level=Level.MUST,
    lenses=BOTH,
    source=JS_CLIENT,
    remedy="Send errors as JSON with `Content-Type: application/json`, from gateways and proxies too.",
    across=[],
    on=Usable.COMPLETE,
)
def json_errors(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """The body of an error is JSON, and labelled so.

    Clients read the message out of it; from a web page they make "unexpected token <".
    """
    for exchange in _errors(exchanges):
        if not isinstance(exchange.json, dict) or exchange.media_type not in (
            "application/json",
            "application/problem+json",
        ):
            got = f"{exchange.media_type or 'no content type'}: {show(exchange.reply.body) or 'an empty body'}"
            yield Finding("a JSON object", got, at="body", exchange_id=exchange.id)
            return


def _message(body: Any) -> str | None:
    """The text that clients would show of an error body."""
    error = as_object(body).get("error")
    for value in (
        as_object(error).get("message"),
        error,
        as_object(body).get("detail"),
        as_object(body).get("message"),
    ):
        if isinstance(value, str) and value.strip():
            return value
    return None


@check(
    "errors.readable",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{JS_CLIENT}; {API}",
    remedy='Put a sentence into `error.message`: {"error": {"message": "...", "type": "...", "code": "..."}}.',
    across=[],
    on=Usable.COMPLETE,
)
def readable(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """An error has a text where clients look for one.

    Without it users read "[object Object]", and you get the ticket.
    """
    for exchange in _errors(exchanges):
        if isinstance(exchange.json, dict) and _message(exchange.json) is None:
            yield Finding("a text in error.message", show(exchange.json), at="/error", exchange_id=exchange.id)
            return


@check(
    "errors.shape",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI, Lens.SPEC],
    source=API,
    remedy='Shape errors as {"error": {"message": "...", "type": "...", "param": null, "code": null}}.',
    across=[],
    on=Usable.COMPLETE,
    applies=lambda facts: facts.api in (Api.OPENAI, Api.RESPONSES),
)
def shape(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """An error has the shape that the SDK reads: an object `error` with message, type and code.

    SDKs fill their exception's fields from it; callers branch on the code.
    """
    for exchange in _errors(exchanges):
        if not isinstance(exchange.json, dict) or _message(exchange.json) is None:
            continue
        found = problem("openai/error.json", exchange.json)
        if found is not None:
            yield Finding(found.expected, found.got, at=found.pointer, exchange_id=exchange.id)
            return


@check(
    "errors.no_trace",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="OWASP, error handling",
    remedy="Log traces; send a sentence.",
    across=[],
    on=Usable.COMPLETE,
)
def no_trace(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    """An error does not show the server's inside: no stack trace, no file paths.

    It helps attackers, and nobody else.
    """
    for exchange in exchanges:
        if exchange.status is not None and exchange.status >= 400:
            found = TRACE.search(exchange.reply.body[:100_000].decode(errors="replace"))
            if found:
                yield Finding("a sentence", show(found[0]), at="body", exchange_id=exchange.id)
                return


@check(
    "errors.retry_after",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="RFC 9110, section 10.2.3; OpenAI SDK, retries",
    remedy="Send `Retry-After` in seconds with 429 and 503.",
    across=[],
    on=Usable.ANYTHING,
)
def retry_after(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """A provider that asks to wait says how long.

    SDKs wait as long as they are told; untold, they come back at once, all together.
    """
    waits = [(x.id, r.status, r.retry_after) for x in exchanges for r in x.retries]
    waits += [(x.id, x.status, x.reply.header("retry-after")) for x in exchanges if x.status in (429, 503)]
    if facts.api is Api.SERVERLESS:
        # There a loading model tells its time in the body: see serverless.loading.
        waits = [wait for wait in waits if wait[1] != 503]
    if not waits:
        yield NotApplicable("nothing was rate-limited in this run")
        return
    for id, status, value in waits:
        if value is None:
            yield Finding("the header Retry-After", "none", at=f"header Retry-After of HTTP {status}", exchange_id=id)
            return
