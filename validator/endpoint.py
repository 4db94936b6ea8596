"""Where a provider's API is, and how it is asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from roadworthy.conformance.adapter import AdapterTable
from roadworthy.conformance.settings import JobsTable
from roadworthy.conformance.subject import Api

HURRIED_TIMEOUT_S = 15.0


class EndpointOptions(BaseModel):
    """What may be set of a provider's API beside its address. Each is as in `roadworthy.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    apis: dict[str, Api] = {}
    """The family of APIs by task, where it is not the first one that serves the task."""
    request_id_header: str = "Inference-Id"
    adapter: AdapterTable = AdapterTable()
    jobs: JobsTable = JobsTable()
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 60.0

    def hurried(self) -> EndpointOptions:
        """The options for a provider that is down: what does not answer soon is not waited for."""
        return self.model_copy(update={"timeout_s": min(self.timeout_s, HURRIED_TIMEOUT_S)})


class Endpoint(BaseModel):
    """One provider's API. `api_key` goes to the origin of `base_url` and nowhere else."""

    model_config = ConfigDict(frozen=True)

    provider: str
    base_url: str
    api_key: Annotated[str | None, Field(repr=False)] = None
    options: EndpointOptions = EndpointOptions()
