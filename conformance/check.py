"""Checks: pure functions from exchanges to findings, each declared in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from roadworthy.conformance.facts import Applies, Capability, anything
from roadworthy.conformance.probe import Probe
from roadworthy.conformance.verdict import Lens, Level, Outcome


class Reading(StrEnum):
    """How a check's function is given exchanges.

    EACH   once per exchange of its probes: `f(exchange)`
    JOINT  once, with the first exchange of each of its probes in order: `f(a, b)`
    ACROSS once, with the list of all usable exchanges of its probes (of every probe of the API where none is named)
    """

    EACH = "each"
    JOINT = "joint"
    ACROSS = "across"


class Usable(StrEnum):
    """What an exchange must hold before a check can look at it; otherwise another check has said what is wrong.

    ANYTHING  even a transport failure
    RESPONSE  a response head, whatever its status
    COMPLETE  a whole response, whatever its status
    SUCCESS   status 200
    VALUE     a status of success and a body that is one JSON value of any kind
    JSON      status 200 and a body that is one JSON object
    CHAT      JSON, with a non-empty list of choices
    EVENTS    status 200 and at least one server-sent event
    """

    ANYTHING = "anything"
    RESPONSE = "response"
    COMPLETE = "complete"
    SUCCESS = "success"
    VALUE = "value"
    JSON = "json"
    CHAT = "chat"
    EVENTS = "events"


Judge = Callable[..., Iterable[Outcome]]


@dataclass(frozen=True, eq=False)
class Check:
    """A declared check. `rule` is the docstring's first paragraph, `why` the rest.

    `bar` marks a check of what the model chose: the share of trials that must pass.
    """

    id: str
    level: Level
    lenses: tuple[Lens, ...]
    source: str
    rule: str
    why: str
    remedy: str
    reading: Reading
    probes: tuple[Probe, ...]
    usable: Usable
    needs: tuple[Capability, ...]
    bar: float | None
    judge: Judge
    wants_facts: bool
    applies: Applies = anything
    wants_others: bool = False

    @property
    def family(self) -> str:
        """The part of the id before the first dot."""
        return self.id.partition(".")[0]

    def __repr__(self) -> str:
        return f"<check {self.id}>"


CHECKS: dict[str, Check] = {}


def check(
    id: str,
    *,
    level: Level,
    lenses: Sequence[Lens],
    source: str,
    remedy: str,
    each: Probe | Sequence[Probe] | None = None,
    joint: Sequence[Probe] | None = None,
    across: Sequence[Probe] | None = None,
    on: Usable = Usable.CHAT,
    needs: Sequence[Capability] = (),
    bar: float | None = None,
    applies: Applies | None = None,
) -> Callable[[Judge], Check]:
    """Declare a check. Give exactly one of `each`, `joint` and `across` (see `Reading`).

    `source` names document and section of the rule; the function's docstring is
    the rule (first paragraph) and why clients break without it (the rest). A
    parameter named `facts` receives the `Facts`, one named `others` (with `across`) the
    exchanges of all other probes of the API, to compare with. `applies` says for which subjects the
    check is meant: by default those of any of its probes. Raises `ValueError` for a
    declaration that is not whole.
    """
    given = [
        (reading, value)
        for reading, value in ((Reading.EACH, each), (Reading.JOINT, joint), (Reading.ACROSS, across))
        if value is not None
    ]
    if len(given) != 1:
        raise ValueError(f"the check {id!r} must name exactly one of each, joint and across")
    reading, probes = given[0]

    def declare(judge: Judge) -> Check:
        if id in CHECKS:
            raise ValueError(f"the check {id!r} is declared twice")
        rule, _, why = inspect.cleandoc(judge.__doc__ or "").partition("\n\n")
        if not rule or not why.strip():
            raise ValueError(
                f"the check {id!r} needs a docstring: the rule, a blank line, why clients break without it"
            )
        if not lenses or not source or not remedy:
            raise ValueError(f"the check {id!r} needs lenses, a source and a remedy")
        asked = (probes,) if isinstance(probes, Probe) else tuple(probes)
        CHECKS[id] = Check(
            id=id,
            level=level,
            lenses=tuple(lenses),
            source=source,
            rule=" ".join(rule.split()),
            why=" ".join(why.split()),
            remedy=remedy,
            reading=reading,
            probes=asked,
            usable=on,
            needs=tuple(needs),
            bar=bar,
            judge=judge,
            wants_facts="facts" in inspect.signature(judge).parameters,
            wants_others="others" in inspect.signature(judge).parameters,
            applies=applies or (_any(asked) if asked else anything),
        )
        return CHECKS[id]

    return declare


def _any(probes: Sequence[Probe]) -> Applies:
    return lambda facts: any(probe.applies(facts) for probe in probes)
