"""Alerts and their deliveries: opened, added to, closed, given to channels, claimed, settled.

An alert is written in the transaction of the change that it tells. Closing and handing out take the
lock of changes (`one_at_a_time`), so that an alert is never added to after it was closed, and a
channel never passes one by.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import batched, insert
from roadworthy.mapping_api.tables import mappings, revisions
from roadworthy.sealing import Sealer
from roadworthy.validator.alerts.kinds import Kind, Severity
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.tables import (
    alert_channels,
    alert_conditions,
    alert_deliveries,
    alerts,
    due,
    endpoints,
    health,
    runs,
    validator_state,
)

FROM_ENVIRONMENT = "env-"
"""How the ids of channels begin whose URLs are in the environment; their place in the list follows."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to people. `subject` is a provider, or empty for the validator itself."""

    id: str
    subject: str
    opened_at_us: int
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Channel:
    """Where alerts go. `kinds` empty: all of them."""

    id: str
    provider: str | None
    url_sealed: str | None
    service: str
    kinds: tuple[str, ...]
    least_severity: Severity
    seen_number: int
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Claim:
    """One delivery that is ours to send until its lease ends."""

    alert: Alert
    channel: Channel
    fence: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that lasts."""

    subject: str
    kind: Kind
    since_us: int
    reminded_at_us: int | None


def url_context(channel_id: str) -> str:
    """What a channel's sealed URL is bound to."""
    return f"alert_channels/{channel_id}/url"


async def one_at_a_time(connection: AsyncConnection) -> None:
    """Wait for the change that is under way, if any, and keep others waiting until this transaction ends."""
    await connection.execute(sa.select(revisions.c.value).with_for_update())


async def open_alert(connection: AsyncConnection, subject: str) -> Alert | None:
    """The alert of that subject that may still be added to."""
    row = (
        await connection.execute(sa.select(alerts).where(alerts.c.subject == subject, alerts.c.number.is_(None)))
    ).first()
    return None if row is None else Alert(row.id, row.subject, row.opened_at_us, row.content)


async def keep_alert(
    connection: AsyncConnection, opened: Alert | None, subject: str, content: dict[str, Any], now_us: int
) -> None:
    """Write a new alert, or the new content of an open one."""
    if opened is not None:
        await connection.execute(alerts.update().where(alerts.c.id == opened.id).values(content=content))
        return
    await connection.execute(
        alerts.insert().values(
            id=f"alr_{now_us:014x}{secrets.token_hex(6)}", subject=subject, opened_at_us=now_us, content=content
        )
    )


async def about_mappings(connection: AsyncConnection, mapping_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """What people call these mappings."""
    if not mapping_ids:
        return {}
    query = sa.select(mappings.c.id, mappings.c.source, mappings.c.task, mappings.c.provider_model).where(
        mappings.c.id.in_(list(mapping_ids))
    )
    return {
        row.id: {"model": row.source, "task": row.task, "provider_model": row.provider_model}
        for row in await connection.execute(query)
    }


async def begin_condition(connection: AsyncConnection, subject: str, kind: Kind, since_us: int) -> bool:
    """Something lasts from now on. False where it already did."""
    done = await connection.execute(
        insert(connection, alert_conditions)
        .values(subject=subject, kind=kind.value, since_us=since_us)
        .on_conflict_do_nothing()
    )
    return done.rowcount == 1


async def end_condition(connection: AsyncConnection, subject: str, kind: Kind | None) -> int | None:
    """It lasts no longer. Since when it did; None where it did not."""
    ended = await connection.execute(
        alert_conditions.delete()
        .where(alert_conditions.c.subject == subject, alert_conditions.c.kind == kind)
        .returning(alert_conditions.c.since_us)
    )
    since_us: int | None = ended.scalar_one_or_none()
    return since_us


async def conditions(connection: AsyncConnection) -> list[Condition]:
    """What lasts now."""
    rows = await connection.execute(sa.select(alert_conditions).order_by(alert_conditions.c.subject))
    return [Condition(row.subject, Kind(row.kind), row.since_us, row.reminded_at_us) for row in rows]


async def reminded(connection: AsyncConnection, condition: Condition, now_us: int) -> None:
    """People were reminded of it."""
    await connection.execute(
        alert_conditions.update()
        .where(alert_conditions.c.subject == condition.subject, alert_conditions.c.kind == condition.kind)
        .values(reminded_at_us=now_us)
    )


async def standing(connection: AsyncConnection, provider: str) -> dict[str, Any]:
    """How the provider's mappings stand: how many there are, and how many are off the list or degraded."""
    query = (
        sa.select(
            sa.func.count(),
            sa.func.sum(sa.case((health.c.active.is_(False), 1), else_=0)),
            sa.func.sum(sa.case((health.c.state == "degraded", 1), else_=0)),
        )
        .select_from(due)
        .outerjoin(health, health.c.mapping_id == due.c.mapping_id)
        .where(due.c.provider == provider)
    )
    mapped, off, degraded = (await connection.execute(query)).one()
    return {"mappings": mapped, "off": off or 0, "degraded": degraded or 0}


async def longest_off(connection: AsyncConnection, provider: str, limit: int) -> list[dict[str, Any]]:
    """The provider's mappings that are off the list, longest first."""
    query = (
        sa.select(
            health.c.mapping_id,
            health.c.since_us,
            health.c.reason,
            mappings.c.source,
            mappings.c.task,
            mappings.c.provider_model,
        )
        .join(mappings, mappings.c.id == health.c.mapping_id)
        .where(mappings.c.provider == provider, health.c.active.is_(False))
        .order_by(health.c.since_us, health.c.mapping_id)
        .limit(limit)
    )
    return [
        {
            "mapping_id": row.mapping_id,
            "at_us": row.since_us,
            "reason": row.reason,
            "model": row.source,
            "task": row.task,
            "provider_model": row.provider_model,
        }
        for row in await connection.execute(query)
    ]


@dataclass(frozen=True, slots=True)
class Freshness:
    """When a run was last published, and since when the first of what may run now has been due."""

    last_run_us: int | None
    due_since_us: int | None

    def stale_since_us(self, now_us: int, after_s: float) -> int | None:
        """Since when validation has stopped; None while it goes on, or has nothing to do."""
        if self.due_since_us is None:
            return None
        since_us = max(self.due_since_us, self.last_run_us or 0)
        return since_us if now_us - since_us > after_s * SECOND_US else None


async def freshness(connection: AsyncConnection, now_us: int) -> Freshness:
    """Whether validation goes on, as the database shows it."""
    last_run_us = (await connection.execute(sa.select(sa.func.max(runs.c.ended_at_us)))).scalar_one()
    query = (
        sa.select(sa.func.min(due.c.due_at_us))
        .join(endpoints, endpoints.c.provider == due.c.provider)
        .where(
            due.c.paused.is_(False),
            due.c.due_at_us <= now_us,
            endpoints.c.paused_at_us.is_(None),
            sa.or_(endpoints.c.next_canary_us.is_(None), endpoints.c.next_canary_us <= now_us),
        )
    )
    return Freshness(last_run_us, (await connection.execute(query)).scalar_one())


async def braked_since_us(connection: AsyncConnection) -> int | None:
    """When the brake went on."""
    since_us: int | None = (await connection.execute(sa.select(validator_state.c.braked_since_us))).scalar_one()
    return since_us


async def ripe(connection: AsyncConnection, now_us: int, digest_us: int) -> list[Alert]:
    """The open alerts that have been held long enough, and whose provider wants to hear of them now."""
    query = (
        sa.select(alerts)
        .outerjoin(endpoints, endpoints.c.provider == alerts.c.subject)
        .where(
            alerts.c.number.is_(None),
            alerts.c.opened_at_us <= now_us - digest_us,
            sa.or_(endpoints.c.quiet_until_us.is_(None), endpoints.c.quiet_until_us <= now_us),
        )
        .order_by(alerts.c.id)
    )
    return [Alert(row.id, row.subject, row.opened_at_us, row.content) for row in await connection.execute(query)]


async def close(connection: AsyncConnection, alert: Alert, content: dict[str, Any], now_us: int) -> None:
    """Nothing more is added to it; it gets the next number."""
    number = await newest_number(connection) + 1
    await connection.execute(
        alerts.update().where(alerts.c.id == alert.id).values(number=number, closed_at_us=now_us, content=content)
    )


async def channels(connection: AsyncConnection, provider: str | None = None) -> list[Channel]:
    """The channels, oldest first; of one provider where one is named."""
    query = sa.select(alert_channels).order_by(alert_channels.c.created_at_us, alert_channels.c.id)
    if provider is not None:
        query = query.where(alert_channels.c.provider == provider)
    return [_channel(row) for row in await connection.execute(query)]


async def add_channel(connection: AsyncConnection, channel: Channel) -> None:
    """A new channel, which hears of what is closed from now on."""
    await connection.execute(
        insert(connection, alert_channels)
        .values(
            id=channel.id,
            provider=channel.provider,
            url_sealed=channel.url_sealed,
            service=channel.service,
            kinds=list(channel.kinds),
            least_severity=channel.least_severity,
            seen_number=await newest_number(connection),
            created_at_us=channel.created_at_us,
        )
        .on_conflict_do_nothing()
    )


async def remove_channel(connection: AsyncConnection, channel_id: str) -> Channel | None:
    """Send it nothing more, and forget its URL. The channel as it was; None where there is none."""
    await connection.execute(alert_deliveries.delete().where(alert_deliveries.c.channel_id == channel_id))
    query = alert_channels.delete().where(alert_channels.c.id == channel_id).returning(*alert_channels.c)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _channel(row)


async def reseal(connection: AsyncConnection, sealer: Sealer) -> int:
    """Seal every channel's URL with the sealer's first key; how many were under another. Raises `SealingError`."""
    stale = [each for each in await channels(connection) if each.url_sealed and sealer.stale(each.url_sealed)]
    for each in stale:
        context = url_context(each.id)
        again = sealer.seal(sealer.open(each.url_sealed or "", context), context)
        await connection.execute(alert_channels.update().where(alert_channels.c.id == each.id).values(url_sealed=again))
    return len(stale)


async def newest_number(connection: AsyncConnection) -> int:
    """The number of the alert that was closed last; 0 where there is none."""
    return int((await connection.execute(sa.select(sa.func.coalesce(sa.func.max(alerts.c.number), 0)))).scalar_one())


async def unseen(connection: AsyncConnection, after_number: int, since_us: int) -> list[tuple[int, Alert]]:
    """Alerts closed after that one, with their numbers; none that was closed before `since_us`."""
    query = (
        sa.select(alerts)
        .where(alerts.c.number > after_number, alerts.c.closed_at_us >= since_us)
        .order_by(alerts.c.number)
    )
    return [
        (row.number, Alert(row.id, row.subject, row.opened_at_us, row.content))
        for row in await connection.execute(query)
    ]


async def hand_out(
    connection: AsyncConnection, channel_id: str, alert_ids: Iterable[str], seen_number: int, now_us: int
) -> None:
    """Give alerts to a channel, and note how far it has seen."""
    for some in batched(alert_ids):
        await connection.execute(
            alert_deliveries.insert(),
            [
                {"alert_id": alert_id, "channel_id": channel_id, "due_at_us": now_us, "fence": 0, "attempts": 0}
                for alert_id in some
            ],
        )
    await connection.execute(
        alert_channels.update().where(alert_channels.c.id == channel_id).values(seen_number=seen_number)
    )


def _free(now_us: int) -> sa.ColumnElement[bool]:
    return sa.and_(
        alert_deliveries.c.due_at_us <= now_us,
        sa.or_(alert_deliveries.c.lease_until_us.is_(None), alert_deliveries.c.lease_until_us <= now_us),
    )


async def with_something_due(connection: AsyncConnection, now_us: int) -> list[str]:
    """The ids of the channels for which something waits to be sent."""
    query = (
        sa.select(alert_deliveries.c.channel_id)
        .where(_free(now_us))
        .group_by(alert_deliveries.c.channel_id)
        .order_by(sa.func.min(alert_deliveries.c.due_at_us))
    )
    return list((await connection.execute(query)).scalars())


async def claim(connection: AsyncConnection, channel_id: str, now_us: int, lease_us: int) -> Claim | None:
    """The oldest alert that waits for a channel, leased. Two who ask at once get different ones."""
    following = (
        sa.select(alert_deliveries.c.alert_id)
        .where(alert_deliveries.c.channel_id == channel_id, _free(now_us))
        .order_by(alert_deliveries.c.alert_id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("following")
    )
    row = (
        await connection.execute(
            alert_deliveries.update()
            .where(
                alert_deliveries.c.channel_id == channel_id,
                alert_deliveries.c.alert_id == sa.select(following.c.alert_id).scalar_subquery(),
            )
            .values(lease_until_us=now_us + lease_us, fence=alert_deliveries.c.fence + 1)
            .returning(alert_deliveries.c.alert_id, alert_deliveries.c.fence, alert_deliveries.c.attempts)
        )
    ).one_or_none()
    if row is None:
        return None
    alert = (await connection.execute(sa.select(alerts).where(alerts.c.id == row.alert_id))).one()
    channel = (await connection.execute(sa.select(alert_channels).where(alert_channels.c.id == channel_id))).one()
    return Claim(
        Alert(alert.id, alert.subject, alert.opened_at_us, alert.content), _channel(channel), row.fence, row.attempts
    )


async def settle(connection: AsyncConnection, claimed: Claim, now_us: int, **outcome: Any) -> bool:
    """Write how a claimed delivery went and end its lease. False: it was claimed anew since, and nothing is written."""
    done = await connection.execute(
        alert_deliveries.update()
        .where(
            alert_deliveries.c.alert_id == claimed.alert.id,
            alert_deliveries.c.channel_id == claimed.channel.id,
            alert_deliveries.c.fence == claimed.fence,
        )
        .values(lease_until_us=None, last_attempt_at_us=now_us, **outcome)
    )
    return done.rowcount == 1


async def pending(connection: AsyncConnection) -> int:
    """How many deliveries are neither done nor given up."""
    query = sa.select(sa.func.count()).select_from(alert_deliveries).where(alert_deliveries.c.due_at_us.is_not(None))
    return int((await connection.execute(query)).scalar_one())


async def forget(connection: AsyncConnection, before_us: int) -> None:
    """Remove alerts that were closed before that time, with their deliveries, unless one waits to be sent."""
    waiting = sa.select(alert_deliveries.c.alert_id).where(alert_deliveries.c.due_at_us.is_not(None))
    newest = sa.select(sa.func.max(alerts.c.number)).scalar_subquery()
    old = sa.select(alerts.c.id).where(
        alerts.c.closed_at_us < before_us, alerts.c.id.not_in(waiting), alerts.c.number < newest
    )
    ids = list((await connection.execute(old.limit(2_000))).scalars())
    for some in batched(ids):
        await connection.execute(alert_deliveries.delete().where(alert_deliveries.c.alert_id.in_(some)))
        await connection.execute(alerts.delete().where(alerts.c.id.in_(some)))


def _channel(row: Any) -> Channel:
    return Channel(
        row.id,
        row.provider,
        row.url_sealed,
        row.service,
        tuple(row.kinds),
        Severity(row.least_severity),
        row.seen_number,
        row.created_at_us,
    )
