"""Publishing runs: health, the active list, the brake and the canaries, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.records import Validation
from roadworthy.mapping_api.store import validations
from roadworthy.validator import health as rules
from roadworthy.validator import suspicion
from roadworthy.validator.alerts.kinds import Kind
from roadworthy.validator.alerts.noting import Noted, note, of_mapping
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.schedule import SECOND_US, Periods, Urgency, next_due_us
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.store import health as health_rows
from roadworthy.validator.store import providers
from roadworthy.validator.store.due import Bounds, Claim, NextTurn
from roadworthy.validator.suspicion import Doubts
from roadworthy.validator.tables import due, health

BRAKE_ON = "validator.brake_on"
BRAKE_OFF = "validator.brake_off"
PROVIDER_DOWN = "provider.down"
PROVIDER_UP = "provider.up"

Findings = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Policy:
    """How often, how many at once, when a mapping leaves the list, and when to think twice."""

    periods: Periods = field(default_factory=Periods)
    bounds: Bounds = field(default_factory=Bounds)
    thresholds: rules.Thresholds = field(default_factory=rules.Thresholds)
    doubts: Doubts = field(default_factory=Doubts)


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended, not yet published."""

    claim: Claim
    outcome: Outcome


class Publication:
    """One transaction's worth of runs."""

    def __init__(self, opened: Change, policy: Policy) -> None:
        """`opened` is the transaction; its time is the time of everything published in it."""
        self._opened = opened
        self._connection = opened.connection
        self._now_us = opened.now_us
        self._policy = policy
        self._known: dict[str, rules.Health] = {}
        self._changed: dict[str, rules.Health] = {}
        self._verdicts: dict[str, Validation] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._noted: list[Noted] = []

    async def publish(self, finished: Sequence[Finished]) -> int:
        """Publish the runs that still hold their lease. Returns how many these were."""
        held = await due_rows.still_held(self._connection, [each.claim for each in finished])
        runs = [each for each in finished if each.claim.mapping_id in held]
        self._known = await health_rows.find(self._connection, (each.claim.mapping_id for each in runs))
        await due_rows.finish(self._connection, [self._next_turn(each) for each in runs])
        ended = [health_rows.Ended(each.claim, each.outcome, self._is_news(each)) for each in runs]
        await health_rows.record(self._connection, ended, self._now_us)
        minutes = await providers.last_minutes(self._connection, self._now_us, self._policy.doubts)
        braked = await self._brake(suspicion.brake(minutes, self._policy.doubts))
        for each in runs:
            self._apply(each.claim.mapping_id, each.claim.provider, each.outcome, braked=braked)
        if not braked:
            await self._watch_providers(runs, minutes)
        await health_rows.keep(self._connection, self._changed, self._now_us)
        published = await validations.publish_all(self._opened, list(self._verdicts.values()), self._told)
        gone = {each.mapping_id for each in self._noted} - published - {None}
        await note(self._opened, [each for each in self._noted if each.mapping_id not in gone])
        return len(runs)

    def _before(self, mapping_id: str) -> rules.Health:
        return self._known.get(mapping_id, rules.Health(since_us=self._now_us))

    def _is_news(self, run: Finished) -> bool:
        failed = run.outcome.result is Result.FAILS and run.outcome.error_class is not ErrorClass.RATE_LIMIT
        return failed and self._before(run.claim.mapping_id).active

    def _next_turn(self, run: Finished) -> NextTurn:
        before = self._before(run.claim.mapping_id)
        failing = run.outcome.result in {Result.FAILS, Result.IN_DOUBT} or not before.active
        due_at_us, urgency = next_due_us(
            run.claim.mapping_id, failing=failing, periods=self._policy.periods, now_us=self._now_us
        )
        return NextTurn(run.claim, due_at_us, urgency)

    def _apply(self, mapping_id: str, provider: str, outcome: Outcome, *, braked: bool = False) -> None:
        before = self._before(mapping_id)
        after = rules.after(before, outcome, self._now_us, self._policy.thresholds, braked=braked)
        if outcome.result is not Result.IN_DOUBT:
            self._verdicts[mapping_id] = _verdict(mapping_id, after, outcome, self._now_us)
        self._becomes(mapping_id, provider, before, after, outcome.findings)

    def _becomes(
        self, mapping_id: str, provider: str, before: rules.Health, after: rules.Health, findings: Findings = ()
    ) -> None:
        self._known[mapping_id] = self._changed[mapping_id] = after
        noted = of_mapping(mapping_id, provider, before, after, findings)
        if noted is not None:
            self._noted.append(noted)
        if after.active != before.active:
            self._told[mapping_id] = {
                "was": {"state": before.state, "reason": before.reason},
                "state": after.state,
                "reason": after.reason,
                "findings": list(findings),
            }

    async def _brake(self, pulled: bool) -> bool:
        """Put the brake on or take it off, and say whether it is on.

        Those that left the list in the minutes before it went on come back: the first few fall
        before anybody can know that all are falling.
        """
        since_us = await providers.braked_since(self._connection)
        if pulled and since_us is None:
            await providers.set_brake(self._connection, self._now_us)
            await self._opened.record(
                BRAKE_ON, "validator", after={"reason": "most providers fail in the same minutes"}
            )
            self._noted.append(Noted(Kind.BRAKE_ON, reason="most providers fail in the same minutes"))
            window_us = self._policy.doubts.window_s * SECOND_US
            query = sa.select(health).where(health.c.active.is_(False), health.c.since_us > self._now_us - window_us)
            for row in (await self._connection.execute(query)).all():
                await self._restore(row.mapping_id, health_rows.from_row(row))
        elif not pulled and since_us is not None:
            await providers.set_brake(self._connection, None)
            await self._opened.record(BRAKE_OFF, "validator", before={"since_us": since_us})
            self._noted.append(Noted(Kind.BRAKE_OFF, was_since_us=since_us))
        return pulled

    async def _restore(self, mapping_id: str, before: rules.Health) -> None:
        provider_query = sa.select(due.c.provider).where(due.c.mapping_id == mapping_id)
        provider = (await self._connection.execute(provider_query)).scalar_one_or_none()
        if provider is None:
            return
        restored = replace(
            before,
            active=True,
            state=rules.State.UNKNOWN,
            since_us=self._now_us,
            delisted_at_us=before.delisted_at_us[:-1],
            reason="held: most providers fail in the same minutes, so the validator doubts itself",
        )
        last = await validations.find(self._connection, mapping_id)
        if last is not None:
            self._verdicts[mapping_id] = replace(last, active=True)
        self._becomes(mapping_id, provider, before, restored)

    async def _watch_providers(self, runs: Sequence[Finished], minutes: dict[str, suspicion.Minutes]) -> None:
        down = await providers.which_are_down(self._connection)
        for provider in {each.claim.provider for each in runs}:
            passed = any(_passed(each) for each in runs if each.claim.provider == provider)
            failed = next((each for each in runs if each.claim.provider == provider and not _passed(each)), None)
            if provider in down and passed:
                await providers.set_up(self._connection, provider, self._now_us, self._policy.periods)
                await self._opened.record(PROVIDER_UP, provider, provider=provider)
                self._noted.append(Noted(Kind.UP, provider))
            elif failed is not None and (
                provider in down or (provider in minutes and suspicion.down(minutes[provider], self._policy.doubts))
            ):
                if provider not in down:
                    told = {"reason": failed.outcome.summary}
                    await self._opened.record(PROVIDER_DOWN, provider, provider=provider, after=told)
                    self._noted.append(Noted(Kind.DOWN, provider, reason=failed.outcome.summary))
                await providers.set_down(self._connection, provider, self._now_us, self._policy.doubts)
                await self._stand_for(provider, failed)

    async def _stand_for(self, provider: str, canary: Finished) -> None:
        """What the canary showed goes for all the provider's mappings that wait for their turn."""
        waiting = await providers.waiting(self._connection, provider, self._now_us)
        self._known |= await health_rows.find(self._connection, (mapping_id for mapping_id, _ in waiting))
        said = f"{provider} is down as a whole, as {canary.claim.mapping_id} shows: {canary.outcome.summary}"
        outcome = Outcome(Result.FAILS, canary.outcome.error_class, said)
        for mapping_id, _ in waiting:
            self._apply(mapping_id, provider, outcome)
        later_us = self._now_us + self._policy.periods.retest_s * SECOND_US
        await due_rows.postpone(self._connection, waiting, later_us, Urgency.RETEST)


def _passed(run: Finished) -> bool:
    return run.outcome.result in {Result.WORKS, Result.DEGRADED}


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
