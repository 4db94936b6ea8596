"""The collector: asks every provider for the costs of what it served, and settles what it says.

Each provider that is due is asked in a task of its own, so that a slow one delays nobody but itself. A turn is
taken with a lease and a fence, and each batch is settled in one transaction that holds on to the fence. Whatever
dies between question and settlement leaves ids pending that are asked for again: asking costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import orjson

from roadworthy.billing import answer
from roadworthy.billing.records import Costs, Refusal, Trouble
from roadworthy.billing.schedule import SECOND_US, Policy, back_off_us
from roadworthy.billing.store import batches, ledger, turns
from roadworthy.billing.store.endpoints import key_context
from roadworthy.billing.store.ledger import Settled
from roadworthy.billing.store.turns import Asked, Turn
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.errors import ForbiddenTargetError, RoadworthyError
from roadworthy.http.message import Limits, Reply, Request, Transport
from roadworthy.http.redact import Redactor
from roadworthy.sealing import Sealer, SealingError

STOP_WITHIN_S = 5.0
LEAST_BATCH = 100
"""A provider that is too slow for a batch gets smaller ones, down to this."""
TOO_MUCH = "HTTP 413"

_log = logging.getLogger(__name__)


class TurnLostError(RoadworthyError):
    """Another collector holds the provider's turn; what was learnt is not settled here."""


@dataclass(slots=True)
class _Progress:
    """What one turn has come to so far."""

    batch_limit: int
    settled: Settled = field(default_factory=Settled)
    answered: bool = False
    searches: int = 0


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
        settled: Callable[[str, Settled], None] | None = None,
    ) -> None:
        """All parts stay the caller's. `settled` is called after each batch, with the provider and what came of it."""
        self._database = database
        self._sealer = sealer
        self._transport = transport
        self._policy = policy or Policy()
        self._jitter = jitter or random.Random()  # noqa: S311  spreads load, hides nothing
        self._settled = settled
        self._lanes: set[asyncio.Task[None]] = set()
        """The turns under way; two of one provider where it was registered anew, or a lease ended, meanwhile."""
        self._stopping = False
        self._away = False
        self.only: Collection[str] | None = None
        """The providers that are wanted; None is all."""

    async def tick(self) -> None:
        """Begin the turns that are due; they go on after it returns."""
        room = self._policy.providers_at_once - len(self._lanes)
        if self._stopping or room <= 0:
            return
        try:
            taken = await self._take(room)
        except DatabaseUnavailableError as error:
            self._note_away(error)
            return
        self._away = False
        for turn in taken:
            task = asyncio.create_task(self._run(turn))
            self._lanes.add(task)
            task.add_done_callback(self._lanes.discard)

    async def idle(self) -> None:
        """Wait until no turn is under way."""
        while self._lanes:
            await asyncio.wait(self._lanes)

    async def stop(self) -> None:
        """Begin nothing more, and let what is being settled end; questions under way are given up."""
        self._stopping = True
        under_way = list(self._lanes)
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way, timeout=STOP_WITHIN_S)

    async def _take(self, room: int) -> list[Turn]:
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            if not await turns.any_due(connection, now_us, self.only):
                return []
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            return await turns.take(connection, now_us, self._lease_us, room, self.only)

    @property
    def _lease_us(self) -> int:
        return int(self._policy.lease_s * SECOND_US)

    def _note_away(self, error: Exception) -> None:
        if not self._away:  # said once, not every second
            _log.warning("collecting costs waits for the database: %s", error)
        self._away = True

    async def _run(self, turn: Turn) -> None:
        try:
            await self._turn(turn)
        except DatabaseUnavailableError as error:
            # The lease ends by itself; nothing was lost, for nothing is settled outside a transaction.
            self._note_away(error)
        except TurnLostError:
            _log.info("the turn of %s was taken over by another collector", turn.provider)
        except asyncio.CancelledError:
            await asyncio.shield(self._abandon(turn))
            raise
        except Exception:  # noqa: BLE001  logged whole; the other providers' turns go on
            _log.exception("collecting the costs of %s failed", turn.provider)
            refusal = Refusal(Trouble.OURS, "a fault of roadworthy itself; the log says more")
            await self._back_off(turn, refusal, _Progress(turn.batch_limit))

    async def _abandon(self, turn: Turn) -> None:
        """Let others have the turn at once."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S), self._database.writing() as connection:
                now_us = await self._database.now_us(connection)
                await turns.give_back(connection, turn, now_us, failures=turn.failures, batch_limit=turn.batch_limit)
        except (DatabaseUnavailableError, TimeoutError) as error:
            _log.warning("the turn of %s, which was given up, waits until its lease ends: %s", turn.provider, error)

    async def _turn(self, turn: Turn) -> None:
        progress = _Progress(min(turn.batch_limit, self._policy.batch_size))
        try:
            ask = self._asker(turn)
        except SealingError as error:
            await self._back_off(turn, Refusal(Trouble.OURS, str(error)), progress)
            return
        for _ in range(self._policy.batches_per_turn):
            asked = await self._waiting(turn, progress.batch_limit)
            if not asked:
                break
            refusal = await self._batch(turn, ask, asked, progress)
            if refusal is not None and not (
                self._worth_searching(turn, refusal, progress)
                and await self._search(turn, ask, asked, refusal, progress)
            ):
                await self._back_off(turn, refusal, progress)
                return
        await self._ask_alone(turn, ask, progress)
        await self._end(turn, progress)

    def _asker(self, turn: Turn) -> Asking:
        key = None
        if turn.key_sealed is not None:
            key = self._sealer.open(turn.key_sealed, key_context(turn.provider, turn.url))
        return lambda asked: Question(self._transport, self._policy, turn.url, key, asked)

    async def _waiting(self, turn: Turn, most: int, *, alone: bool = False) -> list[Asked]:
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            return await turns.waiting(connection, turn.provider, now_us, most, alone=alone)

    async def _batch(self, turn: Turn, ask: Asking, asked: Sequence[Asked], progress: _Progress) -> Refusal | None:
        """Ask for some ids and settle what is said of them; or what came instead."""
        question = ask(asked)
        found = await question.answered()
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            if not await turns.hold(connection, turn, now_us, self._lease_us):
                raise TurnLostError(f"the turn of {turn.provider} was lost")
            settled = Settled()
            if isinstance(found, Costs):
                settled = await ledger.settle(
                    connection, turn.provider, asked, found, now_us=now_us, policy=self._policy, jitter=self._jitter
                )
            await batches.note(
                connection,
                turn.provider,
                now_us,
                asked=len(asked),
                outcome=batches.ANSWERED if isinstance(found, Costs) else found.trouble.value,
                detail="" if isinstance(found, Costs) else found.detail,
                settled=settled,
                oddities=found.oddities if isinstance(found, Costs) else None,
                answer_bytes=question.answer_bytes,
                took_us=question.took_us,
            )
        if isinstance(found, Refusal):
            if found.trouble is Trouble.TIMEOUT or found.detail == TOO_MUCH:
                progress.batch_limit = min(progress.batch_limit, max(LEAST_BATCH, len(asked) // 2))
            return found
        progress.answered = True
        progress.settled += settled
        if len(asked) >= progress.batch_limit:
            progress.batch_limit = min(2 * progress.batch_limit, self._policy.batch_size)
        if self._settled is not None:
            self._settled(turn.provider, settled)
        return None

    def _worth_searching(self, turn: Turn, refusal: Refusal, progress: _Progress) -> bool:
        """Whether one of the ids may be the cause: not where the provider may just have stumbled."""
        if not refusal.may_be_an_ids_fault or progress.searches >= self._policy.searches:
            return False
        return progress.answered or turn.failures > 0 or refusal.trouble is Trouble.CLIENT_ERROR

    async def _search(
        self, turn: Turn, ask: Asking, failed: Sequence[Asked], refusal: Refusal, progress: _Progress
    ) -> bool:
        """Halve ids that failed together until those that fail by themselves are found; the others are settled.

        False where nothing was answered at all: then it is not the ids.
        """
        culprits: list[tuple[Asked, Refusal]] = [(failed[0], refusal)] if len(failed) == 1 else []
        waiting = _halves(failed)
        before = progress.settled
        found = refusal.trouble is Trouble.CLIENT_ERROR and bool(culprits)
        while waiting and progress.searches < self._policy.searches:
            some = waiting.pop()
            progress.searches += 1
            again = await self._batch(turn, ask, some, progress)
            if again is None:
                found = True
            elif not again.may_be_an_ids_fault:
                break
            elif len(some) == 1:
                culprits.append((some[0], again))
            else:
                waiting += _halves(some)
        found = found or progress.settled != before
        if found and culprits:
            await self._set_apart(turn, culprits)
        return found

    async def _set_apart(self, turn: Turn, culprits: Sequence[tuple[Asked, Refusal]]) -> None:
        """From now on these ids are asked for by themselves, so that no batch fails for them."""
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            if not await turns.hold(connection, turn, now_us, self._lease_us):
                raise TurnLostError(f"the turn of {turn.provider} was lost")
            ids = [one for one, _ in culprits]
            problems = {one.request_id: f"batches with it fail: {why.detail}"[:200] for one, why in culprits}
            await ledger.settle(
                connection,
                turn.provider,
                ids,
                Costs(invalid=problems),
                now_us=now_us,
                policy=self._policy,
                jitter=self._jitter,
            )
            await turns.set_apart(connection, [one.id for one in ids])

    async def _ask_alone(self, turn: Turn, ask: Asking, progress: _Progress) -> None:
        for one in await self._waiting(turn, self._policy.alone_per_turn, alone=True):
            refusal = await self._batch(turn, ask, [one], progress)
            if refusal is not None:
                if not refusal.may_be_an_ids_fault:
                    return
                await self._set_apart(turn, [(one, refusal)])

    async def _end(self, turn: Turn, progress: _Progress) -> None:
        """The turn went well; the next one begins an interval after this one did."""
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            left = await turns.waiting(connection, turn.provider, now_us, 1)
            wait_us = 0 if left else int(self._policy.interval_s * SECOND_US)
            await turns.give_back(
                connection,
                turn,
                now_us + wait_us,
                failures=0,
                batch_limit=progress.batch_limit,
                answered_at_us=now_us if progress.answered else None,
            )

    async def _back_off(self, turn: Turn, refusal: Refusal, progress: _Progress) -> None:
        failures = 1 if progress.answered else turn.failures + 1
        wait_us = back_off_us(self._policy, failures, refusal.retry_after_s, self._jitter)
        _log.warning("costs of %s: %s; asked again in %d s", turn.provider, refusal.detail, wait_us // SECOND_US)
        try:
            async with self._database.writing() as connection:
                now_us = await self._database.now_us(connection)
                await turns.give_back(
                    connection,
                    turn,
                    now_us + wait_us,
                    failures=failures,
                    batch_limit=progress.batch_limit,
                    answered_at_us=now_us if progress.answered else None,
                )
        except DatabaseUnavailableError as error:
            self._note_away(error)


class Question:
    """One question for the costs of some ids."""

    def __init__(self, transport: Transport, policy: Policy, url: str, key: str | None, asked: Sequence[Asked]) -> None:
        """`key` goes to the origin of `url` alone: the transport follows no redirects."""
        self._transport = transport
        self._policy = policy
        self._key = key
        self._ids = [one.request_id for one in asked]
        headers = [("Content-Type", "application/json"), ("Accept", "application/json")]
        if key is not None:
            headers.append(("Authorization", f"Bearer {key}"))
        self._request = Request("POST", url, tuple(headers), orjson.dumps({"requestIds": self._ids}))
        self.answer_bytes = 0
        self.took_us = 0

    async def answered(self) -> Costs | Refusal:
        """The costs, or what came instead."""
        begun_ns = time.monotonic_ns()
        try:
            reply = await self._transport.send(self._request, self._limits())
        except ForbiddenTargetError as error:
            return Refusal(Trouble.OURS, str(error))
        finally:
            self.took_us = (time.monotonic_ns() - begun_ns) // 1000
        self.answer_bytes = len(reply.body)
        # Elsewhere, so that a hostile body holds up nobody else's turn.
        return await asyncio.to_thread(
            answer.read, self._without_key(reply), frozenset(self._ids), self._policy.max_cost_nano_usd
        )

    def _limits(self) -> Limits:
        timeout_s = self._policy.timeout_s
        return Limits(
            connect_timeout_s=min(10.0, timeout_s),
            total_timeout_s=timeout_s,
            idle_timeout_s=timeout_s,
            max_body_bytes=self._policy.answer_max_bytes,
        )

    def _without_key(self, reply: Reply) -> Reply:
        """Parts of answers are kept as evidence, and some servers echo what they were sent."""
        return reply if self._key is None else Redactor([self._key]).reply(reply)


Asking = Callable[[Sequence[Asked]], Question]


def _halves(asked: Sequence[Asked]) -> list[Sequence[Asked]]:
    """Two halves, the first one last, for a stack; nothing where there are none."""
    middle = len(asked) // 2
    return [asked[middle:], asked[:middle]] if middle else []
