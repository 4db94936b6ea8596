"""The bodies that come and go, as pydantic models: strict in what they take, exact in what they promise."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from roadworthy.mapping_api.api.json_body import read_json
from roadworthy.mapping_api.errors import BadRequest
from roadworthy.mapping_api.names import MAPPING_ID, MODEL, TAG, TASK
from roadworthy.mapping_api.records import Item

Task = Annotated[str, Field(pattern=TASK, max_length=64, examples=["text-to-image"])]
HfModel = Annotated[str, Field(pattern=MODEL, max_length=193, examples=["black-forest-labs/FLUX.1-dev"])]
ProviderModel = Annotated[
    str, Field(pattern=r"^[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,510}[^\s\x00-\x1f\x7f])?$", max_length=512)
]
Tag = Annotated[str, Field(pattern=TAG, max_length=256)]
StatusName = Literal["staging", "live"]
MappingId = Annotated[str, Field(pattern=MAPPING_ID, examples=["64f1c2d3e4a5b6c7d8e9f0a1"])]

EXPECTED: dict[str, str] = {
    "type": "'single-model' (also where it is left out) or 'tag-filter'",
    "task": "a task in lower case with hyphens, such as 'text-to-image' or 'conversational'",
    "hfModel": "a model's id on the hub, such as 'black-forest-labs/FLUX.1-dev'",
    "providerModel": "your own id of the model: 1 to 512 characters on one line, no space at either end",
    "tags": "a list of 1 to 16 tags, each of 1 to 256 characters without commas or a space at either end",
    "adapterType": "'lora', the only one there is",
    "status": "'staging' or 'live'",
    "member": "the name of a member of the organisation",
    "role": "'read', 'write' or 'admin'",
    "expiresInDays": "a whole number of days from 1 to 3650",
    "url": "an https URL of at most 2,048 characters",
    "eventTypes": "a list of event types, such as 'mapping.created'; leave it out for all of them",
}
"""What each field takes, in words."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=False)


class SingleModel(_Body):
    """One hub model, served under the provider's own name for it."""

    type: Literal["single-model"] = "single-model"
    task: Task
    hf_model: HfModel = Field(alias="hfModel")
    provider_model: ProviderModel = Field(alias="providerModel")
    status: StatusName | None = None

    def item(self) -> Item:
        """The body as the store takes it."""
        return Item(self.task, self.provider_model, hf_model=self.hf_model, status=self.status)


class TagFilter(_Body):
    """Every hub model with all of the tags: LoRA adapters of one base model, served by one endpoint."""

    type: Literal["tag-filter"]
    task: Task
    tags: Annotated[list[Tag], Field(min_length=1, max_length=16)]
    provider_model: ProviderModel = Field(alias="providerModel")
    adapter_type: Literal["lora"] = Field(alias="adapterType")
    status: StatusName | None = None

    def item(self) -> Item:
        """The body as the store takes it; tags in order and once each."""
        tags = tuple(sorted(set(self.tags)))
        return Item(self.task, self.provider_model, tags=tags, adapter_type=self.adapter_type, status=self.status)


KINDS: dict[str, type[SingleModel | TagFilter]] = {"single-model": SingleModel, "tag-filter": TagFilter}
"""The kinds of item, by `type`."""


class StatusChange(_Body):
    """The new status."""

    status: StatusName


class Created(BaseModel):
    """The id of the new mapping, to change its status or delete it by."""

    id: MappingId = Field(alias="_id")


class ListedMapping(BaseModel):
    """One mapping in the list."""

    id: MappingId = Field(alias="_id")
    provider_id: str = Field(alias="providerId")
    status: StatusName
    adapter_type: Literal["lora"] | None = Field(None, alias="adapterType")
    tags: list[str] | None = None


class ListedMappings(RootModel[dict[str, dict[str, ListedMapping]]]):
    """Mappings by task, then by hub model or tag filter."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _SingleModelTerms(_Answer):
    type: Literal["single-model"]
    task: Task
    hf_model: HfModel = Field(alias="hfModel")
    provider_model: ProviderModel = Field(alias="providerModel")
    status: StatusName


class _TagFilterTerms(_Answer):
    type: Literal["tag-filter"]
    task: Task
    tags: Annotated[list[Tag], Field(min_length=1, max_length=16)]
    adapter_type: Literal["lora"] = Field(alias="adapterType")
    provider_model: ProviderModel = Field(alias="providerModel")
    status: StatusName


class SingleModelMapping(_SingleModelTerms):
    """A mapping of one model, in full."""

    id: MappingId = Field(alias="_id")


class TagFilterMapping(_TagFilterTerms):
    """A mapping of a tag filter, in full."""

    id: MappingId = Field(alias="_id")


class PlannedSingleModel(_SingleModelTerms):
    """A mapping of one model that a dry run would add: it has no id yet."""


class PlannedTagFilter(_TagFilterTerms):
    """A mapping of a tag filter that a dry run would add: it has no id yet."""


class FullMapping(RootModel[SingleModelMapping | TagFilterMapping]):
    """Everything the partner wrote, and the id."""


class AmendedMapping(_Answer):
    """A mapping before and after."""

    before: FullMapping
    after: FullMapping


class BulkAnswer(_Answer):
    """What a whole mapping changed, or would change. What is `added` has no id in a dry run."""

    added: list[SingleModelMapping | TagFilterMapping | PlannedSingleModel | PlannedTagFilter]
    changed: list[AmendedMapping]
    removed: list[FullMapping]
    unchanged: Annotated[int, Field(ge=0)]


class InvalidItem(_Answer):
    """One item that cannot be used. `index` counts from 0."""

    index: Annotated[int, Field(ge=0)]
    reason: str


class BulkErrorBody(_Answer):
    """Why the whole mapping was refused. `items` names each invalid item, up to 100 of them."""

    model_config = ConfigDict(title="BulkError")

    error: str
    items: list[InvalidItem] | None = None


class UnconfirmedBody(_Answer):
    """The mapping was left as it is: its removals are not confirmed, or are others than those that were."""

    model_config = ConfigDict(title="Unconfirmed")

    error: str
    removals: Annotated[int, Field(ge=0)]


Model = TypeVar("Model", bound=BaseModel)


def read_item(value: Any) -> Item:
    """An item of a mapping. Raises `BadRequest` saying all that is wrong with it."""
    _check_object(value)
    kind = value.get("type", "single-model")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise BadRequest(f"type: expected {EXPECTED['type']}; got {shown(kind)}")
    if "type" not in value and "hfModel" not in value and {"tags", "adapterType"} & value.keys():
        raise BadRequest('type: an item with tags needs "type": "tag-filter"; without a type it is a single model')
    body: SingleModel | TagFilter = read_as(model, value)
    return body.item()


def read_as(model: type[Model], value: Any) -> Model:
    """The value as that body. Raises `BadRequest` saying all that is wrong with it."""
    _check_object(value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise BadRequest("; ".join(_sentence(model, one) for one in problems[:10])) from None


def shown(value: Any) -> str:
    """A value that came, for a message: short, and harmless in a terminal."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


def _check_object(value: Any) -> None:
    if not isinstance(value, dict):
        raise BadRequest(f"expected a JSON object; got {shown(value)}")


def _sentence(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    name, *inner = error["loc"]
    place = f"{name}" + "".join(f"[{part}]" for part in inner)
    expected = EXPECTED.get(str(name), "a name of 1 to 96 printable characters without a space at either end")
    if error["type"] == "missing":
        return f"{name}: this is required: {expected}"
    if error["type"] == "extra_forbidden":
        known = [field.alias or key for key, field in model.model_fields.items()]
        near = difflib.get_close_matches(str(name)[:100], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{shown(name)}: there is no such field; {hint}"
    return f"{place}: expected {expected}; got {shown(error['input'])}"


async def _value(request: Request) -> Any:
    return await read_json(request)


JsonBody = Annotated[Any, Depends(_value)]
"""The body's JSON value. Name it after `WriterOf`."""


async def _item(value: JsonBody) -> Item:
    return read_item(value)


ItemBody = Annotated[Item, Depends(_item)]


def body(model: type[BaseModel]) -> Any:
    """The dependency that reads the request's body as that model. Name it after who may send one."""

    async def read(value: JsonBody) -> BaseModel:
        return read_as(model, value)

    return Depends(read)


StatusBody = Annotated[StatusChange, body(StatusChange)]


def takes(schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI entry of a JSON body that a dependency reads."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


ITEM_SCHEMA: dict[str, Any] = {
    "title": "Item",
    "oneOf": [model.model_json_schema(by_alias=True) for model in KINDS.values()],
}
STATUS_SCHEMA: dict[str, Any] = StatusChange.model_json_schema()
