"""Whether the ledger is whole: every served request is in one state, and its entries are what its row says.

Invariant 11: what is in the ledger, pending, disputed and expired is what was served. Ids are looked through in
ranges, each in a short transaction of its own; an id and its entries change together, so each range is true in
itself, and nobody waits for the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.records import State
from roadworthy.billing.tables import entries, usage
from roadworthy.database import Database, batched

RANGE = 100_000
EXAMPLES = 20

_TO_PROVIDER = sa.case(
    (sa.func.substr(entries.c.debit_account, 1, 6) == "payer:", entries.c.amount_nano_usd),
    else_=-entries.c.amount_nano_usd,
)
"""What an entry adds to what its request costs the payer."""

_KINDS = (sa.text("entries.kind = 'charge'"), sa.text("entries.kind = 'correction'"))
"""Written out, for each has an index of its own rows alone."""

_STATES = sa.text("SELECT state, COUNT(*) FROM usage WHERE id > :after AND id <= :last GROUP BY state")
_CHARGED = sa.text("SELECT COUNT(*) FROM entries WHERE usage_id > :after AND usage_id <= :last AND kind = 'charge'")
_WRONG = sa.text(
    """
SELECT usage.id, usage.provider, usage.request_id
FROM usage LEFT JOIN entries ON entries.usage_id = usage.id AND entries.kind = 'charge'
WHERE usage.id > :after AND usage.id <= :last
  AND (
    (entries.amount_nano_usd IS NULL) <> (usage.cost_nano_usd IS NULL)
    OR entries.amount_nano_usd <> usage.cost_nano_usd
    OR (usage.state IN ('pending', 'unbilled') AND usage.cost_nano_usd IS NOT NULL)
  )
ORDER BY usage.id
"""
)


@dataclass
class Whole:
    """What a look through the ledger came to."""

    states: dict[str, int] = field(default_factory=lambda: {state.value: 0 for state in State})
    charges: int = 0
    wrong: int = 0
    """Requests whose entries are not what their row says."""
    examples: list[str] = field(default_factory=list)
    """The first of them, as `provider/request id`."""

    @property
    def served(self) -> int:
        """Every request that was taken in."""
        return sum(self.states.values())

    @property
    def fits(self) -> bool:
        """Whether the ledger accounts for every request."""
        return self.wrong == 0

    def sentence(self) -> str:
        """One line for people and logs."""
        parts = " + ".join(f"{count:,} {state}" for state, count in self.states.items())
        told = f"{parts} = {self.served:,} served; {self.charges:,} charges in the ledger"
        if self.fits:
            return told
        return f"{told}; {self.wrong:,} requests do not fit their entries, the first: {', '.join(self.examples[:3])}"


async def nets(connection: AsyncConnection, usage_ids: Sequence[int]) -> dict[int, int]:
    """What the entries of each request come to, in nano-USD; requests without entries are left out."""
    found: dict[int, int] = {}
    for some in batched(usage_ids):
        for kind in _KINDS:
            query = sa.select(entries.c.usage_id, _TO_PROVIDER).where(entries.c.usage_id.in_(some), kind)
            # Added up here: corrections of one request may in between come to more than 64 bits hold.
            for usage_id, amount in await connection.execute(query):
                found[usage_id] = found.get(usage_id, 0) + int(amount)
    return found


async def look(database: Database, *, range_ids: int = RANGE) -> Whole:
    """Look through everything that was ever taken in."""
    whole = Whole()
    after = 0
    async with database.reading() as connection:
        last = (await connection.execute(sa.select(sa.func.max(usage.c.id)))).scalar_one() or 0
    while after < last:
        async with database.reading() as connection:
            await _range(connection, whole, after, min(after + range_ids, last))
        after += range_ids
    return whole


async def _range(connection: AsyncConnection, whole: Whole, after: int, last: int) -> None:
    bounds = {"after": after, "last": last}
    for state, count in await connection.execute(_STATES, bounds):
        whole.states[state] += count
    whole.charges += (await connection.execute(_CHARGED, bounds)).scalar_one()
    suspects = (await connection.execute(_WRONG, bounds)).all()
    if not suspects:
        return
    net = await nets(connection, [row.id for row in suspects])
    rows: dict[int, sa.Row[tuple[int, str, int | None]]] = {}
    for some in batched([row.id for row in suspects]):
        query = sa.select(usage.c.id, usage.c.state, usage.c.cost_nano_usd).where(usage.c.id.in_(some))
        rows |= {row.id: row for row in await connection.execute(query)}
    for suspect in suspects:
        row, posted = rows[suspect.id], net.get(suspect.id)
        unasked = row.state in {State.PENDING, State.UNBILLED} and row.cost_nano_usd is not None
        if not unasked and (posted == row.cost_nano_usd or (not posted and row.cost_nano_usd is None)):
            continue
        whole.wrong += 1
        if len(whole.examples) < EXAMPLES:
            whole.examples.append(f"{suspect.provider}/{suspect.request_id}")
