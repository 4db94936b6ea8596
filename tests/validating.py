"""What tests of the validator share: providers with mappings, a provider that can be switched, validators to kill."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pkgutil
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import roadworthy.conformance
import roadworthy.sandbox
from roadworthy.cli import main
from roadworthy.database import Database
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.records import Item, Mapping
from roadworthy.mapping_api.store import mappings, organisations
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.catalogue import load
from roadworthy.sandbox.mutation import FAULTS
from roadworthy.sealing import Sealer
from roadworthy.validator.engine import ACTOR, Engine, Prober
from roadworthy.validator.publish import Finished, Policy, Publication
from roadworthy.validator.service import Validator
from roadworthy.validator.settings import ValidatorSettings
from roadworthy.validator.store import endpoints
from roadworthy.validator.store.endpoints import Wanted

load()
PROCESSES = multiprocessing.get_context("forkserver")
"""Its children are forked from a process that has imported everything: they are at work within a tenth of a second."""
PROCESSES.set_forkserver_preload(
    [
        "roadworthy.cli.serve",
        "roadworthy.validator.service",
        "roadworthy.billing.collector",
        "roadworthy.sandbox.app",
        *(
            module.name
            for package in (roadworthy.conformance, roadworthy.sandbox)
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
            if re.search(r"\.(checks|probes|reading|faults|variations)\b", module.name)
        ),
    ]
)


def _serve(arguments: Sequence[str], out: Connection) -> None:
    os.dup2(out.fileno(), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.argv = ["roadworthy", "serve", *arguments]
    main()


@contextmanager
def served(*arguments: str) -> Iterator[tuple[BaseProcess, str]]:
    """`roadworthy serve` on a free port, as a process with everything imported; the process, to kill, and its URL."""
    told, out = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_serve, args=(["--port", "0", *arguments], out))
    process.start()
    out.close()
    try:
        with open(told.fileno(), encoding="utf-8", closefd=False) as lines:
            yield process, lines.readline().strip()
    finally:
        process.kill()
        process.join()
        told.close()


async def publish(database: Database, policy: Policy, finished: Sequence[Finished]) -> int:
    """Publish runs as one change. Returns how many counted."""
    async with change(database, ACTOR) as opened:
        return await Publication(opened, policy).publish(finished)


async def validate_once(database: Database, prober: Prober, policy: Policy) -> int:
    """Run all that is due now and may begin, together, and publish it together. Returns how many runs counted."""
    claims = await Engine(database, policy).claim()
    if not claims:
        return 0
    outcomes = await asyncio.gather(*(prober(mapping) for _, mapping in claims))
    return await publish(
        database, policy, [Finished(claim, each) for (claim, _), each in zip(claims, outcomes, strict=True)]
    )


async def provider_with_mappings(
    database: Database,
    provider: str,
    base_url: str | None,
    items: list[Item],
    *,
    max_running: int = 4,
    key: str | None = None,
    sealer: Sealer | None = None,
) -> list[Mapping]:
    """A provider with its API registered, and these mappings."""
    async with change(database, OPERATOR) as opened:
        organisation_id = await organisations.create_organisation(opened, provider)
        await organisations.create_provider(opened, provider, organisation_id)
        if base_url is not None:
            wanted = Wanted(base_url, key, max_running=max_running)
            await endpoints.register(opened, sealer or Sealer(None), provider, wanted)
        return [await mappings.create(opened, provider, item) for item in items]


def chats(count: int) -> list[Item]:
    """So many chat models, each with a name of its own at the provider."""
    return [Item("conversational", f"acme/chat-{n}", hf_model=f"owner/chat-{n}", status="live") for n in range(count)]


def embeddings(count: int) -> list[Item]:
    """So many models that cost three requests each."""
    return [
        Item("feature-extraction", "acme/feature-extraction", hf_model=f"owner/embed-{n}", status="live")
        for n in range(count)
    ]


class Providers:
    """Several providers behind one server, at /NAME/v1; each can be given faults, or slowed down, at any time."""

    def __init__(self, *names: str, delay_s: float = 0.0) -> None:
        self._options = Options(models=tuple(f"acme/chat-{n}" for n in range(64)), all_tasks=True)
        self._sandboxes = {name: Sandbox((), self._options) for name in names}
        self.delay_s = delay_s
        self.asked: Counter[str] = Counter()
        self.keys: dict[str, set[str | None]] = {name: set() for name in names}
        self._in_flight: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.most_models: Counter[str] = Counter()
        """The most models of each provider that were asked at the same time."""

    def give(self, name: str, *faults: str) -> None:
        """From now on the provider has these faults and no others."""
        self._sandboxes[name] = Sandbox([FAULTS[fault] for fault in faults], self._options)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        name = scope["path"].split("/")[1]
        self.asked[name] += 1
        headers = dict(scope["headers"])
        self.keys[name].add(headers[b"authorization"].decode() if b"authorization" in headers else None)
        message = await receive()
        model = json.loads(message["body"] or b"{}").get("model", "")
        models = self._in_flight[name]
        models[model] += 1
        self.most_models[name] = max(self.most_models[name], sum(1 for each in models if each and models[each]))
        first = [message]

        async def again() -> Any:
            return first.pop() if first else await receive()

        try:
            await asyncio.sleep(self.delay_s)
            inner = {**scope, "path": scope["path"].removeprefix(f"/{name}"), "raw_path": b""}
            await self._sandboxes[name](inner, again, send)
        finally:
            models[model] -= 1


def _validate(url: str, settings: dict[str, Any], log: str | None, started: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_validate_until_told(url, ValidatorSettings(**settings), log, started))


async def _validate_until_told(url: str, settings: ValidatorSettings, log: str | None, started: Any) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database = Database(url)
    validator = Validator(database, Sealer(None), settings, allow_private=True)
    if log is not None:
        asked = validator.worker._prober

        async def noted(mapping: Mapping) -> Any:
            begun = time.monotonic_ns()
            try:
                return await asked(mapping)
            finally:
                line = json.dumps([mapping.provider, mapping.id, begun, time.monotonic_ns(), os.getpid()]) + "\n"
                with open(log, "a", encoding="utf-8") as file:  # noqa: ASYNC230, PTH123  one short line
                    file.write(line)

        validator.worker._prober = noted
    async with validator:
        started.set()
        await stop.wait()
    await database.close()


@contextmanager
def validating(url: str, settings: dict[str, Any], log: str | None = None) -> Iterator[Any]:
    """A process with a validator, which has just begun, killed at the end unless it has ended."""
    started = PROCESSES.Event()
    process = PROCESSES.Process(target=_validate, args=(url, settings, log, started))
    process.start()
    try:
        assert started.wait(60)
        yield process
    finally:
        process.kill()
        process.join()
        process.close()
