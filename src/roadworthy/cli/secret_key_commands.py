"""`roadworthy secret-key`: the key that the service's secrets are encrypted with."""

from __future__ import annotations

import typer

from roadworthy.cli.options import Config, Database

app = typer.Typer(no_args_is_help=True, help="The key that secrets in the database are encrypted with.")


@app.command()
def new() -> None:
    """Print a new key, for ROADWORTHY_SECRET_KEY. To change keys, put the new one before the old, with a comma."""
    from roadworthy.sealing import new_key

    typer.echo(new_key())


@app.command()
def reseal(database: Database = None, config: Config = None) -> None:
    """Encrypt every stored secret anew with the first key of ROADWORTHY_SECRET_KEY; then drop the other keys."""
    from roadworthy.cli import secret_key
    from roadworthy.mapping_api.settings import read_settings

    secret_key.reseal(read_settings({"database_url": database}, config))
