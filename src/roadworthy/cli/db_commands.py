"""`roadworthy db`: the sub-commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the services' database.")

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME [default: as `serve` has it: "
        "ROADWORTHY_DATABASE_URL, roadworthy.toml, sqlite:///roadworthy.db].",
    ),
]


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(metavar="[REVISION]", help="How far.")] = "head",
    database: DatabaseUrl = None,
) -> None:
    """Make the database, or bring its tables to the form this version needs. `serve` does so by itself."""
    from roadworthy.cli import db

    db.upgrade(database, revision)


@app.command()
def downgrade(
    revision: Annotated[
        str | None, typer.Argument(metavar="[REVISION]", help="How far; `base` is no tables [default: one step].")
    ] = None,
    database: DatabaseUrl = None,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, lose what the older form cannot hold.")] = False,
) -> None:
    """Take the tables back to an older form. What that form has no place for is lost: make a backup first."""
    from roadworthy.cli import db

    db.downgrade(database, revision, yes=yes)


@app.command()
def status(
    database: DatabaseUrl = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say where the database is, at which revision, how large, and how many rows each table has."""
    from roadworthy.cli import db

    db.status(database, as_json=json)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; an earlier backup there is replaced.")],
    database: DatabaseUrl = None,
) -> None:
    """Write every row to one file, as of one moment, while the service goes on.

    The file suits SQLite and PostgreSQL alike. It holds the digests of tokens, and webhooks' secrets, sealed: keep
    it as safe as the database. Only its owner may read it (mode 0600). The key that unseals the secrets is not in it.
    """
    from roadworthy.cli import db

    db.backup(database, file)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file made by `roadworthy db backup`.")],
    database: DatabaseUrl = None,
) -> None:
    """Load a backup into a new or empty database: all of it, or nothing. It is never mixed with other rows."""
    from roadworthy.cli import db

    db.restore(database, file)
