"""The validator's own requests are costed, too: noted in the transaction that publishes what they showed."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from costs import register
from validating import Providers, chats, provider_with_mappings

from roadworthy.billing.tables import usage
from roadworthy.cli.billing_wiring import probes_noted
from roadworthy.conformance.usage import Use
from roadworthy.database import Database
from roadworthy.mapping_api.tables import validations
from roadworthy.sandbox.server import running
from roadworthy.sealing import Sealer
from roadworthy.validator import publish
from roadworthy.validator.outcome import Outcome, Result
from roadworthy.validator.publish import Policy
from roadworthy.validator.schedule import Periods
from roadworthy.validator.service import Validator
from roadworthy.validator.settings import ValidatorSettings
from roadworthy.validator.worker import Worker

pytestmark = pytest.mark.anyio

AT_ONCE = Policy(periods=Periods(debounce_s=0))


@pytest.fixture
async def database(database_url):
    opened = Database(database_url)
    yield opened
    await opened.close()


async def rows(database, table):
    async with database.reading() as connection:
        return (await connection.execute(sa.select(table))).all()


async def test_each_request_to_a_provider_that_tells_costs_is_noted_for_the_payer(database):
    app = Providers("acme", "other")
    with running(app) as url:
        root = url.removesuffix("/v1")
        (mapping,) = await provider_with_mappings(database, "acme", f"{root}/acme/v1", chats(1))
        await provider_with_mappings(database, "other", f"{root}/other/v1", chats(1))
        await register(database, "acme")
        settings = ValidatorSettings(debounce_s=0)
        validator = Validator(database, Sealer(None), settings, allow_private=True, noted=probes_noted("org:validator"))
        try:
            await validator.run_to_the_end()
        finally:
            await validator.stop()
    assert len(await rows(database, validations)) == 2
    noted = await rows(database, usage)
    assert 0 < len(noted) <= app.asked["acme"]
    assert {row.provider for row in noted} == {"acme"}, "the other tells no costs"
    assert {(row.payer, row.source, row.task) for row in noted} == {("org:validator", "validator", "conversational")}
    assert {row.model for row in noted} == {mapping.hf_model}
    answered = [row for row in noted if row.state == "pending"]
    assert any(row.input_tokens and row.output_tokens for row in answered)
    assert len({row.request_id for row in noted}) == len(noted)


def worker(database, *used):
    async def prober(_mapping):
        return Outcome(Result.WORKS, uses=used)

    noted = probes_noted("org:validator")
    return Worker(database, prober, AT_ONCE, run_timeout_s=60, recording_max_bytes=10_000, noted=noted)


async def now_as_text(database):
    async with database.reading() as connection:
        query = {"sqlite": "SELECT strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"}
        postgresql = """SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""
        return (await connection.exec_driver_sql(query.get(database.dialect, postgresql))).scalar_one()


async def test_ids_that_cannot_be_stored_or_came_twice_hold_no_verdict_back(database, caplog):
    await provider_with_mappings(database, "acme", "https://api.example.com/v1", chats(1))
    await register(database)
    at = await now_as_text(database)
    first, second = (Use("same", at, "m", "conversational", 200, count) for count in (1, 2))
    working = worker(database, first, second, Use("a\x00b", at, "m", "conversational", 200))
    await working.tick()
    await working.idle()
    (row,) = await rows(database, usage)
    assert (row.request_id, row.input_tokens) == ("same", 1)
    assert len(await rows(database, validations)) == 1
    assert "a probe cannot be costed" in caplog.text
    assert "a provider gave two probes one id" in caplog.text


async def test_what_cannot_be_published_is_not_noted(database, monkeypatch):
    await provider_with_mappings(database, "acme", "https://api.example.com/v1", chats(1))
    await register(database)

    async def fails(*_given):
        raise RuntimeError("the end of the transaction is not reached")

    monkeypatch.setattr(publish.validations, "publish_all", fails)
    working = worker(database, Use("a", await now_as_text(database), "m", "conversational", 200))
    await working.tick()
    await working.idle()
    assert await rows(database, usage) == []
    assert await rows(database, validations) == []
