"""A provider's whole mapping in one request: what is missing is added, what differs changed, what is over removed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from roadworthy.mapping_api.api.bodies import (
    ITEM_SCHEMA,
    BulkAnswer,
    BulkErrorBody,
    UnconfirmedBody,
    read_item,
    shown,
    takes,
)
from roadworthy.mapping_api.api.context import ActorOf, ProviderOf, ServiceOf, WriterOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.api.json_body import read_json
from roadworthy.mapping_api.api.preconditions import IfMatch
from roadworthy.mapping_api.desired import MAX_ITEMS, Desired, check_unique
from roadworthy.mapping_api.errors import BadRequest
from roadworthy.mapping_api.records import Item

_PARAMETERS = ("dryRun", "confirmRemovals")

router = APIRouter(prefix="/api/partners/{provider}/models", tags=["partner"])

_SCHEMA = {
    "title": "WholeMapping",
    "type": "object",
    "properties": {"models": {"type": "array", "items": ITEM_SCHEMA, "maxItems": MAX_ITEMS}},
    "required": ["models"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class WholeMapping:
    """The body: items by their places, and why the others cannot be used."""

    items: dict[int, Item]
    reasons: dict[int, str]


def read_mapping(value: Any) -> WholeMapping:
    """The body as items. Raises `BadRequest` where it is no list of items at all."""
    if not isinstance(value, dict) or value.keys() != {"models"} or not isinstance(value["models"], list):
        came = f"an object with {', '.join(map(shown, sorted(value)))}" if isinstance(value, dict) else shown(value)
        raise BadRequest(f'expected {{"models": [items...]}} and no other key; got {came}')
    if len(value["models"]) > MAX_ITEMS:
        raise BadRequest(f"models: expected at most {MAX_ITEMS:,} items; got {len(value['models']):,}")
    items, reasons = {}, {}
    for index, each in enumerate(value["models"]):
        try:
            items[index] = read_item(each)
        except BadRequest as refusal:
            reasons[index] = str(refusal)
    check_unique(items, reasons)
    return WholeMapping(items, reasons)


async def _whole(request: Request) -> WholeMapping:
    unknown = [name for name in request.query_params if name not in _PARAMETERS]
    if unknown:  # passed over, a `dry_run` for `dryRun` would change the mapping that it meant to spare
        raise BadRequest(
            f"{shown(unknown[0])}: there is no such parameter; known here: {', '.join(_PARAMETERS)}. "
            "Nothing was changed"
        )
    value = await read_json(request, request.app.state.service.settings.max_bulk_body_bytes)
    # Thousands of items take a moment; others are served meanwhile.
    return await asyncio.to_thread(read_mapping, value)


@router.put(
    "",
    response_model=BulkAnswer,
    responses=documented(401, 403, 404, 412, 413, 415, 503)
    | {
        400: {"model": BulkErrorBody, "description": "The body, or some items, cannot be used. Nothing was written."},
        409: {"model": UnconfirmedBody, "description": "The removals must be confirmed. Nothing was written."},
    },
    openapi_extra=takes(_SCHEMA),
)
async def replace_all(
    provider: ProviderOf,
    _caller: WriterOf,
    actor: ActorOf,
    service: ServiceOf,
    if_match: IfMatch,
    whole: Annotated[WholeMapping, Depends(_whole)],
    dry_run: Annotated[bool, Query(alias="dryRun", description="Only say what would be done.")] = False,
    confirm_removals: Annotated[
        int | None,
        Query(
            alias="confirmRemovals",
            ge=0,
            le=MAX_ITEMS * 1000,
            description="How many mappings the dry run said would be removed. Needed to remove more than half of "
            "10 or more live ones.",
        ),
    ] = None,
) -> Response:
    """Make these items the provider's whole mapping, in one transaction.

    Items that are there already, by task and model or tags, keep their ids; without a status
    they keep theirs. `If-Match` takes the ETag of the whole list, or of a dry run.
    """
    desired = Desired(
        provider.slug,
        whole.items,
        whole.reasons,
        lambda etag: if_match.require(etag, "the mapping"),
        confirm_removals,
    )
    outcome = await desired.apply(service.database, service.catalogue, actor, dry_run=dry_run)
    return Response(orjson.dumps(outcome.body()), media_type="application/json", headers={"ETag": outcome.etag})
