"""`roadworthy billing collect` and `billing endpoint`: asking for costs, and where."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import typer

from roadworthy import logs
from roadworthy.billing.service import Billing
from roadworthy.billing.settings import read_settings
from roadworthy.billing.store import endpoints
from roadworthy.cli.operator import read
from roadworthy.cli.options import Where
from roadworthy.database import Database, shown_url
from roadworthy.errors import ForbiddenTargetError, UsageError
from roadworthy.http.guard import Guard
from roadworthy.http.urls import base_url_of, key_of
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.settings import read_settings as service_settings
from roadworthy.sealing import Sealer

_log = logs.get("roadworthy.billing")


def collect(url: str | None, config: Path | None, providers: Sequence[str], *, once: bool) -> None:
    """Collect until interrupted, or once."""
    settings = service_settings({"database_url": url}, config)
    billing = read_settings(config)
    logs.configure(settings.log_format, settings.log_level, settings.secrets())

    async def go(database: Database) -> None:
        parts = Billing(database, _sealer(settings), billing, allow_private=settings.allow_private_targets)
        parts.collector.only = providers or None
        if once:
            try:
                await parts.once(providers or None)
            finally:
                await parts.stop()
            return
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # on Windows Ctrl-C raises KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with parts:
            typer.echo(f"collecting costs on {shown_url(database.url)}. Stop with Ctrl-C.", err=True)
            await stop.wait()
            _log.info("stopping")

    read(Where(settings.database_url), go, make=not once)


def endpoint_set(url: str | None, provider: str, cost_url: str, *, key_env: str | None, no_key: bool) -> None:
    """Register where a provider tells its costs, or change it."""
    settings = service_settings({"database_url": url})
    if key_env and no_key:
        raise UsageError("--key-env and --no-key exclude each other")
    wanted = base_url_of(cost_url)
    try:
        Guard(allow_private=settings.allow_private_targets).check(wanted)
    except ForbiddenTargetError as error:
        raise UsageError(
            f"--url: {error}. For a demo or a closed network set ROADWORTHY_ALLOW_PRIVATE_TARGETS=true, "
            "here and for the collector"
        ) from None
    key = None
    if key_env is not None:
        if key_env not in os.environ:
            raise UsageError(f"the environment variable {key_env} is not set; put the key there")
        key = key_of(os.environ[key_env])
    sealer = _sealer(settings)
    batch_size = read_settings().batch_size

    async def work(database: Database) -> None:
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            await endpoints.register(
                connection,
                sealer,
                provider,
                wanted,
                now_us,
                key=key,
                keep_key=key is None and not no_key,
                batch_size=batch_size,
            )

    read(Where(url), work)
    typer.echo(f"{provider} tells its costs at {wanted}", err=True)


def _sealer(settings: ServiceSettings) -> Sealer:
    key = settings.secret_key
    return Sealer(key.get_secret_value() if key else None)
