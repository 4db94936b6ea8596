"""A service that dies while it applies a whole mapping leaves the old one or the new one, with its audit lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time

import httpx
import pytest
import sqlalchemy as sa
from services import enrol
from validating import served

from roadworthy.database import Database
from roadworthy.mapping_api.store import mappings
from roadworthy.mapping_api.tables import audit, events, removals, revisions

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

ROUNDS = 24
MODELS = 1500
PATH = "/api/partners/together/models"


def wanted(round_number):
    """A mapping that adds, changes and removes some of what the round before has left."""
    return {
        f"acme/{n}": (f"ours/{n % 7 and round_number}/{n}", ("live", "staging")[(n + round_number) % 2])
        for n in range(MODELS)
        if (n + round_number) % 3
    }


def items(mapping):
    return [
        {"task": "text-to-image", "hfModel": model, "providerModel": name, "status": status}
        for model, (name, status) in mapping.items()
    ]


async def standing(database):
    """The mapping, the mapping that the audit log tells of, and how many events and removals there are."""
    async with database.writing() as connection:
        # A commit may still be under way in the server: this waits for whoever holds the lock of all writers.
        await connection.execute(revisions.update().values(value=revisions.c.value))
    async with database.reading() as connection:
        present = {
            each.hf_model: (each.provider_model, each.status)
            for each in await mappings.of_provider(connection, "together")
        }
        lines = (
            await connection.execute(sa.select(audit).where(audit.c.action.like("mapping.%")).order_by(audit.c.id))
        ).all()
        told = (await connection.execute(sa.select(sa.func.count()).select_from(events))).scalar_one()
        gone = (await connection.execute(sa.select(sa.func.count()).select_from(removals))).scalar_one()
    replayed = {}
    for line in lines:
        if line.before is not None:
            model = line.before["hfModel"]
            assert replayed.pop(model) == (line.before["providerModel"], line.before["status"])
        if line.after is not None:
            replayed[line.after["hfModel"]] = (line.after["providerModel"], line.after["status"])
    assert told == len(lines)
    assert gone == sum(line.action == "mapping.removed" for line in lines)
    return present, replayed


async def apply(address, member, mapping):
    """How long it took; None where the service died on it."""
    begun = time.monotonic()
    async with httpx.AsyncClient(timeout=60) as http:
        try:
            body = {"models": items(mapping)}
            answer = await http.put(
                address + PATH, json=body, headers=member.headers, params=await confirmed(http, address, member, body)
            )
        except httpx.TransportError:
            return None
    assert answer.status_code == 200, answer.text
    return time.monotonic() - begun


async def ready(address):
    """Until then a service that starts would be killed, not one that applies."""
    async with httpx.AsyncClient() as http:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(f"{address}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.01)


async def confirmed(http, address, member, body):
    plan = await http.put(address + PATH, json=body, headers=member.headers, params={"dryRun": True})
    return {"confirmRemovals": len(plan.json()["removed"])}


async def test_a_kill_at_any_moment_leaves_the_old_mapping_or_the_new_one(database_url, tmp_path):
    models = tmp_path / "models.jsonl"
    models.write_text(
        "\n".join(json.dumps({"id": f"acme/{n}", "pipeline_tag": "text-to-image"}) for n in range(MODELS))
    )
    database = Database(database_url)
    dice = random.Random(4)
    outcomes = {"old": 0, "new": 0}
    try:
        (ann,) = await enrol(database, "together", "write")
        with served("--database", database_url, "--models", str(models)) as (_, address):
            await ready(address)
            await apply(address, ann, wanted(0))
        # Of a service that has just begun, as those that are killed have.
        with served("--database", database_url, "--models", str(models)) as (_, address):
            await ready(address)
            usual_s = await apply(address, ann, wanted(1))
        assert usual_s is not None
        left = wanted(1)
        for number in range(2, ROUNDS + 2):
            with served("--database", database_url, "--models", str(models)) as (process, address):
                await ready(address)
                asked = asyncio.ensure_future(apply(address, ann, wanted(number)))
                # Each round another part of the time, so that every step is met in one round or another.
                share = (number - 2 + dice.random()) / ROUNDS
                await asyncio.wait([asked], timeout=share * usual_s * 1.5)
                process.kill()
                answered = await asked is not None
            present, replayed = await standing(database)
            assert present == replayed, "the audit log tells another story"
            assert present in (left, wanted(number)), "a mixture"
            assert present == wanted(number) or not answered, "what was answered must be there"
            outcomes["new" if present == wanted(number) else "old"] += 1
            left = present
    finally:
        await database.close()
    assert min(outcomes.values()) >= 2, f"the kills came all too early or all too late: {outcomes}"
