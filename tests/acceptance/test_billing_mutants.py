"""The state machines of billing notice what they say they notice: each of these faults of ours makes one of them fail.

A mutant is the billing package with one place changed, which stands before the real one on the path of a pytest of
its own. It must fail by an assertion of the machine, not by breaking off.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECTING = "tests/integration/test_billing_machine.py"
JUDGING = "tests/integration/test_judgement_machine.py"

MUTANTS = {
    "the first of two costs is taken": (
        COLLECTING,
        "answer.py",
        "elif self._posted[id] == cost:",
        "elif id in self._posted:",
    ),
    "fractions are cut off": (COLLECTING, "answer.py", "ROUND_CEILING", "ROUND_FLOOR"),
    "whose turn was taken over settles all the same": (
        COLLECTING,
        "store/turns.py",
        "cost_endpoints.c.provider == turn.provider, cost_endpoints.c.fence == turn.fence\n",
        "cost_endpoints.c.provider == turn.provider\n",
    ),
    "an id expires before its time": (
        COLLECTING,
        "store/ledger.py",
        "over = now_us - since_us >= policy.expire_after_s * SECOND_US",
        "over = now_us - since_us >= policy.expire_after_s",
    ),
    "an id expires with the first answer after long": (
        COLLECTING,
        "store/ledger.py",
        " and one.asks + 1 >= policy.least_asks",
        "",
    ),
    "what stands in the ledger is posted again by a correction": (
        JUDGING,
        "store/corrections.py",
        "change = to_nano_usd - (before or 0)",
        "change = to_nano_usd",
    ),
    "a clock that jumped back posts into the past": (
        JUDGING,
        "store/ledger.py",
        "return max(now_us, (await connection.execute(newest)).scalar_one_or_none() or 0)",
        "return now_us",
    ),
    "what a person judged is disputed again": (
        JUDGING,
        "store/recheck.py",
        "if claim is None or (one.id, claim) in known:",
        "if claim is None:",
    ),
    "a cost that changed replaces the one that stands": (
        JUDGING,
        "store/recheck.py",
        ".values(state=State.DISPUTED.value, ",
        ".values(state=State.DISPUTED.value, cost_nano_usd=int(claim.split()[0]) % 2**62, ",
    ),
    "what is disputed can be corrected": (
        JUDGING,
        "store/corrections.py",
        "if held.state is State.DISPUTED:",
        "if held.state is State.EXPIRED:",
    ),
}


@pytest.fixture
def mutant(tmp_path):
    """Makes a source tree in which one file of billing is another; what to put before the path."""

    def made(file: str, old: str, new: str) -> Path:
        package = tmp_path / "src" / "roadworthy"
        package.mkdir(parents=True)
        for there in (ROOT / "src" / "roadworthy").iterdir():
            if there.name not in {"billing", "__pycache__"}:
                (package / there.name).symlink_to(there.resolve())
        shutil.copytree(ROOT / "billing", package / "billing", ignore=shutil.ignore_patterns("__pycache__"))
        source = package / "billing" / file
        text = source.read_text()
        assert text.count(old) == 1, f"{file} has changed: {old!r} is there {text.count(old)} times"
        source.write_text(text.replace(old, new))
        return package.parent

    return made


def python(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the mutant before everything else on its path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "ROADWORTHY_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )


def test_the_mutant_is_what_is_run(mutant):
    source = mutant("answer.py", "ROUND_CEILING", "ROUND_FLOOR")
    done = python(source, "-c", "from roadworthy.billing import answer, collector; print(answer.__file__)")
    assert done.stdout.strip() == str(source / "roadworthy" / "billing" / "answer.py"), done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_machine_notices(mutant, name):
    machine, *change = MUTANTS[name]
    source = mutant(*change)
    done = python(source, *"-m pytest -x -p no:cacheprovider --show-capture=no -k sqlite".split(), machine)
    assert done.returncode == 1, f"nothing was noticed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert "AssertionError" in done.stdout
    assert "assert not self.faults" not in done.stdout, "the mutant broke off"
    assert "the machine came across too little" not in done.stdout
