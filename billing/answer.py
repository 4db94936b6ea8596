"""Judging what a provider's cost endpoint answers: what is posted, what is disputed, what is asked for again.

The rules (registration guide, section 4, with the hub's later words of 2026-06-23): a cost is a non-negative
integer of nano-USD; zero is a cost, an id that is left out has none yet; `"requests": null` is an empty list;
a cost that is no integer is rounded up; a negative or unreadable one is skipped, and asked for again. Beyond
them: only ids that were asked for count; two different costs for one id, and costs beyond all reason, are
disputed. The body was bounded in bytes and time by the transport before it came here; what it could make of our
memory and time is bounded here, before it is parsed.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from roadworthy.billing.bounds import deeper_than, holds_more_than
from roadworthy.billing.records import Costs, Doubt, Noted, Oddity, Reason, Refusal, Trouble
from roadworthy.http.message import FailureKind, Reply
from roadworthy.http.retry_after import retry_after_s

MAX_DEPTH = 32
MAX_VALUES = 500_000
"""Values in an answer, sixteen times what 10,000 ids need: each may cost a hundred times its two bytes in memory."""
LONGEST_INTEGER = 20
"""Characters of an integer that 64 bits may hold. Longer ones are read as `Decimal`, in linear time."""
EXAMPLES = 5
SHOWN = 200
LONGEST_SHOWN = 64

_TIMEOUTS = {FailureKind.CONNECT_TIMEOUT, FailureKind.TOTAL_TIMEOUT, FailureKind.IDLE_TIMEOUT}
_TOO_LARGE = {FailureKind.BODY_TOO_LARGE, FailureKind.HEADERS_TOO_LARGE}
_NOT_OF_IDS = {404, 405, 406, 408, 410, 411, 415, 421, 425, 426, 431, 451, 501, 502, 503, 504, 505}
"""Statuses that speak of the address, the method, the headers or the moment, not of what was asked."""


def read(reply: Reply, asked: Collection[str], max_cost_nano_usd: int) -> Costs | Refusal:
    """What the reply says of the ids that were `asked`; costs above the maximum are disputed."""
    refusal = _refused(reply)
    if refusal is not None:
        return refusal
    try:
        if holds_more_than(reply.body, MAX_VALUES):
            return _unreadable(f"it holds more than {MAX_VALUES:,} values", too_much=True)
        if deeper_than(reply.body, MAX_DEPTH):
            return _unreadable(f"its JSON is nested deeper than {MAX_DEPTH} levels, or its brackets do not match")
        value = json.loads(
            reply.body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_decimal,
            parse_constant=_NoNumber,
        )
    except UnicodeDecodeError:
        return _unreadable("its body is not UTF-8")
    except (ValueError, RecursionError) as error:
        return _unreadable(f"its body is not JSON: {str(error)[:80]}")
    if isinstance(value, _Twice):
        return _unreadable(f"its object has the key {value.key[:60]!r} twice")
    if not isinstance(value, dict) or "requests" not in value:
        return _unreadable('expected an object with the key "requests"')
    items = value["requests"]
    if items is None:
        items = []
    if not isinstance(items, list):
        return _unreadable('"requests" must be a list or null')
    return _Reader(asked, max_cost_nano_usd).read(items)


class _Reader:
    """Goes through the items of one answer."""

    def __init__(self, asked: Collection[str], max_cost_nano_usd: int) -> None:
        self._asked = asked if isinstance(asked, (set, frozenset, dict)) else frozenset(asked)
        self._max_cost_nano_usd = max_cost_nano_usd
        self._posted: dict[str, int] = {}
        self._doubtful: dict[str, Doubt] = {}
        self._invalid: dict[str, str] = {}
        self._oddities: dict[Oddity, Noted] = {}

    def read(self, items: list[Any]) -> Costs:
        for item in items:
            self._take(item)
        # An id with a cost that can be read beside one that cannot has the one that can.
        for id in self._posted.keys() | self._doubtful.keys():
            self._invalid.pop(id, None)
        return Costs(self._posted, self._doubtful, self._invalid, self._oddities)

    def _take(self, item: Any) -> None:
        if type(item) is dict:
            id = item.get("requestId")
            if type(id) is str:
                if id not in self._asked:
                    self._note(Oddity.UNASKED, id)
                elif "costNanoUsd" in item:
                    self._cost(id, item["costNanoUsd"])
                else:
                    self._skip(Oddity.NO_COST, id, "it has no costNanoUsd")
                return
        elif isinstance(item, _Twice):
            named = [value for key, value in item.pairs if key == "requestId"]
            if named and all(type(each) is str and each == named[0] for each in named) and named[0] in self._asked:
                self._skip(Oddity.DUPLICATE_KEY, named[0], f"its object has the key {item.key[:60]!r} twice")
                return
        self._note(Oddity.MALFORMED_ITEM, item)

    def _cost(self, id: str, value: Any) -> None:
        if type(value) is int:  # a bool is none
            cost = value
        elif isinstance(value, Decimal):
            if value > self._max_cost_nano_usd:
                # As the integer that it comes to, however it is spelt: so it can be accepted, and told from others.
                claimed = str(_rounded_up(value)) if value < 10**LONGEST_INTEGER else _shown(value)
                self._doubt(id, Reason.TOO_LARGE, claimed)
                return
            # Zero first: a zero with a giant exponent is one, too, and would be written out.
            cost = 0 if not value else -1 if value < 0 else _rounded_up(value)
            if cost >= 0:
                self._note(Oddity.FRACTION if cost != value else Oddity.NOT_WRITTEN_AS_INTEGER, id)
        else:
            self._skip(Oddity.NOT_A_NUMBER, id, f"its cost is no number: {_shown(value)}"[:SHOWN])
            return
        if cost < 0:
            self._skip(Oddity.NEGATIVE, id, f"its cost is negative: {_shown(value)}"[:SHOWN])
        elif cost > self._max_cost_nano_usd:
            self._doubt(id, Reason.TOO_LARGE, str(cost))
        else:
            self._post(id, cost)

    def _post(self, id: str, cost: int) -> None:
        if id in self._doubtful:
            self._note(Oddity.REPEATED, id)
        elif id not in self._posted:
            self._posted[id] = cost
        elif self._posted[id] == cost:
            self._note(Oddity.REPEATED, id)
        else:
            self._doubt(id, Reason.CONFLICTING, f"{self._posted[id]} and {cost}")

    def _doubt(self, id: str, reason: Reason, claimed: str) -> None:
        self._posted.pop(id, None)
        self._doubtful.setdefault(id, Doubt(reason, claimed[:SHOWN]))
        self._note(Oddity.CONFLICTING if reason is Reason.CONFLICTING else Oddity.TOO_LARGE, id)

    def _skip(self, oddity: Oddity, id: str, why: str) -> None:
        self._invalid.setdefault(id, why)
        self._note(oddity, id)

    def _note(self, oddity: Oddity, example: Any) -> None:
        noted = self._oddities.get(oddity)
        if noted is None:
            noted = self._oddities[oddity] = Noted()
        noted.count += 1
        if len(noted.examples) < EXAMPLES:
            noted.examples.append(example[:SHOWN] if isinstance(example, str) else _shown(example))


def _rounded_up(value: Decimal) -> int:
    return int(value.to_integral_value(rounding="ROUND_CEILING"))


def _refused(reply: Reply) -> Refusal | None:
    """Why the reply is no answer at all, if it is none."""
    wait_s = retry_after_s(reply.header("retry-after"), _sent_at(reply))
    failure, status = reply.failure, reply.status
    if failure is not None and (status is None or 200 <= status < 300):
        if failure.kind is FailureKind.FORBIDDEN:
            trouble = Trouble.OURS
        elif failure.kind in _TIMEOUTS:
            trouble = Trouble.TIMEOUT
        elif failure.kind in _TOO_LARGE or status is not None:
            trouble = Trouble.UNREADABLE
        else:
            trouble = Trouble.UNREACHED
        return Refusal(trouble, failure.message, too_much=failure.kind is FailureKind.BODY_TOO_LARGE)
    if status == 429:
        return Refusal(Trouble.RATE_LIMITED, "HTTP 429", wait_s)
    if status in {401, 402, 403, 407}:
        return Refusal(Trouble.REFUSED_KEY, f"HTTP {status}: the key is refused", wait_s)
    if status in _NOT_OF_IDS or status is None or 300 <= status < 400:
        # What stands before the endpoint says so, or nothing stands there: no id is to blame.
        return Refusal(Trouble.UNREACHED, f"HTTP {status}", wait_s)
    if 400 <= status < 500:
        return Refusal(Trouble.CLIENT_ERROR, f"HTTP {status}", wait_s, too_much=status == 413)
    if not 200 <= status < 300:
        return Refusal(Trouble.SERVER_ERROR, f"HTTP {status}", wait_s)
    return None


def _sent_at(reply: Reply) -> datetime:
    """When the reply was sent, by its own clock: a wait until a date is meant by that one, not by ours."""
    try:
        at = parsedate_to_datetime(reply.header("date") or "")
    except (ValueError, OverflowError):
        return datetime.now(UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _unreadable(why: str, *, too_much: bool = False) -> Refusal:
    return Refusal(Trouble.UNREADABLE, f"the answer cannot be read: {why}", too_much=too_much)


class _Twice:
    """A JSON object with one key twice, of which parsers silently keep either."""

    def __init__(self, key: str, pairs: list[tuple[str, Any]]) -> None:
        self.key = key
        self.pairs = pairs

    def __repr__(self) -> str:
        return f"an object with the key {self.key!r} twice"


class _NoNumber:
    """What stands for a number and is none: NaN, an infinity, an exponent beyond all bounds."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Twice:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            break
        seen.add(key)
    return _Twice(key, pairs)


def _integer(text: str) -> int | Decimal:
    return Decimal(text) if len(text) > LONGEST_INTEGER else int(text)


def _decimal(text: str) -> Decimal | _NoNumber:
    try:
        return Decimal(text)
    except ArithmeticError:
        return _NoNumber(text)


def _shown(value: Any) -> str:
    if isinstance(value, Decimal):
        text = str(value)
        return text if len(text) <= LONGEST_SHOWN else f"{text[:20]}... ({len(text):,} characters)"
    return repr(value)[:SHOWN]
