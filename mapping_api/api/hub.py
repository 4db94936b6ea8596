"""The hub's own read endpoints, as its clients call them (hub-api)."""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from starlette.datastructures import QueryParams
from typing_extensions import TypedDict

from roadworthy.mapping_api.access import PUBLIC, Caller
from roadworthy.mapping_api.api.context import CallerOf, PublicView, ServiceOf
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.api.links import next_page
from roadworthy.mapping_api.errors import BadRequest, ModelNotFound
from roadworthy.mapping_api.names import MODEL
from roadworthy.mapping_api.offers import for_clients, offers, working
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.service import Service
from roadworthy.mapping_api.store.organisations import KNOWN_TO_CLIENTS
from roadworthy.mapping_api.view import View

router = APIRouter(tags=["hub"])

PAGE, MAX_PAGE = 100, 1000
HELD = ("author", "inference", "inferenceProviderMapping", "pipeline_tag", "tags")
"""What `expand` can ask for and is known here."""
NOT_HELD = tuple(
    "baseModels cardData childrenModelCount config createdAt disabled downloads downloadsAllTime evalResults gated "
    "gguf lastModified library_name likes mask_token model-index private resourceGroup safetensors sha siblings "
    "spaces transformersInfo trendingScore usedStorage widgetData".split()
)
"""What the hub's clients may also ask for. It is left out, as the hub leaves out what a model has not."""
_EXPANDABLE = frozenset(HELD + NOT_HELD)
_EVERYTHING = "all"
_FLAGS = ("full", "config", "cardData")
_MODEL_ID = re.compile(MODEL)


class Entry(TypedDict):
    """How one provider serves the model."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    status: Literal["live", "staging"]
    providerId: Annotated[str, Field(description="The provider's own name for the model.")]
    task: str
    adapter: NotRequired[Annotated[Literal["lora"], Field(description="The model is an adapter to a base model.")]]
    adapterWeightsPath: NotRequired[Annotated[str, Field(description="The file of weights within the hub model.")]]
    isModelAuthor: NotRequired[Annotated[bool, Field(description="The provider published the model itself.")]]


class ListEntry(Entry):
    """How one provider serves the model, in a list."""

    provider: str
    hfModelId: str


class _Model(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    _id: str
    id: str
    author: NotRequired[str]
    inference: NotRequired[Annotated[Literal["warm"], Field(description="At least one provider serves it.")]]
    pipeline_tag: NotRequired[str]
    tags: NotRequired[list[str]]


class Model(_Model):
    """One model, with what was asked for of it."""

    inferenceProviderMapping: NotRequired[Annotated[dict[str, Entry], Field(description="Active providers, by name.")]]


class ListedModel(_Model):
    """One model of a list, with what was asked for of it."""

    inferenceProviderMapping: NotRequired[Annotated[list[ListEntry], Field(description="Active providers, in order.")]]


def _query(name: str, description: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema, **more}


_LIST = {"style": "form", "explode": True}
_EXPAND = [
    _query(
        name,
        "What to show of the model, as often as wanted or with commas between; an empty one says nothing. "
        f"Known here: {', '.join(HELD)}.",
        {"type": "array", "items": {"type": "string", "enum": ["", *sorted(_EXPANDABLE)]}},
        **_LIST,
    )
    for name in ("expand", "expand[]")
]


@router.get(
    "/api/models/{model_id:path}",
    response_model=Model,
    responses=documented(400, 401, 404, 503),
    openapi_extra={"parameters": _EXPAND},
)
async def model(model_id: str, request: Request, view: PublicView, caller: CallerOf, service: ServiceOf) -> Response:
    """One model: its pipeline tag and tags, or what `expand` asks for.

    `inference` is "warm" where at least one provider serves the model, else it is left out.
    `inferenceProviderMapping` has the active providers in order: by health, then by speed (or by the
    order the caller's organisation prefers). Staging mappings show to the provider's own members only.
    """
    expand = _expand(request.query_params)
    facts = view.models.get(model_id)
    if facts is None or facts.pipeline_tag is None:  # not known here, or perhaps gone from the hub
        facts = await _ask(service, view, model_id)
        return _json(_shown(view, facts, caller, expand))
    if caller is PUBLIC:
        return _json(view.answer((model_id, expand), lambda: _shown(view, facts, PUBLIC, expand), len))
    return _json(_shown(view, facts, caller, expand))


async def _ask(service: Service, view: View, model_id: str) -> ModelFacts:
    facts = await service.facts(view, model_id) if _MODEL_ID.fullmatch(model_id) else None
    if facts is None:
        raise ModelNotFound(f"Repository not found: there is no model {model_id[:200]!r}; check its spelling")
    return facts


def _shown(view: View, facts: ModelFacts, caller: Caller, expand: frozenset[str]) -> bytes:
    return orjson.dumps(_fields(view, facts, caller, expand or frozenset({"pipeline_tag", "tags"}), listed=False))


def _fields(view: View, facts: ModelFacts, caller: Caller, expand: frozenset[str], *, listed: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"_id": facts.hub_id, "id": facts.id}
    namespace, slash, _ = facts.id.partition("/")
    if slash and "author" in expand:
        shown["author"] = namespace
    if facts.pipeline_tag is not None and "pipeline_tag" in expand:
        shown["pipeline_tag"] = facts.pipeline_tag
    if "tags" in expand:
        shown["tags"] = facts.tags
    if "inference" in expand or "inferenceProviderMapping" in expand:
        active = for_clients(offers(view, facts, caller), caller)
        if active and "inference" in expand:
            shown["inference"] = "warm"
        if "inferenceProviderMapping" in expand:
            # Sent even where it is empty: without it the JavaScript client fails on reading the body twice.
            shown["inferenceProviderMapping"] = (
                [offer.list_entry() for offer in active]
                if listed
                else {offer.provider.slug: offer.entry() for offer in active}
            )
    return shown


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A list request, read."""

    providers: tuple[str, ...]
    warm: bool
    pipeline_tag: str
    tags: tuple[str, ...]
    author: str
    search: str
    limit: int
    after: str
    expand: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Page:
    body: bytes
    last: str
    """The last model's id where more follow; else empty."""


_LIST_PARAMETERS = [
    _query(
        "inference_provider",
        "Only models that one of these providers serves, as often as wanted or with commas between; `all`: any.",
        {"type": "array", "items": {"type": "string"}},
        **_LIST,
    ),
    _query("pipeline_tag", "Only models with this pipeline tag.", {"type": "string"}),
    _query(
        "filter",
        "Only models with all of these tags (or pipeline tags), as often as wanted or with commas between.",
        {"type": "array", "items": {"type": "string"}},
        **_LIST,
    ),
    _query("search", "Only models with this in their id, whatever its case.", {"type": "string"}),
    _query("author", "Only models of this user or organisation.", {"type": "string"}),
    _query("inference", "`warm`: only models that any provider serves.", {"type": "string", "enum": ["warm"]}),
    _query("sort", "The one order there is: by id.", {"type": "string", "enum": ["id"]}),
    _query("limit", f"Models on a page. More than {MAX_PAGE} is {MAX_PAGE}.", {"type": "integer", "minimum": 1}),
    _query("cursor", "Where the page begins: from the `Link` of the page before.", {"type": "string"}),
    *_EXPAND,
    *(_query(name, "Read for the clients' sake; changes nothing.", {"type": "boolean"}) for name in _FLAGS),
]
_KNOWN = frozenset(each["name"] for each in _LIST_PARAMETERS)


@router.get(
    "/api/models",
    response_model=list[ListedModel],
    responses=documented(400, 401, 503)
    | {
        200: {
            "description": "One page, in the order of ids.",
            "headers": {
                "Link": {
                    "description": 'Where more follow: `<url>; rel="next"` (RFC 8288).',
                    "schema": {"type": "string"},
                }
            },
        }
    },
    openapi_extra={"parameters": _LIST_PARAMETERS},
)
async def models(request: Request, view: PublicView, caller: CallerOf, service: ServiceOf) -> Response:
    """Models, filtered, a page at a time in the order of their ids.

    A model that stays in the list while pages are read comes exactly once, whatever else changes.
    With `expand=inferenceProviderMapping` each has its active providers, tag filters resolved.
    """
    wanted = _wanted(request.query_params, view)
    if caller is PUBLIC:
        page = view.answer(wanted, lambda: _page(view, wanted, PUBLIC), lambda page: len(page.body))
    else:
        page = _page(view, wanted, caller)
    answer = _json(page.body)
    if page.last:
        cursor = base64.urlsafe_b64encode(page.last.encode("ascii")).decode("ascii")
        answer.headers["Link"] = next_page(request, service.settings.public_url, "cursor", cursor)
    return answer


def _wanted(query: QueryParams, view: View) -> _Wanted:
    for name in query:
        if name not in _KNOWN:
            raise BadRequest(
                f"{name[:80]}: models cannot be filtered or sorted by this here; what there is: "
                f"{', '.join(sorted(_KNOWN))}"
            )
    for name in _FLAGS:
        if query.get(name, "true").lower() not in {"true", "false", "1", "0"}:
            raise BadRequest(f"{name}: expected true or false; got {query[name][:80]!r}")
    sort, inference = query.get("sort", "id"), query.get("inference", "warm")
    if sort != "id":
        raise BadRequest(f"sort: expected 'id', the one order there is here; got {sort[:80]!r}. Leave it out")
    if inference != "warm":
        raise BadRequest(f"inference: expected 'warm'; got {inference[:80]!r}. Leave it out to see every model")
    limit = query.get("limit", str(PAGE))
    if not re.fullmatch(r"[1-9][0-9]*", limit):
        raise BadRequest(f"limit: expected a whole number from 1; got {limit[:80]!r}")
    providers = _several(query, "inference_provider")
    for name in providers:
        if name != _EVERYTHING and name not in view.providers and name not in KNOWN_TO_CLIENTS:
            raise BadRequest(
                f"inference_provider: there is no provider {name[:80]!r}; `all` and these are known: "
                f"{', '.join(sorted({*view.providers, *KNOWN_TO_CLIENTS})[:100])}"
            )
    return _Wanted(
        providers=(_EVERYTHING,) if _EVERYTHING in providers else providers,
        warm="inference" in query,
        pipeline_tag=query.get("pipeline_tag", ""),
        tags=_several(query, "filter"),
        author=query.get("author", "").lower(),
        search=query.get("search", "").lower(),
        limit=min(int(limit), MAX_PAGE) if len(limit) <= len(str(MAX_PAGE)) else MAX_PAGE,
        after=_after(query.get("cursor", "")),
        expand=_expand(query) | {"pipeline_tag", "tags"},
    )


def _page(view: View, wanted: _Wanted, caller: Caller) -> _Page:
    ids = _candidates(view, wanted, caller)
    found: list[dict[str, Any]] = []
    for place in range(bisect_right(ids, wanted.after) if wanted.after else 0, len(ids)):
        facts = view.models.get(ids[place])
        if facts is None or not _matches(facts, wanted):
            continue
        if len(found) == wanted.limit:
            return _Page(orjson.dumps(found), found[-1]["id"])
        found.append(_fields(view, facts, caller, wanted.expand, listed=True))
    return _Page(orjson.dumps(found), "")


def _matches(facts: ModelFacts, wanted: _Wanted) -> bool:
    return (
        (not wanted.pipeline_tag or facts.pipeline_tag == wanted.pipeline_tag)
        and (not wanted.author or facts.id.lower().startswith(wanted.author + "/"))
        and (not wanted.search or wanted.search in facts.id.lower())
        and all(tag in facts.tags or tag == facts.pipeline_tag for tag in wanted.tags)
    )


def _candidates(view: View, wanted: _Wanted, caller: Caller) -> list[str]:
    """The ids of the models that the providers serve, or of all, in order."""
    chosen: tuple[str, ...] | None = wanted.providers
    if not chosen and not wanted.warm:
        chosen = None
    elif not chosen or chosen == (_EVERYTHING,):
        chosen = tuple(view.of_provider)

    def make() -> list[str]:
        if chosen is None:
            return sorted(view.models)
        return sorted({id for slug in chosen for _, ids in working(view, slug, caller) for id in ids})

    if caller is PUBLIC:
        return view.answer(("ids", chosen), make, lambda ids: 8 * len(ids))
    return make()


def _several(query: QueryParams, *names: str) -> tuple[str, ...]:
    """The values of a parameter that may come often or with commas, once each, in order."""
    parts = (part.strip() for name in names for value in query.getlist(name) for part in value.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def _expand(query: QueryParams) -> frozenset[str]:
    asked = frozenset(_several(query, "expand", "expand[]"))
    unknown = sorted(asked - _EXPANDABLE)
    if unknown:
        raise BadRequest(
            f"expand: there is no {unknown[0][:80]!r}; known here: {', '.join(HELD)}. The hub's others "
            f"({', '.join(NOT_HELD)}) may be asked for and are left out"
        )
    return asked


def _after(cursor: str) -> str:
    """The id that a cursor stands for."""
    if not cursor:
        return ""
    try:
        after = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError):
        after = ""
    if not _MODEL_ID.fullmatch(after):
        raise BadRequest("cursor: this is none of ours; take it from the Link header of the page before, or leave it")
    return after


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
