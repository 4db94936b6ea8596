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


Once = Annotated[bool, typer.Option("--once", help="Give the providers whose turn it is one turn, then end.")]


@app.command()
def collect(
    once: Once = False,
    force: Annotated[bool, typer.Option("--force", help="With --once: whatever is pending, due or not.")] = False,
    provider: Annotated[
        list[str] | None, typer.Option("--provider", metavar="SLUG", help="Only this one; repeatable.")
    ] = None,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Ask providers for the costs of what they served and settle them, until interrupted. Serves nothing.

    With --once the exit code is 0, 1 if a provider failed, 3 if none could be reached.
    """
    from roadworthy.cli import billing_collect

    billing_collect.collect(database, config, provider or [], once=once, force=force, as_json=json)


@app.command()
def recheck(
    provider: Annotated[str, typer.Option("--provider", metavar="SLUG", help="Whose settled costs.")],
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Served since: 2026-06-01, 2026-06-01T12:00Z, or 24h, 7d.")
    ] = "24h",
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Ask for settled costs again. One that is another now is disputed; what was charged stays until it is judged.

    The exit code is 0, 1 if a cost changed, 3 if the provider could not be asked.
    """
    from roadworthy.cli import billing_collect

    billing_collect.recheck(database, config, provider, since, as_json=json)


@app.command()
def status(json: Json = False, database: Database = None) -> None:
    """Show how collecting stands, by provider: what is pending and due, the last 24 hours, the last trouble."""
    from roadworthy.cli import billing_collect

    billing_collect.status(database, as_json=json)


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


@endpoint_app.command("show")
def endpoint_show(
    provider: Annotated[str | None, typer.Argument(metavar="[PROVIDER]", help="Only this one.")] = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """Show where providers tell their costs. Keys are shown to nobody."""
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_show(database, provider, as_json=json)


@endpoint_app.command("remove")
def endpoint_remove(provider: Provider, database: Database = None) -> None:
    """Forget where a provider tells its costs, and its key. What is pending stays so."""
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_remove(database, provider)


@endpoint_app.command("pause")
def endpoint_pause(provider: Provider, database: Database = None) -> None:
    """Ask a provider no more, until `resume`. What is being asked at this moment is not settled."""
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_pause(database, provider, paused=True)


@endpoint_app.command("resume")
def endpoint_resume(provider: Provider, database: Database = None) -> None:
    """Ask a provider again."""
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_pause(database, provider, paused=False)
