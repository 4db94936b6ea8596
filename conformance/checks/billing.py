"""Checks of the cost endpoint: what the hub charges its users, it reads there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, as_object
from roadworthy.conformance.facts import BillingKey, Facts
from roadworthy.conformance.price import MILLION, Tariff, published_tariff
from roadworthy.conformance.probes import billing as probes
from roadworthy.conformance.probes.billing import ASKING
from roadworthy.conformance.reading.billing import (
    LARGEST_NANO_USD,
    Usage,
    asked,
    charged_nano_usd,
    costs,
    entries,
    pending,
    refused,
    served,
    settled,
    streamed,
    usage,
)
from roadworthy.conformance.subject import CHAT
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, is_number, show
from roadworthy.http.message import FailureKind

GUIDE = "registration guide, 4. Billing, HTTP API Specs"
NEWER = f"{GUIDE} (as of 2026-06-23)"
UNIT = "registration guide, 4. Billing, Price Unit"
PRICES = "registration guide, Exposing pricing through OpenAI /models routes"
HUB = (Lens.HUB,)
UNREADABLE = "an answer cannot be read; see billing.json and billing.shape"
CAME_TWICE = "ids are told twice; see billing.ids.once"
NOTHING_SETTLED = NotApplicable("no cost was told; see billing.settled.whole and billing.settled.streams")
PRICED_TASKS = (CHAT, "text-generation", "feature-extraction")
"""Tasks that are paid by the token of text; what others tell as usage may be priced otherwise."""
LISTS = ("discovery.models", "responses.models", "billing.models")
NANO = 1_000_000_000


def _status(exchange: Exchange) -> str:
    failure = exchange.reply.failure
    if exchange.status is None or not exchange.complete:
        return failure.message if failure else "no answer"
    return f"HTTP {exchange.status}: {show(exchange.reply.body)}"


def _ids(ids: Sequence[str]) -> str:
    """Some ids as evidence."""
    more = f" and {len(ids) - 3:,} more" if len(ids) > 3 else ""
    return f"{', '.join(map(show, ids[:3]))}{more}"


def _of(exchanges: Sequence[Exchange], *ids: str) -> list[Exchange]:
    return [exchange for exchange in exchanges if exchange.probe in ids]


def _values(exchange: Exchange) -> Iterator[tuple[str, Any]]:
    """Every cost of an answer with its place."""
    for place, entry in enumerate(entries(exchange) or ()):
        yield f"/requests/{place}/costNanoUsd", entry["costNanoUsd"]


# The answer


@check(
    "billing.answered",
    level=Level.MUST,
    lenses=HUB,
    source=GUIDE,
    remedy="Serve POST at this URL with the keys of your inference API. Where another key is meant for it, name it "
    "with --billing-api-key-env.",
    each=probes.settle,
    on=Usable.RESPONSE,
)
def answered(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A POST with the ids of requests just made is answered with HTTP 200.

    The hub asks every minute; while it gets no answer nobody is charged, and after half an hour it gives up.
    """
    own = facts.billing is not None and facts.billing.key is not BillingKey.SHARED
    if exchange.status in (401, 403) and own:
        yield Undecided(
            f"could not tell: HTTP {exchange.status}, the key of the cost endpoint was refused or is missing"
        )
    elif exchange.status != 200 or not exchange.complete:
        yield Finding("HTTP 200", _status(exchange), at="status")


@check(
    "billing.json",
    level=Level.MUST,
    lenses=HUB,
    source=GUIDE,
    remedy="Write the answer with a JSON library, from one object.",
    each=ASKING,
    on=Usable.SUCCESS,
)
def is_json(exchange: Exchange) -> Iterator[Finding]:
    """The answer is one JSON object, each key in it once, with no NaN.

    Of two costs under one key, readers take either; an answer that cannot be parsed charges nobody.
    """
    if isinstance(exchange.json, Malformed):
        yield Finding("a JSON object", f"{exchange.json.reason}: {show(exchange.reply.body)}", at="body")
    elif not isinstance(exchange.json, dict):
        yield Finding("a JSON object", show(exchange.json), at="body")


@check(
    "billing.content_type",
    level=Level.SHOULD,
    lenses=HUB,
    source=GUIDE,
    remedy="Send `Content-Type: application/json`.",
    each=ASKING,
    on=Usable.SUCCESS,
)
def content_type(exchange: Exchange) -> Iterator[Finding]:
    """The answer says that it is JSON.

    Readers that go by the label take anything else for a web page.
    """
    if exchange.media_type != "application/json":
        got = exchange.reply.header("content-type") or "none"
        yield Finding("application/json", show(got), at="header Content-Type")


@check(
    "billing.shape",
    level=Level.MUST,
    lenses=HUB,
    source=NEWER,
    remedy='Answer {"requests": [{"requestId": "...", "costNanoUsd": 100}]}; [] or null where there is none to tell.',
    each=ASKING,
    on=Usable.JSON,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """`requests` is an array of objects with `requestId` and `costNanoUsd`, or null where there is none.

    The hub reads these names; under others it finds no cost.
    """
    if "requests" not in exchange.answer:
        yield Finding("the key `requests`", show(exchange.answer), at="/requests")
        return
    told = exchange.answer["requests"]
    if not isinstance(told, list | None):
        yield Finding("an array or null", show(told), at="/requests")
        return
    for place, entry in enumerate(told or ()):
        at = f"/requests/{place}"
        if not isinstance(entry, dict):
            yield Finding("an object", show(entry), at=at)
            return
        if not isinstance(entry.get("requestId"), str):
            yield Finding("requestId, a text", show(entry), at=at)
            return
        if "costNanoUsd" not in entry:
            yield Finding("costNanoUsd, an integer", show(entry), at=at)
            return


# Each cost


@check(
    "billing.cost.number",
    level=Level.MUST,
    lenses=HUB,
    source=f"{UNIT}; {NEWER}",
    remedy="Write the cost as a JSON number; leave a request out while its cost is not known.",
    each=ASKING,
    on=Usable.JSON,
)
def cost_number(exchange: Exchange) -> Iterator[Finding]:
    """Every `costNanoUsd` is a number: no text, no null, no boolean.

    The hub passes over what it cannot read, asks again for half an hour, and then charges nothing.
    """
    for at, value in _values(exchange):
        if not is_number(value):
            yield Finding("an integer of nano-USD", show(value), at=at)
            return


@check(
    "billing.cost.integer",
    level=Level.SHOULD,
    lenses=HUB,
    source=f"{UNIT}; {NEWER}",
    remedy="Round to whole nano-USD yourself, with integers or decimals, and write no point and no exponent.",
    each=ASKING,
    on=Usable.JSON,
)
def cost_integer(exchange: Exchange) -> Iterator[Finding]:
    """Every `costNanoUsd` is written as an integer: not 1.5, nor 1.0 or 1e3.

    The hub rounds fractions up, so its sum is not yours; typed readers refuse 1.0.
    """
    for at, value in _values(exchange):
        if is_number(value) and not is_integer(value):
            yield Finding("an integer of nano-USD", show(value), at=at)
            return


@check(
    "billing.cost.not_negative",
    level=Level.MUST,
    lenses=HUB,
    source=f"{UNIT}; {NEWER}",
    remedy="Send 0 or more; what you owe a user is no cost of a request.",
    each=ASKING,
    on=Usable.JSON,
)
def cost_not_negative(exchange: Exchange) -> Iterator[Finding]:
    """No `costNanoUsd` is negative.

    The hub passes over negative costs, and gives up on the request after half an hour.
    """
    for at, value in _values(exchange):
        if is_number(value) and value < 0:
            yield Finding("0 or more", show(value), at=at)
            return


@check(
    "billing.cost.fits",
    level=Level.MUST,
    lenses=HUB,
    source=UNIT,
    remedy="Look for a multiplication done twice: a nano-USD is a billionth of a dollar.",
    each=ASKING,
    on=Usable.JSON,
)
def cost_fits(exchange: Exchange) -> Iterator[Finding]:
    """Every `costNanoUsd` fits into a signed integer of 64 bits.

    Beyond it, at nine billion dollars, columns and counters overflow, and a whole batch is lost with them.
    """
    for at, value in _values(exchange):
        if is_number(value) and value > LARGEST_NANO_USD:
            yield Finding(f"at most {LARGEST_NANO_USD:,}", show(value), at=at)
            return


# Ids


@check(
    "billing.ids.asked",
    level=Level.MUST,
    lenses=HUB,
    source=GUIDE,
    remedy="Echo each id byte for byte, and only the ids of the request.",
    each=ASKING,
    on=Usable.JSON,
)
def ids_asked(exchange: Exchange) -> Iterator[Finding]:
    """Every `requestId` of the answer is one that was asked, letter for letter.

    A cost under an id in capitals is the cost of no request; a cost of somebody else's request charges them twice.
    """
    wanted = set(asked(exchange))
    for place, entry in enumerate(entries(exchange) or ()):
        if entry["requestId"] not in wanted:
            near = next((id for id in wanted if id.strip().lower() == entry["requestId"].strip().lower()), None)
            expected = f"{show(near)}, as it was asked" if near else "only ids that were asked"
            yield Finding(expected, show(entry["requestId"]), at=f"/requests/{place}/requestId")
            return


@check(
    "billing.ids.once",
    level=Level.MUST,
    lenses=HUB,
    source=GUIDE,
    remedy="Add up what belongs to one request before you answer, and list it once.",
    each=ASKING,
    on=Usable.JSON,
)
def ids_once(exchange: Exchange) -> Iterator[Finding]:
    """No request is listed twice in one answer.

    The reader charges the first, the last, or both.
    """
    for id, count in Counter(entry["requestId"] for entry in entries(exchange) or ()).items():
        if count > 1:
            got = f"{show(id)} {count} times"
            yield Finding("each request once", got, at="/requests")
            return


def _missing(
    exchanges: Sequence[Exchange], others: Sequence[Exchange], facts: Facts, *, streams: bool
) -> Iterator[Outcome]:
    """Whether the cost of every request of a kind came in time."""
    ids = [id for id, made in served(others, facts).items() if streamed(made[0]) is streams]
    ids = [id for id in ids if any(id in asked(exchange) for exchange in exchanges)]
    if not ids:
        yield NotApplicable(f"no {'streamed' if streams else 'whole'} answer carried a request id")
        return
    if any(entries(exchange) is None for exchange in exchanges):
        yield Undecided(UNREADABLE)
        return
    told = settled(exchanges)
    missing = [id for id in ids if id not in told]
    if not missing:
        return
    strange = {id for exchange in exchanges for id in costs(exchange) if id not in asked(exchange)}
    polls = max(exchange.trial for exchange in exchanges)
    limit_s = facts.limits.billing_timeout_s
    if strange:
        yield Undecided("the answers name ids that were not asked; see billing.ids.asked")
    elif polls <= len(probes.waits_s(limit_s)):
        yield Undecided(f"asking ended before {limit_s:g} s were over")
    else:
        last = max(exchanges, key=lambda exchange: exchange.trial)
        yield Finding(
            f"the cost of each of {len(ids)} requests within {limit_s:g} s",
            f"{len(missing)} without one, asked {polls} times: {_ids(missing)}",
            at="/requests",
            exchange_id=last.id,
            note=f"for example {', '.join(x.id for id in missing[:3] for x in served(others, facts)[id][:1])}",
        )


@check(
    "billing.settled.whole",
    level=Level.MUST,
    lenses=HUB,
    source=f"{NEWER}; How to define the request ID",
    remedy="Book each request under the id of its header before you answer it. Where your costs take longer by design, "
    "say so with --billing-timeout.",
    across=[probes.settle],
    on=Usable.COMPLETE,
)
def settled_whole(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """The cost of every unstreamed request is told in time.

    The hub asks every minute and gives up after half an hour: then the user is not charged, and you are not paid.
    """
    yield from _missing(exchanges, others, facts, streams=False)


@check(
    "billing.settled.streams",
    level=Level.MUST,
    lenses=HUB,
    source=f"{NEWER}; How to define the request ID",
    remedy="Book a stream when it ends, under the id that its header had when it began.",
    across=[probes.settle],
    on=Usable.COMPLETE,
)
def settled_streams(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """The cost of every streamed request is told in time.

    Most chats are streamed, and often booked by other code than whole answers.
    """
    yield from _missing(exchanges, others, facts, streams=True)


# Amounts


def _tariffs(others: Sequence[Exchange]) -> Exchange | None:
    return next((x for x in others if x.probe in LISTS and x.status == 200), None)


def _compared(
    exchanges: Sequence[Exchange], others: Sequence[Exchange], facts: Facts
) -> Iterator[tuple[Finding, Tariff, Usage, int]]:
    """The requests whose cost can be worked out: where the cost stands (a finding yet without words), what it is."""
    listed = _tariffs(others) if facts.task in PRICED_TASKS else None
    told = settled(exchanges)
    for id, made in served(others, facts).items():
        if id not in told or len(made) > 1 or listed is None:
            continue
        value, exchange, place = told[id]
        model = as_object(made[0].sent).get("model", facts.model)
        tariff = published_tariff(listed, model) if isinstance(model, str) else None
        took = usage(made[0])
        charged = charged_nano_usd(value)
        if tariff is None or took is None or charged is None:
            continue
        note = f"{_sum(tariff, took)}; by the usage of {made[0].id} and the price in {listed.id}"
        at = f"/requests/{place}/costNanoUsd"
        yield Finding("", f"{charged:,} nano-USD", at=at, note=note, exchange_id=exchange.id), tariff, took, charged


def _sum(tariff: Tariff, took: Usage) -> str:
    """How a cost comes about, in words."""
    price = tariff.price
    exact = price.cost_nano_usd(took.input_tokens, took.output_tokens)
    cached = f", {took.cached_tokens:,} of them cached," if took.cached_tokens else ""
    return (
        f"input of {took.input_tokens:,}{cached} and output of {took.output_tokens:,} tokens at {price.describe()} "
        f"make {exact:,} nano-USD{' at most' if cached else ''}"
    )


def _nothing(exchanges: Sequence[Exchange], others: Sequence[Exchange], facts: Facts) -> Outcome:
    if not settled(exchanges):
        return NOTHING_SETTLED
    if facts.task not in PRICED_TASKS:
        return NotApplicable(f"{facts.task} is not priced by the token of text")
    if _tariffs(others) is None:
        return NotApplicable("there is no list of models with prices")
    return NotApplicable("no request has both: a price by the token in /models, and a usage that adds up")


@check(
    "billing.cost.price",
    level=Level.MUST,
    lenses=HUB,
    source=f"registration guide, 4. Billing; {PRICES}",
    remedy="Work the cost out from the usage that you send and the price that you publish, in integers of nano-USD.",
    across=[probes.settle],
    on=Usable.JSON,
)
def cost_price(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """The cost of a request is its usage times the published price, up to rounding; cached input may be cheaper.

    Users pay what this endpoint tells, having chosen you by what `/models` says.
    """
    known = False
    for finding, tariff, took, charged in _compared(exchanges, others, facts):
        known = True
        low, high = tariff.bounds_nano_usd(took.input_tokens, took.cached_tokens, took.output_tokens)
        if charged and not low <= charged <= high:
            expected = f"{low:,} to {high:,} nano-USD"
            hint = _hint(charged, tariff, took)
            yield Finding(
                expected, finding.got + hint, at=finding.at, note=finding.note, exchange_id=finding.exchange_id
            )
    if not known:
        yield _nothing(exchanges, others, facts)


def _hint(charged: int, tariff: Tariff, took: Usage) -> str:
    """What mistake would lead to such a cost; "" where none is known."""
    price = tariff.price
    per_input, per_output = price.input_nano_usd_per_million, price.output_nano_usd_per_million

    def told(inputs: int, outputs: int) -> int:
        return (took.input_tokens * inputs + took.output_tokens * outputs) // MILLION

    right = told(per_input, per_output)
    mistakes: Mapping[str, int] = {
        "the price of input and output exchanged": told(per_output, per_input),
        "the input alone": told(per_input, 0),
        "the output alone": told(0, per_output),
        "the whole usage at the price of output": told(per_output, per_output),
        "a price per thousand tokens": right * 1_000,
        "a price per token": right * MILLION,
        "micro-USD": right // 1_000,
        "cents": right * 100 // NANO,
        "USD": right // NANO,
    }
    found = next((name for name, amount in mistakes.items() if abs(charged - amount) <= 1), None)
    return f", as if {found} had been charged" if found and charged else ""


@check(
    "billing.cost.zero",
    level=Level.MUST,
    lenses=HUB,
    source=f"{NEWER}; {PRICES}",
    remedy="Leave a request out until its cost is known; 0 means that it was free.",
    across=[probes.settle],
    on=Usable.JSON,
)
def cost_zero(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """A request that took tokens of a priced model does not cost 0.

    0 is a valid cost: the hub books the request as free and never asks again.
    """
    known = False
    for finding, tariff, took, charged in _compared(exchanges, others, facts):
        known = True
        low, _ = tariff.bounds_nano_usd(took.input_tokens, took.cached_tokens, took.output_tokens)
        if charged == 0 and low > 0:
            expected = f"at least {low:,} nano-USD"
            yield Finding(expected, "0", at=finding.at, note=finding.note, exchange_id=finding.exchange_id)
            return
    if not known:
        yield _nothing(exchanges, others, facts)


# Asked again


@check(
    "billing.same",
    level=Level.MUST,
    lenses=HUB,
    source=f"{NEWER}: idempotent",
    remedy="Store the cost of a request once, with the price of that moment, and only read it afterwards.",
    across=[probes.settle, probes.again, probes.batch, probes.repeated],
    on=Usable.JSON,
)
def same(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """A request has the same cost whenever it is asked.

    The hub asks again after a lost answer: two costs of one request are a dispute.
    """
    first: dict[str, tuple[Any, str]] = {}
    for exchange in exchanges:
        wanted = set(asked(exchange))
        for id, value in costs(exchange).items():
            known, where = first.setdefault(id, (value, exchange.id))
            if id in wanted and value != known:
                place = next(n for n, entry in enumerate(entries(exchange) or ()) if entry["requestId"] == id)
                at = f"/requests/{place}/costNanoUsd"
                yield Finding(f"{show(known)}, as in {where}", show(value), at=at, exchange_id=exchange.id)
                return
    if not first:
        yield NOTHING_SETTLED


def _others_lost(exchanges: Sequence[Exchange], probe: str) -> tuple[list[str], list[str]]:
    """Of the ids whose costs were told before, those that this probe asked for, and of these the ones it lost."""
    known = settled(_of(exchanges, probes.settle.id))
    again = _of(exchanges, probe)
    wanted = [id for exchange in again for id in asked(exchange) if id in known]
    lost = {id for exchange in again for id in pending(exchange)}
    return wanted, [id for id in wanted if id in lost]


@check(
    "billing.partial",
    level=Level.MUST,
    lenses=HUB,
    source=NEWER,
    remedy="Look each id up by itself; answer for those you have.",
    across=[probes.settle, probes.again],
    on=Usable.COMPLETE,
)
def partial(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """An id that is not known does not take away the costs of those that are.

    The hub asks for thousands at once; one that was lost would keep all of them from being paid.
    """
    wanted, lost = _others_lost(exchanges, probes.again.id)
    asked_again = _of(exchanges, probes.again.id)
    if not wanted or not asked_again:
        yield NOTHING_SETTLED
    elif entries(asked_again[0]) is None and asked_again[0].status == 200:
        yield Undecided(UNREADABLE)
    elif lost:
        got = f"{len(lost)} missing: {_ids(lost)}"
        if asked_again[0].status != 200:
            got = _status(asked_again[0])
        expected = f"the costs of {len(wanted)} requests that were told before"
        yield Finding(expected, got, at="/requests", exchange_id=asked_again[0].id)


@check(
    "billing.unknown",
    level=Level.MUST,
    lenses=HUB,
    source=f"{NEWER}: unknown ids are omitted",
    remedy="Leave ids that you do not know out of the answer.",
    across=[probes.settle, probes.again, probes.batch],
    on=Usable.JSON,
)
def unknown(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """An id that was never given is left out of the answer: no 0, no null.

    0 is a valid cost: a request that is merely not booked yet would be charged as free, for good.
    """
    given = {value for x in others if (value := (x.reply.header(facts.request_id_header) or "").strip())}
    looked = False
    for exchange in _of(exchanges, probes.again.id, probes.batch.id):
        wanted = set(asked(exchange))
        looked = looked or entries(exchange) is not None
        for place, entry in enumerate(entries(exchange) or ()):
            id = entry["requestId"]
            if id in wanted and id not in given:
                expected = f"nothing of {show(id)}, which no request ever had"
                got = f"costNanoUsd {show(entry['costNanoUsd'])}"
                yield Finding(expected, got, at=f"/requests/{place}", exchange_id=exchange.id)
                return
    if not looked:
        yield Undecided(UNREADABLE)


@check(
    "billing.failed",
    level=Level.SHOULD,
    lenses=HUB,
    source=f"{NEWER}: only requests answered 2xx or 3xx are asked",
    remedy="Book a request when it has been answered, not when it arrives.",
    across=[probes.settle, probes.again],
    on=Usable.JSON,
)
def failed(exchanges: Sequence[Exchange], facts: Facts, others: Sequence[Exchange]) -> Iterator[Outcome]:
    """A request that was refused costs nothing: it is left out, or has the cost 0.

    The hub does not ask for those, but your own customers find them on their bills.
    """
    errors = refused(others, facts)
    told = [(id, value, x) for x in _of(exchanges, probes.again.id) for id, value in costs(x).items() if id in errors]
    if not any(id in errors for x in _of(exchanges, probes.again.id) for id in asked(x)):
        yield NotApplicable("no refusal carried a request id; see request_id.on_errors")
    for id, value, exchange in told:
        if charged_nano_usd(value):
            expected = f"no cost of {errors[id].id}, which was answered {errors[id].status}"
            yield Finding(expected, f"{show(value)} for {show(id)}", at="/requests", exchange_id=exchange.id)
            return


# As the hub asks


@check(
    "billing.batch.in_time",
    level=Level.MUST,
    lenses=HUB,
    source=f"{GUIDE}: every minute, in batches of up to 10,000 requests",
    remedy="Look all ids up in one query, by an index, and accept a body of half a megabyte.",
    across=[probes.settle, probes.again, probes.batch],
    on=Usable.ANYTHING,
)
def batch_in_time(exchanges: Sequence[Exchange], facts: Facts) -> Iterator[Outcome]:
    """Ten thousand ids in one request are answered with HTTP 200 within a minute.

    The hub asks for that many at once, and a minute later for the next.
    """
    limit_s = facts.limits.billing_batch_s
    sent = _of(exchanges, probes.batch.id)
    if not sent:
        yield Undecided("the batch was not sent")
        return
    exchange = sent[0]
    count, failure = len(asked(exchange)), exchange.reply.failure
    ended_s = (exchange.reply.timings.ended_ns or 0) / NANO
    expected = f"{count:,} ids answered within {limit_s:g} s"
    if exchange.unreachable:
        yield Undecided(f"could not tell: {_status(exchange)}")
    elif failure is not None and failure.kind is FailureKind.TOTAL_TIMEOUT:
        if ended_s < limit_s - 1:
            yield Undecided(f"we hung up after {ended_s:.1f} s, as --timeout says")
        else:
            yield Finding(expected, f"nothing within {ended_s:.1f} s", at="time")
    elif any(x.status == exchange.status != 200 for x in _of(exchanges, probes.again.id)):
        yield Undecided("a few ids more are too many already; see billing.partial")
    elif exchange.status != 200 or not exchange.complete:
        yield Finding(expected, _status(exchange), at="status")
    elif ended_s - exchange.reply.timings.uncertainty_ns / NANO > limit_s:
        yield Finding(expected, f"answered after {ended_s:.1f} s", at="time")


@check(
    "billing.batch.whole",
    level=Level.MUST,
    lenses=HUB,
    source=f"{GUIDE}: in batches of up to 10,000 requests",
    remedy="Answer every id of the batch; do not cut it off at a page's length.",
    across=[probes.settle, probes.again, probes.batch],
    on=Usable.JSON,
)
def batch_whole(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """Among ten thousand ids, those of requests that were served have their costs, wherever they stand.

    What falls behind a page's length is never paid.
    """
    wanted, lost = _others_lost(exchanges, probes.batch.id)
    sent = _of(exchanges, probes.batch.id)
    if not wanted or not sent:
        yield NOTHING_SETTLED
    elif entries(sent[0]) is None:
        yield Undecided(UNREADABLE)
    elif lost and _others_lost(exchanges, probes.again.id)[1]:
        yield Undecided("a few ids more are too many already; see billing.partial")
    elif lost:
        places = [place for place, id in enumerate(asked(sent[0])) if id in set(lost)]
        yield Finding(
            f"the costs of {len(wanted)} requests among {len(asked(sent[0])):,} ids",
            f"{len(lost)} missing, the first of them id {places[0] + 1:,} of the request: {_ids(lost)}",
            at="/requests",
            exchange_id=sent[0].id,
        )


@check(
    "billing.repeated",
    level=Level.SHOULD,
    lenses=HUB,
    source=f"{NEWER}: idempotent",
    remedy="Make a set of the ids before you look them up.",
    across=[probes.settle, probes.again, probes.repeated],
    on=Usable.COMPLETE,
)
def repeated(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """An id that a request names three times is listed once, at its cost; refusing such a request is allowed too.

    A caller that repeats an id after a crash would charge it three times.
    """
    sent = _of(exchanges, probes.repeated.id)
    if not sent or not settled(_of(exchanges, probes.settle.id)):
        yield NOTHING_SETTLED
        return
    exchange = sent[0]
    if exchange.status is not None and 400 <= exchange.status < 500:
        return
    told = entries(exchange)
    if told is None:
        if exchange.status == 200:
            yield Undecided(UNREADABLE)
        else:
            yield Finding("HTTP 200, or a 4xx", _status(exchange), at="status", exchange_id=exchange.id)
        return
    counts = Counter(entry["requestId"] for entry in told)
    elsewhere = [x for x in exchanges if x.probe != probes.repeated.id]
    if any(len(costs(x)) < len(entries(x) or ()) for x in elsewhere):
        yield Undecided(CAME_TWICE)
        return
    for id, count in counts.items():
        if count > 1:
            yield Finding("each request once", f"{show(id)} {count} times", at="/requests", exchange_id=exchange.id)
            return


# What is no question


@check(
    "billing.empty",
    level=Level.SHOULD,
    lenses=HUB,
    source=GUIDE,
    remedy='Answer {"requests": []}.',
    across=[probes.settle, probes.empty],
    on=Usable.COMPLETE,
)
def empty(exchanges: Sequence[Exchange]) -> Iterator[Outcome]:
    """An empty list of ids is answered with no costs, or refused with a 4xx.

    An empty condition in a query that finds every row tells one customer the costs of all.
    """
    sent = _of(exchanges, probes.empty.id)
    if not sent:
        yield Undecided("the empty list was not sent")
        return
    exchange = sent[0]
    told = entries(exchange)
    if exchange.status is not None and 400 <= exchange.status < 500:
        return
    if exchange.status != 200:
        expected = "HTTP 200 with no costs, or a 4xx"
        yield Finding(expected, _status(exchange), at="status", exchange_id=exchange.id)
    elif told is None and any(entries(x) is None for x in _of(exchanges, probes.settle.id)):
        yield Undecided(UNREADABLE)
    elif told is None or told:
        yield Finding("no costs", show(exchange.reply.body), at="/requests", exchange_id=exchange.id)


@check(
    "billing.malformed",
    level=Level.SHOULD,
    lenses=HUB,
    source=f"{GUIDE}; RFC 9110, section 15.5.1",
    remedy="Check that `requestIds` is a list of texts before you use it, and answer 400 where it is not.",
    each=probes.malformed,
    on=Usable.COMPLETE,
)
def malformed(exchange: Exchange) -> Iterator[Finding]:
    """A body that does not list ids is refused with a 4xx.

    Half a body is what a proxy leaves of a batch: an answer of success says that all of it was dealt with.
    """
    if exchange.status is not None and not 400 <= exchange.status < 500:
        sent = show(exchange.request.body or b"")
        yield Finding("a 4xx", _status(exchange), at="status", note=f"sent: {sent}")


@check(
    "billing.get",
    level=Level.MAY,
    lenses=HUB,
    source="RFC 9110, section 15.5.6",
    remedy="Answer 405 with `Allow: POST`.",
    each=probes.get,
    on=Usable.COMPLETE,
)
def get(exchange: Exchange) -> Iterator[Finding]:
    """GET is refused: costs are asked by POST.

    What GET answers, caches and logs keep.
    """
    if exchange.status is not None and not 400 <= exchange.status < 500:
        yield Finding("a 4xx, best 405", _status(exchange), at="status")


# Keys


def _unauthorised(exchange: Exchange) -> Iterator[Finding]:
    if exchange.status not in (401, 403):
        yield Finding("HTTP 401 or 403", _status(exchange), at="status")


@check(
    "billing.wrong_key",
    level=Level.MUST,
    lenses=HUB,
    source=f"{GUIDE}: the same authentication as for inference",
    remedy="Put this route behind the same look at the key as inference.",
    each=probes.wrong_key,
    on=Usable.RESPONSE,
)
def wrong_key(exchange: Exchange) -> Iterator[Finding]:
    """A wrong key gets 401 or 403 of the cost endpoint.

    Who spends how much is nobody else's business.
    """
    yield from _unauthorised(exchange)


@check(
    "billing.no_key",
    level=Level.MUST,
    lenses=HUB,
    source=f"{GUIDE}: the same authentication as for inference",
    remedy="Put this route behind the same look at the key as inference.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def no_key(exchange: Exchange) -> Iterator[Finding]:
    """Without a key the cost endpoint answers 401 or 403.

    An open endpoint lets anybody read your turnover, id by id.
    """
    yield from _unauthorised(exchange)
