"""Health, metrics, logs, limits, headers and the documentation of the running service."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from browsing import Tab, launched
from fastapi import FastAPI
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families
from services import serving, single

from roadworthy import logs
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.settings import ServiceSettings

pytestmark = pytest.mark.anyio

PATH = "/api/partners/together/models"


@pytest.fixture
def log(logging_put_back) -> io.StringIO:
    """What is logged as JSON."""
    stream = io.StringIO()
    logs.configure("json", "debug", ["a-configured-secret"], stream)
    return stream


def app_of(running) -> FastAPI:
    return running.http._transport.app


def entries(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def sample(text: str, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name == name and each.labels == labels:
                return each.value
    return None


async def test_alive_asks_no_database_and_ready_does(database_url):
    async with serving(database_url) as running:
        assert (await running.http.get("/healthz")).json() == {"status": "ok"}
        ready = await running.http.get("/readyz")
        assert ready.status_code == 200
        async with running.service.database.writing() as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
        behind = await running.http.get("/readyz")
        assert behind.status_code == 503
        assert "this version needs" in behind.json()["error"]
        async with running.service.database.writing() as connection:
            await connection.execute(sa.text("DROP TABLE alembic_version"))
        without = await running.http.get("/readyz")
        assert without.status_code == 503
        assert "no tables" in without.json()["error"]
        assert (await running.http.get("/healthz")).status_code == 200


async def test_ready_is_over_when_the_service_stops(database_url):
    async with serving(database_url) as running:
        app_of(running).state.operation.stopping = True
        answer = await running.http.get("/readyz")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0


async def test_metrics_are_well_formed_and_count(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        await running.http.post(PATH, json=single(), headers=ann.headers)
        await running.http.get(PATH)
        await running.http.get("/api/partners/nobody/models")
        for number in range(20):
            await running.http.get(f"/nothing/{number}")
            await running.http.request(f"ODD{number}", PATH)
        answer = await running.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert all(family.documentation and family.type != "unknown" for family in families.values())
        template = "/api/partners/{provider}/models"
        requests = "roadworthy_http_requests_total"
        assert sample(text, requests, method="POST", route=template, status="201") == 1
        assert sample(text, requests, method="GET", route=template, status="200") == 1
        assert sample(text, requests, method="GET", route=template, status="404") == 1
        assert sample(text, requests, method="GET", route="(none)", status="404") == 20
        assert sum(1 for each in families["roadworthy_http_requests"].samples if each.labels["method"] == "OTHER") == 1
        assert sample(text, "roadworthy_mappings", provider="together", status="staging") == 1
        assert sample(text, "roadworthy_mappings", provider="together", status="live") == 0
        assert sample(text, "roadworthy_http_requests_in_flight") == 1
        assert sample(text, "roadworthy_webhook_deliveries_pending") == 0
        age_s = sample(text, "roadworthy_view_age_seconds")
        assert age_s is not None
        assert 0 <= age_s < 1
        count = "roadworthy_http_request_duration_seconds_count"
        assert sample(text, count, method="GET", route=template) == 2
        assert "process_resident_memory_bytes" in families
        assert sample(text, "roadworthy_view_revision") == running.service.view.revision


async def test_two_applications_count_for_themselves(fresh_database):
    async with serving(fresh_database()) as one, serving(fresh_database()) as two:
        await one.http.get("/healthz")
        labels = {"method": "GET", "route": "/healthz", "status": "200"}
        assert sample((await one.http.get("/metrics")).text, "roadworthy_http_requests_total", **labels) == 1
        assert sample((await two.http.get("/metrics")).text, "roadworthy_http_requests_total", **labels) is None


async def test_a_fault_is_500_with_the_request_id_and_a_traceback_in_the_log_alone(database_url, log, monkeypatch):
    async with serving(database_url) as running:

        async def broken() -> None:
            raise ZeroDivisionError("with a-configured-secret")

        monkeypatch.setattr(running.service.view, "fresh", broken)
        answer = await running.http.get(PATH, headers={"X-Request-Id": "mine-7"})
    assert answer.status_code == 500
    assert set(answer.json()) == {"error"}
    assert "mine-7" in answer.json()["error"]
    assert "ZeroDivision" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-Id"] == "mine-7"
    (entry,) = [entry for entry in entries(log) if entry["level"] == "error"]
    assert entry["request_id"] == "mine-7"
    assert entry["status"] == 500
    assert "ZeroDivisionError" in entry["exception"]
    assert "a-configured-secret" not in log.getvalue()


async def test_each_request_is_one_entry_without_secrets(database_url, log):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "read")
        query = f"?expand=inference&access_token=plain-words&x={ann.token}&note=%0A%7B%22a%22"
        await running.http.get("/api/models/deepseek-ai/DeepSeek-R1" + query, headers=ann.headers)
        await running.http.get(f"/a%0Ab/{ann.token.replace('_', '%5F')}")
        await running.http.get("/healthz")
    assert ann.token[8:] not in log.getvalue()
    assert "plain-words" not in log.getvalue()
    seen = [entry for entry in entries(log) if entry["event"] == "request"]
    assert [entry["status"] for entry in seen] == [200, 404, 200]
    assert seen[0]["member"] == "together/read-0"
    assert seen[0]["route"] == "/api/models/{model_id:path}"
    assert seen[0]["query"] == "expand=inference&access_token=***&x=***&note=%0A%7B%22a%22"
    assert seen[1]["path"] == "/a%0Ab/***"
    assert seen[2]["level"] == "debug"


def test_other_libraries_speak_the_same_and_no_secret_gets_through(log):
    logging.getLogger("sqlalchemy.pool").warning("odd\nrequest %s", "\x1b[31m\u2028")
    logging.getLogger("httpx").info("never seen")
    logging.getLogger("apscheduler.scheduler").error("postgresql://ann:hush-hush@db/x with Bearer abcdef.123456")
    logs.get("roadworthy.test").info("said", api_key="k", nested={"password": "hush-hush", "deep": {"token": "t"}}, n=1)
    lines = log.getvalue().split("\n")
    assert len(lines) == 4
    assert log.getvalue().isascii()
    first, second, third = entries(log)
    assert (first["logger"], first["event"]) == ("sqlalchemy.pool", "odd\nrequest \x1b[31m\u2028")
    assert second["event"] == "postgresql://***@db/x with Bearer ***"
    assert third["api_key"] == "***"
    assert third["nested"] == {"password": "***", "deep": {"token": "***"}}
    assert third["n"] == 1


def test_lines_for_people_stay_lines(log):
    stream = io.StringIO()
    logs.configure("text", "info", (), stream)
    logs.get("roadworthy.test").info("one\ntwo", path="/a\n\x1b[31mforged\x9b")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b[31m" not in stream.getvalue()
    assert "one\\ntwo" in stream.getvalue()


async def test_a_body_too_large_is_413_and_not_read_on(database_url):
    settings = ServiceSettings(max_body_bytes=2000, max_bulk_body_bytes=4000)
    async with serving(database_url, settings=settings) as running:
        (ann,) = await running.enrol("together", "write")
        told = await running.http.post(PATH, content=b"x" * 2001, headers=ann.headers)
        assert told.status_code == 413
        assert "2000 bytes" in told.json()["error"]
        assert told.headers["X-Request-Id"]
        taken = 0

        async def pieces():
            nonlocal taken
            for _ in range(100):
                taken += 1
                yield b"x" * 500

        streamed = await running.http.post(
            PATH, content=pieces(), headers={**ann.headers, "Content-Type": "application/json"}
        )
        assert streamed.status_code == 413
        assert set(streamed.json()) == {"error"}
        assert taken <= 6
        bulk = await running.http.put(PATH, content=b"x" * 4001, headers=ann.headers)
        assert "4000 bytes" in bulk.json()["error"]
        assert (await running.http.put(PATH, content=b"x" * 3000, headers=ann.headers)).status_code != 413


async def test_every_answer_carries_the_security_headers(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        public = await running.http.get(PATH)
        assert public.headers["Cache-Control"] == "no-cache"
        assert "Authorization" in public.headers["Vary"]
        own = await running.http.get("/api/models/deepseek-ai/DeepSeek-R1", headers=ann.headers)
        written = await running.http.post(PATH, json=single(), headers=ann.headers)
        assert {own.headers["Cache-Control"], written.headers["Cache-Control"]} == {"no-store"}
        lost = await running.http.get("/nothing")
        for answer in (public, own, written, lost, await running.http.get("/metrics")):
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_head_is_get_without_the_body(database_url):
    async with serving(database_url) as running:
        await running.enrol("together", "write")
        for path in (PATH, "/api/models/deepseek-ai/DeepSeek-R1", "/healthz", "/docs"):
            got, head = await running.http.get(path), await running.http.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
            assert head.headers["Content-Length"] == str(len(got.content))
        text = (await running.http.get("/metrics")).text
        labels = {"method": "HEAD", "route": "/healthz", "status": "200"}
        assert sample(text, "roadworthy_http_requests_total", **labels) == 1


async def test_the_openapi_document_is_valid_and_complete(database_url):
    async with serving(database_url) as running:
        document = (await running.http.get("/openapi.json")).json()
        assert (await running.http.get("/")).headers["Location"] == "/docs"
    OpenAPIV31SpecValidator(document).validate()
    known = {tag["name"] for tag in document["tags"]}
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    ids = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            assert set(operation["tags"]) <= known, where
            ids.append(operation["operationId"])
            for status, response in operation["responses"].items():
                assert "X-Request-Id" in response["headers"], where
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]["$ref"]
                    assert schema.rpartition("/")[2] in {
                        "ErrorBody",
                        "ConflictBody",
                        "BulkErrorBody",
                        "UnconfirmedBody",
                        "RejectedUsage",
                    }, where
            if "requestBody" in operation:
                assert "413" in operation["responses"], where
            if method != "get":
                assert operation["security"] == [{"HTTPBearer": []}], where
    assert len(ids) == len(set(ids))


# A browser for this one test: the others here run loops in this thread.
@pytest.fixture
def docs_tab(migrated_sqlite, chromium) -> Iterator[Tab]:
    """The documentation in a browser."""
    from roadworthy.database import Database
    from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
    from roadworthy.mapping_api.service import Service
    from roadworthy.sandbox.server import running as listening

    app = create_app(Service(Database(f"sqlite:///{migrated_sqlite}"), FileCatalogue(), ServiceSettings()))
    with listening(app) as url, launched(chromium) as browser:
        tab = Tab(browser, url.removesuffix("/v1") + "/docs", viewport={"width": 1280, "height": 1400})
        tab.page.wait_for_selector(".opblock", timeout=20_000)
        yield tab


def test_the_documentation_reads_in_a_browser_without_another_server(docs_tab, tmp_path):
    page = docs_tab.page
    assert page.locator(".opblock").count() >= 7
    page.locator(".opblock-post .opblock-summary-control").first.click()
    page.wait_for_selector(".opblock-body")
    page.locator("button.try-out__btn").first.click()
    page.screenshot(path=str(tmp_path / "docs.png"), full_page=True)
    assert docs_tab.complaints == []
    origin = page.url.partition("/docs")[0]
    assert [url for url in docs_tab.asked if not url.startswith((origin, "data:"))] == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", PATH, "GET, HEAD, POST, PUT"),
        ("PATCH", f"{PATH}/{'a' * 24}", "DELETE, GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("PUT", "/docs", "GET, HEAD"),
    ],
)
async def test_what_is_not_possible_names_what_is(database_url, method, path, allowed):
    async with serving(database_url) as running:
        await running.enrol("together")
        answer = await running.http.request(method, path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == allowed
        assert answer.json() == {"error": f"{method} is not possible here; {allowed} is"}


async def test_what_is_malformed_is_told_in_our_words(database_url):
    async with serving(database_url) as running:
        (admin,) = await running.enrol("together", "admin")
        named = await running.http.get(f"{PATH}/zzz")
        assert named.json() == {"error": "mapping_id: expected an id of 24 hex digits, as listings show it; got 'zzz'"}
        asked = await running.http.get(PATH, params={"status": "x"})
        assert asked.json()["error"].startswith("status: ")
        told = await running.http.post(
            "/api/organizations/together/members",
            headers=admin.headers,
            json={"name": "paul", "role": "read", "mail": "x"},
        )
        assert told.status_code == 400
        assert told.json() == {"error": "'mail': there is no such field; known here: name, role"}


async def test_nobody_is_sent_to_a_host_of_the_callers_choice(database_url):
    async with serving(database_url) as running:
        await running.enrol("together")
        for path in ("/docs/", "/healthz/", f"{PATH}/"):
            answer = await running.http.get(path, headers={"Host": "elsewhere.example"})
            assert (answer.status_code, answer.headers.get("location")) == (404, None)
            assert "there is no" in answer.json()["error"]


async def test_every_operation_has_a_summary_that_tells_it_from_others(database_url):
    async with serving(database_url) as running:
        described = (await running.http.get("/openapi.json")).json()
        found = [each["summary"] for operations in described["paths"].values() for each in operations.values()]
        assert len(set(found)) == len(found) >= 30
        assert all(" " in summary and len(summary) <= 100 for summary in found), found
