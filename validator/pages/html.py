"""The pages: server-rendered, no script, nothing from elsewhere.

Names come from partners and texts from their servers: the template engine escapes every value,
and the policy that goes with each page lets a browser load nothing but the style in it.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

import roadworthy
from roadworthy.conformance.report.text import clip, duration, plural
from roadworthy.pages import environment, file
from roadworthy.validator.health import State
from roadworthy.validator.outcome import ErrorClass, Result
from roadworthy.validator.pages import drawings
from roadworthy.validator.pages.states import MEANINGS, SHAPES, WORST_FIRST
from roadworthy.validator.schedule import SECOND_US

CLASSES = {
    ErrorClass.OURS: "our own fault",
    ErrorClass.NETWORK: "network",
    ErrorClass.AUTH: "key refused",
    ErrorClass.RATE_LIMIT: "rate limit",
    ErrorClass.PROVIDER_5XX: "server error",
    ErrorClass.CONTRACT: "answer not as agreed",
}
RESULTS = {
    Result.WORKS: ("passed", State.LIVE),
    Result.DEGRADED: ("degraded", State.DEGRADED),
    Result.FAILS: ("failed", State.FAILING),
    Result.IN_DOUBT: ("in doubt", State.UNKNOWN),
}

PACKAGE = "roadworthy.validator.pages"


def page(template: str, **values: Any) -> bytes:
    """One page."""
    return _environment().get_template(template).render(**values).encode(errors="replace")


@cache
def policy() -> str:
    """What a browser may do with a page: show its own style, its own badges, and send its form back here."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )


@cache
def _style() -> str:
    """The HTML report's style, and what these pages add to it."""
    ours = file(PACKAGE, "style.css")
    return "\n" + file("roadworthy.conformance.report", "style.css") + ours


@cache
def _environment() -> Environment:
    return environment(
        PACKAGE,
        style=Markup(_style()),  # noqa: S704  ours
        version=roadworthy.__version__,
        State=State,
        WORST_FIRST=WORST_FIRST,
        MEANINGS=MEANINGS,
        SHAPES={state: Markup(shape) for state, shape in SHAPES.items()},  # noqa: S704  ours
        CLASSES=CLASSES,
        RESULTS=RESULTS,
        bars=drawings.bars,
        summary=drawings.summary,
        said=drawings.said,
        BAR_US=drawings.BAR_US,
        clip=clip,
        duration=duration,
        plural=plural,
        when=when,
        ago=ago,
        iso=iso,
    )


def when(at_us: int) -> str:
    """A time in full: "21 Nov 2026, 05:13 UTC"."""
    at = datetime.fromtimestamp(at_us / SECOND_US, UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def iso(at_us: int) -> str:
    """A time for programs, as the `time` element wants it."""
    return f"{datetime.fromtimestamp(at_us / SECOND_US, UTC):%Y-%m-%dT%H:%M:%SZ}"


def ago(at_us: int, now_us: int) -> str:
    """How long ago, or in how long, in one figure: "3 h ago", "in 12 min"."""
    seconds = abs(now_us - at_us) / SECOND_US
    if seconds < 60:
        return "just now" if at_us <= now_us else "within a minute"
    count, unit = seconds / 60, "min"
    for factor, larger, enough in ((60, "h", 60), (24, "days", 48)):
        if count < enough:
            break
        count, unit = count / factor, larger
    text = f"{int(count)} {unit}"
    return f"{text} ago" if at_us <= now_us else f"in {text}"
