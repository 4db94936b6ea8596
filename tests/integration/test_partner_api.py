"""Register, list, change and remove mappings, on both databases."""

from __future__ import annotations

import pytest
from services import serving, single

pytestmark = pytest.mark.anyio

PATH = "/api/partners/together/models"


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
