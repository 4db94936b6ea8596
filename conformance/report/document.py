"""The report as a JSON document. Its schema is `schemas/report/report.json`: the two change together.

`checks` holds nothing that a replay would not give again, so documents of a run
and of its recording can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from roadworthy.conformance.measure import Distribution
from roadworthy.conformance.report.model import Counts, LensReport, Report
from roadworthy.conformance.report.text import clip
from roadworthy.conformance.report.view import Evidence, ModelView, Row, View
from roadworthy.conformance.verdict import Lens
from roadworthy.pages import visible

SCHEMA = "https://roadworthy.dev/schemas/v1/report/report.json"
LONGEST_TEXT = 2000


def render(report: Report) -> str:
    """The document as text, keys in the schema's order."""
    return json.dumps(document(report), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The report as JSON values. Durations are seconds, rounded to the microsecond."""
    view = View(report)
    return {
        "$schema": SCHEMA,
        "version": report.version,
        "verdict": report.verdict.value,
        "exit_code": int(report.exit_code),
        "base_url": report.base_url,
        "started_at": report.started_at,
        "duration_s": _seconds(report.duration_s),
        "counts": _counts(report.counts),
        "lenses": _lenses(report.lenses),
        "caveats": [
            {"model": name or None, "grave": caveat.grave, "text": _text(caveat.text)} for name, caveat in view.caveats
        ],
        "models": [_model(model) for model in view.models],
        "checks": [_check(row) for model in view.models for row in model.rows],
        "stale_baseline": [_text(entry) for entry in report.stale_baseline],
    }


def _lenses(lenses: Mapping[Lens, LensReport]) -> dict[str, Any]:
    return {
        lens.value: {"verdict": part.verdict.value, "counts": _counts(part.counts)} for lens, part in lenses.items()
    }


def _counts(counts: Counts) -> dict[str, int]:
    return {**asdict(counts), "total": counts.total}


def _model(model: ModelView) -> dict[str, Any]:
    run, measured = model.report.run, model.measured
    return {
        "model": model.name,
        "verdict": model.report.verdict.value,
        "counts": _counts(model.report.counts),
        "lenses": _lenses(model.report.lenses),
        "capabilities": {
            capability.value: {"offered": ability.offered, "source": _text(ability.source)}
            for capability, ability in model.abilities
        },
        "requests": {
            "sent": run.requests,
            "retries": measured.retries,
            "duration_s": _seconds(run.duration_s),
            "by_status": model.statuses,
        },
        "measurements": {
            "time_to_first_token_s": _distribution(measured.time_to_first_token),
            "time_to_first_token_limit_s": run.facts.limits.time_to_first_token_s,
            "samples_s": [_seconds(t.time_to_first_token_s) for t in measured.samples],
            "tokens_per_s": _distribution(measured.tokens_per_s),
            "gaps_between_tokens_s": _distribution(measured.gaps_s),
            "cold_start_s": None if measured.cold_start_s is None else _seconds(measured.cold_start_s),
            "uncertainty_s": _seconds(measured.uncertainty_s),
        },
    }


def _distribution(distribution: Distribution | None) -> dict[str, Any] | None:
    if distribution is None:
        return None
    return {
        key: value if key == "count" else _seconds(value)
        for key, value in (
            ("count", distribution.count),
            ("min", distribution.least),
            ("median", distribution.median),
            ("p95", distribution.p95),
            ("max", distribution.most),
        )
    }


def _check(row: Row) -> dict[str, Any]:
    result, trials = row.result, row.result.trials
    return {
        "id": row.id,
        "model": row.model.name,
        "level": result.level.value,
        "lenses": [lens.value for lens in result.lenses],
        "verdict": result.verdict.value,
        "reason": _text(result.reason),
        "known": result.known,
        "trials": trials
        and {
            "passed": trials.passed,
            "total": trials.total,
            "low": round(trials.low, 6),
            "high": round(trials.high, 6),
            "bar": trials.bar,
        },
        "findings": [_finding(evidence) for evidence in row.evidence],
        "exchange_ids": list(result.exchange_ids),
        "rule": row.check.rule,
        "why": row.check.why,
        "source": row.check.source,
        "remedy": row.check.remedy,
    }


def _finding(evidence: Evidence) -> dict[str, str]:
    finding = evidence.finding
    return {
        "expected": _text(finding.expected),
        "got": _text(finding.got),
        "at": _text(finding.at),
        "note": _text(finding.note),
        "exchange_id": finding.exchange_id,
        "curl": evidence.curl,
    }


def _text(text: str) -> str:
    return clip(visible(text), LONGEST_TEXT)


def _seconds(value: float) -> float:
    return round(value, 6)
