"""A command whose packages only an extra brings says which extra to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


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
