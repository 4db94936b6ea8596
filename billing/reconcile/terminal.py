"""The reconciliation for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roadworthy.billing.reconcile.report import Report
from roadworthy.billing.reconcile.text import exact, iso, period, shown
from roadworthy.billing.reconcile.variance import Class, Variance
from roadworthy.pages import visible

WIDE = 100
IDS = 5
MODELS = 12
STYLES = {"within": "bold green", "beyond": "bold red", "undecided": "bold magenta"}
WORDS = {"within": "within tolerance", "beyond": "beyond tolerance", "undecided": "undecided"}
SYMBOLS = {"within": "✓", "beyond": "✗", "undecided": "?"}


def show(report: Report, console: Console) -> None:
    """Print it, for whatever width the console has."""
    outcome, terms = report.outcome, report.outcome.terms
    verdict = outcome.verdict
    head = Text(f"{SYMBOLS[verdict]} {WORDS[verdict]}", style=STYLES[verdict])
    head.append(f"  {terms.provider}, {period(terms.from_us, terms.to_us)}", style="default not bold")
    console.print(head)
    console.print(Text(f"  {report.sentence()}."))
    console.print(Text(f"  {_served(report)}."))
    _sums(report, console)
    _models(report, console)
    _classes(report, console)
    if report.whole is not None:
        console.print(Text(f"\nThe whole ledger: {report.whole.sentence()}."), style="" if report.whole.fits else "red")


def _served(report: Report) -> str:
    outcome = report.outcome
    parts = [f"{count:,} {state}" for state, count in outcome.states.items() if count]
    return f"{' + '.join(parts) or '0'} = {outcome.served:,} requests served"


def _grid(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    return table


def _sums(report: Report, console: Console) -> None:
    total = report.outcome.total
    table = _grid("", "USD")
    table.add_row("settled", shown(total.settled_nano_usd))
    table.add_row("expected by price", shown(total.expected_nano_usd))
    if report.outcome.unpriced_settled_nano_usd:
        table.add_row("settled without a known price", shown(report.outcome.unpriced_settled_nano_usd))
    if report.invoice is not None:
        table.add_row("invoiced", shown(report.invoice.totals.nano_usd))
    console.print()
    console.print(table)


def _models(report: Report, console: Console) -> None:
    models = report.models
    if not models:
        return
    table = _grid("model", "requests", "settled USD", "expected USD", "off USD")
    for model, sums in models[:MODELS]:
        table.add_row(
            Text(visible(model)),
            f"{sums.served:,}",
            shown(sums.settled_nano_usd),
            shown(sums.expected_nano_usd),
            shown(sums.off_nano_usd),
        )
    console.print()
    console.print(table)
    if len(models) > MODELS:
        console.print(Text(f"and {len(models) - MODELS:,} models more; --json lists them", style="dim"))


def _classes(report: Report, console: Console) -> None:
    if not report.classes:
        return
    wide = console.width >= WIDE
    table = _grid("variance", "count", "USD")
    if wide:
        table.add_column("what it is", overflow="fold")
    for kind, found in report.classes:
        style = "" if report.outcome.counts(kind) else "dim"
        row = [kind.value, f"{found.count:,}", _amount(found)]
        table.add_row(*row, *([report.meaning(kind)] if wide else []), style=style)
    console.print()
    console.print(table)
    for kind, found in report.classes:
        if report.outcome.counts(kind):
            _first(f"{kind.value}: {report.meaning(kind)}", found, console)


def _amount(found: Class) -> str:
    if found.unknown == found.count:
        return "not known"
    return f"{shown(found.amount_nano_usd, sign=True)}{' and more' if found.unknown else ''}"


def _first(title: str, found: Class, console: Console) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    for one in found.first[:IDS]:
        console.print(Text(f"  {_line(one)}"), overflow="fold")
    if found.count > IDS:
        console.print(Text(f"  and {found.count - IDS:,} more; --csv or --parquet writes all of them", style="dim"))


def _line(one: Variance) -> str:
    name = one.request_id or " ".join(
        part for part in ("" if one.served_at_us is None else iso(one.served_at_us)[:10], one.model) if part
    )
    parts = [
        f"{word} {exact(amount)}"
        for word, amount in (
            ("expected", one.expected_nano_usd),
            ("settled", one.settled_nano_usd),
            ("invoiced", one.invoiced_nano_usd),
        )
        if amount is not None
    ]
    told = "  ".join([*(["USD " + ", ".join(parts)] if parts else []), *([one.detail] if one.detail else [])])
    return f"{visible(name or 'in all')}  {visible(told)}".rstrip()
