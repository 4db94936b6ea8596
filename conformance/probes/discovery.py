"""Probes that find out whom we talk to."""

from __future__ import annotations

from roadworthy.conformance.probe import Context, Draft, Phase, probe


@probe("warmup", phase=Phase.FIRST)
def warmup(context: Context) -> Draft:
    """A first plain question, so that a cold start is seen and not counted as latency."""
    return context.chat("Say hello.", max_tokens=16)


@probe("discovery.models", phase=Phase.FIRST)
def models(context: Context) -> Draft:
    """The list of models."""
    return Draft("GET", "/models")
