"""Gateways: who may hand in usage. A token is `rwg_` and 43 characters of 32 random bytes.

It has a form of its own, so that no partner's token can be taken for one, and secret scanners find it. Only its
SHA-256 is stored: it is random, so that a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.billing.tables import gateways
from roadworthy.database import insert
from roadworthy.errors import UsageError

PREFIX = "rwg_"
_TOKEN = re.compile(r"rwg_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway as it is known. Neither its token nor the digest can be had again."""

    id: int
    name: str
    created_at_us: int
    revoked_at_us: int | None


def well_formed(token: str) -> bool:
    """Whether the text has a gateway token's form."""
    return _TOKEN.fullmatch(token) is not None


async def create(connection: AsyncConnection, name: str, now_us: int) -> str:
    """The token of a new gateway, which is shown this once. Raises `UsageError` for a name that cannot be had."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a gateway's name is 1 to 64 small letters, digits, dots, hyphens or _, such as 'router-eu'; got {name!r}"
        )
    token = PREFIX + secrets.token_urlsafe(32)
    statement = insert(connection, gateways).values(name=name, token_digest=_digest(token), created_at_us=now_us)
    statement = statement.on_conflict_do_nothing(index_elements=["name"])
    if (await connection.execute(statement.returning(gateways.c.id))).first() is None:
        raise UsageError(f"there is a gateway {name!r} already, or there was one; give another name, such as {name}-2")
    return token


async def list_all(connection: AsyncConnection) -> list[Gateway]:
    """Every gateway, the oldest first; revoked ones too."""
    return [_from_row(row) for row in await connection.execute(_all().order_by(gateways.c.id))]


async def revoke(connection: AsyncConnection, name: str, now_us: int) -> None:
    """End a gateway's token, at once and for good. Raises `UsageError` where none of that name is left to revoke."""
    done = await connection.execute(
        gateways.update()
        .where(gateways.c.name == name, gateways.c.revoked_at_us.is_(None))
        .values(revoked_at_us=now_us)
    )
    if done.rowcount != 1:
        raise UsageError(
            f"there is no gateway {name!r} that is not revoked; `roadworthy billing gateway list` shows them"
        )


async def of_token(connection: AsyncConnection, token: str) -> Gateway | None:
    """The gateway whose token it is, unless it was revoked."""
    # Looked up by digest: how long it takes tells nothing of any token that is stored.
    query = _all().where(gateways.c.token_digest == _digest(token), gateways.c.revoked_at_us.is_(None))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _from_row(row)


async def works(connection: AsyncConnection, gateway_id: int) -> bool:
    """Whether the gateway was not revoked since it was let in."""
    query = sa.select(gateways.c.id).where(gateways.c.id == gateway_id, gateways.c.revoked_at_us.is_(None))
    return (await connection.execute(query)).first() is not None


def _all() -> sa.Select[Any]:
    return sa.select(*(gateways.c[name] for name in Gateway.__dataclass_fields__))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _from_row(row: Any) -> Gateway:
    return Gateway(*row)
