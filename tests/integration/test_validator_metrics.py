"""The validator's figures in the service's /metrics."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from services import serving
from sqlalchemy import insert, update
from validating import validate_once

from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.records import Item
from roadworthy.mapping_api.store import mappings, organisations
from roadworthy.validator import metrics as module
from roadworthy.validator.alerts.alerter import Alerter
from roadworthy.validator.metrics import OTHERS, ValidatorMetrics
from roadworthy.validator.outcome import ErrorClass, Figures, Outcome, Result
from roadworthy.validator.publish import Finished, Policy
from roadworthy.validator.schedule import Periods
from roadworthy.validator.store.due import Claim
from roadworthy.validator.tables import due, endpoints, runs

pytestmark = pytest.mark.anyio
AT_ONCE = Policy(periods=Periods(debounce_s=0))
FAILS = Outcome(Result.FAILS, ErrorClass.PROVIDER_5XX, "the API answered HTTP 503", duration_s=3.0)
WORKS = Outcome(Result.WORKS, figures=Figures(time_to_first_token_s=0.3), duration_s=2.0)


async def populate(database, slugs):
    async with change(database, OPERATOR) as opened:
        for slug in slugs:
            organisation = await organisations.create_organisation(opened, slug)
            await organisations.create_provider(opened, slug, organisation)
            values = {"provider": slug, "base_url": "http://127.0.0.1:9/v1", "options": {}, "max_running": 9}
            await opened.connection.execute(insert(endpoints).values(**values, updated_at_us=0))
            for number in range(2):
                item = Item("conversational", f"acme/{number}", hf_model=f"org/model-{number}", status="live")
                await mappings.create(opened, slug, item)


async def scraped(running):
    text = (await running.http.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("roadworthy_validator")
    }


def of(found, name, **labels):
    return found.get((f"roadworthy_validator_{name}", tuple(sorted(labels.items()))))


async def test_states_runs_and_freshness_are_shown(database_url):
    async with serving(database_url) as running:
        database = running.service.database
        source = ValidatorMetrics(database)
        running.service.metric_sources.append(source)
        await populate(database, ["together", "nebius"])

        async def probe(mapping):
            return WORKS if mapping.provider == "together" else FAILS

        before = await scraped(running)
        assert of(before, "stale") == 0
        assert of(before, "last_run_timestamp_seconds") is None
        assert await validate_once(database, probe, AT_ONCE) == 4
        finished = [
            Finished(Claim("a" * 24, "together", 1, 1), WORKS),
            Finished(Claim("b" * 24, "nebius", 1, 1), FAILS),
        ]
        source.published(finished, 0.02)
        found = await scraped(running)
        assert of(found, "mappings", provider="together", state="live") == 2
        assert of(found, "mappings", provider="nebius", state="failing") == 2
        assert of(found, "mappings", provider="nebius", state="live") == 0
        assert of(found, "runs_total", provider="together", result="works", error_class="") == 1
        assert of(found, "runs_total", provider="nebius", result="fails", error_class="provider_5xx") == 1
        assert of(found, "run_duration_seconds_sum", provider="nebius") == 3
        assert of(found, "time_to_first_token_seconds_bucket", provider="together", le="0.5") == 1
        assert of(found, "time_to_first_token_seconds_bucket", provider="together", le="0.25") == 0
        assert of(found, "publish_duration_seconds_count") == 1
        assert of(found, "brake") == 0
        assert of(found, "provider_down", provider="nebius") == 0
        assert of(found, "due", provider="together") == 0
        assert of(found, "last_run_timestamp_seconds") > 1_700_000_000
        assert not any("mapping" in dict(labels) for _, labels in found)


async def test_stale_and_late_are_shown_when_validation_stops(database_url):
    async with serving(database_url) as running:
        database = running.service.database
        running.service.metric_sources.append(ValidatorMetrics(database, stale_after_s=900))
        await populate(database, ["together"])

        async def probe(_mapping):
            return WORKS

        await validate_once(database, probe, AT_ONCE)
        async with database.writing() as connection:
            now_us = await database.now_us(connection)
            await connection.execute(update(due).values(due_at_us=now_us - 1_000_000_000))
            await connection.execute(update(runs).values(ended_at_us=now_us - 1_000_000_000))
            await connection.execute(update(endpoints).values(down_since_us=1))
        found = await scraped(running)
        assert of(found, "stale") == 1
        assert of(found, "due", provider="together") == of(found, "overdue", provider="together") == 2
        assert 1_000 <= of(found, "late_seconds", provider="together") < 1_060
        assert of(found, "provider_down", provider="together") == 1


async def test_mappings_are_named_by_choice_only_and_providers_are_bounded(database_url, monkeypatch):
    monkeypatch.setattr(module, "PROVIDERS_MAX", 1)
    async with serving(database_url) as running:
        database = running.service.database
        source = ValidatorMetrics(database, per_mapping=True)
        running.service.metric_sources.append(source)
        await populate(database, ["nebius", "together"])

        async def probe(_mapping):
            return WORKS

        await validate_once(database, probe, AT_ONCE)
        for slug in ("nebius", "together"):
            source.published([Finished(Claim("a" * 24, slug, 1, 1), WORKS)], 0.1)
        found = await scraped(running)
        assert of(found, "mappings", provider="nebius", state="live") == 2
        assert of(found, "mappings", provider=OTHERS, state="live") == 2
        assert of(found, "runs_total", provider=OTHERS, result="works", error_class="") == 1
        named = [dict(labels) for name, labels in found if name == "roadworthy_validator_mapping_state"]
        assert len(named) == 4
        assert {each["state"] for each in named} == {"live"}


async def test_without_a_database_what_was_counted_is_still_shown(database_url):
    async with serving(database_url) as running:
        service = running.service
        alerter = Alerter(service.database, service.sealer, service.guard, environment={})
        alerter.counted["failed"] += 2
        source = ValidatorMetrics(service.database, counted=alerter.counted)
        source.published([Finished(Claim("a" * 24, "together", 1, 1), FAILS)], 0.1)
        names = {metric.name for metric in source.collect()}
        assert "roadworthy_validator_runs" in names
        assert "roadworthy_validator_stale" not in names
        service.metric_sources.append(source)
        assert of(await scraped(running), "alert_messages_total", result="failed") == 2
