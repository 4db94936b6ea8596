"""Loading the declared probes and checks: importing their modules is what declares them."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Import every module of `probes` and `checks`, in name order. Calling again costs nothing."""
    from roadworthy.conformance import checks, probes

    for package in (probes, checks):
        for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
            importlib.import_module(f"{package.__name__}.{module}")
