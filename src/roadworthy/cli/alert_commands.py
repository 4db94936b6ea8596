"""`roadworthy validator alert`: where alerts go."""

from __future__ import annotations

from typing import Annotated

import typer

from roadworthy.cli.options import Config, Database, Json, Where

app = typer.Typer(no_args_is_help=True, help="Channels that hear of what the validator finds.")

Provider = Annotated[str | None, typer.Option("--provider", metavar="P", help="The provider whose channel it is.")]


@app.command()
def add(
    url_env: Annotated[
        str | None,
        typer.Option("--url-env", metavar="NAME", help="Variable with the Apprise URL [default: ask for it]."),
    ] = None,
    provider: Provider = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Only this kind, e.g. mapping.taken_off.")
    ] = None,
    least_severity: Annotated[
        str, typer.Option("--least-severity", metavar="LEVEL", help="warning, error or critical.")
    ] = "warning",
    database: Database = None,
    config: Config = None,
) -> None:
    """Add a channel: an Apprise URL, which is kept encrypted. It hears of what happens from now on."""
    from roadworthy.cli import alert

    alert.add(url_env, provider, kind or [], least_severity, Where(database, config))


@app.command("list")
def list_channels(
    provider: Provider = None, as_json: Json = False, database: Database = None, config: Config = None
) -> None:
    """Show the channels, without their URLs."""
    from roadworthy.cli import alert

    alert.list_channels(provider, Where(database, config), as_json=as_json)


@app.command()
def remove(
    channel: Annotated[str, typer.Argument(metavar="ID", help="The channel's id, as `list` shows it.")],
    database: Database = None,
    config: Config = None,
) -> None:
    """Send a channel nothing more, and forget its URL."""
    from roadworthy.cli import alert

    alert.remove(channel, Where(database, config))


@app.command("test")
def try_out(
    channel: Annotated[str | None, typer.Argument(metavar="[ID]", help="One channel [default: all].")] = None,
    provider: Provider = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Send a test message now, and say whether each channel took it."""
    from roadworthy.cli import alert

    alert.try_out(channel, provider, Where(database, config))
