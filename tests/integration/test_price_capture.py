"""What providers publish is recorded by hub model, when it changes, and asked for at most once an hour."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from costs import reply
from validating import chats, provider_with_mappings

from roadworthy.billing.prices import Version, published
from roadworthy.billing.store import prices
from roadworthy.cli import billing_prices
from roadworthy.cli.billing_prices import Capture, CaptureError, Capturing
from roadworthy.database import Database
from roadworthy.http.message import Failure, FailureKind, Reply
from roadworthy.sealing import Sealer, new_key
from roadworthy.validator.store import endpoints

pytestmark = pytest.mark.anyio


class Api:
    """A transport with a provider behind it that publishes prices."""

    def __init__(self, *models):
        self.models = list(models)
        self.answer = None
        self.asked = []
        self.most_bytes = None

    async def send(self, request, limits):
        self.asked.append((request.method, request.url, dict(request.headers).get("Authorization")))
        self.most_bytes = limits.max_body_bytes
        return self.answer or reply({"object": "list", "data": self.models})

    async def aclose(self):
        """Nothing is open."""


def model(id, **pricing):
    return {"id": id, "object": "model", "pricing": pricing}


@pytest.fixture
async def database(database_url):
    opened = Database(database_url)
    yield opened
    await opened.close()


async def recorded(database):
    async with database.reading() as connection:
        found = await prices.versions(connection, "acme")
    return [
        (one.model, one.unit, one.nano_usd_per_million, one.source) for one in sorted(found, key=lambda one: one.id)
    ]


async def hour_passes(database):
    async with database.writing() as connection:
        await connection.execute(sa.text("UPDATE chores SET taken_at_us = taken_at_us - 3600000001"))


async def test_prices_are_recorded_by_hub_model_when_they_change(database):
    await provider_with_mappings(database, "acme", "http://provider.test/v1", chats(1))
    api = Api(model("acme/chat-0", input=0.2, output=2, cached_input="0.05"), model("acme/unmapped", input=1, output=1))
    capture = Capture(database, Sealer(None), api)
    await capture.tick()
    first = [
        ("owner/chat-0", "cached_input_tokens", 50_000_000, "models"),
        ("owner/chat-0", "input_tokens", 200_000_000, "models"),
        ("owner/chat-0", "output_tokens", 2_000_000_000, "models"),
    ]
    assert await recorded(database) == first
    assert api.asked == [("GET", "http://provider.test/v1/models", None)]
    await capture.tick()
    await Capture(database, Sealer(None), api).tick()
    assert len(api.asked) == 1
    await hour_passes(database)
    await capture.tick()
    assert len(api.asked) == 2
    assert await recorded(database) == first
    api.models[0]["pricing"]["output"] = 3
    await hour_passes(database)
    await capture.tick()
    assert (await recorded(database))[3:] == [("owner/chat-0", "output_tokens", 3_000_000_000, "models")]


async def test_an_operators_price_stays_until_the_provider_changes_its_own(database):
    await provider_with_mappings(database, "acme", "http://provider.test/v1", chats(1))
    api = Api(model("acme/chat-0", input=1))
    capture = Capture(database, Sealer(None), api)
    await capture.tick()
    async with database.writing() as connection:
        now_us = await database.now_us(connection)
        agreed = Version("acme", "owner/chat-0", "input_tokens", 900_000_000, now_us, now_us, "operator")
        await prices.add(connection, [agreed])
    await hour_passes(database)
    await capture.tick()
    assert [source for *_, source in await recorded(database)] == ["models", "operator"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Reply(None, failure=Failure(FailureKind.REFUSED, "connection refused")), "no answer of /models"),
        (reply({}, 503), "HTTP 503"),
        (reply(b"<html>"), "not JSON"),
        (reply({"models": []}), "no list of models"),
        (reply(b'{"data":[' + b"1," * 2_000_000 + b"1]}"), "/models holds more than 200,000 values"),
    ],
    ids=["refused", "unavailable", "html", "no-list", "numbers-for-ever"],
)
async def test_an_api_that_does_not_say_leaves_what_is_known(database, answer, says):
    await provider_with_mappings(database, "acme", "http://provider.test/v1", chats(1))
    api = Api(model("acme/chat-0", input=1))
    capture = Capture(database, Sealer(None), api)
    await capture.tick()
    before = await recorded(database)
    api.answer = answer
    await hour_passes(database)
    await capture.tick()
    async with database.reading() as connection:
        registered = await endpoints.find(connection, "acme")
        outcome = (await connection.execute(sa.text("SELECT outcome FROM chores"))).scalar_one()
    assert says in outcome
    with pytest.raises(CaptureError, match=says):
        await capture.of(registered)
    assert await recorded(database) == before


async def test_the_answer_is_small_and_read_in_a_thread(database, monkeypatch):
    await provider_with_mappings(database, "acme", "http://provider.test/v1", chats(1))
    api, threads = Api(model("acme/chat-0", input=1)), []

    def noted(body):
        threads.append(threading.current_thread())
        return published(body)

    monkeypatch.setattr(billing_prices, "published", noted)
    await Capture(database, Sealer(None), api).tick()
    assert len(await recorded(database)) == 1
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()
    assert api.most_bytes == 4 * 1024 * 1024


async def test_the_key_goes_with_the_question_and_a_paused_api_is_left_alone(database):
    sealer = Sealer(new_key())
    await provider_with_mappings(
        database, "acme", "http://provider.test/v1", chats(1), key="key-of-acme-0123456789", sealer=sealer
    )
    api = Api(model("acme/chat-0", input=1))
    await Capture(database, sealer, api).tick()
    assert api.asked[0][2] == "Bearer key-of-acme-0123456789"
    async with database.writing() as connection:
        await connection.execute(sa.text("UPDATE endpoints SET paused_at_us = 1"))
    await hour_passes(database)
    await Capture(database, sealer, api).tick()
    assert len(api.asked) == 1


async def test_it_starts_and_ends_beside_a_service(database):
    async with Capturing(database, Sealer(None), allow_private=False):
        assert await recorded(database) == []
