"""`roadworthy token`: tokens of members. Definitions only; the work is in `token`."""

from __future__ import annotations

from typing import Annotated

import typer

from roadworthy.cli.options import Config, Database, Json, Where

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Tokens of members, straight in the database; the service may run meanwhile.",
)


@app.command()
def create(
    org: Annotated[str, typer.Argument(metavar="ORG", help="The organisation's name.")],
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="The member's name.")],
    name: Annotated[str, typer.Option("--name", help="What it is for, e.g. ci.")],
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="read, write or admin.")] = "read",
    expires_days: Annotated[
        int | None, typer.Option("--expires-days", metavar="N", help="Days until it ends [default: never].")
    ] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Make a token and print it, this once: the token alone on standard output."""
    from roadworthy.cli import token

    token.create(Where(database, config), org, member, name=name, role=role, expires_in_days=expires_days)


@app.command("list")
def list_all(
    org: Annotated[str | None, typer.Argument(metavar="[ORG]", help="Only this organisation's.")] = None,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """List tokens, without their secrets: whose, which role, when last used."""
    from roadworthy.cli import token

    token.list_all(Where(database, config), org, as_json=json)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `token list` shows it.")],
    database: Database = None,
    config: Config = None,
) -> None:
    """Revoke a token: from now on it is refused."""
    from roadworthy.cli import token

    token.revoke(Where(database, config), token_id)
