"""Usage items: what is taken, and what each field that cannot be is told."""

from __future__ import annotations

import re

import jsonschema
import pytest

from roadworthy import strict_json
from roadworthy.billing.items import AHEAD_US, BEHIND_US, ITEM_SCHEMA, MAX_AMOUNT, ItemReader
from roadworthy.billing.records import Served
from roadworthy.billing.schedule import SECOND_US

NOW_US = 1_760_000_000 * SECOND_US  # 2025-10-09T08:53:20Z
READER = ItemReader({"acme"}, NOW_US)
GOOD = {
    "provider": "acme",
    "requestId": "r-1",
    "servedAt": "2025-10-09T08:53:20Z",
    "payer": "org:paying",
    "model": "owner/chat",
    "task": "conversational",
    "status": 200,
    "usage": {"inputTokens": 10, "cachedInputTokens": 4, "outputTokens": 20, "units": {"images": 1}},
}


def with_usage(**usage):
    return GOOD | {"usage": usage}


def test_an_item_is_taken_whole():
    assert READER.read(GOOD) == Served(
        "acme", "r-1", NOW_US, "org:paying", "owner/chat", "conversational", 200, 10, 4, 20, {"images": 1}
    )
    without = {name: value for name, value in GOOD.items() if name != "usage"}
    for item in (without, without | {"usage": None}, without | {"usage": {}}, with_usage(inputTokens=None, units={})):
        assert READER.read(item) == Served("acme", "r-1", NOW_US, "org:paying", "owner/chat", "conversational", 200)


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("2025-10-09T10:53:20+02:00", NOW_US),
        ("2025-10-09t08:53:20.5z", NOW_US + 500_000),
        ("2025-10-09T08:53:20.123456789Z", NOW_US + 123_456),
        ("2025-10-09T08:58:20Z", NOW_US + AHEAD_US),
        ("2025-09-04T08:53:20Z", NOW_US - BEHIND_US),
    ],
)
def test_times_are_read_to_the_microsecond(text, at_us):
    made = READER.read(GOOD | {"servedAt": text})
    assert isinstance(made, Served)
    assert made.served_at_us == at_us


@pytest.mark.parametrize(
    ("item", "field", "expected"),
    [
        (GOOD | {"provider": "Acme"}, "provider", "slug"),
        (GOOD | {"provider": "a--b"}, "provider", "slug"),
        (GOOD | {"provider": "other"}, "provider", "registered here"),
        (GOOD | {"requestId": ""}, "requestId", "1 to 256 characters"),
        (GOOD | {"requestId": "x" * 257}, "requestId", "1 to 256 characters"),
        (GOOD | {"requestId": " x"}, "requestId", "without a space at either end"),
        (GOOD | {"requestId": "a\x00b"}, "requestId", "on one line"),
        (GOOD | {"requestId": "a\n"}, "requestId", "on one line"),
        (GOOD | {"requestId": "a\u2028b"}, "requestId", "on one line"),
        (GOOD | {"requestId": "a\ud800b"}, "requestId", "on one line"),
        (GOOD | {"requestId": 7}, "requestId", "the id that the provider gave"),
        (GOOD | {"payer": "acme"}, "payer", "'user:NAME' or 'org:NAME'"),
        (GOOD | {"payer": "team:acme"}, "payer", "'user:NAME' or 'org:NAME'"),
        (GOOD | {"payer": "org:" + "x" * 97}, "payer", "'user:NAME' or 'org:NAME'"),
        (GOOD | {"model": None}, "model", "the model that was asked"),
        (GOOD | {"task": "Text_To_Image"}, "task", "lower case with hyphens"),
        (GOOD | {"task": "a" * 65}, "task", "64 characters"),
        (GOOD | {"status": "200"}, "status", "an integer from 100 to 599"),
        (GOOD | {"status": 200.0}, "status", "an integer from 100 to 599"),
        (GOOD | {"status": True}, "status", "an integer from 100 to 599"),
        (GOOD | {"status": 99}, "status", "an integer from 100 to 599"),
        (GOOD | {"status": 600}, "status", "an integer from 100 to 599"),
        (GOOD | {"servedAt": 1_760_000_000}, "servedAt", "RFC 3339 with its offset"),
        (GOOD | {"servedAt": "2025-10-09T08:53:20"}, "servedAt", "RFC 3339 with its offset"),
        (GOOD | {"servedAt": "2025-10-09 08:53:20Z"}, "servedAt", "RFC 3339 with its offset"),
        (GOOD | {"servedAt": "2025-13-09T08:53:20Z"}, "servedAt", "RFC 3339 with its offset"),
        (GOOD | {"servedAt": "0001-01-01T00:00:00+23:59"}, "servedAt", "of the last 35 days"),
        (GOOD | {"servedAt": "2025-10-09T08:58:20.000001Z"}, "servedAt", "5 minutes ahead"),
        (GOOD | {"servedAt": "2025-09-04T08:53:19.999999Z"}, "servedAt", "of the last 35 days"),
        (GOOD | {"usage": []}, "usage", "an object with inputTokens"),
        (with_usage(inputTokens=-1), "usage.inputTokens", "a whole number from 0"),
        (with_usage(outputTokens=1.0), "usage.outputTokens", "written as an integer"),
        (with_usage(outputTokens="1"), "usage.outputTokens", "written as an integer"),
        (with_usage(outputTokens=False), "usage.outputTokens", "written as an integer"),
        (with_usage(outputTokens=MAX_AMOUNT + 1), "usage.outputTokens", "to 1,000,000,000,000"),
        (with_usage(cachedInputTokens=1), "usage.cachedInputTokens", "at most inputTokens"),
        (with_usage(inputTokens=1, cachedInputTokens=2), "usage.cachedInputTokens", "at most inputTokens"),
        (with_usage(tokens=1), "usage.tokens", "no field of this name"),
        (with_usage(units=[1]), "usage.units", "an object of at most 16 units"),
        (with_usage(units={f"u{n}": 1 for n in range(17)}), "usage.units", "at most 16 units"),
        (with_usage(units={"Images": 1}), "usage.units", "a small letter first"),
        (with_usage(units={"x" * 33: 1}), "usage.units", "1 to 32"),
        (with_usage(units={"images": None}), "usage.units.images", "a whole number from 0"),
        (with_usage(units={"images": -1}), "usage.units.images", "a whole number from 0"),
        (GOOD | {"requestid": "r"}, "requestid", "perhaps requestId"),
        (GOOD | {"\x1b[31m": 1}, "", "no field of this name"),
        ([], "", "a JSON object"),
        (None, "", "a JSON object"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(item, field, expected):
    made = READER.read(item)
    assert isinstance(made, list), made
    assert [problem.field for problem in made] == [field]
    assert expected in made[0].expected
    assert str(made[0]).isascii()
    assert str(made[0]).isprintable()
    assert len(str(made[0])) < 400


def test_all_that_is_wrong_with_an_item_is_told_at_once():
    made = READER.read({"status": 7, "extra": 1, "usage": {"inputTokens": "many"}})
    assert isinstance(made, list)
    fields = [problem.field for problem in made]
    assert fields == [
        "provider",
        "requestId",
        "payer",
        "model",
        "task",
        "servedAt",
        "status",
        "extra",
        "usage.inputTokens",
    ]
    assert made[0].got == "nothing"


def test_late_ones_are_taken_where_they_are_allowed_and_what_was_before_1970_never():
    late = ItemReader({"acme"}, NOW_US, late=True)
    assert isinstance(late.read(GOOD | {"servedAt": "2020-01-01T00:00:00Z"}), Served)
    made = late.read(GOOD | {"servedAt": "1969-12-31T23:59:59Z"})
    assert isinstance(made, list)
    assert "since 1970" in made[0].expected


def test_the_description_takes_what_the_reader_takes():
    validator = jsonschema.Draft202012Validator(ITEM_SCHEMA)
    assert validator.is_valid(GOOD)
    assert validator.is_valid(GOOD | {"usage": None})
    for bad in (GOOD | {"status": 99}, GOOD | {"more": 1}, with_usage(units={"Images": 1}), GOOD | {"task": "A"}):
        assert not validator.is_valid(bad)
    for name in ("provider", "requestId", "payer", "model", "task", "servedAt"):
        assert re.compile(ITEM_SCHEMA["properties"][name]["pattern"]).fullmatch(GOOD[name])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a": 1, "a": 1}', "has the key 'a' twice"),
        (b"[Infinity]", "holds Infinity"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "is not UTF-8, at byte 0"),
        (b"{} {}", "is not valid JSON: extra data"),
        (b"9" * 5000, "thousands of digits"),
    ],
    ids=["twice", "infinity", "deep", "latin", "two", "giant"],
)
def test_json_is_read_strictly(raw, said):
    with pytest.raises(strict_json.JsonTextError, match=re.escape(said)):
        strict_json.parse(raw)
