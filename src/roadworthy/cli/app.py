"""The `roadworthy` command: its sub-commands and their options.

Only Typer is imported at the top: `roadworthy --help` has a start-up budget of
300 ms. Each command's work is in a module of its own, imported when it is called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from roadworthy.cli import (
    billing_commands,
    db_commands,
    mapping_commands,
    org_commands,
    secret_key_commands,
    token_commands,
    validator_commands,
)
from roadworthy.cli.outlet import outlive_reader

app = typer.Typer(
    name="roadworthy",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Become, and stay, a listed inference provider: conformance verdicts with proof.",
    epilog="Exit codes: 0 pass, 1 the provider fails, 2 wrong usage, 3 inconclusive, 4 fault of roadworthy.",
)
app.add_typer(mapping_commands.app)
app.add_typer(org_commands.app, name="org")
app.add_typer(token_commands.app, name="token")
app.add_typer(db_commands.app, name="db")
app.add_typer(validator_commands.app, name="validator")
app.add_typer(billing_commands.app, name="billing")

Only = Annotated[list[str] | None, typer.Option("--only", metavar="ID", help="Only checks at or below this id.")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", metavar="ID", help="No checks at or below this id.")]
Lenses = Annotated[
    list[str] | None,
    typer.Option("--lens", metavar="LENS", help="Only this view: hub, spec, javascript, python, openai."),
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one HTML page.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write JSON; - for standard output.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Append a job summary.")]
Badge = Annotated[Path | None, typer.Option("--badge", metavar="FILE", help="Write an SVG badge.")]
BaselineFile = Annotated[Path | None, typer.Option("--baseline", metavar="FILE", help="Known failures, as TOML.")]
WriteBaseline = Annotated[
    Path | None, typer.Option("--write-baseline", metavar="FILE", help="Write today's failures as a baseline.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from roadworthy import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def check(
    url: Annotated[str | None, typer.Argument(metavar="[URL]", help="Base URL of the API; most end in /v1.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="NAME[=TASK[@API]]", help="A model, its task (chat) and API; repeatable."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every model that /models lists, by every API that answers for it.")
    ] = False,
    api_key_env: Annotated[
        str | None,
        typer.Option("--api-key-env", metavar="NAME", help="Variable with the key [default: ROADWORTHY_API_KEY]."),
    ] = None,
    billing_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the API tells what requests cost: check that too.")
    ] = None,
    billing_api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Variable with the key of --billing-url [default: ROADWORTHY_BILLING_API_KEY, or the API's own key].",
        ),
    ] = None,
    billing_timeout: Annotated[
        float | None, typer.Option(help="Seconds within which a request's cost is told [default: 60].")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings [default: roadworthy.toml, where no URL is given]."),
    ] = None,
    lens: Lenses = None,
    only: Only = None,
    exclude: Exclude = None,
    capability: Annotated[
        list[str] | None,
        typer.Option(
            "--capability", metavar="NAME[=no]", help="Declare an ability, e.g. vision, tools=no; repeatable."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Most trials per model-level check [default: 10].")] = None,
    max_requests: Annotated[int | None, typer.Option(help="Budget of requests per model [default: 500].")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests under way at once [default: 4].")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds one request may take [default: 60].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the property-based leg [default: 0].")] = None,
    fuzz_examples: Annotated[
        int | None,
        typer.Option(help="Generated bodies of each kind; 0 for none [default: 30; other tasks 8; media 2]."),
    ] = None,
    advertised_models: Annotated[
        int | None, typer.Option(help="Ask this many of the advertised models too [default: 0].")
    ] = None,
    request_id_header: Annotated[
        str | None, typer.Option(help="Header that carries the request id [default: Inference-Id].")
    ] = None,
    clients: Annotated[
        bool | None, typer.Option("--clients/--no-clients", help="Give the answers to the official clients too.")
    ] = None,
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="May make dedicated endpoints, and remove them again.")
    ] = False,
    namespace: Annotated[
        str | None, typer.Option(help="Account that dedicated endpoints belong to [default: roadworthy].")
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Also trust the certificates in this PEM file.")] = None,
    baseline: BaselineFile = None,
    write_baseline: WriteBaseline = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, its tokens and its cost; ask nothing.")
    ] = False,
    price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="With --dry-run: USD per million tokens, instead of /models.")
    ] = None,
    html: Html = None,
    junit: Junit = None,
    json: Json = None,
    markdown: Markdown = None,
    badge: Badge = None,
    record: Annotated[Path | None, typer.Option("--record", metavar="FILE", help="Keep every exchange.")] = None,
    quiet: Quiet = False,
) -> None:
    """Check a provider's API and say what is right, what is wrong, and how to mend it."""
    from roadworthy.cli.check import CheckCommand

    CheckCommand(
        config=config,
        flags={
            "target": {
                "url": url,
                "models": model,
                "api_key_env": api_key_env,
                "request_id_header": request_id_header,
                "ca_file": ca_file,
                "billing_url": billing_url,
                "billing_api_key_env": billing_api_key_env,
            },
            "limits": {"billing_timeout_s": billing_timeout},
            "check": {
                "lens": lens,
                "only": only,
                "exclude": exclude,
                "trials": trials,
                "max_requests": max_requests,
                "concurrency": concurrency,
                "timeout_s": timeout,
                "seed": seed,
                "fuzz_examples": fuzz_examples,
                "advertised_models": advertised_models,
                "everything": everything or None,
                "clients": clients,
                "allow_writes": allow_writes or None,
                "namespace": namespace,
                "baseline": baseline,
            },
            "reports": {
                "html": html,
                "junit": junit,
                "json": json,
                "markdown": markdown,
                "badge": badge,
                "record": record,
            },
        },
        capabilities=capability or [],
        write_baseline=write_baseline,
        dry_run=dry_run,
        price=price,
        quiet=quiet,
    ).run()


@app.command()
def fuzz(
    url: Annotated[str, typer.Argument(metavar="URL", help="Base URL of the API; most end in /v1.")],
    model: Annotated[list[str], typer.Option("--model", "-m", help="A model to ask; repeatable.")],
    family: Annotated[
        str, typer.Option("--family", metavar="API", help="Family of APIs: openai, responses, serverless, tgi...")
    ] = "",
    task: Annotated[str, typer.Option("--task", help="The model's task, where the family has several.")] = "",
    examples: Annotated[int, typer.Option(min=1, max=10_000, help="Generated requests of each kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed that they are drawn from.")] = 0,
    api_key_env: Annotated[
        str | None,
        typer.Option("--api-key-env", metavar="NAME", help="Variable with the key [default: ROADWORTHY_API_KEY]."),
    ] = None,
    max_requests: Annotated[int | None, typer.Option(help="Budget of requests per model [default: enough].")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests under way at once [default: 4].")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds one request may take [default: 60].")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Also trust the certificates in this PEM file.")] = None,
    baseline: BaselineFile = None,
    html: Html = None,
    junit: Junit = None,
    json: Json = None,
    markdown: Markdown = None,
    badge: Badge = None,
    record: Annotated[Path | None, typer.Option("--record", metavar="FILE", help="Keep every exchange.")] = None,
    quiet: Quiet = False,
) -> None:
    """Send many generated requests, valid and broken, and say which the API answers wrongly."""
    from roadworthy.cli.fuzz import run

    run(
        url,
        model,
        family=family,
        task=task,
        examples=examples,
        seed=seed,
        target={"api_key_env": api_key_env, "ca_file": ca_file},
        check={
            "max_requests": max_requests,
            "concurrency": concurrency,
            "timeout_s": timeout,
            "baseline": baseline,
        },
        reports={
            "html": html,
            "junit": junit,
            "json": json,
            "markdown": markdown,
            "badge": badge,
            "record": record,
        },
        quiet=quiet,
    )


@app.command()
def cleanup(
    url: Annotated[str | None, typer.Argument(metavar="[URL]", help="Base URL of the API, as for `check`.")] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option("--api-key-env", metavar="NAME", help="Variable with the key [default: ROADWORTHY_API_KEY]."),
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Only what was made in this account.")] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings, as for `check`.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Also trust the certificates in this PEM file.")] = None,
) -> None:
    """Delete the dedicated endpoints that earlier checks of this API have left behind, and nothing else."""
    from roadworthy.cli.cleanup import run

    run(config, {"url": url, "api_key_env": api_key_env, "ca_file": ca_file}, namespace)


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="A file made by --record.")],
    lens: Lenses = None,
    only: Only = None,
    exclude: Exclude = None,
    baseline: BaselineFile = None,
    write_baseline: WriteBaseline = None,
    html: Html = None,
    junit: Junit = None,
    json: Json = None,
    markdown: Markdown = None,
    badge: Badge = None,
    quiet: Quiet = False,
) -> None:
    """Judge a recording again, offline: the same verdicts from the same bytes."""
    from roadworthy.cli.check import replay as run

    run(
        recording,
        {
            "check": {"lens": lens, "only": only, "exclude": exclude, "baseline": baseline},
            "reports": {"html": html, "junit": junit, "json": json, "markdown": markdown, "badge": badge},
        },
        write_baseline=write_baseline,
        quiet=quiet,
    )


@app.command()
def checks(
    lens: Lenses = None,
    only: Only = None,
    task: Annotated[str, typer.Option("--task", help="Only checks of this task, e.g. feature-extraction.")] = "",
    api: Annotated[str, typer.Option("--api", help="Only checks of this family, e.g. serverless.")] = "",
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the catalogue of checks: id, level, lenses, source, and what each asks."""
    from roadworthy.cli.catalogue import checks as run

    run(lens or [], only or [], task, api, as_json=json)


@app.command()
def explain(check_id: Annotated[str, typer.Argument(metavar="CHECK", help="A check's id.")]) -> None:
    """Explain one check: the rule, its source, why clients break without it, how to mend it."""
    from roadworthy.cli.catalogue import explain as run

    run(check_id)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    fault: Annotated[
        list[str] | None, typer.Option("--fault", metavar="NAME", help="A fault or legal variation; repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="A model it serves; repeatable.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", metavar="NAME", help="Ask for the key in this variable.")
    ] = None,
    all_tasks: Annotated[
        bool, typer.Option("--all-tasks", help="List the models of every other task in /models too.")
    ] = False,
    first_token_delay: Annotated[float, typer.Option(help="Seconds before the first token.")] = 0.0,
    token_delay: Annotated[float, typer.Option(help="Seconds between tokens.")] = 0.0,
    list_faults: Annotated[bool, typer.Option("--list-faults", help="List faults and variations, and exit.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --list-faults: as JSON.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Serve the reference provider: right in everything, except for the faults it is given."""
    from roadworthy.cli import sandbox as command

    if list_faults:
        command.list_faults(as_json=json)
        return
    command.serve(
        host,
        port,
        fault or [],
        models=model or [],
        api_key_env=api_key_env,
        all_tasks=all_tasks,
        first_token_delay_s=first_token_delay,
        token_delay_s=token_delay,
        until_stdin_closes=until_stdin_closes,
    )


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one [default: 8000].")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")] = None,
    database: Annotated[
        str | None,
        typer.Option("--database", metavar="URL", help="SQLite or PostgreSQL [default: sqlite:///roadworthy.db]."),
    ] = None,
    models: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Facts about models: builtin, hub, or a file of JSON lines.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORM", help="json, text, or auto: text on a terminal [default: auto].")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error [default: info].")
    ] = None,
    billing: Annotated[
        bool | None, typer.Option("--billing/--no-billing", help="Collect costs, too [default: yes].")
    ] = None,
    validator: Annotated[
        bool | None, typer.Option("--validator/--no-validator", help="Validate mappings, too [default: yes].")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file [default: roadworthy.toml, if it has [server]].")
    ] = None,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="Print every setting and where it came from, and exit.")
    ] = False,
) -> None:
    """Serve the mapping service, its validator and the billing collector. Makes and migrates its database by itself."""
    from roadworthy.cli.serve import run

    flags = {
        "port": port,
        "host": host,
        "database_url": database,
        "model_catalogue": models,
        "log_format": log_format,
        "log_level": log_level,
        "validator": validator,
        "billing": billing,
    }
    run(flags, config, show_settings=show_settings)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the reports go.")] = Path("out"),
    part: Annotated[
        str, typer.Option("--part", metavar="PART", help="check: a provider's side; services: the hub's; or all.")
    ] = "all",
) -> None:
    """Show the whole on embedded sandboxes: providers checked, a mapping validated, requests billed."""
    from roadworthy.cli.demo import run

    run(out, part)


app.add_typer(secret_key_commands.app, name="secret-key")


def main() -> None:
    """Run the command line. No traceback reaches a user: errors end with a sentence and an exit code."""
    outlive_reader()
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the last line of defence before the user
        from roadworthy.cli.failure import end

        end(error)
