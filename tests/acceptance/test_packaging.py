"""What is shipped: whole, small, and safe beside other people's packages.

No network is needed: hatchling is a development dependency, and the empty
environment finds the dependencies of the wheel where these tests run.
"""

from __future__ import annotations

import email
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import roadworthy
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.server import running

ROOT = Path(__file__).resolve().parents[2]
HOUSES = ("conformance", "schemas", "sandbox", "mapping_api", "validator", "billing")
KEY = "packaging-key-0123456789"
FOREIGN = {
    "fastapi", "starlette", "flask", "django", "litestar", "sanic", "tornado",
    "sqlalchemy", "sqlmodel", "alembic", "psycopg", "psycopg2", "asyncpg", "aiosqlite", "pymongo", "redis",
    "apscheduler", "procrastinate", "celery", "rq", "dramatiq",
    "pytest", "openai",
}  # fmt: skip


def run(*command, cwd=None, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "ROADWORTHY_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def build(kind, source, into):
    code, said = run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", into, cwd=source)
    assert code == 0, said
    (made,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def shipped():
    """Every file of the repository that the wheel must hold, by its place in the package."""
    package = ROOT / "src" / "roadworthy"
    places = {path: path.relative_to(package) for path in package.rglob("*")}
    for house in HOUSES:
        places |= {path: path.relative_to(ROOT) for path in (ROOT / house).rglob("*")}
    return {
        f"roadworthy/{place.as_posix()}"
        for path, place in places.items()
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    }


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_and_no_tests(wheel):
    expected = shipped()
    assert contents(wheel) == expected
    assert {"roadworthy/py.typed", "roadworthy/conformance/pytest_plugin.py"} <= expected
    for suffix in (".json", ".html"):
        assert any(name.endswith(suffix) for name in expected), f"no {suffix} file is shipped"
    assert not any("/tests/" in name or name.rpartition("/")[2].startswith("test_") for name in expected)


def test_the_sdist_builds_the_same_wheel(wheel, tmp_path):
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        # Python 3.11.0 to 3.11.3 know no filters yet; the archive is our own.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = (path for path in tmp_path.iterdir() if path.name.startswith("roadworthy-"))
    for name in ("LICENSE", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "tests", "bench", "docs"):
        assert (unpacked / name).exists(), f"the sdist lacks {name}"
    again = build("wheel", unpacked, tmp_path / "again")
    assert contents(again) == contents(wheel)


def test_the_metadata_names_licence_version_and_entry_points(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = email.message_from_bytes(archive.read(names["METADATA"]))
        entry_points = archive.read(names["entry_points.txt"]).decode()
        licence = archive.read(names["licenses/LICENSE"]).decode()
    assert metadata["Version"] == roadworthy.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert "roadworthy = roadworthy.cli:main" in entry_points
    assert "roadworthy = roadworthy.conformance.pytest_plugin" in entry_points


def test_a_plain_install_brings_no_framework_driver_or_scheduler(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        waiting = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    seen = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(key)
        for line in importlib.metadata.distribution(requirement.name).requires or ():
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in ("", *key[1])):
                waiting.append(line.partition(";")[0])
    closure = {name for name, _ in seen}
    assert "aiohttp" in closure
    assert closure & FOREIGN == set()


@pytest.fixture(scope="module")
def empty(wheel, tmp_path_factory):
    """An environment with the wheel, beside packages named like our folders."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    code, said = run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel
    )
    assert code == 0, said
    _, place = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    site = Path(place.strip())
    for name in HOUSES:
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(f"OWNER = 'partner {name}'\n")
    # The dependencies; the editable roadworthy among them is reached by a .pth file, which is not read from here.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_works_beside_foreign_packages_of_the_same_names(empty, tmp_path):
    for name in ("schemas", "billing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"OWNER = 'here {name}'\n")
    python = empty / "bin" / "python"
    code, said = run(
        python,
        "-c",
        "import schemas, billing, sandbox, roadworthy, roadworthy.schemas, roadworthy.sandbox.app\n"
        "print(schemas.OWNER, billing.OWNER, sandbox.OWNER, roadworthy.__file__)",
        cwd=tmp_path,
    )
    assert code == 0, said
    assert said.startswith("here schemas here billing partner sandbox")
    assert str(empty) in said
    with running(Sandbox((), Options(api_key=KEY))) as url:
        environment = {"ROADWORTHY_API_KEY": KEY, "PYTHONPATH": str(tmp_path)}
        check = f"check {url} --model acme/chat-1 --only chat.stream --html report.html".split()
        code, said = run(empty / "bin" / "roadworthy", *check, cwd=tmp_path, **environment)
        assert code == 0, said
        assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
        suite = f"-m pytest --pyargs roadworthy.conformance --provider-url {url} --model acme/chat-1".split()
        code, said = run(python, *suite, cwd=tmp_path, **environment)
        assert code == 0, said
        assert " passed" in said
