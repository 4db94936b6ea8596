"""Checks of streamed chat completions."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import DONE, Exchange
from roadworthy.conformance.probes.stream import chat_stream
from roadworthy.conformance.verdict import Finding, Lens, Level


@check(
    "chat.stream.done",
    level=Level.MUST,
    lenses=[Lens.OPENAI, Lens.HUB],
    source="openai:chat-completions/streaming",
    remedy="Send `data: [DONE]` as the last event, after the usage chunk.",
    each=chat_stream,
    on=Usable.EVENTS,
)
def done(exchange: Exchange) -> Iterator[Finding]:
    """A finished stream ends with the event `[DONE]`, and nothing follows it.

    Clients read until this event; without it they wait for more, or report a cut-off answer.
    """
    last = exchange.stream.events[-1]
    if last.data.strip() != DONE:
        yield Finding(DONE, last.data[:200], at=f"event {last.index}")
