"""Cost endpoints and the collector from outside: command line, HTTP, metrics, settings, `roadworthy serve`."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from collecting import Clocked, collector_on, rows
from costs import URL, CostProvider, register, reply, served, take_in
from loopback import serving as on_loopback
from prometheus_client import generate_latest
from pydantic import SecretStr
from services import UNLIMITED, enrol, serving
from test_hostile_servers import head
from typer.testing import CliRunner

from roadworthy.billing.metrics import BillingMetrics
from roadworthy.billing.schedule import DAY_US, Policy
from roadworthy.billing.service import Billing
from roadworthy.billing.settings import BillingSettings
from roadworthy.billing.store import disputes as disputes_store
from roadworthy.billing.store import endpoints
from roadworthy.billing.store.disputes import Choice
from roadworthy.billing.tables import batches, cost_endpoints, disputes, usage
from roadworthy.cli.app import app
from roadworthy.database import Database
from roadworthy.errors import RoadworthyError
from roadworthy.sealing import Sealer, new_key

pytestmark = pytest.mark.anyio
HANDBOOK = Path(__file__).resolve().parents[2] / "docs" / "operating.md"
COSTS = "https://1.1.1.1/v1/request-costs/"


@dataclass(frozen=True)
class Done:
    """How a command ended, as the person at the terminal sees it."""

    exit_code: int
    stdout: str
    stderr: str


def run(*words):
    done = CliRunner().invoke(app, ["billing", *words])
    if isinstance(done.exception, RoadworthyError):
        return Done(done.exception.exit_code, done.stdout, str(done.exception))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def operator(migrated_sqlite, tmp_path, monkeypatch):
    """The command line in a folder with a database that has the provider acme."""
    path = tmp_path / "roadworthy.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROADWORTHY_DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.setenv("ROADWORTHY_ALLOW_PRIVATE_TARGETS", "true")
    monkeypatch.setenv("ROADWORTHY_SECRET_KEY", new_key())

    async def prepare():
        database = Database(f"sqlite:///{path}")
        await enrol(database, "acme")
        await database.close()

    asyncio.run(prepare())
    return f"sqlite:///{path}"


def test_an_endpoint_is_set_shown_paused_resumed_and_removed(operator, monkeypatch):
    refused = run("endpoint", "set", "nobody", "--url", COSTS)
    assert refused.exit_code == 2
    assert "there is no provider 'nobody'; roadworthy org provider add ORG nobody makes it" in refused.stderr
    assert "no cost endpoint is registered" in run("endpoint", "show").stderr
    monkeypatch.setenv("COST_KEY", "sk-1234567890")
    assert run("endpoint", "set", "acme", "--url", COSTS, "--key-env", "COST_KEY").exit_code == 0
    (shown,) = json.loads(run("endpoint", "show", "--json").stdout)
    assert (shown["provider"], shown["url"], shown["key"], shown["state"]) == ("acme", COSTS, "yes", "asked")
    assert run("endpoint", "pause", "acme").exit_code == 0
    assert "paused" in run("endpoint", "show", "acme").stdout
    assert run("endpoint", "resume", "acme").exit_code == 0
    moved = run("endpoint", "set", "acme", "--url", "https://8.8.8.8/costs")
    assert "the key was for another origin and is forgotten" in moved.stderr
    assert json.loads(run("endpoint", "show", "--json").stdout)[0]["key"] == "no"
    assert run("endpoint", "remove", "acme").exit_code == 0
    commands = (
        "endpoint remove acme",
        "endpoint pause acme",
        "collect --once --provider acme",
        "recheck --provider acme",
    )
    for line in commands:
        missing = run(*line.split())
        assert missing.exit_code == 2, line
        assert "roadworthy billing endpoint set acme --url URL registers it" in missing.stderr


def test_a_secret_key_that_is_missing_or_another_is_configuration(operator, monkeypatch):
    monkeypatch.setenv("COST_KEY", "sk-1234567890")
    assert run("endpoint", "set", "acme", "--url", COSTS, "--key-env", "COST_KEY").exit_code == 0
    monkeypatch.setenv("ROADWORTHY_SECRET_KEY", new_key())
    other = run("recheck", "--provider", "acme")
    assert (other.exit_code, "put that key back" in other.stderr) == (2, True)
    monkeypatch.setenv("ROADWORTHY_SECRET_KEY", "")
    missing = run("endpoint", "set", "acme", "--url", COSTS, "--key-env", "COST_KEY")
    assert (missing.exit_code, "make one with `roadworthy secret-key new`" in missing.stderr) == (2, True)


@pytest.mark.parametrize("url", ["http://169.254.169.254/costs", "ftp://x/costs", "https://a:b@x.test/costs"])
def test_an_address_that_cannot_be_asked_is_refused(operator, url):
    refused = run("endpoint", "set", "acme", "--url", url)
    assert refused.exit_code == 2
    assert refused.stdout == ""


async def answering(body, status, *words):
    """What a command came to, with acme's cost endpoint on loopback answering so."""

    async def handler(reader, writer):
        await head(reader, writer, "Content-Type: application/json", f"Content-Length: {len(body)}", status=status)
        writer.write(body)
        await writer.drain()

    async with on_loopback(handler) as port:
        await asyncio.to_thread(run, "endpoint", "set", "acme", "--url", f"http://127.0.0.1:{port}/costs")
        return await asyncio.to_thread(run, *words)


async def collected(body, *words, status="200 OK"):
    """Exit code and rows of a command, with acme's cost endpoint on loopback answering so."""
    done = await answering(body, status, *words, "--json")
    return done.exit_code, json.loads(done.stdout)


async def test_collect_once_tells_what_came_of_it(operator):
    database = Database(operator)
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
    await take_in(database, *(served(id, served_at_us=now_us) for id in "abc"))
    told = json.dumps({"requests": [{"requestId": "a", "costNanoUsd": 5}, {"requestId": "b", "costNanoUsd": -1}]})
    code, (row,) = await collected(told.encode(), "collect", "--once", "--force")
    assert code == 0
    assert row == {"provider": "acme", "asked": 3, "settled": 1, "missing": 1, "invalid": 1, "disputed": 0,
                   "expired": 0, "cost_nano_usd": 5, "trouble": None}  # fmt: skip
    code, (row,) = await collected(b"{}", "collect", "--once", "--force", status="500 Oh")
    assert (code, row["trouble"]) == (1, "HTTP 500")
    code, (row,) = await collected(b"{}", "collect", "--once", "--force", status="503 Oh")
    assert (code, row["trouble"]) == (3, "HTTP 503")
    changed = json.dumps({"requests": [{"requestId": "a", "costNanoUsd": 6}]}).encode()
    code, (row,) = await collected(changed, "recheck", "--provider", "acme", "--since", "1h")
    assert (code, row["changed"]) == (1, 1)
    (dispute,) = await rows(database, disputes)
    assert (dispute["reason"], dispute["claimed"], dispute["posted_nano_usd"]) == ("changed", "6", 5)
    async with database.writing() as connection:
        await disputes_store.resolve(connection, dispute["id"], Choice.POSTED, "no", "ada", now_us=now_us)
    code, (row,) = await collected(b"{}", "recheck", "--provider", "acme", "--since", "2026-01-01", status="401 No")
    assert (code, row["trouble"], row["go_on_since"]) == (3, "HTTP 401: the key is refused", "2026-01-01T00:00:00Z")
    (shown,) = json.loads((await asyncio.to_thread(run, "status", "--json")).stdout)
    assert (shown["pending"], shown["settled"], shown["missing"], shown["failures"]) == (2, 1, 1, 0)
    assert shown["trouble"].endswith("HTTP 503")
    await database.close()


async def test_status_shows_every_open_dispute_and_what_is_never_asked_for(database_url):
    database = Database(database_url)
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
    await take_in(database, *(served(id, served_at_us=now_us) for id in ("a", "b", "open", "resolved")))
    await take_in(database, *(served(id, "beta", served_at_us=now_us, status=500) for id in ("x", "y")))
    resolved = {"resolved_at_us": now_us, "resolved_nano_usd": 5, "resolution": "claimed", "resolved_by": "me",
                "note": "agreed"}  # fmt: skip
    async with database.writing() as connection:
        ids = {row.request_id: row.id for row in await connection.execute(sa.select(usage))}
        about = {"provider": "acme", "opened_at_us": now_us - 3 * DAY_US, "reason": "changed", "claimed": "6"}
        for id, more in {"a": {}, "b": {}, "resolved": resolved}.items():
            await connection.execute(disputes.insert().values(usage_id=ids[id], **about, **more))
    database_of = ("--database", database_url)
    acme, beta = json.loads((await asyncio.to_thread(run, "status", "--json", *database_of)).stdout)
    assert (acme["provider"], acme["open_disputes"], acme["unbilled"], acme["disputed"]) == ("acme", 2, 0, 0)
    assert (beta["provider"], beta["open_disputes"], beta["unbilled"], beta["pending"]) == ("beta", 0, 2, 0)
    titles, *lines = (await asyncio.to_thread(run, "status", *database_of)).stdout.splitlines()
    assert [line[titles.index("disputes") :].split()[0] for line in lines] == ["2", "0"]
    assert [line[titles.index("unbilled") :].split()[0] for line in lines] == ["0", "2"]
    await database.close()


async def test_a_trouble_that_is_over_is_told_as_past_and_the_table_fits_80_columns(operator):
    database = Database(operator)
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
    await take_in(database, *(served(id, served_at_us=now_us) for id in "ab"))
    await collected(b"{}", "collect", "--once", "--force", status="503 Oh")
    failing = (await asyncio.to_thread(run, "status")).stdout
    assert "HTTP 503" in failing
    assert "over" not in failing
    told = json.dumps({"requests": [{"requestId": id, "costNanoUsd": 319_400} for id in "ab"]}).encode()
    await collected(told, "collect", "--once", "--force")
    over = (await asyncio.to_thread(run, "status")).stdout
    assert "HTTP 503, which is over: it has answered since" in over
    (shown,) = json.loads((await asyncio.to_thread(run, "status", "--json")).stdout)
    assert shown["trouble_is_over"] is True
    table = over + (await asyncio.to_thread(run, "endpoint", "show")).stdout
    assert max(map(len, table.splitlines())) <= 80
    await database.close()


async def test_collect_shows_usd_and_its_trouble_below_the_table(operator):
    database = Database(operator)
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
    await take_in(database, *(served(id, served_at_us=now_us) for id in "ab"))
    told = json.dumps({"requests": [{"requestId": "a", "costNanoUsd": 319_400}]}).encode()
    done = await answering(told, "200 OK", "collect", "--once", "--force")
    assert "0.000319400 USD" in done.stdout
    failed = await answering(b"{}", "500 Oh", "collect", "--once", "--force")
    assert failed.stdout.splitlines()[-1] == "acme: HTTP 500"
    assert max(map(len, (done.stdout + failed.stdout).splitlines())) <= 80
    await database.close()


async def test_who_is_paused_is_told_so(operator):
    await answering(b"{}", "200 OK", "endpoint", "pause", "acme")
    for words in (["collect", "--once"], ["collect", "--once", "--force", "--provider", "acme"]):
        done = await asyncio.to_thread(run, *words)
        assert done.exit_code == 0
        assert "acme is paused; roadworthy billing endpoint resume acme" in done.stderr
        assert ("--force asks" in done.stderr) is ("--force" not in words)
    again = await asyncio.to_thread(run, "recheck", "--provider", "acme")
    assert again.exit_code == 2
    assert "acme is paused; roadworthy billing endpoint resume acme" in again.stderr
    await asyncio.to_thread(run, "endpoint", "resume", "acme")
    idle = await asyncio.to_thread(run, "collect", "--once", "--force")
    assert "there is nothing to ask for; roadworthy billing status" in idle.stderr


def test_what_cannot_be_a_cost_url_or_a_slug_is_told_so(operator):
    url = run("endpoint", "set", "acme", "--url", "nonsense")
    assert "a cost endpoint's URL such as https://api.example.com/v1/request-costs, got 'nonsense'" in url.stderr
    for words in (["endpoint", "set", "Bad Name", "--url", COSTS], ["endpoint", "show", "Bad Name"]):
        bad = run(*words)
        assert bad.exit_code == 2
        assert "named by its slug: 2 to 64 lower-case letters" in bad.stderr
        assert "roadworthy" not in bad.stderr


def test_nothing_due_and_wrong_words(operator):
    idle = run("collect", "--once")
    assert idle.exit_code == 0
    assert "nothing is due" in idle.stderr
    assert run("collect", "--force").exit_code == 2
    assert "no provider tells its costs yet" in run("status").stderr
    run("endpoint", "set", "acme", "--url", COSTS)
    wrong = run("recheck", "--provider", "acme", "--since", "yesterday")
    assert wrong.exit_code == 2
    assert "a time is written as" in wrong.stderr


async def test_partners_register_their_cost_endpoint_and_the_key_never_comes_out(database_url):
    path = "/api/partners/together/cost-endpoint"
    settings = UNLIMITED.model_copy(update={"secret_key": SecretStr(new_key())})
    async with serving(database_url, settings=settings) as running:
        (admin,) = await running.enrol("together", "admin")
        put = await running.http.put(path, json={"url": COSTS, "apiKey": "sk-secret-1"}, headers=admin.headers)
        assert put.status_code == 200, put.text
        assert put.json() | {"updatedAt": ""} == {
            "url": COSTS, "hasKey": True, "state": "asked", "lastAnswerAt": None, "updatedAt": ""}  # fmt: skip
        assert (await running.http.get(path, headers=admin.headers)).json() == put.json()
        for wrong in ("http://127.0.0.1/costs", "https://10.0.0.1/costs", "nothing"):
            refused = await running.http.put(path, json={"url": wrong}, headers=admin.headers)
            assert refused.status_code == 400, wrong
        kept = await running.http.put(path, json={"url": COSTS}, headers=admin.headers)
        moved = await running.http.put(path, json={"url": "https://8.8.8.8/costs"}, headers=admin.headers)
        assert (kept.json()["hasKey"], moved.json()["hasKey"]) == (True, False)
        audit = (await running.http.get("/api/partners/together/audit", headers=admin.headers)).text
        assert "cost_endpoint.set" in audit
        assert "sk-secret-1" not in audit + put.text
        assert (await running.http.delete(path, headers=admin.headers)).status_code == 204
        assert (await running.http.delete(path, headers=admin.headers)).status_code == 404


async def test_metrics_tell_what_waits_and_what_came(database_url, caplog):
    database = Clocked(database_url)
    metrics = BillingMetrics(database, warn_after_s=3600, refresh_s=0)
    await register(database)
    await take_in(database, served("a"), served("b"), served("c"))
    database.pass_s(7200)
    await metrics.read()
    assert "3 requests of acme have no cost" in caplog.text
    provider = CostProvider()
    items = [{"requestId": "a", "costNanoUsd": 7}, {"requestId": "b", "costNanoUsd": 1.5}, {"requestId": "x"}]
    provider.answers.append(reply({"requests": items}))
    await collector_on(database, provider, Policy(recheck_ids_per_hour=0), told=metrics.told).once()
    text = generate_latest(metrics).decode()
    assert 'roadworthy_billing_pending{provider="acme"} 3.0' in text
    assert "roadworthy_billing_stale_providers 1.0" in text
    await metrics.read()
    text = generate_latest(metrics).decode()
    for line in (
        'pending{provider="acme"} 1.0',
        'requests_total{outcome="settled",provider="acme"} 2.0',
        'requests_total{outcome="missing",provider="acme"} 1.0',
        'cost_nano_usd_total{provider="acme"} 9.0',
        'batches_total{outcome="answered",provider="acme"} 1.0',
        'anomalies_total{kind="unasked",provider="acme"} 1.0',
        'failures_in_a_row{provider="acme"} 0.0',
    ):
        assert f"roadworthy_billing_{line}" in text
    await database.close()


def test_the_handbook_tells_of_every_setting_with_its_default():
    part = HANDBOOK.read_text(encoding="utf-8").partition("## Collecting costs")[2].partition("\n## ")[0]
    told = {}
    for names, defaults in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ((?:`[^`]+`(?:, )?)+) \|", part, re.MULTILINE):
        told |= dict(zip(re.findall(r"\w+", names), re.findall(r"`([^`]+)`", defaults), strict=True))
    assert told == {name: str(field.default) for name, field in BillingSettings.model_fields.items()}


async def test_an_embedded_collector_without_endpoints_writes_nothing(database_url):
    database = Database(database_url)
    await take_in(database, served("a"))
    before = [await rows(database, table) for table in (usage, batches, cost_endpoints)]
    looked = asyncio.Event()
    billing = Billing(database, Sealer(None))
    tick = billing.collector.tick
    ticks = []

    async def counted():
        await tick()
        ticks.append(1)
        looked.set()

    billing.collector.tick = counted
    writes = []

    def noted(_connection, _cursor, statement, *_more):
        writes.append(statement)

    sa.event.listen(database._writer.sync_engine, "before_cursor_execute", noted)
    billing._ticks.every("look", 0.05, counted)
    async with billing:
        await asyncio.wait_for(looked.wait(), 20)
    assert ticks
    assert writes == []
    assert [await rows(database, table) for table in (usage, batches, cost_endpoints)] == before
    await database.close()


async def test_keys_are_sealed_anew_and_open_without_the_old_key(database_url):
    old, fresh = new_key(), new_key()
    database = Database(database_url)
    async with database.writing() as connection:
        now_us = await database.now_us(connection)
        await endpoints.register(connection, Sealer(old), "acme", URL, now_us, key="k-123456", batch_size=10)
        await endpoints.register(connection, Sealer(old), "keyless", URL, now_us, batch_size=10)
        assert await endpoints.reseal(connection, Sealer(f"{fresh},{old}")) == 1
        assert await endpoints.reseal(connection, Sealer(f"{fresh},{old}")) == 0
        found = await endpoints.find(connection, "acme")
    assert Sealer(fresh).open(found.key_sealed, endpoints.key_context("acme", URL)) == "k-123456"
    await database.close()
