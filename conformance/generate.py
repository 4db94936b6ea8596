"""Generated requests: valid ones drawn from the request schema, and ones broken on purpose.

Everything is drawn before anything is sent, from a seed, so that a run can be planned,
bounded and repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from roadworthy.schemas import load

SCHEMA = "openai/chat_completion_request.json"
MAX_TOKENS = 16
DEPTH = 1_000
DIGITS = 400


@dataclass(frozen=True, slots=True)
class Body:
    """A request body: the bytes to send, what is odd about it, and whether it must be refused."""

    data: bytes
    label: str
    must_refuse: bool = False


@cache
def valid(model: str, count: int, seed: int) -> tuple[Body, ...]:
    """So many valid bodies."""

    def finish(drawn: dict[str, Any]) -> Body:
        # The last message is the user's, as every chat template demands; tokens are bounded.
        messages = [*drawn["messages"], {"role": "user", "content": "Say hello."}]
        drawn = {"max_tokens": MAX_TOKENS, **drawn, "model": model, "messages": messages}
        fields = ", ".join(sorted(drawn.keys() - {"model", "messages", "max_tokens"}))
        return Body(json.dumps(drawn).encode(), f"valid: {fields or 'nothing optional'}")

    return _draw(_strategy(load(SCHEMA)).map(finish), count, seed)


@cache
def invalid(model: str, count: int, seed: int) -> tuple[Body, ...]:
    """So many bodies that are broken in one way each; the ways come round in turn."""
    from hypothesis import strategies as st

    numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
    odd: Any = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20), st.just([]), st.just({}))
    values = _draw(odd.map(lambda value: Body(json.dumps(value).encode(), "value")), count, seed)
    drawn = [json.loads(value.data) for value in values] or [None]
    return tuple(BREAKS[number % len(BREAKS)](model, drawn[number % len(drawn)]) for number in range(count))


def _plain(model: str, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Say hello."}]
    return {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, **changes}


def _json(body: Any, label: str, *, must_refuse: bool = True) -> Body:
    return Body(json.dumps(body).encode(), label, must_refuse)


def _without(model: str, key: str) -> Body:
    body = _plain(model)
    del body[key]
    return _json(body, f"without {key}")


def _typed(field: str, *, text_fits: bool = False) -> Callable[[str, Any], Body]:
    """Break one field's type beyond what any lenient parser would coerce: an object, or a text where none fits."""

    def build(model: str, value: Any) -> Body:
        wrong = f"x{value}" if isinstance(value, str) and not text_fits else {"wrong": "type"}
        return _json(_plain(model, **{field: wrong}), f"{field} = {json.dumps(wrong)[:40]}")

    return build


def _raw(data: bytes, label: str) -> Body:
    return Body(data, label, must_refuse=True)


BREAKS: tuple[Callable[[str, Any], Body], ...] = (
    _typed("messages"),
    _typed("max_tokens"),
    _typed("temperature"),
    _typed("stream"),
    _typed("stop", text_fits=True),
    lambda model, _: _without(model, "messages"),
    lambda model, value: _json(
        _plain(model, messages=[value if not isinstance(value, dict) else 7]), "a bare value as message"
    ),
    lambda model, _: _json(_plain(model, messages=[{"content": "no role"}]), "a message without role"),
    lambda model, _: _json(_plain(model, messages=[{"role": "user", "content": {"a": 1}}]), "an object as content"),
    lambda model, _: _json(_plain(model, n=0), "n = 0"),
    lambda model, _: _json(_plain(model, top_p=17), "top_p = 17"),
    lambda model, _: _json([_plain(model)], "an array as body"),
    lambda model, _: _raw(json.dumps(_plain(model)).encode()[:-1], "the last brace missing"),
    lambda model, _: _raw(json.dumps(_plain(model)).replace('"', "'").encode(), "single quotes"),
    lambda _, __: _raw(b"", "an empty body"),
    lambda model, _: _raw(b"\xff\xfe\x00" + json.dumps(_plain(model)).encode(), "bytes that are not UTF-8"),
    lambda model, _: Body(
        json.dumps(_plain(model, user="x")).encode().replace(b'"x"', b"[" * DEPTH + b"]" * DEPTH), "deep nesting"
    ),
    lambda model, _: Body(
        json.dumps(_plain(model, seed=0)).encode().replace(b": 0", b": " + b"9" * DIGITS), "a huge integer"
    ),
    lambda model, _: Body(json.dumps(_plain(model)).replace("hello", "\\ud800").encode(), "a lone surrogate"),
    lambda model, _: Body(json.dumps(_plain(model)).replace("hello", "\\u0000").encode(), "a NUL character"),
    lambda model, _: Body(
        json.dumps(_plain(model)).encode().replace(b'"max_tokens"', b'"max_tokens": 1, "max_tokens"'), "a key twice"
    ),
    lambda model, _: Body(
        json.dumps(_plain(model, stop=None, seed=None, user=None)).encode(), "nulls for optional fields"
    ),
    lambda model, _: Body(json.dumps(_plain(model, user="\u202e" * 64)).encode(), "direction marks"),
)
"""The ways to break a request. What has no `must_refuse` may be answered, but must not make the server fail."""


def _draw(strategy: Any, count: int, seed: int) -> tuple[Body, ...]:
    """The first `count` different examples of a strategy; the same for the same seed.

    Drawing begins with the simplest, several times over, so more are drawn than are kept.
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    drawn: dict[bytes, Body] = {}

    @seeded(seed)
    @settings(
        max_examples=max(1, 3 * count),
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(body: Body) -> None:
        drawn.setdefault(body.data, body)

    if count:
        collect()
    return tuple(drawn.values())[:count]


def _strategy(schema: dict[str, Any]) -> Any:
    """A hypothesis strategy for the keywords that our request schema uses. Raises `KeyError` for any other type."""
    from hypothesis import strategies as st

    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        return st.one_of([_strategy(option) for option in schema["anyOf"]])
    kind = schema["type"]
    if kind == "object":
        required = set(schema.get("required", ()))
        parts = {key: _strategy(part) for key, part in schema["properties"].items()}
        return st.fixed_dictionaries(
            {key: part for key, part in parts.items() if key in required},
            optional={key: part for key, part in parts.items() if key not in required},
        )
    if kind == "array":
        return st.lists(_strategy(schema["items"]), min_size=schema.get("minItems", 0), max_size=schema["maxItems"])
    if kind == "string":
        # Surrogates cannot be sent as UTF-8; NUL is tried on purpose elsewhere.
        letters = st.characters(codec="utf-8", exclude_characters="\x00")
        return st.text(letters, min_size=schema.get("minLength", 0), max_size=schema["maxLength"])
    if kind == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    if kind == "number":
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        return st.floats(
            low, schema["maximum"], exclude_min="exclusiveMinimum" in schema, allow_subnormal=False, width=32
        )
    if kind == "boolean":
        return st.booleans()
    raise KeyError(kind)
