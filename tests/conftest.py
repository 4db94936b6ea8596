"""What all tests share: running a plan against a sandbox in a thread."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as drawing

from roadworthy.conformance.adapter import AdapterTable, adapted
from roadworthy.conformance.check import Check
from roadworthy.conformance.facts import Billing, BillingKey, Facts, Jobs, VerdictLimits
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.run import Run, Runner, Settings
from roadworthy.conformance.subject import Subject
from roadworthy.conformance.target import CostEndpoint, Target
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.mutation import Mutation
from roadworthy.sandbox.server import running

# The same examples everywhere, and no clock: a slow machine fails no test.
drawing.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
drawing.load_profile("steady")

MODEL = "acme/chat-1"
KEY = "sandbox-key-0123456789abcdef"

pytest_plugins = ["browsing", "services"]

RunSandbox = Callable[..., Run]


def run_against(
    url: str,
    *,
    checks: Sequence[Check] | None = None,
    limits: VerdictLimits | None = None,
    settings: Settings | None = None,
    fuzz_examples: int = 24,
    adapter: AdapterTable | None = None,
    subject: str = MODEL,
    billing: bool = False,
    **facts: Any,
) -> Run:
    """Send the plan of these checks (all of them by default, opt-in ones too) to a URL.

    `billing` names the sandbox's cost endpoint too.
    """
    from roadworthy.http.aiohttp_transport import AiohttpTransport

    costs = CostEndpoint(f"{url}/request-costs", KEY) if billing else None

    async def go() -> Run:
        transport = adapted(AiohttpTransport(), adapter or AdapterTable(), url)
        try:
            about = Subject.parse(subject)
            frame = Facts(
                url,
                about.model,
                about.task,
                about.api,
                judged_at=int(time.time()),
                limits=limits or VerdictLimits(),
                fuzz_examples=fuzz_examples,
                probe_advertised_models=3,
                jobs=Jobs(interval_s=0.01),
                billing=Billing(costs.url, BillingKey.SHARED) if costs else None,
                **facts,
            )
            chosen = checks if checks is not None else select()
            return await Runner(Target(url, KEY, cost_endpoint=costs), transport, plan(frame, chosen), settings).run()
        finally:
            await transport.aclose()

    return asyncio.run(go())


class Stage:
    """An application that hands every request to whichever sandbox is on: one server serves a thousand runs."""

    sandbox: Sandbox

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.sandbox(scope, receive, send)


@pytest.fixture(scope="session")
def stage() -> Generator[tuple[Stage, str], None, None]:
    """A server on a free port for all runs of this process."""
    stage = Stage()
    with running(stage) as url:
        yield stage, url


@pytest.fixture
def run_sandbox(stage: tuple[Stage, str]) -> RunSandbox:
    """Put a sandbox with these mutations on the stage and run the checks on it."""
    app, url = stage

    def go(*mutations: Mutation, options: Options | None = None, **kwargs: Any) -> Run:
        app.sandbox = Sandbox(mutations, options or Options(api_key=KEY))
        return run_against(url, **kwargs)

    return go


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ROADWORTHY_FORBID_SKIPS=1, as in CI, a skip is a failure: what the tests need must be there."""
    return _forbid_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module."""
    return _forbid_skip((yield))


def _forbid_skip(report: Any) -> Any:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("ROADWORTHY_FORBID_SKIPS") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (ROADWORTHY_FORBID_SKIPS=1 forbids skipping)"
    return report


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
