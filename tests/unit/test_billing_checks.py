"""What the checks of the cost endpoint make of single answers, and what its probes name."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import replace

import pytest
from exchanges import completion, exchange

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.facts import Billing, BillingKey, Facts, VerdictLimits
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import select
from roadworthy.conformance.price import Price, Tariff
from roadworthy.conformance.probe import PROBES, Context
from roadworthy.conformance.probes import billing as probes
from roadworthy.conformance.reading.billing import charged_nano_usd, served, usage
from roadworthy.conformance.verdict import Verdict
from roadworthy.http.message import Failure, FailureKind, Timings

select()
A, B = "8c8b1a34-5a4e-4f0e-9d38-0d4d8d9a1b01", "1f0c7f52-96a1-4a53-8f3b-2f8f4a7c6e02"
URL = "http://127.0.0.1:1/v1/request-costs"
FACTS = Facts(
    "http://127.0.0.1:1/v1",
    "acme/chat-1",
    billing=Billing(URL, BillingKey.SHARED, batch_ids=50),
    limits=VerdictLimits(billing_timeout_s=8.0, billing_batch_s=2.0),
)
LISTED = {"data": [{"id": "acme/chat-1", "pricing": {"input": 0.2, "output": 2}}]}
COST_OF_A = 3 * 200 + 2 * 2_000
"""Nano-USD: three tokens in and two out."""


def answered(probe: str, id: str, **changes):
    headers = (("content-type", "application/json"), ("Inference-Id", id))
    body = {**completion(), **changes}
    return exchange(probe, body, sent={"model": "acme/chat-1"}, headers=headers)


MADE = [answered("warmup", A), exchange("discovery.models", LISTED)]


def costs(told, ids=(A,), probe="billing.settle", **changes):
    return exchange(probe, {"requests": told} if isinstance(told, list) else told, sent={"requestIds": ids}, **changes)


def entry(id, cost):
    return {"requestId": id, "costNanoUsd": cost}


def result(check, *exchanges, facts=FACTS, made=MADE):
    [found] = judge([CHECKS[check]], [*made, *exchanges], facts)
    return found


def verdict(check, *exchanges, **kwargs):
    return result(check, *exchanges, **kwargs).verdict


# Amounts


@pytest.mark.parametrize(
    ("pricing", "cached", "low", "high"),
    [
        ({"input": 0.2, "output": 2}, 0, 2_200_000, 2_200_000),
        ({"input": 0.2, "output": 2}, 400, 2_120_000, 2_200_000),
        ({"input": 0.2, "output": 2, "input_cache_read": 0.1}, 400, 2_160_000, 2_200_000),
        ({"input": 0.2, "output": 2, "cache_write": 0.25}, 0, 2_200_000, 2_250_000),
        ({"input": "0.2", "output": "2", "currency": "USD"}, 0, 2_200_000, 2_200_000),
        ({"input": 0, "output": 0}, 0, 0, 0),
    ],
)
def test_a_cost_lies_between_what_cached_input_may_cost_and_rounding(pricing, cached, low, high):
    tariff = Tariff.read(pricing)
    assert tariff is not None
    assert tariff.bounds_nano_usd(1_000, cached, 1_000) == (max(0, low - 2), high + 2)


@pytest.mark.parametrize(
    "pricing",
    [
        None,
        {"input": 0.2},
        {"input": 0.2, "output": 2, "request": 0.01},
        {"input": 0.2, "output": 2, "tiers": [{"from": 100_000, "input": 0.4}]},
        {"input": 2e-7, "output": 2e-6},
        {"input": "free", "output": 2},
    ],
)
def test_a_price_with_other_parts_or_per_token_is_held_against_nobody(pricing):
    assert Tariff.read(pricing) is None


@pytest.mark.parametrize(
    ("value", "charged"),
    [
        (0, 0),
        (7, 7),
        (6.2, 7),
        (7.0, 7),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (-1, None),
        (-0.5, None),
        ("5", None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_what_the_hub_charges_for_a_cost_as_it_stands(value, charged):
    assert charged_nano_usd(value) == charged


@pytest.mark.parametrize(
    ("cost", "word"),
    [
        (COST_OF_A, None),
        (COST_OF_A + 2, None),
        (COST_OF_A - 2, None),
        (COST_OF_A + 3, ""),
        (5, "micro-USD"),
        (COST_OF_A * 1_000, "a price per thousand tokens"),
        (3 * 2_000 + 2 * 200, "the price of input and output exchanged"),
        (5 * 2_000, "the whole usage at the price of output"),
        (600, "the input alone"),
    ],
)
def test_a_wrong_sum_is_shown_with_how_it_may_have_come_about(cost, word):
    found = result("billing.cost.price", costs([entry(A, cost)]))
    assert found.verdict is (Verdict.PASS if word is None else Verdict.FAIL)
    if word is not None:
        [finding] = found.findings
        assert finding.expected == "4,598 to 4,602 nano-USD"
        assert finding.got == f"{cost:,} nano-USD" + (f", as if {word} had been charged" if word else "")
        assert finding.at == "/requests/0/costNanoUsd"
        assert finding.exchange_id == "billing.settle#1"
        assert "input of 3 and output of 2 tokens at 0.2 USD in and 2 USD out" in finding.note
        assert "4,600 nano-USD; by the usage of warmup#1" in finding.note


def test_zero_is_a_finding_of_its_own_and_a_free_model_costs_nothing():
    free = [
        MADE[0],
        exchange("discovery.models", {"data": [{"id": "acme/chat-1", "pricing": {"input": 0, "output": 0}}]}),
    ]
    nothing = costs([entry(A, 0)])
    assert verdict("billing.cost.zero", nothing) is Verdict.FAIL
    assert verdict("billing.cost.price", nothing) is Verdict.PASS
    assert verdict("billing.cost.zero", nothing, made=free) is Verdict.PASS
    assert verdict("billing.cost.price", costs([entry(A, 500)]), made=free) is Verdict.FAIL


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9},
        {"prompt_tokens": -3, "completion_tokens": 2},
        {"prompt_tokens": 3.0, "completion_tokens": 2},
        {"type": "duration", "seconds": 5},
        {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"audio_tokens": 2}},
        None,
        [],
    ],
)
def test_usage_that_does_not_add_up_prices_nothing(told):
    odd = answered("warmup", A, usage=told)
    assert usage(odd) is None
    assert verdict("billing.cost.price", costs([entry(A, 1)]), made=[odd, MADE[1]]) is Verdict.SKIPPED


def test_usage_is_read_under_the_names_of_every_family_and_out_of_streams():
    told = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13, "input_tokens_details": {"cached_tokens": 99}}
    read = usage(exchange("responses.plain", {"usage": told}))
    assert read is not None
    assert (read.input_tokens, read.cached_tokens, read.output_tokens) == (9, 9, 4)
    events = [
        {"usage": None},
        {"type": "response.completed", "response": {"usage": {**told, "input_tokens_details": None}}},
    ]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    streamed = usage(exchange("responses.stream", body, headers=(("content-type", "text/event-stream"),)))
    assert streamed is not None
    assert (streamed.input_tokens, streamed.cached_tokens, streamed.output_tokens) == (9, 0, 4)
    embedded = usage(exchange("embeddings.plain", {"usage": {"prompt_tokens": 5, "total_tokens": 5}}))
    assert embedded is not None
    assert (embedded.input_tokens, embedded.output_tokens) == (5, 0)


# Time


def test_the_waits_begin_at_once_grow_and_end_with_the_time():
    for timeout_s in (0.05, 1.0, 4.0, 60.0, 1_800.0):
        waits = probes.waits_s(timeout_s)
        assert sum(waits) == pytest.approx(timeout_s)
        assert waits[0] <= 0.5
        assert waits[:-1] == sorted(waits[:-1])
        assert max(waits) <= 60.0
        assert len(waits) <= 40


def test_a_cost_that_never_comes_fails_only_when_all_the_time_was_given():
    polls = len(probes.waits_s(8.0)) + 1
    every = [costs([], trial=n) for n in range(1, polls + 1)]
    cut_short = result("billing.settled.whole", *every[:-1])
    assert (cut_short.verdict, cut_short.reason) == (Verdict.INCONCLUSIVE, "asking ended before 8 s were over")
    late = result("billing.settled.whole", *every)
    assert late.verdict is Verdict.FAIL
    assert late.findings[0].got.startswith(f"1 without one, asked {polls} times")
    assert verdict("billing.settled.whole", *every[:-1], costs([entry(A, 1)], trial=polls)) is Verdict.PASS
    assert verdict("billing.settled.streams", *every) is Verdict.SKIPPED


def test_a_poll_goes_on_while_an_answer_can_be_read_and_ids_are_missing():
    wait = probes.settle.poll
    assert wait is not None
    waits = probes.waits_s(8.0)
    assert wait(costs([]), FACTS) == waits[0]
    assert wait(costs({"requests": None}, trial=2), FACTS) == waits[1]
    assert wait(costs([entry(A, 1)]), FACTS) is None
    assert wait(costs([], status=500), FACTS) is None
    assert wait(costs({"costs": []}), FACTS) is None
    assert wait(costs([], trial=len(waits) + 1), FACTS) is None


@pytest.mark.parametrize(
    ("ended_s", "failure", "expected"),
    [
        (1.9, None, Verdict.PASS),
        (2.5, None, Verdict.FAIL),
        (2.0, FailureKind.TOTAL_TIMEOUT, Verdict.FAIL),
        (0.5, FailureKind.TOTAL_TIMEOUT, Verdict.INCONCLUSIVE),
        (0.5, FailureKind.REFUSED, Verdict.INCONCLUSIVE),
        (0.5, FailureKind.DISCONNECTED, Verdict.FAIL),
    ],
)
def test_a_batch_is_late_only_by_the_providers_fault(ended_s, failure, expected):
    cut = Failure(failure, "as it was") if failure else None
    sent = costs([entry(A, 1)], probe="billing.batch", status=None if cut else 200, failure=cut)
    sent = replace(sent, reply=replace(sent.reply, timings=Timings(ended_ns=int(ended_s * 1e9))))
    assert verdict("billing.batch.in_time", costs([entry(A, 1)]), sent) is expected


# Keys and answers


@pytest.mark.parametrize(
    ("key", "status", "expected"),
    [
        (BillingKey.SHARED, 200, Verdict.PASS),
        (BillingKey.SHARED, 401, Verdict.FAIL),
        (BillingKey.OWN, 401, Verdict.INCONCLUSIVE),
        (BillingKey.NONE, 403, Verdict.INCONCLUSIVE),
        (BillingKey.OWN, 500, Verdict.FAIL),
        (BillingKey.SHARED, 503, Verdict.INCONCLUSIVE),
    ],
)
def test_a_refused_key_is_the_providers_fault_where_it_is_that_of_inference(key, status, expected):
    facts = replace(FACTS, billing=Billing(URL, key))
    assert verdict("billing.answered", costs([], status=status), facts=facts) is expected


@pytest.mark.parametrize(
    ("body", "check"),
    [
        (b'{"requests": [{"requestId": "a", "costNanoUsd": 1, "costNanoUsd": 2}]}', "billing.json"),
        (b'{"requests": [], "requests": []}', "billing.json"),
        (b'{"requests": [{"requestId": "a", "costNanoUsd": NaN}]}', "billing.json"),
        (b'{"requests": [{"requestId": "a", "costNanoUsd": 1e400}]}', "billing.json"),
        (b"[]", "billing.json"),
        (b"", "billing.json"),
        (b"{}", "billing.shape"),
        (b'{"requests": "none"}', "billing.shape"),
        (b'{"requests": [null]}', "billing.shape"),
        (b'{"requests": [{"requestId": 5, "costNanoUsd": 1}]}', "billing.shape"),
        (b'{"requests": [{"requestId": "a"}]}', "billing.shape"),
        (f'{{"requests": [{{"requestId": "{A}", "costNanoUsd": 1e3}}]}}'.encode(), "billing.cost.integer"),
        (f'{{"requests": [{{"requestId": "{A}", "costNanoUsd": -1}}]}}'.encode(), "billing.cost.not_negative"),
        (f'{{"requests": [{{"requestId": "{A}", "costNanoUsd": {2**63}}}]}}'.encode(), "billing.cost.fits"),
        (f'{{"requests": [{{"requestId": "{A}", "costNanoUsd": "5"}}]}}'.encode(), "billing.cost.number"),
        (f'{{"requests": [{{"requestId": "{A} ", "costNanoUsd": 5}}]}}'.encode(), "billing.ids.asked"),
        (json.dumps({"requests": 2 * [{"requestId": A, "costNanoUsd": 5}]}).encode(), "billing.ids.once"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_mistake_in_an_answer_has_one_check_that_names_it(body, check):
    every = select(["billing.json", "billing.shape", "billing.cost", "billing.ids", "billing.content_type"])
    found = judge(every, [MADE[0], costs(body)], FACTS)
    assert {r.check_id for r in found if r.verdict in (Verdict.FAIL, Verdict.WARN)} == {check}


def test_null_is_none_and_other_fields_are_welcome():
    every = select(["billing.json", "billing.shape", "billing.cost.number", "billing.ids"])
    for told in ({"requests": None}, {"requests": [], "page": 1}, {"requests": [{**entry(A, 4), "model": "m"}]}):
        assert {r.verdict for r in judge(every, [MADE[0], costs(told)], FACTS)} == {Verdict.PASS}


def test_checks_of_the_api_leave_the_cost_endpoint_out():
    broken = exchange("billing.settle", b"<html>", status=500, headers=())
    for check in ("errors.no_5xx", "errors.json", "request_id.present", "request_id.on_errors"):
        assert verdict(check, broken, made=MADE[:1]) is Verdict.PASS


# What is asked


def drafted(probe, *seen, facts=FACTS, trial=1):
    everything = (*MADE, *seen)
    draft = probe.build(Context(facts, trial, {x.probe: x for x in reversed(everything)}, {}, everything))
    return None if draft is None or draft.json is None else draft.json


def test_only_whole_answers_of_the_models_own_route_must_have_a_cost():
    refused = exchange("errors.no_messages", {}, status=400, headers=(("Inference-Id", "x" * 20),))
    nameless = exchange("chat.echo", completion())
    counted = answered("tgi.tokenize", B)
    counted = replace(counted, request=replace(counted.request, url="http://127.0.0.1:1/v1/tokenize"))
    left = answered("chat.stream.early_close", B)
    left = replace(left, reply=replace(left.reply, closed_early=True))
    told_error = exchange(
        "chat.stream",
        b'data: {"error": {"message": "overloaded"}}\n\n',
        headers=(("content-type", "text/event-stream"), ("Inference-Id", B)),
    )
    assert list(served([*MADE, refused, nameless, counted, left, told_error], FACTS)) == [A]
    assert drafted(probes.settle, refused, left) == {"requestIds": [A]}
    assert drafted(probes.settle, costs([entry(A, 1)])) is None


def test_the_second_question_names_known_refused_and_unknown_ids():
    refused = exchange("errors.no_messages", {}, status=400, headers=(("Inference-Id", B),))
    ids = drafted(probes.again, refused, costs([entry(A, 1)]))["requestIds"]
    assert {A, B} < set(ids)
    assert len(ids) == 2 + probes.UNKNOWN_IDS
    batch = drafted(probes.batch, costs([entry(A, 1)]))["requestIds"]
    assert len(set(batch)) == 50
    assert 0 < batch.index(A) < 49


def test_after_a_failed_question_nothing_more_is_asked_of_the_endpoint():
    failed = costs([], status=404)
    asking = [probe for probe in PROBES.values() if probe.billing and probe is not probes.settle]
    assert len(asking) == 8
    assert [probe.id for probe in asking if drafted(probe, failed) is not None] == []
    keyless = replace(FACTS, billing=Billing(URL))
    assert drafted(probes.wrong_key, costs([]), facts=keyless) is None


@pytest.mark.parametrize(
    ("real", "form"),
    [
        (A, None),
        ("req-0123456789abcdef0123", r"req-[0-9a-f]{20}"),
        ("gen_AbCdEfGhIj0123456789", r"gen_[A-Z][a-z][A-Z][a-z][A-Z][a-z][A-Z][a-z][A-Z][a-z][0-9]{10}"),
        ("1234", None),
        ("12345678901234567890", None),
        ("", None),
    ],
)
def test_made_up_ids_have_the_form_of_real_ones_where_that_is_nobodys(real, form):
    made = probes.unknown_ids(FACTS, 20, {real})
    assert len(set(made)) == 20
    assert real not in made
    assert made == probes.unknown_ids(FACTS, 20, {real})
    assert made != probes.unknown_ids(replace(FACTS, run="another"), 20, {real})
    for id in made:
        assert re.fullmatch(form, id) if form else uuid.UUID(id).version == 4


def test_price_and_tariff_agree():
    price = Price.parse(0.2, 2)
    assert price is not None
    assert price.cost_nano_usd(3, 2) == COST_OF_A
