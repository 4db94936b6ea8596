"""What was settled against the prices of the time."""

from __future__ import annotations

import orjson

from roadworthy.billing.prices import FOREVER_US, Book, Rates, usd
from roadworthy.billing.reconcile.outcome import Findings, Row, Sums
from roadworthy.billing.reconcile.text import iso
from roadworthy.billing.reconcile.variance import Kind
from roadworthy.billing.schedule import SECOND_US

WITHOUT_TEXT = frozenset(
    "audio-classification audio-to-audio depth-estimation embeddings feature-extraction fill-mask image-classification "
    "image-feature-extraction image-segmentation image-to-image image-to-video object-detection question-answering "
    "rerank sentence-similarity table-question-answering tabular-classification tabular-regression text-classification "
    "text-ranking text-to-audio text-to-image text-to-speech text-to-video token-classification video-classification "
    "zero-shot-classification zero-shot-image-classification zero-shot-object-detection".split()
)
"""Tasks whose answers are no written text: there no output tokens told are none."""

_NO_RATES = Rates(None, None, None, {}, 0, FOREVER_US)
_OPEN = {"pending": Kind.MISSING, "disputed": Kind.DISPUTED, "expired": Kind.EXPIRED}


class AgainstPrices:
    """Judges each request by the price of its time."""

    def __init__(self, findings: Findings, book: Book) -> None:
        self._findings = findings
        self._outcome = findings.outcome
        self._terms = findings.outcome.terms
        self._book = book
        self._rates: dict[str, Rates] = {}
        self._missing_before_us = self._outcome.at_us - self._terms.missing_after_s * SECOND_US

    def judge(self, row: Row, sums: Sums) -> None:
        """Judge a request that was billed; `sums` are those of its day and model."""
        _, _, served_at_us, model, state, cost, plain, cached, made, others, received_at_us, _, task = row
        rates = self._rates.get(model)
        if rates is None or served_at_us >= rates.until_us:
            rates = self._rates[model] = self._book.at(model, served_at_us) or _NO_RATES
        expected = None
        # A count that was not told is not none: what is held against the provider must be known.
        untold = (plain is None and rates.input) or (made is None and rates.output and task not in WITHOUT_TEXT)
        if not untold and (plain is not None or made is not None or others is not None):
            more = None if others is None else orjson.loads(others)
            expected = rates.cost_nano_usd(plain or 0, cached or 0, made or 0, more)
        if state == "settled" and expected is not None:
            sums.expected_nano_usd += expected
            if cost != expected:
                self._off(row, expected, sums)
            return
        if state == "pending" and received_at_us > self._missing_before_us:
            self._outcome.waiting += 1
            return
        sums.expected_nano_usd += expected or 0
        if expected is None and cost is not None:
            self._outcome.unpriced_settled_nano_usd += cost
        if state == "settled":
            self._findings.add(Kind.UNPRICED, row, None, sums, detail=_why_unpriced(row, rates))
        else:
            self._findings.add(_OPEN[state], row, expected, sums)

    def _off(self, row: Row, expected: int, sums: Sums) -> None:
        """A settled cost that is not the expected one."""
        cost, charged = row[5], row[11]
        rounding = self._terms.rounding_nano_usd
        if charged is not None and charged != cost:
            detail = f"the provider told {usd(charged)} USD"
            self._findings.add(Kind.CORRECTED, row, expected, sums, detail=detail)
            return
        if abs(cost - expected) <= rounding:
            self._findings.add(Kind.ROUNDING, row, expected, sums)
            return
        if cost == 0:
            self._findings.add(Kind.ZERO_PRICED, row, expected, sums)
            return
        served_at_us, model = row[2], row[3]
        units = _units(row)
        now = self._book.at(model, served_at_us)
        for at_us in self._book.changes_us(model):
            other = self._book.at(model, at_us)
            then = None if other is None or other == now else other.cost_nano_usd(*units)
            if then is not None and then != expected and abs(cost - then) <= rounding:
                self._findings.add(Kind.PRICE_CHANGED, row, expected, sums, detail=f"the price from {iso(at_us)} on")
                return
        kind = Kind.OVERCHARGED if cost > expected else Kind.UNDERCHARGED
        self._findings.add(kind, row, expected, sums, detail=self._hint(row, expected, now))

    def _hint(self, row: Row, expected: int, rates: Rates | None) -> str:
        """What a wrong cost would be right for, where cached tokens explain it."""
        cost, (plain, cached, made, others) = row[5], _units(row)
        if not cached or rates is None:
            return ""
        rounding = self._terms.rounding_nano_usd
        twice = rates.cost_nano_usd(plain + cached, cached, made, others)
        if twice is not None and abs(cost - twice) <= rounding:
            return "as if cached tokens were charged twice"
        full = rates.cost_nano_usd(plain, 0, made, others)
        if full is not None and full != expected and abs(cost - full) <= rounding:
            return "as if cached tokens had no price of their own"
        return ""


def _units(row: Row) -> tuple[int, int, int, dict[str, int] | None]:
    return row[6] or 0, row[7] or 0, row[8] or 0, None if row[9] is None else orjson.loads(row[9])


def _why_unpriced(row: Row, rates: Rates) -> str:
    plain, cached, made, others = _units(row)
    if row[6] is None and row[8] is None and others is None:
        return "no units were told"
    untold = [
        name
        for name, count, price in (("input", row[6], rates.input), ("output", row[8], rates.output))
        if count is None and price and (name == "input" or row[12] not in WITHOUT_TEXT)
    ]
    if untold:
        return f"{' and '.join(untold)} tokens were not told"
    wanting = [
        unit
        for unit, count, price in (
            ("input_tokens", max(plain - cached, 0), rates.input),
            ("cached_input_tokens", cached, rates.input if rates.cached is None else rates.cached),
            ("output_tokens", made, rates.output),
            *((unit, count, rates.others.get(unit)) for unit, count in (others or {}).items()),
        )
        if count and price is None
    ]
    return f"no price of {', '.join(wanting)}"[:200]
