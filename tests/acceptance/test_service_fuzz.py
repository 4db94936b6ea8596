"""Schemathesis holds the service to its own OpenAPI: what it draws is answered as the description says, or not at all.

Everything is taken from `app.openapi()`, so that new routes are fuzzed as soon as they are there.
ROADWORTHY_FUZZ_EXAMPLES=1000 makes a longer run of it.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from services import FLUX_LORA, UNLIMITED, Member, Running, serving
from views import fresh_copy, held

from roadworthy.billing.store import gateways
from roadworthy.http import guard
from roadworthy.http.message import Failure, FailureKind, Limits, Reply, Request
from roadworthy.mapping_api import service
from roadworthy.mapping_api.change import EVENT_TYPES, OPERATOR, change
from roadworthy.mapping_api.records import Item, Status
from roadworthy.mapping_api.store import mappings as store
from roadworthy.mapping_api.store import organisations, webhooks
from roadworthy.mapping_api.tables import audit, events, mappings
from roadworthy.sealing import new_key

Result = TypeVar("Result")
EXAMPLES = int(os.environ.get("ROADWORTHY_FUZZ_EXAMPLES", "0"))
LONG = "ROADWORTHY_FUZZ_EXAMPLES" in os.environ
SEED = 20_260_101
WELL_FORMED = ["2xx", "400", "401", "403", "404", "409", "412", "422"]
"""What may come of a well-formed request."""
SLUG = "fireworks-ai"
"""The provider that the description gives as its example."""
MODELS = ["deepseek-ai/DeepSeek-R1", "BagOu22/Lora_HKLPAZ"]
SUPPLY = 20
"""So many mappings, members and tokens are made for each run, for it to change and delete."""
AT_LEAST = {"admin": 2600, "read": 1300, "nobody": 1300}
"""How many requests are made with each caller's token, on each database: more than 5,000 in all."""
DRAWN = {"admin": 40, "read": 8, "nobody": 8, "gateway": 30}
"""How many requests are drawn of each operation: as many as that takes, beside those that each description implies."""


class Nowhere:
    """What webhooks are sent with here: nothing leaves this process."""

    def __init__(self, **_: Any) -> None:
        self.closed = False

    async def send(self, request: Request, limits: Limits) -> Reply:
        return Reply(None, failure=Failure(FailureKind.REFUSED, "nobody is there"))

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name has a public address, no name server is asked, and no webhook is sent."""
    monkeypatch.setattr(guard, "system_lookup", lambda _host: ["192.88.98.1"])
    monkeypatch.setattr(service, "AiohttpTransport", Nowhere)


class Bridge:
    """A WSGI application in front of an ASGI one that lives in a loop of its own, as a server's does."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.transport: httpx.ASGITransport | None = None
        self.statuses: Counter[int] = Counter()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, headers, body = self.run(self._serve(environ, environ["wsgi.input"].read()))
        self.statuses[status] += 1
        start_response(f"{status} -", headers)
        return [body]

    async def _serve(self, environ: dict[str, Any], body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        assert self.transport is not None
        headers = [
            (name[5:].replace("_", "-").lower().encode(), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_")
        ]
        if environ.get("CONTENT_TYPE"):
            headers.append((b"content-type", environ["CONTENT_TYPE"].encode("latin-1")))
        if body:
            headers.append((b"content-length", str(len(body)).encode()))
        path = environ["PATH_INFO"].encode("latin-1")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": environ["REQUEST_METHOD"],
            "scheme": "http",
            "path": path.decode("utf-8", "replace"),
            "raw_path": environ.get("REQUEST_URI", "").partition("?")[0].encode("latin-1") or path,
            "root_path": "",
            "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("service", 80),
        }
        sent: list[dict[str, Any]] = []
        received = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(received, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.transport.app(scope, receive, send)  # type: ignore[arg-type]
        shown = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
        return sent[0]["status"], shown, b"".join(message.get("body", b"") for message in sent[1:])

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@dataclass
class Stage:
    """The service behind the bridge, and its people by what they are."""

    bridge: Bridge
    running: Running
    people: dict[str, Member]


@contextmanager
def on_stage(url: str) -> Generator[Stage, None, None]:
    bridge = Bridge()
    opened: list[Any] = []
    done = threading.Event()

    async def live() -> None:
        async with serving(url, settings=UNLIMITED.model_copy(update={"secret_key": SecretStr(new_key())})) as running:
            admin, read = await running.enrol(SLUG, "admin", "read")
            await running.enrol("other-cloud", "write")
            async with change(running.service.database, OPERATOR) as making:
                gateway = Member(await gateways.create(making.connection, "router", making.now_us))
            transport = running.http._transport
            assert isinstance(transport, httpx.ASGITransport)
            bridge.transport = transport
            closing = asyncio.Event()
            people = {"admin": admin, "read": read, "gateway": gateway}
            opened.extend([running, people, closing])
            done.set()
            await closing.wait()

    living = asyncio.run_coroutine_threadsafe(live(), bridge.loop)
    living.add_done_callback(lambda _: done.set())
    done.wait(60)
    if living.done():
        living.result()
    running, people, closing = opened
    try:
        yield Stage(bridge, running, people)
    finally:
        bridge.loop.call_soon_threadsafe(closing.set)
        living.result(60)
        bridge.stop()


async def supplied(running: Running) -> dict[str, list[str]]:
    """Things to change and delete, made anew; their names by the parameters that take them."""
    database = running.service.database
    async with change(database, OPERATOR) as opened:
        organisation_id = await organisations.find_organisation(opened.connection, SLUG)
        places = [opened.revision * 100 + place for place in range(SUPPLY)]
        # Of both statuses, so that whichever is asked for changes some.
        filters = [
            Item("text-to-image", "ours", tags=("lora", f"n-{place}"), adapter_type="lora", status=status)
            for place, status in zip(places, itertools.cycle(get_args(Status)), strict=False)
        ]
        made = [(await store.create(opened, SLUG, each)).id for each in filters]
        names = [f"spare-{place}" for place in places]
        members = [await organisations.add_member(opened, organisation_id, name, "write") for name in names]
        issued = [(await organisations.issue_token(opened, each, "ci", "read")).record.id for each in members]
        for hook in await webhooks.of_provider(opened.connection, SLUG):
            await webhooks.remove(opened, hook)
        hooks = [
            (await webhooks.create(opened, SLUG, "https://example.com/", EVENT_TYPES, running.service.sealer))[0].id
            for _ in range(webhooks.MAX_PER_PROVIDER // 2)
        ]
    return {"mapping_id": made, "member": names, "token_id": issued, "webhook_id": hooks, "org": [SLUG]}


def with_names_that_exist(document: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """The description, with a hint for what is drawn at random: now and then, a name that is there."""
    document = copy.deepcopy(document)
    # Drawn headers are mostly not what these two must be; then nothing else of the request would be looked at.
    headers = {"if-match": ["*"], "idempotency-key": [f"key-{place}" for place in range(SUPPLY)]}
    known = names | headers | {"model_id": MODELS, "inference_provider": [SLUG]}

    def hinted(schema: dict[str, Any], values: Sequence[Any]) -> dict[str, Any]:
        return {"anyOf": [{"enum": values}, schema]}

    for path in document["paths"].values():
        for method, operation in path.items():
            for parameter in operation.get("parameters", []):
                # Others have a provider in the query, which need not be there.
                values = [SLUG] if parameter["name"] == "provider" else known.get(parameter["name"])
                if values:
                    if len(values) >= SUPPLY:
                        # What is deleted is another's, so that it can also be read and changed.
                        values = values[: SUPPLY // 2] if method == "delete" else values[SUPPLY // 2 :]
                    parameter["schema"] = hinted(parameter["schema"], values)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                item = content["schema"].get("properties", {}).get("models", {}).get("items", content["schema"])
                for kind in item.get("oneOf", []):
                    properties = kind["properties"]
                    single = "hfModel" in properties
                    # Only a few tasks go with a model or tags at all.
                    properties["task"]["enum"] = ["conversational"] if single else ["text-to-image"]
                    name = "hfModel" if single else "tags"
                    properties[name] = hinted(properties[name], MODELS if single else [FLUX_LORA])
    return document


def fuzz(stage: Stage, caller: str, seed: int, path: str | None = None) -> tuple[int, list[str]]:
    """How many requests were made, of this path or of all, and what was found."""
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import events as told
    from schemathesis.engine import from_schema

    app: Any = stage.bridge.transport.app if stage.bridge.transport else None
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "base-url": "http://service",
            "continue-on-failure": True,
            "suppress-health-check": ["all"],  # of drawing: our patterns are strict, so that much is drawn in vain
            "headers": stage.people[caller].headers if caller in stage.people else {},
            "generation": {
                "max-examples": EXAMPLES or DRAWN[caller],
                "no-shrink": True,
                "database": "none",
                "with-security-parameters": False,
            },
            # A request can be well formed and still break a rule of the guide, which the description cannot tell.
            # What is refused without a token, the isolation table tells; this check cannot ask a WSGI application.
            "checks": {
                "positive_data_acceptance": {"expected-statuses": WELL_FORMED},
                "ignored_auth": {"enabled": False},
            },
        }
    )
    names = stage.bridge.run(supplied(stage.running))
    document = with_names_that_exist(app.openapi(), names)
    for operation in document["paths"]["/api/usage"].values():
        # With it, bad items are left out of what is taken in, which the check would call a bad request accepted.
        operation["parameters"] = [each for each in operation["parameters"] if each["name"] != "partial"]
    schema = schemathesis.openapi.from_dict(document, config=config)
    if path is not None:
        schema = schema.include(path=path)
    schema.app = stage.bridge
    count = 0
    found: dict[str, None] = {}
    for event in from_schema(schema).execute():
        if isinstance(event, told.ScenarioFinished):
            count += len(event.recorder.interactions)
            for case_id, nodes in event.recorder.checks.items():
                case = event.recorder.cases[case_id].value
                if "#" in case.formatted_path:
                    continue  # it is drawn unquoted now and then, and there a client cuts: another path was asked
                for node in nodes:
                    if node.failure_info is not None:
                        failure = node.failure_info.failure
                        what = f"{failure.title}: {failure.message}: {case.as_curl_command()}"
                        found[f"{event.phase.value}: {case.method} {case.path}: {what}"] = None
        elif isinstance(event, told.NonFatalError | told.FatalError):
            found[f"error: {event.info if isinstance(event, told.NonFatalError) else event.exception}"] = None
    return count, list(found)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.timeout(0 if LONG else 900)
def test_the_service_is_what_its_openapi_says(fresh_database):
    total = 0
    for caller, at_least in AT_LEAST.items():
        url = fresh_database()
        with on_stage(url) as stage:
            count = 0
            while count < at_least:
                made, found = fuzz(stage, caller, SEED + count)
                assert not found, "\n".join(found[:20])
                assert made > 0
                count += made
            statuses = stage.bridge.statuses
            assert not [status for status in statuses if status >= 500]
            # One that is refused everything, or reaches nothing, would show nothing.
            assert {200, 400, 404, 405} <= set(statuses)
            assert {201, 202, 204, 409} <= set(statuses) if caller == "admin" else 201 not in statuses
            stage.bridge.run(consistent(stage.running, url, caller))
            total += sum(statuses.values())
    assert total >= 5000


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.timeout(0 if LONG else 300)
def test_usage_is_taken_in_as_the_openapi_says(fresh_database):
    with on_stage(fresh_database()) as stage:
        made, found = fuzz(stage, "gateway", SEED, "/api/usage")
        assert not found, "\n".join(found[:20])
        assert made >= DRAWN["gateway"]
        statuses = stage.bridge.statuses
        assert {200, 400, 405, 422} <= set(statuses)
        assert not [status for status in statuses if status >= 500]


async def consistent(running: Running, url: str, caller: str) -> None:
    """After all that: the view is what a new one reads, and the audit log accounts for every mapping there is."""
    assert held(await running.service.view.fresh()) == await fresh_copy(url)
    async with running.service.database.reading() as connection:
        there = set((await connection.execute(sa.select(mappings.c.id))).scalars())
        lines = (await connection.execute(sa.select(audit).where(audit.c.action.like("mapping.%")))).all()
        of_mappings = sa.select(events.c.type, events.c.mapping_id).where(events.c.mapping_id.is_not(None))
        happened = (await connection.execute(of_mappings)).all()
    state: dict[str, Any] = {}
    for line in sorted(lines, key=lambda one: one.id):
        assert state.get(line.subject) == line.before
        state[line.subject] = line.after
    assert {id for id, after in state.items() if after is not None} == there
    assert Counter((line.action, line.subject) for line in lines) == Counter(
        (event.type, event.mapping_id) for event in happened
    )
    by_callers = {line.action for line in lines if line.actor != OPERATOR.name}
    if caller == "admin":
        assert {"mapping.created", "mapping.status_changed", "mapping.removed"} <= by_callers
    else:
        assert not by_callers
