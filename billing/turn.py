"""A turn under way: asking one provider for the costs of some ids, and settling what it says while the turn is ours.

Each batch is settled in one transaction that holds on to the turn's fence: whoever lost the turn settles nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.question import Asking, Question, asker
from roadworthy.billing.records import Costs, Oddity, Refusal, Trouble
from roadworthy.billing.schedule import SECOND_US, Policy, answering_since_us, back_off_us, next_turn_us
from roadworthy.billing.store import batches, ledger, turns
from roadworthy.billing.store.ledger import Settled, storable
from roadworthy.billing.store.recheck import Rechecked
from roadworthy.billing.store.turns import Asked, Turn
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.errors import RoadworthyError
from roadworthy.http.message import Transport
from roadworthy.sealing import Sealer

STOP_WITHIN_S = 5.0
QUICK_SHARE = 0.25
"""A provider that answers within this share of the time it has gets larger batches."""
BAD_ROWS = 20
"""Requests that cannot be settled for reasons of our own, in one batch, before the whole is given up."""

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class TurnLostError(RoadworthyError):
    """Another collector holds the provider's turn, or its endpoint was changed; what was learnt is not settled."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one question came to, for whoever counts. `outcome` is as in the table `batches`; times are seconds."""

    provider: str
    outcome: str
    asked: int
    settled: Settled
    oddities: Mapping[Oddity, int]
    took_s: float


@dataclass(slots=True)
class Came:
    """What one turn came to. `trouble` is why it ended early, if it did."""

    provider: str
    asked: int = 0
    settled: Settled = field(default_factory=Settled)
    rechecked: Rechecked = field(default_factory=Rechecked)
    answered: bool = False
    trouble: Refusal | None = None


class TurnUnderWay:
    """One turn of one provider: what it has come to so far, what it has learnt, and what only its holder may do.

    `taken` is the turn as the database gave it, with its fence.
    """

    ask: Asking
    """Makes questions; there is none before `unseal`."""

    def __init__(
        self,
        taken: Turn,
        database: Database,
        policy: Policy,
        jitter: random.Random,
        told: Callable[[Told], None] | None,
    ) -> None:
        """All parts stay the caller's. `told` is called after each question with what it came to."""
        self.taken = taken
        self.database = database
        self.policy = policy
        self.jitter = jitter
        self._told = told
        self.provider = taken.provider
        self.came = Came(taken.provider)
        self.batch_limit = min(taken.batch_limit, policy.batch_size)  # which may have been set lower since
        self._ends_at_s = time.monotonic() + policy.turn_s
        self._last_answer_us = taken.last_answer_us
        self.answering_since_us = taken.answering_since_us
        self.questions = 0
        self.answers = 0
        self.searches = 0
        self._refused = False
        self._too_many: int | None = None
        """So many ids at once were too many in this turn."""
        self.more = False
        """Whether the last batch was full, so that more may be waiting."""

    @property
    def over(self) -> bool:
        """Whether the turn has had its time."""
        return time.monotonic() >= self._ends_at_s

    def unseal(self, sealer: Sealer, transport: Transport) -> None:
        """Be ready to ask. Raises `SealingError` where the provider's key cannot be opened."""
        self.ask = asker(sealer, transport, self.policy, self.taken)

    async def waiting(self, most: int, *, alone: bool = False, newest: bool = False) -> list[Asked]:
        """The ids to ask for now, as `store.turns.waiting` has them."""
        async with self.database.reading() as connection:
            now_us = await self.database.now_us(connection)
            return await turns.waiting(connection, self.provider, now_us, most, alone=alone, newest=newest)

    async def batch(self, asked: Sequence[Asked]) -> Refusal | None:
        """Ask for some ids and settle what is said of them; or what came instead."""
        question = self.ask(asked)
        self.questions += 1
        found = await question.answered()
        # Money that is on its way is not dropped halfway: a cancellation waits for the transaction.
        settled = await whole(self.note(asked, found, question))
        self.came.asked += len(asked)
        if isinstance(found, Refusal):
            self._refused = True
            if found.too_much or found.trouble is Trouble.TIMEOUT:
                self.batch_limit = max(1, len(asked) // 2)
                self._too_many = min(len(asked), self._too_many or len(asked))
        else:
            self.came.answered = True
            self.came.settled += settled
            self.answers += 1
            self._enlarge(len(asked), question)
        self.tell(found, question, settled)
        return found if isinstance(found, Refusal) else None

    def _enlarge(self, asked: int, question: Question) -> None:
        """A provider that answered at ease for as many ids as it is asked for at once gets twice as many."""
        wanted = min(2 * asked, self.policy.batch_size)
        at_ease = question.took_us < QUICK_SHARE * self.policy.timeout_s * SECOND_US
        if at_ease and (self._too_many is None or wanted < self._too_many):
            self.batch_limit = max(self.batch_limit, wanted)

    def tell(self, found: Costs | Refusal, question: Question, settled: Settled | None = None) -> None:
        """Tell whoever counts; a question without `settled` was for costs that had been settled before."""
        if self._told is None:
            return
        oddities = {} if isinstance(found, Refusal) else found.oddities
        outcome = batches.outcome(found) if settled is not None else batches.RECHECKED
        counts = {oddity: noted.count for oddity, noted in oddities.items()}
        took_s = question.took_us / SECOND_US
        self._told(Told(self.provider, outcome, question.asked, settled or Settled(), counts, took_s))

    async def note(self, asked: Sequence[Asked], found: Costs | Refusal, question: Question | None) -> Settled:
        """Settle an answer, and write down what the question came to."""
        try:
            async with self.database.writing() as connection:
                settled = await self._settle(connection, asked, found)
                await self._write_down(connection, found, question, asked=len(asked), settled=settled)
        except (DatabaseUnavailableError, TurnLostError):
            raise
        except Exception as error:
            if isinstance(found, Refusal):
                raise
            _log.warning("%d costs of %s cannot be settled together: %s", len(asked), self.provider, _said(error))
        else:
            return settled
        settled = await self._settle_apart(asked, found)
        async with self.database.writing() as connection:
            await self.hold(connection, await self.database.now_us(connection))
            await self._write_down(connection, found, question, asked=len(asked), settled=settled)
        return settled

    async def _write_down(
        self, connection: AsyncConnection, found: Costs | Refusal, question: Question | None, **counts: Any
    ) -> None:
        now_us = await self.database.now_us(connection)
        await batches.note(connection, self.provider, now_us, found=found, question=question, **counts)

    async def _settle(self, connection: AsyncConnection, asked: Sequence[Asked], found: Costs | Refusal) -> Settled:
        """Under the turn's fence, settle an answer, if it is one."""
        now_us = await self.database.now_us(connection)
        if isinstance(found, Refusal):
            await self.hold(connection, now_us)
            return Settled()
        last_us, since_us = self._last_answer_us, self.answering_since_us
        since_us = answering_since_us(self.policy, last_us, since_us, now_us)
        await self.hold(connection, now_us, since_us)
        # What the next answer is held against, also where this one cannot be written: it came.
        self._last_answer_us, self.answering_since_us = now_us, since_us
        return await ledger.settle(
            connection,
            self.provider,
            asked,
            found,
            now_us=now_us,
            policy=self.policy,
            jitter=self.jitter,
            answering_since_us=since_us,
        )

    async def _settle_apart(self, asked: Sequence[Asked], costs: Costs) -> Settled:
        """Settle in ever smaller parts what cannot be settled together: a bad row of ours must not hold up the rest.

        Raises what the database said where too many rows are bad: then it is not the rows.
        """
        total, bad = Settled(), 0
        waiting = halves(asked) or [asked]
        while waiting:
            some = waiting.pop()
            try:
                async with self.database.writing() as connection:
                    total += await self._settle(connection, some, costs)
            except (DatabaseUnavailableError, TurnLostError):
                raise
            except Exception as error:
                if len(some) > 1:
                    waiting += halves(some)
                    continue
                bad += 1
                if bad > BAD_ROWS:
                    raise
                why = f"roadworthy cannot settle it: {_said(error)}"
                _log.warning("request %r of %s: %s", some[0].request_id, self.provider, why)
                await self.put_off(some[0], why)
        return total

    async def put_off(self, one: Asked, why: str) -> None:
        """Ask for an id much later, for a reason of our own."""
        async with self.database.writing() as connection:
            now_us = await self.database.now_us(connection)
            await self.hold(connection, now_us)
            next_ask_us = now_us + int(self.policy.ask_again_most_s * SECOND_US)
            await turns.postpone(connection, one.id, next_ask_us, storable(why))

    async def hold(self, connection: AsyncConnection, now_us: int, since_us: int | None = None) -> None:
        """Hold the turn until the transaction ends, or raise `TurnLostError`. `since_us` notes an answer that came."""
        if not await turns.hold(connection, self.taken, now_us, self.policy.lease_us, answering_since_us=since_us):
            raise TurnLostError(
                f"the turn of {self.provider} was taken over by another collector, or its endpoint was changed"
            )

    async def end(self) -> None:
        """The turn went well; the next one begins an interval after this one did, or at once where more waits."""
        failures = 0 if self.answers or not self._refused else self.taken.failures + 1
        async with self.database.writing() as connection:
            now_us = await self.database.now_us(connection)
            next_us = now_us if self.more else next_turn_us(self.policy, self.taken.begun_us, now_us)
            await turns.give_back(connection, self.taken, next_us, failures=failures, batch_limit=self.batch_limit)

    async def back_off(self, refusal: Refusal) -> None:
        """End the turn early, and leave the provider alone for a while."""
        self.came.trouble = refusal
        failures = 1 if self.answers else self.taken.failures + 1
        wait_us = back_off_us(self.policy, failures, refusal.retry_after_s, self.jitter)
        _log.warning("costs of %s: %s; asked again in %d s", self.provider, refusal.detail, wait_us // SECOND_US)
        async with self.database.writing() as connection:
            now_us = await self.database.now_us(connection)
            await turns.give_back(
                connection, self.taken, now_us + wait_us, failures=failures, batch_limit=self.batch_limit
            )


async def whole(work: Coroutine[Any, Any, Result]) -> Result:
    """Do work that a cancellation does not cut in half: it may end first, for a while."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task], timeout=STOP_WITHIN_S)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("what was under way when the collector stopped was not done: %s", _said(error))
        raise


def _said(error: BaseException) -> str:
    """The first line of an error, without the values of the statement."""
    return (str(getattr(error, "orig", None) or error).strip().partition("\n")[0] or type(error).__name__)[:200]


def halves(asked: Sequence[Asked]) -> list[Sequence[Asked]]:
    """Two halves, the first one last, for a stack; nothing where there are none."""
    middle = len(asked) // 2
    return [asked[middle:], asked[:middle]] if middle else []
