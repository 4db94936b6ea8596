"""The audit log, for the members of the organisation that it is about."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from roadworthy.mapping_api.api.access import Moment, Organization
from roadworthy.mapping_api.api.context import CallerOf, ProviderOf, ReaderOf, ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.api.links import next_page
from roadworthy.mapping_api.store import audit
from roadworthy.mapping_api.store.audit import Line
from roadworthy.mapping_api.times import iso

router = APIRouter(tags=["audit"])

Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Only lines older than the one with this id.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many lines.")]
Action = Annotated[
    str | None,
    Query(pattern=r"^[a-z_.]{1,64}$", description="Only this action.", examples=["mapping.status_changed"]),
]


class AuditLine(BaseModel):
    """Who did what, when; what was before, and after. None: there was nothing, or there is nothing."""

    id: int
    at: Moment
    actor: str
    token_id: str | None = Field(alias="tokenId")
    request_id: str | None = Field(alias="requestId")
    provider: str | None
    action: str
    subject: str
    before: Any
    after: Any


@router.get(
    "/api/partners/{provider}/audit", response_model=list[AuditLine], responses=documented(400, 401, 403, 404, 503)
)
async def of_provider(
    provider: ProviderOf,
    _caller: ReaderOf,
    service: ServiceOf,
    request: Request,
    response: Response,
    before: Before = None,
    limit: Limit = 100,
    action: Action = None,
) -> Any:
    """Every change of the provider and its mappings, the newest first. The next page is in `Link`."""
    async with service.database.reading() as connection:
        lines = await audit.of_provider(connection, provider.slug, before=before, limit=limit + 1, action=action)
    return _page(lines, limit, request, response, service.settings.public_url)


@router.get("/api/organizations/{org}/audit", response_model=list[AuditLine], responses=documented(400, 401, 403, 503))
async def of_organisation(
    org: Organization,
    caller: CallerOf,
    service: ServiceOf,
    request: Request,
    response: Response,
    before: Before = None,
    limit: Limit = 100,
    action: Action = None,
) -> Any:
    """Every change of the organisation, its members, tokens and providers, the newest first."""
    organisation_id = caller.require_in(org, "read")
    async with service.database.reading() as connection:
        lines = await audit.of_organisation(connection, organisation_id, before=before, limit=limit + 1, action=action)
    return _page(lines, limit, request, response, service.settings.public_url)


def _page(lines: list[Line], limit: int, request: Request, response: Response, public_url: str) -> Any:
    """The lines; where there is one more than asked for, a link to the page that it begins."""
    if len(lines) > limit:
        response.headers["Link"] = next_page(request, public_url, "before", str(lines[limit - 1].id))
    return [
        {
            "id": line.id,
            "at": iso(line.at_us),
            "actor": line.actor,
            "tokenId": line.token_id,
            "requestId": line.request_id,
            "provider": line.provider,
            "action": line.action,
            "subject": line.subject,
            "before": line.before,
            "after": line.after,
        }
        for line in lines[:limit]
    ]
