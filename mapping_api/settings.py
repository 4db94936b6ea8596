"""The service's settings: `[server]` in `roadworthy.toml`, or variables that begin with ROADWORTHY_."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr
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
    catalogue_refresh_s: Annotated[float, Field(ge=60)] = 21_600
    """How often the facts of each mapped model and tag filter are asked for again."""
    hub_endpoint: str | None = None
    """The hub's URL; None is the one of `huggingface_hub`."""
    hub_token: SecretStr | None = None
    """With it the hub also tells of private models that it may read."""
    hub_timeout_s: Annotated[float, Field(gt=0, le=300)] = 8
    hub_concurrency: Annotated[int, Field(ge=1, le=64)] = 8
    hub_matches_max: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Of how many models, most downloaded first, one tag filter is followed."""
    allow_private_targets: bool = False
    """Whether partners may register URLs on loopback and private networks."""

    def catalogue_file(self) -> Path | None:
        """The path of the catalogue's file; None for the built-in one, and for the hub."""
        return None if self.model_catalogue in {"builtin", "hub"} else Path(self.model_catalogue)


def read_settings(flags: Mapping[str, Any]) -> ServiceSettings:
    """The settings of flags and environment, flags first. A flag that is None was not given."""
    return ServiceSettings(**{name: value for name, value in flags.items() if value is not None})
