"""Badges: a provider's or a mapping's state as a small flat SVG."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from roadworthy.conformance.report.text import clip
from roadworthy.pages import visible
from roadworthy.validator.health import State
from roadworthy.validator.pages.states import SHAPES

# Each has a contrast of at least 4.5 to 1 with white text.
COLOURS = {
    State.LIVE: "#1a7f4b",
    State.DEGRADED: "#8a5a00",
    State.FAILING: "#b3261e",
    State.SUSPENDED: "#5b6470",
    State.MAINTENANCE: "#6b3fa0",
    State.UNKNOWN: "#5b6470",
}
_SHAPE_PX = 14
_NARROW, _WIDE = frozenset("fijlrtI.,:;'|! "), frozenset("mwMW@%")


def badge(label: str, state: State, word: str = "") -> str:
    """The badge: the word says the state, shape and colour repeat it. `word` takes the place of the state's own."""
    word = word or state.value
    label = visible(clip(label, 60))
    left, right = _width(label) + 12, _width(word) + 12 + _SHAPE_PX
    total, title = left + right, f"{label}: {word}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" aria-label={quoteattr(title)}>'
        f"<title>{escape(title)}</title>"
        f'<clipPath id="r"><rect width="{total}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#3a4149"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{COLOURS[state]}"/></g>'
        f'<g fill="#fff" color="#fff" transform="translate({left + 5} 5.2) scale(.8)">{SHAPES[state]}</g>'
        '<g fill="#fff" text-anchor="middle" font-size="11" '
        'font-family="Verdana,DejaVu Sans,Geneva,sans-serif">'
        f'<text x="{left / 2:g}" y="14" textLength="{left - 12}">{escape(label)}</text>'
        f'<text x="{left + _SHAPE_PX + (right - _SHAPE_PX) / 2:g}" y="14" '
        f'textLength="{right - 12 - _SHAPE_PX}">{escape(word)}</text></g></svg>\n'
    )


def _width(text: str) -> int:
    """About the pixels that text takes in 11 px Verdana; `textLength` makes it exact."""
    return round(sum(4.2 if char in _NARROW else 10.2 if char in _WIDE else 7.0 for char in text))
