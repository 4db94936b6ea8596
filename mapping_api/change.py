"""One change: a transaction that takes the next revision, does its work, and leaves its mark in the audit log."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database
from roadworthy.mapping_api.tables import audit, deliveries, events, revisions, webhooks

EventType = Literal[
    "mapping.created",
    "mapping.status_changed",
    "mapping.changed",
    "mapping.removed",
    "mapping.taken_off",
    "mapping.brought_back",
    "mapping.degraded",
    "mapping.recovered",
    "provider.down",
    "provider.up",
]
"""What webhooks are sent, if they want it."""
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change: a member by a token, or the operator at the command line.

    `confirm` raises where he may do so no longer, by the open transaction and its time: a
    request may wait long between its authentication and its change.
    """

    name: str
    token_id: str | None = None
    request_id: str | None = None
    confirm: Callable[[AsyncConnection, int], Awaitable[None]] | None = field(default=None, compare=False, repr=False)


OPERATOR = Actor("operator")


@dataclass(frozen=True, slots=True)
class News:
    """What happened to one mapping: `before` is None for a new one, `after` for one that is gone."""

    type: EventType
    mapping_id: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """The open transaction. `revision` is this change's number, `now_us` its time by the database's clock."""

    connection: AsyncConnection
    revision: int
    now_us: int
    actor: Actor

    async def record(
        self,
        action: str,
        subject: str,
        *,
        provider: str | None = None,
        organisation_id: str | None = None,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """Write one line of the audit log. `before` and `after` are JSON values without secrets."""
        await self.connection.execute(
            audit.insert(),
            [self._line(action, subject, before, after, provider=provider, organisation_id=organisation_id)],
        )

    def new_event_id(self) -> str:
        """An id for an event of this change. Ids sort by revision, so that a reader can go on after any of them."""
        return f"evt_{self.revision:012x}{secrets.token_hex(8)}"

    async def announce(self, type: str, provider: str, mapping_id: str, data: dict[str, Any]) -> None:
        """Record an event, and a delivery to each webhook of the provider that wants its type."""
        await self._announce(provider, [self._event(type, provider, mapping_id, data)])

    async def announce_all(self, provider: str, told: Sequence[tuple[str, str | None, dict[str, Any]]]) -> None:
        """Announce events of one provider in few statements: of each its type, its mapping if any, and its data."""
        if told:
            await self._announce(provider, [self._event(type, provider, of, data) for type, of, data in told])

    async def tell(self, provider: str, news: Sequence[News]) -> None:
        """Write an audit line and announce an event for each change of the provider's mappings, in few statements."""
        if not news:
            return
        lines = [self._line(one.type, one.mapping_id, one.before, one.after, provider=provider) for one in news]
        await self.connection.execute(audit.insert(), lines)
        changed = [
            self._event(one.type, provider, one.mapping_id, {"before": one.before, "after": one.after}) for one in news
        ]
        await self._announce(provider, changed)

    def _line(
        self,
        action: str,
        subject: str,
        before: Any,
        after: Any,
        *,
        provider: str | None,
        organisation_id: str | None = None,
    ) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "at_us": self.now_us,
            "actor": self.actor.name,
            "token_id": self.actor.token_id,
            "request_id": self.actor.request_id,
            "organisation_id": organisation_id,
            "provider": provider,
            "action": action,
            "subject": subject,
            "before": before,
            "after": after,
        }

    def _event(self, type: str, provider: str, mapping_id: str | None, data: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.new_event_id(),
            "revision": self.revision,
            "at_us": self.now_us,
            "type": type,
            "provider": provider,
            "mapping_id": mapping_id,
            "data": data,
        }

    async def _announce(self, provider: str, new_events: list[dict[str, Any]]) -> None:
        await self.connection.execute(events.insert(), new_events)
        query = sa.select(webhooks.c.id, webhooks.c.event_types).where(
            webhooks.c.provider == provider, webhooks.c.removed_at_us.is_(None), webhooks.c.disabled_at_us.is_(None)
        )
        wanting = (await self.connection.execute(query)).all()
        rows = [
            {"event_id": new["id"], "webhook_id": hook.id, "due_at_us": self.now_us, "fence": 0, "attempts": 0}
            for hook in wanting
            for new in new_events
            if new["type"] in hook.event_types
        ]
        if rows:
            await self.connection.execute(deliveries.insert(), rows)


@asynccontextmanager
async def change(database: Database, actor: Actor) -> AsyncIterator[Change]:
    """A transaction with the next revision. Committed whole at the end; an exception undoes all of it.

    Taking the revision locks its row, so changes come one after another on every database, and
    a reader that saw revision N has seen all before it. A token that was revoked in an earlier
    change changes nothing any more. Raises `DatabaseUnavailableError`, and what `actor.confirm` does.
    """
    async with database.writing() as connection:
        taken = await connection.execute(
            revisions.update().values(value=revisions.c.value + 1).returning(revisions.c.value)
        )
        opened = Change(connection, taken.scalar_one(), await database.now_us(connection), actor)
        if actor.confirm is not None:
            await actor.confirm(connection, opened.now_us)
        yield opened
