"""Where a database stands: revision, size and rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection

from roadworthy.database.failures import shown_url
from roadworthy.database.migrate import VERSION_TABLE, current_revision, known_revisions, opened


@dataclass(frozen=True, slots=True)
class Status:
    """`known`: this version knows the revision. `url` is without its password."""

    url: str
    revision: str | None
    head: str
    known: bool
    size_bytes: int
    rows: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """A JSON object with the fields' names."""
        return asdict(self)


def look(url: URL) -> Status:
    """Ask the database, changing nothing. Raises `ConfigError` and `DatabaseUnavailableError`."""
    with opened(url) as connection:
        revision = current_revision(connection)
        known = known_revisions()
        return Status(
            shown_url(url),
            revision,
            known[0],
            revision is None or revision in known,
            _size_bytes(connection, url),
            {name: count_rows(connection, name) for name in tables(connection)},
        )


def tables(connection: Connection) -> list[str]:
    """The names of all tables but Alembic's own."""
    return sorted(set(sa.inspect(connection).get_table_names()) - {VERSION_TABLE})


def count_rows(connection: Connection, table: str) -> int:
    """How many rows a table has."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(sa.table(table))).scalar_one())


def _size_bytes(connection: Connection, url: URL) -> int:
    if connection.dialect.name == "postgresql":
        return int(connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())
    paths = [Path(f"{url.database}{suffix}") for suffix in ("", "-wal")]
    return sum(path.stat().st_size for path in paths if path.exists())
