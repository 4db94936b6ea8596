"""Disputes: costs that a person must judge, listed, shown and resolved.

`ledger` opens those of costs that cannot be posted, `recheck` those of costs that changed. While a dispute is open its
request is `disputed`, and what was posted for it stays posted. Resolving settles the request again, by a correction
where another amount than the posted one was chosen, by a charge where none was posted, by nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import MAX_COST_NANO_USD
from roadworthy.billing.store.corrections import amount_of, hold, post, text_of
from roadworthy.billing.tables import MAX_AUTHOR_LENGTH, MAX_REASON_LENGTH, disputes, entries, usage
from roadworthy.errors import UsageError

_DIGITS_MOST = len(str(MAX_COST_NANO_USD))


class Choice(StrEnum):
    """Which amount a dispute is resolved to."""

    CLAIMED = "claimed"
    POSTED = "posted"
    AMOUNT = "amount"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Dispute:
    """A dispute with the request it is about. `cost_nano_usd` is what the ledger charges for that now."""

    id: int
    usage_id: int
    provider: str
    request_id: str
    payer: str
    model: str
    served_at_us: int
    state: str
    cost_nano_usd: int | None
    opened_at_us: int
    reason: str
    claimed: str
    posted_nano_usd: int | None
    resolved_at_us: int | None
    resolved_nano_usd: int | None
    resolution: str | None
    resolved_by: str | None
    note: str | None

    @property
    def claimed_nano_usd(self) -> int | None:
        """The claim, where it is one amount that the ledger can hold."""
        text = self.claimed
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MOST):
            return None
        return int(text) if int(text) <= MAX_COST_NANO_USD else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger."""

    id: int
    usage_id: int
    kind: str
    debit_account: str
    credit_account: str
    amount_nano_usd: int
    posted_at_us: int
    reason: str | None
    author: str | None


_OF_USAGE = ("request_id", "payer", "model", "served_at_us", "state", "cost_nano_usd")
SELECT = sa.select(
    *((usage if name in _OF_USAGE else disputes).c[name] for name in Dispute.__dataclass_fields__)
).join_from(disputes, usage, disputes.c.usage_id == usage.c.id)
"""Disputes with their requests, in the order of `Dispute`."""


async def find(connection: AsyncConnection, dispute_id: int) -> Dispute | None:
    """The dispute of that number."""
    if not 0 < dispute_id <= MAX_COST_NANO_USD:
        return None
    row = (await connection.execute(SELECT.where(disputes.c.id == dispute_id))).one_or_none()
    return None if row is None else Dispute(*row)


async def listed(
    connection: AsyncConnection,
    *,
    provider: str | None = None,
    payer: str | None = None,
    resolved: bool = False,
    most: int = 1000,
    after: int = 0,
) -> list[Dispute]:
    """Disputes by number, those after `after`, at most so many: the open ones, or the resolved ones, too."""
    query = SELECT.where(disputes.c.id > after)
    if not resolved:
        query = query.where(sa.text("resolved_at_us IS NULL"))
    if provider is not None:
        query = query.where(disputes.c.provider == provider)
    if payer is not None:
        query = query.where(usage.c.payer == payer)
    return [Dispute(*row) for row in await connection.execute(query.order_by(disputes.c.id).limit(most))]


async def entries_of(connection: AsyncConnection, *usage_ids: int) -> list[Entry]:
    """What the ledger holds for these requests, oldest first."""
    of_kind = [
        sa.select(*(entries.c[name] for name in Entry.__dataclass_fields__)).where(
            entries.c.usage_id.in_(usage_ids), sa.text(f"kind = '{kind}'")
        )
        for kind in ("charge", "correction")  # each has an index of its own
    ]
    return [Entry(*row) for row in await connection.execute(sa.union_all(*of_kind).order_by("id"))]


async def resolve(
    connection: AsyncConnection,
    dispute_id: int,
    choice: Choice,
    note: str,
    by: str,
    *,
    now_us: int,
    amount_nano_usd: int | None = None,
) -> int:
    """Resolve an open dispute: its request is settled with the chosen amount. What it costs now, in nano-USD.

    `amount_nano_usd` goes with `Choice.AMOUNT` alone. Raises `UsageError` where there is no such open dispute, where
    the claim is no amount that can be posted, and where `posted` is chosen and nothing was.
    """
    why, who = text_of("note", note, MAX_REASON_LENGTH), text_of("author", by, MAX_AUTHOR_LENGTH)
    found = await find(connection, dispute_id)
    if found is None:
        raise UsageError(f"there is no dispute {dispute_id}; `roadworthy billing dispute list` shows them")
    held = await hold(connection, found.usage_id)
    found = await find(connection, dispute_id)  # again, now that nobody else can resolve it
    assert found is not None  # disputes are never removed
    if found.resolved_at_us is not None:
        raise UsageError(f"dispute {dispute_id} is resolved already, by {found.resolved_by}: {found.note}")
    amount = _chosen(found, choice, amount_nano_usd)
    await post(connection, held, amount, why, who, now_us=now_us)
    await connection.execute(
        disputes.update()
        .where(disputes.c.id == dispute_id)
        .values(resolved_at_us=now_us, resolved_nano_usd=amount, resolution=choice.value, resolved_by=who, note=why)
    )
    return amount


def _chosen(dispute: Dispute, choice: Choice, amount_nano_usd: int | None) -> int:
    if (amount_nano_usd is not None) != (choice is Choice.AMOUNT):
        raise UsageError(f"an amount goes with the choice {Choice.AMOUNT.value!r}, and with no other")
    if amount_nano_usd is not None:
        return amount_of(amount_nano_usd)
    if choice is Choice.NOTHING:
        return 0
    if choice is Choice.POSTED:
        if dispute.cost_nano_usd is None:
            raise UsageError(f"nothing was posted for dispute {dispute.id}; accept an amount, or charge nothing")
        return dispute.cost_nano_usd
    if dispute.claimed_nano_usd is None:
        raise UsageError(
            f"the claim of dispute {dispute.id} is {dispute.claimed!r}, which is not one amount that the ledger can "
            "hold; accept an amount in nano-USD, or charge nothing"
        )
    return dispute.claimed_nano_usd
