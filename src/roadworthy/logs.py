"""Logs of the services: one JSON object a line, or lines for people on a terminal; no secrets in either.

Everything goes through the standard library's root logger, so that uvicorn, SQLAlchemy,
APScheduler and huggingface_hub speak in the same form. Until `configure` is called nothing
below a warning is written, as with any library.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import IO, Any, Literal, cast
from urllib.parse import parse_qsl, quote, unquote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from roadworthy.http.redact import Redactor

Format = Literal["auto", "json", "text"]
Level = Literal["debug", "info", "warning", "error"]

HIDDEN = "***"
_QUIET = ("alembic", "httpx", "httpcore", "hpack", "urllib3", "asyncio", "aiosqlite", "filelock", "fsspec")
"""Libraries that tell every step below WARNING, some of them with headers."""

_SECRET_NAME = re.compile(
    r"token|secret|passw|api[-_]?key|authorization|credential|cookie|signature|^key$|^sig$|^auth$|^code$", re.IGNORECASE
)
# What is a secret by its form, wherever it stands: tokens of hubs and providers, and passwords in URLs.
_SECRET_VALUE = re.compile(
    r"\b(?:hf_|sk-|whsec_|rwg_|gh[pousr]_|xox[a-z]-|AKIA)[A-Za-z0-9_+/=-]{12,}"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{6,}"
    r"|(?<=://)[^/\s\"'@]*:[^/\s\"'@]*(?=@)"
)
_MARKS = ("hf_", "sk-", "whsec_", "rwg_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "AKIA", "earer ", "://")
"""One of them stands in whatever `_SECRET_VALUE` finds. Most lines have none, and asking for them is far quicker."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST = 512


def get(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes keyword arguments: `log.info("request", status=200)`."""
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
        ),
    )


def configure(
    form: Format = "auto", level: Level = "info", secrets: Iterable[str] = (), stream: IO[str] | None = None
) -> None:
    """Send every log of this process to `stream` (stderr), without the given secrets."""
    stream = stream or sys.stderr
    as_json = form == "json" or (form == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(Redactor(secrets), as_json=as_json, colours=stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def shown_path(path: str) -> str:
    """A request's path for a log: its secrets hidden, even if they are percent-encoded."""
    if "%" in path:
        plain = unquote(path)
        if _SECRET_VALUE.search(plain):
            path = quote(_SECRET_VALUE.sub(HIDDEN, plain), safe="/*")
    return path if len(path) <= _LONGEST else path[:_LONGEST] + "..."


def shown_query(query: str) -> str:
    """A query string for a log: the values of names such as `token` hidden, and what looks like a secret."""
    if not query:
        return ""
    if len(query) > _LONGEST * 8:
        return f"({len(query)} bytes)"
    parts = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        secret = _SECRET_NAME.search(name) or _SECRET_VALUE.search(value)
        parts.append(f"{quote(name, safe='[]')}={HIDDEN if secret else quote(value, safe='/:,')}")
    shown = "&".join(parts)
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "..."


def hide(text: str) -> str:
    """Text without what is a secret by its form."""
    return _SECRET_VALUE.sub(HIDDEN, text) if any(mark in text for mark in _MARKS) else text


@functools.lru_cache(maxsize=1024)
def _secret_name(name: str) -> bool:
    """Whether what goes by this name is a secret. The names are nearly always the same few."""
    return _SECRET_NAME.search(name) is not None


def _formatter(redactor: Redactor, *, as_json: bool, colours: bool) -> logging.Formatter:
    finish: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _by_name]
    if as_json:
        finish += [structlog.processors.format_exc_info, _json]
    else:
        finish += [_one_line, structlog.dev.ConsoleRenderer(colors=colours)]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        _add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    return _Formatter(redactor, structlog.stdlib.ProcessorFormatter(processors=[*shared, *finish]), as_json=as_json)


class _Formatter(logging.Formatter):
    """The last look at a line, whoever wrote it: secrets out, by value and by form."""

    def __init__(self, redactor: Redactor, inner: logging.Formatter, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._redactor = redactor
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return hide(self._redactor.text(self._line(record)))

    def _line(self, record: logging.LogRecord) -> str:
        if not self._as_json or not isinstance(record.msg, dict) or "exc_info" in record.msg:
            return self._inner.format(record)
        # Our own entries, one a request: the same line without structlog's steps, which take far longer.
        at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        event = {**record.msg, "level": record.levelname.lower(), "logger": record.name, "timestamp": at}
        return _json(None, "", _by_name(None, "", event))


def _add_logger_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event


def _by_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, dict):
            event[name] = _without_secrets(value)
        elif value and _secret_name(name):
            event[name] = HIDDEN
    return event


def _without_secrets(values: dict[Any, Any]) -> dict[Any, Any]:
    return {
        name: HIDDEN
        if value and _secret_name(str(name))
        else _without_secrets(value)
        if isinstance(value, dict)
        else value
        for name, value in values.items()
    }


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    event = {"timestamp": event.pop("timestamp"), "level": event.pop("level"), "event": event.pop("event"), **event}
    # Plain ASCII: no line end of any alphabet, and no lone surrogate, can break the line or the stream.
    return json.dumps(event, default=str, ensure_ascii=True)


def _one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _CONTROL.sub(_escaped, value)
    return event


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
