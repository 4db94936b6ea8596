"""Faults of the cost endpoint, and legal variations of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn

PATH = "/v1/request-costs"
COSTS = {Kind.COSTS}
MANY = 1_000
"""Ids from which a question is a batch."""


def _entries(turn: Turn) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = turn.payload["requests"]
    return entries


def _booked(turn: Turn) -> dict[str, int]:
    """The costs that the sandbox remembers, in nano-USD by request id."""
    booked: dict[str, int] = turn.memory.setdefault("costs", {})
    return booked


def _asked(turn: Turn) -> list[str]:
    """The ids of the request as it came, repeated ones too."""
    ids: list[str] = json.loads(turn.raw)["requestIds"]
    return ids


def _change(turn: Turn, value: Callable[[int], Any]) -> None:
    for entry in _entries(turn):
        entry["costNanoUsd"] = value(entry["costNanoUsd"])


def _refusal(turn: Turn) -> bool:
    """Whether this is the answer to a body that is no question, as it is about to be written."""
    return turn.path == PATH and turn.method == "POST" and turn.status == 400


def _is_here(turn: Turn) -> bool:
    return turn.path == PATH and turn.method == "POST"


# The answer


@fault("billing.no_endpoint", caught_by={"billing.answered"}, at=Stage.ARRIVAL)
def no_endpoint(turn: Turn) -> None:
    """There is no cost endpoint."""
    if turn.path == PATH:
        turn.path = "/v1/nothing"


@fault("billing.crashes", caught_by={"billing.answered"}, at=Stage.REQUEST, on=COSTS)
def crashes(turn: Turn) -> None:
    """The cost endpoint answers every question with 500."""
    raise ApiError(500, "internal server error", type="server_error")


@fault("billing.key_refused", caught_by={"billing.answered"}, at=Stage.REQUEST, on=COSTS)
def key_refused(turn: Turn) -> None:
    """The keys of the inference API are refused."""
    raise ApiError(403, "this key may not read costs", type="permission_error")


@fault("billing.accepted_only", caught_by={"billing.answered"}, at=Stage.HEAD, on=COSTS)
def accepted_only(turn: Turn) -> None:
    """Answers are labelled 202, as if they were still to come."""
    turn.status = 202


def _rewrite(turn: Turn, old: bytes, new: bytes) -> None:
    for frame in turn.frames:
        frame.data = frame.data.replace(old, new, 1)


@fault("billing.key_twice", caught_by={"billing.json"}, at=Stage.FRAMES, on=COSTS)
def key_twice(turn: Turn) -> None:
    """An entry has two costs, under one key."""
    _rewrite(turn, b'"costNanoUsd":', b'"costNanoUsd":1,"costNanoUsd":')


@fault("billing.nan", caught_by={"billing.json"}, at=Stage.FRAMES, on=COSTS)
def nan(turn: Turn) -> None:
    """A cost is NaN, as a float that was divided by zero is written."""
    _rewrite(turn, b'"costNanoUsd":', b'"costNanoUsd":NaN,"was":')


@fault("billing.web_page", caught_by={"billing.json"}, at=Stage.FRAMES, on=COSTS)
def web_page(turn: Turn) -> None:
    """The answer is a web page."""
    turn.frames[0].data = b"<!doctype html><title>Costs</title>"


@fault("billing.bare_array", caught_by={"billing.json"}, at=Stage.PAYLOAD, on=COSTS)
def bare_array(turn: Turn) -> None:
    """The answer is a bare array of entries."""
    turn.payload = _entries(turn)


@fault("billing.text_plain", caught_by={"billing.content_type"}, at=Stage.HEAD, on=COSTS)
def text_plain(turn: Turn) -> None:
    """The answer is labelled as plain text."""
    turn.headers["content-type"] = "text/plain"


@fault("billing.named_costs", caught_by={"billing.shape"}, at=Stage.PAYLOAD, on=COSTS)
def named_costs(turn: Turn) -> None:
    """The entries stand under `costs`."""
    turn.payload = {"costs": _entries(turn)}


@fault("billing.snake_case", caught_by={"billing.shape"}, at=Stage.PAYLOAD, on=COSTS)
def snake_case(turn: Turn) -> None:
    """Entries have the keys `request_id` and `cost_nano_usd`."""
    turn.payload["requests"] = [
        {"request_id": entry["requestId"], "cost_nano_usd": entry["costNanoUsd"]} for entry in _entries(turn)
    ]


@fault("billing.by_id", caught_by={"billing.shape"}, at=Stage.PAYLOAD, on=COSTS)
def by_id(turn: Turn) -> None:
    """`requests` is an object of costs by id."""
    turn.payload["requests"] = {entry["requestId"]: entry["costNanoUsd"] for entry in _entries(turn)}


@fault("billing.pending_entries", caught_by={"billing.shape"}, at=Stage.PAYLOAD, on=COSTS)
def pending_entries(turn: Turn) -> None:
    """The first entry tells a state instead of a cost."""
    for entry in _entries(turn)[:1]:
        del entry["costNanoUsd"]
        entry["state"] = "pending"


# Each cost


@fault("billing.cost_text", caught_by={"billing.cost.number"}, at=Stage.PAYLOAD, on=COSTS)
def cost_text(turn: Turn) -> None:
    """Costs are texts."""
    _change(turn, str)


@fault("billing.cost_null", caught_by={"billing.cost.number"}, at=Stage.PAYLOAD, on=COSTS)
def cost_null(turn: Turn) -> None:
    """Costs are null."""
    _change(turn, lambda _: None)


@fault("billing.cost_true", caught_by={"billing.cost.number"}, at=Stage.PAYLOAD, on=COSTS)
def cost_true(turn: Turn) -> None:
    """Costs are booleans."""
    _change(turn, bool)


@fault("billing.cost_fraction", caught_by={"billing.cost.integer"}, at=Stage.PAYLOAD, on=COSTS)
def cost_fraction(turn: Turn) -> None:
    """Costs have fractions of a nano-USD."""
    _change(turn, lambda cost: cost - 0.4 if cost else cost)


@fault("billing.cost_float", caught_by={"billing.cost.integer"}, at=Stage.PAYLOAD, on=COSTS)
def cost_float(turn: Turn) -> None:
    """Costs are written with a point, as floats are."""
    _change(turn, float)


@fault("billing.cost_exponent", caught_by={"billing.cost.integer"}, at=Stage.FRAMES, on=COSTS)
def cost_exponent(turn: Turn) -> None:
    """Costs are written with an exponent."""
    body = json.loads(turn.frames[0].data)
    entries = ",".join(
        f'{{"requestId":{json.dumps(entry["requestId"])},"costNanoUsd":{entry["costNanoUsd"]}e0}}'
        for entry in body["requests"]
    )
    turn.frames[0].data = f'{{"requests":[{entries}]}}'.encode()


@fault("billing.cost_negative", caught_by={"billing.cost.not_negative"}, at=Stage.PAYLOAD, on=COSTS)
def cost_negative(turn: Turn) -> None:
    """Costs are negative, as what a balance loses."""
    _change(turn, lambda cost: -cost)


@fault("billing.cost_huge", caught_by={"billing.cost.fits"}, at=Stage.PAYLOAD, on=COSTS)
def cost_huge(turn: Turn) -> None:
    """Costs are beyond what 63 bits hold."""
    _change(turn, lambda cost: cost + 2**63)


# Ids


@fault("billing.ids_in_capitals", caught_by={"billing.ids.asked"}, at=Stage.PAYLOAD, on=COSTS)
def ids_in_capitals(turn: Turn) -> None:
    """Ids come back in capitals."""
    for entry in _entries(turn):
        entry["requestId"] = entry["requestId"].upper()


@fault("billing.foreign_ids", caught_by={"billing.ids.asked"}, at=Stage.PAYLOAD, on=COSTS)
def foreign_ids(turn: Turn) -> None:
    """The answer lists a request of somebody else too."""
    if _entries(turn):
        _entries(turn).append({"requestId": "0b5f54f4-6f52-4b7e-9d5f-5d1f5f3d6a10", "costNanoUsd": 100})


@fault("billing.listed_twice", caught_by={"billing.ids.once"}, at=Stage.PAYLOAD, on=COSTS)
def listed_twice(turn: Turn) -> None:
    """Each request is listed twice, once for its input and once for its output, both at the whole cost."""
    turn.payload["requests"] = [dict(entry) for entry in _entries(turn) for _ in range(2)]


def _unbooked(turn: Turn) -> None:
    """Remember a request as one without a cost, or take those out of the books before a question is answered."""
    unbooked: set[str] = turn.memory.setdefault("unbooked", set())
    if turn.kind is not Kind.COSTS:
        unbooked.add(turn.request_id)
    for id in unbooked:
        _booked(turn).pop(id, None)


@fault("billing.whole_unbooked", caught_by={"billing.settled.whole"}, at=Stage.REQUEST, on={Kind.CHAT, *COSTS})
def whole_unbooked(turn: Turn) -> None:
    """Unstreamed requests are never booked."""
    _unbooked(turn)


@fault("billing.streams_unbooked", caught_by={"billing.settled.streams"}, at=Stage.REQUEST, on={Kind.STREAM, *COSTS})
def streams_unbooked(turn: Turn) -> None:
    """Streamed requests are never booked."""
    _unbooked(turn)


@fault(
    "billing.embeddings_unbooked",
    caught_by={"billing.settled.whole"},
    at=Stage.REQUEST,
    on={Kind.EMBEDDINGS, *COSTS},
    subjects={"acme/feature-extraction=feature-extraction@openai"},
)
def embeddings_unbooked(turn: Turn) -> None:
    """Embeddings are never booked."""
    _unbooked(turn)


@fault(
    "billing.never",
    caught_by={"billing.settled.whole", "billing.settled.streams"},
    at=Stage.PAYLOAD,
    on=COSTS,
)
def never(turn: Turn) -> None:
    """Costs are told on another day."""
    turn.payload["requests"] = []


# Amounts


@fault("billing.micro_usd", caught_by={"billing.cost.price"}, at=Stage.PAYLOAD, on=COSTS)
def micro_usd(turn: Turn) -> None:
    """Costs are in micro-USD."""
    _change(turn, lambda cost: -(-cost // 1_000))


@fault("billing.surcharge", caught_by={"billing.cost.price"}, at=Stage.PAYLOAD, on=COSTS)
def surcharge(turn: Turn) -> None:
    """Costs are a fifth above the published price."""
    _change(turn, lambda cost: cost + cost // 5)


@fault("billing.per_thousand", caught_by={"billing.cost.price"}, at=Stage.PAYLOAD, on=COSTS)
def per_thousand(turn: Turn) -> None:
    """The price per million tokens is charged for a thousand."""
    _change(turn, lambda cost: cost * 1_000)


@fault("billing.zero", caught_by={"billing.cost.zero"}, at=Stage.PAYLOAD, on=COSTS)
def zero(turn: Turn) -> None:
    """Every request costs 0."""
    _change(turn, lambda _: 0)


# Asked again


@fault("billing.grows", caught_by={"billing.same"}, at=Stage.PAYLOAD, on=COSTS)
def grows(turn: Turn) -> None:
    """A request costs more each time it is asked, as if asking booked it again."""
    told: Counter[str] = turn.memory.setdefault("told", Counter())
    for entry in _entries(turn):
        told[entry["requestId"]] += 1
        entry["costNanoUsd"] *= told[entry["requestId"]]


@fault("billing.adds_up_repeated", caught_by={"billing.same"}, at=Stage.PAYLOAD, on=COSTS)
def adds_up_repeated(turn: Turn) -> None:
    """An id that a question names three times costs three times as much."""
    times = Counter(_asked(turn))
    for entry in _entries(turn):
        entry["costNanoUsd"] *= times[entry["requestId"]]


def _strangers(turn: Turn) -> list[str]:
    return [id for id in turn.body["requestIds"] if id not in _booked(turn)]


@fault("billing.all_or_nothing", caught_by={"billing.partial"}, at=Stage.PAYLOAD, on=COSTS)
def all_or_nothing(turn: Turn) -> None:
    """One unknown id, and no cost is told at all."""
    if _strangers(turn):
        turn.payload["requests"] = []


@fault("billing.unknown_404", caught_by={"billing.partial"}, at=Stage.REQUEST, on=COSTS)
def unknown_404(turn: Turn) -> None:
    """A question with an unknown id gets 404."""
    if _strangers(turn):
        raise ApiError(404, "there is no such request", code="not_found")


@fault("billing.unknown_zero", caught_by={"billing.unknown"}, at=Stage.PAYLOAD, on=COSTS)
def unknown_zero(turn: Turn) -> None:
    """Unknown ids are listed with the cost 0."""
    _entries(turn).extend({"requestId": id, "costNanoUsd": 0} for id in _strangers(turn))


@fault("billing.refusals_booked", caught_by={"billing.failed"}, at=Stage.HEAD, on={Kind.ERROR})
def refusals_booked(turn: Turn) -> None:
    """Requests are booked when they arrive, refused ones too."""
    _booked(turn)[turn.request_id] = 100_000


# As the hub asks


@fault("billing.slow_batch", caught_by={"billing.batch.in_time"}, at=Stage.FRAMES, on=COSTS)
def slow_batch(turn: Turn) -> None:
    """Thousands of ids are looked up one by one."""
    if len(turn.body["requestIds"]) > MANY:
        turn.frames[0].delay_s = 1.0


@fault("billing.batch_refused", caught_by={"billing.batch.in_time"}, at=Stage.REQUEST, on=COSTS)
def batch_refused(turn: Turn) -> None:
    """A gateway lets no body of this size through."""
    if len(turn.body["requestIds"]) > MANY:
        raise ApiError(413, "the body is too large")


@fault("billing.first_page_only", caught_by={"billing.batch.whole"}, at=Stage.PAYLOAD, on=COSTS)
def first_page_only(turn: Turn) -> None:
    """Of a long list, the first thousand ids are looked at."""
    page = set(turn.body["requestIds"][:MANY])
    turn.payload["requests"] = [entry for entry in _entries(turn) if entry["requestId"] in page]


@fault("billing.repeated_listed", caught_by={"billing.repeated"}, at=Stage.PAYLOAD, on=COSTS)
def repeated_listed(turn: Turn) -> None:
    """An id that a question repeats is listed as often."""
    by_id = {entry["requestId"]: entry for entry in _entries(turn)}
    turn.payload["requests"] = [dict(by_id[id]) for id in _asked(turn) if id in by_id]


@fault("billing.repeated_crash", caught_by={"billing.repeated"}, at=Stage.REQUEST, on=COSTS)
def repeated_crash(turn: Turn) -> None:
    """A repeated id breaks a unique key, and the server with it."""
    if max(Counter(_asked(turn)).values(), default=0) > 1:
        raise ApiError(500, "duplicate key", type="server_error")


# What is no question


@fault("billing.empty_is_all", caught_by={"billing.empty"}, at=Stage.PAYLOAD, on=COSTS)
def empty_is_all(turn: Turn) -> None:
    """An empty list of ids is answered with the costs of everybody."""
    if not turn.body["requestIds"]:
        turn.payload["requests"] = [{"requestId": id, "costNanoUsd": cost} for id, cost in _booked(turn).items()]


@fault("billing.empty_crash", caught_by={"billing.empty"}, at=Stage.REQUEST, on=COSTS)
def empty_crash(turn: Turn) -> None:
    """An empty list of ids makes a query that the database refuses."""
    if not turn.body["requestIds"]:
        raise ApiError(500, "syntax error at or near ')'", type="server_error")


@fault("billing.malformed_accepted", caught_by={"billing.malformed"}, at=Stage.PAYLOAD, on={Kind.ERROR})
def malformed_accepted(turn: Turn) -> None:
    """A body without ids is answered as an empty list."""
    if _refusal(turn):
        turn.status, turn.payload = 200, {"requests": []}


@fault("billing.malformed_crash", caught_by={"billing.malformed"}, at=Stage.PAYLOAD, on={Kind.ERROR})
def malformed_crash(turn: Turn) -> None:
    """A body without ids makes the server fail."""
    if _refusal(turn):
        turn.status = 500


@fault("billing.by_get", caught_by={"billing.get"}, at=Stage.ARRIVAL)
def by_get(turn: Turn) -> None:
    """GET is answered as well."""
    if turn.path == PATH and turn.method == "GET":
        turn.method, turn.raw = "POST", b'{"requestIds": []}'


# Keys


@fault("billing.any_key", caught_by={"billing.wrong_key"}, at=Stage.ARRIVAL)
def any_key(turn: Turn) -> None:
    """The cost endpoint takes any key."""
    if _is_here(turn) and "authorization" in turn.request_headers:
        turn.skip.add("auth")


@fault("billing.keyless", caught_by={"billing.no_key"}, at=Stage.ARRIVAL)
def keyless(turn: Turn) -> None:
    """The cost endpoint answers without a key."""
    if _is_here(turn) and "authorization" not in turn.request_headers:
        turn.skip.add("auth")


# Legal


@variation("billing.null_for_none", at=Stage.PAYLOAD, on=COSTS)
def null_for_none(turn: Turn) -> None:
    """`requests` is null where there is nothing to tell."""
    turn.payload["requests"] = _entries(turn) or None


@variation("billing.extra_fields", at=Stage.PAYLOAD, on=COSTS)
def extra_fields(turn: Turn) -> None:
    """The answer and its entries have fields of the provider's own."""
    turn.payload["currency"] = "USD"
    for entry in _entries(turn):
        entry["model"] = "chat-1"


@variation("billing.in_other_order", at=Stage.PAYLOAD, on=COSTS)
def in_other_order(turn: Turn) -> None:
    """Entries stand in another order than was asked."""
    turn.payload["requests"] = sorted(_entries(turn), key=lambda entry: str(entry["requestId"]))


@variation("billing.third_poll", at=Stage.PAYLOAD, on=COSTS)
def third_poll(turn: Turn) -> None:
    """Costs come a moment later: with the third question."""
    turn.memory["questions"] = turn.memory.get("questions", 0) + 1
    if turn.memory["questions"] < 3:
        turn.payload["requests"] = []


@variation("billing.one_by_one", at=Stage.PAYLOAD, on=COSTS)
def one_by_one(turn: Turn) -> None:
    """Half of the costs come at first, the rest later."""
    turn.memory["questions"] = turn.memory.get("questions", 0) + 1
    if turn.memory["questions"] == 1:
        del _entries(turn)[::2]


@variation("billing.cached_cheaper", at=Stage.PAYLOAD, on={Kind.CHAT, *COSTS})
def cached_cheaper(turn: Turn) -> None:
    """Input that came from a cache, as the usage says, is charged at less than the published price of input."""
    off: dict[str, int] = turn.memory.setdefault("cheaper", {})
    if turn.kind is Kind.CHAT:
        cached = turn.usage["prompt_tokens"] // 2
        turn.usage["prompt_tokens_details"] = {"cached_tokens": cached}
        turn.payload["usage"] = turn.usage
        off[turn.request_id] = cached * 150
        return
    for entry in _entries(turn):
        entry["costNanoUsd"] -= off.get(entry["requestId"], 0)


@variation("billing.rounded_down", at=Stage.PAYLOAD, on=COSTS)
def rounded_down(turn: Turn) -> None:
    """Parts of a cost are rounded down one by one, to two nano-USD less in all."""
    _change(turn, lambda cost: max(0, cost - 2))


@variation("billing.refusals_free", at=Stage.HEAD, on={Kind.ERROR})
def refusals_free(turn: Turn) -> None:
    """Refused requests are booked too, at 0."""
    _booked(turn)[turn.request_id] = 0


@variation("billing.repeated_refused", at=Stage.REQUEST, on=COSTS)
def repeated_refused(turn: Turn) -> None:
    """A question that repeats an id is refused in words."""
    if max(Counter(_asked(turn)).values(), default=0) > 1:
        raise ApiError(400, "each id may stand in `requestIds` once", param="requestIds")


@variation("billing.empty_refused", at=Stage.REQUEST, on=COSTS)
def empty_refused(turn: Turn) -> None:
    """A question that names nothing is refused in words."""
    if not turn.body["requestIds"]:
        raise ApiError(400, "`requestIds` must name at least one request", param="requestIds")


@variation("billing.forbidden", at=Stage.HEAD, on={Kind.ERROR})
def forbidden(turn: Turn) -> None:
    """The cost endpoint answers 403 where the key is wrong, not 401."""
    if turn.path == PATH and turn.status == 401:
        turn.status = 403


@variation("billing.with_charset", at=Stage.HEAD, on=COSTS)
def with_charset(turn: Turn) -> None:
    """The content type names the character set."""
    turn.headers["content-type"] = "application/json; charset=utf-8"


@variation("billing.no_request_id", at=Stage.HEAD, on=COSTS)
def no_request_id(turn: Turn) -> None:
    """Answers of the cost endpoint have no request id: they are no inference."""
    for name in [name for name, value in turn.headers.items() if value == turn.request_id]:
        del turn.headers[name]
