"""The partner API: register, list, change and remove mappings (register-as-a-provider, section 3)."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Query, Response, status

from roadworthy.mapping_api import registration
from roadworthy.mapping_api.api.bodies import (
    Created,
    ListedMappings,
    MappingId,
    SingleModel,
    StatusChange,
    StatusName,
    TagFilter,
)
from roadworthy.mapping_api.api.context import ActorOf, CallerOf, FreshView, IfMatch, ProviderOf, ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.change import Change, change
from roadworthy.mapping_api.errors import NotFound, PreconditionFailed
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.store import mappings, models

router = APIRouter(prefix="/api/partners/{provider}/models", tags=["partner"])


@router.post(
    "", status_code=status.HTTP_201_CREATED, response_model=Created, responses=documented(400, 401, 403, 404, 409, 503)
)
async def create(
    provider: ProviderOf,
    caller: CallerOf,
    actor: ActorOf,
    service: ServiceOf,
    body: Annotated[SingleModel | TagFilter, Body()],
) -> Any:
    """Register a mapping. It starts in `staging` unless the body says `live`."""
    caller.require(provider, "write")
    item = body.item()
    facts = await registration.facts_for(item, service.catalogue)
    async with change(service.database, actor) as opened:
        mapping = await mappings.create(opened, provider.slug, item)
        await models.keep(opened, facts)
    return {"_id": mapping.id}


@router.get("", response_model=ListedMappings, responses=documented(400, 404, 503))
async def list_all(
    provider: ProviderOf,
    view: FreshView,
    status: Annotated[StatusName | None, Query(description="Only mappings with this status.")] = None,
) -> Response:
    """List the whole mapping, grouped by task. Public, as the guide says."""

    def make() -> bytes:
        grouped: dict[str, dict[str, Any]] = {}
        for mapping in sorted(
            view.of_provider.get(provider.slug, {}).values(), key=lambda each: (each.task, each.source)
        ):
            if status is None or mapping.status == status:
                grouped.setdefault(mapping.task, {})[mapping.source] = mapping.shown()
        return orjson.dumps(grouped)

    kept = view.answer(("list", provider.slug, status), make, provider=provider.slug)
    return Response(kept, media_type="application/json")


@router.delete(
    "/{mapping_id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(400, 401, 403, 404, 412, 503)
)
async def delete(
    provider: ProviderOf,
    mapping_id: MappingId,
    caller: CallerOf,
    actor: ActorOf,
    service: ServiceOf,
    if_match: IfMatch = None,
) -> Response:
    """Delete a mapping."""
    caller.require(provider, "write")
    async with change(service.database, actor) as opened:
        await mappings.remove(opened, await _wanted(opened, provider.slug, mapping_id, if_match))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.put("/{mapping_id}/status", response_model=StatusChange, responses=documented(400, 401, 403, 404, 412, 503))
async def set_status(
    provider: ProviderOf,
    mapping_id: MappingId,
    body: StatusChange,
    caller: CallerOf,
    actor: ActorOf,
    service: ServiceOf,
    response: Response,
    if_match: IfMatch = None,
) -> Any:
    """Change a mapping's status; this asks for a validation at once."""
    caller.require(provider, "write")
    async with change(service.database, actor) as opened:
        mapping = await _wanted(opened, provider.slug, mapping_id, if_match)
        mapping = await mappings.set_status(opened, mapping, body.status)
    response.headers["ETag"] = mapping.etag
    return {"status": mapping.status}


async def _wanted(opened: Change, provider: str, mapping_id: str, if_match: str | None) -> Mapping:
    mapping = await mappings.find(opened.connection, provider, mapping_id)
    if mapping is None:
        raise NotFound(f"{provider} has no mapping {mapping_id}; GET /api/partners/{provider}/models lists them")
    if if_match is not None and if_match != "*" and mapping.etag not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailed(f"the mapping is at {mapping.etag} now, not {if_match}; read it again")
    return mapping
