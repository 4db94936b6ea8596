"""Where each provider tells its costs. The key is sealed, and bound to the origin of the URL."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.tables import cost_endpoints
from roadworthy.database import insert
from roadworthy.http.urls import base_url_of, origin
from roadworthy.sealing import Sealer


@dataclass(frozen=True, slots=True)
class CostEndpoint:
    """A provider's cost endpoint as it is registered. The key stays sealed."""

    provider: str
    url: str
    key_sealed: str | None
    paused_at_us: int | None
    next_turn_us: int
    failures: int
    batch_limit: int
    last_answer_us: int | None
    answering_since_us: int | None
    next_recheck_us: int | None
    updated_at_us: int


def cost_url_of(text: str) -> str:
    """The URL of a cost endpoint. Raises `UsageError`. A slash at its end stays: to some servers it is another page."""
    url = base_url_of(text, "a cost endpoint's URL", "https://api.example.com/v1/request-costs")
    return f"{url}/" if text.endswith("/") and url != origin(url) else url


def key_context(provider: str, url: str) -> str:
    """What a sealed key is bound to: whoever changes the URL in the database gains nothing."""
    return f"cost_endpoint:{provider}:{origin(url)}"


async def find(connection: AsyncConnection, provider: str) -> CostEndpoint | None:
    """The provider's cost endpoint, if one is registered."""
    query = sa.select(cost_endpoints).where(cost_endpoints.c.provider == provider)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def list_all(connection: AsyncConnection) -> list[CostEndpoint]:
    """Every cost endpoint, by provider."""
    query = sa.select(cost_endpoints).order_by(cost_endpoints.c.provider)
    return [_from_row(row) for row in await connection.execute(query)]


async def register(
    connection: AsyncConnection,
    sealer: Sealer,
    provider: str,
    url: str,
    now_us: int,
    *,
    key: str | None = None,
    keep_key: bool = False,
    batch_size: int,
) -> None:
    """Register a provider's cost endpoint, or change it; it is asked soon. Raises `SealingError`.

    `keep_key` keeps the key that is there, as long as scheme, host and port stay.
    """
    before = await find(connection, provider)
    sealed = sealer.seal(key, key_context(provider, url)) if key else None
    if keep_key and before is not None and origin(before.url) == origin(url):
        sealed = before.key_sealed
    values: dict[str, Any] = {
        "url": url,
        "key_sealed": sealed,
        "next_turn_us": now_us,
        "failures": 0,
        "batch_limit": batch_size,
        "answering_since_us": None,
        "updated_at_us": now_us,
    }
    # Never a number that an endpoint had which was removed meanwhile: a collector may still be asking that one.
    fence = secrets.randbelow(2**60)
    statement = insert(connection, cost_endpoints).values(provider=provider, fence=fence, **values)
    # A collector that is asking the old address must not settle under the new one.
    changed = values | {"fence": cost_endpoints.c.fence + 1, "lease_until_us": None}
    await connection.execute(statement.on_conflict_do_update(index_elements=["provider"], set_=changed))


async def reseal(connection: AsyncConnection, sealer: Sealer) -> int:
    """Seal every key with the sealer's first key; how many were under another. Raises `SealingError`."""
    done = 0
    for each in await list_all(connection):
        if each.key_sealed is not None and sealer.stale(each.key_sealed):
            context = key_context(each.provider, each.url)
            again = sealer.seal(sealer.open(each.key_sealed, context), context)
            await connection.execute(
                cost_endpoints.update().where(cost_endpoints.c.provider == each.provider).values(key_sealed=again)
            )
            done += 1
    return done


async def remove(connection: AsyncConnection, provider: str) -> bool:
    """Forget a provider's cost endpoint and key; its pending requests stay. False where there is none."""
    done = await connection.execute(cost_endpoints.delete().where(cost_endpoints.c.provider == provider))
    return done.rowcount == 1


async def set_paused(connection: AsyncConnection, provider: str, paused_at_us: int | None) -> bool:
    """Ask the provider no more, or again. False where no endpoint is registered.

    What is being asked at this moment is not settled: whoever suspends a provider may doubt its costs.
    """
    done = await connection.execute(
        cost_endpoints.update()
        .where(cost_endpoints.c.provider == provider)
        .values(paused_at_us=paused_at_us, fence=cost_endpoints.c.fence + 1, lease_until_us=None)
    )
    return done.rowcount == 1


def _from_row(row: Any) -> CostEndpoint:
    return CostEndpoint(*(getattr(row, name) for name in CostEndpoint.__dataclass_fields__))
