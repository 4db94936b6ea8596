"""The checks of the Responses API on answers that no sandbox gives: junk, odd legal ones, and edges."""

from __future__ import annotations

import copy
import json
import random

import pytest
from exchanges import exchange

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.facts import Ability, Capability, Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.probe import PROBES, Context
from roadworthy.conformance.probes import responses as probes
from roadworthy.conformance.reading.responses import parting, steps
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import Verdict

select()
OURS = [check for check in CHECKS.values() if check.family == "responses"]
EVERYTHING = {capability: Ability(True, "declared") for capability in Capability}
FACTS = Facts("http://127.0.0.1:1/v1", "acme/chat-1", api=Api.RESPONSES, judged_at=1_750_000_000, abilities=EVERYTHING)
BAD = (Verdict.FAIL, Verdict.WARN)
EVENTS = (("content-type", "text/event-stream"),)
TEXT = "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve"


def message(text="Hello.", **more):
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part], **more}


def response(*output, **more):
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_750_000_000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "acme/chat-1",
        "output": list(output) or [message()],
        "usage": usage,
        **more,
    }


def stream(text=TEXT):
    """The events of a plain stream, without names on their lines."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    begun = response(status="in_progress", output=[], usage=None)
    told = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": message("", content=[])},
        {"type": "response.content_part.added", **place, "part": part},
        *({"type": "response.output_text.delta", **place, "delta": word} for word in text.split(" ")),
        {"type": "response.output_text.done", **place, "text": text.replace(" ", "")},
        {"type": "response.content_part.done", **place, "part": {**part, "text": text.replace(" ", "")}},
        {"type": "response.output_item.done", "output_index": 0, "item": message(text.replace(" ", ""))},
        {"type": "response.completed", "response": response(message(text.replace(" ", "")))},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(told)]


def wire(events):
    return b"".join(
        f"event: {event.get('type') if isinstance(event, dict) else 'x'}\ndata: {json.dumps(event)}\n\n".encode()
        for event in events
    )


def told(check_id, *exchanges, facts=FACTS):
    [result] = judge([CHECKS[check_id]], exchanges, facts)
    return result


def bad(*exchanges):
    """The ids of our checks that these exchanges turn red."""
    return {result.check_id for result in judge(OURS, exchanges, FACTS) if result.verdict in BAD}


def test_a_whole_answer_and_a_whole_stream_are_fine():
    plain = exchange("responses.history", response(message("It is ZEBRA.")))
    streamed = exchange("responses.stream", wire(stream()), headers=EVENTS)
    assert bad(plain) == set()
    assert bad(streamed) == set()


JUNK = [None, True, 0, -1, 2.5, "", "x", [], [None], ["x"], [[]], {}, {"id": None}, {"type": 7}, {"": {}}, 10**30]


def broken(value, chance):
    """The value with parts of it replaced by junk, at random."""
    if chance.random() < 0.08:
        return copy.deepcopy(chance.choice(JUNK))
    if isinstance(value, dict):
        return {key: broken(part, chance) for key, part in value.items() if chance.random() > 0.05}
    if isinstance(value, list):
        return [broken(part, chance) for part in value for _ in range(chance.choice((1, 1, 1, 1, 0, 2)))]
    return value


WHOLE = response(
    {"id": "mcpl_1", "type": "mcp_list_tools", "server_label": "demo", "tools": [{"name": "a", "input_schema": {}}]},
    {"id": "mcp_1", "type": "mcp_call", "server_label": "demo", "name": "a", "arguments": "{}", "output": "x"},
    {"id": "rs_1", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
    {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"},
    message(),
    metadata={"purpose": "test"},
)


@pytest.mark.parametrize("seed", range(60))
def test_no_check_raises_whatever_a_server_sends(seed):
    chance = random.Random(seed)
    sent = {"tools": [probes.WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}, "input": "x"}
    exchanges = []
    for id in (probe.id for probe in PROBES.values() if probe.id.startswith("responses.")):
        if chance.random() < 0.5:
            exchanges.append(exchange(id, broken(WHOLE, chance), sent=broken(sent, chance)))
        else:
            events = broken(stream(), chance)
            data = wire(events if isinstance(events, list) else [events])
            data = data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data
            exchanges.append(exchange(id, data, headers=EVENTS, sent=sent))
    results = judge(OURS, exchanges, FACTS)
    assert len(results) == len(OURS)
    assert any(result.verdict in BAD for result in results)


@pytest.mark.parametrize("probe_id", [probe.id for probe in PROBES.values() if probe.id.startswith("responses.")])
def test_no_probe_raises_whatever_came_before(probe_id):
    probe = PROBES[probe_id]
    chance = random.Random(1)
    assert probe.applies(FACTS)
    for _ in range(40):
        earlier = {needed.id: exchange(needed.id, broken(WHOLE, chance)) for needed in probe.after}
        draft = probe.build(Context(FACTS, 1, earlier))
        assert draft is None or draft.method in ("GET", "POST")


def test_the_family_is_asked_for_its_own_subjects_alone():
    chat = plan(Facts("http://127.0.0.1:1/v1", "m"), CHECKS.values())
    assert not any(check.family == "responses" for check in chat.checks)
    ours = plan(FACTS, CHECKS.values())
    assert {check.id for check in OURS} <= {check.id for check in ours.checks}
    assert all(probe.id.startswith(("responses.", "openapi.", "billing.")) for probe in ours.probes)


@pytest.mark.parametrize("status", [400, 404, 422, 501])
def test_a_refusal_of_what_is_optional_is_no_failure(status):
    refused = {"error": {"message": "not supported: tools, input", "type": "x", "code": None}}
    for id in ("stored", "continued", "schema.chat_name", "mcp", "mcp.stream", "mcp.host"):
        assert bad(exchange(f"responses.{id}", refused, status=status)) == set(), id


def test_an_answer_cut_by_the_limit_is_not_judged_as_whole():
    details = {"output_tokens_details": {"reasoning_tokens": 256}}
    usage = {"input_tokens": 9, "output_tokens": 256, "total_tokens": 265, **details}
    cut = response(
        {"id": "rs_1", "type": "reasoning", "summary": []},
        status="incomplete",
        incomplete_details={"reason": "max_output_tokens"},
        usage=usage,
    )
    sent = {"max_output_tokens": 256}
    for id in ("echo", "history", "instructions", "roles", "schema", "call", "image", "reasoning"):
        assert bad(exchange(f"responses.{id}", cut, sent=sent)) == set(), id
    assert bad(exchange("responses.echo", cut, sent={"max_output_tokens": 512})) == {"responses.status"}


def test_the_limit_is_judged_by_text_and_count():
    usage = {"input_tokens": 9, "output_tokens": probes.CUT_TOKENS, "total_tokens": 9 + probes.CUT_TOKENS}
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": usage}
    assert bad(exchange("responses.cut", response(**cut))) == set()
    over = {**cut, "usage": {**usage, "output_tokens": 17, "total_tokens": 26}}
    assert bad(exchange("responses.cut", response(**over))) == {"responses.cut.limit"}


def test_a_model_that_never_follows_is_found_out_and_one_slip_is_not():
    right, wrong = response(message("BANANA")), response(message("I am fine."))

    def trials(*bodies):
        return [
            exchange("responses.instructions", {**body, "id": f"resp_{number}"}, trial=number)
            for number, body in enumerate(bodies, 1)
        ]

    assert told("responses.instructions", *trials(*[wrong] * 4)).verdict is Verdict.FAIL
    assert told("responses.instructions", *trials(*[right] * 9, wrong)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda events: events[:-1], "responses.stream.ends"),
        (lambda events: [events[1], events[0], *events[2:]], "responses.stream.begins"),
        (lambda events: [*events[:2], *events[3:]], "responses.stream.order"),
        (lambda events: [*events[:4], *events[5:]], "responses.stream.text"),
        (lambda events: [*events[:-1], {**events[-1], "sequence_number": 0}], "responses.stream.sequence"),
    ],
)
def test_what_is_wrong_with_a_stream_is_named(change, found):
    assert found in bad(exchange("responses.stream", wire(change(stream())), headers=EVENTS))


def test_several_items_and_parts_may_be_told_side_by_side():
    """Two items open at once, their deltas interleaved: the indexes keep them apart."""

    def about(item, kind, **more):
        return {"type": f"response.{kind}", "item_id": f"msg_{item}", "output_index": item, "content_index": 0, **more}

    def whole(item, text):
        return {**message(text), "id": f"msg_{item}"}

    part = {"type": "output_text", "text": "", "annotations": []}
    texts = ["a" * 40, "b" * 40]
    events = [{"type": "response.created", "response": response(status="in_progress", output=[])}]
    for item in (0, 1):
        events.append({"type": "response.output_item.added", "output_index": item, "item": whole(item, "")})
        events.append(about(item, "content_part.added", part=part))
    for at in range(0, 40, 10):
        events += [about(item, "output_text.delta", delta=texts[item][at : at + 10]) for item in (0, 1)]
    for item in (1, 0):
        events.append(about(item, "output_text.done", text=texts[item]))
        events.append(about(item, "content_part.done", part={**part, "text": texts[item]}))
    for item in (0, 1):
        done = whole(item, texts[item])
        events.append({"type": "response.output_item.done", "output_index": item, "item": done})
    events.append({"type": "response.completed", "response": response(whole(0, texts[0]), whole(1, texts[1]))})
    events = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    assert bad(exchange("responses.stream", wire(events), headers=EVENTS)) == set()


def test_the_marker_of_chat_is_no_event():
    data = wire(stream()) + b"data: [DONE]\n\n"
    streamed = exchange("responses.stream", data, headers=EVENTS)
    assert len(steps(streamed)) == len(stream())
    assert bad(streamed) == set()


def test_a_crash_is_not_told_twice():
    crash = {"error": {"message": "internal", "type": "server_error", "code": None}}
    for id in ("no_input", "wrong_type", "unknown_tool", "unknown_model", "bad_stream", "continued_unknown"):
        assert bad(exchange(f"responses.{id}", crash, status=500)) == set(), id


def test_evidence_begins_where_two_texts_part():
    long = "x" * 500
    assert parting("one two", "one three") == ("one two", "one three")
    assert parting(long + "a", long + "b") == ("…" + "x" * 30 + "a", "…" + "x" * 30 + "b")
    assert parting("one", "one two") == ("one", "one two")
    assert parting("one", None) == ("one", "null")
