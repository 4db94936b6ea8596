"""Reading events: what happened, in the order it happened."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.tables import deliveries, events

EVENT_ID = r"^evt_[0-9a-f]{28}$"
WEBHOOK_TEST = "webhook.test"
_REVISION = slice(len("evt_"), len("evt_") + 12)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `revision` counts the service's changes: of two events of a mapping, the greater is the later."""

    id: str
    revision: int
    at_us: int
    type: str
    provider: str
    mapping_id: str | None
    data: dict[str, Any]

    def content(self) -> dict[str, Any]:
        """What it says: for `data` of a webhook, and for the list of events."""
        about = {"provider": self.provider, "mappingId": self.mapping_id, "revision": self.revision}
        return about | {"before": self.data.get("before"), "after": self.data.get("after")}


def from_row(row: Any) -> Event:
    """A row that holds the columns of the table as a record."""
    return Event(row.id, row.revision, row.at_us, row.type, row.provider, row.mapping_id, row.data)


async def after(
    connection: AsyncConnection,
    event_id: str | None = None,
    *,
    provider: str | None = None,
    types: Collection[str] = (),
    limit: int = 100,
) -> list[Event]:
    """Events after that one, tests of webhooks left out, oldest first; of every provider and type unless told which.

    `event_id` may be one that was pruned since. Ids carry their revision, and changes come one after another,
    so nothing that is written later ever sorts before what was read.
    """
    query = sa.select(events).where(events.c.type != WEBHOOK_TEST)
    if event_id is not None:
        revision = int(event_id[_REVISION], 16)
        query = query.where(
            sa.or_(events.c.revision > revision, sa.and_(events.c.revision == revision, events.c.id > event_id))
        )
    if provider is not None:
        query = query.where(events.c.provider == provider)
    if types:
        query = query.where(events.c.type.in_(sorted(types)))
    return [
        from_row(row) for row in await connection.execute(query.order_by(events.c.revision, events.c.id).limit(limit))
    ]


async def announce_test(change: Change, provider: str, webhook_id: str) -> str:
    """An event of no mapping for one webhook alone, to try it out; its id."""
    event_id = change.new_event_id()
    await change.connection.execute(
        events.insert().values(
            id=event_id, revision=change.revision, at_us=change.now_us, type=WEBHOOK_TEST, provider=provider, data={}
        )
    )
    await change.connection.execute(
        deliveries.insert().values(
            event_id=event_id, webhook_id=webhook_id, due_at_us=change.now_us, fence=0, attempts=0
        )
    )
    return event_id
