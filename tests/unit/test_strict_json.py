"""JSON as a careful peer reads it: every hostile text has a name, and none raises."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.conformance import strict_json
from roadworthy.conformance.strict_json import MAX_DEPTH, MAX_INTEGER_DIGITS, Malformed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("NaN", "NaN is not JSON"),
        ('{"a": Infinity}', "Infinity is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e400", "the number 1e400 is beyond any double"),
        ("-1e400", "the number -1e400 is beyond any double"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' appears twice in one object"),
        ('{"x": [{"a": 1, "\\u0061": 1}]}', "the key 'a' appears twice in one object"),
        ("[" * 200_000, "nested more than 200 levels deep"),
        ('{"a":' * 200_000, "nested more than 200 levels deep"),
        ("[" * 200_000 + "]" * 200_000, "nested more than 200 levels deep"),
        ("9" * 5_000, "an integer of 5,000 digits"),
        (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 7"),
        (b'"\xc3', "not UTF-8: unexpected end of data at byte 1"),
        ("", "an empty body"),
        (" \n ", "an empty body"),
        ("{", "not JSON: Expecting property name enclosed in double quotes at line 1 column 2"),
        ("{} {}", "not JSON: Extra data at line 1 column 4"),
        ("\ufeff{}", "not JSON: "),
        ("<html>", "not JSON: Expecting value at line 1 column 1"),
        ('"\n"', "not JSON: Invalid control character at at line 1 column 2"),
        ("1_000", "not JSON: "),
        ("01", "not JSON: "),
        ("{'a': 1}", "not JSON: "),
        ("[1,]", "not JSON: "),
    ],
)
def test_a_malformed_text_is_named(text, reason):
    value = strict_json.loads(text)
    assert isinstance(value, Malformed)
    assert value.reason.startswith(reason)
    assert len(value.reason) < 300


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2, 3.5, 1e3, true, false, null, "x"]}',
        "9" * MAX_INTEGER_DIGITS,
        "5",
        '"\\u00e9"',
        '"é"',
        "-0",
        "1e-400",
    ],
)
def test_what_json_allows_is_what_json_reads(text):
    assert strict_json.loads(text) == strict_json.loads(text.encode()) == json.loads(text)


def test_a_lone_surrogate_is_legal_json_and_stays_printable():
    value = strict_json.loads('{"a": "\\ud800"}')
    assert value == {"a": "\ud800"}
    assert json.dumps(value) == '{"a": "\\ud800"}'


def test_brackets_in_strings_are_no_depth():
    assert strict_json.loads(json.dumps(["[{" * 500 + '\\"' * 3])) == ["[{" * 500 + '\\"' * 3]


def test_the_depth_allowed_is_exact():
    assert not isinstance(strict_json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH), Malformed)
    assert isinstance(strict_json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)), Malformed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, st.booleans())
def test_every_value_survives(value, ascii_only):
    assert strict_json.loads(json.dumps(value, ensure_ascii=ascii_only)) == value


@given(st.binary(max_size=80) | st.text(max_size=80))
def test_nothing_raises_and_what_is_accepted_is_json(data):
    value = strict_json.loads(data)
    if not isinstance(value, Malformed):
        assert json.loads(data) == value
