"""What Prometheus reads of billing's collector, joined to the service's /metrics.

What is pending is read from the database, so that every process shows the same; questions are counted as they are
answered, by the process that asked them. Labels are bounded: providers up to a number, the rest as one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from roadworthy.billing.schedule import SECOND_US
from roadworthy.billing.store import endpoints, standing
from roadworthy.billing.turn import Told
from roadworthy.database import Database

OTHERS = "(others)"
PROVIDERS_MAX = 200
REFRESH_S = 15.0
"""What is pending is counted at most this often, however many scrape: of millions it takes a moment."""
_BATCH_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
_OUTCOMES = ("settled", "missing", "invalid", "disputed", "expired")
_log = logging.getLogger(__name__)


class BillingMetrics:
    """A source for the service's /metrics: `read` before each scrape, `collect` for its text; `told` counts."""

    def __init__(self, database: Database, *, warn_after_s: float = 3600.0, refresh_s: float = REFRESH_S) -> None:
        """A provider whose oldest request has been pending for longer than `warn_after_s` is stale."""
        self._database = database
        self._warn_after_s = warn_after_s
        self._refresh_s = refresh_s
        self._read_at_s: float | None = None
        self._pending: dict[str, tuple[int, float]] = {}
        self._failures: dict[str, int] = {}
        self._stale: set[str] = set()
        self._named: set[str] = set()
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "roadworthy_billing_requests",
            "What requests came to when this process asked for their costs; missing and invalid are asked for again.",
            ("provider", "outcome"),
            registry=self._registry,
        )
        self._cost = Counter(
            "roadworthy_billing_cost_nano_usd",
            "Costs settled by this process, in nano-USD.",
            ("provider",),
            registry=self._registry,
        )
        self._batches = Counter(
            "roadworthy_billing_batches",
            "Questions for costs that this process asked, by what came of them.",
            ("provider", "outcome"),
            registry=self._registry,
        )
        self._batch_s = Histogram(
            "roadworthy_billing_batch_duration_seconds",
            "How long providers took to answer.",
            ("provider",),
            buckets=_BATCH_S,
            registry=self._registry,
        )
        self._anomalies = Counter(
            "roadworthy_billing_anomalies",
            "What answers held that they should not.",
            ("provider", "kind"),
            registry=self._registry,
        )

    def told(self, one: Told) -> None:
        """Count a question and what it came to."""
        provider = self._name(one.provider)
        self._batches.labels(provider, one.outcome).inc()
        self._batch_s.labels(provider).observe(one.took_s)
        for outcome in _OUTCOMES:
            self._requests.labels(provider, outcome).inc(getattr(one.settled, outcome))
        self._cost.labels(provider).inc(one.settled.cost_nano_usd)
        for oddity, count in one.oddities.items():
            self._anomalies.labels(provider, oddity.value).inc(count)

    def _name(self, provider: str) -> str:
        if provider not in self._named and len(self._named) >= PROVIDERS_MAX:
            return OTHERS
        self._named.add(provider)
        return provider

    async def read(self) -> None:
        """Read how things stand, and warn of stale providers. Raises `DatabaseUnavailableError`."""
        if self._read_at_s is not None and time.monotonic() - self._read_at_s < self._refresh_s:
            return
        self._read_at_s, self._pending, self._failures = None, {}, {}
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            pending = await standing.pending_by_provider(connection)
            asked = {each.provider: each.failures for each in await endpoints.list_all(connection)}
        self._pending = {
            provider: (each.count, max(now_us - (each.oldest_us or now_us), 0) / SECOND_US)
            for provider, each in pending.items()
        }
        self._pending |= dict.fromkeys(asked.keys() - pending.keys(), (0, 0.0))
        self._failures = asked
        self._read_at_s = time.monotonic()
        self._warn()

    def _warn(self) -> None:
        """Say once of each provider that its costs do not come, and once that they come again."""
        stale = {provider for provider, (_, age_s) in self._pending.items() if age_s > self._warn_after_s}
        for provider in sorted(stale - self._stale):
            count, age_s = self._pending[provider]
            _log.warning("%d requests of %s have no cost, the oldest for %d s", count, provider, age_s)
        for provider in sorted(self._stale - stale):
            _log.info("costs of %s come again", provider)
        self._stale = stale

    def collect(self) -> Iterator[Metric]:
        """Everything, as Prometheus' client takes it."""
        yield from self._registry.collect()
        by_size = sorted(self._pending, key=lambda provider: (-self._pending[provider][0], provider))
        label = {provider: provider if place < PROVIDERS_MAX else OTHERS for place, provider in enumerate(by_size)}
        pending: dict[str, float] = {}
        oldest: dict[str, float] = {}
        failures: dict[str, float] = {}
        for provider, (count, age_s) in self._pending.items():
            name = label[provider]
            pending[name] = pending.get(name, 0) + count
            oldest[name] = max(oldest.get(name, 0.0), age_s)
            failures[name] = max(failures.get(name, 0), self._failures.get(provider, 0))
        yield _gauge("pending", "Requests without a cost.", pending)
        yield _gauge("pending_oldest_age_seconds", "How long the oldest of them has been known.", oldest)
        yield _gauge("failures_in_a_row", "Turns in a row in which the provider did not answer.", failures)
        yield GaugeMetricFamily(
            "roadworthy_billing_stale_providers",
            "Providers whose oldest request has been without a cost for too long.",
            len(self._stale),
        )


def _gauge(name: str, said: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"roadworthy_billing_{name}", said, labels=("provider",))
    for provider, value in values.items():
        family.add_metric((provider,), value)
    return family
