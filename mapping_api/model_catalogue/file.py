"""The catalogue in a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Collection
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roadworthy.errors import ConfigError
from roadworthy.mapping_api.names import MAPPING_ID, MODEL, TASK
from roadworthy.mapping_api.records import ModelFacts


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=MODEL)]
    pipeline_tag: Annotated[str, Field(pattern=TASK)] | None = None
    tags: list[str] = []
    adapter_weights_path: str | None = None
    hub_id: Annotated[str, Field(pattern=MAPPING_ID)] | None = None


class FileCatalogue:
    """Facts from a file of JSON lines, one model a line: id, pipeline_tag, tags, adapter_weights_path."""

    def __init__(self, path: Path | None = None) -> None:
        """None is the small catalogue that comes with roadworthy. Raises `ConfigError` for an unreadable file."""
        source: Traversable = path or resources.files("roadworthy.mapping_api") / "data" / "models.jsonl"
        try:
            lines = source.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}: the model catalogue cannot be read: {error}") from None
        self._models: dict[str, ModelFacts] = {}
        for number, line in enumerate(lines, start=1):
            if line.strip():
                facts = _read(line, f"{source}, line {number}")
                if facts.id in self._models:
                    raise ConfigError(
                        f"{source}, line {number}: the model {facts.id} stands there twice; keep one line"
                    )
                self._models[facts.id] = facts

    async def get(self, model_id: str) -> ModelFacts | None:
        """The facts of one model; None where the file has none."""
        return self._models.get(model_id)

    async def tagged(self, tags: Collection[str]) -> list[ModelFacts]:
        """Every model of the file that carries all of these tags."""
        wanted = set(tags)
        return [facts for facts in self._models.values() if wanted <= set(facts.tags)]

    async def everything(self) -> list[ModelFacts] | None:
        """Every model of the file."""
        return list(self._models.values())

    async def close(self) -> None:
        """Nothing to let go of."""


def _read(line: str, where: str) -> ModelFacts:
    try:
        values = _Line.model_validate(json.loads(line))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: expected one JSON object a line; {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return ModelFacts(
        values.id, values.pipeline_tag, tuple(values.tags), values.adapter_weights_path, values.hub_id or ""
    )
