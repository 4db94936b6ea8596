"""State machines of processes that die: their lives, their clock, and the moments at which they may be killed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database

EXAMPLES = int(os.environ.get("ROADWORTHY_MACHINE_EXAMPLES", "0"))
START_US = 1_800_000_000_000_000
"""What a machine's clock shows at first."""


@dataclass
class Clock:
    """The database's clock."""

    at_us: int = START_US


class Killed(BaseException):
    """The process is no more. It is no error: nothing may catch it, as nothing catches SIGKILL."""


def _in_haste(connection: Any, _record: Any) -> None:
    """The machine's power never fails: nothing need wait for the disk."""
    cursor = connection.cursor()
    sqlite = "sqlite" in type(connection).__module__
    cursor.execute("PRAGMA synchronous=OFF" if sqlite else "SET synchronous_commit = off")
    if not sqlite:
        connection.commit()
    cursor.close()


class MortalDatabase(Database):
    """The database as one process has it, with the machine's clock. The process dies when its steps are used up."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, pool_size=4)
        self.clock = clock
        self.steps_left: int | None = None
        self.dead = False
        for engine in (self._reader, self._writer):
            event.listen(engine.sync_engine, "connect", _in_haste)
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *_: self.step())

    def step(self) -> None:
        """One moment at which the process may die; and once it is dead, all are."""
        if self.steps_left is not None:
            self.steps_left -= 1
            self.dead = self.dead or self.steps_left < 0
        if self.dead:
            raise Killed

    def reborn(self) -> None:
        """Another process, which knows nothing of the first. Connections stay: their transactions were undone."""
        self.dead, self.steps_left = False, None

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        async with super().writing() as connection:
            yield connection
            self.step()  # what was written is undone: no commit came
        self.step()  # it is there, and the process never knew

    async def now_us(self, connection: AsyncConnection) -> int:
        del connection
        self.step()
        return self.clock.at_us


class MortalMachine(RuleBasedStateMachine):
    """A machine with a clock, a loop, and an office whose database never dies. What is logged as a fault is one.

    Each rule of it ends by looking at the database.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.runner.get_loop().set_exception_handler(self._broke)
        self.clock = Clock()
        self.office = MortalDatabase(url, self.clock)
        self.faults: list[str] = []
        self.log = logging.getLogger("roadworthy.billing")
        self.listener = logging.Handler(logging.ERROR)
        self.listener.emit = self._logged  # type: ignore[method-assign]
        self.log.addHandler(self.listener)

    def teardown(self) -> None:
        self.runner.run(self._end())
        self.runner.run(self.office.close())
        self.runner.close()
        self.log.removeHandler(self.listener)

    async def _end(self) -> None:
        """Bury what lives, and close its databases; the office's is closed afterwards."""
        raise NotImplementedError

    def _logged(self, record: logging.LogRecord) -> None:
        if not record.exc_info or not isinstance(record.exc_info[1], Killed):
            self.faults.append(logging.Formatter().format(record))

    def _broke(self, _loop: Any, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), Killed):
            self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    @invariant()
    def no_faults(self) -> None:
        """Nothing was logged as a fault."""
        assert not self.faults, self.faults


def live(
    machine: Callable[[], RuleBasedStateMachine], seen: Counter[str], expected: Collection[str], examples: int
) -> None:
    """Let a machine live so many lives, or `EXAMPLES`, and more where it came across too little.

    One that only ever meets refusals would show nothing: `seen` must count each of the `expected`.
    """
    for lives in (EXAMPLES,) if EXAMPLES else (examples, 2 * examples):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=lives,
                stateful_step_count=20,
                derandomize=not EXAMPLES,
                deadline=None,
                database=None,
                print_blob=True,
                report_multiple_bugs=False,
                # The default run has a bound on its time; a longer one may look for the shortest failure too.
                phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
        if all(seen[name] for name in expected):
            return
    missed = sorted(name for name in expected if not seen[name])
    raise AssertionError(f"the machine came across too little; it never saw {missed}")
