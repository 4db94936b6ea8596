"""A state machine serves, asks, answers, kills and waits, and plain dictionaries say what every request cost.

Two collectors share a database and a clock that jumps. Providers answer when the machine says so, with all that an
answer may hold, and a collector may die before any statement, before and after any commit, and before and after any
question. What dies does nothing more: its transaction is undone, its leases stay. After every step the database is
what the dictionaries say, and the invariants of billing hold; the messages of the assertions give their numbers.
ROADWORTHY_MACHINE_EXAMPLES=500 makes a longer run of it.

1 one charge per provider and request id; 2 posted rows never change; 3 debits equal credits; 4 every id is in exactly
one state; 5 zero is a cost, absent is not; 6 integers end to end; 7 settlement and state in one transaction; 8 only
ids asked of this provider in this batch count; 9 a doubtful cost is disputed, never posted; 10 request ids are unique
per provider alone; 11 ledger and pending are all that was served; 12 schedules go by the database's clock.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa
from costs import reply, served
from hypothesis import strategies as st
from hypothesis.stateful import rule
from mortal import EXAMPLES, START_US, Killed, MortalDatabase, MortalMachine, live
from sqlalchemy.exc import DBAPIError

from roadworthy.billing.collector import Collector
from roadworthy.billing.records import Served
from roadworthy.billing.schedule import LEASE_MOST_S, SECOND_US, Policy
from roadworthy.billing.store import endpoints, usage
from roadworthy.billing.tables import balances, batches, cost_endpoints, disputes, entries
from roadworthy.billing.tables import usage as usage_table
from roadworthy.http.message import Failure, FailureKind, Limits, Reply, Request
from roadworthy.sealing import Sealer

PROVIDERS = ("alpha", "beta")
NAMES = (*(f"r{n}" for n in range(38)), '"é\\ \u2028', "R1")
POLICY = Policy(
    batch_size=5,
    batches_per_turn=3,
    expire_after_s=1800,
    least_asks=3,
    max_cost_nano_usd=2**63 - 1,
    lease_s=120,
    searches=8,
    alone_per_turn=2,
    recheck_ids_per_hour=0,
)
BATCH_OF = [5, 4, 2]
LATEST_US = int(max(POLICY.ask_again_most_s, POLICY.ask_again_s) * 1.2) * SECOND_US
"""An id that a provider left out is asked for again at the latest so long afterwards."""

SECONDS = st.sampled_from([0, 1, 61, 61, 121, 900, 1000, 1900, 2000, 86_400, -100, -86_400])
DICE = st.randoms(use_true_random=True)
"""For what should come evenly: what hypothesis draws comes in clusters."""
DIES_AFTER = st.one_of(st.none(), st.none(), st.integers(0, 40))
POSTED, DOUBTED, AGAIN = "posted", "doubted", "again"


def _one(value: str) -> Callable[[str], list[str]]:
    """An item with this cost, as it stands in JSON."""
    return lambda name: [f'{{"requestId": {name}, "costNanoUsd": {value}}}']


def _all(*values: str) -> Callable[[str], list[str]]:
    return lambda name: [item for value in values for item in _one(value)(name)]


GIANT = "9" * 5000
WORDS: dict[str, tuple[Callable[[str], list[str]], str, int]] = {
    # What a provider may say of an id: the items, what is to come of it, and the cost that is posted.
    "plain": (_one("250"), POSTED, 250),
    "other": (_one("1000000001"), POSTED, 1_000_000_001),
    "zero": (_one("0"), POSTED, 0),
    "most": (_one(str(2**63 - 1)), POSTED, 2**63 - 1),
    "fraction": (_one("41.5"), POSTED, 42),
    "tiny": (_one("1e-30"), POSTED, 1),
    "exponent": (_one("5e3"), POSTED, 5000),
    "as float": (_one("7.0"), POSTED, 7),
    "beyond a float": (_one("9007199254740993.0"), POSTED, 9007199254740993),
    "repeated": (_all("11", "11"), POSTED, 11),
    "valid beside invalid": (_all("-3", "13"), POSTED, 13),
    "conflicting": (_all("17", "18"), DOUBTED, 0),
    "conflicting with zero": (_all("0", "18", "0"), DOUBTED, 0),
    "too large": (_one(str(2**63)), DOUBTED, 0),
    "infinite": (_one("1e400"), DOUBTED, 0),
    "5,000 digits": (_one(GIANT), DOUBTED, 0),
    "left out": (lambda _name: [], AGAIN, 0),
    "negative": (_one("-1"), AGAIN, 0),
    "negative fraction": (_one("-0.1"), AGAIN, 0),
    "negative giant": (_one("-" + GIANT), AGAIN, 0),
    "text": (_one('"5"'), AGAIN, 0),
    "true": (_one("true"), AGAIN, 0),
    "null": (_one("null"), AGAIN, 0),
    "NaN": (_one("NaN"), AGAIN, 0),
    "no cost": (lambda name: [f'{{"requestId": {name}}}'], AGAIN, 0),
    "key twice": (lambda name: [f'{{"requestId": {name}, "costNanoUsd": 1, "costNanoUsd": 2}}'], AGAIN, 0),
}


def _said(dice: random.Random) -> list[str]:
    return dice.choices([*sorted(WORDS), *["left out"] * 16], k=7)


EXTRAS = {
    "nothing more": lambda _others: [],
    "ids of others": lambda others: [item for id in others for item in _one("777")(json.dumps(id))],
    "rubbish": lambda _others: ["5", "null", "[]", '{"requestId": 5, "costNanoUsd": 1}', '{"costNanoUsd": 3}', "{}"],
}


def _failed(kind: FailureKind, status: int | None = None, body: bytes = b"") -> Reply:
    return Reply(status, (), body, failure=Failure(kind, "it broke"))


REFUSALS: dict[str, tuple[Reply, bool]] = {
    # What may come instead of an answer, and whether one of the ids may be to blame.
    "400": (reply({}, 400), True),
    "413": (reply({}, 413), True),
    "500": (reply({}, 500), True),
    "HTML": (reply(b"<html>200</html>"), True),
    "cut off": (_failed(FailureKind.TRUNCATED, 200, b'{"requests": [{"requ'), True),
    "late": (_failed(FailureKind.TOTAL_TIMEOUT), True),
    "no list": (reply({"requests": 5}), True),
    "nested": (reply(b"[" * 100_000), True),
    "401": (reply({}, 401), False),
    "404": (reply({}, 404), False),
    "429": (reply({}, 429, Retry_After="99999999999999"), False),
    "503": (reply({}, 503), False),
    "redirect": (reply({}, 302), False),
    "unreached": (_failed(FailureKind.REFUSED), False),
}
EXPECTED = {
    *(f"said {word}" for word in WORDS),
    *(f"refused {name}" for name in REFUSALS),
    *EXTRAS,
    *("expired", "set apart", "turn lost", "killed at work", "killed in a question", "undone", "done before the kill"),
    *("told again", "told otherwise", "failed requests", "search", "registered anew meanwhile", "tampered", "null"),
}


@dataclass(frozen=True)
class One:
    """One served request, as it should be."""

    told: Served
    state: str
    cost: int | None = None
    asks: int = 0
    first_missing_us: int | None = None
    may_expire: bool = False
    """Whether it was left out for long and often enough; it need not be given up where its provider was silent."""


Key = tuple[str, str]
Ones = dict[Key, One]
Epoch = tuple[int, int]


@dataclass(eq=False)
class Turn:
    """A turn as the provider sees it: what it was asked at which address, and which ids it refused by themselves."""

    provider: str
    epoch: Epoch
    refused_alone: list[Key] = field(default_factory=list)


@dataclass(eq=False)
class Question:
    """A question that waits for its answer."""

    who: int
    task: asyncio.Task[Any]
    url: str
    ids: list[str]
    answer: asyncio.Future[Reply]


class Wire:
    """The transport of one process: questions wait until the machine answers them."""

    def __init__(self, who: int, machine: Machine, database: MortalDatabase) -> None:
        self.who, self.machine, self.database = who, machine, database

    async def send(self, request: Request, limits: Limits) -> Reply:
        del limits
        self.database.step()
        task = asyncio.current_task()
        assert task is not None
        answer = asyncio.get_running_loop().create_future()
        ids = json.loads(request.body or b"")["requestIds"]
        self.machine.arrived.append(Question(self.who, task, request.url, ids, answer))
        if not self.machine.arrival.done():
            self.machine.arrival.set_result(None)
        told = await answer
        self.database.step()
        return told  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Nothing is open."""


class Machine(MortalMachine):
    """Serves, asks, answers, kills and waits."""

    def __init__(self, url: str, seen: Counter[str]) -> None:
        super().__init__(url)
        self.url, self.seen = url, seen
        self.ones: Ones = {}
        self.chosen: Ones = {}
        self.serials = dict.fromkeys(PROVIDERS, 0)
        self.urls: dict[str, str | None] = {}
        self.paused = dict.fromkeys(PROVIDERS, False)
        self.poison: set[Key] = set()
        self.arrived: list[Question] = []
        self.waiting: list[Question] = []
        self.turns: dict[asyncio.Task[Any], Turn] = {}
        self.found: dict[str, list[sa.Row[Any]]] = {}
        self.gateway = MortalDatabase(url, self.clock)
        self.databases = [MortalDatabase(url, self.clock) for _ in range(2)]
        self.collectors = [self._process(who) for who in range(2)]
        for provider in PROVIDERS:
            self.runner.run(self._register(provider))

    async def _end(self) -> None:
        for who in range(2):
            await self._bury(who)
            await self.databases[who].close()
        await self.gateway.close()

    def _process(self, who: int) -> Collector:
        """A collector that has just begun."""
        database = self.databases[who]
        database.reborn()
        return Collector(database, Sealer(None), Wire(who, self, database), POLICY, jitter=random.Random(who))

    # What the machine does. Few rules that do much each: hypothesis leaves some of them out of each example.

    @rule(
        seconds=SECONDS,
        provider=st.sampled_from(PROVIDERS),
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=12),
        other=st.sampled_from([None, None, None, "payer", "model", "served_at_us", "status", "other_units"]),
        who=st.integers(0, 1),
        extra=st.sampled_from(sorted(EXTRAS)),
        dice=DICE,
        dies_after=DIES_AFTER,
    )
    def go_on(
        self,
        *,
        seconds: int,
        provider: str,
        names: list[str],
        other: str | None,
        who: int,
        extra: str,
        dice: random.Random,
        dies_after: int | None,
    ) -> None:
        """Time passes, or the clock is set; requests are served, and a collector has its turn with every provider.

        Requests are told of again, too, some with other contents.
        """
        self.runner.run(self._mend())
        self.clock.at_us += seconds * SECOND_US
        told = [self._served(provider, name, other if place % 2 else None) for place, name in enumerate(names)]
        if told:
            self.runner.run(self._serve(told, dies_after if dies_after is not None and dies_after < 5 else None))
        words = _said(dice)
        refusals = dice.choices([*[None] * 14, *sorted(REFUSALS)], k=3)
        self.runner.run(self._collect(who, words, extra, refusals, dies_after))

    @rule(
        who=st.integers(0, 1),
        first=st.integers(0, len(NAMES) - 1),
        meanwhile=st.sampled_from(["nothing", "the other looks", "the other collects", "register", "remove", "pause"]),
        end=st.sampled_from(["answer", "answer", "answer", "refuse", "kill", "stop"]),
        seconds=SECONDS,
        dice=DICE,
        dies_after=DIES_AFTER,
    )
    def overlap(
        self,
        *,
        who: int,
        first: int,
        meanwhile: str,
        end: str,
        seconds: int,
        dice: random.Random,
        dies_after: int | None,
    ) -> None:
        """A collector asks, and before an answer comes its lease may end, and others may do what they like."""
        self.runner.run(self._mend())
        told = [
            self._served(provider, NAMES[(first + n) % len(NAMES)], None) for provider in PROVIDERS for n in range(4)
        ]
        self.runner.run(self._serve(told, None))
        self.clock.at_us += 61 * SECOND_US
        words, refusal = _said(dice), dice.choice(sorted(REFUSALS))
        self.runner.run(
            self._overlap(
                who, meanwhile=meanwhile, end=end, seconds=seconds, words=words, refusal=refusal, dies_after=dies_after
            )
        )

    async def _overlap(
        self,
        who: int,
        *,
        meanwhile: str,
        end: str,
        seconds: int,
        words: list[str],
        refusal: str,
        dies_after: int | None,
    ) -> None:
        await self._look(who)
        self.clock.at_us += seconds * SECOND_US
        if meanwhile == "the other looks":
            await self._look(1 - who)
        elif meanwhile == "the other collects":
            await self._collect(1 - who, words[::-1], "nothing more", [], None)
        elif meanwhile != "nothing":
            for provider in PROVIDERS:
                await self._manage(provider, meanwhile)
                if meanwhile == "remove":
                    await self._manage(provider, "register")
            await self._look(1 - who)
        if end in {"kill", "stop"}:
            await self._replace(who, kindly=end == "stop")
        for question in [one for one in self.waiting if one.who == who]:
            if question not in self.waiting:
                break
            if end == "refuse":
                await self._refuse(question, refusal, dies_after)
            else:
                await self._answer(question, words, "ids of others", dies_after)
        if meanwhile == "pause":
            for provider in PROVIDERS:
                await self._manage(provider, "resume")

    @rule(
        who=st.integers(0, 1),
        first=st.integers(0, len(NAMES) - 1),
        words=st.lists(st.sampled_from(["left out", "left out", "negative", "plain", "text"]), min_size=7, max_size=7),
        spoilt=st.sampled_from([None, 0, 1, 2]),
        pause_s=st.sampled_from([900, 300, 1850]),
        dies_after=DIES_AFTER,
    )
    def persist(
        self, *, who: int, first: int, words: list[str], spoilt: int | None, pause_s: int, dies_after: int | None
    ) -> None:
        """For half an hour to three a provider leaves ids out, or stumbles over one; a collector may die meanwhile."""
        self.runner.run(self._mend())
        names = [NAMES[(first + n) % len(NAMES)] for n in range(7)]
        for provider in PROVIDERS:
            self.runner.run(self._serve([self._served(provider, name, None) for name in names], None))
            if spoilt is not None:
                self.poison.add((provider, names[spoilt]))
        for number in range(6):
            self.clock.at_us += pause_s * SECOND_US
            self.runner.run(self._collect(who, words, "nothing more", [], dies_after if number == 3 else None))
        self.poison.clear()

    @rule(
        provider=st.sampled_from(PROVIDERS),
        who=st.integers(0, 1),
        what=st.sampled_from(["pause", "resume", "resume", "remove", "register", "register", "poison", "tamper"]),
        number=st.integers(0, len(NAMES) - 1),
        how=st.sampled_from(["update", "delete", "replace"]),
    )
    def manage(self, provider: str, who: int, what: str, number: int, how: str) -> None:
        """An operator changes an endpoint; an id makes all batches with it fail, or no longer; somebody tampers.

        A collector looks at once what there is to do.
        """
        if what == "poison":
            self.poison ^= {(provider, NAMES[number])}
        elif what != "tamper":
            self.runner.run(self._manage(provider, what))
        elif self.found["entries"]:
            self.runner.run(self._tamper(self.found["entries"][number % len(self.found["entries"])], how))
        self.runner.run(self._look(who))

    def _served(self, provider: str, name: str, other: str | None) -> Served:
        number = NAMES.index(name)
        more: dict[str, Any] = {
            "payer": ("org:paying", "user:ann")[number % 2],
            "model": ("owner/chat", "owner/image")[number % 3 == 0],
            "served_at_us": 1_760_000_000_000_000 + (number % 4) * 12 * 3600 * SECOND_US,
            "status": 503 if number % 9 == 7 else 302 if number % 9 == 8 else 200,
        }
        changed = {"payer": "user:eve", "model": "owner/other", "served_at_us": START_US, "status": 404}
        if other is not None:
            more[other] = {"images": 2} if other == "other_units" else changed[other]
        return served(name, provider, **more)

    async def _serve(self, told: Sequence[Served], dies_after: int | None) -> None:
        after, new, conflicts = dict(self.ones), 0, []
        for place, one in enumerate(told):
            known = after.get((one.provider, one.request_id))
            if known is None:
                after[one.provider, one.request_id] = One(one, "pending" if 200 <= one.status < 400 else "unbilled")
                new += 1
            elif known.told != one:
                conflicts.append(place)
        gateway = self.gateway
        gateway.steps_left = dies_after
        try:
            async with gateway.writing() as connection:
                taken = await usage.take_in(connection, told, await gateway.now_us(connection), "test")
            assert (taken.new, taken.conflicts) == (new, tuple(conflicts)), "invariant 10: what is known was misjudged"
        except Killed:
            self.seen["killed at work"] += 1
        gateway.reborn()
        self.seen["told again"] += len(told) - new
        self.seen["told otherwise"] += len(conflicts)
        self.seen["failed requests"] += any(one.state == "unbilled" for one in after.values())
        await self._agree([after] if dies_after is None else [self.ones, after])

    async def _look(self, who: int, dies_after: int | None = None) -> None:
        database = self.databases[who]
        database.steps_left = dies_after
        with suppress(Killed):
            await self.collectors[who].tick()
        await self._quiet()
        await self._after(who, [self.ones])

    async def _collect(
        self, who: int, words: list[str], extra: str, refusals: list[str | None], dies_after: int | None
    ) -> None:
        if dies_after is None or dies_after >= 12:
            await self._look(who)
        else:
            await self._look(who, dies_after)
        self.databases[who].steps_left = dies_after
        database, collector = self.databases[who], self.collectors[who]
        for place in range(24):
            mine = [one for one in self.waiting if one.who == who]
            if not mine or self.collectors[who] is not collector:
                break
            first = place % len(words)
            name = refusals[place] if place < len(refusals) else None
            if name is not None:
                await self._refuse(mine[0], name, database.steps_left)
            else:
                await self._answer(mine[0], words[first:] + words[:first], extra, database.steps_left)
        self.databases[who].steps_left = None

    async def _replace(self, who: int, *, kindly: bool) -> None:
        self.seen["killed in a question"] += not kindly and any(one.who == who for one in self.waiting)
        if kindly:
            await self.collectors[who].stop()
            self.waiting = [one for one in self.waiting if one.who != who]
            await self._quiet()
        await self._bury(who)
        self.collectors[who] = self._process(who)
        await self._agree([self.ones])

    async def _mend(self) -> None:
        """Every provider is registered, and none is paused."""
        for provider in PROVIDERS:
            if self.urls[provider] is None:
                await self._register(provider)
            elif self.paused[provider]:
                await self._manage(provider, "resume")

    async def _manage(self, provider: str, what: str) -> None:
        busy = any(self.turns[one.task].provider == provider for one in self.waiting)
        if what == "register":
            self.seen["registered anew meanwhile"] += busy
            await self._register(provider)
            return
        async with self.office.writing() as connection:
            if what == "remove":
                await endpoints.remove(connection, provider)
            else:
                await endpoints.set_paused(connection, provider, self.clock.at_us if what == "pause" else None)
        if what == "remove":
            self.serials[provider] += 1
            self.urls[provider] = None
            self.paused[provider] = False
        elif self.urls[provider] is not None:
            self.paused[provider] = what == "pause"
        await self._agree([self.ones])

    async def _register(self, provider: str) -> None:
        self.serials[provider] += 1
        url = f"http://{provider}.test/{self.serials[provider]}"
        async with self.office.writing() as connection:
            now_us = await self.office.now_us(connection)
            size = BATCH_OF[self.serials[provider] % len(BATCH_OF)]
            await endpoints.register(connection, Sealer(None), provider, url, now_us, batch_size=size)
        self.urls[provider] = url
        await self._agree([self.ones])

    async def _tamper(self, entry: sa.Row[Any], how: str) -> None:
        mine = entries.c.id == entry.id
        statement: sa.Executable = (
            entries.update().where(mine).values(amount_nano_usd=1) if how == "update" else entries.delete().where(mine)
        )
        if how == "replace":
            statement = entries.insert().values({**entry._asdict(), "amount_nano_usd": 1})
            if self.office.dialect == "sqlite":
                statement = statement.prefix_with("OR REPLACE")
        with pytest.raises(DBAPIError):
            async with self.office.writing() as connection:
                await connection.execute(statement)
        self.seen["tampered"] += 1
        await self._agree([self.ones])

    # How it does it.

    async def _quiet(self) -> None:
        """Wait until every collector is at rest, or waits for an answer."""
        while True:
            asking = {one.task for one in [*self.waiting, *self.arrived] if not one.answer.done()}
            busy = asyncio.all_tasks() - {asyncio.current_task()} - asking
            if not busy:
                break
            self.arrival = asyncio.get_running_loop().create_future()
            done, _ = await asyncio.wait([*busy, self.arrival], timeout=60, return_when=asyncio.FIRST_COMPLETED)
            assert done, f"a collector neither asks nor ends: {busy}"

    @property
    def arrival(self) -> asyncio.Future[None]:
        """Done when a question came in."""
        return self._arrival

    @arrival.setter
    def arrival(self, value: asyncio.Future[None]) -> None:
        self._arrival = value

    async def _bury(self, who: int) -> None:
        """The process does nothing more."""
        self.databases[who].dead = True
        for question in [one for one in [*self.waiting, *self.arrived] if one.who == who]:
            if not question.answer.done():
                question.answer.set_exception(Killed())
        self.waiting = [one for one in self.waiting if one.who != who]
        self.arrived = [one for one in self.arrived if one.who != who]
        await self._quiet()

    async def _after(self, who: int, worlds: list[Ones]) -> None:
        """What must hold after a collector did something; one that died is replaced."""
        database = self.databases[who]
        if database.dead:
            self.seen["killed at work"] += 1
            await self._bury(who)
            self.collectors[who] = self._process(who)
            first = worlds[0]
            await self._agree(worlds)
            self.seen["undone" if self.chosen is first else "done before the kill"] += len(worlds) > 1
            return
        before = {row.provider: row for row in self.found["cost_endpoints"]}
        rows = {(row.provider, row.request_id): row for row in self.found["usage"]}
        await self._agree(worlds[-1:] if len(worlds) < 3 else worlds[2:])
        now = {row.provider: row for row in self.found["cost_endpoints"]}
        for question in self.arrived:
            self._judge(question, before, now, rows)
        self.waiting += self.arrived
        self.arrived.clear()

    def _judge(
        self, question: Question, before: dict[str, Any], now: dict[str, Any], rows: dict[Key, sa.Row[Any]]
    ) -> None:
        """A question must be one that may be asked."""
        turn = self.turns.get(question.task)
        provider = question.url.removeprefix("http://").partition(".")[0]
        if turn is None:
            epoch = (self.serials[provider], now[provider].fence)
            assert all(one.epoch != epoch for one in self.turns.values() if one.provider == provider), (
                "invariant 7: two turns share a fence"
            )
            lease_us = before[provider].lease_until_us
            # A lease of a clock that was set back since is none.
            mine = lease_us is None or not 0 < lease_us - self.clock.at_us <= LEASE_MOST_S * SECOND_US
            assert mine, "two collectors hold one lease"
            assert not self.paused[provider], "a paused provider is asked"
            assert question.url == self.urls[provider], "an address is asked that is not registered"
            turn = self.turns[question.task] = Turn(provider, epoch)
        assert provider == turn.provider
        assert len(question.ids) == len(set(question.ids)), "an id is asked for twice in one question"
        assert 0 < len(question.ids) <= POLICY.batch_size
        for id in question.ids:
            row = rows[provider, id]
            if turn.epoch == self._epoch(provider):
                assert self.ones[provider, id].state == "pending", "invariant 4: what is settled is asked for again"
            assert row.next_ask_us <= self.clock.at_us, "invariant 12: an id is asked for before its time"

    def _epoch(self, provider: str) -> Epoch | None:
        """What turns of the provider must have to be valid."""
        fence = next((row.fence for row in self.found["cost_endpoints"] if row.provider == provider), None)
        return None if fence is None else (self.serials[provider], fence)

    async def _answer(self, question: Question, words: list[str], extra: str, dies_after: int | None) -> None:
        turn = self.turns[question.task]
        if any((turn.provider, id) in self.poison for id in question.ids):
            await self._refuse(question, "400" if len(question.ids) % 2 else "500", dies_after)
            return
        said = dict(zip(question.ids, words * len(question.ids), strict=False))
        items = [item for id, word in said.items() for item in WORDS[word][0](json.dumps(id))]
        others = [id for _, id in self.ones if id not in said] + ["nobody's"]
        items += EXTRAS[extra](others)
        body = f'{{"requests": [{", ".join(items)}]}}' if items else '{"requests": null}'
        self.seen["null"] += not items
        for word in said.values():
            self.seen[f"said {word}"] += 1
        self.seen[extra] += 1
        after = dict(self.ones)
        for id, word in said.items():
            after[turn.provider, id] = self._told(after[turn.provider, id], *WORDS[word][1:])
        await self._reply(question, reply(body.encode()), after, dies_after)

    def _told(self, one: One, what: str, cost: int = 0) -> One:
        """What an answer makes of a request that is pending."""
        asks, now_us = one.asks + 1, self.clock.at_us
        if what == POSTED:
            return replace(one, state="settled", cost=cost, asks=asks)
        if what == DOUBTED:
            return replace(one, state="disputed", asks=asks)
        since_us = now_us if one.first_missing_us is None else min(one.first_missing_us, now_us)
        over = now_us - since_us >= POLICY.expire_after_s * SECOND_US and asks >= POLICY.least_asks
        return replace(one, asks=asks, first_missing_us=since_us, may_expire=over)

    async def _refuse(self, question: Question, name: str, dies_after: int | None) -> None:
        answer, blames = REFUSALS[name]
        self.seen[f"refused {name}"] += 1
        turn = self.turns[question.task]
        if blames and len(question.ids) == 1:
            turn.refused_alone.append((turn.provider, question.ids[0]))
        self.seen["search"] += blames and len(question.ids) > 1
        await self._reply(question, answer, None, dies_after)

    async def _reply(self, question: Question, answer: Reply, after: Ones | None, dies_after: int | None) -> None:
        """Answer; `after` is what comes of it where the turn still stands."""
        turn = self.turns[question.task]
        valid = turn.epoch == self._epoch(turn.provider)
        self.seen["turn lost"] += not valid
        database = self.databases[question.who]
        database.steps_left = dies_after
        self.waiting.remove(question)
        question.answer.set_result(answer)
        await self._quiet()
        if not valid:
            await self._after(question.who, [self.ones])
            return
        done = self.ones if after is None else after
        worlds = [done]
        # An id that fails by itself is set apart when the search has ended, or at once; the turn tells when that is.
        culprits = list(dict.fromkeys(turn.refused_alone))
        worlds += [self._apart(done, some) for some in (culprits, culprits[-1:]) if some]
        if database.dead:
            await self._after(question.who, [self.ones, *worlds])
            return
        await self._after(question.who, [self.ones, self.ones, *worlds])
        if self.chosen is not done:
            self.seen["set apart"] += 1
            turn.refused_alone.clear()

    def _apart(self, ones: Ones, culprits: Sequence[Key]) -> Ones:
        """What it makes of ids that they failed by themselves: the others were answered, and they were not."""
        pending = [key for key in culprits if ones[key].state == "pending"]
        return ones | {key: self._told(ones[key], AGAIN) for key in pending}

    # What must hold.

    async def _agree(self, worlds: list[Ones]) -> None:
        """The database is one of these, and whole."""
        before = self.found.get("entries", [])
        async with self.office.reading() as connection:
            for table in (usage_table, entries, balances, disputes, batches, cost_endpoints):
                query = sa.select(table).order_by(*table.primary_key)
                self.found[table.name] = list((await connection.execute(query)).all())
        self._whole(before)
        rows = {(row.provider, row.request_id): row for row in self.found["usage"]}
        problems = []
        for world in worlds:
            problem = self._unlike(world, rows)
            if problem is None:
                self.chosen = world
                given_up = {key for key, one in world.items() if one.may_expire and rows[key].state == "expired"}
                self.seen["expired"] += len(given_up)
                self.ones = {
                    key: replace(one, state="expired" if key in given_up else one.state, may_expire=False)
                    for key, one in world.items()
                }
                return
            problems.append(problem)
        raise AssertionError("; or ".join(problems))

    def _unlike(self, world: Ones, rows: dict[Key, sa.Row[Any]]) -> str | None:
        """What is otherwise than the dictionary says."""
        if rows.keys() != world.keys():
            return f"invariant 11: served requests are lost or made up: {rows.keys() ^ world.keys()}"
        for key, one in world.items():
            row = rows[key]
            told = Served(**{name: getattr(row, name) for name in Served.__dataclass_fields__})
            if told != one.told:
                return f"invariant 10: {key} is not what was told first: {told}"
            if row.state != one.state and not (one.may_expire and row.state == "expired"):
                number = 9 if one.state == "disputed" else 8 if row.state == "settled" else 4
                number = 12 if row.state == "expired" else number
                if one.cost == 0:
                    number = 5
                return f"invariant {number}: {key} is {row.state} and should be {one.state}"
            if row.cost_nano_usd != one.cost:
                return f"invariant 1: {key} cost {row.cost_nano_usd}, and the provider first said {one.cost}"
            if (row.asks, row.first_missing_us) != (one.asks, one.first_missing_us):
                return f"invariant 12: {key} has {row.asks, row.first_missing_us} of {one.asks, one.first_missing_us}"
        return None

    def _whole(self, before: list[sa.Row[Any]]) -> None:
        """The tables agree with each other."""
        known = {row.id: row for row in self.found["usage"]}
        assert list(self.found["entries"][: len(before)]) == before, "invariant 2: posted rows were changed or removed"
        accounts: Counter[str] = Counter()
        charged: Counter[int] = Counter()
        sums: dict[tuple[str, str, str, int], list[int]] = {}
        for entry in self.found["entries"]:
            row = known[entry.usage_id]
            assert type(entry.amount_nano_usd) is int, "invariant 6: an amount is no integer"
            assert entry.kind == "charge"
            assert (entry.debit_account, entry.credit_account) == (f"payer:{row.payer}", f"provider:{row.provider}"), (
                "invariant 3: an entry moves money between others than payer and provider"
            )
            accounts[entry.debit_account] += entry.amount_nano_usd
            accounts[entry.credit_account] -= entry.amount_nano_usd
            charged[entry.usage_id] += 1
            assert row.state == "settled", f"invariant 7: a charge for what is {row.state}"
            assert entry.amount_nano_usd == row.cost_nano_usd, "invariant 7: charge and cost differ"
            key = (row.payer, row.provider, row.model, row.served_at_us // (24 * 3600 * SECOND_US))
            total = sums.setdefault(key, [0, 0])
            total[0] += 1
            total[1] += entry.amount_nano_usd
        assert sum(accounts.values()) == 0, "invariant 3: debits are not credits"
        assert all(times == 1 for times in charged.values()), "invariant 1: charged twice"
        kept = {
            (row.payer, row.provider, row.model, row.day): [row.requests, row.charged_usd * 10**9 + row.charged_nano]
            for row in self.found["balances"]
        }
        assert kept == sums, "invariant 7: the balances are not the sums of the ledger"
        assert all(0 <= row.charged_nano < 10**9 for row in self.found["balances"]), "invariant 6: balances carry over"
        doubted = {row.usage_id for row in self.found["disputes"] if row.resolved_at_us is None}
        for id, row in known.items():
            assert (row.state == "settled") == (charged[id] == 1), "invariant 4: settled, and no charge"
            assert (row.state == "disputed") == (id in doubted), "invariant 4: disputed, and no dispute"
            assert (row.cost_nano_usd is None) == (row.state != "settled"), "invariant 5: a cost out of nothing"
        assert len(doubted) == len(self.found["disputes"]), "invariant 9: a dispute twice"
        states = Counter((row.provider, row.state) for row in known.values())
        for provider in PROVIDERS:
            billable = sum(row.provider == provider and row.state != "unbilled" for row in known.values())
            posted = sum(count for id, count in charged.items() if known[id].provider == provider)
            rest = sum(states[provider, state] for state in ("pending", "disputed", "expired"))
            assert posted + rest == billable, "invariant 11: ledger and pending are not all that was served"
            noted = [row for row in self.found["batches"] if row.provider == provider]
            assert sum(row.settled for row in noted) == posted, "invariant 7: what was noted is not what was settled"
        for row in known.values():
            latest_us = max(self.latest_us, START_US) + LATEST_US
            assert START_US - 90 * 86_400 * SECOND_US <= row.next_ask_us <= latest_us, (
                "invariant 12: a clock of its own"
            )
            if row.settled_at_us is not None:
                assert row.settled_at_us <= self.latest_us, "invariant 12: a clock of its own"

    @property
    def latest_us(self) -> int:
        """The latest time that the clock ever showed."""
        self._latest_us = max(getattr(self, "_latest_us", 0), self.clock.at_us)
        return self._latest_us


@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_whatever_happens_every_request_costs_what_its_provider_first_said(fresh_database):
    seen: Counter[str] = Counter()
    live(lambda: Machine(fresh_database(), seen), seen, EXPECTED, 20)
