"""Probes whose bodies are generated: the property-based leg."""

from __future__ import annotations

from roadworthy.conformance import generate
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probe import Context, Draft, Expects, probe

CASE = "Roadworthy-Case"
"""Request header that says what is odd about a generated body, so that a recording explains itself."""
REFUSE = "must be refused: "


def _count(facts: Facts) -> int:
    return facts.fuzz_examples


def _draft(body: generate.Body) -> Draft:
    label = (REFUSE if body.must_refuse else "") + body.label
    shown = label.encode("ascii", "backslashreplace").decode()[:200]
    return Draft("POST", "/chat/completions", raw=body.data, headers=((CASE, shown),))


@probe("fuzz.valid", expects=Expects.EITHER, repeat=_count)
def valid(context: Context) -> Draft | None:
    """A valid request, drawn from the request schema."""
    facts = context.facts
    bodies = generate.valid(facts.model, facts.fuzz_examples, facts.seed)
    return _draft(bodies[context.trial - 1]) if context.trial <= len(bodies) else None


@probe("fuzz.invalid", expects=Expects.EITHER, repeat=_count)
def invalid(context: Context) -> Draft:
    """A request that is broken in one way."""
    facts = context.facts
    return _draft(generate.invalid(facts.model, facts.fuzz_examples, facts.seed)[context.trial - 1])


@probe("fuzz.after", after=[valid, invalid], repeat=lambda facts: min(1, facts.fuzz_examples))
def after(context: Context) -> Draft:
    """A plain question after all the generated ones."""
    return context.chat("Say hello.", max_tokens=16)
