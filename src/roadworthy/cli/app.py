"""The `roadworthy` command and its sub-commands."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def version() -> None:
    """Print the version."""
    from roadworthy import __version__

    typer.echo(__version__)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 0,
    fault: Annotated[list[str] | None, typer.Option(help="Name of a fault or variation; repeatable.")] = None,
) -> None:
    """Serve the reference provider."""
    from roadworthy.sandbox.app import Sandbox
    from roadworthy.sandbox.catalogue import find
    from roadworthy.sandbox.server import listen, serve

    bound = listen(port=port)
    typer.echo(f"http://127.0.0.1:{bound.getsockname()[1]}/v1")
    serve(Sandbox([find(name) for name in fault or ()]), bound)


def main() -> None:
    """Run the command line."""
    app()
