"""Judging answers of cost endpoints: each item by the rule, whole answers by their form, and nothing ever raises."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from costs import reply
from hypothesis import given, settings
from hypothesis import strategies as st

from roadworthy.billing import answer
from roadworthy.billing.records import Costs, Oddity, Reason, Refusal, Trouble
from roadworthy.http.message import Failure, FailureKind, Reply

MOST = 10**12
ASKED = frozenset({"a", "b", "c"})


def told(text: str, asked=ASKED, most=MOST):
    return answer.read(reply(text.encode()), asked, most)


def item(id: str, cost: object) -> str:
    """One item with this raw text as its cost."""
    return '{"requestId": ' + json.dumps(id) + ', "costNanoUsd": ' + str(cost) + "}"


def listed(*items: str) -> str:
    """An answer with these items."""
    return '{"requests": [' + ", ".join(items) + "]}"


def cost_of(text: str):
    """What an answer with this cost for `a` says, as the raw text of the number."""
    found = told(listed(item("a", text)))
    assert isinstance(found, Costs)
    return found


@pytest.mark.parametrize(
    ("text", "cost", "oddity"),
    [
        ("0", 0, None),
        ("-0", 0, None),
        ("7", 7, None),
        (str(MOST), MOST, None),
        ("1.0", 1, Oddity.NOT_WRITTEN_AS_INTEGER),
        ("1e3", 1000, Oddity.NOT_WRITTEN_AS_INTEGER),
        ("-0.0", 0, Oddity.NOT_WRITTEN_AS_INTEGER),
        ("0e999999999", 0, Oddity.NOT_WRITTEN_AS_INTEGER),
        ("0.1", 1, Oddity.FRACTION),
        ("1e-400", 1, Oddity.FRACTION),
        ("41.0000000000000000000000000000000000000000000000000000000000000000000000001", 42, Oddity.FRACTION),
        ("999999999999.5", MOST, Oddity.FRACTION),
    ],
)
def test_what_is_posted_is_an_integer_rounded_up(text, cost, oddity):
    """Invariants 5 and 6: zero is a cost; integers end to end."""
    found = cost_of(text)
    assert found.posted == {"a": cost}
    assert type(found.posted["a"]) is int
    assert list(found.oddities) == ([oddity] if oddity else [])
    assert not found.doubtful
    assert not found.invalid


@pytest.mark.parametrize(
    ("text", "oddity"),
    [
        ("-1", Oddity.NEGATIVE),
        ("-0.5", Oddity.NEGATIVE),
        ("-" + "9" * 5000, Oddity.NEGATIVE),
        ("-1e400", Oddity.NEGATIVE),
        ('"5"', Oddity.NOT_A_NUMBER),
        ("true", Oddity.NOT_A_NUMBER),
        ("false", Oddity.NOT_A_NUMBER),
        ("null", Oddity.NOT_A_NUMBER),
        ("[]", Oddity.NOT_A_NUMBER),
        ("{}", Oddity.NOT_A_NUMBER),
        ("NaN", Oddity.NOT_A_NUMBER),
        ("Infinity", Oddity.NOT_A_NUMBER),
        ("-Infinity", Oddity.NOT_A_NUMBER),
        ("1e99999999999999999999", Oddity.NOT_A_NUMBER),
        ("0e99999999999999999999", Oddity.NOT_A_NUMBER),
    ],
)
def test_what_is_negative_or_cannot_be_read_is_asked_for_again(text, oddity):
    found = cost_of(text)
    assert not found.posted
    assert not found.doubtful
    assert list(found.invalid) == ["a"]
    assert list(found.oddities) == [oddity]
    assert len(found.invalid["a"]) <= 200


@pytest.mark.parametrize(
    ("text", "claimed"),
    [
        (str(MOST + 1), str(MOST + 1)),
        (str(2**63), str(2**63)),
        ("1e400", "1E+400"),
        ("999999999999999999999999.5", "999999999999999999999999.5"),
        ("9" * 5000, "9" * 20 + "... (5,000 characters)"),
    ],
)
def test_a_cost_beyond_reason_is_disputed(text, claimed):
    found = cost_of(text)
    assert not found.posted
    assert (found.doubtful["a"].reason, found.doubtful["a"].claimed) == (Reason.TOO_LARGE, claimed)


def test_the_same_cost_twice_is_one_and_two_costs_are_a_dispute():
    """Invariant 9, within one answer."""
    assert told(listed(item("a", 5), item("a", 5))).posted == {"a": 5}
    found = told(listed(item("a", 5), item("a", 6), item("a", 5)))
    assert not found.posted
    assert found.doubtful["a"].claimed == "5 and 6"


def test_a_duplicate_key_is_no_cost_whichever_value_a_parser_would_keep():
    found = told('{"requests": [{"requestId": "a", "costNanoUsd": 1, "costNanoUsd": 2}]}')
    assert not found.posted
    assert list(found.invalid) == ["a"]
    found = told('{"requests": [{"requestId": "a", "requestId": "b", "costNanoUsd": 1}]}')
    assert not found.posted
    assert not found.invalid
    assert list(found.oddities) == [Oddity.MALFORMED_ITEM]
    refused = told('{"requests": [' + item("a", 1) + '], "requests": [' + item("a", 2) + "]}")
    assert isinstance(refused, Refusal)
    assert "'requests' twice" in refused.detail


def test_ids_that_were_not_asked_for_count_for_nothing():
    """Invariant 8."""
    found = told(listed(item("other", 1), item("a", 2)))
    assert found.posted == {"a": 2}
    assert found.oddities[Oddity.UNASKED].examples == ["other"]


def test_lists_that_are_empty_null_reordered_or_too_long():
    for nothing in ("[]", "null"):
        assert told('{"requests": ' + nothing + "}") == Costs({}, {}, {}, {})
    items = [{"requestId": id, "costNanoUsd": n} for n, id in enumerate("cab")]
    assert told(json.dumps({"requests": items})).posted == {"c": 0, "a": 1, "b": 2}
    many = told(json.dumps({"requests": items + [{"requestId": f"x{n}", "costNanoUsd": 1} for n in range(20_000)]}))
    assert many.posted == {"c": 0, "a": 1, "b": 2}
    noted = many.oddities[Oddity.UNASKED]
    assert (noted.count, len(noted.examples)) == (20_000, 5)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "not JSON"),
        (b"<html>ok</html>", "not JSON"),
        (b"[]", "expected an object"),
        (b'"requests"', "expected an object"),
        (b"{}", "expected an object"),
        (b'{"requests": {}}', "a list or null"),
        (b'{"requests": [', "not JSON"),
        (b'{"requests": "\xff"}', "not UTF-8"),
        (b'{"requests": ' + b"[" * 200_000, "nested deeper"),
        (b'{"requests": [' + b'{"a":' * 100_000 + b"0", "nested deeper"),
        (b'{"requests": [' + b"[]," * 40 + b'"[[[[", 1]}', "malformed is fine"),
        (b'{"requests": [' + b"0," * 600_000 + b"0]}", "more than 500,000 values"),
        (b'{"requests": [' + b'""' * 1_500_000 + b"]}", "more than 500,000 values"),
    ],
    ids=["empty", "html", "list", "text", "no_key", "object", "cut", "bytes", "deep", "deep_objects", "flat",
         "values", "quotes"],
)  # fmt: skip
def test_what_is_no_answer_is_refused_in_words(body, word):
    found = answer.read(reply(body), ASKED, MOST)
    if word == "malformed is fine":
        assert isinstance(found, Costs)
        assert found.oddities[Oddity.MALFORMED_ITEM].count == 42
        return
    assert isinstance(found, Refusal)
    assert found.trouble is Trouble.UNREADABLE
    assert word in found.detail


def test_brackets_in_strings_are_no_depth():
    text = json.dumps({"requests": [{"requestId": "a", "costNanoUsd": 1, "note": "[" * 500 + '\\"' + "{" * 500}] * 40})
    assert told(text).posted == {"a": 1}


@pytest.mark.parametrize(
    ("status", "trouble", "too_much"),
    [
        (201, None, False),
        (301, Trouble.UNREACHED, False),
        (400, Trouble.CLIENT_ERROR, False),
        (401, Trouble.REFUSED_KEY, False),
        (404, Trouble.UNREACHED, False),
        (408, Trouble.UNREACHED, False),
        (413, Trouble.CLIENT_ERROR, True),
        (422, Trouble.CLIENT_ERROR, False),
        (429, Trouble.RATE_LIMITED, False),
        (500, Trouble.SERVER_ERROR, False),
        (503, Trouble.UNREACHED, False),
    ],
)
def test_what_each_status_means(status, trouble, too_much):
    found = answer.read(reply({"requests": []}, status), ASKED, MOST)
    if trouble is None:
        assert isinstance(found, Costs)
        return
    assert (found.trouble, found.too_much) == (trouble, too_much)
    assert str(status) in found.detail


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("30", 30.0),
        ("-5", 0.0),
        ("999999999999999999999", 24 * 3600.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 24 * 3600.0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0.0),
        ("Mon, 01 Jun 2026 12:00:40 GMT", 40.0),
    ],
)
def test_retry_after_is_read_by_the_providers_own_clock_and_bounded(value, wait_s):
    found = answer.read(reply({}, 429, retry_after=value, date="Mon, 01 Jun 2026 12:00:00 GMT"), ASKED, MOST)
    assert found.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("kind", "status", "trouble"),
    [
        (FailureKind.REFUSED, None, Trouble.UNREACHED),
        (FailureKind.DNS, None, Trouble.UNREACHED),
        (FailureKind.FORBIDDEN, None, Trouble.OURS),
        (FailureKind.TOTAL_TIMEOUT, None, Trouble.TIMEOUT),
        (FailureKind.IDLE_TIMEOUT, 200, Trouble.TIMEOUT),
        (FailureKind.BODY_TOO_LARGE, 200, Trouble.UNREADABLE),
        (FailureKind.TRUNCATED, 200, Trouble.UNREADABLE),
        (FailureKind.TRUNCATED, 429, Trouble.RATE_LIMITED),
    ],
)
def test_half_an_answer_is_none(kind, status, trouble):
    whole = b'{"requests": [{"requestId": "a", "costNanoUsd": 1}]}'
    found = answer.read(Reply(status, (), whole, failure=Failure(kind, "it broke off")), ASKED, MOST)
    assert isinstance(found, Refusal)
    assert found.trouble is trouble


# Against a plain model

ids = st.sampled_from(["a", "b", "c", "other", "", "\x00", "a "])
numbers = st.one_of(
    st.integers(-3, 20),
    st.integers(MOST - 2, MOST + 2),
    st.integers(-(10**70), 10**70),
    st.decimals(-3, 30, places=2),
    st.builds(lambda m, e: f"{m}e{e}", st.integers(-99, 99), st.integers(-400, 400)),
)
values = st.one_of(
    numbers.map(str), st.sampled_from(["null", "true", '"5"', "[]", "{}", "NaN", "Infinity", "1e9999999999999999999"])
)
keys = st.sampled_from(['"requestId"', '"costNanoUsd"', '"x"'])
items = st.one_of(
    st.builds(item, ids, values),
    st.builds(
        lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}",
        st.lists(st.tuples(keys, st.one_of(values, ids.map(json.dumps))), max_size=4),
    ),
    values,
)


def model(text: str):
    """What one item says by the rules, by other means: its id, and its cost; ">" for a giant, None for none."""
    if not text.startswith("{"):
        return None
    pairs = json.loads(text, object_pairs_hook=list, parse_int=Number, parse_float=Number, parse_constant=Number)
    told_ids = [value for key, value in pairs if key == "requestId"]
    if not told_ids or set(map(type, told_ids)) != {str} or len(set(told_ids)) > 1 or told_ids[0] not in ASKED:
        return None
    costs = [value for key, value in pairs if key == "costNanoUsd"]
    twice = len({key for key, _ in pairs}) < len(pairs)
    if twice or len(costs) != 1 or not isinstance(costs[0], Number) or costs[0].exact is None or costs[0].exact < 0:
        return told_ids[0], None
    return told_ids[0], ">" if costs[0].exact > MOST else math.ceil(costs[0].exact)


class Number:
    """A JSON number in exact terms; None where it is none, or has an exponent that nobody writes."""

    def __init__(self, text: str) -> None:
        mantissa, _, exponent = text.partition("e")
        usable = text[-1].isdigit() and abs(int(exponent or 0)) < 1000
        self.exact = Fraction(mantissa) * Fraction(10) ** int(exponent or 0) if usable else None


@settings(max_examples=300, deadline=None)
@given(st.lists(items, max_size=8))
def test_answers_against_a_plain_model(told_items):
    found = told(listed(*told_items))
    assert isinstance(found, Costs)
    said: dict[str, set] = {}
    for each in told_items:
        if (one := model(each)) is not None:
            said.setdefault(one[0], set()).add(one[1])
    costs = {id: {cost for cost in values if cost is not None} for id, values in said.items()}
    assert found.posted == {id: next(iter(v)) for id, v in costs.items() if len(v) == 1 and ">" not in v}
    assert set(found.doubtful) == {id for id, v in costs.items() if ">" in v or len(v) > 1}
    assert set(found.invalid) == {id for id, v in costs.items() if not v}
    classes = [set(found.posted), set(found.doubtful), set(found.invalid)]
    assert sum(map(len, classes)) == len(classes[0] | classes[1] | classes[2])
    assert (classes[0] | classes[1] | classes[2]) <= ASKED
    assert sum(found.posted.values()) == sum(next(iter(costs[id])) for id in found.posted)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([200, 200, 200, 429, 500, 100]), st.text(max_size=20))
def test_no_answer_raises(body, status, wait):
    found = answer.read(reply(body, status, retry_after=wait), ASKED, MOST)
    assert isinstance(found, Costs | Refusal)
