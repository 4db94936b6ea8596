"""Published verdicts: what the validator last said of each mapping."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

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


async def publish(change: Change, verdict: Validation) -> bool:
    """Replace what was published of the mapping; readers see it with this change.

    The audit log is told where a mapping is taken off the list of active providers, or comes back.
    False, and nothing is written, where the mapping was removed while it was being validated.
    """
    query = (
        sa.select(mappings.c.provider, validations.c.active)
        .outerjoin(validations, validations.c.mapping_id == mappings.c.id)
        .where(mappings.c.id == verdict.mapping_id)
    )
    before = (await change.connection.execute(query)).one_or_none()
    if before is None:
        return False
    row = asdict(verdict) | {"revision": change.revision}
    dialect = postgresql if change.connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(validations).values(**row)
    del row["mapping_id"]
    await change.connection.execute(statement.on_conflict_do_update(index_elements=["mapping_id"], set_=row))
    was_active = before.active is not False  # a mapping is active until a verdict takes it off
    if was_active != verdict.active:
        await change.record(
            BROUGHT_BACK if verdict.active else TAKEN_OFF,
            verdict.mapping_id,
            provider=before.provider,
            before={"active": was_active},
            after={"active": verdict.active},
        )
    return True
