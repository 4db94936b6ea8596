"""A state machine changes what was charged: corrections, disputes and changed costs, two or three at a time.

Requests are settled by a collector that asks again for settled ones, an operator asks for all of them again, people
correct costs and judge disputes, all as processes of their own on one database. Any of them may die before any
statement, around every commit and every question. What comes of it must be what some order of them makes of plain
values, those that died done or not done, and the books must be whole after every step.
ROADWORTHY_MACHINE_EXAMPLES=500 makes a longer run of it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa
from costs import reply, served
from hypothesis import strategies as st
from hypothesis.stateful import rule
from mortal import EXAMPLES, START_US, Killed, MortalDatabase, MortalMachine, live

from roadworthy.billing import verify
from roadworthy.billing.collector import Collector
from roadworthy.billing.recheck import recheck
from roadworthy.billing.records import Served
from roadworthy.billing.schedule import SECOND_US, Policy
from roadworthy.billing.store import corrections, endpoints, usage
from roadworthy.billing.store import disputes as judging
from roadworthy.billing.store.disputes import Choice
from roadworthy.billing.tables import balances, disputes, entries
from roadworthy.billing.tables import usage as usage_table
from roadworthy.errors import UsageError
from roadworthy.http.message import Limits, Reply, Request
from roadworthy.sealing import Sealer

PROVIDERS = ("alpha", "beta")
KEYS = [(provider, f"r{number}") for provider in PROVIDERS for number in range(5)]
DAY_US = 24 * 3600 * SECOND_US
MOST = 2**63 - 1
POLICY = Policy(
    batch_size=4,
    batches_per_turn=50,
    expire_after_s=1e9,
    max_cost_nano_usd=10**12,
    recheck_ids_per_hour=4,
    recheck_within_s=1e9,
)

Key = tuple[str, str]
Word = tuple[int, ...]
"""What a provider says an id costs: nothing, one cost, or two that differ."""

WORDS: list[Word] = [(250,), (251,), (0,), (10**12,), (10**12 + 5,), (), (MOST,), (2**63,), (17, 18), (-1,)]
AMOUNTS = st.sampled_from([0, 1, 250, 251, 10**12 + 5, MOST])
SECONDS = st.sampled_from([0, 1, 3600, 40 * 86_400, -1, -86_400, -40 * 86_400])
DIES_AFTER = st.one_of(st.none(), st.none(), st.integers(0, 30))
DIES_EARLY = st.sampled_from([None, None, None, 2, 6, 9, 10])
"""For what takes few statements."""


@dataclass(frozen=True)
class One:
    """One served request, as it should be. A dispute is its claim, what stood then, and what was chosen if it was."""

    state: str = "pending"
    cost: int | None = None
    entries: tuple[tuple[str, int], ...] = ()
    disputes: tuple[tuple[str, int | None, int | None], ...] = ()

    @property
    def open(self) -> bool:
        return any(chosen is None for _, _, chosen in self.disputes)

    def posted(self, amount: int) -> One:
        """It costs that much from now on."""
        change = amount - (self.cost or 0)
        kind = "charge" if self.cost is None else "correction"
        more = ((kind, change),) if self.cost is None or change else ()
        return replace(self, state="settled", cost=amount, entries=(*self.entries, *more))

    def disputed(self, claim: str) -> One:
        return replace(self, state="disputed", disputes=(*self.disputes, (claim, self.cost, None)))


Result = tuple[One, object]
"""What one operation makes of a request, and what it says of it."""
REFUSED = "refused"


def _claim(word: Word) -> str:
    return " and ".join(map(str, word))


def _doubtful(word: Word) -> bool:
    return len(word) > 1 or any(cost > POLICY.max_cost_nano_usd for cost in word)


def _told(word: Word) -> bool:
    """Whether it says something of a cost."""
    return bool(word) and word != (-1,)


def _asked_again(one: One, word: Word) -> One:
    """What becomes of a settled request when the provider is asked for it again."""
    if one.state != "settled" or not _told(word):
        return one
    claim = _claim(word)
    judged = [
        *(text for text, _, _ in one.disputes),
        *(str(amount) for kind, amount in one.entries if kind == "charge"),
    ]
    return one if claim in judged or claim == str(one.cost) else one.disputed(claim)


@dataclass(frozen=True)
class Correct:
    """A person changes what a request costs."""

    key: Key
    to: int

    def touches(self, key: Key) -> bool:
        return key == self.key

    def results(self, one: One, word: Word, *, alone: bool) -> Iterable[Result]:
        del word, alone
        if one.state != "settled" or one.cost in {None, self.to}:
            return [(one, REFUSED)]
        return [(one.posted(self.to), self.to - (one.cost or 0))]

    async def run(self, database: MortalDatabase, wire: Wire) -> object:
        async with database.writing() as connection:
            id = wire.machine.ids.get(self.key, 10**9)
            now_us = await database.now_us(connection)
            return await corrections.correct(connection, id, self.to, "agreed", "ann", now_us=now_us)


@dataclass(frozen=True)
class Resolve:
    """A person judges a dispute: the request's so-and-so-many-th, which has this number."""

    key: Key
    place: int
    number: int
    choice: Choice
    amount: int | None

    def touches(self, key: Key) -> bool:
        return key == self.key

    def results(self, one: One, word: Word, *, alone: bool) -> Iterable[Result]:
        del word, alone
        amount = self._chosen(one)
        if amount is None:
            return [(one, REFUSED)]
        claim, stood, _ = one.disputes[self.place]
        there = (*one.disputes[: self.place], (claim, stood, amount), *one.disputes[self.place + 1 :])
        return [(replace(one.posted(amount), disputes=there), amount)]

    def _chosen(self, one: One) -> int | None:
        if self.place >= len(one.disputes) or one.disputes[self.place][2] is not None:
            return None
        claim = one.disputes[self.place][0]
        claimed = int(claim) if claim.isdigit() and int(claim) <= MOST else None
        of = {Choice.CLAIMED: claimed, Choice.POSTED: one.cost, Choice.AMOUNT: self.amount, Choice.NOTHING: 0}
        return of[self.choice]

    async def run(self, database: MortalDatabase, wire: Wire) -> object:
        del wire
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            return await judging.resolve(
                connection, self.number, self.choice, "seen", "ben", now_us=now_us, amount_nano_usd=self.amount
            )


@dataclass(frozen=True)
class Recheck:
    """An operator asks a provider again for all that is settled."""

    provider: str

    def touches(self, key: Key) -> bool:
        return key[0] == self.provider

    def results(self, one: One, word: Word, *, alone: bool) -> Iterable[Result]:
        # What changes between its reading and its comparing is left for another time.
        return [(each, None) for each in {_asked_again(one, word), *([] if alone else [one])}]

    async def run(self, database: MortalDatabase, wire: Wire) -> object:
        async with database.reading() as connection:
            at = await endpoints.find(connection, self.provider)
        assert at is not None
        outcome = await recheck(database, Sealer(None), wire, POLICY, at, since_us=0)
        assert outcome.trouble is None
        return None


@dataclass(frozen=True)
class Collect:
    """A collector has its turn with every provider: it settles what is pending, and asks for some of the rest again."""

    seed: int

    def touches(self, key: Key) -> bool:
        del key
        return True

    def results(self, one: One, word: Word, *, alone: bool) -> Iterable[Result]:
        if one.state == "pending":
            after = one.disputed(_claim(word)) if _doubtful(word) else one.posted(word[0]) if _told(word) else one
            # A provider whose ledger somebody else holds just then has its turn another time.
            return [(each, None) for each in {after, *([] if alone else [one])}]
        return [(one, None), (_asked_again(one, word), None)]

    async def run(self, database: MortalDatabase, wire: Wire) -> object:
        collector = Collector(database, Sealer(None), wire, POLICY, jitter=random.Random(self.seed))
        try:
            await collector.tick()
        finally:
            await collector.idle()
        return None


Operation = Correct | Resolve | Recheck | Collect


class Wire:
    """The transport of one process, and the providers behind it."""

    def __init__(self, machine: Machine, database: MortalDatabase, whose: str) -> None:
        self.machine, self.database, self.whose = machine, database, whose

    async def send(self, request: Request, limits: Limits) -> Reply:
        del limits
        self.database.step()
        self.machine.asked.add(self.whose)
        await asyncio.sleep(0)
        provider = request.url.removeprefix("http://").partition(".")[0]
        ids = json.loads(request.body or b"")["requestIds"]
        said = [(id, cost) for id in ids for cost in self.machine.words.get((provider, id), ())]
        self.database.step()
        return reply({"requests": [{"requestId": id, "costNanoUsd": cost} for id, cost in said]})

    async def aclose(self) -> None:
        """Nothing is open."""


class Machine(MortalMachine):
    """Serves, collects, asks again, corrects, judges and kills."""

    def __init__(self, url: str, seen: Counter[str]) -> None:
        super().__init__(url)
        self.seen = seen
        self.latest_us = self.earliest_us = START_US
        self.asked: set[str] = set()
        """Who has asked a provider, of those that were at work together last."""
        self.processes = [MortalDatabase(url, self.clock) for _ in range(3)]
        self.ones: dict[Key, One] = {}
        self.told: dict[Key, Served] = {}
        self.words: dict[Key, Word] = {}
        self.ids: dict[Key, int] = {}
        self.numbers: list[tuple[Key, int, int]] = []
        """Every dispute: whose, the so-and-so-many-th of it, and its number."""
        self.posted: list[Any] = []
        self.runner.run(self._register())

    async def _end(self) -> None:
        for database in self.processes:
            await database.close()

    async def _register(self) -> None:
        async with self.office.writing() as connection:
            for provider in PROVIDERS:
                url = f"http://{provider}.test/"
                await endpoints.register(connection, Sealer(None), provider, url, START_US, batch_size=4)

    # What the machine does.

    @rule(
        keys=st.lists(st.sampled_from(KEYS), min_size=3, max_size=8, unique=True),
        words=st.lists(st.sampled_from(WORDS), min_size=8, max_size=8),
        later=st.lists(st.sampled_from(WORDS), min_size=3, max_size=8),
        provider=st.sampled_from(PROVIDERS),
        dies_after=st.lists(DIES_AFTER, min_size=2, max_size=2),
    )
    def go_on(
        self, keys: list[Key], words: list[Word], later: list[Word], provider: str, dies_after: list[int | None]
    ) -> None:
        """Requests are served and collected; then the providers say something else of all ids, and are asked again."""
        self.runner.run(self._serve([key for key in keys if key not in self.ones]))
        self.words |= dict(zip(keys, words, strict=False))
        self._together([Collect(len(words))], dies_after[:1])
        self._say(later)
        self._together([Recheck(provider) if len(later) % 2 else Collect(len(later))], dies_after[1:])

    @rule(
        number=st.integers(0, 1000),
        choice=st.sampled_from(Choice),
        amounts=st.lists(AMOUNTS, min_size=3, max_size=4),
        seconds=SECONDS,
        dies_after=DIES_EARLY,
    )
    def judge(self, number: int, choice: Choice, amounts: list[int], seconds: int, dies_after: int | None) -> None:
        """A person judges any dispute, and those that are open; then changes his mind, also about what is not there."""
        self.clock.at_us += seconds * SECOND_US
        chosen: list[Operation | None] = [
            self._resolve(number + place, each, amounts[0], open=is_open)
            for is_open in (True, False)
            for place, each in enumerate([choice, *Choice])
        ]
        keys = [*self.ones, ("alpha", "nobody's")]
        for place, amount in enumerate(amounts):
            chosen.append(Correct(keys[(number + place // 2) % len(keys)], amount))
        for operation in chosen:
            self._until_done(operation, dies_after)

    def _until_done(self, operation: Operation | None, dies_after: int | None) -> None:
        """Whoever died tries again, and comes one step further each time."""
        while operation is not None:
            self._together([operation], [dies_after])
            if dies_after is None or not self.processes[0].dead:
                break
            dies_after += 1

    @rule(
        words=st.lists(st.sampled_from(WORDS), min_size=3, max_size=8),
        number=st.integers(0, 1000),
        same=st.booleans(),
        kinds=st.permutations(["correct", "resolve", "recheck", "collect", "correct"]).map(lambda some: some[:3]),
        amounts=st.lists(AMOUNTS, min_size=3, max_size=3),
        choices=st.lists(st.sampled_from(Choice), min_size=3, max_size=3),
        dies_after=st.lists(DIES_AFTER, min_size=3, max_size=3),
    )
    def at_once(
        self,
        *,
        words: list[Word],
        number: int,
        same: bool,
        kinds: list[str],
        amounts: list[int],
        choices: list[Choice],
        dies_after: list[int | None],
    ) -> None:
        """Several do something at once, on one request or on several."""
        self._say(words)
        made: list[Operation] = []
        settled = [key for key in KEYS if key in self.ones and self.ones[key].state == "settled"] or KEYS
        for place, kind in enumerate(kinds):
            at = number + (0 if same else place)
            if kind == "correct":
                made.append(Correct(settled[at % len(settled)], amounts[place]))
            elif kind == "recheck":
                made.append(Recheck(settled[number % len(settled)][0]))
            elif kind == "resolve":
                resolve = self._resolve(at, choices[place], amounts[place])
                made += [] if resolve is None else [resolve]
            else:
                fresh = (PROVIDERS[number % 2], f"fresh{len(self.ones)}")  # else it may have nothing to ask for
                self.words[fresh] = words[0]
                self.runner.run(self._serve([fresh]))
                made.append(Collect(number))
        self._together(made, dies_after)
        worked = {type(one).__name__ for one in made if isinstance(one, Correct | Resolve)} | self.asked
        for pair in itertools.combinations(sorted(worked), 2):
            self.seen[" beside ".join(pair)] += 1

    def _say(self, words: Sequence[Word]) -> None:
        for place, key in enumerate(KEYS):
            self.words[key] = words[place % len(words)]

    def _resolve(self, number: int, choice: Choice, amount: int, *, open: bool = True) -> Resolve | None:
        there = [one for one in self.numbers if not open or self.ones[one[0]].disputes[one[1]][2] is None]
        if not there:
            return None
        key, place, id = there[number % len(there)]
        return Resolve(key, place, id, choice, amount if choice is Choice.AMOUNT else None)

    async def _serve(self, keys: Sequence[Key]) -> None:
        for provider, name in keys:
            number = len(self.told)
            self.told[provider, name] = served(
                name,
                provider,
                payer=("org:paying", "user:ann")[number % 2],
                model=("owner/chat", "owner/image")[number % 3 == 0],
                served_at_us=START_US - number % 4 * DAY_US,
            )
        async with self.office.writing() as connection:
            await usage.take_in(connection, [self.told[key] for key in keys], self.clock.at_us, "test")
        self.ones |= {key: One() for key in keys}
        await self._agree([], [])

    # How it does it, and what must come of it.

    def _together(self, operations: Sequence[Operation], dies_after: Sequence[int | None]) -> None:
        if any(isinstance(one, Collect) for one in operations):
            # Leases of those that died are over, and every id is due.
            self.latest_us = self.clock.at_us = max(self.latest_us, self.clock.at_us) + 2 * 3600 * SECOND_US
        self.latest_us = max(self.latest_us, self.clock.at_us)
        self.earliest_us = min(self.earliest_us, self.clock.at_us)
        self.asked.clear()
        self.runner.run(self._run(operations, dies_after))

    async def _run(self, operations: Sequence[Operation], dies_after: Sequence[int | None]) -> None:
        for database, steps in zip(self.processes, dies_after, strict=False):
            database.reborn()
            database.steps_left = steps
        outcomes = await asyncio.gather(
            *(self._one(*each) for each in zip(operations, self.processes, strict=False)),
        )
        await self._agree(operations, outcomes)

    async def _one(self, operation: Operation, database: MortalDatabase) -> object:
        """What it says; `Killed` where it died before it could."""
        said: object = Killed
        with suppress(Killed):
            try:
                said = await operation.run(database, Wire(self, database, type(operation).__name__))
            except UsageError:
                said = REFUSED
        return Killed if database.dead else said

    async def _agree(self, operations: Sequence[Operation], outcomes: Sequence[object]) -> None:
        found = await self._look()
        assert found.keys() == self.ones.keys()
        for one, said in zip(operations, outcomes, strict=True):
            assert not isinstance(one, Correct) or one.key in found or said in {REFUSED, Killed}, (
                "nothing was corrected"
            )
        for key, actual in found.items():
            before, word = self.ones[key], self.words.get(key, ())
            mine = [(one, said) for one, said in zip(operations, outcomes, strict=True) if one.touches(key)]
            possible = _possible(before, word, mine, alone=len(operations) == 1)
            assert actual in possible, f"{key}: {before}, told {word}, became {actual} by {mine}; not one of {possible}"
            if len(mine) == 1:
                self._saw(before, actual, *mine[0])
        self.ones = found
        async with self.office.reading() as connection:
            books = verify.Books()
            assert [problem async for problem in verify.problems(connection, books)] == []

    def _saw(self, before: One, actual: One, operation: Operation, said: object) -> None:
        name = type(operation).__name__
        if said is Killed:
            self.seen[f"{name} killed, {'undone' if actual == before else 'done'}"] += 1
        elif isinstance(operation, Resolve):
            self.seen[f"{name} {operation.choice} {'refused' if said == REFUSED else 'done'}"] += 1
        elif isinstance(operation, Correct):
            way = "refused" if said == REFUSED else "up" if isinstance(said, int) and said > 0 else "down"
            self.seen[f"{name} {way} {before.state}"] += 1
        elif actual.open and not before.open:
            self.seen[f"{name} disputed what was {before.state}"] += 1

    async def _look(self) -> dict[Key, One]:
        """The requests as the database has them, and whether all of it fits together."""
        async with self.office.reading() as connection:
            kept, posted, doubts, sums = [
                list((await connection.execute(sa.select(table).order_by(*table.primary_key))).all())
                for table in (usage_table, entries, disputes, balances)
            ]
        assert posted[: len(self.posted)] == self.posted, "posted rows were changed or removed"
        self.posted = posted
        times = [entry.posted_at_us for entry in posted]
        assert times == sorted(times), "an entry was posted before one that was there already"
        assert not times or self.earliest_us <= times[0] <= times[-1] <= self.latest_us, "a clock of its own"
        self.ids = {(row.provider, row.request_id): row.id for row in kept}
        of_id = {row.id: (row.provider, row.request_id) for row in kept}
        moved: dict[Key, list[tuple[str, int]]] = {key: [] for key in self.ids}
        total: dict[tuple[str, str, str, int], list[int]] = {}
        for entry in posted:
            key = of_id[entry.usage_id]
            told = self.told[key]
            sides = (f"payer:{told.payer}", f"provider:{told.provider}")
            up = (entry.debit_account, entry.credit_account) == sides
            assert up or (entry.credit_account, entry.debit_account) == sides
            moved[key].append((entry.kind, entry.amount_nano_usd if up else -entry.amount_nano_usd))
            assert (entry.kind == "charge") == (len(moved[key]) == 1)
            kinds = total.setdefault((told.payer, told.provider, told.model, told.served_at_us // DAY_US), [0, 0, 0])
            kinds[0] += entry.kind == "charge"
            kinds[1 if up else 2] += entry.amount_nano_usd
        of_key: dict[Key, list[tuple[str, int | None, int | None]]] = {key: [] for key in self.ids}
        self.numbers = []
        for row in doubts:
            key = of_id[row.usage_id]
            self.numbers.append((key, len(of_key[key]), row.id))
            of_key[key].append((row.claimed, row.posted_nano_usd, row.resolved_nano_usd))
        whole = [(tuple(row)[:4], [row.requests, _nano(row, "charged"), _nano(row, "credited")]) for row in sums]
        assert dict(whole) == total, "the balances are not the sums of the ledger"
        return {
            (row.provider, row.request_id): One(
                row.state,
                row.cost_nano_usd,
                tuple(moved[row.provider, row.request_id]),
                tuple(of_key[row.provider, row.request_id]),
            )
            for row in kept
        }


def _nano(row: Any, kind: str) -> int:
    return int(getattr(row, f"{kind}_usd") * 10**9 + getattr(row, f"{kind}_nano"))


def _possible(one: One, word: Word, operations: Sequence[tuple[Operation, object]], *, alone: bool) -> set[One]:
    """What may come of it: some order of all that lived, with what they said, and of any of those that died."""
    died = [one for one, said in operations if said is Killed]
    lived = [(one, said) for one, said in operations if said is not Killed]
    possible = set()
    for count in range(len(died) + 1):
        for some in itertools.combinations(died, count):
            for order in itertools.permutations([*lived, *((one, Killed) for one in some)]):
                possible |= _after(one, word, order, alone=alone)
    return possible


def _after(one: One, word: Word, order: Sequence[tuple[Operation, object]], *, alone: bool) -> set[One]:
    worlds = {one}
    for operation, said in order:
        worlds = {
            after
            for before in worlds
            for after, says in operation.results(before, word, alone=alone)
            if said is Killed or says == said
        }
    return worlds


EXPECTED = {
    *(f"Resolve {choice} done" for choice in Choice),
    *(f"Resolve {choice} refused" for choice in Choice),
    "Correct up settled",
    "Correct down settled",
    "Correct refused settled",
    "Correct refused disputed",
    "Correct refused pending",
    *(f"{name} disputed what was settled" for name in ("Recheck", "Collect")),
    "Collect disputed what was pending",
    *(f"{name} killed, undone" for name in ("Recheck", "Collect", "Resolve", "Correct")),
    *(f"{name} killed, done" for name in ("Resolve", "Correct")),
    "Correct beside Resolve",
    "Correct beside Recheck",
    "Recheck beside Resolve",
    "Collect beside Correct",
    "Collect beside Resolve",
    "Collect beside Recheck",
}


@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_in_whatever_order_costs_are_changed_the_books_are_whole(fresh_database):
    seen: Counter[str] = Counter()
    live(lambda: Machine(fresh_database(), seen), seen, EXPECTED, 20)
