"""What can be set of alerts: the table [alerts] of the settings file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from roadworthy.validator.alerts.kinds import Kind, Severity

VARIABLE = "ROADWORTHY_ALERT_URLS"


class AlertSettings(BaseModel):
    """When alerts go out, and which of them go to the operator's own channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    urls_from_env: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = [VARIABLE]
    """Environment variables with the operator's channels: Apprise URLs with white space between. They hold secrets."""
    providers: list[str] = []
    """Only these providers, and the validator itself, go to the operator's channels; empty: all."""
    kinds: list[Kind] = []
    """Only these kinds; empty: all."""
    least_severity: Severity = Severity.WARNING
    """"warning", "error" or "critical": only what is at least as grave."""
    digest_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """So long an alert is held, and what happens meanwhile goes out with it as one message."""
    remind_after_s: Annotated[float, Field(ge=60)] = 6 * 3600.0
    """While something lasts, people are reminded of it after this time"""
    remind_every_s: Annotated[float, Field(ge=60)] = 24 * 3600.0
    """and then this often."""
    stale_after_s: Annotated[float, Field(ge=30)] = 900.0
    """Validation has stopped if nothing was published for so long while something was due."""
    send_timeout_s: Annotated[float, Field(gt=0, le=120)] = 20.0
    """How long one message to one channel may take."""
