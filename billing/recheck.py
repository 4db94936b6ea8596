"""Asking a provider again for what is settled: some of it every hour, and all since some time at an operator's word."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from roadworthy.billing.question import Question, asker
from roadworthy.billing.records import Costs, Refusal, Trouble
from roadworthy.billing.schedule import HOUR_US, SECOND_US, Policy, back_off_us
from roadworthy.billing.store import batches, endpoints, turns
from roadworthy.billing.store import recheck as store
from roadworthy.billing.store.endpoints import CostEndpoint
from roadworthy.billing.store.recheck import Rechecked
from roadworthy.billing.turn import TurnLostError, TurnUnderWay, whole
from roadworthy.database import Database
from roadworthy.http.message import Transport
from roadworthy.sealing import Sealer

TRIES = 5
"""So many refusals in a row are borne, but for those that ask for fewer ids."""
RETRY_AFTER_MOST_S = 600.0
"""A provider that wants to be left alone for longer is: a person can go on another time."""
_LASTING = {Trouble.REFUSED_KEY, Trouble.CLIENT_ERROR, Trouble.OURS}
"""Asking the same again brings the same."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `trouble` is why it ended before the end, if it did.

    What was served before `go_on_us` (microseconds since 1970 UTC) was asked for by then; from there it can go on.
    """

    seen: Rechecked
    trouble: Refusal | None = None
    go_on_us: int | None = None


async def recheck(
    database: Database,
    sealer: Sealer,
    transport: Transport,
    policy: Policy,
    at: CostEndpoint,
    *,
    since_us: int,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    told: Callable[[str], None] | None = None,
    jitter: random.Random | None = None,
) -> Outcome:
    """Ask for the costs of all that was served since then and is settled; what changed is disputed.

    Where the provider finds a question too large, or does not answer it in time, half as many ids are asked for; of
    other refusals that may pass, `TRIES` in a row are borne, with pauses of `wait` (seconds), each `told`.
    Takes no turn: collectors go on meanwhile, and nothing but disputes is written. Raises `SealingError`,
    `DatabaseUnavailableError`.
    """
    ask = asker(sealer, transport, policy, at)
    seen, after, most, failures = Rechecked(), (since_us, 0), at.batch_limit, 0
    while True:
        async with database.reading() as connection:
            some, end = await store.page(connection, at.provider, since_us, after, most)
        if not some:
            return Outcome(seen)
        question = ask(some)
        found = await question.answered()
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            there = await endpoints.find(connection, at.provider)
            if there is None or (there.url, there.updated_at_us) != (at.url, at.updated_at_us):
                changed = Refusal(Trouble.OURS, "its cost endpoint was changed meanwhile; start again")
                return Outcome(seen, changed, after[0])
            here = Rechecked()
            if isinstance(found, Costs):
                here = await store.compare(connection, at.provider, some, found, now_us)
            await batches.note_recheck(connection, at.provider, now_us, found=found, question=question, seen=here)
        if not isinstance(found, Refusal):
            seen, after, failures = seen + here, end, 0
        elif len(some) > 1 and (found.too_much or found.trouble is Trouble.TIMEOUT):
            most = len(some) // 2
        else:
            failures += 1
            if failures >= TRIES or found.trouble in _LASTING or found.retry_after_s > RETRY_AFTER_MOST_S:
                return Outcome(seen, found, after[0])
            pause_s = back_off_us(policy, failures, found.retry_after_s, jitter or random.Random()) / SECOND_US  # noqa: S311  spreads load, hides nothing
            if told is not None:
                told(f"{found.detail}; asked again in {pause_s:.0f} s")
            await wait(pause_s)


async def recheck_some(turn: TurnUnderWay) -> None:
    """Once an hour ask for some settled ids again, of a provider that answers."""
    policy = turn.policy
    if not policy.recheck_ids_per_hour or not turn.answers or turn.over:
        return
    async with turn.database.reading() as connection:
        now_us = await turn.database.now_us(connection)
        next_us = turn.taken.next_recheck_us
        # A time further away than an hour was set by a clock that was wrong.
        if next_us is not None and now_us < next_us <= now_us + HOUR_US:
            return
        since_us = now_us - int(policy.recheck_within_s * SECOND_US)
        most = min(policy.recheck_ids_per_hour, turn.batch_limit)
        sampled = await store.sample(connection, turn.provider, (since_us, now_us), most, turn.jitter)
    if not sampled:
        return
    question = turn.ask(sampled)
    found = await question.answered()
    await whole(_compare(turn, sampled, found, question))
    turn.tell(found, question)


async def _compare(
    turn: TurnUnderWay, sampled: Sequence[store.Posted], found: Costs | Refusal, question: Question
) -> None:
    async with turn.database.writing() as connection:
        now_us = await turn.database.now_us(connection)
        held = await turns.hold(connection, turn.taken, now_us, turn.policy.lease_us, next_recheck_us=now_us + HOUR_US)
        if not held:
            raise TurnLostError(f"the turn of {turn.provider} was lost while settled costs were asked for again")
        seen = Rechecked()
        if isinstance(found, Costs):
            seen = await store.compare(connection, turn.provider, sampled, found, now_us)
        await batches.note_recheck(connection, turn.provider, now_us, found=found, question=question, seen=seen)
    turn.came.rechecked += seen
    if seen.changed:
        _log.warning("%d settled costs of %s are others now; they are disputed", seen.changed, turn.provider)
