"""Leaving nothing behind: a journal of the endpoints that runs make, and their removal.

Before an endpoint is asked for, its name is on disk; when its deletion is confirmed, it is taken off. So whatever
a run leaves, even one that was killed, is found by the next one and by `roadworthy cleanup`. What is not in the
journal is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Container, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from roadworthy.conformance import strict_json
from roadworthy.conformance.exchange import as_object
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes.endpoints import PREFIX
from roadworthy.conformance.subject import Api
from roadworthy.conformance.target import Target
from roadworthy.conformance.words import is_integer
from roadworthy.errors import UsageError
from roadworthy.http.message import Failure, FailureKind, Limits, Reply, Request, Transport

if sys.platform != "win32":
    import fcntl

STATE_DIR = "ROADWORTHY_STATE_DIR"
FILE = "endpoints.jsonl"
LIMITS = Limits(total_timeout_s=20.0)
ATTEMPTS = 3
SETTLE_S = 10.0
"""A request to make an endpoint that nobody saw answered may still be at work for so long: until then, that the
endpoint is not there does not mean that it will not come."""
PAUSES_S = (0.1, 0.5, 1.0, 2.0)
"""The waits between looks at an endpoint whose deletion was accepted, until it is gone."""
_RUN = re.compile(r"[0-9a-f]{1,64}")
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One endpoint that a run has asked for, or was about to. `base_url` is where its routes begin; no secrets."""

    base_url: str
    namespace: str
    name: str
    run: str
    at: int = 0
    """When it was noted, in unix seconds."""

    @property
    def url(self) -> str:
        """Where the endpoint is managed."""
        return f"{self.base_url}/endpoint/{quote(self.namespace, safe='')}/{quote(self.name, safe='')}"


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of an endpoint that was to be removed; `said` tells why it is still there."""

    entry: Entry
    gone: bool
    said: str = ""
    found: bool = True
    """Whether it was there at all."""


def service_url(base_url: str) -> str:
    """Where the routes begin, for a base URL that ends in /v1, in /v2, or in neither."""
    root = base_url.rstrip("/").removesuffix("/v1")
    return root if root.endswith("/v2") else f"{root}/v2"


def state_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The user's folder for what outlives a run."""
    environment = os.environ if environment is None else environment
    if environment.get(STATE_DIR):
        return Path(environment[STATE_DIR])
    base = environment.get("XDG_STATE_HOME") or ""
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "roadworthy"


class Journal:
    """The file of endpoints that are not yet known to be gone, one JSON object a line; runs share it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or state_folder()
        self._path = self._folder / FILE

    def open(self) -> None:
        """Make sure that it can be written. Raises `UsageError` where it cannot, before anything is made."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked(), self._path.open("ab"):
                pass
        except OSError as error:
            raise UsageError(
                f"{self._path}: the journal of what is made cannot be written: {error.strerror or error}. "
                f"Nothing was made. Set {STATE_DIR} to a folder that can be written."
            ) from None

    def add(self, entry: Entry) -> None:
        """Note an endpoint; on return it is on disk. Raises `OSError`."""
        with self._locked():
            # A line that a crash tore must not take this one with it.
            known = self._path.read_bytes() if self._path.exists() else b""
            torn = known and not known.endswith(b"\n")
            with self._path.open("ab") as file:
                file.write((b"\n" if torn else b"") + json.dumps(asdict(entry)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def remove(self, entry: Entry) -> None:
        """Take an endpoint off. Raises `OSError`."""
        with self._locked():
            if not self._path.exists():
                return
            kept = [line for line in self._path.read_bytes().splitlines(keepends=True) if _entry(line) != entry]
            # The other entries must survive a crash at any moment, so the file is replaced whole.
            fresh = self._path.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(b"".join(kept))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)

    def entries(self) -> list[Entry]:
        """All that are noted; lines that cannot be read are passed over. Raises `UsageError`."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self._path}: cannot be read: {error.strerror or error}") from None
        return [entry for line in lines if (entry := _entry(line)) is not None]

    @contextlib.contextmanager
    def hold(self, run: str) -> Iterator[None]:
        """Mark a run as alive: a lock, which the system gives back even when the run is killed."""
        path = self._folder / f"{run}.lock"
        with path.open("wb") as file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def alive(self, run: str) -> bool:
        """Whether a run is still at work, so that what it made is its own."""
        path = self._folder / f"{run}.lock"
        if sys.platform == "win32" or not _RUN.fullmatch(run):
            return False
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Have the journal to oneself; other runs wait."""
        with self._path.with_suffix(".lock").open("ab") as file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _entry(line: bytes) -> Entry | None:
    """The entry that a line holds; a name that is not ours is none, whoever wrote it there."""
    value = as_object(strict_json.loads(line))
    fields = [value.get(key) for key in ("base_url", "namespace", "name", "run")]
    texts = [field for field in fields if isinstance(field, str)]
    at = value.get("at", 0)
    if len(texts) < len(fields) or not texts[2].startswith(PREFIX) or not is_integer(at):
        return None
    base_url, namespace, name, run = texts
    return Entry(base_url, namespace, name, run, at)


class Guard:
    """A transport that journals what is made through it, and sends no change of anything else."""

    def __init__(self, inner: Transport, journal: Journal, base_url: str, run: str) -> None:
        self._inner = inner
        self._journal = journal
        self._base_url = base_url
        self._run = run
        self._mine: dict[tuple[str, ...], Entry] = {}
        self._deleted: dict[tuple[str, ...], Entry] = {}
        self._answered: set[Entry] = set()
        self._making: set[asyncio.Task[Reply]] = set()

    @property
    def left(self) -> list[Entry]:
        """What this run has asked for and what is not known to be gone."""
        return list(self._mine.values())

    async def finish(self, target: Target) -> list[Removal]:
        """Remove what is left, once every request that makes something has been answered."""
        if self._making:
            await asyncio.wait(self._making)
        return await remove(self.left, target, self._inner, self._journal, answered=self._answered)

    async def send(self, request: Request, limits: Limits) -> Reply:
        """Send a request, if it reads or is about what this run has made."""
        parts = self._parts(request)
        if request.method == "GET":
            reply = await self._inner.send(request, limits)
            if len(parts) == 2:
                self._look(parts, reply)
            return reply
        if request.method == "POST" and len(parts) == 1:
            return await self._make(request, limits, parts[0])
        key = parts[:2]
        if len(parts) < 2 or key not in self._mine | self._deleted:
            return _unsent(f"not sent: {request.method} {request.url} is about what this run has not made")
        reply = await self._inner.send(request, limits)
        if request.method == "DELETE" and key in self._mine and _gone(reply.status):
            self._drop(key)
        return reply

    async def aclose(self) -> None:
        """The inner transport is somebody else's to close."""

    async def _make(self, request: Request, limits: Limits, namespace: str) -> Reply:
        name = as_object(strict_json.loads(request.body or b"")).get("name")
        if not isinstance(name, str) or not name.startswith(PREFIX):
            return _unsent(f"not sent: what is made must be named {PREFIX}...")
        key = (namespace, name)
        first = key not in self._mine
        if first:
            try:
                self._note(Entry(self._base_url, namespace, name, self._run, int(time.time())))
            except OSError as error:
                del self._mine[key]
                return _unsent(f"not sent: the journal cannot be written: {error.strerror or error}")
        # A run that is cancelled meanwhile must still learn whether there is something to remove.
        task = asyncio.ensure_future(self._ask(request, limits, key, first=first))
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        return await asyncio.shield(task)

    async def _ask(self, request: Request, limits: Limits, key: tuple[str, ...], *, first: bool) -> Reply:
        reply = await self._inner.send(request, limits)
        if reply.status is not None and reply.status < 500:
            self._answered.add(self._mine[key])
        if first and reply.status == 409:
            # Somebody has this name already: it is theirs, and we must not delete it.
            self._drop(key)
            self._deleted.pop(key, None)
        return reply

    def _parts(self, request: Request) -> tuple[str, ...]:
        """Namespace, name and action of a request, as far as its URL names them."""
        path = urlsplit(request.url).path.removeprefix(urlsplit(self._base_url).path)
        return tuple(unquote(part) for part in path.split("/")[2:]) if path.startswith("/endpoint/") else ()

    def _look(self, key: tuple[str, ...], reply: Reply) -> None:
        """Believe what is seen of an endpoint more than what the answer to its deletion said."""
        if reply.status == 200 and key in self._deleted:
            with contextlib.suppress(OSError):
                self._note(self._deleted[key])
        elif reply.status in (404, 410) and key in self._deleted and key in self._mine:
            self._drop(key)

    def _note(self, entry: Entry) -> None:
        """Journal an entry. Raises `OSError`."""
        self._mine[entry.namespace, entry.name] = entry
        self._journal.add(entry)

    def _drop(self, key: tuple[str, ...]) -> None:
        entry = self._deleted[key] = self._mine.pop(key)
        # What stays in the journal for want of a disk is looked for once more by the next run, and not found.
        with contextlib.suppress(OSError):
            self._journal.remove(entry)


def _unsent(message: str) -> Reply:
    return Reply(None, failure=Failure(FailureKind.REFUSED, message))


def _gone(status: int | None) -> bool:
    return status is not None and (200 <= status < 300 or status in (404, 410))


async def remove(
    entries: Iterable[Entry],
    target: Target,
    transport: Transport,
    journal: Journal,
    *,
    answered: Container[Entry] = (),
) -> list[Removal]:
    """Delete endpoints, look whether they are gone, and take those off the journal. Never raises for a server.

    `answered` holds those of which the request to make them was seen to be over.
    """
    removals = []
    for entry in entries:
        removal = await _remove(entry, target, transport, settled=entry in answered)
        if removal.gone:
            with contextlib.suppress(OSError):
                journal.remove(entry)
        removals.append(removal)
    return removals


async def _remove(entry: Entry, target: Target, transport: Transport, *, settled: bool) -> Removal:
    key = (("Authorization", f"Bearer {target.api_key}"),) if target.api_key else ()
    headers = (("Accept", "application/json"), ("User-Agent", "roadworthy"), *key, *target.headers)
    said = ""
    attempts = 0
    while attempts < ATTEMPTS:
        await asyncio.sleep(PAUSES_S[attempts] if attempts else 0)
        reply = await transport.send(Request("DELETE", entry.url, headers), LIMITS)
        if reply.status in (404, 410):
            wait_s = 0.0 if settled else min(SETTLE_S, entry.at + SETTLE_S - time.time())
            if wait_s <= 0:
                return Removal(entry, True, found=bool(said))
            await asyncio.sleep(wait_s)
            settled = True
            continue
        attempts += 1
        if not _gone(reply.status):
            said = reply.failure.message if reply.failure and reply.status is None else f"HTTP {reply.status} to DELETE"
            continue
        for pause_s in PAUSES_S:
            look = await transport.send(Request("GET", entry.url, headers), LIMITS)
            if look.status in (404, 410):
                return Removal(entry, True)
            await asyncio.sleep(pause_s)
        said = f"HTTP {reply.status} to DELETE, but it is not seen to be gone"
    return Removal(entry, False, said)


def leftovers(journal: Journal, base_url: str, namespace: str | None = None) -> tuple[list[Entry], list[Entry]]:
    """What is noted of a target: what runs have left, and what belongs to runs still at work."""
    wanted = [
        entry
        for entry in journal.entries()
        if entry.base_url == service_url(base_url) and namespace in (None, entry.namespace)
    ]
    working = {run for run in {entry.run for entry in wanted} if journal.alive(run)}
    return [e for e in wanted if e.run not in working], [e for e in wanted if e.run in working]


@contextlib.asynccontextmanager
async def guarded(
    target: Target, facts: Facts, transport: Transport, tell: Tell | None = None
) -> AsyncIterator[Transport]:
    """The transport for a run of this frame; one that makes endpoints leaves none behind.

    What earlier runs have left is removed before, what this one leaves afterwards, also when it fails or is
    cancelled. Raises `UsageError` where the journal cannot be written.
    """
    if facts.api is not Api.ENDPOINTS or not facts.allow_writes:
        yield transport
        return
    tell = tell or _to_stderr
    journal = Journal()
    journal.open()
    with journal.hold(facts.run):
        left, _ = leftovers(journal, facts.base_url)
        _report(await remove(left, target, transport, journal), "left by an earlier run", tell)
        guard = Guard(transport, journal, service_url(facts.base_url), facts.run)
        try:
            yield guard
        finally:
            await _to_the_end(_finish(guard, target, tell))


async def _finish(guard: Guard, target: Target, tell: Tell) -> None:
    _report(await guard.finish(target), "made by this run", tell)


async def _to_the_end(work: Coroutine[None, None, None]) -> None:
    """Finish some work even when cancelled meanwhile; the cancellation is passed on afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _report(removals: Sequence[Removal], whose: str, tell: Tell) -> None:
    for removal in removals:
        entry = removal.entry
        if removal.gone and removal.found:
            tell(f"removed the endpoint {entry.namespace}/{entry.name}, {whose}")
        elif not removal.gone:
            tell(
                f"warning: the endpoint {entry.namespace}/{entry.name}, {whose}, may still be there: {removal.said}. "
                f"Try `roadworthy cleanup {entry.base_url}`, or delete it by hand: it may cost money."
            )


def _to_stderr(message: str) -> None:
    sys.stderr.write(f"roadworthy: {message}\n")
