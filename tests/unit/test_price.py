"""Prices: read exactly, kept as integers, rounded up only at the end."""

from __future__ import annotations

import pytest
from exchanges import exchange
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.conformance.price import Price, published_price


@pytest.mark.parametrize(
    ("input_price", "output_price", "nano"),
    [
        (0.2, 2, (200_000_000, 2_000_000_000)),
        ("0.2", "0.6", (200_000_000, 600_000_000)),
        (0.1, 0.3, (100_000_000, 300_000_000)),
        (0, 0, (0, 0)),
        (1e-9, 0.0000000001, (1, 1)),
    ],
)
def test_a_price_is_read_without_a_rounding_error(input_price, output_price, nano):
    price = Price.parse(input_price, output_price)
    assert price is not None
    assert (price.input_nano_usd_per_million, price.output_nano_usd_per_million) == nano


@pytest.mark.parametrize("bad", [None, True, -1, "cheap", "NaN", "Infinity", [], {}, float("nan"), 1e300, ""])
def test_what_is_no_price_is_none(bad):
    assert Price.parse(bad, 1) is None
    assert Price.parse(1, bad) is None


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**12), st.integers(0, 10**12))
def test_the_cost_is_the_exact_one_rounded_up(tokens_in, tokens_out, price_in, price_out):
    cost = Price(price_in, price_out).cost_nano_usd(tokens_in, tokens_out)
    exact_millionths = tokens_in * price_in + tokens_out * price_out
    assert cost * 1_000_000 >= exact_millionths > (cost - 1) * 1_000_000


def test_the_published_price_is_the_entrys_own():
    listed = {"data": [{"id": "a", "pricing": {"input": 1, "output": 2}}, {"id": "b", "pricing": {"prompt": 1}}, 7]}
    seen = exchange("discovery.models", listed)
    assert published_price(seen, "a") == Price(1_000_000_000, 2_000_000_000)
    assert published_price(seen, "b") is None
    assert published_price(seen, "c") is None
    assert Price(1_500_000_000, 2_000_000_000).describe() == "1.5 USD in and 2 USD out per million tokens"
