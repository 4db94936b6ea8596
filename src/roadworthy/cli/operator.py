"""The operator's way to the database: open it, do one thing, close it. The service may run meanwhile."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import typer
from sqlalchemy.exc import DBAPIError

from roadworthy.cli.options import Where
from roadworthy.database import Database, head, migrate, migrated_to, shown_url
from roadworthy.errors import ConfigError, UsageError
from roadworthy.mapping_api.access import RANK, Role
from roadworthy.mapping_api.change import OPERATOR, Change, change
from roadworthy.mapping_api.settings import read_settings

Result = TypeVar("Result")
_SPANS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_LEAST_WIDTH = 12
"""A column that is shortened keeps so many characters."""


def read(where: Where, work: Callable[[Database], Awaitable[Result]], *, make: bool = False) -> Result:
    """What `work` returns. `make`: a database that is not there yet is made.

    Raises `ConfigError` for one that cannot be used as it is, `DatabaseUnavailableError` where it does not answer.
    """
    database = Database(read_settings({"database_url": where.url}, where.config).database_url)

    _ready(database, make=make)

    async def go() -> Result:
        try:
            return await work(database)
        except DBAPIError as error:
            reason = str(error.orig).strip().partition("\n")[0]
            raise ConfigError(f"{shown_url(database.url)} cannot be used as our database: {reason}") from None
        finally:
            await database.close()

    return asyncio.run(go())


def write(where: Where, work: Callable[[Change], Awaitable[Result]], *, make: bool = False) -> Result:
    """What `work` returns, done as one change of the operator's: all of it or nothing."""

    async def go(database: Database) -> Result:
        async with change(database, OPERATOR) as opened:
            return await work(opened)

    return read(where, go, make=make)


def _ready(database: Database, *, make: bool) -> None:
    there = database.dialect != "sqlite" or Path(database.url.database or "").exists()
    at = migrated_to(database.url) if there else None
    if at is None:
        if not make:
            raise _absent(database)
        migrate(database.url)
    elif at != head():
        # A service of the other version may be running on it; only a start of the service migrates.
        raise ConfigError(
            f"the database {shown_url(database.url)} is at revision {at}, and this roadworthy works with {head()}; "
            "use the version that serves it, or start `roadworthy serve` of this one, which brings the database up"
        )


def _absent(database: Database) -> ConfigError:
    return ConfigError(
        f"there is no roadworthy database at {shown_url(database.url)}; name another with --database, or make one: "
        "`roadworthy org create` and `roadworthy serve` do"
    )


def role_of(text: str) -> Role:
    """The role of that name. Raises `UsageError`."""
    if text not in RANK:
        raise UsageError(f"a role is read, write or admin; got {text!r}")
    return text


def iso(at_us: int | None) -> str | None:
    """The time as ISO 8601 in UTC, to the second."""
    return None if at_us is None else datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def lasting(span_us: int) -> str:
    """How long that is, in one unit, rounded down: 45 s, 2 m, 3 h, 5 d."""
    seconds = max(span_us, 0) // 1_000_000
    size, unit = next(((size, unit) for size, unit in _SPANS if seconds >= size), (1, "s"))
    return f"{seconds // size} {unit}"


def show(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool, nothing: str, clip: str | None = None
) -> None:
    """Print rows: as JSON, or as a table of these columns. `nothing` says what to do where there is none.

    The column `clip` is shortened where the table would be wider than the terminal; into a file it goes whole.
    """
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        if nothing:
            typer.echo(nothing, err=True)
        return
    lines = [
        [column.replace("_", " ") for column in columns],
        *([_cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    if clip is not None and sys.stdout.isatty():
        place = columns.index(clip)
        over = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
        widths[place] = max(widths[place] - max(over, 0), min(widths[place], _LEAST_WIDTH))
        for line in lines:
            if len(line[place]) > widths[place]:
                line[place] = f"{line[place][: widths[place] - 3]}..."
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value) or "-"
    return "-" if value is None else str(value)
