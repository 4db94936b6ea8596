"""Publishing runs: health, the active list, the brake and the canaries, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.records import Validation
from roadworthy.mapping_api.store import validations
from roadworthy.validator import health as rules
from roadworthy.validator import suspicion
from roadworthy.validator.alerts.kinds import Kind
from roadworthy.validator.alerts.noting import Noted, note, of_mapping
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.schedule import SECOND_US, Periods, Urgency, again_us, next_due_us
from roadworthy.validator.store import due as due_rows
from roadworthy.validator.store import health as health_rows
from roadworthy.validator.store import providers
from roadworthy.validator.store.due import Bounds, Claim, NextTurn
from roadworthy.validator.suspicion import Doubts, Minutes

BRAKE_ON = "validator.brake_on"
BRAKE_OFF = "validator.brake_off"
PROVIDER_DOWN = "provider.down"
PROVIDER_UP = "provider.up"

_log = logging.getLogger(__name__)

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
        self._braked_since_us: int | None = None

    async def publish(self, finished: Sequence[Finished]) -> int:
        """Publish the runs that still hold their lease. Returns how many these were."""
        held = await due_rows.still_held(self._connection, [each.claim for each in finished])
        runs = [each for each in finished if each.claim.mapping_id in held]
        if not runs:
            return 0
        self._known = await health_rows.find(self._connection, (each.claim.mapping_id for each in runs))
        ended = [health_rows.Ended(each.claim, each.outcome, self._is_news(each)) for each in runs]
        await health_rows.record(self._connection, ended, self._now_us)
        self._braked_since_us = await providers.braked_since(self._connection)
        down_since_us = await providers.which_are_down(self._connection)
        minutes: dict[str, Minutes] = {}
        # Only a new failure can put the brake on, or show that a provider is down: else nothing need be counted.
        if self._braked_since_us is not None or any(each.news for each in ended):
            minutes = await self._last_minutes(down_since_us)
            await self._brake(minutes, down_since_us)
        for each in runs:
            self._apply(each)
        await due_rows.finish(self._connection, [self._next_turn(each) for each in runs])
        await self._watch_providers(runs, minutes, down_since_us)
        ran = {each.claim.mapping_id for each in runs}
        await health_rows.keep(self._connection, self._changed, ran, self._now_us)
        published = await validations.publish_all(self._opened, list(self._verdicts.values()), self._told)
        gone = {each.mapping_id for each in self._noted} - published - {None}
        await note(self._opened, [each for each in self._noted if each.mapping_id not in gone])
        return len(runs)

    @property
    def _braked(self) -> bool:
        return self._braked_since_us is not None

    def _before(self, mapping_id: str) -> rules.Health:
        return self._known.get(mapping_id, rules.Health(since_us=self._now_us))

    def _is_news(self, run: Finished) -> bool:
        failed = run.outcome.result is Result.FAILS and run.outcome.error_class is not ErrorClass.RATE_LIMIT
        return failed and self._before(run.claim.mapping_id).active

    def _next_turn(self, run: Finished) -> NextTurn:
        """When the mapping is due again, its health being what the run made of it."""
        mapping_id, result, periods = run.claim.mapping_id, run.outcome.result, self._policy.periods
        active = self._before(mapping_id).active
        if result is Result.IN_DOUBT:
            turn = again_us(mapping_id, periods.doubt_s, periods=periods, now_us=self._now_us)
        elif self._braked and self._is_news(run):
            turn = again_us(mapping_id, self._policy.doubts.canary_s, periods=periods, now_us=self._now_us)
        else:
            failing = result is Result.FAILS or not active
            turn = next_due_us(mapping_id, failing=failing, periods=periods, now_us=self._now_us)
        return NextTurn(run.claim, *turn)

    def _apply(self, run: Finished) -> None:
        mapping_id, outcome = run.claim.mapping_id, run.outcome
        before = self._before(mapping_id)
        after = rules.after(before, outcome, self._now_us, self._policy.thresholds, braked=self._braked)
        if not rules.says_nothing(outcome, self._policy.thresholds, braked=self._braked):
            self._verdicts[mapping_id] = _verdict(mapping_id, after, outcome, self._now_us)
        self._becomes(mapping_id, run.claim.provider, before, after, outcome.findings)

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

    async def _becomes_unasked(self, changes: Mapping[str, tuple[str, rules.Health, rules.Health]]) -> None:
        """New health, by provider, before and after, of mappings that were not asked: their figures stand."""
        moved = [mapping_id for mapping_id, (_, before, after) in changes.items() if before.active != after.active]
        last = await validations.find_all(self._connection, moved)
        for mapping_id, (provider, before, after) in changes.items():
            self._becomes(mapping_id, provider, before, after)
        for mapping_id in moved:
            known = last.get(mapping_id, Validation(mapping_id, active=True, validated_at_us=self._now_us))
            self._verdicts[mapping_id] = replace(known, active=changes[mapping_id][2].active)

    async def _last_minutes(self, down_since_us: Mapping[str, int]) -> dict[str, Minutes]:
        """What providers showed, without those that were down before these minutes began."""
        found = await providers.last_minutes(self._connection, self._now_us, self._policy.doubts)
        began_us = (self._braked_since_us or self._now_us) - self._policy.doubts.window_s * SECOND_US
        return {slug: each for slug, each in found.items() if down_since_us.get(slug, began_us) >= began_us}

    async def _brake(self, minutes: Mapping[str, Minutes], down_since_us: dict[str, int]) -> None:
        """Put the brake on or take it off.

        Those that left the list just before it went on come back: the first few fall before
        anybody can know that all are falling. When it goes off, what waited is asked again.
        """
        pulled = suspicion.brake(minutes, self._policy.doubts)
        since_us = self._braked_since_us
        if pulled and since_us is None:
            self._braked_since_us = self._now_us
            await providers.set_brake(self._connection, self._now_us)
            await self._opened.record(
                BRAKE_ON, "validator", after={"reason": "most providers fail in the same minutes"}
            )
            self._noted.append(Noted(Kind.BRAKE_ON, reason="most providers fail in the same minutes"))
            await self._restore(minutes)
        elif not pulled and since_us is not None:
            self._braked_since_us = None
            await providers.set_brake(self._connection, None)
            await self._opened.record(BRAKE_OFF, "validator", before={"since_us": since_us})
            self._noted.append(Noted(Kind.BRAKE_OFF, was_since_us=since_us))
            # They were put down on evidence that was doubted. Any that is down will soon show it again.
            for provider in [slug for slug, at_us in down_since_us.items() if at_us >= since_us]:
                await providers.set_up(self._connection, provider, self._now_us, self._policy.doubts)
                del down_since_us[provider]

    async def _restore(self, minutes: Mapping[str, Minutes]) -> None:
        window_us = self._policy.doubts.window_s * SECOND_US
        since_us = {
            provider: max(self._now_us - window_us, minutes[provider].last_pass_us or 0)
            for provider in suspicion.fallen(minutes)
        }
        left = await health_rows.left_since(self._connection, since_us)
        await self._becomes_unasked(
            {
                mapping_id: (provider, before, rules.restored(before, self._now_us))
                for mapping_id, (provider, before) in left.items()
            }
        )
        await providers.squeeze(self._connection, self._now_us, self._policy.doubts.canary_s, list(left))

    async def _watch_providers(
        self, runs: Sequence[Finished], minutes: Mapping[str, Minutes], down_since_us: Mapping[str, int]
    ) -> None:
        by_provider: dict[str, list[Finished]] = {}
        for each in runs:
            by_provider.setdefault(each.claim.provider, []).append(each)
        for provider, some in by_provider.items():
            if provider in down_since_us:
                await self._watch_one_that_is_down(provider, some, down_since_us[provider])
            elif suspicion.down(minutes.get(provider, Minutes()), self._policy.doubts):
                failed = next((each for each in some if _concerns_all(each)), None)
                if failed is None:
                    continue
                if not self._braked:
                    told = {"reason": failed.outcome.summary}
                    await self._opened.record(PROVIDER_DOWN, provider, provider=provider, after=told)
                    self._noted.append(Noted(Kind.DOWN, provider, reason=failed.outcome.summary))
                    await self._stand_for(provider, failed)
                await providers.set_down(self._connection, provider, self._now_us, self._policy.doubts)

    async def _watch_one_that_is_down(self, provider: str, runs: Sequence[Finished], since_us: int) -> None:
        # A run that began while it still answered says nothing of now.
        if any(_passed(each) and self._now_us - each.outcome.duration_s * SECOND_US >= since_us for each in runs):
            await providers.set_up(self._connection, provider, self._now_us, self._policy.doubts)
            if not (self._braked_since_us is not None and since_us >= self._braked_since_us):
                await self._opened.record(PROVIDER_UP, provider, provider=provider)
                self._noted.append(Noted(Kind.UP, provider))
            return
        failed = next((each for each in runs if _concerns_all(each)), None)
        if failed is not None and not self._braked:
            await self._stand_for(provider, failed)
        await providers.set_down(self._connection, provider, self._now_us, self._policy.doubts)

    async def _stand_for(self, provider: str, canary: Finished) -> None:
        """What the canary showed goes for all the provider's mappings that wait for their turn."""
        waiting = await providers.waiting(self._connection, provider, self._now_us)
        ids = [mapping_id for mapping_id, _ in waiting]
        self._known |= await health_rows.find(self._connection, (each for each in ids if each not in self._known))
        said = f"{provider} is down as a whole, as {canary.claim.mapping_id} shows: {canary.outcome.summary}"
        outcome = Outcome(Result.FAILS, canary.outcome.error_class, said)
        changes = {}
        for mapping_id in ids:
            before = self._before(mapping_id)
            if before.active:
                after = rules.after(before, outcome, self._now_us, self._policy.thresholds)
                changes[mapping_id] = (provider, before, after)
        await self._becomes_unasked(changes)
        later_us = self._now_us + self._policy.periods.retest_s * SECOND_US
        await due_rows.postpone(self._connection, waiting, later_us, Urgency.RETEST)
        _log.info("%s is down as a whole: one run stood for %d that waited", provider, len(waiting))


def _concerns_all(run: Finished) -> bool:
    """Whether the run failed in a way that may be that of the whole provider."""
    return run.outcome.result is Result.FAILS and run.outcome.error_class in providers.OF_A_WHOLE


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
