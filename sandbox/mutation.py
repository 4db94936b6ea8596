"""Faults (one wrong thing each) and variations (unusual but legal), each declared in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from roadworthy.sandbox.turn import Kind, Stage, Turn

Change = Callable[[Turn], None]


@dataclass(frozen=True, eq=False)
class Mutation:
    """A named change of a turn. `caught_by` holds check ids; empty for a legal variation."""

    name: str
    description: str
    caught_by: frozenset[str]
    at: Stage
    on: frozenset[Kind]
    change: Change

    @property
    def family(self) -> str:
        """The part of the name before the first dot."""
        return self.name.partition(".")[0]

    def apply(self, stage: Stage, turn: Turn) -> None:
        """Change the turn, if this is its stage and kind."""
        if stage is self.at and (not self.on or turn.kind in self.on):
            self.change(turn)


FAULTS: dict[str, Mutation] = {}
VARIATIONS: dict[str, Mutation] = {}


def fault(name: str, *, caught_by: Iterable[str], at: Stage, on: Iterable[Kind] = ()) -> Callable[[Change], Mutation]:
    """Declare a fault; the docstring says what is wrong. `caught_by` must name at least one check."""

    def declare(change: Change) -> Mutation:
        checks = frozenset(caught_by)
        if not checks:
            raise ValueError(f"the fault {name!r} names no check that catches it")
        return _register(FAULTS, name, change, checks=checks, at=at, on=on)

    return declare


def variation(name: str, *, at: Stage, on: Iterable[Kind] = ()) -> Callable[[Change], Mutation]:
    """Declare a legal variation; the docstring says why it is legal."""

    def declare(change: Change) -> Mutation:
        return _register(VARIATIONS, name, change, checks=frozenset(), at=at, on=on)

    return declare


def _register(
    registry: dict[str, Mutation], name: str, change: Change, *, checks: frozenset[str], at: Stage, on: Iterable[Kind]
) -> Mutation:
    if name in FAULTS or name in VARIATIONS:
        raise ValueError(f"{name!r} is declared twice")
    if not change.__doc__:
        raise ValueError(f"{name!r} has no docstring")
    registry[name] = Mutation(name, " ".join(change.__doc__.split()), checks, at, frozenset(on), change)
    return registry[name]
