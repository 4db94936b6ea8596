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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database
from roadworthy.mapping_api.change import Actor
from roadworthy.mapping_api.errors import Forbidden, Unauthorized
from roadworthy.mapping_api.records import Provider
from roadworthy.mapping_api.tables import members, organisations, tokens

Role = Literal["read", "write", "admin"]
RANK: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}


def lower(one: Role, other: Role) -> Role:
    """The lesser of two roles: what a token of the one may do in the hands of a member of the other."""
    return one if RANK[one] <= RANK[other] else other


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
        """The caller as the audit log names him. His token is looked at again within each change he makes."""
        if self.token_id is None:
            return Actor("anonymous", None, request_id)
        return Actor(f"{self.organisation}/{self.member}", self.token_id, request_id, self._confirm)

    async def _confirm(self, connection: AsyncConnection, now_us: int) -> None:
        """Raises `Unauthorized` where the token ended since it was let in, `Forbidden` where its role was lowered."""
        now = await _find(connection, tokens.c.id == self.token_id, now_us)
        if now is None:
            raise InvalidCredentials
        if RANK[now.role] < RANK[self.role]:
            raise Forbidden(f"this token's role was lowered to {now.role!r} meanwhile; nothing was done")

    def owns(self, provider: Provider) -> bool:
        """Whether the caller is a member of the provider's organisation."""
        return self.organisation_id is not None and self.organisation_id == provider.organisation_id

    def require(self, provider: Provider, role: Role) -> None:
        """Raises `Unauthorized` for the public, `Forbidden` for strangers and for roles too low."""
        self._require(role, f"the organisation behind {provider.slug}", owns=self.owns(provider))

    def require_in(self, organisation: str, role: Role) -> str:
        """The same for an organisation by its name, and then its id. To strangers, one that is not looks like any."""
        self._require(role, f"the organisation {organisation}", owns=self.organisation == organisation)
        assert self.organisation_id is not None
        return self.organisation_id

    def _require(self, role: Role, whose: str, *, owns: bool) -> None:
        if self.token_id is None:
            raise Unauthorized(
                f"this needs a token with the role {role!r} of {whose}; send it as `Authorization: Bearer <token>`"
            )
        if not owns:
            raise Forbidden(
                f"{self.organisation}/{self.member} is not a member of {whose}; ask one of its administrators"
            )
        if RANK[self.role] < RANK[role]:
            raise Forbidden(f"this token has the role {self.role!r}; this needs {role!r}. Ask for another token")

    def may_grant(self, role: Role) -> None:
        """Raises `Forbidden` for a role above the caller's own."""
        if RANK[role] > RANK[self.role]:
            raise Forbidden(f"this token has the role {self.role!r} and cannot grant {role!r}; grant {self.role!r}")


PUBLIC = Caller()
_LONGEST_BYTES = 256
"""No well-formed Authorization header is longer."""


class InvalidCredentials(Unauthorized):
    """A token came that is malformed, unknown, expired or revoked; which of these is not told.

    The words are the hub's own: by them the official Python client tells a bad token from a missing model.
    """

    def __init__(self) -> None:
        """The words go into the header that the client reads, too."""
        message = "Invalid credentials in Authorization header"
        super().__init__(message)
        self.headers["X-Error-Message"] = message


def bearer(values: Sequence[str]) -> str | None:
    """The token in a request's Authorization headers; None where there is none. Raises `InvalidCredentials`.

    Two headers are refused even if one is right: a proxy and the service might choose differently.
    """
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    token = token.strip(" ")
    if len(values) > 1 or len(values[0]) > _LONGEST_BYTES or scheme.lower() != "bearer" or not well_formed(token):
        raise InvalidCredentials
    return token


async def authenticate(database: Database, values: Sequence[str]) -> Caller:
    """The caller behind a request's Authorization headers; the public where there is none.

    Asks the database each time, so that a token ends with its revocation. Raises `Unauthorized`.
    """
    token = bearer(values)
    if token is None:
        return PUBLIC
    async with database.reading() as connection:
        # Looked up by digest: how long it takes tells nothing of any token that is stored.
        caller = await _find(connection, tokens.c.digest == digest(token), await database.now_us(connection))
    if caller is None:
        raise InvalidCredentials
    return caller


async def _find(connection: AsyncConnection, which: sa.ColumnElement[bool], now_us: int) -> Caller | None:
    """The caller behind a token that works now."""
    query = (
        sa.select(
            tokens.c.id,
            tokens.c.role,
            members.c.name.label("member"),
            members.c.role.label("member_role"),
            organisations.c.id.label("organisation_id"),
            organisations.c.name.label("organisation"),
            organisations.c.preferred_providers,
        )
        .join(members, members.c.id == tokens.c.member_id)
        .join(organisations, organisations.c.id == members.c.organisation_id)
        .where(
            which,
            tokens.c.revoked_at_us.is_(None),
            sa.or_(tokens.c.expires_at_us.is_(None), tokens.c.expires_at_us > now_us),
            members.c.removed_at_us.is_(None),
            organisations.c.revoked_at_us.is_(None),
        )
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return Caller(
        organisation_id=row.organisation_id,
        organisation=row.organisation,
        member=row.member,
        role=lower(row.role, row.member_role),
        token_id=row.id,
        preferred_providers=tuple(row.preferred_providers),
    )
