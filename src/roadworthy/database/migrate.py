"""Bringing a database's tables to the form this version needs, by Alembic, forwards and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import NoSuchModuleError

from roadworthy.database.failures import shown_url, told, told_all
from roadworthy.errors import ConfigError

_FOLDER = Path(__file__).parent / "migrations"
_LOCK_KEY = 7_306_829_403
"""Any number that no other application on the same PostgreSQL uses as an advisory lock."""
VERSION_TABLE = "alembic_version"
"""Where Alembic keeps the revision."""
_TURN_TIMEOUT_S = 60
"""How long one migration waits for another, or for the service's transactions, to end."""


def known_revisions() -> list[str]:
    """Every revision this version knows, newest first."""
    return [script.revision for script in ScriptDirectory(str(_FOLDER)).walk_revisions()]


def head() -> str:
    """The revision this version of roadworthy needs."""
    return known_revisions()[0]


def migrated_to(url: URL) -> str | None:
    """The revision a database is at; None where it is empty. Raises as `opened`."""
    with opened(url) as connection:
        return current_revision(connection)


def current_revision(connection: Connection) -> str | None:
    """The revision an open database is at; None where it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def migrate(url: URL, revision: str = "head", *, back: bool = False) -> None:
    """Bring the database at `url` to `revision`: "head", "base", or one's name; to an older one only if `back`.

    Two processes that start at once take turns. All steps share one transaction: a process
    killed half way leaves the database as it was. Raises `ConfigError` for an unknown or an older
    revision, or a database that a newer roadworthy made, and `DatabaseUnavailableError`.
    """
    with told_all(url), opened(url, make=True) as connection:
        take_turn(connection)
        step(connection, revision, back=back)
        connection.commit()


@contextmanager
def opened(url: URL, *, make: bool = False) -> Iterator[Connection]:
    """One connection, without a pool; what is not committed is undone. Only if `make` may an SQLite file be new.

    Raises `ConfigError` where the database cannot be used, `DatabaseUnavailableError` where it does not answer.
    """
    engine = _engine(url, make=make)
    try:
        with told(url), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def take_turn(connection: Connection) -> None:
    """Begin a transaction that no other migration, restore or backup goes on beside."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # readers, a backup too, never stop a writer
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")  # tables are rebuilt to alter them
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})


def hold_off_migrations(connection: Connection) -> None:
    """Until the connection closes, no migration changes the tables. SQLite's snapshot needs no such lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_lock_shared(:key)"), {"key": _LOCK_KEY})
        connection.commit()


def step(connection: Connection, revision: str, *, back: bool = False) -> None:
    """Migrate in the open transaction. Raises `ConfigError` as `migrate`."""
    current = current_revision(connection)
    known = known_revisions()
    check_known(current)
    target = known[0] if revision == "head" else revision
    if target not in {"base", *known}:
        raise ConfigError(f"there is no revision {revision!r}; known: head, base, {', '.join(known)}")
    older = target == "base" or (current is not None and known.index(target) > known.index(current))
    if older and not back:
        raise ConfigError(f"the database is at revision {current}, which is newer than {target}; downgrade instead")
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        (command.downgrade if older else command.upgrade)(config, target)
    except CommandError as error:
        raise ConfigError(f"the database cannot be brought to revision {revision}: {error}") from None


def check_known(revision: str | None) -> None:
    """Raises `ConfigError` for a revision of a newer roadworthy."""
    if revision is not None and revision not in known_revisions():
        raise ConfigError(
            f"the database is at revision {revision}, which this roadworthy does not know: a newer one made it. "
            "Use that version, or restore a backup into a new database"
        )


def _engine(url: URL, *, make: bool) -> sa.Engine:
    if url.drivername.startswith("sqlite"):
        path = Path(url.database or "")
        check_folder(path)
        if not make and not path.exists():
            raise ConfigError(f"there is no database at {shown_url(url)}; make it with `roadworthy db upgrade`")
        with told_os(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # token digests are nobody else's to read
        return sa.create_engine(
            url.set(drivername="sqlite+pysqlite"),
            connect_args={"timeout": _TURN_TIMEOUT_S, "isolation_level": None},
        )
    with postgres_extra():
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={
                "connect_timeout": 5,
                "application_name": "roadworthy-db",
                "options": f"{url.query.get('options', '')} -c lock_timeout={_TURN_TIMEOUT_S * 1000}",
            },
        )


def check_folder(path: Path) -> None:
    """Raises `ConfigError` where the folder of an SQLite database is not there."""
    if not path.parent.is_dir():
        raise ConfigError(f"the folder of the database {path} does not exist; make it or name another place")


@contextmanager
def told_os(path: Path) -> Iterator[None]:
    """Turns what the system says of a file into a `ConfigError`."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be used: {error.strerror or error}; name a file we may use") from None


@contextmanager
def postgres_extra() -> Iterator[None]:
    """Turns a missing driver into a `ConfigError` that says what to install."""
    try:
        yield
    except (NoSuchModuleError, ModuleNotFoundError):
        raise ConfigError("PostgreSQL needs the extra `postgres`: pip install 'roadworthy[postgres]'") from None
