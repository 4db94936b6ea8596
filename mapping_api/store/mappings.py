"""Mappings: find, create, change, remove."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import batched
from roadworthy.mapping_api.change import Change, EventType, News
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


def made(change: Change, provider: str, item: Item) -> Mapping:
    """The mapping that an item becomes, `staging` unless the item says otherwise. Nothing is written."""
    return Mapping(
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


async def create(change: Change, provider: str, item: Item) -> Mapping:
    """A new mapping, `staging` unless the item says otherwise. Raises `Conflict` where it exists already."""
    existing = await find_source(change.connection, provider, item.task, item.source)
    if existing is not None:
        raise Conflict(
            f"{provider} already maps {item.source} for {item.task}, as {existing.id}. "
            "Change its status, or delete it and map it again",
            existing.id,
        )
    mapping = made(change, provider, item)
    await rewrite(change, provider, added=[mapping])
    return mapping


async def set_status(change: Change, mapping: Mapping, status: Status) -> Mapping:
    """The mapping with another status. Asked for the one it has, it changes nothing."""
    return await amend(change, mapping, status=status, provider_model=mapping.provider_model)


async def amend(change: Change, mapping: Mapping, *, status: Status, provider_model: str) -> Mapping:
    """The mapping with another status or provider model. Asked for what it has, it changes nothing."""
    if (mapping.status, mapping.provider_model) == (status, provider_model):
        return mapping
    changed = amended(change, mapping, status=status, provider_model=provider_model)
    await rewrite(change, mapping.provider, changed=[(mapping, changed)])
    return changed


def amended(change: Change, mapping: Mapping, *, status: Status, provider_model: str) -> Mapping:
    """The mapping as this change makes it. Nothing is written."""
    return replace(
        mapping,
        status=status,
        provider_model=provider_model,
        updated_at_us=change.now_us,
        revision=change.revision,
    )


async def remove(change: Change, mapping: Mapping) -> None:
    """Remove a mapping, with its published verdict. The audit log keeps what it was."""
    await rewrite(change, mapping.provider, removed=[mapping])


async def rewrite(
    change: Change,
    provider: str,
    *,
    added: Sequence[Mapping] = (),
    changed: Sequence[tuple[Mapping, Mapping]] = (),
    removed: Sequence[Mapping] = (),
) -> None:
    """Write any number of changes to a provider's mappings, with an audit line and an event for each.

    A handful of statements whatever the number. `changed` holds each mapping as it was and as it is to be.
    """
    execute = change.connection.execute
    for some in batched(mapping.id for mapping in removed):
        await execute(mappings.delete().where(mappings.c.id.in_(some)))
    if removed:
        gone = [{"revision": change.revision, "mapping_id": old.id, "provider": provider} for old in removed]
        await execute(removals.insert(), gone)
    if changed:
        binds: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in _AMENDED}
        await execute(
            mappings.update().where(mappings.c.id == sa.bindparam("old_id")).values(**binds),
            [{"old_id": new.id} | {f"new_{name}": getattr(new, name) for name in _AMENDED} for _, new in changed],
        )
    if added:
        await execute(mappings.insert(), [_columns(mapping) for mapping in added])
    news = [News("mapping.removed", old.id, old.in_full(), None) for old in removed]
    news += [News(_kind(old, new), old.id, old.in_full(), new.in_full()) for old, new in changed]
    news += [News("mapping.created", new.id, None, new.in_full()) for new in added]
    await change.tell(provider, news)


_AMENDED = ("status", "provider_model", "updated_at_us", "revision")


def _kind(old: Mapping, new: Mapping) -> EventType:
    return "mapping.changed" if new.provider_model != old.provider_model else "mapping.status_changed"


def _columns(mapping: Mapping) -> dict[str, Any]:
    return {column.name: getattr(mapping, column.name) for column in mappings.c}


def by_source(items: Iterable[Mapping]) -> dict[tuple[str, str], Mapping]:
    """Mappings by what names them within one provider: task and source."""
    return {(mapping.task, mapping.source): mapping for mapping in items}
