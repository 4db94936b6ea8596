"""Backup and restore: every row, in a file that either kind of database can take.

The file is gzip'd lines of JSON: a header, the rows of each table in the header's order (each
a list in the order of its columns), and a trailer with the SHA-256 of all lines before it. A
JSON column travels as the text it was stored as, so that nothing in it is read as anything else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection

import roadworthy
from roadworthy.database.failures import shown_url, told_all
from roadworthy.database.migrate import (
    check_known,
    current_revision,
    hold_off_migrations,
    known_revisions,
    opened,
    step,
    take_turn,
    told_os,
)
from roadworthy.database.status import count_rows
from roadworthy.database.status import tables as table_names
from roadworthy.errors import RoadworthyError, UsageError

_FORMAT = "roadworthy-backup"
_VERSION = 1
_BATCH_ROWS = 500
_MOST_LINE_BYTES = 256 * 2**20
"""No row of ours is near this; a file with such a line is not ours and must not fill the memory."""
_KINDS: list[tuple[type[sa.types.TypeEngine[Any]], str]] = [
    (sa.Boolean, "boolean"),
    (sa.Integer, "integer"),
    (sa.Float, "float"),
    (sa.JSON, "json"),
    (sa.String, "text"),
    (sa.LargeBinary, "bytes"),
]
_WIRE = {"boolean": bool, "integer": int, "float": float, "json": str, "text": str, "bytes": str}
"""What each kind of value is in the file, where it is not null."""


class BackupError(UsageError):
    """A file that is no backup, is damaged, or is newer; or a database that a backup cannot go into."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup holds. `left_out`: tables of the database that are not roadworthy's."""

    revision: str
    rows: dict[str, int]
    created_at_s: int
    version: str
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The tables of a revision: the kind of each column, and the rows that the migrations themselves put there."""

    tables: dict[str, dict[str, str]]
    seeds: dict[str, list[list[Any]]]


def backup(url: URL, path: Path) -> Summary:
    """Write every row of the database to `path`, as of one moment; a service may go on writing meanwhile.

    The file appears whole or not at all, for its owner's eyes alone. Raises `BackupError`, `ConfigError` and
    `DatabaseUnavailableError`.
    """
    _check_replaceable(path)
    with opened(url) as connection:
        hold_off_migrations(connection)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        revision = current_revision(connection)
        check_known(revision)
        if revision is None:
            raise BackupError(f"{shown_url(url)} has no tables of roadworthy; there is nothing to back up")
        layout = _layout(revision)
        left_out = _check_tables(connection, layout, revision)
        rows = {table: count_rows(connection, table) for table in layout.tables}
        summary = Summary(revision, rows, int(time.time()), roadworthy.__version__, left_out)
        with _whole(path) as out:
            digest = hashlib.sha256()
            for line in _lines(connection, layout, summary):
                digest.update(line)
                out.write(line)
            out.write(_line({"sha256": digest.hexdigest()}))
    return summary


def restore(url: URL, path: Path) -> Summary:
    """Load a backup into a database without rows of its own, and bring it to this version's revision.

    All in one transaction: whatever goes wrong, even a kill, leaves the database as empty as it was. Raises
    `BackupError`, `ConfigError` and `DatabaseUnavailableError`.
    """
    with told_os(path), path.open("rb") as file:
        backup_file = _BackupFile(path, file)
        summary = backup_file.summary
        layout = _layout(summary.revision)
        if {table: list(columns) for table, columns in layout.tables.items()} != backup_file.columns:
            raise BackupError(f"{path} does not have the tables and columns of revision {summary.revision}")
        with told_all(url), opened(url, make=True) as connection:
            take_turn(connection)
            _check_empty(connection, url)
            if current_revision(connection) != summary.revision:
                step(connection, "base", back=True)
                step(connection, summary.revision)
            with _unguarded(connection, layout):
                for table, columns in layout.tables.items():
                    _load(connection, table, columns, layout.seeds[table], backup_file)
                backup_file.end()
            _check_references(connection, path)
            step(connection, "head")
            _advance_counters(connection)
            connection.commit()
    return summary


def _layout(revision: str) -> _Layout:
    """The tables of a revision, seen in a database in memory that is migrated to it."""
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            step(connection, revision)
            inspector = sa.inspect(connection)
            tables = {
                table: {column["name"]: _kind(table, column) for column in inspector.get_columns(table)}
                for table in table_names(connection)
            }
            seeds = {table: list(_rows(connection, table, columns)) for table, columns in tables.items()}
            return _Layout(tables, seeds)
    finally:
        engine.dispose()


def _kind(table: str, column: Any) -> str:
    for type_, kind in _KINDS:
        if isinstance(column["type"], type_):
            return kind
    raise RoadworthyError(f"a backup cannot hold a column like {table}.{column['name']} ({column['type']})")


def _check_tables(connection: Connection, layout: _Layout, revision: str) -> list[str]:
    inspector = sa.inspect(connection)
    live = set(table_names(connection))
    for table, columns in layout.tables.items():
        there = {column["name"] for column in inspector.get_columns(table)} if table in live else set()
        if there != set(columns):
            raise BackupError(
                f"the table {table} is not as revision {revision} made it: expected the columns "
                f"{', '.join(columns)}; found {', '.join(sorted(there)) or 'none'}"
            )
    return sorted(live - set(layout.tables))


def _rows(connection: Connection, table: str, columns: dict[str, str]) -> Iterator[list[Any]]:
    """The rows as the file has them, a batch in memory at a time."""
    chosen = [
        sa.cast(sa.column(name), sa.Text).label(name) if kind == "json" else sa.column(name)
        for name, kind in columns.items()
    ]
    statement = sa.select(*chosen).select_from(sa.table(table))
    with connection.execute(statement, execution_options={"yield_per": _BATCH_ROWS}) as found:
        for row in found:
            yield [_wired(table, name, kind, value) for (name, kind), value in zip(columns.items(), row, strict=True)]


def _wired(table: str, column: str, kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "boolean" and value in {0, 1}:
        return bool(value)  # SQLite has only numbers
    if kind == "bytes" and isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if type(value) is not _WIRE[kind]:
        # SQLite takes any value in any column.
        raise BackupError(f"{table}.{column} holds {type(value).__name__} where {kind} belongs; mend that row first")
    return value


def _lines(connection: Connection, layout: _Layout, summary: Summary) -> Iterator[bytes]:
    yield _line(
        {
            "format": _FORMAT,
            "format_version": _VERSION,
            "roadworthy_version": summary.version,
            "created_at_s": summary.created_at_s,
            "revision": summary.revision,
            "tables": [
                {"name": table, "columns": list(columns), "rows": summary.rows[table]}
                for table, columns in layout.tables.items()
            ],
        }
    )
    for table, columns in layout.tables.items():
        for row in _rows(connection, table, columns):
            yield _line(row)


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _check_replaceable(path: Path) -> None:
    """A file that is there is replaced only if it is a backup: the database itself must not be."""
    if path.is_dir():
        raise BackupError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise BackupError(f"the folder of {path} does not exist; make it or name another place")
    if path.exists() and path.stat().st_size:
        with told_os(path), path.open("rb") as file:
            try:
                _BackupFile(path, file)
            except BackupError:
                raise BackupError(f"{path} exists and is not a backup of roadworthy; name another file") from None


@contextmanager
def _whole(path: Path) -> Iterator[gzip.GzipFile]:
    """A compressed file that has its name only once all of it is on the disk."""
    with told_os(path):
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file) as out:
                    yield out
                file.flush()
                os.fsync(file.fileno())
            Path(partial).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(partial).unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the name, too, outlives a power cut
        finally:
            os.close(folder)


class _BackupFile:
    """A backup, read from its header to its trailer."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """Reads the header. Raises `BackupError`."""
        self._path = path
        self._lines = gzip.GzipFile(fileobj=file)
        self._digest = hashlib.sha256()
        try:
            header = self._read()
        except BackupError:
            raise BackupError(f"{path} is not a backup of roadworthy") from None
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise BackupError(f"{path} is not a backup of roadworthy")
        made_by = header.get("roadworthy_version")
        if header.get("format_version") != _VERSION or header.get("revision") not in known_revisions():
            raise BackupError(
                f"{path} was made by another roadworthy, {made_by}: its format is {header.get('format_version')} and "
                f"its revision {header.get('revision')!r}; this is {roadworthy.__version__}, which reads format "
                f"{_VERSION} and revisions up to {known_revisions()[0]}. Restore it with that version or a newer one"
            )
        try:
            self.columns: dict[str, list[str]] = {table["name"]: table["columns"] for table in header["tables"]}
            rows = {str(table["name"]): int(table["rows"]) for table in header["tables"]}
            self.summary = Summary(str(header["revision"]), rows, int(header["created_at_s"]), str(made_by))
        except (KeyError, TypeError, ValueError):
            raise BackupError(f"{path} is damaged: its header is not whole") from None

    def rows(self, table: str, columns: dict[str, str]) -> Iterator[list[Any]]:
        """The next table's rows, each value of its column's kind."""
        kinds = [_WIRE[kind] for kind in columns.values()]
        for _ in range(self.summary.rows[table]):
            row = self._read()
            if not isinstance(row, list) or len(row) != len(kinds):
                raise self._damaged(f"a row of {table} is missing")
            for value, kind in zip(row, kinds, strict=True):
                if value is not None and type(value) is not kind:
                    raise self._damaged(
                        f"a row of {table} has a {type(value).__name__} where a {kind.__name__} belongs"
                    )
            yield row

    def end(self) -> None:
        """Raises `BackupError` unless what was read is all, and as it was written."""
        digest = self._digest.hexdigest()
        if self._read() != {"sha256": digest}:
            raise self._damaged("the checksum at its end is not that of its rows")
        if self._raw(1):
            raise self._damaged("something follows its end")

    def check_rest(self) -> None:
        """Raises `BackupError` if the lines not yet read, or those before, are not as they were written."""
        while True:
            digest = self._digest.hexdigest()
            line = self._read()
            if isinstance(line, dict):
                if line != {"sha256": digest}:
                    raise self._damaged("the checksum at its end is not that of its rows")
                return

    def _read(self) -> Any:
        line = self._raw(_MOST_LINE_BYTES)
        self._digest.update(line)
        if not line.endswith(b"\n"):
            raise self._damaged("it is cut off")
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise self._damaged("a line is not JSON") from None

    def _raw(self, most_bytes: int) -> bytes:
        try:
            return self._lines.readline(most_bytes)
        except EOFError:
            raise self._damaged("it is cut off") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, what: str) -> BackupError:
        return BackupError(f"{self._path} is damaged: {what}. Nothing of it was restored; use another backup")


def _check_empty(connection: Connection, url: URL) -> None:
    """Raises `BackupError` for a database with rows, or with tables, that the migrations did not put there."""
    current = current_revision(connection)
    check_known(current)
    layout = _layout(current) if current is not None else _Layout({}, {})
    live = set(table_names(connection))
    if strange := sorted(live - set(layout.tables)):
        raise BackupError(f"{shown_url(url)} has tables that are not roadworthy's ({', '.join(strange)}); {_NEW}")
    if connection.dialect.name == "postgresql" and live:
        names = ", ".join(f'"{table}"' for table in sorted(live))
        connection.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")  # nobody fills it meanwhile
    for table, columns in layout.tables.items():
        seeds = layout.seeds[table]
        found = list(islice(_rows(connection, table, columns), len(seeds) + 1))
        if sorted(map(repr, found)) != sorted(map(repr, seeds)):
            raise BackupError(f"{shown_url(url)} is in use: its table {table} has rows; {_NEW}")


_NEW = "a backup is never mixed with what is there. Restore into a new database"


@contextmanager
def _unguarded(connection: Connection, layout: _Layout) -> Iterator[None]:
    """Without triggers and foreign keys, since rows come in no special order and were checked when first written."""
    if connection.dialect.name == "sqlite":  # its foreign keys are off during migrations already
        triggers = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
        before = [f'DROP TRIGGER "{name}"' for name, _ in triggers]
        after = [sql for _, sql in triggers]
    else:
        keys = connection.exec_driver_sql(
            "SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"
        ).all()
        before = [f"ALTER TABLE {table} DROP CONSTRAINT {name}" for table, name, _ in keys]
        after = [f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}" for table, name, definition in keys]
        before += [f'ALTER TABLE "{table}" DISABLE TRIGGER USER' for table in layout.tables]
        after += [f'ALTER TABLE "{table}" ENABLE TRIGGER USER' for table in layout.tables]
    for statement in before:
        connection.exec_driver_sql(statement)
    yield
    for statement in after:
        connection.exec_driver_sql(statement)


def _load(
    connection: Connection, table: str, columns: dict[str, str], seeds: list[list[Any]], source: _BackupFile
) -> None:
    if seeds:
        connection.execute(sa.delete(sa.table(table)))
    names = ", ".join(f'"{name}"' for name in columns)
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    statement = f'INSERT INTO "{table}" ({names}) VALUES ({", ".join([mark] * len(columns))})'  # noqa: S608 - our own names
    binary = [index for index, kind in enumerate(columns.values()) if kind == "bytes"]
    rows = source.rows(table, columns)
    while batch := list(islice(rows, _BATCH_ROWS)):
        for row in batch:
            for index in binary:
                row[index] = None if row[index] is None else base64.b64decode(row[index])
        try:
            connection.exec_driver_sql(statement, [tuple(row) for row in batch])
        except (sa.exc.DataError, sa.exc.IntegrityError, OverflowError) as error:
            source.check_rest()  # a damaged file is told from one that does not fit
            reason = str(getattr(error, "orig", error)).partition("\n")[0]
            raise BackupError(f"this database does not take a row of {table}: {reason}") from None


def _check_references(connection: Connection, path: Path) -> None:
    if connection.dialect.name == "sqlite" and (
        broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    ):
        raise BackupError(f"{path} is damaged: a row of {broken[0]} names a row of {broken[2]} that is not there")


def _advance_counters(connection: Connection) -> None:
    """PostgreSQL's sequences go on after the highest number there is; SQLite's tables do so by themselves."""
    if connection.dialect.name != "postgresql":
        return
    counters = connection.exec_driver_sql(
        # First our own columns, then their sequences: in one step the server may ask for those of its own views, too.
        "WITH ours AS MATERIALIZED (SELECT quote_ident(table_name) AS place, column_name "
        "FROM information_schema.columns WHERE table_schema = current_schema()) "
        "SELECT place, quote_ident(column_name), pg_get_serial_sequence(place, column_name) "
        "FROM ours WHERE pg_get_serial_sequence(place, column_name) IS NOT NULL"
    ).all()
    for table, column, sequence in counters:
        # The names are the catalogue's own, quoted by it.
        advance = f"SELECT setval('{sequence}', coalesce(max({column}), 1), max({column}) IS NOT NULL) FROM {table}"  # noqa: S608
        connection.exec_driver_sql(advance)
