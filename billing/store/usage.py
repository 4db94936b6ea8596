"""Served requests: taken in once, whatever the number of times they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import Served, State
from roadworthy.billing.store import bulk

_COLUMNS = (
    "provider, request_id, served_at_us, received_at_us, payer, model, task, status, input_tokens, "
    "cached_input_tokens, output_tokens, other_units, source, state, asks, next_ask_us, alone"
)
_INSERT = (
    f"INSERT INTO usage ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, FALSE) "  # noqa: S608
    "ON CONFLICT (provider, request_id) DO NOTHING"
)
_INSERT_ARRAYS = (
    f"INSERT INTO usage ({_COLUMNS}) SELECT p, r, s, a, y, m, t, c, i, h, o, u::json, f, e, 0, n, FALSE "  # noqa: S608
    "FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], "
    "%s::smallint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[]) "
    "AS new(p, r, s, a, y, m, t, c, i, h, o, u, f, e, n) ON CONFLICT (provider, request_id) DO NOTHING"
)


# The ids go as one JSON array, and as one array: a value each would bound how many there may be.
_TOLD = f"SELECT {', '.join(Served.__dataclass_fields__)} FROM usage WHERE provider = "  # noqa: S608  names of ours
_TOLD_OF = {
    "sqlite": f"{_TOLD}? AND request_id IN (SELECT value FROM json_each(?))",  # noqa: S608  names of ours
    "postgresql": f"{_TOLD}%s AND request_id = ANY(%s)",
}


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What became of some served requests: new ones, ones known already, and ones known with other contents.

    `conflicts` are the positions of the last kind; what was told first stands. `differing` are the fields, by
    position, in which each of them differs.
    """

    new: int
    known: int
    conflicts: tuple[int, ...] = ()
    differing: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


async def take_in(connection: AsyncConnection, served: Sequence[Served], now_us: int, source: str) -> TakenIn:
    """Note served requests, each once by provider and id. `source` says who told of them, in at most 16 characters.

    Of several with one id the first stands.
    """
    if not served:
        return TakenIn(0, 0)
    # In one order for all: two that tell of the same requests must not wait for each other.
    rows = [_row(one, now_us, source) for one in sorted(served, key=_by_id)]
    new = await bulk.run(connection, _INSERT, _INSERT_ARRAYS, *zip(*rows, strict=True))
    if new == len(rows):
        return TakenIn(new, 0)
    differing = await _differing(connection, served)
    return TakenIn(new, len(rows) - new - len(differing), tuple(differing), differing)


def _by_id(one: Served) -> tuple[str, str]:
    return one.provider, one.request_id


def _row(one: Served, now_us: int, source: str) -> tuple[Any, ...]:
    return (
        one.provider,
        one.request_id,
        one.served_at_us,
        now_us,
        one.payer,
        one.model,
        one.task,
        one.status,
        one.input_tokens,
        one.cached_input_tokens,
        one.output_tokens,
        orjson.dumps(dict(one.other_units), option=orjson.OPT_SORT_KEYS).decode() if one.other_units else None,
        source,
        State.PENDING.value if 200 <= one.status < 400 else State.UNBILLED.value,
        now_us,
    )


async def _differing(connection: AsyncConnection, served: Sequence[Served]) -> dict[int, tuple[str, ...]]:
    """The positions of those that are noted with other contents, and the fields in which they differ."""
    ids: dict[str, list[str]] = {}
    for one in served:
        ids.setdefault(one.provider, []).append(one.request_id)
    dialect = connection.dialect.name
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for provider, wanted in ids.items():
        asked = orjson.dumps(wanted).decode() if dialect == "sqlite" else wanted
        for row in await connection.exec_driver_sql(_TOLD_OF[dialect], (provider, asked)):
            told = tuple(row)
            if isinstance(told[-1], str):  # SQLite keeps JSON as text
                told = (*told[:-1], orjson.loads(told[-1]))
            found[told[0], told[1]] = told
    differing = {}
    for position, one in enumerate(served):
        told, now = found[_by_id(one)], _contents(one)
        if told != now:
            differing[position] = tuple(
                name
                for name, before, after in zip(Served.__dataclass_fields__, told, now, strict=True)
                if before != after
            )
    return differing


def _contents(one: Served) -> tuple[Any, ...]:
    """The fields in order, as they are stored; no units and none of them are the same."""
    return (
        one.provider,
        one.request_id,
        one.served_at_us,
        one.payer,
        one.model,
        one.task,
        one.status,
        one.input_tokens,
        one.cached_input_tokens,
        one.output_tokens,
        dict(one.other_units) if one.other_units else None,
    )
