"""A statement in the forms that payers ask for. Every form has the same rows and the same sums.

JSON and Parquet have each amount as an exact number; beside it stands the same as decimal USD, since JavaScript
reads integers exactly only up to 2^53 (nine million USD).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from roadworthy.billing.cells import cell
from roadworthy.billing.dates import shown_day, shown_time
from roadworthy.billing.money import shown_claim, shown_usd, usd
from roadworthy.billing.statement import Correction, Line, Statement, amount
from roadworthy.billing.store.disputes import Dispute
from roadworthy.errors import UsageError
from roadworthy.pages import environment, file

PACKAGE = "roadworthy.billing"

COLUMNS = (
    "section",
    "day",
    "provider",
    "model",
    "request_id",
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "charged_nano_usd",
    "corrected_nano_usd",
    "amount_nano_usd",
    "amount_usd",
    "before_nano_usd",
    "after_nano_usd",
    "posted_at",
    "reason",
)
_NUMBERS = {"requests", "input_tokens", "cached_input_tokens", "output_tokens"}


def rows(statement: Statement) -> list[dict[str, Any]]:
    """The statement as one table: `served` and `late` lines, and a row for each correction.

    One of an earlier month is a `correction`. One that is `included` in its line's amount already has the amount 0
    here, so that the column sums up to what is to be paid; by how much it changed what, `before` and `after` tell.
    """
    found = [_line_row("served", line) for line in statement.lines]
    found += [_line_row("late", line) for line in statement.late]
    found += [_correction_row("correction", one) for one in statement.corrections]
    return found + [_correction_row("included", one) for one in statement.included]


def _line_row(section: str, line: Line) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {
        "section": section,
        "day": shown_day(line.day),
        "provider": line.provider,
        "model": line.model,
        "requests": line.requests,
        "input_tokens": line.input_tokens,
        "cached_input_tokens": line.cached_input_tokens,
        "output_tokens": line.output_tokens,
        "charged_nano_usd": line.charged_nano_usd,
        "corrected_nano_usd": line.corrected_nano_usd,
        "amount_nano_usd": line.amount_nano_usd,
        "amount_usd": usd(line.amount_nano_usd),
    }


def _correction_row(section: str, one: Correction) -> dict[str, Any]:
    change = one.amount_nano_usd if section == "correction" else 0
    return dict.fromkeys(COLUMNS) | {
        "section": section,
        "day": shown_day(one.day),
        "provider": one.provider,
        "model": one.model,
        "request_id": one.request_id,
        "corrected_nano_usd": change,
        "amount_nano_usd": change,
        "amount_usd": usd(change),
        "before_nano_usd": one.before_nano_usd,
        "after_nano_usd": one.after_nano_usd,
        "posted_at": shown_time(one.posted_at_us),
        "reason": one.reason,
    }


def as_csv(statement: Statement) -> bytes:
    """RFC 4180, UTF-8. A text that a spreadsheet would run as a formula has an apostrophe before it."""
    return csv_of(COLUMNS, rows(statement))


def csv_of(columns: Sequence[str], found: Iterable[dict[str, Any]]) -> bytes:
    """Rows as CSV, with a header."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in found:
        writer.writerow([cell(name, row[name]) for name in columns])
    return out.getvalue().encode()


def as_json(statement: Statement) -> bytes:
    """One object: what is charged, by line, and what is not."""
    whole = {
        "payer": statement.payer,
        "month": str(statement.month),
        "madeAt": shown_time(statement.made_at_us),
        "closed": statement.closed,
        "requests": statement.requests,
        **amounts("amount", statement.amount_nano_usd),
        "served": [_camel(_line_row("served", line)) for line in statement.lines],
        "late": [_camel(_line_row("late", line)) for line in statement.late],
        "corrections": [_correction(one) for one in statement.corrections],
        "includedCorrections": [_correction(one) for one in statement.included],
        "notIncluded": {
            "pendingRequests": statement.pending,
            "disputedRequests": statement.uncharged_disputes,
        },
        "disputes": [_dispute(one) for one in statement.disputes],
    }
    return json.dumps(whole, indent=2, ensure_ascii=False).encode() + b"\n"


def amounts(name: str, nano_usd: int | None) -> dict[str, Any]:
    """An amount as JSON tells it: a whole number of nano-USD, and decimal USD as text."""
    return {f"{name}NanoUsd": nano_usd, f"{name}Usd": None if nano_usd is None else usd(nano_usd)}


def _camel(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or name in {"section", "amount_usd"}:
            continue
        if name.endswith("_nano_usd"):
            found |= amounts(name.removesuffix("_nano_usd"), value)
            continue
        first, *more = name.split("_")
        found[first + "".join(part.capitalize() for part in more)] = value
    return found


def _correction(one: Correction) -> dict[str, Any]:
    return {
        "day": shown_day(one.day),
        "provider": one.provider,
        "model": one.model,
        "requestId": one.request_id,
        **amounts("before", one.before_nano_usd),
        **amounts("after", one.after_nano_usd),
        **amounts("amount", one.amount_nano_usd),
        "postedAt": shown_time(one.posted_at_us),
        "reason": one.reason,
    }


def _dispute(one: Dispute) -> dict[str, Any]:
    return {
        "id": one.id,
        "provider": one.provider,
        "requestId": one.request_id,
        "openedAt": shown_time(one.opened_at_us),
        "reason": one.reason,
        "claimed": one.claimed,
        **amounts("claimed", one.claimed_nano_usd),
        **amounts("cost", one.cost_nano_usd),
        "resolvedAt": None if one.resolved_at_us is None else shown_time(one.resolved_at_us),
        "note": one.note,
    }


def as_table(statement: Statement) -> bytes:
    """For a terminal: plain text."""
    out = [f"{statement.payer}, {statement.month} (UTC): {shown_usd(statement.amount_nano_usd)}", ""]
    for title, lines in (("Served", statement.lines), ("Served earlier, charged this month", statement.late)):
        if lines:
            out += [f"{title}: {shown_usd(amount(lines))}"]
            head = ["day", "provider", "model", "requests", "input", "cached", "output", "amount (USD)"]
            out += [*_aligned(head, [_cells(line) for line in lines], 3), ""]
    if statement.corrections:
        out += [f"Corrections of earlier months: {shown_usd(amount(statement.corrections))}"]
        out += [*_told(statement.corrections), ""]
    if statement.included:
        out += ["Corrected or judged this month; the amounts above include it:", *_told(statement.included), ""]
    out += notes(statement)
    return ("\n".join(out) + "\n").encode(errors="replace")


def _told(corrections: Iterable[Correction]) -> list[str]:
    told = []
    for one in corrections:
        before = "not charged" if one.before_nano_usd is None else shown_usd(one.before_nano_usd)
        told += [
            f"{shown_time(one.posted_at_us)}  {one.request_id} of {one.provider}, served {shown_day(one.day)}",
            f"  {before} -> {shown_usd(one.after_nano_usd)} ({shown_usd(one.amount_nano_usd)}): {one.reason}",
        ]
    return told


def notes(statement: Statement) -> list[str]:
    """What a reader must know beside the sums, a sentence each."""
    said = [
        f"The month is over: its sums will not change. Made {shown_time(statement.made_at_us)}."
        if statement.closed
        else f"The month is not over: its sums will grow. Made {shown_time(statement.made_at_us)}."
    ]
    if statement.pending:
        said.append(f"Not included, since their costs are not known yet: {_requests(statement.pending)}.")
    if statement.uncharged_disputes:
        said.append(f"Not included, since their costs are disputed: {_requests(statement.uncharged_disputes)}.")
    posted = sum(1 for one in statement.disputes if one.resolved_at_us is None and one.cost_nano_usd is not None)
    if posted:
        said.append(f"Included as posted, and disputed: {_requests(posted)}.")
    return said


def _requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"


def _cells(line: Line) -> list[str]:
    counts = [line.requests, line.input_tokens, line.cached_input_tokens, line.output_tokens]
    return [shown_day(line.day), line.provider, line.model, *map(str, counts), usd(line.amount_nano_usd)]


def _aligned(head: list[str], cells: list[list[str]], numbers_from: int) -> list[str]:
    widths = [max(len(row[at]) for row in [head, *cells]) for at in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if at >= numbers_from else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *cells]
    ]


def as_html(statement: Statement) -> bytes:
    """A page that prints well and needs neither scripts nor anything from elsewhere."""
    template = _environment().get_template("statement.html")
    return str(
        template.render(
            statement=statement,
            style=file(PACKAGE, "statement.css"),
            notes=notes(statement),
            served=amount(statement.lines),
            late=amount(statement.late),
            corrected=amount(statement.corrections),
        )
    ).encode(errors="replace")


@cache
def _environment() -> Any:
    made = environment(PACKAGE)
    made.filters |= {
        "usd": usd,
        "claim": shown_claim,
        "shown_usd": shown_usd,
        "day": shown_day,
        "time": shown_time,
    }
    return made


def as_parquet(statement: Statement) -> bytes:
    """The rows of `COLUMNS`: amounts are `decimal128(38, 0)` nano-USD and `decimal128(38, 9)` USD, exact.

    Raises `UsageError` where pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError:
        raise UsageError("Parquet needs the package pyarrow; pip install 'roadworthy[parquet]' brings it") from None
    found = rows(statement)
    kinds = {
        name: pa.int64()
        if name in _NUMBERS
        else pa.decimal128(38, 9)
        if name == "amount_usd"
        else pa.decimal128(38, 0)
        if name.endswith("_nano_usd")
        else pa.string()
        for name in COLUMNS
    }
    columns = {
        name: pa.array(
            [row[name] if row[name] is None or not name.endswith("_usd") else Decimal(row[name]) for row in found],
            type=kind,
        )
        for name, kind in kinds.items()
    }
    about = {"payer": statement.payer, "month": str(statement.month), "amount_usd": usd(statement.amount_nano_usd)}
    table = pa.table(columns).replace_schema_metadata(about)
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


FORMATS: dict[str, Callable[[Statement], bytes]] = {
    "table": as_table,
    "csv": as_csv,
    "json": as_json,
    "html": as_html,
    "parquet": as_parquet,
}
