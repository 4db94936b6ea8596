"""Reading the ledger over HTTP: balances, and where one request stands. For the hub's gateways.

Who may ask is the caller's to say: `authenticated` is a FastAPI dependency that raises for others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, HTTPException, Query

from roadworthy.billing import balances
from roadworthy.billing.dates import day_of, shown_day, shown_time
from roadworthy.billing.money import usd
from roadworthy.billing.store import disputes
from roadworthy.billing.tables import MAX_NAME_LENGTH, MAX_PAYER_LENGTH, usage
from roadworthy.database import Database
from roadworthy.errors import UsageError

MOST_ROWS = 10_000
_Text = Annotated[str | None, Query(max_length=MAX_NAME_LENGTH)]
_Day = Annotated[str | None, Query(description="YYYY-MM-DD, in UTC.")]


def router(
    database: Database,
    authenticated: Callable[..., Any],
    refusals: dict[int | str, dict[str, Any]] | None = None,
    refused: Callable[[int, str], Exception] = HTTPException,
) -> APIRouter:
    """The routes. `authenticated` is called as a dependency before anything is looked up.

    `refusals` are what the OpenAPI description says of refusals, by status; `refused` makes one of 400 or 404.
    """
    routes = APIRouter(
        prefix="/api/billing", tags=["billing"], dependencies=[Depends(authenticated)], responses=refusals
    )

    @routes.get("/balances")
    async def read_balances(
        *,
        payer: Annotated[str | None, Query(max_length=MAX_PAYER_LENGTH)] = None,
        provider: _Text = None,
        model: _Text = None,
        from_: Annotated[str | None, Query(alias="from", description="The first day served, YYYY-MM-DD.")] = None,
        to: Annotated[str | None, Query(description="The last day served, YYYY-MM-DD.")] = None,
        by: Annotated[str, Query(description="payer, provider, model, day, or several with commas.")] = "",
    ) -> dict[str, Any]:
        """Sums of the ledger, by day served. Amounts are integers of nano-USD, and decimal USD as text beside.

        At most 10,000 rows; 400 where there are more.
        """
        try:
            found: list[dict[str, Any]] = []
            async with database.reading() as connection:
                rows = balances.stream(
                    connection,
                    payer=_whole(payer),
                    provider=_whole(provider),
                    model=_whole(model),
                    from_day=None if from_ is None else day_of(from_),
                    to_day=None if to is None else day_of(to) + 1,
                    by=[name for name in by.split(",") if name],
                )
                async for row in rows:
                    if len(found) == MOST_ROWS:
                        raise UsageError(f"there are more than {MOST_ROWS} rows; ask for fewer days, or by less")
                    found.append(balance_row(row))
        except UsageError as error:
            raise refused(400, str(error)) from None
        return {"balances": found}

    @routes.get("/usage/{provider}/{request_id:path}")
    async def read_usage(provider: str, request_id: str) -> dict[str, Any]:
        """Where a request stands, what it costs, and every entry that the ledger has for it, oldest first."""
        query = sa.select(usage).where(usage.c.provider == provider, usage.c.request_id == request_id)
        async with database.reading() as connection:
            row = None
            if "\x00" not in provider + request_id:  # which no database would take
                row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise refused(404, f"no request {request_id} of {provider} is known")
            history = await disputes.entries_of(connection, row.id)
        return {
            "provider": row.provider,
            "requestId": row.request_id,
            "payer": row.payer,
            "model": row.model,
            "servedAt": shown_time(row.served_at_us),
            "state": row.state,
            "costNanoUsd": row.cost_nano_usd,
            "costUsd": None if row.cost_nano_usd is None else usd(row.cost_nano_usd),
            "entries": [entry_row(entry) for entry in history],
        }

    return routes


def _whole(text: str | None) -> str | None:
    if text is not None and "\x00" in text:
        raise UsageError("names hold no NUL")
    return text


def balance_row(row: balances.Balance) -> dict[str, Any]:
    """A balance as it is told: what it was not grouped by is left out."""
    keys = {name: getattr(row, name) for name in ("payer", "provider", "model") if getattr(row, name) is not None}
    return {
        **keys,
        **({} if row.day is None else {"day": shown_day(row.day)}),
        "requests": row.requests,
        "chargedNanoUsd": row.charged_nano_usd,
        "chargedUsd": usd(row.charged_nano_usd),
        "creditedNanoUsd": row.credited_nano_usd,
        "creditedUsd": usd(row.credited_nano_usd),
        "costNanoUsd": row.net_nano_usd,
        "costUsd": usd(row.net_nano_usd),
    }


def entry_row(entry: disputes.Entry) -> dict[str, Any]:
    """An entry as it is told. The author is left out: who corrects is the operator's matter."""
    return {
        "id": entry.id,
        "kind": entry.kind,
        "debitAccount": entry.debit_account,
        "creditAccount": entry.credit_account,
        "amountNanoUsd": entry.amount_nano_usd,
        "amountUsd": usd(entry.amount_nano_usd),
        "postedAt": shown_time(entry.posted_at_us),
        "reason": entry.reason,
    }
