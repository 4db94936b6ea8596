"""Reports of a run, in the forms people and machines read.

Each renderer is imported when it is called: a run that writes no HTML page
does not wait for the template engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roadworthy.conformance.report.model import Report

__all__ = ["render_badge", "render_html", "render_json", "render_junit", "render_markdown"]


def render_json(report: Report) -> str:
    """The report as a JSON document (schema: `schemas/report/report.json`)."""
    from roadworthy.conformance.report.document import render

    return render(report)


def render_junit(report: Report) -> str:
    """The report as JUnit XML, for test-result views of CI systems."""
    from roadworthy.conformance.report.junit import render

    return render(report)


def render_markdown(report: Report) -> str:
    """The report as GitHub-flavoured Markdown, for a job summary."""
    from roadworthy.conformance.report.markdown import render

    return render(report)


def render_html(report: Report) -> str:
    """The report as one HTML page that needs no network and no script."""
    from roadworthy.conformance.report.html import render

    return render(report)


def render_badge(report: Report) -> str:
    """The verdict as an SVG badge."""
    from roadworthy.conformance.report.badge import render

    return render(report)
