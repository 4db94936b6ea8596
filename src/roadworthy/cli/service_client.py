"""A client of the mapping service: one request, one answer, or one sentence that says why there is none.

The token goes to the URL that was given and nowhere else: redirects are not followed, and it
is masked in whatever a server sends back.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import typer

import roadworthy
from roadworthy.errors import ConfigError, UndecidedError, UsageError
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.message import FailureKind, Limits, Reply, Request
from roadworthy.http.redact import Redactor

MAX_ANSWER_BYTES = 256 * 1024 * 1024
_UNSURE = {FailureKind.TOTAL_TIMEOUT, FailureKind.IDLE_TIMEOUT, FailureKind.DISCONNECTED, FailureKind.TRUNCATED}
"""Failures after which the request may have been carried out."""


class RefusedError(UsageError):
    """The service refused the request. `body` is what it said, an object."""

    def __init__(self, message: str, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Service:
    """Where the service is and who asks. The token does not show when this is printed."""

    url: str
    token: str = field(default="", repr=False)
    token_env: str = "ROADWORTHY_TOKEN"  # noqa: S105  the variable's name, not a token
    ca_file: Path | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: its JSON value and its ETag."""

    value: Any
    etag: str | None


def service(url: str, token_env: str, ca_file: Path | None, timeout_s: float) -> Service:
    """The service of these options. Raises `UsageError` for a URL or a token that cannot be used."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ConfigError(f"--url: expected the service's address, such as http://127.0.0.1:8000; got {_safe(url)!r}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("--url: expected no user or password in it; put the token in an environment variable")
    if parts.query or parts.fragment:
        raise ConfigError(f"--url: expected an address without ? and #; got {_safe(url)!r}")
    token = os.environ.get(token_env, "").strip()
    if token and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(f"{token_env}: expected a token of plain ASCII characters; copy it again")
    if token and parts.scheme == "http" and not _is_local(parts.hostname or ""):
        typer.echo(f"warning: the token goes to {_safe(parts.netloc)} unencrypted; use https", err=True)
    if not 0 < timeout_s <= 3600:
        raise ConfigError(f"--timeout: expected more than 0 and at most 3600 seconds; got {timeout_s:g}")
    return Service(url.rstrip("/"), token, token_env, ca_file, timeout_s)


class ServiceClient:
    """Asks one service. Use it in `async with`."""

    def __init__(self, target: Service, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._target = target
        self._transport = AiohttpTransport(ca_file=target.ca_file)
        self._redactor = Redactor([target.token] if target.token else [])
        self._limits = Limits(
            connect_timeout_s=min(10.0, target.timeout_s),
            total_timeout_s=target.timeout_s,
            idle_timeout_s=target.timeout_s,
            max_body_bytes=max_answer_bytes,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def mapping(self, provider: str, status: str | None = None) -> dict[str, dict[str, dict[str, Any]]]:
        """The list of a provider's mappings: by task, then by model or tag filter."""
        answer = await self._ask("GET", _path(provider), {"status": status} if status else {})
        value = answer.value
        entries = [each for task in value.values() if isinstance(task, dict) for each in task.values()]
        right = all(isinstance(task, dict) for task in value.values()) and all(
            isinstance(each, dict) and {"_id", "providerId", "status"} <= each.keys() for each in entries
        )
        if not right:
            raise self._foreign("its list is not one of mappings")
        return dict(value)

    async def replace(
        self,
        provider: str,
        items: list[dict[str, Any]],
        *,
        dry_run: bool,
        if_match: str | None = None,
        confirm_removals: int | None = None,
    ) -> Answer:
        """Ask for the whole mapping to be these items, or what that would change."""
        query = {"dryRun": "true"} if dry_run else {}
        if confirm_removals is not None:
            query["confirmRemovals"] = str(confirm_removals)
        headers = {"If-Match": if_match} if if_match else {}
        answer = await self._ask("PUT", _path(provider), query, {"models": items}, headers, changes=not dry_run)
        if not _is_plan(answer.value):
            raise self._foreign("its answer is not a plan")
        return answer

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        changes: bool = False,
    ) -> Answer:
        sent = {"Accept": "application/json", "User-Agent": f"roadworthy/{roadworthy.__version__}"} | dict(
            headers or {}
        )
        if self._target.token:
            sent["Authorization"] = f"Bearer {self._target.token}"
        content = None
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode()
            sent["Content-Type"] = "application/json"
        url = self._target.url + path + (f"?{urlencode(query)}" if query else "")
        reply = await self._transport.send(Request(method, url, tuple(sent.items()), content), self._limits)
        return self._judge(reply, changes=changes)

    def _judge(self, reply: Reply, *, changes: bool) -> Answer:
        if reply.failure is not None or reply.status is None:
            said = reply.failure.message if reply.failure else "no answer came"
            hint = "is the service running, and --url right?"
            if changes and reply.failure is not None and reply.failure.kind in _UNSURE:
                hint = "it may have been carried out all the same: `roadworthy mapping diff` tells"
            raise UndecidedError(f"{self._clean(said)}; {hint}")
        value = _json(reply.body)
        if 200 <= reply.status < 300:
            if not isinstance(value, dict):
                raise self._foreign(f"expected a JSON object, got {self._media_type(reply)}")
            return Answer(value, reply.header("etag"))
        raise self._refusal(reply, value)

    def _refusal(self, reply: Reply, value: Any) -> Exception:
        status = reply.status or 0
        said = value.get("error") if isinstance(value, dict) else None
        if 300 <= status < 400:
            place = self._clean(reply.header("location") or "another place")
            return UsageError(
                f"{self._target.url} redirects to {place}; give the right --url (the token is not passed on)"
            )
        if not isinstance(said, str):
            if status >= 500 or status == 429:
                return UndecidedError(f"{self._target.url} answers {status}, without a reason; try again later")
            return self._foreign(f"it answers {status} with {self._media_type(reply)}")
        said = self._clean(said)
        if status == 401:
            name = self._target.token_env
            if not self._target.token:
                return UsageError(f"this needs a token: put one into the variable {name}, or name another: --token-env")
            return UsageError(f"the service does not accept the token in {name} (401: {said})")
        if status == 412:
            return UndecidedError("the mapping was changed by somebody else meanwhile; nothing was done. Run it again")
        if status == 429 or status >= 500:
            after = reply.header("retry-after") or ""
            wait = f" in {after} s" if after.isascii() and after.isdigit() and len(after) < 9 else " later"
            return UndecidedError(f"the service answers {status}: {said}; try again{wait}")
        return RefusedError(f"the service refuses ({status}): {said}", status, value)

    def _foreign(self, what: str) -> UsageError:
        return UsageError(f"{self._target.url} does not answer as the mapping service does: {what}; check --url")

    def _media_type(self, reply: Reply) -> str:
        return self._clean((reply.header("content-type") or "no content type").partition(";")[0])

    def _clean(self, text: str) -> str:
        return _safe(self._redactor.text(text))


def harmless(text: object) -> str:
    """Text of a server's, without what could command a terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text))


def _safe(text: str) -> str:
    return harmless(text if len(text) <= 1000 else text[:1000] + "...")


def _path(provider: str) -> str:
    return f"/api/partners/{quote(provider, safe='')}/models"


def _is_plan(value: Mapping[str, Any]) -> bool:
    lists = [value.get(name) for name in ("added", "changed", "removed")]
    if not all(isinstance(each, list) and all(isinstance(entry, dict) for entry in each) for each in lists):
        return False
    sides = [entry.get(side) for entry in value["changed"] for side in ("before", "after")]
    return all(isinstance(side, dict) for side in sides) and isinstance(value.get("unchanged"), int)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
