"""The engine: claim what is due, run it, publish what came.

The prober is a function from mapping to outcome, and the clock is the database's, so that the
simulation drives this very engine. A run publishes in one transaction, and only while it holds its
lease: killed at any instant, a run is either published whole or runs again when its lease ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from roadworthy.database import Database
from roadworthy.mapping_api.change import Actor, Change, change
from roadworthy.mapping_api.records import Mapping, Validation
from roadworthy.mapping_api.store import mappings as mapping_rows
from roadworthy.mapping_api.store import validations
from roadworthy.mapping_api.tables import mappings
from roadworthy.validator import health as rules
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.schedule import Periods, next_due_us
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.store import health as health_rows
from roadworthy.validator.store.due import Bounds, Claim

ACTOR = Actor("validator")
DELISTED = "mapping.delisted"
RELISTED = "mapping.relisted"

Prober = Callable[[Mapping], Awaitable[Outcome]]


@dataclass(frozen=True)
class Policy:
    """How often, how many at once, and when a mapping leaves the list."""

    periods: Periods = field(default_factory=Periods)
    bounds: Bounds = field(default_factory=Bounds)
    thresholds: rules.Thresholds = field(default_factory=rules.Thresholds)


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended, not yet published."""

    claim: Claim
    outcome: Outcome


class Engine:
    """Claims, runs and publishes for one process."""

    def __init__(self, database: Database, prober: Prober, policy: Policy | None = None) -> None:
        """`prober` asks a provider about one mapping; what it raises counts as the validator's own fault."""
        self._database = database
        self._prober = prober
        self._policy = policy or Policy()

    async def once(self) -> int:
        """Run everything that is due now, within the bounds, to its end. Returns how many runs were published."""
        claims = await self.claim()
        if not claims:
            return 0
        return await self.publish(await asyncio.gather(*(self._run(each, mapping) for each, mapping in claims)))

    async def claim(self) -> list[tuple[Claim, Mapping]]:
        """Notice what changed, then claim what may begin now."""
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            await due_rows.notice(connection, now_us, self._policy.periods)
            claims = await due_rows.claim(connection, now_us, self._policy.bounds)
            rows = await connection.execute(
                sa.select(mappings).where(mappings.c.id.in_([each.mapping_id for each in claims]))
            )
            known = {row.id: mapping_rows.from_row(row) for row in rows}
        return [(each, known[each.mapping_id]) for each in claims if each.mapping_id in known]

    async def _run(self, claim: Claim, mapping: Mapping) -> Finished:
        try:
            async with asyncio.timeout(self._policy.bounds.lease_s * 0.8):
                return Finished(claim, await self._prober(mapping))
        except Exception as error:  # noqa: BLE001  whatever goes wrong here must not stop the other runs
            said = f"the validator itself failed: {type(error).__name__}: {error}"
            return Finished(claim, Outcome(Result.IN_DOUBT, ErrorClass.OURS, said))

    async def publish(self, finished: Sequence[Finished]) -> int:
        """Publish runs in one transaction; those whose lease was lost are dropped. Returns how many counted."""
        async with change(self._database, ACTOR) as opened:
            known = await health_rows.find(opened.connection, (each.claim.mapping_id for each in finished))
            published = [await self._publish_one(opened, each, known) for each in finished]
        return sum(published)

    async def _publish_one(self, opened: Change, run: Finished, known: dict[str, rules.Health]) -> bool:
        mapping_id, now_us = run.claim.mapping_id, opened.now_us
        before = known.get(mapping_id, rules.Health(since_us=now_us))
        after = rules.after(before, run.outcome, now_us, self._policy.thresholds)
        failing = not after.active or run.outcome.result in {Result.FAILS, Result.IN_DOUBT}
        due_at_us, urgency = next_due_us(mapping_id, failing=failing, periods=self._policy.periods, now_us=now_us)
        if not await due_rows.finish(opened.connection, run.claim, due_at_us, urgency):
            return False
        run_id = await health_rows.record(opened.connection, run.claim, run.outcome, now_us)
        await health_rows.keep(opened.connection, mapping_id, after, now_us)
        if run.outcome.result is not Result.IN_DOUBT:
            await validations.publish(opened, _verdict(mapping_id, after, run.outcome, now_us))
        if after.active != before.active:
            kind = RELISTED if after.active else DELISTED
            told = {"run_id": run_id, "reason": after.reason, "findings": list(run.outcome.findings)}
            await opened.record(kind, mapping_id, provider=run.claim.provider, before=before.state, after=told)
            await opened.announce(kind, run.claim.provider, mapping_id, told)
        return True


def _verdict(mapping_id: str, after: rules.Health, outcome: Outcome, now_us: int) -> Validation:
    figures = outcome.figures
    return Validation(
        mapping_id=mapping_id,
        active=after.active,
        validated_at_us=now_us,
        time_to_first_token_s=figures.time_to_first_token_s,
        throughput_tokens_per_s=figures.throughput_tokens_per_s,
        context_length_tokens=figures.context_length_tokens,
        input_price_nano_usd_per_mtok=figures.input_price_nano_usd_per_mtok,
        output_price_nano_usd_per_mtok=figures.output_price_nano_usd_per_mtok,
        supports_tools=figures.supports_tools,
        supports_structured_output=figures.supports_structured_output,
    )
