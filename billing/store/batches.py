"""What each question to a provider came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import Noted, Oddity
from roadworthy.billing.store.ledger import Settled, storable
from roadworthy.billing.tables import batches

ANSWERED = "answered"
"""The outcome of a question that brought costs; others are named by their trouble."""


async def note(
    connection: AsyncConnection,
    provider: str,
    now_us: int,
    *,
    asked: int,
    outcome: str,
    detail: str = "",
    settled: Settled | None = None,
    oddities: Mapping[Oddity, Noted] | None = None,
    answer_bytes: int = 0,
    took_us: int = 0,
) -> None:
    """Write one question down."""
    what = settled or Settled()
    anomalies: dict[str, Any] | None = {
        oddity.value: {"count": noted.count, "examples": [storable(each) for each in noted.examples]}
        for oddity, noted in (oddities or {}).items()
    }
    await connection.execute(
        batches.insert().values(
            provider=provider,
            at_us=now_us,
            asked=asked,
            settled=what.settled,
            missing=what.missing,
            invalid=what.invalid,
            disputed=what.disputed,
            expired=what.expired,
            outcome=outcome,
            detail=storable(detail),
            anomalies=anomalies or None,
            answer_bytes=answer_bytes,
            took_us=took_us,
        )
    )
