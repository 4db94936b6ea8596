"""The report for a terminal, and the progress while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from roadworthy.conformance.report.model import Report
from roadworthy.conformance.report.text import one_line, plural
from roadworthy.conformance.report.view import SYMBOLS, ModelView, Row, View
from roadworthy.conformance.run import Progress as Step
from roadworthy.conformance.run import Watch as Callback
from roadworthy.conformance.verdict import Lens, Verdict
from roadworthy.pages import visible

STYLES = {
    Verdict.PASS: "bold green",
    Verdict.FAIL: "bold red",
    Verdict.WARN: "bold yellow",
    Verdict.SKIPPED: "dim",
    Verdict.INCONCLUSIVE: "bold magenta",
}
SHORT = {Lens.JAVASCRIPT: "js"}
WIDE = 100
LEGEND = "✓ pass   ✗ fail   ! warn   ? in doubt   - this view has nothing to say"
NAME_BESIDE_BAR = 40
LABEL = 12
LENS_VERDICT = 16
MOST_IDS = 6
MORE = "More: `roadworthy explain ID` on a rule, --html report.html on the evidence."
SILENCE_S = 10.0
"""Without a terminal, a line this often at most: a CI log wants a sign of life, not an animation."""


def show(report: Report, console: Console) -> None:
    """Print the report: the verdict first, all green on one screen, failures below with what mends them."""
    _Printer(console).report(View(report))


class _Printer:
    """Prints the parts of a report."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def report(self, view: View) -> None:
        several = len(view.models) > 1
        self._headline(view)
        for name, caveat in view.caveats:
            text = Text(f"{visible(name)}: " if name else "", "bold")
            text.append(visible(caveat.text), "bold yellow" if caveat.grave else "")
            self._field("read first" if caveat.grave else "note", text)
        for entry in view.report.stale_baseline:
            self._field("stale", Text(visible(f"{entry} no longer fails; remove it from the baseline"), "bold red"))
        self._field("checks", Text(view.report.counts.phrase()))
        if view.many or (several and view.noun == "task"):
            self._table(view)
        else:
            for model in view.models:
                self._model(model, several=several)
        if view.conflicts:
            self._heading("Where not everybody can be satisfied")
        for name, reason in view.conflicts:
            self._indented(Text(f"{name}: ", "bold") + Text(one_line(reason, 400)))
        for model in view.models:
            self._problems(model, suffix=f" of {model.name}" if several else "", brief=view.many)
        if any(model.having(Verdict.FAIL) for model in view.models):
            self._console.print()
            self._line(Text(MORE, "dim"))

    def _headline(self, view: View) -> None:
        names = view.models[0].name if len(view.models) == 1 else plural(len(view.models), view.noun)
        line = _word(view.report.verdict).append(f"  {visible(names)}", "bold")
        self._console.print()
        self._line(line.append(f" at {visible(view.report.base_url)}", "not bold"))
        self._console.print()

    def _model(self, model: ModelView, *, several: bool) -> None:
        if several:
            self._console.print()
            self._line(_word(model.report.verdict).append(f"  {visible(model.name)}", "bold"))
        for part in model.report.lenses.values():
            word = _word(part.verdict)
            word.pad_right(LENS_VERDICT - len(word))
            self._field(part.lens.value, word + Text(part.counts.phrase()))
        latency = model.latency()
        if latency:
            self._field("latency", Text(latency))
        for label, names in model.offers().items():
            self._field(label, Text(one_line(", ".join(names), 600), "dim" if label.startswith("not") else ""))
        self._field("requests", Text(model.requests()))

    def _table(self, view: View) -> None:
        """One line for each task or model, and its verdict in each lens."""
        from rich.table import Table

        lenses = list(view.report.lenses)
        brief = self._console.width < WIDE
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        for title in ("task", "API") if view.noun == "task" else ("model",):
            table.add_column(title, overflow="fold")
        for lens in lenses:
            table.add_column(SHORT.get(lens, lens.value), no_wrap=True)
        table.add_column("sent", justify="right")
        for model, verdicts in view.table:
            subject = model.subject
            twice = sum(m.subject.task == subject.task and m.subject.api is subject.api for m in view.models) > 1
            task = f"{subject.task} {subject.model}" if twice else subject.task
            names = (task, subject.api.value) if view.noun == "task" else (model.name,)
            cells = [_mark(verdicts.get(lens), brief=brief) for lens in lenses]
            table.add_row(*map(visible, names), *cells, str(model.report.run.requests))
        self._console.print()
        self._console.print(table)
        if brief:
            self._line(Text(f"  {LEGEND}", "dim"))

    def _problems(self, model: ModelView, *, suffix: str, brief: bool = False) -> None:
        failed, warned = model.having(Verdict.FAIL), model.having(Verdict.WARN)
        if failed:
            self._heading(plural(len(failed), "failure") + suffix)
        for row in failed:
            self._failure(row)
        if warned:
            self._heading(plural(len(warned), "warning") + suffix)
        for row in warned:
            self._warning(row)
        # Of many subjects, what was skipped is told by --html and --json; what is in doubt must be read.
        for verdict in (Verdict.INCONCLUSIVE,) if brief else (Verdict.INCONCLUSIVE, Verdict.SKIPPED):
            reasons = model.reasons(verdict)
            if reasons:
                self._heading(f"{sum(len(rows) for _, rows in reasons)} {verdict.value}{suffix}")
            for reason, rows in reasons:
                self._reason(reason, rows)
        if model.known:
            self._heading(f"{len(model.known)} known to the baseline{suffix}")
            self._indented(Text(", ".join(row.id for row in model.known)))

    def _failure(self, row: Row) -> None:
        self._console.print()
        self._title(row)
        self._indented(Text(row.check.rule))
        if row.result.reason:
            self._field("result", Text(one_line(row.result.reason, 400)))
        for evidence in row.evidence[:1]:
            finding = evidence.finding
            self._field("expected", Text(one_line(finding.expected, 300)))
            self._field("got", Text(one_line(finding.got, 300), "red"))
            if finding.note:
                self._field("note", Text(one_line(finding.note, 300)))
            self._field("at", Text(one_line(evidence.place, 200)))
        others = dict.fromkeys(evidence.place for evidence in row.evidence[1:])
        if others:
            self._field("also at", Text(one_line("; ".join(others), 240), "dim"))
        self._field("remedy", Text(row.check.remedy, "green"))
        self._field("source", Text(row.check.source, "dim"))
        command = next((evidence.curl for evidence in row.evidence if evidence.curl), "")
        if command:
            # On a line of its own and not wrapped by us: it is there to be copied.
            self._line(Text.assemble((f"  {'try':{LABEL}}", "dim"), visible(command)))

    def _warning(self, row: Row) -> None:
        self._title(row)
        if row.result.findings and not row.result.trials:
            finding = row.result.findings[0]
            came = f"expected {one_line(finding.expected, 120)}, got {one_line(finding.got, 120)}"
            self._field("", Text(f"{came} ({finding.exchange_id})"))
        else:
            self._field("", Text(one_line(row.result.reason or row.check.rule, 300)))
        self._field("remedy", Text(row.check.remedy, "dim"))

    def _reason(self, reason: str, rows: Sequence[Row]) -> None:
        ids = ", ".join(row.id for row in rows[:MOST_IDS])
        more = f" and {len(rows) - MOST_IDS} more" if len(rows) > MOST_IDS else ""
        self._indented(Text(one_line(reason, 300)) + Text(f": {ids}{more}", "dim"))

    def _title(self, row: Row) -> None:
        line = _word(row.verdict).append(f"  {row.id}", "bold")
        self._line(line.append(f"  {row.result.level.value} ({', '.join(row.result.lenses)})", "not bold dim"))

    def _heading(self, title: str) -> None:
        self._console.print()
        self._console.rule(Text(visible(title), "bold"), align="left", style="dim")

    def _indented(self, value: Text) -> None:
        for line in self._wrapped(value, 2):
            self._line(Text("  ") + line)

    def _field(self, label: str, value: Text) -> None:
        """A label and its value; wrapped here, since a table would pad its lines with spaces."""
        for line in self._wrapped(value, LABEL + 2):
            self._line(Text.assemble((f"  {label:{LABEL}}", "dim"), line))
            label = ""

    def _wrapped(self, value: Text, indent: int) -> list[Text]:
        lines = list(value.wrap(self._console, max(20, self._console.width - indent)))
        for line in lines:
            line.rstrip()
        return lines

    def _line(self, line: Text) -> None:
        encoding = self._console.encoding
        if not encoding.startswith("utf"):
            # Not every console can show a tick; none may fail over one.
            line = Text(line.plain.encode(encoding, "replace").decode(encoding))
        self._console.print(line, soft_wrap=True)


def _mark(verdict: Verdict | None, *, brief: bool) -> Text:
    """A verdict as a table shows it: nothing where a lens has nothing to say."""
    if verdict in (None, Verdict.SKIPPED):
        return Text("-", "dim")
    word = {Verdict.INCONCLUSIVE: "doubt"}.get(verdict, verdict.value)
    return Text(SYMBOLS[verdict] if brief else f"{SYMBOLS[verdict]} {word}", STYLES[verdict])


def _word(verdict: Verdict) -> Text:
    """The verdict as symbol and word, styled by spans, so that what is appended is not."""
    return Text().append(f"{SYMBOLS[verdict]} {verdict.value.upper()}", STYLES[verdict])


class Watch:
    """Shows how far a run has come; `model` gives the callback for one model's run, `close` ends the show.

    On a terminal a bar that leaves nothing behind; elsewhere a short line now and then.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._said = time.monotonic()
        if console.is_terminal and not console.quiet:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[probe]}", markup=False, style="dim"),
                console=console,
                transient=True,
            )
            self._bar.start()

    def model(self, name: str) -> Callback:
        """The callback for one model."""
        bar = self._bar
        shown = visible(name)
        if bar is not None and len(shown) > NAME_BESIDE_BAR:
            shown = f"{shown[: NAME_BESIDE_BAR - 1]}…"
        if bar is None:
            self._say(f"roadworthy: asking {shown}")
            return lambda step: self._line(shown, step)
        for task in bar.tasks:
            bar.remove_task(task.id)
        task_id = bar.add_task(shown, total=None, probe="")
        return lambda step: _advance(bar, task_id, step)

    def close(self) -> None:
        """End the show; nothing of a bar stays."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, name: str, step: Step) -> None:
        if time.monotonic() - self._said >= SILENCE_S:
            self._say(f"roadworthy: {name}: {step.sent} of about {step.expected} requests answered")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._console.print(Text(line), soft_wrap=True)


def _advance(bar: Progress, task_id: TaskID, step: Step) -> None:
    bar.update(task_id, completed=step.sent, total=step.expected, probe=step.exchange.probe[:24])
