"""`roadworthy billing`: usage, costs and the ledger. Definitions only; the work is in the `billing_*` modules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Billing: every served request costed once. Straight in the database; the service may run meanwhile.",
)
endpoint_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Where a provider tells its costs, and the key to ask it with."
)
app.add_typer(endpoint_app, name="endpoint")

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="SQLite or PostgreSQL [default: ROADWORTHY_DATABASE_URL, else sqlite:///roadworthy.db].",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file [default: roadworthy.toml, if it has [server] or [billing]]."),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's slug.")]


@app.command()
def collect(
    once: Annotated[bool, typer.Option("--once", help="Ask the providers whose turn it is once, then end.")] = False,
    provider: Annotated[
        list[str] | None, typer.Option("--provider", metavar="SLUG", help="Only this one; repeatable.")
    ] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Ask providers for the costs of what they served and settle them, until interrupted. Serves nothing."""
    from roadworthy.cli import billing_collect

    billing_collect.collect(database, config, provider or [], once=once)


@endpoint_app.command("set")
def endpoint_set(
    provider: Provider,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The cost endpoint's URL, whole.")],
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", metavar="NAME", help="Variable with the key [default: the key that is there]."),
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Forget the key that is there.")] = False,
    database: Database = None,
) -> None:
    """Register where a provider tells its costs, or change it. It is asked soon.

    The key goes to the scheme, host and port of the URL alone; with others it must be given again.
    """
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_set(database, provider, url, key_env=key_env, no_key=no_key)


# The ledger: balances, corrections, disputes, statements.

dispute_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Costs that a person must judge.")
app.add_typer(dispute_app, name="dispute")
Payer = Annotated[str | None, typer.Option("--payer", metavar="PAYER", help="Only this one: org:acme, say.")]
OneProvider = Annotated[str | None, typer.Option("--provider", metavar="SLUG", help="Only this one.")]
Author = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who decides [default: your login name].")]
DisputeId = Annotated[int, typer.Argument(metavar="ID", min=1, help="The dispute's number.")]


@app.command()
def balance(
    payer: Payer = None,
    provider: OneProvider = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Only this one.")] = None,
    from_day: Annotated[str | None, typer.Option("--from", metavar="DAY", help="First day served, in UTC.")] = None,
    to_day: Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last day served, in UTC.")] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="NAMES", help="A row for each: payer, provider, model, day; with commas.")
    ] = "",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV.")] = False,
    database: Database = None,
) -> None:
    """What payers owe and providers earned, exactly, by day served."""
    from roadworthy.cli import billing_ledger

    only = {"payer": payer, "provider": provider, "model": model}
    billing_ledger.balance(database, only=only, period=(from_day, to_day), by=by, as_json=as_json, as_csv=as_csv)


@app.command()
def verify(
    most: Annotated[int, typer.Option("--most", min=1, help="How many of what is wrong to show.")] = 100,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Compute the books anew and compare: balances, charges, states, disputes. Exit code 1 where they disagree."""
    from roadworthy.cli import billing_ledger

    billing_ledger.verify_books(database, most, as_json=as_json)


@app.command()
def correct(
    provider: Provider,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The provider's id of the request.")],
    to: Annotated[int, typer.Option("--to", metavar="NANO_USD", min=0, help="What it is to cost; 0 is a refund.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the payer reads it, too.")],
    by: Author = None,
    database: Database = None,
) -> None:
    """Let a settled request cost another amount: the difference is a new entry, and no old one changes."""
    from roadworthy.cli import billing_ledger

    billing_ledger.correct(database, provider, request_id, to, reason=reason, by=by)


@dispute_app.command("list")
def dispute_list(
    provider: OneProvider = None,
    payer: Payer = None,
    all_: Annotated[bool, typer.Option("--all", help="The resolved ones, too.")] = False,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Disputes that are open."""
    from roadworthy.cli import billing_ledger

    billing_ledger.dispute_list(database, provider, payer, resolved=all_, as_json=as_json)


@dispute_app.command("show")
def dispute_show(dispute_id: DisputeId, as_json: Json = False, database: Database = None) -> None:
    """One dispute, and what the ledger holds for its request."""
    from roadworthy.cli import billing_ledger

    billing_ledger.dispute_show(database, dispute_id, as_json=as_json)


@dispute_app.command("resolve")
def dispute_resolve(
    dispute_id: DisputeId,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; the payer may read it.")],
    accept: Annotated[
        str | None, typer.Option("--accept", metavar="WHAT", help="claimed, posted, or an amount in nano-USD.")
    ] = None,
    charge_nothing: Annotated[bool, typer.Option("--charge-nothing", help="The request costs nothing.")] = False,
    by: Author = None,
    database: Database = None,
) -> None:
    """Judge a dispute: its request is settled with the amount that is accepted."""
    from roadworthy.cli import billing_ledger

    billing_ledger.dispute_resolve(database, dispute_id, accept, note, by, charge_nothing=charge_nothing)


@app.command()
def statement(
    payer: Annotated[str, typer.Option("--payer", metavar="PAYER", help="Whose: org:acme, say.")],
    month: Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="What was posted in it, in UTC.")],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="table, csv, json, html or parquet.")
    ] = "table",
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="[default: standard output]")] = None,
    database: Database = None,
) -> None:
    """What one payer is charged for one month. A month that is over never changes."""
    from roadworthy.cli import billing_ledger

    billing_ledger.payer_statement(database, payer, month, form, output)
