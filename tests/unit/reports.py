"""Making reports for tests of how they are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from exchanges import completion, exchange

from roadworthy.conformance.check import Check, Reading, Usable
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.report.model import ModelReport, Report
from roadworthy.conformance.run import Run
from roadworthy.conformance.statistics import trials
from roadworthy.conformance.verdict import CheckResult, Finding, Lens, Level, Verdict
from roadworthy.http.message import Read, Reply, Request, Timings

URL = "http://127.0.0.1:1/v1"
HOSTILE = (
    "<script>alert(1)</script> | ` ]] & \x1b[31mred\x1b[0m \x9b2J \u202eabc \ud800 \x00 **b** [l](http://x.example) @me"
)


def rule(id: str, level: Level = Level.MUST) -> Check:
    """A check that is only shown, never judged."""
    return Check(
        id=id,
        level=level,
        lenses=(Lens.HUB, Lens.OPENAI),
        source="a document, its section",
        rule=f"The rule of `{id}`.",
        why="Clients break without it.",
        remedy="Send `it`.",
        reading=Reading.EACH,
        probes=(),
        usable=Usable.ANYTHING,
        needs=(),
        bar=None,
        judge=lambda _: (),
        wants_facts=False,
    )


def result(check: Check, verdict: Verdict, *findings: Finding, reason: str = "", **kwargs) -> CheckResult:
    ids = tuple(dict.fromkeys(finding.exchange_id for finding in findings)) or ("chat.basic#1",)
    return CheckResult(
        check.id, check.level, check.lenses, verdict, reason, findings, exchange_ids=kwargs.pop("ids", ids), **kwargs
    )


def streamed(id: str, *events: tuple[float, object], headers_ms: float = 5.0, **reply) -> Exchange:
    """A stream whose events arrive at these milliseconds."""
    body, reads = b"", []
    for at_ms, data in events:
        body += f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
        reads.append(Read(int(at_ms * 1e6), len(body)))
    timings = Timings(
        headers_ns=int(headers_ms * 1e6),
        first_byte_ns=reads[0].at_ns,
        last_byte_ns=reads[-1].at_ns,
        uncertainty_ns=1000,
    )
    headers = (("content-type", "text/event-stream"),)
    probe, _, trial = id.partition("#")
    asked = {"model": "m", "stream": True}
    request = Request(
        "POST", f"{URL}/chat/completions", (("Authorization", "Bearer ****"),), json.dumps(asked).encode()
    )
    return Exchange(id, probe, int(trial), request, Reply(200, headers, body, tuple(reads), timings, **reply))


def delta(**fields) -> dict[str, object]:
    return {"id": "c", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


STREAM = (
    (20.0, delta(role="assistant", content="")),
    (100.0, delta(content="one")),
    (120.0, delta(content=" two")),
    (420.0, delta(content=" three")),
    (440.0, {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    (450.0, {"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}}),
    (451.0, "[DONE]"),
)


def report(
    results: Sequence[tuple[Check, CheckResult]], *more: Exchange, models: Sequence[str] = ("acme/chat-1",), **kwargs
) -> Report:
    """A report of these results, on each of the models."""
    asked = {"model": "acme/chat-1", "messages": [{"role": "user", "content": "it's"}]}
    exchanges = (exchange("warmup", completion()), exchange("chat.basic", completion(), sent=asked), *more)
    return Report(
        version="0.1.0",
        base_url=URL,
        started_at="2026-11-21T05:00:00+00:00",
        duration_s=1.23456789,
        models=tuple(
            ModelReport(
                name,
                Run(Facts(URL, name), tuple(c for c, _ in results), exchanges, requests=len(exchanges), duration_s=1.2),
                tuple(r for _, r in results),
            )
            for name in models
        ),
        **kwargs,
    )


def every_verdict(text: str = "bad") -> list[tuple[Check, CheckResult]]:
    """One check of each verdict, its words from a server being `text`."""
    must, should = rule("chat.must"), rule("chat.stream.should", Level.SHOULD)
    fine, doubt, unsure, none, known, choice = (
        rule(f"{family}.rule") for family in ("discovery", "tools", "structured", "vision", "errors", "model")
    )
    finding = Finding("good", text, at="/choices/0", note=text, exchange_id="chat.basic#1")
    return [
        (fine, result(fine, Verdict.PASS)),
        (must, result(must, Verdict.FAIL, finding, replace(finding, exchange_id="chat.stream#1", at="event 1 /id"))),
        (should, result(should, Verdict.WARN, finding)),
        (doubt, result(doubt, Verdict.INCONCLUSIVE, reason=f"could not tell: {text}")),
        (unsure, result(unsure, Verdict.INCONCLUSIVE, finding, reason="flaky: 3 of 4", trials=trials(3, 4, 0.5))),
        (none, result(none, Verdict.SKIPPED, reason=f"not declared {text}")),
        (known, result(known, Verdict.FAIL, finding, known=True)),
        (choice, result(choice, Verdict.FAIL, finding, reason="0 of 4 trials passed", trials=trials(0, 4, 0.5))),
    ]


def green() -> list[tuple[Check, CheckResult]]:
    """Nothing but passes, in many groups."""
    families = ("target", "discovery", "chat", "chat.stream", "tools", "structured", "errors", "latency")
    checks = [rule(f"{family}.rule_{number}") for family in families for number in range(15)]
    return [(check, result(check, Verdict.PASS)) for check in checks]
