"""`roadworthy billing`: usage, costs and the ledger. Definitions only; the work is in the `billing_*` modules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Billing: every served request costed once. Straight in the database; the service may run meanwhile.",
)
endpoint_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Where a provider tells its costs, and the key to ask it with."
)
app.add_typer(endpoint_app, name="endpoint")

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="SQLite or PostgreSQL [default: ROADWORTHY_DATABASE_URL, else sqlite:///roadworthy.db].",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file [default: roadworthy.toml, if it has [server] or [billing]]."),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's slug.")]


@app.command()
def collect(
    once: Annotated[bool, typer.Option("--once", help="Ask the providers whose turn it is once, then end.")] = False,
    provider: Annotated[
        list[str] | None, typer.Option("--provider", metavar="SLUG", help="Only this one; repeatable.")
    ] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Ask providers for the costs of what they served and settle them, until interrupted. Serves nothing."""
    from roadworthy.cli import billing_collect

    billing_collect.collect(database, config, provider or [], once=once)


@endpoint_app.command("set")
def endpoint_set(
    provider: Provider,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The cost endpoint's URL, whole.")],
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", metavar="NAME", help="Variable with the key [default: the key that is there]."),
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Forget the key that is there.")] = False,
    database: Database = None,
) -> None:
    """Register where a provider tells its costs, or change it. It is asked soon.

    The key goes to the scheme, host and port of the URL alone; with others it must be given again.
    """
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_set(database, provider, url, key_env=key_env, no_key=no_key)
