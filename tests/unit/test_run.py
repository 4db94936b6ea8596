"""Running: retries, budgets, trials, dependencies, interruption, secrets; all without a network."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable

import pytest
from exchanges import completion

from roadworthy.conformance.check import CHECKS, Usable, check
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.judge import asks_costs
from roadworthy.conformance.plan import Plan, plan, select
from roadworthy.conformance.probe import PROBES, Context, Draft, Phase, probe
from roadworthy.conformance.report.model import ModelReport
from roadworthy.conformance.run import NO_BILLING_URL, Run, Runner, Settings, retry_after_s
from roadworthy.conformance.target import Target
from roadworthy.conformance.verdict import CheckResult, Finding, Lens, Level, Verdict
from roadworthy.errors import UsageError
from roadworthy.http.message import Limits, Reply, Request

KEY = "key-abcdef-0123456789"
TARGET = Target("http://127.0.0.1:1/v1", KEY, headers=(("X-Org", "org-secret-42"),))
JSON = (("content-type", "application/json"),)


class FakeTransport:
    """Answers by a function of the request and its number; keeps what was sent."""

    def __init__(self, answer: Callable[[Request, int], Reply]) -> None:
        self.answer = answer
        self.sent: list[Request] = []
        self.under_way = 0
        self.most_under_way = 0

    async def send(self, request: Request, limits: Limits) -> Reply:
        self.sent.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            return self.answer(request, len(self.sent))
        finally:
            self.under_way -= 1

    async def aclose(self) -> None:
        pass


def ok(content: str = "Hello.") -> Reply:
    return Reply(200, JSON, json.dumps(completion(content)).encode())


@pytest.fixture(autouse=True)
def _own_registry():
    select()
    checks, probes = dict(CHECKS), dict(PROBES)
    yield
    for registry, kept in ((CHECKS, checks), (PROBES, probes)):
        registry.clear()
        registry.update(kept)


@pytest.fixture
def sleeps(monkeypatch) -> list[float]:
    slept: list[float] = []
    real, ours = asyncio.sleep, threading.get_ident()

    async def sleep(seconds: float) -> None:
        if threading.get_ident() != ours:
            # The server of other tests lives in a thread of this process.
            await real(seconds)
            return
        if seconds:
            slept.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


def one_probe(id: str = "t.one", **kwargs):
    def build(context: Context) -> Draft:
        """Purpose."""
        return context.chat(f"question {context.trial}")

    return probe(id, **kwargs)(build)


def go(transport: FakeTransport, *probes, checks=(), settings: Settings | None = None) -> Run:
    facts = Facts(TARGET.base_url, "m")
    return asyncio.run(Runner(TARGET, transport, Plan(facts, tuple(checks), probes), settings).run())


def test_429_and_503_are_asked_again_after_the_time_they_name_and_counted(sleeps):
    replies = [Reply(429, (("Retry-After", "2"),)), Reply(503), ok()]
    run = go(FakeTransport(lambda _r, n: replies[n - 1]), one_probe())
    [seen] = run.exchanges
    assert seen.status == 200
    assert [(r.status, r.retry_after) for r in seen.retries] == [(429, "2"), (503, None)]
    assert sleeps[0] == 2.0
    assert 1.0 <= sleeps[1] <= 2.0
    assert run.requests == 3


@pytest.mark.parametrize(
    "reply", [Reply(503), Reply(429, (("Retry-After", "86400"),)), Reply(503, (("Retry-After", "9" * 400),))]
)
def test_a_provider_that_never_stops_asking_us_to_wait_ends_within_bounds(sleeps, reply):
    run = go(FakeTransport(lambda _r, _n: reply), one_probe())
    assert run.exchanges[0].unreachable
    assert sum(sleeps) <= Settings().retry_budget_s
    assert run.requests <= 1 + Settings().max_retries


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("5", 5.0), (" 0 ", 0.0), ("-1", None), ("soon", None), ("1.5", None), ("٣", None), ("", None)],
)
def test_retry_after_is_read_as_the_standard_says(value, seconds):
    assert retry_after_s(value) == seconds


def test_a_retry_after_date_in_the_past_means_now():
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_the_budget_of_requests_is_never_exceeded_and_what_was_not_sent_says_so():
    probes = [one_probe(f"t.p{i}") for i in range(5)]
    transport = FakeTransport(lambda _r, _n: ok())
    run = go(transport, *probes, settings=Settings(max_requests=3))
    assert len(transport.sent) == 3
    assert list(run.unsent.values()) == ["not sent: the budget of 3 requests is spent"] * 2


def test_no_more_requests_are_under_way_than_allowed():
    transport = FakeTransport(lambda _r, _n: ok())
    go(transport, *(one_probe(f"t.p{i}") for i in range(12)), settings=Settings(concurrency=3))
    assert transport.most_under_way == 3


def test_probes_that_need_a_quiet_client_are_sent_alone_and_repeats_in_order():
    transport = FakeTransport(lambda _r, _n: ok())
    run = go(transport, one_probe("t.main"), one_probe("t.alone", phase=Phase.ALONE, repeat=3))
    assert [x.id for x in run.exchanges] == ["t.main#1", "t.alone#1", "t.alone#2", "t.alone#3"]
    assert transport.sent[-3:] == sorted(transport.sent[-3:], key=lambda r: r.body or b"")


def model_check(on_probe, bar=0.5):
    def rule(exchange):
        """Says hello.

        Why.
        """
        if exchange.text != "Hello.":
            yield Finding("Hello.", exchange.text)

    return check(
        "t.rule", level=Level.MUST, lenses=[Lens.HUB], source="s", remedy="r", each=on_probe, on=Usable.CHAT, bar=bar
    )(rule)


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        (["Hello."] * 20, 4),
        (["Bye."] * 20, 4),
        (["Bye.", *["Hello."] * 20], 8),
        (["Hello.", "Bye."] * 10, 10),
    ],
)
def test_trials_stop_as_soon_as_the_interval_leaves_the_bar(answers, sent):
    on = one_probe()
    run = go(FakeTransport(lambda _r, n: ok(answers[n - 1])), on, checks=[model_check(on)])
    assert len(run.exchanges) == sent
    assert [x.trial for x in run.exchanges] == list(range(1, sent + 1))


def test_a_probe_that_builds_on_an_earlier_answer_waits_for_it():
    first = one_probe("t.first")

    @probe("t.second", after=[first])
    def second(context: Context) -> Draft | None:
        """Builds on the first."""
        earlier = context.answer_to(first)
        return context.chat(f"you said {earlier.text}") if earlier else None

    transport = FakeTransport(lambda _r, _n: ok("Yes."))
    run = go(transport, second, first)
    assert b"you said Yes." in (run.exchanges[0].request.body or b"")


def test_a_probe_with_nothing_to_ask_says_so():
    first = one_probe("t.first")

    @probe("t.second", after=[first])
    def second(context: Context) -> Draft | None:
        """Has nothing to ask."""
        return None

    assert go(FakeTransport(lambda _r, _n: ok()), first, second).unsent == {"t.second": "nothing to ask after t.first"}


@pytest.mark.parametrize("reply", [Reply(404, JSON, b"{}"), Reply(200, (("content-type", "text/html"),), b"<html>")])
def test_after_a_failed_first_request_nothing_more_is_spent(reply):
    transport = FakeTransport(lambda _r, _n: reply)
    full = plan(Facts(TARGET.base_url, "m"), select())
    run = asyncio.run(Runner(TARGET, transport, full).run())
    assert len(transport.sent) <= 3
    costs = [reason for id, reason in run.unsent.items() if asks_costs(id)]
    assert costs, "what was never asked for says so, and not that the provider failed"
    assert set(costs) == {NO_BILLING_URL}
    others = [reason for id, reason in run.unsent.items() if not asks_costs(id)]
    assert all("the first request failed" in reason for reason in others)
    assert run.unsent


def test_an_interrupted_run_keeps_what_was_paid_for():
    class Stuck(FakeTransport):
        async def send(self, request: Request, limits: Limits) -> Reply:
            if b"question" in (request.body or b"") and self.sent:
                await asyncio.Event().wait()
            return await super().send(request, limits)

    async def interrupt() -> Run:
        probes = (one_probe("t.a"), one_probe("t.b"))
        runner = Runner(TARGET, Stuck(lambda _r, _n: ok()), Plan(Facts(TARGET.base_url, "m"), (), probes))
        task = asyncio.create_task(runner.run())
        await asyncio.sleep(0.05)
        task.cancel()
        return await task

    run = asyncio.run(interrupt())
    passed = CheckResult("t.x", Level.MUST, (Lens.HUB,), Verdict.PASS)
    assert [x.id for x in run.exchanges] == ["t.a#1"]
    assert run.unsent == {"t.b": "not sent: the run was interrupted"}
    assert run.interrupted
    assert ModelReport("m", run, (passed,)).verdict is Verdict.INCONCLUSIVE


def test_secrets_are_sent_but_never_kept():
    echo = json.dumps({"error": {"message": f"bad key {KEY}, org org-secret-42"}}).encode()
    transport = FakeTransport(lambda _r, _n: Reply(200, (*JSON, ("x-echo", KEY)), echo))
    run = go(transport, one_probe())
    assert ("Authorization", f"Bearer {KEY}") in transport.sent[0].headers
    assert ("X-Org", "org-secret-42") in transport.sent[0].headers
    kept = repr(run)
    assert KEY not in kept
    assert "org-secret-42" not in kept


@pytest.mark.parametrize("name", ["nope", "chat.strea", ""])
def test_a_selection_that_matches_nothing_is_an_error_not_a_pass(name):
    with pytest.raises(UsageError, match="no check is called"):
        select(only=[name])


def test_excluding_everything_is_an_error():
    families = sorted({rule.family for rule in CHECKS.values()})
    with pytest.raises(UsageError, match="leave no check"):
        select(exclude=families)


def test_selection_is_by_id_and_below_it():
    assert {rule.id for rule in select(only=["chat.stream"])} >= {"chat.stream.done"}
    assert all(rule.id.startswith("chat.stream.") for rule in select(only=["chat.stream"]))
    assert "chat.stream.done" not in {rule.id for rule in select(exclude=["chat.stream"])}
