"""A whole mapping in one request: planned, guarded, done at once or not at all, on both databases."""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy as sa
from services import FLUX_LORA, serving, single

from roadworthy.database import Database
from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.tables import audit, deliveries, events, mappings, webhooks

pytestmark = pytest.mark.anyio

PATH = "/api/partners/together/models"


class Models:
    """A catalogue of models named acme/0, acme/1..., that counts what it is asked."""

    def __init__(self, count):
        self.known = {f"acme/{n}": ModelFacts(f"acme/{n}", "text-to-image") for n in range(count)}
        self.asked = []
        self.at_once = self.most_at_once = 0
        self.delay_s = 0.0
        self.down = False
        self.before_answer = None

    async def get(self, model_id):
        self.asked.append(model_id)
        if self.before_answer is not None:
            await self.before_answer(model_id)
        if self.down:
            raise CatalogueUnavailable("the hub does not answer now; nothing was done")
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(self.delay_s)
        self.at_once -= 1
        return self.known.get(model_id)

    async def tagged(self, tags, at_most=None):
        return []

    async def everything(self):
        return None

    async def close(self):
        pass


def items(*numbers, **more):
    return [single(f"acme/{n}", "text-to-image", **more) for n in numbers]


async def put(running, member, models, headers=(), **params):
    return await running.http.put(PATH, json={"models": models}, headers=member.headers | dict(headers), params=params)


async def snapshot(running):
    return {
        source: entry for sources in (await running.http.get(PATH)).json().values() for source, entry in sources.items()
    }


async def count(url, table):
    database = Database(url)
    try:
        async with database.reading() as connection:
            return (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
    finally:
        await database.close()


async def test_it_adds_changes_removes_and_leaves_the_rest_alone(database_url):
    async with serving(database_url, Models(10)) as running:
        (ann,) = await running.enrol("together", "write")
        first = await put(running, ann, items(0, 1, 2, 3, status="live"))
        assert first.status_code == 200, first.text
        ids = {entry["hfModel"]: entry["_id"] for entry in first.json()["added"]}
        before = await snapshot(running)
        wanted = [
            *items(0),  # as it is: without a status it keeps its own
            single("acme/1", "text-to-image", status="staging"),
            single("acme/2", "text-to-image", providerModel="ours/other"),
            *items(4),
        ]
        foretold = await put(running, ann, wanted, dryRun=True)
        assert await snapshot(running) == before
        done = await put(running, ann, wanted)
        answer = done.json()
        assert [entry["hfModel"] for entry in answer["added"]] == ["acme/4"]
        assert answer["added"][0]["status"] == "staging"
        assert [entry["_id"] for entry in answer["removed"]] == [ids["acme/3"]]
        assert answer["unchanged"] == 1
        assert {each["before"]["_id"] for each in answer["changed"]} == {ids["acme/1"], ids["acme/2"]}
        assert all(each["before"]["_id"] == each["after"]["_id"] for each in answer["changed"])
        planned = foretold.json()
        assert all("_id" not in entry for entry in planned["added"])
        planned["added"][0]["_id"] = answer["added"][0]["_id"]
        assert planned == answer
        after = await snapshot(running)
        assert after["acme/0"] == before["acme/0"]
        assert after["acme/1"] == before["acme/1"] | {"status": "staging"}
        assert after["acme/2"] == before["acme/2"] | {"providerId": "ours/other"}
        assert "acme/3" not in after
        assert after["acme/4"]["_id"] == answer["added"][0]["_id"]


async def test_each_change_leaves_its_own_audit_line_and_event(database_url):
    async with serving(database_url, Models(4)) as running:
        (ann,) = await running.enrol("together", "write")
        async with running.service.database.writing() as connection:
            await connection.execute(
                webhooks.insert().values(
                    id="0" * 24, provider="together", url="https://example.com", event_types=["mapping.created"],
                    secret_sealed="", created_at_us=0,
                )
            )  # fmt: skip
        await put(running, ann, items(0, 1, 2))
        await put(running, ann, [*items(0), single("acme/1", "text-to-image", status="live")])
        async with running.service.database.reading() as connection:
            query = sa.select(audit).where(audit.c.provider == "together", audit.c.action.like("mapping.%"))
            lines = (await connection.execute(query.order_by(audit.c.id))).all()
            told = (await connection.execute(sa.select(events).order_by(events.c.revision))).all()
            due = (await connection.execute(sa.select(deliveries))).all()
        assert [line.action for line in lines] == ["mapping.created"] * 3 + [
            "mapping.removed",
            "mapping.status_changed",
        ]
        assert sorted(event.type for event in told) == sorted(line.action for line in lines)
        assert len({line.revision for line in lines[:3]}) == 1
        gone = lines[3]
        assert (gone.before["hfModel"], gone.after) == ("acme/2", None)
        assert (lines[4].before["status"], lines[4].after["status"]) == ("staging", "live")
        assert {each.event_id for each in due} == {event.id for event in told if event.type == "mapping.created"}


async def test_facts_are_asked_for_new_items_only_and_side_by_side(database_url):
    catalogue = Models(200)
    catalogue.delay_s = 0.01
    async with serving(database_url, catalogue) as running:
        (ann,) = await running.enrol("together", "write")
        await put(running, ann, items(*range(100)))
        assert len(catalogue.asked) == 100
        assert 2 <= catalogue.most_at_once <= 16
        catalogue.asked.clear()
        done = await put(running, ann, items(*range(101), status="live"))
        assert done.status_code == 200
        assert catalogue.asked == ["acme/100"]


async def test_where_the_hub_cannot_be_asked_nothing_is_written(database_url):
    catalogue = Models(5)
    async with serving(database_url, catalogue) as running:
        (ann,) = await running.enrol("together", "write")
        await put(running, ann, items(0, 1))
        before = await snapshot(running)
        catalogue.down = True
        refused = await put(running, ann, items(1, 2, 3))
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert await snapshot(running) == before
        assert (await put(running, ann, items(1, status="live"))).status_code == 200, "nothing new, nothing to ask"


async def test_every_invalid_item_is_told_of_at_once(database_url):
    async with serving(database_url, Models(5)) as running:
        (ann,) = await running.enrol("together", "write")
        audited = await count(database_url, audit)
        wanted = [
            *items(0),
            {"task": "text-to-image", "hfModel": "acme/1"},
            *items(2, 0, 77),
            "acme/3",
            {"type": "other"},
            single("acme/4", "conversational"),
            {"type": "tag-filter", "task": "text-to-image", "tags": FLUX_LORA, "providerModel": "x"},
        ]
        refused = await put(running, ann, wanted)
        assert refused.status_code == 400
        reasons = {each["index"]: each["reason"] for each in refused.json()["items"]}
        assert sorted(reasons) == [1, 3, 4, 5, 6, 7, 8]
        assert reasons[1].startswith("providerModel: this is required")
        assert "models[0]" in reasons[3]
        assert "the hub has no public model 'acme/77'" in reasons[4]
        assert "expected a JSON object" in reasons[5]
        assert "'single-model'" in reasons[6]
        assert "conversational" in reasons[7]
        assert reasons[8].startswith("adapterType: this is required")
        assert "models[1]" in refused.json()["error"]
        assert await snapshot(running) == {}
        assert await count(database_url, audit) == audited
        many = await put(running, ann, ["bad"] * 150)
        assert len(many.json()["items"]) == 100


@pytest.mark.parametrize(
    "body",
    [{}, [], {"models": {}}, {"models": [], "dryRun": True}, {"models": None}, "models", {"models": [{}] * 20_001}],
    ids=str,
)
async def test_a_body_that_is_no_list_of_items_is_refused(database_url, body):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        refused = await running.http.put(PATH, json=body, headers=ann.headers)
        assert refused.status_code == 400
        assert "models" in refused.json()["error"]


async def test_the_same_tags_in_another_order_are_the_same_item(database_url):
    async with serving(database_url, Models(0)) as running:
        (ann,) = await running.enrol("together", "write")
        filters = [
            {
                "type": "tag-filter",
                "task": "text-to-image",
                "tags": tags,
                "providerModel": "flux-lora",
                "adapterType": "lora",
            }
            for tags in (FLUX_LORA, FLUX_LORA[::-1])
        ]
        assert (await put(running, ann, filters)).status_code == 400
        added = await put(running, ann, filters[:1])
        again = await put(running, ann, filters[1:])
        assert added.json()["added"][0]["tags"] == sorted(FLUX_LORA)
        assert again.json() == {"added": [], "changed": [], "removed": [], "unchanged": 1}


async def test_removing_most_of_many_live_mappings_must_be_confirmed_with_the_exact_number(database_url):
    async with serving(database_url, Models(20)) as running:
        (ann,) = await running.enrol("together", "write")
        await put(running, ann, [*items(*range(10), status="live"), *items(10, 11)])
        before = await snapshot(running)
        assert len((await put(running, ann, items(0), dryRun=True)).json()["removed"]) == 11
        refused = await put(running, ann, items(0))
        assert refused.status_code == 409
        assert refused.json()["removals"] == 11
        assert "confirmRemovals=11" in refused.json()["error"]
        assert (await put(running, ann, items(0), confirmRemovals=9)).status_code == 409
        assert (await put(running, ann, [], confirmRemovals=11)).status_code == 409
        assert await snapshot(running) == before
        assert (await put(running, ann, items(0), confirmRemovals=-1)).status_code == 400
        done = await put(running, ann, items(0), confirmRemovals=11)
        assert done.status_code == 200
        assert list(await snapshot(running)) == ["acme/0"]


async def test_half_of_them_or_few_go_without_a_confirmation_but_never_all(database_url):
    async with serving(database_url, Models(20)) as running:
        (ann,) = await running.enrol("together", "write")
        await put(running, ann, items(*range(10), status="live"))
        assert (await put(running, ann, items(*range(5)))).status_code == 200, "half"
        assert (await put(running, ann, items(0))).status_code == 200, "fewer than ten"
        assert (await put(running, ann, [])).status_code == 409, "the last live one"
        assert (await put(running, ann, [], confirmRemovals=1)).status_code == 200


async def test_if_match_takes_the_tag_of_the_list_and_of_a_dry_run(database_url):
    async with serving(database_url, Models(5)) as running:
        (ann,) = await running.enrol("together", "write")
        empty = (await running.http.get(PATH)).headers["ETag"]
        done = await put(running, ann, items(0), {"If-Match": empty})
        assert done.headers["ETag"] == (await running.http.get(PATH)).headers["ETag"] != empty
        assert (await put(running, ann, items(1), {"If-Match": empty})).status_code == 412
        assert (await put(running, ann, items(1), {"If-Match": empty}, dryRun=True)).status_code == 412
        foretold = await put(running, ann, items(1), dryRun=True)
        assert foretold.headers["ETag"] == done.headers["ETag"]
        assert (await put(running, ann, items(1), {"If-Match": f"W/{done.headers['ETag']}"})).status_code == 412
        assert (await put(running, ann, items(1), {"If-Match": f'"x", {done.headers["ETag"]}'})).status_code == 200
        same = await put(running, ann, items(1), {"If-Match": "*"})
        assert same.json()["unchanged"] == 1


async def test_what_somebody_removes_meanwhile_is_asked_for_and_added_again(database_url):
    catalogue = Models(5)
    async with serving(database_url, catalogue) as running:
        (ann,) = await running.enrol("together", "write")
        ids = {each["hfModel"]: each["_id"] for each in (await put(running, ann, items(0, 1))).json()["added"]}
        catalogue.asked.clear()

        async def meanwhile(model_id):
            if model_id == "acme/2":
                await running.http.delete(f"{PATH}/{ids['acme/0']}", headers=ann.headers)

        catalogue.before_answer = meanwhile
        done = await put(running, ann, items(0, 1, 2))
        assert sorted(each["hfModel"] for each in done.json()["added"]) == ["acme/0", "acme/2"]
        assert catalogue.asked == ["acme/2", "acme/0"]


async def test_two_at_once_leave_one_of_the_two_whole(database_url):
    async with serving(database_url, Models(60)) as running:
        (ann,) = await running.enrol("together", "write")
        wanted = [items(*range(30)), items(*range(20, 60))]
        for _ in range(5):
            both = await asyncio.gather(*(put(running, ann, each) for each in wanted))
            assert [each.status_code for each in both] == [200, 200]
            assert set(await snapshot(running)) in [{one["hfModel"] for one in each} for each in wanted]


async def test_only_writers_of_the_provider_may(database_url):
    async with serving(database_url, Models(5)) as running:
        (reader,) = await running.enrol("together", "read")
        (stranger,) = await running.enrol("groq", "admin")
        assert (await running.http.put(PATH, json={"models": []})).status_code == 401
        for member in (reader, stranger):
            assert (await put(running, member, items(0), dryRun=True)).status_code == 403


async def test_a_body_beyond_the_limit_is_413(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        huge = b'{"models": [' + b" " * (32 * 1024 * 1024) + b"]}"
        refused = await running.http.put(PATH, content=huge, headers=ann.headers | {"Content-Type": "application/json"})
        assert refused.status_code == 413


async def test_ten_thousand_items_take_seconds(database_url):
    async with serving(database_url, Models(10_000)) as running:
        (ann,) = await running.enrol("together", "write")
        begun = time.monotonic()
        done = await put(running, ann, items(*range(10_000)))
        took_s = time.monotonic() - begun
        assert done.status_code == 200
        assert len(done.json()["added"]) == await count(database_url, mappings) == 10_000
        assert await count(database_url, events) == 10_000
        assert took_s < 20, "a few seconds on a quiet machine"
        listed = await running.http.get(PATH)
        assert listed.headers["ETag"] == done.headers["ETag"]
        amended = await put(running, ann, items(*range(5_000), status="live"))
        answer = amended.json()
        assert (len(answer["changed"]), len(answer["removed"])) == (5_000, 5_000)


@pytest.mark.parametrize("name", ["dry_run", "dryrun", "confirm"])
async def test_a_misspelt_dry_run_changes_nothing(database_url, name):
    async with serving(database_url, Models(3)) as running:
        (ann,) = await running.enrol("together", "write")
        assert (await put(running, ann, items(0, 1))).status_code == 200
        answer = await put(running, ann, [], **{name: "true"})
        assert answer.status_code == 400
        expected = f"{name!r}: there is no such parameter; known here: dryRun, confirmRemovals. Nothing was changed"
        assert answer.json()["error"] == expected
        assert len((await running.http.get(PATH)).json()["text-to-image"]) == 2
