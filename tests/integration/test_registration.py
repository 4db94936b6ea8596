"""The rules of registration, a hub that cannot be asked, and facts that are kept up to date."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from loopback import serving as listening
from services import FLUX_LORA, serving, single

from roadworthy.database import Database
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.model_catalogue.hub import HubCatalogue
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import models
from roadworthy.mapping_api.tables import audit, events, mappings, revisions
from roadworthy.mapping_api.tables import models as model_table
from roadworthy.mapping_api.upkeep import CONFIRM_GONE_S, MATCHES_AGAIN, STOPPED_MATCHING

pytestmark = pytest.mark.anyio

PATH = "/api/partners/together/models"
HOURS_6 = 21_600


class Fickle:
    """A hub in memory that changes, and can be down."""

    def __init__(self, *facts: ModelFacts) -> None:
        self.models = {one.id: one for one in facts}
        self.down = False
        self.asked: list[str] = []

    async def get(self, model_id):
        self.asked.append(model_id)
        self._check()
        return self.models.get(model_id)

    async def tagged(self, tags, at_most=None):
        self.asked.append(",".join(sorted(tags)))
        self._check()
        return [facts for facts in self.models.values() if set(tags) <= set(facts.tags)][:at_most]

    async def everything(self):
        return None

    async def close(self):
        pass

    def _check(self):
        if self.down:
            raise CatalogueUnavailable("the hub is down; nothing was done", 17)


def lora(name: str, task: str | None = "text-to-image") -> ModelFacts:
    return ModelFacts(f"a/{name}", task, tuple(FLUX_LORA), f"{name}.safetensors")


def tag_filter(task: str = "text-to-image", tags: list[str] = FLUX_LORA, **more):
    body = {"type": "tag-filter", "task": task, "tags": tags, "providerModel": "flux-lora", "adapterType": "lora"}
    return body | more


CHAT = ModelFacts("a/chat", "text-generation", ("conversational",))
VISION = ModelFacts("a/vision", "image-text-to-text", ("conversational",))
PLAIN = ModelFacts("a/plain", "text-generation", ())
BARE = ModelFacts("a/bare", None, ("conversational",))
RENAMED = ModelFacts("a/new-name", "text-generation", ("conversational",))


def hub() -> Fickle:
    fickle = Fickle(CHAT, VISION, PLAIN, BARE)
    fickle.models["a/old-name"] = RENAMED
    return fickle


@pytest.mark.parametrize(
    ("model", "task", "status"),
    [
        ("a/chat", "conversational", 201),
        ("a/chat", "text-generation", 201),
        ("a/vision", "conversational", 201),
        ("a/vision", "image-text-to-text", 201),
        ("a/vision", "text-generation", 400),
        ("a/plain", "text-generation", 201),
        ("a/plain", "conversational", 400),
        ("a/bare", "conversational", 400),
        ("a/bare", "text-generation", 400),
        ("a/chat", "text-to-image", 400),
        ("a/none", "text-generation", 400),
        ("a/old-name", "conversational", 400),
    ],
)
async def test_a_model_is_mapped_for_what_it_does(database_url, model, task, status):
    async with serving(database_url, hub()) as running:
        (ann,) = await running.enrol("together", "write")
        answer = await running.http.post(PATH, json=single(model, task), headers=ann.headers)
        assert answer.status_code == status, answer.text
        listed = (await running.http.get(PATH)).json()
        assert listed == ({} if status == 400 else {task: {model: listed.get(task, {}).get(model)}})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (single("a/vision", "text-generation"), "register it for 'image-text-to-text' or 'conversational'"),
        (single("a/bare", "conversational"), "a/bare has no pipeline tag and is tagged so"),
        (single("a/none", "conversational"), "the hub has no public model 'a/none'"),
        (single("a/old-name", "conversational"), "the hub calls 'a/old-name' 'a/new-name' now; write that"),
        (single("a/chat", "conversation"), "did you mean 'conversational' or"),
        (single("a/chat", "text-to-images"), "'text-to-image'"),
        (single("a/chat", "zzz"), "one of any-to-any, audio-classification"),
        (tag_filter("text-to-pictures"), "is not a task of the hub; did you mean 'text-to-"),
        (tag_filter(tags=FLUX_LORA[1:]), "Add 'lora'"),
        (tag_filter(tags=[]), "tags: "),
        (tag_filter(adapterType="dora"), "adapterType"),
        (tag_filter(tags=["lora", " "]), "tags"),
    ],
)
async def test_what_is_wrong_is_said_and_what_to_do(database_url, body, says):
    async with serving(database_url, hub()) as running:
        (ann,) = await running.enrol("together", "write")
        answer = await running.http.post(PATH, json=body, headers=ann.headers)
        assert answer.status_code == 400
        assert says in answer.json()["error"]


async def everything_written(database: Database) -> list[list[tuple]]:
    async with database.reading() as connection:
        tables = (mappings, audit, events, model_table, revisions)
        return [[tuple(row) for row in await connection.execute(sa.select(table))] for table in tables]


@pytest.mark.parametrize("body", [single("a/chat"), tag_filter()], ids=["single model", "tag filter"])
async def test_nothing_is_written_while_the_hub_cannot_be_asked(database_url, body):
    async def gone(reader, _writer):
        await reader.read()

    async with listening(gone) as port:
        real = HubCatalogue(f"http://127.0.0.1:{port}", timeout_s=0.2)
        async with serving(database_url, real) as running:
            (ann,) = await running.enrol("together", "write")
            before = await everything_written(running.service.database)
            for _ in range(5):
                answer = await running.http.post(PATH, json=body, headers=ann.headers)
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) >= 1
                assert "nothing was done" in answer.json()["error"]
            assert (await running.http.get("/api/models/a/chat")).status_code == 503
            assert await everything_written(running.service.database) == before


async def test_an_old_answer_serves_readers_and_not_registration(database_url):
    class Remembering(Fickle):
        async def get(self, model_id):
            self._check()
            return CHAT

        def _check(self):
            raise CatalogueUnavailable("the hub is down; nothing was done", 17, CHAT)

    async with serving(database_url, Remembering()) as running:
        (ann,) = await running.enrol("together", "write")
        assert (await running.http.get("/api/models/a/chat")).json()["pipeline_tag"] == "text-generation"
        answer = await running.http.post(PATH, json=single("a/chat"), headers=ann.headers)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "17")


async def covered(running, model: str) -> dict[str, object]:
    answer = await running.http.get(f"/api/models/{model}?expand[]=inferenceProviderMapping")
    return answer.json().get("inferenceProviderMapping", {}) if answer.status_code == 200 else answer.status_code


async def test_a_tag_filter_covers_the_models_that_do_its_task_alone(database_url):
    catalogue = Fickle(lora("image"), lora("video", "text-to-video"), lora("bare", None))
    async with serving(database_url, catalogue) as running:
        (ann,) = await running.enrol("together", "write")
        body = tag_filter(tags=[*FLUX_LORA, *FLUX_LORA], status="live")
        assert (await running.http.post(PATH, json=body, headers=ann.headers)).status_code == 201
        listed = (await running.http.get(PATH)).json()
        (source,) = listed["text-to-image"]
        assert source == "tag-filter=base_model:adapter:black-forest-labs/FLUX.1-dev,lora"
        entry = {"status": "live", "providerId": "flux-lora", "task": "text-to-image"}
        assert await covered(running, "a/image") == {
            "together": entry | {"adapter": "lora", "adapterWeightsPath": "image.safetensors"}
        }
        assert await covered(running, "a/video") == {}
        assert await covered(running, "a/bare") == {}


async def test_the_service_starts_while_the_hub_is_down(database_url):
    catalogue = Fickle(CHAT)
    catalogue.down = True
    async with serving(database_url, catalogue) as running:
        assert (await running.http.get("/api/models/a/chat")).status_code == 503
        catalogue.down = False
        assert (await running.http.get("/api/models/a/chat")).json()["id"] == "a/chat"
        assert (await running.http.get("/api/models/a/none")).status_code == 404

    class Unlistable(Fickle):
        async def everything(self):
            raise CatalogueUnavailable("down")

    async with serving(database_url, Unlistable(CHAT)) as running:
        assert (await running.http.get("/api/models/a/chat")).status_code == 200


async def audited(running) -> list[tuple[str, str, object]]:
    async with running.service.database.reading() as connection:
        rows = await connection.execute(sa.select(audit).where(audit.c.actor == "catalogue").order_by(audit.c.id))
        return [(row.action, row.provider, (row.after or {}).get("pipeline_tag")) for row in rows]


async def test_a_model_that_changes_or_goes_is_no_longer_offered_and_comes_back(database_url):
    catalogue = Fickle(CHAT, PLAIN)
    async with serving(database_url, catalogue) as running:
        (ann,) = await running.enrol("together", "write")
        created = await running.http.post(PATH, json=single("a/chat", status="live"), headers=ann.headers)
        listed = (await running.http.get(PATH)).json()
        upkeep, now_s = running.service.upkeep, 1_800_000_000.0
        assert list(await covered(running, "a/chat")) == ["together"]
        catalogue.asked.clear()
        await upkeep.look(now_s)
        assert catalogue.asked == []  # it was asked for at registration

        catalogue.models["a/chat"] = replace(CHAT, tags=())
        await upkeep.look(now_s + HOURS_6)
        assert catalogue.asked == ["a/chat"]
        assert await covered(running, "a/chat") == {}
        assert (await running.http.get(PATH)).json() == listed

        catalogue.models["a/chat"] = CHAT
        await upkeep.look(now_s + 2 * HOURS_6)
        assert list(await covered(running, "a/chat")) == ["together"]

        del catalogue.models["a/chat"]
        await upkeep.look(now_s + 3 * HOURS_6)
        assert list(await covered(running, "a/chat")) == ["together"]  # one miss may be a lapse of the hub
        await upkeep.look(now_s + 3 * HOURS_6 + CONFIRM_GONE_S)
        assert await covered(running, "a/chat") == 404
        assert (await running.http.get(PATH)).json() == listed
        assert await audited(running) == [
            (STOPPED_MATCHING, "together", "text-generation"),
            (MATCHES_AGAIN, "together", "text-generation"),
            (STOPPED_MATCHING, "together", None),
        ]

        catalogue.models["a/chat"] = CHAT
        await upkeep.look(now_s + 4 * HOURS_6)
        assert list(await covered(running, "a/chat")) == ["together"]
        assert created.json()["_id"] == listed["conversational"]["a/chat"]["_id"]


async def test_new_adapters_appear_under_a_filter_and_those_that_go_disappear(database_url):
    catalogue = Fickle(*[lora(f"l{number}") for number in range(150)])
    async with serving(database_url, catalogue) as running:
        (ann,) = await running.enrol("together", "write")
        await running.http.post(PATH, json=tag_filter(status="live"), headers=ann.headers)
        view, upkeep, now_s = running.service.view, running.service.upkeep, 1_800_000_000.0
        await view.fresh()
        assert len(view.models) == 100
        await upkeep.look(now_s)
        assert len(view.models) == 150
        catalogue.asked.clear()
        await upkeep.look(now_s + 30)
        assert catalogue.asked == []

        catalogue.models["a/fresh"] = lora("fresh")
        catalogue.models["a/l1"] = replace(lora("l1"), tags=("lora",))
        catalogue.models["a/l2"] = lora("l2", "text-to-video")
        del catalogue.models["a/l0"]
        await upkeep.look(now_s + HOURS_6)
        assert list(await covered(running, "a/fresh")) == ["together"]
        assert await covered(running, "a/l1") == {}
        assert await covered(running, "a/l2") == {}
        await upkeep.look(now_s + HOURS_6 + CONFIRM_GONE_S)
        assert await covered(running, "a/l0") == 404
        assert await audited(running) == []


async def test_what_could_not_be_asked_stays_due_and_takes_nothing_off(database_url):
    catalogue = Fickle(CHAT, PLAIN, VISION)
    async with serving(database_url, catalogue) as running:
        (ann,) = await running.enrol("together", "write")
        for model, task in (("a/chat", "conversational"), ("a/plain", "text-generation")):
            await running.http.post(PATH, json=single(model, task, status="live"), headers=ann.headers)
        upkeep, now_s = running.service.upkeep, 1_800_000_000.0
        await upkeep.look(now_s)
        catalogue.down = True
        with pytest.raises(CatalogueUnavailable):
            await upkeep.look(now_s + HOURS_6)
        assert list(await covered(running, "a/chat")) == ["together"]
        catalogue.down = False
        catalogue.asked.clear()
        await upkeep.look(now_s + HOURS_6 + 30)
        assert sorted(catalogue.asked) == ["a/chat", "a/plain"]


async def test_questions_are_spread_over_the_period(database_url):
    facts = [replace(CHAT, id=f"a/chat-{number}") for number in range(200)]
    catalogue = Fickle(*facts)
    async with serving(database_url, catalogue) as running:
        (ann,) = await running.enrol("together", "write")
        for one in facts:
            await running.http.post(PATH, json=single(one.id), headers=ann.headers)
        upkeep, now_s = running.service.upkeep, 1_800_000_000.0
        await upkeep.look(now_s)
        counts = []
        for tenth in range(1, 11):
            catalogue.asked.clear()
            await upkeep.look(now_s + tenth * HOURS_6 / 10)
            counts.append(len(catalogue.asked))
        assert sum(counts) == 200
        assert max(counts) < 45


async def test_two_services_on_one_database_write_a_change_once(database_url):
    first, second = Fickle(CHAT), Fickle(CHAT)
    async with serving(database_url, first) as one, serving(database_url, second) as two:
        (ann,) = await one.enrol("together", "write")
        await one.http.post(PATH, json=single("a/chat", status="live"), headers=ann.headers)
        now_s = 1_800_000_000.0
        for running in (one, two):
            await running.service.upkeep.look(now_s)
        first.models["a/chat"] = second.models["a/chat"] = PLAIN
        await asyncio.gather(*[running.service.upkeep.look(now_s + HOURS_6) for running in (one, two)])
        assert len(await audited(one)) == 1
        assert await covered(two, "a/chat") == {}


async def test_a_changed_file_is_taken_over_and_a_bad_one_is_not(database_url, tmp_path, caplog):
    path = tmp_path / "models.jsonl"

    def write(*lines, at):
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        os.utime(path, (at, at))

    chat = {"id": "a/chat", "pipeline_tag": "text-generation", "tags": ["conversational"]}
    write(chat, {"id": "a/plain", "pipeline_tag": "text-generation"}, at=1)
    async with serving(database_url, FileCatalogue(path)) as running:
        (ann,) = await running.enrol("together", "write")
        await running.http.post(PATH, json=single("a/chat", status="live"), headers=ann.headers)
        upkeep = running.service.upkeep
        write(chat, "{broken", at=2)
        await upkeep.look()
        assert "line 2: expected one JSON object a line" in caplog.text
        assert list(await covered(running, "a/chat")) == ["together"]
        write({"id": "a/new", "pipeline_tag": "translation"}, at=3)
        upkeep.wake()
        async with asyncio.timeout(10):
            while "a/new" not in running.service.view.models:  # noqa: ASYNC110  the work is in the background
                await asyncio.sleep(0.02)
        assert await covered(running, "a/chat") == 404
        assert (await running.http.get("/api/models/a/new")).json()["pipeline_tag"] == "translation"
        assert await audited(running) == [(STOPPED_MATCHING, "together", None)]


async def test_facts_said_again_take_no_revision(database_url):
    async with serving(database_url, FileCatalogue()) as running:
        revision = running.service.view.revision
        await running.service.upkeep.take_over()
        assert (await running.service.view.fresh()).revision == revision
    async with serving(database_url, FileCatalogue()) as running:
        assert running.service.view.revision == revision


async def test_the_service_serves_two_hundred_thousand_models(database_url, tmp_path, capsys):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for number in range(200_000):
            base = f"base_model:adapter:org/base-{number % 500}"
            facts = {"id": f"org-{number % 9999}/lora-{number}", "tags": ["diffusers", "lora", base]}
            file.write(json.dumps(facts | {"pipeline_tag": "text-to-image", "adapter_weights_path": "l.safetensors"}))
            file.write("\n")
    catalogue = FileCatalogue(path)
    costs: dict[str, float] = {}
    start_s = time.monotonic()
    async with serving(database_url, catalogue) as running:
        costs["first_start_s"] = round(time.monotonic() - start_s, 1)
        (ann,) = await running.enrol("together", "write")
        body = tag_filter(tags=["lora", "base_model:adapter:org/base-7"], status="live")
        assert (await running.http.post(PATH, json=body, headers=ann.headers)).status_code == 201
        view = running.service.view
        assert len(view.models) == 200_000
        assert len(view.tagged(("lora", "base_model:adapter:org/base-7"))) == 400
        assert list(await covered(running, "org-7/lora-7")) == ["together"]
        assert await covered(running, "org-8/lora-8") == {}

        # A change costs what changed, not what there is.
        start_s = time.monotonic()
        for number in range(20):
            async with change(running.service.database, OPERATOR) as opened:
                await models.keep(opened, [ModelFacts(f"new/{number}", "translation")])
            await view.fresh()
        costs["one_change_s"] = round((time.monotonic() - start_s) / 20, 4)
        assert (time.monotonic() - start_s) / 20 < 0.5

        start_s = time.monotonic()
        await running.service.upkeep.look()
        costs["look_s"] = round(time.monotonic() - start_s, 2)
        assert time.monotonic() - start_s < 10
    start_s = time.monotonic()
    async with serving(database_url, catalogue) as running:
        costs["second_start_s"] = round(time.monotonic() - start_s, 1)
        assert len(running.service.view.models) == 200_020
    costs["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with capsys.disabled():
        print(f"\n200,000 models on {database_url.partition(':')[0]}: {costs}")  # noqa: T201  the costs are what it is for


async def test_settings_name_the_hub(monkeypatch):
    monkeypatch.setenv("ROADWORTHY_HUB_TOKEN", "hf_secret")
    monkeypatch.setenv("ROADWORTHY_MODEL_CATALOGUE", "hub")
    settings = ServiceSettings()
    assert "hf_secret" not in repr(settings)
    assert settings.hub_token is not None
    assert settings.hub_token.get_secret_value() == "hf_secret"
    assert settings.catalogue_file() is None
