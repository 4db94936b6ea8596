"""Corrections: what a request costs is changed by a new entry, never by an old one.

A correction posts the difference between what a request costs and what it is to cost: a rise debits the payer's
account once more, a cut debits the provider's account and credits the payer's. Whoever changes what a provider
earned holds the row of its cost endpoint, as the collector does: so nobody waits in a circle.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import MAX_COST_NANO_USD, State
from roadworthy.billing.schedule import DAY_US
from roadworthy.billing.store.ledger import Change, add_to_balances, payer_account, posting_us, provider_account
from roadworthy.billing.tables import MAX_AUTHOR_LENGTH, MAX_REASON_LENGTH, cost_endpoints, disputes, entries, usage
from roadworthy.errors import UsageError


@dataclass(frozen=True, slots=True)
class Held:
    """A request that is locked until the transaction ends. `cost_nano_usd` is None while nothing was charged."""

    id: int
    provider: str
    request_id: str
    payer: str
    model: str
    served_at_us: int
    state: State
    cost_nano_usd: int | None


async def correct(
    connection: AsyncConnection, usage_id: int, to_nano_usd: int, reason: str, by: str, *, now_us: int
) -> int:
    """Let a settled request cost `to_nano_usd` from now on; by how many nano-USD its cost changed.

    Raises `UsageError` for a request that is not settled, costs that much already, or is not there; for an amount
    outside 0 to 2^63 - 1; and for a reason or author that is empty or too long.
    """
    amount = amount_of(to_nano_usd)
    why, who = text_of("reason", reason, MAX_REASON_LENGTH), text_of("author", by, MAX_AUTHOR_LENGTH)
    held = await hold(connection, usage_id)
    name = f"the request {held.request_id} of {held.provider}"
    if held.state is State.DISPUTED:
        open_one = sa.select(disputes.c.id).where(disputes.c.usage_id == usage_id, disputes.c.resolved_at_us.is_(None))
        number = (await connection.execute(open_one)).scalar()
        if number is None:
            raise UsageError(
                f"{name} is disputed, and no dispute of it is open; `roadworthy billing verify` tells more"
            )
        raise UsageError(
            f"{name} is disputed; judge dispute {number} instead: "
            f'`roadworthy billing dispute resolve {number} --accept {amount} --note "..."`'
        )
    if held.cost_nano_usd is None:
        raise UsageError(f"{name} is {held.state.value} and was never charged, so there is nothing to correct")
    if held.cost_nano_usd == amount:
        raise UsageError(f"{name} costs {amount} nano-USD already; nothing was posted")
    return await post(connection, held, amount, why, who, now_us=now_us)


async def hold(connection: AsyncConnection, usage_id: int) -> Held:
    """The request, locked with its provider's ledger until the transaction ends. Raises `UsageError`."""
    provider = (await connection.execute(sa.select(usage.c.provider).where(usage.c.id == usage_id))).scalar()
    if provider is None:
        raise UsageError(f"there is no request with the number {usage_id}")
    await connection.execute(
        sa.select(cost_endpoints.c.fence).where(cost_endpoints.c.provider == provider).with_for_update()
    )
    columns = [usage.c[name] for name in Held.__dataclass_fields__]
    row = (await connection.execute(sa.select(*columns).where(usage.c.id == usage_id).with_for_update())).one()
    return Held(**{**row._asdict(), "state": State(row.state)})


async def post(
    connection: AsyncConnection, held: Held, to_nano_usd: int, reason: str, author: str, *, now_us: int
) -> int:
    """Post what lies between the request's cost and this one, and settle it; by how many nano-USD it changed.

    Where nothing was charged yet it is a charge, of 0 too; where the cost stays, no entry is posted.
    """
    before = held.cost_nano_usd
    change = to_nano_usd - (before or 0)
    at_us = await posting_us(connection, now_us)
    if before is None or change:
        accounts = [payer_account(held.payer), provider_account(held.provider)]
        debit, credit = accounts if change >= 0 else reversed(accounts)
        # Before the request's own row: the database looks there for what may be given back.
        await connection.execute(
            entries.insert().values(
                usage_id=held.id,
                kind="charge" if before is None else "correction",
                debit_account=debit,
                credit_account=credit,
                amount_nano_usd=abs(change),
                posted_at_us=at_us,
                reason=reason,
                author=author,
            )
        )
    values = {"state": State.SETTLED.value, "cost_nano_usd": to_nano_usd, "problem": None}
    if before is None:
        values["settled_at_us"] = at_us
    await connection.execute(usage.update().where(usage.c.id == held.id).values(**values))
    await add_to_balances(
        connection,
        [
            Change(
                held.payer,
                held.provider,
                held.model,
                held.served_at_us // DAY_US,
                requests=int(before is None),
                charged_nano_usd=max(change, 0),
                credited_nano_usd=max(-change, 0),
            )
        ],
    )
    return change


def amount_of(nano_usd: int) -> int:
    """The amount, if the ledger can hold it. Raises `UsageError`."""
    if type(nano_usd) is not int or not 0 <= nano_usd <= MAX_COST_NANO_USD:
        raise UsageError(f"an amount is a whole number of nano-USD from 0 to {MAX_COST_NANO_USD}; got {nano_usd!r}")
    return nano_usd


def text_of(name: str, text: str, most: int) -> str:
    """What a person wrote, without spaces around it. Raises `UsageError` for none, or what cannot be kept as it is."""
    found = text.strip()
    if not found or len(found) > most:
        raise UsageError(f"the {name} must have 1 to {most} characters; got {len(found)}")
    if not found.isprintable():
        raise UsageError(f"the {name} must be one line of printable characters; got {found[:80]!r}")
    return found
