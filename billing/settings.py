"""Billing's settings: variables that begin with ROADWORTHY_BILLING_, and `[billing]` in `roadworthy.toml`.

What comes first of these wins. There is no secret among them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from roadworthy import settings
from roadworthy.billing.items import PAYER
from roadworthy.billing.schedule import Policy
from roadworthy.settings import Found

PREFIX = "ROADWORTHY_BILLING_"
TABLE = "billing"

Seconds = Annotated[int, Field(ge=1, le=31 * 24 * 3600)]


class BillingSettings(BaseSettings):
    """What can be set. Each has the environment variable ROADWORTHY_BILLING_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    interval_s: Seconds = 60
    """How often each provider is asked."""
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """The most ids in one question."""
    batches_per_turn: Annotated[int, Field(ge=1, le=10_000)] = 60
    """The most questions to one provider before others have a turn."""
    turn_s: Seconds = 300
    """How long one provider is asked before others have a turn."""
    timeout_s: Annotated[int, Field(ge=1, le=600)] = 50
    """How long one question may take."""
    lease_s: Annotated[int, Field(ge=2, le=3600)] = 120
    """How long a collector is trusted to be at work on a question; after that another takes over."""
    expire_after_s: Seconds = 1800
    """For how long an id that a provider leaves out is asked for again. Then its payer is not charged."""
    max_cost_nano_usd: Annotated[int, Field(ge=1, le=2**63 - 1)] = 1_000 * 10**9
    """A request that costs more is disputed, for a person to judge: 1,000 USD by default."""
    retry_after_most_s: Seconds = 3600
    """A provider that asks for a longer rest gets this one."""
    answer_max_bytes: Annotated[int, Field(ge=4096, le=1024 * 1024 * 1024)] = 16 * 1024 * 1024
    """The largest answer that is read."""
    providers_at_once: Annotated[int, Field(ge=1, le=1000)] = 32
    """Providers that one process asks at the same time."""
    recheck_ids_per_hour: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Settled requests of each provider that are asked for again each hour: a changed cost is disputed. 0 is none."""
    keep_batches_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long is kept what each question came to."""
    warn_after_s: Seconds = 3600
    """A provider whose oldest request has been without a cost for so long is warned of, in log and metrics."""

    validator_payer: Annotated[str, Field(pattern=f"^{PAYER}$")] = "org:validator"
    """Who pays for the validator's own requests, of providers that have a cost endpoint."""

    @model_validator(mode="after")
    def _consistent(self) -> BillingSettings:
        if self.lease_s <= self.timeout_s:
            raise ValueError(
                f"lease_s must be greater than timeout_s, so that what was answered can be settled; they are "
                f"{self.lease_s} and {self.timeout_s}"
            )
        return self

    def policy(self) -> Policy:
        """The settings as the collector takes them."""
        names = Policy.__dataclass_fields__
        return Policy(**{name: getattr(self, name) for name in type(self).model_fields if name in names})


def read_settings(config: Path | None = None) -> BillingSettings:
    """The settings of environment and file, in this order. Raises `ConfigError` for what cannot be used."""
    return gather(config).settings


def gather(config: Path | None = None) -> Found[BillingSettings]:
    """The same, with the origin of each value. `config` is a settings file; by default `roadworthy.toml`, if any."""
    return settings.gather(BillingSettings, TABLE, config)
