"""The middleware records every answer before its last byte, whatever the application does, and tells it when asked."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
import time
import uuid
from types import MappingProxyType

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from roadworthy.errors import ConfigError
from roadworthy.partner import CostMiddleware, Price, Tokens
from roadworthy.partner import store as stores

pytestmark = pytest.mark.anyio

KEY = "partner-key-0123456789"
MODEL = "acme/chat-1"
PRICE = Price(input="0.2", output="0.6", cached_input="0.05")
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
COST = 6 * 200 + 4 * 50 + 5 * 600
JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream")


def whole(usage=USAGE, model=MODEL, **more):
    return json.dumps({"model": model, "choices": [], **more, "usage": usage}).encode()


def event(usage=None, model=MODEL):
    return f"data: {json.dumps({'model': model, 'choices': [], 'usage': usage})}\n\n".encode()


DONE = b"data: [DONE]\n\n"
on_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
"""For what no database can make a difference to: a PostgreSQL database costs a second."""


def answers(*parts, status=200, headers=(JSON,), then=None):
    """An application that sends these bytes one by one, and the end; `then` is raised in place of the end."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if then is not None:
            raise then
        await send({"type": "http.response.body", "body": b""})

    return app


class Client:
    """One request to an application, without a socket: what was sent, and what was known of its cost then."""

    def __init__(self, app, *, method="POST", path="/v1/chat/completions", body=b"{}", headers=(), leaves_after=None):
        self.app, self.messages, self.leaves_after = app, [], leaves_after
        self.costs_when_sent = []
        self.body_sent = False
        self.left = asyncio.Event()
        self.request = body
        self.scope = {
            "type": "http", "method": method, "path": path, "headers": list(headers), "state": {"of": "the server"},
        }  # fmt: skip

    async def ask(self):
        await self.app(self.scope, self._receive, self._send)
        return self

    async def _receive(self):
        if not self.body_sent:
            self.body_sent = True
            return {"type": "http.request", "body": self.request, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if self.left.is_set():
            raise OSError("the client is gone")
        if self.id and not self.path_is_costs:
            self.costs_when_sent.append((await self.app.store.costs_nano_usd([self.id])).get(self.id))
        self.messages.append(message)
        if self.leaves_after is not None and len(self.messages) > self.leaves_after:
            self.left.set()

    @property
    def path_is_costs(self):
        return self.scope["path"] == "/v1/request-costs"

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]} if self.messages else {}

    @property
    def id(self):
        return self.headers.get("inference-id")

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages[1:])


@pytest.fixture
def wrapped(database_url):
    """Wraps applications; all of them share one database."""
    made = []

    def wrap(app, **options):
        options = {"database_url": database_url, "prices": {MODEL: PRICE}, "api_key": KEY} | options
        made.append(CostMiddleware(app, **options))
        return made[-1]

    yield wrap
    for app in made:
        app.close()


async def told(app, *ids, key=KEY):
    """What the cost endpoint says: costs by id."""
    body = json.dumps({"requestIds": ids}).encode()
    headers = [(b"authorization", f"Bearer {key}".encode())]
    answer = await Client(app, path="/v1/request-costs", body=body, headers=headers).ask()
    assert answer.status == 200, answer.body
    assert uuid.UUID(answer.id)
    return {entry["requestId"]: entry["costNanoUsd"] for entry in json.loads(answer.body)["requests"]}


async def until(condition):
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def rows(url, table="roadworthy_requests", order="request_id"):
    engine = stores._engine(url)
    try:
        with engine.connect() as connection:
            return [row._asdict() for row in connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY {order}"))]
    finally:
        engine.dispose()


def execute(url, *statements):
    engine = stores._engine(url)
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.commit()
    finally:
        engine.dispose()


# What is recorded, and when


@pytest.mark.parametrize(
    ("parts", "headers"),
    [
        ([whole()], [JSON]),
        ([whole()[:50], whole()[50:]], [JSON, (b"content-length", str(len(whole())).encode())]),
        ([event(), event(USAGE), DONE], [EVENTS]),
        ([event(), event(USAGE)[:30], event(USAGE)[30:] + DONE[:9], DONE[9:]], [EVENTS]),
        ([event(USAGE).replace(b"\n", b"\r\n")], [EVENTS]),
    ],
    ids=["json", "json_with_length", "stream", "torn_stream", "stream_without_done"],
)
async def test_the_cost_is_known_before_the_last_byte_goes_out_and_no_byte_is_changed(wrapped, parts, headers):
    client = await Client(wrapped(answers(*parts, headers=headers))).ask()
    assert [message.get("body") for message in client.messages[1:]] == [*parts, b""]
    assert [header for header in client.messages[0]["headers"] if header[0] != b"inference-id"] == headers
    assert uuid.UUID(client.id).version == 4
    # The last bytes of the answer, where it says itself that it ends, and the empty message of the server in any case.
    assert client.costs_when_sent[-1] == COST
    if not parts[-1].endswith(b"\r\n"):
        assert client.costs_when_sent[-2] == COST
    assert client.costs_when_sent[0] is None or len(parts) == 1
    assert await told(client.app, client.id) == {client.id: COST}


async def test_all_that_matters_of_a_request_is_in_the_database(wrapped, database_url):
    app = wrapped(answers(whole()))
    client = await Client(app).ask()
    [row] = rows(database_url)
    assert row.pop("recorded_s") > 1_700_000_000
    assert row == {
        "request_id": client.id,
        "model": MODEL,
        "input_tokens": 10,
        "output_tokens": 5,
        "cached_input_tokens": 4,
        "price_version": 1,
        "cost_nano_usd": COST,
    }
    [version] = rows(database_url, "roadworthy_prices", "version")
    assert version.pop("first_used_s") > 1_700_000_000
    assert version == {
        "model": MODEL,
        "version": 1,
        "input_nano_usd_per_million": 200_000_000,
        "output_nano_usd_per_million": 600_000_000,
        "cached_input_nano_usd_per_million": 50_000_000,
    }


@on_sqlite
async def test_an_id_of_the_application_is_kept(wrapped):
    app = wrapped(answers(whole(), headers=[JSON, (b"INFERENCE-ID", b"ours-1")]))
    client = await Client(app).ask()
    assert [value for name, value in client.messages[0]["headers"] if name.lower() == b"inference-id"] == [b"ours-1"]
    assert await told(app, "ours-1") == {"ours-1": COST}


async def test_an_id_that_comes_again_keeps_its_first_cost_and_is_logged(wrapped, caplog):
    headers = [JSON, (b"inference-id", b"ours-1")]
    await Client(wrapped(answers(whole(), headers=headers))).ask()
    app = wrapped(answers(whole({"prompt_tokens": 1}), headers=headers))
    await Client(app).ask()
    assert await told(app, "ours-1") == {"ours-1": COST}
    assert "request ours-1 has a cost already, and 200 nano-USD more are not paid for" in caplog.text
    await asyncio.gather(*(app.store.record(record(1)) for _ in range(9)))
    assert caplog.text.count("request request-0001 has a cost already") == 8


@on_sqlite
async def test_an_id_that_nobody_can_ask_for_is_kept_and_logged(wrapped, caplog):
    client = await Client(wrapped(answers(whole(), headers=[JSON, (b"inference-id", b"a" * 300)]))).ask()
    assert client.id == "a" * 300
    assert "which nobody can ask for" in caplog.text


@on_sqlite
async def test_the_application_reads_its_request_s_id_and_outer_layers_their_state(wrapped):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope["state"])
        await answers(whole())(scope, receive, send)

    client = await Client(wrapped(app)).ask()
    assert seen == {"of": "the server", "roadworthy_request_id": client.id}


@on_sqlite
@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_failed_requests_have_an_id_and_no_cost(wrapped, database_url, status):
    app = wrapped(answers(whole(), status=status))
    client = await Client(app).ask()
    assert (client.status, bool(client.id)) == (status, True)
    assert await told(app, client.id) == {}
    assert rows(database_url) == []


@on_sqlite
async def test_answers_without_usage_cost_nothing_and_what_is_only_fetched_too(wrapped, caplog):
    caplog.set_level(logging.INFO)
    speech = await Client(wrapped(answers(b"RIFF", headers=[(b"content-type", b"audio/wav")]))).ask()
    plain = await Client(wrapped(answers(b"{}"))).ask()
    app = wrapped(answers(whole()))
    fetched = await Client(app, method="GET", path="/v1/responses/r-1").ask()
    assert await told(app, speech.id, plain.id, fetched.id) == dict.fromkeys((speech.id, plain.id, fetched.id), 0)
    assert f"{plain.id} tells no tokens" in caplog.text
    assert fetched.id not in caplog.text


@on_sqlite
async def test_a_compressed_answer_tells_no_tokens_and_a_line_says_why(wrapped, caplog):
    packed = gzip.compress(whole())
    client = await Client(wrapped(answers(packed, headers=[JSON, (b"content-encoding", b"gzip")]))).ask()
    assert client.body == packed
    assert await told(client.app, client.id) == {client.id: 0}
    assert f"{client.id} tells no tokens: it is compressed (gzip)" in caplog.text


async def test_tokens_without_a_price_are_kept_but_have_no_cost(wrapped, database_url, caplog):
    client = await Client(wrapped(answers(whole(model="acme/other\x00")))).ask()
    assert await told(client.app, client.id) == {}
    [row] = rows(database_url)
    assert (row["model"], row["input_tokens"], row["cost_nano_usd"]) == ("acme/other", 10, None)
    assert "the model 'acme/other' has no price" in caplog.text


@on_sqlite
async def test_a_stream_whose_client_asked_for_no_usage_is_costed_by_what_the_application_says(wrapped):
    async def app(scope, receive, send):
        scope["state"]["roadworthy_usage"] = {"prompt_tokens": 7, "completion_tokens": 2}
        await answers(event(), DONE, headers=[EVENTS])(scope, receive, send)

    by_state = await Client(wrapped(app)).ask()
    counted = wrapped(answers(event(), DONE, headers=[EVENTS]), usage_of=lambda scope: Tokens(8, len(scope["path"])))
    by_call = await Client(counted).ask()
    assert await told(counted, by_state.id, by_call.id) == {
        by_state.id: 7 * 200 + 2 * 600,
        by_call.id: 8 * 200 + 20 * 600,
    }


@on_sqlite
async def test_a_usage_of_that_fails_leaves_what_the_answer_told(wrapped, caplog):
    client = await Client(wrapped(answers(whole()), usage_of=lambda scope: scope["nothing"])).ask()
    assert await told(client.app, client.id) == {client.id: COST}
    assert "`usage_of` failed" in caplog.text


@pytest.mark.parametrize(
    ("usage_of", "said"),
    [
        (lambda scope: Tokens(5, None), "`output` of Tokens must be an integer"),
        (lambda scope: Tokens(10**17, 10**17), "got 100,000,000,000,000,000"),
        (lambda scope: {"prompt_tokens": 5, "completion_tokens": None}, "a dict, holds no counts of tokens"),
        (lambda scope: [5, 3], "a list, holds no counts of tokens"),
    ],
    ids=["none", "too_many", "object", "list"],
)
async def test_wrong_counts_of_the_application_are_logged_and_hold_up_nothing(
    wrapped, database_url, usage_of, said, caplog
):
    app = wrapped(answers(whole(usage=None)), usage_of=usage_of)
    wrong = await Client(app).ask()
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == 1
    assert wrong.id in errors[0].getMessage()
    assert said in caplog.text
    right = await Client(wrapped(answers(whole()), usage_of=usage_of)).ask()
    assert await told(app, wrong.id, right.id) == {wrong.id: 0, right.id: COST}
    stored = {row["request_id"]: row for row in rows(database_url)}
    assert stored[wrong.id]["input_tokens"] is None
    await app.store.record(record(1))
    assert app.store._failing is False


@on_sqlite
async def test_usage_may_be_any_mapping(wrapped):
    client = await Client(wrapped(answers(whole(usage=None)), usage_of=lambda scope: MappingProxyType(USAGE))).ask()
    assert await told(client.app, client.id) == {client.id: COST}


@on_sqlite
async def test_a_model_that_no_answer_names_is_named_by_the_application(wrapped):
    async def app(scope, receive, send):
        scope["state"]["roadworthy_model"] = MODEL
        await answers(whole(model=None))(scope, receive, send)

    client = await Client(wrapped(app)).ask()
    assert await told(client.app, client.id) == {client.id: COST}


async def test_a_new_price_is_a_new_version_and_a_request_keeps_the_price_of_its_start(wrapped, database_url):
    begun, go = asyncio.Event(), asyncio.Event()

    async def waits(scope, receive, send):
        begun.set()
        await go.wait()
        await answers(whole())(scope, receive, send)

    app = wrapped(waits)
    slow = asyncio.create_task(Client(app).ask())
    await begun.wait()
    dearer = Price(input="1", output="0")
    app.set_prices({MODEL: dearer})
    go.set()
    old, new = await slow, await Client(app).ask()
    app.set_prices({MODEL: PRICE})
    back = await Client(app).ask()
    again = await Client(wrapped(answers(whole()))).ask()
    assert await told(app, old.id, new.id, back.id) == {old.id: COST, new.id: 10_000, back.id: COST}
    by_id = {row["request_id"]: row["price_version"] for row in rows(database_url)}
    assert [by_id[one.id] for one in (old, new, back, again)] == [1, 2, 3, 3]


# What goes wrong in the application and with the client


@on_sqlite
async def test_an_application_that_raises_is_answered_for_and_charges_nothing(wrapped, database_url):
    async def raises(scope, receive, send):
        raise LookupError("no such thing")

    before = Client(wrapped(raises))
    with pytest.raises(LookupError):
        await before.ask()
    assert (before.status, json.loads(before.body)["error"]["type"]) == (500, "server_error")
    midway = Client(wrapped(answers(event(), event(USAGE), headers=[EVENTS], then=LookupError("midway"))))
    with pytest.raises(LookupError):
        await midway.ask()
    assert len(midway.messages) == 3
    assert uuid.UUID(before.id) != uuid.UUID(midway.id)
    midway.left.clear()
    assert await told(midway.app, before.id, midway.id) == {}
    assert rows(database_url) == []


@on_sqlite
async def test_an_application_that_does_not_answer_at_all_is_answered_for(wrapped):
    async def silent(scope, receive, send):
        await receive()

    client = await Client(wrapped(silent)).ask()
    assert (client.status, bool(client.id)) == (500, True)


@on_sqlite
async def test_an_answer_that_the_application_leaves_unfinished_charges_nothing(wrapped):
    async def stops(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
        await send({"type": "http.response.body", "body": event(USAGE), "more_body": True})

    client = await Client(wrapped(stops)).ask()
    assert await told(client.app, client.id) == {}


@on_sqlite
@pytest.mark.parametrize("how", ["sending_fails", "told", "cancelled"])
async def test_a_client_that_leaves_is_charged_for_what_was_generated(wrapped, how):
    ready = asyncio.Event()

    async def streams(scope, receive, send):
        usage = scope["state"]["roadworthy_usage"] = {"prompt_tokens": 10, "completion_tokens": 0}
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [EVENTS]})
        for _ in range(3):
            usage["completion_tokens"] += 1
            await send({"type": "http.response.body", "body": event(), "more_body": True})
        ready.set()
        if how == "cancelled":
            await asyncio.Event().wait()
        if how == "told":
            assert (await receive())["type"] == "http.disconnect"
            return
        usage["completion_tokens"] += 1
        await send({"type": "http.response.body", "body": event(), "more_body": True})

    client = Client(wrapped(streams), leaves_after=None if how == "cancelled" else 3)
    task = asyncio.create_task(client.ask())
    await ready.wait()
    if how == "cancelled":
        task.cancel()
    [ended] = await asyncio.gather(task, return_exceptions=True)
    assert {"sending_fails": OSError, "cancelled": asyncio.CancelledError, "told": Client}[how] is type(ended)
    said = 4 if how == "sending_fails" else 3

    async def known():
        return await told(client.app, client.id) == {client.id: 10 * 200 + said * 600}

    await until(known)


@on_sqlite
async def test_an_answer_of_ten_megabytes_passes_and_is_costed(wrapped):
    vector = b"[" + b"0.123456789," * 800_000 + b"0]"
    body = b'{"data":[{"embedding":' + vector + b'}],"model":"acme/chat-1","usage":{"prompt_tokens":3}}'
    client = await Client(wrapped(answers(body[:5_000_001], body[5_000_001:]))).ask()
    assert client.body == body
    assert await told(client.app, client.id) == {client.id: 600}


# The cost endpoint


@on_sqlite
async def test_the_endpoint_wants_the_key_the_method_and_the_form(wrapped):
    app = wrapped(answers(whole()))

    async def ask(body=b'{"requestIds": []}', method="POST", authorization=f"Bearer {KEY}"):
        headers = [(b"Authorization", authorization.encode())] if authorization else []
        path = "/v1/request-costs"
        answer = await Client(app, method=method, path=path, body=body, headers=headers).ask()
        assert uuid.UUID(answer.id)
        return answer.status, json.loads(answer.body)

    assert await ask() == (200, {"requests": []})
    assert (await ask(authorization=f"bearer {KEY}"))[0] == 200
    for wrong in (None, "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer caf\u00e9"):
        assert (await ask(authorization=wrong))[0] == 401
    assert (await ask(method="GET"))[0] == 405
    assert (await ask(b'{"requestIds": null}'))[1]["error"]["message"].endswith("got null")
    assert (await ask(b'{"requestIds": null}'))[0] == 400
    assert (await ask(b" " * 4_200_000))[0] == 413


@on_sqlite
async def test_keys_may_be_judged_by_a_function(wrapped):
    app = wrapped(answers(whole()), api_key=lambda key: key == "one-of-many", cost_path="/costs")
    headers = [(b"authorization", b"Bearer one-of-many")]
    assert (await Client(app, path="/costs", body=b'{"requestIds": []}', headers=headers).ask()).status == 200
    assert (await Client(app, path="/costs", body=b'{"requestIds": []}').ask()).status == 401


async def judge(key):
    await asyncio.sleep(0)
    return key == "one-of-many"


def judge_later(key):
    return asyncio.ensure_future(judge(key))


async def judge_of_judges(key):
    return judge(key)


@on_sqlite
@pytest.mark.parametrize(
    ("check", "lets_in"),
    [
        (judge, {"one-of-many"}),
        (judge_later, {"one-of-many"}),
        (judge_of_judges, set()),
        (lambda key: None, set()),
        (lambda key: object(), set()),
    ],
    ids=["async", "awaitable", "a_coroutine_of_a_coroutine", "nothing", "an_object"],
)
@pytest.mark.filterwarnings("ignore:coroutine 'judge' was never awaited")
async def test_only_a_function_that_says_true_lets_in(wrapped, check, lets_in, caplog):
    app = wrapped(answers(whole()), api_key=check)
    for key in ("one-of-many", "nobody-s"):
        headers = [(b"authorization", f"Bearer {key}".encode())]
        answer = await Client(app, path="/v1/request-costs", body=b'{"requestIds": []}', headers=headers).ask()
        assert answer.status == (200 if key in lets_in else 401)
    assert ("must say True or False" in caplog.text) is (not lets_in)
    assert "one-of-many" not in caplog.text


async def test_ten_thousand_ids_are_told_once_each_and_unknown_ones_left_out(wrapped):
    app = wrapped(answers(whole()))
    ids = [(await Client(app).ask()).id for _ in range(3)]
    unknown = [f"unknown-{number}" for number in range(9_993)]
    odd = ["", "a\x00b", "\ud800", "a" * 300]
    first = await told(app, *ids, *unknown, *odd)
    assert first == dict.fromkeys(ids, COST)
    assert await told(app, *unknown, *odd, *ids) == first


async def test_the_endpoint_answers_before_anything_was_recorded_and_503_without_its_database(wrapped, database_url):
    app = wrapped(answers(whole()))
    assert await told(app, "unknown") == {}
    execute(database_url, "DROP TABLE roadworthy_requests")
    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    answer = await Client(app, path="/v1/request-costs", body=b'{"requestIds": ["a"]}', headers=headers).ask()
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


# The database


async def test_answers_that_end_together_share_commits(wrapped, database_url):
    app = wrapped(answers(whole()))
    await Client(app).ask()
    commits = []
    sa.event.listen(app.store._engine, "commit", commits.append)
    locked, unlock = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold_lock, args=(database_url, locked, unlock))
    holder.start()
    locked.wait()
    tasks = [asyncio.create_task(app.store.record(record(number))) for number in range(300)]
    await asyncio.sleep(0)
    unlock.set()
    await asyncio.gather(*tasks)
    holder.join()
    assert len(rows(database_url)) == 301
    # One that was on its way, one for all that gathered meanwhile.
    assert 1 <= len(commits) <= 3


def record(number):
    return stores.Record(f"request-{number:04}", MODEL, Tokens(10, 5), None)


def hold_lock(url, locked, unlock):
    """Keep everybody else from writing until told."""
    engine = stores._engine(url)
    try:
        with engine.connect() as connection:
            postgres = engine.dialect.name == "postgresql"
            take = "LOCK TABLE roadworthy_requests IN EXCLUSIVE MODE" if postgres else "BEGIN IMMEDIATE"
            connection.exec_driver_sql(take)
            locked.set()
            unlock.wait()
            connection.rollback()
    finally:
        engine.dispose()


async def test_while_the_database_fails_answers_go_out_and_costs_are_stored_later(
    wrapped, database_url, caplog, monkeypatch
):
    monkeypatch.setattr(stores, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(stores, "LAST_RETRY_S", 0.01)
    app = wrapped(answers(whole()))
    await Client(app).ask()
    execute(database_url, "ALTER TABLE roadworthy_requests RENAME TO hidden")
    messages = [[], []]
    ids = []
    for sent in messages:
        client = Client(app)
        client.scope["path"] = "/v1/chat/completions"
        client._send = collect(sent)
        await client.ask()
        ids.append(dict(sent[0]["headers"])[b"inference-id"].decode())
        assert sent[1]["body"] == whole()
    execute(database_url, "ALTER TABLE hidden RENAME TO roadworthy_requests")

    async def known():
        return await told(app, *ids) == dict.fromkeys(ids, COST)

    await until(known)
    for id in ids:
        assert f"the cost of request {id} ({COST} nano-USD) is not stored yet and will be tried again" in caplog.text
    assert "takes costs again" in caplog.text
    assert "is lost" not in caplog.text


def collect(sent):
    async def send(message):
        sent.append(message)

    return send


def unstorable(number):
    """A record whose figures no database takes: no public way makes one."""
    made = record(number)
    object.__setattr__(made.tokens, "input", 10**30)
    return made


async def test_what_no_database_takes_is_dropped_with_an_error_and_holds_up_no_other(wrapped, database_url, caplog):
    app = wrapped(answers(whole()))
    app.store._make_tables()
    bad = {7, 8, 500, 999}
    locked, unlock = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold_lock, args=(database_url, locked, unlock))
    holder.start()
    locked.wait()
    tasks = [
        asyncio.create_task(app.store.record((unstorable if number in bad else record)(number)))
        for number in range(1000)
    ]
    await asyncio.sleep(0)
    unlock.set()
    await asyncio.gather(*tasks)
    holder.join()
    app.close()
    assert {row["request_id"] for row in rows(database_url)} == {
        f"request-{number:04}" for number in set(range(1000)) - bad
    }
    errors = [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
    assert [line.partition(" (")[0] for line in errors] == [
        f"the cost of request request-{number:04}" for number in sorted(bad)
    ]
    assert all("is lost: it cannot be stored: " in line for line in errors)


class UnspeakableError(Exception):
    """An error that cannot even tell itself."""

    def __str__(self):
        raise ValueError


class Breaking(logging.Handler):
    """A handler that raises at every line."""

    def emit(self, line):
        raise RuntimeError


@pytest.mark.parametrize(
    "error", [RuntimeError("a"), UnspeakableError(), SystemExit(3), OSError(28, "full"), MemoryError()],
    ids=["error", "unspeakable", "exit", "system", "memory"],
)  # fmt: skip
@pytest.mark.parametrize("step", ["_make_tables", "_store", "_sweep"])
@on_sqlite
async def test_nothing_that_is_raised_ends_the_thread_that_writes(wrapped, database_url, step, error, monkeypatch):
    monkeypatch.setattr(stores, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(stores, "LAST_RETRY_S", 0.01)
    monkeypatch.setattr(stores, "SWEEP_S", 0.0)
    app = wrapped(answers(whole()))
    await Client(app).ask()
    thread, works, raised = app.store._thread, getattr(app.store, step), threading.Event()

    def fails(*arguments):
        if raised.is_set():
            return works(*arguments)
        raised.set()
        raise error

    breaking = Breaking()
    stores.log.addHandler(breaking)
    try:
        monkeypatch.setattr(app.store, step, fails)
        await app.store.record(record(1))
        assert raised.wait(20)
        await app.store.record(record(2))
        app.store.record_later(unstorable(3))
        app.store.record_later(record(1))
        app.store.record_later(record(4))

        async def stored():
            return "request-0004" in {row["request_id"] for row in rows(database_url)}

        await until(stored)
    finally:
        stores.log.removeHandler(breaking)
    assert app.store._thread is thread
    assert thread.is_alive()
    kept = {row["request_id"] for row in rows(database_url)}
    assert {"request-0001", "request-0002", "request-0004"} <= kept  # the first was told again
    assert "request-0003" not in kept


async def test_a_slow_database_holds_no_answer_for_long(wrapped, database_url, caplog, monkeypatch):
    monkeypatch.setattr(stores, "COMMIT_TIMEOUT_S", 0.05)
    app = wrapped(answers(whole()))
    app.store._make_tables()
    locked, unlock = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold_lock, args=(database_url, locked, unlock))
    holder.start()
    locked.wait()
    try:
        await app.store.record(record(1))
        await app.store.record(record(2))
    finally:
        unlock.set()
        holder.join()
    assert "request-0001" in caplog.text
    assert "request-0002" in caplog.text

    async def known():
        return [row["request_id"] for row in rows(database_url)] == ["request-0001", "request-0002"]

    await until(known)


async def test_what_memory_cannot_hold_and_what_is_left_at_the_end_is_named_in_the_log(
    wrapped, database_url, caplog, monkeypatch
):
    monkeypatch.setattr(stores, "FIRST_RETRY_S", 3600)
    monkeypatch.setattr(stores, "LAST_RETRY_S", 3600)
    app = wrapped(answers(whole()), queue_size=2)
    await app.store.costs_nano_usd(["a"])
    execute(database_url, "ALTER TABLE roadworthy_requests RENAME TO hidden")
    for number in range(4):
        await app.store.record(record(number))
    app.close()
    lost = [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
    assert [line.partition(" (")[0] for line in lost] == [
        f"the cost of request request-000{number}" for number in (2, 3, 0, 1)
    ]
    assert "2 wait already" in lost[0]
    assert "ends while the database fails" in lost[2]
    await app.store.record(record(5))
    assert "request-0005 (None nano-USD) is lost: the store is closed" in caplog.text


async def test_closing_writes_what_nobody_waited_for_and_opening_again_finds_it(wrapped, database_url):
    app = wrapped(answers(whole()))
    for number in range(2500):
        app.store.record_later(record(number))
    app.close()
    app.close()
    assert len(rows(database_url)) == 2500


async def test_records_are_kept_as_long_as_is_said(wrapped, database_url, monkeypatch):
    monkeypatch.setattr(stores, "SWEPT", 2)
    old = wrapped(answers(whole()), keep_days=None)
    for number in range(5):
        await old.store.record(record(number))
    execute(database_url, "UPDATE roadworthy_requests SET recorded_s = recorded_s - 86400 * 3 - 60")
    await old.store.record(record(5))
    old.close()
    assert len(rows(database_url)) == 6
    new = wrapped(answers(whole()), keep_days=3)
    new.store.start()

    async def swept():
        return [row["request_id"] for row in rows(database_url)] == ["request-0005"]

    await until(swept)


async def test_several_processes_worth_of_stores_start_on_one_new_database_at_once(wrapped, database_url):
    apps = [wrapped(answers(whole())) for _ in range(4)]
    clients = await asyncio.gather(*(Client(app).ask() for app in apps))
    assert await told(apps[0], *(client.id for client in clients)) == {client.id: COST for client in clients}
    assert {row["price_version"] for row in rows(database_url)} == {1}


# Mounting


async def test_lifespan_and_websockets_pass_through(wrapped, database_url):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []
    mounted = wrapped(app)

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])
        if message["type"] == "lifespan.startup.complete":
            mounted.store.record_later(record(1))
        elif message["type"] == "lifespan.shutdown.complete":
            assert [row["request_id"] for row in rows(database_url)] == ["request-0001"]

    await mounted({"type": "lifespan"}, receive, send)
    await mounted({"type": "websocket", "path": "/v1/request-costs"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.accept"]
    assert seen == ["lifespan", "websocket"]


@on_sqlite
async def test_a_framework_may_mount_it_as_a_middleware_of_its_own(database_url):
    app = FastAPI()
    app.add_middleware(CostMiddleware, database_url=database_url, prices={MODEL: PRICE}, api_key=KEY)

    @app.post("/v1/{kind}")
    def answer(kind: str):
        if kind == "broken":
            raise LookupError(kind)
        return json.loads(whole())

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://provider") as http:
        replies = [await http.post(f"/v1/{kind}") for kind in ("embeddings", "broken", "a/b")]
        assert [reply.status_code for reply in replies] == [200, 500, 404]
        ids = [reply.headers["inference-id"] for reply in replies]
        headers = {"Authorization": f"Bearer {KEY}"}
        costs = await http.post("/v1/request-costs", json={"requestIds": ids}, headers=headers)
    mounted = app.middleware_stack
    while not isinstance(mounted, CostMiddleware):
        mounted = mounted.app
    mounted.close()
    assert costs.json() == {"requests": [{"requestId": ids[0], "costNanoUsd": COST}]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"database_url": "mysql://localhost/costs"}, "only sqlite and postgresql"),
        ({"database_url": "costs.db"}, "`database_url` cannot be read"),
        ({"database_url": "sqlite://"}, "must name a file"),
        ({"api_key": ""}, "`api_key` is empty"),
        ({"cost_path": "costs"}, "must begin with a slash"),
        ({"request_id_header": "Inference Id"}, "the name of a header"),
        ({"keep_days": 0}, "`keep_days` must be more than 0"),
        ({"prices": {MODEL: 0.2}}, "the price of 'acme/chat-1' must be a Price"),
    ],
    ids=["database", "url", "memory", "key", "path", "header", "days", "price"],
)
def test_settings_that_cannot_be_used_are_refused(tmp_path, options, said):
    good = {"database_url": f"sqlite:///{tmp_path}/costs.db", "prices": {MODEL: PRICE}, "api_key": KEY}
    with pytest.raises(ConfigError, match=said):
        CostMiddleware(answers(), **{**good, **options})
