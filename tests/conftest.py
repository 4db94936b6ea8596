"""What all tests share: running a plan against a sandbox in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from roadworthy.conformance.check import Check
from roadworthy.conformance.facts import Facts, VerdictLimits
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.run import Run, Runner, Settings
from roadworthy.conformance.target import Target
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.mutation import Mutation
from roadworthy.sandbox.server import running

MODEL = "acme/chat-1"
KEY = "sandbox-key-0123456789abcdef"

RunSandbox = Callable[..., Run]


def run_against(
    url: str,
    *,
    checks: Sequence[Check] | None = None,
    limits: VerdictLimits | None = None,
    settings: Settings | None = None,
    fuzz_examples: int = 12,
) -> Run:
    """Send the plan of these checks (all of them by default, opt-in ones too) to a URL."""
    from roadworthy.http.aiohttp_transport import AiohttpTransport

    async def go() -> Run:
        transport = AiohttpTransport()
        try:
            frame = Facts(
                url,
                MODEL,
                judged_at=int(time.time()),
                limits=limits or VerdictLimits(),
                fuzz_examples=fuzz_examples,
                probe_advertised_models=3,
            )
            chosen = checks if checks is not None else select()
            return await Runner(Target(url, KEY), transport, plan(frame, chosen), settings).run()
        finally:
            await transport.aclose()

    return asyncio.run(go())


@pytest.fixture
def run_sandbox() -> RunSandbox:
    """Start a sandbox with these mutations, run the checks on it, end it."""

    def go(*mutations: Mutation, options: Options | None = None, **kwargs: object) -> Run:
        with running(Sandbox(mutations, options or Options(api_key=KEY))) as url:
            return run_against(url, **kwargs)  # type: ignore[arg-type]

    return go
