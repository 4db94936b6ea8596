"""A world in simulated time: providers that fail in every way, and the real engine on a real database.

Time is a number that the world moves; the engine's clock, its claims and its publishing are the real
ones, on SQLite. What a provider would answer, and after how long, follows from the seed alone, so
two runs of one plan are the same to the last row.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import logging
import random
import re
import tempfile
import time
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiosqlite
import sqlalchemy as sa
from validating import publish

from roadworthy.database import Database, migrate
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.store import mappings as mapping_rows
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.store.validations import BROUGHT_BACK, TAKEN_OFF
from roadworthy.mapping_api.tables import audit, mappings
from roadworthy.mapping_api.view import View
from roadworthy.validator.engine import Engine
from roadworthy.validator.outcome import ErrorClass, Figures, Outcome, Result
from roadworthy.validator.publish import BRAKE_OFF, BRAKE_ON, PROVIDER_DOWN, PROVIDER_UP, Finished, Policy
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store import providers as provider_rows
from roadworthy.validator.store.due import Bounds, Claim
from roadworthy.validator.tables import due, endpoints, health, validator_state

START_US = 1_800_000_000 * SECOND_US
HOUR_US = 3600 * SECOND_US
REQUESTS_PER_RUN = 12
_COLUMNS = [column.name for column in mappings.c]
LARGEST_SHARE = 7_229 / 50_000
"""Of one provider's mappings in all, as the hub has it."""


@dataclass(frozen=True)
class Span:
    """Some time: `from_h` and `to_h` are hours of the simulation."""

    from_h: float
    to_h: float

    def holds(self, at_us: int) -> bool:
        return self.from_us <= at_us < self.to_us

    def shared_us(self, from_us: int, to_us: int) -> int:
        return max(0, min(to_us, self.to_us) - max(from_us, self.from_us))

    @property
    def from_us(self) -> int:
        return START_US + int(self.from_h * HOUR_US)

    @property
    def to_us(self) -> int:
        return START_US + int(self.to_h * HOUR_US)


@dataclass(frozen=True)
class Plan:
    """What happens. Outages are by the provider's number; number 0 is the largest."""

    mappings: int = 50_000
    providers: int = 60
    hours: float = 48
    tick_s: int = 5
    seed: int = 1
    outages: tuple[tuple[int, Span], ...] = ((0, Span(9, 11)), (3, Span(33, 34)), (40, Span(14, 16)))
    """Number 0 lets every request wait until it is given up; the others refuse at once."""
    ours: Span = Span(20, 20 + 1 / 6)
    """Our own network is gone: everything fails."""
    crash: Span = Span(25, 27)
    slow_providers: tuple[int, ...] = (5, 17)
    dead_share: float = 0.01
    flapping_share: float = 0.005
    limited_share: float = 0.002
    doubtful_share: float = 0.001
    changes_per_hour: int = 24
    running: int = 64
    per_provider: int = 16


class SimulatedDatabase(Database):
    """A database whose clock the world moves. Nothing needs to survive a power cut."""

    at_us = START_US

    def __init__(self, url: str) -> None:
        super().__init__(url)
        sa.event.listen(self._writer.sync_engine, "connect", _quick)
        for engine in (self._reader, self._writer):
            sa.event.listen(engine.sync_engine, "do_connect", _of_any_thread)

    async def now_us(self, connection: Any) -> int:
        return self.at_us


def _quick(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-200000")


def _of_any_thread(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
    parameters["check_same_thread"] = False


@contextmanager
def without_threads() -> Iterator[None]:
    """Ask SQLite in the event loop's own thread: nobody else runs, and the hops would be most of the time."""
    hopping = aiosqlite.Connection._execute

    async def here(_connection: aiosqlite.Connection, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    aiosqlite.Connection._execute = here  # type: ignore[method-assign]
    try:
        yield
    finally:
        aiosqlite.Connection._execute = hopping  # type: ignore[method-assign]


def number(*parts: object) -> float:
    """A number from 0 to 1 that is always the same for the same parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def slug(index: int) -> str:
    return f"provider-{index:02d}"


class World:
    """What the providers would answer."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outages: dict[str, list[Span]] = defaultdict(list)
        for index, span in plan.outages:
            self.outages[slug(index)].append(span)
        self._kinds: dict[str, str] = {}

    def sizes(self) -> list[int]:
        """How many mappings each provider has: one very many, some many, most few."""
        first = round(self.plan.mappings * LARGEST_SHARE)
        weights = [1 / (index + 3) for index in range(self.plan.providers - 1)]
        rest = self.plan.mappings - first - (self.plan.providers - 1)
        sizes = [first, *(1 + int(rest * weight / sum(weights)) for weight in weights)]
        sizes[1] += self.plan.mappings - sum(sizes)
        return sizes

    def kind(self, mapping_id: str) -> str:
        """What is wrong with a mapping of itself."""
        if mapping_id not in self._kinds:
            place, kind = number(self.plan.seed, "kind", mapping_id), "healthy"
            for name in ("dead", "flapping", "limited"):
                share = getattr(self.plan, f"{name}_share")
                if place < share:
                    kind = name
                    break
                place -= share
            self._kinds[mapping_id] = kind
        return self._kinds[mapping_id]

    def down(self, provider: str, at_us: int) -> bool:
        return any(span.holds(at_us) for span in self.outages[provider])

    def answer(self, mapping_id: str, provider: str, at_us: int, *, hurried: bool) -> Outcome:
        """How a run that begins now ends."""
        chance = number(self.plan.seed, mapping_id, at_us)
        if self.plan.ours.holds(at_us):
            return _fails(ErrorClass.NETWORK, 1 + 4 * chance, "the API could not be reached")
        if self.down(provider, at_us):
            if provider == slug(0):
                return _fails(ErrorClass.NETWORK, 10.0 if hurried else 60.0, "no answer came in time")
            return _fails(ErrorClass.PROVIDER_5XX, 0.5 + chance, "the API answered HTTP 503")
        slow = provider in map(slug, self.plan.slow_providers)
        duration_s = 20 + 10 * chance if slow else 1 + 4 * chance
        kind = self.kind(mapping_id)
        if number(self.plan.seed, "doubt", mapping_id, at_us) < self.plan.doubtful_share:
            return Outcome(Result.IN_DOUBT, ErrorClass.OURS, "out of descriptors", duration_s=duration_s)
        hour = at_us // HOUR_US
        if kind == "dead" or (kind == "flapping" and number(self.plan.seed, mapping_id, hour) < 0.5):
            return _fails(ErrorClass.CONTRACT, duration_s, "no stream came")
        if kind == "limited" and chance < 0.5:
            return _fails(ErrorClass.RATE_LIMIT, duration_s, "too many requests, says the API (HTTP 429)")
        figures = Figures(time_to_first_token_s=duration_s / 10, throughput_tokens_per_s=50.0, total_time_s=duration_s)
        result = Result.DEGRADED if chance < 0.01 else Result.WORKS
        return Outcome(result, figures=figures, requests=REQUESTS_PER_RUN, duration_s=duration_s)


def _fails(error_class: ErrorClass, duration_s: float, summary: str) -> Outcome:
    return Outcome(Result.FAILS, error_class, summary, requests=REQUESTS_PER_RUN, duration_s=duration_s)


@dataclass
class Seen:
    """What happened: everything that is asserted and printed comes from here."""

    runs: int = 0
    results: Counter[str] = field(default_factory=Counter)
    lateness_us: list[int] = field(default_factory=list)
    """Of each run that was not put off by the crash or an outage."""
    lateness_after_trouble_us: list[int] = field(default_factory=list)
    starts: Counter[int] = field(default_factory=Counter)
    """Runs begun, by tick."""
    most_running: int = 0
    doubled: list[str] = field(default_factory=list)
    too_long: list[tuple[str, float]] = field(default_factory=list)
    """Mappings that went without a run for longer than allowed, with the seconds above it."""
    longest_gap_us: int = 0
    lines: list[tuple[int, str, str, str]] = field(default_factory=list)
    """Audit lines of the validator: time, action, subject, provider."""
    stood_for: Counter[str] = field(default_factory=Counter)
    overdue_at_end: int = 0
    without_due: int = 0
    disagreeing: int = 0
    """Mappings whose health, published verdict and view are not the same at the end."""
    caught_up_us: int | None = None
    """When nothing was overdue any more after the crash."""
    digest: str = ""
    real_s: float = 0.0

    def of(self, *actions: str) -> list[tuple[int, str, str, str]]:
        return [line for line in self.lines if line[1] in actions]

    def load(self, tick_s: int, plan: Plan) -> list[float]:
        """Runs begun per second in each tick, the crash left out."""
        ticks = range(int(plan.hours * 3600 / tick_s))
        down = plan.crash
        return [self.starts[tick] / tick_s for tick in ticks if not down.holds(START_US + tick * tick_s * SECOND_US)]


def share(values: Sequence[float], of: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(of * len(ordered)))] if ordered else 0.0


class _StoodFor(logging.Handler):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(logging.INFO)
        self._counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        found = re.match(r"(\S+) is down as a whole: one run stood for (\d+)", record.getMessage())
        if found:
            self._counts[found[1]] += int(found[2])


class Simulation:
    """One run of a plan."""

    BOUND_S = 900
    """A mapping may wait so much longer than its period."""

    def __init__(self, plan: Plan, policy: Policy | None = None) -> None:
        self.plan = plan
        self.world = World(plan)
        self.policy = policy or Policy(bounds=Bounds(running=plan.running, lease_s=300))
        self.seen = Seen()
        self._random = random.Random(plan.seed)
        self._digest = hashlib.sha256()
        self._provider_of: dict[str, str] = {}
        self._last_us: dict[str, int] = {}
        self._running: list[tuple[int, int, Claim, Outcome]] = []
        self._under_way: set[str] = set()
        self._made = 0
        self._read_audit = 0

    async def run(self, folder: Path) -> Seen:
        """From the first tick to the last."""
        began_s = time.monotonic()
        url = f"sqlite:///{folder / 'simulation.db'}"
        database = SimulatedDatabase(url)
        migrate(database.url)
        handler = _StoodFor(self.seen.stood_for)
        logger = logging.getLogger("roadworthy.validator.publish")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            await self._populate(database)
            await self._live(database)
            await self._look_back(database)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            await database.close()
        self.seen.digest = self._digest.hexdigest()
        self.seen.real_s = time.monotonic() - began_s
        return self.seen

    async def _populate(self, database: SimulatedDatabase) -> None:
        async with change(database, OPERATOR) as opened:
            organisation_id = await organisations.create_organisation(opened, "hub")
            for index, size in enumerate(self.world.sizes()):
                await organisations.create_provider(opened, slug(index), organisation_id)
                rows = [self._mapping(slug(index), START_US, opened.revision) for _ in range(size)]
                await opened.connection.execute(
                    mappings.insert(), [{name: getattr(row, name) for name in _COLUMNS} for row in rows]
                )
                await opened.connection.execute(
                    endpoints.insert().values(
                        provider=slug(index),
                        base_url="https://api.example",
                        options={},
                        max_running=self.plan.per_provider,
                        updated_at_us=START_US,
                    )
                )
            # As if they had always been there: the engine gives each its due time, spread over the period.
            await opened.connection.execute(validator_state.update().values(seen_revision=opened.revision))

    def _mapping(self, provider: str, now_us: int, revision: int) -> Mapping:
        self._made += 1
        mapping_id = hashlib.sha256(f"{self.plan.seed} {self._made}".encode()).hexdigest()[:24]
        self._provider_of[mapping_id] = provider
        self._last_us[mapping_id] = now_us
        model = f"acme/model-{self._made}"
        return Mapping(
            mapping_id, provider, "conversational", model, model, None, "chat", None, "live", now_us, now_us, revision
        )

    async def _live(self, database: SimulatedDatabase) -> None:
        engine, ticks = Engine(database, self.policy), int(self.plan.hours * 3600 / self.plan.tick_s)
        crashed = False
        next_change_us = START_US + HOUR_US
        for tick in range(ticks):
            now_us = database.at_us = START_US + tick * self.plan.tick_s * SECOND_US
            if now_us >= next_change_us:
                await self._change(database)
                next_change_us += HOUR_US // self.plan.changes_per_hour
            if self.plan.crash.holds(now_us):
                if not crashed:
                    # kill -9: what was under way is lost, its leases stay.
                    self._running.clear()
                    self._under_way.clear()
                    crashed = True
                continue
            if crashed:
                crashed = False
                engine = Engine(database, self.policy)
            await self._publish(database, now_us)
            await self._claim(database, engine, now_us, tick)
            if self.seen.caught_up_us is None and now_us >= self.plan.crash.to_us and tick % 12 == 0:
                await self._look_whether_caught_up(database, now_us)
        database.at_us = START_US + ticks * self.plan.tick_s * SECOND_US

    @property
    def there(self) -> set[str]:
        """The mappings that were not removed."""
        return set(self._provider_of)

    async def _publish(self, database: SimulatedDatabase, now_us: int) -> None:
        ended = []
        while self._running and self._running[0][0] <= now_us:
            _, _, claim, outcome = heapq.heappop(self._running)
            ended.append(Finished(claim, outcome))
            self._under_way.discard(claim.mapping_id)
        if not ended:
            return
        await publish(database, self.policy, ended)
        for each in ended:
            mapping_id = each.claim.mapping_id
            self.seen.runs += 1
            self.seen.results[each.outcome.result] += 1
            self._digest.update(f"{now_us} {mapping_id} {each.outcome.result}\n".encode())
            if mapping_id in self._last_us:
                self._check_gap(mapping_id, self._last_us[mapping_id], now_us)
                self._last_us[mapping_id] = now_us

    def _check_gap(self, mapping_id: str, from_us: int, to_us: int) -> None:
        troubles = [self.plan.crash, self.plan.ours, *self.world.outages[self._provider_of[mapping_id]]]
        excused_us = sum(span.shared_us(from_us, to_us) for span in troubles)
        gap_us = to_us - from_us - excused_us
        self.seen.longest_gap_us = max(self.seen.longest_gap_us, gap_us)
        above_us = gap_us - (self.policy.periods.routine_s + self.BOUND_S) * SECOND_US
        # What a canary stood for waits for an hour again, and then comes back with all the others.
        if any(span.shared_us(from_us, to_us) for span in troubles):
            above_us -= self.policy.periods.retest_s * SECOND_US
        if above_us > 0:
            self.seen.too_long.append((mapping_id, above_us / SECOND_US))

    async def _claim(self, database: SimulatedDatabase, engine: Engine, now_us: int, tick: int) -> None:
        claims = await engine.claim()
        if not claims:
            return
        down: Iterable[str] = ()
        if any(self.world.down(claim.provider, now_us) for claim, _ in claims):
            async with database.reading() as connection:
                down = await provider_rows.which_are_down(connection)
        for claim, _ in claims:
            if claim.mapping_id in self._under_way:
                self.seen.doubled.append(claim.mapping_id)
            self._under_way.add(claim.mapping_id)
            outcome = self.world.answer(claim.mapping_id, claim.provider, now_us, hurried=claim.provider in down)
            end_us = now_us + int(outcome.duration_s * SECOND_US)
            heapq.heappush(self._running, (end_us, self.seen.starts.total(), claim, outcome))
            self.seen.starts[tick] += 1
            lateness_us = now_us - claim.due_at_us
            if self._in_trouble(claim, now_us):
                self.seen.lateness_after_trouble_us.append(lateness_us)
            else:
                self.seen.lateness_us.append(lateness_us)
        self.seen.most_running = max(self.seen.most_running, len(self._running))

    def _in_trouble(self, claim: Claim, now_us: int) -> bool:
        """Whether the run was put off by an outage or the crash, or by the time that makes up for it."""
        troubles = [self.plan.crash, self.plan.ours, *self.world.outages[claim.provider]]
        return any(span.from_us <= now_us < 2 * span.to_us - span.from_us + HOUR_US // 2 for span in troubles)

    async def _look_whether_caught_up(self, database: SimulatedDatabase, now_us: int) -> None:
        query = sa.select(sa.func.count()).where(
            due.c.due_at_us < now_us - 60 * SECOND_US, due.c.lease_until_us.is_(None)
        )
        async with database.reading() as connection:
            if (await connection.execute(query)).scalar_one() == 0:
                self.seen.caught_up_us = now_us

    async def _change(self, database: SimulatedDatabase) -> None:
        """A partner registers a mapping, another removes one, a third changes one."""
        ids = sorted(self._provider_of)
        gone, changed = self._random.sample(ids, 2)
        async with change(database, OPERATOR) as opened:
            provider = self._provider_of[gone]
            new = self._mapping(provider, opened.now_us, opened.revision)
            removed = await mapping_rows.find(opened.connection, provider, gone)
            amended = await mapping_rows.find(opened.connection, self._provider_of[changed], changed)
            assert removed is not None
            assert amended is not None
            await mapping_rows.rewrite(opened, provider, added=[new], removed=[removed])
            other = replace(amended, provider_model=f"{amended.provider_model}+", revision=opened.revision)
            await mapping_rows.rewrite(opened, amended.provider, changed=[(amended, other)])
        del self._provider_of[gone], self._last_us[gone]

    async def _read_the_audit(self, database: SimulatedDatabase) -> None:
        query = (
            sa.select(audit.c.id, audit.c.at_us, audit.c.action, audit.c.subject, audit.c.provider)
            .where(audit.c.id > self._read_audit)
            .order_by(audit.c.id)
        )
        async with database.reading() as connection:
            for row in await connection.execute(query):
                self._read_audit = row.id
                if row.action in {TAKEN_OFF, BROUGHT_BACK, BRAKE_ON, BRAKE_OFF, PROVIDER_DOWN, PROVIDER_UP}:
                    line = (row.at_us, row.action, row.subject, row.provider or "")
                    self.seen.lines.append(line)
                    self._digest.update(repr(line).encode())

    async def _look_back(self, database: SimulatedDatabase) -> None:
        now_us = database.at_us
        await self._read_the_audit(database)
        async with database.reading() as connection:
            rows = (await connection.execute(sa.select(due).order_by(due.c.mapping_id))).all()
            known = {row.mapping_id: row for row in await connection.execute(sa.select(health))}
        overdue_us = now_us - (self.plan.tick_s + 1) * SECOND_US
        self.seen.overdue_at_end = sum(row.due_at_us < overdue_us and row.lease_until_us is None for row in rows)
        self.seen.without_due = len(self._provider_of.keys() ^ {row.mapping_id for row in rows})
        for mapping_id, last_us in self._last_us.items():
            self._check_gap(mapping_id, last_us, now_us)
        off = set()
        for _, action, subject, _ in self.seen.of(TAKEN_OFF, BROUGHT_BACK):
            (off.add if action == TAKEN_OFF else off.discard)(subject)
        view = View(database)
        try:
            shown = await view.fresh()
            for mapping_id in self._provider_of:
                verdict = shown.validations.get(mapping_id)
                states = {
                    mapping_id not in off,
                    verdict is None or verdict.active,
                    mapping_id not in known or bool(known[mapping_id].active),
                }
                self.seen.disagreeing += len(states) > 1
        finally:
            await view.close()
        for row in rows:
            self._digest.update(f"{row.mapping_id} {row.due_at_us} {row.urgency} {row.fence}\n".encode())


def simulate(plan: Plan, policy: Policy | None = None) -> tuple[Simulation, Seen]:
    """Run the plan in a folder of its own."""
    simulation = Simulation(plan, policy)
    with tempfile.TemporaryDirectory(prefix="roadworthy-simulation-") as folder, without_threads():
        return simulation, asyncio.run(simulation.run(Path(folder)))


@dataclass(frozen=True)
class Return:
    """How one trouble went: how many healthy mappings left the list, and when the last of them was back."""

    name: str
    left: int
    strangers: int
    """Healthy mappings that left although nothing was wrong with their provider."""
    back_after_s: float
    still_off: int


def returns(simulation: Simulation) -> list[Return]:
    """How each outage went."""
    plan = simulation.plan
    troubles: list[tuple[str, str | None, Span]] = [
        (f"{slug(index)} down", slug(index), span) for index, span in plan.outages
    ]
    troubles.append(("our own network", None, plan.ours))
    return [_return(simulation, *trouble) for trouble in troubles]


def _return(simulation: Simulation, name: str, provider: str | None, span: Span) -> Return:
    seen, world = simulation.seen, simulation.world
    moves = [line for line in seen.of(TAKEN_OFF, BROUGHT_BACK) if world.kind(line[2]) == "healthy"]
    times = [line[0] for line in moves]
    left: dict[str, int] = {}
    strangers, last_us = 0, span.to_us
    for at_us, action, mapping_id, of in moves[bisect(times, span.from_us - 1) :]:
        if action == TAKEN_OFF and at_us < span.to_us + 120 * SECOND_US:
            if provider is None or of == provider:
                left[mapping_id] = at_us
            elif not world.down(of, at_us):
                strangers += 1
        elif action == BROUGHT_BACK and left.pop(mapping_id, None) is not None:
            last_us = max(last_us, at_us)
    total = sum(
        1
        for at_us, action, _, of in moves
        if action == TAKEN_OFF and span.from_us <= at_us < span.to_us + 120 * SECOND_US and of == (provider or of)
    )
    return Return(name, total, strangers, (last_us - span.to_us) / SECOND_US, len(left.keys() & simulation.there))
