"""`roadworthy check` and `roadworthy replay`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer

from roadworthy.config import read_toml, validate
from roadworthy.conformance import baseline as baselines
from roadworthy.conformance import recording, session
from roadworthy.conformance.baseline import Baseline
from roadworthy.conformance.check import Check
from roadworthy.conformance.facts import Capability
from roadworthy.conformance.plan import select
from roadworthy.conformance.report.model import Report
from roadworthy.conformance.settings import CheckSettings, ReportsTable, merge, target
from roadworthy.conformance.target import Target
from roadworthy.errors import ConfigError, UsageError

DEFAULT_CONFIG = Path("roadworthy.toml")
Flags = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class CheckCommand:
    """One call of `roadworthy check`: the flags as they were given."""

    config: Path | None
    flags: Flags
    capabilities: Sequence[str]
    write_baseline: Path | None
    dry_run: bool
    price: str | None
    quiet: bool

    def run(self) -> NoReturn:
        """Check, report, and leave with the verdict's exit code. Raises `UsageError` before anything is sent."""
        settings = self._settings()
        provider = target(settings.target)
        models = settings.target.models
        if settings.check.everything and models:
            raise UsageError("--all checks every model that /models lists; leave it out, or the models")
        checks = select(settings.check.only, settings.check.exclude, settings.check.lens)
        if settings.check.everything:
            models = asyncio.run(_everything(provider, settings, checks))
            if not models:
                raise UsageError("nothing that the API serves is what these --only, --exclude and --lens are about")
        if not models:
            raise ConfigError(
                "which model? Give --model NAME[=TASK[@API]] (repeatable), or --all; "
                f"GET {provider.base_url}/models usually lists them"
            )
        known = baselines.read(settings.check.baseline) if settings.check.baseline else Baseline()
        if self.dry_run:
            from roadworthy.cli.dry_run import show

            show(provider, models, settings, checks, self.price, ca_file=settings.target.ca_file)
            raise typer.Exit
        _make_folders(settings.reports, self.write_baseline)
        _warn_about_plain_http(provider)
        report = asyncio.run(self._check(provider, models, settings, checks, known))
        if settings.reports.record:
            with settings.reports.record.open("w", encoding="utf-8") as file:
                recording.write(file, [model.run for model in report.models])
        _finish(report, settings.reports, known, self.write_baseline, quiet=self.quiet)

    async def _check(
        self,
        provider: Target,
        models: Sequence[str],
        settings: CheckSettings,
        checks: Sequence[Check],
        known: Baseline,
    ) -> Report:
        from rich.console import Console

        from roadworthy.conformance.adapter import adapted
        from roadworthy.conformance.report.terminal import Watch
        from roadworthy.http.aiohttp_transport import AiohttpTransport

        console = Console(stderr=True, highlight=False, quiet=self.quiet)
        connection = AiohttpTransport(ca_file=settings.target.ca_file)
        transport = adapted(connection, settings.adapter, provider.base_url, provider.cost_endpoint)
        watch = Watch(console)
        try:
            return await session.check(provider, models, settings, checks, transport, baseline=known, watch=watch.model)
        finally:
            watch.close()
            await transport.aclose()

    def _settings(self) -> CheckSettings:
        path = self.config
        if path is None and not self.flags["target"]["url"] and DEFAULT_CONFIG.exists():
            path = DEFAULT_CONFIG
        values = merge(read_toml(path) if path else {}, self.flags)
        if self.capabilities:
            declared = values.get("capabilities")
            values["capabilities"] = {**(declared if isinstance(declared, dict) else {}), **self._declared()}
        return validate(CheckSettings, values, str(path) if path else "the command line")

    def _declared(self) -> dict[str, bool]:
        declared = {}
        words = {"yes": True, "no": False, "true": True, "false": False, "": True}
        for item in self.capabilities:
            name, _, word = item.partition("=")
            if name not in list(Capability) or word.lower() not in words:
                known = ", ".join(Capability)
                raise UsageError(f"--capability {item}: expected NAME or NAME=no, with a name among: {known}")
            declared[name] = words[word.lower()]
        return declared


async def _everything(provider: Target, settings: CheckSettings, checks: Sequence[Check]) -> list[str]:
    """What the API serves and any of the checks is about, as --model would name it."""
    from roadworthy.conformance.adapter import adapted
    from roadworthy.conformance.offer import offers
    from roadworthy.http.aiohttp_transport import AiohttpTransport

    transport = adapted(AiohttpTransport(ca_file=settings.target.ca_file), settings.adapter, provider.base_url)
    try:
        found = await offers(provider, transport, session.bounds(settings))
        return [
            subject.label
            for subject in found
            if any(check.applies(settings.facts(provider, subject, 0)) for check in checks)
        ]
    finally:
        await transport.aclose()


def replay(path: Path, flags: Flags, *, write_baseline: Path | None, quiet: bool) -> NoReturn:
    """Judge a recording again and leave with the verdict's exit code."""
    settings = validate(CheckSettings, merge({}, flags), "the command line")
    runs = recording.read(path)
    if settings.check.lens or settings.check.only or settings.check.exclude:
        chosen = select(settings.check.only, settings.check.exclude, settings.check.lens)
        runs = [run.narrowed(chosen) for run in runs]
    known = baselines.read(settings.check.baseline) if settings.check.baseline else Baseline()
    _make_folders(settings.reports, write_baseline)
    started_at = next((exchange.started_at for run in runs for exchange in run.exchanges), "")
    report = session.report(runs, started_at, sum(run.duration_s for run in runs), known)
    _finish(report, settings.reports, known, write_baseline, quiet=quiet)


def _finish(
    report: Report, reports: ReportsTable, known: Baseline, write_baseline: Path | None, *, quiet: bool
) -> NoReturn:
    from rich.console import Console

    from roadworthy.conformance.report import terminal

    to_stdout = reports.json_ is not None and str(reports.json_) == "-"
    written = write_reports(report, reports)
    if write_baseline:
        count = baselines.write(write_baseline, [(m.model, m.results) for m in report.models], known)
        written.append(f"{write_baseline} ({count} known failures)")
    console = Console(highlight=False, quiet=quiet or to_stdout)
    terminal.show(report, console)
    if written:
        console.print(f"Written: {', '.join(written)}", markup=False, soft_wrap=True)
    sys.stdout.flush()
    raise typer.Exit(int(report.exit_code))


def write_reports(report: Report, reports: ReportsTable) -> list[str]:
    """Write every report that is asked for; gives their names.

    Raises `UsageError` for a place that cannot be written.
    """
    from roadworthy.conformance import report as render

    written = []
    for path, renderer in (
        (reports.html, render.render_html),
        (reports.junit, render.render_junit),
        (reports.json_, render.render_json),
        (reports.badge, render.render_badge),
    ):
        if path is not None and str(path) == "-":
            sys.stdout.write(renderer(report))
        elif path is not None:
            _write(path, renderer, report)
            written.append(str(path))
    if reports.markdown is not None:
        # GitHub's job summary is one file that every step appends to.
        _guard(reports.markdown, lambda: _append(reports.markdown, render.render_markdown(report)))
        written.append(str(reports.markdown))
    if reports.record is not None:
        written.append(str(reports.record))
    return written


def _append(path: Path | None, text: str) -> None:
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def _write(path: Path, renderer: Callable[[Report], str], report: Report) -> None:
    """Replace a file whole: a reader never meets half a report."""
    text = renderer(report)

    def write() -> None:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)

    _guard(path, write)


def _guard(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None


def _make_folders(reports: ReportsTable, *more: Path | None) -> None:
    """Make the folders of all reports before a request is paid for."""
    places = (reports.html, reports.junit, reports.json_, reports.markdown, reports.badge, reports.record, *more)
    for path in places:
        if path is None or str(path) == "-":
            continue
        if path.is_dir():
            raise UsageError(f"{path}: expected a file to write to, but this is a folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{path}: its folder cannot be made: {error.strerror or error}") from None


def _warn_about_plain_http(provider: Target) -> None:
    from urllib.parse import urlsplit

    costs = provider.cost_endpoint
    for url, key in ((provider.base_url, provider.api_key), *(((costs.url, costs.api_key),) if costs else ())):
        host = urlsplit(url).hostname or ""
        local = host in ("localhost", "::1") or host.startswith("127.")
        if url.startswith("http://") and key and not local:
            typer.echo("warning: the API key goes over plain http, readable on the way; use https", err=True)
            return
