"""Verifying the books: everything that is kept is computed again from the rows it was made from, and compared.

One snapshot is read, in pages by key, so a service may go on writing meanwhile and memory stays flat: the sums of
the entries are gathered in a temporary database on disk, which SQLite empties by itself.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.dates import shown_day
from roadworthy.billing.money import USD_NANO
from roadworthy.billing.records import State
from roadworthy.billing.schedule import DAY_US
from roadworthy.billing.store.ledger import payer_account, provider_account
from roadworthy.billing.tables import balances, disputes, entries, usage

PAGE_ROWS = 5000
_CHARGED = {State.SETTLED.value, State.DISPUTED.value}
_GUARDS = {
    "sqlite": {
        "entries_no_update",
        "entries_no_delete",
        "entries_no_replace",
        "prices_no_update",
        "prices_no_delete",
        "prices_no_replace",
        "disputes_no_replace",
        "usage_no_replace",
    },
    "postgresql": {"entries_append_only", "prices_append_only"},
}
_GUARDS_OF_ALL = {
    "disputes_no_delete",
    "usage_no_delete",
    "usage_begins_uncharged",
    "entries_give_back_no_more_than_was_paid",
    "usage_settled_has_its_charge",
    "usage_charged_stays_so",
    "usage_is_what_was_served",
    "disputes_stay_resolved",
}
"""The triggers of migration 0003, without which rows could be changed unseen."""


class Kind(StrEnum):
    """What sort of thing is wrong."""

    ORPHAN = "orphan"
    ENTRY = "entry"
    CHARGE = "charge"
    COST = "cost"
    STATE = "state"
    DISPUTE = "dispute"
    TWICE = "twice"
    BALANCE = "balance"
    SIDES = "sides"
    GUARD = "guard"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the books: what sort, where, and what was expected and found."""

    kind: Kind
    where: str
    what: str


@dataclass(slots=True)
class Books:
    """What verifying went through. Amounts are nano-USD of any size."""

    requests: Counter[str] = field(default_factory=Counter)
    """By state."""
    entries: int = 0
    balances: int = 0
    disputes: int = 0
    payers_nano_usd: int = 0
    """What was debited to payers' accounts, less what was credited to them."""
    providers_nano_usd: int = 0
    """What was credited to providers' accounts, less what was debited to them."""


async def problems(connection: AsyncConnection, books: Books) -> AsyncIterator[Problem]:
    """Whatever is wrong, as it is found; `books` is filled meanwhile. `connection` must see one snapshot."""
    async for found in _guards(connection):
        yield found
    async for found in _served_twice(connection):
        yield found
    with closing(_Sums()) as sums:
        async for found in _requests(connection, books, sums):
            yield found
        async for found in _balances(connection, books, sums):
            yield found
    for table, seen in ((entries, books.entries), (disputes, books.disputes)):
        there = int((await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one())
        if there != seen:
            yield Problem(
                Kind.ORPHAN, table.name, f"{there} rows are there, and {seen} of them can be found by request"
            )
    if books.payers_nano_usd != books.providers_nano_usd:
        yield Problem(
            Kind.SIDES,
            "the ledger",
            f"payers owe {books.payers_nano_usd} nano-USD and providers earned {books.providers_nano_usd}",
        )


async def _guards(connection: AsyncConnection) -> AsyncIterator[Problem]:
    dialect = connection.dialect.name
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')",
    }[dialect]
    there = set((await connection.exec_driver_sql(query)).scalars())
    for name in sorted((_GUARDS[dialect] | _GUARDS_OF_ALL) - there):
        yield Problem(Kind.GUARD, name, "the trigger is not there, or is switched off; rows may have been changed")


async def _served_twice(connection: AsyncConnection) -> AsyncIterator[Problem]:
    query = (
        sa.select(usage.c.provider, usage.c.request_id, sa.func.count())
        .group_by(usage.c.provider, usage.c.request_id)
        .having(sa.func.count() > 1)
    )
    async with connection.stream(query) as found:
        async for provider, request_id, count in found:
            yield Problem(Kind.TWICE, f"{provider} {request_id}", f"noted {count} times; it may be charged as often")


async def _requests(connection: AsyncConnection, books: Books, sums: _Sums) -> AsyncIterator[Problem]:
    """Every request with its entries and disputes, a page at a time; then what belongs to none."""
    after: int | None = None
    while True:
        query = sa.select(usage).order_by(usage.c.id).limit(PAGE_ROWS)
        page = (await connection.execute(query if after is None else query.where(usage.c.id > after))).all()
        upto = page[-1].id if len(page) == PAGE_ROWS else None
        of = {row.id: _Request(row) for row in page}
        async for entry in _between(connection, _ENTRIES, "usage_id", after, upto):
            books.entries += 1
            if entry.usage_id not in of:
                yield Problem(Kind.ORPHAN, f"entry {entry.id}", f"there is no request {entry.usage_id} it belongs to")
            for found in _two_sides(entry, books):
                yield found
            if entry.usage_id in of:
                of[entry.usage_id].entries.append(entry)
        async for dispute in _between(connection, [sa.select(disputes)], "usage_id", after, upto):
            books.disputes += 1
            if dispute.usage_id in of:
                of[dispute.usage_id].disputes.append(dispute)
            else:
                yield Problem(Kind.ORPHAN, f"dispute {dispute.id}", f"there is no request {dispute.usage_id}")
        for request in of.values():
            books.requests[request.row.state] += 1
            for found in request.problems():
                yield found
        sums.add(of.values())
        if upto is None:
            return
        after = upto


_ENTRIES = [sa.select(entries).where(sa.text(f"kind = '{kind}'")) for kind in ("charge", "correction")]
"""Each kind has an index of its own."""


async def _between(
    connection: AsyncConnection, queries: list[sa.Select[Any]], name: str, after: int | None, upto: int | None
) -> AsyncIterator[Any]:
    for query in queries:
        column = query.selected_columns[name]
        bounded = query if after is None else query.where(column > after)
        bounded = bounded if upto is None else bounded.where(column <= upto)
        async with connection.stream(bounded.order_by(column, query.selected_columns["id"])) as found:
            async for row in found:
                yield row


def _two_sides(entry: Any, books: Books) -> Iterator[Problem]:
    where = f"entry {entry.id}"
    if type(entry.amount_nano_usd) is not int or entry.amount_nano_usd < 0:
        yield Problem(Kind.ENTRY, where, f"its amount must be a whole number from 0; it is {entry.amount_nano_usd!r}")
        return
    for account, sign in ((entry.debit_account, 1), (entry.credit_account, -1)):
        if account.startswith(payer_account("")):
            books.payers_nano_usd += sign * entry.amount_nano_usd
        elif account.startswith(provider_account("")):
            books.providers_nano_usd -= sign * entry.amount_nano_usd
        else:
            yield Problem(Kind.ENTRY, where, f"{account!r} is neither a payer's account nor a provider's")


class _Request:
    """A request with what belongs to it."""

    def __init__(self, row: Any) -> None:
        self.row = row
        self.entries: list[Any] = []
        self.disputes: list[Any] = []

    def problems(self) -> Iterator[Problem]:
        row = self.row
        where = f"{row.provider} {row.request_id} (request {row.id})"
        charges = [entry for entry in self.entries if entry.kind == "charge"]
        if len(charges) > 1:
            yield Problem(Kind.CHARGE, where, f"charged {len(charges)} times; once is right")
        if self.entries and not charges:
            yield Problem(Kind.CHARGE, where, "it has corrections and no charge")
        yield from self._of_entries()
        yield from self._of_cost(where, charged=bool(charges))
        yield from self._of_state(where, charged=bool(charges))

    def _of_entries(self) -> Iterator[Problem]:
        accounts = [payer_account(self.row.payer), provider_account(self.row.provider)]
        net = 0
        for entry in sorted(self.entries, key=lambda entry: int(entry.id)):
            where = f"entry {entry.id}"
            pair = [entry.debit_account, entry.credit_account]
            if pair != accounts and (entry.kind == "charge" or pair != accounts[::-1]):
                yield Problem(
                    Kind.ENTRY, where, f"it is between {' and '.join(pair)}; expected {' and '.join(accounts)}"
                )
            if entry.kind != "charge" and not (entry.reason and entry.author):
                yield Problem(Kind.ENTRY, where, "a correction has a reason and an author; it has not")
            net += _signed(entry)
            if net < 0:
                yield Problem(Kind.COST, where, f"with it the request costs {net} nano-USD, which is less than nothing")

    def _of_cost(self, where: str, *, charged: bool) -> Iterator[Problem]:
        row = self.row
        net = sum(_signed(entry) for entry in self.entries) if charged else None
        if row.cost_nano_usd != net or (net is not None and type(row.cost_nano_usd) is not int):
            yield Problem(
                Kind.COST, where, f"its cost is noted as {row.cost_nano_usd!r}; its entries come to {net} nano-USD"
            )

    def _of_state(self, where: str, *, charged: bool) -> Iterator[Problem]:
        row = self.row
        is_open = [dispute for dispute in self.disputes if dispute.resolved_at_us is None]
        billed = 200 <= row.status < 400
        if row.state not in set(State):
            yield Problem(Kind.STATE, where, f"there is no state {row.state!r}")
        elif row.state == State.SETTLED and not charged:
            yield Problem(Kind.STATE, where, "it is settled, and has no charge")
        elif charged and row.state not in _CHARGED:
            yield Problem(Kind.STATE, where, f"it is {row.state}, and was charged")
        elif (row.state == State.UNBILLED) is billed:
            yield Problem(Kind.STATE, where, f"it is {row.state}, and was answered with status {row.status}")
        if (row.state == State.DISPUTED) is not (len(is_open) == 1):
            yield Problem(Kind.DISPUTE, where, f"it is {row.state}, and {len(is_open)} disputes about it are open")
        for dispute in self.disputes:
            if dispute.provider != row.provider:
                yield Problem(Kind.DISPUTE, where, f"dispute {dispute.id} is with {dispute.provider}")


def _signed(entry: Any) -> int:
    """What the entry adds to the request's cost; amounts that are none were told of already."""
    if type(entry.amount_nano_usd) is not int:
        return 0
    return entry.amount_nano_usd if entry.debit_account.startswith(payer_account("")) else -entry.amount_nano_usd


_Key = tuple[str, str, str, int]
_Amounts = tuple[int, int, int]
"""Requests charged, nano-USD charged, nano-USD credited."""


class _Sums:
    """The sums of entries by balance, on disk: there may be as many as there are payers, models and days."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file, which goes when it is closed
        self._database.execute(
            "CREATE TABLE sums (payer TEXT, provider TEXT, model TEXT, day INTEGER, requests TEXT, charged TEXT, "
            "credited TEXT, PRIMARY KEY (payer, provider, model, day)) WITHOUT ROWID"
        )

    def add(self, requests: Any) -> None:
        """Add the entries of these requests."""
        sums: dict[_Key, list[int]] = {}
        for request in requests:
            row = request.row
            for entry in request.entries:
                key = (row.payer, row.provider, row.model, row.served_at_us // DAY_US)
                found = sums.setdefault(key, [0, 0, 0])
                amount = _signed(entry)
                found[0] += entry.kind == "charge"
                found[1] += max(amount, 0)
                found[2] += max(-amount, 0)
        for key, amounts in sums.items():
            before = self._database.execute(
                "SELECT requests, charged, credited FROM sums "
                "WHERE payer = ? AND provider = ? AND model = ? AND day = ?",
                key,
            ).fetchone()
            # As text: they may be larger than SQLite's integers.
            total = [str(amount + int(old)) for amount, old in zip(amounts, before or "000", strict=True)]
            self._database.execute("INSERT OR REPLACE INTO sums VALUES (?, ?, ?, ?, ?, ?, ?)", (*key, *total))

    def __iter__(self) -> Iterator[tuple[_Key, _Amounts]]:
        """By key, in the order of code points."""
        for row in self._database.execute("SELECT * FROM sums ORDER BY payer, provider, model, day"):
            yield row[:4], (int(row[4]), int(row[5]), int(row[6]))

    def close(self) -> None:
        self._database.close()


async def _balances(connection: AsyncConnection, books: Books, sums: _Sums) -> AsyncIterator[Problem]:
    """Both sides in one order, of which the lesser key is always next."""
    collation = "BINARY" if connection.dialect.name == "sqlite" else "C"
    keys = [balances.c[name] for name in ("payer", "provider", "model")]
    query = sa.select(balances).order_by(*(sa.collate(key, collation) for key in keys), balances.c.day)
    computed = iter(sums)
    due = next(computed, None)
    async with connection.stream(query) as found:
        async for row in found:
            books.balances += 1
            key: _Key = (row.payer, row.provider, row.model, row.day)
            while due is not None and due[0] < key:
                yield _differs(due[0], due[1], None)
                due = next(computed, None)
            kept = _kept(row)
            if due is not None and due[0] == key:
                if kept != due[1]:
                    yield _differs(key, due[1], kept)
                due = next(computed, None)
            elif kept != (0, 0, 0):
                yield _differs(key, (0, 0, 0), kept)
    while due is not None:
        yield _differs(due[0], due[1], None)
        due = next(computed, None)


def _kept(row: Any) -> tuple[Any, ...]:
    values = (row.requests, row.charged_usd, row.charged_nano, row.credited_usd, row.credited_nano)
    if any(type(value) is not int for value in values):
        return values
    return (
        row.requests,
        row.charged_usd * USD_NANO + row.charged_nano,
        row.credited_usd * USD_NANO + row.credited_nano,
    )


def _differs(key: _Key, due: _Amounts, kept: tuple[Any, ...] | None) -> Problem:
    payer, provider, model, day = key
    return Problem(
        Kind.BALANCE,
        f"{payer}, {provider}, {model}, {shown_day(day)}",
        f"requests, nano-USD charged and credited are kept as {'nothing' if kept is None else kept}; "
        f"the entries come to {due}",
    )
