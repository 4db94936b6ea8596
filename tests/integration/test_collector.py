"""Collecting costs: what a provider says is settled once, and what it does not say is asked for again."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from costs import CostProvider, register, reply, served, take_in

from roadworthy.billing.collector import Collector
from roadworthy.billing.tables import batches, disputes, entries, usage
from roadworthy.database import Database
from roadworthy.sealing import Sealer

pytestmark = pytest.mark.anyio


async def rows(database, table):
    async with database.reading() as connection:
        return [row._asdict() for row in await connection.execute(sa.select(table).order_by(*table.primary_key))]


async def states(database):
    return {row["request_id"]: row["state"] for row in await rows(database, usage)}


async def collect(database, provider, **options):
    collector = Collector(database, Sealer(None), provider, **options)
    await collector.tick()
    await collector.idle()


async def test_costs_are_settled_once_and_what_is_left_out_is_asked_for_again(database_url):
    database = Database(database_url)
    provider = CostProvider({"a": 5, "b": 0})
    await register(database)
    await take_in(database, served("a"), served("b"), served("c"), served("failed", status=500))
    await collect(database, provider)
    assert await states(database) == {"a": "settled", "b": "settled", "c": "pending", "failed": "unbilled"}
    assert [row["amount_nano_usd"] for row in await rows(database, entries)] == [5, 0]
    await collect(database, provider)
    assert provider.asked == [["a", "b", "c"]]
    (batch,) = await rows(database, batches)
    assert (batch["asked"], batch["settled"], batch["missing"], batch["outcome"]) == (3, 2, 1, "answered")
    await database.close()


async def test_a_poison_id_does_not_block_the_others(database_url):
    database = Database(database_url)
    provider = CostProvider({f"r{n}": n for n in range(100)})
    provider.always = lambda ids: reply({}, 400) if "r37" in ids else provider.told(ids)
    await register(database)
    await take_in(database, *(served(f"r{n}") for n in range(100)))
    await collect(database, provider)
    found = await states(database)
    assert found.pop("r37") == "pending"
    assert set(found.values()) == {"settled"}
    await database.close()


async def test_two_costs_for_one_id_are_a_dispute(database_url):
    database = Database(database_url)
    provider = CostProvider()
    items = [{"requestId": "a", "costNanoUsd": 1}, {"requestId": "a", "costNanoUsd": 2}]
    provider.answers.append(reply({"requests": items}))
    await register(database)
    await take_in(database, served("a"))
    await collect(database, provider)
    assert await states(database) == {"a": "disputed"}
    (dispute,) = await rows(database, disputes)
    assert (dispute["reason"], dispute["claimed"]) == ("conflicting", "1 and 2")
    await database.close()
