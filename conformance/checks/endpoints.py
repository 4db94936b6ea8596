"""Checks of the management of dedicated endpoints: every answer's shape, and the life of one endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import endpoints as probes
from roadworthy.conformance.probes.endpoints import accepted, state
from roadworthy.conformance.reading.refusal import must_accept, must_refuse
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_number, show
from roadworthy.schemas import problem

API = "published OpenAPI of endpoint management"
CLIENT = "official Python client, InferenceEndpoint"
BOTH = (Lens.HUB, Lens.SPEC)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
"""A date-time of RFC 3339."""
SLACK = timedelta(seconds=1)
"""How far apart times may be told that are the same: some answers have whole seconds, others fractions."""
STALE_AFTER = timedelta(seconds=3)
"""How much older than the server's own clock the time of a change may be where it has whole seconds only."""

BY_ITSELF = {
    "pending": {"pending", "initializing", "running", "failed"},
    "initializing": {"pending", "initializing", "running", "failed"},
    "running": {"running", "failed"},
    "updating": {"updating", "pending", "initializing", "running", "failed"},
    "paused": {"paused"},
    "scaledToZero": {"scaledToZero"},
    "failed": {"failed", "pending", "initializing", "running"},
}
"""Where a state may lead to when nobody told the endpoint anything, nor called it."""
ON_ITS_WAY = {"pending", "initializing", "updating", "running", "failed"}
TOLD = {
    probes.resume_running.id: ON_ITS_WAY | {"paused"},
    probes.update.id: ON_ITS_WAY,
    probes.pause.id: {"paused", "updating"},
    probes.resume.id: ON_ITS_WAY,
    probes.scale.id: {"scaledToZero", "updating"},
}
"""Where an order may lead to besides. (That resuming what runs must not pause it is a check of its own.)"""


def _last(exchanges: Sequence[Exchange], probe: Any) -> Exchange | None:
    return next((x for x in reversed(exchanges) if x.probe == probe.id), None)


def _got(exchange: Exchange) -> str:
    return f"HTTP {exchange.status}: {show(exchange.reply.body)}"


def _status(exchange: Exchange) -> dict[str, Any]:
    return as_object(exchange.answer.get("status"))


def _moment(value: Any) -> datetime | None:
    """The time that a text of RFC 3339 tells, or None for any other value."""
    if not isinstance(value, str) or not MOMENT.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError:
        return None


def _wish(exchange: Exchange) -> dict[str, Any]:
    return as_object(exchange.sent)


def _configuration(exchange: Exchange, *but: str) -> dict[str, Any]:
    """What an endpoint is, apart from how it is: the published fields, without some of the scaling."""
    answer = exchange.answer

    def some(value: Any, keys: Sequence[str]) -> dict[str, Any]:
        return {key: as_object(value)[key] for key in keys if key in as_object(value)}

    compute = as_object(answer.get("compute"))
    scaling = [key for key in ("minReplica", "maxReplica", "scaleToZeroTimeout") if key not in but]
    return {
        **some(answer, ["type"]),
        "provider": some(answer.get("provider"), ("vendor", "region")),
        "compute": {
            **some(compute, ("accelerator", "instanceType", "instanceSize")),
            "scaling": some(compute.get("scaling"), scaling),
        },
        "model": some(answer.get("model"), ("repository", "revision", "task", "framework")),
    }


def _differences(wanted: Any, told: Any, at: str = "") -> Iterator[Finding]:
    """Where an answer says otherwise than was asked; what is only in the answer is the provider's own."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            yield from _differences(value, as_object(told).get(key), f"{at}/{key}")
    elif wanted != told or isinstance(wanted, bool) is not isinstance(told, bool):
        yield Finding(show(wanted), show(told), at=at)


# Reading


@check(
    "endpoints.answered",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, listEndpoints",
    remedy="Serve GET /v2/endpoint/{namespace} for the namespace and the key in use.",
    each=probes.LISTS,
    on=Usable.COMPLETE,
)
def answered(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """The list of endpoints is answered with 200.

    Every tool begins with it; without it nobody finds what they are paying for.
    """
    if exchange.status in (401, 403):
        key = "the key was refused" if facts.authenticated else "no key was shown; set ROADWORTHY_API_KEY"
        yield Undecided(f"could not tell: {key}; is --namespace {facts.namespace} right? {_got(exchange)}")
    elif exchange.status != 200:
        yield Finding("HTTP 200", _got(exchange), at="status", note="Is --namespace right?")


@check(
    "endpoints.list_shape",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, listEndpoints; {CLIENT}",
    remedy='Answer {"items": [...]} with whole endpoints in it, as schemas/endpoints/endpoint_list.json says.',
    each=probes.LISTS,
    on=Usable.VALUE,
)
def list_shape(exchange: Exchange) -> Iterator[Finding]:
    """The list is an object whose `items` are whole endpoints.

    The official client reads every field of every item, and one that lacks any breaks the whole list.
    """
    found = problem("endpoints/endpoint_list.json", exchange.json)
    if found:
        yield Finding(found.expected, found.got, at=found.pointer or "body")


@check(
    "endpoints.list_unique",
    level=Level.MUST,
    lenses=[Lens.SPEC],
    source=f"{API}, CreateEndpointRequest: a unique name",
    remedy="List every endpoint once.",
    each=probes.LISTS,
    on=Usable.JSON,
)
def list_unique(exchange: Exchange) -> Iterator[Finding]:
    """No name is in the list twice.

    Names are the only keys that the routes take: of two under one name only one can be reached, and both cost.
    """
    seen: set[str] = set()
    for index, item in enumerate(objects(exchange.answer.get("items"))):
        name = item.get("name")
        if isinstance(name, str):
            if name in seen:
                yield Finding("every name once", f"{show(name)} again", at=f"/items/{index}/name")
                return
            seen.add(name)


@check(
    "endpoints.providers_served",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, listProviders",
    remedy="Serve GET /v2/provider.",
    each=probes.providers,
    on=Usable.COMPLETE,
)
def providers_served(exchange: Exchange) -> Iterator[Outcome]:
    """The list of clouds and regions is answered with 200.

    Callers must know where an endpoint can run before they ask for one.
    """
    yield from must_accept(exchange)


@check(
    "endpoints.providers_shape",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, Provider",
    remedy="Give each region its vendor, status and accelerators, as schemas/endpoints/provider_list.json says.",
    each=probes.providers,
    on=Usable.VALUE,
)
def providers_shape(exchange: Exchange) -> Iterator[Finding]:
    """The list of clouds and regions has the published shape.

    What is chosen from it goes into the body that makes an endpoint.
    """
    found = problem("endpoints/provider_list.json", exchange.json)
    if found:
        yield Finding(found.expected, found.got, at=found.pointer or "body")


@check(
    "endpoints.no_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, 401",
    remedy="Ask for a key before anything else, and answer 401 without one.",
    each=probes.no_key,
    on=Usable.COMPLETE,
)
def no_key(exchange: Exchange) -> Iterator[Finding]:
    """The list is not shown without a key.

    Whoever can list can often delete, and the owner pays for what others make.
    """
    if exchange.status is not None and exchange.status < 500 and exchange.status != 401:
        yield Finding("HTTP 401", _got(exchange), at="status")


@check(
    "endpoints.wrong_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, 401",
    remedy="Answer 401 to a key you do not know; 403 is for a known key that may not.",
    each=probes.wrong_key,
    on=Usable.COMPLETE,
)
def wrong_key(exchange: Exchange) -> Iterator[Finding]:
    """The list is not shown to a wrong key.

    A key that is not looked at protects nothing.
    """
    if exchange.status is not None and exchange.status < 500 and exchange.status != 401:
        yield Finding("HTTP 401", _got(exchange), at="status")


@check(
    "endpoints.not_found",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, getEndpoint: 404",
    remedy="Answer 404 to a name that was never given.",
    each=probes.unknown,
    on=Usable.COMPLETE,
)
def not_found(exchange: Exchange) -> Iterator[Outcome]:
    """An endpoint that does not exist is answered with 404.

    Clients wait for a deletion by asking until 404 comes; any other answer keeps them waiting or makes them fail.
    """
    if exchange.status is not None and exchange.status >= 500:
        yield NotApplicable("the server failed instead; see errors.no_5xx")
    elif exchange.status != 404:
        yield Finding("HTTP 404", _got(exchange), at="status")


@check(
    "endpoints.json",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, application/json",
    remedy="Answer with one JSON value and `Content-Type: application/json`; only logs are text.",
    each=(*probes.LISTS, probes.providers, probes.metrics, *probes.TELLING),
    on=Usable.COMPLETE,
)
def is_json(exchange: Exchange) -> Iterator[Outcome]:
    """Every successful answer is strict JSON and says so.

    Clients parse it before they look at anything else.
    """
    if not accepted(exchange):
        return
    if isinstance(exchange.json, Malformed):
        yield Finding("one JSON value", show(exchange.reply.body) or "an empty body", at="body")
    elif exchange.media_type != "application/json":
        yield Finding("application/json", exchange.media_type or "none", at="header Content-Type")


def _refusals(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """Refusals with a JSON object; what is wrong with other bodies of refused POSTs is told by errors.json."""
    return [
        x
        for x in exchanges
        if x.status is not None
        and 400 <= x.status < 500
        and (x.request.method != "POST" or isinstance(as_object(x.json).get("error"), str))
    ]


@check(
    "endpoints.error_shape",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, Error",
    remedy='Shape every error as {"statusCode": 404, "error": "one sentence"}.',
    across=probes.EVERY,
    on=Usable.COMPLETE,
)
def error_shape(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A refusal is an object with `statusCode` and a sentence in `error`.

    Callers show the sentence and branch on the number, which survives proxies that change the status.
    """
    for exchange in _refusals(exchanges):
        found = problem("endpoints/error.json", exchange.json if not isinstance(exchange.json, Malformed) else None)
        if found:
            yield Finding(found.expected, found.got, at=found.pointer or "body", exchange_id=exchange.id)
            return


@check(
    "endpoints.error_status",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, Error: statusCode is the HTTP status",
    remedy="Fill `statusCode` from the status that is sent.",
    across=probes.EVERY,
    on=Usable.COMPLETE,
)
def error_status(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """The `statusCode` of a refusal is its HTTP status.

    Two numbers that differ send callers two ways.
    """
    for exchange in _refusals(exchanges):
        told = as_object(exchange.json).get("statusCode")
        if is_number(told) and told != exchange.status:
            yield Finding(str(exchange.status), show(told), at="/statusCode", exchange_id=exchange.id)
            return


# Making


@check(
    "endpoints.invalid",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, createEndpoint: 400",
    remedy="Validate the body before anything is made.",
    each=probes.invalid,
    on=Usable.COMPLETE,
)
def invalid(exchange: Exchange) -> Iterator[Outcome]:
    """An endpoint without a model is not made.

    A machine that runs nothing is charged like any other.
    """
    yield from must_refuse(exchange, "the model is missing")


@check(
    "endpoints.created",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, createEndpoint",
    remedy="Serve POST /v2/endpoint/{namespace}; the exchange holds what was sent.",
    each=probes.create,
    on=Usable.COMPLETE,
)
def created(exchange: Exchange) -> Iterator[Outcome]:
    """A small endpoint can be made.

    It is what the whole API is for.
    """
    if exchange.status in (402, 403):
        yield Undecided(f"could not tell: the account may not make endpoints: {_got(exchange)}")
    else:
        yield from must_accept(exchange)


@check(
    "endpoints.created_status",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, createEndpoint: 201",
    remedy="Answer 201 when an endpoint was made.",
    each=probes.create,
    on=Usable.COMPLETE,
)
def created_status(exchange: Exchange) -> Iterator[Finding]:
    """The making of an endpoint is answered with 201.

    Generated clients take the body of no other status.
    """
    if accepted(exchange) and exchange.status != 201:
        yield Finding("HTTP 201", f"HTTP {exchange.status}", at="status")


@check(
    "endpoints.shape",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{CLIENT}; {API}, Endpoint",
    remedy="Compare the answer with schemas/endpoints/endpoint.json, field by field.",
    each=probes.TELLING,
    on=Usable.VALUE,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """What is told of an endpoint has the fields that the official client reads, and a state that it knows.

    The client reads them by name and raises where one is missing; an unknown state keeps it waiting for ever.
    """
    found = problem("endpoints/endpoint.json", exchange.json)
    if found:
        yield Finding(found.expected, found.got, at=found.pointer or "body")


@check(
    "endpoints.as_asked",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, createEndpoint",
    remedy="Make what was asked for, and tell it unchanged.",
    each=probes.create,
    on=Usable.VALUE,
)
def as_asked(exchange: Exchange) -> Iterator[Finding]:
    """The endpoint that was made is the one that was asked for.

    Another machine, region or model costs another price and may not be allowed.
    """
    wanted = {key: value for key, value in _wish(exchange).items() if key != "name"}
    # A branch may be told as the commit that it stood for, and a container with all its settings.
    wanted["model"] = {k: v for k, v in as_object(wanted.get("model")).items() if k not in ("image", "revision")}
    yield from _differences(wanted, exchange.answer)


@check(
    "endpoints.name",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, Endpoint: name",
    remedy="Answer about the endpoint that the path names, under the name that was given.",
    across=probes.TELLING,
    on=Usable.VALUE,
)
def name(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """Every answer is about the endpoint that was asked for, by its name.

    Clients take the name for all further requests, and would pause or delete another one.
    """
    wanted = next((_wish(x).get("name") for x in exchanges if x.probe == probes.create.id), None)
    if wanted is None:
        yield Undecided("could not tell: there is no usable answer to the making of the endpoint")
        return
    for exchange in exchanges:
        told = exchange.answer.get("name")
        if isinstance(told, str) and told != wanted:
            yield Finding(show(wanted), show(told), at="/name", exchange_id=exchange.id)
            return


@check(
    "endpoints.conflict",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, createEndpoint: 409",
    remedy="Answer 409 to a name that is in use.",
    each=probes.conflict,
    on=Usable.COMPLETE,
)
def conflict(exchange: Exchange) -> Iterator[Outcome]:
    """A name that is in use is refused with 409.

    A second endpoint of the same name runs unseen, or replaces one that serves; callers tell by 409 that it is there.
    """
    if exchange.status is not None and exchange.status >= 500:
        yield NotApplicable("the server failed instead; see errors.no_5xx")
    elif exchange.status != 409:
        yield Finding("HTTP 409", _got(exchange), at="status")


@check(
    "endpoints.conflict_changes_nothing",
    level=Level.MUST,
    lenses=[Lens.SPEC],
    source=f"{API}, createEndpoint: 409",
    remedy="Look for the name before anything is changed.",
    across=[probes.create, probes.conflict, probes.started],
    on=Usable.COMPLETE,
)
def conflict_changes_nothing(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A refused making leaves the endpoint of that name as it was.

    Otherwise a slip of the pen changes what serves, and what it costs.
    """
    refused, after = _last(exchanges, probes.conflict), _last(exchanges, probes.started)
    before = _last(exchanges, probes.create)
    if before is None or refused is None or after is None or not isinstance(after.json, dict) or not accepted(before):
        yield Undecided("could not tell: the endpoint cannot be read after the conflict")
    elif accepted(refused):
        yield NotApplicable("the second making was not refused; see endpoints.conflict")
    else:
        for finding in _differences({"compute": _configuration(before)["compute"]}, after.answer):
            yield Finding(finding.expected, finding.got, finding.at, exchange_id=after.id)


def _names(exchange: Exchange) -> list[Any]:
    return [item.get("name") for item in objects(exchange.answer.get("items"))]


@check(
    "endpoints.listed",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, listEndpoints",
    remedy="List an endpoint from the moment that its making is answered.",
    joint=[probes.create, probes.listed],
    on=Usable.VALUE,
)
def listed(made: Exchange, exchange: Exchange) -> Iterator[Outcome]:
    """A new endpoint is in the list.

    What is not listed is forgotten, and paid for.
    """
    wanted = _wish(made).get("name")
    if not isinstance(exchange.json, dict):
        yield Undecided("could not tell: the list cannot be read; see endpoints.list_shape")
    elif wanted not in _names(exchange):
        yield Finding(f"{show(wanted)} among the items", show(_names(exchange)), at="/items", exchange_id=exchange.id)


# Living


@check(
    "endpoints.starts",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, Endpoint: state; {CLIENT}, wait",
    remedy="Look at the endpoint's log; it must come to `running` by itself.",
    across=[probes.started],
    on=Usable.VALUE,
)
def starts(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A new endpoint comes to run.

    Clients wait for `running`; those that wait for an endpoint that failed or stopped wait in vain.
    """
    last = exchanges[-1]
    now = state(last)
    if now in probes.COMING_UP:
        yield Undecided(f"it was still {now} when the time was over; --timeout gives it more")
    elif now not in ("running", None) and now in BY_ITSELF:
        told = _status(last).get("message")
        yield Finding("running", f"{now}: {show(told)}" if told else str(now), at="/status/state", exchange_id=last.id)


@check(
    "endpoints.address",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, Endpoint: status.url; {CLIENT}, url",
    remedy="Tell the endpoint's own address in `status.url` while it runs.",
    each=[probes.started, probes.updated, probes.resumed],
    on=Usable.VALUE,
)
def address(exchange: Exchange) -> Iterator[Outcome]:
    """A running endpoint tells the address where it answers.

    Without it there is nothing to call, and the client counts the endpoint as not yet deployed.
    """
    if state(exchange) != "running":
        yield NotApplicable("it does not run yet")
        return
    told = _status(exchange).get("url")
    try:
        parts = urlsplit(told) if isinstance(told, str) else None
        good = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        yield Finding("an absolute URL", show(told), at="/status/url")


@check(
    "endpoints.transitions",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, Endpoint: state, and the orders that lead from one to another",
    remedy="Let an endpoint change its state only as it was told, or on its way up.",
    across=probes.TELLING,
    on=Usable.VALUE,
)
def transitions(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """Every change of state is one that the endpoint was told, or that leads it up.

    What is paused must not wake by itself, for it costs; what runs must not stop, for somebody calls it.
    """
    before: str | None = None
    ordered: set[str] = set()
    for exchange in exchanges:
        ordered = TOLD.get(exchange.probe, ordered)
        now = state(exchange)
        if now is None or now not in BY_ITSELF:
            continue
        if before is None and now not in BY_ITSELF["pending"]:
            yield Finding("pending, or a state on its way up", now, at="/status/state", exchange_id=exchange.id)
        elif before is not None and now not in BY_ITSELF[before] | ordered:
            legal = ", ".join(sorted(BY_ITSELF[before] | ordered))
            yield Finding(f"after {before}: {legal}", now, at="/status/state", exchange_id=exchange.id)
        before = now


@check(
    "endpoints.resume_keeps",
    level=Level.MUST,
    lenses=[Lens.SPEC],
    source=f"{API}, resumeEndpoint: a previously paused endpoint",
    remedy="Refuse to resume what runs, or do nothing.",
    across=[probes.started, probes.resume_running, probes.update],
    on=Usable.COMPLETE,
)
def resume_keeps(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """Resuming what runs is refused or does nothing: it goes on running.

    Scripts resume to be sure, and must not take down what serves.
    """
    before, after = _last(exchanges, probes.started), _last(exchanges, probes.update)
    if before is None or after is None or state(before) != "running":
        yield Undecided("could not tell: it was not running before")
    elif state(after) is None:
        yield Undecided(f"could not tell: {_got(after)}")
    elif state(after) not in ON_ITS_WAY - {"failed"} and state(after) in BY_ITSELF:
        yield Finding("running", show(state(after)), at="/status/state", exchange_id=after.id)


@check(
    "endpoints.update",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, updateEndpoint",
    remedy="Take a PUT with any part of the configuration, and lay it over what is there.",
    across=[probes.update, probes.updated],
    on=Usable.COMPLETE,
)
def update(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A change is accepted, and can be read afterwards.

    Callers that were told of success rely on the new size; without it their endpoint cannot carry the load.
    """
    sent, after = _last(exchanges, probes.update), _last(exchanges, probes.updated)
    if sent is None or not accepted(sent):
        yield from must_accept(sent) if sent is not None else (Undecided("could not tell: the change was not sent"),)
    elif after is None or not isinstance(after.json, dict):
        yield Undecided("could not tell: the endpoint cannot be read after the change")
    else:
        for finding in _differences(_wish(sent), after.answer):
            yield Finding(finding.expected, finding.got, finding.at, exchange_id=after.id)


@check(
    "endpoints.update_only",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, UpdateEndpointRequest: nothing is required; {CLIENT}, update",
    remedy="Merge the body into the stored configuration, object by object; defaults are for new endpoints only.",
    across=[probes.started, probes.update, probes.updated],
    on=Usable.COMPLETE,
)
def update_only(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A change changes only what was sent.

    The official client sends only what its caller names; whatever else is reset costs money or takes down a service.
    """
    before, after = _around_the_update(exchanges)
    if before is None or after is None:
        yield Undecided("could not tell: the endpoint cannot be read before and after an accepted change")
        return
    for finding in _differences(_configuration(before, "maxReplica"), after.answer):
        yield Finding(finding.expected, finding.got, finding.at, exchange_id=after.id)


def _around_the_update(exchanges: Sequence[Exchange]) -> tuple[Exchange | None, Exchange | None]:
    """The endpoint before an accepted change and when it was done, where both can be read."""
    before, sent, after = (_last(exchanges, p) for p in (probes.started, probes.update, probes.updated))
    if not accepted(sent):
        return None, None
    readable = [x if x is not None and accepted(x) and isinstance(x.json, dict) else None for x in (before, after)]
    return readable[0], readable[1]


@check(
    "endpoints.bad_update",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, updateEndpoint: 400",
    remedy="Validate a change as you validate a new endpoint.",
    each=probes.bad_update,
    on=Usable.COMPLETE,
)
def bad_update(exchange: Exchange) -> Iterator[Outcome]:
    """A number of copies below none is refused.

    Accepted, it is a promise that nobody can keep, and hides the caller's mistake.
    """
    yield from must_refuse(exchange, "minReplica must not be negative")


@check(
    "endpoints.bad_update_changes_nothing",
    level=Level.MUST,
    lenses=[Lens.SPEC],
    source=f"{API}, updateEndpoint: 400",
    remedy="Validate the whole body before any of it is stored.",
    across=[probes.updated, probes.bad_update, probes.pause],
    on=Usable.COMPLETE,
)
def bad_update_changes_nothing(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A refused change leaves the endpoint as it was.

    Callers that were refused believe that nothing has changed.
    """
    before, sent = _last(exchanges, probes.updated), _last(exchanges, probes.bad_update)
    after = _last(exchanges, probes.pause)
    if before is None or sent is None or after is None or state(before) is None or state(after) is None:
        yield Undecided("could not tell: the endpoint cannot be read before and after the refused change")
    elif accepted(sent):
        yield NotApplicable("the change was not refused; see endpoints.bad_update")
    else:
        for finding in _differences(_configuration(before), after.answer):
            yield Finding(finding.expected, finding.got, finding.at, exchange_id=after.id)


def _order(exchanges: Sequence[Exchange], told: Any, after: Any, wanted: str, before: Any = None) -> Iterator[Outcome]:
    """Fails where an order is refused, or has not led where it should."""
    sent, seen = _last(exchanges, told), _last(exchanges, after)
    first = _last(exchanges, before) if before is not None else None
    if before is not None and (first is None or state(first) != ("paused" if told is probes.resume else "running")):
        yield Undecided("could not tell: the endpoint was not in the state that this order is for")
    elif sent is None:
        yield Undecided("could not tell: the order was not answered")
    elif not accepted(sent):
        yield from must_accept(sent)
    elif seen is None or state(seen) is None:
        yield Undecided("could not tell: the endpoint cannot be read after the order")
    elif state(seen) in probes.COMING_UP:
        yield Undecided(f"it was still {state(seen)} when the time was over; --timeout gives it more")
    elif state(seen) != wanted and state(seen) in BY_ITSELF:
        yield Finding(wanted, show(state(seen)), at="/status/state", exchange_id=seen.id)


@check(
    "endpoints.pause",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, pauseEndpoint",
    remedy="Stop all copies, and tell `paused`.",
    across=[probes.pause, probes.paused],
    on=Usable.COMPLETE,
)
def pause(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """An endpoint that is told to pause comes to be paused.

    Owners pause to stop paying.
    """
    yield from _order(exchanges, probes.pause, probes.paused, "paused")


@check(
    "endpoints.resume",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, resumeEndpoint",
    remedy="Bring a paused endpoint up again.",
    across=[probes.paused, probes.resume, probes.resumed],
    on=Usable.COMPLETE,
)
def resume(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A paused endpoint that is told to resume comes to run.

    Callers wait for it in production.
    """
    yield from _order(exchanges, probes.resume, probes.resumed, "running", before=probes.paused)


@check(
    "endpoints.scale_to_zero",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, scaleToZero",
    remedy="Stop all copies, tell `scaledToZero`, and start again with the next request.",
    across=[probes.resumed, probes.scale, probes.scaled],
    on=Usable.COMPLETE,
)
def scale_to_zero(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A running endpoint that is told to scale to zero comes to have no copy.

    Owners stop paying with it without taking the service away.
    """
    yield from _order(exchanges, probes.scale, probes.scaled, "scaledToZero", before=probes.resumed)


# Time


@check(
    "endpoints.timestamps",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, format date-time; RFC 3339, section 5.6",
    remedy="Write times as 2026-01-15T10:30:00Z, with a zone.",
    each=probes.TELLING,
    on=Usable.VALUE,
)
def timestamps(exchange: Exchange) -> Iterator[Finding]:
    """The times of an endpoint are those of RFC 3339.

    Clients parse them at once, and raise where they cannot; without a zone they are hours off.
    """
    for key in ("createdAt", "updatedAt"):
        told = _status(exchange).get(key)
        if isinstance(told, str) and _moment(told) is None:
            yield Finding("a date and time of RFC 3339", show(told), at=f"/status/{key}")
            return


@check(
    "endpoints.created_at",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, Endpoint: createdAt",
    remedy="Store the time once, when the endpoint is made.",
    across=probes.TELLING,
    on=Usable.VALUE,
)
def created_at(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """The time when an endpoint was made never changes.

    Bills are made of it.
    """
    times = [(x, moment) for x in exchanges if (moment := _moment(_status(x).get("createdAt")))]
    for exchange, moment in times:
        # Some stores keep fewer digits than the first answer told.
        if abs(moment - times[0][1]) > SLACK:
            expected = times[0][1].isoformat()
            yield Finding(expected, moment.isoformat(), at="/status/createdAt", exchange_id=exchange.id)
            return


@check(
    "endpoints.time_order",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, Endpoint: createdAt, updatedAt",
    remedy="Take both times from one clock, in UTC.",
    across=probes.TELLING,
    on=Usable.VALUE,
)
def time_order(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """An endpoint is never changed before it was made, nor earlier than at its last change.

    Tools that look for what is new since their last visit would miss it.
    """
    latest: datetime | None = None
    for exchange in exchanges:
        made, changed = (_moment(_status(exchange).get(key)) for key in ("createdAt", "updatedAt"))
        if changed is None:
            continue
        if made is not None and made - changed > SLACK:
            got = f"{changed.isoformat()}, before createdAt {made.isoformat()}"
            yield Finding("not before createdAt", got, at="/status/updatedAt", exchange_id=exchange.id)
            return
        if latest is not None and latest - changed > SLACK:
            got = f"{changed.isoformat()}, after {latest.isoformat()} was told"
            yield Finding("not before the last one", got, at="/status/updatedAt", exchange_id=exchange.id)
            return
        latest = changed if latest is None else max(changed, latest)


def _clock(exchange: Exchange) -> datetime:
    """The server's clock at an answer, or ours where it tells none."""
    try:
        told = parsedate_to_datetime(exchange.reply.header("date") or "")
    except (TypeError, ValueError, IndexError, OverflowError):
        told = datetime.fromisoformat(exchange.started_at) if exchange.started_at else datetime.now(UTC)
    return told if told.tzinfo else told.replace(tzinfo=UTC)


@check(
    "endpoints.updated_at",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, Endpoint: updatedAt",
    remedy="Set `updatedAt` whenever the endpoint's configuration changes.",
    across=[probes.started, probes.update, probes.updated],
    on=Usable.COMPLETE,
)
def updated_at(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A change is told by a later `updatedAt`.

    Tools that keep a copy look at it to know whether to read the endpoint again.
    """
    before, after = _around_the_update(exchanges)
    if before is None or after is None:
        yield Undecided("could not tell: the endpoint cannot be read before and after an accepted change")
        return
    old, new = (_moment(_status(x).get("updatedAt")) for x in (before, after))
    if old is None or new is None:
        yield Undecided("could not tell: there is no time to compare; see endpoints.timestamps and endpoints.shape")
    elif new <= old:
        exact = bool(old.microsecond or new.microsecond)
        if exact or _clock(after) - new > STALE_AFTER:
            yield Finding(
                f"later than {old.isoformat()}", new.isoformat(), at="/status/updatedAt", exchange_id=after.id
            )


# Logs and metrics


@check(
    "endpoints.logs",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, getEndpointLogs: text/plain",
    remedy="Serve the container's log as text/plain.",
    each=probes.logs,
    on=Usable.COMPLETE,
)
def logs(exchange: Exchange) -> Iterator[Outcome]:
    """The log of an endpoint is served as plain text.

    It is the only way to learn why an endpoint does not start.
    """
    if not accepted(exchange):
        yield from must_accept(exchange)
    elif exchange.media_type != "text/plain":
        yield Finding("text/plain", exchange.media_type or "none", at="header Content-Type")
    else:
        try:
            exchange.reply.body.decode()
        except UnicodeDecodeError as error:
            yield Finding("text in UTF-8", f"{error.reason} at byte {error.start}", at="body")


@check(
    "endpoints.metrics",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, getEndpointMetrics",
    remedy="Serve the metrics as schemas/endpoints/metrics.json says.",
    each=probes.metrics,
    on=Usable.COMPLETE,
)
def metrics(exchange: Exchange) -> Iterator[Outcome]:
    """The metrics of an endpoint have the published shape: counts and times, none of them below zero.

    Boards and alarms are drawn from them.
    """
    if not accepted(exchange):
        yield from must_accept(exchange)
    elif not isinstance(exchange.json, Malformed):
        found = problem("endpoints/metrics.json", exchange.json)
        if found:
            yield Finding(found.expected, found.got, at=found.pointer or "body")


@check(
    "endpoints.percentiles",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, EndpointMetrics: request_duration_ms",
    remedy="Compute the percentiles from one window of time.",
    each=probes.metrics,
    on=Usable.JSON,
)
def percentiles(exchange: Exchange) -> Iterator[Finding]:
    """Half of the requests are not slower than nine of ten, nor those than ninety-nine of a hundred.

    Percentiles out of order are of different requests, and no alarm that is set on them means anything.
    """
    times = as_object(exchange.answer.get("request_duration_ms"))
    told = [(key, times[key]) for key in ("p50", "p90", "p99") if is_number(times.get(key))]
    for (low, small), (high, large) in pairwise(told):
        if small > large:
            yield Finding(f"{low} at most {high}", f"{small} and {large}", at=f"/request_duration_ms/{low}")
            return


# Ending


@check(
    "endpoints.delete",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, deleteEndpoint",
    remedy="Answer 200 to DELETE in whatever state the endpoint is.",
    each=probes.delete,
    on=Usable.COMPLETE,
)
def delete(exchange: Exchange) -> Iterator[Outcome]:
    """An endpoint can be deleted.

    What cannot be deleted is paid for.
    """
    yield from must_accept(exchange)


@check(
    "endpoints.gone",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, getEndpoint: 404",
    remedy="Answer 404 for a deleted endpoint.",
    across=[probes.delete, probes.gone],
    on=Usable.COMPLETE,
)
def gone(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A deleted endpoint is answered with 404.

    One that is still there goes on costing, and clients wait for its end.
    """
    sent, after = _last(exchanges, probes.delete), _last(exchanges, probes.gone)
    if sent is None or not accepted(sent):
        yield NotApplicable("it was not deleted; see endpoints.delete")
    elif after is None or (after.status is not None and after.status >= 500):
        yield Undecided("could not tell: there is no answer about the deleted endpoint")
    elif after.status != 404:
        yield Finding("HTTP 404", _got(after), at="status", exchange_id=after.id)


@check(
    "endpoints.unlisted",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, listEndpoints",
    remedy="Take a deleted endpoint out of the list.",
    joint=[probes.create, probes.delete, probes.gone, probes.unlisted],
    on=Usable.COMPLETE,
)
def unlisted(made: Exchange, deleted: Exchange, after: Exchange, exchange: Exchange) -> Iterator[Outcome]:
    """A deleted endpoint is not in the list any more.

    Tools delete what they find there, again and again.
    """
    if not accepted(deleted) or after.status != 404:
        yield NotApplicable("it is not gone; see endpoints.delete and endpoints.gone")
    elif not isinstance(exchange.json, dict):
        yield Undecided("could not tell: the list cannot be read")
    elif _wish(made).get("name") in _names(exchange):
        got = f"{show(_wish(made).get('name'))} among the items"
        yield Finding("no such item", got, at="/items", exchange_id=exchange.id)


@check(
    "endpoints.delete_again",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, deleteEndpoint: 404",
    remedy="Answer 404 to the deletion of what is not there.",
    joint=[probes.gone, probes.delete_again],
    on=Usable.COMPLETE,
)
def delete_again(after: Exchange, exchange: Exchange) -> Iterator[Outcome]:
    """The deletion of what was deleted already is answered with 404.

    Callers tell by it a slip of the pen from a deletion that was done.
    """
    if after.status != 404:
        yield NotApplicable("it is not gone; see endpoints.gone")
    elif exchange.status is not None and exchange.status < 500 and exchange.status != 404:
        yield Finding("HTTP 404", _got(exchange), at="status", exchange_id=exchange.id)


@check(
    "endpoints.list_agrees",
    level=Level.SHOULD,
    lenses=BOTH,
    source=f"{API}, listEndpoints: whole endpoints",
    remedy="Fill the list from where single endpoints are read.",
    joint=[probes.create, probes.listed],
    on=Usable.VALUE,
)
def list_agrees(made: Exchange, exchange: Exchange) -> Iterator[Outcome]:
    """The list tells of an endpoint what its own route tells.

    Boards are filled from the list, and decisions are made by them.
    """
    items = objects(exchange.answer.get("items"))
    own = next((item for item in items if item.get("name") == _wish(made).get("name")), None)
    if own is None:
        yield NotApplicable("it is not in the list; see endpoints.listed")
    else:
        # The conflict in between asks for another number of copies; whether it was obeyed is a check of its own.
        for finding in _differences(_configuration(made, "maxReplica"), own, "/items/*"):
            yield Finding(finding.expected, finding.got, finding.at, exchange_id=exchange.id)


@check(
    "endpoints.account",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, Endpoint: accountId",
    remedy="Tell the account that the endpoint was made in.",
    across=probes.TELLING,
    on=Usable.VALUE,
)
def account(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """An endpoint belongs to one account all its life.

    Costs are shared out by it.
    """
    known = [(x, told) for x in exchanges if isinstance(told := x.answer.get("accountId"), str)]
    for exchange, told in known:
        if told != known[0][1]:
            yield Finding(show(known[0][1]), show(told), at="/accountId", exchange_id=exchange.id)
            return


@check(
    "endpoints.not_cached",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source="RFC 9111, section 5.2.2",
    remedy="Send `Cache-Control: no-store` with everything that changes by itself.",
    each=[probes.started, probes.paused, probes.scaled],
    on=Usable.SUCCESS,
)
def not_cached(exchange: Exchange) -> Iterator[Finding]:
    """What is told of an endpoint may not be kept by caches on the way.

    Clients that wait for a state would be shown an old one again and again.
    """
    told = (exchange.reply.header("cache-control") or "").lower()
    age = re.search(r"(?:s-)?max-?age\s*=\s*\"?0*([1-9]\d*)", told)
    if age and not re.search(r"no-store|no-cache", told):
        yield Finding("no-store, no-cache or no age", show(told), at="header Cache-Control")


@check(
    "endpoints.created_now",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, Endpoint: createdAt",
    remedy="Take the time of making from the clock, in UTC.",
    each=probes.create,
    on=Usable.VALUE,
)
def created_now(exchange: Exchange) -> Iterator[Outcome]:
    """A new endpoint was made now, by the server's own clock.

    Whoever counts hours from a wrong time counts a wrong price.
    """
    told = _moment(_status(exchange).get("createdAt"))
    if told is None:
        yield NotApplicable("there is no time; see endpoints.shape and endpoints.timestamps")
    elif abs(_clock(exchange) - told) > timedelta(minutes=5):
        yield Finding(f"about {_clock(exchange).isoformat()}", told.isoformat(), at="/status/createdAt")


@check(
    "endpoints.error_rate",
    level=Level.SHOULD,
    lenses=[Lens.SPEC],
    source=f"{API}, EndpointMetrics: error_rate",
    remedy="Divide the failed requests by all requests.",
    each=probes.metrics,
    on=Usable.SUCCESS,
)
def error_rate(exchange: Exchange) -> Iterator[Finding]:
    """The share of failed requests is at most all of them, as a fraction or in percent.

    A rate above all is a count, and alarms set on a share go off for ever.
    """
    told = exchange.answer.get("error_rate")
    if is_number(told) and told > 100:
        yield Finding("at most 1, or 100 percent", show(told), at="/error_rate")
