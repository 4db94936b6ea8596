"""Register, list, change and remove mappings, on both databases."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from services import FLUX_LORA, serving, single

pytestmark = pytest.mark.anyio

PATH = "/api/partners/together/models"
STATUSES = ("live", "staging")


def lora(**more):
    """A body that registers a tag filter."""
    return {
        "type": "tag-filter",
        "task": "text-to-image",
        "tags": FLUX_LORA,
        "providerModel": "flux-lora",
        "adapterType": "lora",
    } | more


async def test_a_mapping_is_created_listed_promoted_and_deleted(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        http = running.http
        created = await http.post(PATH, json=single(), headers=ann.headers)
        assert created.status_code == 201
        id = created.json()["_id"]
        entry = {"_id": id, "providerId": "ours/DeepSeek-R1", "status": "staging"}
        assert (await http.get(PATH)).json() == {"conversational": {"deepseek-ai/DeepSeek-R1": entry}}
        assert (await http.get(PATH, params={"status": "live"})).json() == {}

        promoted = await http.put(f"{PATH}/{id}/status", json={"status": "live"}, headers=ann.headers)
        assert promoted.json() == {"status": "live"}
        found = (await http.get("/api/models/deepseek-ai/DeepSeek-R1?expand[]=inferenceProviderMapping")).json()
        assert found["inferenceProviderMapping"] == {
            "together": {"status": "live", "providerId": "ours/DeepSeek-R1", "task": "conversational"}
        }

        assert (await http.delete(f"{PATH}/{id}", headers=ann.headers)).status_code == 204
        assert (await http.get(PATH)).json() == {}


async def test_a_duplicate_is_refused_with_the_id_that_is_there(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        first = await running.http.post(PATH, json=single(), headers=ann.headers)
        again = await running.http.post(PATH, json=single(status="live"), headers=ann.headers)
        assert again.status_code == 409
        assert again.json()["_id"] == first.json()["_id"]


JSON = {"Content-Type": "application/json"}
GOOD = b'{"task": "conversational", "hfModel": "deepseek-ai/DeepSeek-R1", "providerModel": "x"}'


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"", JSON, 400, "the body is empty"),
        (b" \n ", JSON, 400, "the body is empty"),
        (b'{"task": }', JSON, 400, "line 1, column 10"),
        (b'{"task": "a", "task": "b"}', JSON, 400, "the key 'task' twice"),
        (b'{"task": NaN}', JSON, 400, "NaN, which is not JSON"),
        (b'{"task": -Infinity}', JSON, 400, "-Infinity"),
        (b'{"task": "\xff"}', JSON, 400, "not UTF-8, at byte 10"),
        (b"\xef\xbb\xbf" + GOOD, JSON, 400, "not valid JSON"),
        (b'{"task": "\\u0000"}', JSON, 400, "NUL"),
        (b'{"\\u0000": 1}', JSON, 400, "NUL"),
        (b'{"task": "\\ud800"}', JSON, 400, "surrogate"),
        (b'{"\\udfff": 1}', JSON, 400, "surrogate"),
        (b'{"\\udfff": 1, "\\udfff": 2}', JSON, 400, "twice in one object"),
        (b"[" * 10_000 + b"]" * 10_000, JSON, 400, "nested"),
        (b'{"task": ' + b"[" * 20 + b"]" * 20 + b"}", JSON, 400, "nested"),
        (b'{"task": ' + b"9" * 5000 + b"}", JSON, 400, "digits"),
        (b'{"task": 1e999}', JSON, 400, "task: expected"),
        (b"[]", JSON, 400, "expected a JSON object"),
        (b"null", JSON, 400, "expected a JSON object; got null"),
        (b'"text"', JSON, 400, "expected a JSON object"),
        (b"x" * 70_000, JSON, 413, "65,536 bytes"),
        (GOOD, {}, 415, "expected 'application/json', got none"),
        (GOOD, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "x-www-form-urlencoded"),
        (GOOD, {"Content-Type": "application/json; charset=latin-1"}, 415, "charset"),
        (GOOD, JSON | {"Content-Encoding": "gzip"}, 415, "Content-Encoding"),
        (GOOD, {"Content-Type": 'application/json; charset="UTF-8"'}, 201, "_id"),
        (GOOD, {"Content-Type": "Application/vnd.acme+JSON"}, 201, "_id"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else "",
)
async def test_a_body_that_is_no_json_is_explained(database_url, content, headers, status, words):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        answer = await running.http.post(PATH, content=content, headers=headers | ann.headers)
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
        if status != 201:
            assert isinstance(answer.json()["error"], str)
            assert (await running.http.get(PATH)).json() == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["task: this is required", "hfModel: this is required", "providerModel: this is required"]),
        (single(task="Chat"), ["task: expected a task in lower case", "got 'Chat'"]),
        (single(task=7), ["task: expected", "got 7"]),
        (single(task=None), ["task: expected", "got null"]),
        (single("a/b/c"), ["hfModel: expected a model's id", "'a/b/c'"]),
        (single("nobody/nothing"), ["the hub has no public model 'nobody/nothing'"]),
        (single(task="text-to-image"), ["task: expected the model's pipeline tag", "'text-generation'"]),
        (single(providerModel=" x"), ["providerModel: expected your own id"]),
        (single(providerModel="x" * 513), ["providerModel: expected your own id"]),
        (single(status="Live"), ["status: expected 'staging' or 'live'; got 'Live'"]),
        (single(provider_model="x"), ["'provider_model': there is no such field; did you mean 'providerModel'?"]),
        (single(zzz=1), ["'zzz': there is no such field; known here: type, task, hfModel"]),
        (single(type="lora"), ["type: expected 'single-model'", "'tag-filter'", "got 'lora'"]),
        (single(type=["tag-filter"]), ["type: expected"]),
        ({"task": "text-to-image", "tags": FLUX_LORA, "providerModel": "x"}, ['needs "type": "tag-filter"']),
        (lora(tags=[]), ["tags: expected a list of 1 to 16 tags"]),
        (lora(tags=["a,b"]), ["tags[0]: expected", "got 'a,b'"]),
        (lora(tags="lora"), ["tags: expected a list"]),
        (lora(adapterType="dora"), ["adapterType: expected 'lora'"]),
        (lora(hfModel="a/b"), ["'hfModel': there is no such field"]),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_what_is_wrong_with_an_item_is_said_once_and_in_words(database_url, body, words):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        refused = await running.http.post(PATH, json=body, headers=ann.headers)
        assert refused.status_code == 400
        message = refused.json()["error"]
        assert all(word in message for word in words), message
        assert "pattern" not in message
        assert len(message.split("; ")) <= 6


async def test_a_strangers_body_is_not_even_read(database_url):
    async with serving(database_url) as running:
        (reader,) = await running.enrol("together", "read")
        for headers, status in (({}, 401), (reader.headers, 403)):
            assert (await running.http.post(PATH, content=b"{", headers=headers)).status_code == status


async def test_one_mapping_is_read_by_the_location_it_was_created_at(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        http = running.http
        for body in (single(), lora()):
            created = await http.post(PATH, json=body, headers=ann.headers)
            assert created.headers["Location"] == f"{PATH}/{created.json()['_id']}"
            found = await http.get(created.headers["Location"])
            assert found.headers["ETag"] == created.headers["ETag"]
            expected = {"type": "single-model"} | body | created.json() | {"status": "staging"}
            if "tags" in body:
                expected["tags"] = sorted(body["tags"])
            assert found.json() == expected
        assert (await http.get(f"{PATH}/{'0' * 24}")).status_code == 404
        assert (await http.get(f"{PATH}/nonsense")).status_code == 400
        await running.enrol("groq", "write")
        elsewhere = created.headers["Location"].replace("together", "groq")
        assert (await http.get(elsewhere)).status_code == 404


async def test_a_list_that_is_known_is_not_sent_again(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        http = running.http
        created = await http.post(PATH, json=single(), headers=ann.headers)
        for path in (PATH, f"{PATH}?status=staging", created.headers["Location"]):
            first = await http.get(path)
            etag = first.headers["ETag"]
            for known in (etag, f"W/{etag}", f'"other", {etag}', f" , {etag} ,", "*"):
                again = await http.get(path, headers={"If-None-Match": known})
                assert (again.status_code, again.content) == (304, b""), known
                assert again.headers["ETag"] == etag
            for other in ('"other"', etag.strip('"'), "nonsense", f"{etag} {etag}", "", '"', f"w/{etag}"):
                assert (await http.get(path, headers={"If-None-Match": other})).status_code == 200, other
        before = (await http.get(PATH)).headers["ETag"]
        await http.put(f"{created.headers['Location']}/status", json={"status": "live"}, headers=ann.headers)
        changed = await http.get(PATH, headers={"If-None-Match": before})
        assert changed.status_code == 200


async def test_a_tag_names_the_content_so_that_a_restart_never_makes_an_old_one_true(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        first = await running.http.post(PATH, json=lora(), headers=ann.headers)
        await running.http.post(PATH, json=single(), headers=ann.headers)
        etag = (await running.http.get(PATH)).headers["ETag"]
        await running.http.delete(first.headers["Location"], headers=ann.headers)
    async with serving(database_url) as running:
        assert (await running.http.get(PATH, headers={"If-None-Match": etag})).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_if_match_holds_back_what_was_decided_on_an_old_version(database_url, method):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        created = await running.http.post(PATH, json=single(), headers=ann.headers)
        etag = created.headers["ETag"]
        path = created.headers["Location"] + ("/status" if method == "PUT" else "")

        async def ask(if_match):
            return await running.http.request(
                method,
                path,
                json={"status": "live"} if method == "PUT" else None,
                headers=[*ann.headers.items(), *(("If-Match", each) for each in if_match)],
            )

        for other in ('"0"', f"W/{etag}", '"0", "1"'):
            refused = await ask([other])
            assert refused.status_code == 412, other
            assert etag in refused.json()["error"]
        for garbage in ("12", '"', "", ",", f"{etag} {etag}", "*, *", '"a" b', f"*, {etag}"):
            refused = await ask([garbage])
            assert refused.status_code == 400, garbage
            assert "If-Match: expected" in refused.json()["error"]
        assert (await running.http.get(created.headers["Location"])).headers["ETag"] == etag
        assert (await ask(['"0"', etag])).is_success, "a header may come in several lines"
        if method == "PUT":
            assert (await ask(["*"])).status_code == 200
        assert (
            await running.http.delete(f"{PATH}/{'0' * 24}", headers=ann.headers | {"If-Match": "*"})
        ).status_code == 404


async def test_status_filters_and_nothing_else_does(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        await running.http.post(PATH, json=single(status="live"), headers=ann.headers)
        await running.http.post(PATH, json=lora(), headers=ann.headers)
        tasks = {status: set((await running.http.get(PATH, params={"status": status})).json()) for status in STATUSES}
        assert tasks == {"live": {"conversational"}, "staging": {"text-to-image"}}
        refused = await running.http.get(PATH, params={"status": "LIVE"})
        assert refused.status_code == 400
        assert "status" in refused.json()["error"]
        assert (await running.http.get("/api/partners/nobody/models")).status_code == 404


async def test_what_is_sent_is_what_the_openapi_says(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        http = running.http
        described = (await http.get("/openapi.json")).json()
        validate(described)
        assert "HTTPValidationError" not in str(described), "FastAPI's own 422 is never sent"

        def fits(answer, path, method):
            operation = described["paths"][path][method]
            response = operation["responses"][str(answer.status_code)]
            schema = response["content"]["application/json"]["schema"] | {"components": described["components"]}
            Draft202012Validator(schema).validate(answer.json())

        whole, one = "/api/partners/{provider}/models", "/api/partners/{provider}/models/{mapping_id}"
        created = await http.post(PATH, json=single(), headers=ann.headers)
        fits(created, whole, "post")
        for body in (single(), {}, single(status=1)):
            fits(await http.post(PATH, json=body, headers=ann.headers), whole, "post")
        fits(await http.get(PATH), whole, "get")
        fits(await http.get(created.headers["Location"]), one, "get")
        for wanted in ([single(status="live"), lora()], [lora()], [{}, lora(), lora()]):
            for dry_run in (True, False):
                answer = await http.put(PATH, json={"models": wanted}, headers=ann.headers, params={"dryRun": dry_run})
                fits(answer, whole, "put")
        fits(
            await http.put(PATH, json={"models": []}, headers=ann.headers, params={"confirmRemovals": 7}), whole, "put"
        )
        for entry in (single(), lora(), single(status=None)):
            schema = described["paths"][whole]["post"]["requestBody"]["content"]["application/json"]["schema"]
            Draft202012Validator(schema).validate(entry)
