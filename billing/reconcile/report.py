"""A reconciliation with all that it takes to do it again: sources, versions, the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import roadworthy
from roadworthy.billing.reconcile.invoice import Totals
from roadworthy.billing.reconcile.outcome import Outcome, Sums
from roadworthy.billing.reconcile.text import day_of, exact, iso
from roadworthy.billing.reconcile.variance import HARMLESS, MEANINGS, Class, Kind, Variance
from roadworthy.billing.reconcile.whole import Whole

SCHEMA = "roadworthy.reconciliation/1"
FIELDS = tuple(Variance.__dataclass_fields__)


@dataclass(frozen=True)
class InvoiceFacts:
    """Which invoice it was."""

    file: str
    sha256: str
    by_request: bool
    by: tuple[str, ...]
    totals: Totals


@dataclass(frozen=True)
class Report:
    """A reconciliation. `database` is its URL without a password; `whole` is a look through the entire ledger."""

    outcome: Outcome
    command: str
    database: str
    invoice: InvoiceFacts | None = None
    whole: Whole | None = None
    version: str = roadworthy.__version__

    @property
    def days(self) -> list[tuple[int, Sums]]:
        """The sums of each day, in order."""
        return sorted(_summed((day, sums) for (day, _), sums in self.outcome.groups.items()).items())

    @property
    def models(self) -> list[tuple[str, Sums]]:
        """The sums of each model, the dearest first."""
        found = _summed((model, sums) for (_, model), sums in self.outcome.groups.items())
        return sorted(
            found.items(), key=lambda item: (-max(item[1].settled_nano_usd, item[1].expected_nano_usd), item[0])
        )

    @property
    def classes(self) -> list[tuple[Kind, Class]]:
        """The kinds that occur: those that count first, the greatest sums first."""
        return sorted(
            self.outcome.classes.items(),
            key=lambda item: (not self.outcome.counts(item[0]), -item[1].size_nano_usd, -item[1].count, item[0].value),
        )

    def meaning(self, kind: Kind) -> str:
        """What a kind is, and where rounding counts, why."""
        one_sided = kind in HARMLESS and self.outcome.counts(kind)
        return f"{MEANINGS[kind]}, but one-sided and more than 1 % in all" if one_sided else MEANINGS[kind]

    def sentence(self) -> str:
        """The verdict in one sentence."""
        outcome = self.outcome
        counted = sum(found.count for found in outcome.counted.values())
        tolerance = f"the tolerance of {exact(outcome.tolerance_nano_usd)} USD"
        if outcome.verdict == "beyond":
            if Kind.UNBALANCED in outcome.classes:
                return "the ledger does not fit the requests; no tolerance covers that"
            return f"{_variances(counted)} of {exact(outcome.size_nano_usd)} USD in all, beyond {tolerance}"
        if outcome.verdict == "undecided":
            if not outcome.served and not outcome.counted:
                return "nothing was served in this period, so there is nothing to compare"
            if outcome.nothing_settled and not outcome.counted:
                waiting = f"{outcome.waiting:,} requests wait" if outcome.waiting != 1 else "1 request waits"
                return f"{waiting} for a cost and none is settled yet, so there is nothing to compare"
            unknown = sum(found.unknown for found in outcome.counted.values())
            return f"{unknown:,} of {_variances(counted)} have no known amount: prices are missing"
        if not counted:
            return "every settled cost is what it should be"
        return f"{_variances(counted)} of {exact(outcome.size_nano_usd)} USD in all, within {tolerance}"


def _variances(count: int) -> str:
    return "1 variance" if count == 1 else f"{count:,} variances"


def _summed(pairs: Any) -> dict[Any, Sums]:
    found: dict[Any, Sums] = {}
    for key, sums in pairs:
        found.setdefault(key, Sums()).add(sums)
    return found


def as_json(report: Report, written: Sequence[str] = ()) -> dict[str, Any]:
    """The reconciliation as JSON. Integers are nano-USD; `written` are the files that hold every variance."""
    outcome, terms = report.outcome, report.outcome.terms
    invoice = report.invoice
    return {
        "schema": SCHEMA,
        "verdict": outcome.verdict,
        "summary": report.sentence(),
        "provider": terms.provider,
        "from": iso(terms.from_us),
        "to": iso(terms.to_us),
        "total": _sums(outcome.total),
        "requests": {
            "served": outcome.served,
            **outcome.states,
            "waiting": outcome.waiting,
            "chargesInLedger": outcome.charges,
        },
        "unpricedSettledNanoUsd": outcome.unpriced_settled_nano_usd,
        "varianceNanoUsd": outcome.size_nano_usd,
        "toleranceNanoUsd": outcome.tolerance_nano_usd,
        "roundingNanoUsd": terms.rounding_nano_usd,
        "missingAfterS": terms.missing_after_s,
        "classes": [
            {
                "kind": kind.value,
                "meaning": report.meaning(kind),
                "counts": outcome.counts(kind),
                "count": found.count,
                "amountNanoUsd": found.amount_nano_usd,
                "sizeNanoUsd": found.size_nano_usd,
                "amountNotKnown": found.unknown,
                "first": [_variance(one) for one in found.first],
            }
            for kind, found in report.classes
        ],
        "days": [{"day": day_of(day).isoformat(), **_sums(sums)} for day, sums in report.days],
        "models": [{"model": model, **_sums(sums)} for model, sums in report.models],
        "prices": [
            {
                "id": one.id,
                "model": one.model,
                "unit": one.unit,
                "nanoUsdPerMillion": one.nano_usd_per_million,
                "from": iso(one.valid_from_us),
                "recordedAt": iso(one.recorded_at_us),
                "source": one.source,
            }
            for one in outcome.versions
        ],
        "invoice": None
        if invoice is None
        else {
            "file": invoice.file,
            "sha256": invoice.sha256,
            "by": "request" if invoice.by_request else " and ".join(invoice.by) or "total",
            "lines": invoice.totals.lines,
            "nanoUsd": invoice.totals.nano_usd,
            "statedNanoUsd": invoice.totals.stated_nano_usd,
            "roundedUpLines": invoice.totals.rounded,
        },
        "wholeLedger": None
        if report.whole is None
        else {
            "fits": report.whole.fits,
            "states": report.whole.states,
            "charges": report.whole.charges,
            "wrong": report.whole.wrong,
            "examples": report.whole.examples,
        },
        "source": {
            "database": report.database,
            "at": iso(outcome.at_us),
            "command": report.command,
            "roadworthy": report.version,
            "files": list(written),
        },
    }


def _sums(sums: Sums) -> dict[str, int]:
    return {
        "served": sums.served,
        "settled": sums.settled,
        "settledNanoUsd": sums.settled_nano_usd,
        "expectedNanoUsd": sums.expected_nano_usd,
        "invoicedNanoUsd": sums.invoiced_nano_usd,
    }


def _variance(one: Variance) -> dict[str, Any]:
    return {
        "requestId": one.request_id,
        "servedAt": None if one.served_at_us is None else iso(one.served_at_us),
        "model": one.model,
        "expectedNanoUsd": one.expected_nano_usd,
        "settledNanoUsd": one.settled_nano_usd,
        "invoicedNanoUsd": one.invoiced_nano_usd,
        "amountNanoUsd": one.amount_nano_usd,
        "detail": one.detail,
    }
