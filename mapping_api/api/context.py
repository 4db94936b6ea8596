"""What routes ask for: the service, the caller, the provider in the path."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security import HTTPBearer

from roadworthy.mapping_api.access import Caller, authenticate
from roadworthy.mapping_api.change import Actor
from roadworthy.mapping_api.errors import NotFound
from roadworthy.mapping_api.records import Provider
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.view import View

BEARER = HTTPBearer(auto_error=False, description="A token made with `roadworthy token create`.")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]


async def _view(service: ServiceOf) -> View:
    return await service.view.fresh()


FreshView = Annotated[View, Depends(_view)]


async def _caller(request: Request, service: ServiceOf) -> Caller:
    caller = await authenticate(service.database, request.headers.getlist("authorization"))
    request.state.caller = caller  # for the log
    if caller.token_id is not None:
        request.state.token_id = caller.token_id  # for the rate limits
        service.last_uses.note(caller.token_id)
    return caller


CallerOf = Annotated[Caller, Depends(_caller)]
Slug = Annotated[str, Path(max_length=64, description="The provider's slug.", examples=["fireworks-ai"])]


async def _provider(provider: Slug, view: FreshView) -> Provider:
    found = view.providers.get(provider)
    if found is None:
        raise NotFound(f"there is no provider {provider!r}; check the slug in the path")
    return found


ProviderOf = Annotated[Provider, Depends(_provider)]


def _writer(provider: ProviderOf, caller: CallerOf) -> Caller:
    caller.require(provider, "write")
    return caller


WriterOf = Annotated[Caller, Depends(_writer)]
"""The caller, who may write to the provider in the path. Name it before the body, so that a stranger's is not read."""


def _actor(request: Request, caller: CallerOf) -> Actor:
    return caller.actor(request.state.request_id)


ActorOf = Annotated[Actor, Depends(_actor)]
