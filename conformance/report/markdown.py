"""The report as GitHub-flavoured Markdown, for a job summary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from roadworthy.conformance.report.model import LensReport, Report
from roadworthy.conformance.report.text import clip, duration
from roadworthy.conformance.report.view import SYMBOLS, Evidence, ModelView, Row, View
from roadworthy.conformance.verdict import Lens, Verdict
from roadworthy.pages import visible

MOST_BYTES = 1000 * 1000
"""GitHub drops a step's summary above 1 MiB."""
MOST_FAILURES = 100
EMOJI = {
    Verdict.PASS: "✅",
    Verdict.FAIL: "❌",
    Verdict.WARN: "⚠️",
    Verdict.SKIPPED: "⏭️",
    Verdict.INCONCLUSIVE: "❔",
}
# What Markdown, HTML, and GitHub's mentions, issue links, formulas and auto-links would act upon.
_ACTIVE = re.compile(r"[\\`*_{}\[\]<>#|~&@$:]|(?<=www)\.|^[-+=]|(?<=^\d)[.)]", re.IGNORECASE)
_ENTITIES = re.compile(r"[&<>|`*_\[\]\\~$@#:!.]")


def render(report: Report) -> str:
    """The summary; it ends early, and says so, rather than grow above what GitHub shows."""
    parts, used = [], 0
    for part in _parts(View(report)):
        used += len(part.encode())
        if used > MOST_BYTES:
            parts.append("\nMore did not fit into this summary: see the JSON or HTML report.\n")
            break
        parts.append(part)
    return "".join(parts)


def _parts(view: View) -> Iterator[str]:
    report = view.report
    yield f"## {_verdict(report.verdict)}: roadworthy on {code(report.base_url)}\n\n"
    for name, caveat in view.caveats:
        where = f"{code(name)}: " if name else ""
        yield f"> {'**' if caveat.grave else ''}{where}{text(caveat.text)}{'**' if caveat.grave else ''}\n\n"
    if report.stale_baseline:
        yield "> **Stale baseline entries, which no longer fail; remove them:** "
        yield ", ".join(code(entry) for entry in report.stale_baseline) + "\n\n"
    for model in view.models:
        yield from _model(model)
    yield f"<sub>roadworthy {text(report.version)}, {text(report.started_at)}, {duration(report.duration_s)}</sub>\n\n"


def _model(model: ModelView) -> Iterator[str]:
    yield f"### {code(model.name)}: {_verdict(model.report.verdict)}\n\n"
    yield _lens_table(model.report.lenses)
    offers = (f"{how}: {', '.join(names)}" for how, names in model.offers().items())
    facts = [model.latency(), model.requests(), *offers]
    yield "".join(f"- {text(fact)}\n" for fact in facts if fact) + "\n"
    failed = model.having(Verdict.FAIL)
    for title, rows in (("Failures", failed), ("Warnings", model.having(Verdict.WARN))):
        if rows:
            yield f"#### {title}\n\n| | Check | What came | Remedy |\n|---|---|---|---|\n"
            yield from (_line(row) for row in rows)
            yield "\n"
    for row in failed[:MOST_FAILURES]:
        yield from _details(row)
    if len(failed) > MOST_FAILURES:
        yield f"{len(failed) - MOST_FAILURES} more failures are in the table only.\n\n"
    for title, verdict in (("Inconclusive", Verdict.INCONCLUSIVE), ("Skipped", Verdict.SKIPPED)):
        reasons = model.reasons(verdict)
        if reasons:
            count = sum(len(rows) for _, rows in reasons)
            yield f"<details><summary>{title}: {count}</summary>\n\n"
            for reason, rows in reasons:
                yield f"- {text(clip(reason, 500))}: {', '.join(code(row.id) for row in rows)}\n"
            yield "\n</details>\n\n"
    if model.known:
        yield "<details><summary>Known to the baseline: " + str(len(model.known)) + "</summary>\n\n"
        yield "".join(f"- {code(row.id)} ({row.verdict.value})\n" for row in model.known) + "\n</details>\n\n"


def _lens_table(lenses: Mapping[Lens, LensReport]) -> str:
    lines = ["| Lens | Verdict | Checks |", "|---|---|---|"]
    lines += [f"| {lens.value} | {_verdict(part.verdict)} | {part.counts.phrase()} |" for lens, part in lenses.items()]
    return "\n".join(lines) + "\n\n"


def _line(row: Row) -> str:
    finding = row.result.findings[0] if row.result.findings else None
    came = f"expected {finding.expected}, got {finding.got}" if finding and not row.result.trials else row.result.reason
    cells = (EMOJI[row.verdict], code(row.id), text(clip(came, 300)), prose(row.check.remedy))
    return f"| {' | '.join(cells)} |\n"


def _details(row: Row) -> Iterator[str]:
    yield f"<details><summary>{SYMBOLS[row.verdict]} <code>{row.id}</code> ({row.result.level.value})</summary>\n\n"
    yield f"**Rule.** {prose(row.check.rule)}\n\n**Why.** {prose(row.check.why)}\n\n"
    if row.result.reason:
        yield f"{text(clip(row.result.reason, 1000))}\n\n"
    yield from map(_evidence, row.evidence)
    command = next((evidence.curl for evidence in row.evidence if evidence.curl), "")
    if command:
        yield block(command, "sh")
    yield f"**Remedy.** {prose(row.check.remedy)}\n\n**Source.** {text(row.check.source)}\n\n"
    yield f"Judge it again from a recording: {code(row.replay)}\n\n</details>\n\n"


def _evidence(evidence: Evidence) -> str:
    finding = evidence.finding
    lines = [
        f"- expected {code(clip(finding.expected, 600))}",
        f"- got {code(clip(finding.got, 600))}",
        f"- {code(evidence.place)}",
    ]
    if finding.note:
        lines.append(f"- {text(clip(finding.note, 600))}")
    return "\n".join(lines) + "\n\n"


def _verdict(verdict: Verdict) -> str:
    return f"{EMOJI[verdict]} {verdict.value}"


def text(value: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    return _escaped(_flat(value))


def _escaped(value: str) -> str:
    return _ACTIVE.sub(lambda match: _entity(match) if match[0] in "<>&" else "\\" + match[0], value)


def prose(value: str) -> str:
    """Our own words, in which backticks mark code."""
    parts = value.split("`")
    return "".join(code(part) if number % 2 else _escaped(part) for number, part in enumerate(parts))


def code(value: str) -> str:
    """An inline code span, also inside a table cell, whatever the text holds.

    HTML's element, not backticks: a pipe ends a table cell even between backticks.
    """
    return f"<code>{_ENTITIES.sub(_entity, _flat(value))}</code>"


def _flat(value: str) -> str:
    return visible(" ".join(value.split()))


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def block(value: str, language: str = "") -> str:
    """A fenced block whose fence is longer than any run of backticks within."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{visible(value)}\n{fence}\n\n"
