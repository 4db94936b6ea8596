"""One question to a provider's cost endpoint, and what is made of the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import orjson

from roadworthy.billing import answer
from roadworthy.billing.records import Costs, Doubt, Noted, Refusal
from roadworthy.billing.schedule import Policy
from roadworthy.billing.store.endpoints import key_context
from roadworthy.http.message import Limits, Reply, Request, Transport
from roadworthy.http.redact import Redactor
from roadworthy.sealing import Sealer


class Question:
    """One question for the costs of some ids."""

    def __init__(self, transport: Transport, policy: Policy, url: str, key: str | None, ids: Sequence[str]) -> None:
        """`key` goes to the origin of `url` alone: the transport follows no redirects."""
        self._transport = transport
        self._policy = policy
        self._key = key
        self._ids = list(ids)
        self.asked = len(self._ids)
        headers = [("Content-Type", "application/json"), ("Accept", "application/json")]
        if key is not None:
            headers.append(("Authorization", f"Bearer {key}"))
        self._request = Request("POST", url, tuple(headers), orjson.dumps({"requestIds": self._ids}))
        self.answer_bytes = 0
        self.took_us = 0

    async def answered(self) -> Costs | Refusal:
        """The costs, or what came instead."""
        begun_ns = time.monotonic_ns()
        try:
            reply = await self._transport.send(self._request, self._limits())
        finally:
            self.took_us = (time.monotonic_ns() - begun_ns) // 1000
        self.answer_bytes = len(reply.body)
        # Elsewhere, so that a hostile body holds up nobody else's turn.
        return await asyncio.to_thread(self._read, reply)

    def _read(self, reply: Reply) -> Costs | Refusal:
        found = answer.read(reply, frozenset(self._ids), self._policy.max_cost_nano_usd)
        # Parts of answers are kept, and some servers echo what they were sent. The numbers were read before: a key
        # of digits may stand in any of them.
        return found if self._key is None else _without(Redactor([self._key]), found)

    def _limits(self) -> Limits:
        timeout_s = self._policy.timeout_s
        return Limits(
            connect_timeout_s=min(10.0, timeout_s),
            total_timeout_s=timeout_s,
            idle_timeout_s=timeout_s,
            max_body_bytes=self._policy.answer_max_bytes,
        )


class HasId(Protocol):
    """Whatever has the id by which the provider knows a request."""

    @property
    def request_id(self) -> str:
        """The id, as the provider gave it."""
        ...


Asking = Callable[[Sequence[HasId]], Question]


class Keyed(Protocol):
    """Whatever tells of a cost endpoint: a turn, or the endpoint itself."""

    @property
    def provider(self) -> str:
        """The provider's slug."""
        ...

    @property
    def url(self) -> str:
        """The endpoint's URL."""
        ...

    @property
    def key_sealed(self) -> str | None:
        """Its key, sealed."""
        ...


def asker(sealer: Sealer, transport: Transport, policy: Policy, at: Keyed) -> Asking:
    """What makes questions to this endpoint. Raises `SealingError` where its key cannot be opened."""
    key = None if at.key_sealed is None else sealer.open(at.key_sealed, key_context(at.provider, at.url))
    return lambda asked: Question(transport, policy, at.url, key, [one.request_id for one in asked])


def _without(secret: Redactor, found: Costs | Refusal) -> Costs | Refusal:
    """The same with every text masked that came from the provider, but for the ids, which are ours."""
    if isinstance(found, Refusal):
        return Refusal(found.trouble, secret.text(found.detail), found.retry_after_s, found.too_much)
    doubtful = {id: Doubt(doubt.reason, secret.text(doubt.claimed)) for id, doubt in found.doubtful.items()}
    invalid = {id: secret.text(why) for id, why in found.invalid.items()}
    oddities = {
        oddity: Noted(noted.count, [secret.text(example) for example in noted.examples])
        for oddity, noted in found.oddities.items()
    }
    return Costs(found.posted, doubtful, invalid, oddities)
