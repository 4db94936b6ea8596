"""Probes whose requests are drawn from an OpenAPI description: the property-based leg of all families but chat.

Chat over the OpenAI-compatible routes has `fuzz.*`, whose ways to break a request are written by hand for it.
"""

from __future__ import annotations

from roadworthy.conformance import openapi_cases
from roadworthy.conformance.facts import Facts, chat
from roadworthy.conformance.openapi_cases import Case
from roadworthy.conformance.probe import Context, Draft, Expects, probe
from roadworthy.conformance.probes.fuzz import CASE, REFUSE
from roadworthy.schemas import openapi

OPERATION = "Roadworthy-Operation"
"""Request header that names the operation of the description, so that a recording can be judged by it."""


def described(facts: Facts) -> bool:
    """Whether there is a description of the subject's family with an operation for its task."""
    return not chat(facts) and bool(openapi.operations(facts.api, facts.task))


def _valid(facts: Facts) -> tuple[Case, ...]:
    if not openapi_cases.available():
        return ()
    return openapi_cases.valid(facts.subject, facts.namespace, facts.fuzz_examples, facts.seed)


def _invalid(facts: Facts) -> tuple[Case, ...]:
    if not openapi_cases.available():
        return ()
    return openapi_cases.invalid(facts.subject, facts.namespace, facts.fuzz_examples, facts.seed)


def _draft(case: Case, facts: Facts) -> Draft:
    path = case.path if facts.root_url.endswith(case.version) else case.version + case.path
    label = (REFUSE if case.must_refuse else "") + case.label
    shown = label.encode("unicode_escape").decode()[:200]
    return Draft(
        case.method,
        path,
        raw=case.body,
        headers=((CASE, shown), (OPERATION, case.operation)),
        at_root=case.at_root,
        content_type=case.content_type,
    )


# How often they are sent is how many were drawn, so that all are drawn before the first request of a run.
@probe("openapi.valid", expects=Expects.EITHER, repeat=lambda facts: len(_valid(facts)), applies=described)
def valid(context: Context) -> Draft:
    """A valid request, drawn from the description of the family's routes."""
    return _draft(_valid(context.facts)[context.trial - 1], context.facts)


@probe("openapi.invalid", expects=Expects.EITHER, repeat=lambda facts: len(_invalid(facts)), applies=described)
def invalid(context: Context) -> Draft:
    """A request that breaks the description of the family's routes."""
    return _draft(_invalid(context.facts)[context.trial - 1], context.facts)
