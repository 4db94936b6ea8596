"""`roadworthy mapping`: files compared with, and applied to, a mapping service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import typer

from roadworthy.cli import mapping_file
from roadworthy.cli.mapping_file import MappingFile
from roadworthy.cli.service_client import Answer, RefusedError, Service, ServiceClient, harmless, service
from roadworthy.errors import ConfigError, UsageError

__all__ = ["apply", "diff", "export", "list_all", "service"]

Result = TypeVar("Result")
MAX_REASONS = 20


def apply(path: Path, target: Service, *, dry_run: bool, yes: bool) -> None:
    """Show what the file changes, ask where a person is there to answer, and do it."""
    file = mapping_file.read(path)
    _run(_apply(file, target, dry_run=dry_run, yes=yes))


async def _apply(file: MappingFile, target: Service, *, dry_run: bool, yes: bool) -> None:
    async with ServiceClient(target) as client:
        plan = await _ask(client, file, None)
        differs = _show(plan)
        if dry_run or not differs:
            return
        removals = len(plan.value["removed"])
        if not yes and not _agreed(file.provider, removals):
            typer.echo("nothing was changed")
            raise typer.Exit(1)
        # The tag sees to it that what is done is what was shown.
        done = await _ask(client, file, plan)
    counts = [len(done.value[name]) for name in ("added", "changed", "removed")]
    typer.echo("done: {} added, {} changed, {} removed".format(*counts))


def diff(path: Path, target: Service) -> None:
    """Show what the file would change; leave with 1 where that is anything."""
    file = mapping_file.read(path)

    async def plan() -> Answer:
        async with ServiceClient(target) as client:
            return await _ask(client, file, None)

    if _show(_run(plan())):
        raise typer.Exit(1)


def list_all(provider: str, status: str | None, target: Service, *, as_json: bool) -> None:
    """Print a provider's mappings, as a table or as JSON."""
    if status not in {None, "live", "staging"}:
        raise UsageError(f"--status: expected live or staging; got {status!r}")
    found = _run(_listed(_provider(provider), status, target))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [("TASK", "MODEL OR TAGS", "PROVIDER MODEL", "STATUS", "ID")]
    for task, entries in found.items():
        rows += [
            (task, source, entry["providerId"], entry["status"], entry["_id"]) for source, entry in entries.items()
        ]
    shown = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def export(provider: str, output: Path | None, target: Service) -> None:
    """Print a provider's mapping as a file, or write it."""
    found = _run(_listed(_provider(provider), None, target))
    items = [_item(task, source, entry) for task, entries in found.items() for source, entry in entries.items()]
    text = mapping_file.write(provider, items, as_json=output is not None and output.suffix.lower() == ".json")
    if output is None:
        typer.echo(text, nl=False)
        return
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{output}: cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {len(items)} item{'' if len(items) == 1 else 's'} to {output}", err=True)


def _item(task: str, source: str, entry: dict[str, Any]) -> dict[str, Any]:
    terms = {"task": task, "providerModel": entry["providerId"], "status": entry["status"]}
    if "tags" in entry:
        return terms | {"type": "tag-filter", "tags": entry["tags"], "adapterType": entry.get("adapterType", "lora")}
    return terms | {"hfModel": source}


async def _listed(provider: str, status: str | None, target: Service) -> dict[str, dict[str, dict[str, Any]]]:
    async with ServiceClient(target) as client:
        return await client.mapping(provider, status)


async def _ask(client: ServiceClient, file: MappingFile, shown: Answer | None) -> Answer:
    """The plan of the file; or, given the plan that was shown, its doing."""
    try:
        return await client.replace(
            _provider(file.provider),
            file.items,
            dry_run=shown is None,
            if_match=shown.etag if shown else None,
            confirm_removals=len(shown.value["removed"]) if shown else None,
        )
    except RefusedError as refused:
        reasons = refused.body.get("items")
        if not isinstance(reasons, list):
            raise
        told = [
            f"{file.where(each['index'])}: {harmless(each['reason'])}"
            for each in reasons
            if isinstance(each, dict) and isinstance(each.get("index"), int) and isinstance(each.get("reason"), str)
        ]
        more = [f"and {len(told) - MAX_REASONS} more"] if len(told) > MAX_REASONS else []
        raise UsageError("\n  ".join(["the service refuses these items:", *told[:MAX_REASONS], *more])) from None


def _agreed(provider: str, removals: int) -> bool:
    if not sys.stdin.isatty():
        if removals:
            raise UsageError(
                f"this would remove {removals} {_mappings(removals)}, and there is no terminal to ask at; "
                "nothing was changed. Say --yes if it is meant"
            )
        return True
    return typer.confirm(f"Change the mapping of {harmless(provider)} like this?")


def _mappings(count: int) -> str:
    return "mapping" if count == 1 else "mappings"


def _show(plan: Answer) -> bool:
    """Print a plan. Returns whether it changes anything."""
    lines = [("+", typer.colors.GREEN, _named(entry, _terms(entry))) for entry in plan.value["added"]]
    lines += [
        ("~", typer.colors.YELLOW, _named(each["before"], _differences(each["before"], each["after"])))
        for each in plan.value["changed"]
    ]
    lines += [("-", typer.colors.RED, _named(entry, _terms(entry))) for entry in plan.value["removed"]]
    colour = False if os.environ.get("NO_COLOR") else None
    for mark, fg, text in lines:
        typer.echo(typer.style(f"{mark} {harmless(text)}", fg=fg), color=colour)
    counts = [len(plan.value[name]) for name in ("added", "changed", "removed")]
    typer.echo("{} to add, {} to change, {} to remove, {} unchanged".format(*counts, plan.value["unchanged"]))
    return bool(lines)


def _named(entry: dict[str, Any], rest: str) -> str:
    source = entry.get("hfModel") or f"tag-filter={','.join(map(str, entry.get('tags') or []))}"
    return f"{entry.get('task')}  {source}  {rest}"


def _terms(entry: dict[str, Any]) -> str:
    return f"-> {entry.get('providerModel')} ({entry.get('status')})"


def _differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    names = [name for name in ("providerModel", "status") if before.get(name) != after.get(name)]
    return ", ".join(f"{name}: {before.get(name)} -> {after.get(name)}" for name in names)


def _provider(slug: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,64}", slug):
        raise UsageError(f"provider: expected a slug such as 'fireworks-ai'; got {harmless(slug[:80])!r}")
    return slug


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)
