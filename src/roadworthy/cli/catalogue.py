"""`roadworthy checks` and `roadworthy explain`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

import typer

from roadworthy.cli.lenses import lenses as parse_lenses
from roadworthy.conformance.catalogue import load
from roadworthy.conformance.check import CHECKS, Check
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.plan import select
from roadworthy.conformance.subject import Subject
from roadworthy.errors import UsageError


def checks(lens: Sequence[str], only: Sequence[str], task: str, api: str, *, as_json: bool) -> None:
    """Print the catalogue, or the part of it that is asked for."""
    chosen = select(only, (), parse_lenses(lens))
    if task or api:
        about = Subject.of("any model", task, api)
        facts = Facts("", about.model, about.task, about.api)
        chosen = tuple(check for check in chosen if check.applies(facts))
    if as_json:
        typer.echo(json.dumps([_row(check) for check in chosen], indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("id", no_wrap=True, overflow="fold")
    table.add_column("level", no_wrap=True)
    table.add_column("lenses", no_wrap=True)
    table.add_column("what it asks")
    for check in chosen:
        table.add_row(check.id, check.level.value, ",".join(lens.value for lens in check.lenses), check.rule)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\n{len(chosen)} checks. `roadworthy explain ID` says why, from which source, and how to mend it.")


def explain(check_id: str) -> None:
    """Print all there is to say of one check. Raises `UsageError` for an unknown id."""
    load()
    check = CHECKS.get(check_id)
    if check is None:
        near = difflib.get_close_matches(check_id, CHECKS, n=3) or sorted(
            id for id in CHECKS if id.startswith(check_id)
        )
        hint = f"Near: {', '.join(near)}." if near else "`roadworthy checks` lists every id."
        raise UsageError(f"no check is called {check_id!r}. {hint}")
    from rich.console import Console
    from rich.padding import Padding

    console = Console(highlight=False)
    console.print(f"[bold]{check.id}[/]  {check.level.value}, {' and '.join(lens.value for lens in check.lenses)} lens")
    for title, text in _sections(check):
        console.print(f"\n[bold]{title}[/]")
        console.print(Padding(text, (0, 0, 0, 2)), markup=False)


def _sections(check: Check) -> list[tuple[str, str]]:
    from roadworthy.sandbox.catalogue import load as load_faults
    from roadworthy.sandbox.mutation import FAULTS

    load_faults()
    proofs = sorted(name for name, fault in FAULTS.items() if check.id in fault.caught_by)
    asked = ", ".join(probe.id for probe in check.probes) or "every exchange of the run"
    sections = [
        ("Rule", check.rule),
        ("Why", check.why),
        ("How to mend it", check.remedy),
        ("Source", check.source),
        ("Judged on", asked),
    ]
    if check.needs:
        sections.append(("Needs", ", ".join(need.value for need in check.needs)))
    if check.bar is not None:
        bar = f"{check.bar:.0%}"
        text = (
            "The model's choice: judged over repeated trials. It passes when the 95 % Wilson interval lies above "
            f"{bar}, fails when it lies below, and is inconclusive (flaky) in between."
        )
        sections.append(("Trials", text))
    sections.append(("See it fail", "\n".join(f"roadworthy sandbox --fault {name}" for name in proofs)))
    return sections


def _row(check: Check) -> dict[str, Any]:
    return {
        "id": check.id,
        "level": check.level.value,
        "lenses": [lens.value for lens in check.lenses],
        "source": check.source,
        "rule": check.rule,
        "why": check.why,
        "remedy": check.remedy,
        "probes": [probe.id for probe in check.probes],
        "needs": [need.value for need in check.needs],
        "trials": check.bar is not None,
    }
