"""What all reports show, put in order once: failures with their evidence, groups, caveats, capabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from roadworthy.conformance.check import CHECKS, Check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Ability, Capability
from roadworthy.conformance.judge import describe, first_asked
from roadworthy.conformance.measure import Measurements, measure
from roadworthy.conformance.report.curl import curl, key_variable
from roadworthy.conformance.report.model import ModelReport, Report
from roadworthy.conformance.report.text import duration, one_line, plural
from roadworthy.conformance.subject import CHAT, Api, Subject
from roadworthy.conformance.verdict import CheckResult, Finding, Lens, Level, Verdict
from roadworthy.schemas import manifest

SYMBOLS = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.WARN: "!",
    Verdict.SKIPPED: "-",
    Verdict.INCONCLUSIVE: "?",
}
LEVELS = list(Level)
NESTED = ("chat.stream", "responses.stream")
"""Groups of checks with a heading of their own inside a family."""
FEW = 3
SLOW_CLIENT_S = 0.1
"""Our own lateness from which a reader should be told of it."""


@dataclass(frozen=True, slots=True)
class Caveat:
    """Something a reader must know before the verdict means anything. `grave`: it empties the verdict."""

    text: str
    grave: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """One finding, the exchange it was seen in, and the command that sends its request again ("" where unknown)."""

    finding: Finding
    exchange: Exchange | None
    curl: str

    @property
    def place(self) -> str:
        """Where it was seen: "event 12 of chat.stream#1"."""
        at, id = self.finding.at, self.finding.exchange_id
        return f"{at} of {id}" if at and id else at or id


@dataclass(frozen=True)
class Row:
    """One check of one model with its declaration and its evidence."""

    check: Check
    result: CheckResult
    model: ModelView

    @property
    def id(self) -> str:
        """The check's id."""
        return self.result.check_id

    @property
    def verdict(self) -> Verdict:
        """The result's verdict."""
        return self.result.verdict

    @property
    def group(self) -> str:
        """The family, or the group within it, that the check stands under; a valid `--only`."""
        return next((name for name in NESTED if self.id.startswith(name + ".")), self.check.family)

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """The findings, each with what it was seen in."""
        return tuple(self._evidence(finding) for finding in self.result.findings)

    def _evidence(self, finding: Finding) -> Evidence:
        exchange = self.model.exchanges.get(finding.exchange_id)
        if exchange is None:
            return Evidence(finding, None, "")
        key = key_variable(exchange, self.model.report.run.facts)
        return Evidence(finding, exchange, curl(exchange, key=key, at=finding.at))

    @property
    def word(self) -> str:
        """The verdict as a word."""
        return f"known {self.verdict.value}" if self.result.known else self.verdict.value

    @property
    def replay(self) -> str:
        """The command that judges this check again, offline."""
        return f"roadworthy replay run.jsonl --only {self.id}"


@dataclass(frozen=True)
class ModelView:
    """One model's report, in the order it is read."""

    report: ModelReport

    @property
    def name(self) -> str:
        """The subject as it is written on the command line: the model, and its task and API where not plain chat."""
        return self.report.model

    @property
    def subject(self) -> Subject:
        """The model, the task and the family of APIs."""
        return self.report.run.facts.subject

    @cached_property
    def conflicts(self) -> list[str]:
        """Where specification and clients cannot all be satisfied: what each needs, and what the hub needs."""
        form = manifest.manifest(self.subject.task)
        known = set(form.conflicts.values()) if form else set()
        return list(dict.fromkeys(row.result.reason for row in self.rows if row.result.reason in known))

    @cached_property
    def exchanges(self) -> dict[str, Exchange]:
        """The exchanges by id."""
        return {exchange.id: exchange for exchange in self.report.run.exchanges}

    @cached_property
    def measured(self) -> Measurements:
        """What the run measured."""
        return measure(self.report.run.exchanges)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every check, in the catalogue's order."""
        declared = {check.id: check for check in self.report.run.checks}
        return tuple(Row(declared.get(r.check_id) or CHECKS[r.check_id], r, self) for r in self.report.results)

    @cached_property
    def groups(self) -> dict[str, list[Row]]:
        """The checks by group, groups in the order of their first check."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.group, []).append(row)
        return groups

    def having(self, verdict: Verdict, *, known: bool = False) -> list[Row]:
        """The checks with this verdict, the weightiest level first."""
        rows = [row for row in self.rows if row.verdict is verdict and row.result.known is known]
        return sorted(rows, key=lambda row: LEVELS.index(row.result.level))

    @property
    def known(self) -> list[Row]:
        """The failures and warnings that the baseline tolerates."""
        return self.having(Verdict.FAIL, known=True) + self.having(Verdict.WARN, known=True)

    def reasons(self, verdict: Verdict) -> list[tuple[str, list[Row]]]:
        """The checks with this verdict by reason, the most frequent reason first."""
        reasons: dict[str, list[Row]] = {}
        for row in self.having(verdict):
            reasons.setdefault(row.result.reason or "no reason was given", []).append(row)
        return sorted(reasons.items(), key=lambda item: -len(item[1]))

    @property
    def abilities(self) -> list[tuple[Capability, Ability]]:
        """Every capability and what is known of it."""
        return [(capability, self.report.run.facts.ability(capability)) for capability in Capability]

    def offers(self) -> dict[str, list[str]]:
        """What the model offers by how we know ("declared", "detected"), what it does not, and what nobody asked."""
        offers: dict[str, list[str]] = {}
        first = first_asked(self.report.run.exchanges)
        if self.subject.task != CHAT or self.subject.api is Api.ENDPOINTS or first is None or not first.answered:
            return {}
        lacks, unknown = [], []
        for capability, ability in self.abilities:
            how, _, rest = ability.source.partition(":")
            if ability.offered:
                offers.setdefault(how, []).append(capability.value)
            elif ability.offered is None:
                unknown.append(capability.value)
            else:
                lacks.append(f"{capability.value} ({rest.strip() or how})")
        return {**offers, **({"not offered": lacks} if lacks else {}), **({"not asked": unknown} if unknown else {})}

    @property
    def statuses(self) -> dict[str, int]:
        """How many answers had which HTTP status; "none" where no answer came."""
        counted = Counter("none" if x.status is None else str(x.status) for x in self.report.run.exchanges)
        return dict(sorted(counted.items()))

    def latency(self) -> str:
        """Time to first token and speed in one sentence; "" where nothing was streamed."""
        first, speed = self.measured.time_to_first_token, self.measured.tokens_per_s
        if first is None:
            return ""
        limit_s = self.report.run.facts.limits.time_to_first_token_s
        kind = "sample" if self.measured.samples else "stream"
        text = (
            f"first token {duration(first.median)} median, {duration(first.most)} slowest "
            f"of {plural(first.count, kind)} (limit {limit_s:g} s, ± {duration(self.measured.uncertainty_s)})"
        )
        return text + (f", {speed.median:,.0f} tokens/s" if speed else "")

    def requests(self) -> str:
        """What was sent, and what it took."""
        run = self.report.run
        parts = [f"{plural(run.requests, 'request')} in {duration(run.duration_s)}"]
        retries = self.measured.retries
        parts.append(f"{plural(retries, 'retry', 'retries')} after 429 or 503" if retries else "no retries")
        if self.measured.cold_start_s is not None:
            parts.append(f"warm-up {duration(self.measured.cold_start_s)}, not counted")
        return ", ".join(parts)

    @cached_property
    def caveats(self) -> list[Caveat]:
        """What empties the verdict on this model, or narrows it."""
        run, counts = self.report.run, self.report.counts
        found = []
        unauthorised = [x for x in run.exchanges if x.status in (401, 403)]
        if run.exchanges and len(unauthorised) == len(run.exchanges):
            found.append(Caveat(self._locked_out(), grave=True))
        elif (first := first_asked(self.report.run.exchanges)) is not None and not first.answered:
            found.append(
                Caveat(f"The first plain request failed, so little else was sent: {one_line(describe(first))}", True)
            )
        told = Counter(reason for reason in run.unsent.values() if reason.startswith("not sent: "))
        found += [
            Caveat(f"{plural(count, 'kind')} of request {reason}", grave=True) for reason, count in told.most_common()
        ]
        if counts.total and not counts.passed + counts.failed + counts.warned + counts.known:
            found.append(Caveat("Not one check could be judged. This says nothing about the provider.", grave=True))
        if run.requests and self.measured.retries * 4 >= run.requests:
            found.append(
                Caveat(f"{self.measured.retries} of {run.requests} requests were answered 429 or 503 and sent again.")
            )
        if self.measured.uncertainty_s >= SLOW_CLIENT_S:
            found.append(
                Caveat(f"This machine was busy: times may be up to {duration(self.measured.uncertainty_s)} too long.")
            )
        if self.subject.api is Api.ENDPOINTS and not run.facts.allow_writes:
            found.append(Caveat("Only reading requests were sent; --allow-writes leads an endpoint through its life."))
        if counts.known:
            found.append(Caveat(f"{plural(counts.known, 'failure')} known to the baseline did not count."))
        return found

    def _locked_out(self) -> str:
        statuses = "/".join(sorted({str(x.status) for x in self.report.run.exchanges}))
        what = "did not accept the API key" if self.report.run.facts.authenticated else "asks for an API key"
        return f"Every request was answered {statuses}: the server {what}. Set ROADWORTHY_API_KEY to a key it accepts."


@dataclass(frozen=True)
class View:
    """A whole report, in the order it is read."""

    report: Report

    @cached_property
    def models(self) -> tuple[ModelView, ...]:
        """Every model."""
        return tuple(ModelView(model) for model in self.report.models)

    @property
    def noun(self) -> str:
        """What the report is about several of: models, where all are asked to chat, or else tasks."""
        plain = all((m.subject.task, m.subject.api) == (CHAT, Api.OPENAI) for m in self.models)
        return "model" if plain else "task"

    @cached_property
    def conflicts(self) -> list[tuple[str, str]]:
        """The tasks of which no one answer satisfies everybody, each with why and with what the hub needs."""
        return list(dict.fromkeys((m.subject.task, text) for m in self.models for text in m.conflicts))

    @property
    def many(self) -> bool:
        """Whether the report is about too many for each to be told of in full."""
        return len(self.models) > FEW

    @property
    def table(self) -> list[tuple[ModelView, dict[Lens, Verdict]]]:
        """Every subject with its verdict in each lens, in order of task and API."""
        ordered = sorted(self.models, key=lambda m: (m.subject.task != CHAT, m.subject.task, m.subject.api, m.name))
        return [(m, {lens: part.verdict for lens, part in m.report.lenses.items()}) for m in ordered]

    @cached_property
    def caveats(self) -> list[tuple[str, Caveat]]:
        """What empties or narrows the verdict, the grave first; with the model's name where there are several."""
        named = [(model.name if len(self.models) > 1 else "", c) for model in self.models for c in model.caveats]
        selected, all_checks = self._selected()
        if selected < all_checks:
            named.append(("", Caveat(f"Only {selected} of {all_checks} checks were asked for.")))
        return sorted(named, key=lambda item: not item[1].grave)

    def _selected(self) -> tuple[int, int]:
        """How many checks were asked for, and how many there are that are about these tasks and APIs."""
        selected = {row.check_id for model in self.report.models for row in model.results}
        frames = [model.run.facts for model in self.report.models]
        there = {check.id for check in CHECKS.values() if any(check.applies(facts) for facts in frames)}
        return len(selected), len(there | selected)


def exchanges_of(rows: Sequence[Row]) -> list[str]:
    """The ids of the exchanges that these checks looked at, each once, in order."""
    return list(dict.fromkeys(id for row in rows for id in row.result.exchange_ids))
