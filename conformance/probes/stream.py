"""Probes of streamed chat completions."""

from __future__ import annotations

from roadworthy.conformance.probe import Context, Draft, probe


@probe("chat.stream")
def chat_stream(context: Context) -> Draft:
    """A streamed answer of a few sentences, with usage asked for."""
    return context.chat(
        "Count from one to five in words.", stream=True, stream_options={"include_usage": True}, temperature=0
    )
