"""The models table: what the catalogue last said."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import batched
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.tables import models

_FIELDS = ("id", "hub_id", "pipeline_tag", "tags", "adapter_weights_path")


def from_row(row: Any) -> ModelFacts:
    """A row of the table as a record."""
    # Tags and tasks come again and again; one copy of each keeps 200,000 models small.
    task = None if row.pipeline_tag is None else sys.intern(row.pipeline_tag)
    return ModelFacts(row.id, task, tuple(map(sys.intern, row.tags)), row.adapter_weights_path, row.hub_id)


async def find(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, ModelFacts]:
    """The known ones of these models, by id."""
    found: dict[str, ModelFacts] = {}
    for some in batched(sorted(set(ids))):
        query = sa.select(models).where(models.c.id.in_(some))
        found |= {row.id: from_row(row) for row in await connection.execute(query)}
    return found


async def keep(
    change: Change, facts: Iterable[ModelFacts], *, asked_at: int | None = None
) -> list[tuple[ModelFacts, ModelFacts]]:
    """Write what the catalogue says now. Models of which it says nothing new keep their revision.

    With `asked_at`, the revision at which it was asked, models that others wrote since stay as
    they are: those asked later. Returns what was and what is of each model that was known and changed.
    """
    facts = list({one.id: one for one in facts}.values())
    if asked_at is not None:
        newer = await change.connection.execute(sa.select(models.c.id).where(models.c.revision > asked_at))
        written_since = set(newer.scalars())
        facts = [one for one in facts if one.id not in written_since]
    known = await find(change.connection, (one.id for one in facts))
    new, changed = [], []
    for one in facts:
        row = {name: getattr(one, name) for name in _FIELDS} | {"tags": list(one.tags)}
        stamps = {"asked_at_us": change.now_us, "revision": change.revision}
        if one.id not in known:
            new.append(row | stamps)
        elif known[one.id] != one:
            changed.append({f"new_{name}": value for name, value in (row | stamps).items()})
    if new:
        await change.connection.execute(models.insert(), new)
    if changed:
        binds = {c.name: sa.bindparam(f"new_{c.name}", type_=c.type) for c in models.c if c.name != "id"}
        await change.connection.execute(
            models.update().where(models.c.id == sa.bindparam("new_id")).values(**binds), changed
        )
    return [(known[one.id], one) for one in facts if one.id in known and known[one.id] != one]
