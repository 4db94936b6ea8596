"""Answers to requests that carried an `Idempotency-Key`, so that one sent again is answered again, not done again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.errors import KeyReused
from roadworthy.mapping_api.tables import idempotency

KEPT_US = 24 * 3600 * 1_000_000
"""How long an answer is kept. After that the key is new again."""


@dataclass(frozen=True, slots=True)
class Key:
    """One request's key. Within a provider, each organisation's keys are its own."""

    provider: str
    organisation_id: str
    key: str
    request_digest: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered."""

    status_code: int
    body: dict[str, Any]


def request_digest(body: Any) -> str:
    """What tells one body from another: its JSON value, without regard to spaces and the order of keys."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


async def find(connection: AsyncConnection, key: Key, now_us: int) -> Answer | None:
    """The answer this request had. Raises `KeyReused` where the key came with another request."""
    query = sa.select(idempotency).where(
        idempotency.c.provider == key.provider,
        idempotency.c.organisation_id == key.organisation_id,
        idempotency.c.key == key.key,
        idempotency.c.created_at_us > now_us - KEPT_US,
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.request_digest != key.request_digest:
        raise KeyReused(
            f"Idempotency-Key: {key.key!r} came before with another body; take a new key for another request"
        )
    return Answer(row.status_code, row.body)


async def remember(change: Change, key: Key, answer: Answer) -> None:
    """Keep the answer, in the transaction of what it tells of; and let go of those that are too old."""
    await change.connection.execute(idempotency.delete().where(idempotency.c.created_at_us <= change.now_us - KEPT_US))
    await change.connection.execute(
        idempotency.insert().values(
            provider=key.provider,
            organisation_id=key.organisation_id,
            key=key.key,
            request_digest=key.request_digest,
            status_code=answer.status_code,
            body=answer.body,
            created_at_us=change.now_us,
        )
    )
