"""The reconciliation as one HTML page: nothing from elsewhere, and no script needed to read it.

Ids and model names come from others: the template engine escapes every value, and the page's own policy lets a
browser run no script but ours, by its hash, and load nothing.
"""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup

from roadworthy.billing.prices import usd
from roadworthy.billing.reconcile import drawing
from roadworthy.billing.reconcile.report import Report
from roadworthy.billing.reconcile.text import exact, iso, period, shown
from roadworthy.billing.reconcile.variance import Kind
from roadworthy.pages import environment, file

VERDICTS = {
    "within": ("✓ Within tolerance", "pass"),
    "beyond": ("✗ Beyond tolerance", "fail"),
    "undecided": ("? Undecided", "inconclusive"),
}
"""Each verdict's words, and the class of the shared style that gives it its colours."""

PACKAGE = "roadworthy.billing.reconcile"


def render(report: Report, *, style: str, script: str) -> str:
    """The page. `style` and `script` are those that roadworthy's pages share; the page's own style is added."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    templates = environment(
        PACKAGE,
        exact=exact,
        iso=iso,
        period=period,
        shown=shown,
        usd=usd,
    )
    own = file(PACKAGE, "style.css")
    summary = report.sentence()
    return templates.get_template("page.html").render(
        report=report,
        summary=summary[0].upper() + summary[1:],
        outcome=report.outcome,
        terms=report.outcome.terms,
        title=VERDICTS[report.outcome.verdict][0],
        tone=VERDICTS[report.outcome.verdict][1],
        tones={kind: _tone(kind, counts=report.outcome.counts(kind)) for kind in Kind},
        days=drawing.days(report),
        bars=drawing.classes(report),
        models=drawing.models(report),
        style=Markup(style + own),  # noqa: S704  ours
        script=Markup(script),  # noqa: S704  ours
        script_hash=digest,
    )


def _tone(kind: Kind, *, counts: bool) -> str:
    if not counts:
        return "skipped"
    return "inconclusive" if kind is Kind.UNPRICED else "fail"
