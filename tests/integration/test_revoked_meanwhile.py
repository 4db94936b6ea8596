"""A token that ends while its request is under way writes nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

import pytest
import sqlalchemy as sa
from services import Running, serving, single

from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.tables import members, tokens

pytestmark = pytest.mark.anyio


class SlowCatalogue(FileCatalogue):
    """Answers when it is told to, as a slow hub does."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def get(self, model_id: str) -> ModelFacts | None:
        self.asked.set()
        await self.go_on.wait()
        return await super().get(model_id)

    async def tagged(self, tags: Collection[str], at_most: int | None = None) -> list[ModelFacts]:
        self.asked.set()
        await self.go_on.wait()
        return await super().tagged(tags, at_most)


async def revoke(running: Running) -> None:
    async with running.service.database.reading() as connection:
        token_id = (await connection.execute(sa.select(tokens.c.id))).scalar_one()
    async with change(running.service.database, OPERATOR) as opened:
        await organisations.revoke_token(opened, token_id)


async def expire(running: Running) -> None:
    async with running.service.database.writing() as connection:
        await connection.execute(tokens.update().values(expires_at_us=1))


async def remove(running: Running) -> None:
    async with change(running.service.database, OPERATOR) as opened:
        organisation_id = await organisations.find_organisation(opened.connection, "fireworks-ai")
        member = await organisations.find_member(opened.connection, organisation_id, "write-0")
        await organisations.remove_member(opened, member, keep_an_admin=False)


async def end_organisation(running: Running) -> None:
    async with change(running.service.database, OPERATOR) as opened:
        await organisations.revoke_organisation(opened, "fireworks-ai")


async def lower_role(running: Running) -> None:
    async with running.service.database.writing() as connection:
        await connection.execute(members.update().values(role="read"))


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
@pytest.mark.parametrize(
    ("end", "status"), [(revoke, 401), (expire, 401), (remove, 401), (end_organisation, 401), (lower_role, 403)]
)
async def test_a_token_that_ends_while_the_hub_is_asked_writes_nothing(
    database_url: str, end: Callable[[Running], Awaitable[None]], status: int, bulk: bool
) -> None:
    catalogue = SlowCatalogue()
    async with serving(database_url, catalogue) as running:
        (writer,) = await running.enrol("fireworks-ai", "write")
        path, headers = "/api/partners/fireworks-ai/models", writer.headers
        request = (
            running.http.put(path, json={"models": [single()]}, headers=headers)
            if bulk
            else running.http.post(path, json=single(), headers=headers)
        )
        under_way = asyncio.create_task(request)
        await catalogue.asked.wait()
        await end(running)
        catalogue.go_on.set()
        answer = await under_way
        assert answer.status_code == status, answer.text
        assert (await running.http.get(path)).json() == {}
