"""Probes that find out whom we talk to."""

from __future__ import annotations

from urllib.parse import quote

from roadworthy.conformance.exchange import objects
from roadworthy.conformance.probe import Context, Draft, Phase, probe

CHATTING = ("conversational", "chat-completion", "text-generation", "image-text-to-text")
"""Tasks under which chat models are listed; a model of another task cannot be asked to chat."""


@probe("warmup", phase=Phase.FIRST, gate=True)
def warmup(context: Context) -> Draft:
    """A first plain question, so that a cold start is seen and not counted as latency."""
    return context.chat("Say hello.", max_tokens=16)


@probe("discovery.models", phase=Phase.FIRST)
def models(context: Context) -> Draft:
    """The list of models."""
    return Draft("GET", "/models")


@probe("discovery.model")
def model(context: Context) -> Draft:
    """The entry of the model under test."""
    return Draft("GET", f"/models/{quote(context.facts.model, safe='/')}")


@probe("discovery.advertised", after=[models], repeat=lambda facts: facts.probe_advertised_models)
def advertised(context: Context) -> Draft | None:
    """A plain question to another of the advertised models, each time to the next."""
    listed = context.answer_to(models)
    entries = objects(listed.answer.get("data")) if listed else []
    chatting = [entry for entry in entries if entry.get("pipeline_tag", "conversational") in CHATTING]
    names = [entry["id"] for entry in chatting if isinstance(entry.get("id"), str)]
    others = [name for name in dict.fromkeys(names) if name != context.facts.model]
    if context.trial > len(others):
        return None
    return context.chat("Say hello.", max_tokens=16, model=others[context.trial - 1])
