"""The validator's settings: variables that begin with ROADWORTHY_VALIDATOR_, and `[validator]` in `roadworthy.toml`.

What comes first of these wins. There is no secret among them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from roadworthy import settings
from roadworthy.config import validate
from roadworthy.settings import Found
from roadworthy.validator.alerts.settings import AlertSettings
from roadworthy.validator.health import Thresholds
from roadworthy.validator.publish import Policy
from roadworthy.validator.schedule import Periods
from roadworthy.validator.store.due import Bounds
from roadworthy.validator.suspicion import Doubts
from roadworthy.validator.worker import SPARE_S

PREFIX = "ROADWORTHY_VALIDATOR_"
TABLE = "validator"
ALERTS = "alerts"

Seconds = Annotated[int, Field(ge=1, le=31 * 24 * 3600)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Days = Annotated[int, Field(ge=1, le=10_000)]


class ValidatorSettings(BaseSettings):
    """What can be set. Each has the environment variable ROADWORTHY_VALIDATOR_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    routine_s: Seconds = Periods().routine_s
    """How often a mapping is validated."""
    retest_s: Seconds = Periods().retest_s
    """How often one that fails is."""
    debounce_s: Annotated[int, Field(ge=0, le=3600)] = Periods().debounce_s
    """How long after a change its validation waits for further changes."""
    doubt_s: Seconds = Periods().doubt_s
    """How soon a validation that could say nothing is tried again."""

    running: Count = Bounds().running
    """Validations at once, of all processes together. Each provider has a bound of its own beside it."""
    run_timeout_s: Annotated[int, Field(ge=1, le=3600)] = 240
    """How long one validation may take; a mapping that is not through by then fails."""
    lease_s: Annotated[int, Field(ge=2, le=7200)] = 240 + SPARE_S
    """How long a validation is trusted to be under way; after that another process may begin it anew."""

    failures_to_delist: Count = Thresholds().failures_to_delist
    """So many failures in a row take a mapping off the active list."""
    passes_to_relist: Count = Thresholds().passes_to_relist
    """So many passes in a row bring it back."""
    flaps: Count = Thresholds().flaps
    """So many times off the list within `flap_window_s` keep it off for `flap_hold_s` after its last failure."""
    flap_window_s: Seconds = Thresholds().flap_window_s
    flap_hold_s: Seconds = Thresholds().flap_hold_s
    delist_on_rate_limit: bool = Thresholds().delist_on_rate_limit
    """Whether answers of "too many requests" alone take a mapping off the list."""

    window_s: Seconds = Doubts().window_s
    """How far back runs count as "the same minutes" for the two doubts below."""
    brake_providers: Count = Doubts().brake_providers
    """The fewest providers whose failing together makes the validator suspect itself."""
    brake_share: Annotated[float, Field(gt=0, lt=1)] = Doubts().brake_share
    """It does when more than this share of the providers fail."""
    down_mappings: Count = Doubts().down_mappings
    """So many mappings of a provider failing, and none passing, mean that it is down as a whole."""
    canary_s: Seconds = Doubts().canary_s
    """How often one mapping is tried on behalf of a provider that is down."""
    back_s: Seconds = Doubts().back_s
    """When it answers again, all that waits for a retest has its turn within this time, as the bounds allow."""

    metrics_per_mapping: bool = False
    """Whether /metrics tells of each mapping too, not of providers alone."""
    keep_runs_days: Days = 30
    """How long each run is kept."""
    keep_rollups_days: Days = 400
    """How long the hourly sums are kept."""
    recording_max_bytes: Annotated[int, Field(ge=4096, le=64_000_000)] = 256 * 1024
    """The largest recording that is kept, compressed; a larger one keeps its first exchanges."""

    @model_validator(mode="after")
    def _consistent(self) -> ValidatorSettings:
        if self.lease_s <= self.run_timeout_s:
            raise ValueError(
                f"lease_s must be greater than run_timeout_s, better by {SPARE_S} s or more, so that what ended can be "
                f"published; they are {self.lease_s} and {self.run_timeout_s}"
            )
        return self

    def policy(self) -> Policy:
        """The settings as the parts of the validator take them."""
        return Policy(
            Periods(self.routine_s, self.retest_s, self.debounce_s, self.doubt_s),
            Bounds(self.running, self.lease_s),
            Thresholds(
                failures_to_delist=self.failures_to_delist,
                passes_to_relist=self.passes_to_relist,
                flaps=self.flaps,
                flap_window_s=self.flap_window_s,
                flap_hold_s=self.flap_hold_s,
                delist_on_rate_limit=self.delist_on_rate_limit,
            ),
            Doubts(
                window_s=self.window_s,
                brake_providers=self.brake_providers,
                brake_share=self.brake_share,
                down_mappings=self.down_mappings,
                canary_s=self.canary_s,
                back_s=self.back_s,
            ),
        )


def read_settings(config: Path | None = None) -> ValidatorSettings:
    """The settings of environment and file, in this order. Raises `ConfigError` for what cannot be used."""
    return gather(config).settings


def gather(config: Path | None = None) -> Found[ValidatorSettings]:
    """The same, with the origin of each value. `config` is a settings file; by default `roadworthy.toml`, if any."""
    return settings.gather(ValidatorSettings, TABLE, config)


def read_alert_settings(config: Path | None = None) -> AlertSettings:
    """The table [alerts] of the settings file. Raises `ConfigError` for what cannot be used."""
    path, table = settings.read_table(ALERTS, config)
    return validate(AlertSettings, table, f"[{ALERTS}] in {path}")
