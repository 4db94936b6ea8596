"""Published verdicts: what the validator last said of each mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite

from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.records import Validation
from roadworthy.mapping_api.tables import validations


def from_row(row: Any) -> Validation:
    """A row of the table as a record."""
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it
    del values["revision"]
    return Validation(**values)


async def set_active(change: Change, mapping_id: str, *, active: bool) -> None:
    """Put a mapping on or off the active list, and leave what was measured."""
    await change.connection.execute(
        validations.update()
        .where(validations.c.mapping_id == mapping_id)
        .values(active=active, revision=change.revision)
    )


async def publish(change: Change, verdicts: Sequence[Validation]) -> None:
    """Replace what was published of each mapping; readers see it with this change."""
    if not verdicts:
        return
    dialect = postgresql if change.connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(validations)
    new = {column.name: statement.excluded[column.name] for column in validations.c if column.name != "mapping_id"}
    rows = [asdict(verdict) | {"revision": change.revision} for verdict in verdicts]
    await change.connection.execute(statement.on_conflict_do_update(index_elements=["mapping_id"], set_=new), rows)
