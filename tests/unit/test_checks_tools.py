"""Checks of tool calling: exact at their borders, silent on legal oddities, unmoved by hostile answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from exchanges import completion, exchange
from hypothesis import given, settings
from hypothesis import strategies as st

from roadworthy.conformance.capability import detect
from roadworthy.conformance.catalogue import load
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Ability, Capability, Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.probe import Context, Expects, Probe
from roadworthy.conformance.probes import tools as probes
from roadworthy.conformance.verdict import CheckResult, Verdict

load()
FACTS = Facts("http://127.0.0.1:1/v1", "acme/chat-1")
OURS = [check for check in CHECKS.values() if check.family == "tools"]
EVENT_STREAM = (("content-type", "text/event-stream"),)
BAD = (Verdict.FAIL, Verdict.WARN)


def sent(probe: Probe, earlier: dict[str, Exchange] | None = None) -> Any:
    draft = probe.build(Context(FACTS, earlier=earlier or {}))
    assert draft is not None
    return draft.json


def call(arguments: Any = '{"city": "Paris"}', name: Any = "get_weather", **more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def answered(probe: Probe, *calls: Any, content: Any = None, reason: str = "tool_calls") -> Exchange:
    """A whole answer with these calls."""
    body = completion()
    body["choices"][0]["message"] = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    body["choices"][0]["finish_reason"] = reason
    return exchange(probe.id, body, sent=sent(probe))


def streamed(probe: Probe, *fragments: Any, reason: str | None = "tool_calls", content: str | None = None) -> Exchange:
    """A stream with each of these fragments in a chunk of its own."""
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": "acme/chat-1"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": content}]
    deltas += [{"tool_calls": [fragment]} for fragment in fragments]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    events = [json.dumps({**frame, "choices": [choice]}) for choice in choices]
    events.append(json.dumps({**frame, "choices": [], "usage": {}}))
    body = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()
    return exchange(probe.id, body, sent=sent(probe), headers=EVENT_STREAM)


def fragment(index: Any = 0, arguments: Any = "", **more: Any) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}, **more}


def head(index: Any = 0, id: Any = "call_1", name: Any = "get_weather", **more: Any) -> dict[str, Any]:
    start = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
    return {**start, **more}


def bad(*exchanges: Exchange, facts: Facts = FACTS) -> set[str]:
    """The checks of tools that are not content with these exchanges, seen in four trials each."""
    return {result.check_id for result in verdicts(*exchanges, facts=facts) if result.verdict in BAD}


def verdicts(*exchanges: Exchange, facts: Facts = FACTS) -> list[CheckResult]:
    return judge(OURS, [one for one in exchanges for _ in range(4)], facts)


# Whole answers


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
@pytest.mark.parametrize("probe", [probes.by_name, probes.no_parameters], ids=lambda probe: probe.id)
def test_a_named_function_may_end_with_stop(probe, reason):
    name = "ping" if probe is probes.no_parameters else "get_stock_price"
    made = call("{}" if name == "ping" else '{"symbol": "PAR"}', name=name)
    assert bad(answered(probe, made, reason=reason)) == set()


@pytest.mark.parametrize(
    ("probe", "caught"),
    [(probes.auto, "tools.finish_reason.auto"), (probes.required, "tools.finish_reason.required")],
    ids=["auto", "required"],
)
def test_only_a_named_function_may_end_with_stop(probe, caught):
    made = call(json.dumps({"city": "Paris" if probe is probes.auto else probes.ACCENTED}))
    assert bad(answered(probe, made, reason="stop")) == {caught}
    assert bad(answered(probe, made, reason="tool_calls")) == set()


@pytest.mark.parametrize(
    "content",
    [None, "", "I shall look that up.", "The call <b>get_weather</b> will tell."],
    ids=["null", "empty", "words", "html"],
)
def test_content_beside_a_call_is_legal(content):
    assert bad(answered(probes.auto, call(), content=content)) == set()


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        "<function=get_weather><parameter=city>Paris</parameter></function>",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0",
        "<\uff5ctool\u2581calls\u2581begin\uff5c>",
        '<minimax:tool_call><invoke name="get_weather">',
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        '```json\n{"parameters": {"city": "Paris"}, "name": "get_weather"}\n```',
        '[get_weather(city="Paris"), get_weather(city="London")]',
        "<|channel|>commentary to=functions.get_weather",
    ],
)
def test_a_call_in_the_text_is_told_once(text):
    assert bad(answered(probes.auto, content=text, reason="stop")) == {"tools.not_leaked"}
    assert bad(answered(probes.required, content=text, reason="stop")) == {"tools.not_leaked"}
    leaked_stream = streamed(probes.stream_parallel, content=text, reason="stop")
    assert bad(leaked_stream) == {"tools.not_leaked"}


@pytest.mark.parametrize(
    "text",
    [
        "The function get_weather could tell you (I did not call it).",
        'A JSON object such as {"city": "Paris"} would do.',
        "You could run get_weather(city) yourself.",
    ],
)
def test_talk_about_a_tool_is_not_a_leaked_call(text):
    assert bad(answered(probes.auto, content=text, reason="stop")) == {"tools.auto.calls"}


def test_a_models_refusal_to_call_is_the_models_and_ignoring_required_the_servers():
    prose = {"content": "It is sunny.", "reason": "stop"}
    once = judge(OURS, [answered(probes.auto, **prose), answered(probes.required, **prose)], FACTS)
    found = {result.check_id: result.verdict for result in once}
    assert found["tools.auto.calls"] is Verdict.INCONCLUSIVE
    assert found["tools.required"] is Verdict.FAIL


@pytest.mark.parametrize("probe", probes.PLAIN_CALLS, ids=lambda probe: probe.id)
def test_a_token_limit_before_any_call_is_nobodys_fault(probe):
    assert bad(answered(probe, content=None, reason="length")) == set()


def test_arguments_cut_by_the_token_limit_are_nobodys_fault():
    assert bad(answered(probes.required, call('{"city": "S'), reason="length")) == set()
    assert bad(answered(probes.strict, call('{"title": "Re', name="create_event"), reason="length")) == set()


@pytest.mark.parametrize(
    ("arguments", "caught"),
    [
        ({"city": "Paris"}, "tools.arguments.string"),
        (None, "tools.arguments.string"),
        ("", "tools.arguments.json"),
        ("{'city': 'Paris'}", "tools.arguments.json"),
        ('{"city": "Paris"', "tools.arguments.json"),
        ('{"city": "Paris", "city": "Rome"}', "tools.arguments.json"),
        ('"{\\"city\\": \\"Paris\\"}"', "tools.arguments.object"),
        ('["Paris"]', "tools.arguments.object"),
        ("null", "tools.arguments.object"),
        ('{"city": "Paris", "unit": "kelvin"}', "tools.arguments.schema"),
        ('{"city": "Rome"}', "tools.auto.argument"),
    ],
)
def test_each_kind_of_wrong_arguments_has_one_check(arguments, caught):
    assert bad(answered(probes.auto, call(arguments))) == {caught}


@pytest.mark.parametrize("arguments", ["{}", " {} ", '{"verbose": true}'])
def test_arguments_of_a_function_without_parameters_are_an_object(arguments):
    assert bad(answered(probes.no_parameters, call(arguments, name="ping"))) == set()


@pytest.mark.parametrize("arguments", ["", None, "null", "[]", "{"])
def test_a_call_without_arguments_that_has_no_object_for_them_is_told_once(arguments):
    assert bad(answered(probes.no_parameters, call(arguments, name="ping"))) == {"tools.arguments.empty"}


@pytest.mark.parametrize(
    "city",
    ["S\u00c3\u00a3o Paulo", "S\ufffd\ufffdo Paulo", "S\\u00e3o Paulo", "S?o Paulo"],
    ids=["latin-1", "cut", "escaped twice", "ascii"],
)
def test_broken_letters_are_seen(city):
    made = call(json.dumps({"city": city}))
    assert bad(answered(probes.required, made)) == {"tools.arguments.unicode"}


@pytest.mark.parametrize("city", ["São Paulo", "Sao Paulo", "Sa\u0303o Paulo", "SÃO PAULO"])
@pytest.mark.parametrize("escaped", [True, False])
def test_whole_letters_pass_however_the_model_spells(city, escaped):
    made = call(json.dumps({"city": city}, ensure_ascii=escaped))
    assert bad(answered(probes.required, made)) == set()


@pytest.mark.parametrize("nothing", [None, [], "absent"])
def test_an_answer_without_calls_may_say_so_in_any_way(nothing):
    body = completion("PONG")
    if nothing != "absent":
        body["choices"][0]["message"]["tool_calls"] = nothing
    asked = [exchange(probe.id, body, sent=sent(probe)) for probe in (probes.abstain, probes.none)]
    assert bad(*asked) == set()


def test_the_old_field_beside_the_new_one_harms_nobody():
    body = completion()
    old = {"name": "get_stock_price", "arguments": '{"symbol": "PAR"}'}
    new = call('{"symbol": "PAR"}', name="get_stock_price")
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "function_call": old, "tool_calls": [new]}
    body["choices"][0]["finish_reason"] = "tool_calls"
    one = exchange(probes.by_name.id, body, sent=sent(probes.by_name))
    found = {result.check_id: result.verdict for result in verdicts(one)}
    assert found["tools.named"] is found["tools.not_legacy"] is Verdict.PASS
    assert bad(one) == set()


def test_nothing_is_said_of_calls_that_did_not_come():
    told = answered(probes.auto, content="It is sunny.", reason="stop")
    empty = streamed(probes.stream_parallel, content="It is sunny.", reason="stop")
    passed = {result.check_id for result in verdicts(told, empty) if result.verdict is Verdict.PASS}
    assert passed == {"tools.accepted", "tools.offered", "tools.finish_reason.empty", "tools.not_leaked"}


def test_a_crash_is_no_acceptance_and_no_refusal():
    crashed = [
        exchange(probe.id, {"error": {"message": "oops"}}, status=500, sent=sent(probe))
        for probe in (probes.required, probes.result, probes.bad_choice)
    ]
    found = {result.check_id: result.verdict for result in verdicts(answered(probes.auto, call()), *crashed)}
    assert found["tools.accepted"] is found["tools.result.accepted"] is Verdict.INCONCLUSIVE
    assert found["tools.refuses.bad_choice"] is Verdict.SKIPPED


# Streams


PARTS = (fragment(arguments='{"city":'), fragment(arguments=' "Paris"}'))
LONDON = head(1, "call_2"), fragment(1, '{"city": "London"}')


@pytest.mark.parametrize(
    "fragments",
    [
        (head(), *PARTS, *LONDON),
        (head(), LONDON[0], PARTS[0], LONDON[1], PARTS[1]),
        (
            {**head(), "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}},
            {**head(1, "call_2"), "function": {"name": "get_weather", "arguments": '{"city": "London"}'}},
        ),
        (head(), *({**part, "id": None, "type": None} for part in PARTS), *LONDON),
        (head(), *({**part, "id": "", "type": ""} for part in PARTS), *LONDON),
        (head(), *({**part, "id": "call_1", "type": "function"} for part in PARTS), *LONDON),
        (
            head(),
            *({"index": 0, "function": {"name": None, "arguments": p["function"]["arguments"]}} for p in PARTS),
            *LONDON,
        ),
        ({"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather"}}, *PARTS, *LONDON),
    ],
    ids=["usual", "interleaved", "at once", "nulls", "empty", "repeated id", "null name", "no first piece"],
)
def test_every_legal_way_to_cut_calls_into_fragments_passes(fragments):
    assert bad(streamed(probes.stream_parallel, *fragments)) == set()


@pytest.mark.parametrize(
    ("fragments", "caught"),
    [
        ((head(None), *(fragment(None, p["function"]["arguments"]) for p in PARTS)), "tools.stream.index"),
        ((head("0"), *(fragment("0", p["function"]["arguments"]) for p in PARTS)), "tools.stream.index"),
        ((head(True), fragment(True, '{"city": "Paris"}')), "tools.stream.index"),
        ((head(), PARTS[0], {**PARTS[1], "id": "call_9"}), "tools.stream.id_once"),
        ((head(id=None), PARTS[0], {**PARTS[1], "id": "call_1"}), "tools.stream.id_once"),
        ((head(id=None), *PARTS), "tools.call.id"),
        ((head(type=None), *PARTS), "tools.stream.type"),
        (
            (head(name=""), {**PARTS[0], "function": {"name": "get_weather", "arguments": "{}"}}),
            "tools.stream.name_once",
        ),
        ((head(), fragment(arguments={"city": "Paris"})), "tools.stream.arguments"),
        ((head(), PARTS[0]), "tools.arguments.json"),
        ((head(), *PARTS, head(0, "call_2"), fragment(0, '{"city": "London"}')), "tools.stream.own_index"),
    ],
)
def test_each_kind_of_wrong_fragments_has_one_check(fragments, caught):
    assert bad(streamed(probes.stream, *fragments)) == {caught}


def test_braces_inside_an_argument_are_not_two_calls():
    assert bad(streamed(probes.stream, head(), fragment(arguments='{"city": "a} {b"}'))) == set()


def test_a_stream_without_an_end_is_for_the_checks_of_streams():
    broken = exchange(probes.stream.id, b'data: {"choices": [', sent=sent(probes.stream), headers=EVENT_STREAM)
    assert bad(broken) == set()


# What must be refused


REFUSED = [
    check
    for check in OURS
    if check.id.startswith("tools.refuses.") and all(probe.expects is Expects.REFUSAL for probe in check.probes)
]


@pytest.mark.parametrize("check", REFUSED, ids=lambda check: check.id)
@pytest.mark.parametrize(("status", "expected"), [(400, set()), (422, set()), (500, set()), (200, {"caught"})])
def test_a_malformed_request_is_refused_with_any_4xx(check, status, expected):
    got = bad(*(exchange(probe.id, completion(), status=status, sent=sent(probe)) for probe in check.probes))
    assert got == ({check.id} if expected else set())


# Whether it is offered


def refused(probe: Probe) -> Exchange:
    return exchange(probe.id, {"error": {"message": "no tools here", "type": "x"}}, status=400, sent=sent(probe))


def test_a_model_without_tools_warns_once_and_skips_the_rest():
    asked = [refused(probe) for probe in (*probes.CALLS, probes.abstain, probes.none, probes.result)]
    asked.append(exchange("warmup", completion()))
    facts = FACTS.learn(detect(asked, FACTS))
    found = {result.check_id: result.verdict for result in judge(OURS, asked, facts)}
    assert found.pop("tools.offered") is Verdict.WARN
    assert set(found.values()) == {Verdict.SKIPPED}


def test_a_model_that_was_declared_to_have_tools_fails_when_it_refuses_them():
    facts = Facts(FACTS.base_url, FACTS.model, abilities={Capability.TOOLS: Ability(True, "declared")})
    asked = [refused(probe) for probe in probes.CALLS]
    facts = facts.learn(detect(asked, facts))
    found = {result.check_id: result.verdict for result in judge(OURS, asked, facts)}
    assert found["tools.accepted"] is Verdict.FAIL


def test_parallel_calls_refused_leave_the_rest_of_the_tools_to_be_judged():
    asked = [answered(probes.auto, call()), refused(probes.parallel), refused(probes.stream_parallel)]
    facts = FACTS.learn(detect(asked, FACTS))
    found = {result.check_id: result.verdict for result in judge(OURS, asked, facts)}
    assert found["tools.parallel"] is Verdict.SKIPPED
    assert found["tools.accepted"] is Verdict.PASS
    assert found["tools.call.id"] is Verdict.PASS


# The conversation that is handed back


def test_the_result_goes_back_under_the_id_that_came():
    made = call(id="call_from_the_server")
    body = sent(probes.result, {probes.auto.id: answered(probes.auto, made)})
    assert body["messages"][1]["tool_calls"] == [made]
    assert body["messages"][2]["tool_call_id"] == "call_from_the_server"


@pytest.mark.parametrize(
    "made",
    [
        call({}),
        call(id=None),
        call("{"),
        call(name=["get_weather"]),
        {"function": None},
        call(type="tool"),
        call(id="call_\ud800"),
    ],
)
def test_a_call_that_cannot_be_handed_back_is_replaced_by_one_that_can(made):
    draft = probes.result.build(Context(FACTS, earlier={probes.auto.id: answered(probes.auto, made)}))
    assert draft is not None
    body = json.loads(draft.body() or b"")
    [ours] = body["messages"][1]["tool_calls"]
    assert isinstance(json.loads(ours["function"]["arguments"]), dict)
    assert ours["function"]["name"] == "get_weather"
    assert body["messages"][2]["tool_call_id"] == ours["id"] != ""


# Hostile answers

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
anything = st.recursive(
    scalars | st.sampled_from(["get_weather", '{"city": "Paris"}', "function", "tool_calls"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "index", "type", "function", "name", "arguments", "tool_calls", "content"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(probe=st.sampled_from([*probes.PLAIN_CALLS, probes.abstain, probes.none, probes.result]), message=anything)
def test_no_whole_answer_makes_a_check_raise(probe, message):
    body = completion()
    body["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [message, message]}
    one = exchange(probe.id, body, sent=sent(probe))
    body["choices"][0]["message"] = message
    assert len(verdicts(one, exchange(probe.id, body, sent=sent(probe)))) == len(OURS)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(probe=st.sampled_from([*probes.STREAMED_CALLS, probes.several_results]), parts=st.lists(anything, max_size=4))
def test_no_stream_makes_a_check_raise(probe, parts):
    assert len(verdicts(streamed(probe, *parts))) == len(OURS)
