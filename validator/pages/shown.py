"""What the status page tells, as programs read it. The pages are drawn from the same records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from roadworthy.validator.health import State
from roadworthy.validator.outcome import ErrorClass, Result
from roadworthy.validator.schedule import SECOND_US

Moment = Annotated[datetime, Field(description="ISO 8601, UTC.")]
Seconds = Annotated[float, Field(ge=0, description="Seconds.")]
TokensPerS = Annotated[float, Field(ge=0, description="Tokens per second.")]


def at(at_us: int) -> datetime:
    """Microseconds since 1970 as a time, to the millisecond."""
    return datetime.fromtimestamp(at_us // 1000 / (SECOND_US / 1000), UTC)


def at_or_none(at_us: int | None) -> datetime | None:
    """The same where there is one."""
    return None if at_us is None else at(at_us)


class _Shown(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class SpanShown(_Shown):
    """What the tests within a span of time showed."""

    start: Moment
    tests: int
    failed: int
    degraded: int


class MeasuredSpan(SpanShown):
    """The same, with the means of what was measured."""

    time_to_first_token_s: Seconds | None
    throughput_tokens_per_s: TokensPerS | None


class ProviderStatus(_Shown):
    """One provider. `mappings` counts its live mappings by state; medians are of the active ones' last tests."""

    provider: str
    state: State
    mappings: dict[State, int]
    down_since: Moment | None
    quarter_days: list[SpanShown]
    """The last 7 days, 6 hours each, the oldest first."""
    median_time_to_first_token_s: Seconds | None
    median_throughput_tokens_per_s: TokensPerS | None
    last_validated_at: Moment | None


class MappingStatus(_Shown):
    """One live mapping. `model` is the hub's model, or the tag filter; `lastValidatedAt` that of the last verdict."""

    id: str = Field(alias="_id")
    provider: str
    task: str
    model: str
    provider_model: str
    state: State
    since: Moment | None
    quarter_days: list[SpanShown]
    time_to_first_token_s: Seconds | None
    throughput_tokens_per_s: TokensPerS | None
    last_validated_at: Moment | None
    next_due_at: Moment | None


class Overview(_Shown):
    """All providers, those with trouble first, a page at a time.

    `brakedSince`: since then most providers seem to fail at once, so the validator doubts itself
    and takes nothing off the active list.
    """

    at: Moment
    braked_since: Moment | None
    providers: list[ProviderStatus]
    total: int


class ProviderPage(_Shown):
    """A provider and its live mappings, those with trouble first, a page at a time."""

    at: Moment
    braked_since: Moment | None
    provider: ProviderStatus
    mappings: list[MappingStatus]
    total: int


class FindingShown(_Shown):
    """A check that failed, without secrets."""

    check: str
    level: str
    expected: str
    got: str
    remedy: str
    explanation: str = Field(description="The path of a page that explains the check; empty where it is unknown here.")


class RunShown(_Shown):
    """One test. `errorClass` says whose fault a failure is; `error` why, in one sentence."""

    id: str = Field(alias="_id")
    ended_at: Moment
    result: Result
    error_class: ErrorClass | None
    error: str
    time_to_first_token_s: Seconds | None
    throughput_tokens_per_s: TokensPerS | None
    total_time_s: Seconds | None
    requests: int
    duration_s: Seconds


class FailedRun(RunShown):
    """A failed test with what its checks found."""

    findings: list[FindingShown]


class MappingPage(_Shown):
    """One mapping in full."""

    at: Moment
    braked_since: Moment | None
    mapping: MappingStatus
    reason: str
    last_days: list[MeasuredSpan]
    """The last 30 days, 6 hours each, the oldest first; spans without a test are left out."""
    last_runs: list[RunShown]
    last_failure: FailedRun | None
    replay: str
    """A command that asks the same checks again."""


class MemberRun(FailedRun):
    """A test of one of the provider's mappings, for its members."""

    mapping_id: str
