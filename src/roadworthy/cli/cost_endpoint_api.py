"""Registering where a provider tells its costs, over HTTP. The key goes in and never comes out.

It stands here because billing knows nothing of organisations and tokens, nor the mapping service of costs.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, ConfigDict, Field

from roadworthy.billing.store import endpoints
from roadworthy.billing.store.endpoints import CostEndpoint, cost_url_of
from roadworthy.mapping_api.api.addresses import API_KEY, ApiKey, Url, address_and_key, sealing
from roadworthy.mapping_api.api.bodies import body, takes
from roadworthy.mapping_api.api.context import ActorOf, AdminOf, ProviderOf, ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.change import change
from roadworthy.mapping_api.errors import NotFound
from roadworthy.mapping_api.times import iso

COST_ENDPOINT_SET = "cost_endpoint.set"
COST_ENDPOINT_REMOVED = "cost_endpoint.removed"


class NewCostEndpoint(BaseModel):
    """Where the provider tells its costs. Without `apiKey` the key stays, as long as scheme, host and port do."""

    model_config = ConfigDict(extra="forbid")

    url: Url = Field(examples=["https://api.example.com/v1/request-costs"])
    api_key: ApiKey = API_KEY


class ShownCostEndpoint(BaseModel):
    """Where the provider tells its costs, and how asking goes. The key itself is shown to nobody."""

    url: str
    has_key: bool = Field(alias="hasKey")
    state: str = Field(pattern="^(asked|paused|failing)$")
    last_answer_at: str | None = Field(alias="lastAnswerAt")
    updated_at: str = Field(alias="updatedAt")


def routes(batch_size: int) -> APIRouter:
    """The routes; a new endpoint is asked for at most so many ids at once."""
    router = APIRouter(prefix="/api/partners/{provider}/cost-endpoint", tags=["billing"])

    @router.put(
        "",
        response_model=ShownCostEndpoint,
        responses=documented(400, 401, 403, 404, 413, 415, 503),
        openapi_extra=takes(NewCostEndpoint.model_json_schema()),
    )
    async def put_cost_endpoint(
        provider: ProviderOf,
        _caller: AdminOf,
        actor: ActorOf,
        service: ServiceOf,
        body: Annotated[NewCostEndpoint, body(NewCostEndpoint)],
    ) -> Any:
        """Register where the provider tells its costs, or change it. It is asked soon, and each minute from then on.

        The key is encrypted at rest and sent to the origin of `url` alone: with another origin it must be
        given again.
        """
        url, key = await address_and_key(service.guard, cost_url_of, body.url, "url", body.api_key)
        keep_key = "api_key" not in body.model_fields_set
        with sealing():
            async with change(service.database, actor) as opened:
                connection, slug = opened.connection, provider.slug
                before = await endpoints.find(connection, slug)
                await endpoints.register(
                    connection,
                    service.sealer,
                    slug,
                    url,
                    opened.now_us,
                    key=key,
                    keep_key=keep_key,
                    batch_size=batch_size,
                )
                after = await endpoints.find(connection, slug)
                assert after is not None
                was = None if before is None else _audited(before)
                await opened.record(COST_ENDPOINT_SET, slug, provider=slug, before=was, after=_audited(after))
        return _shown(after)

    @router.get("", response_model=ShownCostEndpoint, responses=documented(400, 401, 403, 404, 503))
    async def get_cost_endpoint(provider: ProviderOf, _caller: AdminOf, service: ServiceOf) -> Any:
        """Where the provider is registered to tell its costs."""
        async with service.database.reading() as connection:
            found = await endpoints.find(connection, provider.slug)
        if found is None:
            raise _absent(provider.slug)
        return _shown(found)

    @router.delete("", status_code=status.HTTP_204_NO_CONTENT, responses=documented(400, 401, 403, 404, 413, 503))
    async def delete_cost_endpoint(
        provider: ProviderOf, _caller: AdminOf, actor: ActorOf, service: ServiceOf
    ) -> Response:
        """Forget where the provider tells its costs, and the key. What it served and told no cost of stays pending."""
        async with change(service.database, actor) as opened:
            before = await endpoints.find(opened.connection, provider.slug)
            if before is None:
                raise _absent(provider.slug)
            await endpoints.remove(opened.connection, provider.slug)
            slug = provider.slug
            await opened.record(COST_ENDPOINT_REMOVED, slug, provider=slug, before=_audited(before))
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router


def _absent(provider: str) -> NotFound:
    return NotFound(
        f"no cost endpoint is registered for {provider}; PUT /api/partners/{provider}/cost-endpoint registers it"
    )


def _audited(endpoint: CostEndpoint) -> dict[str, Any]:
    return {"url": endpoint.url, "hasKey": endpoint.key_sealed is not None}


def _shown(endpoint: CostEndpoint) -> dict[str, Any]:
    return {
        "url": endpoint.url,
        "hasKey": endpoint.key_sealed is not None,
        "state": "paused" if endpoint.paused_at_us is not None else "failing" if endpoint.failures else "asked",
        "lastAnswerAt": None if endpoint.last_answer_us is None else iso(endpoint.last_answer_us),
        "updatedAt": iso(endpoint.updated_at_us),
    }
