"""Prices as they are kept: versions are added, and none is ever changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.prices import Version
from roadworthy.billing.tables import prices

CAPTURED = "models"
"""The source of prices that a provider's own `/v1/models` told."""

_ORDER = (prices.c.provider, prices.c.model, prices.c.unit, prices.c.valid_from_us, prices.c.id)


async def add(connection: AsyncConnection, versions: Sequence[Version]) -> None:
    """Record versions. None is compared with what is there: each is what somebody said."""
    if versions:
        await connection.execute(
            prices.insert(),
            [{name: getattr(one, name) for name in Version.__dataclass_fields__ if name != "id"} for one in versions],
        )


async def versions(
    connection: AsyncConnection,
    provider: str | None = None,
    model: str | None = None,
    source: str | None = None,
) -> list[Version]:
    """Every version, or those of a provider, of a model, of a source; by model, unit and time."""
    query = sa.select(*(prices.c[name] for name in Version.__dataclass_fields__)).order_by(*_ORDER)
    for column, wanted in ((prices.c.provider, provider), (prices.c.model, model), (prices.c.source, source)):
        if wanted is not None:
            query = query.where(column == wanted)
    return [Version(*row) for row in await connection.execute(query)]


async def record_published(
    connection: AsyncConnection, provider: str, found: Mapping[str, Mapping[str, int]], now_us: int
) -> list[Version]:
    """Record what a provider publishes now, by hub model and unit, where it changed; what was recorded.

    Compared is with what it published last, so that a price which an operator set stays until the provider
    changes its own.
    """
    last = {
        (one.model, one.unit): one.nano_usd_per_million
        for one in sorted(await versions(connection, provider, source=CAPTURED), key=lambda version: version.id)
    }
    new = [
        Version(provider, model, unit, price, now_us, now_us, CAPTURED)
        for model, units in sorted(found.items())
        for unit, price in sorted(units.items())
        if last.get((model, unit)) != price
    ]
    await add(connection, new)
    return new
