"""The catalogue in the form of OpenAI's model list, with what each provider of a model offers and how well.

Its place is beside `/v1/chat/completions`, so what its list names is what one can chat with, unless another
task is asked for. Staging mappings are not in it, for anybody: it is what one may route to.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal, NotRequired
from weakref import WeakKeyDictionary

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from roadworthy.mapping_api.access import PUBLIC
from roadworthy.mapping_api.api.context import CallerOf, PublicView
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.errors import BadRequest, ModelNotFound, NotFound
from roadworthy.mapping_api.names import CONVERSATIONAL, TASK
from roadworthy.mapping_api.offers import POLICIES, Offer, offers, ordered
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.registration import TASKS
from roadworthy.mapping_api.view import View

router = APIRouter(prefix="/v1/models", tags=["catalogue"])

_EVERY_TASK = "all"
_AT_ONCE = 100
"""Models written before others are let in: a few milliseconds' work."""
_MODALITIES = {"text": "text", "image": "image", "video": "video", "audio": "audio", "speech": "audio", "3d": "3d"}
_ANY = ["text", "image", "audio", "video"]
_OTHER_TASKS: dict[str, tuple[list[str], list[str]]] = {
    "any-to-any": (_ANY, _ANY),
    "audio-classification": (["audio"], ["text"]),
    "automatic-speech-recognition": (["audio"], ["text"]),
    "depth-estimation": (["image"], ["image"]),
    "document-question-answering": (["text", "image"], ["text"]),
    "image-classification": (["image"], ["text"]),
    "image-feature-extraction": (["image"], ["embeddings"]),
    "image-segmentation": (["image"], ["image"]),
    "mask-generation": (["image"], ["image"]),
    "feature-extraction": (["text"], ["embeddings"]),
    "object-detection": (["image"], ["text"]),
    "unconditional-image-generation": ([], ["image"]),
    "video-classification": (["video"], ["text"]),
    "visual-question-answering": (["text", "image"], ["text"]),
    "zero-shot-image-classification": (["text", "image"], ["text"]),
    "zero-shot-object-detection": (["text", "image"], ["text"]),
}


class _Exact(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]


class Architecture(_Exact):
    """What goes in and what comes out."""

    input_modalities: list[str]
    output_modalities: list[str]


class Pricing(_Exact):
    """USD per million tokens, exact decimals."""

    input: NotRequired[float]
    output: NotRequired[float]


class CatalogueProvider(_Exact):
    """One provider of the model. Figures are of the latest validation; those not known are left out."""

    provider: str
    status: Annotated[Literal["live", "error"], Field(description="`error`: the latest validation failed.")]
    context_length: NotRequired[Annotated[int, Field(description="Tokens.")]]
    pricing: NotRequired[Pricing]
    is_free: NotRequired[bool]
    supports_tools: NotRequired[bool]
    supports_structured_output: NotRequired[bool]
    first_token_latency_ms: NotRequired[Annotated[float, Field(description="Milliseconds.")]]
    throughput: NotRequired[Annotated[float, Field(description="Tokens per second.")]]
    is_model_author: bool


class CatalogueModel(_Exact):
    """One model, with its providers: by health, then in the order of the policy."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="When a provider first mapped it: seconds since 1970, UTC.")]
    owned_by: str
    architecture: Architecture
    providers: list[CatalogueProvider]


class Catalogue(_Exact):
    """The list."""

    object: Literal["list"]
    data: list[CatalogueModel]


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


_TASK = _query(
    "task",
    "Only models served for this task: `conversational` if it is left out, `all` for every model.",
    {"type": "string", "pattern": TASK},
)
_PREFERRED = _query(
    "preferred",
    "With the suffix `:preferred`: providers in your order, with commas between; else your organisation's order.",
    {"type": "string"},
)


@router.get("", response_model=Catalogue, responses=documented(400, 503), openapi_extra={"parameters": [_TASK]})
async def catalogue(request: Request, view: PublicView) -> Response:
    """The models that providers serve, with each provider's status, prices and figures, fastest first."""
    task = request.query_params.get("task", CONVERSATIONAL)
    if re.fullmatch(TASK, task) is None:
        raise BadRequest(f"task: expected a task, for example 'conversational', or 'all'; got {task[:80]!r}")
    key, state = ("v1", task), view.state
    body = view.answered(key)
    if body is None:
        body = await _list(view, task)
        if view.state == state:
            view.answer(key, lambda: body, len)
    return _json(body)


@router.get(
    "/{model_id:path}",
    response_model=CatalogueModel,
    responses=documented(400, 401, 404, 503),
    openapi_extra={"parameters": [_PREFERRED]},
)
async def model(model_id: str, request: Request, view: PublicView, caller: CallerOf) -> Response:
    """One model with its providers; with a suffix, only the provider that it chooses.

    `{id}:fastest` (most tokens per second), `{id}:cheapest` (lowest output price), `{id}:preferred` (the first
    of your order) choose among providers that passed their latest validation; `{id}:{provider}` names one.
    """
    wanted, colon, suffix = model_id.partition(":")  # no model has a colon in its id
    preferred = request.query_params.get("preferred")
    facts = view.models.get(wanted)
    found = _offers(view, facts) if facts is not None else []
    if facts is None or not found:
        raise ModelNotFound(f"Repository not found: no provider serves {wanted[:200]!r}; GET /v1/models lists what is")
    if preferred is not None and suffix != "preferred":
        raise BadRequest(f"preferred: this goes with the suffix ':preferred', as in {wanted[:200]}:preferred")
    if not colon:
        return _json(view.answer(("v1 model", wanted), lambda: orjson.dumps(_entry(facts, ordered(found))), len))
    order = caller.preferred_providers if preferred is None else tuple(preferred.split(","))
    return _json(orjson.dumps(_entry(facts, [_chosen(facts, found, suffix, order)], created_of=found)))


def _chosen(facts: ModelFacts, found: list[Offer], suffix: str, preferred: tuple[str, ...]) -> Offer:
    """The offer that the suffix chooses. A policy chooses none that fails; a name is taken at its word."""
    names = ", ".join(sorted(offer.provider.slug for offer in found))
    for policy in POLICIES:
        if suffix == policy:
            best = ordered(found, policy, tuple(name.strip() for name in preferred))[0]
            if not best.active:
                raise NotFound(
                    f"every provider of {facts.id} failed its latest validation ({names}), so ':{suffix}' has none to "
                    f"choose; name one to take it all the same: {facts.id}:{best.provider.slug}"
                )
            return best
    for offer in found:
        if offer.provider.slug == suffix:
            return offer
    raise NotFound(
        f"{facts.id} has no provider {suffix[:80]!r}; after the colon goes one of its providers ({names}) "
        f"or a policy ({', '.join(POLICIES)})"
    )


def _offers(view: View, facts: ModelFacts, task: str = _EVERY_TASK) -> list[Offer]:
    """The live offers of the model for that task. For every task: its chat offers; where there are none, all."""
    if task != _EVERY_TASK:
        return offers(view, facts, PUBLIC, task)
    return offers(view, facts, PUBLIC, CONVERSATIONAL) or offers(view, facts, PUBLIC)


_Written = dict[str, tuple[list[Offer], bytes]]
_WRITTEN: WeakKeyDictionary[View, dict[str, _Written]] = WeakKeyDictionary()
"""By task, each model as it was last written, with the offers that it tells of."""


async def _list(view: View, task: str) -> bytes:
    """The list. A model whose offers are what they were is not written anew: of 10,000 most are.

    Others are let in between some models and the next, so each is as it stands when its turn comes.
    """
    if task != _EVERY_TASK and task not in TASKS:
        return b'{"object":"list","data":[]}'  # callers may ask for any word; it costs them and us nothing
    ids = set(view.of_model)
    for mapping in view.filters.values():
        ids |= view.tagged(mapping.tags or ())
    of_view = _WRITTEN.setdefault(view, {})
    held, now = of_view.get(task, {}), _Written()
    for place, model_id in enumerate(sorted(ids)):
        if place % _AT_ONCE == 0:
            await asyncio.sleep(0)
        facts = view.models.get(model_id)
        found = _offers(view, facts, task) if facts is not None else []
        if facts is not None and found:
            before = held.get(model_id)
            if before is not None and before[0] == found:
                now[model_id] = before
            else:
                now[model_id] = (found, orjson.dumps(_entry(facts, ordered(found))))
    if now or held:
        of_view[task] = now
    return b'{"object":"list","data":[%b]}' % b",".join(written for _, written in now.values())


def _entry(facts: ModelFacts, shown: Sequence[Offer], created_of: Iterable[Offer] | None = None) -> dict[str, Any]:
    given, made = modalities(facts)
    namespace, slash, _ = facts.id.partition("/")
    return {
        "id": facts.id,
        "object": "model",
        "created": min(offer.mapping.created_at_us for offer in created_of or shown) // 1_000_000,
        "owned_by": namespace if slash else "unknown",
        "architecture": {"input_modalities": given, "output_modalities": made},
        "providers": [_provider(offer) for offer in shown],
    }


def _provider(offer: Offer) -> dict[str, Any]:
    shown: dict[str, Any] = {"provider": offer.provider.slug, "status": "live" if offer.active else "error"}
    verdict = offer.validation
    if verdict is not None:
        prices = {
            "input": verdict.input_price_nano_usd_per_mtok,
            "output": verdict.output_price_nano_usd_per_mtok,
        }
        known = {side: price for side, price in prices.items() if price is not None}
        latency_s, throughput = verdict.time_to_first_token_s, verdict.throughput_tokens_per_s
        figures = {
            "context_length": verdict.context_length_tokens,
            "pricing": {side: orjson.Fragment(usd(price)) for side, price in known.items()} or None,
            "is_free": not any(known.values()) if len(known) == len(prices) else None,
            "supports_tools": verdict.supports_tools,
            "supports_structured_output": verdict.supports_structured_output,
            "first_token_latency_ms": _figure(None if latency_s is None else latency_s * 1000),
            "throughput": _figure(throughput),
        }
        shown |= {name: value for name, value in figures.items() if value is not None}
    shown["is_model_author"] = offer.by_author
    return shown


def _figure(measured: float | None) -> float | None:
    """A measured figure to three decimals; None for what JSON cannot say."""
    return round(measured, 3) if measured is not None and math.isfinite(measured) else None


@lru_cache(maxsize=4096)
def usd(nano_usd: int) -> str:
    """Nano-USD in USD as a JSON number, to the last digit: 100,000,000 is 0.1."""
    text = f"{Decimal(nano_usd).scaleb(-9):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def modalities(facts: ModelFacts) -> tuple[list[str], list[str]]:
    """What goes into the model and what comes out, by its pipeline tag; text where that says nothing else."""
    task = facts.pipeline_tag or ""
    if task in _OTHER_TASKS:
        return _OTHER_TASKS[task]
    given, to, made = task.partition("-to-")
    if not to:
        return ["text"], ["text"]
    return [_MODALITIES.get(word, word) for word in given.split("-")][::-1], [_MODALITIES.get(made, made)]


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
