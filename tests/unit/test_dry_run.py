"""The dry run: its bounds hold for what a real run then sends and uses."""

from __future__ import annotations

from collections import Counter

from roadworthy.conformance.dry_run import outline, totals
from roadworthy.conformance.facts import Ability, Capability, Facts
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.run import Settings


def test_a_real_run_stays_within_every_bound(run_sandbox):
    run = run_sandbox()
    declared = {capability: Ability(True, "declared") for capability in Capability}
    facts = Facts(
        "http://127.0.0.1:1/v1", "acme/chat-1", abilities=declared, fuzz_examples=24, probe_advertised_models=3
    )
    bounds = {item.probe.id: item for item in outline(plan(facts, select()), Settings())}
    sent = Counter(exchange.probe for exchange in run.exchanges)
    assert set(sent) <= set(bounds)
    for probe, times in sent.items():
        assert times <= bounds[probe].times_at_most, probe
    used = Counter()
    for exchange in run.exchanges:
        usage = exchange.stream.usage if exchange.media_type == "text/event-stream" else exchange.answer.get("usage")
        if isinstance(usage, dict):
            used[exchange.probe, "in"] += usage["prompt_tokens"]
            used[exchange.probe, "out"] += usage["completion_tokens"]
    assert used
    for (probe, direction), tokens in used.items():
        item = bounds[probe]
        most = item.prompt_tokens_at_most if direction == "in" else item.completion_tokens_at_most
        assert tokens <= most, (probe, direction)
    requests, prompt, completion = totals(list(bounds.values()))
    assert requests >= len(run.exchanges)
    assert prompt > completion > 0


def test_what_is_not_offered_or_switched_off_is_outlined_as_not_sent():
    facts = Facts(
        "http://127.0.0.1:1/v1",
        "m",
        abilities={Capability.TOOLS: Ability(False, "declared as not offered")},
        fuzz_examples=0,
    )
    items = {item.probe.id: item for item in outline(plan(facts, select()), Settings())}
    assert items["tools.auto"].skipped == "tools: declared as not offered"
    assert items["fuzz.valid"].times_at_most == 0
    assert items["fuzz.valid"].skipped == "switched off"
