"""`roadworthy mapping`: its commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="mapping",
    no_args_is_help=True,
    help="A provider's mapping as a file: apply it to a mapping service, compare, list, export.",
    epilog="Exit codes: 0 done, 1 a difference, 2 wrong usage or refused, 3 the service could not be reached.",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The mapping, as YAML or (.json) JSON.")]
Url = Annotated[str, typer.Option("--url", envvar="ROADWORTHY_URL", help="The mapping service's address.")]
TokenEnv = Annotated[str, typer.Option("--token-env", metavar="NAME", help="Variable that holds the token.")]
CaFile = Annotated[Path | None, typer.Option("--ca-file", help="Also trust the certificates in this PEM file.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds one request may take.")]
LOCAL = "http://127.0.0.1:8000"
TOKEN_ENV = "ROADWORTHY_TOKEN"  # noqa: S105  the variable's name, not a token


@app.command()
def apply(
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Without a terminal, removals need it.")] = False,
    url: Url = LOCAL,
    token_env: TokenEnv = TOKEN_ENV,
    ca_file: CaFile = None,
    timeout: Timeout = 120.0,
) -> None:
    """Make the file the provider's whole mapping: add, change and remove, all at once or not at all."""
    from roadworthy.cli import mapping

    mapping.apply(file, mapping.service(url, token_env, ca_file, timeout), dry_run=dry_run, yes=yes)


@app.command()
def diff(
    file: File,
    url: Url = LOCAL,
    token_env: TokenEnv = TOKEN_ENV,
    ca_file: CaFile = None,
    timeout: Timeout = 120.0,
) -> None:
    """Show what the file would change. Exit code 1 where that is anything, 0 where it is nothing."""
    from roadworthy.cli import mapping

    mapping.diff(file, mapping.service(url, token_env, ca_file, timeout))


@app.command("list")
def list_all(
    provider: Annotated[str, typer.Argument(envvar="ROADWORTHY_PROVIDER", help="The provider's slug.")],
    status: Annotated[str | None, typer.Option("--status", help="Only live, or only staging.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As the service lists it.")] = False,
    url: Url = LOCAL,
    token_env: TokenEnv = TOKEN_ENV,
    ca_file: CaFile = None,
    timeout: Timeout = 60.0,
) -> None:
    """List a provider's mappings."""
    from roadworthy.cli import mapping

    mapping.list_all(provider, status, mapping.service(url, token_env, ca_file, timeout), as_json=json)


@app.command()
def export(
    provider: Annotated[str, typer.Argument(envvar="ROADWORTHY_PROVIDER", help="The provider's slug.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here, as YAML or (.json) JSON.")
    ] = None,
    url: Url = LOCAL,
    token_env: TokenEnv = TOKEN_ENV,
    ca_file: CaFile = None,
    timeout: Timeout = 60.0,
) -> None:
    """Write a provider's mapping as a file that `apply` takes."""
    from roadworthy.cli import mapping

    mapping.export(provider, output, mapping.service(url, token_env, ca_file, timeout))
