"""Who may do what: tokens, the callers they stand for, and the three roles.

A token is `hf_rw` and 49 letters and digits: 32 random bytes and a checksum, so that a
mistyped one is told apart without asking the database, and secret scanners can find it. It
begins with `hf_` since the official JavaScript client sends no other token. Only its SHA-256
is stored: it is random, so that a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from roadworthy.database import Database
from roadworthy.mapping_api.change import Actor
from roadworthy.mapping_api.errors import Forbidden, Unauthorized
from roadworthy.mapping_api.records import Provider
from roadworthy.mapping_api.tables import members, organisations, tokens

Role = Literal["read", "write", "admin"]
RANK: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}

PREFIX = "hf_rw"
_DIGITS = string.digits + string.ascii_letters
_SECRET_LENGTH = 43  # 62 ** 43 > 2 ** 256
_CHECK_LENGTH = 6  # 62 ** 6 > 2 ** 32


def mint() -> str:
    """A new token."""
    secret = _base62(int.from_bytes(secrets.token_bytes(32)), _SECRET_LENGTH)
    return PREFIX + secret + _checksum(secret)


def well_formed(token: str) -> bool:
    """Whether the text is a token of ours, by its prefix, length and checksum."""
    secret, check = token[len(PREFIX) : -_CHECK_LENGTH], token[-_CHECK_LENGTH:]
    return (
        token.startswith(PREFIX)
        and len(secret) == _SECRET_LENGTH
        and set(secret) <= set(_DIGITS)
        and secrets.compare_digest(check.encode(), _checksum(secret).encode())
    )


def digest(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Without an organisation it is the public."""

    organisation_id: str | None = None
    organisation: str = ""
    member: str = ""
    role: Role = "read"
    token_id: str | None = None
    preferred_providers: tuple[str, ...] = ()

    def actor(self, request_id: str | None = None) -> Actor:
        """The caller as the audit log names him."""
        return Actor(f"{self.organisation}/{self.member}" if self.token_id else "anonymous", self.token_id, request_id)

    def owns(self, provider: Provider) -> bool:
        """Whether the caller is a member of the provider's organisation."""
        return self.organisation_id is not None and self.organisation_id == provider.organisation_id

    def require(self, provider: Provider, role: Role) -> None:
        """Raises `Unauthorized` for the public, `Forbidden` for strangers and for roles too low."""
        if self.token_id is None:
            raise Unauthorized(
                f"this needs a token with the role {role!r} of the organisation behind {provider.slug}; "
                "send it as `Authorization: Bearer <token>`"
            )
        if not self.owns(provider):
            raise Forbidden(
                f"{self.organisation}/{self.member} is not a member of the organisation behind {provider.slug}; "
                "ask one of its administrators"
            )
        if RANK[self.role] < RANK[role]:
            raise Forbidden(f"this token has the role {self.role!r}; this needs {role!r}. Ask for another token")


PUBLIC = Caller()
_INVALID = "Invalid credentials in Authorization header"
"""The hub's own words: the official Python client tells a bad token from a missing model by them."""


async def authenticate(database: Database, authorization: str | None) -> Caller:
    """The caller behind an Authorization header; the public where there is none. Raises `Unauthorized`."""
    if authorization is None:
        return PUBLIC
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not well_formed(token):
        raise Unauthorized(_INVALID)
    query = (
        sa.select(
            tokens.c.id,
            tokens.c.role,
            tokens.c.expires_at_us,
            tokens.c.last_used_at_us,
            members.c.name.label("member"),
            members.c.role.label("member_role"),
            organisations.c.id.label("organisation_id"),
            organisations.c.name.label("organisation"),
            organisations.c.preferred_providers,
        )
        .join(members, members.c.id == tokens.c.member_id)
        .join(organisations, organisations.c.id == members.c.organisation_id)
        .where(
            tokens.c.digest == digest(token),
            tokens.c.revoked_at_us.is_(None),
            members.c.removed_at_us.is_(None),
            organisations.c.revoked_at_us.is_(None),
        )
    )
    async with database.reading() as connection:
        row = (await connection.execute(query)).one_or_none()
        if row is None or (row.expires_at_us is not None and row.expires_at_us <= await database.now_us(connection)):
            raise Unauthorized(_INVALID)
    return Caller(
        organisation_id=row.organisation_id,
        organisation=row.organisation,
        member=row.member,
        role=min(row.role, row.member_role, key=lambda role: RANK[role]),
        token_id=row.id,
        preferred_providers=tuple(row.preferred_providers),
    )
