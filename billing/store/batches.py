"""What each question to a provider came to, for as long as it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import Costs, Refusal
from roadworthy.billing.schedule import DAY_US
from roadworthy.billing.store.ledger import Settled, storable
from roadworthy.billing.tables import batches
from roadworthy.database import Database, batched

if TYPE_CHECKING:
    from roadworthy.billing.question import Question
    from roadworthy.billing.store.recheck import Rechecked

ANSWERED = "answered"
"""The outcome of a question that brought costs; others are named by their trouble."""
RECHECKED = "rechecked"
"""The outcome of a question for costs that were settled before."""
PRUNED_AT_ONCE = 2_000
"""Rows removed in one transaction, so that writers wait for milliseconds only."""


def outcome(found: Costs | Refusal) -> str:
    """The outcome of a question, as it is written down."""
    return found.trouble.value if isinstance(found, Refusal) else ANSWERED


async def note(
    connection: AsyncConnection,
    provider: str,
    now_us: int,
    *,
    found: Costs | Refusal,
    question: Question | None,
    asked: int,
    settled: Settled,
) -> None:
    """Write down what a question came to; without `question` none could be asked."""
    values = {
        "asked": asked,
        "outcome": outcome(found),
        "detail": storable(found.detail) if isinstance(found, Refusal) else "",
    }
    await connection.execute(batches.insert().values(**_row(provider, now_us, found, question, settled) | values))


async def note_recheck(
    connection: AsyncConnection,
    provider: str,
    now_us: int,
    *,
    found: Costs | Refusal,
    question: Question,
    seen: Rechecked,
) -> None:
    """Write down what a question for settled costs came to."""
    values = {
        "asked": question.asked,
        "outcome": RECHECKED,
        "detail": storable(found.detail)
        if isinstance(found, Refusal)
        else f"{seen.same} the same, {seen.changed} changed",
    }
    settled = Settled(missing=seen.untold, disputed=seen.changed)
    await connection.execute(batches.insert().values(**_row(provider, now_us, found, question, settled) | values))


def _row(
    provider: str, now_us: int, found: Costs | Refusal, question: Question | None, settled: Settled
) -> dict[str, Any]:
    oddities = {} if isinstance(found, Refusal) else found.oddities
    anomalies = {
        oddity.value: {"count": noted.count, "examples": [storable(each) for each in noted.examples]}
        for oddity, noted in oddities.items()
    }
    return {
        "provider": provider,
        "at_us": now_us,
        "settled": settled.settled,
        "missing": settled.missing,
        "invalid": settled.invalid,
        "disputed": settled.disputed,
        "expired": settled.expired,
        "anomalies": anomalies or None,
        "answer_bytes": question.answer_bytes if question is not None else 0,
        "took_us": question.took_us if question is not None else 0,
    }


async def prune(database: Database, keep_days: int) -> None:
    """Remove what is older than so many days; where nothing is, nothing is written.

    Raises `DatabaseUnavailableError`.
    """
    count = PRUNED_AT_ONCE
    while count >= PRUNED_AT_ONCE:
        async with database.reading() as connection:
            before_us = await database.now_us(connection) - keep_days * DAY_US
            old = sa.select(batches.c.id).where(batches.c.at_us < before_us).limit(PRUNED_AT_ONCE)
            ids = list((await connection.execute(old)).scalars())
        if not ids:
            return
        async with database.writing() as connection:
            for some in batched(ids):
                await connection.execute(batches.delete().where(batches.c.id.in_(some)))
        count = len(ids)
