"""The command line. Only Typer is imported here; each command imports what it needs."""

from roadworthy.cli.app import main

__all__ = ["main"]
