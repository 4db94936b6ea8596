"""Planning: which checks are asked for, and which probes they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from roadworthy.conformance.catalogue import load
from roadworthy.conformance.check import CHECKS, Check
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probe import PROBES, Phase, Probe
from roadworthy.conformance.verdict import Lens
from roadworthy.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """The checks to judge and the probes to send, in order."""

    facts: Facts
    checks: tuple[Check, ...]
    probes: tuple[Probe, ...]


def select(only: Sequence[str] = (), exclude: Sequence[str] = (), lenses: Sequence[Lens] = ()) -> tuple[Check, ...]:
    """The checks whose id is, or lies below, one of `only` and none of `exclude`, in any of `lenses`.

    Raises `UsageError` for a name that matches no check: a run of nothing must not look like a pass.
    """
    load()
    for name in (*only, *exclude):
        if not any(_below(id, name) for id in CHECKS):
            families = ", ".join(sorted({check.family for check in CHECKS.values()}))
            raise UsageError(
                f"no check is called {name!r}, nor does any check's id start with it. "
                f"The families are: {families}. `roadworthy checks` lists every id."
            )
    chosen = tuple(
        check
        for check in CHECKS.values()
        if (not only or any(_below(check.id, name) for name in only))
        and not any(_below(check.id, name) for name in exclude)
        and (not lenses or any(lens in check.lenses for lens in lenses))
    )
    if not chosen:
        raise UsageError("these --only, --exclude and --lens settings leave no check. Loosen one of them.")
    return chosen


def plan(facts: Facts, checks: Iterable[Check]) -> Plan:
    """The checks that apply to the subject and the probes they read, with what those need first.

    Probes stand in declared order within each phase.
    """
    load()
    checks = tuple(check for check in checks if check.applies(facts))
    wanted: set[str] = set()

    def want(probe: Probe) -> None:
        if probe.id not in wanted and probe.applies(facts):
            wanted.add(probe.id)
            for needed in probe.after:
                want(needed)

    for check in checks:
        for probe in check.probes:
            want(probe)
    for probe in PROBES.values():
        if probe.phase is Phase.FIRST:
            want(probe)
    phases = list(Phase)
    ordered = sorted((p for p in PROBES.values() if p.id in wanted), key=lambda p: phases.index(p.phase))
    return Plan(facts, checks, tuple(ordered))


def _below(id: str, name: str) -> bool:
    return id == name or id.startswith(name + ".")
