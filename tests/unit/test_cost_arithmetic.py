"""Prices and costs are exact; questions for costs are read strictly."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roadworthy.partner
from roadworthy.partner.costs import (
    MAX_TOKENS,
    CostRequestError,
    Price,
    Tokens,
    asked_ids,
    cost_answer,
    is_possible_id,
    tokens_of,
)

PRICES = st.decimals(min_value=0, max_value=1_000_000, places=9)
COUNTS = st.integers(min_value=0, max_value=MAX_TOKENS)


@given(PRICES, PRICES, PRICES, st.tuples(COUNTS, COUNTS, COUNTS))
def test_a_cost_is_the_exact_sum_rounded_up_once(input, output, cached, counts):
    read, said, from_cache = counts
    tokens = Tokens(read, said, min(read, from_cache))
    exact_usd = (
        (read - tokens.cached_input) * Fraction(input)
        + tokens.cached_input * Fraction(cached)
        + said * Fraction(output)
    ) / 1_000_000
    cost_nano_usd = Price(input=input, output=str(output), cached_input=cached).cost_nano_usd(tokens)
    assert cost_nano_usd == math.ceil(exact_usd * 10**9)
    assert cost_nano_usd < 2**63


def test_the_smallest_price_of_one_token_is_one_nano_usd():
    price = Price(input="0.000000001", output="0")
    assert price.cost_nano_usd(Tokens(1, 0)) == 1
    assert price.cost_nano_usd(Tokens(1_000_001, 0)) == 2
    assert price.cost_nano_usd(Tokens(0, 5)) == 0


def test_cached_tokens_are_counted_once_and_cost_as_much_as_others_without_a_price():
    tokens = Tokens(10, 0, cached_input=4)
    assert Price(input="0.2", output="0", cached_input="0.05").cost_nano_usd(tokens) == 6 * 200 + 4 * 50
    assert Price(input="0.2", output="0").cost_nano_usd(tokens) == 10 * 200


def test_prices_are_equal_by_their_figures():
    assert Price(input="0.2", output="1") == Price(input=Decimal("0.20"), output="1.0", cached_input="0.2")
    assert Price(input="0.2", output="1") != Price(input="0.2", output="1", cached_input="0.1")
    assert Price(input="0.2", output="0.6").published() == {"input": 0.2, "output": 0.6}


@pytest.mark.parametrize(
    ("figure", "error", "said"),
    [
        (0.2, TypeError, r'got the float 0\.2: write Price\(input="0\.2"\)'),
        (True, TypeError, "got the bool True"),
        (None, TypeError, "got the NoneType None"),
        ("-0.1", ValueError, "from 0 to 1,000,000"),
        ("1000001", ValueError, "from 0 to 1,000,000"),
        ("NaN", ValueError, "from 0 to 1,000,000"),
        ("1e400", ValueError, "from 0 to 1,000,000"),
        ("a fifth", ValueError, "got a fifth"),
        ("0.0000000001", ValueError, "at most 9 digits after the point"),
    ],
)
def test_a_price_that_is_none_is_refused_with_the_way_out(figure, error, said):
    with pytest.raises(error, match=said):
        Price(input=figure, output="0.6")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}, Tokens(3, 5)),
        ({"prompt_tokens": 3, "total_tokens": 3}, Tokens(3, 0)),
        ({"input_tokens": 3, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 2}}, Tokens(3, 5, 2)),
        ({"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, Tokens(3, 5, 3)),
        ({"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": None}, Tokens(3, 5)),
        ({"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": None}}, Tokens(3, 5)),
        ({"prompt_tokens": "3", "completion_tokens": 5}, None),
        ({"prompt_tokens": 3.0, "completion_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": 5}, None),
        ({"prompt_tokens": -1, "completion_tokens": 5}, None),
        ({"prompt_tokens": 3, "completion_tokens": None}, None),
        ({"prompt_tokens": MAX_TOKENS + 1, "completion_tokens": 5}, None),
        ({"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -2}}, None),
        ({"seconds": 3}, None),
        ({}, None),
        ([3, 5], None),
        (None, None),
    ],
)
def test_tokens_are_read_from_every_form_of_usage_and_from_nothing_else(usage, tokens):
    assert tokens_of(usage) == tokens


def test_ids_are_asked_for_once_each_and_in_order():
    assert asked_ids(b'{"requestIds": ["b", "a", "b"], "more": 1}') == ["b", "a"]
    assert asked_ids(b'{"requestIds": []}') == []
    assert len(asked_ids(json.dumps({"requestIds": [str(n) for n in range(10_000)]}).encode())) == 10_000


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"requestIds": null}', "must be an array of strings, got null"),
        (b'{"requestIds": {}}', "got an object"),
        (b'{"requestids": []}', "got nothing"),
        (b'{"requestIds": ["a", null]}', r"`requestIds\[1\]` must be a string, got null"),
        (b'{"requestIds": [true]}', "got a boolean"),
        (b'{"requestIds": [NaN]}', "got a number"),
        (b'{"requestIds": [], "requestIds": []}', "twice"),
        (b'"a"', "must be an object"),
        (b"", "is not JSON"),
        (b'{"requestIds": [' + b'"a",' * 10_000 + b'"a"]}', "10,000 ids, got 10,001"),
    ],
    ids=["null", "object", "name", "null_id", "boolean", "nan", "twice", "string", "empty", "many"],
)
def test_another_question_is_refused_with_what_came(body, said):
    with pytest.raises(CostRequestError, match=said):
        asked_ids(body)


def test_the_answer_holds_what_is_known_and_nothing_is_a_cost():
    assert cost_answer(["b", "c", "a"], {"a": 0, "b": 7, "d": 1}) == {
        "requests": [{"requestId": "b", "costNanoUsd": 7}, {"requestId": "a", "costNanoUsd": 0}]
    }


@pytest.mark.parametrize("id", ["", "a\x00b", "caf\u00e9", "\ud800", "a\nb", "a" * 257])
def test_what_no_header_can_tell_is_no_id(id):
    assert not is_possible_id(id)
    assert is_possible_id("6f1c1b1e-8d0a-4a67-9a51-1f6f3f0f9b11")


def test_the_package_offers_three_names():
    assert set(roadworthy.partner.__all__) <= set(dir(roadworthy.partner)) | {"CostMiddleware"}
    assert roadworthy.partner.CostMiddleware.__module__ == "roadworthy.partner.middleware"
    with pytest.raises(AttributeError, match="no attribute 'Costs'"):
        roadworthy.partner.Costs  # noqa: B018


@pytest.mark.parametrize(
    ("counts", "error", "got"),
    [
        ((5, None), TypeError, "`output` of Tokens must be an integer from 0 to 1,000,000,000, got a NoneType"),
        ((5.0, 1), TypeError, "`input` of Tokens .* got a float"),
        ((True, 1), TypeError, "`input` of Tokens .* got a bool"),
        ((5, 1, "2"), TypeError, "`cached_input` of Tokens .* got a str"),
        ((5, -1), ValueError, "`output` of Tokens .* got -1; .* `usage_of`"),
        ((MAX_TOKENS + 1, 1), ValueError, "`input` of Tokens .* got 1,000,000,001"),
        ((10**9999, 1), ValueError, "`input` of Tokens .* got a far larger one"),
    ],
    ids=["none", "float", "bool", "text", "negative", "too_many", "far_too_many"],
)
def test_tokens_are_counts_that_can_be(counts, error, got):
    with pytest.raises(error, match=got):
        Tokens(*counts)
    assert Tokens(MAX_TOKENS, 0, 0).input == MAX_TOKENS
