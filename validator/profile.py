"""What a validation asks: few requests, and every check of the hub's that they can answer.

The checks are the catalogue's own, chosen by the probes they read; nothing is judged by rules of
the validator's. A chat model costs about a dozen requests of some hundred tokens.
"""

from __future__ import annotations

from dataclasses import replace

from roadworthy.conformance.facts import Facts
from roadworthy.conformance.plan import Plan, plan, select
from roadworthy.conformance.verdict import Lens

PROBES = frozenset(
    [
        *("warmup", "discovery.models", "chat.stream", "latency.first_token"),
        *("tools.auto", "tools.required", "structured.object", "structured.strict"),
        *("completions.plain", "completions.stream", "embeddings.plain", "images.plain"),
        *("transcription.plain", "speech.plain", "task.plain", "jobs.submit", "jobs.poll", "jobs.fetch"),
    ]
)
"""The probes that a validation sends, where they apply to the mapping's task and API."""


def planned(facts: Facts) -> Plan:
    """These probes, and the hub's checks that read at least one of them, for one subject."""
    whole = plan(facts, select(lenses=[Lens.HUB]))
    checks = tuple(check for check in whole.checks if any(probe.id in PROBES for probe in check.probes))
    return replace(whole, checks=checks, probes=tuple(probe for probe in whole.probes if probe.id in PROBES))
