"""How long `roadworthy --help` and the pytest plugin keep a user waiting, beside a bare interpreter.

Run: `python bench/startup.py`. Rounds are interleaved, so that a noisy machine disturbs all alike; the medians count.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 11
BARE = "python -c pass"
COMMANDS = {
    BARE: ["-c", "pass"],
    "import typer": ["-c", "import typer"],
    "roadworthy --help": ["-m", "roadworthy", "--help"],
    "roadworthy check --help": ["-m", "roadworthy", "check", "--help"],
    "import pytest": ["-c", "import pytest"],
    "import pytest, our plugin": ["-c", "import pytest, roadworthy.conformance.pytest_plugin"],
}
BUDGET_MS = 300


def took_ms(arguments: list[str]) -> float:
    """Wall time in milliseconds of one process, from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Run the rounds and print the table."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        took_ms(arguments)  # warms the disk cache and the byte code
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            times[name].append(took_ms(arguments))
    bare = statistics.median(times[BARE])
    print(f"start-up in ms, {ROUNDS} interleaved rounds, Python {sys.version.split()[0]}")
    print(f"{'':28}{'median':>8}{'best':>8}{'over bare':>11}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:28}{median:8.0f}{min(values):8.0f}{median - bare:11.0f}")
    within = statistics.median(times["roadworthy --help"]) <= BUDGET_MS
    print(f"roadworthy --help: {'within' if within else 'OVER'} the budget of {BUDGET_MS} ms")


if __name__ == "__main__":
    main()
