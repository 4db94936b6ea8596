"""The worker, the registered APIs, and the bounds that hold over processes; on both databases."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import signal
import time
from collections import Counter
from dataclasses import replace

import httpx
import pytest
import sqlalchemy as sa
from services import UNLIMITED, enrol
from validating import Providers, chats, embeddings, provider_with_mappings, validating

from roadworthy.conformance import recording
from roadworthy.conformance.judge import judge
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.errors import ConfigError
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.store import mappings as mapping_rows
from roadworthy.mapping_api.tables import audit, validations
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.server import running
from roadworthy.sealing import Sealer, SealingError, new_key
from roadworthy.validator import recordings, worker
from roadworthy.validator.api import router
from roadworthy.validator.outcome import ErrorClass, Outcome, Result
from roadworthy.validator.publish import Policy
from roadworthy.validator.schedule import Periods
from roadworthy.validator.service import Endpoints, Validator
from roadworthy.validator.settings import ValidatorSettings, read_settings
from roadworthy.validator.store import endpoints
from roadworthy.validator.store.due import Bounds
from roadworthy.validator.store.endpoints import Wanted
from roadworthy.validator.store.retention import DAY_US, prune
from roadworthy.validator.tables import due, evidence, health, rollups, runs
from roadworthy.validator.worker import Worker

pytestmark = pytest.mark.anyio

AT_ONCE = Policy(periods=Periods(debounce_s=0))
NOWHERE = "https://api.example.com/v1"


def worker_on(database, prober, policy=AT_ONCE, run_timeout_s=240.0, **more):
    return Worker(database, prober, policy, run_timeout_s=run_timeout_s, recording_max_bytes=10_000, **more)


async def rows(database, table):
    async with database.reading() as connection:
        return (await connection.execute(sa.select(table))).all()


@pytest.fixture
async def database(database_url):
    opened = Database(database_url)
    yield opened
    await opened.close()


async def test_a_slow_run_delays_nobody_and_verdicts_are_published_by_and_by(database):
    slow, *quick = await provider_with_mappings(database, "together", NOWHERE, chats(4), max_running=8)
    ended = asyncio.Event()
    times = {}

    async def prober(mapping):
        if mapping.id == slow.id:
            await ended.wait()
        return Outcome(Result.WORKS)

    async def until_published(count):
        async with asyncio.timeout(10):
            while len(found := await rows(database, validations)) < count:  # noqa: ASYNC110  it looks from outside
                await asyncio.sleep(0.02)
        return {row.mapping_id for row in found}

    told = []
    working = worker_on(database, prober, published=lambda *_: told.append(time.monotonic()))
    await working.tick()
    times["claimed"] = time.monotonic()
    assert await until_published(3) == {each.id for each in quick}
    assert len(told) == 1, "what ended together was not published together"
    ended.set()
    assert len(await until_published(4)) == 4
    await working.idle()
    assert told[0] - times["claimed"] < 5
    assert {row.lease_until_us for row in await rows(database, due)} == {None}


async def test_at_shutdown_leases_are_given_back_at_once_and_half_a_run_is_no_verdict(database):
    await provider_with_mappings(database, "together", NOWHERE, chats(2))
    begun = asyncio.Event()

    async def prober(_mapping):
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return Outcome(Result.FAILS, ErrorClass.CONTRACT, "half a run, as the runner gives it")

    working = worker_on(database, prober)
    await working.tick()
    await begun.wait()
    assert all(row.lease_until_us for row in await rows(database, due))
    await working.stop()
    assert await rows(database, runs) == []
    assert {(row.lease_until_us, row.urgency) for row in await rows(database, due)} == {(None, 0)}

    async def works(_mapping):
        return Outcome(Result.WORKS)

    again = worker_on(database, works)
    await again.tick()
    await again.idle()
    assert len(await rows(database, runs)) == 2


async def test_what_ended_while_the_database_is_away_is_published_when_it_is_back(database, monkeypatch):
    await provider_with_mappings(database, "together", NOWHERE, chats(2))
    monkeypatch.setattr(worker, "RETRY_S", 0.05)
    opened, refused = worker.change, []

    def away(*arguments):
        if len(refused) < 3:
            refused.append(arguments)
            raise DatabaseUnavailableError("away")
        return opened(*arguments)

    monkeypatch.setattr(worker, "change", away)

    async def works(_mapping):
        return Outcome(Result.WORKS)

    working = worker_on(database, works)
    await working.tick()
    await working.idle()
    assert len(refused) == 3
    assert [row.result for row in await rows(database, runs)] == ["works", "works"]


async def test_what_cannot_be_published_before_its_lease_ends_is_dropped_and_runs_again(database, monkeypatch):
    await provider_with_mappings(database, "together", NOWHERE, chats(1))
    monkeypatch.setattr(worker, "RETRY_S", 0.05)
    opened, refused, asked = worker.change, [], []

    def away(*arguments):
        if len(asked) < 2:
            refused.append(arguments)
            raise DatabaseUnavailableError("away")
        return opened(*arguments)

    monkeypatch.setattr(worker, "change", away)

    async def works(_mapping):
        asked.append(time.monotonic())
        return Outcome(Result.WORKS)

    working = worker_on(database, works, replace(AT_ONCE, bounds=Bounds(4, 1)))
    async with asyncio.timeout(20):
        while not await rows(database, runs):
            await working.tick()
            await asyncio.sleep(0.1)
    await working.idle()
    assert len(asked) == 2
    assert refused  # how it tries again meanwhile, the test above shows
    assert asked[1] - asked[0] > 0.9, "it ran twice within one lease"
    assert len(await rows(database, runs)) == 1


async def test_a_run_of_a_mapping_that_changed_meanwhile_says_nothing_and_runs_again(database):
    mapping, gone = await provider_with_mappings(database, "together", NOWHERE, chats(2))
    asked, both = [], asyncio.Event()

    async def prober(now):
        asked.append((now.id, now.provider_model))
        if len(asked) <= 2:
            if len(asked) == 2:
                both.set()
            await both.wait()
            if now.id == mapping.id:
                async with change(database, OPERATOR) as opened:
                    await mapping_rows.amend(opened, mapping, status="live", provider_model="acme/other")
                    await mapping_rows.remove(opened, gone)
            await asyncio.sleep(0.3)
            return Outcome(Result.FAILS, ErrorClass.CONTRACT, "the old one")
        return Outcome(Result.WORKS)

    working = worker_on(database, prober)
    await working.tick()
    await working.idle()
    await working.tick()
    await working.idle()
    assert asked[2:] == [(mapping.id, "acme/other")]
    assert [(row.mapping_id, row.result) for row in await rows(database, runs)] == [(mapping.id, "works")]
    assert [row.mapping_id for row in await rows(database, health)] == [mapping.id]
    assert [row.mapping_id for row in await rows(database, due)] == [mapping.id]


async def test_a_run_that_takes_too_long_fails_with_what_was_seen(database):
    hangs, stalls, breaks = await provider_with_mappings(database, "together", NOWHERE, chats(3))

    async def prober(mapping):
        if mapping.id == breaks.id:
            raise ValueError("unexpected")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if mapping.id == hangs.id:
                raise
            return Outcome(Result.FAILS, ErrorClass.NETWORK, "seen so far")

    working = worker_on(database, prober, run_timeout_s=0.3)
    await working.tick()
    await working.idle()
    found = {row.mapping_id: (row.result, row.error_class, row.summary) for row in await rows(database, runs)}
    assert found == {
        hangs.id: ("fails", "contract", "it did not answer everything within 0.3 s"),
        stalls.id: ("fails", "network", "seen so far"),
        breaks.id: ("in_doubt", "ours", "the validator itself failed: ValueError: unexpected"),
    }


async def test_what_a_database_would_not_store_costs_a_provider_no_verdict_and_no_other_either(database, monkeypatch):
    odd, plain, huge = await provider_with_mappings(database, "together", NOWHERE, chats(3))
    said = "got \x00 and \ud800"

    async def prober(mapping):
        if mapping.id == plain.id:
            return Outcome(Result.WORKS)
        if mapping.id == huge.id:
            broken = Outcome(Result.FAILS, ErrorClass.CONTRACT, "a figure that no column takes")
            return replace(broken, figures=replace(broken.figures, context_length_tokens=2**80))
        return Outcome(Result.FAILS, ErrorClass.CONTRACT, said, findings=({"check": "a.b", "got": said},))

    working = worker_on(database, prober)
    await working.tick()
    await working.idle()
    found = {row.mapping_id: row for row in await rows(database, runs)}
    assert found[odd.id].summary == "got \ufffd and ?"
    assert found[odd.id].findings == [{"check": "a.b", "got": "got \ufffd and ?"}]
    assert {row.mapping_id: row.active for row in await rows(database, validations)} == {
        odd.id: False,
        plain.id: True,
        huge.id: False,
    }
    assert {row.lease_until_us for row in await rows(database, due)} == {None}


def overlaps(spans):
    """The most spans that hold at the same time."""
    marks = sorted([(begun, 1) for begun, _ in spans] + [(ended, -1) for _, ended in spans])
    now = most = 0
    for _, step in marks:
        now += step
        most = max(most, now)
    return most


async def test_bounds_hold_over_two_processes_and_no_mapping_runs_twice_at_once(database, database_url, tmp_path):
    app = Providers("together", "groq", delay_s=0.03)
    log = tmp_path / "runs.jsonl"
    log.touch()
    # Now and then nothing is due: whoever is always busy leaves the other nothing but what it cannot hold.
    settings = {"routine_s": 3, "retest_s": 3, "debounce_s": 0, "running": 4, "run_timeout_s": 60, "lease_s": 90}
    with running(app) as url:
        root = url.removesuffix("/v1")
        await provider_with_mappings(database, "together", f"{root}/together/v1", chats(6), max_running=2)
        await provider_with_mappings(database, "groq", f"{root}/groq/v1", embeddings(6), max_running=3)
        with validating(database_url, settings, str(log)) as one, validating(database_url, settings, str(log)) as two:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                await asyncio.sleep(0.2)
                ended = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
                busy = {pid for *_, pid in ended}
                if len(ended) >= 40 and len(busy) == 2:
                    break
                if len(ended) >= 12 and len(busy) == 1:
                    # Both look once a second, and who looks first takes all there is: hold it up for a moment.
                    os.kill(*busy, signal.SIGSTOP)
                    await asyncio.sleep(1.2)
                    os.kill(*busy, signal.SIGCONT)
            for process in (one, two):
                process.terminate()
            for process in (one, two):
                process.join(20)
                assert process.exitcode == 0
    spans = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(spans) >= 40
    assert len({pid for *_, pid in spans}) == 2, "one process did everything"
    assert overlaps([(begun, ended) for _, _, begun, ended, _ in spans]) <= 4
    for provider, most in (("together", 2), ("groq", 3)):
        assert 1 < overlaps([(begun, ended) for name, _, begun, ended, _ in spans if name == provider]) <= most
    for mapping_id in {mapping_id for _, mapping_id, *_ in spans}:
        assert overlaps([(begun, ended) for _, id, begun, ended, _ in spans if id == mapping_id]) == 1
    assert 1 <= app.most_models["together"] <= 2
    assert {row.lease_until_us for row in await rows(database, due)} == {None}


async def test_a_key_opens_for_its_provider_and_origin_alone(database):
    sealer = Sealer(new_key())
    await provider_with_mappings(database, "groq", NOWHERE, [], key="k" * 20, sealer=sealer)
    find = Endpoints(database, sealer)
    assert (await find("groq")).api_key == "k" * 20
    assert await find("together") is None

    async def register(wanted):
        async with change(database, OPERATOR) as opened:
            return await endpoints.register(opened, sealer, "groq", wanted)

    kept = await register(Wanted("https://API.example.com:443/v2", keep_key=True))
    assert kept.key_sealed
    assert (await find("groq")).api_key == "k" * 20
    assert (await find("groq")).base_url.endswith("/v2")
    async with database.writing() as connection:
        await connection.execute(endpoints.endpoints.update().values(base_url="https://evil.example.com/v1"))
    with pytest.raises(SealingError, match="sealed for another place"):
        await find("groq")
    moved = await register(Wanted("http://api.example.com/v2", keep_key=True))
    assert moved.key_sealed is None
    assert (await find("groq")).api_key is None
    with pytest.raises(SealingError, match="no key to encrypt"):
        async with change(database, OPERATOR) as opened:
            await endpoints.register(opened, Sealer(None), "groq", Wanted(NOWHERE, "k" * 20))


async def test_keys_are_sealed_anew_with_the_first_key(database):
    old, new = new_key(), new_key()
    await provider_with_mappings(database, "groq", NOWHERE, [], key="k" * 20, sealer=Sealer(old))
    async with change(database, OPERATOR) as opened:
        assert await endpoints.reseal(opened, Sealer(f"{new},{old}")) == 1
        assert await endpoints.reseal(opened, Sealer(f"{new},{old}")) == 0
    assert (await Endpoints(database, Sealer(new))("groq")).api_key == "k" * 20


ENDPOINT = "/api/partners/together/endpoint"
BODY = {"baseUrl": "https://203.0.113.7/v1/", "apiKey": "secret-of-a-partner", "maxRunning": 2}
PUBLIC = {**BODY, "baseUrl": "https://1.1.1.1/v1/"}


def offered(url, **more):
    service = Service(Database(url), FileCatalogue(), UNLIMITED.model_copy(update={"secret_key": None} | more))
    return service, create_app(service, routers=[router])


async def test_only_administrators_register_an_api_and_nobody_reads_its_key(database_url):
    from pydantic import SecretStr

    service, app = offered(database_url, secret_key=SecretStr(new_key()))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http,
    ):
        read, write, admin = await enrol(service.database, "together", "read", "write", "admin")
        (stranger,) = await enrol(service.database, "groq", "admin")
        for method, body in (("PUT", PUBLIC), ("GET", None), ("DELETE", None)):
            for who, expected in ((None, 401), (stranger, 403), (read, 403), (write, 403)):
                headers = who.headers if who else {}
                answer = await http.request(method, ENDPOINT, json=body, headers=headers)
                assert answer.status_code == expected, (method, expected, answer.text)
        assert (await http.get(ENDPOINT, headers=admin.headers)).status_code == 404
        assert (await http.delete(ENDPOINT, headers=admin.headers)).status_code == 404
        put = await http.put(ENDPOINT, json=PUBLIC, headers=admin.headers)
        assert put.status_code == 200, put.text
        shown = put.json()
        assert shown | {"updatedAt": ""} == {
            "baseUrl": "https://1.1.1.1/v1",
            "hasKey": True,
            "options": {},
            "maxRunning": 2,
            "state": "validated",
            "updatedAt": "",
        }
        assert (await http.get(ENDPOINT, headers=admin.headers)).json() == shown
        stored = await rows(service.database, endpoints.endpoints)
        told = await rows(service.database, audit)
        assert "secret-of-a-partner" not in f"{shown} {stored} {told}"

        async def again(**changed):
            body = {name: value for name, value in (PUBLIC | changed).items() if value is not ...}
            answer = await http.put(ENDPOINT, json=body, headers=admin.headers)
            assert answer.status_code == 200, answer.text
            return answer.json()["hasKey"]

        assert await again(apiKey=..., baseUrl="https://1.1.1.1/v2") is True
        assert await again(apiKey=..., baseUrl="https://1.1.1.1:8443/v2") is False
        assert await again() is True
        assert await again(apiKey=None) is False
        assert (await http.delete(ENDPOINT, headers=admin.headers)).status_code == 204
        assert await rows(service.database, endpoints.endpoints) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"baseUrl": "http://127.0.0.1:9/v1"}, "only https URLs"),
        ({"baseUrl": "https://169.254.169.254/v1"}, "not allowed as a target"),
        ({"baseUrl": "https://1.1.1.1/v1?x=1"}, "no query"),
        ({"baseUrl": "https://a:b@1.1.1.1/v1"}, "no user name"),
        ({"baseUrl": "ftp://1.1.1.1"}, "expected a base URL"),
        ({"apiKey": "two words"}, "no space"),
        ({"apiKey": "a\nX-Other: b"}, "no space"),
        ({"options": {"timeout_s": 0}}, "timeout_s"),
        ({"maxRunning": 0}, "maxRunning"),
        ({"key": "x"}, "key"),
    ],
)
async def test_an_api_that_cannot_be_asked_is_refused_with_a_reason(database_url, changed, message):
    service, app = offered(database_url)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http,
    ):
        (admin,) = await enrol(service.database, "together", "admin")
        answer = await http.put(ENDPOINT, json=PUBLIC | changed, headers=admin.headers)
        assert answer.status_code == 400
        assert message in answer.json()["error"]
        assert "two words" not in answer.text
        keyless = await http.put(ENDPOINT, json=PUBLIC, headers=admin.headers)
        assert keyless.status_code == 503
        assert "ROADWORTHY_SECRET_KEY" in keyless.json()["error"]


async def test_a_changed_key_holds_at_once_and_a_private_address_is_never_asked(database):
    app, sealer = Providers("together"), Sealer(new_key())
    settings = ValidatorSettings(debounce_s=0)
    with running(app) as url:
        base_url = f"{url.removesuffix('/v1')}/together/v1"
        (mapping,) = await provider_with_mappings(
            database, "together", base_url, embeddings(1), key="first" * 4, sealer=sealer
        )
        guarded = Validator(database, sealer, settings)
        await guarded.run_to_the_end()
        await guarded.stop()
        assert app.asked["together"] == 0
        assert [row.result for row in await rows(database, runs)] == ["fails"]
        validator = Validator(database, sealer, settings, allow_private=True)
        for key in ("first" * 4, "second" * 4):
            app.keys["together"].clear()
            async with change(database, OPERATOR) as opened:
                await endpoints.remove(opened, "together")
                await endpoints.register(opened, sealer, "together", Wanted(base_url, key))
            await validator.run_to_the_end()
            assert app.keys["together"] == {f"Bearer {key}"}
        await validator.stop()
    assert Counter(row.result for row in await rows(database, runs)) == {"fails": 1, "works": 2}
    [verdict] = await rows(database, validations)
    assert (verdict.mapping_id, verdict.active) == (mapping.id, True)


async def test_a_large_recording_keeps_its_head_says_so_and_replays(database):
    with running(Sandbox((), Options(models=("acme/chat-0",)))) as url:
        (mapping,) = await provider_with_mappings(database, "together", url, chats(1))
        settings = ValidatorSettings(debounce_s=0, recording_max_bytes=4096)
        validator = Validator(database, Sealer(None), settings, allow_private=True)
        await validator.run_to_the_end()
        await validator.stop()
    [kept] = await rows(database, evidence)
    assert len(kept.recording) <= 4096
    text = gzip.decompress(kept.recording).decode()
    assert recordings.left_out(text) > 0
    assert mapping.provider_model in text
    head = json.loads(text.partition("\n")[0])
    assert recordings.CUT in head["unsent"].values()
    assert 0 < text.count("\n") - 1 < head["requests"]


def test_a_recording_within_the_bound_stays_as_it_is(run_sandbox, tmp_path):
    run = run_sandbox()
    text = io.StringIO()
    recording.write(text, [run])
    packed = gzip.compress(text.getvalue().encode(), mtime=0)
    assert recordings.capped(packed, len(packed)) is packed
    for size in (len(packed) // 2, 4096, 1):
        cut = recordings.capped(packed, size)
        if size > 1:
            assert len(cut) <= size
        path = tmp_path / "cut.jsonl"
        path.write_bytes(gzip.decompress(cut))
        [again] = recording.read(path)
        whole = {result.check_id: result.verdict for result in judge(run.checks, run.exchanges, run.facts, run.unsent)}
        for result in judge(again.checks, again.exchanges, again.facts, again.unsent):
            assert result.verdict in {whole[result.check_id], "skipped", "inconclusive", "pass"}
        assert len(again.exchanges) + recordings.left_out(path.read_text(encoding="utf-8")) == len(run.exchanges)


async def test_old_runs_old_hours_and_what_is_of_no_mapping_is_pruned(database, monkeypatch):
    (mapping,) = await provider_with_mappings(database, "together", NOWHERE, chats(1))
    monkeypatch.setattr("roadworthy.validator.store.retention.BATCH", 3)
    async with database.writing() as connection:
        now_us = await database.now_us(connection)
        run = {
            "mapping_id": mapping.id, "provider": "together", "result": "works", "news": False, "summary": "",
            "findings": [], "requests": 1, "duration_s": 0.1,
        }  # fmt: skip
        ages = [0, 29, 31, 32, 33, 34, 35]
        await connection.execute(
            runs.insert(), [run | {"id": f"{age:024}", "ended_at_us": now_us - age * DAY_US} for age in ages]
        )
        hour = {column.name: 0 for column in rollups.c} | {"mapping_id": mapping.id}
        await connection.execute(
            rollups.insert(), [hour | {"hour_us": now_us - age * DAY_US} for age in (0, 399, 401, 402, 403, 404)]
        )
        kept = [{"mapping_id": id, "kind": "failing", "run_id": "r", "recording": b"x"} for id in (mapping.id, "gone")]
        await connection.execute(evidence.insert(), kept)
    await prune(database, 30, 400)
    assert sorted(int(row.id) for row in await rows(database, runs)) == [0, 29]
    assert len(await rows(database, rollups)) == 2
    assert [row.mapping_id for row in await rows(database, evidence)] == [mapping.id]


def test_settings_come_from_the_environment_before_the_file(tmp_path, monkeypatch):
    path = tmp_path / "roadworthy.toml"
    path.write_text("[validator]\nroutine_s = 7\nretest_s = 8\n", encoding="utf-8")
    monkeypatch.setenv("ROADWORTHY_VALIDATOR_RETEST_S", "9")
    found = read_settings(path).policy()
    assert (found.periods.routine_s, found.periods.retest_s) == (7, 9)
    monkeypatch.chdir(tmp_path)
    assert read_settings().routine_s == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[validator]\nroutine = 1\n", "there is no such setting; did you mean 'routine_s'"),
        ("[validator]\nrun_timeout_s = 300\n", "lease_s must be greater than run_timeout_s"),
        ("[validator]\nbrake_share = 2\n", "brake_share"),
        ("validator = 3\n", "must be a table"),
    ],
)
def test_settings_that_cannot_be_used_are_explained(tmp_path, text, message):
    path = tmp_path / "roadworthy.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_settings(path)


def test_a_lease_outlasts_its_run():
    defaults = ValidatorSettings()
    assert defaults.policy() == Policy()
    assert defaults.lease_s >= defaults.run_timeout_s + worker.SPARE_S
