"""The catalogue in OpenAI's form, and the suffixes that choose a provider, on both databases."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from services import Member, Running, serving, single

from roadworthy.mapping_api.api.catalogue_v1 import modalities, usd
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.records import ModelFacts, Validation
from roadworthy.mapping_api.store import validations
from roadworthy.mapping_api.tables import organisations

pytestmark = pytest.mark.anyio

R1 = "deepseek-ai/DeepSeek-R1"
FLUX = "black-forest-labs/FLUX.1-dev"
USD_NANO = 1_000_000_000
FIGURES: dict[str, dict[str, Any]] = {
    "together": {"throughput_tokens_per_s": 50.0, "time_to_first_token_s": 0.25},
    "groq": {
        "throughput_tokens_per_s": 400.0,
        "time_to_first_token_s": 0.1234567,
        "context_length_tokens": 131072,
        "input_price_nano_usd_per_mtok": 100_000_000,
        "output_price_nano_usd_per_mtok": 3 * USD_NANO,
        "supports_tools": True,
        "supports_structured_output": False,
    },
    "novita": {
        "throughput_tokens_per_s": 80.0,
        "input_price_nano_usd_per_mtok": 0,
        "output_price_nano_usd_per_mtok": 0,
    },
}


async def stocked(running: Running) -> dict[str, Member]:
    """Three providers of one model with figures, one that fails, one without a verdict."""
    members = {}
    for provider in ("together", "groq", "novita", "deepseek-ai", "scaleway"):
        (members[provider],) = await running.enrol(provider, "write")
        path = f"/api/partners/{provider}/models"
        answer = await running.http.post(path, json=single(status="live"), headers=members[provider].headers)
        async with change(running.service.database, OPERATOR) as opened:
            if provider in FIGURES:
                verdict = Validation(answer.json()["_id"], True, 1, **FIGURES[provider])
                await validations.publish(opened, verdict)
            elif provider == "deepseek-ai":
                verdict = Validation(answer.json()["_id"], False, 1, throughput_tokens_per_s=999.0)
                await validations.publish(opened, verdict)
    return members


async def read(running: Running, path: str, **more: Any) -> Any:
    answer = await running.http.get(path, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(model: dict[str, Any]) -> list[str]:
    return [one["provider"] for one in model["providers"]]


async def test_a_model_shows_what_is_known_of_each_provider_and_no_more(database_url):
    async with serving(database_url) as running:
        await stocked(running)
        found = await read(running, f"/v1/models/{R1}")

        assert {name: found[name] for name in ("id", "object", "owned_by", "architecture")} == {
            "id": R1,
            "object": "model",
            "owned_by": "deepseek-ai",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        }
        assert found["created"] > 1_700_000_000
        assert names(found) == ["groq", "novita", "together", "scaleway", "deepseek-ai"]
        groq, novita, together, scaleway, own = found["providers"]
        assert groq == {
            "provider": "groq",
            "status": "live",
            "context_length": 131072,
            "pricing": {"input": 0.1, "output": 3},
            "is_free": False,
            "supports_tools": True,
            "supports_structured_output": False,
            "first_token_latency_ms": 123.457,
            "throughput": 400.0,
            "is_model_author": False,
        }
        assert novita["is_free"] is True
        assert novita["pricing"] == {"input": 0, "output": 0}
        assert together.keys() == {"provider", "status", "first_token_latency_ms", "throughput", "is_model_author"}
        assert scaleway == {"provider": "scaleway", "status": "live", "is_model_author": False}
        assert own["status"] == "error"
        assert own["is_model_author"] is True

        listed = await read(running, "/v1/models")
        assert listed == {"object": "list", "data": [found]}


@pytest.mark.parametrize(
    ("suffix", "chosen"),
    [
        ("fastest", "groq"),
        ("cheapest", "novita"),
        ("preferred", "groq"),
        ("preferred?preferred=nobody,together,groq", "together"),
        ("preferred?preferred=deepseek-ai,%20novita", "novita"),
        ("scaleway", "scaleway"),
        ("deepseek-ai", "deepseek-ai"),
    ],
)
async def test_a_suffix_chooses_one_provider(database_url, suffix, chosen):
    async with serving(database_url) as running:
        await stocked(running)
        found = await read(running, f"/v1/models/{R1}:{suffix}")
        assert names(found) == [chosen]
        assert found["id"] == R1
        assert found["created"] == (await read(running, f"/v1/models/{R1}"))["created"]


async def test_preferred_follows_the_order_of_the_callers_organisation(database_url):
    async with serving(database_url) as running:
        members = await stocked(running)
        async with change(running.service.database, OPERATOR) as opened:
            await opened.connection.execute(
                organisations.update()
                .where(organisations.c.name == "novita")
                .values(preferred_providers=["deepseek-ai", "together"])
            )
        path = f"/v1/models/{R1}:preferred"
        assert names(await read(running, path, headers=members["novita"].headers)) == ["together"]
        assert names(await read(running, path, headers=members["groq"].headers)) == ["groq"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        (f"{R1}:nobody", 404, "has no provider 'nobody'; after the colon goes one of its providers (deepseek-ai, groq"),
        (f"{R1}:", 404, "or a policy (fastest, cheapest, preferred)"),
        (f"{R1}:groq:fastest", 404, "has no provider 'groq:fastest'"),
        ("org/nothing", 404, "no provider serves 'org/nothing'"),
        ("org/nothing:fastest", 404, "no provider serves 'org/nothing'"),
        (f"{FLUX}:fastest", 404, f"no provider serves '{FLUX}'"),
        (f"{R1}:fastest?preferred=groq", 400, "this goes with the suffix ':preferred'"),
        (f"{R1}?preferred=groq", 400, "this goes with the suffix ':preferred'"),
        ("?task=Not%20a%20task", 400, "task: expected a task"),
    ],
)
async def test_what_cannot_be_chosen_is_told_in_words(database_url, path, status, says):
    async with serving(database_url) as running:
        await stocked(running)
        answer = await running.http.get(f"/v1/models/{path}" if not path.startswith("?") else f"/v1/models{path}")
        assert answer.status_code == status
        assert says in answer.json()["error"]


async def test_no_policy_chooses_a_provider_that_fails(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        made = await running.http.post("/api/partners/together/models", json=single(status="live"), headers=ann.headers)
        async with change(running.service.database, OPERATOR) as opened:
            await validations.publish(opened, Validation(made.json()["_id"], False, 1))

        for policy in ("fastest", "cheapest", "preferred"):
            answer = await running.http.get(f"/v1/models/{R1}:{policy}")
            assert answer.status_code == 404
            assert f"name one to take it all the same: {R1}:together" in answer.json()["error"]
        (provider,) = (await read(running, f"/v1/models/{R1}:together"))["providers"]
        assert provider["status"] == "error"


async def test_the_list_is_of_chat_models_unless_another_task_is_asked_for(database_url, tmp_path: Path):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        for body in (single(FLUX, "text-to-image"), single(), single(task="text-generation")):
            sent = body | {"status": "live"}
            made = await running.http.post("/api/partners/together/models", json=sent, headers=ann.headers)
            assert made.status_code == 201, made.text

        async def ids(query: str) -> list[str]:
            return [model["id"] for model in (await read(running, f"/v1/models{query}"))["data"]]

        assert await ids("") == [R1]
        assert await ids("?task=text-to-image") == [FLUX]
        assert await ids("?task=all") == [FLUX, R1]
        assert await ids("?task=fill-mask") == []
        assert (await read(running, f"/v1/models/{FLUX}"))["architecture"]["output_modalities"] == ["image"]

        gone = await running.http.get("/api/partners/together/models")
        id = gone.json()["text-to-image"][FLUX]["_id"]
        await running.http.delete(f"/api/partners/together/models/{id}", headers=ann.headers)
        assert await ids("?task=all") == [R1]
        assert await ids("?task=text-to-image") == []


async def test_a_long_list_follows_every_change(database_url, tmp_path: Path):
    file = tmp_path / "models.jsonl"
    lines = [{"id": f"org/m{n:03}", "pipeline_tag": "text-to-image", "tags": []} for n in range(250)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    async with serving(database_url, FileCatalogue(file)) as running:
        (ann,) = await running.enrol("together", "write")
        for n in range(0, 250, 2):
            body = {"task": "text-to-image", "hfModel": f"org/m{n:03}", "providerModel": "x", "status": "live"}
            made = await running.http.post("/api/partners/together/models", json=body, headers=ann.headers)
        listed = (await read(running, "/v1/models?task=text-to-image"))["data"]
        assert [model["id"] for model in listed] == [f"org/m{n:03}" for n in range(0, 250, 2)]

        async with change(running.service.database, OPERATOR) as opened:
            await validations.publish(opened, Validation(made.json()["_id"], False, 1))
        after = (await read(running, "/v1/models?task=text-to-image"))["data"]
        assert after[:-1] == listed[:-1]
        assert after[-1]["providers"][0]["status"] == "error"


@given(st.integers(0, 2**63 - 1))
def test_a_price_is_told_to_the_last_digit(nano_usd):
    text = usd(nano_usd)
    assert Decimal(text) * USD_NANO == nano_usd
    assert json.loads(text) == nano_usd / USD_NANO
    assert "e" not in text.lower()


@pytest.mark.parametrize(("nano_usd", "text"), [(0, "0"), (100_000_000, "0.1"), (1, "0.000000001"), (30 * 10**9, "30")])
def test_a_price_is_told_without_idle_zeros(nano_usd, text):
    assert usd(nano_usd) == text


@pytest.mark.parametrize(
    ("task", "given", "made"),
    [
        ("text-generation", ["text"], ["text"]),
        ("image-text-to-text", ["text", "image"], ["text"]),
        ("text-to-image", ["text"], ["image"]),
        ("text-to-speech", ["text"], ["audio"]),
        ("image-text-to-video", ["text", "image"], ["video"]),
        ("automatic-speech-recognition", ["audio"], ["text"]),
        ("feature-extraction", ["text"], ["embeddings"]),
        (None, ["text"], ["text"]),
    ],
)
def test_modalities_follow_the_pipeline_tag(task, given, made):
    assert modalities(ModelFacts("a/b", task)) == (given, made)
