"""The target of a run: a provider API and how to reach it."""

from __future__ import annotations

from dataclasses import dataclass, field

from roadworthy.http.message import Headers


@dataclass(frozen=True, slots=True)
class CostEndpoint:
    """Where a provider tells what requests cost, and the credentials that are meant for it."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    headers: Headers = ()
    own_key: bool = False
    """Whether its key was named for it; else it is the API's, whose origin it then shares."""


@dataclass(frozen=True, slots=True)
class Target:
    """A provider API. `base_url` has no trailing slash; `api_key` never leaves requests to its origin."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    headers: Headers = ()
    request_id_header: str = "Inference-Id"
    cost_endpoint: CostEndpoint | None = None
