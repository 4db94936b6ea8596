"""What it costs to check every task and API at once: requests and seconds, asked, consulted and judged.

Run: `python bench/tasks.py`. The official clients are asked where they are installed.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from roadworthy.conformance import session
from roadworthy.conformance.consult import consult
from roadworthy.conformance.judge import judge
from roadworthy.conformance.offer import offers
from roadworthy.conformance.plan import select
from roadworthy.conformance.report.model import Report
from roadworthy.conformance.settings import CheckSettings
from roadworthy.conformance.target import Target
from roadworthy.http.aiohttp_transport import AiohttpTransport

ROUNDS = 3
WITHOUT_CLIENTS = {"clients": False}
KINDS = {"as it is": WITHOUT_CLIENTS, "without generated requests": {**WITHOUT_CLIENTS, "fuzz_examples": 0}}


@dataclass(frozen=True)
class Round:
    """One check of everything: its report, and seconds of finding out, asking, consulting and judging."""

    report: Report
    offered_s: float
    asked_s: float
    consulted_s: float
    judged_s: float


async def check_all(url: str, kind: dict[str, object]) -> Round:
    """Find out what is served, and check all of it."""
    settings = CheckSettings.model_validate({"check": kind})
    target, transport = Target(url), AiohttpTransport()
    try:
        started = time.perf_counter()
        labels = [subject.label for subject in await offers(target, transport, session.bounds(settings))]
        offered = time.perf_counter()
        report = await session.check(target, labels, settings, select(), transport)
        asked = time.perf_counter()
    finally:
        await transport.aclose()
    runs = await consult([model.run for model in report.models])
    consulted = time.perf_counter()
    for run in runs:
        judge(run.checks, run.exchanges, run.facts, run.unsent)
    judged = time.perf_counter()
    return Round(report, offered - started, asked - offered, consulted - asked, judged - consulted)


def main() -> None:
    """Run the rounds and print the table."""
    sandbox = subprocess.Popen(
        [sys.executable, "-m", "roadworthy", "sandbox", "--port", "0", "--all-tasks", "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    rounds: dict[str, list[Round]] = {name: [] for name in KINDS}
    try:
        assert sandbox.stdout is not None
        url = sandbox.stdout.readline().strip()
        for _ in range(ROUNDS):
            for name, kind in KINDS.items():
                rounds[name].append(asyncio.run(check_all(url, kind)))
    finally:
        sandbox.terminate()
        sandbox.wait()
    print(
        f"{'':28} subjects  checks  requests  checks/request  find out    ask  clients  judge  (s, median of {ROUNDS})"
    )
    for name, made in rounds.items():
        report = made[-1].report
        checks = sum(len(model.results) for model in report.models)
        requests = sum(model.run.requests for model in report.models)
        seconds = [
            statistics.median(getattr(one, part) for one in made)
            for part in ("offered_s", "asked_s", "consulted_s", "judged_s")
        ]
        figures = "  ".join(f"{second:6.2f}" for second in seconds)
        print(f"{name:28} {len(report.models):8}  {checks:6}  {requests:8}  {checks / requests:14.2f}  {figures}")


if __name__ == "__main__":
    main()
