"""Organisations from within: members and tokens, for administrators; and who a token stands for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Response, status
from pydantic import BaseModel, ConfigDict, Field

from roadworthy.mapping_api.access import InvalidCredentials, Role
from roadworthy.mapping_api.api.bodies import body, takes
from roadworthy.mapping_api.api.context import ActorOf, CallerOf, ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.change import change
from roadworthy.mapping_api.errors import NotFound, Unauthorized
from roadworthy.mapping_api.names import MAPPING_ID
from roadworthy.mapping_api.store import organisations
from roadworthy.mapping_api.store.organisations import LONGEST_DAYS, MEMBER, TOKEN_NAME, NewToken, Token
from roadworthy.mapping_api.times import iso

router = APIRouter(tags=["access"])

Organization = Annotated[
    str, Path(min_length=1, max_length=96, description="The organisation's name.", examples=["fireworks-ai"])
]
MemberName = Annotated[str, Field(pattern=MEMBER, max_length=96, examples=["ann"])]
MemberInPath = Annotated[str, Path(pattern=MEMBER, max_length=96, description="The member's name.", examples=["ann"])]
TokenId = Annotated[str, Path(pattern=MAPPING_ID, description="The token's id.", examples=["64f1c2d3e4a5b6c7d8e9f0a1"])]
Moment = Annotated[datetime, Field(description="ISO 8601, UTC.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=False)


class TokenWanted(_Body):
    """The token to make."""

    member: MemberName
    name: Annotated[str, Field(pattern=TOKEN_NAME, max_length=96, examples=["ci"])]
    role: Role = "read"
    expires_in_days: Annotated[int | None, Field(alias="expiresInDays", ge=1, le=LONGEST_DAYS, strict=True)] = None


class TokenShown(BaseModel):
    """A token without its secret. `shown` is how it begins; `lastUsedAt` is right to a minute."""

    id: str
    member: str
    name: str
    role: Role
    shown: str
    created_at: Moment = Field(alias="createdAt")
    expires_at: Moment | None = Field(alias="expiresAt")
    revoked_at: Moment | None = Field(alias="revokedAt")
    last_used_at: Moment | None = Field(alias="lastUsedAt")


class TokenMade(TokenShown):
    """A token just made; `token` is shown this once."""

    token: str


class MemberWanted(_Body):
    """The member to add."""

    name: MemberName
    role: Role = "read"


class RoleWanted(_Body):
    """The member's new role."""

    role: Role


class MemberShown(BaseModel):
    """A member."""

    name: str
    role: Role


class OrganizationOfCaller(BaseModel):
    """The organisation that the token belongs to, as the hub's clients read it."""

    type: Literal["org"]
    id: str
    name: str
    fullname: str
    role_in_org: Role = Field(alias="roleInOrg")
    providers: list[str]


class AccessToken(BaseModel):
    """The token itself. `role` is what it may do: the lower of its own and its member's."""

    display_name: str = Field(alias="displayName")
    role: Role
    created_at: Moment = Field(alias="createdAt")


class Auth(BaseModel):
    """How the caller is known."""

    type: Literal["access_token"]
    access_token: AccessToken = Field(alias="accessToken")


class WhoAmI(BaseModel):
    """Who the token stands for, in the shape that the hub's clients read."""

    type: Literal["user"]
    id: str
    name: str
    fullname: str
    orgs: list[OrganizationOfCaller]
    auth: Auth


async def _administered(org: Organization, caller: CallerOf) -> str:
    return caller.require_in(org, "admin")


Administered = Annotated[str, Depends(_administered)]
"""The id of the organisation in the path, which the caller administers. Name it before the body."""


@router.get("/api/whoami-v2", response_model=WhoAmI, responses=documented(401, 503))
async def whoami(caller: CallerOf, service: ServiceOf) -> Any:
    """Say who the token stands for."""
    if caller.token_id is None or caller.organisation_id is None:
        raise Unauthorized("this says who a token stands for; send one as `Authorization: Bearer <token>`")
    async with service.database.reading() as connection:
        token = await organisations.find_token(connection, caller.token_id)
        try:
            member = await organisations.find_member(connection, caller.organisation_id, caller.member)
        except NotFound:
            member = None
        slugs = await organisations.provider_slugs(connection, caller.organisation_id)
    if token is None or member is None:
        raise InvalidCredentials  # removed since the token was looked up
    organisation = {
        "type": "org",
        "id": caller.organisation_id,
        "name": caller.organisation,
        "fullname": caller.organisation,
        "roleInOrg": member.role,
        "providers": slugs,
    }
    access_token = {"displayName": token.name, "role": caller.role, "createdAt": iso(token.created_at_us)}
    return {
        "type": "user",
        "id": member.id,
        "name": caller.member,
        "fullname": caller.member,
        "orgs": [organisation],
        "auth": {"type": "access_token", "accessToken": access_token},
    }


@router.get(
    "/api/organizations/{org}/tokens", response_model=list[TokenShown], responses=documented(400, 401, 403, 503)
)
async def list_tokens(org: Administered, service: ServiceOf) -> Any:
    """List the tokens of all members, revoked ones too."""
    async with service.database.reading() as connection:
        return [_shown(token) for token in await organisations.list_tokens(connection, org)]


@router.post(
    "/api/organizations/{org}/tokens",
    status_code=status.HTTP_201_CREATED,
    response_model=TokenMade,
    responses=documented(400, 401, 403, 404, 413, 415, 503),
    openapi_extra=takes(TokenWanted.model_json_schema()),
)
async def create_token(
    org: Administered,
    caller: CallerOf,
    body: Annotated[TokenWanted, body(TokenWanted)],
    actor: ActorOf,
    service: ServiceOf,
    response: Response,
) -> Any:
    """Make a token for a member. It is shown in this answer and never again."""
    caller.may_grant(body.role)
    async with change(service.database, actor) as opened:
        member = await organisations.find_member(opened.connection, org, body.member)
        made: NewToken = await organisations.issue_token(opened, member.id, body.name, body.role, body.expires_in_days)
    response.headers["Cache-Control"] = "no-store"
    return _shown(made.record) | {"token": made.text}


@router.delete(
    "/api/organizations/{org}/tokens/{token_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(400, 401, 403, 404, 413, 503),
)
async def revoke_token(org: Administered, token_id: TokenId, actor: ActorOf, service: ServiceOf) -> Response:
    """Revoke a token: from now on it is refused."""
    async with change(service.database, actor) as opened:
        await organisations.revoke_token(opened, token_id, org)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.get(
    "/api/organizations/{org}/members", response_model=list[MemberShown], responses=documented(400, 401, 403, 503)
)
async def list_members(org: Administered, service: ServiceOf) -> Any:
    """List the members and their roles."""
    async with service.database.reading() as connection:
        members = await organisations.list_members(connection, org)
    return [{"name": member.name, "role": member.role} for member in members]


@router.post(
    "/api/organizations/{org}/members",
    status_code=status.HTTP_201_CREATED,
    response_model=MemberShown,
    responses=documented(400, 401, 403, 409, 413, 415, 503),
    openapi_extra=takes(MemberWanted.model_json_schema()),
)
async def add_member(
    org: Administered,
    caller: CallerOf,
    body: Annotated[MemberWanted, body(MemberWanted)],
    actor: ActorOf,
    service: ServiceOf,
) -> Any:
    """Add a member."""
    caller.may_grant(body.role)
    async with change(service.database, actor) as opened:
        await organisations.add_member(opened, org, body.name, body.role)
    return {"name": body.name, "role": body.role}


@router.put(
    "/api/organizations/{org}/members/{member}",
    response_model=MemberShown,
    responses=documented(400, 401, 403, 404, 413, 415, 503),
    openapi_extra=takes(RoleWanted.model_json_schema()),
)
async def set_role(
    org: Administered,
    member: MemberInPath,
    caller: CallerOf,
    body: Annotated[RoleWanted, body(RoleWanted)],
    actor: ActorOf,
    service: ServiceOf,
) -> Any:
    """Change a member's role, and with it what his tokens may do."""
    caller.may_grant(body.role)
    async with change(service.database, actor) as opened:
        found = await organisations.find_member(opened.connection, org, member)
        await organisations.set_role(opened, found, body.role)
    return {"name": member, "role": body.role}


@router.delete(
    "/api/organizations/{org}/members/{member}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(400, 401, 403, 404, 413, 503),
)
async def remove_member(org: Administered, member: MemberInPath, actor: ActorOf, service: ServiceOf) -> Response:
    """Remove a member. His tokens end with it."""
    async with change(service.database, actor) as opened:
        found = await organisations.find_member(opened.connection, org, member)
        await organisations.remove_member(opened, found)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


def _shown(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "member": token.member,
        "name": token.name,
        "role": token.role,
        "shown": token.shown,
        "createdAt": iso(token.created_at_us),
        "expiresAt": None if token.expires_at_us is None else iso(token.expires_at_us),
        "revokedAt": None if token.revoked_at_us is None else iso(token.revoked_at_us),
        "lastUsedAt": None if token.last_used_at_us is None else iso(token.last_used_at_us),
    }
