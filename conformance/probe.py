"""Probes: each sends one request for one purpose and decides nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Applies, Capability, Facts, chat
from roadworthy.http.message import Headers, Limits


class Expects(StrEnum):
    """What a healthy provider answers a probe with."""

    SUCCESS = "success"
    REFUSAL = "refusal"
    EITHER = "either"


class Auth(StrEnum):
    """Which key a probe shows."""

    KEY = "key"
    WRONG = "wrong"
    NONE = "none"


class Phase(StrEnum):
    """When a probe is sent: `first` ones learn about the target, `alone` ones need a quiet client.

    `last` ones, one after another, ask about what all others did.
    """

    FIRST = "first"
    MAIN = "main"
    ALONE = "alone"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a probe wants sent: a path below the base URL and a body (JSON, or raw bytes as they are).

    The path may be a whole URL, where an answer named it. `at_root` starts the path at the base URL without
    its /v1; `content_type` is that of the body.
    """

    method: str
    path: str
    json: Any = None
    raw: bytes | None = None
    headers: Headers = ()
    auth: Auth = Auth.KEY
    limits: Limits = field(default_factory=Limits)
    at_root: bool = False
    content_type: str = "application/json"

    def body(self) -> bytes | None:
        """The bytes to send."""
        if self.raw is not None:
            return self.raw
        return None if self.json is None else json.dumps(self.json, ensure_ascii=False).encode()

    def with_limits(self, **changes: Any) -> Draft:
        """The same draft under other limits (fields of `Limits`)."""
        return replace(self, limits=replace(self.limits, **changes))


@dataclass(frozen=True, slots=True)
class Context:
    """What a probe may use to write its request: the facts, its trial number, earlier exchanges."""

    facts: Facts
    trial: int = 1
    earlier: Mapping[str, Exchange] = field(default_factory=dict)
    last: Mapping[str, Exchange] = field(default_factory=dict)
    seen: Sequence[Exchange] = ()
    """Every exchange so far, by probe."""

    def chat(self, messages: Sequence[Mapping[str, Any]] | str, **parameters: Any) -> Draft:
        """A chat completion request; a string is one user message. Parameters that are None are left out."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body: dict[str, Any] = {"model": self.facts.model, "messages": list(messages)}
        if "max_completion_tokens" not in parameters:
            body["max_tokens"] = self.facts.max_tokens
        body.update(parameters)
        return Draft("POST", "/chat/completions", json={k: v for k, v in body.items() if v is not None})

    def answer_to(self, probe: Probe) -> Exchange | None:
        """The first exchange of an earlier probe, if it was sent."""
        return self.earlier.get(probe.id)

    def latest(self, probe: Probe) -> Exchange | None:
        """The last exchange of an earlier probe that is sent several times."""
        return self.last.get(probe.id)


Builder = Callable[[Context], "Draft | None"]
Poll = Callable[[Exchange, Facts], "float | None"]


@dataclass(frozen=True, eq=False)
class Probe:
    """A declared probe. `build` returns None when an earlier answer leaves nothing to ask."""

    id: str
    purpose: str
    build: Builder
    expects: Expects = Expects.SUCCESS
    needs: tuple[Capability, ...] = ()
    after: tuple[Probe, ...] = ()
    phase: Phase = Phase.MAIN
    repeat: int | Callable[[Facts], int] = 1
    """How often it is sent in any case (samples); trials of model-level checks come on top."""
    applies: Applies = chat
    gate: bool = False
    """Whether nothing else is sent where this one gets no usable answer."""
    poll: Poll | None = None
    """Gives the seconds to wait before asking once more, or None once the answer is final."""
    writes: bool = False
    """Whether it changes the target, or reads what such a change has made: sent only where writes are allowed."""
    billing: bool = False
    """Whether it asks the cost endpoint: sent only where its URL is given, with its key. Checks of the API as a
    whole do not look at its exchanges: the endpoint is another service."""
    idle: str = ""
    """What it means where `build` returns None, in words."""

    def times(self, facts: Facts) -> int:
        """How often it is sent in any case, given these facts."""
        return self.repeat if isinstance(self.repeat, int) else self.repeat(facts)

    def __repr__(self) -> str:
        return f"<probe {self.id}>"


PROBES: dict[str, Probe] = {}


def probe(
    id: str,
    *,
    expects: Expects = Expects.SUCCESS,
    needs: Sequence[Capability] = (),
    after: Sequence[Probe] = (),
    phase: Phase = Phase.MAIN,
    repeat: int | Callable[[Facts], int] = 1,
    applies: Applies = chat,
    gate: bool = False,
    poll: Poll | None = None,
    writes: bool = False,
    billing: bool = False,
    idle: str = "",
) -> Callable[[Builder], Probe]:
    """Declare a probe; the builder's docstring is its purpose.

    Raises `ValueError` for an id declared twice or a builder without a docstring.
    """

    def declare(build: Builder) -> Probe:
        if id in PROBES:
            raise ValueError(f"the probe {id!r} is declared twice")
        if not build.__doc__:
            raise ValueError(f"the probe {id!r} has no docstring to say its purpose")
        purpose = " ".join(build.__doc__.split())
        PROBES[id] = Probe(
            id,
            purpose,
            build,
            expects,
            tuple(needs),
            tuple(after),
            phase,
            repeat,
            applies,
            gate,
            poll,
            writes,
            billing,
            idle,
        )
        return PROBES[id]

    return declare
