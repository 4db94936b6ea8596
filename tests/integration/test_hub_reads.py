"""The hub's read endpoints, on both databases."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from services import Member, Running, serving, single

from roadworthy.conformance.clients import install as installing
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.errors import BadRequest
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.records import Validation
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import organisations, validations
from roadworthy.mapping_api.store.organisations import KNOWN_TO_CLIENTS
from roadworthy.mapping_api.tables import audit

pytestmark = pytest.mark.anyio

R1 = "deepseek-ai/DeepSeek-R1"
LORA = "BagOu22/Lora_HKLPAZ"
BASE_TAG = "base_model:adapter:Wan-AI/Wan2.1-T2V-14B"


async def put(running: Running, provider: str, member: Member, **body: Any) -> str:
    """Registers a mapping, live unless the body says otherwise; gives its id."""
    sent = {"status": "live"} | body
    answer = await running.http.post(f"/api/partners/{provider}/models", json=sent, headers=member.headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["_id"])


async def publish(running: Running, mapping_id: str, *, active: bool = True, **figures: Any) -> bool:
    async with change(running.service.database, OPERATOR) as opened:
        return await validations.publish(opened, Validation(mapping_id, active, 1, **figures))


async def read(running: Running, path: str, **more: Any) -> Any:
    answer = await running.http.get(path, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def mapping_of(running: Running, model: str, **more: Any) -> dict[str, Any]:
    found = await read(running, f"/api/models/{model}?expand=inferenceProviderMapping", **more)
    mapping: dict[str, Any] = found["inferenceProviderMapping"]
    return mapping


@pytest.mark.parametrize(
    "query",
    [
        "expand=inference&expand=inferenceProviderMapping",
        "expand[]=inference&expand[]=inferenceProviderMapping",
        "expand%5B%5D=inference&expand%5B%5D=inferenceProviderMapping",
        "expand=inference,inferenceProviderMapping",
        "expand=inferenceProviderMapping&expand[]=inference,%20inference",
    ],
)
async def test_every_spelling_of_expand_is_understood(database_url, query):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        await put(running, "together", ann, **single())

        found = await read(running, f"/api/models/{R1}?{query}")

        assert found.keys() == {"_id", "id", "inference", "inferenceProviderMapping"}
        assert found["inference"] == "warm"
        assert await read(running, f"/api/models/{R1.replace('/', '%2F')}?{query}") == found


async def test_expand_shows_what_is_known_and_names_it_where_the_name_is_wrong(database_url):
    async with serving(database_url) as running:
        cold = await read(
            running, f"/api/models/{R1}?expand=inference,inferenceProviderMapping,tags,pipeline_tag,author,likes"
        )
        assert cold == {
            "_id": cold["_id"],
            "id": R1,
            "author": "deepseek-ai",
            "pipeline_tag": "text-generation",
            "tags": ["transformers", "safetensors", "conversational"],
            "inferenceProviderMapping": {},
        }
        plain = await read(running, f"/api/models/{R1}")
        assert plain.keys() == {"_id", "id", "pipeline_tag", "tags"}

        wrong = await running.http.get(f"/api/models/{R1}?expand=colour")
        assert wrong.status_code == 400
        assert "there is no 'colour'; known here: author, inference, inferenceProviderMapping" in wrong.json()["error"]


@pytest.mark.parametrize("model", ["org/nothing", "nothing", "", "a/b/c", "ü/X: y", "x" * 3000, "..%2f..%2fetc"])
async def test_an_unknown_model_is_told_in_the_hubs_own_way(database_url, model):
    async with serving(database_url) as running:
        answer = await running.http.get(f"/api/models/{model}?expand=inference")
        if model == "":
            answer = await running.http.get("/api/models/")
        assert answer.status_code == 404
        assert answer.headers["x-error-code"] == "RepoNotFound"
        assert "there is no model" in answer.json()["error"]
        assert answer.headers["x-error-message"].isascii()


async def test_a_model_without_a_slash_is_found(database_url, tmp_path: Path):
    file = tmp_path / "models.jsonl"
    file.write_text('{"id": "gpt2", "pipeline_tag": "text-generation"}\n')
    async with serving(database_url, FileCatalogue(file)) as running:
        assert (await read(running, "/api/models/gpt2?expand=author,pipeline_tag"))["pipeline_tag"] == "text-generation"


async def test_staging_shows_to_members_of_the_providers_own_organisation(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        (bob,) = await running.enrol("groq", "admin")
        await put(running, "together", ann, **single(status="staging"))

        assert await mapping_of(running, R1) == {}
        assert await mapping_of(running, R1, headers=bob.headers) == {}
        assert (await mapping_of(running, R1, headers=ann.headers))["together"]["status"] == "staging"
        asked = "/api/models?inference_provider=together"
        assert await read(running, asked) == []
        assert await read(running, asked, headers=bob.headers) == []
        assert [one["id"] for one in await read(running, asked, headers=ann.headers)] == [R1]
        assert (await read(running, "/v1/models", headers=ann.headers))["data"] == []
        assert await read(running, "/api/tasks") == {}

        wrong = await running.http.get(f"/api/models/{R1}", headers={"Authorization": "Bearer hf_wrong"})
        assert wrong.status_code == 401
        assert wrong.headers["x-error-message"] == "Invalid credentials in Authorization header"


async def test_what_failed_its_validation_is_not_listed_until_it_passes_again(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        id = await put(running, "together", ann, **single())
        for active, shown in ((False, []), (True, ["together"]), (False, [])):
            assert await publish(running, id, active=active)
            assert list(await mapping_of(running, R1)) == shown
            assert len(await read(running, "/api/models?inference=warm")) == len(shown)
            warm = await read(running, f"/api/models/{R1}?expand=inference")
            assert warm.get("inference") == ("warm" if shown else None)

        async with running.service.database.reading() as connection:
            told = [row.action for row in await connection.execute(audit.select().order_by(audit.c.id))]
        assert [action for action in told if action.endswith(("off", "back"))] == [
            "mapping.taken_off",
            "mapping.brought_back",
            "mapping.taken_off",
        ]
        await running.http.delete(f"/api/partners/together/models/{id}", headers=ann.headers)
        assert not await publish(running, id)


async def test_a_provider_with_two_mappings_of_a_model_shows_the_one_that_works(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        chat = await put(running, "together", ann, **single())
        await put(running, "together", ann, **single(task="text-generation"))

        assert (await mapping_of(running, R1))["together"]["task"] == "conversational"
        await publish(running, chat, active=False)
        assert (await mapping_of(running, R1))["together"]["task"] == "text-generation"


async def test_the_order_is_health_then_speed_and_names_new_to_the_clients_come_last(database_url):
    async with serving(database_url) as running:
        ids, members = {}, {}
        for provider in ("together", "groq", "novita", "brand-new", "deepinfra"):
            (members[provider],) = await running.enrol(provider, "write")
            ids[provider] = await put(running, provider, members[provider], **single())
        await publish(running, ids["together"], throughput_tokens_per_s=50.0)
        await publish(running, ids["groq"], throughput_tokens_per_s=400.0)
        await publish(running, ids["brand-new"], throughput_tokens_per_s=900.0)
        await publish(running, ids["deepinfra"], active=False, throughput_tokens_per_s=999.0)

        assert list(await mapping_of(running, R1)) == ["groq", "together", "novita", "brand-new"]

        async with change(running.service.database, OPERATOR) as opened:
            await opened.connection.execute(
                organisations.organisations.update()
                .where(organisations.organisations.c.name == "novita")
                .values(preferred_providers=["brand-new", "together"])
            )
        mine = await mapping_of(running, R1, headers=members["novita"].headers)
        assert list(mine) == ["together", "groq", "novita", "brand-new"]


async def test_a_tag_filter_is_resolved_into_an_entry_of_each_model(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("fal-ai", "write")
        body = {
            "type": "tag-filter",
            "task": "text-to-video",
            "tags": ["lora", BASE_TAG],
            "providerModel": "fal/wan-lora",
            "adapterType": "lora",
        }
        await put(running, "fal-ai", ann, **body)
        entry = {
            "status": "live",
            "providerId": "fal/wan-lora",
            "task": "text-to-video",
            "adapter": "lora",
            "adapterWeightsPath": "lora.safetensors",
        }

        shown = (await mapping_of(running, LORA))["fal-ai"]
        assert shown == entry | {"adapterWeightsPath": shown["adapterWeightsPath"]}
        assert shown["adapterWeightsPath"].endswith(".safetensors")
        (listed,) = await read(running, "/api/models?inference_provider=fal-ai&expand=inferenceProviderMapping")
        assert listed["id"] == LORA
        assert listed["inferenceProviderMapping"] == [{"provider": "fal-ai", "hfModelId": LORA} | shown]
        assert (await read(running, "/api/tasks"))["text-to-video"] == {
            "id": "text-to-video",
            "label": "Text-to-Video",
            "models": [{"id": LORA}],
            "widgetModels": [LORA],
        }


async def test_the_models_own_publisher_is_marked(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("deepseek-ai", "write")
        (bob,) = await running.enrol("together", "write")
        await put(running, "deepseek-ai", ann, **single())
        await put(running, "together", bob, **single())
        found = await mapping_of(running, R1)
        assert found["deepseek-ai"]["isModelAuthor"] is True
        assert "isModelAuthor" not in found["together"]


# Lists


def models_file(path: Path, count: int) -> FileCatalogue:
    lines = [
        {"id": f"org{n % 3}/m{n:04}", "pipeline_tag": ("text-to-image", "text-to-video")[n % 2], "tags": [f"t{n % 5}"]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return FileCatalogue(path)


async def pages(running: Running, url: str, between: Any = None) -> list[str]:
    """The ids of every page, by its Link."""
    ids: list[str] = []
    while url:
        answer = await running.http.get(url)
        assert answer.status_code == 200, answer.text
        ids += [one["id"] for one in answer.json()]
        link = answer.headers.get("link", "")
        assert not link or link.endswith('; rel="next"')
        url = link[1 : link.index(">")] if link else ""
        if between is not None and url:
            await between(ids)
    return ids


async def test_filters_choose_and_pages_follow_one_another(database_url, tmp_path: Path):
    async with serving(database_url, models_file(tmp_path / "m", 40)) as running:
        every = await pages(running, "/api/models?limit=7")
        assert every == sorted(every)
        assert len(every) == len(set(every)) == 40
        assert await pages(running, "/api/models?limit=99999999999999999999") == every
        assert await pages(running, "/api/models?limit=40") == every

        images = await pages(running, "/api/models?pipeline_tag=text-to-image&limit=3")
        assert images == [id for id in every if int(id[-4:]) % 2 == 0]
        assert await pages(running, "/api/models?filter=text-to-image&filter=t0") == [
            id for id in images if int(id[-4:]) % 5 == 0
        ]
        assert await pages(running, "/api/models?filter=text-to-image,t0&author=ORG1&full=true&sort=id") == [
            id for id in images if int(id[-4:]) % 5 == 0 and id.startswith("org1/")
        ]
        assert await pages(running, "/api/models?search=M003&limit=2") == [id for id in every if "m003" in id]
        assert await pages(running, "/api/models?inference_provider=all") == []


async def test_a_model_that_stays_comes_exactly_once_whatever_changes_meanwhile(database_url, tmp_path: Path):
    async with serving(database_url, models_file(tmp_path / "m", 30)) as running:
        (ann,) = await running.enrol("together", "write")
        ids = {}
        for n in range(0, 30, 2):
            body = {"task": "text-to-image", "hfModel": f"org{n % 3}/m{n:04}", "providerModel": f"x{n}"}
            ids[body["hfModel"]] = await put(running, "together", ann, **body)
        gone: list[str] = []

        async def shuffle(seen: list[str]) -> None:
            # The last one seen goes, by whose id the cursor is made, and so does one still to come.
            waiting = sorted(set(ids) - set(seen) - set(gone))
            for model in (seen[-1], *waiting[-1:]):
                if model not in gone:
                    path = f"/api/partners/together/models/{ids[model]}"
                    assert (await running.http.delete(path, headers=ann.headers)).status_code == 204
                    gone.append(model)

        seen = await pages(running, "/api/models?inference_provider=together&limit=2", shuffle)

        assert len(seen) == len(set(seen))
        assert set(ids) - set(gone) <= set(seen)
        assert gone


async def test_the_link_is_where_the_public_reaches_the_service(database_url, tmp_path: Path):
    catalogue = models_file(tmp_path / "m", 3)
    async with serving(database_url, catalogue) as running:
        link = (await running.http.get("/api/models?limit=1", headers={"Host": "hub.example:8443"})).headers["link"]
        assert link.startswith("<http://hub.example:8443/api/models?limit=1&cursor=")
        odd = (await running.http.get("/api/models?limit=1&author=&search=m0", headers={"Host": "h>; x"})).headers[
            "link"
        ]
        assert odd.count(">") == 1
    behind = ServiceSettings(public_url="https://example.org/hub/")
    async with serving(database_url, catalogue, behind) as running:
        link = (await running.http.get("/api/models?limit=1&search=m")).headers["link"]
        assert link.startswith("<https://example.org/hub/api/models?limit=1&search=m&cursor=")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("inference_provider=togehter", "there is no provider 'togehter'"),
        ("limit=0", "limit: expected a whole number from 1"),
        ("limit=-1", "limit: expected"),
        ("limit=ten", "limit: expected"),
        ("cursor=abc", "cursor: this is none of ours"),
        ("cursor=%C3%A9", "cursor: this is none of ours"),
        ("sort=downloads", "sort: expected 'id'"),
        ("inference=cold", "inference: expected 'warm'"),
        ("gated=true", "gated: models cannot be filtered"),
        ("piepline_tag=x", "piepline_tag: models cannot be filtered"),
        ("expand=colour", "there is no 'colour'"),
        ("full=perhaps", "full: expected true or false"),
    ],
)
async def test_what_a_list_cannot_answer_is_refused_in_words(database_url, query, says):
    async with serving(database_url) as running:
        answer = await running.http.get(f"/api/models?{query}")
        assert answer.status_code == 400
        assert says in answer.json()["error"]


async def test_a_provider_that_the_clients_know_may_serve_nothing_here(database_url):
    async with serving(database_url) as running:
        assert await read(running, "/api/models?inference_provider=groq,scaleway") == []


async def test_tasks_put_first_what_hf_inference_serves_then_the_most_served(database_url, tmp_path: Path):
    async with serving(database_url, models_file(tmp_path / "m", 60)) as running:
        (ann,) = await running.enrol("together", "write")
        (bob,) = await running.enrol("hf-inference", "write")
        (eve,) = await running.enrol("groq", "write")

        async def map_(provider: str, member: Member, n: int) -> None:
            model = f"org{n % 3}/m{n:04}"
            await put(running, provider, member, task="text-to-image", hfModel=model, providerModel="x")

        for n in range(0, 40, 2):
            await map_("together", ann, n)
        await map_("hf-inference", bob, 58)
        await map_("groq", eve, 30)
        told = (await read(running, "/api/tasks"))["text-to-image"]

        assert told["widgetModels"][:3] == ["org1/m0058", "org0/m0030", "org0/m0000"]
        assert len(told["widgetModels"]) == len(told["models"]) == 10


# Names


def test_the_names_known_to_the_clients_are_those_that_both_register():
    providers = pytest.importorskip("huggingface_hub.inference._providers", reason="pip install 'roadworthy[clients]'")
    node, fault = installing.node()
    packages = installing.installed()
    if fault is not None or packages is None:
        pytest.skip(fault or f"javascript: {installing.ADVICE}")
    asked = "import('@huggingface/inference').then(m => console.log(JSON.stringify(Object.keys(m.PROVIDERS))))"
    done = subprocess.run([node, "-e", asked], cwd=packages, capture_output=True, text=True, check=True, timeout=60)

    assert set(providers.PROVIDERS) & set(json.loads(done.stdout)) == KNOWN_TO_CLIENTS


async def test_no_provider_is_called_as_a_policy_is(database_url):
    async with serving(database_url) as running:
        for name in ("fastest", "cheapest", "preferred", "auto", "all"):
            with pytest.raises(BadRequest, match="means something else"):
                await running.enrol(name)
