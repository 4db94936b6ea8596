"""A request as a command line that sends it again."""

from __future__ import annotations

import base64
import json
import re
import shlex

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import BillingKey, Facts
from roadworthy.conformance.judge import asks_costs
from roadworthy.conformance.reading.billing import asked, entries
from roadworthy.http.message import header
from roadworthy.http.redact import MASK

KEY = "ROADWORTHY_API_KEY"
BILLING_KEY = "ROADWORTHY_BILLING_API_KEY"
LONGEST_BODY_BYTES = 2048
"""Longer bodies are taken from the recording: nobody pastes them, and a shell limits an argument's length."""

_OURS = {
    ("user-agent", "roadworthy"),
    ("accept-encoding", "identity"),
    ("accept", "application/json, text/event-stream"),
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""What a terminal would not show as it is, so that it could not be copied from there."""
_ENTRY = re.compile(r"/requests/([0-9]{1,6})(?:/|$)")
"""Where an entry of an answer of costs stands."""
_GLOBS = re.compile(r"[][{}]")


def key_variable(exchange: Exchange, facts: Facts) -> str:
    """The variable that holds the key which an exchange showed: the API's, or that of the cost endpoint."""
    own = facts.billing is not None and facts.billing.key is BillingKey.OWN and asks_costs(exchange.probe)
    return BILLING_KEY if own else KEY


def curl(exchange: Exchange, recording: str = "run.jsonl", key: str = KEY, at: str = "") -> str:
    """A POSIX shell command that sends the exchange's request again, the key read from the environment.

    A masked header becomes a variable: the key is `$ROADWORTHY_API_KEY` (or as `key` says), a header
    `X-Org` of the settings is `$X_ORG`. Headers that every request of ours carries
    and that only name or simplify the client are left out. A body too long to
    paste is read from the recording (with `jq`), and the command begins with how it is
    made; but a question for costs is cut to the one id that the finding is about, by its
    place `at` in the answer.
    """
    request = exchange.request
    body = _question(exchange, at) or request.body
    source, data = _body(exchange, body, recording)
    parts = ["curl -sS -i"]
    if _streams(exchange):
        parts.append("-N")
    if _GLOBS.search(request.url):
        parts.append("--globoff")
    if request.method == "HEAD":
        parts.append("-I")
    elif request.method != ("GET" if body is None else "POST"):
        parts.append(f"-X {shlex.quote(request.method)}")
    parts.append(shlex.quote(request.url))
    for name, value in request.headers:
        if (name.lower(), value) not in _OURS:
            parts.append(f"-H {_header(name, value, key)}")
    if body is not None and header(request.headers, "content-type") is None:
        # curl would say that it is a form.
        parts.append("-H 'Content-Type:'")
    return source + " ".join(parts) + data


def _question(exchange: Exchange, at: str) -> bytes | None:
    """A question for the one id whose cost stands `at` that place of the answer; None where the whole is needed."""
    place = _ENTRY.match(at)
    if place is None or not asks_costs(exchange.probe) or len(exchange.request.body or b"") <= LONGEST_BODY_BYTES:
        return None
    told = entries(exchange) or []
    id = told[int(place[1])]["requestId"] if int(place[1]) < len(told) else None
    return json.dumps({"requestIds": [id]}).encode() if id in asked(exchange) else None


def _body(exchange: Exchange, body: bytes | None, recording: str) -> tuple[str, str]:
    """What comes before and after curl's other arguments so that it sends the body."""
    if body is None:
        return "", ""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = None
    if len(body) > LONGEST_BODY_BYTES:
        chosen = f"select(.id == {json.dumps(exchange.id)} and .started_at == {json.dumps(exchange.started_at)})"
        # jq's own @base64d gives text; bytes that are not text must be decoded outside.
        field, decode = ("text", "") if text is not None else ("base64", "base64 -d | ")
        wanted = shlex.quote(f"first(inputs | {chosen}) | .request.body.{field}")
        file = shlex.quote(recording)
        # The shell's no-op: whoever made no recording learns here why jq finds no file.
        return f": after --record {file}; jq -jn {wanted} {file} | {decode}", " --data-binary @-"
    if text is None or _CONTROL.search(text):
        return f"printf %s {base64.b64encode(body).decode()} | base64 -d | ", " --data-binary @-"
    return "", f" --data-raw {shlex.quote(text)}"


def _header(name: str, value: str, key: str) -> str:
    scheme, space, rest = value.rpartition(" ")
    if rest and not rest.strip(MASK):
        variable = key if name.lower() == "authorization" else re.sub(r"[^A-Z0-9]", "_", name.upper())
        if scheme.isalnum() or not scheme:
            return f'"{name}: {scheme}{space}${variable}"'
        return shlex.quote(f"{name}: {scheme}{space}") + f'"${variable}"'
    if not value:
        return shlex.quote(f"{name};")
    return shlex.quote(f"{name}: {value}")


def _streams(exchange: Exchange) -> bool:
    return isinstance(exchange.sent, dict) and exchange.sent.get("stream") is True
