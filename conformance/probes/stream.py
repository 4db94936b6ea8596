"""Probes of streamed chat completions."""

from __future__ import annotations

from roadworthy.conformance.probe import Context, Draft, Probe, probe

STREAMS: list[Probe] = []
"""Every probe that asks for a stream; the wire-level checks inspect them all. Other families add theirs."""

COUNT = "Count from one to thirty in words, separated by commas."


@probe("chat.stream")
def chat_stream(context: Context) -> Draft:
    """A streamed answer of a few sentences, with usage asked for."""
    return context.chat(COUNT, stream=True, stream_options={"include_usage": True}, temperature=0)


@probe("chat.stream.twin")
def twin(context: Context) -> Draft:
    """The same question, not streamed, to compare the answers."""
    return context.chat(COUNT, temperature=0)


@probe("chat.stream.cut")
def cut(context: Context) -> Draft:
    """A streamed answer that the token limit cuts off, with no usage asked for."""
    return context.chat(COUNT, stream=True, max_tokens=8)


@probe("chat.stream.early_close")
def early_close(context: Context) -> Draft:
    """A stream that we leave after its third event, as a user who closes the page."""
    return context.chat(COUNT, stream=True).with_limits(close_after_events=3)


@probe("chat.stream.after_close", after=[early_close])
def after_close(context: Context) -> Draft:
    """A plain question right after leaving a stream."""
    return context.chat("Say hello.", max_tokens=16).with_limits(total_timeout_s=20)


STREAMS += [chat_stream, cut]
