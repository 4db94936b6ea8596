"""Checks of the text-generation server: exact at their borders, silent on legal oddities, unmoved by hostility."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from exchanges import exchange
from hypothesis import given, settings
from hypothesis import strategies as st

from roadworthy.conformance.catalogue import load
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan
from roadworthy.conformance.probe import PROBES, Context, Probe
from roadworthy.conformance.probes import tgi as probes
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import Verdict

load()
FACTS = Facts("http://127.0.0.1:1/v1", "acme/text-generation", "text-generation", Api.TGI)
OURS = [check for check in CHECKS.values() if check.family == "tgi"]
OUR_PROBES = [probe for probe in PROBES.values() if probe.id.startswith("tgi.")]
EVENT_STREAM = (("content-type", "text/event-stream"),)
TEXT_PLAIN = (("content-type", "text/plain"),)
BAD = (Verdict.FAIL, Verdict.WARN)


def sent(probe: Probe) -> Any:
    draft = probe.build(Context(FACTS))
    assert draft is not None
    return draft.json


def token(text: str, *, special: bool = False, **more: Any) -> dict[str, Any]:
    return {"id": 7, "text": text, "logprob": -0.5, "special": special, **more}


END = token("</s>", special=True)


def written(probe: Probe, text: str, *tokens: Any, reason: str = "eos_token", **more: Any) -> Exchange:
    """An unstreamed text with details."""
    headers = more.pop("headers", ())
    details = {"finish_reason": reason, "generated_tokens": len(tokens), "seed": None, "tokens": list(tokens), **more}
    told = (("content-type", "application/json"), *headers)
    return exchange(probe.id, {"generated_text": text, "details": details}, sent=sent(probe), headers=told)


def streamed(probe: Probe, text: str, *tokens: Any, reason: str = "eos_token") -> Exchange:
    """A stream with details."""
    chunks = [{"token": part, "generated_text": None} for part in tokens]
    chunks[-1] |= {"generated_text": text, "details": {"finish_reason": reason, "generated_tokens": len(tokens)}}
    body = "".join(f"data:{json.dumps(chunk)}\n\n" for chunk in chunks).encode()
    return exchange(probe.id, body, sent=sent(probe), headers=EVENT_STREAM)


def failed(*exchanges: Exchange) -> set[str]:
    """The checks of this family that fail, without "tgi."."""
    return {r.check_id.removeprefix("tgi.") for r in judge(OURS, exchanges, FACTS) if r.verdict in BAD}


def verdict(id: str, *exchanges: Exchange) -> Verdict:
    [result] = judge([CHECKS[f"tgi.{id}"]], exchanges, FACTS)
    return result.verdict


def test_every_probe_of_the_family_is_read():
    planned = plan(FACTS, OURS)
    assert set(planned.probes) == set(OUR_PROBES)
    read = {probe.id for check in OURS for probe in check.probes}
    assert read == {probe.id for probe in OUR_PROBES}
    assert len(OUR_PROBES) * 2 <= len(OURS)


# The words of a text and its tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("six, seven", (token(" six"), token(","), token(" seven"), END)),
        (" 東", (token(" "), token(""), token(""), token("東"), END)),
        ("up \ufffd", (token("up"), token(" "), token(""), END)),
        ("a", (token("a"), token("<pad>", special=True), END)),
    ],
    ids=["first blank cut", "parts of a character", "half a character", "special in the middle"],
)
def test_legal_texts_join(text, tokens):
    assert failed(written(probes.cut, text, *tokens)) <= {"headers.present"}
    assert "stream.joined" not in failed(streamed(probes.stream, text, *tokens))


def test_other_texts_do_not():
    assert "tokens.joined" in failed(written(probes.cut, "six seven", token("six"), token("seven"), END))
    assert "stream.joined" in failed(streamed(probes.stream, "six seven", token("six"), token("seven"), END))


@pytest.mark.parametrize(
    ("tokens", "reason", "wrong"),
    [
        (7, "length", False),
        (6, "length", True),
        (6, "eos_token", False),
        (7, "stop_sequence", False),
        (7, "eos_token", True),
    ],
)
def test_length_is_said_at_the_limit_only(tokens, reason, wrong):
    parts = [token(" word") for _ in range(tokens)]
    found = failed(written(probes.cut, " word" * tokens, *parts, reason=reason))
    assert ("length.reason" in found) is wrong
    assert "length.limit" not in found


def test_an_end_token_at_the_limit_is_an_end():
    parts = [*(token(" word") for _ in range(6)), END]
    assert "length.reason" not in failed(written(probes.cut, " word" * 6, *parts))


def test_one_token_too_many():
    parts = [token(" word") for _ in range(8)]
    assert "length.limit" in failed(written(probes.cut, " word" * 8, *parts, reason="length"))
    assert "stream.limit" in failed(streamed(probes.stream, " word" * 8, *parts, reason="length"))


@pytest.mark.parametrize(
    ("text", "reason", "wrong"),
    [
        (" nine, ten", "stop_sequence", set()),
        (" nine, ten,", "stop_sequence", set()),
        (" nine,", "stop_sequence", set()),
        (" nine, ten, eleven", "length", {"stop.obeyed"}),
        (" nine, ten", "eos_token", {"stop.reason"}),
        (" nine.", "eos_token", set()),
    ],
)
def test_stop_sequences(text, reason, wrong):
    found = failed(written(probes.stop, text, token(text), reason=reason))
    assert {id for id in found if id.startswith("stop.")} == wrong
    found = failed(streamed(probes.stream_stop, text, token(text), reason=reason))
    assert ("stream.stop" in found) is bool(wrong)


# Grammars


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('{"name": "Ada", "age": 36, "city": "London"}', False),
        ('\n {"name":"Ada","age":36,"city":"London"} \n', False),
        ('{"name": "Ada", "age": "36", "city": "London"}', True),
        ('{"name": "Ada", "age": 36}', True),
        ('```json\n{"name": "Ada", "age": 36, "city": "London"}\n```', True),
        ("Ada is 36.", True),
        ("", True),
    ],
)
def test_a_text_meets_its_schema(text, wrong):
    for id, probe in (
        ("object", probes.grammar_object),
        ("text", probes.grammar_text),
        ("named", probes.grammar_named),
    ):
        assert (verdict(f"grammar.{id}", written(probe, text, token(text))) in BAD) is wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("8.8.8.8", False), ("255.255.255.0\n", False), ("256.1.1.1", True), ("It is 8.8.8.8", True), ("8.8.8.8.", True)],
)
def test_a_text_matches_its_expression(text, wrong):
    assert (verdict("grammar.regex", written(probes.grammar_regex, text, token(text))) in BAD) is wrong


def test_what_is_refused_or_cut_is_not_judged():
    for probe, id in ((probes.grammar_object, "object"), (probes.grammar_regex, "regex")):
        refused = exchange(probe.id, {"error": "off", "error_type": "validation"}, status=422, sent=sent(probe))
        assert verdict(f"grammar.{id}", refused) is Verdict.SKIPPED
        cut = written(probe, '{"na', token('{"na'), reason="length")
        assert verdict(f"grammar.{id}", cut) is Verdict.SKIPPED


# Headers, the list of tokens, the server


def headers(**numbers: Any) -> tuple[tuple[str, str], ...]:
    return tuple((f"x-{name.replace('_', '-')}", str(number)) for name, number in numbers.items())


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({"total_time": 2, "validation_time": 1, "queue_time": 1, "inference_time": 1}, None),
        ({"total_time": 2, "validation_time": 1, "queue_time": 1, "inference_time": 9}, "sum"),
        ({"inference_time": 100, "time_per_token": 51, "generated_tokens": 2}, None),
        ({"inference_time": 100, "time_per_token": 20, "generated_tokens": 2}, "per_token"),
        ({"total_time": 250}, None),
        ({"total_time": 260_000}, "clock"),
        ({"queue_time": "-1"}, "numbers"),
        ({"queue_time": "1e-05"}, None),
        ({"queue_time": "nan"}, "numbers"),
        ({"prompt_tokens": "3.5"}, "numbers"),
        ({"generated_tokens": 2}, None),
        ({"generated_tokens": 1}, "tokens"),
        ({"compute_characters": len(probes.SCRIPTED)}, None),
        ({"compute_characters": len(probes.SCRIPTED.encode())}, "characters"),
    ],
)
def test_headers(told, wrong):
    found = failed(written(probes.cut, "a", token("a"), END, headers=headers(**told)))
    # One header alone is not all of them.
    assert found - {"headers.present"} == ({f"headers.{wrong}"} if wrong else set())


def split(probe: Probe, *places: tuple[int, int, str]) -> Exchange:
    body = [{"id": 5, "text": text, "start": start, "stop": stop} for start, stop, text in places]
    return replace(exchange(probe.id, body, sent={"inputs": "a 🚀b"}))


@pytest.mark.parametrize(
    ("places", "wrong"),
    [
        (((0, 1, "a"), (1, 3, " 🚀"), (3, 4, "b")), set()),
        (((0, 0, "<s>"), (0, 1, "a"), (2, 3, "🚀"), (2, 3, "🚀"), (3, 4, "b"), (4, 4, "</s>")), set()),
        (((0, 1, "a"), (3, 4, "b")), {"covered"}),
        (((0, 1, "a"), (3, 4, "b"), (1, 3, " 🚀")), {"order"}),
        (((0, 1, "a"), (1, 6, " 🚀"), (6, 7, "b")), {"order", "slices"}),
        (((0, 1, "a"), (1, 3, "▁🚀"), (3, 4, "b")), {"slices"}),
    ],
    ids=["plain", "bytes and specials", "gap", "backwards", "bytes", "marks"],
)
def test_places_of_tokens(places, wrong):
    found = failed(split(probes.tokenize, *places))
    assert found - {"tokenize.slices"} == {f"tokenize.{id}" for id in wrong - {"slices"}}
    if "slices" in wrong and "order" not in wrong:
        assert "tokenize.slices" in found


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_metrics_that_are_not_shown_are_not_judged(status):
    before, after = (
        exchange(p.id, b"", status=status, headers=TEXT_PLAIN) for p in (probes.metrics_before, probes.metrics_after)
    )
    assert failed(before, after) == set()


def test_refusals_of_a_stream():
    told = {"error": "`max_new_tokens` must be above zero", "error_type": "validation"}
    events = (
        (f"data:{json.dumps(told)}\n\n", Verdict.PASS),
        (f"event: error\ndata: {json.dumps(told)}\n\n", Verdict.PASS),
        ('data:{"error":{"message":"no"}}\n\n', Verdict.FAIL),
        ("", Verdict.FAIL),
        (f"data:{json.dumps({'token': token('a')})}\n\ndata:{json.dumps(told)}\n\n", Verdict.FAIL),
    )
    for body, expected in events:
        answer = exchange(
            probes.stream_refused.id, body.encode(), sent=sent(probes.stream_refused), headers=EVENT_STREAM
        )
        assert verdict("stream.error", answer) is expected, body
    refused = exchange(probes.stream_refused.id, told, status=422, sent=sent(probes.stream_refused))
    assert verdict("stream.error", refused) is Verdict.PASS


# Hostile answers

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["generated_text", "details", "tokens", "token", "text", "special", "logprob", "prefill", "start",
                 "stop", "seed", "index", "finish_reason", "generated_tokens", "best_of_sequences", "error", "data",
                 "choices", "model_id", "max_total_tokens", "max_input_tokens"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    value=VALUES,
    status=st.sampled_from([200, 200, 200, 204, 301, 401, 404, 422, 500]),
    told=st.dictionaries(
        st.sampled_from(["x-total-time", "x-prompt-tokens", "x-generated-tokens"]), st.text(max_size=5)
    ),
    stream=st.booleans(),
)
def test_no_answer_makes_a_check_raise(value, status, told, stream):
    body = json.dumps(value)
    data = (f"data:{body}\n\n" * 2 if stream else body).encode()
    head = (*(EVENT_STREAM if stream else (("content-type", "application/json"),)), *told.items())
    judge(OURS, [exchange(p.id, data, status=status, sent=sent(p), headers=head) for p in OUR_PROBES], FACTS)
