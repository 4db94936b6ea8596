"""A state machine claims and publishes on a database, and plain dictionaries say what is right.

After every step due times, leases, health, the published verdicts as readers see them, the audit
log, the events, the brake and who is down agree with the dictionaries. ROADWORTHY_MACHINE_EXAMPLES=500
makes a longer run of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from validating import publish

from roadworthy.database import Database
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.records import Item
from roadworthy.mapping_api.store import mappings as mapping_rows
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.store.validations import BROUGHT_BACK, TAKEN_OFF
from roadworthy.mapping_api.tables import audit, events
from roadworthy.mapping_api.view import View
from roadworthy.validator.engine import Engine
from roadworthy.validator.outcome import ErrorClass, Figures, Outcome, Result
from roadworthy.validator.publish import BRAKE_OFF, BRAKE_ON, PROVIDER_DOWN, PROVIDER_UP, Finished, Policy
from roadworthy.validator.schedule import SECOND_US, Periods, next_turn_us
from roadworthy.validator.store.due import Bounds, Claim
from roadworthy.validator.suspicion import Doubts
from roadworthy.validator.tables import due, endpoints, health, validator_state

EXAMPLES = int(os.environ.get("ROADWORTHY_MACHINE_EXAMPLES", "0"))
STEPS = 40
START_US = 1_800_000_000 * SECOND_US
PROVIDERS = ("alpha", "beta", "gamma", "delta")
WINDOW_S, CANARY_S, BACK_S, DOUBT_S, LEASE_S, RETEST_S, ROUTINE_S = 600, 120, 60, 900, 100, 3600, 6 * 3600
RUNNING, PER_PROVIDER, DOWN_MAPPINGS = 8, 3, 2
POLICY = Policy(
    periods=Periods(debounce_s=0, doubt_s=DOUBT_S),
    bounds=Bounds(RUNNING, LEASE_S),
    doubts=Doubts(window_s=WINDOW_S, down_mappings=DOWN_MAPPINGS, canary_s=CANARY_S, back_s=BACK_S),
)
FIGURES = Figures(throughput_tokens_per_s=50.0)
OUTCOMES = {
    "works": Outcome(Result.WORKS, figures=FIGURES),
    "degraded": Outcome(Result.DEGRADED, ErrorClass.CONTRACT, "slow", figures=FIGURES),
    "contract": Outcome(Result.FAILS, ErrorClass.CONTRACT, "no stream"),
    "network": Outcome(Result.FAILS, ErrorClass.NETWORK, "refused"),
    "limited": Outcome(Result.FAILS, ErrorClass.RATE_LIMIT, "HTTP 429"),
    "doubt": Outcome(Result.IN_DOUBT, ErrorClass.OURS, "no memory"),
}
EXPECTED = {
    *OUTCOMES,
    *(TAKEN_OFF, BROUGHT_BACK, BRAKE_ON, BRAKE_OFF, PROVIDER_DOWN, PROVIDER_UP),
    *("lost its lease", "removed while running", "stood for", "restored", "bounded"),
}


class ClockedDatabase(Database):
    at_us = START_US

    async def now_us(self, connection: Any) -> int:
        return self.at_us


@dataclass
class One:
    """One mapping, as it should be."""

    provider: str
    due_us: int
    urgency: int = 0
    lease_us: int | None = None
    fence: int = 0
    active: bool = True
    state: str | None = None
    off_us: int = 0
    figures: float | None = None


@dataclass
class World:
    """All that should be in the database."""

    now_us: int = START_US
    ones: dict[str, One] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    runs: list[tuple[int, str, str, str, bool]] = field(default_factory=list)
    braked_us: int | None = None
    down: dict[str, int] = field(default_factory=dict)
    canary: dict[str, int] = field(default_factory=dict)
    actions: list[tuple[str, str]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def say(self, action: str, subject: str) -> None:
        self.actions.append((action, subject))
        self.seen[action] += 1

    def claim(self) -> list[tuple[str, int]]:
        for id in self.fresh:
            self.ones[id].due_us, self.ones[id].urgency = self.now_us, 0
        self.fresh.clear()
        for id in self.gone:
            del self.ones[id]
        self.gone.clear()
        running = Counter(one.provider for one in self.ones.values() if (one.lease_us or 0) > self.now_us)
        room = RUNNING - running.total()
        chosen: list[tuple[str, int]] = []
        waiting = sorted((one.urgency, one.due_us, id) for id, one in self.ones.items() if one.due_us <= self.now_us)
        for _, _, id in waiting:
            one = self.ones[id]
            if (one.lease_us or 0) > self.now_us or self.canary.get(one.provider, 0) > self.now_us:
                continue
            most = 1 if one.provider in self.down else PER_PROVIDER
            if running[one.provider] >= most or len(chosen) >= room:
                self.seen["bounded"] += 1
                continue
            running[one.provider] += 1
            one.fence += 1
            one.lease_us = self.now_us + LEASE_S * SECOND_US
            chosen.append((id, one.fence))
        return chosen

    def publish(self, ended: list[tuple[str, int, str]]) -> None:
        held = [(id, name) for id, fence, name in ended if id in self.ones and self.ones[id].fence == fence]
        self.seen["lost its lease"] += len(ended) - len(held)
        self.seen["removed while running"] += sum(id in self.gone for id, _ in held)
        if not held:
            return
        news = set()
        for id, name in held:
            one = self.ones[id]
            if name in {"contract", "network"} and one.active:
                news.add(id)
            self.runs.append((self.now_us, one.provider, id, name, id in news))
            self.seen[name] += 1
        fell = self._fell() if news or self.braked_us is not None else {}
        if fell:
            self._brake(fell)
        for id, name in held:
            self._apply(id, name)
        for provider in dict.fromkeys(self.ones[id].provider for id, _ in held):
            names = [(id, name) for id, name in held if self.ones[id].provider == provider]
            self._watch(provider, names, fell)

    def _fell(self) -> dict[str, tuple[set[str], set[str], int]]:
        """Of each provider that was asked: what newly failed since its last pass, what of it widely, and that pass."""
        since = self.now_us - max(WINDOW_S, 2 * CANARY_S) * SECOND_US
        began = (self.braked_us or self.now_us) - WINDOW_S * SECOND_US
        found = {}
        for provider in PROVIDERS:
            recent = [run for run in self.runs if run[1] == provider and run[0] > since]
            passes = [run[0] for run in recent if run[3] in {"works", "degraded"}]
            if (not passes and not any(run[4] for run in recent)) or self.down.get(provider, began) < began:
                continue
            last = max(passes, default=0)
            fell = {run[2] for run in recent if run[4] and run[0] > last}
            widely = {run[2] for run in recent if run[4] and run[0] > last and run[3] == "network"}
            found[provider] = (fell, widely, last)
        return found

    def _brake(self, fell: dict[str, tuple[set[str], set[str], int]]) -> None:
        fallen = [provider for provider, (mappings, _, _) in fell.items() if mappings]
        on = len(fell) >= 3 and 2 * len(fallen) > len(fell)
        if on and self.braked_us is None:
            self.braked_us = self.now_us
            self.say(BRAKE_ON, "validator")
            back = []
            for id, one in self.ones.items():
                since = max(self.now_us - WINDOW_S * SECOND_US, fell[one.provider][2] if one.provider in fallen else 0)
                if one.provider in fallen and not one.active and one.off_us > since:
                    back.append((one.off_us, id))
            step_us = CANARY_S * SECOND_US // max(1, len(back))
            for place, (_, id) in enumerate(sorted(back), 1):
                one = self.ones[id]
                one.active, one.state = True, "unknown"
                if id not in self.gone:
                    self.say(BROUGHT_BACK, id)
                self.seen["restored"] += 1
                if one.due_us > self.now_us + place * step_us:
                    one.due_us, one.urgency = self.now_us + place * step_us, 1
        elif not on and self.braked_us is not None:
            since_us, self.braked_us = self.braked_us, None
            self.say(BRAKE_OFF, "validator")
            for provider in [each for each, at_us in self.down.items() if at_us >= since_us]:
                self._up(provider)

    def _apply(self, id: str, name: str) -> None:
        one = self.ones[id]
        was = one.active
        fails = name in {"contract", "network"}
        if name in {"works", "degraded"}:
            one.active, one.state, one.figures = True, {"works": "live"}.get(name, name), 50.0
        elif fails and self.braked_us is None:
            one.active, one.state, one.figures = False, "failing", None
            one.off_us = self.now_us if was else one.off_us
        else:
            one.state = one.state or "unknown"
        self._move(id, was)
        one.lease_us = None
        turn_us = next_turn_us(id, ROUTINE_S, self.now_us)
        soon_s = DOUBT_S if name == "doubt" else CANARY_S if fails and one.active else None
        if soon_s is not None:
            one.due_us, one.urgency = min(turn_us, self.now_us + soon_s * SECOND_US), 1
        elif not one.active or name == "limited":
            one.due_us, one.urgency = self.now_us + RETEST_S * SECOND_US, 1
        else:
            one.due_us, one.urgency = turn_us, 2

    def _move(self, id: str, was: bool) -> None:
        if self.ones[id].active is not was and id not in self.gone:
            self.say(TAKEN_OFF if was else BROUGHT_BACK, id)

    def _watch(
        self, provider: str, names: list[tuple[str, str]], fell: dict[str, tuple[set[str], set[str], int]]
    ) -> None:
        widely = any(name == "network" for _, name in names)
        if provider in self.down:
            since_us = self.down[provider]
            if any(name in {"works", "degraded"} for _, name in names):
                self._up(provider)
                if self.braked_us is None or since_us < self.braked_us:
                    self.say(PROVIDER_UP, provider)
                return
            if widely and self.braked_us is None:
                self._stand(provider)
            self._down(provider)
        elif widely and provider in fell and len(fell[provider][1]) >= DOWN_MAPPINGS:
            if self.braked_us is None:
                self.say(PROVIDER_DOWN, provider)
                self._stand(provider)
            self._down(provider)

    def _stand(self, provider: str) -> None:
        for id, one in self.ones.items():
            if one.provider == provider and one.due_us <= self.now_us and (one.lease_us or 0) <= self.now_us:
                self.seen["stood for"] += 1
                if one.active:
                    one.active, one.state, one.off_us = False, "failing", self.now_us
                    self._move(id, was=True)
                one.due_us, one.urgency = self.now_us + RETEST_S * SECOND_US, 1

    def _down(self, provider: str) -> None:
        self.down.setdefault(provider, self.now_us)
        self.canary[provider] = next_us = self.now_us + CANARY_S * SECOND_US
        idle = [(one.due_us, id) for id, one in self.ones.items() if one.provider == provider and one.lease_us is None]
        if idle:
            first = self.ones[min(idle)[1]]
            first.due_us = min(first.due_us, next_us)

    def _up(self, provider: str) -> None:
        del self.down[provider], self.canary[provider]
        waiting = [
            one
            for one in self.ones.values()
            if one.provider == provider and one.urgency == 1 and one.due_us > self.now_us
        ]
        latest_us = max((one.due_us for one in waiting), default=0) - self.now_us
        if latest_us > BACK_S * SECOND_US:
            for one in waiting:
                one.due_us = self.now_us + (one.due_us - self.now_us) * BACK_S // (latest_us // SECOND_US)


class Machine(RuleBasedStateMachine):
    """Claims, publishes, registers, removes, loses and waits."""

    def __init__(self, url: str, seen: Counter[str]) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = ClockedDatabase(url)
        self.view = View(self.database)
        self.engine = Engine(self.database, POLICY)
        self.world = World(seen=seen)
        self.running: list[Claim] = []
        self.made = 0
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        async with change(self.database, OPERATOR) as opened:
            organisation_id = await organisations.create_organisation(opened, "acme")
            for provider in PROVIDERS:
                await organisations.create_provider(opened, provider, organisation_id)
                await opened.connection.execute(
                    endpoints.insert().values(
                        provider=provider, base_url="http://x", options={}, max_running=PER_PROVIDER, updated_at_us=0
                    )
                )
        for provider in PROVIDERS:
            for _ in range(3):
                await self._register(provider)

    def teardown(self) -> None:
        self.runner.run(self.view.close())
        self.runner.run(self.database.close())
        self.runner.close()

    async def _register(self, provider: str) -> None:
        self.made += 1
        async with change(self.database, OPERATOR) as opened:
            item = Item("conversational", "chat", hf_model=f"acme/model-{self.made}", status="live")
            # The id decides phases and ties: the same in every run, so that a failure can be run again.
            id = hashlib.sha256(str(self.made).encode()).hexdigest()[:24]
            made = replace(mapping_rows.made(opened, provider, item), id=id)
            await mapping_rows.rewrite(opened, provider, added=[made])
        self.world.ones[made.id] = One(provider, self.world.now_us)
        self.world.fresh.add(made.id)

    @rule(provider=st.sampled_from(PROVIDERS))
    def register(self, provider: str) -> None:
        if len(self.world.ones) < 20:
            self.runner.run(self._register(provider))

    @rule(number=st.integers(0, 99))
    def remove(self, number: int) -> None:
        there = sorted(self.world.ones.keys() - self.world.gone - self.world.fresh)
        if number < 40 and there:
            self.runner.run(self._remove(there[number % len(there)]))

    async def _remove(self, id: str) -> None:
        async with change(self.database, OPERATOR) as opened:
            mapping = await mapping_rows.find(opened.connection, self.world.ones[id].provider, id)
            assert mapping is not None
            await mapping_rows.remove(opened, mapping)
        self.world.gone.add(id)

    @rule(seconds=st.sampled_from([1, 20, LEASE_S + 1, CANARY_S, 400, RETEST_S, 3 * RETEST_S]))
    def wait(self, seconds: int) -> None:
        self.world.now_us += seconds * SECOND_US
        self.database.at_us = self.world.now_us

    @rule()
    def claim(self) -> None:
        claims = [claim for claim, _ in self.runner.run(self.engine.claim())]
        assert [(each.mapping_id, each.fence) for each in claims] == self.world.claim()
        self.running += claims

    @rule(
        names=st.lists(st.sampled_from([*OUTCOMES, "network", "network", "works"]), min_size=8, max_size=8),
        count=st.integers(1, 8),
    )
    def publish(self, names: list[str], count: int) -> None:
        self._end(list(zip(self.running, names, strict=False))[:count])

    @rule(name=st.sampled_from(["network", "works", "works", "contract"]), apart=st.sampled_from([None, *PROVIDERS]))
    def publish_alike(self, name: str, apart: str | None) -> None:
        """All that runs ends in one way, but for one provider's runs: an outage, or its end."""
        other = "works" if name != "works" else "network"
        self._end([(each, other if each.provider == apart else name) for each in self.running])

    @rule(
        seconds=st.sampled_from([20, CANARY_S, RETEST_S]),
        names=st.one_of(
            st.sampled_from(["network", "works"]).map(lambda name: [name] * 8),
            st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=8, max_size=8),
        ),
        apart=st.sampled_from([None, *PROVIDERS]),
        gone=st.one_of(st.none(), st.integers(0, 99)),
    )
    def go_on(self, seconds: int, names: list[str], apart: str | None, gone: int | None) -> None:
        """One round of waiting, claiming and publishing: outages are long, and their ends too."""
        self.wait(seconds)
        self.claim()
        there = sorted({claim.mapping_id for claim in self.running} & (self.world.ones.keys() - self.world.gone))
        if gone is not None and there:
            self.runner.run(self._remove(there[gone % len(there)]))
        other = "network" if "works" in names else "works"
        chosen = [names[place % 8] for place in range(len(self.running))]
        self._end(
            [
                (claim, other if claim.provider == apart else name)
                for claim, name in zip(self.running, chosen, strict=True)
            ]
        )

    def _end(self, ended: list[tuple[Claim, str]]) -> None:
        # A mapping whose lease ended may be running twice; the same transaction never publishes both.
        latest = {claim.mapping_id: (claim, name) for claim, name in ended}
        chosen = list(latest.values())
        done = {(claim.mapping_id, claim.fence) for claim, _ in chosen}
        self.running = [each for each in self.running if (each.mapping_id, each.fence) not in done]
        finished = [Finished(claim, OUTCOMES[name]) for claim, name in chosen]
        published = self.runner.run(publish(self.database, POLICY, finished))
        before = self.world.seen["lost its lease"]
        self.world.publish([(claim.mapping_id, claim.fence, name) for claim, name in chosen])
        assert published == len(chosen) - (self.world.seen["lost its lease"] - before)

    @rule(number=st.integers(0, 9))
    def lose(self, number: int) -> None:
        """The process is killed: what ran is forgotten, its leases stay."""
        if number == 0:
            self.running.clear()

    @invariant()
    def all_agrees(self) -> None:
        self.runner.run(self._all_agrees())

    async def _all_agrees(self) -> None:
        world = self.world
        async with self.database.reading() as connection:
            rows = {row.mapping_id: row for row in await connection.execute(sa.select(due))}
            known = {row.mapping_id: row for row in await connection.execute(sa.select(health))}
            told = (
                await connection.execute(
                    sa.select(audit.c.action, audit.c.subject).where(audit.c.actor == "validator").order_by(audit.c.id)
                )
            ).all()
            announced = (await connection.execute(sa.select(events.c.type, events.c.mapping_id))).all()
            braked_us = (await connection.execute(sa.select(validator_state.c.braked_since_us))).scalar_one()
            down = {
                row.provider: (row.down_since_us, row.next_canary_us)
                for row in await connection.execute(sa.select(endpoints))
                if row.down_since_us is not None
            }
        noticed = {id: one for id, one in world.ones.items() if id not in world.fresh}
        assert (braked_us, down) == (
            world.braked_us,
            {provider: (since, world.canary[provider]) for provider, since in world.down.items()},
        )
        assert {
            id: (row.provider, row.due_at_us, row.urgency, row.lease_until_us, row.fence) for id, row in rows.items()
        } == {id: (one.provider, one.due_us, one.urgency, one.lease_us, one.fence) for id, one in noticed.items()}
        assert {id: (known[id].active, known[id].state) for id in noticed if id in known} == {
            id: (one.active, one.state) for id, one in noticed.items() if one.state is not None
        }
        shown = (await self.view.fresh()).validations
        there = {id: one for id, one in world.ones.items() if id not in world.gone}
        assert {id: id not in shown or shown[id].active for id in there} == {
            id: one.active for id, one in there.items()
        }
        assert Counter((row.action, row.subject) for row in told) == Counter(world.actions)
        moves = [each for each in world.actions if each[0] in {TAKEN_OFF, BROUGHT_BACK}]
        assert Counter((row.type, row.mapping_id) for row in announced if row.type in {TAKEN_OFF, BROUGHT_BACK}) == (
            Counter(moves)
        )


@pytest.mark.timeout(0 if EXAMPLES else 600)
def test_publishing_behaves_as_the_dictionaries(fresh_database):
    seen: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: Machine(fresh_database(), seen),
        settings=settings(
            max_examples=EXAMPLES or 30,
            stateful_step_count=STEPS,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            print_blob=True,
            phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert {name for name in EXPECTED if not seen[name]} == set()
