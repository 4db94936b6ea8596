"""How the command line ends when something went wrong."""

from __future__ import annotations

import os
import re
import sys
import traceback
from importlib import metadata
from typing import NoReturn

from roadworthy.errors import RoadworthyError, UsageError

_EXTRAS = ("server", "postgres", "parquet")
_COMES_WITH = {"starlette": "fastapi", "psycopg_pool": "psycopg"}
"""Packages that we import, and that a package of an extra brings."""


def extra_of(package: str) -> str | None:
    """The extra of the services that brings a package, by its import name; None where none does."""
    name = _COMES_WITH.get(package, package)
    for requirement in metadata.requires("roadworthy") or ():
        wanted, _, condition = requirement.partition(";")
        extra = re.search(r"""extra == ['"](\w+)['"]""", condition)
        found = re.match(r"[\w.-]+", wanted)
        if extra and extra[1] in _EXTRAS and found and re.sub(r"[-.]", "_", found[0]) == name:
            return extra[1]
    return None


def end(error: Exception) -> NoReturn:
    """Print one message and leave with the exit code the error means.

    A package that only an extra brings is wrong usage (2), and the message names the extra.

    A fault of roadworthy itself (4) names its place and how to see more:
    `ROADWORTHY_DEBUG=1` prints the traceback.
    """
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        extra = extra_of(package)
        if extra is not None:
            error = UsageError(
                f"this command needs the package {package}, which is not installed; "
                f"pip install 'roadworthy[{extra}]' brings it"
            )
    if isinstance(error, RoadworthyError):
        sys.stderr.write(f"roadworthy: {error}\n")
        sys.exit(error.exit_code)
    if os.environ.get("ROADWORTHY_DEBUG"):
        traceback.print_exc()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    sys.stderr.write(
        f"roadworthy: a fault of roadworthy itself, not of the provider: {type(error).__name__}: {error} "
        f"(at {frame.name}, line {frame.lineno}). Set ROADWORTHY_DEBUG=1 for the traceback and please report it.\n"
    )
    sys.exit(RoadworthyError.exit_code)
