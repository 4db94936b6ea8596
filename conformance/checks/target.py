"""Whether there is anything at the URL to judge."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.judge import describe
from roadworthy.conformance.probes.discovery import warmup
from roadworthy.conformance.verdict import Finding, Lens, Level, Outcome, Undecided


@check(
    "target.answers",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.OPENAI, Lens.SPEC],
    source="registration guide, Automatic validation",
    remedy=(
        "Serve POST {base URL}/chat/completions for this model; check the base URL (most end in /v1) and the model id."
    ),
    each=warmup,
    on=Usable.ANYTHING,
)
def answers(exchange: Exchange) -> Iterator[Outcome]:
    """A plain chat request is answered with HTTP 200.

    The hub's validation takes a mapping off the active list when the call does not succeed.
    """
    if exchange.status == 200 and exchange.complete:
        return
    if exchange.unreachable or exchange.status in (401, 403):
        yield Undecided(f"could not tell: {describe(exchange)}")
    else:
        yield Finding("HTTP 200", describe(exchange), at="status")
