"""Handing usage in to a service, over and over until it is taken: told again, an item is known and counts once."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import typer

import roadworthy
from roadworthy.cli.service_client import Service, ServiceClient, harmless
from roadworthy.errors import UndecidedError, UsageError
from roadworthy.http.message import Reply, Request
from roadworthy.http.retry_after import retry_after_s

TRIES = 8
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_LATER = {408, 429, 500, 502, 503, 504}


class Poster(ServiceClient):
    """Sends batches to one service. Use it in `async with`."""

    def __init__(self, target: Service, *, late: bool) -> None:
        """`late` asks the service to take requests of any age."""
        super().__init__(target, max_answer_bytes=MAX_ANSWER_BYTES)
        self._url = f"{target.url}/api/usage?partial=true{'&late=true' if late else ''}"
        self._jitter = random.Random()  # noqa: S311  spreads load, hides nothing

    async def post(self, items: Sequence[Any]) -> dict[str, Any]:
        """The service's answer. Raises `UsageError` for a refusal, `UndecidedError` where it is not to be had."""
        body = await asyncio.to_thread(lambda: gzip.compress(json.dumps({"requests": items}).encode(), 5))
        headers = (
            ("Authorization", f"Bearer {self._target.token}"),
            ("Content-Type", "application/json"),
            ("Content-Encoding", "gzip"),
            ("User-Agent", f"roadworthy/{roadworthy.__version__}"),
        )
        for attempt in range(TRIES):
            reply = await self._transport.send(Request("POST", self._url, headers, body), self._limits)
            if reply.failure is None and reply.status not in _LATER:
                return self._read(reply)
            if attempt == 0:
                # The tries together take a minute or more, and nobody should sit before a silent terminal.
                typer.echo(f"{self._said(reply)}; trying again", err=True)
            if attempt + 1 < TRIES:
                await asyncio.sleep(self._wait_s(attempt, reply))
        raise UndecidedError(f"{self._said(reply)}; {TRIES} times. Is the service running, and --url right?")

    def _wait_s(self, attempt: int, reply: Reply) -> float:
        asked_s = retry_after_s(reply.header("retry-after"), datetime.now(UTC))
        wait_s: float = FIRST_WAIT_S * 2**attempt * (0.5 + self._jitter.random())
        return min(max(wait_s, asked_s), LONGEST_WAIT_S)

    def _read(self, reply: Reply) -> dict[str, Any]:
        value = _object(reply.body)
        if reply.status == 200:
            return value
        if reply.status == 401:
            raise UsageError(f"the service does not accept the gateway's token in {self._target.token_env}")
        raise UsageError(f"{self._said(reply)}; nothing of this batch was stored")

    def _said(self, reply: Reply) -> str:
        if reply.failure is not None:
            return self._clean(reply.failure.message)
        said = _object(reply.body).get("error")
        return f"the service answers {reply.status}" + (f": {self._clean(said)}" if isinstance(said, str) else "")

    def _clean(self, text: str) -> str:
        return harmless(self._redactor.text(text)[:1000])


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
