"""The pytest plugin: `pytest --pyargs roadworthy.conformance --provider-url URL --model M`.

Every pytest run in an environment that has roadworthy loads this module, so it
imports nothing more and claims only option names that nobody else would. What a run
of the provider's checks needs is in `pytest_suite`, imported when one is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

PACKAGE = "roadworthy.conformance"

OPTIONS: dict[str, dict[str, Any]] = {
    "--provider-url": {"metavar": "URL", "help": "base URL of the API to check; most end in /v1"},
    "--provider-model": {"metavar": "NAME", "action": "append", "help": "a model to check; repeatable"},
    "--provider-api-key-env": {"metavar": "NAME", "help": "variable that holds the key [ROADWORTHY_API_KEY]"},
    "--provider-billing-url": {"metavar": "URL", "help": "where the API tells what requests cost; checked too"},
    "--provider-billing-api-key-env": {"metavar": "NAME", "help": "variable that holds the key of that URL"},
    "--roadworthy-billing-timeout": {"metavar": "SECONDS", "help": "within which a request's cost is told [60]"},
    "--roadworthy-config": {"metavar": "FILE", "help": "settings [roadworthy.toml, where no URL is given]"},
    "--roadworthy-lens": {
        "metavar": "LENS",
        "action": "append",
        "help": "only this view, e.g. hub or javascript",
    },
    "--only-check": {"metavar": "ID", "action": "append", "help": "only checks at or below this id; repeatable"},
    "--exclude-check": {"metavar": "ID", "action": "append", "help": "no checks at or below this id; repeatable"},
    "--roadworthy-trials": {"metavar": "N", "help": "most trials per model-level check [10]"},
    "--roadworthy-max-requests": {"metavar": "N", "help": "budget of requests per model [500]"},
    "--roadworthy-fuzz-examples": {"metavar": "N", "help": "generated bodies of each kind; 0 for none [30]"},
    "--roadworthy-seed": {"metavar": "N", "help": "seed that they are drawn from [0]"},
    "--roadworthy-baseline": {"metavar": "FILE", "help": "known failures, as TOML: they become xfail"},
    "--roadworthy-record": {"metavar": "FILE", "help": "keep every exchange, for `roadworthy replay`"},
}
SHORT = {"--model": "--provider-model", "--lens": "--roadworthy-lens"}
"""Friendlier names, claimed only in a run of the provider's checks and only where nobody else has them."""


def dest(option: str) -> str:
    """The name of an option's value in `config.option`."""
    return "roadworthy_" + option.removeprefix("--").removeprefix("roadworthy-").replace("-", "_")


def asked_for(args: Iterable[object]) -> bool:
    """Whether these pytest arguments name the provider's checks."""
    return any(str(arg).replace("\\", "/").rstrip("/").replace("/", ".").endswith(PACKAGE) for arg in args)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options whose names clash with nobody's."""
    group = parser.getgroup("roadworthy", "roadworthy: checks of an inference provider")
    for name, attributes in OPTIONS.items():
        group.addoption(name, dest=dest(name), default=None, **attributes)


@pytest.hookimpl(trylast=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    """Claim `--model` and `--lens` too, where this run is about the provider's checks.

    A name declared twice ends a whole pytest run with an error of argparse, so
    the user's conftest.py, which is loaded just before this, goes first.
    """
    if asked_for(args):
        group = parser.getgroup("roadworthy")
        for name, long in SHORT.items():
            if name not in taken(parser):
                group.addoption(name, dest=dest(long), default=None, **OPTIONS[long])


def taken(parser: pytest.Parser) -> set[str]:
    """Every option name that is declared by now."""
    groups = (parser._anonymous, *parser._groups)  # noqa: SLF001 - pytest offers no public list
    return {name for group in groups for option in group.options for name in option.names()}


def pytest_configure(config: pytest.Config) -> None:
    """Bring in the suite, where this run is about the provider's checks."""
    if asked_for(config.args):
        from roadworthy.conformance.pytest_suite import Suite

        config.pluginmanager.register(Suite(config), "roadworthy-suite")
