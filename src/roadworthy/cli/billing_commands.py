"""`roadworthy billing`: usage, costs and the ledger. Definitions only; the work is in the `billing_*` modules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roadworthy.cli.options import Config, Database, Json, Where

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Billing: every served request costed once. Straight in the database; the service may run meanwhile.",
)
endpoint_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Where a provider tells its costs, and the key to ask it with."
)
app.add_typer(endpoint_app, name="endpoint")

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider's slug.")]


Once = Annotated[bool, typer.Option("--once", help="Give the providers whose turn it is one turn, then end.")]


@app.command()
def collect(
    once: Once = False,
    force: Annotated[bool, typer.Option("--force", help="With --once: whatever is pending, due or not.")] = False,
    provider: Annotated[
        list[str] | None, typer.Option("--provider", metavar="SLUG", help="Only this one; repeatable.")
    ] = None,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Ask providers for the costs of what they served and settle them, until interrupted. Serves nothing.

    With --once the exit code is 0, 1 if a provider failed, 3 if none could be reached.
    """
    from roadworthy.cli import billing_collect

    billing_collect.collect(Where(database, config), provider or [], once=once, force=force, as_json=json)


@app.command()
def recheck(
    provider: Annotated[str, typer.Option("--provider", metavar="SLUG", help="Whose settled costs.")],
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Served since: 2026-06-01, 2026-06-01T12:00Z, or 24h, 7d.")
    ] = "24h",
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Ask for settled costs again. One that is another now is disputed; what was charged stays until it is judged.

    The exit code is 0, 1 if a cost changed, 3 if the provider could not be asked to the end; then it says from which
    time to go on.
    """
    from roadworthy.cli import billing_collect

    billing_collect.recheck(Where(database, config), provider, since, as_json=json)


@app.command()
def status(json: Json = False, database: Database = None, config: Config = None) -> None:
    """Show how collecting stands, by provider: what is pending and due, the last 24 hours, the last trouble."""
    from roadworthy.cli import billing_collect

    billing_collect.status(Where(database, config), as_json=json)


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
    config: Config = None,
) -> None:
    """Register where a provider tells its costs, or change it. It is asked soon.

    The key goes to the scheme, host and port of the URL alone; with others it must be given again.
    """
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_set(Where(database, config), provider, url, key_env=key_env, no_key=no_key)


gateway_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Who may hand in usage over HTTP: gateways and their tokens."
)
app.add_typer(gateway_app, name="gateway")

GatewayName = Annotated[str, typer.Argument(metavar="NAME", help="The gateway's name.")]


@gateway_app.command("create")
def gateway_create(name: GatewayName, database: Database = None, config: Config = None) -> None:
    """Make a gateway's token and print it, this once: the token alone on standard output."""
    from roadworthy.cli import billing_gateway

    billing_gateway.create(Where(database, config), name)


@gateway_app.command("list")
def gateway_list(json: Json = False, database: Database = None, config: Config = None) -> None:
    """List gateways, revoked ones too, without their tokens."""
    from roadworthy.cli import billing_gateway

    billing_gateway.list_all(Where(database, config), as_json=json)


@gateway_app.command("revoke")
def gateway_revoke(name: GatewayName, database: Database = None, config: Config = None) -> None:
    """End a gateway's token, at once and for good."""
    from roadworthy.cli import billing_gateway

    billing_gateway.revoke(Where(database, config), name)


@app.command()
def ingest(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="JSON lines of usage items, or recordings, also as gzip; - is standard input."
        ),
    ],
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Hand in to this service, in place of the database.")
    ] = None,
    token_env: Annotated[
        str, typer.Option("--token-env", metavar="NAME", help="Variable with the gateway's token, for --url.")
    ] = "ROADWORTHY_GATEWAY_TOKEN",  # noqa: S107  the variable's name, not a token
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="FILE", help="Certificates to trust, for --url.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="SLUG", help="Whose API a recording is of.")
    ] = None,
    payer: Annotated[
        str, typer.Option("--payer", metavar="PAYER", help="Who pays for a recording's requests.")
    ] = "org:roadworthy",
    model: Annotated[
        str | None, typer.Option("--model", metavar="ID", help="The model of a recording [default: the one asked].")
    ] = None,
    late: Annotated[bool, typer.Option("--late", help="Also take what was served more than 35 days ago.")] = False,
    rejects: Annotated[
        Path | None,
        typer.Option("--rejects", metavar="FILE", help="Write each line that cannot be taken there, and why."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Without progress.")] = False,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Take usage in from files. What is stored already is known, so run it again after it was cut off.

    Exit codes: 0 all is stored; 1 some lines conflict or cannot be used, and all others are stored; 2 wrong usage;
    3 the service of --url could not be reached or did not take them, after some tries.
    """
    from roadworthy.cli import billing_ingest
    from roadworthy.cli.service_client import service
    from roadworthy.errors import UsageError

    if url is not None and database is not None:
        raise UsageError("--url and --database exclude each other")
    to = None if url is None else service(url, token_env, ca_file, 60.0)
    if to is not None and not to.token:
        raise UsageError(f"--url needs a gateway's token in the variable {token_env}; or name another: --token-env")
    options = billing_ingest.Options(provider, payer, model, late, rejects, quiet, json)
    billing_ingest.ingest(Where(database, config), files, options, to)


# Prices and reconciliation.

price_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What providers charge, with the times from which it held."
)
app.add_typer(price_app, name="price")


@price_app.command("set")
def price_set(
    provider: Annotated[str, typer.Option("--provider", metavar="SLUG", help="The provider's slug.")],
    model: Annotated[str, typer.Option("--model", help="The model, as usage names it: the hub's name.")],
    unit: Annotated[
        str,
        typer.Option(
            "--unit", help="input_tokens, cached_input_tokens, output_tokens, or what else is counted: images."
        ),
    ],
    usd_per_million: Annotated[
        str, typer.Option("--usd-per-million", metavar="USD", help="Price of a million units, at most 9 decimals.")
    ],
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From when it holds, in UTC [default: now].")
    ] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Record a price. Earlier ones stay, for the requests of their time."""
    from roadworthy.cli import billing_prices

    billing_prices.set_price(
        Where(database, config), provider, model, unit, usd_per_million=usd_per_million, since=since
    )


@price_app.command("list")
def price_list(
    provider: Annotated[str | None, typer.Option("--provider", metavar="SLUG", help="Of one provider.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Of one model.")] = None,
    as_json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Every price that was recorded, with its time and source."""
    from roadworthy.cli import billing_prices

    billing_prices.list_prices(Where(database, config), provider, model, as_json=as_json)


@price_app.command("import")
def price_import(
    file: Annotated[Path, typer.Argument(help="CSV with the columns model, unit, usd_per_million [, from, provider].")],
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="SLUG", help="Whose prices, where the file does not say.")
    ] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Record the prices of a file, all or none."""
    from roadworthy.cli import billing_prices

    billing_prices.import_prices(Where(database, config), file, provider)


@price_app.command("capture")
def price_capture(
    provider: Annotated[
        list[str] | None, typer.Option("--provider", metavar="SLUG", help="Only this one; repeatable.")
    ] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Ask the registered APIs for their /models now, and record prices that changed. `serve` does so by itself."""
    from roadworthy.cli import billing_prices

    raise typer.Exit(billing_prices.capture(Where(database, config), provider or []))


@app.command()
def reconcile(
    provider: Annotated[str, typer.Option("--provider", metavar="SLUG", help="The provider's slug.")],
    month: Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="A month of UTC.")] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Or from this time, in UTC,")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="to before this one.")] = None,
    invoice: Annotated[
        Path | None, typer.Option("--invoice", metavar="FILE", help="The provider's invoice, as CSV.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="NAME=HEADER", help="What the invoice calls request_id, cost_usd ...; repeatable."
        ),
    ] = None,
    decimal_mark: Annotated[
        str | None,
        typer.Option(
            "--decimal-mark",
            metavar="MARK",
            help="Before the decimals of the invoice: . or , [a point; 1,234 is refused until it is told]",
        ),
    ] = None,
    tolerance_usd: Annotated[
        str, typer.Option("--tolerance-usd", metavar="USD", help="What variances may come to, without their signs.")
    ] = "0",
    tolerance_percent: Annotated[
        str,
        typer.Option("--tolerance-percent", metavar="P", help="Or this share of what was expected, if that is more."),
    ] = "0",
    rounding_nano_usd: Annotated[
        int,
        typer.Option(
            "--rounding-nano-usd", min=0, max=10**9, help="What rounding may make of one request [0.000001 USD]."
        ),
    ] = 1000,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Every variance, as CSV.")] = None,
    parquet: Annotated[
        Path | None,
        typer.Option("--parquet", metavar="FILE", help="Every variance, as Parquet; needs roadworthy[parquet]."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Sums and first variances, as JSON; - is standard output."),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="A page with pictures.")] = None,
    whole_ledger: Annotated[
        bool, typer.Option("--whole-ledger", help="Look through all of the ledger, too, of every provider and time.")
    ] = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Compare what was settled with prices, with an invoice, and with what was served; name every variance.

    Ends with 0 within the tolerance, 1 beyond it, 2 for wrong usage, 3 where nothing can be said: no prices, or
    nothing served.
    """
    from roadworthy.cli import billing_reconcile

    asked = billing_reconcile.Asked(
        provider,
        month,
        since,
        until,
        invoice,
        column or [],
        decimal_mark,
        tolerance_usd,
        tolerance_percent,
        rounding_nano_usd,
        csv,
        parquet,
        json,
        html,
        whole_ledger,
    )
    raise typer.Exit(billing_reconcile.reconcile(Where(database, config), asked))


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
    config: Config = None,
) -> None:
    """What payers owe and providers earned, exactly, by day served."""
    from roadworthy.cli import billing_ledger

    only = {"payer": payer, "provider": provider, "model": model}
    billing_ledger.balance(
        Where(database, config), only=only, period=(from_day, to_day), by=by, as_json=as_json, as_csv=as_csv
    )


@app.command()
def verify(
    most: Annotated[int, typer.Option("--most", min=1, help="How many of what is wrong to show.")] = 100,
    as_json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Compute the books anew and compare: balances, charges, states, disputes. Exit code 1 where they disagree."""
    from roadworthy.cli import billing_ledger

    billing_ledger.verify_books(Where(database, config), most, as_json=as_json)


@app.command()
def correct(
    provider: Provider,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The provider's id of the request.")],
    to: Annotated[int, typer.Option("--to", metavar="NANO_USD", min=0, help="What it is to cost; 0 is a refund.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the payer reads it, too.")],
    by: Author = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Let a settled request cost another amount: the difference is a new entry, and no old one changes."""
    from roadworthy.cli import billing_ledger

    billing_ledger.correct(Where(database, config), provider, request_id, to, reason=reason, by=by)


@dispute_app.command("list")
def dispute_list(
    provider: OneProvider = None,
    payer: Payer = None,
    all_: Annotated[bool, typer.Option("--all", help="The resolved ones, too.")] = False,
    as_json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Disputes that are open."""
    from roadworthy.cli import billing_ledger

    billing_ledger.dispute_list(Where(database, config), provider, payer, resolved=all_, as_json=as_json)


@dispute_app.command("show")
def dispute_show(
    dispute_id: DisputeId, as_json: Json = False, database: Database = None, config: Config = None
) -> None:
    """One dispute, and what the ledger holds for its request."""
    from roadworthy.cli import billing_ledger

    billing_ledger.dispute_show(Where(database, config), dispute_id, as_json=as_json)


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
    config: Config = None,
) -> None:
    """Judge a dispute: its request is settled with the amount that is accepted."""
    from roadworthy.cli import billing_ledger

    billing_ledger.dispute_resolve(Where(database, config), dispute_id, accept, note, by, charge_nothing=charge_nothing)


@app.command()
def statement(
    payer: Annotated[str, typer.Option("--payer", metavar="PAYER", help="Whose: org:acme, say.")],
    month: Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="What was posted in it, in UTC.")],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="table, csv, json, html or parquet.")
    ] = "table",
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="[default: standard output]")] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """What one payer is charged for one month. A month that is over never changes."""
    from roadworthy.cli import billing_ledger

    billing_ledger.payer_statement(Where(database, config), payer, month, form, output)


@endpoint_app.command("show")
def endpoint_show(
    provider: Annotated[str | None, typer.Argument(metavar="[PROVIDER]", help="Only this one.")] = None,
    json: Json = False,
    database: Database = None,
    config: Config = None,
) -> None:
    """Show where providers tell their costs. Keys are shown to nobody."""
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_show(Where(database, config), provider, as_json=json)


@endpoint_app.command("remove")
def endpoint_remove(provider: Provider, database: Database = None, config: Config = None) -> None:
    """Forget where a provider tells its costs, and its key. What is pending stays so."""
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_remove(Where(database, config), provider)


@endpoint_app.command("pause")
def endpoint_pause(provider: Provider, database: Database = None, config: Config = None) -> None:
    """Ask a provider no more, until `resume`. What is being asked at this moment is not settled."""
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_pause(Where(database, config), provider, paused=True)


@endpoint_app.command("resume")
def endpoint_resume(provider: Provider, database: Database = None, config: Config = None) -> None:
    """Ask a provider again."""
    from roadworthy.cli import billing_collect

    billing_collect.endpoint_pause(Where(database, config), provider, paused=False)
