"""`roadworthy db`: the sub-commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roadworthy.cli.options import Config, Database, Json, Where

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the services' database.")


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(metavar="[REVISION]", help="How far.")] = "head",
    database: Database = None,
    config: Config = None,
) -> None:
    """Make the database, or bring its tables to the form this version needs. `serve` does so by itself."""
    from roadworthy.cli import db

    db.upgrade(Where(database, config), revision)


@app.command()
def downgrade(
    revision: Annotated[
        str | None, typer.Argument(metavar="[REVISION]", help="How far; `base` is no tables [default: one step].")
    ] = None,
    database: Database = None,
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, lose what the older form cannot hold.")] = False,
) -> None:
    """Take the tables back to an older form. What that form has no place for is lost: make a backup first."""
    from roadworthy.cli import db

    db.downgrade(Where(database, config), revision, yes=yes)


@app.command()
def status(
    database: Database = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Say where the database is, at which revision, how large, and how many rows each table has."""
    from roadworthy.cli import db

    db.status(Where(database, config), as_json=json)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; an earlier backup there is replaced.")],
    database: Database = None,
    config: Config = None,
) -> None:
    """Write every row to one file, as of one moment, while the service goes on.

    The file suits SQLite and PostgreSQL alike. It holds the digests of tokens, and webhooks' secrets, sealed: keep
    it as safe as the database. Only its owner may read it (mode 0600). The key that unseals the secrets is not in it.
    """
    from roadworthy.cli import db

    db.backup(Where(database, config), file)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file made by `roadworthy db backup`.")],
    database: Database = None,
    config: Config = None,
) -> None:
    """Load a backup into a new or empty database: all of it, or nothing. It is never mixed with other rows."""
    from roadworthy.cli import db

    db.restore(Where(database, config), file)
