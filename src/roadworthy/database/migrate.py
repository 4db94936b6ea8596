"""Bringing a database's tables to the form this version needs, by Alembic, forwards and back."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import URL, Connection

from roadworthy.errors import ConfigError

_FOLDER = Path(__file__).parent / "migrations"
_LOCK_KEY = 7_306_829_403
"""Any number that no other application on the same PostgreSQL uses as an advisory lock."""


def head() -> str:
    """The revision this version of roadworthy needs."""
    revision = ScriptDirectory(str(_FOLDER)).get_current_head()
    assert revision is not None
    return revision


def migrated_to(url: URL) -> str | None:
    """The revision a database is at; None where it is empty."""
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def migrate(url: URL, revision: str = "head") -> None:
    """Bring the database at `url` to `revision` ("head", "base", or one's name), forwards or back.

    Two processes that start at once take turns. All steps share one transaction: a process
    killed half way leaves the database as it was. Raises `ConfigError` for an unknown revision,
    or a database that a newer roadworthy made.
    """
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            _step(connection, revision)
            connection.commit()
    finally:
        engine.dispose()


def _step(connection: Connection, revision: str) -> None:
    scripts = ScriptDirectory(str(_FOLDER))
    current = MigrationContext.configure(connection).get_current_revision()
    known = [script.revision for script in scripts.walk_revisions()]  # newest first
    if current is not None and current not in known:
        raise ConfigError(
            f"the database is at revision {current}, which this roadworthy does not know: a newer one made it. "
            "Use that version, or restore a backup into a new database"
        )
    target = head() if revision == "head" else revision
    if target not in {"base", *known}:
        raise ConfigError(f"there is no revision {revision!r}; known: head, base, {', '.join(known)}")
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    back = target == "base" or (current is not None and known.index(target) > known.index(current))
    try:
        (command.downgrade if back else command.upgrade)(config, target)
    except CommandError as error:
        raise ConfigError(f"the database cannot be brought to revision {revision}: {error}") from None


def _engine(url: URL) -> sa.Engine:
    name = url.drivername.partition("+")[0]
    if name == "sqlite":
        return sa.create_engine(
            url.set(drivername="sqlite+pysqlite"), connect_args={"timeout": 60, "isolation_level": None}
        )
    return sa.create_engine(url.set(drivername="postgresql+psycopg"))
