"""The rules for names: providers, tasks, tags, models, and the ids we make."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable

PROVIDER = r"^[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){0,62}[a-z0-9]$"
TASK = r"^[a-z0-9]+(?:-[a-z0-9]+){0,9}$"
MODEL = r"^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
MAPPING_ID = r"^[0-9a-f]{24}$"
TAG = r"^[^\s,\x00-\x1f\x7f](?:[^,\x00-\x1f\x7f]{0,254}[^\s,\x00-\x1f\x7f])?$"
TAG_FILTER = "tag-filter="

CONVERSATIONAL = "conversational"
CONVERSATIONAL_PIPELINES = frozenset({"text-generation", "image-text-to-text"})
"""The pipeline tags whose models chat, where they are tagged "conversational" (register-as-a-provider, section 1)."""


def new_id() -> str:
    """A new id of 24 hexadecimal digits: the second, then 64 random bits, so that ids sort by age."""
    return f"{int(time.time()):08x}{secrets.token_hex(8)}"


def is_mapping_id(text: str) -> bool:
    """Whether the text has the form of an id."""
    return re.fullmatch(MAPPING_ID, text) is not None


def tag_filter_source(tags: Iterable[str]) -> str:
    """How the list names a tag filter: "tag-filter=" and its tags, sorted, with commas between."""
    return TAG_FILTER + ",".join(sorted(tags))
