"""The exchange behind a failure, from its recording, as everybody may see it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from roadworthy.conformance import recording
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.judge import first_asked, judge
from roadworthy.conformance.report.html import Excerpt, excerpt
from roadworthy.conformance.run import Run
from roadworthy.conformance.verdict import Level, Verdict
from roadworthy.errors import RecordingError
from roadworthy.validator.pages import public

LONGEST_BYTES = 4 * 1024 * 1024
"""How much of a recording is read: the first exchanges tell why."""
_GZIP = 16 + zlib.MAX_WBITS
_MOST_HEADERS = 30


@dataclass(frozen=True, slots=True)
class Proof:
    """What was sent and received where a check failed. `check` is empty where nothing could be asked at all."""

    check: str
    at: str
    excerpt: Excerpt


def proof(packed: bytes) -> Proof | None:
    """The exchange in which the first failed check of a recorded run saw its failure; None where there is none."""
    run = unpacked(packed)
    if run is None:
        return None
    exchanges = {exchange.id: exchange for exchange in run.exchanges}
    for result in judge(run.checks, run.exchanges, run.facts, run.unsent):
        if result.verdict is Verdict.FAIL and result.level is Level.MUST:
            for finding in result.findings:
                if finding.exchange_id in exchanges:
                    return Proof(result.check_id, finding.at, shown(exchanges[finding.exchange_id], finding.at))
    first = first_asked(run.exchanges)
    return None if first is None else Proof("", "", shown(first, ""))


def unpacked(packed: bytes) -> Run | None:
    """The run in a recording; of a long one the beginning. None for what this version cannot read."""
    try:
        text = zlib.decompressobj(_GZIP).decompress(packed, LONGEST_BYTES).decode(errors="ignore")
        runs = recording.parse(text if text.endswith("\n") else text[: text.rfind("\n") + 1], "the recording")
    except (zlib.error, RecordingError):
        return None
    return runs[0]


def shown(exchange: Exchange, at: str) -> Excerpt:
    """One exchange, around the place that is meant, with nothing in it that opens a door."""
    full = excerpt(exchange, at, "exchange")
    return replace(
        full,
        request_line=f"{exchange.request.method} {public.path_of(exchange.request.url)}",
        request_headers=tuple(public.headers(full.request_headers[:_MOST_HEADERS])),
        request_body=public.text(full.request_body),
        headers=tuple(public.headers(full.headers[:_MOST_HEADERS])),
        body=public.text(full.body),
        note=public.text(full.note),
    )
