"""A provider's invoice: a CSV file, read with tolerance for its form and none for its figures.

The lines go into a temporary SQLite file with an index over a hash of their ids: an invoice of millions of lines
takes no memory to speak of, and is looked into by thousands of ids at once.
"""

from __future__ import annotations

import csv
import hashlib
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from roadworthy.billing.reconcile.amounts import Mark, nano_of_nano, nano_of_usd
from roadworthy.errors import UsageError

ALIASES = {
    "request_id": "request_id requestid inference_id inferenceid generation_id completion_id response_id id",
    "cost_nano_usd": "cost_nano_usd costnanousd nano_usd nanousd amount_nano_usd",
    "cost_usd": "cost_usd costusd cost amount amount_usd total total_usd total_cost price charge usd",
    "currency": "currency currency_code",
    "model": "model model_id model_name",
    "day": "day date usage_date served_at timestamp time created_at",
}
"""What invoices call each column. Capitals, spaces, hyphens and parentheses in a header make no difference."""
COSTS = frozenset({"cost_nano_usd", "cost_usd"})
TOTALS = frozenset({"total", "grand total", "sum", "totals", "subtotal"})
SEPARATORS = ",;\t|"
MAX_ID_LENGTH = 1024
MAX_FIELD = 1 << 20
_OTHER_CURRENCY = re.compile(r"(?:^|_)(eur|gbp|jpy|cny|rmb|inr|cad|aud|chf|krw|brl)(?:_|$)")
_SEPARATOR_LINE = re.compile(r"sep=.\s*", re.IGNORECASE)
"""Excel's own first line."""
_BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_CACHE_KIB = 64 * 1024

Group = tuple[int | None, str | None]
"""Day (since 1970 UTC) and model that a total is of; None where the invoice does not tell them apart."""


class Line(NamedTuple):
    """A line of an invoice: its number among the lines with amounts, and its amount in nano-USD."""

    number: int
    cost_nano_usd: int


class Lines(NamedTuple):
    """Lines by id: one of each id, as (id, number, amount), and all of those ids that have several."""

    single: dict[str, tuple[str, int, int]]
    many: dict[str, list[Line]]

    def all_of(self, request_id: str) -> list[Line]:
        """Every line of an id, in the order of the file."""
        if request_id in self.many:
            return self.many[request_id]
        one = self.single.get(request_id)
        return [] if one is None else [Line(one[1], one[2])]


@dataclass
class Totals:
    """What reading came to."""

    lines: int = 0
    nano_usd: int = 0
    rounded: int = 0
    """Lines whose amount had more decimals than nano-USD, and was rounded up."""
    stated_nano_usd: int | None = None
    groups: dict[Group, int] = field(default_factory=dict)


class Invoice:
    """An invoice that was read. Use it as a context: its temporary file goes with it."""

    def __init__(
        self,
        path: Path,
        *,
        columns: Mapping[str, str] | None = None,
        mark: Mark | None = None,
        folder: Path | None = None,
    ) -> None:
        """Read the file. `columns`: its headers by our names, where they are others. Raises `UsageError`.

        `folder` is where the temporary file goes; as wide as the invoice itself.
        """
        self.path = path
        self._mark = mark
        self._folder = tempfile.TemporaryDirectory(prefix="roadworthy-invoice-", dir=folder)
        self._db = sqlite3.connect(Path(self._folder.name) / "lines.db", isolation_level=None)
        self.totals = Totals()
        self.by_request = False
        self.by: tuple[str, ...] = ()
        """By what its totals are told, where it has no request ids: model, day, both or neither."""
        self.digest = ""
        try:
            self._read(dict(columns or {}))
        except BaseException:
            self.close()
            raise
        self._met = bytearray(self.totals.lines + 1 if self.by_request else 0)

    def __enter__(self) -> Self:
        """The invoice."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the temporary file."""
        self.close()

    def close(self) -> None:
        """Remove the temporary file."""
        self._db.close()
        self._folder.cleanup()

    def of(self, request_ids: Sequence[str]) -> Lines:
        """The lines of these ids. Some of other ids may be among them."""
        import orjson

        # In the order of the index, which is then read once from one end to the other.
        keys = orjson.dumps(sorted({hash(each) for each in request_ids})).decode()
        rows = self._db.execute(
            "SELECT line.request_id, line.number, line.cost FROM json_each(?) AS wanted "
            "CROSS JOIN line ON line.key = wanted.value",
            (keys,),
        ).fetchall()
        single = {row[0]: row for row in rows}
        many: dict[str, list[Line]] = {}
        if len(single) < len(rows):
            for request_id, number, cost in rows:
                many.setdefault(request_id, []).append(Line(number, cost))
            many = {request_id: sorted(lines) for request_id, lines in many.items() if len(lines) > 1}
        return Lines(single, many)

    def meet(self, number: int) -> None:
        """Note that this line has found its request."""
        self._met[number] = 1

    def unmet(self, most: int = 500) -> Iterator[list[str]]:
        """The ids of lines that have found no request, each once, so many at a time; the caller meets them."""
        at = 1
        while self.by_request and (at := self._met.find(0, at)) >= 0:
            rows = self._db.execute("SELECT number, request_id FROM line WHERE number >= ? LIMIT ?", (at, most))
            ids: dict[str, None] = {}
            for number, request_id in rows:
                if not self._met[number]:
                    ids[request_id] = None
                at = number + 1
            yield list(ids)

    def _read(self, columns: dict[str, str]) -> None:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}", "locking_mode=EXCLUSIVE"):
            self._db.execute(f"PRAGMA {pragma}")
        try:
            with self.path.open("rb") as raw:
                self.digest = hashlib.file_digest(raw, "sha256").hexdigest()
                raw.seek(0)
                head = raw.read(4)
            encoding = next((name for bom, name in _BOMS.items() if head.startswith(bom)), "utf-8")
            with self.path.open(encoding=encoding, newline="") as file:
                self._take(file, columns)
        except OSError as error:
            raise UsageError(f"{self.path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{self.path}: not UTF-8 text; save it as CSV UTF-8") from None

    def _take(self, file: IO[str], columns: dict[str, str]) -> None:
        csv.field_size_limit(MAX_FIELD)
        before, first = 0, file.readline()
        while first and (not first.strip(" \t\r\n,;|") or _SEPARATOR_LINE.fullmatch(first)):
            before, first = before + 1, file.readline()
        separator = max(SEPARATORS, key=first.count)
        # The header goes through the reader of the rows, so that its count is that of the file's lines from there on.
        rows = csv.reader(chain([first], file), delimiter=separator)
        try:
            header = next(rows, [])
        except csv.Error as error:
            raise UsageError(f"{self.path}, line {before + rows.line_num}: not CSV: {error}") from None
        places = _places(self.path, header, columns)
        self.by_request = "request_id" in places
        self.by = tuple(name for name in ("day", "model") if name in places) if not self.by_request else ()
        reader = _Reader(places, self._mark, self.totals)
        try:
            if self.by_request:
                self._db.execute("BEGIN")
                self._db.execute(
                    "CREATE TABLE line (number INTEGER PRIMARY KEY, key INTEGER, cost INTEGER, request_id)"
                )
                self._db.executemany("INSERT INTO line VALUES (?, ?, ?, ?)", reader.requests(rows))
                self._db.execute("CREATE INDEX line_key ON line (key)")
                self._db.execute("COMMIT")
            else:
                reader.sums(rows)
        except csv.Error as error:
            raise UsageError(f"{self.path}, line {before + rows.line_num}: not CSV: {error}") from None
        except UsageError as error:
            raise UsageError(f"{self.path}, line {before + rows.line_num}: {error}") from None
        if not self.totals.lines:
            raise UsageError(f"{self.path}: the invoice has no lines with amounts")


class _Reader:
    """Takes the rows of one file apart."""

    def __init__(self, places: Mapping[str, int], mark: Mark | None, totals: Totals) -> None:
        self._places = places
        self._totals = totals
        in_nano = "cost_nano_usd" in places
        self._amount = partial(nano_of_nano if in_nano else nano_of_usd, mark=mark)
        self._cost_at = places["cost_nano_usd" if in_nano else "cost_usd"]
        self._width = max(places.values()) + 1

    def requests(self, rows: Iterable[list[str]]) -> Iterator[tuple[int, int, int, str]]:
        """The lines of an invoice by request: number, hash, amount, id."""
        id_at, totals = self._places["request_id"], self._totals
        currency_at = self._places.get("currency")
        number = total = rounded = 0
        amount, cost_at, width = self._amount, self._cost_at, self._width
        for row in rows:
            if len(row) < width:
                if any(cell.strip() for cell in row):
                    raise UsageError(f"expected at least {width} cells, as in the header; got {len(row)}")
                continue
            request_id = row[id_at].strip()
            if not request_id or request_id.lower() in TOTALS:
                self._state_total(row)
                continue
            if currency_at is not None:
                _check_currency(row[currency_at])
            if len(request_id) > MAX_ID_LENGTH:
                raise UsageError(f"a request id of {len(request_id):,} characters; expected at most {MAX_ID_LENGTH:,}")
            cost, was_rounded = amount(row[cost_at].strip())
            number += 1
            total += cost
            rounded += was_rounded
            yield number, hash(request_id), cost, request_id
        totals.lines, totals.nano_usd, totals.rounded = number, total, rounded

    def sums(self, rows: Iterable[list[str]]) -> None:
        """The totals of an invoice that has no requests."""
        places, totals = self._places, self._totals
        for row in rows:
            if len(row) < self._width:
                if any(cell.strip() for cell in row):
                    raise UsageError(f"expected at least {self._width} cells, as in the header; got {len(row)}")
                continue
            names = [row[places[name]].strip() for name in ("day", "model") if name in places]
            if not any(cell.strip() for cell in row):
                continue
            if names and (not all(names) or names[0].lower() in TOTALS):
                self._state_total(row)
                continue
            if "currency" in places:
                _check_currency(row[places["currency"]])
            day = _day(row[places["day"]].strip()) if "day" in places else None
            model = row[places["model"]].strip() if "model" in places else None
            cost, was_rounded = self._amount(row[self._cost_at].strip())
            totals.groups[day, model] = totals.groups.get((day, model), 0) + cost
            totals.lines += 1
            totals.nano_usd += cost
            totals.rounded += was_rounded

    def _state_total(self, row: list[str]) -> None:
        """A line without an id that has an amount is the invoice's own total; without one it is decoration."""
        text = row[self._cost_at].strip()
        if not text:
            return
        if self._totals.stated_nano_usd is not None:
            raise UsageError("a second line without a request id, or called total; expected one total at most")
        self._totals.stated_nano_usd = self._amount(text)[0]


def _places(path: Path, header: Sequence[str], columns: dict[str, str]) -> dict[str, int]:
    """Where each of our columns is. Raises `UsageError`."""
    unknown = [name for name in columns if name not in ALIASES]
    if unknown:
        raise UsageError(f"an invoice has no column {unknown[0]!r}; name one of {', '.join(ALIASES)}")
    names = [_plain(cell) for cell in header]
    places = {}
    for ours, aliases in ALIASES.items():
        if ours in columns:
            places[ours] = _named(path, header, columns[ours])
            continue
        if ours in COSTS and not COSTS.isdisjoint(columns):
            continue
        found = [name for name in names if name in aliases.split()] if ours in COSTS else []
        if len(set(found)) > 1 and not (ours == "cost_usd" and "cost_nano_usd" in places):
            several = [cell for cell, name in zip(header, names, strict=True) if name in found]
            raise UsageError(
                f"{path}: the columns {_listed(several)} could each be the cost; say which with --column {ours}=HEADER"
            )
        for alias in aliases.split():
            if names.count(alias) > 1:
                raise UsageError(f"{path}: two columns are called {alias!r}; rename one")
            if alias in names and names.index(alias) not in places.values():
                places[ours] = names.index(alias)
                break
    if "cost_nano_usd" not in places and "cost_usd" not in places:
        foreign = next((cell for cell, name in zip(header, names, strict=True) if _OTHER_CURRENCY.search(name)), None)
        if foreign is not None:
            raise UsageError(
                f"{path}: the column {foreign.strip()!r} is not in USD; other currencies are not converted"
            )
        raise UsageError(
            f"{path}: no column with the cost: expected cost_nano_usd, cost_usd or cost, in a first line of "
            f"headers; got {_listed(header)}. Name it with --column cost_usd=HEADER"
        )
    if "cost_nano_usd" in places:
        places.pop("cost_usd", None)
    return places


def _named(path: Path, header: Sequence[str], wanted: str) -> int:
    """Where the column of that header is, written alike, or else but for what makes no difference."""
    for found in (
        [at for at, cell in enumerate(header) if cell == wanted],
        [at for at, cell in enumerate(header) if _plain(cell) == _plain(wanted)],
    ):
        if len(found) > 1:
            raise UsageError(f"{path}: two columns are called {wanted!r}; rename one")
        if found:
            return found[0]
    raise UsageError(f"{path}: no column is called {wanted!r}; it has {_listed(header)}")


def _plain(header: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", header.strip().lower().replace("$", "usd")).strip("_")


def _listed(header: Sequence[str]) -> str:
    return ", ".join(repr(cell.strip()[:40]) for cell in header[:12]) or "an empty line"


def _check_currency(text: str) -> None:
    if text.strip().upper() not in {"USD", "US$", "$", ""}:
        raise UsageError(f"an amount in {text.strip()[:20]!r}; expected USD, other currencies are not converted")


def _day(text: str) -> int:
    try:
        return (date.fromisoformat(text[:10]) - date(1970, 1, 1)).days
    except ValueError:
        raise UsageError(f"expected a day such as 2026-10-31, got {text[:40]!r}") from None
