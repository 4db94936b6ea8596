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
    subjects: tuple[str, ...] = ()
    """What it is proven on, as MODEL=TASK@API; empty for the chat model."""

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


def fault(
    name: str, *, caught_by: Iterable[str], at: Stage, on: Iterable[Kind] = (), subjects: Iterable[str] = ()
) -> Callable[[Change], Mutation]:
    """Declare a fault; the docstring says what is wrong. `caught_by` must name at least one check."""

    def declare(change: Change) -> Mutation:
        checks = frozenset(caught_by)
        if not checks:
            raise ValueError(f"the fault {name!r} names no check that catches it")
        return _register(FAULTS, Mutation(name, _words(change), checks, at, frozenset(on), change, tuple(subjects)))

    return declare


def variation(
    name: str, *, at: Stage, on: Iterable[Kind] = (), subjects: Iterable[str] = ()
) -> Callable[[Change], Mutation]:
    """Declare a legal variation; the docstring says why it is legal."""

    def declare(change: Change) -> Mutation:
        mutation = Mutation(name, _words(change), frozenset(), at, frozenset(on), change, tuple(subjects))
        return _register(VARIATIONS, mutation)

    return declare


def _words(change: Change) -> str:
    return " ".join((change.__doc__ or "").split())


def _register(registry: dict[str, Mutation], mutation: Mutation) -> Mutation:
    if mutation.name in FAULTS or mutation.name in VARIATIONS:
        raise ValueError(f"{mutation.name!r} is declared twice")
    if not mutation.description:
        raise ValueError(f"{mutation.name!r} has no docstring")
    registry[mutation.name] = mutation
    return mutation
