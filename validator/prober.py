"""Asking a provider about one mapping, with the conformance house's own probes, checks and transport."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from roadworthy.conformance.adapter import adapted
from roadworthy.conformance.facts import Facts, Jobs
from roadworthy.conformance.run import Runner, Settings
from roadworthy.conformance.subject import ALIASES, Api, families
from roadworthy.conformance.target import Target
from roadworthy.http.message import Transport
from roadworthy.mapping_api.records import Mapping
from roadworthy.validator import profile
from roadworthy.validator.endpoint import Endpoint
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.verdict import outcome

TRIALS = 4
"""Requests per question of what a model chooses: the fewest that can decide one."""


class Prober:
    """Asks over one transport."""

    def __init__(self, transport: Transport, endpoint_of: Callable[[str], Awaitable[Endpoint | None]]) -> None:
        """`endpoint_of` finds a provider's API by its slug."""
        self._transport = transport
        self._endpoint_of = endpoint_of

    async def __call__(self, mapping: Mapping) -> Outcome:
        """Run the profile against one mapping."""
        endpoint = await self._endpoint_of(mapping.provider)
        if endpoint is None:
            return Outcome(Result.IN_DOUBT, ErrorClass.OURS, f"no API is registered for {mapping.provider}")
        facts = _facts(mapping, endpoint)
        if facts is None:
            return Outcome(Result.IN_DOUBT, ErrorClass.OURS, f"roadworthy has no checks for the task {mapping.task}")
        target = Target(endpoint.base_url, endpoint.api_key, request_id_header=endpoint.options.request_id_header)
        transport = adapted(self._transport, endpoint.options.adapter, endpoint.base_url)
        bounds = Settings(
            concurrency=2, max_requests=40, max_trials=TRIALS, max_retries=1, total_timeout_s=endpoint.options.timeout_s
        )
        return outcome(await Runner(target, transport, profile.planned(facts), bounds).run())


def _facts(mapping: Mapping, endpoint: Endpoint) -> Facts | None:
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
        fuzz_examples=0,
    )
    return replace(frame, jobs=Jobs(**endpoint.options.jobs.model_dump())) if api is Api.JOBS else frame
