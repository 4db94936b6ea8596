"""Opening the database, and the two kinds of transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from roadworthy.database.failures import OutcomeUnknownError, shown_url, told
from roadworthy.database.migrate import check_folder, postgres_extra
from roadworthy.errors import ConfigError

DEFAULT_URL = "sqlite:///roadworthy.db"
LOCK_TIMEOUT_S = 10
"""How long a writer waits for a lock that another process holds."""
TURN_TIMEOUT_S = 30
"""How long a transaction waits for one of this process's connections."""
IDLE_TIMEOUT_S = 60
"""PostgreSQL ends a transaction that asked nothing for so long: its process hangs, and others wait for its locks."""

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_NOW_US = {
    "sqlite": (
        "SELECT CAST(strftime('%s', t) AS INTEGER) * 1000000 + CAST(substr(strftime('%f', t), 4) AS INTEGER) * 1000 "
        "FROM (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now') AS t)"
    ),
    "postgresql": "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
}


class Database:
    """One database, open. Close it with `close()`."""

    def __init__(self, url: str = DEFAULT_URL, *, pool_size: int = 5) -> None:
        """Raises `ConfigError` for a URL that is not SQLite's or PostgreSQL's. Nothing is connected yet."""
        self.url = async_url(url)
        self.dialect: Literal["sqlite", "postgresql"] = (
            "sqlite" if self.url.drivername.startswith("sqlite") else "postgresql"
        )
        # Readers have connections of their own: however many writers queue for a lock, reading goes on.
        if self.dialect == "sqlite":
            self._reader = _sqlite_engine(self.url, pool_size, read_only=True)
            # One writer at a time is SQLite's rule; queueing here is fairer than racing for its lock.
            self._writer = _sqlite_engine(self.url, 1, read_only=False)
        else:
            self._reader = _postgresql_engine(self.url, pool_size, read_only=True)
            self._writer = _postgresql_engine(self.url, pool_size, read_only=False)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one snapshot and can change nothing. Raises `DatabaseUnavailableError`."""
        with told(self.url):
            async with self._reader.begin() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may change; committed at the end, undone by an exception or a cancellation.

        Raises `DatabaseUnavailableError`; as `OutcomeUnknownError` where the connection broke off at the commit.
        """
        whole = False
        with told(self.url):
            try:
                async with self._writer.begin() as connection:
                    yield connection
                    whole = True
            except DBAPIError as error:
                if whole and error.connection_invalidated:
                    raise OutcomeUnknownError(
                        f"the database {shown_url(self.url)} broke off while a change was committed; "
                        "look whether it was done"
                    ) from error
                raise

    async def now_us(self, connection: AsyncConnection) -> int:
        """The database's clock: microseconds since 1970 UTC. Schedules and records use this clock alone."""
        return int((await connection.exec_driver_sql(_NOW_US[self.dialect])).scalar_one())

    async def ping(self) -> None:
        """Raises `DatabaseUnavailableError` where the database does not answer a simple question."""
        async with self.reading() as connection:
            await connection.execute(sa.select(sa.literal(1)))

    async def close(self) -> None:
        """Close every connection."""
        await self._reader.dispose()
        await self._writer.dispose()


def async_url(url: str) -> URL:
    """The URL with the driver that is used. Raises `ConfigError` for anything but SQLite and PostgreSQL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"the database URL {_without_password(url)!r} cannot be read; write sqlite:///roadworthy.db or "
            "postgresql://user:password@host/name"
        ) from None
    name = parsed.drivername.partition("+")[0]
    if name not in _DRIVERS:
        raise ConfigError(f"the database URL names {name!r}; only sqlite and postgresql are supported")
    if name == "sqlite" and (not parsed.database or parsed.database == ":memory:"):
        raise ConfigError(
            "an SQLite database must be a file, since several connections share it: sqlite:///roadworthy.db"
        )
    return parsed.set(drivername=_DRIVERS[name])


def _without_password(url: str) -> str:
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme}{mark}***@{rest.rpartition('@')[2]}" if "@" in rest else url


class _SqliteConnection(sqlite3.Connection):
    """Gives up its locks when it is closed, even if a cancelled task's traceback still holds one of its cursors."""

    def close(self) -> None:
        """Undo the open transaction, which SQLite itself would keep for as long as a statement lives; then close."""
        if self.in_transaction:
            self.rollback()
        super().close()


def _sqlite_engine(url: URL, pool_size: int, *, read_only: bool) -> AsyncEngine:
    check_folder(Path(url.database or ""))
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=TURN_TIMEOUT_S,
        connect_args={"timeout": LOCK_TIMEOUT_S, "factory": _SqliteConnection},
    )
    # The snapshot of a plain BEGIN is taken by the first question; BEGIN IMMEDIATE waits for the write lock at once.
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
    pragmas = ["journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"]
    if read_only:
        pragmas.append("query_only=ON")

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql_engine(url: URL, pool_size: int, *, read_only: bool) -> AsyncEngine:
    settings = {
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
        "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S}s",
        "default_transaction_isolation": r"repeatable\ read" if read_only else r"read\ committed",
        "default_transaction_read_only": "on" if read_only else "off",
    }
    options = " ".join([str(url.query.get("options", "")), *(f"-c {name}={value}" for name, value in settings.items())])
    with postgres_extra():
        return create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=TURN_TIMEOUT_S,
            pool_pre_ping=True,  # the server may have been restarted since
            connect_args={"connect_timeout": 5, "application_name": "roadworthy", "options": options.strip()},
        )
