"""The checks of the property-based leg, run against a tiny text-generation server that shares no code with us."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tiny_tgi import Tiny

from roadworthy.conformance import openapi_cases, recording
from roadworthy.conformance.dry_run import outline
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.run import Runner, Settings
from roadworthy.conformance.subject import Subject
from roadworthy.conformance.target import Target
from roadworthy.http.asgi_transport import AsgiTransport
from roadworthy.http.message import Read, Reply, Request, Timings

LABEL = "tiny=text-generation@tgi"
URL = "http://127.0.0.1:1/v1"
IDS = {
    "openapi.no_5xx",
    "openapi.status_documented",
    "openapi.content_type",
    "openapi.response_shape",
    "openapi.invalid_refused",
}


def frame(label=LABEL, **facts):
    about = Subject.parse(label)
    return Facts(URL, about.model, about.task, about.api, **{"fuzz_examples": 60, **facts})


def ask(app, **facts):
    async def go():
        transport = AsgiTransport(app)
        try:
            chosen = plan(frame(**facts), select(only=["openapi"]))
            # Without the family's own first request: what is generated is asked in any case.
            own = tuple(probe for probe in chosen.probes if probe.id.startswith("openapi."))
            chosen = replace(chosen, probes=own)
            return await Runner(Target(URL, None), transport, chosen, Settings()).run()
        finally:
            await transport.aclose()

    return asyncio.run(go())


def verdicts(run, more=()):
    exchanges = (*run.exchanges, *more)
    rows = {row.check_id: row for row in judge(select(only=["openapi"]), exchanges, run.facts, run.unsent)}
    assert set(rows) == IDS
    return rows


def bad(rows):
    return {id for id, row in rows.items() if row.verdict in ("fail", "warn")}


def test_a_healthy_server_passes_all():
    run = ask(Tiny())
    assert {row.verdict.value for row in verdicts(run).values()} == {"pass"}
    assert len(run.exchanges) > 100
    assert {exchange.status for exchange in run.exchanges} == {200, 422}


@pytest.mark.parametrize(
    ("fault", "check", "operation"),
    [
        ("crash", "openapi.no_5xx", "generate"),
        ("garbage", "openapi.no_5xx", "tokenize"),
        ("status", "openapi.status_documented", "generate"),
        ("type", "openapi.content_type", "generate"),
        ("shape", "openapi.response_shape", "generate"),
        ("stream_shape", "openapi.response_shape", "generateStream"),
        ("always_shape", "openapi.response_shape", "generate"),
        ("inputs_unread", "openapi.invalid_refused", "generate"),
    ],
)
def test_a_fault_is_found_by_its_check_alone(fault, check, operation, tmp_path):
    run = ask(Tiny(fault))
    rows = verdicts(run)
    assert bad(rows) == {check}
    told = {finding.note.partition(",")[0]: finding for finding in rows[check].findings}
    assert operation in told
    by_id = {exchange.id: exchange for exchange in run.exchanges}
    assert told[operation].exchange_id in by_id
    path = tmp_path / "run.jsonl"
    with path.open("w", encoding="utf-8", newline="") as file:
        recording.write(file, [run])
    [again] = recording.read(path)
    assert verdicts(again) == rows


def test_the_shortest_failing_request_is_shown():
    run = ask(Tiny("crash"))
    [finding, *_] = verdicts(run)["openapi.no_5xx"].findings
    failing = [x for x in run.exchanges if x.status == 500 and x.request.url.endswith("/generate")]
    shown = next(x for x in failing if x.id == finding.exchange_id)
    assert len(failing) > 1
    assert len(shown.request.body) == min(len(x.request.body) for x in failing)
    assert "temperature" in finding.note


def by_hand(body, *, path="/generate", probe="tgi.plain", status=200):
    return Exchange(
        f"{probe}#1",
        probe,
        1,
        Request("POST", f"http://127.0.0.1:1{path}", (), b'{"inputs": "a"}'),
        Reply(status, (("content-type", "application/json"),), body, (Read(1, len(body)),), Timings(1, 1, 1)),
    )


def test_what_a_request_by_hand_shows_too_is_left_to_its_own_check():
    run = ask(Tiny("always_shape"))
    row = verdicts(run, [by_hand(b'{"text": "a"}')])["openapi.response_shape"]
    assert row.verdict.value == "inconclusive"
    assert "written by hand show the same" in row.reason
    other = verdicts(run, [by_hand(b'{"generated_text": 7}')])["openapi.response_shape"]
    assert other.verdict.value == "fail"


def test_a_crash_that_a_request_by_hand_shows_is_left_to_its_own_check():
    run = ask(Tiny("crash"))
    assert bad(verdicts(run, [by_hand(b"{}", status=500)])) == set()
    assert bad(verdicts(run, [by_hand(b"{}", status=500, path="/elsewhere")])) == {"openapi.no_5xx"}


def test_routes_that_are_not_offered_are_no_fault_but_no_pass_either():
    class Nothing(Tiny):
        def answer(self, method, path, raw):
            return self.error(405, "not here")

    rows = verdicts(ask(Nothing()))
    assert bad(rows) == set()
    assert rows["openapi.response_shape"].verdict.value == "inconclusive"
    assert "no generated request was answered" in rows["openapi.response_shape"].reason


def test_an_error_told_inside_a_stream_is_a_refusal():
    class Late(Tiny):
        def answer(self, method, path, raw):
            status, kind, body = super().answer(method, path, raw)
            if path == "/generate_stream" and status == 422:
                return 200, "text/event-stream", b"data:" + body + b"\n\n"
            return status, kind, body

    assert bad(verdicts(ask(Late()))) == set()


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[[[[", b"null", b'"x"', b'{"generated_text": null}', b"[]"])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "", "\x00"])
def test_nothing_that_a_server_sends_makes_a_check_raise(kind, body):
    class Odd(Tiny):
        def answer(self, method, path, raw):
            return 200, kind, body

    rows = verdicts(ask(Odd(), fuzz_examples=12))
    assert "openapi.invalid_refused" in bad(rows)


def test_no_more_is_sent_than_asked_for_and_none_where_switched_off():
    assert len(ask(Tiny(), fuzz_examples=5).exchanges) == 10
    off = ask(Tiny(), fuzz_examples=0)
    assert off.exchanges == ()
    assert {row.verdict.value for row in verdicts(off).values()} == {"skipped"}


def test_without_what_draws_them_the_checks_are_skipped(monkeypatch):
    monkeypatch.setattr(openapi_cases, "PACKAGE", "no_such_package")
    assert not openapi_cases.available()
    assert {row.verdict.value for row in verdicts(ask(Tiny())).values()} == {"skipped"}


def test_the_plan_of_a_dry_run_has_them():
    rows = {row.probe.id: row for row in outline(plan(frame(), select(only=["openapi"])), Settings())}
    assert rows["openapi.valid"].times_at_most > 50
    assert rows["openapi.invalid"].times_at_most == 60


def test_chat_has_a_leg_of_its_own():
    chosen = plan(frame("acme/chat-1"), select(only=["openapi", "fuzz"]))
    assert {check.family for check in chosen.checks} == {"fuzz"}
    assert {check.family for check in plan(frame(), select(only=["openapi", "fuzz"])).checks} == {"openapi"}


def test_a_recording_of_an_operation_that_is_gone_is_left_alone():
    run = ask(Tiny("crash"), fuzz_examples=20)
    gone = [
        Exchange(
            x.id,
            x.probe,
            x.trial,
            Request(x.request.method, x.request.url, (("Roadworthy-Operation", "gone"),), x.request.body),
            x.reply,
        )
        for x in run.exchanges
    ]
    assert {row.verdict.value for row in judge(select(only=["openapi"]), gone, run.facts)} == {"pass"}
