"""Comparing: every request of a period, in the order in which it was served, with its price and its invoice.

One transaction sees one snapshot. Pages of rows, each joined with its ledger entries in SQL, go through one loop;
what is kept are sums by day and model, so that the memory is the same for a thousand requests and for millions.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.prices import Book, usd
from roadworthy.billing.reconcile.against_invoice import AgainstInvoice, Names
from roadworthy.billing.reconcile.against_prices import AgainstPrices
from roadworthy.billing.reconcile.invoice import Invoice, Lines
from roadworthy.billing.reconcile.outcome import Findings, Outcome, Row, Sink, Sums, Terms
from roadworthy.billing.reconcile.variance import Kind, Variance
from roadworthy.billing.reconcile.whole import nets
from roadworthy.billing.schedule import DAY_US
from roadworthy.billing.store import prices as price_store

# The page comes first, as a query of its own: then its size is known to the planner, who looks the entries up.
_PAGE = """
SELECT page.id, page.request_id, page.served_at_us, page.model, page.state, page.cost_nano_usd,
       page.input_tokens, page.cached_input_tokens, page.output_tokens, page.other_units,
       page.received_at_us, entries.amount_nano_usd, page.task
FROM (
    SELECT id, request_id, served_at_us, model, task, state, cost_nano_usd, input_tokens, cached_input_tokens,
           output_tokens, CAST(other_units AS TEXT) AS other_units, received_at_us
    FROM usage
    WHERE provider = :provider AND served_at_us >= :at_us AND served_at_us < :to_us
      AND (served_at_us > :at_us OR id > :after)
    ORDER BY served_at_us, id
    LIMIT :most
) AS page
LEFT JOIN entries ON entries.usage_id = page.id AND entries.kind = 'charge'
ORDER BY page.served_at_us, page.id
"""
_PAGE_QUERY = sa.text(_PAGE)


async def compare(
    connection: AsyncConnection,
    now_us: int,
    terms: Terms,
    *,
    invoice: Invoice | None = None,
    names: Names | None = None,
    sink: Sink | None = None,
) -> Outcome:
    """Compare a provider's requests of a period. `sink` is given each variance as it is found.

    `names`: by the provider's own names of models, which totals of invoices may use, the hub models that they are.
    """
    versions = await price_store.versions(connection, terms.provider)
    findings = Findings(Outcome(terms, now_us, versions=versions), sink)
    against_invoice = None if invoice is None else AgainstInvoice(findings, invoice)
    work = _Comparison(findings, AgainstPrices(findings, Book.of(versions)), against_invoice)
    at_us, after = terms.from_us, -1
    while True:
        values = {"provider": terms.provider, "at_us": at_us, "to_us": terms.to_us, "after": after}
        rows = (await connection.execute(_PAGE_QUERY, values | {"most": terms.page_rows})).all()
        if rows:
            suspects = work.page(rows)
            if suspects:
                await work.balance(connection, suspects)
            after, at_us = rows[-1][0], rows[-1][2]
        if len(rows) < terms.page_rows:
            break
    if against_invoice is not None:
        await against_invoice.rest(connection, names or {})
    return findings.outcome


class _Comparison:
    """One walk through the requests: counts each, and has it judged by what it is held against."""

    def __init__(
        self, findings: Findings, against_prices: AgainstPrices, against_invoice: AgainstInvoice | None
    ) -> None:
        self._findings = findings
        self._outcome = findings.outcome
        self._against_prices = against_prices
        by_request = against_invoice is not None and against_invoice.invoice.by_request
        self._against_invoice = against_invoice if by_request else None
        self._day = self._day_end_us = 0
        self._today: dict[str, Sums] = {}

    def page(self, rows: Sequence[Row]) -> list[Row]:
        """Judge rows of `_PAGE`; those whose charge is not their cost are given back."""
        suspects: list[Row] = []
        against_invoice = self._against_invoice
        lines = Lines({}, {}) if against_invoice is None else against_invoice.invoice.of([row[1] for row in rows])
        single, many = lines
        for row in rows:
            sums = self._count(row)
            if row[11] != row[5]:
                suspects.append(row)
            if against_invoice is not None:
                line = single.get(row[1])
                if line is not None and line[2] == row[5] and not many:
                    against_invoice.invoice.meet(line[1])
                    sums.invoiced_nano_usd += line[2]
                else:
                    against_invoice.judge(row, lines.all_of(row[1]), sums)
            if row[4] != "unbilled":
                self._against_prices.judge(row, sums)
        return suspects

    def _count(self, row: Row) -> Sums:
        """Count a request; the sums of its day and model, for what else there is to add."""
        served_at_us, model, cost = row[2], row[3], row[5]
        if served_at_us >= self._day_end_us:
            self._day = int(served_at_us // DAY_US)
            self._day_end_us = (self._day + 1) * DAY_US
            self._today = {}
        sums = self._today.get(model)
        if sums is None:
            sums = self._today[model] = self._outcome.groups.setdefault((self._day, model), Sums())
        self._outcome.states[row[4]] += 1
        sums.served += 1
        if cost is not None:
            sums.settled += 1
            sums.settled_nano_usd += cost
        if row[11] is not None:
            self._outcome.charges += 1
        return sums

    async def balance(self, connection: AsyncConnection, suspects: Sequence[Row]) -> None:
        """Look all entries up of requests whose charge is not their cost: corrections explain most of them."""
        net = await nets(connection, [row[0] for row in suspects])
        for row in suspects:
            posted = net.get(row[0])
            if posted == row[5] or (posted == 0 and row[5] is None):
                continue
            told = "no entries" if posted is None else f"entries of {usd(posted)} USD"
            known = "no cost" if row[5] is None else f"a cost of {usd(row[5])} USD"
            detail = f"{told}, and {known} in state {row[4]}"
            amount = (posted or 0) - (row[5] or 0)
            self._findings.tell(Variance(Kind.UNBALANCED, row[1], row[2], row[3], None, row[5], None, amount, detail))
