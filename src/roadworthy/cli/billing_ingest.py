"""`roadworthy billing ingest`: usage from files, a batch at a time, into the database or to a service.

Nothing is kept of how far a file was read: an item that is stored already is known when it is told again, so a run
that was cut off at any moment is made whole by running it again.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import sqlalchemy as sa
import typer

from roadworthy import strict_json
from roadworthy.billing.items import ItemReader, wire_name
from roadworthy.billing.records import Served
from roadworthy.billing.store import endpoints, usage
from roadworthy.cli.billing_uses import item_of
from roadworthy.cli.operator import read
from roadworthy.cli.options import Where
from roadworthy.cli.service_client import Service, harmless
from roadworthy.conformance import recording
from roadworthy.conformance.usage import uses
from roadworthy.database import Database
from roadworthy.errors import UsageError
from roadworthy.mapping_api.tables import providers

BATCH_LINES = 5000
BATCH_BYTES = 4 * 1024 * 1024
"""A batch ends at whichever comes first, so that memory stays flat whatever the lines are."""
MAX_LINE_BYTES = 1024 * 1024
SHOWN_BAD_LINES = 10
TOLD_EVERY_S = 10.0
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Options:
    """How files are taken in. `provider`, `payer` and `model` are for recordings alone."""

    provider: str | None = None
    payer: str = "org:roadworthy"
    model: str | None = None
    late: bool = False
    rejects: Path | None = None
    quiet: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one batch. `conflicts` and `rejected` say by position why."""

    new: int = 0
    known: int = 0
    conflicts: Mapping[int, str] = field(default_factory=dict)
    rejected: Mapping[int, str] = field(default_factory=dict)


class Sink(Protocol):
    """Where items go."""

    async def put(self, items: Sequence[Any]) -> Outcome:
        """Store what can be stored of the items, for good."""


class DatabaseSink:
    """Straight into the database, a transaction a batch."""

    def __init__(self, database: Database, known: frozenset[str], *, late: bool) -> None:
        """`known` are the providers' slugs."""
        self._database = database
        self._known = known
        self._late = late

    @classmethod
    async def open(cls, database: Database, *, late: bool) -> DatabaseSink:
        """A sink that knows the providers that are registered now."""
        async with database.reading() as connection:
            known = set((await connection.execute(sa.select(providers.c.slug))).scalars())
            known |= {each.provider for each in await endpoints.list_all(connection)}
        return cls(database, frozenset(known), late=late)

    async def put(self, items: Sequence[Any]) -> Outcome:
        """See `Sink`. Raises `DatabaseUnavailableError`."""
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            reader = ItemReader(self._known, now_us, late=self._late)
            served, places, rejected = [], [], {}
            for place, item in enumerate(items):
                made = reader.read(item)
                if isinstance(made, Served):
                    served.append(made)
                    places.append(place)
                else:
                    rejected[place] = "; ".join(map(str, made))
            taken = await usage.take_in(connection, served, now_us, "file")
        conflicts = {
            places[place]: _conflict(served[place].request_id, map(wire_name, taken.differing[place]))
            for place in taken.conflicts
        }
        return Outcome(taken.new, taken.known, conflicts, rejected)


def _conflict(request_id: str, fields: Iterator[str] | Sequence[str]) -> str:
    return f"{harmless(request_id)} was told before with other contents, which stand; it differs in {', '.join(fields)}"


class ServiceSink:
    """To a service, by HTTP."""

    def __init__(self, post: Callable[[Sequence[Any]], Any]) -> None:
        """`post` sends items and gives the service's answer, an object."""
        self._post = post

    async def put(self, items: Sequence[Any]) -> Outcome:
        """See `Sink`. Raises `UndecidedError` and `UsageError`."""
        told = await self._post(items)
        try:
            conflicts = {one["position"]: _conflict(one["requestId"], one["fields"]) for one in told["conflicts"]}
            rejected: dict[int, str] = {}
            for one in told["rejected"]:
                said = f"{one['field'] + ': ' if one['field'] else ''}expected {one['expected']}; got {one['got']}"
                rejected[one["position"]] = "; ".join(filter(None, (rejected.get(one["position"]), harmless(said))))
            outcome = Outcome(told["new"], told["known"], conflicts, rejected)
            whole = told["new"] + told["known"] + len(conflicts) + len(rejected) == len(items)
        except (KeyError, TypeError):
            whole = False
        if not whole:
            raise UsageError("--url: what answers there does not account for each item; is it a roadworthy service?")
        return outcome


@dataclass(slots=True)
class Batch:
    """Items with the lines that they came from; `read_bytes` is how far their file was read then."""

    file: str
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    bad: list[tuple[int, bytes, str]] = field(default_factory=list)
    size: int = 0
    read_bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether it is time to store it."""
        return self.size >= BATCH_BYTES or len(self.lines) + len(self.bad) >= BATCH_LINES

    def take(self, number: int, text: bytes, item: Any) -> None:
        """Add an item."""
        self.lines.append((number, text))
        self.items.append(item)
        self.size += len(text)

    def refuse(self, number: int, text: bytes, reason: str) -> None:
        """Add a line that holds no item."""
        self.bad.append((number, text, reason))
        self.size += len(text)


class Input:
    """One file, or standard input as "-"; unpacked where it is gzip."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        """Opens it. Raises `UsageError`."""
        self.name = name
        try:
            raw = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))  # noqa: PTH123, SIM115
            self.total_bytes = 0 if name == "-" else Path(name).stat().st_size
        except OSError as error:
            raise UsageError(f"{name}: cannot be read: {error.strerror}") from None
        self._raw = raw
        self._counted = _Counted(raw)
        buffered = io.BufferedReader(self._counted, 1024 * 1024)
        packed = buffered.peek(2)[:2] == _GZIP
        self._text: io.BufferedIOBase = gzip.GzipFile(fileobj=buffered) if packed else buffered

    def is_file(self, path: Path) -> bool:
        """Whether that path names the regular file that this reads, under whatever name; standard input may be one."""
        try:
            ours, other = os.fstat(self._raw.fileno()), path.stat()
        except OSError:  # not there, or no file at all
            return False
        return stat.S_ISREG(ours.st_mode) and os.path.samestat(ours, other)

    @property
    def read_bytes(self) -> int:
        """How far the file was read, before unpacking."""
        return self._counted.count

    def lines(self) -> Iterator[tuple[int, bytes, bool]]:
        """The lines with their numbers, and whether each came whole. Raises `UsageError` for a damaged file."""
        number = 0
        try:
            while line := self._text.readline(MAX_LINE_BYTES + 1):
                number += 1
                whole = len(line) <= MAX_LINE_BYTES
                yield number, line, whole
                while not whole and line and not line.endswith(b"\n"):
                    line = self._text.readline(MAX_LINE_BYTES)
        except (EOFError, zlib.error, OSError) as error:
            raise UsageError(
                f"{self.name}: it is damaged after line {number}: {error}; what came before is taken in"
            ) from None

    def rest(self) -> bytes:
        """All that is left. Raises `UsageError` for a damaged file."""
        try:
            return self._text.read()
        except (EOFError, zlib.error, OSError) as error:
            raise UsageError(f"{self.name}: it is damaged: {error}") from None


class _Counted(io.RawIOBase):
    """A file that counts what was read of it."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner = inner
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece: bytes = getattr(self._inner, "read1", self._inner.read)(len(buffer))
        buffer[: len(piece)] = piece
        self.count += len(piece)
        return len(piece)


def batches(source: Input, options: Options) -> Iterator[Batch]:
    """A file's items, batch by batch. A recording is told by its first line. Raises `UsageError`."""
    batch = Batch(source.name)
    try:
        for number, line, whole in source.lines():
            item = _read(batch, number, line, whole=whole)
            if type(item) is dict and "roadworthy" in item and "facts" in item:
                if batch.lines or batch.bad:
                    raise UsageError(f"{source.name}: a recording begins at line {number}; give it by itself")
                yield from _recorded(source, line + source.rest(), options)
                return
            if item is not _NOTHING:
                batch.take(number, line.strip(), item)
            if batch.full:
                batch.read_bytes = source.read_bytes
                yield batch
                batch = Batch(source.name)
    except UsageError:
        yield batch  # what stands before a damaged place is taken in
        raise
    batch.read_bytes = source.read_bytes
    yield batch


_NOTHING = object()


def _read(batch: Batch, number: int, line: bytes, *, whole: bool) -> Any:
    """A line's value, or `_NOTHING` where there is none; what is wrong with it is noted in the batch."""
    text = line.strip()
    if not whole:
        batch.refuse(number, text[:200], f"the line is longer than {MAX_LINE_BYTES:,} bytes")
    elif text:
        try:
            return strict_json.parse(text)
        except strict_json.JsonTextError as error:
            batch.refuse(number, text, f"the line {error}")
    return _NOTHING


def _recorded(source: Input, text: bytes, options: Options) -> Iterator[Batch]:
    """What a recording's requests used. Its lines are those of the exchanges, the heads among them counted."""
    if options.provider is None:
        raise UsageError(f"{source.name} is a recording, which does not say whose API it is; add --provider SLUG")
    try:
        runs = recording.parse(text.decode(), source.name)
    except UnicodeDecodeError as error:
        raise UsageError(f"{source.name}: it is damaged at byte {error.start}: it is not UTF-8") from None
    batch = Batch(source.name)
    number = 0
    for run in runs:
        number += 1
        for exchange in run.exchanges:
            number += 1
            for use in uses([exchange], run.facts):
                item = item_of(use, options.provider, options.payer, model=options.model)
                batch.take(number, json.dumps(item).encode(), item)
            if batch.full:
                yield batch
                batch = Batch(source.name)
    batch.read_bytes = source.read_bytes
    yield batch


@dataclass(slots=True)
class Sums:
    """What became of all lines."""

    lines: int = 0
    new: int = 0
    known: int = 0
    conflicts: int = 0
    rejected: int = 0

    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.new:,} new, {self.known:,} known, {self.conflicts:,} conflicts, {self.rejected:,} rejected "
            f"of {self.lines:,}"
        )


class Ingest:
    """Takes files in; what one batch needs of the processor is done while the one before is written."""

    def __init__(self, sink: Sink, options: Options, progress: Progress, rejects: IO[str] | None) -> None:
        """`rejects` takes what cannot be stored, as JSON lines."""
        self._sink = sink
        self._options = options
        self._progress = progress
        self._rejects = rejects
        self.sums = Sums()
        self._shown = 0
        self._unlisted = 0

    async def run(self, sources: Sequence[Input]) -> Sums:
        """Take them all in, in order. Raises what the sink does."""
        waiting: asyncio.Task[None] | None = None
        try:
            for source in sources:
                for batch in batches(source, self._options):
                    if waiting is not None:
                        await waiting
                    waiting = asyncio.create_task(self._store(batch))
                    await asyncio.sleep(0)  # so that it begins before the next batch is read
        finally:
            # Also what stands before a damaged place is stored.
            if waiting is not None:
                await waiting
        if self._unlisted:
            typer.echo(f"... and {self._unlisted:,} more; --rejects FILE lists them all", err=True)
        return self.sums

    async def _store(self, batch: Batch) -> None:
        outcome = await self._sink.put(batch.items) if batch.items else Outcome()
        sums = self.sums
        sums.lines += len(batch.items) + len(batch.bad)
        sums.new += outcome.new
        sums.known += outcome.known
        sums.conflicts += len(outcome.conflicts)
        sums.rejected += len(outcome.rejected) + len(batch.bad)
        found = [(*batch.lines[place], reason) for place, reason in {**outcome.conflicts, **outcome.rejected}.items()]
        for number, text, reason in sorted(found + batch.bad):
            self._reject(batch.file, number, text, reason)
        self._progress.tell(batch, sums)

    def _reject(self, file: str, number: int, text: bytes, reason: str) -> None:
        if self._rejects is not None:
            line = {"file": file, "line": number, "error": reason, "text": text.decode(errors="replace")}
            self._rejects.write(json.dumps(line) + "\n")
        elif self._shown < SHOWN_BAD_LINES:
            self._shown += 1
            typer.echo(f"{file}, line {number}: {harmless(reason)}", err=True)
        else:
            self._unlisted += 1


class Progress:
    """How far it is, on standard error: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total_bytes: int, *, quiet: bool) -> None:
        """`total_bytes` is 0 where it is not known."""
        self._quiet = quiet
        self._told_s = time.monotonic()
        self._bar: Any = None
        self._done: dict[str, int] = {}
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=total_bytes or None)
            self._bar.start()

    def tell(self, batch: Batch, sums: Sums) -> None:
        """A batch was stored."""
        if self._quiet:
            return
        if self._bar is not None:
            self._done[batch.file] = batch.read_bytes
            self._bar.update(self._task, completed=sum(self._done.values()), description=sums.sentence())
        elif time.monotonic() - self._told_s >= TOLD_EVERY_S:
            self._told_s = time.monotonic()
            typer.echo(sums.sentence(), err=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


def ingest(where: Where, names: Sequence[str], options: Options, to: Service | None) -> NoReturn:
    """Take the files in, print what became of them, and leave with 1 where something could not be taken."""
    with ExitStack() as stack:
        sources = [Input(name, stack) for name in names]
        rejects = _rejects(options.rejects, sources, stack)
        progress = Progress(sum(source.total_bytes for source in sources), quiet=options.quiet)
        stack.callback(progress.end)
        sums = Sums()

        async def into(sink: Sink) -> None:
            working = Ingest(sink, options, progress, rejects)
            try:
                await working.run(sources)
            except BaseException:
                if working.sums.lines:
                    typer.echo(f"stopped after {working.sums.sentence()}; run it again to go on", err=True)
                raise
            nonlocal sums
            sums = working.sums

        async def locally(database: Database) -> None:
            await into(await DatabaseSink.open(database, late=options.late))

        async def remotely(service: Service) -> None:
            from roadworthy.cli.billing_post import Poster

            async with AsyncExitStack() as parts:
                poster = await parts.enter_async_context(Poster(service, late=options.late))
                await into(ServiceSink(poster.post))

        if to is None:
            read(where, locally)
        else:
            asyncio.run(remotely(to))
    if options.as_json:
        typer.echo(
            json.dumps(
                {name: getattr(sums, name) for name in ("lines", "new", "known", "conflicts", "rejected")}, indent=2
            )
        )
    else:
        typer.echo(sums.sentence())
    sys.exit(1 if sums.conflicts or sums.rejected else 0)


def _rejects(path: Path | None, sources: Sequence[Input], stack: ExitStack) -> IO[str] | None:
    """What takes the bad lines. Raises `UsageError` where it cannot be written, or would destroy what is read."""
    if path is None:
        return None
    try:
        path = path.resolve()
        written = (path, path.with_name(f"{path.name}.part")) if path.is_file() or not path.exists() else (path,)
        for source in sources:
            if any(map(source.is_file, written)):
                raise UsageError(f"--rejects {path}: {source.name} is read from there; name another file")
        file = stack.enter_context(written[-1].open("w", encoding="utf-8"))
    except OSError as error:
        raise _unwritable(path, error) from None
    if len(written) > 1:
        stack.callback(_put_in_place, file, *written)
    return file


def _put_in_place(file: IO[str], path: Path, part: Path) -> None:
    """At the end of a run, also of one that broke off: what was told up to there is told nowhere else."""
    try:
        file.close()
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"--rejects {path}: cannot be written: {error.strerror or error}")
