"""Limits of requests: who pays, what the answer says, and what it costs."""

from __future__ import annotations

import asyncio
import socket

import pytest
from huggingface_hub.utils import parse_ratelimit_headers
from services import Running, serving, single

from roadworthy.mapping_api import access
from roadworthy.mapping_api.api.limits import EXEMPT, RateLimits, Windows, network_of
from roadworthy.mapping_api.settings import ServiceSettings

pytestmark = pytest.mark.anyio

MODELS = "/api/partners/together/models"
OFF = {
    "anonymous_reads_per_minute": 0,
    "anonymous_writes_per_minute": 0,
    "token_reads_per_minute": 0,
    "token_writes_per_minute": 0,
    "failed_authentications_per_minute": 0,
}


def limited(url: str, **limits: int):
    return serving(url, settings=ServiceSettings(**(OFF | limits)))


async def statuses(running: Running, number: int, method: str = "GET", path: str = MODELS, **more) -> list[int]:
    return [(await running.http.request(method, path, **more)).status_code for _ in range(number)]


async def test_an_answer_over_the_limit_says_when_to_go_on_and_the_official_client_reads_it(database_url):
    async with limited(database_url, anonymous_reads_per_minute=3) as running:
        await running.enrol("together", "read")
        answers = [await running.http.get(MODELS) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        told = [parse_ratelimit_headers(answer.headers) for answer in answers]
        assert [(each.resource_type, each.remaining, each.limit, each.window_seconds) for each in told] == [
            ("reads", 2, 3, 60),
            ("reads", 1, 3, 60),
            ("reads", 0, 3, 60),
            ("reads", 0, 3, 60),
        ]
        assert all(1 <= each.reset_in_seconds <= 60 for each in told)
        refused = answers[-1]
        assert refused.headers["retry-after"] == str(told[-1].reset_in_seconds)
        assert refused.headers["x-request-id"]
        assert list(refused.json()) == ["error"]
        assert "more than 3 reads a minute" in refused.json()["error"]


async def test_reads_and_writes_tokens_and_addresses_are_counted_apart(database_url):
    limits = {"anonymous_reads_per_minute": 2, "anonymous_writes_per_minute": 3}
    limits |= {"token_reads_per_minute": 4, "token_writes_per_minute": 1}
    async with limited(database_url, **limits) as running:
        ann, bob = await running.enrol("together", "write", "write")
        # What a token asks first is its address's, since nobody knows it yet.
        for member in (ann, bob):
            assert await statuses(running, 1, path="/api/whoami-v2", headers=member.headers) == [200]
        assert await statuses(running, 1) == [429]
        for member in (ann, bob):
            assert await statuses(running, 5, path="/api/whoami-v2", headers=member.headers) == [200] * 4 + [429]
        assert await statuses(running, 4, "POST", json=single()) == [401] * 3 + [429]
        assert await statuses(running, 2, "POST", json=single(), headers=ann.headers) == [201, 429]
        assert await statuses(running, 2, "POST", json=single(), headers=bob.headers) == [409, 429]


async def test_inventing_tokens_gains_nothing(database_url):
    async with limited(database_url, anonymous_reads_per_minute=5) as running:
        await running.enrol("together", "read")
        invented = [{"Authorization": f"Bearer {access.mint()}"} for _ in range(6)]
        answers = [await running.http.get(MODELS, headers=headers) for headers in invented]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]


async def test_failed_authentications_close_an_address_but_not_to_valid_tokens_nor_the_public(database_url):
    async with limited(database_url, failed_authentications_per_minute=3) as running:
        ann, bob = await running.enrol("together", "read", "read")
        who = "/api/whoami-v2"
        assert await statuses(running, 1, path=who, headers=ann.headers) == [200]
        assert await statuses(running, 5, path=who) == [401] * 5, "no token came, so none failed"
        wrong = {"Authorization": f"Bearer {access.mint()}"}
        assert await statuses(running, 5, path=who, headers=wrong) == [401] * 3 + [429] * 2
        for headers in ({"Authorization": f"Bearer {access.mint()}"}, {"Authorization": "Basic x"}, bob.headers):
            refused = await running.http.get(who, headers=headers)
            assert refused.status_code == 429
            assert parse_ratelimit_headers(refused.headers).resource_type == "failures"
            assert "failed authentications" in refused.json()["error"]
        assert await statuses(running, 2, path=who, headers=ann.headers) == [200] * 2
        assert await statuses(running, 2) == [200] * 2


async def test_a_token_that_is_revoked_is_a_stranger_again(database_url):
    async with limited(database_url, failed_authentications_per_minute=2) as running:
        boss, _ = await running.enrol("together", "admin", "admin")
        who = "/api/whoami-v2"
        assert await statuses(running, 1, path=who, headers=boss.headers) == [200]
        gone = await running.http.delete("/api/organizations/together/members/admin-0", headers=boss.headers)
        assert gone.status_code == 204
        assert await statuses(running, 4, path=who, headers=boss.headers) == [401, 401, 429, 429]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_what_watches_the_service_is_never_refused(path):
    seen, headers = await through(path, 3)
    assert seen == [200] * 3
    assert b"ratelimit" not in headers
    assert (await through("/api/tasks", 3))[0] == [200, 429, 429]


async def through(path: str, number: int, client: tuple[str, int] | None = ("192.0.2.1", 1)):
    """The statuses of so many requests where one a minute is allowed, and the names of the last one's headers."""
    started = []

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        if message["type"] == "http.response.start":
            started.append(message)

    limits = RateLimits(app, ServiceSettings(**(OFF | {"anonymous_reads_per_minute": 1})))
    for _ in range(number):
        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "client": client, "state": {}}
        await limits(scope, None, send)
    return [message["status"] for message in started], {name for name, _ in started[-1]["headers"]}


async def test_without_limits_nothing_is_counted_and_nothing_said(database_url):
    async with limited(database_url) as running:
        await running.enrol("together", "read")
        answers = [await running.http.get(MODELS) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        assert not any("ratelimit" in answer.headers for answer in answers)


def test_a_window_ends_and_is_swept_away():
    now = 100.0
    windows = Windows(window_s=10, clock=lambda: now)
    assert [windows.add("a") for _ in range(3)] == [(1, 10), (2, 10), (3, 10)]
    now = 104.0
    assert windows.add("a") == (4, 6)
    assert windows.count("a") == (4, 6)
    assert windows.add("b") == (1, 10)
    now = 110.0
    assert windows.count("a") == (0, 10)
    assert windows.add("a") == (1, 10)
    now = 200.0
    windows.add("c")
    assert set(windows._windows) == {"c"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("a:strange:name", "a:strange:name", True),
    ],
)
def test_the_address_that_pays(one, other, same):
    assert (network_of({"client": (one, 1)}) == network_of({"client": (other, 2)})) is same


def test_a_caller_without_an_address_has_one_too():
    assert network_of({"client": None}) == network_of({}) == "local"


async def test_every_operation_documents_that_it_may_be_refused(database_url):
    async with limited(database_url) as running:
        paths = (await running.http.get("/openapi.json")).json()["paths"]
        operations = [(path, name, what) for path, each in paths.items() for name, what in each.items()]
        assert operations
        for path, name, what in operations:
            assert ("429" in what["responses"]) == (path not in EXEMPT), f"{name} {path}"


@pytest.mark.parametrize("trusted", ["", "127.0.0.1"])
async def test_a_header_names_the_address_only_if_its_proxy_is_trusted(database_url, trusted):
    """The server as `roadworthy serve` makes it."""
    import uvicorn

    from roadworthy.cli.serve import server_config
    from roadworthy.database import Database
    from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
    from roadworthy.mapping_api.service import Service
    from roadworthy.sandbox.server import listen

    settings = ServiceSettings(**(OFF | {"anonymous_reads_per_minute": 1}), trusted_proxies=trusted)
    service = Service(Database(database_url), FileCatalogue(), settings)
    bound = listen()
    server = uvicorn.Server(server_config(service))
    task = asyncio.create_task(server.serve(sockets=[bound]))

    def ask(address: str) -> int:
        with socket.create_connection(bound.getsockname()) as connection:
            head = (
                f"GET /api/models/none HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\nConnection: close\r\n\r\n"
            )
            connection.sendall(head.encode())
            return int(connection.recv(65536).split()[1])

    try:
        seen = [await asyncio.to_thread(ask, f"198.51.100.{number}") for number in (1, 2, 1)]
    finally:
        server.should_exit = True
        await task
        bound.close()
    assert seen == ([404, 404, 429] if trusted else [404, 429, 429])
