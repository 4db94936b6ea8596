"""Organisations, their members, tokens and providers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.mapping_api import access
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.errors import BadRequest, Conflict, Forbidden, NotFound
from roadworthy.mapping_api.names import MAPPING_ID, PROVIDER, new_id
from roadworthy.mapping_api.tables import members, organisations, providers, tokens

KNOWN_TO_CLIENTS = frozenset(
    "baseten cerebras cohere deepinfra fal-ai featherless-ai fireworks-ai groq hf-inference novita nscale openai "
    "ovhcloud publicai replicate scaleway together wavespeed zai-org".split()
)
"""Provider names that the official clients register, both the Python and the JavaScript one."""

RESERVED = frozenset({"all", "auto", "fastest", "cheapest", "preferred"})
"""Words that stand where a provider's slug may stand, and mean something else there."""

MEMBER = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,95}$"
TOKEN_NAME = r"^[^\s\x00-\x1f\x7f-\x9f](?:[^\x00-\x1f\x7f-\x9f]{0,94}[^\s\x00-\x1f\x7f-\x9f])?$"  # noqa: S105  a pattern
LONGEST_DAYS = 3650
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation, with the slugs of its providers and the number of its present members."""

    id: str
    name: str
    preferred_providers: tuple[str, ...]
    created_at_us: int
    revoked_at_us: int | None
    providers: tuple[str, ...]
    members: int


@dataclass(frozen=True, slots=True)
class Member:
    """A present member of an organisation."""

    id: str
    organisation_id: str
    name: str
    role: access.Role
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Neither it nor its digest can be had again."""

    id: str
    organisation: str
    member: str
    name: str
    role: access.Role
    shown: str
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    last_used_at_us: int | None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made, and its text, which is shown this once."""

    record: Token
    text: str


# Organisations


async def create_organisation(change: Change, name: str) -> str:
    """A new organisation's id. Raises `BadRequest` for a malformed name, `Conflict` for one that is taken."""
    _check_slug("an organisation's name", name)
    query = sa.select(organisations.c.id).where(organisations.c.name == name)
    taken = (await change.connection.execute(query)).scalar_one_or_none()
    if taken is not None:
        raise Conflict(f"there is an organisation {name!r} already, or was; choose another name", taken)
    organisation_id = new_id()
    await change.connection.execute(
        organisations.insert().values(
            id=organisation_id, name=name, preferred_providers=[], created_at_us=change.now_us
        )
    )
    await change.record("organisation.created", name, organisation_id=organisation_id, after={"name": name})
    return organisation_id


async def find_organisation(connection: AsyncConnection, name: str) -> str:
    """The id of an organisation. Raises `NotFound`."""
    query = sa.select(organisations.c.id).where(
        organisations.c.name == _printable(name), organisations.c.revoked_at_us.is_(None)
    )
    found = (await connection.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no organisation {name!r}; `roadworthy org list` shows them")
    return str(found)


async def list_organisations(connection: AsyncConnection) -> list[Organisation]:
    """Every organisation by name, revoked ones too."""
    slugs: dict[str, list[str]] = {}
    for row in await connection.execute(sa.select(providers).order_by(providers.c.slug)):
        slugs.setdefault(row.organisation_id, []).append(row.slug)
    counting = sa.select(members.c.organisation_id, sa.func.count().label("number"))
    counting = counting.where(members.c.removed_at_us.is_(None)).group_by(members.c.organisation_id)
    numbers = {row.organisation_id: row.number for row in await connection.execute(counting)}
    return [
        Organisation(
            id=row.id,
            name=row.name,
            preferred_providers=tuple(row.preferred_providers),
            created_at_us=row.created_at_us,
            revoked_at_us=row.revoked_at_us,
            providers=tuple(slugs.get(row.id, ())),
            members=numbers.get(row.id, 0),
        )
        for row in await connection.execute(sa.select(organisations).order_by(organisations.c.name))
    ]


async def revoke_organisation(change: Change, name: str) -> None:
    """End an organisation: none of its tokens works from now on. Raises `NotFound`."""
    organisation_id = await find_organisation(change.connection, name)
    await change.connection.execute(
        organisations.update().where(organisations.c.id == organisation_id).values(revoked_at_us=change.now_us)
    )
    await change.record("organisation.revoked", name, organisation_id=organisation_id, before={"name": name})


async def prefer(change: Change, name: str, slugs: Sequence[str]) -> None:
    """Set the order for the policy `preferred`. Raises `NotFound` or, for a slug that stands twice, `BadRequest`."""
    organisation_id = await find_organisation(change.connection, name)
    for slug in slugs:
        await _provider(change, slug)
    if len(set(slugs)) != len(slugs):
        raise BadRequest(f"each provider stands in the order once; got {' '.join(slugs)}")
    row = organisations.c.id == organisation_id
    query = sa.select(organisations.c.preferred_providers).where(row)
    before = (await change.connection.execute(query)).scalar_one()
    if before == list(slugs):
        return
    await change.connection.execute(organisations.update().where(row).values(preferred_providers=list(slugs)))
    await change.record(
        "organisation.preferences_changed", name, organisation_id=organisation_id, before=before, after=list(slugs)
    )


# Providers


async def create_provider(change: Change, slug: str, organisation_id: str, *, in_clients: bool | None = None) -> None:
    """A provider of the organisation. `in_clients` None: as the official clients of this version have it.

    Raises `BadRequest` for a malformed slug, `Conflict` for one that is taken.
    """
    _check_provider(slug)
    query = sa.select(providers.c.organisation_id).where(providers.c.slug == slug)
    taken = (await change.connection.execute(query)).scalar_one_or_none()
    if taken is not None:
        raise Conflict(f"the provider {slug!r} exists already; choose another slug", taken)
    known = slug in KNOWN_TO_CLIENTS if in_clients is None else in_clients
    await change.connection.execute(
        providers.insert().values(
            slug=slug,
            organisation_id=organisation_id,
            in_clients=known,
            created_at_us=change.now_us,
            revision=change.revision,
        )
    )
    after = {"slug": slug, "inClients": known}
    await change.record("provider.created", slug, provider=slug, organisation_id=organisation_id, after=after)


async def set_in_clients(change: Change, slug: str, in_clients: bool) -> None:
    """Say whether the official clients know the provider's name. Raises `NotFound`."""
    row = await _provider(change, slug)
    if row.in_clients == in_clients:
        return
    await change.connection.execute(
        providers.update().where(providers.c.slug == slug).values(in_clients=in_clients, revision=change.revision)
    )
    await change.record(
        "provider.changed",
        slug,
        provider=slug,
        organisation_id=row.organisation_id,
        before={"slug": slug, "inClients": row.in_clients},
        after={"slug": slug, "inClients": in_clients},
    )


async def provider_slugs(connection: AsyncConnection, organisation_id: str) -> list[str]:
    """The slugs of the organisation's providers, in order."""
    query = sa.select(providers.c.slug).where(providers.c.organisation_id == organisation_id)
    return [str(slug) for slug in (await connection.execute(query.order_by(providers.c.slug))).scalars()]


async def _provider(change: Change, slug: str) -> Any:
    query = sa.select(providers).where(providers.c.slug == _printable(slug))
    row = (await change.connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"there is no provider {slug!r}; `roadworthy org list` shows them")
    return row


# Members


async def list_members(connection: AsyncConnection, organisation_id: str) -> list[Member]:
    """The organisation's present members, by name."""
    query = _present(organisation_id).order_by(members.c.name)
    return [_member(row) for row in await connection.execute(query)]


async def find_member(connection: AsyncConnection, organisation_id: str, name: str) -> Member:
    """The organisation's member of that name. Raises `NotFound`."""
    query = _present(organisation_id).where(members.c.name == _printable(name))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"the organisation has no member {name!r}; list its members")
    return _member(row)


async def add_member(change: Change, organisation_id: str, name: str, role: access.Role) -> str:
    """A new member's id. One who was a member before comes back without his old tokens.

    Raises `BadRequest` for a malformed name, `Conflict` for one that is taken.
    """
    _check_member(name)
    query = sa.select(members.c.id, members.c.removed_at_us).where(
        members.c.organisation_id == organisation_id, members.c.name == name
    )
    known = (await change.connection.execute(query)).one_or_none()
    if known is not None and known.removed_at_us is None:
        raise Conflict(f"{name!r} is a member already; change the role instead", known.id)
    values = {"role": role, "created_at_us": change.now_us, "removed_at_us": None}
    if known is not None:
        member_id = str(known.id)
        await change.connection.execute(members.update().where(members.c.id == member_id).values(**values))
    else:
        member_id = new_id()
        await change.connection.execute(
            members.insert().values(id=member_id, organisation_id=organisation_id, name=name, **values)
        )
    await change.record("member.added", name, organisation_id=organisation_id, after={"name": name, "role": role})
    return member_id


async def set_role(change: Change, member: Member, role: access.Role, *, keep_an_admin: bool = True) -> Member:
    """The member with another role, at once for all his tokens.

    Raises `Forbidden` for the last administrator, unless the operator says that none need stay.
    """
    if member.role == role:
        return member
    if keep_an_admin:
        await _not_the_last_admin(change, member)
    await change.connection.execute(members.update().where(members.c.id == member.id).values(role=role))
    await change.record(
        "member.role_changed",
        member.name,
        organisation_id=member.organisation_id,
        before={"name": member.name, "role": member.role},
        after={"name": member.name, "role": role},
    )
    return Member(member.id, member.organisation_id, member.name, role, member.created_at_us)


async def remove_member(change: Change, member: Member, *, keep_an_admin: bool = True) -> None:
    """Remove a member and revoke his tokens. Raises `Forbidden` as `set_role` does."""
    if keep_an_admin:
        await _not_the_last_admin(change, member)
    await change.connection.execute(
        members.update().where(members.c.id == member.id).values(removed_at_us=change.now_us)
    )
    await change.connection.execute(
        tokens.update()
        .where(tokens.c.member_id == member.id, tokens.c.revoked_at_us.is_(None))
        .values(revoked_at_us=change.now_us)
    )
    before = {"name": member.name, "role": member.role}
    await change.record("member.removed", member.name, organisation_id=member.organisation_id, before=before)


async def _not_the_last_admin(change: Change, member: Member) -> None:
    if member.role != "admin":
        return
    others = [each for each in await list_members(change.connection, member.organisation_id) if each.id != member.id]
    if not any(each.role == "admin" for each in others):
        raise Forbidden(f"{member.name} is the organisation's last administrator; make another member admin first")


def _present(organisation_id: str) -> sa.Select[Any]:
    return sa.select(members).where(members.c.organisation_id == organisation_id, members.c.removed_at_us.is_(None))


def _member(row: Any) -> Member:
    return Member(row.id, row.organisation_id, row.name, row.role, row.created_at_us)


# Tokens


async def create_token(
    change: Change, member_id: str, name: str, role: access.Role, expires_in_days: int | None = None
) -> str:
    """The text of a new token; see `issue_token`."""
    return (await issue_token(change, member_id, name, role, expires_in_days)).text


async def issue_token(
    change: Change, member_id: str, name: str, role: access.Role, expires_in_days: int | None = None
) -> NewToken:
    """A new token of the member. It is shown this once; only its digest is kept.

    Raises `BadRequest` for a malformed name, too many days, or a role above the member's own.
    """
    if re.fullmatch(TOKEN_NAME, name) is None:
        raise BadRequest(f"a token's name is 1 to 96 printable characters, for example 'ci'; got {name!r}")
    if expires_in_days is not None and not 1 <= expires_in_days <= LONGEST_DAYS:
        raise BadRequest(f"a token expires in 1 to {LONGEST_DAYS} days; got {expires_in_days}")
    query = (
        sa.select(members, organisations.c.name.label("organisation"))
        .join(organisations, organisations.c.id == members.c.organisation_id)
        .where(members.c.id == member_id)
    )
    member = (await change.connection.execute(query)).one()
    if access.RANK[role] > access.RANK[member.role]:
        raise BadRequest(
            f"{member.name} has the role {member.role!r}, so a token can have no more; ask for {member.role!r}, "
            "or change the member's role first"
        )
    text = access.mint()
    record = Token(
        id=new_id(),
        organisation=member.organisation,
        member=member.name,
        name=name,
        role=role,
        shown=text[:9],
        created_at_us=change.now_us,
        expires_at_us=None if expires_in_days is None else change.now_us + expires_in_days * _DAY_US,
        revoked_at_us=None,
        last_used_at_us=None,
    )
    await change.connection.execute(
        tokens.insert().values(
            id=record.id,
            member_id=member_id,
            name=name,
            role=role,
            shown=record.shown,
            digest=access.digest(text),
            created_at_us=record.created_at_us,
            expires_at_us=record.expires_at_us,
        )
    )
    await change.record(
        "token.created", record.id, organisation_id=member.organisation_id, after=_token_as_logged(record)
    )
    return NewToken(record, text)


async def list_tokens(connection: AsyncConnection, organisation_id: str | None = None) -> list[Token]:
    """Every token of the organisation, or of all of them, the oldest first; revoked ones too."""
    query = _tokens().order_by(tokens.c.created_at_us, tokens.c.id)
    if organisation_id is not None:
        query = query.where(members.c.organisation_id == organisation_id)
    return [_token(row) for row in await connection.execute(query)]


async def find_token(connection: AsyncConnection, token_id: str) -> Token | None:
    """What is known of one token."""
    row = (await connection.execute(_tokens().where(tokens.c.id == token_id))).one_or_none()
    return None if row is None else _token(row)


async def revoke_token(change: Change, token_id: str, organisation_id: str | None = None) -> Token:
    """Revoke a token, of this organisation if one is named. Raises `NotFound` where none is left to revoke."""
    missing = NotFound(f"there is no token {token_id!r} that is not revoked; list the tokens to see their ids")
    if re.fullmatch(MAPPING_ID, token_id) is None:
        raise missing
    query = _tokens(members.c.organisation_id).where(tokens.c.id == token_id, tokens.c.revoked_at_us.is_(None))
    row = (await change.connection.execute(query)).one_or_none()
    if row is None or organisation_id not in {None, row.organisation_id}:
        raise missing
    await change.connection.execute(tokens.update().where(tokens.c.id == token_id).values(revoked_at_us=change.now_us))
    token = _token(row)
    await change.record("token.revoked", token_id, organisation_id=row.organisation_id, before=_token_as_logged(token))
    return token


def _tokens(*more: Any) -> sa.Select[Any]:
    return (
        sa.select(
            *(column for column in tokens.c if column.name not in {"member_id", "digest"}),
            members.c.name.label("member"),
            organisations.c.name.label("organisation"),
            *more,
        )
        .join(members, members.c.id == tokens.c.member_id)
        .join(organisations, organisations.c.id == members.c.organisation_id)
    )


def _token(row: Any) -> Token:
    return Token(
        id=row.id,
        organisation=row.organisation,
        member=row.member,
        name=row.name,
        role=row.role,
        shown=row.shown,
        created_at_us=row.created_at_us,
        expires_at_us=row.expires_at_us,
        revoked_at_us=row.revoked_at_us,
        last_used_at_us=row.last_used_at_us,
    )


def _token_as_logged(token: Token) -> dict[str, Any]:
    return {"name": token.name, "member": token.member, "role": token.role}


def check_names(organisation: str, providers: Sequence[str] = (), members: Sequence[str] = ()) -> None:
    """Raises `BadRequest` where a name is malformed or stands twice: before there is a database to hold any."""
    _check_slug("an organisation's name", organisation)
    for slug in providers:
        _check_provider(slug)
    if len(set(providers)) != len(providers):
        raise BadRequest(f"each provider is named once; got {' '.join(providers)}")
    for name in members:
        _check_member(name)


def _check_provider(slug: str) -> None:
    _check_slug("a provider's slug", slug)
    if slug in RESERVED:
        raise BadRequest(f"a provider cannot be called {slug!r}, which means something else to clients; choose another")


def _check_member(name: str) -> None:
    if re.fullmatch(MEMBER, name) is None:
        raise BadRequest(
            "a member's name is at most 96 letters, digits and . _ @ + - and begins with a letter or digit; "
            f"got {name!r}"
        )


def _check_slug(what: str, text: str) -> None:
    if re.fullmatch(PROVIDER, text) is None:
        raise BadRequest(
            f"{what} is 2 to 64 lower-case letters, digits and single hyphens between them, for example "
            f"'fireworks-ai'; got {text!r}"
        )


def _printable(name: str) -> str:
    """The name if it can be one, else "", which none is: PostgreSQL takes no text with a zero byte in it."""
    return name if name.isprintable() and name.isascii() else ""
