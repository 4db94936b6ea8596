"""`roadworthy billing balance`, `verify`, `correct`, `dispute` and `statement`: the ledger read and put right."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import tempfile
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing import balances, verify
from roadworthy.billing.api_ledger import balance_row, entry_row
from roadworthy.billing.dates import Month, day_of, shown_day, shown_time
from roadworthy.billing.items import PAYER
from roadworthy.billing.money import shown_claim, shown_usd, usd
from roadworthy.billing.statement import statement
from roadworthy.billing.statement_formats import FORMATS, amounts, csv_of
from roadworthy.billing.store import corrections, disputes
from roadworthy.billing.store.disputes import Choice, Dispute, Entry
from roadworthy.billing.tables import balances as balance_rows
from roadworthy.billing.tables import cost_endpoints, usage
from roadworthy.cli.operator import iso, read, show
from roadworthy.cli.options import Where
from roadworthy.database import Database
from roadworthy.errors import UsageError
from roadworthy.mapping_api.tables import providers

WRONG = 1
"""The exit code of books that do not agree."""


def balance(where: Where, *, only: dict[str, str | None], period: tuple[str | None, str | None], **how: Any) -> None:
    """Print sums of the ledger: as a table, JSON or CSV."""
    by = [name.strip() for name in how["by"].split(",") if name.strip()]
    if how["as_json"] and how["as_csv"]:
        raise UsageError("--json and --csv exclude each other")
    days = [None if text is None else day_of(text) for text in period]
    if days[0] is not None and days[1] is not None and days[0] > days[1]:
        raise UsageError(f"--from {period[0]} is after --to {period[1]}")

    async def work(database: Database) -> list[balances.Balance]:
        async with database.reading() as connection:
            await _known(connection, only.get("payer"), only.get("provider"))
            to_day = None if days[1] is None else days[1] + 1
            return await balances.balance(connection, **only, from_day=days[0], to_day=to_day, by=by)

    rows = read(where, work)
    if how["as_json"]:
        typer.echo(json.dumps([balance_row(row) for row in rows], indent=2, ensure_ascii=False))
        return
    if how["as_csv"]:
        columns = (*by, "requests", "charged_nano_usd", "credited_nano_usd", "cost_nano_usd", "cost_usd")
        sys.stdout.buffer.write(csv_of(columns, [_csv_row(row) for row in rows]))
        return
    shown = [
        {
            **{name: _key(row, name) for name in by},
            "requests": row.requests,
            "charged": shown_usd(row.charged_nano_usd),
            "given_back": shown_usd(row.credited_nano_usd),
            "cost": shown_usd(row.net_nano_usd),
        }
        for row in rows
    ]
    show(shown, (*by, "requests", "charged", "given_back", "cost"), as_json=False, nothing="nothing was charged")


def _key(row: balances.Balance, name: str) -> Any:
    return shown_day(row.day) if name == "day" and row.day is not None else getattr(row, name)


def _csv_row(row: balances.Balance) -> dict[str, Any]:
    return {name: _key(row, name) for name in balances.BY} | {
        "requests": row.requests,
        "charged_nano_usd": row.charged_nano_usd,
        "credited_nano_usd": row.credited_nano_usd,
        "cost_nano_usd": row.net_nano_usd,
        "cost_usd": usd(row.net_nano_usd),
    }


def verify_books(where: Where, most: int, *, as_json: bool) -> None:
    """Compute everything anew and compare; exit code 1 where something differs."""
    books, kinds, first = verify.Books(), Counter[str](), list[verify.Problem]()

    async def work(database: Database) -> None:
        async with database.reading() as connection:
            async for found in verify.problems(connection, books):
                kinds[found.kind.value] += 1
                if len(first) < most:
                    first.append(found)

    read(where, work)
    if as_json:
        told = {
            "requests": dict(sorted(books.requests.items())),
            "entries": books.entries,
            "balances": books.balances,
            "disputes": books.disputes,
            "costNanoUsd": books.payers_nano_usd,
            "costUsd": usd(books.payers_nano_usd),
            "problems": dict(sorted(kinds.items())),
            "first": [{"kind": one.kind.value, "where": one.where, "what": one.what} for one in first],
        }
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        states = ", ".join(f"{count} {state}" for state, count in sorted(books.requests.items())) or "none"
        typer.echo(f"requests: {states}")
        typer.echo(f"entries: {books.entries}; balances: {books.balances}; disputes: {books.disputes}")
        typer.echo(f"payers owe, and providers earned: {shown_usd(books.payers_nano_usd)}")
        for one in first:
            typer.echo(f"{one.kind.value}: {one.where}: {one.what}")
        if len(first) < kinds.total():
            typer.echo(f"and {kinds.total() - len(first)} more; --most shows them")
        typer.echo(f"{kinds.total()} wrong" if kinds else "everything agrees")
    if kinds:
        raise typer.Exit(WRONG)


def correct(where: Where, provider: str, request_id: str, to_nano_usd: int, *, reason: str, by: str | None) -> None:
    """Let a settled request cost another amount."""

    async def work(database: Database) -> int:
        async with database.writing() as connection:
            query = sa.select(usage.c.id).where(usage.c.provider == provider, usage.c.request_id == request_id)
            usage_id = (await connection.execute(query)).scalar()
            if usage_id is None:
                raise UsageError(f"no request {request_id} of {provider} is known")
            now_us = await database.now_us(connection)
            return await corrections.correct(connection, usage_id, to_nano_usd, reason, by or _me(), now_us=now_us)

    change = read(where, work)
    verb = "charged more" if change > 0 else "given back"
    typer.echo(f"{request_id} of {provider} costs {shown_usd(to_nano_usd)} now: {shown_usd(abs(change))} {verb}")


def dispute_list(where: Where, provider: str | None, payer: str | None, *, resolved: bool, as_json: bool) -> None:
    """Print disputes: those that are open, or all."""

    async def work(database: Database) -> list[Dispute]:
        found: list[Dispute] = []
        async with database.reading() as connection:
            await _known(connection, payer, provider)
            while True:
                after = found[-1].id if found else 0
                more = await disputes.listed(connection, provider=provider, payer=payer, resolved=resolved, after=after)
                if not more:
                    return found
                found += more

    found = read(where, work)
    if as_json:
        typer.echo(json.dumps([_dispute_row(one) for one in found], indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo("there were no disputes" if resolved else "no dispute is open", err=True)
    head = ["id", "opened", "reason", "claimed (USD)", "costs now (USD)"]
    cells = [[str(one.id), shown_time(one.opened_at_us)[:10], one.reason, *_sums(one)] for one in found]
    widths = [max(len(row[at]) for row in [head, *cells]) for at in range(len(head))]
    details = [[], *([f"{one.request_id} of {one.provider}", *_more(one)] for one in found)]
    for row, below in zip([head, *cells], details, strict=True):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for text in below:
            _told(text)


def _sums(one: Dispute) -> list[str]:
    return [
        "see below" if one.claimed_nano_usd is None else usd(one.claimed_nano_usd),
        "nothing yet" if one.cost_nano_usd is None else usd(one.cost_nano_usd),
    ]


def _more(one: Dispute) -> list[str]:
    found = [f"{one.payer}, {one.model}"]
    if one.claimed_nano_usd is None:
        found.append(f"claimed: {shown_claim(one.claimed)}")
    if one.resolved_nano_usd is not None:
        found.append(f"resolved to {shown_usd(one.resolved_nano_usd)} by {one.resolved_by}: {one.note}")
    return found


def _told(text: str, indent: str = "  ") -> None:
    """Print a detail in 80 columns; what has no space, an id say, stays whole."""
    for line in textwrap.wrap(
        text, 80, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False
    ):
        typer.echo(line)


def dispute_show(where: Where, dispute_id: int, *, as_json: bool) -> None:
    """Print one dispute with what the ledger holds for its request. Raises `UsageError`."""

    async def work(database: Database) -> tuple[Dispute, list[Entry]]:
        async with database.reading() as connection:
            found = await disputes.find(connection, dispute_id)
            if found is None:
                raise UsageError(
                    f"there is no dispute {dispute_id}; `roadworthy billing dispute list --all` shows them"
                )
            return found, await disputes.entries_of(connection, found.usage_id)

    found, history = read(where, work)
    if as_json:
        row = _dispute_row(found)
        row["entries"] = [entry_row(entry) | {"author": entry.author} for entry in history]
        typer.echo(json.dumps(row, indent=2, ensure_ascii=False))
        return
    for name, value in _facts(found).items():
        if value is not None:
            _told(f"{name}: {value}", "")
    typer.echo("entries:" if history else "entries: none, since nothing was charged")
    for entry in history:
        typer.echo(f"{iso(entry.posted_at_us)}  {entry.kind}  {shown_usd(entry.amount_nano_usd)}")
        _told(f"from {entry.debit_account} to {entry.credit_account}")
        if entry.reason is not None:
            _told(f"by {entry.author}: {entry.reason}")


def dispute_resolve(
    where: Where, dispute_id: int, accept: str | None, note: str, by: str | None, *, charge_nothing: bool
) -> None:
    """Resolve a dispute to the chosen amount. Raises `UsageError`."""
    if (accept is None) is not charge_nothing:
        raise UsageError("say one of --accept claimed, --accept posted, --accept AMOUNT and --charge-nothing")
    choice, amount = (Choice.NOTHING, None) if accept is None else _accepted(accept)

    async def work(database: Database) -> tuple[int, Dispute | None]:
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            costs = await disputes.resolve(
                connection, dispute_id, choice, note, by or _me(), now_us=now_us, amount_nano_usd=amount
            )
            return costs, await disputes.find(connection, dispute_id)

    costs, found = read(where, work)
    assert found is not None  # it was resolved just now
    typer.echo(f"dispute {dispute_id} resolved: {found.request_id} of {found.provider} costs {shown_usd(costs)}")


def _accepted(accept: str) -> tuple[Choice, int | None]:
    if accept in {Choice.CLAIMED.value, Choice.POSTED.value}:
        return Choice(accept), None
    if accept.isascii() and accept.isdigit() and len(accept) <= 19:
        return Choice.AMOUNT, int(accept)
    raise UsageError(f"--accept is claimed, posted, or a whole number of nano-USD; got {accept!r}")


def _facts(one: Dispute) -> dict[str, Any]:
    """A dispute for people, in the order in which it is read."""
    return {
        "id": one.id,
        "provider": one.provider,
        "request id": one.request_id,
        "payer": one.payer,
        "model": one.model,
        "state": one.state,
        "reason": one.reason,
        "claimed": shown_claim(one.claimed),
        "posted": None if one.posted_nano_usd is None else shown_usd(one.posted_nano_usd),
        "costs now": "nothing yet" if one.cost_nano_usd is None else shown_usd(one.cost_nano_usd),
        "served at": iso(one.served_at_us),
        "opened at": iso(one.opened_at_us),
        "resolved at": iso(one.resolved_at_us),
        "resolution": one.resolution,
        "resolved to": None if one.resolved_nano_usd is None else shown_usd(one.resolved_nano_usd),
        "resolved by": one.resolved_by,
        "note": one.note,
    }


def _dispute_row(one: Dispute) -> dict[str, Any]:
    return {
        "id": one.id,
        "provider": one.provider,
        "requestId": one.request_id,
        "payer": one.payer,
        "model": one.model,
        "state": one.state,
        "reason": one.reason,
        "claimed": one.claimed,
        **amounts("claimed", one.claimed_nano_usd),
        **amounts("posted", one.posted_nano_usd),
        **amounts("cost", one.cost_nano_usd),
        "servedAt": iso(one.served_at_us),
        "openedAt": iso(one.opened_at_us),
        "resolvedAt": iso(one.resolved_at_us),
        "resolution": one.resolution,
        **amounts("resolved", one.resolved_nano_usd),
        "resolvedBy": one.resolved_by,
        "note": one.note,
    }


def payer_statement(where: Where, payer: str, month: str, form: str, output: Path | None) -> None:
    """Write a payer's statement to a file, or to standard output."""
    if form not in FORMATS:
        raise UsageError(f"--format is {', '.join(FORMATS)}; got {form!r}")
    if form == "parquet" and output is None:
        raise UsageError("Parquet is no text; name a file with --output")
    wanted = Month.of(month)

    async def work(database: Database) -> bytes:
        async with database.reading() as connection:
            await _known(connection, payer, None)
            now_us = await database.now_us(connection)
            return FORMATS[form](await statement(connection, payer, wanted, now_us=now_us))

    made = read(where, work)
    if output is None:
        sys.stdout.buffer.write(made)
    else:
        _write(output, made)


def _write(output: Path, content: bytes) -> None:
    """The file appears whole or not at all, for its owner's eyes alone."""
    try:
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(output)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None


async def _known(connection: AsyncConnection, payer: str | None, provider: str | None) -> None:
    """Refuse whom nothing is known of: sums of nothing would pass for an answer. Raises `UsageError`."""
    if payer is not None:
        if not re.fullmatch(PAYER, payer):
            raise UsageError(f"a payer is user:NAME or org:NAME, such as org:acme; got {payer[:120]!r}")
        # Balances have an index by payer; usage, which has none, is read only for what nobody was charged yet.
        charged = await _occurs(connection, balance_rows.c.payer, payer)
        if not charged and not await _occurs(connection, usage.c.payer, payer):
            raise UsageError(f"no request of {payer} is known; `roadworthy billing balance --by payer` lists payers")
    if provider is not None:
        for column in (providers.c.slug, cost_endpoints.c.provider, usage.c.provider):
            if await _occurs(connection, column, provider):
                return
        raise UsageError(f"no provider {provider[:64]!r} is registered, and no request of it is known; check the slug")


async def _occurs(connection: AsyncConnection, column: sa.Column[str], value: str) -> bool:
    return (await connection.execute(sa.select(column).where(column == value).limit(1))).first() is not None


def _me() -> str:
    """Who runs this, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return "operator"
