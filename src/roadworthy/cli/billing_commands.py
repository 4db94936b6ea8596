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


gateway_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Who may hand in usage over HTTP: gateways and their tokens."
)
app.add_typer(gateway_app, name="gateway")

GatewayName = Annotated[str, typer.Argument(metavar="NAME", help="The gateway's name.")]


@gateway_app.command("create")
def gateway_create(name: GatewayName, database: Database = None) -> None:
    """Make a gateway's token and print it, this once: the token alone on standard output."""
    from roadworthy.cli import billing_gateway

    billing_gateway.create(database, name)


@gateway_app.command("list")
def gateway_list(json: Json = False, database: Database = None) -> None:
    """List gateways, revoked ones too, without their tokens."""
    from roadworthy.cli import billing_gateway

    billing_gateway.list_all(database, as_json=json)


@gateway_app.command("revoke")
def gateway_revoke(name: GatewayName, database: Database = None) -> None:
    """End a gateway's token, at once and for good."""
    from roadworthy.cli import billing_gateway

    billing_gateway.revoke(database, name)


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
) -> None:
    """Take usage in from files. What is stored already is known, so run it again after it was cut off.

    Exit codes: 0 all is stored; 1 some lines conflict or cannot be used, and all others are stored; 2 wrong usage.
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
    billing_ingest.ingest(database, files, options, to)


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
) -> None:
    """Record a price. Earlier ones stay, for the requests of their time."""
    from roadworthy.cli import billing_prices

    billing_prices.set_price(database, provider, model, unit, usd_per_million=usd_per_million, since=since)


@price_app.command("list")
def price_list(
    provider: Annotated[str | None, typer.Option("--provider", metavar="SLUG", help="Of one provider.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Of one model.")] = None,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Every price that was recorded, with its time and source."""
    from roadworthy.cli import billing_prices

    billing_prices.list_prices(database, provider, model, as_json=as_json)


@price_app.command("import")
def price_import(
    file: Annotated[Path, typer.Argument(help="CSV with the columns model, unit, usd_per_million [, from, provider].")],
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="SLUG", help="Whose prices, where the file does not say.")
    ] = None,
    database: Database = None,
) -> None:
    """Record the prices of a file, all or none."""
    from roadworthy.cli import billing_prices

    billing_prices.import_prices(database, file, provider)


@price_app.command("capture")
def price_capture(
    provider: Annotated[
        list[str] | None, typer.Option("--provider", metavar="SLUG", help="Only this one; repeatable.")
    ] = None,
    database: Database = None,
) -> None:
    """Ask the registered APIs for their /models now, and record prices that changed. `serve` does so by itself."""
    from roadworthy.cli import billing_prices

    raise typer.Exit(billing_prices.capture(database, provider or []))


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
        str, typer.Option("--decimal-mark", metavar="MARK", help="Before the decimals of the invoice: . or ,")
    ] = ".",
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
    raise typer.Exit(billing_reconcile.reconcile(database, config, asked))
