"""`roadworthy cleanup`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from roadworthy.config import read_toml, validate
from roadworthy.conformance.cleanup import Entry, Journal, Removal, leftovers, remove
from roadworthy.conformance.settings import CheckSettings, merge, target
from roadworthy.conformance.target import Target
from roadworthy.conformance.verdict import ExitCode


def run(config: Path | None, flags: Mapping[str, Any], namespace: str | None) -> NoReturn:
    """Delete what earlier runs have left at a target; leave with 1 where something may still be there."""
    values = merge(read_toml(config) if config else {}, {"target": flags})
    settings = validate(CheckSettings, values, str(config) if config else "the command line")
    provider = target(settings.target)
    journal = Journal()
    left, working = leftovers(journal, provider.base_url, namespace)
    for entry in working:
        typer.echo(f"kept {entry.namespace}/{entry.name}: the run that made it is still at work")
    if not left:
        typer.echo("nothing is left to remove")
        raise typer.Exit
    removals = asyncio.run(_remove(left, provider, journal, settings.target.ca_file))
    for removal in removals:
        _tell(removal)
    raise typer.Exit(ExitCode.PASS if all(removal.gone for removal in removals) else ExitCode.FAIL)


async def _remove(left: Sequence[Entry], provider: Target, journal: Journal, ca_file: Path | None) -> list[Removal]:
    from roadworthy.http.aiohttp_transport import AiohttpTransport

    transport = AiohttpTransport(ca_file=ca_file)
    try:
        return await remove(left, provider, transport, journal)
    finally:
        await transport.aclose()


def _tell(removal: Removal) -> None:
    name = f"{removal.entry.namespace}/{removal.entry.name}"
    if not removal.gone:
        typer.echo(f"could not remove {name}: {removal.said}. It may cost money: delete it by hand.", err=True)
    elif removal.found:
        typer.echo(f"removed {name}")
    else:
        typer.echo(f"{name} was gone already")
