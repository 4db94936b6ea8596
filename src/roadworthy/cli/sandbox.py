"""`roadworthy sandbox`."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence

import typer

from roadworthy.errors import UsageError
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find, load
from roadworthy.sandbox.mutation import FAULTS, VARIATIONS, Mutation
from roadworthy.sandbox.server import listen
from roadworthy.sandbox.server import serve as serve_forever


def list_faults(*, as_json: bool) -> None:
    """Print every fault with the checks that catch it, and every legal variation."""
    load()
    if as_json:
        rows = [
            {
                "name": mutation.name,
                "family": mutation.family,
                "caught_by": sorted(mutation.caught_by),
                "legal": not mutation.caught_by,
                "description": mutation.description,
            }
            for mutation in (*FAULTS.values(), *VARIATIONS.values())
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for title, mutations in (("Faults", FAULTS), ("Legal variations", VARIATIONS)):
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False
        )
        table.add_column(no_wrap=True, overflow="fold")
        table.add_column()
        for mutation in mutations.values():
            caught = f" (caught by {', '.join(sorted(mutation.caught_by))})" if mutation.caught_by else ""
            table.add_row(mutation.name, mutation.description + caught)
        console.print(table)
        console.print()
    console.print(f"{len(FAULTS)} faults, {len(VARIATIONS)} legal variations. Use one with --fault NAME.")


def serve(
    host: str,
    port: int,
    names: Sequence[str],
    *,
    models: Sequence[str],
    api_key_env: str | None,
    all_tasks: bool,
    first_token_delay_s: float,
    token_delay_s: float,
    until_stdin_closes: bool,
) -> None:
    """Serve until interrupted. The first line printed is the base URL. Raises `UsageError` for unknown names."""
    mutations = [_find(name) for name in names]
    key = None
    if api_key_env:
        key = os.environ.get(api_key_env)
        if not key:
            raise UsageError(f"the environment variable {api_key_env} should hold the key to ask for, but is not set")
    defaults = Options()
    options = Options(
        models=tuple(models) or defaults.models,
        api_key=key,
        all_tasks=all_tasks,
        first_token_delay_s=first_token_delay_s,
        token_delay_s=token_delay_s,
    )
    try:
        bound = listen(host, port)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}. Use --port 0 for a free one.") from None
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"http://{shown}:{bound.getsockname()[1]}/v1")
    if not until_stdin_closes:
        faults = ", ".join(names) or "none: everything is right"
        typer.echo(f"models: {', '.join(options.models)}; faults: {faults}. Stop with Ctrl-C.", err=True)
    else:
        # A parent that is killed cannot end us; the end of its pipe can.
        threading.Thread(target=_leave_when_stdin_closes, daemon=True).start()
    sys.stdout.flush()
    serve_forever(Sandbox(mutations, options), bound)


def _find(name: str) -> Mutation:
    try:
        return find(name)
    except KeyError as error:
        raise UsageError(f"{error.args[0]}. `roadworthy sandbox --list-faults` lists them all.") from None


def _leave_when_stdin_closes() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
