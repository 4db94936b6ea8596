"""Whether there is anything at the URL to judge."""

from __future__ import annotations

from collections.abc import Iterator

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import describe
from roadworthy.conformance.probes.discovery import warmup
from roadworthy.conformance.verdict import Finding, Lens, Level, Outcome, Undecided
from roadworthy.conformance.words import show


@check(
    "target.answers",
    level=Level.MUST,
    lenses=[Lens.HUB, Lens.OPENAI, Lens.SPEC],
    source="registration guide, Automatic validation",
    remedy=(
        "Serve POST {base URL}/chat/completions for this model; "
        "check the base URL (most end in /v1) and the model's name."
    ),
    each=warmup,
    on=Usable.ANYTHING,
)
def answers(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A plain chat request is answered with HTTP 200.

    The hub's validation takes a mapping off the active list when the call does not succeed.
    """
    if exchange.unreachable:
        yield Undecided(f"could not tell: {describe(exchange)}")
    elif exchange.status in (401, 403):
        key = "the key was refused" if facts.authenticated else "no key was shown; set ROADWORTHY_API_KEY"
        yield Undecided(f"could not tell: HTTP {exchange.status}, {key}: {show(exchange.reply.body)}")
    elif exchange.status != 200 or exchange.reply.failure is not None:
        said = f": {show(exchange.reply.body)}" if exchange.reply.body and exchange.reply.failure is None else ""
        yield Finding("HTTP 200", describe(exchange) + said, at="status", note=_hint(exchange))
    elif not exchange.reply.body.lstrip().startswith(b"{"):
        yield Finding(
            "a JSON object", f"{describe(exchange)}: {show(exchange.reply.body)}", at="body", note=_hint(exchange)
        )


def _hint(exchange: Exchange) -> str:
    if exchange.media_type == "text/html" and exchange.status == 200:
        return "This looks like a web page, not an API: is it the base URL of the API?"
    if exchange.status in (404, 405):
        return f"Asked at {exchange.request.url}: is the base URL right? Most end in /v1. Is the model's name?"
    return ""
