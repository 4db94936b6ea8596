"""Asking a provider about one mapping, with the conformance house's own probes, checks and transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from roadworthy.conformance.adapter import adapted
from roadworthy.conformance.facts import Facts, Jobs, VerdictLimits
from roadworthy.conformance.run import Runner, Settings
from roadworthy.conformance.subject import ALIASES, Api, families
from roadworthy.conformance.target import Target
from roadworthy.http.message import Limits, Reply, Request, Transport
from roadworthy.mapping_api.records import Mapping
from roadworthy.validator import profile
from roadworthy.validator.endpoint import Endpoint
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.verdict import STREAMING_TASKS, outcome

TRIALS = 4
"""Requests per question of what a model chooses: the fewest that can decide one."""
MAX_TEXT_BYTES = 256 * 1024
"""Read of any answer that is text: several times what 256 tokens take in the wordiest of streams."""
MAX_MEDIUM_BYTES = 16 * 1024 * 1024
"""Read of any other: a large picture as base64."""
ONCE_MORE = frozenset({ErrorClass.NETWORK, ErrorClass.PROVIDER_5XX, ErrorClass.CONTRACT})
"""Failures that are confirmed. A refused key is refused again, and a limit of requests only gets worse."""
MARGIN_S = 5.0

EndpointOf = Callable[[str], Awaitable[Endpoint | None]]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a validation is run. Times are seconds.

    A failure counts once it was confirmed by a second run at once, so that one lost packet, or one
    restart behind a load balancer, takes nobody off the list. `run_timeout_s` bounds each of the two.
    """

    confirm: bool = True
    run_timeout_s: float = 100.0
    limits: VerdictLimits = field(default_factory=VerdictLimits)


class Prober:
    """Asks over one transport."""

    def __init__(
        self,
        transport: Transport,
        endpoint_of: EndpointOf,
        terms: Terms | None = None,
    ) -> None:
        """`endpoint_of` finds a provider's API by its slug."""
        self._transport = transport
        self._endpoint_of = endpoint_of
        self._terms = terms or Terms()

    async def __call__(self, mapping: Mapping) -> Outcome:
        """Run the profile against one mapping, and once more where it failed."""
        endpoint = await self._endpoint_of(mapping.provider)
        if endpoint is None:
            return Outcome(Result.IN_DOUBT, ErrorClass.OURS, f"no API is registered for {mapping.provider}")
        facts = self._facts(mapping, endpoint)
        if facts is None:
            return Outcome(Result.IN_DOUBT, ErrorClass.OURS, f"roadworthy has no checks for the task {mapping.task}")
        first = await self._run(facts, endpoint)
        if not self._terms.confirm or first.result is not Result.FAILS or first.error_class not in ONCE_MORE:
            return first
        again = await self._run(facts, endpoint)
        return replace(
            again,
            uses=first.uses + again.uses,
            requests=first.requests + again.requests,
            duration_s=first.duration_s + again.duration_s,
        )

    async def _run(self, facts: Facts, endpoint: Endpoint) -> Outcome:
        target = Target(endpoint.base_url, endpoint.api_key, request_id_header=endpoint.options.request_id_header)
        transport = adapted(_Modest(self._transport, facts), endpoint.options.adapter, endpoint.base_url)
        longest_s = min(endpoint.options.timeout_s, self._terms.run_timeout_s)
        if facts.task not in STREAMING_TASKS:
            longest_s = min(longest_s, facts.limits.total_time_s + MARGIN_S)
        bounds = Settings(
            concurrency=2,
            max_requests=40,
            max_trials=TRIALS,
            max_retries=1,
            retry_budget_s=min(30.0, self._terms.run_timeout_s / 2),
            total_timeout_s=longest_s,
        )
        runner = Runner(target, transport, profile.planned(facts), bounds)
        # A run that is cancelled gives what it has seen, so time that runs out leaves evidence and a verdict.
        async with asyncio.timeout(self._terms.run_timeout_s) as clock:
            run = await runner.run()
        if run.interrupted and not clock.expired():
            raise asyncio.CancelledError
        # Hostile answers may take long to judge: elsewhere, so that the clock readings of other runs stay true.
        return await asyncio.to_thread(outcome, run)

    def _facts(self, mapping: Mapping, endpoint: Endpoint) -> Facts | None:
        task = ALIASES.get(mapping.task, mapping.task)
        serving = [api for api in families(task) if api not in (Api.ENDPOINTS, Api.RESPONSES)]
        api = endpoint.options.apis.get(mapping.task) or next(iter(serving), None)
        if api is None or api not in serving:
            return None
        frame = Facts(
            endpoint.base_url,
            mapping.provider_model,
            task,
            api,
            judged_at=int(time.time()),
            request_id_header=endpoint.options.request_id_header,
            authenticated=endpoint.api_key is not None,
            limits=self._terms.limits,
            fuzz_examples=0,
        )
        if api is not Api.JOBS:
            return frame
        jobs = Jobs(**endpoint.options.jobs.model_dump())
        return replace(frame, jobs=replace(jobs, timeout_s=min(jobs.timeout_s, self._terms.run_timeout_s * 0.8)))


class _Modest:
    """A transport that reads no more of a text than any answer to a validation can have."""

    def __init__(self, inner: Transport, facts: Facts) -> None:
        self._inner = inner
        self._cap_bytes = MAX_TEXT_BYTES if facts.task in STREAMING_TASKS else MAX_MEDIUM_BYTES

    async def send(self, request: Request, limits: Limits) -> Reply:
        """See `Transport.send`."""
        if request.method == "POST":
            limits = replace(limits, max_body_bytes=min(limits.max_body_bytes, self._cap_bytes))
        return await self._inner.send(request, limits)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await self._inner.aclose()
