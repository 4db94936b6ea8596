"""Served requests: taken in once, whatever the number of times they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import Served, State
from roadworthy.billing.store import bulk
from roadworthy.billing.tables import usage
from roadworthy.database import batched

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


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What became of some served requests: new ones, ones known already, and ones known with other contents.

    `conflicts` are the positions of the last kind; what was told first stands.
    """

    new: int
    known: int
    conflicts: tuple[int, ...] = ()


async def take_in(connection: AsyncConnection, served: Sequence[Served], now_us: int, source: str) -> TakenIn:
    """Note served requests, each once by provider and id. `source` says who told of them, in at most 16 characters."""
    rows = [
        (
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
        for one in served
    ]
    if not rows:
        return TakenIn(0, 0)
    new = await bulk.run(connection, _INSERT, _INSERT_ARRAYS, *zip(*rows, strict=True))
    if new == len(rows):
        return TakenIn(new, 0)
    conflicts = await _conflicts(connection, served)
    return TakenIn(new, len(rows) - new - len(conflicts), tuple(conflicts))


async def _conflicts(connection: AsyncConnection, served: Sequence[Served]) -> list[int]:
    """The positions of those that are noted with other contents."""
    found: dict[tuple[str, str], Served] = {}
    ids: dict[str, list[str]] = {}
    for one in served:
        ids.setdefault(one.provider, []).append(one.request_id)
    for provider, wanted in ids.items():
        for some in batched(wanted):
            query = sa.select(
                *(usage.c[name] for name in Served.__dataclass_fields__),
            ).where(usage.c.provider == provider, usage.c.request_id.in_(some))
            for row in await connection.execute(query):
                found[row.provider, row.request_id] = Served(**row._asdict())
    return [position for position, one in enumerate(served) if found[one.provider, one.request_id] != _normal(one)]


def _normal(one: Served) -> Served:
    return one if one.other_units is None or one.other_units else _without_units(one)


def _without_units(one: Served) -> Served:
    values = {name: getattr(one, name) for name in Served.__dataclass_fields__}
    return Served(**{**values, "other_units": None})
