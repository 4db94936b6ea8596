"""The collector: asks every provider for the costs of what it served, and settles what it says.

Each provider that is due is asked in a task of its own, so that a slow one delays nobody but itself. A turn is
taken with a lease and a fence, and each batch is settled in one transaction that holds on to the fence. Whatever
dies between question and settlement leaves ids pending that are asked for again: asking costs nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.question import Asking, Question, asker
from roadworthy.billing.records import Costs, Oddity, Refusal, Trouble
from roadworthy.billing.schedule import HOUR_US, SECOND_US, Policy, answering_since_us, back_off_us, next_turn_us
from roadworthy.billing.store import batches, ledger, recheck, turns
from roadworthy.billing.store.ledger import Settled, storable
from roadworthy.billing.store.recheck import Rechecked
from roadworthy.billing.store.turns import Asked, Turn, Wanted
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.errors import RoadworthyError
from roadworthy.http.message import Transport
from roadworthy.sealing import Sealer, SealingError

STOP_WITHIN_S = 5.0
QUICK_SHARE = 0.25
"""A provider that answers within this share of the time it has gets larger batches."""
CONTROLS = 3
"""Other ids that are asked for before one that failed by itself is blamed."""
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


@dataclass(slots=True)
class _Progress:
    """What one turn has come to so far, and what it has learnt."""

    came: Came
    batch_limit: int
    ends_at_s: float
    last_answer_us: int | None
    answering_since_us: int | None
    questions: int = 0
    answers: int = 0
    searches: int = 0
    refused: bool = False
    too_many: int | None = None
    """So many ids at once were too many in this turn."""
    more: bool = False
    """Whether the last batch was full, so that more may be waiting."""


class Collector:
    """The collector of one process; it shares the database with others. `tick` looks for what is due."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        transport: Transport,
        policy: Policy | None = None,
        *,
        jitter: random.Random | None = None,
        told: Callable[[Told], None] | None = None,
    ) -> None:
        """All parts stay the caller's. `told` is called after each question with what it came to."""
        self._database = database
        self._sealer = sealer
        self._transport = transport
        self._policy = policy or Policy()
        self._jitter = jitter or random.Random()  # noqa: S311  spreads load, hides nothing
        self._told = told
        self._lanes: dict[str, asyncio.Task[Came]] = {}
        self._stopping = False
        self._away = False
        self.only: Collection[str] | None = None
        """The providers that are wanted; None is all."""

    async def tick(self) -> None:
        """Begin the turns that are due; they go on after it returns."""
        try:
            await self._begin(self.only, ())
        except DatabaseUnavailableError as error:
            self._note_away(error)
        else:
            self._away = False

    async def once(self) -> list[Came]:
        """Give each provider that is due one turn, and wait for all; what they came to, by provider.

        Raises `DatabaseUnavailableError` where it cannot be seen whose turn it is.
        """
        came: dict[str, Came] = {}
        while begun := await self._begin(self.only, came):
            came |= {one.provider: one for one in await asyncio.gather(*begun)}
        return [came[provider] for provider in sorted(came)]

    async def force(self) -> None:
        """Make whatever is pending due at once, some at a time. Raises `DatabaseUnavailableError`."""
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            providers = await turns.asked_providers(connection, self.only)
        for provider in providers:
            moved = turns.MEND_AT_ONCE
            while moved >= turns.MEND_AT_ONCE:
                async with self._database.writing() as connection:
                    moved = await turns.bring_forward(connection, provider, now_us)

    async def mend(self) -> None:
        """Make due what a clock that has jumped back since had put off. Raises `DatabaseUnavailableError`."""
        most_us = self._policy.next_ask_most_us
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            providers = await turns.postponed_by_a_wrong_clock(connection, now_us, most_us)
        for provider in providers:
            mended = turns.MEND_AT_ONCE
            while mended >= turns.MEND_AT_ONCE:
                async with self._database.writing() as connection:
                    now_us = await self._database.now_us(connection)
                    mended = await turns.mend(connection, provider, now_us, most_us)
            _log.warning("the database's clock jumped back: the pending requests of %s are due now", provider)

    async def idle(self) -> None:
        """Wait until no turn is under way."""
        while self._lanes:
            await asyncio.wait(list(self._lanes.values()))

    async def stop(self) -> None:
        """Begin nothing more, and let what is being settled end; questions under way are given up."""
        self._stopping = True
        await asyncio.sleep(0)  # a task that is cancelled before its first step would not give its turn back
        under_way = list(self._lanes.values())
        for task in under_way:
            task.cancel()
        if under_way:
            # What is being settled, and the turn's end, have so long each.
            _, late = await asyncio.wait(under_way, timeout=2 * STOP_WITHIN_S + 1)
            if late:
                _log.warning("%d turns could not be ended in time; their leases end by themselves", len(late))

    def _leave(self, provider: str, task: asyncio.Task[Came]) -> None:
        if self._lanes.get(provider) is task:
            del self._lanes[provider]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the turn of %s broke off", provider, exc_info=error)

    async def _begin(self, only: Collection[str] | None, but_not: Collection[str]) -> list[asyncio.Task[Came]]:
        room = self._policy.providers_at_once - len(self._lanes)
        if self._stopping or room <= 0:
            return []
        taken = await self._take(room, Wanted(self._policy.next_turn_most_us, only, {*but_not, *self._lanes}))
        if self._stopping:
            for turn in taken:
                await self._abandon(turn)
            return []
        begun = []
        for turn in taken:
            task = asyncio.create_task(self._run(turn))
            self._lanes[turn.provider] = task
            task.add_done_callback(functools.partial(self._leave, turn.provider))
            begun.append(task)
        return begun

    async def _take(self, room: int, wanted: Wanted) -> list[Turn]:
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            if not await turns.any_due(connection, now_us, wanted):
                return []
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            return await turns.take(connection, now_us, self._lease_us, room, wanted)

    @property
    def _lease_us(self) -> int:
        return int(self._policy.lease_s * SECOND_US)

    def _note_away(self, error: Exception) -> None:
        if not self._away:  # said once, not every second
            _log.warning("collecting costs waits for the database: %s", error)
        self._away = True

    async def _run(self, turn: Turn) -> Came:
        progress = _Progress(
            Came(turn.provider),
            min(turn.batch_limit, self._policy.batch_size),  # which may have been set lower since
            time.monotonic() + self._policy.turn_s,
            turn.last_answer_us,
            turn.answering_since_us,
        )
        came = progress.came
        try:
            await self._turn(turn, progress)
        except DatabaseUnavailableError as error:
            # The lease ends by itself; nothing was lost, for nothing is settled outside a transaction.
            self._note_away(error)
            came.trouble = Refusal(Trouble.OURS, str(error))
        except TurnLostError as error:
            _log.info("%s", error)
            came.trouble = Refusal(Trouble.OURS, str(error))
        except asyncio.CancelledError:
            await _whole(self._abandon(turn))
            raise
        except Exception:  # noqa: BLE001  logged whole; the other providers' turns go on
            _log.exception("collecting the costs of %s failed", turn.provider)
            await self._back_off(
                turn, Refusal(Trouble.OURS, "a fault of roadworthy itself; the log says more"), progress
            )
        return came

    async def _abandon(self, turn: Turn) -> None:
        """Let others have the turn at once."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S), self._database.writing() as connection:
                now_us = await self._database.now_us(connection)
                await turns.give_back(connection, turn, now_us, failures=turn.failures, batch_limit=turn.batch_limit)
        except (DatabaseUnavailableError, TimeoutError) as error:
            _log.warning("the turn of %s, which was given up, waits until its lease ends: %s", turn.provider, error)

    async def _turn(self, turn: Turn, progress: _Progress) -> None:
        try:
            ask = self._asker(turn)
        except SealingError as error:
            refusal = Refusal(Trouble.OURS, str(error))
            await _whole(self._note(turn, [], refusal, None, progress))
            await self._back_off(turn, refusal, progress)
            return
        while progress.questions < self._policy.batches_per_turn and not _over(progress):
            asked = await self._waiting(turn, progress.batch_limit)
            progress.more = len(asked) >= progress.batch_limit
            if not asked:
                break
            refused = await self._batch(turn, ask, asked, progress)
            if refused is not None:
                if not await self._cope(turn, ask, asked, refused, progress):
                    await self._back_off(turn, refused, progress)
                    return
                progress.more = True
            elif not progress.more:
                # What was served meanwhile waits for the next turn: many small questions help nobody.
                break
        refused = await self._ask_alone(turn, ask, progress)
        if refused is not None:
            await self._back_off(turn, refused, progress)
            return
        await self._recheck(turn, ask, progress)
        await self._end(turn, progress)

    def _asker(self, turn: Turn) -> Asking:
        return asker(self._sealer, self._transport, self._policy, turn)

    async def _waiting(self, turn: Turn, most: int, *, alone: bool = False, newest: bool = False) -> list[Asked]:
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            return await turns.waiting(connection, turn.provider, now_us, most, alone=alone, newest=newest)

    async def _batch(self, turn: Turn, ask: Asking, asked: Sequence[Asked], progress: _Progress) -> Refusal | None:
        """Ask for some ids and settle what is said of them; or what came instead."""
        question = ask(asked)
        progress.questions += 1
        found = await question.answered()
        # Money that is on its way is not dropped halfway: a cancellation waits for the transaction.
        settled = await _whole(self._note(turn, asked, found, question, progress))
        progress.came.asked += len(asked)
        if isinstance(found, Refusal):
            progress.refused = True
            if found.too_much or found.trouble is Trouble.TIMEOUT:
                progress.batch_limit = max(1, len(asked) // 2)
                progress.too_many = min(len(asked), progress.too_many or len(asked))
        else:
            progress.came.answered = True
            progress.came.settled += settled
            progress.answers += 1
            self._enlarge(progress, len(asked), question)
        self._tell(turn, found, question, settled)
        return found if isinstance(found, Refusal) else None

    def _enlarge(self, progress: _Progress, asked: int, question: Question) -> None:
        """A provider that answered at ease for as many ids as it is asked for at once gets twice as many."""
        wanted = min(2 * asked, self._policy.batch_size)
        at_ease = question.took_us < QUICK_SHARE * self._policy.timeout_s * SECOND_US
        if at_ease and (progress.too_many is None or wanted < progress.too_many):
            progress.batch_limit = max(progress.batch_limit, wanted)

    def _tell(self, turn: Turn, found: Costs | Refusal, question: Question, settled: Settled | None = None) -> None:
        """Tell whoever counts; a question without `settled` was for costs that had been settled before."""
        if self._told is None:
            return
        oddities = {} if isinstance(found, Refusal) else found.oddities
        outcome = batches.outcome(found) if settled is not None else batches.RECHECKED
        counts = {oddity: noted.count for oddity, noted in oddities.items()}
        took_s = question.took_us / SECOND_US
        self._told(Told(turn.provider, outcome, question.asked, settled or Settled(), counts, took_s))

    async def _note(
        self,
        turn: Turn,
        asked: Sequence[Asked],
        found: Costs | Refusal,
        question: Question | None,
        progress: _Progress,
    ) -> Settled:
        """Settle an answer, and write down what the question came to."""
        try:
            async with self._database.writing() as connection:
                settled = await self._settle(connection, turn, asked, found, progress)
                await self._write_down(connection, turn, found, question, asked=len(asked), settled=settled)
        except (DatabaseUnavailableError, TurnLostError):
            raise
        except Exception as error:
            if isinstance(found, Refusal):
                raise
            _log.warning("%d costs of %s cannot be settled together: %s", len(asked), turn.provider, _said(error))
        else:
            return settled
        settled = await self._settle_apart(turn, asked, found, progress)
        async with self._database.writing() as connection:
            await self._hold(turn, connection, await self._database.now_us(connection))
            await self._write_down(connection, turn, found, question, asked=len(asked), settled=settled)
        return settled

    async def _write_down(
        self,
        connection: AsyncConnection,
        turn: Turn,
        found: Costs | Refusal,
        question: Question | None,
        **counts: Any,
    ) -> None:
        now_us = await self._database.now_us(connection)
        await batches.note(connection, turn.provider, now_us, found=found, question=question, **counts)

    async def _settle(
        self,
        connection: AsyncConnection,
        turn: Turn,
        asked: Sequence[Asked],
        found: Costs | Refusal,
        progress: _Progress,
    ) -> Settled:
        """Under the turn's fence, settle an answer, if it is one."""
        now_us = await self._database.now_us(connection)
        if isinstance(found, Refusal):
            await self._hold(turn, connection, now_us)
            return Settled()
        last_us, since_us = progress.last_answer_us, progress.answering_since_us
        since_us = answering_since_us(self._policy, last_us, since_us, now_us)
        await self._hold(turn, connection, now_us, since_us)
        # What the next answer is held against, also where this one cannot be written: it came.
        progress.last_answer_us, progress.answering_since_us = now_us, since_us
        return await ledger.settle(
            connection,
            turn.provider,
            asked,
            found,
            now_us=now_us,
            policy=self._policy,
            jitter=self._jitter,
            answering_since_us=since_us,
        )

    async def _settle_apart(self, turn: Turn, asked: Sequence[Asked], costs: Costs, progress: _Progress) -> Settled:
        """Settle in ever smaller parts what cannot be settled together: a bad row of ours must not hold up the rest.

        Raises what the database said where too many rows are bad: then it is not the rows.
        """
        total, bad = Settled(), 0
        waiting = _halves(asked) or [asked]
        while waiting:
            some = waiting.pop()
            try:
                async with self._database.writing() as connection:
                    total += await self._settle(connection, turn, some, costs, progress)
            except (DatabaseUnavailableError, TurnLostError):
                raise
            except Exception as error:
                if len(some) > 1:
                    waiting += _halves(some)
                    continue
                bad += 1
                if bad > BAD_ROWS:
                    raise
                why = f"roadworthy cannot settle it: {_said(error)}"
                _log.warning("request %r of %s: %s", some[0].request_id, turn.provider, why)
                await self._put_off(turn, some[0], why)
        return total

    async def _put_off(self, turn: Turn, one: Asked, why: str) -> None:
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            await self._hold(turn, connection, now_us)
            next_ask_us = now_us + int(self._policy.ask_again_most_s * SECOND_US)
            await turns.postpone(connection, one.id, next_ask_us, storable(why))

    async def _hold(self, turn: Turn, connection: AsyncConnection, now_us: int, since_us: int | None = None) -> None:
        if not await turns.hold(connection, turn, now_us, self._lease_us, answering_since_us=since_us):
            raise TurnLostError(
                f"the turn of {turn.provider} was taken over by another collector, or its endpoint was changed"
            )

    async def _cope(
        self, turn: Turn, ask: Asking, asked: Sequence[Asked], refusal: Refusal, progress: _Progress
    ) -> bool:
        """Whether the turn can go on after this: with smaller batches, or without the ids that are to blame."""
        if refusal.too_much and len(asked) > 1:
            return True
        return self._worth_searching(turn, refusal, progress) and await self._search(
            turn, ask, asked, refusal, progress
        )

    def _worth_searching(self, turn: Turn, refusal: Refusal, progress: _Progress) -> bool:
        """Whether one of the ids may be the cause: not where the provider may just have stumbled."""
        if not refusal.may_be_an_ids_fault or progress.searches >= self._policy.searches:
            return False
        return progress.answers > 0 or turn.failures > 0 or refusal.trouble is Trouble.CLIENT_ERROR

    async def _search(
        self, turn: Turn, ask: Asking, failed: Sequence[Asked], refusal: Refusal, progress: _Progress
    ) -> bool:
        """Halve ids that failed together until those that fail by themselves are found; the others are settled.

        False where nothing was answered at all: then it is not the ids. One that failed by itself is to blame only
        where others are answered for.
        """
        culprits: list[tuple[Asked, Refusal]] = []
        waiting: list[Sequence[Asked]] = _halves(failed)
        if len(failed) == 1:
            culprits.append((failed[0], refusal))
            newest = await self._waiting(turn, CONTROLS + 1, newest=True)
            waiting += [[one] for one in newest if one.id != failed[0].id][:CONTROLS]
            if not waiting:
                # Nothing to compare it with: it must not stand in the way of what comes.
                await _whole(self._set_alone(turn, [failed[0].id], alone=True))
                return True
        answers = progress.answers
        fruitless = len(failed).bit_length() + CONTROLS  # down to a single id, and beyond
        while waiting and progress.searches < self._policy.searches and not _over(progress):
            if progress.answers == answers and fruitless == 0:
                break
            fruitless -= 1
            some = waiting.pop()
            progress.searches += 1
            again = await self._batch(turn, ask, some, progress)
            if again is None:
                if len(failed) == 1:
                    break
            elif not again.may_be_an_ids_fault:
                break
            elif len(some) == 1:
                culprits.append((some[0], again))
            else:
                waiting += _halves(some)
        found = progress.answers > answers
        if found and culprits:
            await _whole(self._set_apart(turn, culprits, progress))
        return found

    async def _set_alone(self, turn: Turn, ids: Sequence[int], *, alone: bool) -> None:
        async with self._database.writing() as connection:
            await self._hold(turn, connection, await self._database.now_us(connection))
            await turns.set_alone(connection, ids, alone=alone)

    async def _set_apart(self, turn: Turn, culprits: Sequence[tuple[Asked, Refusal]], progress: _Progress) -> None:
        """From now on these ids are asked for by themselves, so that no batch fails for them.

        Others were answered for, so this counts as an answer without them.
        """
        problems = {one.request_id: f"batches with it fail: {why.detail}"[:200] for one, why in culprits}
        ids = [one for one, _ in culprits]
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            await self._hold(turn, connection, now_us)
            progress.came.settled += await ledger.settle(
                connection,
                turn.provider,
                ids,
                Costs(invalid=problems),
                now_us=now_us,
                policy=self._policy,
                jitter=self._jitter,
                answering_since_us=progress.answering_since_us or now_us,
            )
            await turns.set_alone(connection, [one.id for one in ids], alone=True)

    async def _ask_alone(self, turn: Turn, ask: Asking, progress: _Progress) -> Refusal | None:
        """Ask for the ids that make batches fail, each by itself. A refusal is the provider's, not theirs."""
        failed: list[tuple[Asked, Refusal]] = []
        rehabilitated: list[int] = []
        try:
            for one in await self._waiting(turn, self._policy.batches_per_turn, alone=True):
                if len(failed) >= self._policy.alone_per_turn or _over(progress):
                    break
                refusal = await self._batch(turn, ask, [one], progress)
                if refusal is None:
                    rehabilitated.append(one.id)
                elif refusal.may_be_an_ids_fault:
                    failed.append((one, refusal))
                else:
                    return refusal
        finally:
            if rehabilitated:
                await _whole(self._set_alone(turn, rehabilitated, alone=False))
        if failed and progress.answers:
            await _whole(self._set_apart(turn, failed, progress))
        else:
            for one, refusal in failed:
                await _whole(self._put_off(turn, one, f"it fails by itself: {refusal.detail}"))
        return None

    async def _recheck(self, turn: Turn, ask: Asking, progress: _Progress) -> None:
        """Once an hour ask for some settled ids again, of a provider that answers."""
        policy = self._policy
        if not policy.recheck_ids_per_hour or not progress.answers or _over(progress):
            return
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            # A time further away than an hour was set by a clock that was wrong.
            if turn.next_recheck_us is not None and now_us < turn.next_recheck_us <= now_us + HOUR_US:
                return
            since_us = now_us - int(policy.recheck_within_s * SECOND_US)
            most = min(policy.recheck_ids_per_hour, progress.batch_limit)
            sampled = await recheck.sample(connection, turn.provider, (since_us, now_us), most, self._jitter)
        if not sampled:
            return
        question = ask(sampled)
        found = await question.answered()
        await _whole(self._compare(turn, sampled, found, question, progress))
        self._tell(turn, found, question)

    async def _compare(
        self,
        turn: Turn,
        sampled: Sequence[recheck.Posted],
        found: Costs | Refusal,
        question: Question,
        progress: _Progress,
    ) -> None:
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            held = await turns.hold(connection, turn, now_us, self._lease_us, next_recheck_us=now_us + HOUR_US)
            if not held:
                raise TurnLostError(f"the turn of {turn.provider} was lost while settled costs were asked for again")
            seen = Rechecked()
            if isinstance(found, Costs):
                seen = await recheck.compare(connection, turn.provider, sampled, found, now_us)
            await batches.note_recheck(connection, turn.provider, now_us, found=found, question=question, seen=seen)
        progress.came.rechecked += seen
        if seen.changed:
            _log.warning("%d settled costs of %s are others now; they are disputed", seen.changed, turn.provider)

    async def _end(self, turn: Turn, progress: _Progress) -> None:
        """The turn went well; the next one begins an interval after this one did, or at once where more waits."""
        failures = 0 if progress.answers or not progress.refused else turn.failures + 1
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            next_us = now_us if progress.more else next_turn_us(self._policy, turn.begun_us, now_us)
            await turns.give_back(connection, turn, next_us, failures=failures, batch_limit=progress.batch_limit)

    async def _back_off(self, turn: Turn, refusal: Refusal, progress: _Progress) -> None:
        progress.came.trouble = refusal
        failures = 1 if progress.answers else turn.failures + 1
        wait_us = back_off_us(self._policy, failures, refusal.retry_after_s, self._jitter)
        _log.warning("costs of %s: %s; asked again in %d s", turn.provider, refusal.detail, wait_us // SECOND_US)
        try:
            async with self._database.writing() as connection:
                now_us = await self._database.now_us(connection)
                await turns.give_back(
                    connection, turn, now_us + wait_us, failures=failures, batch_limit=progress.batch_limit
                )
        except DatabaseUnavailableError as error:
            self._note_away(error)


async def _whole(work: Coroutine[Any, Any, Result]) -> Result:
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


def _over(progress: _Progress) -> bool:
    return time.monotonic() >= progress.ends_at_s


def _said(error: BaseException) -> str:
    """The first line of an error, without the values of the statement."""
    return (str(getattr(error, "orig", None) or error).strip().partition("\n")[0] or type(error).__name__)[:200]


def _halves(asked: Sequence[Asked]) -> list[Sequence[Asked]]:
    """Two halves, the first one last, for a stack; nothing where there are none."""
    middle = len(asked) // 2
    return [asked[middle:], asked[:middle]] if middle else []
