"""What was settled against the provider's invoice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.prices import usd
from roadworthy.billing.reconcile.invoice import Group, Invoice, Line
from roadworthy.billing.reconcile.outcome import Findings, Row, Sums
from roadworthy.billing.reconcile.text import iso
from roadworthy.billing.reconcile.variance import Kind, Variance
from roadworthy.billing.records import State
from roadworthy.billing.schedule import DAY_US
from roadworthy.billing.tables import usage
from roadworthy.database import batched

Names = Mapping[str, Sequence[str]]
"""Hub models by the provider's own name of them: several of ours may be one model of theirs."""
_Total = tuple[int | None, frozenset[str] | None]
"""A total's day, and the hub models that it is of; None where the invoice does not tell them apart."""


class AgainstInvoice:
    """Judges each request by its lines on the invoice, and what the invoice has beyond them."""

    def __init__(self, findings: Findings, invoice: Invoice) -> None:
        self._findings = findings
        self._terms = findings.outcome.terms
        self.invoice = invoice

    def judge(self, row: Row, lines: list[Line], sums: Sums) -> None:
        """Judge a request by the lines of its id; `sums` are those of its day and model."""
        posted = row[5] or 0
        if not lines:
            if posted:
                self._findings.add(Kind.NOT_INVOICED, row, None, sums, amount=-posted)
            return
        for line in lines:
            self.invoice.meet(line.number)
        total = sum(line.cost_nano_usd for line in lines)
        sums.invoiced_nano_usd += total
        if total == posted:
            return  # also a charge, its credit, and the charge that is right
        amount = _one_of(lines, posted)
        self._double(row[1], lines, amount, row)
        if amount == posted:
            return
        kind = Kind.INVOICE_DIFFERS
        if row[4] == State.UNBILLED:
            kind = Kind.FAILED_CHARGED
        elif row[5] is not None and abs(amount - posted) <= self._terms.rounding_nano_usd:
            kind = Kind.INVOICE_ROUNDING
        detail = "" if row[5] is not None or kind is Kind.FAILED_CHARGED else f"not settled: {row[4]}"
        self._findings.add(kind, row, None, sums, invoiced=amount, amount=amount - posted, detail=detail)

    def _double(self, request_id: str, lines: list[Line], amount: int, row: Row | None) -> None:
        total = sum(line.cost_nano_usd for line in lines)
        if total == amount:
            return
        self._findings.tell(
            Variance(
                Kind.DOUBLE,
                request_id,
                row[2] if row else None,
                row[3] if row else "",
                None,
                row[5] if row else None,
                total,
                total - amount,
                f"{len(lines)} lines: {', '.join(usd(line.cost_nano_usd) for line in lines[:5])} USD",
            )
        )

    async def rest(self, connection: AsyncConnection, names: Names) -> None:
        """Judge what the invoice has beyond the requests of the period."""
        totals = self.invoice.totals
        if self.invoice.by_request:
            for ids in self.invoice.unmet():
                await self._unmet(connection, ids)
        else:
            self._totals(totals.groups, names)
        if totals.stated_nano_usd is not None and totals.stated_nano_usd != totals.nano_usd:
            amount = totals.stated_nano_usd - totals.nano_usd
            detail = f"it states {usd(totals.stated_nano_usd)} USD, and its lines come to {usd(totals.nano_usd)} USD"
            self._findings.tell(
                Variance(Kind.INVOICE_SUM, "", None, "", None, None, totals.stated_nano_usd, amount, detail)
            )

    async def _unmet(self, connection: AsyncConnection, ids: Sequence[str]) -> None:
        lines = self.invoice.of(ids)
        known: dict[str, Any] = {}
        for some in batched(ids):
            query = sa.select(usage.c.request_id, usage.c.served_at_us, usage.c.model, usage.c.cost_nano_usd).where(
                usage.c.provider == self._terms.provider, usage.c.request_id.in_(some)
            )
            known |= {row.request_id: row for row in await connection.execute(query)}
        for request_id in ids:
            mine = lines.all_of(request_id)
            for line in mine:
                self.invoice.meet(line.number)
            if not sum(line.cost_nano_usd for line in mine):
                continue  # what is taken back in full asks for nothing
            amount = _one_of(mine, mine[0].cost_nano_usd)
            row = known.get(request_id)
            if row is None:
                self._findings.tell(Variance(Kind.UNKNOWN, request_id, None, "", None, None, amount, amount))
            else:
                detail = f"served {iso(row.served_at_us)}"
                cost = row.cost_nano_usd
                self._findings.tell(
                    Variance(Kind.LATE, request_id, row.served_at_us, row.model, None, cost, amount, amount, detail)
                )
            self._double(request_id, mine, amount, None)

    def _totals(self, told: Mapping[Group, int], names: Names) -> None:
        """Compare totals by day, by model, by both, or the one total that there is."""
        if not told:
            return
        by_day, by_model = (part is not None for part in next(iter(told)))
        models = {model for _, model in self._findings.outcome.groups}
        shared, meant = _shared({model for _, model in told if model is not None}, models, names)
        ours: dict[_Total, Sums] = {}
        for (on, of), sums in self._findings.outcome.groups.items():
            key = on if by_day else None, shared.get(of, frozenset({of})) if by_model else None
            ours.setdefault(key, Sums()).add(sums)
        theirs: dict[_Total, int] = {}
        called: dict[frozenset[str] | None, str] = {}
        for (day, model), amount in told.items():
            key = day, None if model is None else meant[model]
            called.setdefault(key[1], model or "")
            theirs[key] = theirs.get(key, 0) + amount
        for key in sorted(ours.keys() | theirs.keys(), key=lambda total: (total[0] or 0, sorted(total[1] or ()))):
            sums = ours.get(key) or Sums()
            invoiced = theirs.get(key, 0)
            amount = invoiced - sums.settled_nano_usd
            if not amount:
                continue
            near = abs(amount) <= self._terms.rounding_nano_usd * sums.settled
            kind = Kind.INVOICE_ROUNDING if near else Kind.TOTAL_DIFFERS
            day_us = None if key[0] is None else key[0] * DAY_US
            model, detail = "", f"the sum of {sums.settled:,} requests"
            if key[1] is not None:
                (model, *more) = sorted(key[1])
                if more:
                    model, detail = called[key[1]], f"{detail} of {', '.join((model, *more))}"[:200]
            self._findings.tell(
                Variance(kind, "", day_us, model, None, sums.settled_nano_usd, invoiced, amount, detail), sums.settled
            )


def _shared(
    told: AbstractSet[str], served: AbstractSet[str], names: Names
) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """The hub models that are compared as one: by each of them, and by the names that an invoice tells.

    A name that is a hub model we had served is that one, unless the provider calls several by it. Names that share
    a hub model cannot be told apart.
    """
    shared: dict[str, frozenset[str]] = {}
    first: dict[str, str] = {}
    for name in sorted(told):
        hubs = list(names.get(name, ()))
        if not hubs or (name in served and name not in hubs):
            hubs = [name]
        first[name] = hubs[0]
        whole = frozenset(hubs).union(*(shared.get(hub, ()) for hub in hubs))
        shared |= dict.fromkeys(whole, whole)
    return shared, {name: shared[hub] for name, hub in first.items()}


def _one_of(lines: Sequence[Line], posted: int) -> int:
    """What an id is charged once: the sum of its lines where one is a credit, else the line that is right, if any."""
    amounts = [line.cost_nano_usd for line in lines]
    if min(amounts) < 0:
        return sum(amounts)
    return posted if posted in amounts else amounts[0]
