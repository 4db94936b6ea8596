"""Which providers serve a model, for whom, and in what order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from roadworthy.mapping_api.access import Caller
from roadworthy.mapping_api.names import CONVERSATIONAL
from roadworthy.mapping_api.records import Mapping, ModelFacts, Provider, Validation
from roadworthy.mapping_api.view import View

Policy = Literal["fastest", "cheapest", "preferred"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One provider's service of one model. `validation` is None until the first verdict."""

    facts: ModelFacts
    mapping: Mapping
    provider: Provider
    validation: Validation | None

    @property
    def active(self) -> bool:
        """Whether it is on the list of active providers: every mapping is, until a verdict takes it off."""
        return self.validation is None or self.validation.active

    def entry(self) -> dict[str, Any]:
        """The value in `inferenceProviderMapping` (hub-api, Get model providers), with the adapter if any."""
        entry: dict[str, Any] = {
            "status": self.mapping.status,
            "providerId": self.mapping.provider_model,
            "task": self.mapping.task,
        }
        if self.mapping.adapter_type is not None:
            entry["adapter"] = self.mapping.adapter_type
            entry["adapterWeightsPath"] = self.facts.adapter_weights_path
        return entry


def offers(view: View, facts: ModelFacts, caller: Caller) -> Iterator[Offer]:
    """One offer of each provider that serves the model, as far as the caller may see it.

    Staging mappings show to members of the provider's own organisation only. Where a provider
    has several that cover the model, a live one comes before a staging one, one that names the
    model before a tag filter, and chat before plain text.
    """
    best: dict[str, Mapping] = {}
    for mapping in view.matching(facts):
        if mapping.status == "staging" and not caller.owns(view.providers[mapping.provider]):
            continue
        held = best.get(mapping.provider)
        if held is None or _rank(mapping) < _rank(held):
            best[mapping.provider] = mapping
    for slug, mapping in best.items():
        yield Offer(facts, mapping, view.providers[slug], view.validations.get(mapping.id))


def ordered(found: Iterable[Offer], policy: Policy = "fastest", preferred: tuple[str, ...] = ()) -> list[Offer]:
    """Offers in the order of health, then of the policy, then of the name.

    fastest: most tokens per second; cheapest: lowest output price, then input price;
    preferred: the caller's own order. What is not known comes after what is.
    """
    return sorted(
        found, key=lambda offer: (not offer.active, offer.validation is None, *_merit(offer, policy, preferred))
    )


def _rank(mapping: Mapping) -> tuple[bool, bool, bool, str]:
    # The id last, so that every instance of the service chooses the same one of equals.
    return (mapping.status != "live", mapping.hf_model is None, mapping.task != CONVERSATIONAL, mapping.id)


def _merit(offer: Offer, policy: Policy, preferred: tuple[str, ...]) -> tuple[float, float, str]:
    slug, verdict = offer.provider.slug, offer.validation
    first, second = float("inf"), float("inf")
    if policy == "preferred":
        first = preferred.index(slug) if slug in preferred else len(preferred)
    elif verdict is not None and policy == "cheapest":
        first = _or_last(verdict.output_price_nano_usd_per_mtok)
        second = _or_last(verdict.input_price_nano_usd_per_mtok)
    elif verdict is not None:
        first = -(verdict.throughput_tokens_per_s or 0.0)
        second = _or_last(verdict.time_to_first_token_s)
    return (first, second, slug)


def _or_last(figure: float | None) -> float:
    return float("inf") if figure is None else figure
