"""The settings of a service: command line, environment, and a table of `roadworthy.toml`. What comes first wins."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import SecretStr
from pydantic_settings import BaseSettings, EnvSettingsSource
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from roadworthy.config import read_toml, validate
from roadworthy.errors import ConfigError

FILE = Path("roadworthy.toml")
MASKED = "***"

Model = TypeVar("Model", bound=BaseSettings)


@dataclass(frozen=True)
class Found(Generic[Model]):
    """The settings, where each value came from, and what people should be told of the environment."""

    settings: Model
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def rows(self, before: str = "") -> list[tuple[str, str, str]]:
        """Name, value for eyes, origin of every setting; names with `before` in front."""
        return [(before + name, _shown(getattr(self.settings, name)), origin) for name, origin in self.origins.items()]


def gather(
    model: type[Model], table: str, config: Path | None = None, flags: Mapping[str, Any] | None = None
) -> Found[Model]:
    """The settings of flags, environment and `[table]`, in this order; a flag that is None was not given.

    The model names its variables (`env_prefix`). `config` is as for `read_table`. Raises `ConfigError`, naming the
    source, for what cannot be used, and for a secret in the file: files are shown, copied and committed.
    """
    path, values = read_table(table, config)
    prefix = str(model.model_config.get("env_prefix", ""))
    for name, value in values.items():
        kind = "a secret" if _is_secret(model, name) else "a URL with a password" if url_password(value) else None
        if kind:
            raise ConfigError(
                f"{path}: {table}.{name}: {kind} does not belong into a file; "
                f"set the environment variable {prefix}{name.upper()} instead"
            )
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    environment = EnvSettingsSource(model)()
    origins = dict.fromkeys(model.model_fields, "default")
    origins |= {name: f"{path}" for name in values if name in origins}
    origins |= {name: f"environment, {prefix}{name.upper()}" for name in environment}
    origins |= {name: "flag" for name in given if name in origins}
    # Each source is judged by itself, so that a message names it. The model reads the environment on its own.
    where = f"[{table}] in {path}"
    validate(model, {}, "the environment", whole=False)
    validate(model, values, where, whole=False)
    together = "the command line" if given else where if values else "the environment"
    settings = validate(model, {**values, **environment, **given}, together)
    return Found(settings, origins, tuple(_misspelt(model, prefix)))


def read_table(table: str, config: Path | None = None) -> tuple[Path | None, dict[str, Any]]:
    """One table of the settings file, and the file; empty where there is none.

    `config` names a file, which must be there; without it `roadworthy.toml` of this folder is read, if it is there.
    Raises `ConfigError` for a file that cannot be read, and for a table whose name is nearly this one.
    """
    path = config if config is not None else FILE if FILE.exists() else None
    tables = read_toml(path) if path is not None else {}
    if table not in tables:
        near = difflib.get_close_matches(table, tables, n=1, cutoff=0.75)
        if near:
            raise ConfigError(f"{path}: there is no table [{near[0]}]; did you mean [{table}]?")
        return path, {}
    values = tables[table]
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {table} must be a table, `[{table}]`; got {values!r}")
    return path, dict(values)


def secrets_in(settings: BaseSettings) -> list[str]:
    """Every value that must stand in no log: secrets, and the passwords of URLs."""
    values = [getattr(settings, name) for name in type(settings).model_fields]
    secret = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    return [*secret, *filter(None, map(url_password, values))]


def url_password(value: Any) -> str | None:
    """The password in a URL; None for everything else."""
    try:
        return make_url(value).password
    except (ArgumentError, ValueError, AttributeError):
        return None


def _is_secret(model: type[BaseSettings], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and "SecretStr" in repr(field.annotation)


def _misspelt(model: type[BaseSettings], prefix: str) -> Iterable[str]:
    known = [prefix + name.upper() for name in model.model_fields]
    for name in sorted(os.environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.9) if name.startswith(prefix) else []
        if near and name not in known:
            yield f"the environment variable {name} is not known and was not read; did you mean {near[0]}?"


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        return MASKED
    if isinstance(value, str) and url_password(value):
        return make_url(value).render_as_string(hide_password=True)
    return str(value)
