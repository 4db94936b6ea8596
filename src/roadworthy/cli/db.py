"""`roadworthy db`: migrations, status, backup and restore."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from sqlalchemy.engine import URL

from roadworthy.cli.options import Where
from roadworthy.database import async_url, migrate, migrated_to, shown_url
from roadworthy.database import backup as backups
from roadworthy.database.migrate import check_known, known_revisions
from roadworthy.database.status import Status, look
from roadworthy.errors import UsageError
from roadworthy.mapping_api.settings import read_settings


def upgrade(where: Where, revision: str) -> None:
    """Bring the database forwards to a revision."""
    url = _url(where)
    migrate(url, revision)
    typer.echo(f"{shown_url(url)} is at revision {migrated_to(url) or 'base'}")


def downgrade(where: Where, revision: str | None, *, yes: bool) -> None:
    """Bring the database back to a revision; by default, the one before."""
    url = _url(where)
    current = migrated_to(url)
    check_known(current)
    if current is None:
        raise UsageError(f"{shown_url(url)} has no tables of roadworthy; there is nothing to go back from")
    known = known_revisions()
    target = revision or [*known, "base"][known.index(current) + 1]
    if target in known and known.index(target) <= known.index(current):
        raise UsageError(f"{shown_url(url)} is at revision {current}; {target} is not older")
    if not yes:
        lost = "every row of every table" if target == "base" else "what the older form has no place for"
        raise UsageError(
            f"going back from {current} to {target} loses {lost}. Make a backup (`roadworthy db backup FILE`), "
            "then repeat with --yes"
        )
    migrate(url, target, back=True)
    typer.echo(f"{shown_url(url)} is at revision {migrated_to(url) or 'base'}")


def status(where: Where, *, as_json: bool) -> None:
    """Print where the database stands."""
    found = look(_url(where))
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else _text(found))


def backup(where: Where, file: Path) -> None:
    """Write a backup and say what it holds."""
    summary = backups.backup(_url(where), file)
    if summary.left_out:
        typer.echo(f"left out, since they are not roadworthy's tables: {', '.join(summary.left_out)}", err=True)
    typer.echo(f"{file}: {sum(summary.rows.values())} rows of {len(summary.rows)} tables, revision {summary.revision}")


def restore(where: Where, file: Path) -> None:
    """Load a backup and say what came."""
    url = _url(where)
    summary = backups.restore(url, file)
    typer.echo(f"{shown_url(url)}: restored {sum(summary.rows.values())} rows of {len(summary.rows)} tables")


def _url(where: Where) -> URL:
    """The database that was named, else the one that `serve` takes: a backup must not be of another."""
    return async_url(read_settings({"database_url": where.url}, where.config).database_url)


def _text(found: Status) -> str:
    if found.revision is None:
        stand = "no tables of roadworthy yet; `roadworthy db upgrade` makes them"
    elif found.revision == found.head:
        stand = "what this version needs"
    elif found.known:
        stand = f"this version needs {found.head}; `roadworthy db upgrade`, or `serve`, goes there"
    else:
        stand = f"made by a newer roadworthy; this version knows up to {found.head}"
    width = max(map(len, found.rows), default=0)
    return "\n".join(
        [
            f"database: {found.url}",
            f"revision: {found.revision or 'none'} ({stand})",
            f"size: {_size(found.size_bytes)}",
            *(f"  {table.ljust(width)}  {count:,} rows" for table, count in found.rows.items()),
        ]
    )


def _size(size_bytes: int) -> str:
    if size_bytes < 2**20:
        return f"{size_bytes / 2**10:.0f} KiB"
    return f"{size_bytes / 2**20:,.1f} MiB"
