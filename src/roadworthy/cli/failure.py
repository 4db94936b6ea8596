"""How the command line ends when something went wrong."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

from roadworthy.errors import RoadworthyError, UsageError

_EXTRAS = {
    "server": "aiosqlite alembic apscheduler cryptography fastapi httptools huggingface_hub limits orjson "
    "prometheus_client pydantic_settings sqlalchemy ssrfguard starlette structlog".split(),
    "postgres": ["psycopg", "psycopg_pool"],
    "parquet": ["pyarrow"],
}
"""The packages of each extra, by their import names."""


def end(error: Exception) -> NoReturn:
    """Print one message and leave with the exit code the error means.

    A package that only an extra brings is wrong usage (2), and the message names the extra.

    A fault of roadworthy itself (4) names its place and how to see more:
    `ROADWORTHY_DEBUG=1` prints the traceback.
    """
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        for extra, packages in _EXTRAS.items():
            if package in packages:
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
