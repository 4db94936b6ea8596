"""How billing stands in the service: its routes behind the service's doors, and the validator's own requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from fastapi import APIRouter, Request
from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy import logs
from roadworthy.billing import api, api_ledger
from roadworthy.billing.api import MAX_ITEMS
from roadworthy.billing.items import ItemReader
from roadworthy.billing.records import Served
from roadworthy.billing.store import endpoints, gateways, usage
from roadworthy.billing.store.gateways import Gateway
from roadworthy.cli.billing_uses import item_of
from roadworthy.cli.cost_endpoint_api import routes as cost_endpoint_routes
from roadworthy.conformance.usage import Use
from roadworthy.mapping_api.access import PUBLIC, Caller, InvalidCredentials, authenticate
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.api.json_body import read_body
from roadworthy.mapping_api.errors import BadRequest, Forbidden, NotFound, Unauthorized, Unavailable
from roadworthy.mapping_api.records import Mapping
from roadworthy.mapping_api.service import Service

Noted = Callable[[AsyncConnection, int, Sequence[tuple[Mapping, Sequence[Use]]]], Awaitable[None]]

_log = logs.get("roadworthy.billing")
_NEEDS = "this needs a gateway's token, made with `roadworthy billing gateway create`"


def billing_routes(service: Service, batch_size: int = MAX_ITEMS) -> list[APIRouter]:
    """The routes that take in usage, read the ledger and register cost endpoints, as parts of this service."""

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

    host = api.Host(
        database=service.database,
        gateway=gateway,
        body=body,
        providers=providers,
        refused=_refused,
        documented=documented,
    )
    refusals = documented(400, 401, 403, 404, 503)
    ledger = api_ledger.router(service.database, gateway, refusals, _refused)
    return [api.router(host), ledger, cost_endpoint_routes(batch_size)]


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
    if status == 404:
        return NotFound(message)
    return Unavailable(message) if status == 503 else BadRequest(message)


def probes_noted(payer: str) -> Noted:
    """What notes the validator's requests, for providers with a cost endpoint: `payer` pays for them."""

    async def note(connection: AsyncConnection, now_us: int, used: Sequence[tuple[Mapping, Sequence[Use]]]) -> None:
        costed = {each.provider for each in await endpoints.list_all(connection)}
        reader = ItemReader(costed, now_us)
        served = []
        for mapping, uses in used:
            if mapping.provider not in costed:
                continue
            for use in uses:
                model = mapping.hf_model or mapping.provider_model
                made = reader.read(item_of(use, mapping.provider, payer, model=model, task=mapping.task))
                if isinstance(made, Served):
                    served.append(made)
                else:
                    _log.warning("a probe cannot be costed", provider=mapping.provider, reason=str(made[0]))
        taken = await usage.take_in(connection, served, now_us, "validator")
        for place in taken.conflicts:
            one = served[place]
            _log.warning("a provider gave two probes one id", provider=one.provider, id=one.request_id)

    return note
