"""Changing the key that secrets are encrypted with."""

from __future__ import annotations

import typer

from roadworthy.billing.store import endpoints as cost_endpoints
from roadworthy.cli import operator
from roadworthy.cli.options import Where
from roadworthy.errors import ConfigError
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import webhooks
from roadworthy.sealing import HOW_TO_SET, VARIABLE, Sealer
from roadworthy.validator.store import alerts, endpoints


def reseal(settings: ServiceSettings) -> None:
    """Seal all secrets with the first key, in one transaction. Raises `ConfigError` without keys, `SealingError`."""
    sealer = Sealer(settings.secret_key.get_secret_value() if settings.secret_key else None)
    if not sealer.ready:
        raise ConfigError(f"{VARIABLE} is not set; {HOW_TO_SET}")
    done = operator.write(Where(settings.database_url), lambda opened: _reseal(opened, sealer))
    typer.echo(f"{done} encrypted anew; all secrets are under the first key now, and the others can be dropped")


async def _reseal(opened: Change, sealer: Sealer) -> int:
    return (
        await webhooks.reseal(opened, sealer)
        + await endpoints.reseal(opened, sealer)
        + await alerts.reseal(opened.connection, sealer)
        + await cost_endpoints.reseal(opened.connection, sealer)
    )
