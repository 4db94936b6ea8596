"""What a full chat run costs: requests per check, and wall time against bare requests of the same number.

Run: `python bench/economy.py`. Prints ratios from interleaved rounds, since machines are shared and noisy.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time

from roadworthy.conformance import session
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.report.model import Report
from roadworthy.conformance.settings import CheckSettings
from roadworthy.conformance.target import Target
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.message import Limits, Request

MODEL = "acme/chat-1"
ROUNDS = 5


async def full_run(url: str) -> tuple[Report, float]:
    """One whole check, with its wall time in seconds."""
    transport = AiohttpTransport()
    started = time.perf_counter()
    try:
        report = await session.check(Target(url), [MODEL], CheckSettings(), select(), transport)
    finally:
        await transport.aclose()
    return report, time.perf_counter() - started


async def bare_requests(url: str, count: int) -> float:
    """Wall time in seconds of so many plain chat requests, four at a time, that nobody judges."""
    transport = AiohttpTransport()
    body = b'{"model":"acme/chat-1","messages":[{"role":"user","content":"Say hello."}],"max_tokens":16}'
    request = Request("POST", f"{url}/chat/completions", (("Content-Type", "application/json"),), body)
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await transport.send(request, Limits())

    started = time.perf_counter()
    try:
        await asyncio.gather(*(worker() for _ in range(4)))
    finally:
        await transport.aclose()
    return time.perf_counter() - started


def main() -> None:
    """Run the rounds and print the table."""
    sandbox = subprocess.Popen(
        [sys.executable, "-m", "roadworthy", "sandbox", "--port", "0", "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sandbox.stdout is not None
        url = sandbox.stdout.readline().strip()
        walls, bares = [], []
        for _ in range(ROUNDS):
            report, wall_s = asyncio.run(full_run(url))
            walls.append(wall_s)
            bares.append(asyncio.run(bare_requests(url, report.models[0].run.requests)))
    finally:
        sandbox.terminate()
        sandbox.wait()
    model = report.models[0]
    once = [p for p in plan(Facts(url, MODEL), select()).probes if not p.id.startswith("fuzz.")]
    wall_s, bare_s = statistics.median(walls), statistics.median(bares)
    print(f"verdict                                   {report.verdict.value}")
    print(f"checks                                    {len(model.results)}")
    print(f"probes (trials and generated bodies apart) {len(once)}: {len(model.results) / len(once):.2f} checks each")
    print(f"requests in all                           {model.run.requests}")
    print(f"wall time, median of {ROUNDS}                    {wall_s:.2f} s")
    print(f"bare requests of the same number          {bare_s:.2f} s (ratio {wall_s / bare_s:.2f})")


if __name__ == "__main__":
    main()
