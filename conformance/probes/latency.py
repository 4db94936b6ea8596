"""Probes that take time."""

from __future__ import annotations

from roadworthy.conformance.probe import Context, Draft, Phase, probe
from roadworthy.conformance.probes.stream import STREAMS

SAMPLES = 5


@probe("latency.first_token", phase=Phase.ALONE, repeat=SAMPLES)
def first_token(context: Context) -> Draft:
    """A short streamed answer, alone on a quiet client, for the time to its first token."""
    return context.chat("Say hello.", stream=True, max_tokens=32, seed=context.trial)


STREAMS.append(first_token)
