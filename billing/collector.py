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
from collections.abc import Callable, Collection

from roadworthy.billing.recheck import recheck_some
from roadworthy.billing.records import Refusal, Trouble
from roadworthy.billing.schedule import Policy
from roadworthy.billing.search import ask_alone, cope
from roadworthy.billing.store import turns
from roadworthy.billing.store.turns import Turn, Wanted
from roadworthy.billing.turn import STOP_WITHIN_S, Came, Told, TurnLostError, TurnUnderWay, whole
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.http.message import Transport
from roadworthy.sealing import Sealer, SealingError

_log = logging.getLogger(__name__)


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
            return await turns.take(connection, now_us, self._policy.lease_us, room, wanted)

    def _note_away(self, error: Exception) -> None:
        if not self._away:  # said once, not every second
            _log.warning("collecting costs waits for the database: %s", error)
        self._away = True

    async def _run(self, taken: Turn) -> Came:
        turn = TurnUnderWay(taken, self._database, self._policy, self._jitter, self._told)
        try:
            refused = await self._turn(turn)
            if refused is not None:
                await self._back_off(turn, refused)
        except DatabaseUnavailableError as error:
            # The lease ends by itself; nothing was lost, for nothing is settled outside a transaction.
            self._note_away(error)
            turn.came.trouble = Refusal(Trouble.OURS, str(error))
        except TurnLostError as error:
            _log.info("%s", error)
            turn.came.trouble = Refusal(Trouble.OURS, str(error))
        except asyncio.CancelledError:
            await whole(self._abandon(taken))
            raise
        except Exception:  # noqa: BLE001  logged whole; the other providers' turns go on
            _log.exception("collecting the costs of %s failed", taken.provider)
            await self._back_off(turn, Refusal(Trouble.OURS, "a fault of roadworthy itself; the log says more"))
        return turn.came

    async def _turn(self, turn: TurnUnderWay) -> Refusal | None:
        """Ask until nothing waits or the time is over, then end the turn. A refusal is why it is to be broken off."""
        try:
            turn.unseal(self._sealer, self._transport)
        except SealingError as error:
            refusal = Refusal(Trouble.OURS, str(error))
            await whole(turn.note([], refusal, None))
            return refusal
        while turn.questions < self._policy.batches_per_turn and not turn.over:
            asked = await turn.waiting(turn.batch_limit)
            turn.more = len(asked) >= turn.batch_limit
            if not asked:
                break
            refused = await turn.batch(asked)
            if refused is not None:
                if not await cope(turn, asked, refused):
                    return refused
                turn.more = True
            elif not turn.more:
                # What was served meanwhile waits for the next turn: many small questions help nobody.
                break
        refused = await ask_alone(turn)
        if refused is not None:
            return refused
        await recheck_some(turn)
        await turn.end()
        return None

    async def _back_off(self, turn: TurnUnderWay, refusal: Refusal) -> None:
        try:
            await turn.back_off(refusal)
        except DatabaseUnavailableError as error:
            self._note_away(error)

    async def _abandon(self, turn: Turn) -> None:
        """Let others have the turn at once."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S), self._database.writing() as connection:
                now_us = await self._database.now_us(connection)
                await turns.give_back(connection, turn, now_us, failures=turn.failures, batch_limit=turn.batch_limit)
        except (DatabaseUnavailableError, TimeoutError) as error:
            _log.warning("the turn of %s, which was given up, waits until its lease ends: %s", turn.provider, error)
