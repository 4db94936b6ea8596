"""What importing costs, as structure: who pulls in what. Figures in milliseconds are `bench/startup.py`'s."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "aiohttp", "asyncio", "hypothesis", "jinja2", "jsonschema", "jsonschema_rs",
    "pydantic", "pytest", "referencing", "rich", "ssl", "uvicorn",
}  # fmt: skip
SUITE = {"pytest_plugin.py", "pytest_suite.py"}


def loaded(code):
    """The top-level modules, and roadworthy's own, that a piece of code leaves loaded."""
    code = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["--version"]], ids=" ".join)
def test_asking_for_help_loads_nothing_heavy(arguments):
    modules = loaded(
        f"sys.argv = ['roadworthy', *{arguments!r}]\n"
        "from roadworthy.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    tops = {module.partition(".")[0] for module in modules}
    # Newer Typers read options through pydantic themselves; the first thing a user types must not wait for it.
    assert tops & HEAVY <= (set() if arguments == ["--help"] else {"pydantic"})
    assert "roadworthy.conformance.check" not in modules
    assert "typer" in modules


def test_the_pytest_plugin_loads_nothing():
    modules = loaded("import pytest\nbefore = set(sys.modules)\nimport roadworthy.conformance.pytest_plugin")
    assert modules == {"roadworthy", "roadworthy.conformance", "roadworthy.conformance.pytest_plugin"}


def test_conformance_runs_without_pytest_a_web_framework_or_a_database():
    modules = loaded(
        "import roadworthy.conformance.session, roadworthy.conformance.recording\n"
        "from roadworthy.conformance.catalogue import load\nload()\n"
        "import roadworthy.http.aiohttp_transport"
    )
    tops = {module.partition(".")[0] for module in modules}
    assert tops & {"pytest", "_pytest", "fastapi", "starlette", "uvicorn", "sqlalchemy", "apscheduler"} == set()
    assert "aiohttp" in tops


def test_only_the_suite_names_pytest():
    """A check serves the command line and the validator too, so it must not know one of its callers."""
    naming = set()
    for house in ("conformance", "schemas", "sandbox", "src/roadworthy/http", "src/roadworthy/cli"):
        for path in (ROOT / house).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.partition(".")[0] in ("pytest", "_pytest") for name in names):
                    naming.add(path.relative_to(ROOT).as_posix())
    assert naming == {f"conformance/{name}" for name in SUITE}
