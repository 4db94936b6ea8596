"""The hub's own read endpoints, as its clients call them (hub-api)."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from roadworthy.mapping_api.api.context import CallerOf, PublicView, ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.errors import ModelNotFound
from roadworthy.mapping_api.offers import offers, ordered

router = APIRouter(tags=["hub"])
EXPANSIONS = frozenset({"inference", "inferenceProviderMapping"})


@router.get("/api/models/{model_id:path}", response_model=None, responses=documented(400, 401, 404, 503))
async def model(model_id: str, request: Request, view: PublicView, caller: CallerOf, service: ServiceOf) -> Response:
    """One model, with what `expand` asks for: `inference`, `inferenceProviderMapping`."""
    facts = view.models.get(model_id) or await service.catalogue.get(model_id)
    if facts is None:
        raise ModelNotFound(f"Repository not found: there is no model {model_id}")
    expand = {*request.query_params.getlist("expand"), *request.query_params.getlist("expand[]")}
    plain = not expand
    expand &= EXPANSIONS

    def make() -> bytes:
        shown: dict[str, Any] = {"_id": facts.hub_id, "id": facts.id}
        active = [offer for offer in ordered(offers(view, facts, caller)) if offer.active]
        if "inference" in expand and active:
            shown["inference"] = "warm"
        if "inferenceProviderMapping" in expand:
            # The clients stumble over a name they do not know when it comes first.
            active.sort(key=lambda offer: not offer.provider.in_clients)
            shown["inferenceProviderMapping"] = {offer.provider.slug: offer.entry() for offer in active}
        if plain:
            shown |= {"pipeline_tag": facts.pipeline_tag, "tags": list(facts.tags)}
        return orjson.dumps(shown)

    if facts is not view.models.get(model_id):
        return Response(make(), media_type="application/json")  # the view does not know when these facts change
    kept = view.answer(("model", model_id, plain, frozenset(expand), caller.organisation_id), make)
    return Response(kept, media_type="application/json")
