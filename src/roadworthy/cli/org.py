"""`roadworthy org`: what its commands do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from roadworthy.cli.operator import iso, read, role_of, show, write
from roadworthy.cli.options import Where
from roadworthy.database import Database
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.store import organisations


def create(where: Where, name: str, providers: Sequence[str], admin: str | None) -> None:
    """Create an organisation, with its providers and first administrator: all of it or nothing."""

    async def work(opened: Change) -> None:
        organisation_id = await organisations.create_organisation(opened, name)
        for slug in providers:
            await organisations.create_provider(opened, slug, organisation_id)
        if admin is not None:
            await organisations.add_member(opened, organisation_id, admin, "admin")

    # First, since what cannot be made should not leave a new and empty database either.
    organisations.check_names(name, providers, [] if admin is None else [admin])
    write(where, work, make=True)
    _say(f"created the organisation {name}")
    if admin is None:
        _say(f"next, a member: roadworthy org add-member {name} NAME --role admin")
    else:
        _say(f"next, a token: roadworthy token create {name} {admin} --role admin --name laptop")


def list_all(where: Where, *, as_json: bool) -> None:
    """Print the organisations."""

    async def work(database: Database) -> list[organisations.Organisation]:
        async with database.reading() as connection:
            return await organisations.list_organisations(connection)

    rows = [
        {
            "name": each.name,
            "providers": list(each.providers),
            "members": each.members,
            "preferred": list(each.preferred_providers),
            "created": iso(each.created_at_us),
            "revoked": iso(each.revoked_at_us),
        }
        for each in read(where, work)
    ]
    nothing = "there is no organisation yet: roadworthy org create NAME --provider SLUG --admin NAME"
    show(rows, ("name", "providers", "members", "preferred", "created", "revoked"), as_json=as_json, nothing=nothing)


def revoke(where: Where, name: str) -> None:
    """Revoke an organisation."""
    write(where, lambda opened: organisations.revoke_organisation(opened, name))
    _say(f"revoked the organisation {name}; its tokens are refused from now on, and its name stays taken")


def members(where: Where, name: str, *, as_json: bool) -> None:
    """Print an organisation's members."""

    async def work(database: Database) -> list[organisations.Member]:
        async with database.reading() as connection:
            return await organisations.list_members(connection, await organisations.find_organisation(connection, name))

    rows: list[dict[str, Any]] = [
        {"name": each.name, "role": each.role, "since": iso(each.created_at_us)} for each in read(where, work)
    ]
    nothing = f"{name} has no member: roadworthy org add-member {name} NAME --role admin"
    show(rows, ("name", "role", "since"), as_json=as_json, nothing=nothing)


def add_member(where: Where, name: str, member: str, role: str) -> None:
    """Add a member."""
    wanted = role_of(role)

    async def work(opened: Change) -> None:
        organisation_id = await organisations.find_organisation(opened.connection, name)
        await organisations.add_member(opened, organisation_id, member, wanted)

    write(where, work)
    _say(f"added {member} to {name} with the role {role}")
    _say(f"next, a token: roadworthy token create {name} {member} --role {role} --name laptop")


def remove_member(where: Where, name: str, member: str) -> None:
    """Remove a member. The operator may remove the last administrator too."""

    async def work(opened: Change) -> None:
        found = await organisations.find_member(
            opened.connection, await organisations.find_organisation(opened.connection, name), member
        )
        await organisations.remove_member(opened, found, keep_an_admin=False)

    write(where, work)
    _say(f"removed {member} from {name}; his tokens are refused from now on")


def set_role(where: Where, name: str, member: str, role: str) -> None:
    """Change a member's role. The operator may demote the last administrator too."""
    wanted = role_of(role)

    async def work(opened: Change) -> None:
        found = await organisations.find_member(
            opened.connection, await organisations.find_organisation(opened.connection, name), member
        )
        await organisations.set_role(opened, found, wanted, keep_an_admin=False)

    write(where, work)
    _say(f"{member} of {name} has the role {role} now; a token of more than that counts as {role}")


def prefer(where: Where, name: str, providers: Sequence[str]) -> None:
    """Set the order of providers for the policy `preferred`."""
    write(where, lambda opened: organisations.prefer(opened, name, providers))
    _say(f"{name} prefers {', then '.join(providers)}" if providers else f"{name} prefers no provider now")


def provider_add(where: Where, name: str, slug: str, in_clients: bool | None) -> None:
    """Give an organisation one more provider."""

    async def work(opened: Change) -> None:
        organisation_id = await organisations.find_organisation(opened.connection, name)
        await organisations.create_provider(opened, slug, organisation_id, in_clients=in_clients)

    write(where, work)
    _say(f"{name} has the provider {slug} now; its mappings are at /api/partners/{slug}/models")


def provider_set(where: Where, slug: str, in_clients: bool) -> None:
    """Say whether the official clients know a provider."""
    write(where, lambda opened: organisations.set_in_clients(opened, slug, in_clients))
    _say(f"{slug} is {'a name' if in_clients else 'no name'} that the official clients know")


def _say(text: str) -> None:
    typer.echo(text, err=True)
