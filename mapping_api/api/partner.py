"""The partner API: register, list, change and remove mappings (register-as-a-provider, section 3)."""

from __future__ import annotations

import re
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Query, Response, status

from roadworthy.mapping_api import registration
from roadworthy.mapping_api.api.bodies import (
    ITEM_SCHEMA,
    STATUS_SCHEMA,
    Created,
    FullMapping,
    ItemBody,
    JsonBody,
    ListedMappings,
    MappingId,
    StatusBody,
    StatusChange,
    StatusName,
    takes,
)
from roadworthy.mapping_api.api.context import ActorOf, FreshView, ProviderOf, ServiceOf, WriterOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.api.preconditions import IfMatch, KnownTags, Precondition, unchanged
from roadworthy.mapping_api.change import Change, change
from roadworthy.mapping_api.errors import BadRequest, NotFound
from roadworthy.mapping_api.listing import listed
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.store import idempotency, mappings, models

router = APIRouter(prefix="/api/partners/{provider}/models", tags=["partner"])

_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "If-None-Match names the present version."}}
_ETAG = {"ETag": {"description": "The version, for If-Match and If-None-Match.", "schema": {"type": "string"}}}
_TAGGED: dict[int | str, dict[str, Any]] = {200: {"headers": _ETAG}}
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": _ETAG
        | {
            "Location": {"description": "The new mapping's path.", "schema": {"type": "string"}},
            "Idempotency-Replayed": {
                "description": "`true` where the request came before and was only answered again.",
                "schema": {"type": "string", "enum": ["true"]},
            },
        }
    }
}


def _key(
    provider: ProviderOf,
    caller: WriterOf,
    value: JsonBody,
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=255,
            description="Any text of the caller's. A request that comes again with it within 24 hours is answered "
            "again, not done again.",
        ),
    ] = None,
) -> idempotency.Key | None:
    if idempotency_key is None:
        return None
    if _KEY.fullmatch(idempotency_key) is None:
        raise BadRequest(
            "Idempotency-Key: expected 1 to 255 ASCII characters without controls, such as a UUID; "
            f"got {idempotency_key[:80]!r}"
        )
    assert caller.organisation_id is not None
    return idempotency.Key(provider.slug, caller.organisation_id, idempotency_key, idempotency.request_digest(value))


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    response_model=Created,
    responses=_CREATED | documented(400, 401, 403, 404, 409, 413, 415, 422, 503),
    openapi_extra=takes(ITEM_SCHEMA),
)
async def create(
    provider: ProviderOf,
    _caller: WriterOf,
    actor: ActorOf,
    service: ServiceOf,
    item: ItemBody,
    key: Annotated[idempotency.Key | None, Depends(_key)],
) -> Response:
    """Register a mapping. It starts in `staging` unless the body says `live`."""
    if key is not None:
        async with service.database.reading() as connection:
            known = await idempotency.find(connection, key, await service.database.now_us(connection))
        if known is not None:
            return _created(provider.slug, known, replayed=True)
    facts = await registration.facts_for(item, service.catalogue)
    async with change(service.database, actor) as opened:
        if key is not None:
            # Of two that come at once, the second finds here what the first has done.
            known = await idempotency.find(opened.connection, key, opened.now_us)
            if known is not None:
                return _created(provider.slug, known, replayed=True)
        mapping = await mappings.create(opened, provider.slug, item)
        await models.keep(opened, facts)
        answer = idempotency.Answer(status.HTTP_201_CREATED, {"_id": mapping.id})
        if key is not None:
            await idempotency.remember(opened, key, answer)
    made = _created(provider.slug, answer)
    made.headers["ETag"] = mapping.etag
    return made


def _created(provider: str, answer: idempotency.Answer, *, replayed: bool = False) -> Response:
    headers = {"Location": f"/api/partners/{provider}/models/{answer.body['_id']}"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(orjson.dumps(answer.body), answer.status_code, headers, "application/json")


@router.get("", response_model=ListedMappings, responses=_TAGGED | _NOT_MODIFIED | documented(400, 404, 503))
async def list_all(
    provider: ProviderOf,
    view: FreshView,
    known: KnownTags,
    status: Annotated[StatusName | None, Query(description="Only mappings with this status.")] = None,
) -> Response:
    """List the whole mapping, grouped by task. Public, as the guide says."""
    found = listed(view, provider.slug, status)
    return _versioned(found.body, found.etag, known)


@router.get("/{mapping_id}", response_model=FullMapping, responses=_TAGGED | _NOT_MODIFIED | documented(400, 404, 503))
async def get(provider: ProviderOf, mapping_id: MappingId, view: FreshView, known: KnownTags) -> Response:
    """One mapping in full. Public, as the list is."""
    mapping = view.of_provider.get(provider.slug, {}).get(mapping_id)
    if mapping is None:
        raise _no_mapping(provider.slug, mapping_id)
    return _versioned(orjson.dumps(mapping.in_full()), mapping.etag, known)


@router.delete(
    "/{mapping_id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(400, 401, 403, 404, 412, 413, 503)
)
async def delete(
    provider: ProviderOf,
    mapping_id: MappingId,
    _caller: WriterOf,
    actor: ActorOf,
    service: ServiceOf,
    if_match: IfMatch,
) -> Response:
    """Delete a mapping."""
    async with change(service.database, actor) as opened:
        await mappings.remove(opened, await _wanted(opened, provider.slug, mapping_id, if_match))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.put(
    "/{mapping_id}/status",
    response_model=StatusChange,
    responses=_TAGGED | documented(400, 401, 403, 404, 412, 413, 415, 503),
    openapi_extra=takes(STATUS_SCHEMA),
)
async def set_status(
    provider: ProviderOf,
    mapping_id: MappingId,
    _caller: WriterOf,
    actor: ActorOf,
    service: ServiceOf,
    response: Response,
    if_match: IfMatch,
    body: StatusBody,
) -> Any:
    """Change a mapping's status; this asks for a validation at once."""
    async with change(service.database, actor) as opened:
        mapping = await _wanted(opened, provider.slug, mapping_id, if_match)
        mapping = await mappings.set_status(opened, mapping, body.status)
    response.headers["ETag"] = mapping.etag
    return {"status": mapping.status}


async def _wanted(opened: Change, provider: str, mapping_id: str, if_match: Precondition) -> Mapping:
    mapping = await mappings.find(opened.connection, provider, mapping_id)
    if mapping is None:
        raise _no_mapping(provider, mapping_id)
    if_match.require(mapping.etag, "the mapping")
    return mapping


def _no_mapping(provider: str, mapping_id: str) -> NotFound:
    return NotFound(f"{provider} has no mapping {mapping_id}; GET /api/partners/{provider}/models lists them")


def _versioned(body: bytes, etag: str, known: KnownTags) -> Response:
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if unchanged(known, etag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
