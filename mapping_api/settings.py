"""The service's settings: flags, variables that begin with ROADWORTHY_, and `[server]` in `roadworthy.toml`.

What comes first of these wins. Secrets come from the environment alone: a settings file is
copied, committed and shown, as a key in it would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from roadworthy import settings
from roadworthy.database import DEFAULT_URL
from roadworthy.logs import Format, Level
from roadworthy.settings import Found

PREFIX = "ROADWORTHY_"
TABLE = "server"

Limit = Annotated[int, Field(ge=0)]


class ServiceSettings(BaseSettings):
    """What can be set. Each has the environment variable ROADWORTHY_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    database_url: str = DEFAULT_URL
    """SQLite or PostgreSQL. With a password only in the environment."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 picks a free one; the first line printed tells which."""
    public_url: Annotated[str, Field(pattern=r"^(https?://[^\s<>?#]+)?$")] = ""
    """Where the public reaches the service, for links to next pages; by default, where each request came to."""
    model_catalogue: str = "builtin"
    """"builtin", "hub", or the path of a file of JSON lines."""
    catalogue_refresh_s: Annotated[float, Field(ge=60)] = 21_600
    """How often the facts of each mapped model and tag filter are asked for again."""
    hub_endpoint: str | None = None
    """The hub's URL; None is the one of `huggingface_hub`."""
    hub_token: SecretStr | None = None
    """With it the hub allows more questions. Private models stay unknown here: reads are public."""
    hub_timeout_s: Annotated[float, Field(gt=0, le=300)] = 8
    hub_concurrency: Annotated[int, Field(ge=1, le=64)] = 8
    hub_matches_max: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Of how many models, most downloaded first, one tag filter is followed."""
    stale_reads_s: Annotated[float, Field(ge=0, le=3600)] = 60
    """How long public hub reads go on from the last copy while the database does not answer."""
    allow_private_targets: bool = False
    """Whether partners may register URLs on loopback and private networks."""
    log_format: Format = "auto"
    """"json", "text", or "auto": text on a terminal, JSON elsewhere."""
    log_level: Level = "info"
    """The least that is written: "debug", "info", "warning" or "error"."""
    shutdown_timeout_s: Annotated[int, Field(ge=0, le=3600)] = 20
    """How long requests that run when the service is asked to stop may go on."""
    shutdown_delay_s: Annotated[float, Field(ge=0, le=600)] = 0.0
    """How long new requests are still taken after that, while /readyz says 503 and load balancers turn away."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    """The largest body of a request."""
    max_bulk_body_bytes: Annotated[int, Field(ge=1024)] = 16_000_000
    """The largest body of a bulk request, a whole desired mapping."""
    validator: bool = True
    """Whether mappings are validated by this process, too; see `[validator]`."""
    billing: bool = True
    """Whether costs are collected by this process, too; see `[billing]`."""
    secret_key: SecretStr | None = None
    """What secrets are encrypted with; `roadworthy secret-key new` makes one. Several, with commas: see `sealing`."""
    webhook_timeout_s: Annotated[float, Field(gt=0, le=60)] = 15.0
    """How long a receiver of webhooks may take to answer."""

    anonymous_reads_per_minute: Limit = 6_000
    """Requests without a valid token, by address; 0 is no limit, here and below. Each process counts for itself."""
    anonymous_writes_per_minute: Limit = 600
    token_reads_per_minute: Limit = 12_000
    token_writes_per_minute: Limit = 6_000
    failed_authentications_per_minute: Limit = 60
    """By address."""
    trusted_proxies: str = ""
    """Addresses of proxies whose X-Forwarded-For is believed, with commas between; "*" believes everyone."""

    def catalogue_file(self) -> Path | None:
        """The path of the catalogue's file; None for the built-in one, and for the hub."""
        return None if self.model_catalogue in {"builtin", "hub"} else Path(self.model_catalogue)

    def secrets(self) -> list[str]:
        """Every value that must stand in no log."""
        return settings.secrets_in(self)


def read_settings(flags: Mapping[str, Any], config: Path | None = None) -> ServiceSettings:
    """The settings of flags, environment and file, in this order. Raises `ConfigError` for what cannot be used."""
    return gather(flags, config).settings


def gather(flags: Mapping[str, Any], config: Path | None = None) -> Found[ServiceSettings]:
    """The same, with the origin of each value. `config` is a settings file; by default `roadworthy.toml`, if any."""
    return settings.gather(ServiceSettings, TABLE, config, flags)
