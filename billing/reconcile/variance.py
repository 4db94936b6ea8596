"""Variances: their kinds, one of them with its figures, and their sums."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

FIRST = 20
"""Ids of each kind that are kept for people; files get all."""


class Kind(StrEnum):
    """What is wrong with a request, a line of an invoice, or a sum. One request may have one of each group.

    The first group compares the ledger with the prices, the second one the invoice with the ledger, and the last
    one the ledger with itself.
    """

    OVERCHARGED = "overcharged"
    UNDERCHARGED = "undercharged"
    PRICE_CHANGED = "price_changed"
    ZERO_PRICED = "zero_priced"
    ROUNDING = "rounding"
    UNPRICED = "unpriced"
    MISSING = "missing"
    DISPUTED = "disputed"
    EXPIRED = "expired"
    CORRECTED = "corrected"

    INVOICE_DIFFERS = "invoice_differs"
    INVOICE_ROUNDING = "invoice_rounding"
    NOT_INVOICED = "not_invoiced"
    DOUBLE = "double"
    UNKNOWN = "unknown"
    LATE = "late"
    FAILED_CHARGED = "failed_charged"
    TOTAL_DIFFERS = "total_differs"
    INVOICE_SUM = "invoice_sum"

    UNBALANCED = "unbalanced"


ROUNDINGS = frozenset({Kind.ROUNDING, Kind.INVOICE_ROUNDING})
"""Kinds that count towards no verdict unless they are one-sided: see `Rounded`."""
HARMLESS = ROUNDINGS | {Kind.CORRECTED}
"""Kinds that are shown and summed up: roundings that are not one-sided, and what a person decided, do not count."""

OF_PRICES = frozenset(list(Kind)[: list(Kind).index(Kind.INVOICE_DIFFERS)])
OF_INVOICES = frozenset(list(Kind)[list(Kind).index(Kind.INVOICE_DIFFERS) : -1])

MEANINGS = {
    Kind.OVERCHARGED: "settled for more than the price of the time of the request",
    Kind.UNDERCHARGED: "settled for less than the price of the time of the request",
    Kind.PRICE_CHANGED: "settled at a price of another time",
    Kind.ZERO_PRICED: "settled for nothing, though there are units and a price",
    Kind.ROUNDING: "a difference as small as rounding makes it",
    Kind.UNPRICED: "no price is known for the time of the request, or a count that has a price is not",
    Kind.MISSING: "the provider has not told a cost for too long",
    Kind.DISPUTED: "a person has still to judge the cost",
    Kind.EXPIRED: "given up: the provider never told a cost, and nobody is charged",
    Kind.CORRECTED: "a person let it cost another amount than the price of the time of the request",
    Kind.INVOICE_DIFFERS: "invoiced at another cost than was settled",
    Kind.INVOICE_ROUNDING: "invoiced with a difference as small as rounding makes it",
    Kind.NOT_INVOICED: "settled, but not on the invoice",
    Kind.DOUBLE: "on the invoice more than once",
    Kind.UNKNOWN: "on the invoice, but nothing we asked the provider to serve",
    Kind.LATE: "on this invoice, but served at another time than its period",
    Kind.FAILED_CHARGED: "on the invoice, but the request failed",
    Kind.TOTAL_DIFFERS: "a total of the invoice is not the sum of what was settled",
    Kind.INVOICE_SUM: "the total that the invoice states is not the sum of its lines",
    Kind.UNBALANCED: "the ledger's entries are not what the request's row says",
}


@dataclass(slots=True)
class Rounded:
    """The differences of one model that are each as small as rounding makes them, added up. Money is nano-USD."""

    requests: int = 0
    amount_nano_usd: int = 0
    of_nano_usd: int = 0
    """What these requests should come to."""

    def one_sided(self, rounding_nano_usd: int) -> bool:
        """Whether the sum is more than 1 % of what it should be, and more than chance makes of rounding.

        Rounding to the nearest multiple of R spreads the sum of n requests by 0.29 R times the root of n; R times
        that root is three and a half times as much.
        """
        many = self.amount_nano_usd**2 > rounding_nano_usd**2 * self.requests
        return many and abs(self.amount_nano_usd) * 100 > self.of_nano_usd


@dataclass(frozen=True, slots=True)
class Variance:
    """One variance. Money is nano-USD; None is not known, or does not apply.

    `amount_nano_usd` is by how much there is too much (above zero) or too little: settled less expected for the
    kinds of prices, invoiced less settled for the kinds of invoices. `request_id` is empty for sums.
    """

    kind: Kind
    request_id: str
    served_at_us: int | None
    model: str
    expected_nano_usd: int | None
    settled_nano_usd: int | None
    invoiced_nano_usd: int | None
    amount_nano_usd: int | None
    detail: str = ""


@dataclass(slots=True)
class Class:
    """The variances of one kind, added up. `size_nano_usd` is the sum of the amounts without their signs."""

    count: int = 0
    amount_nano_usd: int = 0
    size_nano_usd: int = 0
    unknown: int = 0
    """Those among them whose amount is not known."""
    first: list[Variance] = field(default_factory=list)

    def add(self, one: Variance) -> None:
        """Count one more."""
        self.count += 1
        if one.amount_nano_usd is None:
            self.unknown += 1
        else:
            self.amount_nano_usd += one.amount_nano_usd
            self.size_nano_usd += abs(one.amount_nano_usd)
        if len(self.first) < FIRST:
            self.first.append(one)
