"""Who is to blame: the ids that make batches fail are found, and from then on asked for by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from roadworthy.billing.records import Costs, Refusal, Trouble
from roadworthy.billing.store import ledger, turns
from roadworthy.billing.store.turns import Asked
from roadworthy.billing.turn import TurnUnderWay, halves, whole

CONTROLS = 3
"""Other ids that are asked for before one that failed by itself is blamed."""


async def cope(turn: TurnUnderWay, asked: Sequence[Asked], refusal: Refusal) -> bool:
    """Whether the turn can go on after this: with smaller batches, or without the ids that are to blame."""
    if refusal.too_much and len(asked) > 1:
        return True
    return _worth_searching(turn, refusal) and await _search(turn, asked, refusal)


def _worth_searching(turn: TurnUnderWay, refusal: Refusal) -> bool:
    """Whether one of the ids may be the cause: not where the provider may just have stumbled."""
    if not refusal.may_be_an_ids_fault or turn.searches >= turn.policy.searches:
        return False
    return turn.answers > 0 or turn.taken.failures > 0 or refusal.trouble is Trouble.CLIENT_ERROR


async def _search(turn: TurnUnderWay, failed: Sequence[Asked], refusal: Refusal) -> bool:
    """Halve ids that failed together until those that fail by themselves are found; the others are settled.

    False where nothing was answered at all: then it is not the ids. One that failed by itself is to blame only
    where others are answered for.
    """
    culprits: list[tuple[Asked, Refusal]] = []
    waiting: list[Sequence[Asked]] = halves(failed)
    if len(failed) == 1:
        culprits.append((failed[0], refusal))
        newest = await turn.waiting(CONTROLS + 1, newest=True)
        waiting += [[one] for one in newest if one.id != failed[0].id][:CONTROLS]
        if not waiting:
            # Nothing to compare it with: it must not stand in the way of what comes.
            await whole(_set_alone(turn, [failed[0].id], alone=True))
            return True
    answers = turn.answers
    fruitless = len(failed).bit_length() + CONTROLS  # down to a single id, and beyond
    while waiting and turn.searches < turn.policy.searches and not turn.over:
        if turn.answers == answers and fruitless == 0:
            break
        fruitless -= 1
        some = waiting.pop()
        turn.searches += 1
        again = await turn.batch(some)
        if again is None:
            if len(failed) == 1:
                break
        elif not again.may_be_an_ids_fault:
            break
        elif len(some) == 1:
            culprits.append((some[0], again))
        else:
            waiting += halves(some)
    found = turn.answers > answers
    if found and culprits:
        await whole(_set_apart(turn, culprits))
    return found


async def _set_alone(turn: TurnUnderWay, ids: Sequence[int], *, alone: bool) -> None:
    async with turn.database.writing() as connection:
        await turn.hold(connection, await turn.database.now_us(connection))
        await turns.set_alone(connection, ids, alone=alone)


async def _set_apart(turn: TurnUnderWay, culprits: Sequence[tuple[Asked, Refusal]]) -> None:
    """From now on these ids are asked for by themselves, so that no batch fails for them.

    Others were answered for, so this counts as an answer without them.
    """
    problems = {one.request_id: f"batches with it fail: {why.detail}"[:200] for one, why in culprits}
    ids = [one for one, _ in culprits]
    async with turn.database.writing() as connection:
        now_us = await turn.database.now_us(connection)
        await turn.hold(connection, now_us)
        turn.came.settled += await ledger.settle(
            connection,
            turn.provider,
            ids,
            Costs(invalid=problems),
            now_us=now_us,
            policy=turn.policy,
            jitter=turn.jitter,
            answering_since_us=turn.answering_since_us or now_us,
        )
        await turns.set_alone(connection, [one.id for one in ids], alone=True)


async def ask_alone(turn: TurnUnderWay) -> Refusal | None:
    """Ask for the ids that make batches fail, each by itself. A refusal is the provider's, not theirs."""
    failed: list[tuple[Asked, Refusal]] = []
    rehabilitated: list[int] = []
    try:
        for one in await turn.waiting(turn.policy.batches_per_turn, alone=True):
            if len(failed) >= turn.policy.alone_per_turn or turn.over:
                break
            refusal = await turn.batch([one])
            if refusal is None:
                rehabilitated.append(one.id)
            elif refusal.may_be_an_ids_fault:
                failed.append((one, refusal))
            else:
                return refusal
    finally:
        if rehabilitated:
            await whole(_set_alone(turn, rehabilitated, alone=False))
    if failed and turn.answers:
        await whole(_set_apart(turn, failed))
    else:
        for one, refusal in failed:
            await whole(turn.put_off(one, f"it fails by itself: {refusal.detail}"))
    return None
