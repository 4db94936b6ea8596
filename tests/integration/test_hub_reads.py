"""The hub's read endpoints, on both databases."""

from __future__ import annotations

import pytest
from services import serving, single

pytestmark = pytest.mark.anyio


async def test_smoke(database_url):
    async with serving(database_url) as running:
        (ann,) = await running.enrol("together", "write")
        r = await running.http.post("/api/partners/together/models", json=single(status="live"), headers=ann.headers)
        assert r.status_code == 201, r.text
        for path in (
            "/api/models/deepseek-ai/DeepSeek-R1?expand=inference,inferenceProviderMapping",
            "/api/models?limit=2&inference_provider=all&expand=inferenceProviderMapping",
            "/api/models?limit=2",
            "/api/tasks",
            "/v1/models",
            "/v1/models/deepseek-ai/DeepSeek-R1",
            "/v1/models/deepseek-ai/DeepSeek-R1:fastest",
            "/v1/models/deepseek-ai/DeepSeek-R1:nobody",
            "/api/models?bad=1",
        ):
            got = await running.http.get(path)
            print(path, got.status_code, got.text, got.headers.get("link"))
