"""Recordings: the exchanges of a run in a file, one JSON object a line, to be judged again offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from roadworthy import __version__
from roadworthy.conformance.clients.opinion import Opinion
from roadworthy.conformance.exchange import Exchange, Retry
from roadworthy.conformance.facts import Ability, Billing, BillingKey, Capability, Facts, Jobs, VerdictLimits
from roadworthy.conformance.plan import select
from roadworthy.conformance.run import Run
from roadworthy.conformance.subject import Api
from roadworthy.errors import RecordingError
from roadworthy.http.message import Failure, FailureKind, Read, Reply, Request, Timings

FORMAT = 1


def write(file: TextIO, runs: Iterable[Run]) -> None:
    """Write runs, each as a header line followed by its exchanges."""
    for run in runs:
        file.writelines(map(_line, (_head_out(run), *map(_exchange_out, run.exchanges))))


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _head_out(run: Run) -> dict[str, Any]:
    return {
        "roadworthy": __version__,
        "format": FORMAT,
        "facts": asdict(run.facts),
        "checks": [check.id for check in run.checks],
        "unsent": dict(run.unsent),
        "requests": run.requests,
        "duration_s": run.duration_s,
        "interrupted": run.interrupted,
    }


def read(path: Path) -> list[Run]:
    """The runs of a recording. Raises `RecordingError` for a file that is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: cannot be read as a recording: {error}") from None
    return parse(text, str(path))


def parse(text: str, path: str) -> list[Run]:
    """The runs of a recording's text; `path` is its name in messages. Raises `RecordingError`."""
    lines = text.split("\n")
    runs: list[tuple[Run, list[Exchange]]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            value = json.loads(line)
            if "format" in value:
                if value["format"] != FORMAT:
                    raise RecordingError(
                        f"{path}: recording format {value['format']!r}; this roadworthy {__version__} reads {FORMAT}. "
                        "Use the version named in the file's first line."
                    )
                runs.append((_head_in(value), []))
            else:
                runs[-1][1].append(_exchange_in(value))
        except RecordingError:
            raise
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise RecordingError(
                f"{path}, line {number}: expected one exchange of a roadworthy recording "
                f"(made by `roadworthy check --record`), got something else ({type(error).__name__}: {error})"
            ) from None
    if not runs:
        raise RecordingError(f"{path}: the file is empty; expected a recording made by `roadworthy check --record`")
    return [replace(run, exchanges=tuple(exchanges)) for run, exchanges in runs]


def _head_in(head: dict[str, Any]) -> Run:
    facts = dict(head["facts"])
    facts["limits"] = VerdictLimits(**facts["limits"])
    facts["abilities"] = {Capability(key): Ability(**value) for key, value in facts["abilities"].items()}
    if "api" in facts:
        facts["api"] = Api(facts["api"])
    if "jobs" in facts:
        jobs: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in facts["jobs"].items()}
        facts["jobs"] = Jobs(**jobs)
    if facts.get("billing"):
        facts["billing"] = Billing(**{**facts["billing"], "key": BillingKey(facts["billing"]["key"])})
    checks = {check.id: check for check in select()}
    chosen = tuple(checks[id] for id in head["checks"] if id in checks)
    return Run(Facts(**facts), chosen, (), head["unsent"], head["requests"], head["duration_s"], head["interrupted"])


def _bytes_out(data: bytes | None) -> dict[str, str] | None:
    if data is None:
        return None
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _bytes_in(value: dict[str, str] | None) -> bytes | None:
    if value is None:
        return None
    return value["text"].encode() if "text" in value else base64.b64decode(value["base64"])


def _exchange_out(exchange: Exchange) -> dict[str, Any]:
    request, reply = exchange.request, exchange.reply
    return {
        "id": exchange.id,
        "probe": exchange.probe,
        "trial": exchange.trial,
        "started_at": exchange.started_at,
        "request": {
            "method": request.method,
            "url": request.url,
            "headers": list(request.headers),
            "body": _bytes_out(request.body),
        },
        "reply": {
            "status": reply.status,
            "headers": list(reply.headers),
            "body": _bytes_out(reply.body),
            "reads": [[read.at_ns, read.end] for read in reply.reads],
            "timings": asdict(reply.timings),
            "failure": reply.failure and {"kind": reply.failure.kind.value, "message": reply.failure.message},
            "wire_bytes": reply.wire_bytes,
            "closed_early": reply.closed_early,
        },
        "retries": [asdict(retry) for retry in exchange.retries],
        "opinions": [asdict(opinion) for opinion in exchange.opinions],
    }


def _pairs(value: list[list[str]]) -> Iterator[tuple[str, str]]:
    yield from ((name, text) for name, text in value)


def _exchange_in(value: dict[str, Any]) -> Exchange:
    request, reply = value["request"], value["reply"]
    failure = reply["failure"]
    return Exchange(
        id=value["id"],
        probe=value["probe"],
        trial=value["trial"],
        started_at=value["started_at"],
        request=Request(
            request["method"], request["url"], tuple(_pairs(request["headers"])), _bytes_in(request["body"])
        ),
        reply=Reply(
            status=reply["status"],
            headers=tuple(_pairs(reply["headers"])),
            body=_bytes_in(reply["body"]) or b"",
            reads=tuple(Read(at_ns, end) for at_ns, end in reply["reads"]),
            timings=Timings(**reply["timings"]),
            failure=Failure(FailureKind(failure["kind"]), failure["message"]) if failure else None,
            wire_bytes=reply["wire_bytes"],
            closed_early=reply["closed_early"],
        ),
        retries=tuple(Retry(**retry) for retry in value["retries"]),
        opinions=tuple(Opinion(**opinion) for opinion in value.get("opinions", ())),
    )
