"""Organisations, their members, tokens and providers."""

from __future__ import annotations

import re

import sqlalchemy as sa

from roadworthy.mapping_api import access
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.errors import BadRequest, Conflict, NotFound
from roadworthy.mapping_api.names import PROVIDER, new_id
from roadworthy.mapping_api.tables import members, organisations, providers, tokens

KNOWN_TO_CLIENTS = frozenset(
    "baseten cerebras cohere deepinfra fal-ai featherless-ai fireworks-ai groq hf-inference novita nscale openai "
    "ovhcloud publicai replicate scaleway together wavespeed zai-org".split()
)
"""Provider names that the official clients register, both the Python and the JavaScript one."""

RESERVED = frozenset({"all", "auto", "fastest", "cheapest", "preferred"})
"""Words that stand where a provider's slug may stand, and mean something else there."""


async def create_organisation(change: Change, name: str) -> str:
    """A new organisation's id. Raises `BadRequest` for a malformed name, `Conflict` for one that is taken."""
    _check_slug("an organisation's name", name)
    query = sa.select(organisations.c.id).where(organisations.c.name == name)
    taken = (await change.connection.execute(query)).scalar_one_or_none()
    if taken is not None:
        raise Conflict(f"there is an organisation {name!r} already; choose another name", taken)
    organisation_id = new_id()
    await change.connection.execute(
        organisations.insert().values(
            id=organisation_id, name=name, preferred_providers=[], created_at_us=change.now_us
        )
    )
    await change.record("organisation.created", name, organisation_id=organisation_id, after={"name": name})
    return organisation_id


async def find_organisation(change: Change, name: str) -> str:
    """The id of an organisation. Raises `NotFound`."""
    query = sa.select(organisations.c.id).where(organisations.c.name == name, organisations.c.revoked_at_us.is_(None))
    found = (await change.connection.execute(query)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no organisation {name!r}; `roadworthy org list` shows them")
    return str(found)


async def create_provider(change: Change, slug: str, organisation_id: str) -> None:
    """A provider of the organisation. Raises `BadRequest` for a malformed slug, `Conflict` for one that is taken."""
    _check_slug("a provider's slug", slug)
    if slug in RESERVED:
        raise BadRequest(f"a provider cannot be called {slug!r}, which means something else to clients; choose another")
    query = sa.select(providers.c.organisation_id).where(providers.c.slug == slug)
    taken = (await change.connection.execute(query)).scalar_one_or_none()
    if taken is not None:
        raise Conflict(f"the provider {slug!r} exists already; choose another slug", taken)
    await change.connection.execute(
        providers.insert().values(
            slug=slug,
            organisation_id=organisation_id,
            in_clients=slug in KNOWN_TO_CLIENTS,
            created_at_us=change.now_us,
            revision=change.revision,
        )
    )
    await change.record("provider.created", slug, provider=slug, organisation_id=organisation_id, after={"slug": slug})


async def add_member(change: Change, organisation_id: str, name: str, role: access.Role) -> str:
    """A new member's id."""
    member_id = new_id()
    await change.connection.execute(
        members.insert().values(
            id=member_id, organisation_id=organisation_id, name=name, role=role, created_at_us=change.now_us
        )
    )
    await change.record("member.added", name, organisation_id=organisation_id, after={"name": name, "role": role})
    return member_id


async def create_token(change: Change, member_id: str, name: str, role: access.Role) -> str:
    """A new token of the member. It is shown this once; only its digest is kept."""
    token = access.mint()
    token_id = new_id()
    await change.connection.execute(
        tokens.insert().values(
            id=token_id,
            member_id=member_id,
            name=name,
            role=role,
            shown=token[:9],
            digest=access.digest(token),
            created_at_us=change.now_us,
        )
    )
    owner = sa.select(members.c.organisation_id).where(members.c.id == member_id)
    organisation_id = (await change.connection.execute(owner)).scalar_one()
    await change.record("token.created", token_id, organisation_id=organisation_id, after={"name": name, "role": role})
    return token


def _check_slug(what: str, text: str) -> None:
    if re.fullmatch(PROVIDER, text) is None:
        raise BadRequest(
            f"{what} is 2 to 64 lower-case letters, digits and single hyphens between them, for example "
            f"'fireworks-ai'; got {text!r}"
        )
