"""What the service knows: models, mappings, verdicts. Immutable; the store makes them, the view keeps them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from roadworthy.mapping_api.names import CONVERSATIONAL, CONVERSATIONAL_PIPELINES, tag_filter_source

Status = Literal["staging", "live"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the catalogue says of one hub model. `adapter_weights_path` is the file of LoRA weights within it."""

    id: str
    pipeline_tag: str | None = None
    tags: tuple[str, ...] = ()
    adapter_weights_path: str | None = None
    hub_id: str = ""

    def __post_init__(self) -> None:
        """A model without an id of the hub's gets a stable one."""
        if not self.hub_id:
            object.__setattr__(self, "hub_id", hashlib.sha256(self.id.encode()).hexdigest()[:24])

    def serves(self, task: str) -> bool:
        """Whether the model does the task (register-as-a-provider, section 3, Validation)."""
        if task == CONVERSATIONAL:
            return self.pipeline_tag in CONVERSATIONAL_PIPELINES and CONVERSATIONAL in self.tags
        return self.pipeline_tag == task


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a mapping as a partner writes it: a single model, or a filter by tags for LoRA adapters."""

    task: str
    provider_model: str
    hf_model: str | None = None
    tags: tuple[str, ...] | None = None
    adapter_type: Literal["lora"] | None = None
    status: Status | None = None
    """None: staging for a new item; as it is for one that exists."""

    @property
    def source(self) -> str:
        """What is mapped, as the list shows it. With provider and task it names the item."""
        return self.hf_model if self.hf_model is not None else tag_filter_source(self.tags or ())

    def in_full(self) -> dict[str, Any]:
        """What a partner wrote, as a new mapping of it would show, without an id."""
        terms: dict[str, Any] = {"type": "single-model", "task": self.task}
        if self.tags is None:
            terms["hfModel"] = self.hf_model
        else:
            terms |= {"type": "tag-filter", "tags": sorted(self.tags), "adapterType": self.adapter_type}
        return terms | {"providerModel": self.provider_model, "status": self.status or "staging"}


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping as it stands. `revision` counts the service's changes; it is the version in ETags."""

    id: str
    provider: str
    task: str
    source: str
    hf_model: str | None
    tags: tuple[str, ...] | None
    provider_model: str
    adapter_type: Literal["lora"] | None
    status: Status
    created_at_us: int
    updated_at_us: int
    revision: int

    @property
    def etag(self) -> str:
        """The version, as `ETag` and `If-Match` carry it."""
        return f'"{self.revision}"'

    def shown(self) -> dict[str, Any]:
        """The entry in the partner's list (register-as-a-provider, section 3, List the whole mapping)."""
        entry: dict[str, Any] = {"_id": self.id, "providerId": self.provider_model, "status": self.status}
        if self.tags is not None:
            entry |= {"adapterType": self.adapter_type, "tags": list(self.tags)}
        return entry

    def in_full(self) -> dict[str, Any]:
        """Everything a partner wrote, with the id: for the audit log, events and single reads."""
        item = Item(self.task, self.provider_model, self.hf_model, self.tags, self.adapter_type, self.status)
        return {"_id": self.id} | item.in_full()


@dataclass(frozen=True, slots=True)
class Validation:
    """The latest published verdict of a mapping. Prices are nano-USD per million tokens; None is not known."""

    mapping_id: str
    active: bool
    validated_at_us: int
    time_to_first_token_s: float | None = None
    throughput_tokens_per_s: float | None = None
    context_length_tokens: int | None = None
    input_price_nano_usd_per_mtok: int | None = None
    output_price_nano_usd_per_mtok: int | None = None
    supports_tools: bool | None = None
    supports_structured_output: bool | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's name and owner. `in_clients`: the official clients know the name."""

    slug: str
    organisation_id: str
    in_clients: bool
    organisation: str = ""
    """The name of the organisation behind it."""
