"""The ledger: charges and corrections, each an entry that moves an amount from the payer's account to the provider's.

Entries, the states of the requests they belong to, and the balances change in one transaction, or none does.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import Costs, State
from roadworthy.billing.schedule import DAY_US, SECOND_US, Policy, ask_again_us
from roadworthy.billing.store import bulk
from roadworthy.billing.store.turns import Asked
from roadworthy.billing.tables import balances, disputes, entries
from roadworthy.database import insert_of
from roadworthy.errors import RoadworthyError

USD_NANO = 10**9

_CHARGE = (
    "INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, posted_at_us) "
    "VALUES (?, 'charge', ?, ?, ?, ?)"
)
_CHARGE_ARRAYS = (
    "INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, posted_at_us) "
    "SELECT u, 'charge', d, c, a, t "
    "FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[]) AS new(u, d, c, a, t)"
)
_SETTLED = (
    "UPDATE usage SET state = 'settled', cost_nano_usd = ?, settled_at_us = ?, asks = asks + 1, problem = NULL "
    "WHERE id = ? AND state = 'pending'"
)
_SETTLED_ARRAYS = (
    "UPDATE usage SET state = 'settled', cost_nano_usd = c, settled_at_us = t, asks = asks + 1, problem = NULL "
    "FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS new(c, t, i) "
    "WHERE usage.id = i AND state = 'pending'"
)
_AGAIN = (
    "UPDATE usage SET state = ?, asks = asks + 1, next_ask_us = ?, first_missing_us = ?, problem = ? "
    "WHERE id = ? AND state = 'pending'"
)
_AGAIN_ARRAYS = (
    "UPDATE usage SET state = s, asks = asks + 1, next_ask_us = n, first_missing_us = f, problem = p "
    "FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[]) AS new(s, n, f, p, i) "
    "WHERE usage.id = i AND state = 'pending'"
)


class LedgerError(RoadworthyError):
    """A request was not in the state that its settling needs; the transaction was undone."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How many of the ids of one answer came to what."""

    settled: int = 0
    missing: int = 0
    invalid: int = 0
    disputed: int = 0
    expired: int = 0
    cost_nano_usd: int = 0
    """The sum of what was posted."""

    def __add__(self, other: Settled) -> Settled:
        """The sum, kind by kind."""
        return Settled(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def payer_account(payer: str) -> str:
    """The name of a payer's account."""
    return f"payer:{payer}"


def provider_account(provider: str) -> str:
    """The name of a provider's account."""
    return f"provider:{provider}"


async def posting_us(connection: AsyncConnection, now_us: int) -> int:
    """When an entry is posted that is written now: never before the newest one, though the clock jumped back since.

    So no entry falls into a month that was over for one that stands in the ledger already. Those that several
    providers' transactions post at the same time may differ by as long as these take.
    """
    newest = sa.select(entries.c.posted_at_us).order_by(entries.c.id.desc()).limit(1)
    return max(now_us, (await connection.execute(newest)).scalar_one_or_none() or 0)


async def settle(
    connection: AsyncConnection,
    provider: str,
    asked: Sequence[Asked],
    costs: Costs,
    *,
    now_us: int,
    policy: Policy,
    jitter: random.Random,
    answering_since_us: int = 0,
) -> Settled:
    """Post what an answer says of the pending ids that were asked. The caller holds the provider's turn.

    Until `answering_since_us` the provider was silent, which counts against no id.
    Raises `LedgerError` where one of them is not pending any more; nothing was done then.
    """
    posted = [(one, costs.posted[one.request_id]) for one in asked if one.request_id in costs.posted]
    await _charge(connection, provider, posted, now_us)
    doubtful = [one for one in asked if one.request_id in costs.doubtful]
    await _dispute(connection, provider, doubtful, costs, now_us)
    again = [one for one in asked if one.request_id not in costs.posted and one.request_id not in costs.doubtful]
    expired = await _ask_again(
        connection, again, costs.invalid, answering_since_us, now_us=now_us, policy=policy, jitter=jitter
    )
    invalid = sum(1 for one in again if one.request_id in costs.invalid)
    amount = sum(cost for _, cost in posted)
    return Settled(len(posted), len(again) - invalid, invalid, len(doubtful), expired, amount)


async def _charge(connection: AsyncConnection, provider: str, posted: Sequence[tuple[Asked, int]], now_us: int) -> None:
    if not posted:
        return
    amounts = [cost for _, cost in posted]
    ids = [one.id for one, _ in posted]
    now = [await posting_us(connection, now_us)] * len(posted)
    accounts = [payer_account(one.payer) for one, _ in posted]
    await bulk.run(
        connection, _CHARGE, _CHARGE_ARRAYS, ids, accounts, [provider_account(provider)] * len(posted), amounts, now
    )
    changed = await bulk.run(connection, _SETTLED, _SETTLED_ARRAYS, amounts, now, ids)
    _all(changed, len(ids))
    sums: dict[tuple[str, str, int], list[int]] = {}
    for one, cost in posted:
        sums.setdefault((one.payer, one.model, one.served_at_us // DAY_US), []).append(cost)
    await add_to_balances(
        connection,
        [
            Change(payer, provider, model, day, requests=len(amounts), charged_nano_usd=sum(amounts))
            for (payer, model, day), amounts in sums.items()
        ],
    )


async def _dispute(
    connection: AsyncConnection, provider: str, doubtful: Sequence[Asked], costs: Costs, now_us: int
) -> None:
    if not doubtful:
        return
    found = [(one, costs.doubtful[one.request_id]) for one in doubtful]
    states = [State.DISPUTED.value] * len(found)
    problems = [f"{doubt.reason.value}: {doubt.claimed}"[:200] for _, doubt in found]
    await _move(connection, [one for one, _ in found], states, [now_us] * len(found), problems)
    await connection.execute(
        disputes.insert(),
        [
            {
                "usage_id": one.id,
                "provider": provider,
                "opened_at_us": now_us,
                "reason": doubt.reason.value,
                "claimed": storable(doubt.claimed),
            }
            for one, doubt in found
        ],
    )


async def _ask_again(
    connection: AsyncConnection,
    again: Sequence[Asked],
    invalid: Mapping[str, str],
    answering_since_us: int,
    *,
    now_us: int,
    policy: Policy,
    jitter: random.Random,
) -> int:
    expired = 0
    states, times = [], []
    for one in again:
        # One that is later than now was noted by a clock that was wrong.
        since_us = min(max(one.first_missing_us or now_us, answering_since_us), now_us)
        over = now_us - since_us >= policy.expire_after_s * SECOND_US and one.asks + 1 >= policy.least_asks
        expired += over
        states.append(State.EXPIRED.value if over else State.PENDING.value)
        times.append(now_us + ask_again_us(policy, one.asks + 1, jitter))
    await _move(connection, again, states, times, [invalid.get(one.request_id) for one in again], missing_at_us=now_us)
    return expired


async def _move(
    connection: AsyncConnection,
    ids: Sequence[Asked],
    states: Sequence[str],
    next_asks_us: Sequence[int],
    problems: Sequence[str | None],
    *,
    missing_at_us: int | None = None,
) -> None:
    first = [_first_missing(one.first_missing_us, missing_at_us) for one in ids]
    shown = [None if problem is None else storable(problem) for problem in problems]
    changed = await bulk.run(
        connection, _AGAIN, _AGAIN_ARRAYS, states, next_asks_us, first, shown, [one.id for one in ids]
    )
    _all(changed, len(ids))


def _first_missing(before_us: int | None, now_us: int | None) -> int | None:
    return now_us if before_us is None else before_us if now_us is None else min(before_us, now_us)


def _all(changed: int, wanted: int) -> None:
    if changed != wanted:
        raise LedgerError(f"{wanted} pending requests were to change, and {changed} did; nothing was posted")


def storable(text: str) -> str:
    """Text as both databases take it: without NUL and lone surrogates, at most 200 characters."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")[:200]


@dataclass(frozen=True, slots=True)
class Change:
    """What entries add to one balance. Amounts are nano-USD of any size; `day` is days since 1970 UTC."""

    payer: str
    provider: str
    model: str
    day: int
    requests: int = 0
    charged_nano_usd: int = 0
    credited_nano_usd: int = 0


async def add_to_balances(connection: AsyncConnection, changes: Iterable[Change]) -> None:
    """Keep the sums in step with entries that are posted in the same transaction."""
    rows = []
    for one in changes:
        charged_usd, charged_nano = divmod(one.charged_nano_usd, USD_NANO)
        credited_usd, credited_nano = divmod(one.credited_nano_usd, USD_NANO)
        rows.append(
            {
                "payer": one.payer,
                "provider": one.provider,
                "model": one.model,
                "day": one.day,
                "requests": one.requests,
                "charged_usd": charged_usd,
                "charged_nano": charged_nano,
                "credited_usd": credited_usd,
                "credited_nano": credited_nano,
            }
        )
    # In one order for all: two collectors that want the same rows must not wait for each other.
    rows.sort(key=lambda row: (row["payer"], row["provider"], row["model"], row["day"]))
    if rows:
        await connection.execute(_ADD[connection.dialect.name], rows)


def _add_of(dialect: str) -> sa.Insert:
    statement = insert_of(dialect, balances)
    new = statement.excluded
    values: dict[str, sa.ColumnElement[int]] = {"requests": balances.c.requests + new.requests}
    for kind in ("charged", "credited"):
        nano = balances.c[f"{kind}_nano"] + new[f"{kind}_nano"]
        over = nano >= USD_NANO
        values[f"{kind}_usd"] = balances.c[f"{kind}_usd"] + new[f"{kind}_usd"] + sa.case((over, 1), else_=0)
        values[f"{kind}_nano"] = sa.case((over, nano - USD_NANO), else_=nano)
    return statement.on_conflict_do_update(index_elements=list(balances.primary_key), set_=values)


_ADD = {dialect: _add_of(dialect) for dialect in ("sqlite", "postgresql")}
