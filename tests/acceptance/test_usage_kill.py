"""A gateway hands in usage while the service is killed: what was answered 200 is there, and all of it once in the end.

ROADWORTHY_KILL_ROUNDS=50 makes a longer run of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import pytest
import sqlalchemy as sa
from services import enrol

from roadworthy.billing.store import gateways
from roadworthy.billing.tables import usage
from roadworthy.cli.billing_post import Poster
from roadworthy.cli.service_client import Service
from roadworthy.database import Database
from roadworthy.mapping_api.change import OPERATOR, change

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("ROADWORTHY_KILL_ROUNDS", "1"))
GATEWAYS = 3
BATCH = 400
AT = datetime.now(UTC).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def service(url):
    """`roadworthy serve` as a process of its own; gives the process and its address."""
    options = ("--port", "0", "--database", url, "--no-validator", "--no-billing")
    command = [sys.executable, "-m", "roadworthy", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def items(name, number):
    return [
        {
            "provider": "acme",
            "requestId": f"{name}-{number}-{place}",
            "servedAt": AT,
            "payer": "org:paying",
            "model": "owner/chat",
            "task": "conversational",
            "status": 200,
        }
        for place in range(BATCH)
    ]


class Gateway:
    """Hands in one batch after another; one that it got no answer to, again and first."""

    def __init__(self, name, token):
        self.name = name
        self.headers = {"Authorization": f"Bearer {token}"}
        self.number = 0
        self.acknowledged = set()

    async def hand_in(self, http, address):
        """One batch. False where no answer came."""
        batch = items(self.name, self.number)
        try:
            answer = await http.post(f"{address}/api/usage", json={"requests": batch}, headers=self.headers)
        except httpx.TransportError:
            return False
        assert answer.status_code == 200, answer.text
        assert answer.json()["new"] + answer.json()["known"] == BATCH
        self.acknowledged |= {each["requestId"] for each in batch}
        self.number += 1
        return True

    async def until_cut_off(self, address):
        async with httpx.AsyncClient(timeout=60) as http:
            while await self.hand_in(http, address):
                pass


async def stored(database):
    async with database.reading() as connection:
        return list((await connection.execute(sa.select(usage.c.request_id))).scalars())


@pytest.mark.timeout(0 if ROUNDS > 1 else 120)
async def test_what_was_acknowledged_survives_kills_and_retries_double_nothing(database_url):
    database = Database(database_url)
    dice = random.Random(ROUNDS)
    try:
        await enrol(database, "acme")
        async with change(database, OPERATOR) as opened:
            tokens = [await gateways.create(opened.connection, f"g{n}", opened.now_us) for n in range(GATEWAYS)]
        telling = [Gateway(f"g{n}", token) for n, token in enumerate(tokens)]
        for _ in range(ROUNDS):
            begun = sum(each.number for each in telling)
            with service(database_url) as (process, address):
                tasks = [asyncio.ensure_future(each.until_cut_off(address)) for each in telling]
                async with asyncio.timeout(60):
                    while sum(each.number for each in telling) < begun + 4:  # noqa: ASYNC110  others are at work
                        await asyncio.sleep(0.005)
                await asyncio.sleep(dice.random() * 0.1)  # another moment of a batch each time
                process.kill()
                await asyncio.gather(*tasks)
            found = await stored(database)
            assert len(found) == len(set(found))
            assert len(found) % BATCH == 0, "a part of a batch"
            for each in telling:
                assert each.acknowledged <= set(found), "an acknowledged request is lost"
        with service(database_url) as (_, address):
            async with httpx.AsyncClient(timeout=60) as http:
                for each in telling:
                    assert await each.hand_in(http, address)
            # As `billing ingest --url` does it.
            async with Poster(Service(address, tokens[0]), late=False) as poster:
                told = await poster.post(items("g0", 0))
            assert told == {"new": 0, "known": BATCH, "conflicts": [], "rejected": []}
        found = await stored(database)
        assert len(found) == len(set(found))
        assert set(found) == set().union(*(each.acknowledged for each in telling))
    finally:
        await database.close()
