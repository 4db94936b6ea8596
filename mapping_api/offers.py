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
POLICIES: tuple[Policy, ...] = ("fastest", "cheapest", "preferred")
_LAST = float("inf")


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

    @property
    def by_author(self) -> bool:
        """Whether the provider's organisation is the one that published the model."""
        namespace, slash, _ = self.facts.id.partition("/")
        return bool(slash) and namespace.lower() == self.provider.organisation.lower()

    def entry(self) -> dict[str, Any]:
        """The value in `inferenceProviderMapping` (hub-api, Get model providers), with the adapter if any."""
        entry: dict[str, Any] = {
            "status": self.mapping.status,
            "providerId": self.mapping.provider_model,
            "task": self.mapping.task,
        }
        if self.mapping.adapter_type is not None:
            entry["adapter"] = self.mapping.adapter_type
            if self.facts.adapter_weights_path is not None:
                entry["adapterWeightsPath"] = self.facts.adapter_weights_path
        if self.by_author:
            entry["isModelAuthor"] = True
        return entry

    def list_entry(self) -> dict[str, Any]:
        """The same as a member of a list, which names the provider, and the model for the JavaScript client."""
        return {"provider": self.provider.slug, "hfModelId": self.facts.id} | self.entry()


def offers(view: View, facts: ModelFacts, caller: Caller, task: str | None = None) -> list[Offer]:
    """One offer of each provider that serves the model (for that task), as far as the caller may see it.

    Staging mappings show to members of the provider's own organisation only. Where a provider
    has several that cover the model, one that works comes before one that fails, a live one
    before a staging one, one that names the model before a tag filter, and chat before plain text.
    """
    best: dict[str, Offer] = {}
    for mapping in view.matching(facts):
        if task is not None and mapping.task != task:
            continue
        provider = view.providers[mapping.provider]
        if mapping.status == "staging" and not caller.owns(provider):
            continue
        offer = Offer(facts, mapping, provider, view.validations.get(mapping.id))
        held = best.get(provider.slug)
        if held is None or _rank(offer) < _rank(held):
            best[provider.slug] = offer
    return list(best.values())


def working(view: View, slug: str, caller: Caller) -> Iterator[tuple[Mapping, Iterable[str]]]:
    """A provider's active mappings, as far as the caller may see them, each with the ids of the models it covers."""
    provider = view.providers.get(slug)
    if provider is None or slug not in view.of_provider:
        return
    own = caller.owns(provider)
    for mapping in view.of_provider[slug].values():
        verdict = view.validations.get(mapping.id)
        if (own or mapping.status == "live") and (verdict is None or verdict.active):
            yield mapping, (view.tagged(mapping.tags or ()) if mapping.hf_model is None else (mapping.hf_model,))


def ordered(found: Iterable[Offer], policy: Policy = "fastest", preferred: tuple[str, ...] = ()) -> list[Offer]:
    """Offers in the order of health, then of the policy, then of the name.

    Health: what failed its last validation comes last; staging after live.
    fastest: most tokens per second, then the earliest first token; cheapest: lowest output price,
    then input price; preferred: the caller's own order, the rest as in fastest. What is not known
    comes after what is.
    """
    return sorted(
        found,
        key=lambda offer: (not offer.active, offer.mapping.status != "live", *_merit(offer, policy, preferred)),
    )


def for_clients(found: Iterable[Offer], caller: Caller) -> list[Offer]:
    """The active offers in the order in which `inferenceProviderMapping` lists them: the caller's, if he has one.

    Names that the official clients do not know come after all that they know: with
    `provider="auto"` they take the first, and stumble over a name that is new to them.
    """
    preferred = caller.preferred_providers
    active = ordered((offer for offer in found if offer.active), "preferred" if preferred else "fastest", preferred)
    active.sort(key=lambda offer: not offer.provider.in_clients)
    return active


def _rank(offer: Offer) -> tuple[bool, bool, bool, bool, str]:
    mapping = offer.mapping
    # The id last, so that every process of the service chooses the same one of equals.
    return (
        not offer.active,
        mapping.status != "live",
        mapping.hf_model is None,
        mapping.task != CONVERSATIONAL,
        mapping.id,
    )


def _merit(offer: Offer, policy: Policy, preferred: tuple[str, ...]) -> tuple[float, bool, float, float, str]:
    slug, verdict = offer.provider.slug, offer.validation
    place = 0
    if policy == "preferred":
        place = preferred.index(slug) if slug in preferred else len(preferred)
    if verdict is None:
        return (place, True, _LAST, _LAST, slug)
    if policy == "cheapest":
        first = _or_last(verdict.output_price_nano_usd_per_mtok)
        second = _or_last(verdict.input_price_nano_usd_per_mtok)
    else:
        first = -(verdict.throughput_tokens_per_s or 0.0)
        second = _or_last(verdict.time_to_first_token_s)
    return (place, False, first, second, slug)


def _or_last(figure: float | None) -> float:
    return _LAST if figure is None else figure
