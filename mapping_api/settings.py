"""The service's settings: `[server]` in `roadworthy.toml`, or variables that begin with ROADWORTHY_."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from roadworthy.database import DEFAULT_URL


class ServiceSettings(BaseSettings):
    """What can be set. Each has the environment variable ROADWORTHY_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="ROADWORTHY_", extra="ignore", frozen=True)

    database_url: str = DEFAULT_URL
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    model_catalogue: str = "builtin"
    """"builtin", "hub", or the path of a file of JSON lines."""
    stale_reads_s: Annotated[float, Field(ge=0, le=3600)] = 60
    """How long public hub reads go on from the last copy while the database does not answer."""
    allow_private_targets: bool = False
    """Whether partners may register URLs on loopback and private networks."""

    def catalogue_file(self) -> Path | None:
        """The path of the catalogue's file; None for the built-in one."""
        return None if self.model_catalogue == "builtin" else Path(self.model_catalogue)


def read_settings(flags: Mapping[str, Any]) -> ServiceSettings:
    """The settings of flags and environment, flags first. A flag that is None was not given."""
    return ServiceSettings(**{name: value for name, value in flags.items() if value is not None})
