"""The ASGI application around a provider's own: an id on every answer, its cost recorded, and told when asked."""

from __future__ import annotations

import hmac
import inspect
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from roadworthy.errors import ConfigError
from roadworthy.partner.costs import (
    MAX_TOKENS,
    CostRequestError,
    Price,
    Tokens,
    asked_ids,
    cost_answer,
    is_possible_id,
    tokens_of,
)
from roadworthy.partner.usage import Reader, reader_for

try:
    import sqlalchemy as sa

    from roadworthy.partner.store import CostStore, Listing, Record
except ModuleNotFoundError:
    raise ConfigError("the middleware needs sqlalchemy: pip install 'roadworthy[partner]'") from None

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
UsageOf = Callable[[Scope], Mapping[str, Any] | Tokens | None]
KeyCheck = Callable[[str], bool | Awaitable[bool]]

USAGE, MODEL, REQUEST_ID = "roadworthy_usage", "roadworthy_model", "roadworthy_request_id"
"""Keys of `scope["state"]` (in Starlette `request.state`): the first two are the application's to set."""
MAX_QUESTION_BYTES = 4 * 1024 * 1024
MAX_MODEL_LENGTH = 200
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

log = logging.getLogger("roadworthy.partner")


class CostMiddleware:
    """Wraps an ASGI application (under asyncio) and keeps the accounts of its answers.

    `prices` are by the model's name as answers tell it. `api_key` is the bearer key that the hub uses for
    inference, or a function, plain or async, that says whether a key is good; `True` alone lets in.

    `usage_of`, given the scope, returns the usage of a request (an object as in an answer, or `Tokens`) or None; it is
    asked when the answer ends or breaks off, and goes before what the answer tells. Without it
    `scope["state"]["roadworthy_usage"]` is looked at, which the application may set; a stream whose client asked for
    no usage needs one of the two. Where it raises, or returns what tells no tokens, that is logged with the id, and
    what the answer itself tells is counted, if it tells any.

    `keep_days` is how long records are kept (None: for ever), `queue_size` how many wait in memory while the database
    fails.

    Raises `ConfigError` for settings that cannot be used. Nothing is connected before the first use.
    """

    def __init__(
        self,
        app: App,
        *,
        database_url: str,
        prices: Mapping[str, Price],
        api_key: str | KeyCheck,
        cost_path: str = "/v1/request-costs",
        request_id_header: str = "Inference-Id",
        usage_of: UsageOf | None = None,
        keep_days: float | None = 90,
        queue_size: int = 100_000,
    ) -> None:
        if not api_key:
            raise ConfigError("`api_key` is empty; give the key that the hub uses for inference")
        if not cost_path.startswith("/"):
            raise ConfigError(f"`cost_path` must begin with a slash, got {cost_path!r}")
        if not _HEADER_NAME.fullmatch(request_id_header):
            raise ConfigError(f"`request_id_header` must be the name of a header, got {request_id_header!r}")
        if keep_days is not None and keep_days <= 0:
            raise ConfigError(f"`keep_days` must be more than 0, or None to keep records for ever, got {keep_days}")
        self.app = app
        self.usage_of = usage_of or (lambda scope: scope["state"].get(USAGE))
        self.id_header = request_id_header.lower().encode("ascii")
        self.store = CostStore(database_url, keep_days=keep_days, queue_size=queue_size)
        self.listings: dict[str, Listing] = {}
        self._api_key = api_key
        self._cost_path = cost_path
        self.set_prices(prices)

    def set_prices(self, prices: Mapping[str, Price]) -> None:
        """Replace the prices. Requests that have begun are costed at the old ones. Raises `ConfigError`."""
        for model, price in prices.items():
            if not isinstance(price, Price):
                raise ConfigError(
                    f'the price of {model!r} must be a Price, like Price(input="0.2", output="0.6"), got {price!r}'
                )
        old = self.listings
        self.listings = {
            model: old[model] if model in old and old[model].price == price else Listing(model, price)
            for model, price in prices.items()
        }

    def close(self) -> None:
        """Write what is left and stop; a server's shutdown does it, where the application takes lifespan events."""
        self.store.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == self._cost_path:
            await self._tell_costs(scope, receive, send)
        else:
            state = scope.get("state")
            own = scope if isinstance(state, MutableMapping) else {**scope, "state": {}}
            await _Passage(self, own, receive, send).run()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.store.start()
            elif message["type"].startswith("lifespan.shutdown"):
                self.close()
            await send(message)

        await self.app(scope, receive, watched)

    # The cost endpoint

    async def _tell_costs(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await self.answer(send, 405, _error(f"use POST, not {scope['method']}"), allow="POST")
        if not await self._lets_in(scope):
            said = _error("the API key is missing or wrong", "authentication_error")
            return await self.answer(send, 401, said, **{"www-authenticate": "Bearer"})
        body = await _body(receive)
        if body is None:
            return None
        if len(body) > MAX_QUESTION_BYTES:
            return await self.answer(send, 413, _error(f"the body may have {MAX_QUESTION_BYTES:,} bytes at most"))
        try:
            ids = asked_ids(body)
        except CostRequestError as error:
            return await self.answer(send, 400, _error(str(error)))
        try:
            known = await self.store.costs_nano_usd([id for id in ids if is_possible_id(id)])
        except sa.exc.SQLAlchemyError:
            log.exception("costs could not be read from the database")
            said = _error("the costs cannot be read at the moment; ask again", "server_error")
            return await self.answer(send, 503, said, **{"retry-after": "5"})
        return await self.answer(send, 200, cost_answer(ids, known))

    async def _lets_in(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name.lower() == b"authorization"), b"")
        scheme, _, key = given.decode("latin-1").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            return False
        if callable(self._api_key):
            said = self._api_key(key)
            if inspect.isawaitable(said):
                said = await said
            # Nearly every object is true, a coroutine among them: only what says so lets in.
            if not isinstance(said, bool):
                log.error("`api_key` must say True or False, got a %s; nobody is let in", type(said).__name__)
            return said is True
        return hmac.compare_digest(key.encode("latin-1"), self._api_key.encode())

    async def answer(self, send: Send, status: int, payload: Any, **more: str) -> None:
        """Send an answer of our own, which has an id like any other."""
        body = json.dumps(payload, separators=(",", ":")).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **more}
        listed = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        listed.append((self.id_header, str(uuid.uuid4()).encode("ascii")))
        await send({"type": "http.response.start", "status": status, "headers": listed})
        await send({"type": "http.response.body", "body": body})


class _Passage:
    """One request on its way through."""

    def __init__(self, owner: CostMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self.owner = owner
        self.scope = scope
        self.receive, self.send = receive, send
        self.request_id = str(uuid.uuid4())
        self.listings = owner.listings
        """The prices when the request began."""
        self.status: int | None = None
        self.reader = Reader()
        self.bytes_left: int | None = None
        """What a Content-Length still promises."""
        self.client_left = False
        self.recorded = False
        scope["state"][REQUEST_ID] = self.request_id

    async def run(self) -> None:
        """Let the application answer, and record what it did."""
        try:
            await self.owner.app(self.scope, self._receive, self._send)
        except Exception:
            if self.client_left:
                self._record_part()
            elif self.status is None:
                # The server's own answer would have no id.
                await self._fail()
            raise
        except BaseException:
            # Cancelled: the server gives the client up, or ends. What was generated was generated.
            self._record_part()
            raise
        if self.client_left:
            self._record_part()
        elif self.status is None:
            await self._fail()

    async def _receive(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            self.client_left = True
        return message

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            message = self._begin(message)
        elif kind == "http.response.body":
            data = message.get("body", b"")
            self.reader.feed(data)
            if self.bytes_left is not None:
                self.bytes_left -= len(data)
            last = not message.get("more_body", False)
            if last:
                self.reader.finish()
            # A client may stop at the end of the answer, or at the length it was told, without the last message.
            if last or self.reader.ended or (self.bytes_left is not None and self.bytes_left <= 0):
                await self._record()
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            await self._record()
        try:
            await self.send(message)
        except OSError:
            self.client_left = True
            raise

    def _begin(self, message: Message) -> Message:
        self.status = message["status"]
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        told = {name.lower(): value.decode("latin-1") for name, value in reversed(headers)}
        if self.owner.id_header in told:
            self.request_id = self.scope["state"][REQUEST_ID] = told[self.owner.id_header]
        else:
            headers.append((self.owner.id_header, self.request_id.encode("ascii")))
        if self.scope["method"] == "POST" and self.status < 400:
            self.reader = reader_for(told.get(b"content-type", ""), told.get(b"content-encoding", ""))
        length = told.get(b"content-length", "")
        if length.isascii() and length.isdigit() and int(length) > 0:
            self.bytes_left = int(length)
        return {**message, "headers": headers}

    async def _fail(self) -> None:
        await self.owner.answer(self._send, 500, _error("internal server error", "server_error"))

    async def _record(self) -> None:
        record = self._made()
        if record is not None:
            await self.owner.store.record(record)

    def _record_part(self) -> None:
        """Record an answer that broke off on the client's side; nobody waits for it."""
        self.reader.finish()
        record = self._made()
        if record is not None:
            self.owner.store.record_later(record)

    def _made(self) -> Record | None:
        """The record of this request, once; a failed one has none."""
        if self.recorded or self.status is None or self.status >= 400:
            return None
        self.recorded = True
        id = self.request_id
        if not is_possible_id(id):
            log.error("the application told the request id %.80r, which nobody can ask for: its cost is lost", id)
            return None
        tokens = self._told_by_application() or self.reader.tokens
        name = self.scope["state"].get(MODEL) or self.reader.model
        model = "".join(c for c in name if c.isprintable())[:MAX_MODEL_LENGTH] if isinstance(name, str) else None
        listing = self.listings.get(model) if model is not None else None
        if tokens is None and self.scope["method"] == "POST":
            level = logging.WARNING if self.reader.trouble else logging.INFO
            log.log(level, "the answer to request %s tells no tokens: %s", id, self.reader.trouble or "it has no usage")
        elif tokens is not None and listing is None:
            log.error("request %s has tokens but no cost: the model %r has no price", id, model)
        return Record(id, model, tokens, listing)

    def _told_by_application(self) -> Tokens | None:
        try:
            usage = self.owner.usage_of(self.scope)
            if usage is None or isinstance(usage, Tokens):
                return usage
            tokens = tokens_of(dict(usage)) if isinstance(usage, Mapping) else None
        except Exception:
            log.exception("`usage_of` failed for request %s", self.request_id)
            return None
        if tokens is None:
            log.error(
                "the usage that the application tells of request %s, a %s, holds no counts of tokens from 0 to %s: "
                "it is not counted; see `usage_of`",
                self.request_id,
                type(usage).__name__,
                f"{MAX_TOKENS:,}",
            )
        return tokens


async def _body(receive: Receive) -> bytes | None:
    """The body, of which at most a little more than the limit is kept; None where the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= MAX_QUESTION_BYTES:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _error(message: str, type: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": None}}
