"""The report as JUnit XML, as GitHub actions, GitLab and Jenkins read it.

One test suite per model and group, one test case per check:

- a failed MUST is a `failure`;
- what could not be told is an `error` where it decides (a MUST, or a model of
  which nothing could be judged), since the run is red then and a CI system must
  not show it green; elsewhere it is `skipped`, the reason beginning with "inconclusive";
- a warning passes, with its text in `system-out` and the property `roadworthy.verdict`;
- a failure that the baseline knows is `skipped`, the reason beginning with "known";
- a stale entry of the baseline is a `failure` in a suite of its own.

The time of a test case is that of the exchanges it is the first to look at, so
that the sums are the time the server took.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET  # only writes XML here, never reads any
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from roadworthy.conformance.report.model import Report
from roadworthy.conformance.report.text import clip, one_line
from roadworthy.conformance.report.view import ModelView, Row, View
from roadworthy.conformance.verdict import Level, Verdict
from roadworthy.pages import visible

LONGEST_TEXT = 8000
NS = 1e9


def render(report: Report) -> str:
    """The report as XML text."""
    root = ET.Element("testsuites", name="roadworthy")
    for model in View(report).models:
        clock = _Clock(model)
        for name, rows in model.groups.items():
            root.append(_suite(report, model, name, rows, clock))
    if report.stale_baseline:
        root.append(_stale(report.stale_baseline))
    _sum(root, root.findall("testsuite"))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="utf-8"?>\n', "\n")
    )


@dataclass
class _Clock:
    """Books each exchange's time on the first check that looks at it."""

    model: ModelView
    booked: set[str] = field(default_factory=set)

    def seconds(self, row: Row) -> float:
        new = [id for id in row.result.exchange_ids if id not in self.booked and id in self.model.exchanges]
        self.booked.update(new)
        return sum((self.model.exchanges[id].reply.timings.last_byte_ns or 0) / NS for id in new)


def _suite(report: Report, model: ModelView, name: str, rows: Sequence[Row], clock: _Clock) -> ET.Element:
    suite = ET.Element("testsuite", name=visible(f"{model.name} {name}"), timestamp=report.started_at.partition("+")[0])
    properties = ET.SubElement(suite, "properties")
    for key, value in (("base_url", report.base_url), ("model", model.name), ("version", report.version)):
        ET.SubElement(properties, "property", name=f"roadworthy.{key}", value=visible(value))
    for row in rows:
        suite.append(_case(row, clock.seconds(row)))
    _sum(suite, suite.findall("testcase"))
    return suite


def _case(row: Row, seconds: float) -> ET.Element:
    dotted = row.model.name.replace(".", "_")
    case = ET.Element(
        "testcase", classname=visible(f"roadworthy.{dotted}.{row.group}"), name=row.id, time=f"{seconds:.6f}"
    )
    properties = ET.SubElement(case, "properties")
    ET.SubElement(properties, "property", name="roadworthy.verdict", value=row.word)
    ET.SubElement(properties, "property", name="roadworthy.level", value=row.result.level.value)
    reason = one_line(row.result.reason or row.check.rule, 500)
    decides = row.result.level is Level.MUST or row.model.report.verdict is Verdict.INCONCLUSIVE
    match row.verdict:
        case _ if row.result.known:
            ET.SubElement(case, "skipped", message=f"known: {reason}")
        case Verdict.FAIL:
            ET.SubElement(case, "failure", message=_headline(row), type=row.result.level.value).text = explain(row)
        case Verdict.INCONCLUSIVE if decides:
            ET.SubElement(case, "error", message=reason, type="inconclusive").text = explain(row)
        case Verdict.INCONCLUSIVE:
            ET.SubElement(case, "skipped", message=f"inconclusive: {reason}")
        case Verdict.SKIPPED:
            ET.SubElement(case, "skipped", message=reason)
        case Verdict.WARN:
            ET.SubElement(case, "system-out").text = f"warning: {explain(row)}"
        case Verdict.PASS:
            pass
    return case


def _headline(row: Row) -> str:
    if row.result.findings and not row.result.trials:
        finding = row.result.findings[0]
        return one_line(f"expected {finding.expected}, got {finding.got}", 500)
    return one_line(row.result.reason or row.check.rule, 500)


def explain(row: Row) -> str:
    """A check's result in plain text: the rule, what came, why it matters, how to mend and how to reproduce it."""
    lines = [row.check.rule]
    if row.result.reason:
        lines.append(row.result.reason)
    for evidence in row.evidence:
        finding = evidence.finding
        lines += [
            "",
            f"{finding.exchange_id} {finding.at}".strip(),
            f"  expected: {clip(finding.expected, 1000)}",
            f"  got:      {clip(finding.got, 1000)}",
        ]
        if finding.note:
            lines.append(f"  note:     {clip(finding.note, 1000)}")
    lines += ["", f"Why: {row.check.why}", f"Remedy: {row.check.remedy}", f"Source: {row.check.source}"]
    command = next((evidence.curl for evidence in row.evidence if evidence.curl), "")
    if command:
        lines += ["", command]
    lines.append(row.replay)
    return clip(visible("\n".join(lines)), LONGEST_TEXT)


def _stale(entries: Sequence[str]) -> ET.Element:
    suite = ET.Element("testsuite", name="baseline")
    for entry in entries:
        case = ET.SubElement(suite, "testcase", classname="roadworthy.baseline", name=visible(entry), time="0")
        message = "this known failure no longer fails; remove it from the baseline"
        ET.SubElement(case, "failure", message=message, type="stale").text = visible(entry)
    _sum(suite, suite.findall("testcase"))
    return suite


def _sum(parent: ET.Element, children: Iterable[ET.Element]) -> None:
    """Write the sums over suites or cases into their parent."""
    children = list(children)
    cases = [case for child in children for case in ([child] if child.tag == "testcase" else child.iter("testcase"))]
    parent.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        parent.set(name, str(sum(case.find(tag) is not None for case in cases)))
    parent.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.6f}")
