"""Mappings: find, create, change, remove."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api.change import (
    MAPPING_CHANGED,
    MAPPING_CREATED,
    MAPPING_REMOVED,
    MAPPING_STATUS_CHANGED,
    Change,
)
from roadworthy.mapping_api.errors import Conflict
from roadworthy.mapping_api.names import new_id
from roadworthy.mapping_api.records import Item, Mapping, Status
from roadworthy.mapping_api.tables import mappings, removals


def from_row(row: Any) -> Mapping:
    """A row of the table as a record."""
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it
    values["tags"] = None if values["tags"] is None else tuple(values["tags"])
    return Mapping(**values)


async def of_provider(connection: AsyncConnection, provider: str) -> list[Mapping]:
    """Every mapping of a provider, by task and source."""
    query = sa.select(mappings).where(mappings.c.provider == provider).order_by(mappings.c.task, mappings.c.source)
    return [from_row(row) for row in await connection.execute(query)]


async def find(connection: AsyncConnection, provider: str, mapping_id: str) -> Mapping | None:
    """The provider's mapping with that id."""
    query = sa.select(mappings).where(mappings.c.provider == provider, mappings.c.id == mapping_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else from_row(row)


async def find_source(connection: AsyncConnection, provider: str, task: str, source: str) -> Mapping | None:
    """The provider's mapping of that model or tag filter for that task."""
    query = sa.select(mappings).where(
        mappings.c.provider == provider, mappings.c.task == task, mappings.c.source == source
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else from_row(row)


async def create(change: Change, provider: str, item: Item) -> Mapping:
    """A new mapping, `staging` unless the item says otherwise. Raises `Conflict` where it exists already."""
    existing = await find_source(change.connection, provider, item.task, item.source)
    if existing is not None:
        raise Conflict(
            f"{provider} already maps {item.source} for {item.task}, as {existing.id}. "
            "Change its status, or delete it and map it again",
            existing.id,
        )
    mapping = Mapping(
        id=new_id(),
        provider=provider,
        task=item.task,
        source=item.source,
        hf_model=item.hf_model,
        tags=None if item.tags is None else tuple(sorted(item.tags)),
        provider_model=item.provider_model,
        adapter_type=item.adapter_type,
        status=item.status or "staging",
        created_at_us=change.now_us,
        updated_at_us=change.now_us,
        revision=change.revision,
    )
    await change.connection.execute(mappings.insert().values(**_columns(mapping)))
    await _tell(change, MAPPING_CREATED, mapping, None, mapping.in_full())
    return mapping


async def set_status(change: Change, mapping: Mapping, status: Status) -> Mapping:
    """The mapping with another status. Asked for the one it has, it changes nothing."""
    return await amend(change, mapping, status=status, provider_model=mapping.provider_model)


async def amend(change: Change, mapping: Mapping, *, status: Status, provider_model: str) -> Mapping:
    """The mapping with another status or provider model. Asked for what it has, it changes nothing."""
    if (mapping.status, mapping.provider_model) == (status, provider_model):
        return mapping
    after = {"status": status, "provider_model": provider_model}
    stamps = {"updated_at_us": change.now_us, "revision": change.revision}
    await change.connection.execute(mappings.update().where(mappings.c.id == mapping.id).values(**after, **stamps))
    changed = from_columns(_columns(mapping) | after | stamps)
    kind = MAPPING_CHANGED if provider_model != mapping.provider_model else MAPPING_STATUS_CHANGED
    await _tell(change, kind, mapping, mapping.in_full(), changed.in_full())
    return changed


async def remove(change: Change, mapping: Mapping) -> None:
    """Remove a mapping, with its published verdict. The audit log keeps what it was."""
    await change.connection.execute(mappings.delete().where(mappings.c.id == mapping.id))
    await change.connection.execute(
        removals.insert().values(revision=change.revision, mapping_id=mapping.id, provider=mapping.provider)
    )
    await _tell(change, MAPPING_REMOVED, mapping, mapping.in_full(), None)


def from_columns(values: dict[str, Any]) -> Mapping:
    """A record from its columns."""
    return Mapping(**values)


def _columns(mapping: Mapping) -> dict[str, Any]:
    return {column.name: getattr(mapping, column.name) for column in mappings.c}


async def _tell(change: Change, type: str, mapping: Mapping, before: Any, after: Any) -> None:
    await change.record(type, mapping.id, provider=mapping.provider, before=before, after=after)
    await change.announce(type, mapping.provider, mapping.id, {"before": before, "after": after})


def by_source(items: Sequence[Mapping]) -> dict[tuple[str, str], Mapping]:
    """Mappings by what names them within one provider: task and source."""
    return {(mapping.task, mapping.source): mapping for mapping in items}
