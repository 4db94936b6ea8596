"""Registering where a provider's API is, over HTTP. The key goes in and never comes out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, ConfigDict, Field

from roadworthy.http.urls import base_url_of
from roadworthy.mapping_api.api.addresses import API_KEY, ApiKey, Url, address_and_key, sealing
from roadworthy.mapping_api.api.bodies import body, takes
from roadworthy.mapping_api.api.context import ActorOf, AdminOf, ProviderOf, ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.change import change
from roadworthy.mapping_api.errors import NotFound
from roadworthy.mapping_api.times import iso
from roadworthy.validator.endpoint import EndpointOptions
from roadworthy.validator.store import endpoints
from roadworthy.validator.store.endpoints import MAX_RUNNING, Registered, Wanted

router = APIRouter(prefix="/api/partners/{provider}/endpoint", tags=["validation"])


class NewEndpoint(BaseModel):
    """Where the provider's API is. Without `apiKey` the key stays, as long as scheme, host and port do."""

    model_config = ConfigDict(extra="forbid")

    base_url: Url = Field(alias="baseUrl", examples=["https://api.example.com/v1"])
    api_key: ApiKey = API_KEY
    options: EndpointOptions = EndpointOptions()
    max_running: Annotated[int, Field(ge=1, le=64)] = Field(default=MAX_RUNNING, alias="maxRunning")


class ShownEndpoint(BaseModel):
    """Where the provider's API is, and how the validator asks it. The key itself is shown to nobody."""

    base_url: str = Field(alias="baseUrl")
    has_key: bool = Field(alias="hasKey")
    options: dict[str, Any]
    max_running: int = Field(alias="maxRunning")
    state: str = Field(pattern="^(validated|paused|down)$")
    updated_at: str = Field(alias="updatedAt")


@router.put(
    "",
    response_model=ShownEndpoint,
    responses=documented(400, 401, 403, 404, 413, 415, 503),
    openapi_extra=takes(NewEndpoint.model_json_schema()),
)
async def put(
    provider: ProviderOf,
    _caller: AdminOf,
    actor: ActorOf,
    service: ServiceOf,
    body: Annotated[NewEndpoint, body(NewEndpoint)],
) -> Any:
    """Register the provider's API, or change it. Its mappings are validated at once, and regularly from then on.

    The key is encrypted at rest and sent to the origin of `baseUrl` alone: with another origin it
    must be given again.
    """
    base_url, key = await address_and_key(service.guard, base_url_of, body.base_url, "baseUrl", body.api_key)
    wanted = Wanted(base_url, key, "api_key" not in body.model_fields_set, body.options, body.max_running)
    with sealing():
        async with change(service.database, actor) as opened:
            registered = await endpoints.register(opened, service.sealer, provider.slug, wanted)
    return _shown(registered)


@router.get("", response_model=ShownEndpoint, responses=documented(400, 401, 403, 404, 503))
async def get(provider: ProviderOf, _caller: AdminOf, service: ServiceOf) -> Any:
    """Where the provider's API is registered to be."""
    async with service.database.reading() as connection:
        registered = await endpoints.find(connection, provider.slug)
    if registered is None:
        raise _absent(provider.slug)
    return _shown(registered)


@router.delete("", status_code=status.HTTP_204_NO_CONTENT, responses=documented(400, 401, 403, 404, 413, 503))
async def delete(provider: ProviderOf, _caller: AdminOf, actor: ActorOf, service: ServiceOf) -> Response:
    """Forget the provider's API and its key. Its mappings stay as they are and are not validated any more."""
    async with change(service.database, actor) as opened:
        if not await endpoints.remove(opened, provider.slug):
            raise _absent(provider.slug)
    return Response(status_code=status.HTTP_204_NO_CONTENT)


def _absent(provider: str) -> NotFound:
    return NotFound(f"no API is registered for {provider}; PUT /api/partners/{provider}/endpoint registers it")


def _shown(registered: Registered) -> dict[str, Any]:
    state = "paused" if registered.paused_at_us else "down" if registered.down_since_us else "validated"
    return {
        "baseUrl": registered.base_url,
        "hasKey": registered.key_sealed is not None,
        "options": registered.options.model_dump(mode="json", exclude_defaults=True),
        "maxRunning": registered.max_running,
        "state": state,
        "updatedAt": iso(registered.updated_at_us),
    }
