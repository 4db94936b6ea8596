"""From a run's evidence to an outcome: what it means for the mapping, whose fault it is, and the figures. Pure."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence

from roadworthy.conformance import recording
from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.facts import Capability, Facts
from roadworthy.conformance.judge import first_asked, judge
from roadworthy.conformance.measure import measure
from roadworthy.conformance.price import published_price
from roadworthy.conformance.run import Run
from roadworthy.conformance.verdict import CheckResult, Level, Verdict
from roadworthy.conformance.words import is_integer
from roadworthy.validator.outcome import ErrorClass, Figures, Outcome, Result

ABILITIES = frozenset({"tools", "structured"})
MANNERS = frozenset({"discovery", "catalogue", "request_id"})
"""Families whose failures do not stop anybody's inference: the mapping is degraded, not off the list."""
MAX_FINDINGS = 20


def outcome(run: Run) -> Outcome:
    """What a finished run says of its mapping."""
    results = judge(run.checks, run.exchanges, run.facts, run.unsent)
    figures = _figures(run, results)
    result, error_class, summary = _result(run, results)
    return Outcome(
        result=result,
        error_class=error_class,
        summary=summary,
        findings=_findings(results),
        figures=figures,
        recording=_packed(run),
        requests=run.requests,
        duration_s=run.duration_s,
    )


def _result(run: Run, results: Sequence[CheckResult]) -> tuple[Result, ErrorClass | None, str]:
    first = first_asked(run.exchanges)
    if first is None:
        return Result.IN_DOUBT, ErrorClass.OURS, "nothing was sent"
    barred = _barred(first)
    if barred is not None:
        return barred
    failed = [each for each in results if each.verdict is Verdict.FAIL and each.level is Level.MUST]
    grave = [each for each in failed if _family(each) not in ABILITIES | MANNERS]
    if grave:
        crashed = any(x.status is not None and x.status >= 500 for x in run.exchanges)
        return Result.FAILS, ErrorClass.PROVIDER_5XX if crashed else ErrorClass.CONTRACT, _sentence(grave)
    if failed:
        return Result.DEGRADED, ErrorClass.CONTRACT, _sentence(failed)
    if not any(each.verdict is Verdict.PASS and each.level is Level.MUST for each in results):
        return Result.IN_DOUBT, ErrorClass.OURS, "too little came to say anything"
    return Result.WORKS, None, ""


def _barred(first: Exchange) -> tuple[Result, ErrorClass, str] | None:
    """Why nothing could be asked at all, if so. The hub delists what its own request does not reach."""
    if first.status is None:
        failure = first.reply.failure
        said = failure.message if failure is not None else "no answer came"
        return Result.FAILS, ErrorClass.NETWORK, f"the API could not be reached: {said}"
    if first.status in (401, 403):
        return Result.FAILS, ErrorClass.AUTH, f"the key was refused with HTTP {first.status}"
    if first.status == 429:
        return Result.FAILS, ErrorClass.RATE_LIMIT, "too many requests, says the API (HTTP 429)"
    if first.status >= 500:
        return Result.FAILS, ErrorClass.PROVIDER_5XX, f"the API answered HTTP {first.status}"
    return None


def _family(result: CheckResult) -> str:
    return CHECKS[result.check_id].family


def _sentence(failed: Sequence[CheckResult]) -> str:
    first = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    finding = first.findings[0] if first.findings else None
    said = f"expected {finding.expected}, got {finding.got}" if finding else first.reason
    return f"{first.check_id}: {said}{more}"


def _findings(results: Sequence[CheckResult]) -> tuple[dict[str, str], ...]:
    shown = []
    for each in results:
        if each.verdict in (Verdict.FAIL, Verdict.WARN):
            found = each.findings[0] if each.findings else None
            shown.append(
                {
                    "check": each.check_id,
                    "level": each.level.value,
                    "expected": found.expected if found else "",
                    "got": found.got if found else each.reason,
                    "remedy": CHECKS[each.check_id].remedy,
                }
            )
    return tuple(shown[:MAX_FINDINGS])


def _figures(run: Run, results: Sequence[CheckResult]) -> Figures:
    measured = measure(run.exchanges)
    first, throughput = measured.time_to_first_token, measured.tokens_per_s
    listed = next((x for x in run.exchanges if x.probe == "discovery.models" and x.status == 200), None)
    price = published_price(listed, run.facts.model) if listed else None
    answered = first_asked(run.exchanges)
    total_ns = answered.reply.timings.last_byte_ns if answered else None
    return Figures(
        time_to_first_token_s=first.median if first else None,
        throughput_tokens_per_s=throughput.median if throughput else None,
        total_time_s=total_ns / 1e9 if total_ns is not None else None,
        context_length_tokens=_context_length(listed, run.facts) if listed else None,
        input_price_nano_usd_per_mtok=price.input_nano_usd_per_million if price else None,
        output_price_nano_usd_per_mtok=price.output_nano_usd_per_million if price else None,
        supports_tools=_supports(run, results, "tools", Capability.TOOLS),
        supports_structured_output=_supports(run, results, "structured", Capability.JSON_SCHEMA),
    )


def _context_length(listed: Exchange, facts: Facts) -> int | None:
    for entry in objects(listed.answer.get("data")):
        length = as_object(entry).get("context_length")
        if entry.get("id") == facts.model and is_integer(length) and 0 < length < 2**53:
            return int(length)
    return None


def _supports(run: Run, results: Sequence[CheckResult], family: str, capability: Capability) -> bool | None:
    """Whether the ability works: every MUST about it that was judged passed. None where nothing was judged."""
    if run.facts.ability(capability).offered is False:
        return False
    judged = [
        each.verdict
        for each in results
        if _family(each) == family and each.level is Level.MUST and each.verdict in (Verdict.PASS, Verdict.FAIL)
    ]
    return None if not judged else all(verdict is Verdict.PASS for verdict in judged)


def _packed(run: Run) -> bytes:
    text = io.StringIO()
    recording.write(text, [run])
    return gzip.compress(text.getvalue().encode(), mtime=0)
