"""The target of a run: a provider API and how to reach it."""

from __future__ import annotations

from dataclasses import dataclass, field

from roadworthy.http.message import Headers


@dataclass(frozen=True, slots=True)
class Target:
    """A provider API. `base_url` has no trailing slash; `api_key` never leaves requests to it."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    headers: Headers = ()
    request_id_header: str = "Inference-Id"
