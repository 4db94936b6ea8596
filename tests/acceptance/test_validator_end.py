"""A faithful end: a provider falls ill, its mapping leaves the official clients, it is healed, the mapping is back.

The service is a process of its own (`roadworthy serve`), the clients are the unmodified ones in processes of their
own, the provider is the sandbox with a switch. The engine runs here, on the same database, with short periods.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from services import enrol
from test_official_clients import CHAT, MODELS, Hub, Provider, javascript, python
from validating import validate_once

from roadworthy.database import Database
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.records import Item
from roadworthy.mapping_api.store import mappings
from roadworthy.mapping_api.tables import events, validations
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import find
from roadworthy.sandbox.server import running
from roadworthy.validator import tables
from roadworthy.validator.endpoint import Endpoint
from roadworthy.validator.prober import Prober
from roadworthy.validator.publish import Policy
from roadworthy.validator.schedule import Periods

OPTIONS = Options(models=("acme/chat-1",))
SHORT = Policy(periods=Periods(routine_s=1, retest_s=1, debounce_s=0))
WITHIN_S = 1.0
FOLLOW = """
import time
seen, until = [], time.monotonic() + 60
while len(seen) < 3 and time.monotonic() < until:
    now = [(e["provider"], e["status"]) for e in entries(model_info(CHAT, expand="inferenceProviderMapping"))]
    if not seen or seen[-1][1] != now:
        seen.append((time.time(), now))
        open({path!r}, "w").write(str(len(seen)))
    time.sleep(0.3)
tell(seen)
"""


@pytest.fixture
def hub(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Hub]:
    models = tmp_path / "models.jsonl"
    models.write_text(json.dumps(MODELS[0]) + "\n")
    shutil.copyfile(migrated_sqlite, tmp_path / "hub.db")
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    provider = Provider(Sandbox((), OPTIONS))
    command = [sys.executable, "-m", "roadworthy", "serve", "--port", "0", "--database", url, "--models", str(models)]
    command += ["--no-validator"]  # its own would claim the mapping, too
    with (tmp_path / "log").open("w") as log, running(provider) as provider_url:
        ids = asyncio.run(_seed(url, provider_url))
        served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=tmp_path)
        try:
            assert served.stdout is not None
            base = served.stdout.readline().strip()
            assert base.startswith("http://127.0.0.1:"), (tmp_path / "log").read_text()
            yield Hub(base, url, provider_url.removesuffix("/v1"), provider, {}, ids)
        finally:
            served.terminate()
            served.communicate(timeout=20)


async def _seed(url: str, provider_url: str) -> dict[tuple[str, str], str]:
    database = Database(url)
    try:
        await enrol(database, "together")
        async with change(database, OPERATOR) as opened:
            item = Item("conversational", "acme/chat-1", hf_model=CHAT, status="live")
            created = await mappings.create(opened, "together", item)
            row = {"base_url": provider_url, "options": {}, "max_running": 4, "updated_at_us": 0}
            await opened.connection.execute(tables.endpoints.insert().values(provider="together", **row))
            return {("together", CHAT): created.id}
    finally:
        await database.close()


class Validator:
    """The engine on the hub's database."""

    def __init__(self, hub: Hub) -> None:
        self.database = Database(hub.database_url)
        self.transport = AiohttpTransport()

        async def endpoint_of(provider: str) -> Endpoint:
            return Endpoint(provider=provider, base_url=f"{hub.provider_url}/v1")

        self.prober = Prober(self.transport, endpoint_of)

    async def until(self, *, active: bool) -> tuple[float, float]:
        """Validate what is due until the verdict is this one. Gives the clock before and after publishing."""
        for _ in range(300):
            before = time.time()
            if await validate_once(self.database, self.prober, SHORT):
                after = time.time()
                async with self.database.reading() as connection:
                    verdict = (await connection.execute(sa.select(validations.c.active))).scalar_one_or_none()
                if verdict is active:
                    return before, after
            await asyncio.sleep(0.05)
        raise AssertionError(f"no verdict said active={active}")

    async def kinds(self) -> list[str]:
        async with self.database.reading() as connection:
            return list((await connection.execute(sa.select(events.c.type).order_by(events.c.id))).scalars())

    async def close(self) -> None:
        await self.transport.aclose()
        await self.database.close()


async def _appears(path: Path, text: str) -> None:
    for _ in range(400):
        if await asyncio.to_thread(path.exists) and await asyncio.to_thread(path.read_text) == text:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the Python client did not see change {text}")


@pytest.mark.timeout(150)
def test_a_provider_that_falls_ill_leaves_the_clients_and_comes_back_healed(hub: Hub, tmp_path: Path):
    question = {"model": CHAT, "provider": "together", "messages": [{"role": "user", "content": "Hello?"}]}
    counted = tmp_path / "counted"

    async def ask() -> dict[str, Any]:
        (told,) = await asyncio.to_thread(javascript, hub, ("chatCompletion", question))
        return told

    async def story() -> dict[str, Any]:
        validator = Validator(hub)
        try:
            await validator.until(active=True)
            await _appears(counted, "1")
            first = await ask()
            hub.provider.sandbox = Sandbox([find("chat.content_type_text")], OPTIONS)
            _, off = await validator.until(active=False)
            await _appears(counted, "2")
            gone = await ask()
            kinds = await validator.kinds()
            hub.provider.sandbox = Sandbox((), OPTIONS)
            _, back = await validator.until(active=True)
            await _appears(counted, "3")
            again = await ask()
            return {
                "first": first, "off": off, "gone": gone, "kinds": kinds, "back": back, "again": again,
                "kinds_after": await validator.kinds(),
            }  # fmt: skip
        finally:
            await validator.close()

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(python, hub, FOLLOW.format(path=str(counted)))
        told = asyncio.run(story())
        seen = following.result(timeout=60)

    assert [providers for _, providers in seen] == [[["together", "live"]], [], [["together", "live"]]]
    lags_s = [seen[1][0] - told["off"], seen[2][0] - told["back"]]
    print(f"the Python client saw it {lags_s[0]:.2f} s and {lags_s[1]:.2f} s after the verdict")  # noqa: T201
    assert max(lags_s) < WITHIN_S
    assert "value" in told["first"], told["first"]
    assert told["gone"].get("error") == "InferenceClientInputError", told["gone"]
    assert "value" in told["again"], told["again"]
    assert told["kinds"].count("mapping.taken_off") == 1
    assert told["kinds_after"].count("mapping.brought_back") == 1
