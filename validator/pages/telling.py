"""From the board and the history to what is told: the records that pages are drawn of and programs read."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.plan import select
from roadworthy.conformance.subject import ALIASES, CHAT
from roadworthy.database import Database
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.view import View
from roadworthy.pages import visible
from roadworthy.validator.health import State
from roadworthy.validator.outcome import ErrorClass, Result
from roadworthy.validator.pages import evidence, public, shown
from roadworthy.validator.pages.board import Board, Card, Row, filled
from roadworthy.validator.pages.drawings import BAR_US, DAY_US, HOUR_US, first_bar_us
from roadworthy.validator.store import history
from roadworthy.validator.store.history import Failure, RunShort, Span

RUNS = 20
_PROOFS = 128


@dataclass(frozen=True, slots=True)
class Filter:
    """What a reader looks for. Empty fields ask for nothing."""

    provider: str = ""
    model: str = ""
    task: str = ""
    state: State | None = None

    @property
    def of_mappings(self) -> bool:
        """Whether it asks for certain mappings, not only for certain providers."""
        return bool(self.model or self.task or self.state)

    def providers(self, cards: Iterable[Card]) -> list[Card]:
        """The providers it lets through."""
        wanted = self.provider.lower()
        return [card for card in cards if wanted in card.provider]

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """The mappings it lets through."""
        wanted = self.model.lower()
        return [
            row
            for row in rows
            if (self.state is None or row.state is self.state)
            and (not self.task or row.mapping.task == self.task)
            and (not wanted or wanted in row.mapping.source.lower() or wanted in row.mapping.provider_model.lower())
        ]


@dataclass(frozen=True, slots=True)
class Told:
    """One mapping as lists show it."""

    row: Row
    bars: tuple[Span, ...]
    reason: str
    time_to_first_token_s: float | None
    throughput_tokens_per_s: float | None
    validated_at_us: int | None
    due_at_us: int | None


@dataclass(frozen=True, slots=True)
class Whole:
    """One mapping in full. `days` are spans of 6 hours of the last 30 days, `hours` of one of the last 7."""

    told: Told
    days: list[Span]
    hours: list[Span]
    runs: list[RunShort]
    failure: Failure | None
    proof: evidence.Proof | None
    replay: str


class Teller:
    """Reads what the board does not hold."""

    def __init__(self, database: Database, board: Board) -> None:
        """Over one database."""
        self._database = database
        self._board = board
        self._proofs: dict[str, evidence.Proof | None] = {}
        select()  # the checks must be known to be explained

    async def told(self, view: View, rows: Sequence[Row]) -> list[Told]:
        """A page of mappings."""
        ids, now_us = [row.mapping.id for row in rows], self._board.now_us
        async with self._database.reading() as connection:
            spans = await history.spans(connection, ids, first_bar_us(now_us), BAR_US)
            reasons = await history.reasons(connection, ids)
            due = await history.next_due(connection, ids)
        return [
            self._one(
                view,
                row,
                now_us,
                spans=spans[row.mapping.id],
                reason=reasons.get(row.mapping.id, ""),
                due_at_us=due.get(row.mapping.id),
            )
            for row in rows
        ]

    @staticmethod
    def _one(view: View, row: Row, now_us: int, *, spans: list[Span], reason: str, due_at_us: int | None) -> Told:
        verdict = view.validations.get(row.mapping.id)
        return Told(
            row=row,
            bars=filled(spans, now_us),
            reason=public.text(reason),
            time_to_first_token_s=verdict.time_to_first_token_s if verdict else None,
            throughput_tokens_per_s=verdict.throughput_tokens_per_s if verdict else None,
            validated_at_us=verdict.validated_at_us if verdict else None,
            due_at_us=due_at_us if row.state is not State.SUSPENDED else None,
        )

    async def whole(self, view: View, row: Row) -> Whole:
        """One mapping in full."""
        mapping_id, now_us = row.mapping.id, self._board.now_us
        recording = None
        async with self._database.reading() as connection:
            days = await history.spans(connection, [mapping_id], now_us - 30 * DAY_US, BAR_US)
            hours = await history.spans(connection, [mapping_id], now_us - 7 * DAY_US, HOUR_US)
            reasons = await history.reasons(connection, [mapping_id])
            due = await history.next_due(connection, [mapping_id])
            runs = await history.last_runs(connection, mapping_id, RUNS)
            failure = await history.last_failure(connection, mapping_id)
            if failure is not None and failure.run.id not in self._proofs:
                recording = await history.failing_recording(connection, mapping_id, failure.run.id)
        if recording is not None and failure is not None:
            # Beside the event loop: a long stream takes a while to judge again.
            await self._prove(failure.run.id, recording)
        told = self._one(
            view,
            row,
            now_us,
            spans=days[mapping_id],
            reason=reasons.get(mapping_id, ""),
            due_at_us=due.get(mapping_id),
        )
        return Whole(
            told=told,
            days=days[mapping_id],
            hours=hours[mapping_id],
            runs=runs,
            failure=failure,
            proof=self._proofs.get(failure.run.id) if failure is not None else None,
            replay=replay(row.mapping, failure),
        )

    async def _prove(self, run_id: str, recording: bytes) -> None:
        found = await asyncio.to_thread(evidence.proof, recording)
        while len(self._proofs) >= _PROOFS:
            del self._proofs[next(iter(self._proofs))]
        self._proofs[run_id] = found


def replay(mapping: Mapping, failure: Failure | None) -> str:
    """A command that asks a provider what the validator asked: the failed checks, or all of the hub's."""
    task = ALIASES.get(mapping.task, mapping.task)
    model = mapping.provider_model if task == CHAT else f"{mapping.provider_model}={task}"
    command = f'roadworthy check "$BASE_URL" --model {shlex.quote(visible(model))} --lens hub'
    failed = [finding_of(each).check for each in failure.findings] if failure is not None else []
    for check in dict.fromkeys(failed[:5]):
        if check in CHECKS:
            command += f" --only {check}"
    return command


def finding_of(found: dict[str, object]) -> shown.FindingShown:
    """A finding as everybody may see it. What it should hold and does not is empty."""
    fields = {
        name: public.text(value if isinstance(value := found.get(name), str) else "")
        for name in ("check", "level", "expected", "got", "remedy")
    }
    return shown.FindingShown(**fields, explanation=f"/checks/{fields['check']}" if fields["check"] in CHECKS else "")


def span_shown(span: Span) -> shown.SpanShown:
    """A span without its figures."""
    return shown.SpanShown(start=shown.at(span.start_us), tests=span.runs, failed=span.failures, degraded=span.degraded)


def card_shown(card: Card) -> shown.ProviderStatus:
    """A provider."""
    return shown.ProviderStatus(
        provider=card.provider,
        state=card.state,
        mappings=card.counts,
        down_since=shown.at_or_none(card.down_since_us),
        quarter_days=[span_shown(span) for span in card.bars],
        median_time_to_first_token_s=card.median_time_to_first_token_s,
        median_throughput_tokens_per_s=card.median_throughput_tokens_per_s,
        last_validated_at=shown.at_or_none(card.last_validated_us),
    )


def told_shown(told: Told) -> shown.MappingStatus:
    """A mapping."""
    mapping = told.row.mapping
    return shown.MappingStatus(
        id=mapping.id,
        provider=mapping.provider,
        task=mapping.task,
        model=mapping.source,
        provider_model=mapping.provider_model,
        state=told.row.state,
        since=shown.at_or_none(told.row.since_us),
        quarter_days=[span_shown(span) for span in told.bars],
        time_to_first_token_s=told.time_to_first_token_s,
        throughput_tokens_per_s=told.throughput_tokens_per_s,
        last_validated_at=shown.at_or_none(told.validated_at_us),
        next_due_at=shown.at_or_none(told.due_at_us),
    )


def whole_shown(whole: Whole, at_us: int, braked_since_us: int | None) -> shown.MappingPage:
    """A mapping in full."""
    return shown.MappingPage(
        at=shown.at(at_us),
        braked_since=shown.at_or_none(braked_since_us),
        mapping=told_shown(whole.told),
        reason=whole.told.reason,
        last_days=[
            shown.MeasuredSpan(
                **span_shown(span).model_dump(),
                time_to_first_token_s=span.time_to_first_token_s,
                throughput_tokens_per_s=span.throughput_tokens_per_s,
            )
            for span in whole.days
        ],
        last_runs=[run_shown(run) for run in whole.runs],
        last_failure=failed_shown(whole.failure) if whole.failure is not None else None,
        replay=whole.replay,
    )


def run_shown(run: RunShort) -> shown.RunShown:
    """A run."""
    return shown.RunShown(
        id=run.id,
        ended_at=shown.at(run.ended_at_us),
        result=Result(run.result),
        error_class=ErrorClass(run.error_class) if run.error_class else None,
        error=public.text(run.summary),
        time_to_first_token_s=run.time_to_first_token_s,
        throughput_tokens_per_s=run.throughput_tokens_per_s,
        total_time_s=run.total_time_s,
        requests=run.requests,
        duration_s=run.duration_s,
    )


def failed_shown(failure: Failure) -> shown.FailedRun:
    """A run with its findings."""
    return shown.FailedRun(
        **run_shown(failure.run).model_dump(), findings=[finding_of(each) for each in failure.findings]
    )


def member_shown(failure: Failure) -> shown.MemberRun:
    """A run as the provider's members see it."""
    return shown.MemberRun(**failed_shown(failure).model_dump(), mapping_id=failure.run.mapping_id)
