"""What routes ask for: the service, the caller, the provider in the path."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request
from fastapi.security import HTTPBearer

from roadworthy.mapping_api.access import Caller, Role, authenticate
from roadworthy.mapping_api.change import Actor
from roadworthy.mapping_api.errors import NotFound
from roadworthy.mapping_api.records import Provider
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.view import View

BEARER = HTTPBearer(auto_error=False, description="A token made with `roadworthy token create`.")


# All of these are coroutines: FastAPI would run plain functions in a thread, which costs more than they do.
# And they take the service from the request: each dependency of a dependency costs as much as a read itself.
def _at(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _service(request: Request) -> Service:
    return _at(request)


ServiceOf = Annotated[Service, Depends(_service)]


async def _view(request: Request) -> View:
    return await _at(request).view.fresh()


FreshView = Annotated[View, Depends(_view)]


async def _public_view(request: Request) -> View:
    service = _at(request)
    age_s = await service.view.fresh_or_recent(service.settings.stale_reads_s)
    if age_s:
        request.state.stale = True
    return service.view


PublicView = Annotated[View, Depends(_public_view)]
"""For the hub's public reads, which go on for a bounded time without the database, and say so in `Warning`."""


async def _caller(request: Request) -> Caller:
    service = _at(request)
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


def _at_least(role: Role) -> Any:
    async def check(provider: ProviderOf, caller: CallerOf) -> Caller:
        caller.require(provider, role)
        return caller

    return Depends(check)


# Name these before the body, so that a stranger's is not read.
ReaderOf = Annotated[Caller, _at_least("read")]
"""The caller, who is a member of the organisation behind the provider in the path."""
WriterOf = Annotated[Caller, _at_least("write")]
"""The caller, who may write to the provider in the path."""
AdminOf = Annotated[Caller, _at_least("admin")]
"""The caller, who is an administrator of the provider in the path."""


async def _actor(request: Request, caller: CallerOf) -> Actor:
    return caller.actor(request.state.request_id)


ActorOf = Annotated[Actor, Depends(_actor)]
