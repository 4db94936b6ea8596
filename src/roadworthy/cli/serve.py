"""`roadworthy serve`: the services, on one port, on one database."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer
import uvicorn

from roadworthy import logs
from roadworthy.billing.metrics import BillingMetrics
from roadworthy.billing.reconcile.watch import LOOK_S, LedgerWatch
from roadworthy.billing.service import Billing
from roadworthy.billing.settings import TABLE as BILLING
from roadworthy.billing.settings import BillingSettings
from roadworthy.billing.settings import gather as gather_billing
from roadworthy.cli.billing_prices import Capturing
from roadworthy.cli.billing_wiring import billing_routes, probes_noted
from roadworthy.database import Database, migrate, shown_url
from roadworthy.errors import UsageError
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.model_catalogue.hub import HubCatalogue
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.settings import ServiceSettings, gather
from roadworthy.sandbox.server import listen
from roadworthy.validator.alerts.alerter import Alerter
from roadworthy.validator.alerts.settings import AlertSettings
from roadworthy.validator.api import router as endpoint_routes
from roadworthy.validator.metrics import ValidatorMetrics
from roadworthy.validator.pages import router as status_pages
from roadworthy.validator.publish import Finished
from roadworthy.validator.service import Validator
from roadworthy.validator.settings import TABLE as VALIDATOR
from roadworthy.validator.settings import ValidatorSettings, read_alert_settings
from roadworthy.validator.settings import gather as gather_validation

_log = logs.get("roadworthy.serve")


def run(flags: Mapping[str, Any], config: Path | None, *, show_settings: bool) -> None:
    """Read the settings; show them, or serve with them."""
    found, validation, billing = gather(flags, config), gather_validation(config), gather_billing(config)
    for warning in (*found.warnings, *validation.warnings, *billing.warnings):
        typer.echo(f"roadworthy: {warning}", err=True)
    if show_settings:
        _show([*found.rows(), *validation.rows(f"{VALIDATOR}."), *billing.rows(f"{BILLING}.")])
    else:
        serve(found.settings, validation.settings, read_alert_settings(config), billing.settings)


def serve(
    settings: ServiceSettings,
    validation: ValidatorSettings | None = None,
    alerting: AlertSettings | None = None,
    billing: BillingSettings | None = None,
) -> None:
    """Create or migrate the database, then serve until interrupted. The first line printed is the base URL."""
    logs.configure(settings.log_format, settings.log_level, settings.secrets())
    database = Database(settings.database_url)
    migrate(database.url)
    service = Service(database, _catalogue(settings), settings)
    try:
        bound = listen(settings.host, settings.port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. Use --port 0 for a free one."
        ) from None
    config = server_config(service, validation, alerting, billing)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(f"http://{shown}:{bound.getsockname()[1]}")
    sys.stdout.flush()
    _log.info("serving", database=shown_url(database.url))  # logged, for standard error holds nothing but the log
    server = _Server(config, settings.shutdown_delay_s)
    server.run(sockets=[bound])
    if not server.started:
        raise UsageError("the service could not start; the log says why")
    _log.info("stopped")


def server_config(
    service: Service,
    validation: ValidatorSettings | None = None,
    alerting: AlertSettings | None = None,
    billing: BillingSettings | None = None,
) -> uvicorn.Config:
    """How the service is served, with the validator's pages and alerts; validator and billing unless they are off."""
    validation, alerting = validation or ValidatorSettings(), alerting or AlertSettings()
    billing = billing or BillingSettings()
    alerter = Alerter(service.database, service.sealer, service.guard, alerting)
    metrics = ValidatorMetrics(
        service.database,
        counted=alerter.counted,
        per_mapping=validation.metrics_per_mapping,
        stale_after_s=alerting.stale_after_s,
    )
    service.metric_sources.append(metrics)
    # Also where no validator runs: somebody must tell that none does.
    service.ticks.every("alerts", 1.0, alerter.tick)
    beside: list[AbstractAsyncContextManager[Any]] = [_Stopping(alerter)]
    if service.settings.validator:
        beside.append(_validator(service, validation, metrics, billing))
    costs = BillingMetrics(service.database, warn_after_s=billing.warn_after_s)
    service.metric_sources.append(costs)
    service.ticks.every("costs that do not come", 300.0, costs.read, first_after_s=300.0)
    if service.settings.billing:
        allow_private = service.settings.allow_private_targets
        beside.append(Billing(service.database, service.sealer, billing, allow_private=allow_private, told=costs.told))
        beside.append(Capturing(service.database, service.sealer, allow_private=allow_private))
        watch = LedgerWatch(service.database)
        service.metric_sources.append(watch)
        service.ticks.every("look through the ledger", LOOK_S, watch.tick, first_after_s=LOOK_S)
    routers = [endpoint_routes, status_pages(service.database), *billing_routes(service, billing.batch_size)]
    return uvicorn.Config(
        create_app(service, routers=routers, beside=beside),
        # The validator reads arrival times from sockets of Python's own loop; uvloop is quicker, but hides them.
        loop="asyncio" if service.settings.validator else "auto",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=service.settings.shutdown_timeout_s,
        # uvicorn alone would believe X-Forwarded-For from this machine: every caller could name any address.
        proxy_headers=bool(service.settings.trusted_proxies),
        forwarded_allow_ips=service.settings.trusted_proxies,
    )


class _Stopping(AbstractAsyncContextManager[None]):
    """Stops the alerter before what it works with is closed."""

    def __init__(self, alerter: Alerter) -> None:
        self._alerter = alerter

    async def __aexit__(self, *_raised: object) -> None:
        await self._alerter.stop()


class _Server(uvicorn.Server):
    """Stops in order at the first signal, and at once at the second. Being told to stop is no failure: exit code 0."""

    def __init__(self, config: uvicorn.Config, delay_s: float) -> None:
        super().__init__(config)
        self._app: Any = config.app
        self._delay_s = delay_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """SIGHUP reads the catalogue's file again."""
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP"):  # not on Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._app.state.service.upkeep.wake)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises the signal again in the end, which would make it the exit code."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal: not ready any more, then stop."""
        del frame
        operation = self._app.state.operation
        if operation.stopping:
            os._exit(128 + sig)
        operation.stopping = True
        _log.info("stopping", signal=signal.Signals(sig).name, in_flight=operation.metrics.in_flight)
        if not self.started or not self._delay_s:
            self.should_exit = True
            return
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self._delay_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def _validator(
    service: Service, settings: ValidatorSettings, metrics: ValidatorMetrics, billing: BillingSettings
) -> Validator:
    def published(finished: Sequence[Finished], seconds: float) -> None:
        metrics.published(finished, seconds)
        service.deliverer.wake()

    return Validator(
        service.database,
        service.sealer,
        settings,
        allow_private=service.settings.allow_private_targets,
        published=published,
        noted=probes_noted(billing.validator_payer),
    )


def _show(rows: Sequence[tuple[str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        typer.echo(f"{name:<{widths[0]}}  {value:<{widths[1]}}  ({origin})")


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
