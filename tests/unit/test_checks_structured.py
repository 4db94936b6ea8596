"""Checks of structured output: exact at their borders, silent on legal oddities, unmoved by hostile answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from exchanges import completion, exchange
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from roadworthy.conformance.capability import detect
from roadworthy.conformance.catalogue import load
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Ability, Capability, Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.probe import Context, Probe
from roadworthy.conformance.probes import structured as probes
from roadworthy.conformance.verdict import CheckResult, Verdict

load()
FACTS = Facts("http://127.0.0.1:1/v1", "acme/chat-1")
OURS = [check for check in CHECKS.values() if check.family == "structured"]
EVENT_STREAM = (("content-type", "text/event-stream"),)
BAD = (Verdict.FAIL, Verdict.WARN)
ADA: dict[str, Any] = {
    "name": "Ada Lovelace",
    "field": "mathematics",
    "born": 1815,
    "living": False,
    "nickname": None,
    "works": [{"title": "Notes", "year": 1843}],
}
MOOD = {"mood": "calm"}
PARIS = {"city": "Paris", "country": "France"}
RIGHT: dict[Probe, Any] = {
    probes.json_object: PARIS,
    probes.json_object_stream: PARIS,
    probes.strict: ADA,
    probes.strict_stream: ADA,
    probes.lenient: PARIS,
    probes.argued: MOOD,
}


def sent(probe: Probe) -> Any:
    draft = probe.build(Context(FACTS))
    assert draft is not None
    return draft.json


def answered(probe: Probe, text: Any, reason: str = "stop") -> Exchange:
    """An answer with this content, streamed where the probe asks for it; what is no string is sent as JSON."""
    content = text if isinstance(text, str) else json.dumps(text)
    if sent(probe).get("stream"):
        return _streamed(probe, content, reason)
    body = completion(content)
    body["choices"][0]["finish_reason"] = reason
    return exchange(probe.id, body, sent=sent(probe))


def _streamed(probe: Probe, content: str, reason: str) -> Exchange:
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": "acme/chat-1"}
    pieces = [content[start : start + 7] for start in range(0, len(content), 7)]
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    events = [*(json.dumps({**frame, "choices": [choice]}) for choice in choices), "[DONE]"]
    body = "".join(f"data: {event}\n\n" for event in events).encode()
    return exchange(probe.id, body, sent=sent(probe), headers=EVENT_STREAM)


def verdicts(*exchanges: Exchange, facts: Facts = FACTS) -> list[CheckResult]:
    return judge(OURS, exchanges, facts)


def bad(*exchanges: Exchange) -> set[str]:
    """The checks of structured output that are not content with these exchanges."""
    return {result.check_id for result in verdicts(*exchanges) if result.verdict in BAD}


def test_the_right_answers_are_right():
    for probe in (probes.strict, probes.lenient, probes.argued):
        schema = sent(probe)["response_format"]["json_schema"]["schema"]
        Draft202012Validator.check_schema(schema)
        assert Draft202012Validator(schema).is_valid(RIGHT[probe])


@pytest.mark.parametrize("probe", probes.ALL, ids=lambda probe: probe.id)
@pytest.mark.parametrize("blanks", ["", " ", "\n", "\r\n\t"], ids=repr)
def test_right_json_passes_with_white_space_around_it(probe, blanks):
    text = f"{blanks}{json.dumps(RIGHT[probe], indent=2)}{blanks}"
    assert bad(answered(probe, text)) == set()


@pytest.mark.parametrize("probe", probes.ALL, ids=lambda probe: probe.id)
@pytest.mark.parametrize("text", ["", '{"na', "Let me think"], ids=["nothing", "a beginning", "words"])
def test_what_the_token_limit_cut_off_is_nobodys_fault(probe, text):
    if probe is probes.argued and text == "Let me think":
        assert bad(answered(probe, text, "length")) == {"structured.enforced"}  # the first letter breaks the schema
    else:
        assert bad(answered(probe, text, "length")) == set()


@pytest.mark.parametrize("probe", probes.ALL, ids=lambda probe: probe.id)
def test_an_empty_text_is_told_once(probe):
    assert bad(answered(probe, "")) == {"structured.not_empty"}
    assert bad(answered(probe, "\n" * 300, "length")) == {"structured.not_empty"}


@pytest.mark.parametrize("probe", probes.ALL, ids=lambda probe: probe.id)
@pytest.mark.parametrize(
    "wrap",
    [
        "```json\n{}\n```",
        "```\n{}\n```",
        "Here you are: {}",
        "{}\n\nI hope this helps!",
        "<think>easy</think>{}",
    ],
)
def test_json_that_does_not_stand_alone_is_told_once(probe, wrap):
    text = wrap.replace("{}", json.dumps(RIGHT[probe]))
    assert bad(answered(probe, text)) == {"structured.bare"}


def test_the_finding_names_the_fence():
    [result] = [r for r in verdicts(answered(probes.strict, f"```json\n{json.dumps(ADA)}\n```")) if r.verdict in BAD]
    assert result.findings[0].got.startswith("a Markdown fence: ```json")


@pytest.mark.parametrize(
    ("probe", "caught"),
    [
        (probes.json_object, "structured.object.parses"),
        (probes.json_object_stream, "structured.object.parses"),
        (probes.strict, "structured.schema.parses"),
        (probes.strict_stream, "structured.schema.parses"),
        (probes.lenient, "structured.schema.parses"),
        (probes.argued, "structured.enforced"),
    ],
    ids=lambda value: getattr(value, "id", value),
)
@pytest.mark.parametrize("text", ["Paris is in France.", "{'city': 'Paris'}", '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_prose_and_what_only_looks_like_json_is_told_once(probe, caught, text):
    assert bad(answered(probe, text)) == {caught}


@pytest.mark.parametrize("value", [[], ["Paris"], "Paris", 1, True, None])
def test_json_object_means_an_object(value):
    assert bad(answered(probes.json_object, json.dumps(value))) == {"structured.object.is_object"}


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        ({"born": "1815"}, "structured.schema.types"),
        ({"living": 0}, "structured.schema.types"),
        ({"nickname": 7}, "structured.schema.types"),
        ({"works": ["Notes"]}, "structured.schema.types"),
        ({"works": [{"title": "Notes", "year": "1843"}]}, "structured.schema.types"),
        ({"works": {}}, "structured.schema.types"),
        ({"works": [{"title": "Notes"}]}, "structured.schema.required"),
        ({"works": [{"title": "Notes", "year": None, "pages": 66}]}, "structured.schema.closed"),
        ({"field": "computing"}, "structured.schema.enum"),
        ({"note": "born in London"}, "structured.schema.closed"),
    ],
)
@pytest.mark.parametrize("probe", [probes.strict, probes.strict_stream], ids=lambda probe: probe.id)
def test_each_part_of_a_strict_schema_has_one_check(probe, change, caught):
    assert bad(answered(probe, {**ADA, **change})) == {caught}


@pytest.mark.parametrize(
    "change",
    [{"nickname": "the Countess"}, {"works": []}, {"works": [{"title": "Notes", "year": None}]}, {"born": 1815.0}],
)
def test_what_a_strict_schema_allows_passes(change):
    assert bad(answered(probes.strict, {**ADA, **change})) == set()


def test_a_missing_property_is_told_once():
    assert bad(answered(probes.strict, {k: v for k, v in ADA.items() if k != "living"})) == {
        "structured.schema.required"
    }


@pytest.mark.parametrize(("value", "expected"), [({**PARIS, "population": 2.1e6}, set()), (PARIS, set())])
def test_an_optional_property_may_be_left_out(value, expected):
    assert bad(answered(probes.lenient, value)) == expected


def test_a_schema_that_is_not_strict_warns():
    [result] = [r for r in verdicts(answered(probes.lenient, {"city": "Paris"})) if r.verdict in BAD]
    assert (result.check_id, result.verdict) == ("structured.lenient", Verdict.WARN)


@pytest.mark.parametrize("content", [MOOD, [], 1, True])
def test_content_that_is_no_string_is_told_once(content):
    body = completion()
    body["choices"][0]["message"]["content"] = content
    assert bad(exchange(probes.argued.id, body, sent=sent(probes.argued))) == {"structured.content_string"}


@pytest.mark.parametrize("reason", ["length", "tool_calls", "content_filter"])
def test_a_whole_answer_ends_with_stop(reason):
    assert bad(answered(probes.strict, ADA, reason)) == {"structured.finish_reason"}
    assert bad(answered(probes.strict_stream, ADA, reason)) == {"structured.finish_reason"}


@pytest.mark.parametrize("status", [400, 404, 422, 501, 500])
@pytest.mark.parametrize(
    "probe",
    [probes.unknown_type, probes.form_text, probes.no_schema, probes.malformed, probes.schema_text],
    ids=lambda probe: probe.id,
)
def test_a_malformed_response_format_is_refused_with_any_4xx_and_given_no_answer(probe, status):
    asked = sent(probe)
    refused = exchange(probe.id, {"error": {"message": "no", "type": "x"}}, status=status, sent=asked)
    assert bad(refused) == set()
    [caught] = bad(exchange(probe.id, completion(), sent=asked))
    assert caught.startswith("structured.refuses.")


def refused(probe: Probe) -> Exchange:
    return exchange(probe.id, {"error": {"message": "not here", "type": "x"}}, status=400, sent=sent(probe))


def test_a_model_without_structured_output_warns_once_and_skips_the_rest():
    asked = [*map(refused, probes.ALL), exchange("warmup", completion())]
    facts = FACTS.learn(detect(asked, FACTS))
    found = {r.check_id: r.verdict for r in verdicts(*asked, facts=facts)}
    assert found.pop("structured.offered") is Verdict.WARN
    assert found.pop("structured.text") is Verdict.INCONCLUSIVE  # it needs no capability, and was not asked here
    assert set(found.values()) == {Verdict.SKIPPED}


def test_a_model_that_was_declared_to_have_it_fails_when_it_refuses():
    facts = Facts(FACTS.base_url, FACTS.model, abilities={Capability.JSON_SCHEMA: Ability(True, "declared")})
    found = {r.check_id: r.verdict for r in verdicts(refused(probes.strict), facts=facts)}
    assert found["structured.accepted"] is Verdict.FAIL


def test_json_object_alone_is_judged_alone():
    asked = [answered(probes.json_object, PARIS), *(refused(probe) for probe in probes.BY_SCHEMA)]
    facts = FACTS.learn(detect(asked, FACTS))
    found = {r.check_id: r.verdict for r in verdicts(*asked, facts=facts)}
    assert found["structured.object.parses"] is Verdict.PASS
    assert found["structured.schema.parses"] is Verdict.SKIPPED
    assert found["structured.bare"] is Verdict.PASS


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*ADA, "mood", "city", "title"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(probe=st.sampled_from(probes.ALL), value=anything | st.text(max_size=40), whole=st.booleans())
def test_no_answer_makes_a_check_raise(probe, value, whole):
    one = answered(probe, value, "stop" if whole else "length")
    body = completion()
    body["choices"][0]["message"] = value
    assert len(verdicts(one, exchange(probe.id, body, sent=sent(probe)))) == len(OURS)


def test_a_crash_is_no_acceptance_and_no_refusal():
    error = {"error": {"message": "oops"}}
    crashed = [exchange(probe.id, error, status=500, sent=sent(probe)) for probe in (probes.strict, probes.malformed)]
    found = {r.check_id: r.verdict for r in verdicts(*crashed)}
    assert found["structured.accepted"] is Verdict.INCONCLUSIVE
    assert found["structured.refuses.malformed"] is Verdict.SKIPPED


def test_nothing_is_said_of_an_answer_that_is_empty():
    passed = {r.check_id for r in verdicts(answered(probes.strict, "")) if r.verdict is Verdict.PASS}
    assert passed == {"structured.accepted", "structured.offered", "structured.content_string"}
