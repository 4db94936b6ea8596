"""Sending events to webhooks, as Standard Webhooks 1.0 says: signed, at least once, tried again for a day and more.

A delivery is a row that is claimed with a lease before it is sent and settled after. Who dies between the two
leaves the lease to end; then the event is sent again under the same `webhook-id`, by which receivers know it.
Each process sends one event at a time to a webhook, so that a slow receiver delays nobody but itself, and in
the order of the changes; an event that failed comes again later than its successors. So receivers who care for
order compare `data.revision`: of two events of one mapping, the greater is the later.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

import roadworthy
from roadworthy.database import Database
from roadworthy.errors import RoadworthyError
from roadworthy.http.message import Limits, Reply, Request, Transport
from roadworthy.http.redact import Redactor
from roadworthy.http.retry_after import retry_after_s
from roadworthy.mapping_api.change import Actor, change
from roadworthy.mapping_api.store import webhooks
from roadworthy.mapping_api.store.events import Event
from roadworthy.mapping_api.store.webhooks import SECRET_PREFIX, Claim
from roadworthy.mapping_api.times import iso
from roadworthy.sealing import Sealer, SealingError
from roadworthy.ticks import Lanes, Looking, end

SCHEDULE_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0)
"""The waits after the first attempt, the second and so on: with their jitter 32 to 38 hours in all, then it is over."""
JITTER = 0.2
"""Each wait is lengthened by up to this share, so that what failed together does not come back together."""
SLOTS = 32
"""Webhooks that are sent to at once."""
TURN = 20
"""Deliveries to one webhook before others get its slot."""
MAX_ANSWER_BYTES = 64 * 1024
SHOWN_CHARACTERS = 200
"""How much of a receiver's answer is kept, for its owner to see what went wrong."""
WITHOUT_KEY_AGAIN_S = 60.0
DELIVERY = Actor("webhook delivery")

_log = logging.getLogger(__name__)


def body_of(event: Event) -> bytes:
    """The payload of an event: the same bytes at every attempt."""
    return orjson.dumps({"type": event.type, "timestamp": iso(event.at_us), "data": event.content()})


def signature(secret: str, message_id: str, at_s: int, body: bytes) -> str:
    """The header `webhook-signature` (Standard Webhooks 1.0, symmetric signatures)."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.new(key, f"{message_id}.{at_s}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class Deliverer:
    """Sends what is due. `tick` looks for it by the clock, `wake` at once."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        transport: Transport,
        *,
        timeout_s: float = 15.0,
        schedule_s: Sequence[float] = SCHEDULE_S,
        slots: int = SLOTS,
    ) -> None:
        """The transport becomes the deliverer's own; the database does not."""
        self._database = database
        self._sealer = sealer
        self._transport = transport
        self._schedule_s = tuple(schedule_s)
        self._jitter = random.Random()  # noqa: S311  spreads load, hides nothing
        self._timeout_s = timeout_s
        self._lease_s = 2 * timeout_s + 5
        self._limits = Limits(
            connect_timeout_s=timeout_s,
            total_timeout_s=timeout_s,
            idle_timeout_s=timeout_s,
            max_body_bytes=MAX_ANSWER_BYTES,
            max_header_bytes=16 * 1024,
        )
        self._lanes = Lanes(slots)
        self._looking = Looking("sending to webhooks", self._look)
        self._silent: dict[str, int] = {}
        self._stopping = False

    def wake(self) -> None:
        """Look for what is due now, without waiting for the next tick. Wakes that come at once share one look."""
        self._looking.wake()

    async def tick(self) -> None:
        """Look for what is due now; sending goes on after it returns."""
        await self._looking.tick()

    async def idle(self) -> None:
        """Wait until nothing is being sent."""
        while under_way := self._looking.under_way + self._lanes.under_way:
            await asyncio.wait(under_way)

    async def stop(self) -> None:
        """Begin nothing more, wait a while for what is under way, then let its leases end by themselves."""
        self._stopping = True
        self._looking.stop()
        await end(self._looking.under_way + self._lanes.under_way)
        await self._transport.aclose()

    async def _look(self) -> None:
        if self._lanes.full:
            return
        async with self._database.reading() as connection:
            waiting = await webhooks.with_something_due(connection, await self._database.now_us(connection))
        for webhook_id in waiting:
            if self._lanes.open(webhook_id):
                self._lanes.begin(webhook_id, self._send_all(webhook_id))

    async def _send_all(self, webhook_id: str) -> None:
        """Send what is due for one webhook, one after another, for one turn."""
        loop = asyncio.get_running_loop()
        try:
            for _ in range(TURN):
                if self._stopping or self._lanes.paused(webhook_id):
                    return
                asked = loop.time()
                async with self._database.writing() as connection:
                    now_us = await self._database.now_us(connection)
                    claimed = await webhooks.claim(connection, webhook_id, now_us, int(self._lease_s * 1e6))
                if claimed is None:
                    return
                if loop.time() - asked > self._lease_s - self._timeout_s:
                    return  # we were held up for so long that the lease may end before the answer comes
                await self._send(claimed)
        except RoadworthyError as error:
            _log.warning("webhook %s waits: %s", webhook_id, error)
            return
        except Exception:  # noqa: BLE001 - one webhook's trouble must not end the sending to others
            _log.exception("sending to webhook %s failed", webhook_id)
            self._lanes.pause(webhook_id, self._schedule_s[0])
            return
        # There may be more; but first whoever waits gets the slot.
        asyncio.get_running_loop().call_soon(self.wake)

    async def _send(self, claimed: Claim) -> None:
        try:
            secret = self._sealer.open(claimed.secret_sealed, webhooks.secret_context(claimed.webhook_id))
        except SealingError as error:
            # Our own fault, so it costs the receiver none of its attempts.
            _log.warning("webhook %s: %s", claimed.webhook_id, error)
            self._lanes.pause(claimed.webhook_id, WITHOUT_KEY_AGAIN_S)
            await self._settle(
                claimed, due_in_s=WITHOUT_KEY_AGAIN_S, last_error="this service cannot open the webhook's secret now"
            )
            return
        at_s = claimed.claimed_at_us // 1_000_000
        body = body_of(claimed.event)
        signed = signature(secret, claimed.event.id, at_s, body)
        headers = (
            ("Content-Type", "application/json"),
            ("User-Agent", f"roadworthy/{roadworthy.__version__} (webhooks)"),
            ("Accept-Encoding", "identity"),
            ("webhook-id", claimed.event.id),
            ("webhook-timestamp", str(at_s)),
            ("webhook-signature", signed),
        )
        reply = await self._transport.send(Request("POST", claimed.url, headers, body), self._limits)
        await self._note(claimed, reply, Redactor([secret, secret.removeprefix(SECRET_PREFIX), signed]))

    async def _note(self, claimed: Claim, reply: Reply, redactor: Redactor) -> None:
        attempts = claimed.attempts + 1
        status = reply.status
        if status is not None:
            self._silent.pop(claimed.webhook_id, None)
        if status is not None and 200 <= status < 300:
            await self._settle(claimed, delivered=True, attempts=attempts, last_status=status, last_error=None)
            return
        error = _explain(reply, redactor)
        if status == 410:
            await self._retire(claimed, attempts, error)
            return
        wait_s = self._wait_s(claimed, reply)
        if attempts > len(self._schedule_s):
            error, due_in_s = f"given up after {attempts} attempts: {error}", None
        else:
            due_in_s = max(self._schedule_s[attempts - 1] * self._jitter.uniform(1, 1 + JITTER), wait_s)
        await self._settle(claimed, due_in_s=due_in_s, attempts=attempts, last_status=status, last_error=error)

    def _wait_s(self, claimed: Claim, reply: Reply) -> float:
        """How long the receiver wants to be left alone; everything else for it waits that long, too."""
        if reply.status in {429, 503}:
            wait_s = retry_after_s(reply.header("retry-after"), datetime.now(UTC))
            self._lanes.pause(claimed.webhook_id, wait_s)
            return wait_s
        if reply.status is None:
            # Nobody is there: each further try would hold a slot for the whole time limit.
            silent = self._silent[claimed.webhook_id] = self._silent.get(claimed.webhook_id, 0) + 1
            self._lanes.pause(claimed.webhook_id, min(self._schedule_s[0] * 2 ** min(silent - 1, 10), 300.0))
        return 0.0

    async def _settle(
        self, claimed: Claim, *, delivered: bool = False, due_in_s: float | None = None, **outcome: int | str | None
    ) -> None:
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            due_at_us = None if due_in_s is None else now_us + int(due_in_s * 1e6)
            delivered_at_us = now_us if delivered else None
            kept = await webhooks.settle(
                connection, claimed, now_us, due_at_us=due_at_us, delivered_at_us=delivered_at_us, **outcome
            )
        if not kept:
            _log.info("the lease on %s ended before its answer came; whoever holds it now decides", claimed.event.id)

    async def _retire(self, claimed: Claim, attempts: int, error: str) -> None:
        async with change(self._database, DELIVERY) as opened:
            kept = await webhooks.settle(
                opened.connection,
                claimed,
                opened.now_us,
                due_at_us=None,
                attempts=attempts,
                last_status=410,
                last_error=error,
            )
            if kept:
                await webhooks.disable(opened, claimed.webhook_id, "the receiver answered 410 Gone")


def _explain(reply: Reply, redactor: Redactor) -> str:
    """Why an attempt failed, for the webhook's owner: in short, printable, without our secrets."""
    if reply.status is None:
        return _printable(redactor.text(reply.failure.message if reply.failure else "no answer came"), 500)
    if 300 <= reply.status < 400:
        return f"it answered {reply.status}; redirects are not followed, so register the final URL"
    shown = _printable(redactor.data(reply.body).decode("utf-8", "replace"), SHOWN_CHARACTERS)
    return f"it answered {reply.status}" + (f": {shown}" if shown else "")


def _printable(text: str, limit: int) -> str:
    """The text on one line. A database takes no NUL, and a terminal should get no escape."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())[:limit]
