"""Reading settings files, with errors that teach.

What the settings mean is declared by the house that uses them (a pydantic model);
this module reads TOML, lets that model judge it, and says in plain words what was
expected, what came, and what is near.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ValidationError

from roadworthy.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `ConfigError` for one that is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file. Check the path given.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


@overload
def validate(model: type[Model], values: dict[str, Any], where: str) -> Model: ...
@overload
def validate(model: type[Model], values: dict[str, Any], where: str, *, whole: bool) -> Model | None: ...
def validate(model: type[Model], values: dict[str, Any], where: str, *, whole: bool = True) -> Model | None:
    """`values` as a `model`. Raises `ConfigError` naming every value that cannot be used.

    `where` names the source of the values in messages ("roadworthy.toml"). Not `whole`: the source is one of
    several, so what only all together can break is not judged, and comes out as None.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [
            _explain(model, details["loc"], details["type"], details["msg"], details.get("input"))
            for details in error.errors()
            if whole or details["loc"]
        ]
        if not problems:
            return None
        raise ConfigError(f"{where} cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems)) from None


def _explain(model: type[BaseModel], loc: Sequence[int | str], kind: str, message: str, value: Any) -> str:
    place = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        known = _fields(model, loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{place}: there is no such setting; {hint}"
    if kind == "missing":
        return f"{place}: this setting is required"
    shown = repr(value)
    return f"{place}: {message[0].lower()}{message[1:]}; got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _fields(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    current: type[BaseModel] = model
    for part in loc:
        field = current.model_fields.get(str(part))
        if field is None:
            continue
        inner = field.annotation
        arguments = [a for a in getattr(inner, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            current = inner
        elif arguments:
            current = arguments[0]
    return list(current.model_fields)
