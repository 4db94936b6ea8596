"""CONTRIBUTING.md's worked example is carried out as it stands, in a copy of the repository."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "conformance", "schemas", "sandbox", "mapping_api", "validator", "billing", "tests")


def test_the_worked_example_works(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, example = text.partition("## A worked example")
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", example, re.DOTALL)
    assert [path for path, _ in blocks] == [
        "conformance/probes/example.py",
        "conformance/checks/example.py",
        "sandbox/faults/example.py",
        "sandbox/variations.py",
    ]
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, code in blocks:
        place = tmp_path / path
        place.write_text(f"{place.read_text(encoding='utf-8')}\n\n{code}" if place.exists() else code, encoding="utf-8")
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", *(tmp_path / path for path, _ in blocks[:3])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout
    (command,) = re.findall(r"^python (-m pytest .*)$", example, re.MULTILINE)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, *shlex.split(command), "-vv", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("example.metadata_refused-acme/chat-1] PASSED", "example.metadata_echoed-acme/chat-1] PASSED"):
        assert name in done.stdout
    assert re.search(r"\b3 passed", done.stdout), done.stdout


def test_the_commands_it_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make ([a-z]+)", text, re.MULTILINE)
    assert targets
    for target in targets:
        assert f"\n{target}:" in makefile
    for path in re.findall(r"`((?:conformance|sandbox|tests|docs|\.ci)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
