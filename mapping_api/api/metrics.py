"""What the service counts, in a registry of its own, and how Prometheus reads it."""

from __future__ import annotations

import platform
import time
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import prometheus_client
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import roadworthy
from roadworthy.database import DatabaseUnavailableError
from roadworthy.mapping_api.service import MetricSource, Service
from roadworthy.mapping_api.tables import deliveries
from roadworthy.mapping_api.view import View

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
NO_ROUTE = "(none)"
OTHERS = "(others)"
PROVIDERS_MAX = 200
"""How many providers are shown by name, those with most mappings first; the rest are one series."""

# The time at which each series began is of no use to Prometheus' text form, and a third of its length.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True)
class Deliveries:
    """How webhook deliveries stand. `late_s` is how long the first of those due has been due."""

    pending: int
    late_s: float


class Metrics:
    """The registry of one application. Labels are bounded: templates of routes, known methods, statuses, providers."""

    def __init__(self, view: View) -> None:
        """`view` is what mappings are counted in at each scrape."""
        self.registry = CollectorRegistry()
        self.in_flight = 0
        self.deliveries: Deliveries | None = None
        self.sources: Sequence[MetricSource] = ()
        self._requests = Counter(
            "roadworthy_http_requests",
            "Requests answered, by template of the route.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "roadworthy_http_request_duration_seconds",
            "Time from a request's first byte to its answer's last.",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._rate_limited = Counter(
            "roadworthy_http_rate_limited", "Requests refused with 429.", ("route",), registry=self.registry
        )
        flying = Gauge("roadworthy_http_requests_in_flight", "Requests under way.", registry=self.registry)
        flying.set_function(lambda: float(self.in_flight))
        built = Gauge("roadworthy_build_info", "Versions; always 1.", ("version", "python"), registry=self.registry)
        built.labels(roadworthy.__version__, platform.python_version()).set(1)
        self.registry.register(_Service(self, view))
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. `route` is a template, or "" where none matched."""
        key = (method, route, status)
        found = self._counters.get(key)
        if found is None:
            shown = method if method in _METHODS else "OTHER"
            template = route or NO_ROUTE
            found = (self._requests.labels(shown, template, status), self._seconds.labels(shown, template))
            if method in _METHODS:
                self._counters[key] = found
        counter, histogram = found
        counter.inc()
        histogram.observe(seconds)
        if status == 429:
            self._rate_limited.labels(route or NO_ROUTE).inc()

    async def scrape(self, service: Service) -> bytes:
        """Everything in Prometheus' text form. Without a database, what is known without it."""
        try:
            await service.view.fresh()
            self.deliveries = await _deliveries(service)
        except DatabaseUnavailableError:
            self.deliveries = None
        for source in service.metric_sources:
            with suppress(DatabaseUnavailableError):
                await source.read()
        self.sources = service.metric_sources
        return prometheus_client.generate_latest(self.registry)


async def _deliveries(service: Service) -> Deliveries:
    query = sa.select(sa.func.count(), sa.func.min(deliveries.c.due_at_us)).where(deliveries.c.due_at_us.is_not(None))
    async with service.database.reading() as connection:
        pending, first_us = (await connection.execute(query)).one()
        now_us = await service.database.now_us(connection)
    return Deliveries(pending, max(0.0, (now_us - first_us) / 1e6) if first_us is not None else 0.0)


class _Service(Collector):
    """What is read from the service at each scrape, not counted as it happens."""

    def __init__(self, metrics: Metrics, view: View) -> None:
        self._metrics = metrics
        self._view = view

    def collect(self) -> Iterator[Metric]:
        held = GaugeMetricFamily("roadworthy_mappings", "Mappings registered.", labels=("provider", "status"))
        for (provider, status), count in _tally(self._view).items():
            held.add_metric((provider, status), count)
        yield held
        yield GaugeMetricFamily("roadworthy_view_revision", "Revision of the copy in memory.", self._view.revision)
        yield CounterMetricFamily(
            "roadworthy_view_refreshes", "Times that rows which had changed were read.", value=self._view.refreshes
        )
        yield GaugeMetricFamily(
            "roadworthy_view_age_seconds",
            "Time since the copy was last made sure of.",
            max(0.0, time.monotonic() - self._view.asked_at_s),
        )
        waiting = self._metrics.deliveries
        if waiting is not None:
            yield GaugeMetricFamily(
                "roadworthy_webhook_deliveries_pending", "Deliveries not done yet.", waiting.pending
            )
            yield GaugeMetricFamily(
                "roadworthy_webhook_delivery_late_seconds", "How long the first has been due.", waiting.late_s
            )

        for source in self._metrics.sources:
            yield from source.collect()

    def describe(self) -> list[Metric]:
        return []


def _tally(view: View) -> Tally[tuple[str, str]]:
    by_size = sorted(view.providers, key=lambda slug: (-len(view.of_provider.get(slug, ())), slug))
    shown = set(by_size[:PROVIDERS_MAX])
    tally: Tally[tuple[str, str]] = Tally({(slug, status): 0 for slug in shown for status in ("staging", "live")})
    for mapping in view.mappings.values():
        tally[mapping.provider if mapping.provider in shown else OTHERS, mapping.status] += 1
    return tally
