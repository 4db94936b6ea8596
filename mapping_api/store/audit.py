"""Reading the audit log, the newest line first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api.tables import audit, providers


@dataclass(frozen=True, slots=True)
class Line:
    """One line: who did what to which subject, when, and what was before and after."""

    id: int
    at_us: int
    actor: str
    token_id: str | None
    request_id: str | None
    provider: str | None
    action: str
    subject: str
    before: Any
    after: Any


async def of_provider(
    connection: AsyncConnection, slug: str, *, before: int | None, limit: int, action: str | None
) -> list[Line]:
    """The newest lines about the provider that are older than the line `before`."""
    return await _read(connection, [_page(audit.c.provider == slug, before, limit, action)], limit)


async def of_organisation(
    connection: AsyncConnection, organisation_id: str, *, before: int | None, limit: int, action: str | None
) -> list[Line]:
    """The newest lines about the organisation, its members, tokens and providers."""
    slugs = await connection.execute(sa.select(providers.c.slug).where(providers.c.organisation_id == organisation_id))
    # One short walk along an index for each provider; an OR over all of them would sort the whole log.
    scopes = [audit.c.organisation_id == organisation_id, *(audit.c.provider == slug for slug in slugs.scalars())]
    return await _read(connection, [_page(scope, before, limit, action) for scope in scopes], limit)


def _page(scope: sa.ColumnElement[bool], before: int | None, limit: int, action: str | None) -> sa.Select[Any]:
    query = sa.select(audit.c.id).where(scope)
    if before is not None:
        query = query.where(audit.c.id < before)
    if action is not None:
        query = query.where(audit.c.action == action)
    return query.order_by(audit.c.id.desc()).limit(limit)


async def _read(connection: AsyncConnection, pages: list[sa.Select[Any]], limit: int) -> list[Line]:
    ids: set[int] = set()
    for page in pages:
        ids.update((await connection.execute(page)).scalars())
    newest = sorted(ids, reverse=True)[:limit]
    query = sa.select(audit).where(audit.c.id.in_(newest)).order_by(audit.c.id.desc())
    return [
        Line(
            id=row.id,
            at_us=row.at_us,
            actor=row.actor,
            token_id=row.token_id,
            request_id=row.request_id,
            provider=row.provider,
            action=row.action,
            subject=row.subject,
            before=row.before,
            after=row.after,
        )
        for row in await connection.execute(query)
    ]
