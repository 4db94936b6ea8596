"""`roadworthy token`: what its commands do."""

from __future__ import annotations

import typer

from roadworthy.cli.operator import iso, read, role_of, show, write
from roadworthy.cli.options import Where
from roadworthy.database import Database
from roadworthy.mapping_api.change import Change
from roadworthy.mapping_api.store import organisations

_COLUMNS = ("id", "organisation", "member", "name", "role", "shown", "created", "expires", "last_used", "revoked")


def create(where: Where, org: str, member: str, *, name: str, role: str, expires_in_days: int | None) -> None:
    """Print a new token, alone, on standard output; what is to be said of it goes to standard error."""
    wanted = role_of(role)

    async def work(opened: Change) -> organisations.NewToken:
        organisation_id = await organisations.find_organisation(opened.connection, org)
        found = await organisations.find_member(opened.connection, organisation_id, member)
        return await organisations.issue_token(opened, found.id, name, wanted, expires_in_days)

    made = write(where, work)
    ends = iso(made.record.expires_at_us)
    typer.echo(
        f"token {made.record.id} of {org}/{member}, role {role}, {f'ends {ends}' if ends else 'does not end'}. "
        f"It is shown this once; revoke it with: roadworthy token revoke {made.record.id}",
        err=True,
    )
    typer.echo(made.text)


def list_all(where: Where, org: str | None, *, as_json: bool) -> None:
    """Print the tokens, without their secrets."""

    async def work(database: Database) -> list[organisations.Token]:
        async with database.reading() as connection:
            organisation_id = None if org is None else await organisations.find_organisation(connection, org)
            return await organisations.list_tokens(connection, organisation_id)

    rows = [
        {
            "id": each.id,
            "organisation": each.organisation,
            "member": each.member,
            "name": each.name,
            "role": each.role,
            "shown": each.shown,
            "created": iso(each.created_at_us),
            "expires": iso(each.expires_at_us),
            "last_used": iso(each.last_used_at_us),
            "revoked": iso(each.revoked_at_us),
        }
        for each in read(where, work)
    ]
    nothing = "there is no token yet: roadworthy token create ORG MEMBER --role write --name ci"
    show(rows, _COLUMNS, as_json=as_json, nothing=nothing)


def revoke(where: Where, token_id: str) -> None:
    """Revoke a token."""
    token = write(where, lambda opened: organisations.revoke_token(opened, token_id))
    typer.echo(f"revoked the token {token.name!r} of {token.organisation}/{token.member}", err=True)
