"""The alerter: closes alerts, reminds, sees when validation itself stops, and sends, all by one tick.

Like webhooks, a delivery is claimed with a lease before it is sent and settled after, so who dies
between the two leaves it to be sent again under the same id. Each channel is sent to by itself: one
that is dead or slow delays no other, and validation least of all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from roadworthy.database import Database
from roadworthy.errors import RoadworthyError
from roadworthy.http.guard import Guard
from roadworthy.mapping_api.change import Actor, change
from roadworthy.sealing import Sealer, SealingError
from roadworthy.ticks import Lanes, end
from roadworthy.validator.alerts import texts
from roadworthy.validator.alerts.kinds import Kind
from roadworthy.validator.alerts.noting import SHOWN, VALIDATOR, Noted, cut, note
from roadworthy.validator.alerts.send import ChannelError, Sender, urls_in
from roadworthy.validator.alerts.settings import AlertSettings
from roadworthy.validator.schedule import SECOND_US
from roadworthy.validator.store import alerts as rows
from roadworthy.validator.store.alerts import FROM_ENVIRONMENT, Channel, Claim, Condition

SCHEDULE_S = (5.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 28_800.0)
"""The waits after the first attempt, the second and so on: a day in all, then it is over."""
JITTER = 0.2
PAUSE_S = 60.0
"""At most so long a channel is left alone after a failure; then another alert may have more luck."""
BACKLOG_S = 24 * 3600
"""A channel that was gone for long gets what was closed within this time."""
KEEP_S = 30 * 24 * 3600
FORGET_EVERY_S = 3600.0
STARTING_S = 120.0
"""After a start, validation has so long to catch up before it counts as stopped."""
SLOTS = 16
ALERTS = Actor("alerts")

_log = logging.getLogger(__name__)


class Alerter:
    """Sends alerts for one process. `tick` each second or so; `stop` in the end."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        guard: Guard,
        settings: AlertSettings | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
        schedule_s: Sequence[float] = SCHEDULE_S,
        starting_s: float = STARTING_S,
    ) -> None:
        """The database and the guard stay the caller's. `environment` holds the operator's channels."""
        self._database = database
        self._sealer = sealer
        self._settings = settings or AlertSettings()
        self._sender = Sender(guard, timeout_s=self._settings.send_timeout_s)
        self._schedule_s = tuple(schedule_s)
        self._jitter = random.Random()  # noqa: S311  spreads load, hides nothing
        self._lease_us = int((2 * self._settings.send_timeout_s + 5) * SECOND_US)
        names = self._settings.urls_from_env
        self._urls = {
            f"{FROM_ENVIRONMENT}{number}": url
            for number, url in enumerate((url for name in names for url in urls_in(environment.get(name, ""))), 1)
        }
        self._registered = False
        self._starting_s = starting_s
        self._started_s: float | None = None
        self._forgotten_s: float | None = None
        self._lanes = Lanes(SLOTS)
        self._stopping = False
        self.counted: Counter[str] = Counter()
        """Messages that this process sent, and attempts that failed: "sent", "failed"."""

    async def tick(self) -> None:
        """Do what is due. Sending goes on after it returns. Raises `DatabaseUnavailableError`."""
        loop_s = asyncio.get_running_loop().time()
        if self._started_s is None:
            self._started_s = loop_s
        if not self._registered:
            await self._register()
        await self._watch_freshness(loop_s)
        await self._remind()
        await self._close()
        await self._hand_out()
        await self._begin_sending()
        if self._forgotten_s is None or loop_s - self._forgotten_s > FORGET_EVERY_S:
            self._forgotten_s = loop_s
            async with self._database.writing() as connection:
                await rows.forget(connection, await self._database.now_us(connection) - KEEP_S * SECOND_US)

    async def idle(self) -> None:
        """Wait until nothing is being sent."""
        while under_way := self._lanes.under_way:
            await asyncio.wait(under_way)

    async def stop(self) -> None:
        """Begin nothing more, wait a while for what is being sent, then let its leases end by themselves."""
        self._stopping = True
        await end(self._lanes.under_way)

    async def _register(self) -> None:
        """The operator's channels get their rows. What cannot be used is said once, at the start."""
        services = {}
        for channel_id, url in self._urls.items():
            try:
                services[channel_id] = await self._sender.check(url, trusted=True)
            except ChannelError as error:
                _log.warning("the alert channel %s is left out: %s", channel_id, error)
        self._urls = {channel_id: url for channel_id, url in self._urls.items() if channel_id in services}
        if services:
            settings = self._settings
            async with self._database.writing() as connection:
                await rows.one_at_a_time(connection)
                now_us = await self._database.now_us(connection)
                kinds, least = tuple(settings.kinds), settings.least_severity
                for channel_id, service in services.items():
                    channel = Channel(channel_id, None, None, service, kinds, least, 0, now_us)
                    await rows.add_channel(connection, channel)
        self._registered = True

    async def _watch_freshness(self, loop_s: float) -> None:
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            found = await rows.freshness(connection, now_us)
            noted = any(each.kind is Kind.STALE for each in await rows.conditions(connection))
        since_us = found.stale_since_us(now_us, self._settings.stale_after_s)
        starting = self._started_s is not None and loop_s - self._started_s < self._starting_s
        if (since_us is not None) is noted or (since_us is not None and starting):
            return
        async with change(self._database, ALERTS) as opened:
            # Another process may have noted it meanwhile.
            noted = any(each.kind is Kind.STALE for each in await rows.conditions(opened.connection))
            if (since_us is not None) is noted:
                return
            if since_us is None:
                await note(opened, [Noted(Kind.FRESH, VALIDATOR)])
                return
            last = "never" if found.last_run_us is None else f"at {texts.clock(found.last_run_us)}"
            due = texts.clock(found.due_since_us or since_us)
            reason = f"the last run was published {last}; the first mapping has been due since {due}"
            await note(opened, [Noted(Kind.STALE, VALIDATOR, reason=reason, at_us=since_us)])

    async def _remind(self) -> None:
        async with self._database.reading() as connection:
            now_us = await self._database.now_us(connection)
            due = [each for each in await rows.conditions(connection) if self._is_due(each, now_us)]
        if not due:
            return
        async with self._database.writing() as connection:
            await rows.one_at_a_time(connection)
            now_us = await self._database.now_us(connection)
            found = [each for each in await rows.conditions(connection) if self._is_due(each, now_us)]
            for subject in {each.subject for each in found}:
                mine = [each for each in found if each.subject == subject]
                await self._remind_of(connection, subject, mine, now_us)

    def _is_due(self, condition: Condition, now_us: int) -> bool:
        if condition.reminded_at_us is None:
            return now_us >= condition.since_us + self._settings.remind_after_s * SECOND_US
        return now_us >= condition.reminded_at_us + self._settings.remind_every_s * SECOND_US

    async def _remind_of(
        self, connection: AsyncConnection, subject: str, due: Sequence[Condition], now_us: int
    ) -> None:
        items: list[dict[str, Any]] = []
        count = 0
        for condition in due:
            if condition.kind is Kind.TAKEN_OFF:
                standing = await rows.standing(connection, subject)
                if not standing["off"]:
                    await rows.end_condition(connection, subject, Kind.TAKEN_OFF)
                    continue
                longest = await rows.longest_off(connection, subject, SHOWN)
                items += [each | {"reason": cut(each["reason"])} for each in longest]
                count += standing["off"]
            else:
                items.append({"at_us": condition.since_us, "lasting": _LASTING[condition.kind]})
                count += 1
            await rows.reminded(connection, condition, now_us)
        if not items:
            return
        opened = await rows.open_alert(connection, subject)
        content = dict(opened.content) if opened else {}
        content[Kind.REMINDER.value] = {"count": count, "items": items, "first_at_us": now_us, "last_at_us": now_us}
        await rows.keep_alert(connection, opened, subject, content, now_us)

    async def _close(self) -> None:
        digest_us = int(self._settings.digest_s * SECOND_US)
        async with self._database.reading() as connection:
            if not await rows.ripe(connection, await self._database.now_us(connection), digest_us):
                return
        async with self._database.writing() as connection:
            await rows.one_at_a_time(connection)
            now_us = await self._database.now_us(connection)
            braked = await rows.braked_since_us(connection) is not None
            for alert in await rows.ripe(connection, now_us, digest_us):
                now: dict[str, Any] = {"braked": braked}
                if alert.subject != VALIDATOR:
                    now |= await rows.standing(connection, alert.subject)
                    if not now["off"]:
                        await rows.end_condition(connection, alert.subject, Kind.TAKEN_OFF)
                await rows.close(connection, alert, alert.content | {"now": now}, now_us)

    async def _hand_out(self) -> None:
        async with self._database.reading() as connection:
            newest = await rows.newest_number(connection)
            behind = [
                each for each in await rows.channels(connection) if self._knows(each) and each.seen_number < newest
            ]
        if not behind:
            return
        async with self._database.writing() as connection:
            await rows.one_at_a_time(connection)
            now_us = await self._database.now_us(connection)
            for channel in await rows.channels(connection):
                if not self._knows(channel):
                    continue
                unseen = await rows.unseen(connection, channel.seen_number, now_us - BACKLOG_S * SECOND_US)
                wanted = [alert.id for _, alert in unseen if self._message(channel, alert) is not None]
                newest = await rows.newest_number(connection)
                if newest > channel.seen_number:
                    await rows.hand_out(connection, channel.id, wanted, newest, now_us)

    def _knows(self, channel: Channel) -> bool:
        """Whether this process knows the channel's URL."""
        return channel.url_sealed is not None or channel.id in self._urls

    def _message(self, channel: Channel, alert: rows.Alert) -> texts.Message | None:
        """What the channel is told of an alert; None where it wants to hear nothing of it."""
        if channel.provider is not None and alert.subject != channel.provider:
            return None
        kinds, least = channel.kinds, channel.least_severity
        if channel.id in self._urls:
            settings = self._settings
            if settings.providers and alert.subject not in {*settings.providers, VALIDATOR}:
                return None
            kinds, least = tuple(settings.kinds), settings.least_severity
        return texts.message(alert.id, alert.subject, alert.content, kinds=kinds, least=least)

    async def _begin_sending(self) -> None:
        async with self._database.reading() as connection:
            waiting = await rows.with_something_due(connection, await self._database.now_us(connection))
        for channel_id in waiting:
            if self._stopping:
                return
            foreign = channel_id.startswith(FROM_ENVIRONMENT) and channel_id not in self._urls
            if self._lanes.open(channel_id) and not foreign and not self._sender.hangs(channel_id):
                self._lanes.begin(channel_id, self._send_all(channel_id))

    async def _send_all(self, channel_id: str) -> None:
        """Send what waits for one channel, the oldest first, until one fails."""
        try:
            while not self._stopping and not self._lanes.paused(channel_id):
                asked = asyncio.get_running_loop().time()
                async with self._database.writing() as connection:
                    now_us = await self._database.now_us(connection)
                    claimed = await rows.claim(connection, channel_id, now_us, self._lease_us)
                if claimed is None:
                    return
                if asyncio.get_running_loop().time() - asked > self._settings.send_timeout_s:
                    return  # held up for so long that the lease may end before the message is out
                await self._send(claimed)
        except RoadworthyError as error:
            _log.warning("the alert channel %s waits: %s", channel_id, error)
        except Exception:  # noqa: BLE001 - one channel's trouble must not end the sending to others
            _log.exception("sending to the alert channel %s failed", channel_id)
            self._lanes.pause(channel_id, self._schedule_s[0])

    async def _send(self, claimed: Claim) -> None:
        channel = claimed.channel
        message = self._message(channel, claimed.alert)
        if message is None:
            await self._settle(claimed, None, attempts=claimed.attempts, last_error="the channel wants it no more")
            return
        said = await self._try(channel, message)
        attempts = claimed.attempts + 1
        if said is None:
            self.counted["sent"] += 1
            await self._settle(claimed, None, attempts=attempts, last_error=None, delivered=True)
            return
        self.counted["failed"] += 1
        _log.warning("alert %s did not reach the channel %s: %s", claimed.alert.id, channel.id, said)
        if attempts > len(self._schedule_s):
            await self._settle(claimed, None, attempts=attempts, last_error=f"given up: {said}")
            return
        wait_s = self._schedule_s[attempts - 1] * self._jitter.uniform(1, 1 + JITTER)
        self._lanes.pause(channel.id, min(wait_s, PAUSE_S))
        await self._settle(claimed, wait_s, attempts=attempts, last_error=said)

    async def _try(self, channel: Channel, message: texts.Message) -> str | None:
        url = self._urls.get(channel.id)
        if url is None:
            try:
                url = self._sealer.open(channel.url_sealed or "", rows.url_context(channel.id))
            except SealingError as error:
                return str(error)
        return await self._sender.send(channel.id, url, message, trusted=channel.provider is None)

    async def _settle(
        self, claimed: Claim, wait_s: float | None, *, delivered: bool = False, **outcome: int | str | None
    ) -> None:
        async with self._database.writing() as connection:
            now_us = await self._database.now_us(connection)
            due_at_us = None if wait_s is None else now_us + int(wait_s * SECOND_US)
            delivered_at_us = now_us if delivered else None
            await rows.settle(
                connection, claimed, now_us, due_at_us=due_at_us, delivered_at_us=delivered_at_us, **outcome
            )


_LASTING = {
    Kind.STALE: "validation has stopped",
    Kind.BRAKE_ON: "the brake is on",
    Kind.DOWN: "the provider is down as a whole",
}
