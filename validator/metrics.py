"""What Prometheus reads of the validator, joined to the service's /metrics.

States are read from the database at each scrape, so that every process shows the same; runs are
counted as they end, by the process that ran them. Labels are bounded: providers up to a number, the
rest as one; mappings only where the operator chose so.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database
from roadworthy.mapping_api.tables import mappings
from roadworthy.validator.health import State
from roadworthy.validator.publish import Finished
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store import alerts
from roadworthy.validator.tables import due, endpoints, health

OTHERS = "(others)"
PROVIDERS_MAX = 200
MAPPINGS_MAX = 10_000
"""More mappings than these are not shown one by one, whatever the setting."""
OVERDUE_S = 300
"""What has been due for so long is overdue."""
_FIRST_TOKEN_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30)
_RUN_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 240)
_PUBLISH_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


@dataclass
class _Seen:
    """What a scrape read from the database."""

    states: Tally[tuple[str, ...]] = field(default_factory=Tally)
    due: dict[str, tuple[int, int, int, float]] = field(default_factory=dict)
    """By provider: due, overdue, running, and how late the first is, in seconds."""
    down: dict[str, bool] = field(default_factory=dict)
    mappings: list[tuple[str, ...]] = field(default_factory=list)
    braked: bool = False
    last_run_us: int | None = None
    stale: bool = False
    pending: int = 0


class ValidatorMetrics:
    """A source for the service's /metrics: `read` before each scrape, `collect` for its text."""

    def __init__(
        self,
        database: Database,
        *,
        counted: Tally[str] | None = None,
        per_mapping: bool = False,
        stale_after_s: float = 900.0,
    ) -> None:
        """`counted` is the alerter's count of messages, where this process sends any."""
        self._database = database
        self._counted = counted
        self._per_mapping = per_mapping
        self._stale_after_s = stale_after_s
        self._seen: _Seen | None = None
        self._named: set[str] = set()
        self._registry = CollectorRegistry()
        self._runs = Counter(
            "roadworthy_validator_runs",
            "Runs that ended in this process. error_class is empty where there was no error.",
            ("provider", "result", "error_class"),
            registry=self._registry,
        )
        self._run_s = Histogram(
            "roadworthy_validator_run_duration_seconds",
            "How long runs took.",
            ("provider",),
            buckets=_RUN_S,
            registry=self._registry,
        )
        self._first_token_s = Histogram(
            "roadworthy_validator_time_to_first_token_seconds",
            "Time to first token, the median of each run.",
            ("provider",),
            buckets=_FIRST_TOKEN_S,
            registry=self._registry,
        )
        self._publish_s = Histogram(
            "roadworthy_validator_publish_duration_seconds",
            "From the end of a batch of runs until everybody can see them.",
            buckets=_PUBLISH_S,
            registry=self._registry,
        )

    def published(self, finished: Sequence[Finished], seconds: float) -> None:
        """Count a batch of runs, and how long it took to publish it."""
        self._publish_s.observe(seconds)
        for each in finished:
            provider = self._name(each.claim.provider)
            outcome = each.outcome
            self._runs.labels(provider, outcome.result.value, outcome.error_class or "").inc()
            self._run_s.labels(provider).observe(outcome.duration_s)
            if outcome.figures.time_to_first_token_s is not None:
                self._first_token_s.labels(provider).observe(outcome.figures.time_to_first_token_s)

    def _name(self, provider: str) -> str:
        """The provider's label: the first ones that ran are shown by name."""
        if provider not in self._named and len(self._named) >= PROVIDERS_MAX:
            return OTHERS
        self._named.add(provider)
        return provider

    async def read(self) -> None:
        """Read how things stand. Raises `DatabaseUnavailableError`; then the last reading is no longer shown."""
        self._seen = None
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            fresh = await alerts.freshness(connection, now_us)
            self._seen = _Seen(
                states=await _states(connection),
                due=await _due(connection, now_us),
                down=await _down(connection),
                mappings=await _each(connection) if self._per_mapping else [],
                braked=await alerts.braked_since_us(connection) is not None,
                last_run_us=fresh.last_run_us,
                stale=fresh.stale_since_us(now_us, self._stale_after_s) is not None,
                pending=await alerts.pending(connection),
            )

    def collect(self) -> Iterator[Metric]:
        """Everything, as Prometheus' client takes it."""
        yield from self._registry.collect()
        if self._counted is not None:
            sent = CounterMetricFamily(
                "roadworthy_validator_alert_messages", "Attempts to send an alert to a channel.", labels=("result",)
            )
            for result in ("sent", "failed"):
                sent.add_metric((result,), self._counted[result])
            yield sent
        if self._seen is not None:
            yield from _shown(self._seen)


def _shown(seen: _Seen) -> Iterator[Metric]:
    by_size: Tally[str] = Tally()
    for label, count in seen.states.items():
        by_size[label[0]] += count
    named = {provider for provider, _ in sorted(by_size.items(), key=lambda item: (-item[1], item[0]))[:PROVIDERS_MAX]}
    yield _gauge("mappings", "Mappings by health.", ("provider", "state"), _folded(seen.states, named))
    for place, (name, said) in enumerate(
        (
            ("due", "Runs that are due and not under way."),
            ("overdue", f"Those of them that have been due for {OVERDUE_S} s."),
            ("running", "Runs under way, in all processes."),
        )
    ):
        counts: Tally[tuple[str, ...]] = Tally({(provider,): int(row[place]) for provider, row in seen.due.items()})
        yield _gauge(name, said, ("provider",), _folded(counts, named))
    late: dict[tuple[str, ...], float] = {}
    for provider, row in seen.due.items():
        first = (provider if provider in named else OTHERS,)
        late[first] = max(late.get(first, 0.0), row[3])
    yield _gauge("late_seconds", "How long the first run that is due has been due.", ("provider",), late)
    down: Tally[tuple[str, ...]] = Tally({(provider,): int(is_down) for provider, is_down in seen.down.items()})
    yield _gauge("provider_down", "1 where the provider is down as a whole.", ("provider",), _folded(down, named))
    if seen.mappings and len(seen.mappings) <= MAPPINGS_MAX:
        each = dict.fromkeys(seen.mappings, 1.0)
        labels = ("provider", "mapping", "model", "task", "state")
        yield _gauge("mapping_state", "Always 1; the label `state` tells the health.", labels, each)
    yield GaugeMetricFamily("roadworthy_validator_brake", "1 while the brake is on.", int(seen.braked))
    yield GaugeMetricFamily("roadworthy_validator_alerts_pending", "Alerts that wait to be sent.", seen.pending)
    yield GaugeMetricFamily(
        "roadworthy_validator_stale", "1 where validation has stopped while something is due.", int(seen.stale)
    )
    if seen.last_run_us is not None:
        yield GaugeMetricFamily(
            "roadworthy_validator_last_run_timestamp_seconds",
            "When a run was last published, by any process.",
            seen.last_run_us / SECOND_US,
        )


def _gauge(name: str, said: str, labels: tuple[str, ...], values: dict[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"roadworthy_validator_{name}", said, labels=labels)
    for label, value in values.items():
        family.add_metric(label, value)
    return family


def _folded(tally: Tally[tuple[str, ...]], named: set[str]) -> dict[tuple[str, ...], float]:
    """The counts, with the providers that are not named as one."""
    folded: dict[tuple[str, ...], float] = {}
    for (provider, *rest), count in tally.items():
        label = (provider if provider in named else OTHERS, *rest)
        folded[label] = folded.get(label, 0.0) + count
    return folded


async def _states(connection: AsyncConnection) -> Tally[tuple[str, ...]]:
    query = (
        sa.select(due.c.provider, health.c.state, sa.func.count())
        .outerjoin(health, health.c.mapping_id == due.c.mapping_id)
        .group_by(due.c.provider, health.c.state)
    )
    tally: Tally[tuple[str, ...]] = Tally()
    for provider, state, count in await connection.execute(query):
        for each in State:
            tally[provider, each.value] += 0
        tally[provider, state or State.UNKNOWN.value] += count
    return tally


async def _due(connection: AsyncConnection, now_us: int) -> dict[str, tuple[int, int, int, float]]:
    running = sa.func.coalesce(due.c.lease_until_us, 0) > now_us
    waits = sa.and_(due.c.due_at_us <= now_us, ~running, due.c.paused.is_(False))
    overdue = sa.and_(waits, due.c.due_at_us <= now_us - OVERDUE_S * SECOND_US)
    query = sa.select(
        due.c.provider,
        sa.func.count(sa.case((waits, 1))),
        sa.func.count(sa.case((overdue, 1))),
        sa.func.count(sa.case((running, 1))),
        sa.func.min(sa.case((waits, due.c.due_at_us))),
    ).group_by(due.c.provider)
    return {
        row[0]: (row[1], row[2], row[3], (now_us - row[4]) / SECOND_US if row[4] is not None else 0.0)
        for row in await connection.execute(query)
    }


async def _down(connection: AsyncConnection) -> dict[str, bool]:
    query = sa.select(endpoints.c.provider, endpoints.c.down_since_us)
    return {row.provider: row.down_since_us is not None for row in await connection.execute(query)}


async def _each(connection: AsyncConnection) -> list[tuple[str, ...]]:
    query = (
        sa.select(mappings.c.provider, mappings.c.id, mappings.c.source, mappings.c.task, health.c.state)
        .outerjoin(health, health.c.mapping_id == mappings.c.id)
        .limit(MAPPINGS_MAX + 1)
    )
    return [(row[0], row[1], row[2], row[3], row[4] or State.UNKNOWN.value) for row in await connection.execute(query)]
