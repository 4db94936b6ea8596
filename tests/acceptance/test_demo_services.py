"""The demo of the hub's side: every command it shows really runs, and nothing stays behind."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from roadworthy.cli.demo_services import REQUESTS


@pytest.mark.timeout(300)  # twenty commands, each a process of its own
def test_the_hubs_side_is_shown_from_registration_to_reconciliation(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROADWORTHY_")}
    done = subprocess.run(
        [sys.executable, "-m", "roadworthy", "demo", "--part", "services", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=280, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        "clients see: nobody serves it",
        "within tolerance",
        "beyond tolerance",
        f"overcharged     {REQUESTS}",
    ):
        assert told in done.stdout, told
    assert "token" not in json.dumps([line for line in done.stdout.splitlines() if "hf_rw" in line])
    services = tmp_path / "services"
    for page in ("reconciliation-0.html", "reconciliation-1.html"):
        assert (services / page).stat().st_size > 5_000
    with sqlite3.connect(services / "roadworthy.db") as books:
        assert books.execute("SELECT state, count(*) FROM usage GROUP BY 1").fetchall() == [("settled", 2 * REQUESTS)]
    books.close()
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert not left, left


def test_an_unknown_part_is_told(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "roadworthy", "demo", "--part", "all-of-it", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--part is one of all, check, services" in done.stderr
