"""Who may do what, as one table: every endpoint by every role, each cell with its exact status.

A route without a row fails the test. To add one, write a line in `TABLE`: its method and path as
OpenAPI has them, who may (`anyone`, `readers`, `needs`), and a body if it takes one. What stands in
braces in the path is made anew for each cell by `PLACES`.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from services import FLUX_LORA, UNLIMITED, Running, serving, single

from roadworthy.cli.billing_wiring import billing_routes
from roadworthy.database import Database, metadata
from roadworthy.mapping_api.access import Role
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.change import EVENT_TYPES, OPERATOR, change
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.records import Item
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.store import mappings, organisations, webhooks
from roadworthy.mapping_api.tables import tokens
from roadworthy.sealing import new_key
from roadworthy.validator.api import router as endpoint_routes

pytestmark = pytest.mark.anyio

ROLES = ("anonymous", "malformed", "revoked", "expired", "stranger", "read", "write", "admin")
BAD_TOKENS = ("malformed", "revoked", "expired")
METHODS = {"get", "post", "put", "patch", "delete"}


@dataclass
class World:
    """The provider `together` and its members, the provider `groq` of a stranger, and a token for each role."""

    running: Running
    organisation_id: str
    headers: dict[str, dict[str, str]]
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def new(self) -> str:
        return f"new-{next(self.numbers)}"


def anyone(status: int = 200) -> dict[str, int]:
    """Public, and no token is looked at."""
    return dict.fromkeys(ROLES, status)


def readers(status: int = 200) -> dict[str, int]:
    """Public; but a token that comes must be valid."""
    return anyone(status) | dict.fromkeys(BAD_TOKENS, 401)


def callers(status: int = 200) -> dict[str, int]:
    """Anyone with a valid token."""
    return readers(status) | {"anonymous": 401}


def needs(role: Role, status: int = 200) -> dict[str, int]:
    """Only the provider's or organisation's own members, with this role or a higher one."""
    own: tuple[Role, ...] = ("read", "write", "admin")
    may = own[own.index(role) :]
    return callers(status) | {"stranger": 403} | {each: status if each in may else 403 for each in own}


Body = Callable[[World], Any]


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    expected: dict[str, int]
    body: Body | None = None
    changes: bool | None = None
    """Whether it changes the database where it succeeds. None: every method but GET does."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def tag_filter(world: World) -> dict[str, Any]:
    """A registration that nothing else in the world has."""
    tags = [*FLUX_LORA, world.new()]
    return {
        "type": "tag-filter",
        "task": "text-to-image",
        "tags": tags,
        "adapterType": "lora",
        "providerModel": "flux",
    }


MODELS = "/api/partners/{provider}/models"
WEBHOOKS = "/api/partners/{provider}/webhooks"
ORGANIZATION = "/api/organizations/{org}"
NOWHERE = "http://127.0.0.1:9/hook"
"""Where webhooks go: nobody listens there."""
KEY = new_key()
SETTINGS = UNLIMITED.model_copy(update={"allow_private_targets": True, "secret_key": SecretStr(KEY)})
TABLE = [
    Row("GET", MODELS, anyone()),
    Row("POST", MODELS, needs("write", 201), tag_filter),
    Row("PUT", MODELS, needs("write"), lambda world: {"models": [tag_filter(world)]}),
    Row("GET", MODELS + "/{mapping_id}", anyone()),
    Row("DELETE", MODELS + "/{mapping_id}", needs("write", 204)),
    Row("PUT", MODELS + "/{mapping_id}/status", needs("write"), lambda _: {"status": "live"}),
    Row("GET", "/api/partners/{provider}/audit", needs("read")),
    Row("GET", "/api/partners/{provider}/events", needs("read")),
    Row("GET", WEBHOOKS, needs("admin")),
    Row("POST", WEBHOOKS, needs("admin", 201), lambda _: {"url": NOWHERE}),
    Row("DELETE", WEBHOOKS + "/{webhook_id}", needs("admin", 204)),
    Row("POST", WEBHOOKS + "/{webhook_id}/test", needs("admin", 202)),
    Row("GET", WEBHOOKS + "/{webhook_id}/deliveries", needs("admin")),
    Row("GET", "/api/models", readers()),
    # None is registered; with one, and its key, they are asked in test_validator_worker.py.
    Row("GET", "/api/partners/{provider}/endpoint", needs("admin", 404)),
    Row("DELETE", "/api/partners/{provider}/endpoint", needs("admin", 404)),
    Row("PUT", "/api/partners/{provider}/endpoint", needs("admin"), lambda _: {"baseUrl": "https://1.1.1.1/v1"}),
    # With one, and its key, they are asked in test_billing_endpoints.py.
    Row("GET", "/api/partners/{provider}/cost-endpoint", needs("admin", 404)),
    Row("DELETE", "/api/partners/{provider}/cost-endpoint", needs("admin", 404)),
    Row("PUT", "/api/partners/{provider}/cost-endpoint", needs("admin"), lambda _: {"url": "https://1.1.1.1/costs"}),
    Row("GET", "/api/models/{model_id}", readers()),
    Row("GET", "/v1/models", anyone()),
    Row("GET", "/v1/models/{model_id}", readers()),
    Row("GET", "/api/tasks", anyone()),
    Row("GET", "/api/whoami-v2", callers()),
    Row("GET", ORGANIZATION + "/audit", needs("read")),
    Row("GET", ORGANIZATION + "/members", needs("admin")),
    Row("POST", ORGANIZATION + "/members", needs("admin", 201), lambda world: {"name": world.new(), "role": "admin"}),
    Row("PUT", ORGANIZATION + "/members/{member}", needs("admin"), lambda _: {"role": "write"}),
    Row("DELETE", ORGANIZATION + "/members/{member}", needs("admin", 204)),
    Row("GET", ORGANIZATION + "/tokens", needs("admin")),
    Row(
        "POST",
        ORGANIZATION + "/tokens",
        needs("admin", 201),
        lambda _: {"member": "write-1", "name": "ci", "role": "write", "expiresInDays": 1},
    ),
    Row("DELETE", ORGANIZATION + "/tokens/{token_id}", needs("admin", 204)),
    # For gateways alone, whose tokens are asked with in test_usage_api.py: no organisation's can hand in usage.
    Row("POST", "/api/usage", callers(403), lambda _: {"requests": []}),
    Row("GET", "/api/billing/balances", callers(403)),
    Row("GET", "/api/billing/usage/{provider}/{request_id}", callers(403)),
    Row("GET", "/healthz", anyone()),
    Row("GET", "/readyz", anyone()),
    Row("GET", "/metrics", anyone()),
]


async def a_mapping(world: World) -> str:
    async with change(world.running.service.database, OPERATOR) as opened:
        tags = tuple(sorted([*FLUX_LORA, world.new()]))
        item = Item("text-to-image", "flux", tags=tags, adapter_type="lora")
        return (await mappings.create(opened, "together", item)).id


async def a_member(world: World) -> str:
    name = world.new()
    async with change(world.running.service.database, OPERATOR) as opened:
        await organisations.add_member(opened, world.organisation_id, name, "read")
    return name


async def a_token(world: World) -> str:
    async with change(world.running.service.database, OPERATOR) as opened:
        member = await organisations.find_member(opened.connection, world.organisation_id, "read-0")
        return (await organisations.issue_token(opened, member.id, world.new(), "read")).record.id


async def a_webhook(world: World) -> str:
    async with change(world.running.service.database, OPERATOR) as opened:
        made = await webhooks.create(opened, "together", NOWHERE, EVENT_TYPES, world.running.service.sealer)
    return made[0].id


async def _just(text: str) -> str:
    return text


PLACES: dict[str, Callable[[World], Awaitable[str]]] = {
    "provider": lambda _: _just("together"),
    "org": lambda _: _just("together"),
    "model_id": lambda _: _just("deepseek-ai/DeepSeek-R1"),
    "mapping_id": a_mapping,
    "webhook_id": a_webhook,
    "member": a_member,
    "token_id": a_token,
}


async def a_world(running: Running) -> World:
    own = await running.enrol("together", "read", "write", "admin", "admin", "admin")
    (stranger,) = await running.enrol("groq", "admin")
    read, write, admin, revoked, expired = own
    database = running.service.database
    async with change(database, OPERATOR) as opened:
        organisation_id = await organisations.find_organisation(opened.connection, "together")
        known = {each.member: each.id for each in await organisations.list_tokens(opened.connection, organisation_id)}
        await organisations.revoke_token(opened, known["admin-3"])
        past = tokens.update().where(tokens.c.id == known["admin-4"]).values(expires_at_us=opened.now_us - 1)
        await opened.connection.execute(past)
    await running.http.post("/api/partners/together/models", json=single(status="live"), headers=admin.headers)
    wrong = admin.token[:-1] + ("a" if admin.token[-1] != "a" else "b")
    return World(
        running,
        organisation_id,
        {
            "anonymous": {},
            "malformed": {"Authorization": f"Bearer {wrong}"},
            "revoked": revoked.headers,
            "expired": expired.headers,
            "stranger": stranger.headers,
            "read": read.headers,
            "write": write.headers,
            "admin": admin.headers,
        },
    )


async def everything(database: Database) -> dict[str, list[Any]]:
    """Every row of every table, but for last uses, which are written beside the requests."""
    async with database.reading() as connection:
        return {
            table.name: sorted(
                repr(tuple(row))
                for row in await connection.execute(
                    sa.select(*(column for column in table.c if column.name != "last_used_at_us"))
                )
            )
            for table in metadata.sorted_tables
        }


async def ask(world: World, row: Row, role: str) -> tuple[Any, dict[str, list[Any]]]:
    """The answer for this role, and what was in the database just before the request."""
    path = row.path
    for name, make in PLACES.items():
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", await make(world))
    body = None if row.body is None else row.body(world)
    before = await everything(world.running.service.database)
    answer = await world.running.http.request(row.method, path, json=body, headers=world.headers[role])
    return answer, before


@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_every_role_gets_what_the_table_says_and_a_refusal_changes_nothing(database_url, row):
    async with serving(database_url, settings=SETTINGS) as running:
        world = await a_world(running)
        for role in ROLES:
            answer, before = await ask(world, row, role)
            assert answer.status_code == row.expected[role], f"{row} as {role}: {answer.text}"
            after = await everything(running.service.database)
            if answer.is_success:
                changes = row.method != "GET" if row.changes is None else row.changes
                assert (after != before) == changes, f"{row} as {role}: what changed in the database"
                continue
            assert after == before, f"{row} as {role}: refused, and still something changed"
            assert list(answer.json()) == ["error"]
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_every_route_has_its_row(tmp_path):
    service = Service(Database(f"sqlite:///{tmp_path}/unused.db"), FileCatalogue())
    app = create_app(service, routers=[endpoint_routes, *billing_routes(service)])
    routes = {
        f"{method.upper()} {path.replace(':path}', '}')}"
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if method in METHODS
    }
    rows = [str(row) for row in TABLE]
    assert sorted(rows) == sorted(set(rows)), "a route stands in the table twice"
    assert set(rows) == routes


async def test_what_a_member_may_do_at_home_he_may_not_do_next_door(database_url):
    """Ids of one organisation's things under the path of the other, with a token of the other."""
    async with serving(database_url, settings=SETTINGS) as running:
        world = await a_world(running)
        groq = world.headers["stranger"]
        mapping_id, member, token_id = await a_mapping(world), await a_member(world), await a_token(world)
        before = await everything(running.service.database)
        for method, path, body in [
            ("DELETE", f"/api/partners/groq/models/{mapping_id}", None),
            ("PUT", f"/api/partners/groq/models/{mapping_id}/status", {"status": "live"}),
            ("DELETE", f"/api/organizations/groq/tokens/{token_id}", None),
            ("DELETE", f"/api/organizations/groq/members/{member}", None),
            ("PUT", f"/api/organizations/groq/members/{member}", {"role": "admin"}),
            ("POST", "/api/organizations/groq/tokens", {"member": member, "name": "x", "role": "read"}),
        ]:
            answer = await running.http.request(method, path, json=body, headers=groq)
            assert answer.status_code == 404, f"{method} {path}: {answer.text}"
        assert await everything(running.service.database) == before
        seen = await running.http.get("/api/organizations/groq/audit", headers=groq)
        assert "together" not in seen.text
        assert member not in seen.text


async def test_to_strangers_an_organisation_that_is_not_there_looks_like_any_other(database_url):
    async with serving(database_url, settings=SETTINGS) as running:
        world = await a_world(running)
        paths = ("/api/organizations/together/members", "/api/organizations/nobody/members")
        there, not_there = [await running.http.get(path, headers=world.headers["stranger"]) for path in paths]
        assert there.status_code == not_there.status_code == 403
        assert there.text.replace("together", "nobody") == not_there.text
