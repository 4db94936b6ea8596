"""Generated bodies: valid ones are valid, broken ones are broken, and a seed repeats them."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest

from roadworthy.conformance import generate, strict_json
from roadworthy.conformance.strict_json import Malformed
from roadworthy.sandbox.turn import ApiError
from roadworthy.sandbox.validation import validate
from roadworthy.schemas import load

COUNT = 40


def test_valid_bodies_meet_the_request_schema_and_the_sandboxs_own_validation():
    schema = {**load(generate.SCHEMA), "properties": {**load(generate.SCHEMA)["properties"]}}
    schema["properties"]["messages"] = {**schema["properties"]["messages"], "maxItems": 5}
    judge = jsonschema_rs.Draft202012Validator(schema)
    bodies = generate.valid("acme/chat-1", COUNT, 0)
    assert len({body.data for body in bodies}) == COUNT
    for body in bodies:
        value = json.loads(body.data)
        judge.validate(value)
        validate(value, set())
        assert value["max_tokens"] <= generate.MAX_TOKENS
        assert value["messages"][-1]["role"] == "user"


def test_bodies_that_must_be_refused_are_refused_by_an_independent_validation():
    bodies = generate.invalid("acme/chat-1", COUNT, 0)
    assert len(bodies) == COUNT
    for body in bodies:
        value = strict_json.loads(body.data)
        if not body.must_refuse:
            continue
        if isinstance(value, Malformed | list):
            continue
        with pytest.raises(ApiError):
            validate(value, set())


def test_the_same_seed_draws_the_same_bodies_and_another_seed_others():
    generate.valid.cache_clear()
    first = generate.valid("m", COUNT, 1)
    generate.valid.cache_clear()
    assert generate.valid("m", COUNT, 1) == first
    assert generate.valid("m", COUNT, 2) != first


def test_none_are_drawn_where_none_are_wanted():
    assert generate.valid("m", 0, 0) == ()
    assert generate.invalid("m", 0, 0) == ()
