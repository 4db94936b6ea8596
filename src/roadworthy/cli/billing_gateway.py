"""`roadworthy billing gateway`: who may hand in usage."""

from __future__ import annotations

import typer

from roadworthy.billing.store import gateways
from roadworthy.billing.store.gateways import Gateway
from roadworthy.cli.operator import iso, read, show, write
from roadworthy.cli.options import Where
from roadworthy.database import Database
from roadworthy.mapping_api.change import Change

_COLUMNS = ("name", "created", "revoked")


def create(where: Where, name: str) -> None:
    """Print a new gateway's token, alone, on standard output; what is to be said of it goes to standard error."""

    async def work(opened: Change) -> str:
        token = await gateways.create(opened.connection, name, opened.now_us)
        await opened.record("gateway.created", name)
        return token

    token = write(where, work, make=True)
    typer.echo(
        f"token of the gateway {name}. It is shown this once; revoke it with: roadworthy billing gateway revoke {name}",
        err=True,
    )
    typer.echo(token)


def list_all(where: Where, *, as_json: bool) -> None:
    """Print the gateways, without their tokens."""

    async def work(database: Database) -> list[Gateway]:
        async with database.reading() as connection:
            return await gateways.list_all(connection)

    rows = [
        {"name": each.name, "created": iso(each.created_at_us), "revoked": iso(each.revoked_at_us)}
        for each in read(where, work)
    ]
    show(rows, _COLUMNS, as_json=as_json, nothing="there is no gateway yet: roadworthy billing gateway create NAME")


def revoke(where: Where, name: str) -> None:
    """End a gateway's token."""

    async def work(opened: Change) -> None:
        await gateways.revoke(opened.connection, name, opened.now_us)
        await opened.record("gateway.revoked", name)

    write(where, work)
    typer.echo(f"revoked the token of the gateway {name}", err=True)
