"""`roadworthy org`: organisations, their members and providers. Definitions only; the work is in `org`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Organisations, their members and providers, straight in the database; the service may run meanwhile.",
)
provider_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The providers of an organisation.")
app.add_typer(provider_app, name="provider")

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="SQLite or PostgreSQL [default: as `serve` has it: ROADWORTHY_DATABASE_URL, roadworthy.toml, "
        "sqlite:///roadworthy.db].",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
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
) -> None:
    """Create an organisation. Makes the database if there is none."""
    from roadworthy.cli import org

    org.create(database, name, provider or [], admin)


@app.command("list")
def list_all(json: Json = False, database: Database = None) -> None:
    """List the organisations."""
    from roadworthy.cli import org

    org.list_all(database, as_json=json)


@app.command()
def revoke(name: Org, database: Database = None) -> None:
    """Revoke an organisation: none of its tokens works from now on."""
    from roadworthy.cli import org

    org.revoke(database, name)


@app.command()
def members(name: Org, json: Json = False, database: Database = None) -> None:
    """List an organisation's members."""
    from roadworthy.cli import org

    org.members(database, name, as_json=json)


@app.command("add-member")
def add_member(
    name: Org,
    member: Member,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="read, write or admin.")] = "read",
    database: Database = None,
) -> None:
    """Add a member."""
    from roadworthy.cli import org

    org.add_member(database, name, member, role)


@app.command("remove-member")
def remove_member(name: Org, member: Member, database: Database = None) -> None:
    """Remove a member; his tokens end with it."""
    from roadworthy.cli import org

    org.remove_member(database, name, member)


@app.command("set-role")
def set_role(
    name: Org,
    member: Member,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="read, write or admin.")],
    database: Database = None,
) -> None:
    """Change a member's role."""
    from roadworthy.cli import org

    org.set_role(database, name, member, role)


@app.command()
def prefer(
    name: Org,
    providers: Annotated[
        list[str] | None, typer.Argument(metavar="[SLUG]...", help="Best first; none ends the preference.")
    ] = None,
    database: Database = None,
) -> None:
    """Set the order of providers for the policy `preferred`."""
    from roadworthy.cli import org

    org.prefer(database, name, providers or [])


@provider_app.command("add")
def provider_add(name: Org, slug: Slug, in_clients: InClients = None, database: Database = None) -> None:
    """Give an organisation one more provider."""
    from roadworthy.cli import org

    org.provider_add(database, name, slug, in_clients)


@provider_app.command("set")
def provider_set(
    slug: Slug,
    in_clients: Annotated[
        bool, typer.Option("--in-clients/--no-in-clients", help="Whether the official clients know the slug.")
    ],
    database: Database = None,
) -> None:
    """Say whether the official clients know a provider. One they do not know is never named first."""
    from roadworthy.cli import org

    org.provider_set(database, slug, in_clients)
