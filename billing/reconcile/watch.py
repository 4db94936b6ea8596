"""The daily look through the ledger, and what Prometheus reads of it. Invariant 11."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import orjson
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from roadworthy.billing.reconcile.whole import Whole, look
from roadworthy.billing.schedule import SECOND_US
from roadworthy.billing.store import chores
from roadworthy.database import Database

CHORE = "whole ledger"
EVERY_S = 24 * 3600
AGAIN_S = 3600
"""When a look is due again that came to nothing: it failed, or its process died."""
LOOK_S = 600.0
"""How often is looked whether a day has passed."""

_log = logging.getLogger(__name__)


class LedgerWatch:
    """Looks through the ledger once a day, in one of the processes that share the database."""

    def __init__(self, database: Database) -> None:
        """The database stays the caller's."""
        self._database = database
        self._last: tuple[int, int, int] | None = None

    async def tick(self) -> None:
        """Look, if a day has passed since the last one, or an hour since one failed.

        Raises `DatabaseUnavailableError`.
        """
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            if not await chores.take(connection, CHORE, now_us, EVERY_S * SECOND_US, again_us=AGAIN_S * SECOND_US):
                return
        whole = await look(self._database)
        tell(whole)
        outcome = orjson.dumps({"served": whole.served, "wrong": whole.wrong, "at_us": now_us}).decode()
        async with self._database.writing() as connection:
            await chores.note(connection, CHORE, outcome, done_at_us=now_us)

    async def read(self) -> None:
        """Read what the last look came to, whichever process made it. Raises `DatabaseUnavailableError`."""
        self._last = None
        async with self._database.reading() as connection:
            outcome = await chores.outcome(connection, CHORE)
        if outcome:
            found = orjson.loads(outcome)
            self._last = (found["served"], found["wrong"], found["at_us"])

    def collect(self) -> Iterator[Metric]:
        """The figures; none before the first look."""
        if self._last is None:
            return
        served, wrong, at_us = self._last
        for name, what, value in (
            ("served_requests", "Served requests that the last look through the ledger found.", served),
            ("wrong_requests", "Requests whose entries were not what their row says; 0 is right.", wrong),
            ("looked_timestamp_seconds", "When the last look through the ledger began.", at_us / SECOND_US),
        ):
            yield GaugeMetricFamily(f"roadworthy_billing_ledger_{name}", what, value=value)


def tell(whole: Whole) -> None:
    """Say in the log what a look came to."""
    if whole.fits:
        _log.info("the ledger is whole: %s", whole.sentence())
    else:
        _log.error("the ledger is not whole: %s", whole.sentence())
