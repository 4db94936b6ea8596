"""Lens names from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from roadworthy.conformance.verdict import Lens
from roadworthy.errors import UsageError


def lenses(names: Sequence[str]) -> list[Lens]:
    """The lenses of these names. Raises `UsageError` for one that does not exist."""
    known = {lens.value: lens for lens in Lens}
    for name in names:
        if name not in known:
            raise UsageError(f"no lens is called {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names]
