"""Prices and amounts are read exactly or refused, and multiplied out in integers."""

from __future__ import annotations

import json
import tracemalloc
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.billing.prices import (
    MAX_PUBLISHED_VALUES,
    Book,
    Rates,
    Version,
    nano_usd_per_million,
    published,
    read_csv,
    time_us,
    unit_of,
    usd,
)
from roadworthy.billing.reconcile.amounts import nano_of_nano, nano_of_usd
from roadworthy.cli.operator import iso
from roadworthy.errors import UsageError


@pytest.mark.parametrize(
    ("written", "nano"),
    [
        ("0.2", 200_000_000),
        (Decimal("0.2"), 200_000_000),
        (2, 2_000_000_000),
        (0, 0),
        ("0", 0),
        ("2e-1", 200_000_000),
        ("0.000000001", 1),
        ("1.100000000000", 1_100_000_000),
        ("9000000000", 9 * 10**18),
    ],
)
def test_a_price_is_exact(written, nano):
    assert nano_usd_per_million(written) == nano


@pytest.mark.parametrize(
    "written",
    [
        "",
        "-1",
        "NaN",
        "Infinity",
        "1e400",
        "0.0000000001",
        "1,5",
        "$2",
        "1_0",
        "9300000000",
        0.2,
        True,
        "9" * 5000,
        "0.2" + "0" * 30 + "1",
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_price_is_refused_in_a_sentence(written):
    with pytest.raises(UsageError, match="price"):
        nano_usd_per_million(written)


def test_a_price_with_too_many_decimals_says_how_many_there_may_be():
    with pytest.raises(UsageError, match="at most 9 decimals of a USD per million units, which are nano-USD"):
        nano_usd_per_million("0.1234567891")


@pytest.mark.parametrize("text", ["1,234", "-1,234", "$1,234", "(999,999)", "1,000 USD"])
@pytest.mark.parametrize("read", [nano_of_usd, nano_of_nano])
def test_what_could_be_a_thousand_times_more_is_refused_until_the_mark_is_told(read, text):
    with pytest.raises(UsageError, match=r"to some and .* to others; say which with --decimal-mark"):
        read(text)


@pytest.mark.parametrize(("mark", "texts"), [(None, ["0,002", "00,100"]), (".", ["0,002"]), (",", ["0.002", "00.100"])])
def test_a_group_of_thousands_does_not_begin_with_a_zero(mark, texts):
    for text in texts:
        with pytest.raises(UsageError, match="say so with --decimal-mark"):
            nano_of_usd(text, mark)


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_usd_tells_every_nano(nano):
    text = usd(nano)
    assert Fraction(text) * 10**9 == nano
    assert "e" not in text.lower()


@given(st.integers(min_value=0, max_value=2**62))
def test_what_is_shown_is_read_back(nano):
    assert nano_of_usd(usd(nano)) == (nano, False) or nano >= 10**19


@pytest.mark.parametrize(
    ("text", "mark", "nano"),
    [
        ("1,234.50", ".", 1_234_500_000_000),
        ("1.234,50", ",", 1_234_500_000_000),
        ("0,0021", ",", 2_100_000),
        ("$0.25", ".", 250_000_000),
        ("USD 3.2", ".", 3_200_000_000),
        ("3.2 USD", ".", 3_200_000_000),
        ("-0.5", ".", -500_000_000),
        ("(0.5)", ".", -500_000_000),
        ("-$2", ".", -2_000_000_000),
        ("1.5e-05", ".", 15_000),
        (".5", ".", 500_000_000),
        ("0", ".", 0),
        ("1,234,567", ".", 1_234_567_000_000_000),
        ("1,234", ".", 1_234_000_000_000),
        ("1,234", ",", 1_234_000_000),
        ("1.234", ",", 1_234_000_000_000),
        ("0,002", ",", 2_000_000),
        ("1,234,567", None, 1_234_567_000_000_000),
        ("1,234.50", None, 1_234_500_000_000),
        ("0.002", None, 2_000_000),
    ],
)
def test_amounts_are_read_as_people_write_them(text, mark, nano):
    assert nano_of_usd(text, mark) == (nano, False)


def test_more_decimals_than_nano_are_rounded_up_and_told():
    assert nano_of_usd("0.0000000001") == (1, True)
    assert nano_of_usd("0.2" + "0" * 30 + "1") == (200_000_001, True)
    assert nano_of_usd("0.000012000000000000002") == (12_001, True)
    assert nano_of_nano("12.5") == (13, True)
    assert nano_of_nano("1,250", ".") == (1250, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0,5", "--decimal-mark ','"),
        ("1,23.4", "expected an amount"),
        ("€5", "other currencies"),
        ("5 EUR", "other currencies"),
        ("", "expected an amount"),
        ("1e30", "more than this ledger can hold"),
        ("NaN", "other currencies"),
        ("--5", "expected an amount"),
    ],
)
def test_amounts_that_cannot_be_read_are_refused(text, says):
    with pytest.raises(UsageError, match=says):
        nano_of_usd(text)


def rates(**more):
    return Rates(
        **{"input": 2_000_000, "cached": 500_000, "output": 3_000_000, "others": {}, "from_us": 0, "until_us": 1} | more
    )


def test_cached_tokens_are_charged_once_at_their_own_price():
    assert rates().cost_nano_usd(1000, 400, 10, None) == (600 * 2 + 400 * 0.5 + 10 * 3)
    assert rates(cached=None).cost_nano_usd(1000, 400, 10, None) == 1000 * 2 + 10 * 3


def test_a_cost_is_rounded_up_once_over_all_parts():
    assert rates(input=1, output=1).cost_nano_usd(1, 0, 1, None) == 1
    assert rates(input=500_000, output=500_001).cost_nano_usd(1, 0, 1, None) == 2


def test_a_unit_without_a_price_leaves_the_cost_open_unless_there_is_none_of_it():
    assert rates().cost_nano_usd(1, 0, 0, {"images": 1}) is None
    assert rates().cost_nano_usd(1, 0, 0, {"images": 0}) == 2
    assert rates(output=None).cost_nano_usd(1, 0, 0, None) == 2
    assert rates(output=None).cost_nano_usd(1, 0, 1, None) is None


TOKENS, PRICE = st.integers(0, 10**12), st.integers(0, 10**18)


@given(TOKENS, TOKENS, TOKENS, PRICE, PRICE)
def test_costs_are_exact_whatever_their_size(plain, cached, made, input_price, output_price):
    cached = min(cached, plain)
    exact = rates(input=input_price, cached=None, output=output_price).cost_nano_usd(plain, cached, made, None)
    total = plain * input_price + made * output_price
    assert exact is not None
    assert (exact - 1) * 10**6 < total <= exact * 10**6


def test_the_latest_price_that_had_begun_holds():
    def version(nano, from_us, id):
        return Version("acme", "m", "input_tokens", nano, from_us, 0, "test", id)

    book = Book.of([version(3, 200, 3), version(1, 0, 1), version(9, 100, 2), version(2, 100, 4)])
    found = [book.at("m", at) for at in (0, 99, 100, 199, 200, 10**18)]
    assert [one and one.input for one in found] == [1, 1, 2, 2, 3, 3]
    assert [one and one.until_us for one in found][:4] == [100, 100, 200, 200]
    assert book.at("m", -1).input is None
    assert book.at("other", 0) is None


def test_published_prices_are_read_without_a_float():
    body = b"""{"object": "list", "data": [
        {"id": "a", "pricing": {"input": 0.1, "output": "0.3", "cached_input": 0.01, "hourly": 5}},
        {"id": "b", "pricing": {"input": 0, "output": 2}},
        {"id": "per-token", "pricing": {"input": 2e-7, "output": 0.6}},
        {"id": "odd", "pricing": {"input": -1, "output": null}},
        {"id": "none"}, {"id": 5, "pricing": {"input": 1}}, 7
    ]}"""
    found = published(body)
    assert found.prices == {
        "a": {"input_tokens": 10**8, "output_tokens": 3 * 10**8, "cached_input_tokens": 10**7},
        "b": {"input_tokens": 0, "output_tokens": 2 * 10**9},
        "per-token": {"output_tokens": 6 * 10**8},
    }
    assert [problem.partition(":")[0] for problem in found.problems] == [
        "per-token, pricing.input",
        "odd, pricing.input",
    ]
    assert "price of one token" in found.problems[0]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[" * 100_000, b'{"data": {}}', b"\xff", b'"text"'], ids=lambda raw: str(raw[:4])
)
def test_what_is_no_list_of_models_is_refused(body):
    with pytest.raises(UsageError, match="/models"):
        published(body)


HOSTILE = {
    "numbers": b'{"data":[' + b"1," * 2_000_000 + b"1]}",
    "objects": b'{"data":[' + b"{}," * 1_300_000 + b"{}]}",
    "lists-in-lists": b'{"data":[' + (b"[" * 30 + b"]" * 30 + b",") * 65_000 + b"1]}",
    "a-text-without-end": b'{"data":' + b"[" * 40 + b'"' + b'\\"' * 300_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_all_memory_or_time_is_refused_before_it_is_parsed(name):
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"of /models (holds more than|is nested deeper)"):
            published(HOSTILE[name])
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_the_most_that_is_accepted_takes_bounded_memory():
    count = MAX_PUBLISHED_VALUES // 3 - 1
    body = b'{"data":[' + b'{"a":1.25},[1],' * (count // 2) + b"1]}"
    tracemalloc.start()
    try:
        assert published(body).prices == {}
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_what_a_model_is_called_cannot_act_where_it_is_shown():
    body = json.dumps({"data": [{"id": "a\ud800\x1b[2J", "pricing": {"input": -1}}]}).encode()
    assert published(body).problems[0].startswith("'a\\ud800\\x1b[2J', pricing.input: a price is USD")


def test_an_exponent_beyond_all_bounds_spoils_one_price_alone():
    body = b'{"data": [{"id": "a", "pricing": {"input": 1e9999999999999999999, "output": 2}}]}'
    assert published(body).prices == {"a": {"output_tokens": 2 * 10**9}}


def test_a_giant_number_spoils_one_price_alone():
    body = json.dumps({"data": [{"id": "a", "pricing": {"input": 1, "output": 2}}]}).replace("1,", "1" * 5000 + ",")
    assert published(body.encode()).prices == {"a": {"output_tokens": 2 * 10**9}}


def test_a_file_of_prices_is_read_whole():
    text = (
        "\ufeffModel,unit,usd_per_million,from,provider\r\n"
        "owner/a,input_tokens,0.2,2026-10-01,acme\r\n\r\nowner/a,images,40000,,acme\r\n"
    )
    first, second = read_csv(text, None, 7)
    assert (first.provider, first.model, first.nano_usd_per_million) == ("acme", "owner/a", 2 * 10**8)
    assert (first.valid_from_us, first.recorded_at_us) == (time_us("2026-10-01T00:00:00Z"), 7)
    assert (second.unit, second.valid_from_us) == ("images", 7)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_file_of_prices_is_read_as_spreadsheets_of_any_country_write_it(separator):
    lines = ("model,unit,usd_per_million", "owner/a,images,40000")
    text = "\ufeff" + "".join(line.replace(",", separator) + "\r\n" for line in lines)
    (price,) = read_csv(text, "acme", 7)
    assert (price.model, price.unit, price.nano_usd_per_million) == ("owner/a", "images", 4 * 10**13)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no prices"),
        ("model,unit\n", "line 1: expected the columns model, unit, usd_per_million"),
        ("model,unit,usd_per_million\na,b,0.1,5\n", "line 2: expected 3 cells"),
        ("model,unit,usd_per_million\na,b,x\n", "line 2: a price is USD"),
        ("model,unit,usd_per_million\na,B,1\n", "line 2: a unit is"),
        ("model,unit,usd_per_million\n,b,1\n", "line 2: a model is"),
        ("model,unit,usd_per_million,from\na,b,1,soon\n", "line 2: a time is written"),
        ("model,unit,usd_per_million,provider\na,b,1,other\n", "--provider names 'acme'"),
    ],
)
def test_a_file_of_prices_says_which_line_is_wrong(text, says):
    with pytest.raises(UsageError, match=says):
        read_csv(text, "acme", 0)


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59-23:00",
        "9999-01-01",
        "9998-12-31T23:59:59.999999-00:01",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00+00:01",
    ],
)
def test_a_time_that_could_not_be_shown_again_is_refused(text):
    with pytest.raises(UsageError, match="expected in the years 1970 to 9998 of UTC"):
        time_us(text)
    with pytest.raises(UsageError, match="line 2: a time is expected"):
        read_csv(f"model,unit,usd_per_million,from\na,b,1,{text}\n", "acme", 0)


def test_the_first_and_the_last_time_are_read_and_shown():
    assert time_us("1970-01-01") == time_us("1970-01-01T01:00:00+01:00") == 0
    assert iso(time_us("9998-12-31T23:59:59Z")) == "9998-12-31T23:59:59Z"


def test_units_are_names():
    assert unit_of("images") == "images"
    for text in ("", "Images", "a b", "x" * 33):
        with pytest.raises(UsageError, match="unit"):
            unit_of(text)
