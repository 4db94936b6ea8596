"""How billing stands in the service: its routes behind the service's doors, and the validator's own requests."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import APIRouter, Request

from roadworthy.billing import api
from roadworthy.billing.store import gateways
from roadworthy.billing.store.gateways import Gateway
from roadworthy.mapping_api.access import PUBLIC, Caller, InvalidCredentials, authenticate
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.api.json_body import read_body
from roadworthy.mapping_api.errors import BadRequest, Forbidden, TooLarge, Unauthorized, Unavailable
from roadworthy.mapping_api.service import Service

_NEEDS = "this needs a gateway's token, made with `roadworthy billing gateway create`"


def usage_routes(service: Service) -> APIRouter:
    """The routes that take in usage, as part of this service."""

    async def gateway(request: Request) -> Gateway:
        found = await _gateway(service, request)
        # As the log names who asked, and as the limits of requests count him.
        request.state.caller = Caller(organisation="gateway", member=found.name, token_id=f"gateway {found.id}")
        request.state.token_id = f"gateway {found.id}"
        return found

    async def body(request: Request) -> bytes:
        return await read_body(request, service.settings.max_bulk_body_bytes, gzip=True)

    async def providers() -> Collection[str]:
        return (await service.view.fresh()).providers.keys()

    return api.router(
        api.Host(
            database=service.database,
            gateway=gateway,
            body=body,
            providers=providers,
            refused=_refused,
            documented=documented,
        )
    )


async def _gateway(service: Service, request: Request) -> Gateway:
    values = request.headers.getlist("authorization")
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    token = token.strip(" ")
    if scheme.lower() == "bearer" and gateways.well_formed(token):
        async with service.database.reading() as connection:
            found = await gateways.of_token(connection, token)
        if found is None:
            raise InvalidCredentials
        return found
    caller = await authenticate(service.database, values)
    if caller is PUBLIC:
        raise Unauthorized(f"{_NEEDS}; send it as `Authorization: Bearer <token>`")
    raise Forbidden(f"{_NEEDS}; a token of {caller.organisation} cannot hand in usage")


def _refused(status: int, message: str) -> Exception:
    if status == 401:
        return InvalidCredentials()
    if status == 503:
        return Unavailable(message)
    return TooLarge(message) if status == 413 else BadRequest(message)
