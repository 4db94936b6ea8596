"""Balances: what payers owe and providers earned, by payer, provider, model and day served, as exact integers.

They are sums that are kept with every entry, so asking is cheap however large the ledger grows. Databases add in 64
bits (SQLite then fails, or goes over to floats), so high and low parts are summed apart and put together here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.money import USD_NANO
from roadworthy.billing.tables import balances
from roadworthy.errors import UsageError

By = Literal["payer", "provider", "model", "day"]
BY: tuple[str, ...] = get_args(By)
_HALF = 2**32
_MOST_DAY = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Balance:
    """Sums of entries. Amounts are nano-USD of any size; what was not grouped by is None.

    `charged` is what was debited to payers, `credited` what corrections gave back, `net` what remains.
    """

    payer: str | None
    provider: str | None
    model: str | None
    day: int | None
    requests: int
    charged_nano_usd: int
    credited_nano_usd: int

    @property
    def net_nano_usd(self) -> int:
        """What payers owe."""
        return self.charged_nano_usd - self.credited_nano_usd


async def balance(
    connection: AsyncConnection,
    *,
    payer: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    from_day: int | None = None,
    to_day: int | None = None,
    by: Iterable[str] = (),
) -> list[Balance]:
    """The sums of one snapshot, in the order of `by`; without `by` exactly one row, of zeros where nothing is.

    `from_day` is the first day served and `to_day` the day after the last, in days since 1970 UTC. Raises
    `UsageError` for something that cannot be grouped by. For very many rows use `stream`.
    """
    rows = stream(
        connection, payer=payer, provider=provider, model=model, from_day=from_day, to_day=to_day, by=tuple(by)
    )
    return [row async for row in rows]


async def stream(
    connection: AsyncConnection,
    *,
    payer: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    from_day: int | None = None,
    to_day: int | None = None,
    by: Iterable[str] = (),
) -> AsyncIterator[Balance]:
    """The same rows, one by one, as the database finds them. Raises `UsageError`."""
    groups = tuple(dict.fromkeys(by))
    for name in groups:
        if name not in BY:
            raise UsageError(f"balances go by {', '.join(BY)}; got {name!r}")
    query = sa.select(*(balances.c[name] for name in groups), *_SUMS)
    for name, value in (("payer", payer), ("provider", provider), ("model", model)):
        if value is not None:
            query = query.where(balances.c[name] == value)
    if from_day is not None:
        query = query.where(balances.c.day >= _within(from_day))
    if to_day is not None:
        query = query.where(balances.c.day < _within(to_day))
    columns = [balances.c[name] for name in groups]
    async with connection.stream(query.group_by(*columns).order_by(*columns)) as found:
        async for row in found:
            yield _balance(groups, row)


def _within(day: int) -> int:
    return max(-_MOST_DAY, min(day, _MOST_DAY))


def _balance(groups: tuple[str, ...], row: sa.Row[Any]) -> Balance:
    keys: dict[str, Any] = dict.fromkeys(BY) | dict(zip(groups, row, strict=False))
    requests, *sums = (int(value or 0) for value in row[len(groups) :])
    amounts = []
    for high, low, nano in (sums[:3], sums[3:]):
        amounts.append((high * _HALF + low) * USD_NANO + nano)
    return Balance(**keys, requests=requests, charged_nano_usd=amounts[0], credited_nano_usd=amounts[1])


def _sums() -> list[sa.ColumnElement[Any]]:
    found: list[sa.ColumnElement[Any]] = [sa.func.sum(balances.c.requests)]
    for kind in ("charged", "credited"):
        usd, nano = balances.c[f"{kind}_usd"], balances.c[f"{kind}_nano"]
        found += [sa.func.sum(usd // _HALF), sa.func.sum(usd % _HALF), sa.func.sum(nano)]
    return found


_SUMS = _sums()
