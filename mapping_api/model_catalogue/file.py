"""The catalogue in a file of JSON lines."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Collection
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roadworthy.errors import ConfigError
from roadworthy.mapping_api.names import MAPPING_ID, MODEL, TAG, TASK
from roadworthy.mapping_api.records import ModelFacts

LONGEST_LINE_BYTES = 2**20
MOST_SHOWN_ERRORS = 20
_BOM = b"\xef\xbb\xbf"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(pattern=MODEL)]
    pipeline_tag: Annotated[str, Field(pattern=TASK, max_length=64)] | None = None
    tags: list[Annotated[str, Field(pattern=TAG, max_length=256)]] = []
    adapter_weights_path: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1024)] | None = None
    hub_id: Annotated[str, Field(pattern=MAPPING_ID)] | None = None


class FileCatalogue:
    """Facts from a file of JSON lines, one model a line: id, pipeline_tag, tags, adapter_weights_path, hub_id.

    `id` alone must be there. Empty lines do not count.
    """

    def __init__(self, path: Path | None = None) -> None:
        """None is the small catalogue that comes with roadworthy.

        Raises `ConfigError` for a file that cannot be read, with every bad line and its number.
        """
        self._path = path
        self._source: Traversable = path or resources.files("roadworthy.mapping_api") / "data" / "models.jsonl"
        self._stamp = self._stamp_now()
        self._take(_read(self._source))

    async def get(self, model_id: str) -> ModelFacts | None:
        """The facts of one model; None where the file has none."""
        return self._models.get(model_id)

    async def tagged(self, tags: Collection[str], at_most: int | None = None) -> list[ModelFacts]:
        """The models of the file that carry all of these tags, in the file's order."""
        rarest = min((self._tagged.get(tag, []) for tag in tags), key=len, default=[])
        wanted = set(tags)
        return [facts for facts in rarest if wanted.issubset(facts.tags)][:at_most]

    async def everything(self) -> list[ModelFacts] | None:
        """Every model of the file."""
        return list(self._models.values())

    async def close(self) -> None:
        """Nothing to let go of."""

    async def read_again(self, *, always: bool = False) -> set[str] | None:
        """Take the file as it is now, if it was changed (or `always`): the ids that are gone. None: it was not.

        Raises `ConfigError` for a bad file, once for each time it was changed; what was read before stands.
        """
        stamp = self._stamp_now()
        if not always and (stamp == self._stamp or stamp is None):
            return None
        self._stamp = stamp
        models = await asyncio.to_thread(_read, self._source)
        gone = self._models.keys() - models.keys()
        self._take(models)
        return gone

    def _take(self, models: dict[str, ModelFacts]) -> None:
        tagged: dict[str, list[ModelFacts]] = defaultdict(list)
        for facts in models.values():
            for tag in facts.tags:
                tagged[tag].append(facts)
        self._models, self._tagged = models, tagged

    def _stamp_now(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None  # being replaced; or away, which reading it would tell
        return status.st_mtime_ns, status.st_size, status.st_ino


def _read(source: Traversable) -> dict[str, ModelFacts]:
    models: dict[str, ModelFacts] = {}
    line_of: dict[str, int] = {}
    wrong: list[str] = []
    count = 0
    try:
        with source.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    facts = _read_line(line.removeprefix(_BOM) if number == 1 else line)
                    if facts is not None and facts.id in models:
                        raise ValueError(f"the model {facts.id} stands on line {line_of[facts.id]} too; keep one line")
                except ValueError as error:
                    count += 1
                    if len(wrong) < MOST_SHOWN_ERRORS:
                        wrong.append(f"line {number}: {error}")
                    continue
                if facts is not None:
                    models[facts.id] = facts
                    line_of[facts.id] = number
    except OSError as error:
        raise ConfigError(f"{source}: the model catalogue cannot be read: {error.strerror or error}") from None
    if count > len(wrong):
        wrong.append(f"and {count - len(wrong)} more")
    if wrong:
        raise ConfigError(f"{source}: the model catalogue is not well formed:\n  " + "\n  ".join(wrong))
    return models


def _read_line(line: bytes) -> ModelFacts | None:
    """The model of one line; None for an empty one. Raises `ValueError` that says what is wrong."""
    if len(line) > LONGEST_LINE_BYTES:
        raise ValueError(f"expected at most {LONGEST_LINE_BYTES // 2**20} MiB; got {len(line)} bytes")
    line = line.strip()
    if not line:
        return None
    try:
        values = _Line.model_validate_json(line)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(each) for each in error.errors()[:3])) from None
    # Tags come again and again; one copy of each keeps a large catalogue small.
    tags = tuple(sys.intern(tag) for tag in dict.fromkeys(values.tags))
    task = None if values.pipeline_tag is None else sys.intern(values.pipeline_tag)
    return ModelFacts(values.id, task, tags, values.adapter_weights_path, values.hub_id or "")


def _explain(error: Any) -> str:
    if error["type"] in {"json_invalid", "model_type"}:
        return f"expected one JSON object a line: {error['msg']}"
    if error["type"] == "extra_forbidden":
        return f"{error['loc'][0]}: unknown; a line has {', '.join(_Line.model_fields)}"
    shown = "" if error["type"] == "missing" else f"; got {error['input']!r:.80}"
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}{shown}"
