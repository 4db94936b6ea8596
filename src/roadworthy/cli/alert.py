"""Channels of alerts: added, shown, removed, tried out by the operator."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys

import sqlalchemy as sa
import typer

from roadworthy.cli.operator import iso, read, show, write
from roadworthy.cli.options import Where
from roadworthy.database import Database
from roadworthy.errors import ConfigError, RoadworthyError, UsageError
from roadworthy.http.guard import Guard
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.names import new_id
from roadworthy.mapping_api.settings import ServiceSettings, read_settings
from roadworthy.mapping_api.tables import providers
from roadworthy.sealing import HOW_TO_SET, VARIABLE, Sealer
from roadworthy.validator.alerts import texts
from roadworthy.validator.alerts.kinds import Kind, Severity
from roadworthy.validator.alerts.send import Sender, urls_in
from roadworthy.validator.alerts.settings import VARIABLE as URLS_VARIABLE
from roadworthy.validator.store import alerts as rows
from roadworthy.validator.store.alerts import FROM_ENVIRONMENT, Channel


def add(url_env: str | None, provider: str | None, kinds: list[str], least: str, where: Where) -> None:
    """Add a channel and print its id. Raises `ConfigError` for a URL that cannot be used, `UsageError`."""
    if least not in list(Severity):
        raise UsageError(f"--least-severity is warning, error or critical; got {least!r}")
    unknown = [kind for kind in kinds if kind not in list(Kind)]
    if unknown:
        raise UsageError(f"there is no kind {unknown[0]!r}; kinds are {', '.join(Kind)}")
    settings = read_settings({"database_url": where.url}, where.config)
    sealer = _sealer(settings)
    if not sealer.ready:
        raise ConfigError(f"{VARIABLE} is not set, so the channel's URL cannot be encrypted; {HOW_TO_SET}")
    url = _url(url_env)
    service = asyncio.run(_checked(settings, url, trusted=provider is None))
    channel_id = new_id()
    sealed = sealer.seal(url, rows.url_context(channel_id))

    async def work(opened: Change) -> None:
        found = await opened.connection.execute(sa.select(providers.c.slug).where(providers.c.slug == provider))
        if provider is not None and found.first() is None:
            raise UsageError(f"there is no provider {provider}; `roadworthy org list` shows them")
        channel = Channel(channel_id, provider, sealed, service, tuple(kinds), Severity(least), 0, opened.now_us)
        await rows.add_channel(opened.connection, channel)
        await opened.record("alert_channel.created", channel_id, provider=provider, after={"service": service})

    write(where, work)
    typer.echo(channel_id)
    typer.echo(f"added; try it out with `roadworthy validator alert test {channel_id}`", err=True)


def list_channels(provider: str | None, where: Where, *, as_json: bool) -> None:
    """Print the channels."""

    async def work(opened: Database) -> list[Channel]:
        async with opened.reading() as connection:
            return await rows.channels(connection, provider)

    shown = [
        {
            "id": each.id,
            "provider": each.provider,
            "service": each.service,
            "kinds": list(each.kinds),
            "least_severity": each.least_severity.value,
            "created_at": iso(each.created_at_us),
        }
        for each in read(where, work)
    ]
    columns = ("id", "provider", "service", "kinds", "least_severity", "created_at")
    show(shown, columns, as_json=as_json, nothing="no channels; `roadworthy validator alert add` makes one")


def remove(channel_id: str, where: Where) -> None:
    """Remove a channel. Raises `UsageError` where there is none."""

    async def work(opened: Change) -> None:
        removed = await rows.remove_channel(opened.connection, channel_id)
        if removed is None:
            raise UsageError(f"there is no channel {channel_id}; `roadworthy validator alert list` shows them")
        await opened.record(
            "alert_channel.removed", channel_id, provider=removed.provider, before={"service": removed.service}
        )

    write(where, work)
    typer.echo(f"{channel_id} removed")


def try_out(channel_id: str | None, provider: str | None, where: Where) -> None:
    """Send a test to channels; exit code 4 where one did not take it."""
    settings = read_settings({"database_url": where.url}, where.config)

    async def work(opened: Database) -> bool:
        async with opened.reading() as connection:
            found = await rows.channels(connection, provider)
        chosen = [each for each in found if channel_id in {None, each.id}]
        if not chosen and channel_id is not None:
            raise UsageError(f"there is no channel {channel_id}; `roadworthy validator alert list` shows them")
        urls = {each.id: _opened(each, settings) for each in chosen}
        if channel_id is None and provider is None:
            operators = urls_in(os.environ.get(URLS_VARIABLE, ""))
            urls |= {f"{FROM_ENVIRONMENT}{number}": url for number, url in enumerate(operators, 1)}
        if not urls:
            raise UsageError("there are no channels; add one with `roadworthy validator alert add`")
        of = {each.id: each.provider for each in chosen}
        told = await asyncio.gather(*(_try_out(settings, id, url, of.get(id)) for id, url in urls.items()))
        return all(told)

    if not read(where, work):
        raise typer.Exit(RoadworthyError.exit_code)


async def _try_out(settings: ServiceSettings, channel_id: str, url: str | None, provider: str | None) -> bool:
    if url is None:
        typer.echo(f"{channel_id}: its URL is in the environment of the service, and not here")
        return False
    message = texts.message(
        f"alr_test{secrets.token_hex(6)}", provider or "", {Kind.TEST.value: {"count": 0, "items": []}}
    )
    guard = Guard(allow_private=settings.allow_private_targets)
    try:
        assert message is not None  # a test is as grave as can be, and no kinds are asked for
        said = await Sender(guard).send(channel_id, url, message, trusted=provider is None)
    finally:
        guard.close()
    typer.echo(f"{channel_id}: {'taken' if said is None else said}")
    return said is None


def _opened(channel: Channel, settings: ServiceSettings) -> str | None:
    if channel.url_sealed is not None:
        return _sealer(settings).open(channel.url_sealed, rows.url_context(channel.id))
    place = int(channel.id.removeprefix(FROM_ENVIRONMENT)) - 1
    urls = urls_in(os.environ.get(URLS_VARIABLE, ""))
    return urls[place] if place < len(urls) else None


def _sealer(settings: ServiceSettings) -> Sealer:
    return Sealer(settings.secret_key.get_secret_value() if settings.secret_key else None)


def _url(variable: str | None) -> str:
    """The URL, which is a secret and so comes by no argument: those stand in the shell's history."""
    if variable is not None:
        url = os.environ.get(variable, "").strip()
        if not url:
            raise UsageError(f"the environment variable {variable} is empty; set it to the channel's Apprise URL")
        return url
    if sys.stdin.isatty():
        return str(typer.prompt("Apprise URL", hide_input=True)).strip()
    url = sys.stdin.readline().strip()
    if not url:
        raise UsageError("no URL came; name a variable with --url-env, or write the URL to standard input")
    return url


async def _checked(settings: ServiceSettings, url: str, *, trusted: bool) -> str:
    guard = Guard(allow_private=settings.allow_private_targets)
    try:
        return await Sender(guard).check(url, trusted=trusted)
    finally:
        guard.close()
