"""A command whose packages only an extra brings says which extra to install."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from roadworthy.cli.failure import extra_of

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("mapping_api", "validator", "billing", "src/roadworthy/database")
NEVER_IMPORTED = {"aiosqlite", "fastapi_offline", "httptools", "uvloop"}
"""SQLAlchemy takes the first by its URL, files of the second are served, uvicorn takes the others if they are there."""
COME_ALONG = {"markupsafe", "typing_extensions", "yarl"}
"""What jinja2, pydantic and aiohttp need, which everybody has."""


def imported(folders):
    """The top-level names of all packages that the sources import, at their heads or within."""
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield str(node.module).partition(".")[0]


def required(lines):
    return {re.sub(r"[-_.]+", "_", re.match(r"[\w.-]+", line)[0]).lower() for line in lines}


def test_every_package_that_the_services_import_has_its_extra_and_every_extra_its_use():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    always, extras = required(project["dependencies"]), project["optional-dependencies"]
    of_imports = {
        name: {re.sub(r"[-_.]+", "_", each).lower() for each in found}
        for name, found in metadata.packages_distributions().items()
    }
    names = set(imported(SERVICES)) - sys.stdlib_module_names - COME_ALONG - {"roadworthy", "__future__"}
    foreign = {name for name in names if not of_imports.get(name, {name}) & always}
    assert {"fastapi", "sqlalchemy", "apprise", "starlette"} <= foreign
    assert {name for name in foreign if extra_of(name) is None} == set()
    for extra in ("server", "postgres"):
        assert {extra_of(name) for name in required(extras[extra])} == {extra}
    everywhere = set(imported(["mapping_api", "validator", "billing", "src/roadworthy"]))
    assert required(extras["server"]) - NEVER_IMPORTED <= everywhere
    assert extra_of("pytest") is None


@pytest.mark.parametrize(
    ("package", "extra"), [("fastapi", "server"), ("sqlalchemy", "server"), ("psycopg", "postgres")]
)
def test_a_missing_package_names_its_extra(package, extra, tmp_path):
    program = f"import sys; sys.modules[{package!r}] = None; from roadworthy.cli import main; main()"
    database = "postgresql://localhost/none"
    ended = subprocess.run(
        [sys.executable, "-c", program, "serve", "--port", "0", "--database", database],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert ended.returncode == 2
    assert f"pip install 'roadworthy[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr
