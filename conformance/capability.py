"""Finding out what a model offers, from what it says of itself and from explicit refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Ability, Capability, Facts
from roadworthy.conformance.probe import PROBES, Expects

REFUSALS = (400, 404, 405, 415, 422, 501)
UNKNOWN = Ability(None, "")
LISTS = ("discovery.models", "responses.models")
"""The probes that ask for the list of models."""
PARAMETERS = {
    "tools": Capability.TOOLS,
    "response_format": Capability.JSON_OBJECT,
    "structured_outputs": Capability.JSON_SCHEMA,
    "logprobs": Capability.LOGPROBS,
    "reasoning_effort": Capability.REASONING,
    "reasoning": Capability.REASONING,
    "seed": Capability.SEED,
    "n": Capability.MULTIPLE_CHOICES,
}
"""Names in an entry's `supported_parameters` and what they announce. What is not listed may still be offered."""


def detect(exchanges: Sequence[Exchange], facts: Facts) -> Mapping[Capability, Ability]:
    """What the exchanges show: the model's own entry in `/models`, then explicit refusals."""
    found: dict[Capability, Ability] = {}
    for exchange in exchanges:
        if exchange.probe in LISTS and exchange.status == 200:
            for entry in objects(exchange.answer.get("data")):
                if entry.get("id") == facts.model:
                    found.update(_from_entry(entry))
    accepted, refused = _reactions(exchanges)
    for capability in accepted:
        found.setdefault(capability, Ability(True, "detected: the server accepts it"))
    for capability, reason in refused.items():
        if capability not in accepted and found.get(capability, UNKNOWN).offered is None:
            found[capability] = Ability(False, reason)
    return found


def _reactions(exchanges: Sequence[Exchange]) -> tuple[set[Capability], dict[Capability, str]]:
    """The capabilities that some probe was let use, and those refused in words."""
    accepted: set[Capability] = set()
    refused: dict[Capability, str] = {}
    for exchange in exchanges:
        probe = PROBES.get(exchange.probe)
        if probe is None or probe.expects is not Expects.SUCCESS:
            continue
        for capability in probe.needs:
            if exchange.status == 200:
                accepted.add(capability)
            elif exchange.status in REFUSALS and exchange.complete:
                refused.setdefault(capability, f"refused with HTTP {exchange.status} ({exchange.id})")
    return accepted, refused


def _from_entry(entry: Mapping[str, object]) -> Mapping[Capability, Ability]:
    found = {}
    for key, capabilities in (
        ("supports_tools", (Capability.TOOLS,)),
        ("supports_structured_output", (Capability.JSON_SCHEMA,)),
    ):
        value = entry.get(key)
        if isinstance(value, bool):
            for capability in capabilities:
                found[capability] = Ability(value, f"detected: /models says {key} = {str(value).lower()}")
    parameters = entry.get("supported_parameters")
    if isinstance(parameters, list):
        for name, capability in PARAMETERS.items():
            if name in parameters:
                found[capability] = Ability(True, f"detected: /models lists {name} among its parameters")
    modalities = as_object(entry.get("architecture")).get("input_modalities")
    if isinstance(modalities, list):
        found[Capability.VISION] = Ability(
            "image" in modalities, f"detected: /models says input_modalities = {modalities}"
        )
    return found
