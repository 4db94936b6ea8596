"""Published verdicts: what the validator last said of each mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import batched, insert
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.records import Validation
from roadworthy.mapping_api.tables import mappings, validations

TAKEN_OFF = "mapping.taken_off"
BROUGHT_BACK = "mapping.brought_back"


def from_row(row: Any) -> Validation:
    """A row of the table as a record."""
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it
    del values["revision"]
    return Validation(**values)


async def find(connection: AsyncConnection, mapping_id: str) -> Validation | None:
    """What was last published of a mapping."""
    row = (await connection.execute(sa.select(validations).where(validations.c.mapping_id == mapping_id))).one_or_none()
    return None if row is None else from_row(row)


async def find_all(connection: AsyncConnection, mapping_ids: Sequence[str]) -> dict[str, Validation]:
    """What was last published of these mappings, as far as anything was."""
    found: dict[str, Validation] = {}
    for some in batched(mapping_ids):
        query = sa.select(validations).where(validations.c.mapping_id.in_(some))
        found |= {row.mapping_id: from_row(row) for row in await connection.execute(query)}
    return found


async def publish(change: Change, verdict: Validation) -> bool:
    """Replace what was published of the mapping; see `publish_all`. False where the mapping is gone."""
    return bool(await publish_all(change, [verdict]))


async def publish_all(
    change: Change, verdicts: Sequence[Validation], told: Mapping[str, dict[str, Any]] | None = None
) -> set[str]:
    """Replace what was published of mappings; readers see it with this change.

    The audit log is told where a mapping is taken off the list of active providers, or comes back,
    with what is `told` of it. Returns the ids that were published; a mapping that was removed while
    it was being validated is not among them.
    """
    before = await _before(change, [verdict.mapping_id for verdict in verdicts])
    rows = [asdict(verdict) | {"revision": change.revision} for verdict in verdicts if verdict.mapping_id in before]
    if not rows:
        return set()
    statement = insert(change.connection, validations)
    new = {column.name: statement.excluded[column.name] for column in validations.c if column.name != "mapping_id"}
    await change.connection.execute(statement.on_conflict_do_update(index_elements=["mapping_id"], set_=new), rows)
    for row in rows:
        provider, was_active = before[row["mapping_id"]]
        if was_active != row["active"]:
            await change.record(
                BROUGHT_BACK if row["active"] else TAKEN_OFF,
                row["mapping_id"],
                provider=provider,
                before={"active": was_active},
                after={"active": row["active"]} | (told or {}).get(row["mapping_id"], {}),
            )
    return {row["mapping_id"] for row in rows}


async def _before(change: Change, mapping_ids: Sequence[str]) -> dict[str, tuple[str, bool]]:
    """Provider, and whether it is active, of each mapping that is there."""
    found: dict[str, tuple[str, bool]] = {}
    for some in batched(mapping_ids):
        query = (
            sa.select(mappings.c.id, mappings.c.provider, validations.c.active)
            .outerjoin(validations, validations.c.mapping_id == mappings.c.id)
            .where(mappings.c.id.in_(some))
        )
        # A mapping is active until a verdict takes it off.
        found |= {row.id: (row.provider, row.active is not False) for row in await change.connection.execute(query)}
    return found
