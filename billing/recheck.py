"""Asking a provider again for all that was settled since some time, at an operator's word."""

from __future__ import annotations

from dataclasses import dataclass

from roadworthy.billing.question import asker
from roadworthy.billing.records import Costs, Refusal, Trouble
from roadworthy.billing.schedule import Policy
from roadworthy.billing.store import batches, endpoints
from roadworthy.billing.store import recheck as store
from roadworthy.billing.store.endpoints import CostEndpoint
from roadworthy.billing.store.recheck import Rechecked
from roadworthy.database import Database
from roadworthy.http.message import Transport
from roadworthy.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `trouble` is why it ended before the end, if it did."""

    seen: Rechecked
    trouble: Refusal | None = None


async def recheck(
    database: Database,
    sealer: Sealer,
    transport: Transport,
    policy: Policy,
    at: CostEndpoint,
    *,
    since_us: int,
) -> Outcome:
    """Ask for the costs of all that was served since then and is settled; what changed is disputed.

    Takes no turn: collectors go on meanwhile, and nothing but disputes is written. Raises `SealingError`,
    `DatabaseUnavailableError`.
    """
    ask = asker(sealer, transport, policy, at)
    seen, after = Rechecked(), (since_us, 0)
    while True:
        async with database.reading() as connection:
            some, after = await store.page(connection, at.provider, since_us, after, at.batch_limit)
        if not some:
            return Outcome(seen)
        question = ask(some)
        found = await question.answered()
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            there = await endpoints.find(connection, at.provider)
            if there is None or (there.url, there.updated_at_us) != (at.url, at.updated_at_us):
                return Outcome(seen, Refusal(Trouble.OURS, "its cost endpoint was changed meanwhile; start again"))
            here = Rechecked()
            if isinstance(found, Costs):
                here = await store.compare(connection, at.provider, some, found, now_us)
            await batches.note_recheck(connection, at.provider, now_us, found=found, question=question, seen=here)
        if isinstance(found, Refusal):
            return Outcome(seen, found)
        seen += here
