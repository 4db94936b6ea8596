"""`roadworthy serve`: the services, on one port, on one database."""

from __future__ import annotations

import typer
import uvicorn

from roadworthy.database import Database, migrate, shown_url
from roadworthy.errors import UsageError
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
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
    uvicorn.Server(server_config(service)).run(sockets=[bound])


def server_config(service: Service) -> uvicorn.Config:
    """How the server serves it."""
    return uvicorn.Config(
        create_app(service),
        log_level="warning",
        access_log=False,
        # uvicorn alone would believe X-Forwarded-For from this machine: every caller could name any address.
        proxy_headers=bool(service.settings.trusted_proxies),
        forwarded_allow_ips=service.settings.trusted_proxies,
    )


def _catalogue(settings: ServiceSettings) -> ModelCatalogue:
    return FileCatalogue(settings.catalogue_file())
