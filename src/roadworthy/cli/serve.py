"""`roadworthy serve`: the services, on one port, on one database."""

from __future__ import annotations

import asyncio
import signal
import socket

import typer
import uvicorn

from roadworthy.database import Database, migrate, shown_url
from roadworthy.errors import UsageError
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.model_catalogue.hub import HubCatalogue
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.sandbox.server import listen


def serve(settings: ServiceSettings) -> None:
    """Create or migrate the database, then serve until interrupted. The first line printed is the base URL."""
    database = Database(settings.database_url)
    migrate(database.url)
    service = Service(database, _catalogue(settings), settings)
    try:
        bound = listen(settings.host, settings.port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. Use --port 0 for a free one."
        ) from None
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(f"http://{shown}:{bound.getsockname()[1]}")
    typer.echo(f"database: {shown_url(database.url)}. Stop with Ctrl-C.", err=True)
    config = uvicorn.Config(create_app(service), log_level="warning", access_log=False)
    _Server(config, service).run(sockets=[bound])


class _Server(uvicorn.Server):
    """Reads the catalogue's file again at SIGHUP."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):  # not on Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._service.upkeep.wake)


def _catalogue(settings: ServiceSettings) -> ModelCatalogue:
    if settings.model_catalogue != "hub":
        return FileCatalogue(settings.catalogue_file())
    token = settings.hub_token
    return HubCatalogue(
        settings.hub_endpoint,
        None if token is None else token.get_secret_value(),
        timeout_s=settings.hub_timeout_s,
        concurrency=settings.hub_concurrency,
        matches_max=settings.hub_matches_max,
    )
