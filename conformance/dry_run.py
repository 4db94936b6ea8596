"""The dry run: every request a plan would send, and an upper bound of its tokens, without sending any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roadworthy.conformance.exchange import as_object, objects
from roadworthy.conformance.facts import inference
from roadworthy.conformance.plan import Plan
from roadworthy.conformance.probe import Auth, Context, Draft, Expects, Probe
from roadworthy.conformance.probes.billing import waits_s
from roadworthy.conformance.run import Settings

TEMPLATE_TOKENS = 64
"""Allowance per request for what a server's chat template adds around the messages."""
IMAGE_TOKENS = 2_000
"""Allowance per image: far above what common encoders make of the small pictures that probes send."""


@dataclass(frozen=True, slots=True)
class Outline:
    """One probe as it would be sent: how often at least and at most, and its tokens at most, all repeats together.

    `request` is None where the request depends on an earlier answer. A refused request costs nothing; it is
    counted all the same, since a faulty server may answer it.
    """

    probe: Probe
    request: Draft | None
    times_at_least: int
    times_at_most: int
    prompt_tokens_at_most: int
    completion_tokens_at_most: int
    skipped: str | None = None


def outline(plan: Plan, settings: Settings) -> list[Outline]:
    """The plan's probes in order, with bounds that hold for any server."""
    return [_outline(probe, plan, settings) for probe in plan.probes]


def _outline(probe: Probe, plan: Plan, settings: Settings) -> Outline:
    lacking = plan.facts.lacks(probe.needs)
    if lacking:
        return Outline(probe, None, 0, 0, 0, 0, skipped=lacking)
    if probe.writes and not plan.facts.allow_writes:
        return Outline(probe, None, 0, 0, 0, 0, skipped="needs --allow-writes")
    if probe.billing:
        return _costs_outline(probe, plan)
    repeat = probe.times(plan.facts)
    trials = any(check.bar is not None and probe in check.probes for check in plan.checks)
    most = max(repeat, settings.max_trials) if trials else repeat
    drafts = [probe.build(Context(plan.facts, trial)) for trial in range(1, most + 1)]
    known = [draft for draft in drafts if draft is not None]
    if not known:
        if not probe.after:
            return Outline(probe, None, 0, 0, 0, 0, skipped="switched off")
        if not inference(plan.facts):
            return Outline(probe, None, 0, most, 0, 0)
        budget = plan.facts.max_tokens
        return Outline(probe, None, 0, most, most * (TEMPLATE_TOKENS + 4 * budget), most * budget)
    if not inference(plan.facts):
        return Outline(probe, known[0], min(repeat, len(known)), len(known), 0, 0)
    prompt = sum(_prompt_tokens(draft) for draft in known)
    completion = sum(_completion_tokens(draft, plan.facts.max_tokens) for draft in known)
    return Outline(probe, known[0], min(repeat, len(known)), len(known), prompt, completion)


def _costs_outline(probe: Probe, plan: Plan) -> Outline:
    """A question to the cost endpoint: it costs nothing. Which ids it names depends on the answers of the run."""
    billing, repeat = plan.facts.billing, probe.times(plan.facts)
    if billing is None:
        return Outline(probe, None, 0, 0, 0, 0, skipped="needs --billing-url")
    draft = probe.build(Context(plan.facts)) or Draft("POST", billing.url)
    polls = len(waits_s(plan.facts.limits.billing_timeout_s)) if probe.poll is not None else 0
    return Outline(probe, draft, repeat, repeat + polls, 0, 0)


def _prompt_tokens(draft: Draft) -> int:
    """A bound: a byte-level tokenizer makes at most one token of a byte; images are counted by the piece."""
    body = draft.body()
    if body is None or draft.auth is not Auth.KEY:
        return 0
    images = 0
    for message in objects(as_object(draft.json).get("messages")):
        for part in objects(message.get("content")):
            if part.get("type") == "image_url":
                images += 1
                body = body.replace(str(as_object(part.get("image_url")).get("url")).encode(), b"")
    return len(body) + TEMPLATE_TOKENS + images * IMAGE_TOKENS


def _completion_tokens(draft: Draft, default: int) -> int:
    if draft.method != "POST" or draft.auth is not Auth.KEY:
        return 0
    body = as_object(draft.json)
    limit = _positive(body.get("max_completion_tokens")) or _positive(body.get("max_tokens")) or default
    return limit * (_positive(body.get("n")) or 1)


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def totals(outlines: Sequence[Outline]) -> tuple[int, int, int]:
    """Requests, prompt tokens and completion tokens, each at most."""
    return (
        sum(o.times_at_most for o in outlines),
        sum(o.prompt_tokens_at_most for o in outlines),
        sum(o.completion_tokens_at_most for o in outlines),
    )


def expects_refusal(outline: Outline) -> bool:
    """Whether a healthy provider refuses this request, and so charges nothing for it."""
    return outline.probe.expects is Expects.REFUSAL
