"""The costs in a database: durable when `record` returns, many records to a commit, none lost while it fails.

One thread writes. Whatever has gathered while it was committing is its next commit, so that requests wait for one
commit at most two, however many end at once. Where the database fails, answers go out all the same: records wait
in memory, each named in the log, and are tried again until they are stored. A record that no database can take is
told apart from that: it is dropped with an error in the log, and holds up no other.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from roadworthy.errors import ConfigError
from roadworthy.partner.costs import Price, Tokens

BATCH = 1000
"""Records of one commit, at most."""
ASKED_AT_ONCE = 1000
"""Ids of one SELECT: older SQLite takes no more in one statement."""
COMMIT_TIMEOUT_S = 5.0
"""How long an answer waits for its commit; after that it goes out, and no other waits until a commit succeeds."""
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
SWEEP_S = 60.0
"""Between two looks for old records; they are removed `SWEPT` at a time."""
SWEPT = 5000
LOCK_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 30.0
"""How long a server's end waits for a database that does not answer."""
DAY_S = 86_400

log = logging.getLogger("roadworthy.partner")

metadata = sa.MetaData()
prices = sa.Table(
    "roadworthy_prices",
    metadata,
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, comment="counted up for each model, from 1"),
    sa.Column("input_nano_usd_per_million", sa.BigInteger, nullable=False),
    sa.Column("output_nano_usd_per_million", sa.BigInteger, nullable=False),
    sa.Column("cached_input_nano_usd_per_million", sa.BigInteger, nullable=False),
    sa.Column("first_used_s", sa.BigInteger, nullable=False, comment="seconds since 1970 by the database's clock"),
)
requests = sa.Table(
    "roadworthy_requests",
    metadata,
    sa.Column("request_id", sa.String, primary_key=True),
    sa.Column("model", sa.String, comment="as the answer told it"),
    sa.Column("input_tokens", sa.BigInteger, comment="NULL where the answer told no tokens"),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("cached_input_tokens", sa.BigInteger, comment="how many of input_tokens came from a cache"),
    sa.Column("price_version", sa.Integer),
    sa.Column("cost_nano_usd", sa.BigInteger, comment="NULL where the model has no price"),
    sa.Column("recorded_s", sa.BigInteger, nullable=False, index=True),
)
_NOW_S = {
    "sqlite": "SELECT CAST(strftime('%s', 'now') AS INTEGER)",
    "postgresql": "SELECT CAST(extract(epoch FROM clock_timestamp()) AS bigint)",
}
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_LOCK = 0x726F6164
"""The number of PostgreSQL's lock under which tables and versions are made: several workers start at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """A model's price from some moment on; a change of price is another listing, and a version of its own."""

    model: str
    price: Price


@dataclass(frozen=True, slots=True)
class Record:
    """One answered request. Without `listing` the model has no price; without `tokens` the answer told none.

    `cost_nano_usd` is 0 where no tokens were told, None where there is no price for them.
    """

    request_id: str
    model: str | None
    tokens: Tokens | None
    listing: Listing | None
    cost_nano_usd: int | None = field(init=False)

    def __post_init__(self) -> None:
        cost = 0 if self.tokens is None else self.listing and self.listing.price.cost_nano_usd(self.tokens)
        object.__setattr__(self, "cost_nano_usd", cost)


_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class CostStore:
    """Costs by request id, on SQLite or PostgreSQL. Its thread starts with the first use, so it may be made before
    a server forks; `close` writes what is left.

    Raises `ConfigError` for a URL of another database, or where a package is missing.
    """

    def __init__(self, url: str, *, keep_days: float | None, queue_size: int) -> None:
        self._engine = _engine(url)
        self._dialect = self._engine.dialect.name
        self._keep_s = None if keep_days is None else int(keep_days * DAY_S)
        self._queue_size = queue_size
        self._queue: deque[tuple[Record, _Waiter | None]] = deque()
        self._changed = threading.Condition()
        self._tables_made = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._failing = False
        self._versions: dict[Listing, int] = {}
        self._retry_s = 0.0
        self._next_sweep = 0.0
        self._ended = False

    # From the event loop

    def start(self) -> None:
        """Begin to write, and make the tables; done by the first record too."""
        with self._changed:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._write, name="roadworthy-costs", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    async def record(self, record: Record) -> None:
        """Return once the record is durable; or, where the database fails, once it is known to wait in memory."""
        if self._failing:
            self.record_later(record)
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._put(record, (loop, done))
        try:
            await asyncio.wait_for(done, COMMIT_TIMEOUT_S)
        except TimeoutError:
            self._failing = True
            _warn_unstored(record, f"the database took more than {COMMIT_TIMEOUT_S:g} seconds")

    def record_later(self, record: Record) -> None:
        """Take a record that nobody waits for."""
        if self._failing:
            _warn_unstored(record, "the database fails")
        self._put(record, None)

    async def costs_nano_usd(self, ids: Sequence[str]) -> dict[str, int]:
        """The cost of each of these ids that has one. Raises SQLAlchemy's errors where the database fails."""
        return await asyncio.to_thread(self._read, ids) if ids else {}

    def close(self) -> None:
        """Write what is left, trying once, and stop. What could not be written is in the log, costs and all."""
        with self._changed:
            self._closing = True
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join(CLOSE_TIMEOUT_S)
            if thread.is_alive():
                _tell(
                    logging.ERROR, "the database did not answer within %g seconds; costs may be lost", CLOSE_TIMEOUT_S
                )
            atexit.unregister(self.close)
        self._engine.dispose()

    def _put(self, record: Record, waiter: _Waiter | None) -> None:
        self.start()
        with self._changed:
            full = len(self._queue) >= self._queue_size
            if not full and not self._closing:
                self._queue.append((record, waiter))
                self._changed.notify()
                return
        _error_lost(record, "the store is closed" if self._closing else f"{self._queue_size:,} wait already")
        _release([waiter])

    # In the thread

    def _write(self) -> None:
        self._next_sweep = time.monotonic()
        while not self._ended:
            self._turn()

    def _turn(self) -> None:
        """Store what waits. Nothing that a driver, a record or the log raises ends the thread."""
        batch = self._next_batch()
        waiters = [waiter for _, waiter in batch]
        count = len(batch)
        try:
            if not batch and self._closing:
                self._ended = True
                return
            self._make_tables()
            self._store_apart(batch)
            if time.monotonic() >= self._next_sweep and self._sweep() < SWEPT:
                self._next_sweep = time.monotonic() + SWEEP_S
        except BaseException as error:  # noqa: BLE001  a thread that ends would take all later costs along
            self._retry_s = min(max(2 * self._retry_s, FIRST_RETRY_S), LAST_RETRY_S)
            self._ended = self._closing
            self._keep(batch, error)
        else:
            if self._failing:
                _tell(logging.WARNING, "the database takes costs again; %d were stored now", count)
            self._retry_s, self._failing = 0.0, False
        finally:
            _release(waiters)

    def _next_batch(self) -> list[tuple[Record, _Waiter | None]]:
        """What waits, once something does; while the database fails, after the pause. Empty to sweep or to end."""
        with self._changed:
            if self._retry_s:
                self._changed.wait_for(lambda: self._closing, self._retry_s)
            else:
                wait_s = max(0.0, self._next_sweep - time.monotonic())
                self._changed.wait_for(lambda: self._queue or self._closing, wait_s)
            return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]

    def _keep(self, batch: list[tuple[Record, _Waiter | None]], error: BaseException) -> None:
        """Put a batch back that could not be stored, in its order."""
        first, self._failing = not self._failing, True
        with self._changed:
            self._queue.extendleft((record, None) for record, _ in reversed(batch))
            left = [record for record, _ in self._queue] if self._ended else []
        reason = _reason(error)
        if first and not batch:
            _tell(logging.WARNING, "the database of costs fails: %s", reason)
        for record, waiter in batch:
            if waiter is not None or first:
                _warn_unstored(record, reason)
        for record in left:
            _error_lost(record, f"the provider's server ends while the database fails: {reason}")

    def _store_apart(self, batch: list[tuple[Record, _Waiter | None]]) -> None:
        """Store a batch, and take from it what is stored or cannot be; raises what the database does.

        Where a record is at fault the pieces become smaller until it is alone, and then larger again.
        """
        size = len(batch)
        while batch:
            piece = [record for record, _ in batch[:size]]
            try:
                self._store(piece)
            except Exception as error:
                if not _is_of_a_record(error):
                    raise
                if len(piece) > 1:
                    size = len(piece) // 2
                    continue
                _error_lost(piece[0], f"it cannot be stored: {_reason(error)}")
            del batch[: len(piece)]
            size *= 2

    def _store(self, batch: Sequence[Record]) -> None:
        if not batch:
            return
        insert = postgresql.insert if self._dialect == "postgresql" else sqlite.insert
        with self._writing() as connection:
            now_s = connection.exec_driver_sql(_NOW_S[self._dialect]).scalar_one()
            listings = {record.listing for record in batch if record.listing and record.tokens}
            versions = {listing: self._version(connection, listing, now_s) for listing in listings}
            rows = [
                {
                    "request_id": record.request_id,
                    "model": record.model,
                    "input_tokens": record.tokens and record.tokens.input,
                    "output_tokens": record.tokens and record.tokens.output,
                    "cached_input_tokens": record.tokens and record.tokens.cached_input,
                    "price_version": record.listing and versions.get(record.listing),
                    "cost_nano_usd": record.cost_nano_usd,
                    "recorded_s": now_s,
                }
                for record in batch
            ]
            # An id has one cost: the first. A batch that is tried again, after a commit whose outcome nobody
            # learnt, finds itself there already.
            kept = insert(requests).on_conflict_do_nothing().returning(requests.c.request_id)
            stored = set(connection.scalars(kept, rows))
        self._versions |= versions
        if not self._failing:
            _complain_of_repeated(batch, stored)

    def _version(self, connection: sa.Connection, listing: Listing, now_s: int) -> int:
        """The version of a price: the model's newest, if that has the same figures, or one more."""
        if listing in self._versions:
            return self._versions[listing]
        figures = {
            name: getattr(listing.price, name)
            for name in (
                "input_nano_usd_per_million",
                "output_nano_usd_per_million",
                "cached_input_nano_usd_per_million",
            )
        }
        if self._dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        of_model = sa.select(prices).where(prices.c.model == listing.model).order_by(prices.c.version.desc())
        newest = connection.execute(of_model.limit(1)).mappings().one_or_none()
        if newest is not None and all(newest[name] == figure for name, figure in figures.items()):
            return int(newest["version"])
        version = 1 if newest is None else newest["version"] + 1
        row = {"model": listing.model, "version": version, "first_used_s": now_s, **figures}
        connection.execute(sa.insert(prices).values(row))
        return int(version)

    def _sweep(self) -> int:
        """Remove some of the records that are too old; how many."""
        if self._keep_s is None:
            return 0
        with self._writing() as connection:
            before_s = connection.exec_driver_sql(_NOW_S[self._dialect]).scalar_one() - self._keep_s
            old = sa.select(requests.c.request_id).where(requests.c.recorded_s < before_s).limit(SWEPT)
            return connection.execute(sa.delete(requests).where(requests.c.request_id.in_(old))).rowcount

    # In either

    def _read(self, ids: Sequence[str]) -> dict[str, int]:
        self._make_tables()
        found: dict[str, int] = {}
        columns = sa.select(requests.c.request_id, requests.c.cost_nano_usd)
        with self._engine.connect() as connection:
            for start in range(0, len(ids), ASKED_AT_ONCE):
                asked = requests.c.request_id.in_(ids[start : start + ASKED_AT_ONCE])
                priced = columns.where(asked, requests.c.cost_nano_usd.is_not(None))
                found.update((row.request_id, row.cost_nano_usd) for row in connection.execute(priced))
        return found

    def _make_tables(self) -> None:
        lock, made = self._tables_made
        with lock:
            if made.is_set():
                return
            with self._writing() as connection:
                if self._dialect == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                metadata.create_all(connection)
            made.set()

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._engine.begin() as connection:
            if self._dialect == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection


def _engine(url: str) -> sa.Engine:
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(
            "`database_url` cannot be read; write sqlite:///costs.db or postgresql://user:password@host/name"
        ) from None
    name = parsed.drivername.partition("+")[0]
    if name not in _DRIVERS:
        raise ConfigError(f"`database_url` names {name!r}; only sqlite and postgresql are supported")
    parsed = parsed.set(drivername=_DRIVERS[name])
    if name == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("`database_url` must name a file, which outlives the process: sqlite:///costs.db")
        engine = sa.create_engine(parsed, connect_args={"timeout": LOCK_TIMEOUT_S})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        return engine
    try:
        return sa.create_engine(
            parsed,
            pool_pre_ping=True,  # the server may have been restarted since
            connect_args={
                "connect_timeout": 5,
                "application_name": "roadworthy-partner",
                "options": f"{parsed.query.get('options', '')} -c lock_timeout={LOCK_TIMEOUT_S}s".strip(),
            },
        )
    except ModuleNotFoundError:
        raise ConfigError("PostgreSQL needs psycopg: pip install 'roadworthy[partner,postgres]'") from None


def _prepare_sqlite(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions by itself
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _release(waiters: Sequence[_Waiter | None]) -> None:
    """Let the answers go that wait for these, with one wake-up of each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiter in waiters:
        if waiter is not None:
            by_loop.setdefault(waiter[0], []).append(waiter[1])
    for loop, futures in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(_resolve, futures)


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _is_of_a_record(error: Exception) -> bool:
    """Whether this comes of what is to be stored: another time would help as little as another database.

    What the system and the database tell is not, for they may recover; but a value that the database has no room for
    is, and so is all that the driver or our own code cannot make anything of.
    """
    if isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, sa.exc.DataError)
    if isinstance(error, sa.exc.SQLAlchemyError):
        return isinstance(error, sa.exc.StatementError)
    return not isinstance(error, OSError | MemoryError)


def _reason(error: BaseException) -> str:
    """The driver's first line: SQLAlchemy's own text would show statements and figures."""
    cause = getattr(error, "orig", None) or error
    said = ""
    with suppress(Exception):  # somebody else's error, which may be unable to tell itself
        said = str(cause).partition("\n")[0]
    return f"{type(cause).__name__}: {said}"


def _tell(level: int, said: str, *figures: object) -> None:
    """Log; a handler of the log that raises must not cost anybody a record, or the thread."""
    with suppress(Exception):
        log.log(level, said, *figures)


def _warn_unstored(record: Record, reason: str) -> None:
    _tell(
        logging.WARNING,
        "the cost of request %s (%s nano-USD) is not stored yet and will be tried again: %s",
        record.request_id,
        record.cost_nano_usd,
        reason,
    )


def _error_lost(record: Record, reason: str) -> None:
    _tell(
        logging.ERROR,
        "the cost of request %s (%s nano-USD) is lost: %s",
        record.request_id,
        record.cost_nano_usd,
        reason,
    )


def _complain_of_repeated(batch: Sequence[Record], stored: set[str]) -> None:
    """Tell of ids that had a cost already: that answers share an id is a fault that costs the provider money."""
    left = set(stored)
    for record in batch:
        if record.request_id not in left:
            _tell(
                logging.ERROR,
                "request %s has a cost already, and %s nano-USD more are not paid for; ids must be unique",
                record.request_id,
                record.cost_nano_usd,
            )
        left.discard(record.request_id)
