"""Options that many commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class Where:
    """The database that a command works on: the one that is named, else the one of the settings, as `serve` has it."""

    url: str | None = None
    config: Path | None = None


Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME [default: as `serve` has it: "
        "ROADWORTHY_DATABASE_URL, roadworthy.toml, sqlite:///roadworthy.db].",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file, as `serve` takes it [default: roadworthy.toml]."),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
