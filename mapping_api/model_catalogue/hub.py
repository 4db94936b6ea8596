"""The catalogue that is the real hub, asked through `huggingface_hub`.

Its session (proxies, certificates, the offline switch) and its endpoint are used, its
asynchronous client without threads: so a question ends at its deadline, whatever the
hub does, and nothing stays behind.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import orjson

import roadworthy
from roadworthy.errors import ConfigError
from roadworthy.mapping_api.model_catalogue import CatalogueUnavailable
from roadworthy.mapping_api.model_catalogue.cache import AnswerCache
from roadworthy.mapping_api.model_catalogue.circuit import LONGEST_ASKED_PAUSE_S, Circuit
from roadworthy.mapping_api.names import MAPPING_ID, MODEL, TASK
from roadworthy.mapping_api.records import ModelFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

EXPAND = ("pipeline_tag", "tags", "siblings", "private")
"""All that is asked of each model."""
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""The names that diffusers and peft give to LoRA weights."""
LONGEST_ANSWER_BYTES = 32 * 2**20
PAGE = 500
MOST_REDIRECTS = 3
SMALLEST_PAGE = 50
"""So many models of each page a long list counts on, so that it ends even if the pages do not."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ABSENT = frozenset({"RepoNotFound", "GatedRepo"})
_DISABLED = "Access to this resource is disabled."


class _Answer:
    """One answer of the hub, read whole."""

    def __init__(self, status: int, headers: Mapping[str, str], url: str, body: bytes) -> None:
        self.status, self.headers, self.url, self.body = status, headers, url, body


class HubCatalogue:
    """Facts from the hub, with a cache, a deadline for each question, and a circuit breaker."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 8.0,
        concurrency: int = 8,
        matches_max: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """None is the endpoint of `huggingface_hub`. Raises `ConfigError`; nothing is asked yet.

        `timeout_s` is the time of one question, of which `concurrency` are asked at once; a
        list is a question for each page. `matches_max` bounds the models of one list.
        """
        from huggingface_hub import constants

        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._origin = _origin(self._endpoint)
        if self._origin is None or urlsplit(self._endpoint).query or urlsplit(self._endpoint).fragment:
            raise ConfigError(
                f"the hub's endpoint must be an http or https URL such as https://hub.example; got {self._endpoint!r}"
            )
        # Neither the locally saved token nor what else the library tells about this machine is sent.
        self._headers = {"User-Agent": f"roadworthy/{roadworthy.__version__}", "Accept-Encoding": "identity"}
        if token:
            if not (token.isascii() and token.isprintable()) or " " in token:
                raise ConfigError("the hub token must be printable ASCII without spaces; check ROADWORTHY_HUB_TOKEN")
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s
        self._matches_max = matches_max
        self._turns = asyncio.Semaphore(concurrency)
        self._circuit = Circuit(clock)
        self._cache = AnswerCache(self._ask, clock=clock)
        self._client: Any = None

    async def get(self, model_id: str) -> ModelFacts | None:
        """The facts of one model, at most ten minutes old; None where there is none that our token may read.

        Their id is the hub's present one, where it answers for an old name.
        """
        if not re.fullmatch(MODEL, model_id):
            return None
        return await self._cache.get(model_id)

    async def tagged(self, tags: Collection[str], at_most: int | None = None) -> list[ModelFacts]:
        """The models that carry all of these tags, most downloaded first."""
        most = min(at_most or self._matches_max, self._matches_max)
        query = [("filter", tag) for tag in sorted(tags)] + [("expand", name) for name in EXPAND]
        query += [("sort", "downloads"), ("direction", "-1"), ("limit", str(min(most, PAGE)))]
        url: str | None = f"{self._endpoint}/api/models"
        found: dict[str, ModelFacts] = {}
        pages = 0
        while url is not None and len(found) < most and pages < max(1, most // SMALLEST_PAGE):
            answer = await self._question(url, query)
            rows = _json(answer) if answer.status == 200 else None
            if not isinstance(rows, list):
                raise _unusable(f"the hub's list of models came as {_shape(answer)}, not as a list")
            for row in rows:
                facts = read_facts(row)
                # The hub's own filter is not taken on trust: what lacks a tag would be served as if it had it.
                if facts is not None and set(tags) <= set(facts.tags):
                    found.setdefault(facts.id, facts)
            pages += 1
            url, query = self._next(answer), []  # the link holds the whole query
        return list(found.values())[:most]

    async def everything(self) -> list[ModelFacts] | None:
        """None: the hub has millions."""
        return None

    async def close(self) -> None:
        """Stop questions under way, and close the connections."""
        await self._cache.close()
        if self._client is not None:
            await self._client.aclose()

    async def _ask(self, model_id: str) -> ModelFacts | None:
        answer = await self._question(
            f"{self._endpoint}/api/models/{model_id}", [("expand", name) for name in EXPAND], missing=True
        )
        if answer.status != 200:
            return None
        facts = read_facts(_json(answer))
        if facts is None:
            raise _unusable(f"what the hub says of {model_id} came as {_shape(answer)}, not as a model")
        return facts

    async def _question(self, url: str, query: list[tuple[str, str]], *, missing: bool = False) -> _Answer:
        """An answer with status 200, or where `missing` one that says there is no such model."""
        self._check_circuit()
        async with self._turns:
            self._check_circuit()  # it may have opened while this question waited for its turn
            self._circuit.enter(self._timeout_s)
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._follow(url, query)
            except TimeoutError:
                raise self._failed(f"the hub gave no whole answer within {self._timeout_s:g} s") from None
            except asyncio.CancelledError:
                self._circuit.left()
                raise
        if answer.status == 200 or (missing and _is_missing(answer)):
            self._circuit.succeeded()
            return answer
        raise self._failed(_complaint(answer), _retry_after_s(answer.headers))

    def _check_circuit(self) -> None:
        wait_s = self._circuit.wait_s()
        if wait_s > 0:
            raise CatalogueUnavailable(
                "the hub did not answer a moment ago and is not asked again yet; nothing was done. Try again later",
                math.ceil(wait_s),
            )

    async def _follow(self, url: str, query: list[tuple[str, str]]) -> _Answer:
        answer = await self._fetch(url, query)
        for _ in range(MOST_REDIRECTS):
            if answer.status not in _REDIRECTS:
                return answer
            target = _joined(answer.url, answer.headers.get("location", ""))
            if _origin(target) != self._origin:
                raise self._failed("the hub redirects to another host, which is not followed; check the endpoint")
            # Renamed models are answered with their new place, often without what was asked for.
            answer = await self._fetch(target, [] if urlsplit(target).query else query)
        return answer

    async def _fetch(self, url: str, query: list[tuple[str, str]]) -> _Answer:
        async with (
            self._transport() as client,
            client.stream("GET", url, params=query or None, headers=self._headers, follow_redirects=False) as response,
        ):
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _unusable("the hub's answer came compressed, though that was not asked for")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > LONGEST_ANSWER_BYTES:
                    raise _unusable(f"the hub's answer is longer than {LONGEST_ANSWER_BYTES // 2**20} MiB")
            return _Answer(response.status_code, response.headers, str(response.url), bytes(body))

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        from huggingface_hub import get_async_session
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        if self._client is None:
            self._client = get_async_session()
            # Its own hook reads the answers of failures whole; here every answer is read within bounds.
            self._client.event_hooks = {**self._client.event_hooks, "response": []}
        # The library's HTTP client is httpx or httpx2, by its version; each makes its errors from one class.
        http_error: Any = HfHubHTTPError.__bases__[0]
        try:
            yield self._client
        except OfflineModeIsEnabled:
            raise self._failed("the hub may not be asked while HF_HUB_OFFLINE is set; unset it") from None
        except (http_error, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0][:200] or type(error).__name__
            raise self._failed(f"the hub cannot be reached: {reason}") from None

    def _next(self, answer: _Answer) -> str | None:
        """The next page's address, as the Link header gives it; only on the hub itself."""
        for target, parameters in re.findall(r"<([^<>]*)>([^<]*)", answer.headers.get("link", "")):
            if re.search(r';\s*rel="?next"?', parameters):
                url = _joined(answer.url, target)
                return url if _origin(url) == self._origin else None
        return None

    def _failed(self, reason: str, retry_after_s: float | None = None) -> CatalogueUnavailable:
        self._circuit.failed(retry_after_s)
        wait_s = max(1, math.ceil(self._circuit.wait_s()))
        return CatalogueUnavailable(f"{reason}; nothing was done. Try again later", wait_s)


def read_facts(answer: object) -> ModelFacts | None:
    """The facts in what the hub says of one model; None where that is not a model, or a private one.

    Tags and names that cannot be printed are left out: no filter can name them, and not every database keeps them.
    """
    if not isinstance(answer, dict) or answer.get("private") is True:
        return None  # what our token may see, the public may not
    id = answer.get("id")
    if not isinstance(id, str) or not re.fullmatch(MODEL, id):
        return None
    task, hub_id = answer.get("pipeline_tag"), answer.get("_id")
    tags = answer.get("tags")
    siblings = answer.get("siblings")
    files = [each.get("rfilename") for each in siblings if isinstance(each, dict)] if isinstance(siblings, list) else []
    return ModelFacts(
        id,
        task if isinstance(task, str) and len(task) <= 64 and re.fullmatch(TASK, task) else None,
        tuple(dict.fromkeys(tag for tag in tags if _is_name(tag, 256))) if isinstance(tags, list) else (),
        weights_path([name for name in files if isinstance(name, str) and _is_name(name, 1024)]),
        hub_id if isinstance(hub_id, str) and re.fullmatch(MAPPING_ID, hub_id) else "",
    )


def weights_path(files: Collection[str]) -> str | None:
    """Which of a model's files holds its LoRA weights.

    A `.safetensors` file with a name that LoRA weights have by custom, at the root before in
    a folder; else the first `.safetensors` file at the root, in the order of names; None
    where there is no such file. Files of other kinds are never named: they can hold code.
    """
    candidates = sorted((name for name in files if name.endswith(".safetensors")), key=lambda name: ("/" in name, name))
    for custom in LORA_FILES:
        for name in candidates:
            if name.rpartition("/")[2] == custom:
                return name
    return candidates[0] if candidates and "/" not in candidates[0] else None


def _unusable(reason: str) -> CatalogueUnavailable:
    # The hub is there, so this says nothing about other questions and does not count against it.
    return CatalogueUnavailable(f"{reason}; nothing was done. Try again later", 30)


def _is_name(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _origin(url: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port


def _joined(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:
        return ""  # of no origin, and so not followed


def _json(answer: _Answer) -> object:
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None


def _shape(answer: _Answer) -> str:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    return f"{len(answer.body)} bytes of {kind if _is_name(kind, 60) else 'no stated type'}"


def _is_missing(answer: _Answer) -> bool:
    """Whether the hub says, in its own way, that there is no such model or none that we may read.

    Without a token that may, a private model is answered like a missing one: 401 with
    RepoNotFound. A gated or disabled one is 403 with a code or message. A 401 or 403
    without these is about our token or a proxy, and says nothing of the model.
    """
    if answer.status == 404:
        return answer.headers.get("x-error-code") in _ABSENT or isinstance(_json(answer), dict)
    if answer.status in {401, 403}:
        code, message = answer.headers.get("x-error-code"), answer.headers.get("x-error-message")
        return code in _ABSENT or message == _DISABLED
    return answer.status == 410


def _complaint(answer: _Answer) -> str:
    if answer.status == 429:
        return "the hub asks us to slow down (429)"
    if answer.status in {401, 403}:
        return f"the hub refuses our token ({answer.status}); the operator should check ROADWORTHY_HUB_TOKEN"
    if answer.status in _REDIRECTS:
        return f"the hub redirects more than {MOST_REDIRECTS} times"
    return f"the hub answered with status {answer.status}"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What the hub asks for in `Retry-After` (seconds or a date); None where it asks for nothing sane."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), LONGEST_ASKED_PAUSE_S)
    try:
        wait_s = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0.0, wait_s), LONGEST_ASKED_PAUSE_S)
