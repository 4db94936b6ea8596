"""The verdict as a small flat SVG badge."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from roadworthy.conformance.report.model import Report
from roadworthy.conformance.verdict import Verdict

# Each has a contrast of at least 4.5 to 1 with white text.
COLOURS = {
    Verdict.PASS: "#1a7f4b",
    Verdict.WARN: "#8a5a00",
    Verdict.FAIL: "#b3261e",
    Verdict.INCONCLUSIVE: "#5b6470",
    Verdict.SKIPPED: "#5b6470",
}
LABEL = "roadworthy"
_NARROW, _WIDE = frozenset("fijlrtI.,:;'|! "), frozenset("mwMW@%")


def render(report: Report) -> str:
    """The badge: the word says the verdict, the colour repeats it."""
    word = report.verdict.value
    left, right = _width(LABEL) + 12, _width(word) + 12
    total = left + right
    title = f"{LABEL}: {word}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" aria-label={quoteattr(title)}>'
        f"<title>{escape(title)}</title>"
        f'<clipPath id="r"><rect width="{total}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#3a4149"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{COLOURS[report.verdict]}"/></g>'
        '<g fill="#fff" text-anchor="middle" font-size="11" '
        'font-family="Verdana,DejaVu Sans,Geneva,sans-serif">'
        f'<text x="{left / 2:g}" y="14" textLength="{left - 12}">{escape(LABEL)}</text>'
        f'<text x="{left + right / 2:g}" y="14" textLength="{right - 12}">{escape(word)}</text></g></svg>\n'
    )


def _width(text: str) -> int:
    """About the pixels that text takes in 11 px Verdana; `textLength` makes it exact."""
    return round(sum(4.2 if char in _NARROW else 10.2 if char in _WIDE else 7.0 for char in text))
