"""Probes that take time."""

from __future__ import annotations

from roadworthy.conformance.probe import Context, Draft, Phase, probe
from roadworthy.conformance.probes.stream import STREAMS

SAMPLES = 5


@probe("latency.first_token", phase=Phase.ALONE, repeat=SAMPLES)
def first_token(context: Context) -> Draft:
    """A short streamed answer, alone on a quiet client, for the time to its first token.

    Each sample asks a little differently, so that no cache of whole answers replies.
    """
    return context.chat(f"Say hello to visitor number {context.trial}.", stream=True, max_tokens=32)


STREAMS.append(first_token)
