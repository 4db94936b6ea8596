"""`roadworthy demo`: the main job on the embedded sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from roadworthy.cli.check import write_reports
from roadworthy.conformance import recording, session
from roadworthy.conformance.offer import offers
from roadworthy.conformance.plan import select
from roadworthy.conformance.report import terminal
from roadworthy.conformance.report.model import Report
from roadworthy.conformance.settings import CheckSettings, ReportsTable
from roadworthy.conformance.target import CostEndpoint, Target
from roadworthy.conformance.verdict import ExitCode
from roadworthy.errors import RoadworthyError, UsageError

KEY = "sandbox-demo-key-not-a-secret"
MODEL = "acme/chat-1"
FAULTS = (
    "chat.stream.no_done",
    "chat.usage.total_wrong",
    "tools.arguments_object",
    "structured.fenced",
    "billing.unknown_zero",
)


PARTS = ("all", "check", "services")


def run(out: Path, part: str = "all") -> None:
    """Show what roadworthy does for a provider ("check"), for a hub ("services"), or "all" of it.

    Raises `RoadworthyError` when the sandbox does not behave, `UsageError` for another part.
    """
    if part not in PARTS:
        raise UsageError(f"--part is one of {', '.join(PARTS)}; got {part!r}")
    console = Console(highlight=False)
    if part != "services":
        _checks(console, out)
    if part == "check":
        return
    missing = [name for name in ("fastapi", "sqlalchemy") if importlib.util.find_spec(name) is None]
    if missing and part == "all":
        console.print(
            "\nThe hub's side needs more: pip install 'roadworthy[server]', then roadworthy demo --part services"
        )
        return
    from roadworthy.cli import demo_services

    demo_services.run(console, out / "services", _sandbox, KEY, first=1 if part == "services" else 4)


def _checks(console: Console, out: Path) -> None:
    """Check a healthy provider, one with a handful of faults, and one of every task; say where the reports are."""
    out.mkdir(parents=True, exist_ok=True)
    console.rule("1. A healthy provider")
    healthy = _check(console, (), out / "healthy")
    console.rule("2. A provider with five faults")
    console.print("  " + "\n  ".join(FAULTS), style="dim")
    faulty = _check(console, FAULTS, out / "faulty")
    console.rule("3. A provider of every task, by every API")
    every = _check(console, (), out / "every-task", everything=True)
    console.rule("Where to look")
    for name, report in (("healthy", healthy), ("faulty", faulty), ("every-task", every)):
        console.print(f"{name:10} {report.verdict.value.upper():5} {(out / name / 'report.html').resolve().as_uri()}")
    console.print(
        f"\nThe same on your API:   roadworthy check https://api.example.com/v1 --model NAME"
        f"\nJudge it again offline: roadworthy replay {out / 'faulty' / 'run.jsonl'}",
        soft_wrap=True,
    )
    if (healthy.exit_code, faulty.exit_code, every.exit_code) != (ExitCode.PASS, ExitCode.FAIL, ExitCode.PASS):
        raise RoadworthyError("the sandbox did not give a pass, a fail and a pass; please report this")


def _check(console: Console, faults: Sequence[str], out: Path, *, everything: bool = False) -> Report:
    out.mkdir(parents=True, exist_ok=True)
    with _sandbox(faults) as url:
        report = asyncio.run(_ask(console, url, everything=everything))
    with (out / "run.jsonl").open("w", encoding="utf-8") as file:
        recording.write(file, [model.run for model in report.models])
    (out / "summary.md").unlink(missing_ok=True)
    reports = {"html": "report.html", "json": "report.json", "junit": "junit.xml", "badge": "badge.svg"}
    paths = {kind: out / name for kind, name in (reports | {"markdown": "summary.md"}).items()}
    write_reports(report, ReportsTable(**paths))
    terminal.show(report, console)
    return report


async def _ask(console: Console, url: str, *, everything: bool) -> Report:
    from roadworthy.http.aiohttp_transport import AiohttpTransport

    settings, transport = CheckSettings(), AiohttpTransport()
    target = Target(url, KEY, cost_endpoint=CostEndpoint(f"{url}/request-costs", KEY))
    watch = terminal.Watch(console)
    try:
        models = [MODEL]
        if everything:
            models = [subject.label for subject in await offers(target, transport, session.bounds(settings))]
        return await session.check(target, models, settings, select(), transport, watch=watch.model)
    finally:
        watch.close()
        await transport.aclose()


@contextlib.contextmanager
def _sandbox(faults: Sequence[str]) -> Iterator[str]:
    """The sandbox in a process of its own, so that its work does not disturb our clocks; gives its base URL."""
    command = [sys.executable, "-m", "roadworthy", "sandbox", "--port", "0", "--until-stdin-closes"]
    command += [
        "--all-tasks",
        "--api-key-env",
        "ROADWORTHY_DEMO_KEY",
        "--first-token-delay",
        "0.02",
        "--token-delay",
        "0.002",
    ]
    for fault in faults:
        command += ["--fault", fault]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ROADWORTHY_DEMO_KEY": KEY},
    )
    try:
        url = process.stdout.readline().strip() if process.stdout else ""
        if not url:
            raise RoadworthyError("the sandbox did not start; run `roadworthy sandbox` to see why")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
