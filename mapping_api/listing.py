"""A provider's whole mapping as it is listed: grouped by task, with a tag that names the content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from roadworthy.mapping_api.records import Mapping, Status
from roadworthy.mapping_api.view import View


@dataclass(frozen=True, slots=True)
class Listing:
    """The JSON text and its entity tag."""

    body: bytes
    etag: str


def listing(mappings: Iterable[Mapping], status: Status | None = None) -> Listing:
    """The list of these mappings (register-as-a-provider, section 3, List the whole mapping)."""
    grouped: dict[str, dict[str, Any]] = {}
    for mapping in sorted(mappings, key=lambda each: (each.task, each.source)):
        if status is None or mapping.status == status:
            grouped.setdefault(mapping.task, {})[mapping.source] = mapping.shown()
    body = orjson.dumps(grouped)
    # Of the content, not of a revision: every process of the service tells the same, after a restart too.
    return Listing(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def listed(view: View, provider: str, status: Status | None = None) -> Listing:
    """The list as the view has it, made anew only where the provider's mapping has changed."""
    return view.answer(
        ("list", provider, status),
        lambda: listing(view.of_provider.get(provider, {}).values(), status),
        lambda made: len(made.body),
        provider=provider,
    )
