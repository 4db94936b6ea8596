"""Cheap ways to learn whether a database changed: for readers who keep a copy and may never be behind.

Both use a connection of their own, outside the pools, and both are exact: they tell of every
change that was committed, by anyone, before they were asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from roadworthy.database.failures import DatabaseUnavailableError, shown_url

if TYPE_CHECKING:
    import psycopg

ANSWER_TIMEOUT_S = 5
"""How long PostgreSQL may take to answer one small question, connecting included."""


class SqliteWatch:
    """Tells by SQLite's `data_version` whether anyone wrote to the file. Takes microseconds, waits for nobody."""

    def __init__(self, url: URL) -> None:
        """Nothing is opened yet."""
        self._path = url.database or ""
        self._connection: sqlite3.Connection | None = None
        self._opened = 0

    def mark(self) -> tuple[int, int] | None:
        """A mark of the present state: equal marks mean that nothing was committed between. None: cannot tell now."""
        try:
            if self._connection is None:
                self._opened += 1
                self._connection = sqlite3.connect(
                    f"file:{_quoted(self._path)}?mode=rw",
                    uri=True,
                    timeout=0,  # the caller's thread may not be held up
                    isolation_level=None,
                    check_same_thread=False,
                )
            # The number counts from this connection's own beginning, hence the first part.
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            self.close()
            return None
        return self._opened, version

    def close(self) -> None:
        """Close the connection; the next mark opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresqlWatch:
    """Asks PostgreSQL for one number, in one round trip."""

    def __init__(self, url: URL, question: str) -> None:
        """`question` is a statement that gives one number. Nothing is connected yet."""
        self._url = url
        self._question = question
        self._connection: psycopg.AsyncConnection[tuple[int]] | None = None

    async def ask(self) -> int:
        """The number. Raises `DatabaseUnavailableError`. Only one may ask at a time."""
        import psycopg

        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if self._connection is not None:
                    # A connection may have died since; a second try on a new one tells.
                    with contextlib.suppress(psycopg.Error):
                        return await self._answer(self._connection)
                    await self.close()
                # The engine's own reading of the URL: libpq reads some passwords otherwise, and tells them in errors.
                _, named = self._url.get_dialect()().create_connect_args(self._url)
                named.update(connect_timeout=ANSWER_TIMEOUT_S, application_name="roadworthy")
                self._connection = await psycopg.AsyncConnection.connect(**named, autocommit=True)
                return await self._answer(self._connection)
        except (psycopg.Error, TimeoutError) as error:
            await self.close()
            reason = str(error).strip().partition("\n")[0] or f"no answer within {ANSWER_TIMEOUT_S} s"
            raise DatabaseUnavailableError(f"the database {shown_url(self._url)} did not serve us: {reason}") from None
        except asyncio.CancelledError:
            await self.close()  # it may be in the middle of an answer
            raise

    async def _answer(self, connection: psycopg.AsyncConnection[tuple[int]]) -> int:
        row = await (await connection.execute(self._question)).fetchone()
        assert row is not None
        return int(row[0])

    async def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
