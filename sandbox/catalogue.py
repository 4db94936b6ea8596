"""Loading every declared fault and variation."""

from __future__ import annotations

import importlib
import pkgutil

from roadworthy.sandbox.mutation import FAULTS, VARIATIONS, Mutation


def load() -> None:
    """Import every module of `faults` and the variations. Calling again costs nothing."""
    from roadworthy.sandbox import faults

    for module in sorted(info.name for info in pkgutil.iter_modules(faults.__path__)):
        importlib.import_module(f"{faults.__name__}.{module}")
    importlib.import_module("roadworthy.sandbox.variations")


def find(name: str) -> Mutation:
    """The fault or variation of this name. Raises `KeyError` with the near names."""
    load()
    known = {**FAULTS, **VARIATIONS}
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=3)
        raise KeyError(f"no fault or variation is called {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
    return known[name]
