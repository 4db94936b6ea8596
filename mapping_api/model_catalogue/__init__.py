"""Where facts about hub models come from: one interface, the real hub or a local file behind it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from roadworthy.mapping_api.errors import Unavailable
from roadworthy.mapping_api.records import ModelFacts


class CatalogueUnavailable(Unavailable):
    """The hub cannot be asked now. What needed its answer was not done; `Retry-After` says when to try again."""

    def __init__(self, message: str, retry_after_s: int = 5, last_known: ModelFacts | None = None) -> None:
        """`last_known` is an answer too old to write by, which may still be shown to a reader."""
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s
        self.last_known = last_known


class ModelCatalogue(Protocol):
    """What can be asked about models. Each method raises `CatalogueUnavailable` where it cannot be answered."""

    async def get(self, model_id: str) -> ModelFacts | None:
        """The facts of one model; None where there is no such model.

        They are at most minutes old. Their id is another where the model was renamed.
        """

    async def tagged(self, tags: Collection[str], at_most: int | None = None) -> list[ModelFacts]:
        """Every model that carries all of these tags; `at_most` so many of them."""

    async def everything(self) -> list[ModelFacts] | None:
        """Every model there is; None where these are too many to list."""

    async def close(self) -> None:
        """Let go of connections."""
