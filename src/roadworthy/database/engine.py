"""Opening the database, and the two kinds of transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from roadworthy.errors import ConfigError, RoadworthyError

DEFAULT_URL = "sqlite:///roadworthy.db"
LOCK_TIMEOUT_S = 10
"""How long a writer waits for the other writers of the same SQLite file."""

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_NOW_US = {
    "sqlite": (
        "SELECT CAST(strftime('%s', t) AS INTEGER) * 1000000 + CAST(substr(strftime('%f', t), 4) AS INTEGER) * 1000 "
        "FROM (SELECT strftime('%Y-%m-%d %H:%M:%f', 'now') AS t)"
    ),
    "postgresql": "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
}


class DatabaseUnavailableError(RoadworthyError):
    """The database did not answer, refused the connection, or stayed locked. What was being done was not done."""


class Database:
    """One database, open. Close it with `close()`."""

    def __init__(self, url: str = DEFAULT_URL, *, pool_size: int = 5) -> None:
        """Raises `ConfigError` for a URL that is not SQLite's or PostgreSQL's. Nothing is connected yet."""
        self.url = async_url(url)
        self.dialect: Literal["sqlite", "postgresql"] = (
            "sqlite" if self.url.drivername.startswith("sqlite") else "postgresql"
        )
        if self.dialect == "sqlite":
            self._reader = _sqlite_engine(self.url, "BEGIN", pool_size)
            # One writer at a time is SQLite's rule; queueing here is fairer than racing for its lock.
            self._writer = _sqlite_engine(self.url, "BEGIN IMMEDIATE", 1)
        else:
            self._reader = _postgresql_engine(self.url, pool_size)
            self._writer = self._reader

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one snapshot and changes nothing. Raises `DatabaseUnavailableError`."""
        async with _unavailable(self.url), self._reader.connect() as connection:
            if self.dialect == "postgresql":
                await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may change; committed at the end, undone by an exception.

        Raises `DatabaseUnavailableError`.
        """
        async with _unavailable(self.url), self._writer.begin() as connection:
            yield connection

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
        if self._writer is not self._reader:
            await self._writer.dispose()


def async_url(url: str) -> URL:
    """The URL with the driver that is used. Raises `ConfigError` for anything but SQLite and PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
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


def shown_url(url: URL) -> str:
    """The URL for people and logs: without its password."""
    return url.set(drivername=url.drivername.partition("+")[0]).render_as_string(hide_password=True)


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if mark and "@" in rest else url


@asynccontextmanager
async def _unavailable(url: URL) -> AsyncIterator[None]:
    try:
        yield
    except PoolTimeoutError:
        raise DatabaseUnavailableError(f"every connection to {shown_url(url)} is in use; try again") from None
    except DBAPIError as error:
        if not (error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)):
            raise
        reason = str(error.orig).strip().partition("\n")[0]
        raise DatabaseUnavailableError(f"the database {shown_url(url)} did not serve us: {reason}") from error


def _sqlite_engine(url: URL, begin: str, pool_size: int) -> AsyncEngine:
    path = Path(url.database or "")
    if not path.parent.is_dir():
        raise ConfigError(f"the folder of the database {path} does not exist; make it or name another place")
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=LOCK_TIMEOUT_S * 3,
        connect_args={"timeout": LOCK_TIMEOUT_S},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql_engine(url: URL, pool_size: int) -> AsyncEngine:
    try:
        return create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5, "application_name": "roadworthy"},
        )
    except (NoSuchModuleError, ModuleNotFoundError):
        raise ConfigError("PostgreSQL needs the extra `postgres`: pip install 'roadworthy[postgres]'") from None
