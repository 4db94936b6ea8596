"""Where each provider's API is: found, registered, removed, and its key sealed for one origin alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import insert
from roadworthy.http.urls import origin
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.tables import mappings
from roadworthy.sealing import Sealer
from roadworthy.validator.endpoint import Endpoint, EndpointOptions
from roadworthy.validator.schedule import Urgency
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.tables import endpoints

ENDPOINT_SET = "endpoint.set"
ENDPOINT_REMOVED = "endpoint.removed"
PAUSED = "endpoint.paused"
RESUMED = "endpoint.resumed"
QUIET = "endpoint.quiet"
MAX_RUNNING = 4
"""Validations of one provider at once, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A provider's API as it is registered. The key stays sealed."""

    provider: str
    base_url: str
    key_sealed: str | None
    options: EndpointOptions
    max_running: int
    paused_at_us: int | None
    quiet_until_us: int | None
    down_since_us: int | None
    updated_at_us: int

    def opened(self, sealer: Sealer) -> Endpoint:
        """With its key, for whoever asks. Raises `SealingError`."""
        key = None
        if self.key_sealed is not None:
            key = sealer.open(self.key_sealed, key_context(self.provider, self.base_url))
        options = self.options if self.down_since_us is None else self.options.hurried()
        return Endpoint(provider=self.provider, base_url=self.base_url, api_key=key, options=options)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to register. `key`: the one to send; None is none. `keep_key`: the one that is there, at its own origin."""

    base_url: str
    key: str | None = None
    keep_key: bool = False
    options: EndpointOptions = field(default_factory=EndpointOptions)
    max_running: int = MAX_RUNNING


def key_context(provider: str, base_url: str) -> str:
    """What a sealed key is bound to: whoever changes the URL in the database gains nothing."""
    return f"endpoint:{provider}:{origin(base_url)}"


async def find(connection: AsyncConnection, provider: str) -> Registered | None:
    """The provider's API, if one is registered."""
    row = (await connection.execute(sa.select(endpoints).where(endpoints.c.provider == provider))).one_or_none()
    return None if row is None else _from_row(row)


async def list_all(connection: AsyncConnection) -> list[Registered]:
    """Every provider's API, by slug."""
    return [_from_row(row) for row in await connection.execute(sa.select(endpoints).order_by(endpoints.c.provider))]


def _from_row(row: Any) -> Registered:
    return Registered(
        row.provider,
        row.base_url,
        row.key_sealed,
        EndpointOptions.model_validate(row.options),
        row.max_running,
        row.paused_at_us,
        row.quiet_until_us,
        row.down_since_us,
        row.updated_at_us,
    )


async def register(change: Change, sealer: Sealer, provider: str, wanted: Wanted) -> Registered:
    """Register the provider's API, or change it; its mappings are validated at once. Raises `SealingError`."""
    before = await find(change.connection, provider)
    sealed = sealer.seal(wanted.key, key_context(provider, wanted.base_url)) if wanted.key else None
    if wanted.keep_key and before is not None and origin(before.base_url) == origin(wanted.base_url):
        sealed = before.key_sealed
    values: dict[str, Any] = {
        "base_url": wanted.base_url,
        "key_sealed": sealed,
        "options": wanted.options.model_dump(mode="json"),
        "max_running": wanted.max_running,
        "updated_at_us": change.now_us,
    }
    moved = before is None or (before.base_url, before.key_sealed, before.options) != (
        wanted.base_url,
        sealed,
        wanted.options,
    )
    if moved:
        # What was found out about it was found elsewhere.
        values |= {"down_since_us": None, "next_canary_us": None}
    statement = insert(change.connection, endpoints).values(provider=provider, **values)
    await change.connection.execute(statement.on_conflict_do_update(index_elements=["provider"], set_=values))
    after = await find(change.connection, provider)
    assert after is not None
    if moved:
        ids = (
            await change.connection.execute(sa.select(mappings.c.id).where(mappings.c.provider == provider))
        ).scalars()
        await due_rows.bring_forward(change.connection, ids, change.now_us, Urgency.AT_ONCE)
    was = None if before is None else _audited(before)
    await change.record(ENDPOINT_SET, provider, provider=provider, before=was, after=_audited(after))
    return after


async def remove(change: Change, provider: str) -> bool:
    """Forget the provider's API and key: its mappings are not validated any more. False where there is none."""
    before = await find(change.connection, provider)
    if before is None:
        return False
    await change.connection.execute(endpoints.delete().where(endpoints.c.provider == provider))
    await change.record(ENDPOINT_REMOVED, provider, provider=provider, before=_audited(before))
    return True


async def set_paused(change: Change, provider: str, *, paused: bool) -> None:
    """Run nothing of the provider's, or run it again."""
    at_us = change.now_us if paused else None
    await change.connection.execute(
        endpoints.update().where(endpoints.c.provider == provider).values(paused_at_us=at_us)
    )
    await change.record(PAUSED if paused else RESUMED, provider, provider=provider)


async def set_quiet(change: Change, provider: str, until_us: int | None) -> None:
    """Maintenance until then: its failures are expected."""
    await change.connection.execute(
        endpoints.update().where(endpoints.c.provider == provider).values(quiet_until_us=until_us)
    )
    await change.record(QUIET, provider, provider=provider, after={"until_us": until_us})


async def reseal(change: Change, sealer: Sealer) -> int:
    """Seal every key with the sealer's first key; how many were under another. Raises `SealingError`."""
    stale = [
        each
        for each in await list_all(change.connection)
        if each.key_sealed is not None and sealer.stale(each.key_sealed)
    ]
    for each in stale:
        assert each.key_sealed is not None
        context = key_context(each.provider, each.base_url)
        again = sealer.seal(sealer.open(each.key_sealed, context), context)
        await change.connection.execute(
            endpoints.update().where(endpoints.c.provider == each.provider).values(key_sealed=again)
        )
    return len(stale)


def _audited(registered: Registered) -> dict[str, Any]:
    return {
        "baseUrl": registered.base_url,
        "hasKey": registered.key_sealed is not None,
        "options": registered.options.model_dump(mode="json", exclude_defaults=True),
        "maxRunning": registered.max_running,
    }
