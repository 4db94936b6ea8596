"""`roadworthy validator`: the validator and what it finds. Definitions only; the work is in `validator`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roadworthy.cli import alert_commands
from roadworthy.cli.options import Config, Database, Json, Where

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The validator: every mapping tested on time. Straight in the database; the service may run meanwhile.",
)
endpoint_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Where a provider's API is, and the key to ask it with."
)
app.add_typer(endpoint_app, name="endpoint")
app.add_typer(alert_commands.app, name="alert")

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's slug.")]
MappingId = Annotated[str, typer.Argument(metavar="MAPPING_ID", help="The mapping's id.")]
Which = Annotated[str, typer.Argument(metavar="PROVIDER|MAPPING_ID", help="A provider's slug or a mapping's id.")]


@app.command()
def run(database: Database = None, config: Config = None) -> None:
    """Validate until interrupted, without serving anything. Makes and migrates the database by itself."""
    from roadworthy.cli import validator

    validator.run(Where(database, config))


@app.command()
def once(
    provider: Annotated[str | None, typer.Option("--provider", metavar="SLUG", help="Only of this provider.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--mapping", metavar="ID", help="Only this one, due or not; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="At once, even what is not due yet.")] = False,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Validate what is due, publish the verdicts and print them. Exit code 1 if any mapping fails, 3 if one is open."""
    from roadworthy.cli import validator

    validator.once(Where(database, config), provider, mapping or [], force=force, as_json=json)


@app.command()
def status(json: Json = False, database: Database = None, config: Config = None) -> None:
    """Show how the mappings are, by provider, and how the validator is."""
    from roadworthy.cli import validator

    validator.status(Where(database, config), as_json=json)


@app.command()
def history(
    mapping: MappingId,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many of the last runs.")] = 20,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Show the last runs of a mapping."""
    from roadworthy.cli import validator

    validator.history(Where(database, config), mapping, limit, as_json=json)


@app.command()
def recording(
    mapping: MappingId,
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the recording goes.")],
    failing: Annotated[
        bool, typer.Option("--failing/--passing", help="The latest run that failed, or that passed.")
    ] = True,
    database: Database = None,
    config: Config = None,
) -> None:
    """Write what was exchanged in a mapping's latest failing or passing run, for `roadworthy replay`."""
    from roadworthy.cli import validator

    validator.recording(Where(database, config), mapping, out, failing=failing)


@app.command()
def due(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="So many of the next.")] = 20,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Show what is due next, soonest first."""
    from roadworthy.cli import validator

    validator.due(Where(database, config), limit, as_json=json)


@app.command()
def pause(which: Which, database: Database = None, config: Config = None) -> None:
    """Suspend a mapping, or all of a provider's: off the active list, and not validated."""
    from roadworthy.cli import validator

    validator.pause(Where(database, config), which)


@app.command()
def resume(which: Which, database: Database = None, config: Config = None) -> None:
    """End a suspension. A mapping comes back with the first validation that it passes, which is due at once."""
    from roadworthy.cli import validator

    validator.resume(Where(database, config), which)


@app.command()
def quiet(
    provider: Provider,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="For how long: 90s, 30m, 2h, 1d; 0 ends it.")],
    database: Database = None,
    config: Config = None,
) -> None:
    """Announce maintenance: for that long a provider's failures alert nobody."""
    from roadworthy.cli import validator

    validator.quiet(Where(database, config), provider, duration)


@endpoint_app.command("set")
def endpoint_set(
    provider: Provider,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Base URL of the API; most end in /v1.")],
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", metavar="NAME", help="Variable with the key [default: the key that is there]."),
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Forget the key that is there.")] = False,
    max_running: Annotated[
        int | None, typer.Option("--max-running", min=1, max=64, metavar="N", help="Validations at once [default: 4].")
    ] = None,
    options: Annotated[
        Path | None,
        typer.Option("--options", metavar="FILE", help="TOML with apis, adapter, jobs, request_id_header, timeout_s."),
    ] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Register a provider's API, or change it. Its mappings are validated at once.

    The key goes to the scheme, host and port of the URL alone; with others it must be given again.
    """
    from roadworthy.cli import validator

    validator.endpoint_set(
        Where(database, config), provider, url, key_env=key_env, no_key=no_key, max_running=max_running, options=options
    )


@endpoint_app.command("show")
def endpoint_show(
    provider: Annotated[str | None, typer.Argument(metavar="[PROVIDER]", help="Its slug; without it, all.")] = None,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Show the registered APIs, without their keys."""
    from roadworthy.cli import validator

    validator.endpoint_show(Where(database, config), provider, as_json=json)


@endpoint_app.command("remove")
def endpoint_remove(provider: Provider, database: Database = None, config: Config = None) -> None:
    """Forget a provider's API and key. Its mappings are not validated any more."""
    from roadworthy.cli import validator

    validator.endpoint_remove(Where(database, config), provider)
