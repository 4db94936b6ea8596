"""Answers kept while what they say stands: until the view moves to another revision."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from roadworthy.mapping_api.view import View

MAX_BYTES = 64 * 1024 * 1024
_ENTRY_BYTES = 500  # what an entry weighs apart from its value

T = TypeVar("T")


class _Kept:
    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.size_bytes = 0
        self.answers: dict[Hashable, Any] = {}


_OF: WeakKeyDictionary[View, _Kept] = WeakKeyDictionary()


def kept_already(view: View, key: Hashable) -> Any:
    """What is kept at this revision of the view; None where nothing is."""
    held = _OF.get(view)
    return held.answers.get(key) if held is not None and held.revision == view.revision else None


def kept(view: View, key: Hashable, make: Callable[[], T], size_bytes: Callable[[T], int]) -> T:
    """What `make` gave at this revision of the view, or gives now. It must depend on view and key alone.

    Full at `MAX_BYTES`, all is forgotten: the keys come from callers, who may send what they like.
    """
    held = _OF.get(view)
    if held is None or held.revision != view.revision:
        held = _OF[view] = _Kept(view.revision)
    if key in held.answers:
        answer: T = held.answers[key]
        return answer
    made = make()
    weight = size_bytes(made) + _ENTRY_BYTES
    if held.size_bytes + weight > MAX_BYTES:
        held.answers.clear()
        held.size_bytes = 0
    if weight <= MAX_BYTES:
        held.answers[key] = made
        held.size_bytes += weight
    return made
