"""Events for a provider's members, and the webhooks that send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from roadworthy.mapping_api.api.addresses import KEY_AGAIN_S, Url, look_at, sealing
from roadworthy.mapping_api.api.bodies import body, takes
from roadworthy.mapping_api.api.context import ActorOf, AdminOf, ProviderOf, ReaderOf, ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.change import EVENT_TYPES, EventType, change
from roadworthy.mapping_api.errors import BadRequest, NotFound, Unavailable
from roadworthy.mapping_api.names import MAPPING_ID
from roadworthy.mapping_api.records import Provider
from roadworthy.mapping_api.store import events, webhooks
from roadworthy.mapping_api.store.events import EVENT_ID, WEBHOOK_TEST
from roadworthy.mapping_api.store.webhooks import Delivery, Webhook
from roadworthy.mapping_api.times import iso

router = APIRouter(prefix="/api/partners/{provider}", tags=["events"])

WebhookId = Annotated[str, Path(pattern=MAPPING_ID, description="The webhook's id.")]
EventId = Annotated[str, Field(pattern=EVENT_ID, examples=["evt_00000000002a9f86d081884c7d65"])]


class NewWebhook(BaseModel):
    """Where to send which events."""

    model_config = ConfigDict(extra="forbid")

    url: Url = Field(examples=["https://example.com/hooks/mapping"])
    event_types: list[EventType] = Field(
        default_factory=lambda: list(EVENT_TYPES), alias="eventTypes", min_length=1, max_length=len(EVENT_TYPES)
    )


class ShownWebhook(BaseModel):
    """One webhook. A disabled one gets nothing more: delete it and register it anew."""

    id: Annotated[str, Field(alias="_id", pattern=MAPPING_ID)]
    url: str
    event_types: list[EventType] = Field(alias="eventTypes")
    status: Literal["active", "disabled"]
    disabled_reason: str | None = Field(alias="disabledReason")
    created_at: str = Field(alias="createdAt")


class CreatedWebhook(ShownWebhook):
    """The new webhook, and the secret that its receiver checks signatures with: shown this once."""

    secret: str = Field(pattern=r"^whsec_[A-Za-z0-9+/]+=*$")


class ShownWebhooks(BaseModel):
    """The provider's webhooks."""

    webhooks: list[ShownWebhook]


class TestSent(BaseModel):
    """The id of the test event; the deliveries tell how it fares."""

    event_id: EventId = Field(alias="eventId")


class ShownDelivery(BaseModel):
    """How one event fares with the webhook. `error` says why the last attempt failed."""

    event_id: EventId = Field(alias="eventId")
    type: EventType | Literal["webhook.test"]
    timestamp: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    status: int | None
    error: str | None
    last_attempt_at: str | None = Field(alias="lastAttemptAt")
    next_attempt_at: str | None = Field(alias="nextAttemptAt")


class ShownDeliveries(BaseModel):
    """The latest deliveries, newest first."""

    deliveries: list[ShownDelivery]


class ShownEvent(BaseModel):
    """One event. `before` and `after` are the mapping as it was and is; null where there was or is none.

    For what the validator found they are its health, with the findings in `after`; `mappingId` is null
    where all of the provider is meant.
    """

    id: EventId
    type: EventType
    timestamp: str
    provider: str
    mapping_id: str | None = Field(alias="mappingId")
    revision: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class ShownEvents(BaseModel):
    """Events, oldest first. `next` is what to send as `after` to go on, now or when there is more."""

    events: list[ShownEvent]
    next: EventId | None


@router.get("/events", response_model=ShownEvents, responses=documented(400, 401, 403, 404, 503))
async def list_events(
    provider: ProviderOf,
    _caller: ReaderOf,
    service: ServiceOf,
    after: Annotated[str | None, Query(pattern=EVENT_ID, description="Only events after this one.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Any:
    """What happened to the provider's mappings, oldest first. Events are kept for 30 days."""
    async with service.database.reading() as connection:
        found = await events.after(connection, after, provider=provider.slug, limit=limit)
    shown = [{"id": event.id, "type": event.type, "timestamp": iso(event.at_us)} | event.content() for event in found]
    return {"events": shown, "next": found[-1].id if found else after}


@router.post(
    "/webhooks",
    status_code=status.HTTP_201_CREATED,
    response_model=CreatedWebhook,
    responses=documented(400, 401, 403, 404, 413, 415, 503),
    openapi_extra=takes(NewWebhook.model_json_schema()),
)
async def create(
    provider: ProviderOf,
    _caller: AdminOf,
    actor: ActorOf,
    service: ServiceOf,
    body: Annotated[NewWebhook, body(NewWebhook)],
) -> Any:
    """Have events sent to a URL, signed as Standard Webhooks 1.0 says.

    Events are sent at least once: one with a `webhook-id` that came before can be passed over. They mostly come in
    order; where order matters, compare `data.revision`. An answer of 2xx within the time limit is success; after
    any other the event comes again, for a day and more. 410 disables the webhook.
    """
    if not service.sealer.ready:
        raise Unavailable(
            "this service has no key to keep the webhook's secret with. Its operator makes one with "
            "`roadworthy secret-key new` and sets it as ROADWORTHY_SECRET_KEY",
            KEY_AGAIN_S,
        )
    await look_at(service.guard, body.url, "url")
    types = [type for type in EVENT_TYPES if type in body.event_types]
    with sealing():
        async with change(service.database, actor) as opened:
            webhook, secret = await webhooks.create(opened, provider.slug, body.url, types, service.sealer)
    return _shown(webhook) | {"secret": secret}


@router.get("/webhooks", response_model=ShownWebhooks, responses=documented(400, 401, 403, 404, 503))
async def list_webhooks(provider: ProviderOf, _caller: AdminOf, service: ServiceOf) -> Any:
    """The provider's webhooks, without their secrets."""
    async with service.database.reading() as connection:
        found = await webhooks.of_provider(connection, provider.slug)
    return {"webhooks": [_shown(webhook) for webhook in found]}


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(400, 401, 403, 404, 413, 503),
)
async def delete(
    provider: ProviderOf, webhook_id: WebhookId, _caller: AdminOf, actor: ActorOf, service: ServiceOf
) -> Response:
    """Send nothing more to a webhook, not even what waits."""
    async with change(service.database, actor) as opened:
        await webhooks.remove(
            opened, _wanted(provider, await webhooks.find(opened.connection, provider.slug, webhook_id))
        )
    return Response(status_code=status.HTTP_204_NO_CONTENT)


@router.post(
    "/webhooks/{webhook_id}/test",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=TestSent,
    responses=documented(400, 401, 403, 404, 413, 503),
)
async def test(
    provider: ProviderOf, webhook_id: WebhookId, _caller: AdminOf, actor: ActorOf, service: ServiceOf
) -> Any:
    """Send the webhook an event of type `webhook.test`."""
    async with change(service.database, actor) as opened:
        webhook = _wanted(provider, await webhooks.find(opened.connection, provider.slug, webhook_id))
        if webhook.disabled_at_us is not None:
            raise BadRequest(f"the webhook is disabled: {webhook.disabled_reason}. Delete it and register it anew")
        event_id = await events.announce_test(opened, provider.slug, webhook.id)
        await opened.record(WEBHOOK_TEST, webhook.id, provider=provider.slug)
    return {"eventId": event_id}


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    response_model=ShownDeliveries,
    responses=documented(400, 401, 403, 404, 503),
)
async def list_deliveries(provider: ProviderOf, webhook_id: WebhookId, _caller: AdminOf, service: ServiceOf) -> Any:
    """How the last 50 events fare with the webhook."""
    async with service.database.reading() as connection:
        webhook = _wanted(provider, await webhooks.find(connection, provider.slug, webhook_id))
        found = await webhooks.deliveries_of(connection, webhook.id)
    return {"deliveries": [_shown_delivery(delivery) for delivery in found]}


def _wanted(provider: Provider, found: Webhook | None) -> Webhook:
    if found is None:
        raise NotFound(f"{provider.slug} has no such webhook; GET /api/partners/{provider.slug}/webhooks lists them")
    return found


def _shown(webhook: Webhook) -> dict[str, Any]:
    return {
        "_id": webhook.id,
        "url": webhook.url,
        "eventTypes": list(webhook.event_types),
        "status": "active" if webhook.disabled_at_us is None else "disabled",
        "disabledReason": webhook.disabled_reason,
        "createdAt": iso(webhook.created_at_us),
    }


def _shown_delivery(delivery: Delivery) -> dict[str, Any]:
    if delivery.due_at_us is not None:
        state = "pending"
    else:
        state = "delivered" if delivery.delivered_at_us is not None else "failed"
    return {
        "eventId": delivery.event.id,
        "type": delivery.event.type,
        "timestamp": iso(delivery.event.at_us),
        "state": state,
        "attempts": delivery.attempts,
        "status": delivery.last_status,
        "error": delivery.last_error,
        "lastAttemptAt": None if delivery.last_attempt_at_us is None else iso(delivery.last_attempt_at_us),
        "nextAttemptAt": None if delivery.due_at_us is None else iso(delivery.due_at_us),
    }
