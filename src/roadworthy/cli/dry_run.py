"""`roadworthy check --dry-run`: the plan, its tokens, and an upper bound of its cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from roadworthy.conformance.adapter import AdapterTable, adapted
from roadworthy.conformance.check import Check
from roadworthy.conformance.dry_run import Outline, expects_refusal, outline, totals
from roadworthy.conformance.plan import plan
from roadworthy.conformance.price import Price
from roadworthy.conformance.report.text import plural
from roadworthy.conformance.run import Settings
from roadworthy.conformance.settings import CheckSettings
from roadworthy.conformance.target import Target
from roadworthy.errors import UsageError
from roadworthy.schemas import manifest

NANO_USD_PER_USD = 1_000_000_000


def show(
    provider: Target,
    models: Sequence[str],
    settings: CheckSettings,
    checks: Sequence[Check],
    price: str | None,
    *,
    ca_file: Path | None = None,
) -> None:
    """Print every request that a check would send, with bounds of tokens and cost.

    The one request it sends itself is GET /models, which costs nothing, and not
    even that where `price` is given.
    """
    console = Console(highlight=False)
    for model in models:
        subject = settings.subject(model)
        facts = settings.facts(provider, subject, int(time.time()))
        known = (
            parse_price(price) if price else asyncio.run(_published(provider, subject.model, settings.adapter, ca_file))
        )
        bounds = Settings(max_trials=settings.check.trials)
        planned = plan(facts, checks)
        outlines = outline(planned, bounds)
        console.print(_table(outlines, model))
        requests, prompt, completion = totals(outlines)
        capped = min(requests, settings.check.max_requests)
        console.print(
            f"At most {capped} requests (budget {settings.check.max_requests}), {prompt:,} prompt tokens and "
            f"{completion:,} completion tokens; retries after 429 and 503 come on top, within the budget."
        )
        form = manifest.manifest(subject.task)
        if form is not None and form.response != "json":
            console.print("Cost: unknown, since pictures, sounds and films are not priced by the token.")
        elif known is None:
            console.print("Cost: unknown, since /models gives no price for this model. Give --price IN,OUT.")
        else:
            bound = known.cost_nano_usd(prompt, completion)
            console.print(f"Cost: at most {_usd(bound)} USD, at {known.describe()}.")
        console.print(f"{plural(len(planned.checks), 'check')} would be judged.\n")


def parse_price(text: str) -> Price:
    """A price given as "IN,OUT" in USD per million tokens. Raises `UsageError` for anything else."""
    parts = text.split(",")
    price = Price.parse(parts[0].strip(), parts[1].strip()) if len(parts) == 2 else None
    if price is None:
        raise UsageError(f"--price {text}: expected two figures in USD per million tokens, such as --price 0.2,0.6")
    return price


async def _published(provider: Target, model: str, adapter: AdapterTable, ca_file: Path | None) -> Price | None:
    from roadworthy.conformance.facts import Facts
    from roadworthy.conformance.plan import Plan
    from roadworthy.conformance.price import published_price
    from roadworthy.conformance.probe import PROBES
    from roadworthy.conformance.run import Runner
    from roadworthy.http.aiohttp_transport import AiohttpTransport

    transport = adapted(AiohttpTransport(ca_file=ca_file), adapter, provider.base_url)
    try:
        only_models = Plan(Facts(provider.base_url, model), (), (PROBES["discovery.models"],))
        run = await Runner(provider, transport, only_models, Settings(max_retries=0, total_timeout_s=10)).run()
    finally:
        await transport.aclose()
    return published_price(run.exchanges[0], model) if run.exchanges else None


def _table(outlines: Sequence[Outline], model: str) -> Table:
    table = Table(title=f"Plan for {model}", title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("probe", no_wrap=True)
    table.add_column("request", no_wrap=True)
    table.add_column("times", justify="right", no_wrap=True)
    table.add_column("tokens in/out at most", justify="right", no_wrap=True)
    table.add_column("for")
    for item in outlines:
        if item.skipped:
            table.add_row(item.probe.id, "-", "0", "-", f"not sent: {item.skipped}")
            continue
        request = (
            f"{item.request.method} {urlsplit(item.request.path).path[:40]}"
            if item.request
            else "after " + ", ".join(needed.id for needed in item.probe.after)
        )
        times = str(item.times_at_most)
        if item.times_at_least != item.times_at_most:
            times = f"{item.times_at_least}-{item.times_at_most}"
        note = " (a healthy provider refuses it, free of charge)" if expects_refusal(item) else ""
        tokens = f"{item.prompt_tokens_at_most:,}/{item.completion_tokens_at_most:,}"
        table.add_row(item.probe.id, request, times, tokens, item.probe.purpose + note)
    return table


def _usd(nano_usd: int) -> str:
    """Nano-USD as USD, rounded up to a hundredth of a cent, by integers alone."""
    units = -(-nano_usd // 100_000)
    return f"{units // 10_000}.{units % 10_000:04d}"
