"""Running: send a plan's probes within its bounds, learn, repeat where trials are undecided."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from roadworthy.conformance import statistics, strict_json
from roadworthy.conformance.capability import detect
from roadworthy.conformance.check import Check
from roadworthy.conformance.exchange import Exchange, Retry, as_object
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import describe, judge
from roadworthy.conformance.plan import Plan
from roadworthy.conformance.probe import Auth, Context, Draft, Phase, Poll, Probe
from roadworthy.conformance.subject import Api
from roadworthy.conformance.target import Target
from roadworthy.conformance.words import is_number
from roadworthy.http.message import Headers, Reply, Request, Transport
from roadworthy.http.redact import Redactor
from roadworthy.schemas import manifest

NO_BILLING_URL = "nothing to ask: what requests cost is checked where --billing-url names the endpoint that tells it"
WRONG_KEY = "roadworthy-wrong-key-0000000000000000"
SAID_BYTES = 1_000
"""How much is kept of an answer that only asks to wait."""
FIRST_TRIALS = 4
"""The fewest trials whose Wilson interval can clear a bar of one half."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The bounds of a run. `max_trials` is per model-level check; `retry_budget_s` per request."""

    concurrency: int = 4
    max_requests: int = 500
    max_trials: int = 10
    max_retries: int = 3
    retry_budget_s: float = 30.0
    total_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of a run, for whoever watches: the exchange just finished and how many are expected in all."""

    exchange: Exchange
    sent: int
    expected: int


@dataclass(frozen=True)
class Run:
    """What a run gathered for one model. `unsent` says per probe id why nothing was sent."""

    facts: Facts
    checks: tuple[Check, ...]
    exchanges: tuple[Exchange, ...]
    unsent: Mapping[str, str] = field(default_factory=dict)
    requests: int = 0
    duration_s: float = 0.0
    interrupted: bool = False
    """Whether it was stopped before its plan was done: then it is never a pass."""

    def narrowed(self, checks: Sequence[Check]) -> Run:
        """The same run, judged by these checks alone."""
        return replace(self, checks=tuple(checks))


Watch = Callable[[Progress], None]


class Runner:
    """Sends one plan to one target over one transport."""

    def __init__(
        self,
        target: Target,
        transport: Transport,
        plan: Plan,
        settings: Settings | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._target = target
        self._transport = transport
        self._plan = plan
        self._settings = settings or Settings()
        self._watch = watch
        costs = target.cost_endpoint
        self._redactor = Redactor(
            [
                *(target.api_key or "", *(value for _, value in target.headers)),
                *((costs.api_key or "", *(value for _, value in costs.headers)) if costs else ()),
            ]
        )
        self._slots = asyncio.Semaphore(self._settings.concurrency)
        self._facts = plan.facts
        self._exchanges: dict[str, list[Exchange]] = {}
        self._unsent: dict[str, str] = {
            probe.id: NO_BILLING_URL for probe in plan.probes if probe.billing and plan.facts.billing is None
        }
        self._requests = 0
        self._expected = 0
        self._random = random.Random(plan.facts.seed)  # noqa: S311 - jitter of retries, not a secret

    async def run(self) -> Run:
        """Send everything the plan asks for and return what was seen.

        Never raises for what a server does. Cancelled, it returns what was seen so far,
        with everything else marked as not sent: evidence that was paid for is kept.
        """
        started = time.monotonic()
        interrupted = False
        try:
            await self._send_all()
        except asyncio.CancelledError:
            interrupted = True
            missing = (probe.id for probe in self._plan.probes if probe.id not in self._exchanges)
            self._unsent = {**dict.fromkeys(missing, "not sent: the run was interrupted"), **self._unsent}
        self._learn()
        ordered = tuple(x for probe in self._plan.probes for x in self._exchanges.get(probe.id, ()))
        return Run(
            self._facts,
            self._plan.checks,
            ordered,
            self._unsent,
            self._requests,
            time.monotonic() - started,
            interrupted,
        )

    async def _send_all(self) -> None:
        probes = [probe for probe in self._plan.probes if probe.id not in self._unsent]
        self._expected = sum(probe.times(self._facts) for probe in probes)
        for probe in (p for p in probes if p.phase is Phase.FIRST):
            await self._send_probe(probe)
        self._learn()
        blocked = self._blocked()
        if blocked:
            self._unsent.update({p.id: blocked for p in probes if p.phase is not Phase.FIRST})
        else:
            await self._send_main([p for p in probes if p.phase is Phase.MAIN])
            self._learn()
            for phase in (Phase.ALONE, Phase.LAST):
                for probe in (p for p in probes if p.phase is phase):
                    await self._send_probe(probe)

    def _learn(self) -> None:
        everything = [x for exchanges in self._exchanges.values() for x in exchanges]
        self._facts = self._plan.facts.learn(detect(everything, self._plan.facts))

    def _blocked(self) -> str | None:
        """Why nothing more should be sent: the plain first request got no usable answer."""
        gates = [probe.id for probe in self._plan.probes if probe.gate]
        for first in (exchange for id in gates for exchange in self._exchanges.get(id, ())):
            if not first.answered:
                return f"not sent, because the first request failed: {describe(first)}"
        return None

    async def _send_main(self, probes: Sequence[Probe]) -> None:
        finished = {probe.id: asyncio.Event() for probe in probes}

        async def one(probe: Probe) -> None:
            try:
                for needed in probe.after:
                    if needed.id in finished:
                        await finished[needed.id].wait()
                await self._send_probe(probe)
                await self._send_trials(probe)
            finally:
                finished[probe.id].set()

        async with asyncio.TaskGroup() as group:
            for probe in probes:
                group.create_task(one(probe))

    async def _send_probe(self, probe: Probe) -> None:
        if self._facts.lacks(probe.needs):
            return
        if probe.writes and not self._facts.allow_writes:
            self._unsent[probe.id] = "nothing to ask: it changes the target, which needs --allow-writes"
            return
        times = probe.times(self._facts)
        if times == 0:
            self._unsent[probe.id] = "nothing to ask: switched off"
        for trial in range(1, times + 1):
            await self._send_trial(probe, trial)
        if probe.poll is not None:
            await self._send_until(probe, probe.poll)

    async def _send_until(self, probe: Probe, poll: Poll) -> None:
        """Ask again until the answer is final, for as long as one request may take at most."""
        jobs = self._facts.jobs.timeout_s if self._facts.api is Api.JOBS else 0.0
        # What a poll of costs waits in all is bounded by itself; this bounds how slowly it may be answered.
        costs = 2 * self._facts.limits.billing_timeout_s if probe.billing else 0.0
        until = time.monotonic() + max(self._settings.total_timeout_s, jobs, costs)
        while True:
            sent = list(self._exchanges.get(probe.id, ()))
            wait_s = poll(sent[-1], self._facts) if sent else None
            if wait_s is None or time.monotonic() + wait_s > until:
                return
            await asyncio.sleep(wait_s)
            await self._send_trial(probe, len(sent) + 1)
            if len(self._exchanges[probe.id]) == len(sent):
                return

    async def _send_trials(self, probe: Probe) -> None:
        checks = [check for check in self._plan.checks if check.bar is not None and probe in check.probes]
        if not checks or self._facts.lacks(probe.needs) or probe.id in self._unsent:
            return
        first = self._exchanges.get(probe.id, [])
        if not first or first[0].status != 200:
            return
        trials = range(len(first) + 1, min(FIRST_TRIALS, self._settings.max_trials) + 1)
        self._expected += len(trials)
        await asyncio.gather(*(self._send_trial(probe, trial) for trial in trials))
        self._exchanges[probe.id].sort(key=lambda x: x.trial)
        while len(self._exchanges[probe.id]) < self._settings.max_trials:
            results = judge(checks, self._exchanges[probe.id], self._facts)
            if all(result.trials is None or statistics.decided(result.trials) for result in results):
                return
            sent = len(self._exchanges[probe.id])
            self._expected += 1
            await self._send_trial(probe, sent + 1)
            if len(self._exchanges[probe.id]) == sent:
                return

    async def _send_trial(self, probe: Probe, trial: int) -> None:
        earlier = {id: exchanges[0] for id, exchanges in self._exchanges.items() if exchanges}
        latest = {id: exchanges[-1] for id, exchanges in self._exchanges.items() if exchanges}
        seen = tuple(x for exchanges in self._exchanges.values() for x in exchanges)
        draft = probe.build(Context(self._facts, trial, earlier, latest, seen))
        if draft is None and probe.idle:
            self._unsent[probe.id] = f"nothing to ask: {probe.idle}"
            return
        if draft is None:
            names = ", ".join(needed.id for needed in probe.after) or "an earlier answer"
            self._unsent[probe.id] = f"nothing to ask after {names}"
            return
        async with self._slots:
            if self._requests >= self._settings.max_requests:
                self._unsent[probe.id] = f"not sent: the budget of {self._settings.max_requests} requests is spent"
                return
            exchange = await self._send(probe, trial, draft)
        self._exchanges.setdefault(probe.id, []).append(exchange)
        if self._watch is not None:
            sent = sum(map(len, self._exchanges.values()))
            self._watch(Progress(exchange, sent, max(self._expected, sent)))

    async def _send(self, probe: Probe, trial: int, draft: Draft) -> Exchange:
        request = self._request(draft, billing=probe.billing)
        limits = replace(
            draft.limits, total_timeout_s=min(draft.limits.total_timeout_s, self._settings.total_timeout_s)
        )
        retries: list[Retry] = []
        waited = 0.0
        while True:
            started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._requests += 1
            reply = await self._transport.send(request, limits)
            wait_s = self._retry_wait(reply, len(retries))
            if (
                wait_s is None
                or waited + wait_s > self._settings.retry_budget_s
                or self._requests >= self._settings.max_requests
            ):
                break
            said = self._redactor.reply(reply).body[:SAID_BYTES].decode(errors="replace")
            retries.append(Retry(reply.status or 0, reply.header("retry-after"), wait_s, said))
            waited += wait_s
            await asyncio.sleep(wait_s)
        return Exchange(
            id=f"{probe.id}#{trial}",
            probe=probe.id,
            trial=trial,
            request=self._redactor.request(request),
            reply=self._redactor.reply(reply),
            started_at=started_at,
            retries=tuple(retries),
        )

    def _retry_wait(self, reply: Reply, retries: int) -> float | None:
        """Seconds to wait before asking again, or None to take this answer."""
        if reply.status not in (429, 503) or retries >= self._settings.max_retries:
            return None
        asked = retry_after_s(reply.header("retry-after"))
        if asked is None:
            asked = estimated_time_s(reply.body)
        if asked is not None:
            return asked
        return float(2**retries) * (0.5 + self._random.random() / 2)

    def _request(self, draft: Draft, *, billing: bool) -> Request:
        headers: list[tuple[str, str]] = [
            ("Accept", self._accept()),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "roadworthy"),
        ]
        if draft.json is not None or draft.raw is not None:
            headers.append(("Content-Type", draft.content_type))
        headers += self._auth(draft.auth, billing=billing)
        named = {name.lower() for name, _ in draft.headers}
        kept: Headers = tuple((k, v) for k, v in headers if k.lower() not in named)
        base = self._facts.root_url if draft.at_root else self._target.base_url
        url = draft.path if draft.path.startswith(("http://", "https://")) else base + draft.path
        return Request(draft.method, url, kept + draft.headers, draft.body())

    def _accept(self) -> str:
        """What answers are welcome; media tasks answer with bytes of their own type."""
        form = manifest.manifest(self._facts.task)
        media = f"{form.response}/*, " if form is not None and form.response != "json" else ""
        return f"{media}application/json, text/event-stream"

    def _auth(self, auth: Auth, *, billing: bool) -> Headers:
        if auth is Auth.WRONG:
            return (("Authorization", f"Bearer {WRONG_KEY}"),)
        if auth is Auth.NONE:
            return ()
        holder = self._target.cost_endpoint if billing else self._target
        if holder is None:
            return ()
        own = (("Authorization", f"Bearer {holder.api_key}"),) if holder.api_key else ()
        return own + holder.headers


def estimated_time_s(body: bytes) -> float | None:
    """Seconds that a loading model says it needs (serverless API, ModelLoadingResponse), or None."""
    value = as_object(strict_json.loads(body[:SAID_BYTES])).get("estimated_time")
    return max(0.0, float(value)) if is_number(value) else None


def retry_after_s(value: str | None) -> float | None:
    """Seconds asked for by a Retry-After header (seconds or an HTTP date; RFC 9110, 10.2.3), or None."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
