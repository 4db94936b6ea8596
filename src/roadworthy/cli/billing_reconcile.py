"""`roadworthy billing reconcile`: settled against expected, against the invoice, against what was served."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import cast

import sqlalchemy as sa
import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.prices import decimal_of, time_us
from roadworthy.billing.reconcile.amounts import Mark, nano_of_usd
from roadworthy.billing.reconcile.compare import compare
from roadworthy.billing.reconcile.files import sinks, whole_file
from roadworthy.billing.reconcile.invoice import Invoice
from roadworthy.billing.reconcile.outcome import EXIT_CODES, Outcome, Terms
from roadworthy.billing.reconcile.report import InvoiceFacts, Report, as_json
from roadworthy.billing.reconcile.whole import Whole, look
from roadworthy.billing.settings import read_settings
from roadworthy.billing.tables import cost_endpoints, prices, usage
from roadworthy.cli.operator import read
from roadworthy.cli.options import Where
from roadworthy.database import Database, shown_url
from roadworthy.database.engine import async_url
from roadworthy.errors import UsageError
from roadworthy.mapping_api.store import mappings

TO_STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True)
class Asked:
    """The options of the command, as they were given."""

    provider: str
    month: str | None = None
    since: str | None = None
    until: str | None = None
    invoice: Path | None = None
    columns: Sequence[str] = ()
    decimal_mark: str | None = None
    tolerance_usd: str = "0"
    tolerance_percent: str = "0"
    rounding_nano_usd: int = 1000
    csv: Path | None = None
    parquet: Path | None = None
    json: Path | None = None
    html: Path | None = None
    whole_ledger: bool = False


def reconcile(where: Where, asked: Asked) -> int:
    """Reconcile, show it, write the files; the exit code. Raises `UsageError`."""
    from_us, to_us = period(asked.month, asked.since, asked.until)
    terms = Terms(
        asked.provider,
        from_us,
        to_us,
        rounding_nano_usd=asked.rounding_nano_usd,
        tolerance_nano_usd=_tolerance(asked.tolerance_usd),
        tolerance_percent=_percent(asked.tolerance_percent),
        missing_after_s=read_settings(where.config).expire_after_s,
    )
    columns = _columns(asked.columns)
    if asked.decimal_mark not in {None, ".", ","}:
        raise UsageError(f"--decimal-mark: expected . or ,; got {asked.decimal_mark[:20]!r}")
    if asked.invoice is None and (columns or asked.decimal_mark is not None):
        raise UsageError("--column and --decimal-mark say how to read an invoice; name it with --invoice")

    async def work(database: Database) -> Report:
        with ExitStack() as opened:
            invoice = None
            if asked.invoice is not None:
                invoice = opened.enter_context(
                    Invoice(asked.invoice, columns=columns, mark=cast("Mark | None", asked.decimal_mark))
                )
            # Entered before anything is read: a path that cannot be written is told at once.
            sink = opened.enter_context(sinks(asked.csv, asked.parquet))
            async with database.reading() as connection:
                await _known(connection, asked.provider)
                names: dict[str, list[str]] = {}
                for each in await mappings.of_provider(connection, asked.provider):
                    if each.hf_model is not None:
                        names.setdefault(each.provider_model, []).append(each.hf_model)
                now_us = await database.now_us(connection)
                outcome = await compare(connection, now_us, terms, invoice=invoice, names=names, sink=sink)
            whole = await look(database) if asked.whole_ledger else None
            return _report(database, outcome, invoice, whole)

    report = read(where, work)
    _write(report, asked)
    if report.whole is not None and not report.whole.fits:
        return 1
    return EXIT_CODES[report.outcome.verdict]


def period(month: str | None, since: str | None, until: str | None) -> tuple[int, int]:
    """The period in microseconds since 1970 UTC, its end left out. Raises `UsageError`."""
    if month is not None:
        if since is not None or until is not None:
            raise UsageError("--month is a whole month; leave --from and --to out, or --month")
        found = re.fullmatch(r"([0-9]{4})-([0-9]{2})", month)
        if not found or not 1 <= int(found[2]) <= 12 or not 1970 <= int(found[1]) <= 9998:
            raise UsageError(f"--month: expected a month of UTC such as 2026-10, got {month[:40]!r}")
        year, number = int(found[1]), int(found[2])
        first = datetime(year, number, 1, tzinfo=UTC)
        after = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
        return int(first.timestamp()) * 1_000_000, int(after.timestamp()) * 1_000_000
    if since is None or until is None:
        raise UsageError("which period? Give --month 2026-10, or --from and --to with times of UTC")
    from_us, to_us = _time("--from", since), _time("--to", until)
    if from_us >= to_us:
        raise UsageError(f"--from must be before --to; got {since} and {until}")
    return from_us, to_us


def _time(option: str, text: str) -> int:
    try:
        return time_us(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def _tolerance(text: str) -> int:
    if "," in text:
        raise UsageError(f"--tolerance-usd: expected USD such as 1234 or 0.5, without commas; got {text[:40]!r}")
    try:
        nano, rounded = nano_of_usd(text)
    except UsageError as error:
        raise UsageError(f"--tolerance-usd: {error}") from None
    if rounded or nano < 0:
        raise UsageError(f"--tolerance-usd: expected USD with at most 9 decimals, not negative; got {text[:40]!r}")
    return nano


def _percent(text: str) -> Decimal:
    try:
        value = decimal_of(text)
    except UsageError as error:
        raise UsageError(f"--tolerance-percent: {error}") from None
    if value > 100:
        raise UsageError(f"--tolerance-percent: expected 0 to 100, got {text}")
    return value


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    columns = {}
    for pair in pairs:
        name, mark, header = pair.partition("=")
        if not mark or not header:
            raise UsageError(
                f"--column: expected our name, =, and the file's header, such as cost_usd=Net; got {pair!r}"
            )
        columns[name.strip()] = header
    return columns


async def _known(connection: AsyncConnection, provider: str) -> None:
    """Raises `UsageError` for a provider that nothing is known of: a slip of the pen must not pass for a month."""
    for table in (usage, cost_endpoints, prices):
        query = sa.select(table.c.provider).where(table.c.provider == provider).limit(1)
        if (await connection.execute(query)).first() is not None:
            return
    raise UsageError(
        f"no request, price or cost endpoint of the provider {provider[:64]!r} is known here; check the slug"
    )


def _report(database: Database, outcome: Outcome, invoice: Invoice | None, whole: Whole | None) -> Report:
    facts = None
    if invoice is not None:
        facts = InvoiceFacts(invoice.path.name, invoice.digest, invoice.by_request, invoice.by, invoice.totals)
    return Report(outcome, _command(sys.argv[1:]), shown_url(database.url), facts, whole)


def _command(arguments: Sequence[str]) -> str:
    """The command line, without the database's password."""
    shown = []
    for previous, each in zip(["", *arguments], arguments, strict=False):
        name, mark, value = each.partition("=")
        if previous == "--database":
            shown.append(shown_url(async_url(each)))
        elif name == "--database" and mark:
            shown.append(f"{name}={shown_url(async_url(value))}")
        else:
            shown.append(each)
    return shlex.join(["roadworthy", *shown])


def _write(report: Report, asked: Asked) -> None:
    files = [str(path) for path in (asked.csv, asked.parquet) if path is not None]
    if asked.html is not None:
        from roadworthy.billing.reconcile.page import render

        page = render(report, style=_shared("style.css"), script=_shared("script.js"))
        with whole_file(asked.html) as part:
            part.write_text(page, encoding="utf-8", errors="replace")
    if asked.json is not None:
        text = json.dumps(as_json(report, files), indent=2, ensure_ascii=False)
        if asked.json == TO_STANDARD_OUTPUT:
            typer.echo(text)
            return
        with whole_file(asked.json) as part:
            part.write_text(text + "\n", encoding="utf-8", errors="replace")
    from rich.console import Console

    from roadworthy.billing.reconcile.terminal import show

    show(report, Console(highlight=False))


def _shared(name: str) -> str:
    """A part of the conformance report's page: the pages of one toolkit look alike."""
    return (resources.files("roadworthy.conformance.report") / "templates" / name).read_text(encoding="utf-8")
