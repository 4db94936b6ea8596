"""Asking a client library: it runs in a process of its own, against a replayer, with the network shut."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import site
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from roadworthy.conformance.clients.call import APIS, Question, call
from roadworthy.conformance.clients.install import ADVICE, JAVASCRIPT, installed, node
from roadworthy.conformance.clients.opinion import Opinion
from roadworthy.conformance.clients.replayer import Replayer
from roadworthy.conformance.exchange import Exchange, as_object
from roadworthy.conformance.words import show

__all__ = ["CLIENTS", "Question", "Unavailable", "ask"]

PYTHON_PACKAGES = {"python": "huggingface_hub", "openai": "openai"}
JAVASCRIPT_PACKAGES = {"javascript": "@huggingface/inference", "openai-js": "openai"}
CLIENTS = ("javascript", "python", "openai", "openai-js")
QUESTION_TIMEOUT_S = 20.0
"""How long one call of a client may take; every answer is there at once, and the longest takes some seconds to read."""
MAX_OUTPUT_BYTES = 16 * 1024 * 1024
_MAX_STDERR_BYTES = 16 * 1024
_LAST_WORDS_S = 2.0
_KEY = "not-a-key"
"""Not of the form of a Hugging Face token, with which both clients would go to the Hub's router."""
_MESSAGE_CHARS = 200
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_FIRST_ANSWER = 200
_FIRST_ERROR = 400


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Why a client gave no opinion, and what to do; `opinions` are those it gave before it failed.

    `unanswered` holds the ids of the exchanges it was to judge and did not.
    """

    reason: str
    opinions: tuple[Opinion, ...] = ()
    unanswered: tuple[str, ...] = ()


def ask(client: str, questions: Sequence[Question], *, timeout_s: float = 120.0) -> list[Opinion] | Unavailable:
    """What `client` makes of the answers, several opinions where several of its methods read one answer.

    An exchange has no opinion where the client has no method for its task, and where no whole head of an answer
    came or we hung up ourselves. Nothing a server sent raises. Raises ValueError for a name not in `CLIENTS` or `APIS`.
    """
    if client not in CLIENTS:
        raise ValueError(f"expected one of the clients {', '.join(CLIENTS)}, got {client!r}")
    for question in questions:
        if question.api not in APIS:
            raise ValueError(f"expected one of the APIs {', '.join(APIS)}, got {question.api!r}")
    asked = [question for question in questions if _askable(question.exchange)]
    if not asked:
        return []
    runner = _runner(client)
    if isinstance(runner, str):
        return Unavailable(runner, unanswered=_ids(asked))
    try:
        return _ask(client, asked, runner, timeout_s)
    except OSError as error:
        return Unavailable(f"{client}: cannot be given its answers: {error}", unanswered=_ids(asked))


def _ask(client: str, asked: Sequence[Question], runner: _Runner, timeout_s: float) -> list[Opinion] | Unavailable:
    """Run the client on the answers. Raises OSError where there is no room for a port or a temporary folder."""
    with (
        Replayer([question.exchange for question in asked]) as replayer,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
    ):
        job = {
            "client": client,
            "port": replayer.port,
            "key": _KEY,
            "timeout_s": QUESTION_TIMEOUT_S,
            "packages": runner.packages,
            "questions": [
                {"n": number, "url": replayer.url(number), **call(question)} for number, question in enumerate(asked)
            ],
        }
        ended = _run(runner.command, json.dumps(job).encode(), _environment(home), timeout_s)
        base = replayer.url(0).removesuffix("/0")
    return _opinions(client, asked, ended, base)


def _askable(exchange: Exchange) -> bool:
    """Whether there is an answer that a client could be given."""
    status = exchange.status
    return status is not None and _FIRST_ANSWER <= status <= 599 and not exchange.reply.closed_early


def _ids(questions: Sequence[Question]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(question.exchange.id for question in questions))


@dataclass(frozen=True, slots=True)
class _Runner:
    command: tuple[str, ...]
    packages: str = ""


def _runner(client: str) -> _Runner | str:
    """How to run this client's runner, or why that cannot be done."""
    if client in PYTHON_PACKAGES:
        package = PYTHON_PACKAGES[client]
        try:
            found = find_spec(package) is not None and bool(version(package))
        except (PackageNotFoundError, ValueError, ImportError):
            found = False
        if not found:
            return f"the Python package {package} is not installed: run `pip install 'roadworthy[clients]'`"
        return _Runner((sys.executable, "-P", str(Path(__file__).with_name("python_runner.py"))))
    executable, fault = node()
    if fault is not None:
        return fault
    packages = installed()
    if packages is None:
        return f"the npm package {JAVASCRIPT_PACKAGES[client]} is not installed: {ADVICE}"
    return _Runner((executable, str(JAVASCRIPT / "runner.mjs")), str(packages))


def _environment(home: str) -> dict[str, str]:
    """An environment without keys, proxies or a user's settings; what the interpreters need to start stays."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT") if name in os.environ}
    return kept | {
        "HOME": home,
        "USERPROFILE": home,
        "TMPDIR": home,
        "HF_HOME": home,
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUSERBASE": site.getuserbase(),  # found by HOME otherwise, and packages may be there
    }


@dataclass(frozen=True, slots=True)
class _Ended:
    """What a runner wrote, and how it ended where not by itself and well."""

    lines: tuple[dict[str, Any], ...]
    fault: str | None


def _run(command: Sequence[str], job: bytes, environment: dict[str, str], timeout_s: float) -> _Ended:
    """Run a runner within the time and the bound on its output; afterwards no process of it is left."""
    try:
        process = subprocess.Popen(  # noqa: S603 - our own runner, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=environment["HOME"],
            start_new_session=True,  # a group of its own, which can be ended whole
        )
    except OSError as error:
        return _Ended((), f"{command[0]} cannot be run: {error}")
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: PT018
    output, errors = _Collector(process.stdout, MAX_OUTPUT_BYTES), _Collector(process.stderr, _MAX_STDERR_BYTES)
    output.on_excess = process.kill
    feeder = threading.Thread(target=_feed, args=(process.stdin, job), daemon=True)
    feeder.start()
    late = False
    try:
        output.join(timeout_s)  # to the end of its output, not of the process: its group must not be reaped yet
        late = output.is_alive()
        errors.join(0 if late else _LAST_WORDS_S)
    finally:
        _end(process)
        feeder.join(_LAST_WORDS_S)
        for collector, pipe in ((output, process.stdout), (errors, process.stderr)):
            collector.join(_LAST_WORDS_S)
            if not collector.is_alive():  # else something that left the group holds the pipe, and closing would wait
                pipe.close()
    lines = tuple(_lines(bytes(output.data)))
    if late:
        return _Ended(lines, f"it did not finish within {timeout_s:g} s and was ended")
    if output.excess:
        return _Ended(lines, f"it wrote more than {MAX_OUTPUT_BYTES:,} bytes and was ended")
    if any("done" in line for line in lines):
        return _Ended(lines, None)
    said = next((line for line in reversed(errors.data.decode(errors="replace").splitlines()) if line.strip()), "")
    told = next((line["fault"] for line in lines if isinstance(line.get("fault"), str)), said.strip())
    return _Ended(lines, f"its runner ended with code {process.returncode}: {show(told) or 'it said nothing'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


class _Collector(threading.Thread):
    """Reads a pipe to its end and keeps what fits the bound."""

    def __init__(self, pipe: IO[bytes], cap: int) -> None:
        super().__init__(daemon=True)
        self.data = bytearray()
        self.excess = False
        self.on_excess: Any = None
        self._pipe = pipe
        self._cap = cap
        self.start()

    def run(self) -> None:
        """Read until the pipe is closed."""
        while piece := self._pipe.read1(65_536):  # type: ignore[attr-defined]
            self.data += piece[: self._cap - len(self.data)]
            if len(self.data) == self._cap and not self.excess:
                self.excess = True
                if self.on_excess is not None:
                    self.on_excess()


def _feed(pipe: IO[bytes], job: bytes) -> None:
    with contextlib.suppress(OSError):
        pipe.write(job)
    with contextlib.suppress(OSError):
        pipe.close()


def _lines(output: bytes) -> list[dict[str, Any]]:
    """The JSON objects among the lines; a line cut off by the end of the process is none."""
    found = []
    for line in output.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            found.append(as_object(json.loads(line)))
    return found


def _opinions(client: str, asked: Sequence[Question], ended: _Ended, base: str) -> list[Opinion] | Unavailable:
    """The runner's lines as opinions. A call that judged nothing says nothing of the answer."""
    release = next((line["version"] for line in ended.lines if isinstance(line.get("version"), str)), "")
    opinions: list[Opinion] = []
    unjudged: dict[str, str] = {}
    finished: set[int] = set()
    for line in ended.lines:
        number = line.get("n")
        if not isinstance(number, int) or not 0 <= number < len(asked):
            continue
        exchange = asked[number].exchange
        if "method" not in line:
            finished.add(number)
        elif line.get("judged") is not True:
            unjudged[exchange.id] = _told(line.get("error"), f"{base}/{number}")
        else:
            opinions.append(_opinion(client, release, exchange, line, f"{base}/{number}"))
    missing = [question for number, question in enumerate(asked) if number not in finished]
    unanswered = tuple(dict.fromkeys([*unjudged, *_ids(missing)]))
    if ended.fault is not None:
        return Unavailable(f"{client}: {ended.fault}", tuple(opinions), unanswered)
    if unanswered:
        why = next(iter(unjudged.values()), "its runner left questions out")
        return Unavailable(f"{client}: an answer was not judged: {why}", tuple(opinions), unanswered)
    return opinions


def _opinion(client: str, release: str, exchange: Exchange, line: dict[str, Any], url: str) -> Opinion:
    said = _clean(str(line.get("said", "")), url)
    thrown = line.get("error")
    error = _told(thrown, url)
    accepted = thrown is None
    if exchange.status is not None and exchange.status >= _FIRST_ERROR:
        if thrown is None:
            accepted, error = False, f"no error was raised for HTTP {exchange.status}"
        elif as_object(thrown).get("api") is True and holds(str(as_object(thrown).get("message")), exchange):
            accepted, said, error = True, error, ""
    return Opinion(client, release, exchange.id, str(line["method"]), accepted, said, error)


def _told(thrown: Any, url: str) -> str:
    if thrown is None:
        return ""
    fields = as_object(thrown)
    return _clean(f"{fields.get('type', 'Error')}: {fields.get('message', '')}", url)


def _clean(text: str, url: str) -> str:
    """One printable line, the same in every run: without the replayer's address, and those of objects in memory."""
    flat = " ".join(_ADDRESS.sub("", text.replace(url, "")).split())
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in flat)


def holds(text: str, exchange: Exchange) -> bool:
    """Whether an error's text holds the message that the server sent; true where the server sent none."""
    message = message_of(exchange)
    if message is None:
        return True
    start = " ".join(message.split())[:_MESSAGE_CHARS]
    flat = " ".join(text.split())
    return start in flat or start in " ".join(_unescaped(text).split())


def _unescaped(text: str) -> str:
    """A text in which a client shows the server's JSON or its own literals, read as a person reads it."""
    return text.replace("\\n", " ").replace("\\t", " ").replace('\\"', '"').replace("\\'", "'").replace("\\\\", "\\")


def message_of(exchange: Exchange) -> str | None:
    """The words in which an error answer says what is wrong, or None: a page of HTML is no message."""
    answer = exchange.answer
    for value in (as_object(answer.get("error")).get("message"), *map(answer.get, ("error", "message", "detail"))):
        if isinstance(value, str) and value.strip():
            return value.strip()
    if exchange.media_type == "text/plain":
        return exchange.reply.body.decode(errors="replace").strip() or None
    return None
