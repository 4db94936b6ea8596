"""Probes of streamed chat completions."""

from __future__ import annotations

from roadworthy.conformance.facts import Capability
from roadworthy.conformance.probe import Context, Draft, Probe, probe

STREAMS: list[Probe] = []
"""Every probe that asks for a stream; the wire-level checks inspect them all. Other families add theirs."""

COUNT = "Count from one to thirty in words, separated by commas."
LONG_COUNT = "Count from 1 to 300 in words, separated by commas."
SCRIPTS = "naïve 東京 🚀"
CUT_TOKENS = 8
COUNTED = {"include_usage": True}


@probe("chat.stream")
def chat_stream(context: Context) -> Draft:
    """A streamed answer of a few sentences, with usage asked for."""
    return context.chat(COUNT, stream=True, stream_options=COUNTED, temperature=0)


@probe("chat.stream.twin")
def twin(context: Context) -> Draft:
    """The same question, not streamed, to compare the answers."""
    return context.chat(COUNT, temperature=0)


@probe("chat.stream.cut")
def cut(context: Context) -> Draft:
    """A streamed answer that the token limit cuts off, with no usage asked for."""
    return context.chat(COUNT, stream=True, max_tokens=CUT_TOKENS, temperature=0)


@probe("chat.stream.choices", needs=[Capability.MULTIPLE_CHOICES])
def several(context: Context) -> Draft:
    """Two answers to one question, streamed side by side."""
    return context.chat("Say hello.", stream=True, n=2, max_tokens=32)


@probe("chat.stream.early_close")
def early_close(context: Context) -> Draft:
    """A long stream that we leave after its second event, as a user who closes the page."""
    # Long, so that even a server that answers at once is still at it when we leave.
    return context.chat(LONG_COUNT, stream=True, max_tokens=600).with_limits(close_after_events=2)


@probe("chat.stream.after_close", after=[early_close])
def after_close(context: Context) -> Draft:
    """A stream right after leaving one, with letters of several scripts to repeat."""
    return context.chat(f"Reply with exactly: {SCRIPTS}", stream=True, stream_options=COUNTED, temperature=0)


STREAMS += [chat_stream, cut, several, after_close]
