"""Statements: what one payer is charged for one month, to the nano-dollar, as an invoice says it.

A statement holds the entries that were *posted* in its month. So a month that is over never changes: what comes
late, and what is corrected later, stands in the statement of the month it was posted in, set apart, as credit notes
are. A clock that jumps back does not open it again where anything was posted since its end (`ledger.posting_us`).
What is still pending or disputed when the statement is made is named beside it, and is in no sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.dates import Month
from roadworthy.billing.money import USD_NANO
from roadworthy.billing.schedule import DAY_US, SECOND_US
from roadworthy.billing.store import disputes as dispute_store
from roadworthy.billing.store.disputes import Dispute
from roadworthy.billing.store.ledger import payer_account
from roadworthy.billing.tables import MAX_PAYER_LENGTH, PENDING, disputes, entries, usage
from roadworthy.database import batched
from roadworthy.errors import UsageError

SETTLES_FOR_US = 3600 * SECOND_US
"""A transaction notes its time when it begins; an hour after a month's end none of that month is under way."""
_HALF = 2**32
_TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Line:
    """What one model of one provider came to on one day served (days since 1970 UTC). Amounts are nano-USD.

    `input_tokens` counts the cached ones, too. `corrected_nano_usd` is what corrections in the same month changed.
    """

    day: int
    provider: str
    model: str
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    charged_nano_usd: int
    corrected_nano_usd: int

    @property
    def amount_nano_usd(self) -> int:
        """What is to be paid."""
        return self.charged_nano_usd + self.corrected_nano_usd


@dataclass(frozen=True, slots=True)
class Correction:
    """A cost that a person put right or judged, and why. A negative amount is given back.

    `before_nano_usd` is None where a dispute was judged of which nothing had been charged.
    """

    entry_id: int
    posted_at_us: int
    day: int
    provider: str
    model: str
    request_id: str
    before_nano_usd: int | None
    after_nano_usd: int
    amount_nano_usd: int
    reason: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One payer's month. `late` are requests of earlier months that were charged in this one.

    `corrections` are of what earlier months charged, and are in the sum. `included` are of what this month charged:
    they are in the amounts of their lines already, and stand beside them for their reasons.

    `pending` and `uncharged_disputes` count what is in no sum yet; of the disputes that are open, or were opened in
    the month, those with a posted amount are in the sums with that amount.
    """

    payer: str
    month: Month
    made_at_us: int
    closed: bool
    lines: tuple[Line, ...]
    late: tuple[Line, ...]
    corrections: tuple[Correction, ...]
    included: tuple[Correction, ...]
    pending: int
    uncharged_disputes: int
    disputes: tuple[Dispute, ...]

    @property
    def requests(self) -> int:
        """Requests charged in the month."""
        return sum(line.requests for line in (*self.lines, *self.late))

    @property
    def amount_nano_usd(self) -> int:
        """What the month comes to."""
        return amount(self.lines) + amount(self.late) + amount(self.corrections)


def amount(parts: Iterable[Line | Correction]) -> int:
    """The sum, in nano-USD."""
    return sum(part.amount_nano_usd for part in parts)


async def statement(connection: AsyncConnection, payer: str, month: Month, *, now_us: int) -> Statement:
    """The payer's statement, of one snapshot. A payer without entries has an empty one.

    Raises `UsageError` for a payer that can be none, and for a month that has not begun.
    """
    if not 1 <= len(payer) <= MAX_PAYER_LENGTH:
        raise UsageError(f"a payer has 1 to {MAX_PAYER_LENGTH} characters, org:acme say; got {len(payer)}")
    begin_us, end_us = month.from_day * DAY_US, month.to_day * DAY_US
    if now_us < begin_us:
        raise UsageError(f"the month {month} has not begun")
    posted = sa.and_(entries.c.posted_at_us >= begin_us, entries.c.posted_at_us < end_us)
    account = payer_account(payer)
    # The last is written out, so that the index of what was given back is seen to hold it.
    sides = [
        (1, sa.and_(entries.c.debit_account == account, posted)),
        (-1, sa.and_(entries.c.credit_account == account, posted, sa.text("entries.kind = 'correction'"))),
    ]
    lines: dict[tuple[int, str, str], list[int]] = {}
    explained: list[sa.Row[Any]] = []
    for sign, of_payer in sides:
        await _add_lines(connection, lines, of_payer, begin_us, sign)
        explained += await _explained(connection, of_payer)
    known = await _costs_after(connection, sorted({row.usage_id for row in explained}))
    found = [
        (row.settled_at_us < begin_us, _correction(row, known)) for row in sorted(explained, key=lambda row: row.id)
    ]
    made = [Line(*key, *sums) for key, sums in sorted(lines.items())]
    about = await _disputes(connection, payer, begin_us, end_us)
    waiting = sa.select(sa.func.count()).where(PENDING, usage.c.payer == payer, usage.c.served_at_us < end_us)
    return Statement(
        payer=payer,
        month=month,
        made_at_us=now_us,
        closed=now_us >= end_us + SETTLES_FOR_US,
        lines=tuple(line for line in made if line.day >= month.from_day),
        late=tuple(line for line in made if line.day < month.from_day),
        corrections=tuple(one for earlier, one in found if earlier),
        included=tuple(one for earlier, one in found if not earlier),
        pending=int((await connection.execute(waiting)).scalar_one()),
        uncharged_disputes=sum(1 for one in about if one.resolved_at_us is None and one.cost_nano_usd is None),
        disputes=tuple(about),
    )


async def _add_lines(
    connection: AsyncConnection,
    lines: dict[tuple[int, str, str], list[int]],
    of_payer: sa.ColumnElement[bool],
    begin_us: int,
    sign: int,
) -> None:
    day = (usage.c.served_at_us // DAY_US).label("day")
    # High and low parts apart: databases add in 64 bits.
    parts = [
        part for name in _TOKENS for part in (sa.func.sum(usage.c[name] // _HALF), sa.func.sum(usage.c[name] % _HALF))
    ]
    parts += [sa.func.sum(entries.c.amount_nano_usd // USD_NANO), sa.func.sum(entries.c.amount_nano_usd % USD_NANO)]
    keys = (day, usage.c.provider, usage.c.model, entries.c.kind)
    query = (
        sa.select(*keys, sa.func.count(), *parts)
        .join_from(entries, usage, entries.c.usage_id == usage.c.id)
        .where(of_payer, usage.c.settled_at_us >= begin_us)
        .group_by(*(key if key is not day else sa.text("day") for key in keys))
    )
    for row in await connection.execute(query):
        served_day, provider, model, kind, count, *sums = row
        numbers = [int(value or 0) for value in sums]
        total = numbers[6] * USD_NANO + numbers[7]
        line = lines.setdefault((served_day, provider, model), [0] * 6)
        if kind == "charge":
            tokens = [numbers[at] * _HALF + numbers[at + 1] for at in (0, 2, 4)]
            line[:5] = [old + new for old, new in zip(line, [int(count), *tokens, total], strict=False)]
        else:
            line[5] += sign * total


async def _explained(connection: AsyncConnection, of_payer: sa.ColumnElement[bool]) -> list[sa.Row[Any]]:
    """The entries that people made, each with its reason; the collector gives none."""
    of_usage = ("served_at_us", "provider", "model", "request_id", "settled_at_us")
    query = (
        sa.select(entries, *(usage.c[name] for name in of_usage))
        .join_from(entries, usage, entries.c.usage_id == usage.c.id)
        .where(of_payer, entries.c.reason.is_not(None))
    )
    return list(await connection.execute(query))


async def _costs_after(connection: AsyncConnection, usage_ids: list[int]) -> dict[int, tuple[int | None, int]]:
    """What each entry's request cost before it and after it, by the entry's number."""
    found: dict[int, tuple[int | None, int]] = {}
    cost: dict[int, int] = {}
    for some in batched(usage_ids):
        for entry in await dispute_store.entries_of(connection, *some):
            before = cost.get(entry.usage_id)
            sign = 1 if entry.debit_account.startswith(payer_account("")) else -1
            cost[entry.usage_id] = (before or 0) + sign * entry.amount_nano_usd
            found[entry.id] = before, cost[entry.usage_id]
    return found


def _correction(row: Any, known: dict[int, tuple[int | None, int]]) -> Correction:
    before, after = known[row.id]
    return Correction(
        row.id,
        row.posted_at_us,
        row.served_at_us // DAY_US,
        row.provider,
        row.model,
        row.request_id,
        before,
        after,
        after - (before or 0),
        row.reason,
    )


async def _disputes(connection: AsyncConnection, payer: str, begin_us: int, end_us: int) -> list[Dispute]:
    wanted = sa.and_(
        usage.c.payer == payer,
        disputes.c.opened_at_us < end_us,
        sa.or_(disputes.c.opened_at_us >= begin_us, disputes.c.resolved_at_us.is_(None)),
    )
    query = dispute_store.SELECT.where(wanted).order_by(disputes.c.id)
    return [Dispute(*row) for row in await connection.execute(query)]
