"""The services' one database: SQLite embedded, PostgreSQL when outgrown, the same code on both.

`Database` gives two kinds of transaction. `reading()` sees one snapshot. `writing()` holds
the write lock from its first statement on SQLite, so that a transaction never fails half
way for want of it. Times are integers, microseconds since 1970 UTC, told by the database.
"""

from roadworthy.database.engine import DEFAULT_URL, Database, async_url
from roadworthy.database.failures import DatabaseUnavailableError, shown_url
from roadworthy.database.migrate import head, migrate, migrated_to
from roadworthy.database.schema import JsonColumn, metadata
from roadworthy.database.statements import batched, insert, insert_of

__all__ = [
    "DEFAULT_URL",
    "Database",
    "DatabaseUnavailableError",
    "JsonColumn",
    "async_url",
    "batched",
    "head",
    "insert",
    "insert_of",
    "metadata",
    "migrate",
    "migrated_to",
    "shown_url",
]
