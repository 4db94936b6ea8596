"""The report as one HTML page: no network, no fonts, no script needed to read it.

Whatever a server sent is hostile. The template engine escapes every value, and
the page's own content policy forbids any script but ours (by its hash) and any
request at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Ability
from roadworthy.conformance.report import drawing
from roadworthy.conformance.report.model import Report
from roadworthy.conformance.report.text import clip, day, duration, plural, size
from roadworthy.conformance.report.view import SYMBOLS, Evidence, ModelView, Row, View
from roadworthy.conformance.subject import CHAT, Api
from roadworthy.conformance.verdict import Lens, Verdict
from roadworthy.http.message import Headers
from roadworthy.pages import environment, file

LONGEST_BODY = 3000
MOST_EXCERPTS = 40
"""Failures whose exchange is shown; the page stays a page."""
MOST_STREAMS = 24
STREAMS_OPEN = 4
_EVENT = re.compile(r"^event (\d+)")

LENSES = {
    Lens.HUB: "what the hub's periodic validation decides",
    Lens.SPEC: "what the published API specifications say",
    Lens.JAVASCRIPT: "what @huggingface/inference makes of the recorded answers",
    Lens.PYTHON: "what huggingface_hub makes of the recorded answers",
    Lens.OPENAI: "what the OpenAI SDKs and their users rely on",
}
APIS = {
    Api.OPENAI: "OpenAI-compatible routes",
    Api.RESPONSES: "Responses API",
    Api.SERVERLESS: "hub's task routes",
    Api.TGI: "text-generation server",
    Api.ENDPOINTS: "management of dedicated endpoints",
    Api.JOBS: "submit, poll, fetch",
}
GROUPS = {
    "task": "Task",
    "serverless": "Task routes",
    "jobs": "Jobs",
    "catalogue": "Router's catalogue",
    "clients": "Official clients",
    "openapi": "Generated requests",
    "fuzz": "Generated requests",
    "responses": "Responses API",
    "responses.stream": "Responses API, streaming",
    "completions": "Text completions",
    "embeddings": "Embeddings",
    "images": "Images",
    "transcription": "Transcription",
    "speech": "Speech",
    "tgi": "Text-generation server",
    "endpoints": "Dedicated endpoints",
    "target": "Target",
    "discovery": "Discovery",
    "chat": "Chat",
    "chat.stream": "Streaming",
    "tools": "Tool calling",
    "structured": "Structured output",
    "errors": "Errors",
    "auth": "Authentication",
    "request_id": "Request id",
    "latency": "Latency",
    "usage": "Usage",
    "vision": "Vision",
}

PACKAGE = "roadworthy.conformance.report"


def render(report: Report) -> str:
    """The page."""
    script = file(PACKAGE, "script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    templates = environment(
        PACKAGE,
        SYMBOLS=SYMBOLS,
        GROUPS=GROUPS,
        LENSES=LENSES,
        APIS=APIS,
        Verdict=Verdict,
        clip=clip,
        duration=duration,
        plural=plural,
        size=size,
        interval=drawing.interval,
    )
    view = View(report)
    models = [model for model, _ in view.table] if view.many else view.models
    pages = [Page(model, number) for number, model in enumerate(models, 1)]
    return templates.get_template("report.html").render(
        view=view,
        report=report,
        pages=pages,
        anchors={page.model.name: f"{page.prefix}model" for page in pages},
        started=day(report.started_at),
        # Ours, and the only text that is not escaped.
        style=Markup(file(PACKAGE, "style.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=digest,
    )


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What one exchange held, in parts short enough to read."""

    id: str
    anchor: str
    request_line: str
    request_headers: Headers
    request_body: str
    status_line: str
    headers: Headers
    body: str
    note: str


@dataclass(frozen=True)
class Shown:
    """One finding as the page shows it; `excerpt` is None where the exchange was shown before, at `anchor`."""

    evidence: Evidence
    excerpt: Excerpt | None
    anchor: str


@dataclass(frozen=True)
class Page:
    """One model's part of the page."""

    model: ModelView
    number: int

    @property
    def chats(self) -> bool:
        """Whether this is about a chat model, which has abilities of its own."""
        return self.model.subject.task == CHAT

    @property
    def prefix(self) -> str:
        """What sets this model's anchors apart."""
        return f"m{self.number}-"

    @cached_property
    def failures(self) -> list[tuple[Row, list[Shown]]]:
        """Failures, then warnings, then flaky choices: all that has evidence and counts."""
        seen: set[str] = set()
        rows = [
            *self.model.having(Verdict.FAIL),
            *self.model.having(Verdict.WARN),
            *(row for row in self.model.having(Verdict.INCONCLUSIVE) if row.result.findings),
        ]
        return [(row, list(self._shown(row, seen))) for row in rows]

    def _shown(self, row: Row, seen: set[str]) -> Iterator[Shown]:
        for evidence in row.evidence:
            exchange = evidence.exchange
            if exchange is None:
                yield Shown(evidence, None, "")
                continue
            anchor = self.prefix + "exchange-" + re.sub(r"[^A-Za-z0-9]+", "-", exchange.id)
            fresh = exchange.id not in seen and len(seen) < MOST_EXCERPTS
            if fresh:
                seen.add(exchange.id)
            shown = excerpt(exchange, evidence.finding.at, anchor) if fresh else None
            yield Shown(evidence, shown, anchor if exchange.id in seen else "")

    @cached_property
    def streams(self) -> list[drawing.Timeline]:
        """The streams' timelines: those with findings first."""
        blamed = {e.finding.exchange_id for row, _ in self.failures for e in row.evidence}
        lines = drawing.timelines(self.model.report.run.exchanges)
        return sorted(lines, key=lambda line: line.exchange.id not in blamed)

    @property
    def streams_open(self) -> list[drawing.Timeline]:
        """The streams that are shown at once."""
        return self.streams[:STREAMS_OPEN]

    @property
    def streams_folded(self) -> list[drawing.Timeline]:
        """The streams behind a fold."""
        return self.streams[STREAMS_OPEN:MOST_STREAMS]

    @cached_property
    def spreads(self) -> list[drawing.Spread]:
        """The distributions of what was measured."""
        return drawing.spreads(self.model.measured, self.model.report.run.facts.limits.time_to_first_token_s)

    @property
    def words(self) -> list[tuple[str, int]]:
        """The verdicts that occur and how often, for the filter."""
        counted = Counter(row.verdict.value for row in self.model.rows)
        return [(verdict.value, counted[verdict.value]) for verdict in Verdict if counted[verdict.value]]

    @staticmethod
    def offered(ability: Ability) -> str:
        """Whether a capability is offered, in a word."""
        return {True: "yes", False: "no", None: "not asked"}[ability.offered]


def excerpt(exchange: Exchange, at: str, anchor: str) -> Excerpt:
    """What one exchange held, around the place that a finding names."""
    request, reply = exchange.request, exchange.reply
    body, note = _body_excerpt(exchange, at)
    if reply.failure is not None:
        note = f"{reply.failure.message}. {note}".strip()
    return Excerpt(
        id=exchange.id,
        anchor=anchor,
        request_line=f"{request.method} {request.url}",
        request_headers=request.headers,
        request_body=_pretty(request.body or b""),
        status_line=f"HTTP {reply.status}" if reply.status is not None else "no answer",
        headers=reply.headers,
        body=body,
        note=note,
    )


def _body_excerpt(exchange: Exchange, at: str) -> tuple[str, str]:
    """The part of the body that a finding is about, and a note on what is left out."""
    body = exchange.reply.body
    events = exchange.stream.events if exchange.media_type == "text/event-stream" else ()
    match = _EVENT.match(at)
    if not match or not events or int(match[1]) >= len(events):
        return _pretty(body), f"{size(len(body))} in all." if len(body) > LONGEST_BODY else ""
    here = int(match[1])
    first, last = max(0, here - 2), min(len(events) - 1, here + 2)
    text = body[events[first].start : events[last].end].decode(errors="replace")
    return clip(text, LONGEST_BODY), f"Events {first} to {last} of {len(events)}; event {here} is meant."


def _pretty(data: bytes) -> str:
    """JSON indented, anything else as it came; clipped."""
    try:
        if len(data) <= 20 * LONGEST_BODY:
            return clip(json.dumps(json.loads(data), indent=2, ensure_ascii=False), LONGEST_BODY)
    except (ValueError, RecursionError):
        pass
    return clip(data[: 4 * LONGEST_BODY].decode(errors="replace"), LONGEST_BODY)
