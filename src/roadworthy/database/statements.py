"""Statements that both databases understand, each in its own dialect, and of a size that both take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

BOUND_VALUES = 500
"""Values in one `IN (...)`: databases bound how many one statement may have."""

Value = TypeVar("Value")


def insert(connection: AsyncConnection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT of the connection's dialect, for `on_conflict_do_update` and its like."""
    return insert_of(connection.dialect.name, table)


def insert_of(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT of the dialect of that name, for statements that are made once and kept."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def batched(values: Iterable[Value], size: int = BOUND_VALUES) -> Iterator[list[Value]]:
    """The values, so many at a time."""
    waiting = list(values)
    for start in range(0, len(waiting), size):
        yield waiting[start : start + size]
