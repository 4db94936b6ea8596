"""The service's settings: `[server]` in `roadworthy.toml`, or variables that begin with ROADWORTHY_."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from roadworthy.database import DEFAULT_URL

Limit = Annotated[int, Field(ge=0)]


class ServiceSettings(BaseSettings):
    """What can be set. Each has the environment variable ROADWORTHY_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="ROADWORTHY_", extra="ignore", frozen=True)

    database_url: str = DEFAULT_URL
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    model_catalogue: str = "builtin"
    """"builtin", "hub", or the path of a file of JSON lines."""
    allow_private_targets: bool = False
    """Whether partners may register URLs on loopback and private networks."""

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
        """The path of the catalogue's file; None for the built-in one."""
        return None if self.model_catalogue == "builtin" else Path(self.model_catalogue)


def read_settings(flags: Mapping[str, Any]) -> ServiceSettings:
    """The settings of flags and environment, flags first. A flag that is None was not given."""
    return ServiceSettings(**{name: value for name, value in flags.items() if value is not None})
