"""Webhooks and their deliveries: registered, claimed for sending, settled.

Deliveries are claimed and settled outside `change`: they alter nothing that the service publishes, and
taking a revision for each would make every reader look at the database anew.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.errors import BadRequest
from roadworthy.mapping_api.names import new_id
from roadworthy.mapping_api.store.events import Event
from roadworthy.mapping_api.tables import deliveries, events, webhooks
from roadworthy.sealing import Sealer

MAX_PER_PROVIDER = 20
SECRET_PREFIX = "whsec_"  # noqa: S105  not a secret, but how one begins (Standard Webhooks 1.0)
_SECRET_BYTES = 32
_ACTIVE = sa.and_(webhooks.c.removed_at_us.is_(None), webhooks.c.disabled_at_us.is_(None))


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where events are sent. Disabled ones get no more until they are registered anew."""

    id: str
    provider: str
    url: str
    event_types: tuple[str, ...]
    created_at_us: int
    disabled_at_us: int | None
    disabled_reason: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one event fares with one webhook. `due_at_us` is None once it is delivered or given up."""

    event: Event
    attempts: int
    due_at_us: int | None
    last_attempt_at_us: int | None
    delivered_at_us: int | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """One delivery that is ours to send until the lease ends. `fence` is its number: an older one settles nothing."""

    event: Event
    webhook_id: str
    url: str
    secret_sealed: str
    fence: int
    attempts: int
    claimed_at_us: int


def secret_context(webhook_id: str) -> str:
    """What a webhook's sealed secret is bound to."""
    return f"webhooks/{webhook_id}/secret"


async def create(
    change: Change, provider: str, url: str, event_types: Sequence[str], sealer: Sealer
) -> tuple[Webhook, str]:
    """A new webhook, and its secret: shown this once. Raises `BadRequest` for one too many, `SealingError`."""
    if len(await of_provider(change.connection, provider)) >= MAX_PER_PROVIDER:
        raise BadRequest(f"{provider} has {MAX_PER_PROVIDER} webhooks, which is the limit; delete one first")
    webhook = Webhook(new_id(), provider, url, tuple(event_types), change.now_us, None, None)
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    await change.connection.execute(
        webhooks.insert().values(
            id=webhook.id,
            provider=provider,
            url=url,
            event_types=list(event_types),
            secret_sealed=sealer.seal(secret, secret_context(webhook.id)),
            created_at_us=change.now_us,
        )
    )
    await change.record("webhook.created", webhook.id, provider=provider, after=_audited(webhook))
    return webhook, secret


async def of_provider(connection: AsyncConnection, provider: str) -> list[Webhook]:
    """The provider's webhooks, oldest first."""
    query = sa.select(webhooks).where(webhooks.c.provider == provider, webhooks.c.removed_at_us.is_(None))
    rows = await connection.execute(query.order_by(webhooks.c.created_at_us, webhooks.c.id))
    return [_from_row(row) for row in rows]


async def find(connection: AsyncConnection, provider: str, webhook_id: str) -> Webhook | None:
    """The provider's webhook with that id."""
    query = sa.select(webhooks).where(
        webhooks.c.provider == provider, webhooks.c.id == webhook_id, webhooks.c.removed_at_us.is_(None)
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def remove(change: Change, webhook: Webhook) -> None:
    """Send it nothing more, and forget its secret."""
    await change.connection.execute(
        webhooks.update().where(webhooks.c.id == webhook.id).values(removed_at_us=change.now_us, secret_sealed="")
    )
    await _drop_pending(change.connection, webhook.id, "the webhook was deleted")
    await change.record("webhook.removed", webhook.id, provider=webhook.provider, before=_audited(webhook))


async def disable(change: Change, webhook_id: str, reason: str) -> None:
    """Send it nothing more, and say why."""
    row = (
        await change.connection.execute(
            webhooks.update()
            .where(webhooks.c.id == webhook_id, _ACTIVE)
            .values(disabled_at_us=change.now_us, disabled_reason=reason)
            .returning(webhooks.c.provider)
        )
    ).one_or_none()
    await _drop_pending(change.connection, webhook_id, f"the webhook was disabled: {reason}")
    if row is not None:
        await change.record("webhook.disabled", webhook_id, provider=row.provider, after={"reason": reason})


async def reseal(change: Change, sealer: Sealer) -> int:
    """Seal every secret with the sealer's first key; how many were under another. Raises `SealingError`."""
    rows = await change.connection.execute(
        sa.select(webhooks.c.id, webhooks.c.secret_sealed).where(webhooks.c.removed_at_us.is_(None))
    )
    stale = [row for row in rows if sealer.stale(row.secret_sealed)]
    for row in stale:
        context = secret_context(row.id)
        again = sealer.seal(sealer.open(row.secret_sealed, context), context)
        await change.connection.execute(webhooks.update().where(webhooks.c.id == row.id).values(secret_sealed=again))
    await change.record("secrets.resealed", f"{len(stale)} webhooks")
    return len(stale)


async def deliveries_of(connection: AsyncConnection, webhook_id: str, limit: int = 50) -> list[Delivery]:
    """How the latest events fare with this webhook, newest first."""
    query = (
        sa.select(deliveries, events)
        .join(events, events.c.id == deliveries.c.event_id)
        .where(deliveries.c.webhook_id == webhook_id)
        .order_by(events.c.revision.desc(), events.c.id.desc())
        .limit(limit)
    )
    return [
        Delivery(
            Event(row.id, row.revision, row.at_us, row.type, row.provider, row.mapping_id, row.data),
            row.attempts,
            row.due_at_us,
            row.last_attempt_at_us,
            row.delivered_at_us,
            row.last_status,
            row.last_error,
        )
        for row in await connection.execute(query)
    ]


def _free(now_us: int) -> sa.ColumnElement[bool]:
    return sa.and_(
        deliveries.c.due_at_us <= now_us,
        sa.or_(deliveries.c.lease_until_us.is_(None), deliveries.c.lease_until_us <= now_us),
    )


async def with_something_due(connection: AsyncConnection, now_us: int) -> list[str]:
    """The ids of the webhooks for which something waits to be sent; who waits longest comes first."""
    oldest = (
        sa.select(deliveries.c.due_at_us)
        .where(deliveries.c.webhook_id == webhooks.c.id, _free(now_us))
        .order_by(deliveries.c.due_at_us)
        .limit(1)
        .scalar_subquery()
    )
    rows = await connection.execute(sa.select(webhooks.c.id, oldest.label("oldest")).where(_ACTIVE))
    waiting = [(row.oldest, row.id) for row in rows if row.oldest is not None]
    return [webhook_id for _, webhook_id in sorted(waiting)]


async def claim(connection: AsyncConnection, webhook_id: str, now_us: int, lease_us: int) -> Claim | None:
    """The next delivery of a webhook, leased. Two who ask at once get different ones."""
    webhook = (
        await connection.execute(
            sa.select(webhooks.c.url, webhooks.c.secret_sealed).where(webhooks.c.id == webhook_id, _ACTIVE)
        )
    ).one_or_none()
    if webhook is None:
        return None
    # A CTE, since PostgreSQL may run a subquery with a limit more than once, and lock more rows each time.
    following = (
        sa.select(deliveries.c.event_id)
        .where(deliveries.c.webhook_id == webhook_id, _free(now_us))
        .order_by(deliveries.c.due_at_us, deliveries.c.event_id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("following")
    )
    row = (
        await connection.execute(
            deliveries.update()
            .where(
                deliveries.c.webhook_id == webhook_id,
                deliveries.c.event_id == sa.select(following.c.event_id).scalar_subquery(),
            )
            .values(lease_until_us=now_us + lease_us, fence=deliveries.c.fence + 1)
            .returning(deliveries.c.event_id, deliveries.c.fence, deliveries.c.attempts)
        )
    ).one_or_none()
    if row is None:
        return None
    event = (await connection.execute(sa.select(events).where(events.c.id == row.event_id))).one()
    return Claim(
        event=Event(event.id, event.revision, event.at_us, event.type, event.provider, event.mapping_id, event.data),
        webhook_id=webhook_id,
        url=webhook.url,
        secret_sealed=webhook.secret_sealed,
        fence=row.fence,
        attempts=row.attempts,
        claimed_at_us=now_us,
    )


async def settle(
    connection: AsyncConnection, claimed: Claim, now_us: int, *, due_at_us: int | None, **outcome: Any
) -> bool:
    """Write how a claimed delivery went and end its lease. False: it was claimed anew since, and nothing is written.

    What was called off meanwhile, since its webhook was deleted or disabled, is not due again.
    """
    still_due = sa.case((deliveries.c.due_at_us.is_not(None), sa.literal(due_at_us, sa.BigInteger)))
    done = await connection.execute(
        deliveries.update()
        .where(
            deliveries.c.event_id == claimed.event.id,
            deliveries.c.webhook_id == claimed.webhook_id,
            deliveries.c.fence == claimed.fence,
        )
        .values(lease_until_us=None, last_attempt_at_us=now_us, due_at_us=still_due, **outcome)
    )
    return done.rowcount == 1


async def _drop_pending(connection: AsyncConnection, webhook_id: str, why: str) -> None:
    await connection.execute(
        deliveries.update()
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.due_at_us.is_not(None))
        .values(due_at_us=None, lease_until_us=None, last_error=why)
    )


def _from_row(row: Any) -> Webhook:
    return Webhook(
        row.id,
        row.provider,
        row.url,
        tuple(row.event_types),
        row.created_at_us,
        row.disabled_at_us,
        row.disabled_reason,
    )


def _audited(webhook: Webhook) -> dict[str, Any]:
    """The webhook without the path and query of its URL: many receivers put a secret there."""
    parts = urlsplit(webhook.url)
    return {"origin": f"{parts.scheme}://{parts.netloc}", "eventTypes": list(webhook.event_types)}
