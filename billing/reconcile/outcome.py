"""What a comparison is of, and what it came to: sums by day and model, variances by kind, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from roadworthy.billing.prices import Version
from roadworthy.billing.reconcile.variance import HARMLESS, ROUNDINGS, Class, Kind, Rounded, Variance
from roadworthy.billing.records import State

PAGE_ROWS = 20_000
ROUNDING_NANO_USD = 1000
"""A millionth of a USD: what a provider that rounds each request to micro-dollars, up or down, is off by."""

Row = Sequence[Any]
"""A request as `compare` reads it, by place.

0 id, 1 request_id, 2 served_at_us, 3 model, 4 state, 5 cost_nano_usd, 6 input_tokens, 7 cached_input_tokens,
8 output_tokens, 9 other_units (JSON), 10 received_at_us, 11 its charge in nano-USD, 12 task.
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is compared, and how strictly. Times are microseconds since 1970 UTC; the end is not part of the period."""

    provider: str
    from_us: int
    to_us: int
    rounding_nano_usd: int = ROUNDING_NANO_USD
    tolerance_nano_usd: int = 0
    tolerance_percent: Decimal = Decimal(0)
    missing_after_s: int = 1800
    page_rows: int = PAGE_ROWS


@dataclass(slots=True)
class Sums:
    """The sums of a day and model, or of everything. Money is nano-USD."""

    served: int = 0
    settled: int = 0
    """Requests with a cost in the ledger."""
    settled_nano_usd: int = 0
    expected_nano_usd: int = 0
    invoiced_nano_usd: int = 0
    off_nano_usd: int = 0
    """The variances of prices, without their signs, those of rounding left out."""

    def add(self, other: Sums) -> None:
        """Add the other one's."""
        self.served += other.served
        self.settled += other.settled
        self.settled_nano_usd += other.settled_nano_usd
        self.expected_nano_usd += other.expected_nano_usd
        self.invoiced_nano_usd += other.invoiced_nano_usd
        self.off_nano_usd += other.off_nano_usd


@dataclass
class Outcome:
    """What a comparison came to. `versions` are the prices that it could use."""

    terms: Terms
    at_us: int
    states: dict[str, int] = field(default_factory=lambda: {state.value: 0 for state in State})
    waiting: int = 0
    """Pending requests that are not yet missing."""
    charges: int = 0
    """Requests with a charge in the ledger."""
    unpriced_settled_nano_usd: int = 0
    groups: dict[tuple[int, str], Sums] = field(default_factory=dict)
    """By day (since 1970 UTC) and model."""
    classes: dict[Kind, Class] = field(default_factory=dict)
    rounded: dict[tuple[Kind, str], Rounded] = field(default_factory=dict)
    """By kind and model, what the kinds come to that are harmless as long as they are not one-sided."""
    versions: list[Version] = field(default_factory=list)

    @property
    def total(self) -> Sums:
        """All groups together."""
        total = Sums()
        for sums in self.groups.values():
            total.add(sums)
        return total

    @property
    def served(self) -> int:
        """Every request of the period, failed ones too."""
        return sum(self.states.values())

    @property
    def tolerance_nano_usd(self) -> int:
        """What the variances may come to: the larger of the amount and the share of what was expected."""
        share = self.total.expected_nano_usd * self.terms.tolerance_percent / 100
        return max(self.terms.tolerance_nano_usd, int(share))

    @property
    def counted(self) -> dict[Kind, Class]:
        """The kinds that count towards the verdict."""
        return {kind: found for kind, found in self.classes.items() if self.counts(kind)}

    def counts(self, kind: Kind) -> bool:
        """Whether a kind counts towards the verdict: rounding does where it is one-sided."""
        return kind not in HARMLESS or bool(self._one_sided_nano_usd(kind))

    @property
    def size_nano_usd(self) -> int:
        """What the variances that count come to, without their signs; of rounding, each model's sum."""
        return sum(
            self._one_sided_nano_usd(kind) if kind in HARMLESS else found.size_nano_usd
            for kind, found in self.classes.items()
        )

    def _one_sided_nano_usd(self, kind: Kind) -> int:
        rounding = self.terms.rounding_nano_usd
        return sum(
            abs(sums.amount_nano_usd)
            for (of, _), sums in self.rounded.items()
            if of is kind and sums.one_sided(rounding)
        )

    @property
    def nothing_settled(self) -> bool:
        """Whether requests wait for their costs, and none has one yet."""
        return self.waiting > 0 and not self.states[State.SETTLED]

    @property
    def verdict(self) -> str:
        """`beyond` the tolerance, `within` it, or `undecided`: nothing is served or settled, or amounts are unknown."""
        if Kind.UNBALANCED in self.classes or self.size_nano_usd > self.tolerance_nano_usd:
            return BEYOND
        if any(found.unknown for found in self.counted.values()) or not (self.served or self.counted):
            return UNDECIDED
        if self.nothing_settled and not self.counted:
            return UNDECIDED
        return WITHIN


BEYOND, WITHIN, UNDECIDED = "beyond", "within", "undecided"
EXIT_CODES = {WITHIN: 0, BEYOND: 1, UNDECIDED: 3}
Sink = Callable[[Variance], None]


class Findings:
    """Where variances go: into the outcome, and each of them to `sink`."""

    def __init__(self, outcome: Outcome, sink: Sink | None) -> None:
        self.outcome = outcome
        self._sink = sink

    def add(
        self,
        kind: Kind,
        row: Row,
        expected: int | None,
        sums: Sums,
        *,
        invoiced: int | None = None,
        amount: int | None = None,
        detail: str = "",
    ) -> None:
        """Tell of a request's variance. `amount` is the cost less what was expected, unless it is given."""
        if amount is None and expected is not None:
            amount = (row[5] or 0) - expected
            if kind not in HARMLESS:
                sums.off_nano_usd += abs(amount)
        self.tell(Variance(kind, row[1], row[2], row[3], expected, row[5], invoiced, amount, detail))

    def tell(self, one: Variance, requests: int = 1) -> None:
        """Count a variance, and hand it on. `requests` is how many a sum is of."""
        if one.kind in ROUNDINGS:
            right = one.expected_nano_usd if one.kind is Kind.ROUNDING else one.settled_nano_usd
            rounded = self.outcome.rounded.setdefault((one.kind, one.model), Rounded())
            rounded.requests += requests
            rounded.amount_nano_usd += one.amount_nano_usd or 0
            rounded.of_nano_usd += right or 0
        found = self.outcome.classes.get(one.kind)
        if found is None:
            found = self.outcome.classes[one.kind] = Class()
        found.add(one)
        if self._sink is not None:
            self._sink(one)
