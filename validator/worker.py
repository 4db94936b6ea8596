"""The worker: claims what is due as there is room, runs it, and publishes what ended, by and by.

Each run is a task of its own, so that a slow one delays nobody. What has ended within a tenth of a
second is published in one transaction. While the database is away, runs that ended wait for as long
as their leases last; after that they run again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.conformance.usage import Use
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.mapping_api.change import change
from roadworthy.mapping_api.records import Mapping
from roadworthy.ticks import STOP_WITHIN_S, Looking, end
from roadworthy.validator.engine import ACTOR, Engine, Prober
from roadworthy.validator.outcome import ErrorClass, Figures, Outcome, Result
from roadworthy.validator.publish import Finished, Policy, Publication
from roadworthy.validator.recordings import capped
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.store.due import Claim

GROUP_S = 0.1
"""How long a run that ended waits for others, to be published with them."""
MAX_GROUP = 500
"""Runs published in one transaction: more would make other writers wait."""
RETRY_S = 0.5
"""How long after the database failed it is tried again."""
SPARE_S = 60
"""How much longer than its run may take a lease lasts: time to publish, even after a short lapse of the database."""

Published = Callable[[Sequence[Finished], float], None]
Noted = Callable[[AsyncConnection, int, Sequence[tuple[Mapping, Sequence[Use]]]], Awaitable[None]]
"""Takes what runs used, by mapping, in the transaction that publishes them and at its time."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A run that ended, and until when, by the loop's clock, its lease surely lasts."""

    claim: Claim
    mapping: Mapping
    outcome: Outcome
    until: float


class Worker:
    """The runs of one process."""

    def __init__(
        self,
        database: Database,
        prober: Prober,
        policy: Policy,
        *,
        run_timeout_s: float,
        recording_max_bytes: int,
        published: Published | None = None,
        noted: Noted | None = None,
    ) -> None:
        """`published` is called after each transaction that published something, with what and in how many seconds.

        `noted` is called within it, with what all its runs used, those that do not count included.
        """
        self._database = database
        self._engine = Engine(database, policy)
        self._prober = prober
        self._policy = policy
        self._run_timeout_s = run_timeout_s
        self._recording_max_bytes = recording_max_bytes
        self._published = published
        self._noted = noted
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._ended: list[_Ended] = []
        self._looking = Looking("claiming what is due", self._look)
        self._publishing: asyncio.Task[None] | None = None
        self._stopping = False
        self._away = False
        self.only: Collection[str] | None = None
        """The mappings that are wanted; None is all."""

    def wake(self) -> None:
        """Look for what may begin now, without waiting for the next tick. Wakes that come at once share one look."""
        self._looking.wake()

    async def tick(self) -> None:
        """Begin what may begin now; the runs go on after it returns."""
        await self._looking.tick()

    async def idle(self) -> None:
        """Wait until nothing runs and nothing waits to be published."""
        while under_way := self._under_way():
            await asyncio.wait(under_way)

    async def stop(self) -> None:
        """Begin nothing more, publish what has ended, and give the leases of what runs back at once."""
        self._stopping = True
        self._looking.stop()
        if looking := self._looking.under_way:
            await asyncio.wait(looking, timeout=STOP_WITHIN_S)
        for task in self._running:
            task.cancel()
        abandoned = list(self._running.values())
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_WITHIN_S)
        await end(self._under_way())
        try:
            async with asyncio.timeout(STOP_WITHIN_S), self._database.writing() as connection:
                await due_rows.give_back(connection, [*abandoned, *(each.claim for each in self._ended)])
        except (DatabaseUnavailableError, TimeoutError) as error:
            _log.warning("runs that were given up wait until their leases end: %s", error)

    def _under_way(self) -> list[asyncio.Task[None]]:
        publishing = [] if self._publishing is None else [self._publishing]
        return [task for task in (*self._looking.under_way, *self._running, *publishing) if not task.done()]

    async def _look(self) -> None:
        begun = asyncio.get_running_loop().time()
        try:
            claims = await self._engine.claim(only=self.only)
        except DatabaseUnavailableError as error:
            self._note_away(error)
            return
        self._away = False
        for claim, mapping in claims:
            task = asyncio.create_task(self._run(claim, mapping, begun + self._policy.bounds.lease_s))
            self._running[task] = claim
            task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)

    def _note_away(self, error: Exception) -> None:
        if not self._away:  # said once, not twice a second
            _log.warning("validation waits for the database: %s", error)
        self._away = True

    async def _run(self, claim: Claim, mapping: Mapping, until: float) -> None:
        outcome = await self._outcome(mapping)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return  # a run that was given up tells of the part that was asked, which is no verdict
        self._ended.append(_Ended(claim, mapping, outcome, until))
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish_all())

    async def _outcome(self, mapping: Mapping) -> Outcome:
        try:
            async with asyncio.timeout(self._run_timeout_s) as limit:
                outcome = await self._prober(mapping)
            outcome = await asyncio.to_thread(fit, outcome, self._recording_max_bytes)
        except Exception as error:  # noqa: BLE001  whatever goes wrong here must not stop the other runs
            if limit.expired():
                return self._late(Outcome(Result.IN_DOUBT))
            _log.warning("validating %s of %s failed", mapping.id, mapping.provider, exc_info=True)
            said = f"the validator itself failed: {type(error).__name__}: {error}"
            return Outcome(Result.IN_DOUBT, ErrorClass.OURS, said)
        return self._late(outcome) if limit.expired() else outcome

    def _late(self, outcome: Outcome) -> Outcome:
        """What was seen until the time was over counts if it fails; a provider that passes is in time."""
        if outcome.result is Result.FAILS:
            return outcome
        said = f"it did not answer everything within {self._run_timeout_s:g} s"
        return replace(outcome, result=Result.FAILS, error_class=ErrorClass.CONTRACT, summary=said)

    async def _publish_all(self) -> None:
        while self._ended:
            await asyncio.sleep(GROUP_S)
            group, self._ended = self._ended[:MAX_GROUP], self._ended[MAX_GROUP:]
            try:
                await self._publish(group)
            except DatabaseUnavailableError as error:
                self._note_away(error)
                await self._wait_for_the_database(group)
            except asyncio.CancelledError:
                self._ended = group + self._ended
                raise
            except Exception:  # noqa: BLE001  one run that cannot be stored must not hold the others
                _log.exception("publishing %d runs together failed; each is tried alone", len(group))
                for each in group:
                    await self._publish_alone(each)
            self.wake()

    async def _publish(self, group: Sequence[_Ended]) -> None:
        used = [(each.mapping, each.outcome.uses) for each in group if each.outcome.uses]
        # A run whose lease ended may wait here beside the one that was begun in its place.
        newest = {each.claim.mapping_id: each for each in sorted(group, key=lambda each: each.claim.fence)}
        group = list(newest.values())
        began_s = time.monotonic()
        async with change(self._database, ACTOR) as opened:
            gone = await due_rows.outdated(opened.connection, [(each.claim, each.mapping) for each in group])
            await due_rows.give_back(opened.connection, [each.claim for each in group if each.claim.mapping_id in gone])
            counted = [Finished(each.claim, each.outcome) for each in group if each.claim.mapping_id not in gone]
            published = await Publication(opened, self._policy).publish(counted)
            if self._noted is not None and used:
                await self._noted(opened.connection, opened.now_us, used)
        self._away = False
        if published < len(group):
            _log.info("%d runs did not count: their lease was lost, or their mapping changed", len(group) - published)
        if self._published is not None:
            self._published(counted, time.monotonic() - began_s)

    async def _wait_for_the_database(self, group: Sequence[_Ended]) -> None:
        now = asyncio.get_running_loop().time()
        waiting = [each for each in group if each.until > now]
        if len(waiting) < len(group):
            _log.warning("%d runs could not be published while their leases lasted", len(group) - len(waiting))
        self._ended = waiting + self._ended
        if not self._stopping:
            await asyncio.sleep(RETRY_S)

    async def _publish_alone(self, ended: _Ended) -> None:
        """One run that no other may suffer for; if it cannot be stored as it is, then without its details."""
        bare = replace(ended.outcome, findings=(), figures=Figures(), recording=None)
        for outcome in (ended.outcome, bare):
            try:
                await self._publish([replace(ended, outcome=outcome)])
            except DatabaseUnavailableError:
                self._ended.append(ended)
                return
            except Exception:  # noqa: BLE001  logged whole; the lease ends, and the mapping runs again
                _log.exception("publishing a run of %s failed", ended.claim.mapping_id)
            else:
                return


def fit(outcome: Outcome, recording_max_bytes: int) -> Outcome:
    """The outcome as databases take it: text without NUL and lone surrogates, and a recording of bounded size."""
    findings = json.loads(_storable(json.dumps(outcome.findings, ensure_ascii=False)).replace("\\u0000", "\\ufffd"))
    recording = None if outcome.recording is None else capped(outcome.recording, recording_max_bytes)
    return replace(outcome, summary=_storable(outcome.summary), findings=tuple(findings), recording=recording)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
