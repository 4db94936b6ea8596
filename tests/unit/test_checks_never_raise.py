"""Whatever a server sends, no check raises: real answers of every subject, broken in many ways, judged again."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import replace

import pytest

from roadworthy.conformance.facts import Billing, BillingKey, Facts, Jobs
from roadworthy.conformance.judge import judge
from roadworthy.conformance.plan import plan, select
from roadworthy.conformance.run import Runner
from roadworthy.conformance.subject import Subject
from roadworthy.conformance.target import CostEndpoint, Target
from roadworthy.http.asgi_transport import AsgiTransport
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import load
from roadworthy.sandbox.mutation import FAULTS, VARIATIONS

load()
KEY = "sandbox-key"
ROUNDS = 12
SUBJECTS = sorted({"acme/chat-1", *(s for m in (*FAULTS.values(), *VARIATIONS.values()) for s in m.subjects)})
JUNK = (None, True, False, 0, -1, 1e308, 10**30, "", "x", "\ud7ff", [], [None], {}, {"": []}, [[]], [{"score": "x"}])
TYPES = ("application/json", "text/event-stream", "text/html", "image/png", "audio/wav", "video/mp4", "")


def run_of(subject):
    about = Subject.parse(subject)
    facts = Facts(
        "http://sandbox/v1",
        about.model,
        about.task,
        about.api,
        judged_at=int(time.time()),
        fuzz_examples=2,
        allow_writes=True,
        jobs=Jobs(interval_s=0),
        billing=Billing("http://sandbox/v1/request-costs", BillingKey.SHARED, batch_ids=100),
    )
    app = Sandbox((), Options(api_key=KEY))
    target = Target(facts.base_url, KEY, cost_endpoint=CostEndpoint("http://sandbox/v1/request-costs", KEY))
    runner = Runner(target, AsgiTransport(app), plan(facts, select()))
    return asyncio.run(runner.run())


def places(value, at=()):
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def broken(value, chance):
    """The value with junk at some place in it."""
    at = chance.choice(list(places(value))[:400])
    if not at:
        return chance.choice(JUNK)
    copy = json.loads(json.dumps(value))
    holder = copy
    for key in at[:-1]:
        holder = holder[key]
    if chance.random() < 0.3 and isinstance(holder, dict):
        del holder[at[-1]]
    else:
        holder[at[-1]] = chance.choice(JUNK)
    return copy


def spoilt(body, chance):
    """A body that some server might send instead."""
    if chance.random() < 0.15:
        return body[: chance.randrange(len(body) + 1)]
    lines = body.split(b"\n")
    for number, line in enumerate(lines):
        text = line.removeprefix(b"data: ")
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if chance.random() < 0.5:
            lines[number] = line[: len(line) - len(text)] + json.dumps(broken(value, chance)).encode()
    return b"\n".join(lines)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_check_raises_on_a_spoilt_answer(subject):
    run = run_of(subject)
    chance = random.Random(subject)
    judged = 0
    for _ in range(ROUNDS):
        exchanges = []
        for exchange in run.exchanges:
            reply = replace(exchange.reply, body=spoilt(exchange.reply.body, chance))
            if chance.random() < 0.1:
                reply = replace(reply, headers=(("content-type", chance.choice(TYPES)),))
            if chance.random() < 0.1:
                reply = replace(reply, status=chance.choice((200, 204, 206, 302, 400, 500, 503)))
            exchanges.append(replace(exchange, reply=reply, opinions=()))
        judged += len(judge(run.checks, exchanges, run.facts, run.unsent))
    assert judged == ROUNDS * len(run.checks) > 0
