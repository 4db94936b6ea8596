"""What a validation asks: few requests, and every check of the hub's that they can answer.

The checks are the catalogue's own, chosen by the probes they read. A chat model costs thirteen
requests where its tools work at once, and less than two thousand tokens.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from roadworthy.conformance.facts import Facts
from roadworthy.conformance.plan import Plan, plan, select
from roadworthy.conformance.probe import PROBES as DECLARED
from roadworthy.conformance.probe import Phase, Probe
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import Lens

LATENCY_SAMPLES = 3
"""Streams sent alone for the time to the first token: the fewest whose median can be judged."""
LIST = "discovery.models"

PROBES = frozenset(
    [
        *("warmup", LIST, "chat.stream", "latency.first_token"),
        *("tools.auto", "tools.required", "structured.object", "structured.strict"),
        *("completions.plain", "completions.stream", "embeddings.plain", "images.b64"),
        *("transcription.plain", "speech.plain", "task.plain", "jobs.submit", "jobs.poll", "jobs.fetch"),
        *("tgi.first", "tgi.first_token"),
    ]
)
"""The probes that a validation sends, where they apply to the mapping's task and API."""
ESSENTIAL = PROBES - {LIST, "tools.auto", "tools.required", "structured.object", "structured.strict"}
"""Those that ask for inference itself: where one of them gets no answer, users get none either."""
ABILITIES = {"tools": "tool calling", "structured": "structured output"}
"""Families of probes and checks of what the hub tests of language models beside inference, and their names."""

_OF_EVERY_REQUEST = frozenset({"request_id"})
_GENERATED = frozenset({"fuzz", "openapi"})
"""Families that judge generated requests, of which a validation sends none."""


def planned(facts: Facts) -> Plan:
    """These probes, and the hub's checks that read at least one of them, for one subject."""
    return replace(_plan_of(facts.task, facts.api), facts=facts)


@lru_cache(maxsize=256)
def _plan_of(task: str, api: Api) -> Plan:
    """The plan of a task and API: which checks apply depends on nothing else, and finding out takes milliseconds."""
    whole = plan(Facts("", "", task, api), select(lenses=[Lens.HUB]))
    checks = tuple(
        check
        for check in whole.checks
        if check.family not in _GENERATED
        and (check.family in _OF_EVERY_REQUEST or any(probe.id in PROBES for probe in check.probes))
    )
    probes = [_fitted(probe) for probe in whole.probes if probe.id in PROBES]
    if api is Api.OPENAI and all(probe.id != LIST for probe in probes):
        # Prices and context lengths stand in one list, whatever the model's task.
        first = sum(probe.gate for probe in probes)
        probes.insert(first, DECLARED[LIST])
    return Plan(whole.facts, checks, tuple(probes))


def _fitted(probe: Probe) -> Probe:
    if probe.id == "latency.first_token":
        return replace(probe, repeat=LATENCY_SAMPLES)
    if probe.id == "images.b64":
        # One picture costs more than a thousand tokens: it is asked for once, in the form that the hub's clients ask.
        return replace(probe, phase=Phase.FIRST, gate=True)
    return probe
