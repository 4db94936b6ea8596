"""Comparing: every request of a period, in the order in which it was served, with its price and its invoice.

One transaction sees one snapshot. Pages of rows, each joined with its ledger entries in SQL, go through one loop;
what is kept are sums by day and model, so that the memory is the same for a thousand requests and for millions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.prices import FOREVER_US, Book, Rates, Version, usd
from roadworthy.billing.reconcile.invoice import Group, Invoice, Line, Lines
from roadworthy.billing.reconcile.text import iso
from roadworthy.billing.reconcile.variance import HARMLESS, ROUNDINGS, Class, Kind, Rounded, Variance
from roadworthy.billing.reconcile.whole import nets
from roadworthy.billing.records import State
from roadworthy.billing.schedule import SECOND_US
from roadworthy.billing.store import prices as price_store
from roadworthy.billing.tables import usage
from roadworthy.database import batched

DAY_US = 24 * 3600 * SECOND_US
PAGE_ROWS = 20_000
ROUNDING_NANO_USD = 1000
"""A millionth of a USD: what a provider that rounds each request to micro-dollars, up or down, is off by."""

WITHOUT_TEXT = frozenset(
    "audio-classification audio-to-audio depth-estimation embeddings feature-extraction fill-mask image-classification "
    "image-feature-extraction image-segmentation image-to-image image-to-video object-detection question-answering "
    "rerank sentence-similarity table-question-answering tabular-classification tabular-regression text-classification "
    "text-ranking text-to-audio text-to-image text-to-speech text-to-video token-classification video-classification "
    "zero-shot-classification zero-shot-image-classification zero-shot-object-detection".split()
)
"""Tasks whose answers are no written text: there no output tokens told are none."""

_NO_RATES = Rates(None, None, None, {}, 0, FOREVER_US)

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
Names = Mapping[str, Sequence[str]]
"""Hub models by the provider's own name of them: several of ours may be one model of theirs."""


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
    work = _Comparison(terms, now_us, versions, invoice, sink)
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
    if invoice is not None:
        await work.rest_of_invoice(connection, invoice, names or {})
    return work.outcome


class _Comparison:
    def __init__(
        self, terms: Terms, now_us: int, versions: list[Version], invoice: Invoice | None, sink: Sink | None
    ) -> None:
        self._terms = terms
        self._book = Book.of(versions)
        self._invoice = invoice
        self._by_request = invoice is not None and invoice.by_request
        self._sink = sink
        self._rates: dict[str, Rates] = {}
        self._day = self._day_end_us = 0
        self._today: dict[str, Sums] = {}
        self._missing_before_us = now_us - terms.missing_after_s * SECOND_US
        self.outcome = Outcome(terms, now_us, versions=versions)

    def page(self, rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """Judge rows of `_PAGE`; those whose charge is not their cost are given back."""
        suspects: list[Sequence[Any]] = []
        invoice = self._invoice if self._by_request else None
        lines = Lines({}, {}) if invoice is None else invoice.of([row[1] for row in rows])
        single, many = lines
        for row in rows:
            sums = self._count(row)
            if row[11] != row[5]:
                suspects.append(row)
            if invoice is not None:
                line = single.get(row[1])
                if line is not None and line[2] == row[5] and not many:
                    invoice.meet(line[1])
                    sums.invoiced_nano_usd += line[2]
                else:
                    self._judge_invoiced(invoice, row, lines.all_of(row[1]), sums)
            if row[4] != "unbilled":
                self._judge_price(row, sums)
        return suspects

    def _count(self, row: Sequence[Any]) -> Sums:
        """Count a request; the sums of its day and model, for what else there is to add."""
        served_at_us, model, cost = row[2], row[3], row[5]
        if served_at_us >= self._day_end_us:
            self._day = int(served_at_us // DAY_US)
            self._day_end_us = (self._day + 1) * DAY_US
            self._today = {}
        sums = self._today.get(model)
        if sums is None:
            sums = self._today[model] = self.outcome.groups.setdefault((self._day, model), Sums())
        self.outcome.states[row[4]] += 1
        sums.served += 1
        if cost is not None:
            sums.settled += 1
            sums.settled_nano_usd += cost
        if row[11] is not None:
            self.outcome.charges += 1
        return sums

    def _judge_price(self, row: Sequence[Any], sums: Sums) -> None:
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
            self.outcome.waiting += 1
            return
        sums.expected_nano_usd += expected or 0
        if expected is None and cost is not None:
            self.outcome.unpriced_settled_nano_usd += cost
        if state == "settled":
            self._add(Kind.UNPRICED, row, None, sums, detail=_why_unpriced(row, rates))
        else:
            self._add(_OPEN[state], row, expected, sums)

    def _off(self, row: Sequence[Any], expected: int, sums: Sums) -> None:
        """A settled cost that is not the expected one."""
        cost, charged = row[5], row[11]
        rounding = self._terms.rounding_nano_usd
        if charged is not None and charged != cost:
            detail = f"the provider told {usd(charged)} USD"
            self._add(Kind.CORRECTED, row, expected, sums, detail=detail)
            return
        if abs(cost - expected) <= rounding:
            self._add(Kind.ROUNDING, row, expected, sums)
            return
        if cost == 0:
            self._add(Kind.ZERO_PRICED, row, expected, sums)
            return
        served_at_us, model = row[2], row[3]
        units = _units(row)
        now = self._book.at(model, served_at_us)
        for at_us in self._book.changes_us(model):
            other = self._book.at(model, at_us)
            then = None if other is None or other == now else other.cost_nano_usd(*units)
            if then is not None and then != expected and abs(cost - then) <= rounding:
                self._add(Kind.PRICE_CHANGED, row, expected, sums, detail=f"the price from {iso(at_us)} on")
                return
        kind = Kind.OVERCHARGED if cost > expected else Kind.UNDERCHARGED
        self._add(kind, row, expected, sums, detail=self._hint(row, expected, now))

    def _hint(self, row: Sequence[Any], expected: int, rates: Rates | None) -> str:
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

    def _judge_invoiced(self, invoice: Invoice, row: Sequence[Any], lines: list[Line], sums: Sums) -> None:
        posted = row[5] or 0
        if not lines:
            if posted:
                self._add(Kind.NOT_INVOICED, row, None, sums, amount=-posted)
            return
        for line in lines:
            invoice.meet(line.number)
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
        self._add(kind, row, None, sums, invoiced=amount, amount=amount - posted, detail=detail)

    def _double(self, request_id: str, lines: list[Line], amount: int, row: Sequence[Any] | None) -> None:
        total = sum(line.cost_nano_usd for line in lines)
        if total == amount:
            return
        self._tell(
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

    def _add(
        self,
        kind: Kind,
        row: Sequence[Any],
        expected: int | None,
        sums: Sums,
        *,
        invoiced: int | None = None,
        amount: int | None = None,
        detail: str = "",
    ) -> None:
        if amount is None and expected is not None:
            amount = (row[5] or 0) - expected
            if kind not in HARMLESS:
                sums.off_nano_usd += abs(amount)
        self._tell(Variance(kind, row[1], row[2], row[3], expected, row[5], invoiced, amount, detail))

    def _tell(self, one: Variance, requests: int = 1) -> None:
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

    async def balance(self, connection: AsyncConnection, suspects: Sequence[Sequence[Any]]) -> None:
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
            self._tell(Variance(Kind.UNBALANCED, row[1], row[2], row[3], None, row[5], None, amount, detail))

    async def rest_of_invoice(self, connection: AsyncConnection, invoice: Invoice, names: Names) -> None:
        """Judge what the invoice has beyond the requests of the period."""
        totals = invoice.totals
        if invoice.by_request:
            for ids in invoice.unmet():
                await self._unmet(connection, invoice, ids)
        else:
            self._totals(totals.groups, names)
        if totals.stated_nano_usd is not None and totals.stated_nano_usd != totals.nano_usd:
            amount = totals.stated_nano_usd - totals.nano_usd
            detail = f"it states {usd(totals.stated_nano_usd)} USD, and its lines come to {usd(totals.nano_usd)} USD"
            self._tell(Variance(Kind.INVOICE_SUM, "", None, "", None, None, totals.stated_nano_usd, amount, detail))

    async def _unmet(self, connection: AsyncConnection, invoice: Invoice, ids: Sequence[str]) -> None:
        lines = invoice.of(ids)
        known: dict[str, Any] = {}
        for some in batched(ids):
            query = sa.select(usage.c.request_id, usage.c.served_at_us, usage.c.model, usage.c.cost_nano_usd).where(
                usage.c.provider == self._terms.provider, usage.c.request_id.in_(some)
            )
            known |= {row.request_id: row for row in await connection.execute(query)}
        for request_id in ids:
            mine = lines.all_of(request_id)
            for line in mine:
                invoice.meet(line.number)
            if not sum(line.cost_nano_usd for line in mine):
                continue  # what is taken back in full asks for nothing
            amount = _one_of(mine, mine[0].cost_nano_usd)
            row = known.get(request_id)
            if row is None:
                self._tell(Variance(Kind.UNKNOWN, request_id, None, "", None, None, amount, amount))
            else:
                detail = f"served {iso(row.served_at_us)}"
                cost = row.cost_nano_usd
                self._tell(
                    Variance(Kind.LATE, request_id, row.served_at_us, row.model, None, cost, amount, amount, detail)
                )
            self._double(request_id, mine, amount, None)

    def _totals(self, told: Mapping[Group, int], names: Names) -> None:
        """Compare totals by day, by model, by both, or the one total that there is."""
        if not told:
            return
        by_day, by_model = (part is not None for part in next(iter(told)))
        models = {model for _, model in self.outcome.groups}
        shared, meant = _shared({model for _, model in told if model is not None}, models, names)
        ours: dict[_Total, Sums] = {}
        for (on, of), sums in self.outcome.groups.items():
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
            self._tell(
                Variance(kind, "", day_us, model, None, sums.settled_nano_usd, invoiced, amount, detail), sums.settled
            )


_Total = tuple[int | None, frozenset[str] | None]
"""A total's day, and the hub models that it is of; None where the invoice does not tell them apart."""


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


_OPEN = {"pending": Kind.MISSING, "disputed": Kind.DISPUTED, "expired": Kind.EXPIRED}


def _one_of(lines: Sequence[Line], posted: int) -> int:
    """What an id is charged once: the sum of its lines where one is a credit, else the line that is right, if any."""
    amounts = [line.cost_nano_usd for line in lines]
    if min(amounts) < 0:
        return sum(amounts)
    return posted if posted in amounts else amounts[0]


def _units(row: Sequence[Any]) -> tuple[int, int, int, dict[str, int] | None]:
    return row[6] or 0, row[7] or 0, row[8] or 0, None if row[9] is None else orjson.loads(row[9])


def _why_unpriced(row: Sequence[Any], rates: Rates) -> str:
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
