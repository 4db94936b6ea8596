"""The bodies that come and go, as pydantic models: strict in what they take, exact in what they promise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

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


class Created(BaseModel):
    """The id of the new mapping, to change its status or delete it by."""

    id: MappingId = Field(alias="_id")


class StatusChange(_Body):
    """The new status."""

    status: StatusName


class ListedMapping(BaseModel):
    """One mapping in the list."""

    id: MappingId = Field(alias="_id")
    provider_id: str = Field(alias="providerId")
    status: StatusName
    adapter_type: Literal["lora"] | None = Field(None, alias="adapterType")
    tags: list[str] | None = None


class ListedMappings(RootModel[dict[str, dict[str, ListedMapping]]]):
    """Mappings by task, then by hub model or tag filter."""
