"""Files with every variance: written as they are found, and put in place when they are whole."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from roadworthy.billing.cells import cell
from roadworthy.billing.prices import usd
from roadworthy.billing.reconcile.outcome import Sink
from roadworthy.billing.reconcile.report import FIELDS
from roadworthy.billing.reconcile.text import iso
from roadworthy.billing.reconcile.variance import Variance
from roadworthy.errors import UsageError

PARQUET_ROWS = 50_000
"""Rows of one group: what is in memory at once."""
_MOST, _LEAST = 2**63 - 1, -(2**63)


@contextmanager
def sinks(csv_path: Path | None, parquet_path: Path | None) -> Iterator[Sink | None]:
    """Something that writes each variance to the files that are wanted; None where none is.

    Raises `UsageError` where a file cannot be written, or pyarrow is not there.
    """
    with ExitStack() as opened:
        writers: list[Sink] = []
        if csv_path is not None:
            writers.append(opened.enter_context(_csv(csv_path)))
        if parquet_path is not None:
            writers.append(opened.enter_context(_parquet(parquet_path)))
        if not writers:
            yield None
            return

        def write(one: Variance) -> None:
            for each in writers:
                each(one)

        yield write


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when all is written. Raises `UsageError`."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        os.replace(part, path)  # noqa: PTH105  it says what is meant
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _csv(path: Path) -> Iterator[Sink]:
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FIELDS, "served_at", "amount_usd"])

        def write(one: Variance) -> None:
            served_at = "" if one.served_at_us is None else iso(one.served_at_us)
            amount = "" if one.amount_nano_usd is None else usd(one.amount_nano_usd)
            writer.writerow([*(cell(name, getattr(one, name)) for name in FIELDS), served_at, amount])

        yield write


@contextmanager
def _parquet(path: Path) -> Iterator[Sink]:
    import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    kinds = {int: pa.int64(), str: pa.string()}
    numbers = {name for name in FIELDS if name.endswith(("_us", "_nano_usd"))}
    schema = pa.schema([(name, kinds[int if name in numbers else str]) for name in FIELDS])
    with whole_file(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        def write(one: Variance) -> None:
            rows.append({name: _bounded(name, getattr(one, name)) for name in FIELDS})
            if len(rows) >= PARQUET_ROWS:
                flush()

        yield write
        if rows:
            flush()


def _bounded(name: str, value: Any) -> Any:
    """An integer that 64 bits hold. An expected cost beyond them is a nonsense of units that no file should hide."""
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        raise UsageError(f"{name} is {value}, which 64 bits do not hold; write the variances with --csv instead")
    return str(value) if name == "kind" else value
