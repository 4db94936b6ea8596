"""`roadworthy org`: organisations, their members and providers. Definitions only; the work is in `org`."""

from __future__ import annotations

from typing import Annotated

import typer

from roadworthy.cli.options import Config, Database, Json, Where

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Organisations, their members and providers, straight in the database; the service may run meanwhile.",
)
provider_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The providers of an organisation.")
app.add_typer(provider_app, name="provider")

Org = Annotated[str, typer.Argument(metavar="ORG", help="The organisation's name.")]
Member = Annotated[str, typer.Argument(metavar="MEMBER", help="The member's name.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The provider's slug.")]
InClients = Annotated[
    bool | None,
    typer.Option(
        "--in-clients/--no-in-clients", help="Whether the official clients know the slug [default: as they do now]."
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and hyphens.")],
    provider: Annotated[
        list[str] | None, typer.Option("--provider", metavar="SLUG", help="A provider of its own; repeatable.")
    ] = None,
    admin: Annotated[str | None, typer.Option("--admin", metavar="NAME", help="Its first administrator.")] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Create an organisation. Makes the database if there is none."""
    from roadworthy.cli import org

    org.create(Where(database, config), name, provider or [], admin)


@app.command("list")
def list_all(json: Json = False, database: Database = None, config: Config = None) -> None:
    """List the organisations."""
    from roadworthy.cli import org

    org.list_all(Where(database, config), as_json=json)


@app.command()
def revoke(name: Org, database: Database = None, config: Config = None) -> None:
    """Revoke an organisation: none of its tokens works from now on."""
    from roadworthy.cli import org

    org.revoke(Where(database, config), name)


@app.command()
def members(name: Org, json: Json = False, database: Database = None, config: Config = None) -> None:
    """List an organisation's members."""
    from roadworthy.cli import org

    org.members(Where(database, config), name, as_json=json)


@app.command("add-member")
def add_member(
    name: Org,
    member: Member,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="read, write or admin.")] = "read",
    database: Database = None,
    config: Config = None,
) -> None:
    """Add a member."""
    from roadworthy.cli import org

    org.add_member(Where(database, config), name, member, role)


@app.command("remove-member")
def remove_member(name: Org, member: Member, database: Database = None, config: Config = None) -> None:
    """Remove a member; his tokens end with it."""
    from roadworthy.cli import org

    org.remove_member(Where(database, config), name, member)


@app.command("set-role")
def set_role(
    name: Org,
    member: Member,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="read, write or admin.")],
    database: Database = None,
    config: Config = None,
) -> None:
    """Change a member's role."""
    from roadworthy.cli import org

    org.set_role(Where(database, config), name, member, role)


@app.command()
def prefer(
    name: Org,
    providers: Annotated[
        list[str] | None, typer.Argument(metavar="[SLUG]...", help="Best first; none ends the preference.")
    ] = None,
    database: Database = None,
    config: Config = None,
) -> None:
    """Set the order of providers for the policy `preferred`."""
    from roadworthy.cli import org

    org.prefer(Where(database, config), name, providers or [])


@provider_app.command("add")
def provider_add(
    name: Org, slug: Slug, in_clients: InClients = None, database: Database = None, config: Config = None
) -> None:
    """Give an organisation one more provider."""
    from roadworthy.cli import org

    org.provider_add(Where(database, config), name, slug, in_clients)


@provider_app.command("set")
def provider_set(
    slug: Slug,
    in_clients: Annotated[
        bool, typer.Option("--in-clients/--no-in-clients", help="Whether the official clients know the slug.")
    ],
    database: Database = None,
    config: Config = None,
) -> None:
    """Say whether the official clients know a provider. One they do not know is never named first."""
    from roadworthy.cli import org

    org.provider_set(Where(database, config), slug, in_clients)
