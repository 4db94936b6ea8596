"""How collecting stands: what is pending, for how long, and what came of the last questions, by provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.schedule import DAY_US
from roadworthy.billing.store.batches import ANSWERED, RECHECKED
from roadworthy.billing.store.endpoints import CostEndpoint, list_all
from roadworthy.billing.tables import PENDING, batches, disputes, usage
from roadworthy.database import batched

_COUNTED = ("settled", "missing", "invalid", "disputed", "expired")


@dataclass(frozen=True, slots=True)
class Pending:
    """A provider's requests without a cost. Times are microseconds since 1970 UTC; `oldest_us`: when taken in."""

    count: int = 0
    oldest_us: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How collecting from one provider stands. `last_day` are sums of the last 24 hours; `trouble` the last one.

    `open_disputes` and `unbilled`, its failed requests, are those of all times.
    """

    provider: str
    endpoint: CostEndpoint | None
    pending: Pending
    due: int = 0
    last_day: Mapping[str, int] = field(default_factory=dict)
    trouble: str | None = None
    trouble_us: int | None = None
    open_disputes: int = 0
    unbilled: int = 0

    @property
    def recovered(self) -> bool:
        """Whether the provider answered since the trouble."""
        at = self.endpoint
        if at is None or at.last_answer_us is None or self.trouble_us is None or at.failures:
            return False
        return at.last_answer_us >= self.trouble_us


async def pending_by_provider(connection: AsyncConnection) -> dict[str, Pending]:
    """What is pending, counted from an index alone; of millions it still takes a while."""
    query = sa.select(usage.c.provider, sa.func.count(), sa.func.min(usage.c.id)).where(PENDING)
    found = (await connection.execute(query.group_by(usage.c.provider))).all()
    received: dict[int, int] = {}
    for some in batched([row[2] for row in found]):
        first = sa.select(usage.c.id, usage.c.received_at_us).where(usage.c.id.in_(some))
        received |= {row.id: row.received_at_us for row in await connection.execute(first)}
    return {row[0]: Pending(row[1], received[row[2]]) for row in found}


async def all_standings(connection: AsyncConnection, now_us: int) -> list[Standing]:
    """Every provider with an endpoint, or with something pending, disputed or unbilled, by name."""
    registered = {each.provider: each for each in await list_all(connection)}
    pending = await pending_by_provider(connection)
    due = {
        row[0]: row[1]
        for row in await connection.execute(
            sa.select(usage.c.provider, sa.func.count())
            .where(PENDING, usage.c.next_ask_us <= now_us)
            .group_by(usage.c.provider)
        )
    }
    sums = sa.select(batches.c.provider, *(sa.func.sum(batches.c[name]) for name in _COUNTED)).where(
        batches.c.at_us >= now_us - DAY_US, batches.c.outcome != RECHECKED
    )
    last_day = {
        row[0]: dict(zip(_COUNTED, map(int, row[1:]), strict=True))
        for row in await connection.execute(sums.group_by(batches.c.provider))
    }
    latest = (
        sa.select(sa.func.max(batches.c.id))
        .where(batches.c.outcome.not_in([ANSWERED, RECHECKED]))
        .group_by(batches.c.provider)
    )
    troubles = {
        row.provider: row
        for row in await connection.execute(
            sa.select(batches.c.provider, batches.c.outcome, batches.c.detail, batches.c.at_us).where(
                batches.c.id.in_(latest)
            )
        )
    }
    open_disputes = await _counted(connection, disputes, disputes.c.resolved_at_us.is_(None))
    unbilled = await _counted(connection, usage, usage.c.state == "unbilled")
    return [
        Standing(
            provider,
            registered.get(provider),
            pending.get(provider, Pending()),
            due.get(provider, 0),
            last_day.get(provider, dict.fromkeys(_COUNTED, 0)),
            troubles[provider].detail if provider in troubles else None,
            troubles[provider].at_us if provider in troubles else None,
            open_disputes.get(provider, 0),
            unbilled.get(provider, 0),
        )
        for provider in sorted(registered.keys() | pending.keys() | open_disputes.keys() | unbilled.keys())
    ]


async def _counted(connection: AsyncConnection, table: sa.Table, which: sa.ColumnElement[bool]) -> dict[str, int]:
    query = sa.select(table.c.provider, sa.func.count()).where(which).group_by(table.c.provider)
    return {row[0]: row[1] for row in await connection.execute(query)}
